"""Databricks' types: as DuckDB's, and how a delivered Arrow column becomes exactly the one meant.

https://docs.databricks.com/sql/language-manual/sql-ref-datatypes.html
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

import pyarrow as pa
from sqlglot import exp
from sqlglot.errors import SqlglotError

from batuta_sql.engines.duckdb import quote
from batuta_sql.errors import DataError, InternalError
from batuta_sql.plan.site import Collation

_KIND = exp.DataType.Type

_SCALARS = {
    _KIND.BOOLEAN: "BOOLEAN",
    _KIND.TINYINT: "TINYINT",
    _KIND.SMALLINT: "SMALLINT",
    _KIND.INT: "INTEGER",
    _KIND.BIGINT: "BIGINT",
    _KIND.FLOAT: "FLOAT",
    _KIND.DOUBLE: "DOUBLE",
    _KIND.TEXT: "VARCHAR",
    _KIND.VARCHAR: "VARCHAR",
    _KIND.DATE: "DATE",
    # TIMESTAMP is an instant, TIMESTAMP_NTZ has no zone.
    _KIND.TIMESTAMPTZ: "TIMESTAMP WITH TIME ZONE",
    _KIND.TIMESTAMPLTZ: "TIMESTAMP WITH TIME ZONE",
    _KIND.TIMESTAMPNTZ: "TIMESTAMP",
    _KIND.BINARY: "BLOB",
    _KIND.VARBINARY: "BLOB",
}
_ALIASES = {"long": "bigint", "short": "smallint", "byte": "tinyint", "integer": "int"}
_COLLATED = re.compile(r"\s+collate\s+(\S+)", re.IGNORECASE)


@dataclass(frozen=True)
class Delivery:
    """How a column of a Databricks type is read: the fields of ``ColumnInfo`` of the same names."""

    type: str
    value_sql: str = "{}"
    comparable: bool = True
    collation: Collation = "binary"
    note: str | None = None


def delivery_of(native: str) -> Delivery:
    """How a column of the type ``native``, as the catalog spells it, is read."""
    text = _ALIASES.get(native.strip().lower(), native.strip())
    collations = [c.upper() for c in _COLLATED.findall(text)]
    text = _COLLATED.sub("", text)
    name = re.split(r"[\s(<]", text.lower(), maxsplit=1)[0]
    match name:
        case "char" | "character":
            # Padded with blanks to its length; what is meant has none.
            return Delivery("VARCHAR", "rtrim({})", note="char: without its padding")
        case "variant":
            return Delivery("JSON", "to_json({})", False, note="variant: read as its JSON")
        case "geography" | "geometry":
            return Delivery("VARCHAR", "st_asewkt({})", False, note=f"{name}: read as EWKT")
    type_ = _duckdb(text)
    if type_ is None:
        as_json = name in ("array", "map", "struct")
        how = "to_json({})" if as_json else "CAST({} AS STRING)"
        note = f"{native}: no DuckDB type matches, read as text"
        return Delivery("VARCHAR", how, False, note=note)
    if name in ("array", "map", "struct"):
        return Delivery(type_, comparable=False)
    collation: Collation = "binary" if set(collations) <= {"UTF8_BINARY"} else "other"
    return Delivery(type_, comparable=type_ != "BLOB", collation=collation)


@lru_cache(maxsize=1024)
def _duckdb(text: str) -> str | None:
    try:
        return _type(exp.DataType.build(text, dialect="databricks"))
    except (SqlglotError, ValueError):
        return None


def _type(node: exp.Expression) -> str | None:
    if not isinstance(node, exp.DataType):
        return None
    if node.this == _KIND.DECIMAL:
        digits = [str(p.name) for p in node.expressions] or ["10"]
        return f"DECIMAL({digits[0]},{digits[1] if len(digits) > 1 else 0})"
    inner = node.expressions
    if node.this == _KIND.ARRAY and len(inner) == 1:
        element = _type(inner[0])
        return f"{element}[]" if element else None
    if node.this == _KIND.MAP and len(inner) == 2:
        key, value = _type(inner[0]), _type(inner[1])
        return f"MAP({key}, {value})" if key and value else None
    if node.this == _KIND.STRUCT and inner:
        members = [(m.name, _type(m.args["kind"])) for m in inner if isinstance(m, exp.ColumnDef)]
        if len(members) != len(inner) or not all(t for _, t in members):
            return None
        return "STRUCT(" + ", ".join(f"{quote(n)} {t}" for n, t in members) + ")"
    return _SCALARS.get(node.this)


# --- Arrow -------------------------------------------------------------------------------------

_ARROW = {
    _KIND.BOOLEAN: pa.bool_(),
    _KIND.TINYINT: pa.int8(),
    _KIND.SMALLINT: pa.int16(),
    _KIND.INT: pa.int32(),
    _KIND.BIGINT: pa.int64(),
    _KIND.FLOAT: pa.float32(),
    _KIND.DOUBLE: pa.float64(),
    _KIND.TEXT: pa.string(),
    _KIND.VARCHAR: pa.string(),
    _KIND.JSON: pa.string(),
    _KIND.DATE: pa.date32(),
    _KIND.TIMESTAMP: pa.timestamp("us"),
    _KIND.TIMESTAMPNTZ: pa.timestamp("us"),
    _KIND.TIMESTAMPTZ: pa.timestamp("us", "UTC"),
    _KIND.VARBINARY: pa.binary(),
    # No integer type there has so many digits.
    _KIND.INT128: pa.decimal128(38, 0),
}


@lru_cache(maxsize=1024)
def arrow_of(type_: str) -> pa.DataType:
    """The Arrow type in which a DuckDB type travels from Databricks."""
    return _arrow(exp.DataType.build(type_, dialect="duckdb"))


def _arrow(node: exp.Expression) -> pa.DataType:
    assert isinstance(node, exp.DataType)
    inner = node.expressions
    if node.this == _KIND.DECIMAL:
        return pa.decimal128(int(inner[0].name), int(inner[1].name))
    if node.this in (_KIND.ARRAY, _KIND.LIST):
        return pa.list_(_arrow(inner[0]))
    if node.this == _KIND.MAP:
        return pa.map_(_arrow(inner[0]), _arrow(inner[1]))
    if node.this == _KIND.STRUCT:
        return pa.struct([pa.field(m.name, _arrow(m.args["kind"])) for m in inner])
    found = _ARROW.get(node.this)
    if found is None:
        raise InternalError(f"no Arrow type for {node.sql('duckdb')}")
    return found


def fitted(column: pa.Array, target: pa.DataType, name: str, source: str) -> pa.Array:
    """``column`` as ``target``, value by value the same.

    The API delivers nested values as Arrow's, or as JSON text.

    :raises DataError: naming the column, where that cannot be.
    """
    held = column.type
    if held == target:
        return column
    if pa.types.is_dictionary(held):
        return fitted(column.dictionary_decode(), target, name, source)
    try:
        if pa.types.is_nested(target) and _is_text(held):
            return pa.array([_from_json(v, target) for v in column.to_pylist()], target)
        if _same_values(held, target):
            return column.cast(target, safe=True)
    except (pa.ArrowException, ValueError, InvalidOperation, TypeError) as error:
        raise DataError(f'column "{name}" as {target}: {error}', source=source) from None
    raise DataError(
        f'column "{name}" arrived as {held} where {target} was to come',
        source=source,
        hint="the table may have changed since it was described: run the query again",
    )


def fitted_batch(batch: pa.RecordBatch, schema: pa.Schema, source: str) -> pa.RecordBatch:
    """``batch`` with each column as ``schema`` has it.

    :raises DataError: naming the column that cannot be.
    """
    if batch.num_columns != len(schema):
        raise DataError(f"{batch.num_columns} columns came instead of {len(schema)}", source=source)
    arrays = [
        fitted(column, field.type, field.name, source)
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _is_text(held: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(held) or pa.types.is_large_string(held) or pa.types.is_string_view(held)
    )


_FAMILIES: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    _is_text,
    pa.types.is_date,
    lambda t: pa.types.is_binary(t) or pa.types.is_large_binary(t) or pa.types.is_binary_view(t),
    lambda t: pa.types.is_timestamp(t) and t.tz is None,
    lambda t: pa.types.is_timestamp(t) and t.tz is not None,
    lambda t: pa.types.is_list(t) or pa.types.is_large_list(t),
    pa.types.is_struct,
    pa.types.is_map,
)


def _same_values(held: pa.DataType, target: pa.DataType) -> bool:
    """Whether a checked cast between the types keeps every value or fails."""
    if pa.types.is_null(held):
        return True
    if pa.types.is_floating(held) and pa.types.is_floating(target):
        # A cast to fewer digits rounds without a word.
        return bool(held.bit_width <= target.bit_width)
    if pa.types.is_list(held) and pa.types.is_list(target):
        inner = (held.value_type, target.value_type)
        return inner[0] == inner[1] or _same_values(*inner)
    if pa.types.is_map(held) and pa.types.is_map(target):
        pairs = ((held.key_type, target.key_type), (held.item_type, target.item_type))
        return all(a == b or _same_values(a, b) for a, b in pairs)
    if pa.types.is_struct(held) and pa.types.is_struct(target):
        if [f.name for f in held] != [f.name for f in target]:
            return False
        both = zip(held, target, strict=True)
        return all(a.type == b.type or _same_values(a.type, b.type) for a, b in both)
    return any(is_one(held) and is_one(target) for is_one in _FAMILIES)


def _from_json(text: str | None, target: pa.DataType) -> Any:
    """A nested value from the JSON that the API writes of it; no digit goes through a float."""
    if text is None:
        return None
    return _value(json.loads(text, parse_float=Decimal, object_pairs_hook=list), target)


def _value(found: Any, target: pa.DataType) -> Any:
    """A parsed JSON value as ``target``; objects come as lists of pairs.

    :raises ValueError: where it is not certain what was meant.
    """
    if found is None:
        return None
    if pa.types.is_list(target):
        return [_value(v, target.value_type) for v in _listed(found)]
    if pa.types.is_struct(target):
        members = dict(_pairs(found))
        if unknown := members.keys() - {f.name for f in target}:
            raise ValueError(f"unknown members {sorted(unknown)}")
        return {f.name: _value(members.get(f.name), f.type) for f in target}
    if pa.types.is_map(target):
        return [
            (_value(k, target.key_type), _value(v, target.item_type)) for k, v in _entries(found)
        ]
    if pa.types.is_boolean(target):
        return {"true": True, "false": False, True: True, False: False}[found]
    if isinstance(found, bool):
        raise ValueError(f"{found} is not read as {target}")
    if pa.types.is_integer(target) and isinstance(found, int | str):
        return int(found)
    if pa.types.is_decimal(target) and isinstance(found, int | str | Decimal):
        return Decimal(found)
    if pa.types.is_floating(target):
        return float(found)
    if _is_text(target) and isinstance(found, str):
        return found
    if pa.types.is_date(target):
        return pa.scalar(found).cast(target).as_py()
    if pa.types.is_binary(target):
        try:
            return base64.b64decode(found, validate=True)
        except binascii.Error as error:
            raise ValueError(str(error)) from None
    raise ValueError(f"{found!r} inside JSON text is not read as {target}")


def _listed(found: Any) -> list[Any]:
    if not isinstance(found, list):
        raise ValueError(f"{found!r} is no list")
    return found


def _pairs(found: Any) -> list[tuple[str, Any]]:
    pairs = _listed(found)
    if not all(isinstance(p, tuple) for p in pairs):
        raise ValueError(f"{found!r} is no object")
    return pairs


def _entries(found: Any) -> list[tuple[Any, Any]]:
    """The entries of a map: an object, or a list of objects with ``key`` and ``value``."""
    if all(isinstance(p, tuple) for p in _listed(found)):
        return list(found)
    entries = [dict(_pairs(e)) for e in found]
    return [(e["key"], e["value"]) for e in entries]
