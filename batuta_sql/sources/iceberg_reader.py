"""Reads Iceberg tables where they lie: pyiceberg the metadata, DuckDB the Parquet files.

``IcebergReader`` is for every source that can give a pyiceberg ``Table`` for a name. Files of one
layout are read by one Parquet reader that is told the table's columns by field id; what deletes
take away is anti-joined by position or by value. Files that a fragment cannot need are left out
(``iceberg_pruning``); below that DuckDB skips row groups by statistics. A fragment names snapshot
and schema, so that it reads what was planned, whatever is committed meanwhile.
"""

from __future__ import annotations

import abc
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
from batuta_sql.plan.site import (
    Capabilities,
    ColumnInfo,
    ColumnStatistics,
    Statistics,
    TableInfo,
)
from batuta_sql.plan.translate import quoted_table
from batuta_sql.secrets import redact
from batuta_sql.sources.base import FragmentQuery, SourceEstimate
from batuta_sql.sources.embedded import EmbeddedSource, ViewNames, ViewTranslator, estimated
from batuta_sql.sources.iceberg_deletes import (
    Equality,
    deleted_positions,
    equality_condition,
    equality_deletes,
    position_files,
)
from batuta_sql.sources.iceberg_labels import labels_of_files, labels_of_properties
from batuta_sql.sources.iceberg_metadata import (
    EMPTY,
    FILE,
    IcebergSnapshot,
    first_line,
    read_snapshot,
)
from batuta_sql.sources.iceberg_pruning import needed_files
from batuta_sql.sources.iceberg_schema import FileLayout, IcebergColumn, Reading
from batuta_sql.sources.parquet_footers import MOST_FILES, is_exact, scanned_bytes, uses_of
from batuta_sql.sources.parquet_layout import Node, entry, layouts_of, reader_of
from batuta_sql.sources.sizes import parsed

if TYPE_CHECKING:
    from pyiceberg.io import FileIO
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot as TableSnapshot

_PINNED = re.compile(r"(.+)@v(\d+)(?:\.(\d+))?")
_SNAPSHOTS_KEPT = 64
_LAYOUTS_KEPT = 100_000


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


@dataclass(frozen=True)
class _Group:
    """Files of which all columns come out in the same way."""

    files: tuple[int, ...]
    readings: tuple[Reading, ...]
    from_partition: tuple[bool, ...]
    positions: bool
    equalities: tuple[int, ...]


