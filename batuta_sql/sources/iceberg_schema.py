"""Columns of an Iceberg table in DuckDB's types, and how they come out of a Parquet file.

Columns are found by field id, in nested values too: a file may hold them under other names, in
another order, narrower, or not at all. https://iceberg.apache.org/spec/#column-projection
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batuta_sql.engines.duckdb import quote
from batuta_sql.errors import NotSupportedError, OperationalError
from batuta_sql.sources.parquet_layout import Node, is_other_time, text

if TYPE_CHECKING:
    from pyiceberg.schema import Schema
    from pyiceberg.table.name_mapping import MappedField
    from pyiceberg.types import IcebergType, NestedField

_PRIMITIVES = {
    "boolean": "BOOLEAN",
    "int": "INTEGER",
    "long": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "date": "DATE",
    "time": "TIME",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "timestamp_ns": "TIMESTAMP_NS",
    "timestamptz_ns": "TIMESTAMPTZ_NS",
    "string": "VARCHAR",
    "uuid": "UUID",
    "binary": "BLOB",
    "unknown": "VARCHAR",
}


VALUE = "\0value"
"""Stands in SQL for what was read of a file."""


@dataclass(frozen=True)
class IcebergColumn:
    """A column: its DuckDB type, and the field of the table's schema that it is."""

    name: str
    field_id: int
    type: str
    native: str
    nullable: bool
    field: NestedField = field(repr=False)


@dataclass(frozen=True)
class Reading:
    """How one column comes out of files of one layout.

    :param key: its field id or name in the file; None: the file does not have it.
    :param physical: its name in the file.
    :param type: as which it is read.
    :param sql: the table's value, ``VALUE`` standing for what was read; a constant without ``key``.
    """

    key: int | str | None
    physical: str | None
    type: str
    sql: str

    def of(self, read: str) -> str:
        """The table's value of what was read under the name ``read``."""
        return self.sql.replace(VALUE, read)


def columns_of(schema: Schema, source: str, table: str) -> tuple[IcebergColumn, ...]:
    """:raises NotSupportedError: for a type that cannot be read."""
    return tuple(column_of(f, source, table) for f in schema.fields)


def column_of(one: NestedField, source: str, table: str) -> IcebergColumn:
    """:raises NotSupportedError: for a type that cannot be read."""
    try:
        type_ = duckdb_type(one.field_type)
    except KeyError as error:
        raise NotSupportedError(
            f'column "{one.name}" of Iceberg table "{table}" has the type {error.args[0]},'
            " which is not read",
            source=source,
        ) from None
    return IcebergColumn(one.name, one.field_id, type_, str(one.field_type), not one.required, one)


def duckdb_type(kind: IcebergType) -> str:
    """:raises KeyError: for a type that DuckDB does not have."""
    from pyiceberg.types import DecimalType, FixedType, ListType, MapType, StructType

    match kind:
        case StructType():
            inner = ", ".join(f"{quote(f.name)} {duckdb_type(f.field_type)}" for f in kind.fields)
            return f"STRUCT({inner})"
        case ListType():
            return f"{duckdb_type(kind.element_type)}[]"
        case MapType():
            return f"MAP({duckdb_type(kind.key_type)}, {duckdb_type(kind.value_type)})"
        case DecimalType():
            return f"DECIMAL({kind.precision},{kind.scale})"
        case FixedType():
            return "BLOB"
    return _PRIMITIVES[str(kind)]


class FileLayout:
    """The columns of one file, as the fields of a table.

    :param nodes: what the file holds.
    :param mapping: the table's name mapping, for a file without field ids.
    :raises OperationalError: for a file that has neither.
    """

    def __init__(
        self,
        path: str,
        nodes: Sequence[Node],
        mapping: Sequence[MappedField] | None,
        source: str,
    ) -> None:
        self._nodes = nodes
        self._mapping = None if any(n.has_ids for n in nodes) else mapping
        if self._mapping is None and nodes and not any(n.has_ids for n in nodes):
            raise OperationalError(
                f"{path} has no field ids, and its table no name mapping to find columns by name",
                source=source,
                hint="set the table property schema.name-mapping.default",
            )

    def node_of(self, field_id: int) -> Node | None:
        """The file's top-level column that is this field."""
        return _child(self._nodes, field_id, self._mapping)[0]

    def reading(self, column: IcebergColumn) -> Reading:
        """How ``column`` comes out of this file."""
        node, mapped = _child(self._nodes, column.field_id, self._mapping)
        if node is None or str(column.field.field_type) == "unknown":
            return Reading(None, None, column.type, default_sql(column.field))
        key = column.field_id if self._mapping is None else node.name
        sql = _converted(VALUE, node, column.field.field_type, mapped, 0)
        if sql is None:
            return Reading(key, node.name, column.type, VALUE)
        return Reading(key, node.name, node.type, f"CAST({sql} AS {column.type})")


