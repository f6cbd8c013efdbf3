"""Connections to PostgreSQL, and the one state of the database that a query's fragments see.

The driver takes three round trips for a statement that it reads by COPY (prepare, describe, run)
and one without; so whatever is small goes without.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from batuta_sql.errors import DataError, Error, OperationalError
from batuta_sql.source_settings import PostgreSQLSettings
from batuta_sql.sources.adbc import AdbcPool, quietly, translated

_SESSION = {
    "TimeZone": "UTC",
    "search_path": "pg_catalog",
    "default_transaction_read_only": "on",
    "extra_float_digits": "1",
    "intervalstyle": "postgres",
    # Compiling takes longer than it saves in statements of a second or two, the most there are.
    "jit": "off",
    # Rows that a parallel worker hands over are thought to cost more than making them (0.1), and so
    # a join that delivers many is made by one process. TPC-H on two cores: Q3 1.10 s to 0.78, Q5
    # 0.88 to 0.64, Q9 1.53 to 1.63, the others as before.
    "parallel_tuple_cost": "0.02",
    # A fragment is one SELECT of explicit joins: let the server order them all.
    "join_collapse_limit": "12",
    "from_collapse_limit": "12",
}

_TRUSTED_SECONDS = 1.0
"""A connection that was used so lately is not asked whether it still answers."""

Result = TypeVar("Result")

_SCANS_RANGES = 140_000
"""From PostgreSQL 14 on a range of row ids is a scan of its own."""

_BEGIN = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"


class PostgreSQLConnections:
    """A source's connections; idle ones are kept for the next query.

    :param translate: makes our error of the driver's.
    """

    def __init__(
        self,
        name: str,
        settings: PostgreSQLSettings,
        translate: Callable[[BaseException], Error],
    ) -> None:
        self._name = name
        self._settings = settings
        self._translate = translate
        self._pool = AdbcPool(self._connect, settings.max_connections, self._answers)
        self._lock = threading.Lock()
        self._trusted: set[int] = set()
        """The ids of connections that were given out without being asked whether they answer."""
        self._is_postgresql = False
        self.pids: frozenset[int] = frozenset()
        """The server's processes of all connections that were ever made."""
        self.server_version: int | None = None
        """As in ``server_version_num``: 150004 for 15.4; None before the first connection."""

    @property
    def reads_by_block(self) -> bool:
        """Whether a range of a table's blocks is read without reading the rest."""
        return self._is_postgresql and (self.server_version or 0) >= _SCANS_RANGES

    @property
    def is_postgresql(self) -> bool:
        """Whether the server is PostgreSQL itself; False before the first connection."""
        return self._is_postgresql

    def take(self) -> Any:
        """A connection; one that was used a moment ago may be broken all the same: ``renewed``."""
        return self._pool.take()

    def renewed(self, connection: Any) -> Any | None:
        """Another connection in place of one on which the first statement has failed.

        None where it is in order, so that the statement itself was at fault, and where it was a
        new one. The connection is closed otherwise, and so are all others that were idle.
        """
        with self._lock:
            if id(connection) not in self._trusted:
                return None
        if self._is_alive(connection):
            return None
        self.give_back(connection, False)
        self._pool.forget()
        return self._pool.take()

    def give_back(self, connection: Any, fit: bool) -> None:
        """:param fit: whether it is known to be good for another statement."""
        with self._lock:
            self._trusted.discard(id(connection))
        if fit:
            self._pool.give_back(connection)
        else:
            quietly(connection.close)

    def run(self, work: Callable[[Any], Result]) -> Result:
        """What ``work`` makes of a connection; done again on another one where that was broken."""
        connection = self.take()
        fit = False
        try:
            with translated(self._translate):
                try:
                    found = work(connection)
                except Exception:
                    another = self.renewed(connection)
                    if another is None:
                        raise
                    connection = another
                    found = work(connection)
            fit = True
            return found
        finally:
            self.give_back(connection, fit)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a small statement."""
        return self.run(lambda connection: small_result(connection, sql))

    def close(self) -> None:
        self._pool.close()

    def _answers(self, connection: Any, idle: float) -> bool:
        if idle < _TRUSTED_SECONDS:
            with self._lock:
                self._trusted.add(id(connection))
            return True
        return self._is_alive(connection)

    def _has_another(self, refused: str) -> bool:
        """Whether the login that was refused has been renewed, here or meanwhile elsewhere."""
        settings = self._settings
        return settings.connection_uri() != refused or settings.renew()

    @staticmethod
    def _is_alive(connection: Any) -> bool:
        try:
            small_result(connection, "SELECT 1")
        except Exception:
            return False
        return True

    def _connect(self) -> Any:
        from adbc_driver_manager import dbapi
        from adbc_driver_postgresql import dbapi as driver

        settings = self._settings
        uri = settings.connection_uri()
        try:
            try:
                connection = driver.connect(uri, autocommit=True)
            except dbapi.Error as error:
                if not _refuses_login(error) or not self._has_another(uri):
                    raise
                connection = driver.connect(settings.connection_uri(), autocommit=True)
        except dbapi.Error as error:
            failure = self._translate(error)
            raise OperationalError(
                failure.message,
                source=self._name,
                hint="check host, port, user and password of this source, and that the server runs",
            ) from None
        session = dict(_SESSION)
        if settings.query_timeout:
            session["statement_timeout"] = str(int(settings.query_timeout * 1000))
        set_up = ", ".join(f"set_config('{k}', '{v}', false)" for k, v in session.items())
        try:
            told = small_result(
                connection,
                "SELECT current_setting('server_version_num')::int4, version(),"
                f" pg_backend_pid(), {set_up}",
            )
        except Exception as error:
            quietly(connection.close)
            raise self._translate(error) from None
        self.server_version = told[0][0]
        with self._lock:
            self.pids |= {told[0][2]}
        # Systems that speak PostgreSQL's language may store rows in other ways.
        self._is_postgresql = re.match(r"PostgreSQL \d\S* (?!.*-YB-)", told[0][1]) is not None
        return connection


def _refuses_login(error: Exception) -> bool:
    return "authentication failed" in str(error)


class SharedState:
    """The one state of the database that all fragments of a query read.

    A single statement sees one state by itself. For more, a read-only transaction is begun and its
    snapshot exported to the others; each stays open for the next statement, until the end.

    :param readers: how many statements the query sends; None: not known, and some may be ended
        early. Then a connection of its own keeps the snapshot, which ends with its transaction.
    """

    def __init__(
        self,
        connections: PostgreSQLConnections,
        translate: Callable[[BaseException], Error],
        readers: int | None,
    ) -> None:
        self._connections = connections
        self._translate = translate
        self._several = readers is None or readers > 1
        self._keeps = readers is None
        self._lock = threading.Lock()
        self._snapshot: str | None = None
        self._begun: list[Any] = []
        """In the transaction, and free for the next statement."""
        self._keeper: Any | None = None
        self._closed = False

    def take(self) -> Any:
        """A connection that sees the state."""
        if not self._several:
            return self._connections.take()
        with self._lock:
            if self._snapshot is None:
                exporter = self._begin(export=True)
                if not self._keeps:
                    return exporter
                self._keeper = exporter
            if self._begun:
                return self._begun.pop()
        return self._begin(export=False)

    def _begin(self, *, export: bool) -> Any:
        connection = self._connections.take()
        try:
            try:
                small_result(connection, _BEGIN)
            except Exception:
                another = self._connections.renewed(connection)
                if another is None:
                    raise
                connection = another
                small_result(connection, _BEGIN)
            if export:
                self._snapshot = small_result(connection, "SELECT pg_export_snapshot()")[0][0]
            else:
                self._join(connection)
        except Exception as error:
            self._connections.give_back(connection, False)
            raise self._translate(error) from None
        return connection

    def _join(self, connection: Any) -> None:
        """Has a transaction that was just begun see the state."""
        try:
            small_result(connection, f"SET TRANSACTION SNAPSHOT '{self._snapshot}'")
        except Exception as error:
            failure = self._translate(error)
            if not isinstance(failure, DataError):
                raise
            # The server takes the name for a wrong value (22023): it is known no longer.
            raise OperationalError(
                f"the connection that held this query's state of the database has ended:"
                f" {failure.message}",
                source=failure.source,
                hint="run it again",
            ) from None

    def renewed(self, connection: Any) -> Any | None:
        """Another connection in place of a broken one, while no state has to be kept."""
        return None if self._several else self._connections.renewed(connection)

    def release(self, connection: Any, fit: bool) -> None:
        """:param fit: whether its statement ended well."""
        if not self._several or not fit:
            # After a statement that was ended early the connection may still be good.
            self._end([connection], None if fit else "ROLLBACK")
            return
        with self._lock:
            if not self._closed:
                self._begun.append(connection)
                return
        self._end([connection], "COMMIT")

    def close(self) -> None:
        with self._lock:
            self._closed = True
            begun, self._begun = self._begun, []
            if self._keeper is not None:
                begun.append(self._keeper)
                self._keeper = None
        self._end(begun, "COMMIT")

    def _end(self, connections: Sequence[Any], statement: str | None) -> None:
        for connection in connections:
            try:
                if statement is not None:
                    small_result(connection, statement)
            except Exception:
                self._connections.give_back(connection, False)
            else:
                self._connections.give_back(connection, True)


def small_result(connection: Any, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a small statement of any kind, in one round trip."""
    cursor = connection.cursor()
    try:
        cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
        cursor.execute(sql)
        return list(cursor.fetchall())
    finally:
        quietly(cursor.close)
