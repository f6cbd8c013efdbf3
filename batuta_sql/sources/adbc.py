"""What every source reached through an ADBC driver shares: connections, snapshots, errors."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from batuta_sql.errors import (
    DatabaseError,
    DataError,
    Error,
    OperationalError,
    ProgrammingError,
    QueryCancelled,
)
from batuta_sql.sources.base import FragmentQuery, FragmentReader
from batuta_sql.sources.merged_reader import MergedReader

_VALUE_WORDS = re.compile(
    "out of range|division by zero|malformed array literal|invalid input syntax|does not fit"
)
"""What is said of a value in mid-stream, where the driver drops the SQLSTATE."""

_NETWORK_WORDS = re.compile(
    "unexpected EOF|connection reset|broken pipe|i/o timeout|connection refused|context deadline"
    "|timeout after|failed to POST|failed to connect",
    re.IGNORECASE,
)
"""What is said of a connection that broke."""

_CANCEL_SECONDS = 2.0
_CLOSE_SECONDS = 5.0


class AdbcPool:
    """Idle connections of one source; at most ``limit`` are kept for the next query.

    :param connect: opens a new connection in autocommit mode, ready for use.
    :param answers: whether a connection that has been idle for so many seconds is still good.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        limit: int,
        answers: Callable[[Any, float], bool] = lambda connection, idle: True,
    ) -> None:
        self._connect = connect
        self._answers = answers
        self._limit = limit
        self._idle: list[tuple[Any, float]] = []
        self._lock = threading.Lock()
        self._closed = False

    def take(self) -> Any:
        while True:
            with self._lock:
                if not self._idle:
                    break
                connection, since = self._idle.pop()
            if self._answers(connection, time.monotonic() - since):
                return connection
            quietly(connection.close)
        return self._connect()

    def give_back(self, connection: Any) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < self._limit:
                self._idle.append((connection, time.monotonic()))
                return
        quietly(connection.close)

    def forget(self) -> None:
        """Closes the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            quietly(connection.close)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self.forget()


class AdbcReader:
    """A running fragment on a connection of its own; see ``FragmentReader``."""

    def __init__(
        self,
        reader: pa.RecordBatchReader,
        cursor: Any,
        finish: Callable[[bool], None],
        translate_error: Callable[[BaseException], Error],
        source: str,
    ) -> None:
        self._reader = reader
        self._source = source
        self._busy = threading.Lock()
        self._cursor = cursor
        self._finish = finish
        self._translate = translate_error
        self._open = True
        self._exhausted = False

    @property
    def schema(self) -> pa.Schema:
        return self._reader.schema

    def __iter__(self) -> AdbcReader:
        return self

    def __next__(self) -> pa.RecordBatch:
        with self._busy:
            if not self._open:
                raise QueryCancelled("the query was cancelled", source=self._source)
            try:
                return self._reader.read_next_batch()
            except StopIteration:
                self._exhausted = True
                self._close()
                raise
            except Exception as error:
                self._close()
                raise self._translate(error) from None

    def cancel(self) -> None:
        if self._open and not self._exhausted:
            cancel_bounded(self._cursor)

    def close(self) -> None:
        # A driver must not be closed under a thread that is reading from it: cancelling makes
        # that thread come back, and only then is it safe.
        self.cancel()
        if self._busy.acquire(timeout=_CLOSE_SECONDS):
            try:
                self._close()
            finally:
                self._busy.release()
        # Else the network is silent and the driver waits in it: the connection is given up.

    def _close(self) -> None:
        if not self._open:
            return
        self._open = False
        quietly(self._reader.close)
        quietly(self._cursor.close)
        self._finish(self._exhausted)


class AdbcSnapshot:
    """One query's view of a source: a connection for each reader, released at the end.

    :param take: gives a connection prepared for this snapshot.
    :param release: takes it back; its argument says whether its last statement ended well.
    :param on_close: what else the snapshot holds.
    :param prepare: sets a cursor's options before its statement.
    :param renew: gives another connection in place of one that turned out to be broken; None where
        it is not, so that the statement's own error stands.
    """

    def __init__(
        self,
        source: str,
        take: Callable[[], Any],
        release: Callable[[Any, bool], None],
        translate_error: Callable[[BaseException], Error],
        on_close: Callable[[], None] = lambda: None,
        prepare: Callable[[Any], None] = lambda cursor: None,
        renew: Callable[[Any], Any | None] = lambda connection: None,
    ) -> None:
        self._renew = renew
        self._source = source
        self._on_close = on_close
        self._prepare = prepare
        self._take = take
        self._release = release
        self._translate = translate_error
        self._lock = threading.Lock()
        self._readers: list[AdbcReader] = []
        self._cursors: list[Any] = []
        self._cancelled = False

    def read(self, query: FragmentQuery) -> FragmentReader:
        if query.parts:
            return MergedReader([partial(self.run, sql) for sql in query.parts])
        return self.run(query.sql)

    def run(self, sql: str) -> AdbcReader:
        """Sends one statement, on a connection of its own."""
        self._refuse_if_cancelled()
        connection = self._take()
        try:
            try:
                cursor, reader = self._execute(connection, sql)
            except Exception:
                another = None if self._cancelled else self._renew(connection)
                if another is None:
                    raise
                connection = another
                cursor, reader = self._execute(connection, sql)
        except Exception as error:
            self._release(connection, False)
            raise self._translate(error) from None
        running = AdbcReader(
            reader,
            cursor,
            lambda fit: self._release(connection, fit),
            self._translate,
            self._source,
        )
        with self._lock:
            self._readers.append(running)
        self._refuse_if_cancelled(running)
        return running

    def _execute(self, connection: Any, sql: str) -> tuple[Any, pa.RecordBatchReader]:
        cursor = connection.cursor()
        with self._lock:
            self._cursors.append(cursor)
        try:
            self._prepare(cursor)
            cursor.execute(sql)
            return cursor, cursor.fetch_record_batch()
        except Exception:
            quietly(cursor.close)
            raise
        finally:
            with self._lock:
                self._cursors.remove(cursor)

    def _refuse_if_cancelled(self, running: AdbcReader | None = None) -> None:
        if self._cancelled:
            if running is not None:
                running.close()
            raise QueryCancelled("the query was cancelled", source=self._source)

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            readers, cursors = list(self._readers), list(self._cursors)
        _all_at_once([partial(cancel_bounded, cursor) for cursor in cursors])
        _all_at_once([reader.cancel for reader in readers])

    def close(self) -> None:
        self._cancelled = True
        deadline = time.monotonic() + _CLOSE_SECONDS
        while self._cursors and time.monotonic() < deadline:
            # A statement is just being sent: it is cancelled as soon as it has begun.
            with self._lock:
                cursors = list(self._cursors)
            for cursor in cursors:
                cancel_bounded(cursor)
            time.sleep(0.02)
        with self._lock:
            readers, self._readers = self._readers, []
        # At once: each may have to wait for a network that is silent.
        _all_at_once([reader.close for reader in readers])
        self._on_close()


def _all_at_once(actions: Sequence[Callable[[], None]]) -> None:
    """Does everything, each in a thread of its own where there is more than one thing to do."""
    if len(actions) == 1:
        actions[0]()
        return
    threads = [threading.Thread(target=action, daemon=True) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def cancel_bounded(cursor: Any) -> None:
    """Cancels a statement; a cancellation goes over the network too, which may be silent."""
    thread = threading.Thread(target=quietly, args=(cursor.adbc_cancel,), daemon=True)
    thread.start()
    thread.join(_CANCEL_SECONDS)


def quietly(action: Callable[[], Any]) -> None:
    """Runs a clean-up whose own failure must not hide what came before it."""
    with contextlib.suppress(Exception):
        action()


def fetch_rows(connection: Any, sql: str) -> list[tuple[Any, ...]]:
    """Runs a small metadata query and gives its rows."""
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def driver_error(source: str, error: BaseException, clean: Callable[[str], str]) -> Error:
    """A driver's error as ours: the source's name and the remote system's own words.

    :param clean: removes secrets and the driver's decoration from a message.
    """
    if isinstance(error, Error):
        return error
    state = getattr(error, "sqlstate", None) or ""
    if not state and (told := re.search(r"SQLSTATE: (\w{5})", str(error))):
        # An error in mid-stream comes through Arrow, which keeps only the text.
        state = told[1]
    message = clean(str(error))
    name = type(error).__name__
    if state == "57014" or "CANCELLED" in str(error)[:40] or "canceling statement" in message:
        if "statement timeout" in message:
            return OperationalError(message, source=source, hint="raise query_timeout")
        return QueryCancelled(message, source=source)
    about_a_value = isinstance(error, OSError) and _VALUE_WORDS.search(message)
    if name == "DataError" or state.startswith("22") or about_a_value:
        return DataError(message, source=source)
    if state.startswith("42"):
        return ProgrammingError(message, source=source)
    broke = _NETWORK_WORDS.search(message) is not None
    if broke or name in ("OperationalError", "InterfaceError") or isinstance(error, OSError):
        return OperationalError(message, source=source)
    return DatabaseError(message, source=source)


@contextlib.contextmanager
def translated(translate: Callable[[BaseException], Error]) -> Iterator[None]:
    """Turns whatever a driver raises inside into our errors."""
    try:
        yield
    except Exception as error:
        raise translate(error) from None
