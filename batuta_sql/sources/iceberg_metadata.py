"""One snapshot of an Iceberg table as its manifests tell it: columns, files, deletes.

https://iceberg.apache.org/spec/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batuta_sql.errors import Error, NotSupportedError, OperationalError
from batuta_sql.labels import TableLabels
from batuta_sql.plan.site import ColumnStatistics, Statistics
from batuta_sql.sources.iceberg_schema import IcebergColumn, column_of, columns_of

if TYPE_CHECKING:
    from pyiceberg.io import FileIO
    from pyiceberg.manifest import DataFile, ManifestFile
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table
    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.name_mapping import MappedField
    from pyiceberg.table.snapshots import Snapshot

FILE = "#file"
"""The column of ``IcebergSnapshot.register`` that numbers the files."""

EMPTY = 0
"""Stands for the snapshot of a table that has none yet."""

_READERS = 8
_DATA, _POSITIONS, _EQUALITY = 0, 1, 2
_EXACT_BOUNDS = ("INTEGER", "BIGINT", "DATE")
_REFERENCED, _OFFSET = 17, 18
"""Where the reader of manifests puts these fields of format version 3."""


@dataclass(frozen=True)
class IcebergFile:
    """A data file or delete file.

    :param location: as the manifest has it; position deletes name files so.
    :param path: as DuckDB opens it.
    :param sequence: deletes apply to files by this order.
    :param entry: its record in the manifest: counts and bounds.
    """

    location: str
    path: str
    rows: int
    size: int
    spec_id: int
    partition: tuple[Any, ...]
    sequence: int
    entry: DataFile = field(repr=False)

    @property
    def format(self) -> str:
        return str(self.entry.file_format.value)

    @property
    def where(self) -> tuple[int, tuple[Any, ...]]:
        """What a delete file and the data files that it is for share."""
        # A NaN is not equal to another one.
        return self.spec_id, tuple("NaN" if v != v else v for v in self.partition)

    @property
    def referenced(self) -> str | None:
        """The one data file that a deletion vector is for."""
        value = self.entry[_REFERENCED]
        return str(value) if value is not None else None

    @property
    def offset(self) -> int | None:
        """Where in its file a deletion vector begins."""
        value = self.entry[_OFFSET]
        return int(value) if value is not None else None


@dataclass(frozen=True)
class IcebergSnapshot:
    """One snapshot of a table under one schema.

    :param identity: the table's own id: another one under the same name is another table.
    :param positions: position delete files and deletion vectors.
    :param older: fields of older schemas, by id: equality deletes may name dropped columns.
    :param identities: of each partition spec the fields kept as they are: field id and place.
    """

    identity: str
    snapshot_id: int
    schema_id: int
    schema: Schema = field(repr=False)
    metadata: TableMetadata = field(repr=False)
    columns: tuple[IcebergColumn, ...]
    mapping: Sequence[MappedField] | None = field(repr=False)
    files: tuple[IcebergFile, ...] = field(repr=False)
    positions: tuple[IcebergFile, ...] = field(repr=False)
    equalities: tuple[IcebergFile, ...] = field(repr=False)
    older: Mapping[int, IcebergColumn] = field(repr=False)
    identities: Mapping[int, Mapping[int, int]] = field(repr=False)
    labels: TableLabels = field(default_factory=TableLabels)

    @property
    def bytes(self) -> int:
        return sum(f.size for f in (*self.files, *self.positions, *self.equalities))

    @property
    def rows(self) -> tuple[int, bool]:
        """Rows, and whether that is a count."""
        held = sum(f.rows for f in self.files)
        vectors = sum(f.rows for f in self.positions if f.format == "PUFFIN")
        # The same row may be deleted by several files, and a delete may fit no row.
        others = sum(f.rows for f in self.positions if f.format != "PUFFIN")
        exact = not others and not self.equalities
        return max(held - vectors - others, 0), exact

    @cached_property
    def register(self) -> pa.Table:
        """A row a data file: number, location, sequence, number of its partition, and the values
        of its identity partition fields as ``p<field id>``, in Iceberg's own representation."""
        places: dict[tuple[int, tuple[Any, ...]], int] = {}
        found: dict[str, pa.Array] = {
            FILE: pa.array(range(len(self.files)), pa.int64()),
            "location": pa.array([f.location for f in self.files], pa.string()),
            "seq": pa.array([f.sequence for f in self.files], pa.int64()),
            "part": pa.array(
                [places.setdefault(f.where, len(places)) for f in self.files], pa.int64()
            ),
        }
        for field_id in {i for spec in self.identities.values() for i in spec}:
            values = [self.partition_value(f, field_id) for f in self.files]
            column = next((c for c in self.columns if c.field_id == field_id), None)
            if column is not None:
                found[f"p{field_id}"] = _partition_array(values, column.type)
        return pa.table(found)

    @cached_property
    def places(self) -> Mapping[tuple[int, tuple[Any, ...]], int]:
        """The numbers that ``register`` gives partitions."""
        found: dict[tuple[int, tuple[Any, ...]], int] = {}
        for file in self.files:
            found.setdefault(file.where, len(found))
        return found

    def partition_value(self, file: IcebergFile, field_id: int) -> Any:
        place = self.identities[file.spec_id].get(field_id)
        return file.partition[place] if place is not None else None

    @cached_property
    def statistics(self) -> Statistics:
        """What the manifests tell of rows and columns."""
        rows, exact = self.rows
        bounds = {n: (low, high) for n, low, high in self._bounds()}
        columns = {
            c.name: ColumnStatistics(
                null_fraction=self._null_fraction(c.field_id),
                minimum=bounds.get(c.name, (None, None))[0],
                maximum=bounds.get(c.name, (None, None))[1],
            )
            for c in self.columns
        }
        return Statistics(rows=float(rows), bytes=float(self.bytes), exact=exact, columns=columns)

    def _bounds(self) -> tuple[tuple[str, Any, Any], ...]:
        """Smallest and largest value of columns whose every file tells both."""
        from pyiceberg.conversions import from_bytes

        found: list[tuple[str, Any, Any]] = []
        for column in self.columns:
            if column.type not in _EXACT_BOUNDS or not self.files:
                continue
            kind: Any = column.field.field_type
            ends: list[Any] = []
            for name in ("lower_bounds", "upper_bounds"):
                each = [(getattr(f.entry, name) or {}).get(column.field_id) for f in self.files]
                if None in each:
                    break
                try:
                    ends.append([from_bytes(kind, b) for b in each if b is not None])
                except Exception:
                    break
            if len(ends) == 2:
                low, high = min(ends[0]), max(ends[1])
                found.append((column.name, _value(column.type, low), _value(column.type, high)))
        return tuple(f for f in found if f[1] is not None and f[2] is not None)

    def _null_fraction(self, field_id: int) -> float | None:
        """The share of NULLs of a column, where every file tells it."""
        counts = [(f.entry.null_value_counts or {}).get(field_id) for f in self.files]
        rows = sum(f.rows for f in self.files)
        if not rows or None in counts:
            return None
        return sum(c for c in counts if c is not None) / rows


