"""One version of a Delta table as its log tells it: columns, files, partition values."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batuta_sql.engines.duckdb import quote
from batuta_sql.errors import Error, NotSupportedError, OperationalError
from batuta_sql.labels import UNLABELLED, ColumnLabels
from batuta_sql.sources.file_labels import delta_column_labels

if TYPE_CHECKING:
    from deltalake import DeltaTable

READABLE_FEATURES = frozenset(
    {
        "appendOnly",
        "columnMapping",
        "timestampNtz",
        "v2Checkpoint",
        "vacuumProtocolCheck",
    }
)
"""Reader features whose tables are read right."""

FILE = "#file"
"""The column of ``DeltaVersion.partitions`` that numbers the files."""

_TYPES = {
    "string": "VARCHAR",
    "long": "BIGINT",
    "integer": "INTEGER",
    "short": "SMALLINT",
    "byte": "TINYINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "binary": "BLOB",
    "date": "DATE",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "timestamp_ntz": "TIMESTAMP",
}


@dataclass(frozen=True)
class DeltaColumn:
    """A column: its name, name and number in the files, DuckDB type."""

    name: str
    physical: str
    field_id: int | None
    type: str
    nullable: bool
    labels: ColumnLabels = UNLABELLED


@dataclass(frozen=True)
class DeltaVersion:
    """One version of a table.

    :param identity: the table's own id: another one under the same path is another table.
    :param by_id: whether the files' columns are found by field id, not by name.
    :param files: absolute paths.
    :param partitions: a row a file: its index in ``files`` as ``FILE`` and the partition values
        under the columns' names; None where the table has no partitions.
    :param rows: None where a file does not tell.
    :param bytes: of all files.
    """

    identity: str
    version: int
    columns: tuple[DeltaColumn, ...]
    by_id: bool
    partition_columns: tuple[str, ...]
    files: tuple[str, ...]
    partitions: pa.Table | None
    rows: int | None
    bytes: int
    bounds: tuple[tuple[str, Any, Any], ...] = ()

    @property
    def stored(self) -> tuple[DeltaColumn, ...]:
        """The columns that are in the files."""
        return tuple(c for c in self.columns if c.name not in self.partition_columns)


def read_version(
    source: str, name: str, table: DeltaTable, *, anywhere: bool = False
) -> DeltaVersion:
    """What the log says of the version that ``table`` is at.

    :param anywhere: whether its files may lie in an object store; ``files`` are then URLs.
    :raises NotSupportedError: where the table needs what cannot be read right.
    :raises OperationalError: where the log cannot be read.
    """
    try:
        _check_features(source, name, table)
        metadata = table.metadata()
        mode = metadata.configuration.get("delta.columnMapping.mode", "none")
        fields = json.loads(table.schema().to_json())["fields"]
        columns = tuple(_column(f, mode, source, name) for f in fields)
        actions = pa.table(table.get_add_actions(flatten=False))
        root = table.table_uri if anywhere else _root(source, name, table)
        counts = actions.column("num_records").to_pylist()
        partition_columns = tuple(metadata.partition_columns)
        return DeltaVersion(
            identity=str(metadata.id),
            version=table.version(),
            columns=columns,
            by_id=mode == "id",
            partition_columns=partition_columns,
            files=tuple(_absolute(root, p) for p in actions.column("path").to_pylist()),
            partitions=_partitions(columns, partition_columns, actions),
            rows=None if None in counts else sum(counts),
            bytes=sum(actions.column("size_bytes").to_pylist()),
            bounds=_bounds(columns, actions),
        )
    except Error:
        raise
    except Exception as error:
        raise OperationalError(
            f'the log of Delta table "{name}" cannot be read: {first_words(error)}', source=source
        ) from None


def first_words(error: BaseException) -> str:
    """The message of deltalake's error without its colours and its list of stack frames."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return re.split(r"\n\s*0: ", text, maxsplit=1)[0].strip()


def _check_features(source: str, name: str, table: DeltaTable) -> None:
    protocol = table.protocol()
    unreadable = set(protocol.reader_features or ()) - READABLE_FEATURES
    if not unreadable and protocol.min_reader_version <= 3:
        return
    hint = None
    if "deletionVectors" in unreadable:
        hint = (
            "rewrite the table without them: REORG TABLE ... APPLY (PURGE), then drop the feature"
        )
    what = ", ".join(sorted(unreadable)) or f"reader version {protocol.min_reader_version}"
    raise NotSupportedError(
        f'Delta table "{name}" needs {what}, which cannot be read', source=source, hint=hint
    )


