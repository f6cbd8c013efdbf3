"""Databricks through an ADBC driver: the vendor's, or Spark Connect's.

``transport = "adbc"``: a driver that the ADBC driver manager finds by its name; its options are
those of the Databricks driver written in Go. ``transport = "spark_connect"``: adbc-driver-spark, to
a cluster of Databricks or to any Spark Connect server.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from batuta_sql.errors import ConfigError, Error, OperationalError
from batuta_sql.plan.translate import quoted_table
from batuta_sql.secrets import redact
from batuta_sql.source_settings import DatabricksSettings
from batuta_sql.sources.adbc import (
    AdbcPool,
    AdbcReader,
    AdbcSnapshot,
    driver_error,
    fetch_rows,
    quietly,
    translated,
)
from batuta_sql.sources.base import FragmentQuery, TableName
from batuta_sql.sources.databricks_catalog import Record, at_once
from batuta_sql.sources.databricks_rest import Workspace
from batuta_sql.sources.databricks_sql import without_variables
from batuta_sql.sources.databricks_types import arrow_of, fitted_batch
from batuta_sql.sources.spark_session import SessionConnection, options_of, session_of

_TOKEN = re.compile(r"(?:token|password)=([^;&]+)")
_STATES = (
    ("TABLE_OR_VIEW_NOT_FOUND", "42P01"),
    ("UNRESOLVED_COLUMN", "42703"),
    ("PARSE_SYNTAX_ERROR", "42601"),
)


class AdbcTransport:
    """Connections of one source through an ADBC driver."""

    def __init__(self, name: str, settings: DatabricksSettings, workspace: Workspace) -> None:
        self._name = name
        self._settings = settings
        self._workspace = workspace
        self._pool = AdbcPool(self._connect, settings.max_connections)

    def open(self) -> AdbcSnapshot:
        return _FittedSnapshot(self._name, self._pool.take, self._give_back, self._error)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a small metadata statement."""
        connection = self._pool.take()
        fit = False
        try:
            with translated(self._error):
                rows = fetch_rows(connection, sql)
            fit = True
            return rows
        finally:
            self._give_back(connection, fit)

    def close(self) -> None:
        self._pool.close()

    def _give_back(self, connection: Any, fit: bool) -> None:
        if fit:
            self._pool.give_back(connection)
        else:
            quietly(connection.close)

    def _connect(self) -> Any:
        settings = self._settings
        options = {k: v.reveal() for k, v in settings.options.items()}
        through_spark = settings.transport == "spark_connect"
        if "uri" not in options:
            own = {"uri": self._cluster_uri()} if through_spark else self._workspace_options()
            options = own | options
        hint = "check host, login and options of this source"
        try:
            if through_spark:
                return self._in_session(options.pop("uri"), options)
            from adbc_driver_manager import dbapi

            hint = (
                f'the driver manager looks for "{settings.driver}" in ADBC_DRIVER_PATH and the'
                f" usual folders: `dbc install {settings.driver}` puts it there"
            )
            return dbapi.connect(settings.driver, db_kwargs=options, autocommit=True)
        except ConfigError:
            raise
        except Exception as error:
            raise OperationalError(
                self._error(error).message, source=self._name, hint=hint
            ) from None

    def _in_session(self, uri: str, options: dict[str, str]) -> Any:
        """A connection to Spark Connect, in a session of its own where the user has named none."""
        session = session_of(uri, options)
        own = options_of(session) if session is not None else {}
        made = _spark(self._name).connect(uri, db_kwargs=options | own, autocommit=True)
        return SessionConnection(made, session) if session is not None else made

    def _workspace_options(self) -> dict[str, str]:
        """https://docs.adbc-drivers.org/drivers/databricks/ (the driver in Go)"""
        login = self._workspace.login
        parts = urllib.parse.urlsplit(login.host)
        found = {
            "databricks.server_hostname": parts.hostname or "",
            "databricks.port": str(parts.port or 443),
            "databricks.http_path": self._settings.http_path
            or f"/sql/1.0/warehouses/{self._workspace.warehouse_id}",
        }
        if login.token is not None:
            found["databricks.access_token"] = login.token.reveal()
        elif login.client_id is not None and login.client_secret is not None:
            found["databricks.oauth.client_id"] = login.client_id
            found["databricks.oauth.client_secret"] = login.client_secret.reveal()
        if self._settings.catalog is not None:
            found["databricks.catalog"] = self._settings.catalog
        if self._settings.schema_ is not None:
            found["databricks.schema"] = self._settings.schema_
        return found

    def _cluster_uri(self) -> str:
        """https://docs.databricks.com/dev-tools/databricks-connect: the cluster is a header."""
        login = self._workspace.login
        if login.token is None or self._settings.cluster_id is None:
            raise ConfigError(
                f"sources.{self._name}: Spark Connect needs cluster_id and token",
                hint='or options = { uri = "sc://host:port" } for a server of another kind',
            )
        host = urllib.parse.urlsplit(login.host).hostname
        token = urllib.parse.quote(login.token.reveal(), safe="")
        cluster = urllib.parse.quote(self._settings.cluster_id, safe="")
        return f"sc://{host}:443/;token={token};x-databricks-cluster-id={cluster}"

    def _error(self, error: BaseException) -> Error:
        return driver_error(self._name, error, self._clean)

    def _clean(self, message: str) -> str:
        secrets = self._settings.secrets()
        if "uri" in self._settings.options:
            uri = self._settings.options["uri"].reveal()
            secrets += [urllib.parse.unquote(t) for t in _TOKEN.findall(uri)]
        text = re.sub(r"^[A-Z_]+: |\[Spark\] |\.? Vendor code: \d+$", "", " ".join(message.split()))
        for condition, state in _STATES:
            if f"[{condition}]" in text and "SQLSTATE" not in text:
                text = f"{text} SQLSTATE: {state}"
        return redact(text, secrets)


