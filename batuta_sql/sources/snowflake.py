"""Snowflake through its ADBC driver: metadata from INFORMATION_SCHEMA, cost from EXPLAIN.

What is pushed rests on Snowflake's documentation of its SQL, not on an emulator: see
``snowflake_sql``. Each statement sees what was committed when it began; several fragments of one
query may see different states (docs/consistency.md).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from batuta_sql.errors import ConfigError, Error, OperationalError, ProgrammingError
from batuta_sql.plan.site import Capabilities, ColumnInfo, Statistics, TableInfo
from batuta_sql.secrets import redact
from batuta_sql.source_settings import SnowflakeSettings
from batuta_sql.sources.adbc import (
    AdbcPool,
    AdbcSnapshot,
    driver_error,
    fetch_rows,
    quietly,
    translated,
)
from batuta_sql.sources.base import FragmentQuery, Load, SourceEstimate, TableName
from batuta_sql.sources.catalog_tags import label_of_tag, with_tags
from batuta_sql.sources.refusals import Queue
from batuta_sql.sources.snowflake_login import driver_options
from batuta_sql.sources.snowflake_sql import SnowflakeTranslator, column_info

_KINDS = {
    "BASE TABLE": "table",
    "TEMPORARY TABLE": "table",
    "EXTERNAL TABLE": "external table",
    "EVENT TABLE": "event table",
    "VIEW": "view",
    "MATERIALIZED VIEW": "materialized view",
}

_DESCRIBED = """
SELECT t.table_catalog, t.table_schema, t.table_name, t.table_type, t.row_count, t.bytes,
       c.column_name, c.data_type, c.is_nullable, c.numeric_precision, c.numeric_scale,
       c.datetime_precision, c.collation_name
FROM {database}.INFORMATION_SCHEMA.TABLES t
JOIN {database}.INFORMATION_SCHEMA.COLUMNS c
  ON c.table_schema = t.table_schema AND c.table_name = t.table_name
