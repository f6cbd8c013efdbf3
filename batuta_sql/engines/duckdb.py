"""The residual engine: an in-memory DuckDB that joins what the fragments delivered."""

from __future__ import annotations

import re
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
from cachetools import LRUCache

from batuta_sql.engines.held_folder import SPILL, HeldFolder
from batuta_sql.errors import (
    DataError,
    Error,
    IntegrityError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    QueryCancelled,
)
from batuta_sql.exchange.wire import restored_in_view
from batuta_sql.plan.site import TableInfo

if TYPE_CHECKING:
    import pyarrow.dataset as ds

ISOLATION: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}
"""No download and no look at the caller's variables, in every DuckDB of ours."""

_CLOSE_SECONDS = 5.0
_SPILL_SHARE = 0.9
"""Of the free disk: what DuckDB takes of it at most (``max_temp_directory_size``)."""


class DuckDBEngine:
    """One in-memory database for a Connection; each query works on a cursor of its own.

    :param memory_limit: DuckDB's notation ("8GB"); None takes DuckDB's default.
    :param temp_directory: where it spills; None makes one and removes it at the end.
    :param local_files: whether it reads files whose paths stand in a query.
    """

    def __init__(
        self,
        memory_limit: str | None = None,
        temp_directory: str | None = None,
        threads: int | None = None,
        *,
        local_files: bool = True,
    ) -> None:
        self._spill = HeldFolder(SPILL) if temp_directory is None else None
        self.temp_directory = temp_directory or (self._spill.path if self._spill else "")
        config: dict[str, Any] = dict(ISOLATION, temp_directory=self.temp_directory)
        if memory_limit:
            config["memory_limit"] = memory_limit
        if threads:
            config["threads"] = threads
        if not local_files:
            config["enable_external_access"] = "false"
        try:
            self._root = duckdb.connect(":memory:", config=config)
        except duckdb.Error as error:
            raise engine_error(error) from None
        self._config = config
        self._decoder: duckdb.DuckDBPyConnection | None = None
        self._lock = threading.Lock()
        self._constants: LRUCache[str, tuple[str | None, str] | None] = LRUCache(4096)
        self._catalogs: set[str] = set()
        self._views: dict[tuple[str, ...], tuple[tuple[str, str], ...]] = {}

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection to the same database, for one query."""
        with self._lock:
            return self._root.cursor()

    def lossless_cursor(self) -> duckdb.DuckDBPyConnection:
        """A cursor whose Arrow output DuckDB reads back as the same types (HUGEINT, UUID, BIT).

        Of a database of its own: the setting belongs to the whole database, and what the user
        fetches is plain Arrow.
        """
        with self._lock:
            if self._decoder is None:
                self._decoder = duckdb.connect(":memory:", config=dict(self._config))
                self._decoder.execute("SET GLOBAL arrow_lossless_conversion = true")
            return self._decoder.cursor()

    @property
    def aggregate_names(self) -> frozenset[str]:
        return _aggregate_names()

    def memory_limit_bytes(self) -> int:
        """The limit in force, in bytes."""
        with self._lock:
            row = self._root.execute("SELECT current_setting('memory_limit')").fetchone()
        return _bytes_of(row[0]) if row else 0

    def room_bytes(self) -> int:
        """What memory and the disk where it spills hold together, about, in bytes."""
        place = Path(self.temp_directory)
        there = next((p for p in (place, *place.absolute().parents) if p.exists()), Path("/"))
        return self.memory_limit_bytes() + int(shutil.disk_usage(there).free * _SPILL_SHARE)

    def evaluate_constants(self, expressions: Sequence[str]) -> list[tuple[str | None, str] | None]:
        """Text and type of constant expressions; None for one that fails."""
        with self._lock:
            missing = [e for e in expressions if e not in self._constants]
        if missing:
            with self.cursor() as cursor:
                values = _evaluated(cursor, missing)
            with self._lock:
                self._constants.update(zip(missing, values, strict=True))
        with self._lock:
            return [self._constants.get(e) for e in expressions]

    def forget_constants(self) -> None:
        """Since a setting of the session has changed, the time zone for one."""
        with self._lock:
            self._constants.clear()

    # --- the virtual catalog inside DuckDB, for blocks that it runs by itself ------------------

    def view(
        self, cursor: duckdb.DuckDBPyConnection, table: TableInfo, dataset: ds.Dataset
    ) -> tuple[str, str, str]:
        """Makes a table readable on ``cursor`` and gives its three-part name.

        DuckDB has three parts: of four, those between the source and the table become one.
        """
        schema = ".".join(table.path[:-1]) or "main"
        name = (table.source, schema, table.name)
        registered = "scan:" + ".".join(table.qualified_parts)
        cursor.register(registered, dataset)
        shape = tuple((c.name, c.type) for c in table.columns)
        with self._lock:
            if table.source not in self._catalogs:
                cursor.execute(f"ATTACH IF NOT EXISTS ':memory:' AS {quote(table.source)}")
                self._catalogs.add(table.source)
            if self._views.get(name) != shape:
                cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(table.source)}.{quote(schema)}")
                shown = ".".join(quote(p) for p in name)
                casts = [(quote(c.name), restored_in_view(c.type)) for c in table.columns]
                restored = ", ".join(f"{c.replace('{}', n)} AS {n}" for n, c in casts if c)
                columns = f"* REPLACE ({restored})" if restored else "*"
                cursor.execute(
                    f"CREATE OR REPLACE VIEW {shown} AS"
                    f" SELECT {columns} FROM temp.main.{quote(registered)}"
                )
                self._views[name] = shape
        return name

    def close(self) -> None:
        with self._lock:
            self._root.close()
            if self._decoder is not None:
                self._decoder.close()
        if self._spill is not None:
            self._spill.remove()


_COUNTS = re.compile(r"\bnextval\b", re.IGNORECASE)


class PendingResult:
    """A statement whose rows are still to be read: once, as rows or as Arrow.

    DuckDB streams rows after ``execute`` and Arrow batches from a relation, and runs the statement
    again for each call on a relation; so the first fetch decides which way it is read.
    """

    columns: list[str]
    types: list[str]

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        sql: str,
        parameters: Any = None,
        *,
        several: bool = False,
    ) -> None:
        self._cursor = cursor
        self._sql = sql
        self._parameters = parameters or None
        self._executed = False
        if several or _COUNTS.search(sql):
            # What asks for values, or counts up, when it is bound: it is bound once, by running it.
            self._rows()
            described = cursor.description or []
            self.columns = [d[0] for d in described]
            self.types = [str(d[1]) for d in described]
            return
        relation = self._relation()
        self.columns = list(relation.columns) if relation is not None else []
        self.types = [str(t) for t in relation.types] if relation is not None else []

    def _relation(self) -> duckdb.DuckDBPyRelation:
        if self._parameters is None:
            return self._cursor.sql(self._sql)
        return self._cursor.sql(self._sql, params=self._parameters)

    def _rows(self) -> duckdb.DuckDBPyConnection:
        if not self._executed:
            self._executed = True
            self._cursor.execute(self._sql, self._parameters)
        return self._cursor

    def fetchone(self) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._rows().fetchone()
        return row

    def fetchmany(self, size: int) -> list[tuple[Any, ...]]:
        return self._rows().fetchmany(size)

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._rows().fetchall()

    def to_arrow_reader(self, rows_per_batch: int) -> pa.RecordBatchReader:
        """The rows as a stream of record batches; what fetchone() took is gone."""
        if not self._executed:
            self._executed = True
            return self._relation().to_arrow_reader(rows_per_batch)
        with warnings.catch_warnings():
            # Rows were fetched before: the rest is copied once, as DuckDB points out.
            warnings.simplefilter("ignore", UserWarning)
            return self._cursor.to_arrow_reader(rows_per_batch)

    def to_arrow_table(self) -> pa.Table:
        return self.to_arrow_reader(100_000).read_all()


@lru_cache(maxsize=1)
def _aggregate_names() -> frozenset[str]:
    with duckdb.connect(":memory:", config=ISOLATION) as connection:
        rows = connection.execute(
            "SELECT DISTINCT lower(function_name) FROM duckdb_functions()"
            " WHERE function_type = 'aggregate'"
        ).fetchall()
    return frozenset(r[0] for r in rows)


def _evaluated(
    cursor: duckdb.DuckDBPyConnection, expressions: Sequence[str]
) -> list[tuple[str | None, str] | None]:
    items = ", ".join(f"CAST(({e}) AS VARCHAR), typeof({e})" for e in expressions)
    try:
        row = cursor.execute(f"SELECT {items}").fetchone()
    except duckdb.Error:
        # One of them fails; it will say so at its own place when the query runs.
        return (
            [None]
            if len(expressions) == 1
            else [v for e in expressions for v in _evaluated(cursor, [e])]
        )
    assert row is not None
    return [(row[i], row[i + 1]) for i in range(0, len(row), 2)]


def quote(name: str) -> str:
    """An identifier in DuckDB's quotes."""
    return '"' + name.replace('"', '""') + '"'


