"""Databricks SQL: statements at a warehouse, tables of the Unity Catalog.

Tables are described through REST, without a warehouse; a query's fragments run as statements of the
SQL Statement Execution API (``databricks_statements``), or through ADBC where ``transport`` says so
(``databricks_adbc``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from batuta_sql.errors import OperationalError
from batuta_sql.source_settings import DatabricksSettings
from batuta_sql.sources.base import (
    Capabilities,
    FragmentQuery,
    Load,
    Snapshot,
    SourceEstimate,
    Statistics,
    TableInfo,
    TableName,
    Usage,
)
from batuta_sql.sources.catalog_tags import with_tags
from batuta_sql.sources.databricks_adbc import AdbcTransport, SparkCatalog
from batuta_sql.sources.databricks_catalog import (
    Record,
    UnityCatalog,
    at_once,
    table_info,
)
from batuta_sql.sources.databricks_rest import RestError, Workspace
from batuta_sql.sources.databricks_results import (
    StatementSnapshot,
    numbers_of_parts,
    parts_of,
)
from batuta_sql.sources.databricks_sql import capabilities, without_variables
from batuta_sql.sources.databricks_statements import Statement
from batuta_sql.sources.databricks_warehouse import Warehouse


class Databricks:
    """A SQL warehouse of a Databricks workspace."""

    kind = "databricks"
    remembers_catalog = True

    def __init__(self, name: str, settings: DatabricksSettings) -> None:
        self.name = name
        self._settings = settings
        self._workspace = Workspace(name, settings)
        self._warehouse = Warehouse(self._workspace, settings.query_timeout)
        self._ran: set[str] = set()
        """The ids of statements whose results are read in parts; those of other programs apart."""
        self._others: set[str] = set()
        self._adbc: AdbcTransport | None = None
        if settings.transport != "statement_api":
            self._adbc = AdbcTransport(name, settings, self._workspace)
        self._catalog: UnityCatalog | SparkCatalog = UnityCatalog(self._workspace, settings)
        if self._adbc is not None and settings.host is None and settings.profile is None:
            self._catalog = SparkCatalog(self._adbc, settings)
        self._has_warehouse = settings.transport != "spark_connect"

    @property
    def query_timeout(self) -> float | None:
        return self._settings.query_timeout

    @cached_property
    def capabilities(self) -> Capabilities:
        return capabilities()

    def list_tables(self) -> Sequence[TableName]:
        return self._catalog.list_tables()

    def resolve(self, path: tuple[str, ...]) -> Sequence[TableInfo]:
        found: Sequence[TableInfo] = at_once(self._described, self._catalog.find(path))
        return found

    def _described(self, record: Record) -> TableInfo:
        sizes = self._warehouse.statistics(record) if self._has_warehouse else Statistics()
        bases = self._catalog.bases(record)
        table = table_info(self.name, record, statistics=sizes, bases=bases)
        return with_tags(table, *self._catalog.tags(record))

    def estimate(self, query: FragmentQuery) -> SourceEstimate:
        if self._has_warehouse:
            return self._warehouse.estimate(query)
        return SourceEstimate(rows=query.rows, basis="a cluster tells no sizes beforehand")

    def open(self, readers: int | None = 1) -> Snapshot:
        if self._adbc is not None:
            return self._adbc.open()
        return StatementSnapshot(self._statement, self._settings.max_connections, self._billed)

    def _billed(self, statement_id: str) -> Usage | None:
        """What was billed for a statement, unless another program ran it."""
        if not self._settings.pricing.charges or statement_id in self._others:
            return None
        return self._warehouse.usage(statement_id)

    @property
    def keeps_results(self) -> bool:
        return self._adbc is None

    def parts_of_result(self, query: FragmentQuery) -> Sequence[tuple[str, float]]:
        statement = self._statement(query.sql)
        try:
            statement.run()
        except BaseException:
            statement.cancel()
            raise
        self._ran.add(str(statement.id))
        return parts_of(statement)

    def has_result(self, part: str) -> bool:
        statement = self._statement("")
        statement.id, _ = numbers_of_parts([part])
        try:
            statement.reopen()
        except OperationalError as error:
            if isinstance(error, RestError) and error.status not in (400, 404):
                raise
            return False
        if statement.id not in self._ran:
            self._others.add(statement.id)
        return True

    def _statement(self, sql: str) -> Statement:
        body = {
            "disposition": "EXTERNAL_LINKS",
            "format": "ARROW_STREAM",
            # Not waited for: only its id makes a statement one that can be cancelled.
            "wait_timeout": "0s",
        }
        if self._settings.catalog is not None:
            body["catalog"] = self._settings.catalog
        if self._settings.schema_ is not None:
            body["schema"] = self._settings.schema_
        sent = without_variables(sql)
        return Statement(self._workspace, sent, body, self._settings.query_timeout)

    def load(self) -> Load | None:
        return self._warehouse.load() if self._has_warehouse else None

    def seconds_left(self) -> float | None:
        return self._workspace.seconds_left()

    def close(self) -> None:
        if self._adbc is not None:
            self._adbc.close()
        self._workspace.close()