def _value(type_: str, raw: int) -> Any:
    import datetime

    if type_ != "DATE":
        return raw
    try:
        return datetime.date(1970, 1, 1) + datetime.timedelta(days=raw)
    except OverflowError:
        return None


def _partition_array(values: Sequence[Any], type_: str) -> pa.Array:
    """Partition values, as manifests hold them, in Arrow."""
    match type_:
        case "DATE":
            return pa.array(values, pa.int32()).cast(pa.date32())
        case "TIME":
            return pa.array(values, pa.int64()).cast(pa.time64("us"))
        case "TIMESTAMP":
            return pa.array(values, pa.int64()).cast(pa.timestamp("us"))
        case "TIMESTAMP WITH TIME ZONE":
            return pa.array(values, pa.int64()).cast(pa.timestamp("us", "UTC"))
        case "TIMESTAMP_NS":
            return pa.array(values, pa.int64()).cast(pa.timestamp("ns"))
        case "TIMESTAMPTZ_NS":
            return pa.array(values, pa.int64()).cast(pa.timestamp("ns", "UTC"))
        case "UUID":
            import uuid

            shown = [str(uuid.UUID(bytes=v) if isinstance(v, bytes) else v) for v in values]
            return pa.array([None if v is None else s for v, s in zip(values, shown, strict=True)])
    if type_ == "FLOAT":
        return pa.array(values, pa.float32())
    return pa.array(values)


