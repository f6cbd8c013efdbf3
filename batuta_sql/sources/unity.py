"""The Unity Catalog as a virtual catalog: described as it is now, read where the files lie.

A Delta table whose files this machine can reach is read from them (``delta``). Everything else,
and every table of which the catalog hides rows or values from somebody, goes through a SQL
warehouse of the same workspace, where one is configured: DuckDB then scans it as a dataset, so that
only needed columns and rows come.
"""

from __future__ import annotations

import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import duckdb
import pyarrow as pa
from sqlglot import exp

from batuta_sql.engines.duckdb import quote
from batuta_sql.errors import Error, NotSupportedError, OperationalError
from batuta_sql.plan.site import Capabilities, ColumnInfo, TableInfo
from batuta_sql.plan.translate import NotPushable, quoted_table
from batuta_sql.secrets import redact
from batuta_sql.source_settings import UnitySettings
from batuta_sql.sources.base import FragmentQuery, Load, SourceEstimate, TableName
from batuta_sql.sources.catalog_tags import with_tags
from batuta_sql.sources.databricks_catalog import (
    UNITY,
    Record,
    UnityCatalog,
    at_once,
    path_of,
    table_info,
)
from batuta_sql.sources.databricks_rest import Workspace
from batuta_sql.sources.databricks_results import StatementSnapshot
from batuta_sql.sources.databricks_sql import DatabricksTranslator
from batuta_sql.sources.databricks_statements import Statement
from batuta_sql.sources.databricks_types import arrow_of, fitted_batch
from batuta_sql.sources.databricks_warehouse import Warehouse
from batuta_sql.sources.delta import DeltaReader, DeltaTranslator, split_version
from batuta_sql.sources.embedded import EmbeddedReader, EmbeddedSnapshot, estimated
from batuta_sql.sources.sizes import parsed
from batuta_sql.sources.unity_access import (
    is_local,
    storage_options,
    valid_until,
    why_not_in_place,
)

_RENEW_BEFORE_SECONDS = 120.0


class UnityTranslator(DeltaTranslator):
    """A table without a version is the warehouse's."""

    def table(self, table: TableInfo) -> exp.Table:
        if table.version is None:
            return quoted_table(("/".join(table.path),))
        return super().table(table)


@dataclass(frozen=True)
class _Access:
    """What opens a table's files, and until when (seconds since 1970)."""

    options: Mapping[str, str] = field(repr=False)
    until: float


