"""Restores what a fragment delivered: Arrow arrays become the arrays that were meant.

Everything here reinterprets memory or repairs single values; nothing goes through text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from batuta_sql.errors import DataError, InternalError
from batuta_sql.plan.translate import WireColumn, quoted_column

_DUCKDB_TYPE = b"batuta.duckdb_type"
"""A field's metadata: the type that DuckDB would not see."""

_POSTGRESQL_EPOCH_DAYS = 10_957
_POSTGRESQL_EPOCH_MICROS = 946_684_800_000_000
_INT32_MAX, _INT64_MAX = 2**31 - 1, 2**63 - 1


def restore(batch: pa.RecordBatch, columns: Sequence[tuple[str, WireColumn]]) -> pa.RecordBatch:
    """``batch`` with each column restored and called by its symbol."""
    if batch.num_columns != len(columns):
        raise InternalError(
            f"a fragment delivered {batch.num_columns} columns instead of {len(columns)}"
        )
    arrays = [_restore(batch.column(i), wire.arrow) for i, (_, wire) in enumerate(columns)]
    # The field's metadata may hold the type of an extension that pyarrow does not know.
    fields = [
        pa.field(symbol, array.type, metadata=batch.schema.field(i).metadata)
        for i, ((symbol, _), array) in enumerate(zip(columns, arrays, strict=True))
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def restored_schema(schema: pa.Schema, columns: Sequence[tuple[str, WireColumn]]) -> pa.Schema:
    """The schema of restored batches."""
    # pa.array([], type) knows neither unions nor what extends a type within another.
    empty = pa.RecordBatch.from_arrays(
        [pa.nulls(0, f.type) for f in schema], schema=pa.schema(list(schema))
    )
    return restore(empty, columns).schema


def with_duckdb_types(schema: pa.Schema, types: Sequence[str]) -> pa.Schema:
    """``schema`` with the types of columns that Arrow cannot tell DuckDB: enums, tuples.

    :param types: the DuckDB types of all columns.
    """
    fields = [
        field.with_metadata({**(field.metadata or {}), _DUCKDB_TYPE: type_.encode()})
        if _is_lost(type_)
        else field
        for field, type_ in zip(schema, types, strict=True)
    ]
    return pa.schema(fields, schema.metadata)


def decoders(schema: pa.Schema, columns: Sequence[tuple[str, WireColumn]]) -> dict[str, str]:
    """The expressions that restore columns as DuckDB reads them, where they need one.

    :param schema: of the restored batches.
    """
    found = planned_decoders(columns)
    for field in schema:
        type_ = (field.metadata or {}).get(_DUCKDB_TYPE)
        if type_ is not None:
            found[field.name] = f"CAST({found.get(field.name, '{}')} AS {type_.decode()})"
    return found


def restoring(decode: Mapping[str, str], columns: Iterable[tuple[str, str]]) -> str:
    """The select list that restores what has arrived.

    :param columns: the symbols, and what they are called then.
    """
    return ", ".join(
        f"{decode.get(symbol, '{}').replace('{}', _quoted(symbol))} AS {_quoted(name)}"
        for symbol, name in columns
    )


def _quoted(name: str) -> str:
    return quoted_column(name, None).sql("duckdb")


def planned_decoders(columns: Sequence[tuple[str, WireColumn]]) -> dict[str, str]:
    """The expressions that restore columns, as far as they are known before anything arrives."""
    found: dict[str, str] = {}
    for symbol, wire in columns:
        if wire.decode is not None:
            found[symbol] = wire.decode
        elif wire.type is not None and wire.arrow is None:
            found[symbol] = f"CAST({{}} AS {wire.type})"
    return found


def restored_in_view(type_: str) -> str | None:
    """The expression that makes a column of ``type_``, ``{}`` standing for what DuckDB reads of
    its Arrow array; None where that is the same.
    """
    return f"CAST({{}} AS {type_})" if _is_lost(type_) else None


def _is_lost(type_: str) -> bool:
    """Whether DuckDB reads another type from the Arrow array that it has written."""
    return "ENUM(" in type_ or "TUPLE(" in type_


def _restore(array: pa.Array, form: str | None) -> pa.Array:
    if isinstance(array.type, pa.OpaqueType) and array.type.vendor_name == "PostgreSQL":
        array = array.storage
    if form is None:
        return array
    name, _, arguments = form.partition(":")
    match name:
        case "decimal64":
            width, scale = arguments.split(",")
            return _scaled(array, int(width), int(scale))
        case "postgresql-epoch":
            return _finite_again(array)
    raise InternalError(f"unknown wire form {form}")


def _scaled(array: pa.Array, width: int, scale: int) -> pa.Array:
    """Integers scaled by 10^scale are exactly the memory of a 64-bit decimal."""
    if not pa.types.is_int64(array.type):
        array = array.cast(pa.int64())
    import pyarrow.compute as pc

    bounds = pc.min_max(array).as_py()
    if bounds["max"] is not None and max(-bounds["min"], bounds["max"]) >= 10**width:
        raise DataError(
            f"a value does not fit DECIMAL({width},{scale})",
            hint="cast an operand to a wider DECIMAL, as DuckDB asks for",
        )
    validity, data = array.buffers()
    return pa.Array.from_buffers(
        pa.decimal64(width, scale), len(array), [validity, data], array.null_count, array.offset
    )


def _finite_again(array: pa.Array) -> pa.Array:
    """PostgreSQL's infinities overflow when the driver moves the epoch from 2000 to 1970.

    ``infinity`` is the largest integer of the type, ``-infinity`` the smallest; after the wrap
    both lie far below any real date. DuckDB's are the largest and its negative.
    """
    if pa.types.is_date32(array.type):
        raw_type, shift, top = pa.int32(), _POSTGRESQL_EPOCH_DAYS, _INT32_MAX
    elif pa.types.is_timestamp(array.type) and array.type.unit == "us":
        raw_type, shift, top = pa.int64(), _POSTGRESQL_EPOCH_MICROS, _INT64_MAX
    else:
        return array
    size = 2 * (top + 1)
    positive, negative = top + shift - size, -top - 1 + shift
    import pyarrow.compute as pc

    raw = array.view(raw_type)
    low = pc.min(raw).as_py()
    if low is None or low > max(positive, negative):
        return array
    for wrapped, value in ((positive, top), (negative, -top)):
        hit = pc.equal(raw, pa.scalar(wrapped, raw_type))
        raw = pc.if_else(hit, pa.scalar(value, raw_type), raw)
    return raw.view(array.type)