def _child(
    nodes: Iterable[Node], field_id: int, mapping: Sequence[MappedField] | None
) -> tuple[Node | None, Sequence[MappedField] | None]:
    """The node that is a field, and the mapping of what is in it."""
    if mapping is None:
        return next((n for n in nodes if n.field_id == field_id), None), None
    entry = next((m for m in mapping if m.field_id == field_id), None)
    if entry is None:
        return None, ()
    return next((n for n in nodes if n.name in entry.names), None), entry.fields


def _inside(mapping: Sequence[MappedField] | None, field_id: int) -> Sequence[MappedField] | None:
    """The mapping of what is in a list's element, or in a map's key or value."""
    if mapping is None:
        return None
    return next((m.fields for m in mapping if m.field_id == field_id), ())


def _converted(
    value: str,
    node: Node,
    kind: IcebergType,
    mapping: Sequence[MappedField] | None,
    depth: int,
) -> str | None:
    """SQL that makes the table's value of a file's; None: what the reader does by itself."""
    from pyiceberg.types import ListType, MapType, StructType

    match kind:
        case StructType():
            return _converted_struct(value, node, kind, mapping, depth)
        case ListType():
            element = _element(node, kind.element_id)
            below = _inside(mapping, kind.element_id)
            name = f"x{depth}"
            inner = _converted(name, element, kind.element_type, below, depth + 1)
            if inner is None and node.type == duckdb_type(kind):
                return None
            return f"list_transform({value}, lambda {name}: {inner or name})"
        case MapType():
            return _converted_map(value, node, kind, mapping, depth)
    wanted = duckdb_type(kind)
    if node.type == wanted:
        return None
    if is_other_time(node.type, wanted):
        # In both directions: from the one kind to the other by way of UTC.
        return f"timezone('UTC', {value})"
    match node.type, wanted:
        case "BLOB", "UUID":
            return f"CAST(lower(hex({value})) AS UUID)"
        case "BLOB", "VARCHAR":
            return f"decode({value})"
        case "VARCHAR", "BLOB":
            return f"encode({value})"
    return None if depth == 0 else f"CAST({value} AS {wanted})"


def _converted_struct(
    value: str, node: Node, kind: Any, mapping: Sequence[MappedField] | None, depth: int
) -> str | None:
    straight = node.type == duckdb_type(kind)
    parts: list[str] = []
    for one in kind.fields:
        child, below = _child(node.children, one.field_id, mapping)
        if child is None:
            parts.append(f"{quote(one.name)} := {default_sql(one)}")
            straight = False
            continue
        read = f"struct_extract({value}, {text(child.name)})"
        inner = _converted(read, child, one.field_type, below, depth + 1)
        straight = straight and inner is None and child.name == one.name
        parts.append(f"{quote(one.name)} := {inner or read}")
    if straight:
        return None
    return f"CASE WHEN {value} IS NOT NULL THEN struct_pack({', '.join(parts)}) END"


def _converted_map(
    value: str, node: Node, kind: Any, mapping: Sequence[MappedField] | None, depth: int
) -> str | None:
    pair = node.children[0]
    key, item = pair.children
    name = f"x{depth}"
    found = [
        _converted(f"{name}.{part}", inner, type_, _inside(mapping, number), depth + 1)
        for part, inner, type_, number in (
            ("key", key, kind.key_type, kind.key_id),
            ("value", item, kind.value_type, kind.value_id),
        )
    ]
    if found == [None, None] and node.type == duckdb_type(kind):
        return None
    keys, values = (f or f"{name}.{p}" for f, p in zip(found, ("key", "value"), strict=True))
    pairs = f"lambda {name}: struct_pack(k := {keys}, v := {values})"
    return f"map_from_entries(list_transform(map_entries({value}), {pairs}))"


def _element(node: Node, element_id: int) -> Node:
    """A list's element: below a repeated group, or that group itself in files of old writers.

    https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#lists
    """
    repeated = node.children[0]
    if repeated.field_id == element_id or len(repeated.children) != 1:
        return repeated
    return repeated.children[0]


def default_sql(one: NestedField) -> str:
    """The value of a field in files that were written before it was added."""
    type_ = duckdb_type(one.field_type)
    match one.initial_default:
        case None:
            shown = "NULL"
        case bytes() as value:
            shown = f"unhex('{value.hex()}')"
        case bool() | int() | decimal.Decimal() | float() | str() | uuid.UUID() as value:
            shown = text(str(value))
        case datetime.date() | datetime.time() as value:
            shown = text(value.isoformat())
        case value:
            raise NotSupportedError(
                f'the default of the field "{one.name}" is a {type(value).__name__}, which is not'
                " read"
            )
    return f"CAST({shown} AS {type_})"