class Unity(DeltaReader):
    """The catalogs of a Databricks workspace, or one of them."""

    kind = "unity"

    def __init__(self, name: str, settings: UnitySettings) -> None:
        super().__init__(name, settings.query_timeout)
        self._settings = settings
        self._workspace = Workspace(name, settings)
        self._catalog = UnityCatalog(self._workspace, settings)
        self._warehouse = Warehouse(self._workspace, settings.query_timeout)
        self._records: dict[str, Record] = {}
        self._vended: dict[str, _Access] = {}
        self._vending = threading.Lock()

    @cached_property
    def capabilities(self) -> Capabilities:
        translator = UnityTranslator(self._views)
        return Capabilities(dialect="duckdb", translator=translator, windows=True)

    @property
    def has_warehouse(self) -> bool:
        return self._workspace.login.warehouse_id is not None

    # --- the catalog ---------------------------------------------------------------------------

    def list_tables(self) -> Sequence[TableName]:
        return self._catalog.list_tables()

    def resolve(self, path: tuple[str, ...]) -> Sequence[TableInfo]:
        asked, version = split_version(path[-1])
        records = self._catalog.find((*path[:-1], asked))
        found: Sequence[TableInfo] = at_once(lambda r: self._described(r, version), records)
        return found

    def _described(self, record: Record, version: int | None) -> TableInfo:
        path = path_of(record)
        tags = self._catalog.tags(record)
        obstacle: str | Error | None = why_not_in_place(record, self._settings.object_stores)
        if obstacle is None:
            name = "/".join(path)
            self._records[name] = record
            try:
                table = self._table(name, path, version)
                return with_tags(table, *tags)
            except NotSupportedError as error:
                obstacle = error
        if self.has_warehouse and version is None:
            sizes = self._warehouse.statistics(record)
            bases = self._catalog.bases(record)
            found = table_info(self.name, record, statistics=sizes, bases=bases)
            return with_tags(found, *tags)
        if isinstance(obstacle, Error):
            raise obstacle
        hint = "give warehouse_id: it is then read through the SQL warehouse"
        if self.has_warehouse:
            hint = "an older version is read from the files only: leave @v out"
        raise NotSupportedError(
            f'"{".".join(path)}" cannot be read in place: {obstacle}', source=self.name, hint=hint
        )

    # --- in place ------------------------------------------------------------------------------

    def _location(self, name: str) -> str:
        record = self._records.get(name)
        if record is None:
            raise OperationalError(f'the table "{name}" was not described', source=self.name)
        location = str(record["storage_location"])
        parts = urllib.parse.urlsplit(location)
        return urllib.parse.unquote(parts.path) if parts.scheme == "file" else location

    def _access(self, name: str) -> Mapping[str, str]:
        """The credentials that the catalog vends for reading the table; none for local files.

        https://docs.databricks.com/api/workspace/temporarytablecredentials
        """
        record = self._records[name]
        if is_local(str(record["storage_location"])):
            return {}
        with self._vending:
            known = self._vended.get(name)
            if known is None or time.time() > known.until - _RENEW_BEFORE_SECONDS:
                body = {"table_id": record.get("table_id"), "operation": "READ"}
                path = f"{UNITY}/temporary-table-credentials"
                told = self._workspace.call("POST", path, body=body)
                known = _Access(storage_options(told), valid_until(told))
                self._vended[name] = known
        told_here = {k: v.reveal() for k, v in self._settings.storage_options.items()}
        return told_here | dict(known.options)

    def _reads_anywhere(self, name: str) -> bool:
        return not is_local(str(self._records[name]["storage_location"]))

    def relation(self, cursor: duckdb.DuckDBPyConnection, name: str, query: FragmentQuery) -> str:
        """Files of this machine are DuckDB's to read; those of a store deltalake's."""
        view, number = split_version(name)
        table = self._views.table(view)
        if not self._reads_anywhere(table):
            return super().relation(cursor, name, query)
        from batuta_sql.engines.remote_dataset import RemoteDataset

        assert number is not None
        version = self._pinned(table, number)
        if any(c.physical != c.name for c in version.columns):
            raise NotSupportedError(
                f'"{table}" maps its columns and lies in an object store: not read yet',
                source=self.name,
            )
        shape = pa.schema([(c.name, arrow_of(c.type)) for c in version.columns])

        def scan(names: Sequence[str], tests: Any) -> pa.RecordBatchReader:
            return self._scan_store(
                table, number, pa.schema([shape.field(n) for n in names]), tests
            )

        cursor.register(f"store:{name}", RemoteDataset(shape, scan))
        return quote(f"store:{name}")

    def _scan_store(
        self, name: str, version: int, shape: pa.Schema, tests: Any
    ) -> pa.RecordBatchReader:
        """A table in an object store, through deltalake's own engine; it skips files.

        Only comparisons that are the same everywhere are left to it, of integers.
        """
        from deltalake import QueryBuilder

        shown = ", ".join(quote(n) for n in shape.names)
        conditions = [
            operator(this=exp.column(column, quoted=True), expression=constant).sql("postgres")
            for column, operator, constant in tests
            if column in shape.names
            and pa.types.is_integer(shape.field(column).type)
            and constant.find(exp.Literal) is not None
            and not constant.find(exp.Cast)
        ]
        where = " WHERE " + " AND ".join(conditions) if conditions else ""
        builder = QueryBuilder().register("t", self._open(name, version))
        reader = pa.RecordBatchReader.from_stream(builder.execute(f"SELECT {shown} FROM t{where}"))
        batches = (fitted_batch(batch, shape, self.name) for batch in reader)
        return pa.RecordBatchReader.from_batches(shape, batches)

    def _secret_values(self) -> list[str]:
        vended = [v for a in self._vended.values() for v in a.options.values()]
        return [*self._settings.secrets(), *vended]

    # --- through the warehouse -----------------------------------------------------------------

    def scan_through(
        self,
        cursor: duckdb.DuckDBPyConnection,
        table: TableInfo,
        statements: StatementSnapshot,
        failed: Callable[[Error], None],
    ) -> str:
        """The FROM item of a table that the warehouse reads, when DuckDB comes to it."""
        from batuta_sql.engines.remote_dataset import RemoteDataset

        columns = {c.name: c for c in table.columns}
        shape = pa.schema([(c.name, arrow_of(c.type)) for c in table.columns])

        def scan(names: Sequence[str], tests: Any) -> pa.RecordBatchReader:
            sql, types = _select(table, [columns[n] for n in names], tests)
            try:
                reader = statements.read(FragmentQuery(sql, types, (table,)))
            except Error as error:
                failed(error)
                raise
            schema = pa.schema([shape.field(n) for n in names])

            def batches() -> Any:
                try:
                    for batch in reader:
                        yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
                except Error as error:
                    failed(error)
                    raise
                finally:
                    reader.close()

            return pa.RecordBatchReader.from_batches(schema, batches())

        registered = "warehouse:" + ".".join(table.path)
        cursor.register(registered, RemoteDataset(shape, scan))
        shown = ", ".join(
            f"CAST({quote(c.name)} AS JSON) AS {quote(c.name)}"
            if c.type == "JSON"
            else quote(c.name)
            for c in table.columns
        )
        return f"(SELECT {shown} FROM {quote(registered)})"

    def statements(self) -> StatementSnapshot:
        """A view of the warehouse for one query."""
        billed = self._warehouse.usage if self._settings.pricing.charges else lambda _: None
        return StatementSnapshot(self._statement, self._settings.max_connections, billed)

    def _statement(self, sql: str) -> Statement:
        body = {"disposition": "EXTERNAL_LINKS", "format": "ARROW_STREAM", "wait_timeout": "0s"}
        return Statement(self._workspace, sql, body, self._settings.query_timeout)

    # --- reading -------------------------------------------------------------------------------

    def open(self, readers: int | None = 1) -> UnitySnapshot:
        return UnitySnapshot(self)

    def estimate(self, query: FragmentQuery) -> SourceEstimate:
        """Of the files from their footers, of the rest from the sizes that the warehouse tells."""
        through = tuple(t for t in query.tables if t.version is None)
        if not through:
            # Reading files runs no warehouse.
            return replace(self._of_files(query), dbus=0.0)
        remote = self._warehouse.estimate(replace(query, tables=through))
        if len(through) == len(query.tables):
            return remote
        local = self._of_files(replace(query, tables=_versioned(query)))
        both = [e.bytes_scanned for e in (local, remote)]
        known = all(b is not None for b in both)
        return replace(
            remote,
            bytes_scanned=sum(b for b in both if b is not None) if known else None,
            confidence=remote.confidence if known else "unknown",
            basis=f"{local.basis}, {remote.basis}",
        )

    def _of_files(self, query: FragmentQuery) -> SourceEstimate:
        """Of files on this machine from their footers, of others from the log's sizes."""
        if not any(self._reads_anywhere("/".join(_plain_path(t))) for t in query.tables):
            return super().estimate(query)
        sizes = [t.statistics.bytes for t in query.tables]
        known = [s for s in sizes if s is not None]
        scanned = sum(known) if len(known) == len(sizes) else None
        return estimated(query, parsed(query), scanned, "estimated", "file sizes of the Delta log")

    def error(self, error: BaseException) -> Error:
        found = super().error(error)
        found.message = redact(found.message, self._secret_values())
        return found

    def load(self) -> Load | None:
        return self._workspace.refusals.load()

    def seconds_left(self) -> float | None:
        return self._workspace.seconds_left()

    def close(self) -> None:
        super().close()
        self._workspace.close()