def read_snapshot(
    source: str,
    name: str,
    table: Table,
    io: FileIO,
    snapshot: Snapshot | None,
    schema: Schema,
    path_of: Callable[[str], str],
) -> IcebergSnapshot:
    """What the manifests say of ``snapshot``.

    :param io: opens the manifests.
    :param path_of: makes of a file's location what DuckDB opens.
    :raises NotSupportedError: where the table needs what cannot be read right.
    :raises OperationalError: where a manifest cannot be read.
    """
    try:
        mapping = table.name_mapping()
        files, positions, equalities = _files(table, io, snapshot, path_of)
        _check(source, name, (*files, *positions, *equalities))
        return IcebergSnapshot(
            identity=str(table.metadata.table_uuid),
            snapshot_id=snapshot.snapshot_id if snapshot is not None else EMPTY,
            schema_id=schema.schema_id,
            schema=schema,
            metadata=table.metadata,
            columns=columns_of(schema, source, name),
            mapping=mapping.root if mapping is not None else None,
            files=files,
            positions=positions,
            equalities=equalities,
            older=_older(table, equalities, source, name),
            identities=_identities(table),
        )
    except Error:
        raise
    except Exception as error:
        raise OperationalError(
            f'the manifests of Iceberg table "{name}" cannot be read: {first_line(error)}',
            source=source,
        ) from None


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _files(
    table: Table, io: FileIO, snapshot: Snapshot | None, path_of: Callable[[str], str]
) -> tuple[tuple[IcebergFile, ...], tuple[IcebergFile, ...], tuple[IcebergFile, ...]]:
    manifests = list(snapshot.manifests(io)) if snapshot is not None else []
    with ThreadPoolExecutor(_READERS, "batuta-manifests") as pool:
        lists = list(pool.map(lambda m: _entries(m, io, path_of), manifests))
    found: dict[int, list[IcebergFile]] = {_DATA: [], _POSITIONS: [], _EQUALITY: []}
    for content, file in (pair for pairs in lists for pair in pairs):
        found[content].append(file)
    return tuple(found[_DATA]), tuple(found[_POSITIONS]), tuple(found[_EQUALITY])


def _entries(
    manifest: ManifestFile, io: FileIO, path_of: Callable[[str], str]
) -> Iterable[tuple[int, IcebergFile]]:
    """The living entries of a manifest, with the fields of format version 3 too."""
    from pyiceberg.avro.file import AvroFile
    from pyiceberg.manifest import (
        MANIFEST_ENTRY_SCHEMAS,
        DataFile,
        DataFileContent,
        FileFormat,
        ManifestEntry,
        ManifestEntryStatus,
    )

    reading = AvroFile[ManifestEntry](
        io.new_input(manifest.manifest_path),
        MANIFEST_ENTRY_SCHEMAS[3],
        read_types={-1: ManifestEntry, 2: DataFile},
        read_enums={0: ManifestEntryStatus, 101: FileFormat, 134: DataFileContent},
    )
    found: list[tuple[int, IcebergFile]] = []
    with reading as entries:
        for entry in entries:
            if entry.status == ManifestEntryStatus.DELETED:
                continue
            data = entry.data_file
            sequence = entry.sequence_number
            if sequence is None:
                # Files of this manifest's own commit have the number that the commit got.
                sequence = manifest.sequence_number or 0
            data.spec_id = manifest.partition_spec_id
            file = IcebergFile(
                location=data.file_path,
                path=path_of(data.file_path),
                rows=data.record_count,
                size=data.file_size_in_bytes,
                spec_id=manifest.partition_spec_id,
                partition=tuple(data.partition[i] for i in range(len(data.partition))),
                sequence=sequence,
                entry=data,
            )
            found.append((int(data.content), file))
    return found


def _check(source: str, name: str, files: Iterable[IcebergFile]) -> None:
    for file in files:
        if file.entry.key_metadata is not None:
            raise NotSupportedError(
                f'Iceberg table "{name}" is encrypted, which is not read', source=source
            )
        vector = file.format == "PUFFIN" and int(file.entry.content) == _POSITIONS
        if file.format != "PARQUET" and not vector:
            raise NotSupportedError(
                f'Iceberg table "{name}" has {file.format} files ({file.location}), which are not'
                " read",
                source=source,
                hint="rewrite its files as Parquet: rewrite_data_files, with the table property"
                " write.format.default = parquet",
            )


def _older(
    table: Table, equalities: Sequence[IcebergFile], source: str, name: str
) -> dict[int, IcebergColumn]:
    wanted = {i for f in equalities for i in f.entry.equality_ids or ()}
    found: dict[int, IcebergColumn] = {}
    for _, schema in sorted(table.schemas().items()):
        for one in schema.fields:
            if one.field_id in wanted:
                found[one.field_id] = column_of(one, source, name)
    missing = wanted - found.keys()
    if missing:
        raise NotSupportedError(
            f'Iceberg table "{name}" has equality deletes by nested fields, which are not read',
            source=source,
            hint="rewrite its files: rewrite_data_files applies the deletes",
        )
    floats = [c.name for c in found.values() if c.type in ("FLOAT", "DOUBLE")]
    if floats:
        raise NotSupportedError(
            f'Iceberg table "{name}" has equality deletes by "{floats[0]}", a floating-point'
            " number, which its specification forbids",
            source=source,
        )
    return found


def _identities(table: Table) -> dict[int, dict[int, int]]:
    from pyiceberg.transforms import IdentityTransform

    return {
        number: {
            f.source_id: place
            for place, f in enumerate(spec.fields)
            if isinstance(f.transform, IdentityTransform)
        }
        for number, spec in table.specs().items()
    }