class _FittedSnapshot(AdbcSnapshot):
    def read(self, query: FragmentQuery) -> AdbcReader:
        return _FittedReader(self.run(without_variables(query.sql)), query, self._source)


class _FittedReader(AdbcReader):
    """Holds what a driver delivers against the types that were described."""

    def __init__(self, inner: AdbcReader, query: FragmentQuery, source: str) -> None:
        self._inner = inner
        self._named = source
        self._shape = pa.schema([(n, arrow_of(t or "VARCHAR")) for n, t in query.columns])

    @property
    def schema(self) -> pa.Schema:
        return self._shape

    def __next__(self) -> pa.RecordBatch:
        return fitted_batch(next(self._inner), self._shape, self._named)

    def cancel(self) -> None:
        self._inner.cancel()

    def close(self) -> None:
        self._inner.close()


class SparkCatalog:
    """The tables of a Spark Connect server that is no workspace, told by SQL."""

    def __init__(self, transport: AdbcTransport, settings: DatabricksSettings) -> None:
        self._transport = transport
        self._settings = settings
        self._current: tuple[str, str] | None = None

    def _here(self) -> tuple[str, str]:
        """The catalog and the schema of names that say none."""
        if self._current is None:
            ((catalog, schema),) = self._transport.rows(
                "SELECT current_catalog(), current_schema()"
            )
            self._current = (self._settings.catalog or catalog, self._settings.schema_ or schema)
        return self._current

    def find(self, path: tuple[str, ...]) -> list[Record]:
        if len(path) > 3:
            return []
        full = (*self._here(), *path)[-3:] if len(path) == 1 else (self._here()[0], *path)[-3:]
        catalog, schema, asked = full
        names = [t for t in self._tables(catalog, schema) if t.lower() == asked.lower()]
        exact = [t for t in names if t == asked]
        return [self._described((catalog, schema, t)) for t in exact or names]

    def _described(self, path: tuple[str, str, str]) -> Record:
        name = quoted_table(path).sql("databricks")
        columns: list[Mapping[str, Any]] = []
        for told in self._transport.rows(f"DESCRIBE TABLE {name}"):
            # Partitions and details follow after an empty line.
            if not told[0] or str(told[0]).startswith("#"):
                break
            columns.append({"name": told[0], "type_text": told[1], "position": len(columns)})
        catalog, schema, table = path
        return {
            "catalog_name": catalog,
            "schema_name": schema,
            "name": table,
            "columns": columns,
            "table_type": "MANAGED",
        }

    def _tables(self, catalog: str, schema: str) -> list[str]:
        place = quoted_table((catalog, schema)).sql("databricks")
        return [str(r[1]) for r in self._transport.rows(f"SHOW TABLES IN {place}")]

    def list_tables(self) -> list[TableName]:
        catalog, _ = self._here()
        place = quoted_table((catalog,)).sql("databricks")
        schemas = [str(r[0]) for r in self._transport.rows(f"SHOW SCHEMAS IN {place}")]
        found = at_once(lambda s: [(catalog, s, t) for t in self._tables(catalog, s)], schemas)
        return [TableName(path) for paths in found for path in paths]

    def bases(self, record: Record) -> tuple[()]:
        return ()

    def tags(self, record: Record) -> tuple[frozenset[str], dict[str, frozenset[str]]]:
        return frozenset(), {}


def _spark(source: str) -> Any:
    """The driver of Spark Connect.

    :raises ConfigError: where it is not installed.
    """
    try:
        from adbc_driver_spark import dbapi
    except ImportError:
        raise ConfigError(
            f"{source}: adbc-driver-spark is not installed", hint="pip install 'batuta-sql[spark]'"
        ) from None
    return dbapi
