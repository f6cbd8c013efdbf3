"""BigQuery's types: what a column is to DuckDB, and rows of JSON as Arrow arrays.

A row is ``{"f": [{"v": value}, ...]}``; every scalar is a text, a REPEATED value a list of
``{"v": ...}``, a RECORD again ``{"f": [...]}``
(https://cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/list). Whole columns are
converted at once; what does not fit its type is an error, never another value.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batuta_sql.errors import DataError
from batuta_sql.plan.site import ColumnInfo
from batuta_sql.plan.types import decimal_parts

_SPELLINGS = {
    "INTEGER": "INT64",
    "FLOAT": "FLOAT64",
    "BOOLEAN": "BOOL",
    "RECORD": "STRUCT",
    "DECIMAL": "NUMERIC",
    "BIGDECIMAL": "BIGNUMERIC",
}
"""The API's older names: https://cloud.google.com/bigquery/docs/reference/rest/v2/tables."""

_PLAIN = {
    "INT64": "BIGINT",
    "FLOAT64": "DOUBLE",
    "BOOL": "BOOLEAN",
    "STRING": "VARCHAR",
    "BYTES": "BLOB",
    "DATE": "DATE",
    "TIME": "TIME",
    "DATETIME": "TIMESTAMP",
    "TIMESTAMP": "TIMESTAMP WITH TIME ZONE",
    "JSON": "JSON",
}

_COMPUTED_WITH = frozenset(
    {"BIGINT", "DOUBLE", "BOOLEAN", "VARCHAR", "DATE", "TIME", "TIMESTAMP"}
    | {"TIMESTAMP WITH TIME ZONE"}
)

_NOTES = {
    "GEOGRAPHY": "GEOGRAPHY: read as text, WKT",
    "INTERVAL": "INTERVAL: read as text",
    "RANGE": "RANGE: read as text",
    "BIGNUMERIC": "BIGNUMERIC without parameters that DECIMAL can hold: read as text",
    "TIMESTAMP": "TIMESTAMP of 12 digits: read as text, no DuckDB type has picoseconds",
}

_ARROW: dict[str, pa.DataType] = {
    "BIGINT": pa.int64(),
    "HUGEINT": pa.decimal128(38, 0),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "VARCHAR": pa.string(),
    "JSON": pa.string(),
    "BLOB": pa.binary(),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "TIMESTAMP": pa.timestamp("us"),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", tz="UTC"),
}


@dataclass(frozen=True)
class Shape:
    """What a column of a result is made into.

    :param type: the DuckDB type of a scalar, ``LIST`` or ``STRUCT``.
    :param children: the element of a list; the fields of a struct.
    """

    name: str
    type: str
    children: tuple[Shape, ...] = ()

    @property
    def arrow(self) -> pa.DataType:
        match self.type:
            case "LIST":
                return pa.list_(self.children[0].arrow)
            case "STRUCT":
                return pa.struct([pa.field(c.name, c.arrow) for c in self.children])
        parts = decimal_parts(self.type)
        return pa.decimal128(*parts) if parts is not None else _ARROW[self.type]

    @property
    def duckdb(self) -> str:
        """DuckDB's spelling of the type."""
        match self.type:
            case "LIST":
                return self.children[0].duckdb + "[]"
            case "STRUCT":
                fields = (f"{_quoted(c.name)} {c.duckdb}" for c in self.children)
                return f"STRUCT({', '.join(fields)})"
        return self.type


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def shape_of(field: Mapping[str, Any], wanted: str | None = None) -> Shape:
    """How a field of a schema is delivered.

    :param wanted: the DuckDB type that the plan gives the column. Results do not tell the
        parameters of NUMERIC and BIGNUMERIC, the plan knows them.
    """
    if str(field.get("mode", "")).upper() == "REPEATED":
        return Shape(field["name"], "LIST", (shape_of({**field, "mode": ""}),))
    name, kind = field["name"], native_type(field)
    if kind == "STRUCT":
        return Shape(name, "STRUCT", tuple(shape_of(f) for f in field.get("fields", ())))
    exact = wanted is not None and (wanted == "HUGEINT" or decimal_parts(wanted) is not None)
    if wanted is not None and (
        (exact and kind in ("NUMERIC", "BIGNUMERIC", "INT64")) or wanted == "VARCHAR"
    ):
        return Shape(name, wanted)
    return Shape(name, _scalar(kind, field))


def _scalar(kind: str, field: Mapping[str, Any]) -> str:
    precision, scale = int(field.get("precision") or 0), int(field.get("scale") or 0)
    match kind:
        case "NUMERIC":
            return f"DECIMAL({precision},{scale})" if precision else "DECIMAL(38,9)"
        case "BIGNUMERIC":
            return f"DECIMAL({precision},{scale})" if 0 < precision <= 38 else "VARCHAR"
        case "TIMESTAMP" if int(field.get("timestampPrecision") or 6) > 6:
            return "VARCHAR"
    return _PLAIN.get(kind, "VARCHAR")


def native_type(field: Mapping[str, Any]) -> str:
    kind = str(field.get("type", "STRING")).upper()
    return _SPELLINGS.get(kind, kind)