def changed_rows(cursor: duckdb.DuckDBPyConnection) -> int:
    """How many rows the last statement has changed; -1 where it changes none by its kind."""
    if [column[0] for column in cursor.description or ()] != ["Count"]:
        return -1
    row = cursor.fetchone()
    return int(row[0]) if row is not None else -1


def close_when_free(connection: duckdb.DuckDBPyConnection) -> None:
    """Closes a connection that another thread may still be using; what it runs is interrupted."""
    when_free(connection, connection.close)


def when_free(connection: duckdb.DuckDBPyConnection, action: Callable[[], None]) -> None:
    """Does something with a connection that another thread may still be using: what that runs is
    interrupted. Given up after some seconds.
    """
    deadline = time.monotonic() + _CLOSE_SECONDS
    while True:
        try:
            action()
            return
        except duckdb.ResourceInUseException:
            if time.monotonic() > deadline:
                return
        try:
            connection.interrupt()
        except duckdb.ConnectionException:
            return  # the other thread has closed it meanwhile
        time.sleep(0.02)


def engine_error(error: BaseException, hint: str | None = None) -> Error:
    """A DuckDB error as ours, in DuckDB's own words."""
    if isinstance(error, Error):
        return error
    message = str(error)
    match error:
        case duckdb.InterruptException():
            return QueryCancelled("the query was cancelled")
        case duckdb.OutOfMemoryException():
            return OperationalError(message, hint=hint or "raise memory_limit")
        case duckdb.ConversionException() | duckdb.OutOfRangeException():
            return DataError(message, hint=hint)
        case duckdb.ConstraintException():
            return IntegrityError(message, hint=hint)
        case duckdb.NotImplementedException():
            return NotSupportedError(message, hint=hint)
        case duckdb.InternalException():
            return InternalError(message, hint=hint)
        case duckdb.ProgrammingError() | duckdb.InvalidInputException():
            return ProgrammingError(message, hint=hint)
        case duckdb.DataError():
            return DataError(message, hint=hint)
    return OperationalError(message, hint=hint)


def stream_error(error: Exception) -> Exception:
    """DuckDB's own exception behind what Arrow's stream made of it."""
    message = str(error)
    match = re.match(r"(?:Invalid Input Error: )?(\w[\w ]*? Error): (.*)", message, re.DOTALL)
    kinds: dict[str, type[duckdb.Error]] = {
        "Conversion Error": duckdb.ConversionException,
        "Out of Range Error": duckdb.OutOfRangeException,
        "INTERRUPT Error": duckdb.InterruptException,
        "Interrupt Error": duckdb.InterruptException,
        "IO Error": duckdb.IOException,
        "Invalid Input Error": duckdb.InvalidInputException,
    }
    if match and match[1] in kinds:
        return kinds[match[1]](message)
    return duckdb.Error(message) if isinstance(error, pa.ArrowException | OSError) else error


_UNITS = {"B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "BYTES": 1}


def _bytes_of(text: str) -> int:
    number, _, unit = text.strip().partition(" ")
    return int(float(number) * _UNITS.get(unit.upper(), 1))
