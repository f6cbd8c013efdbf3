"""Reads Iceberg tables where they lie: pyiceberg the metadata, DuckDB the Parquet files.

``IcebergReader`` is for every source that can give a pyiceberg ``Table`` for a name. Files of one
layout are read by one Parquet reader that is told the table's columns by field id; what deletes
take away is anti-joined by position or by value. Files that a fragment cannot need are left out
(``iceberg_pruning``); below that DuckDB skips row groups by statistics. A fragment names snapshot
and schema, so that it reads what was planned, whatever is committed meanwhile.
"""

from __future__ import annotations

import abc
import datetime
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import duckdb
from cachetools import LRUCache
from sqlglot import exp

from batuta_sql.engines.duckdb import quote
from batuta_sql.errors import Error, OperationalError, ProgrammingError
from batuta_sql.labels import TableLabels
from batuta_sql.plan.site import (
    Capabilities,
    ColumnInfo,
    TableInfo,
)
from batuta_sql.plan.translate import quoted_table
from batuta_sql.secrets import redact
from batuta_sql.sources.base import FragmentQuery, ParquetFile, SourceEstimate
from batuta_sql.sources.embedded import EmbeddedSource, ViewNames, ViewTranslator, estimated
from batuta_sql.sources.iceberg_access import local_path
from batuta_sql.sources.iceberg_deletes import (
    Equality,
    deleted_positions,
    equality_deletes,
    file_version,
    position_files,
)
from batuta_sql.sources.iceberg_labels import (
    labels_in_footers,
    labels_of_files,
    labels_of_properties,
)
from batuta_sql.sources.iceberg_metadata import (
    EMPTY,
    IcebergSnapshot,
    read_snapshot,
)
from batuta_sql.sources.iceberg_pruning import needed_files
from batuta_sql.sources.iceberg_scan import Group, names_in_files, scan_sql, scanned_columns
from batuta_sql.sources.iceberg_schema import FileLayout, IcebergColumn, Reading
from batuta_sql.sources.parquet_footers import MOST_FILES, is_exact, scanned_bytes, uses_of
from batuta_sql.sources.parquet_layout import Node, holds_as_named, layouts_of
from batuta_sql.sources.sizes import parsed

if TYPE_CHECKING:
    from pyiceberg.io import FileIO
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot as TableSnapshot

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_PINNED = re.compile(r"(.+)@v(\d+)(?:\.(\d+))?")
_SNAPSHOTS_KEPT = 64
_FOOTERS_KEPT = 100_000


class IcebergTranslator(ViewTranslator):
    """Names snapshot and schema in the fragment.

    :param tables: the names of the tables behind paths, in which a branch or tag may stand.
    """

    def __init__(self, names: ViewNames, tables: Mapping[tuple[str, ...], str]) -> None:
        super().__init__(names)
        self._tables = tables

    def table(self, table: TableInfo) -> exp.Table:
        view = self._names.view(self._tables[table.path])
        return quoted_table((f"{view}@v{table.version}",))


@dataclass(frozen=True)
class Opened:
    """A table as it is now.

    :param io: opens its metadata and manifests.
    """

    table: Table
    io: FileIO