class _Reading:
    """A source as one ``EmbeddedSnapshot`` sees it: with a view of the warehouse of its own."""

    def __init__(self, source: Unity, statements: StatementSnapshot) -> None:
        self._source = source
        self._statements = statements
        self._failure: Error | None = None
        self.name = source.name
        self.cursor = source.cursor

    def prepare(self, cursor: duckdb.DuckDBPyConnection, query: FragmentQuery) -> None:
        source = self._source
        source.prepare(cursor, replace(query, tables=_versioned(query)))
        for table in {t.path: t for t in query.tables if t.version is None}.values():
            relation = source.scan_through(cursor, table, self._statements, self._failed)
            name = source.capabilities.translator.table(table).name
            cursor.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS SELECT * FROM {relation}")

    def _failed(self, error: Error) -> None:
        self._failure = self._failure or error

    def error(self, error: BaseException) -> Error:
        """What the warehouse said goes before the engine's rewording of it."""
        return self._failure or self._source.error(error)


class UnitySnapshot(EmbeddedSnapshot):
    """One query's view: files through DuckDB, the warehouse through statements."""

    def __init__(self, source: Unity) -> None:
        self._statements = source.statements()
        super().__init__(_Reading(source, self._statements))  # type: ignore[arg-type]

    def read(self, query: FragmentQuery) -> EmbeddedReader:
        return super().read(query)

    def cancel(self) -> None:
        # First: the engine may be waiting for the warehouse.
        self._statements.cancel()
        super().cancel()

    def close(self) -> None:
        self._statements.cancel()
        super().close()
        self._statements.close()


def _select(
    table: TableInfo, columns: Sequence[ColumnInfo], tests: Any
) -> tuple[str, tuple[tuple[str, str | None], ...]]:
    """The statement that reads some columns of a table at the warehouse, and their types.

    :param tests: a column's name, a comparison and a constant each; those that the warehouse is not
        proved to make as DuckDB does are left to DuckDB.
    """
    translator = DatabricksTranslator()
    values = {c.name: translator.scanned(c, "t") for c in table.columns}
    wires = [translator.wire(values[c.name]) for c in columns]
    shown = [exp.alias_(w.sql, f"c{i}", quoted=True) for i, w in enumerate(wires)]
    relation = translator.table(table)
    relation.set("alias", exp.TableAlias(this=exp.to_identifier("t", quoted=True)))
    select = exp.select(*shown).from_(relation)
    for name, comparison, constant in tests:
        test = comparison(this=exp.column(name), expression=constant)
        try:
            select = select.where(translator.predicate(test, values))
        except NotPushable:
            continue
    types = tuple((f"c{i}", w.type) for i, w in enumerate(wires))
    return select.sql("databricks"), types


def _plain_path(table: TableInfo) -> tuple[str, ...]:
    return (*table.path[:-1], split_version(table.name)[0])


def _versioned(query: FragmentQuery) -> tuple[TableInfo, ...]:
    return tuple(t for t in query.tables if t.version is not None)