WHERE UPPER(t.table_name) = UPPER({name}){schema}
ORDER BY t.table_schema, t.table_name, c.ordinal_position
"""
"""Tables and columns in one statement: each of them resumes the warehouse."""

_TAGGED = """
SELECT tag_name, tag_value, level, column_name
FROM TABLE({database}.INFORMATION_SCHEMA.TAG_REFERENCES_ALL_COLUMNS({name}, 'TABLE'))
"""

SCAN_BYTES_PER_SECOND = 500_000_000.0
"""How fast one X-Small warehouse is taken to scan; each size scans twice as fast. A rough guess:
Snowflake predicts no time, and the history corrects it where the source tells what it billed."""

_REFUSES_LOGIN = re.compile(r"\b39\d{4}\b")
"""The codes of a login that was refused: a token that has ended, a password that was changed."""

_QUERY_TAG = "adbc.snowflake.statement.query_tag"

_SIZES = ("X-Small", "Small", "Medium", "Large", "X-Large", "2X-Large", "3X-Large", "4X-Large")


class Snowflake:
    """A Snowflake account."""

    kind = "snowflake"
    remembers_catalog = True

    def __init__(self, name: str, settings: SnowflakeSettings) -> None:
        self.name = name
        self._settings = settings
        self._pool = AdbcPool(self._connect, settings.max_connections)
        self._queue = Queue(self._waiting)

    @property
    def query_timeout(self) -> float | None:
        return self._settings.query_timeout

    @cached_property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            dialect="snowflake",
            translator=SnowflakeTranslator(),
            joins=frozenset({"INNER", "LEFT", "RIGHT", "FULL", "CROSS"}),
            set_operations=frozenset({"UNION", "UNION ALL", "INTERSECT", "EXCEPT"}),
            # "Unsupported subquery type": which correlated subqueries run is not defined.
            correlated=False,
            quantified=False,
        )

    # --- the catalog ---------------------------------------------------------------------------

    def list_tables(self) -> Sequence[TableName]:
        database = _identifier(self._database(None))
        rows = self._rows(
            "SELECT table_catalog, table_schema, table_name, table_type"
            f" FROM {database}.INFORMATION_SCHEMA.TABLES"
            " WHERE table_schema <> 'INFORMATION_SCHEMA' ORDER BY 2, 3"
        )
        return [TableName((r[0], r[1], r[2]), _KINDS.get(r[3], "table")) for r in rows]

    def resolve(self, path: tuple[str, ...]) -> Sequence[TableInfo]:
        if len(path) > 3:
            return []
        database = self._database(path[-3] if len(path) == 3 else None)
        schema = ""
        if len(path) > 1:
            schema = f" AND UPPER(t.table_schema) = UPPER({_literal(path[-2])})"
        sql = _DESCRIBED.format(
            database=_identifier(database),
            name=_literal(path[-1]),
            schema=schema,
        )
        tables = self._best(_tables(self.name, self._rows(sql)), path)
        return [self._with_tags(t) for t in tables] if self._settings.tags else tables

    def _with_tags(self, table: TableInfo) -> TableInfo:
        """A table with its tags and those of its schema, its database and the account.

        https://docs.snowflake.com/en/sql-reference/functions/tag_references_all_columns

        :raises OperationalError: where they cannot be read: it is not known then what it holds.
        """
        name = ".".join(_identifier(p) for p in table.path)
        try:
            rows = self._rows(
                _TAGGED.format(database=_identifier(table.path[0]), name=_literal(name))
            )
        except Error as error:
            raise OperationalError(
                f'the tags of "{".".join(table.path)}" cannot be read: {error.message}',
                source=self.name,
                hint="tags = false in this source where the account or the role has none",
            ) from None
        of_table: set[str] = set()
        of_columns: dict[str, frozenset[str]] = {}
        for key, value, level, column in rows:
            label = label_of_tag(str(key), str(value or ""))
            if level != "COLUMN":
                of_table.add(label)
            if column is not None:
                of_columns[column] = of_columns.get(column, frozenset()) | {label}
        return with_tags(table, frozenset(of_table), of_columns)

    def _database(self, named: str | None) -> str:
        """The database to look in: as named in a query, else as configured.

        :raises ProgrammingError: where neither says.
        """
        found = named or self._login.get("database")
        if found is None:
            raise ProgrammingError(
                "no database is configured for this source",
                source=self.name,
                hint=f"set database, or write {self.name}.database.schema.table",
            )
        # As typed without quotes, unless it is spelt in a way that needs them.
        return found.upper() if re.fullmatch(r"[A-Za-z_][\w$]*", found) else found

    def _best(self, tables: list[TableInfo], path: tuple[str, ...]) -> list[TableInfo]:
        """An exact spelling wins, then Snowflake's own folding, then the configured schema."""
        for spelling in (path[-1], path[-1].upper()):
            exact = [t for t in tables if t.path[-1] == spelling]
            if exact:
                tables = exact
                break
        schema = self._login.get("schema")
        if len(path) == 1 and len(tables) > 1 and schema is not None:
            usual = [t for t in tables if t.path[1].upper() == schema.upper()]
            tables = usual or tables
        return tables

    # --- cost ----------------------------------------------------------------------------------

    def estimate(self, query: FragmentQuery) -> SourceEstimate:
        """EXPLAIN compiles the statement without a warehouse, and so bills nothing by itself.

        https://docs.snowflake.com/en/sql-reference/sql/explain
        """
        rows = self._rows(f"EXPLAIN USING JSON {query.sql}")
        told = json.loads(rows[0][0]) if rows else {}
        stats = told.get("GlobalStats") or {}
        scanned = stats.get("bytesAssigned")
        if scanned is None:
            return SourceEstimate(basis="EXPLAIN USING JSON tells no bytes")
        size = self._warehouse_size
        seconds = float(scanned) / (SCAN_BYTES_PER_SECOND * 2 ** _step(size))
        assigned, total = stats.get("partitionsAssigned"), stats.get("partitionsTotal")
        return SourceEstimate(
            rows=None,
            bytes_scanned=float(scanned),
            seconds=seconds,
            warehouse_size=size,
            confidence="estimated",
            rows_confidence="unknown",
            basis=f"EXPLAIN USING JSON: {assigned} of {total} partitions; seconds guessed",
        )

    @cached_property
    def _warehouse_size(self) -> str | None:
        """The size of the configured warehouse. SHOW runs without one."""
        name = self._login.get("warehouse")
        if name is None:
            return None
        try:
            rows = self._records(f"SHOW WAREHOUSES LIKE {_literal(name)}")
        except Error:
            return None
        return next((str(r["size"]) for r in rows if r.get("size")), None)

    def load(self) -> Load | None:
        return self._queue.load()

    def _waiting(self) -> int | None:
        """https://docs.snowflake.com/en/sql-reference/sql/show-warehouses"""
        name = self._login.get("warehouse")
        if name is None:
            return None
        rows = self._records(f"SHOW WAREHOUSES LIKE {_literal(name)}")
        found = (str(r["queued"]) for r in rows if r.get("queued") is not None)
        return next((int(q) for q in found if q.isdigit()), None)

    # --- connections ---------------------------------------------------------------------------

    def open(self, readers: int | None = 1) -> AdbcSnapshot:
        tag = f"batuta-sql {uuid.uuid4().hex}"

        def prepare(cursor: Any) -> None:
            # Who looks into QUERY_HISTORY sees which statements belong to one query.
            cursor.adbc_statement.set_options(**{_QUERY_TAG: tag})

        return AdbcSnapshot(self.name, self._take, self._give_back, self._error, prepare=prepare)

    def close(self) -> None:
        self._pool.close()

    @cached_property
    def _login(self) -> Mapping[str, str]:
        """What is known before connecting: database, schema, warehouse."""
        from batuta_sql.sources.snowflake_login import settings_with_connection

        found = settings_with_connection(self.name, self._settings)
        told = {"database": found.database, "schema": found.schema_, "warehouse": found.warehouse}
        return {k: v for k, v in told.items() if v is not None}

    def _connect(self) -> Any:
        try:
            from adbc_driver_manager import dbapi
            from adbc_driver_snowflake import dbapi as driver
        except ImportError:
            raise ConfigError(
                f'source "{self.name}" needs the package adbc-driver-snowflake',
                hint="pip install 'batuta-sql[snowflake]'",
            ) from None
        options = driver_options(self.name, self._settings)
        try:
            try:
                return driver.connect(db_kwargs=options, autocommit=True)
            except dbapi.Error as error:
                if not _REFUSES_LOGIN.search(str(error)) or not self._settings.renew():
                    raise
                options = driver_options(self.name, self._settings)
                return driver.connect(db_kwargs=options, autocommit=True)
        except dbapi.Error as error:
            failure = self._error(error)
            raise OperationalError(
                failure.message,
                source=self.name,
                hint="check account, user and what proves it, and that the account can be reached",
            ) from None

    def _take(self) -> Any:
        return self._pool.take()

    def _give_back(self, connection: Any, fit: bool) -> None:
        if fit:
            self._pool.give_back(connection)
        else:
            quietly(connection.close)

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        with self._borrowed() as connection:
            return fetch_rows(connection, sql)

    def _records(self, sql: str) -> list[dict[str, Any]]:
        with self._borrowed() as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            names = [d[0] for d in cursor.description or ()]
            return [dict(zip(names, r, strict=True)) for r in cursor.fetchall()]

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[Any]:
        """A connection for one small statement; kept unless the network failed under it."""
        connection = self._take()
        fit = False
        try:
            with translated(self._error):
                yield connection
            fit = True
        except Error as error:
            fit = not isinstance(error, OperationalError)
            raise
        finally:
            self._give_back(connection, fit)

    def _error(self, error: BaseException) -> Error:
        return driver_error(self.name, error, self._clean)

    def _clean(self, message: str) -> str:
        """Snowflake's own words, without the driver's decoration and without secrets."""
        text = re.sub(r"^[A-Z_]+: ", "", message)
        text = text.replace("[Snowflake] ", "")
        text = re.sub(r"^(\d{6} \(\w{5}\): )\1+", r"\1", text)
        text = re.sub(r"\. Vendor code: \d+", "", text)
        text = re.sub(r"\.? ?SQLSTATE: \w+$", "", text.strip())
        return redact(" ".join(text.split()), self._settings.secrets())


def _tables(source: str, rows: Sequence[tuple[Any, ...]]) -> list[TableInfo]:
    found: list[TableInfo] = []
    for _, group in itertools.groupby(rows, key=lambda r: r[:3]):
        described = list(group)
        catalog, schema, name, kind, count, size = described[0][:6]
        columns: list[ColumnInfo] = [column_info(*r[6:]) for r in described]
        found.append(
            TableInfo(
                source=source,
                path=(catalog, schema, name),
                columns=tuple(columns),
                kind=_KINDS.get(kind, "table"),
                statistics=Statistics(
                    rows=float(count) if count is not None else None,
                    bytes=float(size) if size is not None else None,
                    exact=count is not None,
                ),
            )
        )
    return found


def _step(size: str | None) -> int:
    """How often the X-Small warehouse is doubled."""
    word = (size or "").replace("-", "").upper()
    known = [s.replace("-", "").upper() for s in _SIZES]
    return known.index(word) if word in known else 0


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    """A string literal: Snowflake reads backslashes in one as escapes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
