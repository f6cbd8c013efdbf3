"""SQL that gives values of files in the catalog's types: out of other types, text and JSON.

A value that its type does not hold whole is an error when it is read, never a rounded one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from batuta_sql.engines.duckdb import quote
from batuta_sql.errors import NotSupportedError
from batuta_sql.sources.glue_types import TEXTS, HiveType


class Held(Protocol):
    """The type of a value as DuckDB has it: a ``DuckDBPyType``."""

    @property
    def id(self) -> str: ...

    @property
    def children(self) -> list[tuple[str, Any]]: ...


_WIDER: Mapping[str, frozenset[str]] = {
    "tinyint": frozenset({"SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE"}),
    "smallint": frozenset({"INTEGER", "BIGINT", "FLOAT", "DOUBLE"}),
    "integer": frozenset({"BIGINT", "DOUBLE"}),
    "utinyint": frozenset({"SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE"}),
    "usmallint": frozenset({"INTEGER", "BIGINT", "FLOAT", "DOUBLE"}),
    "uinteger": frozenset({"BIGINT", "DOUBLE"}),
    "float": frozenset({"DOUBLE"}),
    "date": frozenset({"TIMESTAMP"}),
    "timestamp_s": frozenset({"TIMESTAMP"}),
    "timestamp_ms": frozenset({"TIMESTAMP"}),
}
"""Types that hold every value of another one."""

_ZONED = "timestamp with time zone"
_FORMS: Mapping[str, str] = {
    "BOOLEAN": "(?i:true|false)",
    "TINYINT": r"[+-]?\d+",
    "SMALLINT": r"[+-]?\d+",
    "INTEGER": r"[+-]?\d+",
    "BIGINT": r"[+-]?\d+",
    "FLOAT": r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|NaN|[+-]?Infinity",
    "DOUBLE": r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|NaN|[+-]?Infinity",
    "DATE": r"\d{4}-\d{1,2}-\d{1,2}",
    "TIMESTAMP": r"\d{4}-\d{1,2}-\d{1,2}([ T]\d{1,2}:\d{2}(:\d{2}(\.\d{1,6}0*)?)?)?",
    "TIMESTAMP WITH TIME ZONE": (
        r"\d{4}-\d{1,2}-\d{1,2}[ T]\d{1,2}:\d{2}(:\d{2}(\.\d{1,6}0*)?)? ?(Z|UTC|[+-]\d\d(:?\d\d)?)"
    ),
}
"""What a text has to look like: DuckDB's own casts round, and take more than this."""


def fitted(value: str, held: Held, wanted: HiveType, place: str, depth: int = 0) -> str:
    """``value``, which is of the type ``held``, in the type ``wanted``.

    :param place: what the value is, for errors: ``column "a" of db.t``.
    :raises NotSupportedError: where no value of the one type can be one of the other.
    """
    here, there = held.id, wanted.duckdb
    if there is None:
        return f"CAST({value} AS VARCHAR)"
    if wanted.name == "array" and here in ("list", "array"):
        element = f"e{depth}"
        inner = dict(held.children)["child"]
        each = fitted(element, inner, wanted.inner[0][1], place, depth + 1)
        return value if each == element else f"list_transform({value}, lambda {element}: {each})"
    if wanted.name == "map" and here == "map":
        return _fitted_map(value, held, wanted, place, depth)
    if wanted.name == "struct" and here == "struct":
        return _fitted_struct(value, held, wanted, place, depth)
    if wanted.is_nested or here in ("list", "array", "map", "struct", "union"):
        raise NotSupportedError(f"{place} is {_shown(held)} in a file, and {there} in the catalog")
    if wanted.name in TEXTS:
        return _fitted_text(value, held, wanted)
    if there == "BLOB":
        return value if here == "blob" else f"encode(CAST({value} AS VARCHAR))"
    if here == _ZONED and there == "TIMESTAMP":
        # Engines that write zoned timestamps for Hive's mean their wall clock in UTC.
        return f"timezone('UTC', {value})"
    if here == "timestamp" and there == "TIMESTAMP WITH TIME ZONE":
        return f"timezone('UTC', {value})"
    if _shown(held).upper() == there:
        return value
    if there in _WIDER.get(here, ()) or _widens(held, wanted):
        return f"CAST({value} AS {there})"
    return _kept(value, _shown(held), there, place)


