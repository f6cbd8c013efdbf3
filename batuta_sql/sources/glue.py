"""The AWS Glue Data Catalog as a virtual catalog: described as it is now, read where files lie.

Databases, tables, columns and partitions are asked for when a query names them, and never kept.
DuckDB reads the files; those of a Delta table by its log (``delta``), of an Iceberg table by its
metadata (``glue_iceberg``).
"""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import duckdb
from cachetools import LRUCache
from sqlglot import exp

from batuta_sql.errors import DataError, Error, NotSupportedError, OperationalError, QueryCancelled
from batuta_sql.labels import KEY, TableLabels
from batuta_sql.plan.site import Capabilities, TableInfo
from batuta_sql.plan.translate import quoted_table
from batuta_sql.secrets import Secret, redact
from batuta_sql.source_settings import GlueSettings
from batuta_sql.sources.base import FragmentQuery, SourceEstimate, TableName
from batuta_sql.sources.catalog_tags import with_tags
from batuta_sql.sources.delta import DeltaReader, DeltaTranslator, split_version
from batuta_sql.sources.embedded import ViewNames, estimated
from batuta_sql.sources.file_labels import labels_of_files
from batuta_sql.sources.glue_catalog import GlueCatalog, at_once
from batuta_sql.sources.glue_expression import filter_expression
from batuta_sql.sources.glue_files import DataFile, check_place, files_below, place_of
from batuta_sql.sources.glue_iceberg import GlueIceberg, is_iceberg_view
from batuta_sql.sources.glue_info import kind_of, table_info
from batuta_sql.sources.glue_labels import told_labels
from batuta_sql.sources.glue_projection import is_projected, projected
from batuta_sql.sources.glue_scan import (
    HiveScan,
    Part,
    Values,
    fitting,
    parquet_sets,
    relation,
    value_of,
)
from batuta_sql.sources.glue_tables import (
    HiveTable,
    Record,
    Storage,
    reader_of,
    storage_of,
    table_of,
)
from batuta_sql.sources.iceberg_reader import split_reference
from batuta_sql.sources.object_store import ObjectStore
from batuta_sql.sources.parquet_footers import MOST_FILES, is_exact, scanned_bytes, uses_of
from batuta_sql.sources.partition_pruning import partition_condition
from batuta_sql.sources.sizes import parsed

_TABLES_KEPT = 512
_DELTA = "delta table"


class GlueTranslator(DeltaTranslator):
    """A table without a version is one of files; its view is called after its whole path."""

    def __init__(self, names: ViewNames, iceberg: GlueIceberg) -> None:
        super().__init__(names)
        self._iceberg = iceberg

    def table(self, table: TableInfo) -> exp.Table:
        if table.version is None:
            return quoted_table(("/".join(table.path),))
        if table.kind == GlueIceberg.table_kind:
            return self._iceberg.capabilities.translator.table(table)
        return super().table(table)


@dataclass(frozen=True)
class _Described:
    """A table as it was when it was described last: what a fragment reads has to be that."""

    table: HiveTable
    columns: tuple[tuple[str, str], ...]