class IcebergReader(EmbeddedSource):
    """Reads Iceberg tables, whoever says where they are."""

    table_kind = "iceberg table"

    def __init__(self, name: str, query_timeout: float | None) -> None:
        super().__init__(name, query_timeout)
        self._views = ViewNames()
        self._shown: dict[tuple[str, ...], str] = {}
        self._snapshots: LRUCache[tuple[str, int, int], IcebergSnapshot] = LRUCache(_SNAPSHOTS_KEPT)
        self._layouts: LRUCache[str, tuple[Node, ...]] = LRUCache(_FOOTERS_KEPT)
        self._held_labels: LRUCache[str, TableLabels] = LRUCache(_FOOTERS_KEPT)
        self._snapshots_lock = threading.Lock()

    @abc.abstractmethod
    def _load(self, name: str) -> Opened:
        """The table called ``name`` (the parts of its path, slashes between) as it is now.

        :raises Error: where it cannot be opened.
        """

    def _path_of(self, name: str, location: str) -> str:
        """What DuckDB opens for a file of the table."""
        return local_path(location)

    def _plain(self, message: str) -> str:
        """A message with the files' own locations in it."""
        return message

    def _attach(self, name: str, snapshot: IcebergSnapshot) -> None:
        """Makes the table's files readable in the source's engine."""

    def _told_snapshot(self, name: str) -> int | None:
        """The snapshot that the configuration fixes; None: the newest."""
        return None

    def _reads_labels(self) -> bool:
        """Whether the labels in the files' footers are read."""
        return True

    def _secret_values(self) -> list[str]:
        return []

    @cached_property
    def capabilities(self) -> Capabilities:
        translator = IcebergTranslator(self._views, self._shown)
        return Capabilities(dialect="duckdb", translator=translator, windows=True)

    def _table(self, name: str, path: tuple[str, ...], asked: str | None) -> TableInfo:
        """The table as a query sees it; ``asked`` is what stands behind an @."""
        found = self._now(name, asked)
        shown = path if asked is None else (*path[:-1], f"{path[-1]}@{asked}")
        self._shown[shown] = name
        return TableInfo(
            source=self.name,
            path=shown,
            columns=tuple(self._column(c, found) for c in found.columns),
            kind=self.table_kind,
            statistics=found.statistics,
            version=f"{found.snapshot_id}.{found.schema_id}",
            # Snapshots have random numbers of 64 bits; a table without any has no rows.
            content=f"{found.snapshot_id}.{found.schema_id}",
            labels=found.labels.rows,
        )

    @staticmethod
    def _column(column: IcebergColumn, found: IcebergSnapshot) -> ColumnInfo:
        return ColumnInfo(
            column.name,
            column.type,
            column.native,
            column.nullable,
            note="holds nothing but NULL" if column.native == "unknown" else None,
            labels=found.labels.of(column.name),
        )

    # --- snapshots -----------------------------------------------------------------------------

    def _now(self, name: str, asked: str | None) -> IcebergSnapshot:
        """The snapshot asked for, or the newest, of the table that is there now."""
        opened = self._load(name)
        told = self._told_snapshot(name)
        if asked is None and told is not None:
            asked = f"v{told}"
        snapshot, schema = self._chosen(name, opened.table, asked)
        return self._read(name, opened, snapshot, schema)

    def _chosen(
        self, name: str, table: Table, asked: str | None
    ) -> tuple[TableSnapshot | None, Schema]:
        """A snapshot and the schema that it is read under: an older one's is its own."""
        if asked is None:
            return table.current_snapshot(), table.schema()
        snapshot = None
        if asked[:1] == "v" and asked[1:].isdigit():
            snapshot = table.snapshot_by_id(int(asked[1:]))
        snapshot = snapshot or table.snapshot_by_name(asked) or _as_of(table, asked)
        if snapshot is None:
            refs = ", ".join(sorted(table.refs()))
            raise ProgrammingError(
                f'Iceberg table "{name}" has no snapshot, branch or tag "{asked}"',
                source=self.name,
                hint=f"branches and tags: {refs}; a snapshot is written @v and its id, a moment"
                " as 2024-02-29 12:00"
                if refs
                else "the table is empty",
            )
        schemas = table.schemas()
        current = table.current_snapshot()
        newest = current is not None and current.snapshot_id == snapshot.snapshot_id
        if newest or snapshot.schema_id is None or snapshot.schema_id not in schemas:
            return snapshot, table.schema()
        return snapshot, schemas[snapshot.schema_id]

    def _read(
        self, name: str, opened: Opened, snapshot: TableSnapshot | None, schema: Schema
    ) -> IcebergSnapshot:
        number = snapshot.snapshot_id if snapshot is not None else EMPTY
        key = (name, number, schema.schema_id)
        with self._snapshots_lock:
            known = self._snapshots.get(key)
        # Labels and the name mapping are properties: they change without a new snapshot.
        metadata = opened.table.metadata
        if (
            known is not None
            and known.identity == str(metadata.table_uuid)
            and known.metadata.properties == metadata.properties
        ):
            return known
        try:
            found = read_snapshot(
                self.name,
                name,
                opened.table,
                opened.io,
                snapshot,
                schema,
                lambda location: self._path_of(name, location),
            )
            found = replace(found, labels=self._labels(name, found))
        except Error as error:
            error.message = redact(error.message, self._secret_values())
            raise
        with self._snapshots_lock:
            self._snapshots[key] = found
        return found

    def _labels(self, name: str, found: IcebergSnapshot) -> TableLabels:
        labels = labels_of_properties(found, self.name, name)
        if not self._reads_labels() or not found.files:
            return labels
        self._attach(name, found)
        with self.cursor() as cursor:
            layouts = self._file_layouts(cursor, found, range(len(found.files)))
            with self._snapshots_lock:
                held = {p: self._held_labels[p] for p in layouts if p in self._held_labels}
            new = {p: nodes for p, nodes in layouts.items() if p not in held}
            if new:
                try:
                    read = labels_in_footers(cursor, new, self.name)
                except duckdb.Error as error:
                    raise self.error(error) from None
                with self._snapshots_lock:
                    self._held_labels.update(read)
                held |= read
        return labels | labels_of_files(found, layouts, held, self.name)

    def _pinned(self, name: str, number: int, schema_id: int) -> IcebergSnapshot:
        """The snapshot that a fragment names, as it was when the fragment was planned."""
        with self._snapshots_lock:
            known = self._snapshots.get((name, number, schema_id))
        if known is not None:
            return known
        opened = self._load(name)
        snapshot = opened.table.snapshot_by_id(number) if number != EMPTY else None
        schema = opened.table.schemas().get(schema_id)
        if schema is None or (snapshot is None and number != EMPTY):
            raise OperationalError(
                f'snapshot {number} of Iceberg table "{name}" is not there any more',
                source=self.name,
                hint="run the query again",
            )
        return self._read(name, opened, snapshot, schema)

    def _of_view(self, view: str) -> tuple[str, IcebergSnapshot]:
        match = _PINNED.fullmatch(view)
        assert match is not None
        name = self._views.table(match[1])
        return name, self._pinned(name, int(match[2]), int(match[3] or 0))

    # --- reading -------------------------------------------------------------------------------

    def relation(self, cursor: duckdb.DuckDBPyConnection, name: str, query: FragmentQuery) -> str:
        table, snapshot = self._of_view(name)
        self._attach(table, snapshot)
        files = needed_files(cursor, snapshot, query.sql, name)
        if query.files:
            chosen = set(query.files)
            files = [i for i in files if file_version(snapshot, i) in chosen]
        if not files:
            typed = ", ".join(
                f"CAST(NULL AS {c.type}) AS {quote(c.name)}" for c in snapshot.columns
            )
            return f"(SELECT {typed} WHERE false)"
        cursor.register(f"files:{name}", snapshot.register)
        if position_files(snapshot, files):
            io = self._load(table).io if self._has_vectors(snapshot) else None
            positions = deleted_positions(cursor, snapshot, files, io, self.name)  # type: ignore[arg-type]
            cursor.register(f"positions:{name}", positions)
            deleted_in = frozenset(positions.column("file").unique().to_pylist())
        else:
            deleted_in = frozenset()
        equalities = equality_deletes(cursor, snapshot, files, self.name)
        for i, equality in enumerate(equalities):
            cursor.register(f"equality:{name}:{i}", equality.keys)
        groups = self._groups(cursor, snapshot, files, deleted_in, equalities)
        branches = [scan_sql(snapshot, name, g, equalities) for g in groups]
        return "(" + " UNION ALL ".join(branches) + ")"

    def files_of_table(self, table: TableInfo) -> Sequence[tuple[str, float]]:
        """The data files of the snapshot that it was described at, each with its deletes."""
        if table.version is None or table.path not in self._shown:
            return []
        _, snapshot = self._of_view(self.capabilities.translator.table(table).name)
        return [(file_version(snapshot, i), float(f.size)) for i, f in enumerate(snapshot.files)]

    def parquet_files(self, table: TableInfo, sql: str, most: int) -> Sequence[ParquetFile] | None:
        """The data files, where none of their rows is deleted and no column was renamed."""
        if table.version is None or table.path not in self._shown:
            return None
        view = self.capabilities.translator.table(table).name
        name, snapshot = self._of_view(view)
        self._attach(name, snapshot)
        if snapshot.positions or snapshot.equalities:
            return None
        if any(f.format != "PARQUET" for f in snapshot.files):
            return None
        types = {c.name: c.type for c in snapshot.columns}
        ids = {c.name: c.field_id for c in snapshot.columns}
        with self.cursor() as cursor:
            needed = needed_files(cursor, snapshot, sql, view)
            if len(needed) > most:
                return None
            layouts = self._file_layouts(cursor, snapshot, needed)
        for nodes in layouts.values():
            known = {n.name: n.field_id for n in nodes}
            if not holds_as_named(nodes, types) or any(known[n] != i for n, i in ids.items()):
                return None
        return [ParquetFile(snapshot.files[i].location.removeprefix("file://")) for i in needed]

    @staticmethod
    def _has_vectors(snapshot: IcebergSnapshot) -> bool:
        return any(d.format == "PUFFIN" for d in snapshot.positions)

    def _groups(
        self,
        cursor: duckdb.DuckDBPyConnection,
        snapshot: IcebergSnapshot,
        files: Sequence[int],
        deleted_in: frozenset[int],
        equalities: Sequence[Equality],
    ) -> list[Group]:
        """The files by how their columns come out, and by which deletes are for them."""
        layouts = self._file_layouts(cursor, snapshot, files)
        columns = scanned_columns(snapshot, equalities)
        known: dict[tuple[Node, ...], tuple[Reading, ...]] = {}
        groups: dict[Any, list[int]] = {}
        for number in files:
            file = snapshot.files[number]
            nodes = layouts[file.path]
            if nodes not in known:
                layout = FileLayout(file.path, nodes, snapshot.mapping, self.name)
                known[nodes] = tuple(layout.reading(c) for c in columns)
            readings = known[nodes]
            kept = snapshot.identities[file.spec_id]
            partition = tuple(
                r.key is None and c.field_id in kept for c, r in zip(columns, readings, strict=True)
            )
            applied = tuple(i for i, e in enumerate(equalities) if number in e.files)
            key = (readings, partition, number in deleted_in, applied)
            groups.setdefault(key, []).append(number)
        return [Group(tuple(numbers), *key) for key, numbers in groups.items()]

    def _file_layouts(
        self, cursor: duckdb.DuckDBPyConnection, snapshot: IcebergSnapshot, files: Sequence[int]
    ) -> dict[str, tuple[Node, ...]]:
        """The columns of data files. Files of Iceberg never change: each is asked once."""
        paths = dict.fromkeys(snapshot.files[i].path for i in files)
        with self._snapshots_lock:
            found = {p: self._layouts[p] for p in paths if p in self._layouts}
        new = [p for p in paths if p not in found]
        if new:
            try:
                read = layouts_of(cursor, new)
            except duckdb.Error as error:
                raise self.error(error) from None
            with self._snapshots_lock:
                self._layouts.update(read)
            found |= read
        return found

    def error(self, error: BaseException) -> Error:
        found = super().error(error)
        found.message = redact(self._plain(found.message), self._secret_values())
        return found

    # --- estimates -----------------------------------------------------------------------------

    def estimate(self, query: FragmentQuery) -> SourceEstimate:
        """The files that pruning leaves over, from their footers, and their delete files."""
        tree = parsed(query)
        sum_, sure, basis = 0.0, "exact", dict[str, None]()
        for table in {t.path: t for t in query.tables}.values():
            view = self.capabilities.translator.table(table).name
            name, snapshot = self._of_view(view)
            self._attach(name, snapshot)
            with self.cursor() as cursor:
                needed = needed_files(cursor, snapshot, query.sql, view)
                deletes = [*position_files(snapshot, needed), *snapshot.equalities]
                sum_ += sum(d.size for d in deletes)
                sure = "estimated" if deletes else sure
                if len(needed) > MOST_FILES or tree is None:
                    sum_ += sum(snapshot.files[i].size for i in needed)
                    sure, words = "estimated", "file sizes of the Iceberg manifests"
                else:
                    uses = uses_of(tree, view)
                    groups = self._groups(cursor, snapshot, needed, frozenset(), ())
                    try:
                        sum_ += sum(
                            scanned_bytes(
                                cursor,
                                [snapshot.files[i].path for i in g.files],
                                table,
                                use,
                                names_in_files(snapshot, g),
                            )
                            for g in groups
                            for use in uses
                        )
                    except duckdb.Error as error:
                        raise self.error(error) from None
                    sure = sure if all(is_exact(table, u) for u in uses) else "estimated"
                    words = "Iceberg manifests and Parquet footers"
            basis[words] = None
        return estimated(query, tree, sum_, sure, ", ".join(basis))


def _as_of(table: Table, moment: str) -> TableSnapshot | None:
    """The snapshot that was the table's at a moment, of UTC where it has no zone."""
    try:
        at = datetime.datetime.fromisoformat(moment)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=datetime.UTC)
    milliseconds = (at - _EPOCH) // datetime.timedelta(milliseconds=1)
    return table.snapshot_as_of_timestamp(milliseconds)


def split_reference(name: str) -> tuple[str, str | None]:
    """A table's name, and what stands behind an @: a branch, a tag, or v and a snapshot's id."""
    head, mark, reference = name.rpartition("@")
    return (head, reference) if mark and head and reference else (name, None)