def _fitted_text(value: str, held: Held, wanted: HiveType) -> str:
    if held.id == "blob":
        value = f"decode({value})"  # writers of old mark no text as such
    elif _shown(held) != "VARCHAR":  # JSON is a text of another name
        value = f"CAST({value} AS VARCHAR)"
    return f"rtrim({value}, ' ')" if wanted.name == "char" else value


def _fitted_map(value: str, held: Held, wanted: HiveType, place: str, depth: int) -> str:
    inner = dict(held.children)
    entry = f"e{depth}"
    key = fitted(f"{entry}.key", inner["key"], wanted.inner[0][1], place, depth + 1)
    one = fitted(f"{entry}.value", inner["value"], wanted.inner[1][1], place, depth + 1)
    if (key, one) == (f"{entry}.key", f"{entry}.value"):
        return value
    each = f"struct_pack(k := {key}, v := {one})"
    return f"map_from_entries(list_transform(map_entries({value}), lambda {entry}: {each}))"


def _fitted_struct(value: str, held: Held, wanted: HiveType, place: str, depth: int) -> str:
    members: list[str] = []
    same = [n for n, _ in held.children] == [n for n, _ in wanted.inner]
    for name, type_ in wanted.inner:
        alike = alone(name, [n for n, _ in held.children], place)
        if alike is None:
            members.append(f"{quote(name)} := CAST(NULL AS {type_.duckdb})")
            continue
        member = f"struct_extract({value}, {literal(alike)})"
        found = fitted(member, dict(held.children)[alike], type_, place, depth + 1)
        same = same and found == member
        members.append(f"{quote(name)} := {found}")
    if same:
        return value
    return f"CASE WHEN {value} IS NOT NULL THEN struct_pack({', '.join(members)}) END"


def alone(name: str, names: Sequence[str], place: str) -> str | None:
    """The one of ``names`` that is ``name`` but for case; None where there is none.

    :raises NotSupportedError: where there are two.
    """
    alike = [n for n in names if n.lower() == name.lower()]
    if len(alike) > 1:
        shown = " and ".join(f'"{n}"' for n in alike)
        raise NotSupportedError(f"{place} may be any of {shown} in a file: case is not kept")
    return alike[0] if alike else None


def _shown(held: Held) -> str:
    """A type as SQL writes it."""
    return str(held)


def _widens(held: Held, wanted: HiveType) -> bool:
    """Whether a decimal holds every value of a decimal or whole number."""
    if wanted.name != "decimal" or wanted.duckdb is None:
        return False
    digits = {"tinyint": 3, "smallint": 5, "integer": 10, "bigint": 19}.get(held.id)
    if held.id == "decimal":
        told = dict(held.children)
        before, after = int(told["precision"]) - int(told["scale"]), int(told["scale"])
    elif digits is not None:
        before, after = digits, 0
    else:
        return False
    precision, scale = (int(n) for n in wanted.duckdb[len("DECIMAL(") : -1].split(","))
    return before <= precision - scale and after <= scale


def _kept(value: str, here: str, there: str, place: str) -> str:
    """A cast that fails where casting back does not give the same value again."""
    back = f"TRY_CAST(TRY_CAST({value} AS {there}) AS {here})"
    message = f"{place}: the value "
    return (
        f"CASE WHEN {back} IS NOT DISTINCT FROM {value} THEN TRY_CAST({value} AS {there})"
        f" ELSE error({literal(message)} || CAST({value} AS VARCHAR)"
        f" || {literal(f' ({here} in the file) is no {there}, as the catalog says')}) END"
    )


def from_text(value: str, wanted: HiveType, place: str) -> str:
    """A field of a text file, or a partition's value, in the type ``wanted``.

    An empty text is NULL but for text. Nested and binary values stay text.
    """
    there = text_type(wanted)
    if there == "VARCHAR":
        return f"rtrim({value}, ' ')" if wanted.name == "char" else value
    form = _form(there)
    message, rest = f"{place}: the text '", f"' is no {there}"
    return (
        f"CASE WHEN {value} IS NULL OR {value} = '' THEN NULL"
        f" WHEN regexp_full_match({value}, {literal(form)})"
        f" AND TRY_CAST({value} AS {there}) IS NOT NULL THEN TRY_CAST({value} AS {there})"
        f" ELSE error({literal(message)} || {value} || {literal(rest)}) END"
    )


