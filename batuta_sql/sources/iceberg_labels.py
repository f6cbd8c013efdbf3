"""Labels of Iceberg tables: in the table property ``batuta.labels``, and in their files' footers.

Fields of an Iceberg schema carry no metadata of their own; the property has the form of an Arrow
schema's (``batuta_sql.labels``), with columns by their names in the table. A file's labels are by
its own names, and go to the table's columns by field id.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa

from batuta_sql.errors import OperationalError
from batuta_sql.labels import (
    KEY,
    REST,
    ColumnLabels,
    TableLabels,
    labels_of_schema,
    labels_of_table_text,
)
from batuta_sql.sources.files import path_literal
from batuta_sql.sources.iceberg_metadata import IcebergSnapshot
from batuta_sql.sources.iceberg_schema import FileLayout
from batuta_sql.sources.parquet_layout import Node

_HINT = "the table may not be used before it is known what it holds"


def labels_of_properties(snapshot: IcebergSnapshot, source: str, table: str) -> TableLabels:
    """:raises OperationalError: for labels that cannot be understood, or of columns it lacks."""
    text = snapshot.metadata.properties.get(KEY)
    if text is None:
        return TableLabels()
    names = [c.name for c in snapshot.columns]
    try:
        found = labels_of_table_text(text, names)
        unknown = {n.lower() for n in found.columns if n != REST} - {n.lower() for n in names}
        if unknown:
            raise ValueError(f'there is no column "{min(unknown)}"')
    except ValueError as error:
        raise OperationalError(
            f'the labels of Iceberg table "{table}" cannot be read: {error}',
            source=source,
            hint=_HINT,
        ) from None
    return found


def labels_in_footers(
    cursor: duckdb.DuckDBPyConnection, layouts: Mapping[str, Sequence[Node]], source: str
) -> dict[str, TableLabels]:
    """What each file's footer says, under the names of its own columns.

    :raises OperationalError: for labels that cannot be understood.
    :raises duckdb.Error: for a file that cannot be read.
    """
    paths = ", ".join(path_literal(p) for p in layouts)
    rows = cursor.execute(
        "SELECT file_name, CAST(key AS VARCHAR), value FROM (SELECT file_name, decode(key) AS key,"
        f" value FROM parquet_kv_metadata([{paths}])) WHERE key IN ('ARROW:schema', ?)",
        [KEY],
    ).fetchall()
    schemas: dict[str, pa.Schema] = {}
    for path, key, value in rows:
        if key == KEY:
            names = [n.name for n in layouts[path]]
            plain = pa.schema([(n, pa.null()) for n in names], metadata={KEY: value})
            schemas.setdefault(path, plain)
            continue
        raw = base64.b64decode(value)
        if KEY.encode() in raw:
            schemas[path] = pa.ipc.read_schema(pa.py_buffer(raw))
    found = dict.fromkeys(layouts, TableLabels())
    for path, schema in schemas.items():
        try:
            found[path] = labels_of_schema(schema)
        except ValueError as error:
            raise OperationalError(
                f"{path}: its labels cannot be read: {error}", source=source, hint=_HINT
            ) from None
    return found


def labels_of_files(
    snapshot: IcebergSnapshot,
    layouts: Mapping[str, Sequence[Node]],
    held: Mapping[str, TableLabels],
    source: str,
) -> TableLabels:
    """The union of what the data files' footers say, under the names of the table's columns."""
    found = TableLabels()
    for path, labels in held.items():
        if labels:
            found |= _by_field(snapshot, path, layouts[path], labels, source)
    return found


def _by_field(
    snapshot: IcebergSnapshot, path: str, nodes: Sequence[Node], held: TableLabels, source: str
) -> TableLabels:
    """A file's labels under the names of the table's columns."""
    layout = FileLayout(path, nodes, snapshot.mapping, source)
    columns: dict[str, ColumnLabels] = {}
    for column in snapshot.columns:
        node = layout.node_of(column.field_id)
        labels = held.of(node.name) if node is not None else ColumnLabels(indirect=held.rows)
        if labels:
            columns[column.name] = labels
    return TableLabels(columns, held.rows)