class Glue(DeltaReader):
    """The databases of a Glue Data Catalog, or one of them."""

    kind = "glue"

    def __init__(self, name: str, settings: GlueSettings) -> None:
        super().__init__(name, settings.query_timeout)
        self._settings = settings
        self._catalog = GlueCatalog(name, settings)
        self._places: LRUCache[str, str] = LRUCache(_TABLES_KEPT)
        self._tables: LRUCache[str, _Described] = LRUCache(_TABLES_KEPT)
        self._known = threading.Lock()
        self._iceberg = GlueIceberg(
            self,
            self._catalog.storage_options,
            self._catalog.secrets,
            (settings.connect_timeout, settings.query_timeout),
            self._attach,
        )

    @cached_property
    def capabilities(self) -> Capabilities:
        translator = GlueTranslator(self._views, self._iceberg)
        return Capabilities(dialect="duckdb", translator=translator, windows=True)

    @cached_property
    def _store(self) -> ObjectStore:
        """The files' store."""
        settings = self._settings
        options = {k: Secret.of(v) for k, v in self._catalog.storage_options().items()}
        if settings.access_key_id is None:
            # s3fs finds them where boto3 does, and renews them by itself.
            for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
                if key not in settings.storage_options:
                    options.pop(key, None)
            if settings.profile is not None:
                options["AWS_PROFILE"] = Secret.of(settings.profile)
        else:
            given = {
                "AWS_ACCESS_KEY_ID": settings.access_key_id,
                "AWS_SECRET_ACCESS_KEY": settings.secret_access_key,
                "AWS_SESSION_TOKEN": settings.session_token,
            }
            options |= {k: v for k, v in given.items() if v is not None}
        return ObjectStore(
            self.name,
            # As secrets, not as what they say now: some end.
            {**options, **settings.storage_options},
            settings.connect_timeout,
            settings.query_timeout,
            self._catalog.secrets,
        )

    # --- the catalog ---------------------------------------------------------------------------

    def list_tables(self) -> Sequence[TableName]:
        listed = at_once(lambda d: (d, self._catalog.tables(d)), self._catalog.databases())
        return [
            TableName((database, str(t["Name"])), kind_of(t))
            for database, all_ in listed
            for t in all_
        ]

    def resolve(self, path: tuple[str, ...]) -> Sequence[TableInfo]:
        asked, version = split_reference(path[-1])
        records = self._found((*path[:-1], asked))
        return at_once(lambda r: self._table_of(r, version), records)

    def _found(self, path: tuple[str, ...]) -> list[Record]:
        """The tables that a name may mean; in Glue all names are in lower case."""
        match tuple(p.lower() for p in path):
            case (name,):
                databases = self._catalog.databases()
            case (database, name):
                only = self._settings.database
                if only is not None and only.lower() != database:
                    return []
                databases = [database]
            case _:
                return []
        found = at_once(lambda d: self._catalog.table(d, name), databases)
        return [r for r in found if r is not None]

    def _table_of(self, record: Record, version: str | None) -> TableInfo:
        path = (str(record["DatabaseName"]), str(record["Name"]))
        try:
            self._check_filters(record)
            match reader_of(record):
                case "delta":
                    found = self._delta(record, path, version)
                case "hive":
                    if version is not None:
                        raise NotSupportedError(
                            f'"{".".join(path)}" has no versions: its files are all that there is'
                        )
                    found = self._described(table_of(record), path)
                case "iceberg":
                    found = self._iceberg.describe(record, path, version)
        except NotSupportedError as error:
            error.source = error.source or self.name
            raise
        return self._labelled(found, record)

    def _check_filters(self, record: Record) -> None:
        """Files hold what Lake Formation's filters hide.

        :raises NotSupportedError: for a table that has such filters.
        """
        registered = bool(record.get("IsRegisteredWithLakeFormation"))
        if not registered or self._settings.lake_formation == "ignore":
            return
        if self._catalog.is_filtered(record):
            raise NotSupportedError(
                f'"{record["DatabaseName"]}.{record["Name"]}" has data filters in Lake Formation,'
                " of which its files know nothing",
                hint='lake_formation = "ignore" reads the files whole, where S3 lets you',
            )

    def _labelled(self, table: TableInfo, record: Record) -> TableInfo:
        """A table with the labels of its parameters, and of its LF-Tags where they are wanted."""
        labels = told_labels(record, self.name)
        columns = tuple(replace(c, labels=c.labels | labels.of(c.name)) for c in table.columns)
        found = replace(table, columns=columns, labels=table.labels | labels.rows)
        if not self._settings.tags:
            return found
        return with_tags(found, *self._catalog.tags(record))

    def _delta(self, record: Record, path: tuple[str, ...], asked: str | None) -> TableInfo:
        """A Delta table: the catalog tells where it lies, and its log all else."""
        storage = record.get("StorageDescriptor") or {}
        # Spark writes a placeholder for the location, and the path beside it.
        told = ((storage.get("SerdeInfo") or {}).get("Parameters") or {}).get("path")
        location = place_of(str(told or storage.get("Location") or ""))
        check_place(location, self.name)
        name = "/".join(path)
        with self._known:
            self._places[name] = location
        version = split_version(f"{path[-1]}@{asked}")[1] if asked is not None else None
        if asked is not None and version is None:
            raise NotSupportedError(
                f'"{".".join(path)}@{asked}": a version of a Delta table is written @v and a number'
            )
        return self._table(name, path, version)

    def _described(self, table: HiveTable, path: tuple[str, ...]) -> TableInfo:
        found = table_info(self.name, table, path)
        described = _Described(table, tuple((c.name, c.type) for c in found.columns))
        with self._known:
            self._tables["/".join(path)] = described
        return found

    # --- Delta, in place -----------------------------------------------------------------------

    def _location(self, name: str) -> str:
        with self._known:
            found = self._places.get(name)
        if found is None:
            raise OperationalError(f'the table "{name}" was not described', source=self.name)
        return found

    def _access(self, name: str) -> Mapping[str, str]:
        return self._catalog.storage_options() if "://" in self._location(name) else {}

    def _secret_values(self) -> list[str]:
        return self._catalog.secrets()

    def _attach(self, url: str) -> None:
        self._store.attach(self.engine, url)

    # --- files ---------------------------------------------------------------------------------

    def relation(self, cursor: duckdb.DuckDBPyConnection, name: str, query: FragmentQuery) -> str:
        if is_iceberg_view(name):
            return self._iceberg.relation(cursor, name, query)
        if split_version(name)[1] is not None:
            return super().relation(cursor, name, query)
        scan = self._scan(cursor, name, query)
        return relation(cursor, self.name, scan, name, self._opener)

    def _opener(self, file: DataFile) -> Callable[[], Any]:
        import pyarrow as pa

        if file.stored is None:
            return lambda: pa.OSFile(file.path, "rb")
        store, url = self._store, file.path
        return lambda: pa.PythonFile(store.stream(url), mode="r")

    def _scan(self, cursor: duckdb.DuckDBPyConnection, name: str, query: FragmentQuery) -> HiveScan:
        """The files that a fragment needs of a table, as they are now.

        :raises OperationalError: where the table is another one than the query was planned for.
        """
        info = next(t for t in query.tables if "/".join(t.path) == name)
        with self._known:
            described = self._tables.get(name)
        if described is None or described.columns != tuple((c.name, c.type) for c in info.columns):
            raise OperationalError(
                f'the table "{info.qualified}" was changed meanwhile',
                source=self.name,
                hint="run the query again",
            )
        table = described.table
        condition = partition_condition(query.sql, name, [k.name for k in table.keys])
        parts = self._parts(cursor, table, condition)
        scan = HiveScan(table, tuple(parts))
        self._check_labels(scan, info)
        stored = next((f.path for f in scan.files if f.stored is not None), None)
        if stored is not None:
            self._store.attach(self.engine, stored)
        return scan

    def _parts(
        self, cursor: duckdb.DuckDBPyConnection, table: HiveTable, condition: str | None
    ) -> list[Part]:
        """The files of the needed partitions, those together that hold their columns alike."""
        common = place_of(table.location)
        found: list[tuple[Storage, str, Values, str]] = []
        if not table.keys:
            found.append((table.storage, common, (), ""))
        elif is_projected(table):
            now = datetime.datetime.now(datetime.UTC)
            listed = projected(table, condition, now)
            values = [tuple(value_of(v) for v in told) for told, _ in listed]
            found += [
                (table.storage, place_of(listed[i][1]), values[i], _shown(table, listed[i][0]))
                for i in fitting(cursor, table, values, condition)
            ]
        else:
            found += self._partitions(cursor, table, condition)
        files = files_below(self.name, self._store, (p for _, p, _, _ in found), common)
        alike: dict[tuple[Storage, str], list[tuple[DataFile, Values]]] = {}
        for storage, place, values_of, shown in found:
            # Errors of text files name the partition where its columns are its own.
            key = (storage, shown if storage != table.storage else "")
            alike.setdefault(key, []).extend((f, values_of) for f in files[place])
        return [
            Part(storage, tuple(f for f, _ in some), tuple(v for _, v in some), shown)
            for (storage, shown), some in alike.items()
            if some
        ]

    def _partitions(
        self, cursor: duckdb.DuckDBPyConnection, table: HiveTable, condition: str | None
    ) -> list[tuple[Storage, str, Values, str]]:
        """The catalog's partitions: filtered there as far as is sure, and here for certain."""
        types = {k.name: k.type for k in table.keys}
        records = self._catalog.partitions(table, filter_expression(condition, types))
        values = [tuple(value_of(str(v)) for v in r.get("Values") or ()) for r in records]
        for told in values:
            if len(told) != len(table.keys):
                raise OperationalError(
                    f'"{table.shown}" has {len(table.keys)} partition keys, and a partition of'
                    f" {len(told)} values",
                    source=self.name,
                )
        kept = fitting(cursor, table, values, condition)
        return [self._partition(table, records[i], values[i]) for i in kept]

    def _partition(
        self, table: HiveTable, record: Record, values: Values
    ) -> tuple[Storage, str, Values, str]:
        told = (record.get("StorageDescriptor") or {}).get("Location")
        texts = [str(v) for v in record.get("Values") or ()]
        named = {k.name: v for k, v in zip(table.keys, texts, strict=True)}
        default = "/".join([table.location.rstrip("/"), *(f"{k}={v}" for k, v in named.items())])
        storage = storage_of(
            {"DatabaseName": table.database, "TableName": table.name, **record}, table.parameters
        )
        return storage, place_of(str(told or default)), values, _shown(table, texts)

    def _check_labels(self, scan: HiveScan, info: TableInfo) -> None:
        """Labels that the files carry have to be known when a query is authorised.

        :raises OperationalError: for files that carry more than the catalog and the settings say.
        """
        parquet = [f for p in scan.parts if p.storage.format == "parquet" for f in p.files]
        stored = [f.stored for f in parquet if f.stored is not None]
        found = labels_of_files(f.path for f in parquet if f.stored is None)
        found |= self._store.labels(stored) if stored else TableLabels()
        if not found:
            return
        known = {c.name: c.labels.all for c in info.columns}
        for column in scan.table.storage.columns:
            more = found.of(column.name).all - known[column.name] - info.labels
            if more:
                raise self._unlabelled(f'column "{column.name}" of "{info.qualified}"', more)
        if found.rows - info.labels:
            raise self._unlabelled(f'"{info.qualified}"', found.rows - info.labels)

    def _unlabelled(self, what: str, labels: frozenset[str]) -> OperationalError:
        return OperationalError(
            f"files of {what} carry the labels {', '.join(sorted(labels))}, of which the catalog"
            " says nothing",
            source=self.name,
            hint=f"put them on the table: its parameter {KEY} in Glue, as JSON:"
            f" {json.dumps(sorted(labels))}",
        )

    # --- estimates -----------------------------------------------------------------------------

    def estimate(self, query: FragmentQuery) -> SourceEstimate:
        """Parquet from the footers of the needed files, text from their sizes."""
        tables = {t.path: t for t in query.tables}.values()
        of_files = [t for t in tables if t.version is None]
        tree = parsed(query)
        sum_, sure, basis = 0.0, "exact", dict[str, None]()
        readers = ((GlueIceberg.table_kind, self._iceberg.estimate), (_DELTA, super().estimate))
        for kind, reader in readers:
            some = tuple(t for t in query.tables if t.version is not None and t.kind == kind)
            if some:
                found = reader(replace(query, tables=some))
                sum_ += found.bytes_scanned or 0.0
                sure = sure if found.confidence == "exact" else "estimated"
                basis[found.basis] = None
        for table in of_files:
            size, exact, words = self._scanned(query, table, tree)
            sum_ += size
            sure = sure if exact else "estimated"
            basis |= dict.fromkeys(words)
        return estimated(query, tree, sum_, sure, ", ".join(basis))

    def _scanned(
        self, query: FragmentQuery, table: TableInfo, tree: exp.Expr | None
    ) -> tuple[float, bool, list[str]]:
        """Bytes that a table's needed files are read of, whether that is certain, and from what."""
        name = self.capabilities.translator.table(table).name
        with self.cursor() as cursor:
            try:
                scan = self._scan(cursor, name, query)
                if tree is None or len(scan.files) > MOST_FILES:
                    return scan.bytes, False, ["file sizes before pruning"]
                sum_, exact, words = 0.0, True, list[str]()
                for part in scan.parts:
                    if part.storage.format != "parquet":
                        sum_ += sum(f.size for f in part.files)
                        words.append("file sizes")
                        continue
                    uses = uses_of(tree, name)
                    for files in parquet_sets(cursor, part):
                        paths = [f.path for f in files.part.files]
                        named = [
                            (c, files.column(c, scan.table)) for c in scan.table.storage.columns
                        ]
                        physical = {c.name: found[0] for c, found in named if found is not None}
                        sum_ += sum(scanned_bytes(cursor, paths, table, u, physical) for u in uses)
                    exact = exact and all(is_exact(table, u) for u in uses)
                    words.append("Parquet footers")
                return sum_, exact, words or ["no files"]
            except duckdb.Error as error:
                raise self.error(error) from None

    # --- errors --------------------------------------------------------------------------------

    def error(self, error: BaseException) -> Error:
        found = super().error(error)
        found.message = redact(found.message, self._catalog.secrets())
        said = found.message.removeprefix("Invalid Input Error: ")
        mine = ('column "', 'partition key column "', '"')
        if not isinstance(error, Error) and said.startswith(mine):
            return DataError(said, source=self.name)
        if "ExpiredToken" in found.message and not isinstance(found, QueryCancelled):
            found.hint = found.hint or "the credentials have ended: renew them, and connect again"
        return found

    def close(self) -> None:
        super().close()
        self._catalog.close()


def _shown(table: HiveTable, values: Sequence[str]) -> str:
    return "/".join(f"{k.name}={v}" for k, v in zip(table.keys, values, strict=True))