class IcebergReader(EmbeddedSource):
    """Reads Iceberg tables, whoever says where they are."""

    table_kind = "iceberg table"

    def __init__(self, name: str, query_timeout: float | None) -> None:
        super().__init__(name, query_timeout)
        self._views = ViewNames()
        self._shown: dict[tuple[str, ...], str] = {}
        self._snapshots: LRUCache[tuple[str, int, int], IcebergSnapshot] = LRUCache(_SNAPSHOTS_KEPT)
        self._layouts: LRUCache[str, tuple[Node, ...]] = LRUCache(_LAYOUTS_KEPT)
        self._snapshots_lock = threading.Lock()

    @abc.abstractmethod
    def _load(self, name: str) -> Opened:
        """The table called ``name`` (the parts of its path, slashes between) as it is now.

        :raises Error: where it cannot be opened.
        """

    def _path_of(self, name: str, location: str) -> str:
        """What DuckDB opens for a file of the table."""
        return local_path(location)

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
        rows, exact = found.rows
        shown = path if asked is None else (*path[:-1], f"{path[-1]}@{asked}")
        self._shown[shown] = name
        bounds = {n: (low, high) for n, low, high in found.bounds}
        return TableInfo(
            source=self.name,
            path=shown,
            columns=tuple(self._column(c, found) for c in found.columns),
            kind=self.table_kind,
            statistics=Statistics(
                rows=float(rows),
                bytes=float(found.bytes),
                exact=exact,
                columns={
                    c.name: ColumnStatistics(
                        null_fraction=found.null_fraction(c.field_id),
                        minimum=bounds.get(c.name, (None, None))[0],
                        maximum=bounds.get(c.name, (None, None))[1],
                    )
                    for c in found.columns
                },
            ),
            version=f"{found.snapshot_id}.{found.schema_id}",
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
        snapshot = snapshot or table.snapshot_by_name(asked)
        if snapshot is None:
            refs = ", ".join(sorted(table.refs()))
            raise ProgrammingError(
                f'Iceberg table "{name}" has no snapshot, branch or tag "{asked}"',
                source=self.name,
                hint=f"branches and tags: {refs}; a snapshot is written @v and its id"
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

    def _labels(self, name: str, found: IcebergSnapshot) -> Any:
        labels = labels_of_properties(found, self.name, name)
        if not self._reads_labels() or not found.files:
            return labels
        self._attach(name, found)
        with self.cursor() as cursor:
            layouts = self._file_layouts(cursor, found, range(len(found.files)))
            try:
                return labels | labels_of_files(cursor, found, layouts, self.name)
            except duckdb.Error as error:
                raise self.error(error) from None

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
        branches = [_branch(snapshot, name, g, equalities) for g in groups]
        return "(" + " UNION ALL ".join(branches) + ")"

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
    ) -> list[_Group]:
        """The files by how their columns come out, and by which deletes are for them."""
        layouts = self._file_layouts(cursor, snapshot, files)
        columns = _needed_columns(snapshot, equalities)
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
        return [_Group(tuple(numbers), *key) for key, numbers in groups.items()]

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
        found.message = redact(found.message, self._secret_values())
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
                                _physical(snapshot, g),
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


def _needed_columns(
    snapshot: IcebergSnapshot, equalities: Sequence[Equality]
) -> tuple[IcebergColumn, ...]:
    """The table's columns, then those that only equality deletes look at."""
    present = {c.field_id for c in snapshot.columns}
    extra = {c.field_id: c for e in equalities for c in e.columns if c.field_id not in present}
    return (*snapshot.columns, *extra.values())


def _physical(snapshot: IcebergSnapshot, group: _Group) -> dict[str, str]:
    """Names of the columns in the files; one that is not there has none."""
    pairs = zip(snapshot.columns, group.readings, strict=False)
    return {c.name: r.physical if r.physical is not None else "" for c, r in pairs}


def _branch(
    snapshot: IcebergSnapshot, name: str, group: _Group, equalities: Sequence[Equality]
) -> str:
    """The SELECT that reads the files of a group.

    Inside it every column has a name of ours: the table's may be those that DuckDB reserves.
    """
    columns = _needed_columns(snapshot, equalities)
    values: dict[int, str] = {}
    entries: list[str] = []
    for i, (column, reading) in enumerate(zip(columns, group.readings, strict=True)):
        if group.from_partition[i]:
            values[column.field_id] = f"CAST(p.p{column.field_id} AS {column.type})"
            continue
        if reading.key is not None:
            entries.append(entry(reading.key, f"c{i}", reading.type))
        values[column.field_id] = reading.of(f"f.c{i}")
    reader = reader_of([snapshot.files[i].path for i in group.files], entries)
    outputs = ", ".join(f"{values[c.field_id]} AS {quote(c.name)}" for c in snapshot.columns)
    sql = f"SELECT {outputs} FROM {reader} AS f"
    if any(group.from_partition) or group.positions or group.equalities:
        # The reader numbers the files that it is given.
        numbers = ", ".join(f"({i}, {number})" for i, number in enumerate(group.files))
        sql += (
            f" JOIN (SELECT n.here, v.* FROM {quote(f'files:{name}')} AS v"
            f" JOIN (VALUES {numbers}) AS n(here, there) ON v.{quote(FILE)} = n.there) AS p"
            " ON f.file_index = p.here"
        )
    if group.positions:
        sql += (
            f" ANTI JOIN {quote(f'positions:{name}')} AS d"
            f" ON p.{quote(FILE)} = d.file AND f.file_row_number = d.pos"
        )
    for i in group.equalities:
        condition = equality_condition(equalities[i], values, f"e{i}")
        sql += f" ANTI JOIN {quote(f'equality:{name}:{i}')} AS e{i} ON {condition}"
    return sql


def split_reference(name: str) -> tuple[str, str | None]:
    """A table's name, and what stands behind an @: a branch, a tag, or v and a snapshot's id."""
    head, mark, reference = name.rpartition("@")
    return (head, reference) if mark and head and reference else (name, None)


def local_path(location: str) -> str:
    """The path of a local file; Iceberg's locations are not URL-encoded."""
    for prefix in ("file://", "file:"):
        if location.startswith(prefix):
            rest = location.removeprefix(prefix)
            return rest if rest.startswith("/") else f"/{rest.partition('/')[2]}"
    return location


def opening_error(source: str, name: str, error: BaseException, secrets: Sequence[str]) -> Error:
    """What is said where a table or catalog cannot be opened."""
    message = redact(first_line(error), secrets)
    return OperationalError(f'Iceberg table "{name}" cannot be opened: {message}', source=source)


def known_access(properties: Mapping[str, str]) -> dict[str, str]:
    """S3 access in FileIO properties under the names that ``ObjectStore`` takes.

    https://py.iceberg.apache.org/configuration/#s3
    """
    names = {
        "s3.endpoint": "AWS_ENDPOINT_URL",
        "s3.access-key-id": "AWS_ACCESS_KEY_ID",
        "s3.secret-access-key": "AWS_SECRET_ACCESS_KEY",
        "s3.session-token": "AWS_SESSION_TOKEN",
        "s3.region": "AWS_REGION",
        "s3.profile-name": "AWS_PROFILE",
        "client.access-key-id": "AWS_ACCESS_KEY_ID",
        "client.secret-access-key": "AWS_SECRET_ACCESS_KEY",
        "client.session-token": "AWS_SESSION_TOKEN",
        "client.region": "AWS_REGION",
        "client.profile-name": "AWS_PROFILE",
    }
    found: dict[str, str] = {}
    for key, name in names.items():
        if properties.get(key):
            found.setdefault(name, properties[key])
    if properties.get("s3.anonymous", "").lower() == "true":
        found["AWS_SKIP_SIGNATURE"] = "true"
    return found