def _root(source: str, name: str, table: DeltaTable) -> str:
    parts = urllib.parse.urlsplit(table.table_uri)
    if parts.scheme in ("s3", "s3a"):
        return urllib.parse.unquote(table.table_uri)
    if parts.scheme not in ("", "file"):
        raise NotSupportedError(
            f'Delta table "{name}" lies on {parts.scheme}://, which is not read yet', source=source
        )
    return urllib.parse.unquote(parts.path) if parts.scheme else table.table_uri


def _absolute(root: str, path: str) -> str:
    """A file of the table; the log holds its path URL-encoded."""
    plain = urllib.parse.unquote(path.removeprefix("file://"))
    return plain if plain.startswith("/") or "://" in plain else f"{root.rstrip('/')}/{plain}"


def _column(field: dict[str, Any], mode: str, source: str, table: str) -> DeltaColumn:
    metadata = field.get("metadata") or {}
    mapped = mode != "none"
    if mapped and _holds_struct(field["type"]):
        raise NotSupportedError(
            f'column "{field["name"]}" of Delta table "{table}" is nested and mapped,'
            " which is not read yet",
            source=source,
        )
    return DeltaColumn(
        name=field["name"],
        physical=metadata.get("delta.columnMapping.physicalName", field["name"])
        if mapped
        else field["name"],
        field_id=metadata.get("delta.columnMapping.id") if mapped else None,
        type=_type(field["type"], source, table),
        nullable=field["nullable"],
        labels=delta_column_labels(metadata, f'column "{field["name"]}" of "{table}"', source),
    )


def _holds_struct(kind: Any) -> bool:
    match kind:
        case {"type": "struct"}:
            return True
        case {"type": "array", "elementType": element}:
            return _holds_struct(element)
        case {"type": "map", "keyType": key, "valueType": value}:
            return _holds_struct(key) or _holds_struct(value)
    return False


def _type(kind: Any, source: str, table: str) -> str:
    match kind:
        case str() if kind in _TYPES:
            return _TYPES[kind]
        case str() if kind.startswith("decimal"):
            return kind.upper().replace(" ", "")
        case {"type": "struct", "fields": fields}:
            inner = ", ".join(
                f"{quote(f['name'])} {_type(f['type'], source, table)}" for f in fields
            )
            return f"STRUCT({inner})"
        case {"type": "array", "elementType": element}:
            return f"{_type(element, source, table)}[]"
        case {"type": "map", "keyType": key, "valueType": value}:
            return f"MAP({_type(key, source, table)}, {_type(value, source, table)})"
    raise NotSupportedError(
        f'Delta table "{table}" has a column of type {kind}, which cannot be read', source=source
    )


def _partitions(
    columns: Sequence[DeltaColumn], names: Sequence[str], actions: pa.Table
) -> pa.Table | None:
    """The partition values as they come, in Arrow: no value is ever written as text."""
    if not names:
        return None
    by_name = {c.name: c for c in columns}
    found = {FILE: pa.array(range(actions.num_rows), pa.int64())}
    for name in names:
        values = _member(actions, "partition", (name, by_name[name].physical))
        if values is None:
            raise ValueError(f'no values for the partition column "{name}"')
        found[name] = values
    return pa.table(found)


def _member(
    actions: pa.Table, group: str, names: Sequence[str]
) -> pa.Array | pa.ChunkedArray | None:
    """A member of one of the struct columns of the log's actions, under the first fitting name."""
    index = actions.schema.get_field_index(group)
    if index < 0 or not pa.types.is_struct(actions.schema.field(index).type):
        return None
    kind = actions.schema.field(index).type
    for name in names:
        position = kind.get_field_index(name)
        if position >= 0:
            members = [chunk.flatten()[position] for chunk in actions.column(index).chunks]
            return pa.chunked_array(members, kind.field(position).type)
    return None


def _bounds(columns: Sequence[DeltaColumn], actions: pa.Table) -> tuple[tuple[str, Any, Any], ...]:
    """Smallest and largest value of each column whose every file tells both."""
    found: list[tuple[str, Any, Any]] = []
    for column in columns:
        if column.type not in ("BIGINT", "INTEGER", "SMALLINT", "TINYINT", "DATE"):
            continue
        ends = [_member(actions, g, (column.name, column.physical)) for g in ("min", "max")]
        try:
            low, high = (e.to_pylist() if e is not None else [None] for e in ends)
        except (OverflowError, ValueError):
            continue  # a date that Python does not have
        if low and None not in low and None not in high:
            found.append((column.name, min(low), max(high)))
    return tuple(found)
