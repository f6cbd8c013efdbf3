"""Hive's types as the Glue Data Catalog writes them (``map<string,array<int>>``) in DuckDB's words.

https://docs.aws.amazon.com/athena/latest/ug/data-types.html and
https://cwiki.apache.org/confluence/display/Hive/LanguageManual+Types
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from batuta_sql.engines.duckdb import quote

TEXTS = frozenset({"string", "varchar", "char"})
_SCALARS = {
    "boolean": "BOOLEAN",
    "tinyint": "TINYINT",
    "smallint": "SMALLINT",
    "int": "INTEGER",
    "bigint": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "string": "VARCHAR",
    "varchar": "VARCHAR",
    "char": "VARCHAR",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "timestamp with local time zone": "TIMESTAMP WITH TIME ZONE",
    "binary": "BLOB",
}
_OTHER_NAMES = {
    "integer": "int",
    "long": "bigint",
    "short": "smallint",
    "byte": "tinyint",
    "real": "float",
    "double precision": "double",
    "numeric": "decimal",
    "timestamptz": "timestamp with local time zone",
}
_TOKEN = re.compile(r"\s*([<>(),:]|`[^`]*`|[^<>(),:`\s]+(?:\s+[^<>(),:`\s]+)*)\s*")
_MOST_DIGITS = 38


@dataclass(frozen=True)
class HiveType:
    """A type of the catalog.

    :param name: ``int``, ``decimal``, ``array``, ``map``, ``struct`` ...
    :param duckdb: the DuckDB type that holds it; None for one that DuckDB does not have.
    :param inner: of a list its elements, of a map key and value, of a struct its fields.
    """

    name: str
    duckdb: str | None
    inner: tuple[tuple[str, HiveType], ...] = ()

    @property
    def is_nested(self) -> bool:
        return bool(self.inner)

    @property
    def delivered(self) -> str:
        """The DuckDB type of a column of this type: text, where there is none."""
        return self.duckdb or "VARCHAR"


UNKNOWN = HiveType("unknown", None)


@lru_cache(maxsize=4096)
def hive_type(text: str) -> HiveType:
    """The type that the catalog writes as ``text``; ``UNKNOWN`` for one that is not understood."""
    tokens = _tokens(text)
    if tokens is None:
        return UNKNOWN
    try:
        found = _type(tokens)
    except (IndexError, ValueError):
        return UNKNOWN
    return found if not tokens else UNKNOWN


def _tokens(text: str) -> list[str] | None:
    """The tokens, the first one last; None where the text is of another language."""
    found: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            return None
        found.append(match[1])
        at = match.end()
    return found[::-1]


def _type(tokens: list[str]) -> HiveType:
    """Takes one type off the end of ``tokens``.

    :raises ValueError: where there is none.
    """
    name = " ".join(tokens.pop().lower().split())
    name = _OTHER_NAMES.get(name, name)
    match name:
        case "array":
            _expect(tokens, "<")
            element = _type(tokens)
            _expect(tokens, ">")
            of_list = f"{element.duckdb}[]" if element.duckdb else None
            return HiveType(name, of_list, (("element", element),))
        case "map":
            _expect(tokens, "<")
            key = _type(tokens)
            _expect(tokens, ",")
            value = _type(tokens)
            _expect(tokens, ">")
            of_map = f"MAP({key.duckdb}, {value.duckdb})" if key.duckdb and value.duckdb else None
            return HiveType(name, of_map, (("key", key), ("value", value)))
        case "struct":
            return _struct(tokens)
        case "decimal":
            digits = _arguments(tokens) or [10, 0]
            precision, scale = (*digits, 0)[:2]
            if not 0 <= scale <= precision <= _MOST_DIGITS or precision == 0:
                raise ValueError(f"no decimal has {precision} digits")
            return HiveType(name, f"DECIMAL({precision},{scale})")
    if name in ("varchar", "char"):
        _arguments(tokens)
    return HiveType(name, _SCALARS.get(name))


def _struct(tokens: list[str]) -> HiveType:
    _expect(tokens, "<")
    fields: list[tuple[str, HiveType]] = []
    while True:
        field = tokens.pop().strip("`")
        _expect(tokens, ":")
        fields.append((field, _type(tokens)))
        match tokens.pop():
            case ">":
                break
            case ",":
                continue
        raise ValueError("a struct's fields are separated by commas")
    if all(t.duckdb for _, t in fields):
        shown = ", ".join(f"{quote(n)} {t.duckdb}" for n, t in fields)
        return HiveType("struct", f"STRUCT({shown})", tuple(fields))
    return HiveType("struct", None, tuple(fields))


def _arguments(tokens: list[str]) -> list[int]:
    if not tokens or tokens[-1] != "(":
        return []
    tokens.pop()
    found = [int(tokens.pop())]
    while tokens.pop() == ",":
        found.append(int(tokens.pop()))
    return found


def _expect(tokens: list[str], token: str) -> None:
    if tokens.pop() != token:
        raise ValueError(f"{token} is missing")