def column_of(field: Mapping[str, Any]) -> ColumnInfo:
    """A column of a table, from its field in the table's schema."""
    shape = shape_of(field)
    kind = native_type(field)
    computed_with = shape.type in _COMPUTED_WITH or decimal_parts(shape.type) is not None
    as_text = shape.type == "VARCHAR" and kind != "STRING"
    return ColumnInfo(
        name=field["name"],
        type=shape.duckdb,
        native=_native(field),
        nullable=str(field.get("mode", "")).upper() != "REQUIRED",
        collation="other" if field.get("collation") else "binary",
        value_sql="CAST({} AS STRING)" if as_text and kind == "TIMESTAMP" else "{}",
        comparable=computed_with and not as_text,
        note=_NOTES.get(kind, f"{kind}: no DuckDB type matches, read as text") if as_text else None,
    )


def _native(field: Mapping[str, Any]) -> str:
    """BigQuery's own spelling of a field's type, for people."""
    kind = native_type(field)
    if kind == "STRUCT":
        kind = f"STRUCT<{', '.join(f['name'] + ' ' + _native(f) for f in field.get('fields', ()))}>"
    elif kind == "RANGE":
        kind = f"RANGE<{(field.get('rangeElementType') or {}).get('type', '')}>"
    elif field.get("precision"):
        scale = field.get("scale")
        kind += f"({field['precision']}{f', {scale}' if scale else ''})"
    elif field.get("maxLength"):
        kind += f"({field['maxLength']})"
    return f"ARRAY<{kind}>" if str(field.get("mode", "")).upper() == "REPEATED" else kind


# --- rows to Arrow -----------------------------------------------------------------------------


def schema_of(shapes: Sequence[Shape]) -> pa.Schema:
    return pa.schema([pa.field(s.name, s.arrow) for s in shapes])


def batch_of(rows: Sequence[Mapping[str, Any]], shapes: Sequence[Shape]) -> pa.RecordBatch:
    """A page of rows as Arrow.

    :raises DataError: naming column and value, where one does not fit; or where a row is not one.
    """
    width = len(shapes)
    try:
        cells = [row["f"] for row in rows]
        if not set(map(len, cells)) <= {width}:
            raise DataError("a row of the answer has another number of columns than its schema")
        columns = [[c[i]["v"] for c in cells] for i in range(width)]
    except (KeyError, TypeError):
        raise DataError("a row of the answer is not of the documented form") from None
    arrays = [_array(v, s, s.name) for v, s in zip(columns, shapes, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema_of(shapes))


def _array(values: list[Any], shape: Shape, column: str) -> pa.Array:
    match shape.type:
        case "LIST":
            return _lists(values, shape, column)
        case "STRUCT":
            return _structs(values, shape, column)
    if not set(map(type, values)) <= {str, type(None)}:
        # JSON's own numbers and truth values, where a server sends them.
        values = [v if v is None or isinstance(v, str) else _text(v, column) for v in values]
    if shape.type == "BLOB":
        return pa.array([v if v is None else _bytes(v, column) for v in values], pa.binary())
    texts = pa.array(values, pa.string())
    try:
        return _converted(texts, shape)
    except pa.ArrowException as error:
        raise _misfit(values, shape, column, error) from None


def _converted(texts: pa.Array, shape: Shape) -> pa.Array:
    match shape.type:
        case "VARCHAR" | "JSON":
            return texts
        case "TIME":
            moments = pc.binary_join_element_wise("1970-01-01T", texts, "")
            return moments.cast(pa.timestamp("us")).cast(pa.time64("us"))
        case "TIMESTAMP WITH TIME ZONE":
            # formatOptions.useInt64Timestamp: microseconds, exactly.
            return texts.cast(pa.int64()).cast(shape.arrow)
    return texts.cast(shape.arrow)


def _misfit(values: list[Any], shape: Shape, column: str, error: Exception) -> DataError:
    """The error of a column, naming the first value that does not fit."""
    for value in values:
        try:
            _converted(pa.array([value], pa.string()), shape)
        except pa.ArrowException:
            return DataError(f'column "{column}" holds {value!r}, which is no {shape.duckdb}')
    return DataError(f'column "{column}": {error}')


def _text(value: Any, column: str) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
    raise DataError(f'column "{column}" holds {type(value).__name__}, where a scalar was told')


def _bytes(text: str, column: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise DataError(f'column "{column}" holds bytes that are not base64') from None


def _lists(values: list[Any], shape: Shape, column: str) -> pa.Array:
    """Lists; BigQuery delivers no NULL array, an empty one stands for it."""
    offsets: list[int | None] = []
    flat: list[Any] = []
    for value in values:
        offsets.append(None if value is None else len(flat))
        if value is None:
            continue
        if not isinstance(value, list):
            raise DataError(f'column "{column}" holds {type(value).__name__} instead of a list')
        flat.extend(item["v"] for item in value)
    offsets.append(len(flat))
    elements = _array(flat, shape.children[0], column)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), elements)


def _structs(values: list[Any], shape: Shape, column: str) -> pa.Array:
    width = len(shape.children)
    cells: list[Sequence[Any]] = []
    nothing = ({"v": None},) * width
    for value in values:
        found = nothing if value is None else value["f"]
        if len(found) != width:
            raise DataError(f'column "{column}" holds a record of another number of fields')
        cells.append(found)
    arrays = [
        _array([c[i]["v"] for c in cells], child, f"{column}.{child.name}")
        for i, child in enumerate(shape.children)
    ]
    mask = pa.array([v is None for v in values], pa.bool_())
    fields = [pa.field(c.name, c.arrow) for c in shape.children]
    return pa.StructArray.from_arrays(arrays, fields=fields, mask=mask)