def text_type(wanted: HiveType) -> str:
    """The DuckDB type in which fields of text files of a type arrive."""
    there = wanted.delivered
    return "VARCHAR" if wanted.is_nested or there == "BLOB" else there


def _form(type_: str) -> str:
    if not type_.startswith("DECIMAL"):
        return _FORMS[type_]
    scale = int(type_[:-1].rpartition(",")[2])
    after = rf"\d{{1,{scale}}}0*" if scale else "0+"
    return rf"[+-]?(\d+(\.\d{{0,{scale}}}0*)?|\.{after})"


def from_json(value: str, wanted: HiveType, place: str, *, exact: bool, depth: int = 0) -> str:
    """A JSON value in the type ``wanted``; JSON's null is NULL.

    :param exact: whether keys of objects match with case.
    """
    there = wanted.duckdb
    text = f"({value} ->> '$')"
    if there == "BLOB" and depth:
        raise NotSupportedError(f"{place} has bytes inside, which JSON has not")
    if there is None or wanted.name in TEXTS or there == "BLOB":
        return f"rtrim({text}, ' ')" if wanted.name == "char" else text
    if wanted.name == "array":
        element = f"e{depth}"
        inner = wanted.inner[0][1]
        each = from_json(element, inner, place, exact=exact, depth=depth + 1)
        listed = f"list_transform(CAST({value} AS JSON[]), lambda {element}: {each})"
        return _of_kind(value, "ARRAY", f"CAST({listed} AS {there})", place)
    if wanted.name == "map":
        key, entry = f"k{depth}", wanted.inner[1][1]
        named = from_text(key, wanted.inner[0][1], place)
        of_key = member(value, key)
        found = from_json(of_key, entry, place, exact=exact, depth=depth + 1)
        each = f"struct_pack(k := {named}, v := {found})"
        entries = f"list_transform(json_keys({value}), lambda {key}: {each})"
        return _of_kind(value, "OBJECT", f"CAST(map_from_entries({entries}) AS {there})", place)
    if wanted.name == "struct":
        members = ", ".join(
            f"{quote(n)} := "
            + from_json(
                json_member(value, n, exact=exact, depth=depth),
                t,
                place,
                exact=exact,
                depth=depth + 1,
            )
            for n, t in wanted.inner
        )
        return _of_kind(value, "OBJECT", f"CAST(struct_pack({members}) AS {there})", place)
    found = from_text(text, wanted, place)
    if wanted.name == "decimal":
        # DuckDB reads a JSON number with a point as a DOUBLE: 15 digits are certain.
        lossy = f"json_type({value}) = 'DOUBLE' AND length(regexp_replace({text}, '\\D', '', 'g'))"
        message = literal(f"{place}: the number ")
        found = (
            f"CASE WHEN {lossy} > 15 THEN error({message} || {text} ||"
            f" ' has more digits than JSON keeps: write it as a text') ELSE {found} END"
        )
    return found


def _of_kind(value: str, kind: str, sql: str, place: str) -> str:
    message = literal(f"{place}: the value ")
    return (
        f"CASE WHEN {value} IS NULL OR json_type({value}) = 'NULL' THEN NULL"
        f" WHEN json_type({value}) = '{kind}' THEN {sql}"
        f" ELSE error({message} || CAST({value} AS VARCHAR) || ' is no JSON {kind.lower()}') END"
    )


def json_member(value: str, name: str, *, exact: bool, depth: int = 0) -> str:
    """The member of a JSON object that is called ``name``, in whatever case."""
    if exact:
        return member(value, literal(name))
    key = f"m{depth}"
    alike = f"list_filter(json_keys({value}), lambda {key}: lower({key}) = {literal(name.lower())})"
    return f"coalesce({member(value, literal(name))}, {member(value, f'{alike}[1]')})"


def member(value: str, key: str) -> str:
    """``key``: SQL that gives it."""
    quoted = f"replace(replace({key}, '\\', '\\\\'), '\"', '\\\"')"
    return f"json_extract({value}, '$.\"' || {quoted} || '\"')"


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
