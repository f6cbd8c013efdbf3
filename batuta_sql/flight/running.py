"""A query that runs for a client: in a thread of its own, so that a client that has gone is noticed
while a source is silent.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batuta_sql.errors import (
    CostRefused,
    Error,
    LabelRefused,
    OperationalError,
    QueryCancelled,
    Refused,
)
from batuta_sql.flight.admission import Admission, DailyBudgets
from batuta_sql.flight.users import User

if TYPE_CHECKING:
    from batuta_sql.dbapi import Connection
    from batuta_sql.flight.connections import Connections, Lent

Parameters = Sequence[Any] | dict[str, Any] | None
IsGone = Callable[[], bool]
"""Whether the client has given up; may only be asked in the thread of its call."""

_LOOK_SECONDS = 0.1
_CANCEL_SECONDS = 0.2
_AHEAD = 2
"""Pieces that are made before the client takes them."""

_PIECE_BYTES = 4_000_000
"""Of Arrow data in one message. Clients refuse longer ones, from 16 MB on those of ADBC."""


@dataclass(frozen=True)
class Request:
    """A query that a client may fetch."""

    user: User
    sql: str
    parameters: Parameters = None


@dataclass(frozen=True)
class _Failed:
    error: BaseException


class RunningQuery:
    """One query from its admission to its end; ``schema`` and ``pieces`` are the client's side.

    :param idle_seconds: how long the client may take nothing, before the query is ended.
    :param log: told of its end: user, status, seconds, rows.
    """

    def __init__(
        self,
        request: Request,
        connections: Connections,
        admission: Admission,
        budgets: DailyBudgets,
        idle_seconds: float,
        log: Callable[[User, str, float, int], None],
    ) -> None:
        self.request = request
        self._connections = connections
        self._admission = admission
        self._budgets = budgets
        self._idle_seconds = idle_seconds
        self._log = log
        self._arrived: queue.Queue[Any] = queue.Queue(_AHEAD)
        """The schema, record batches, then None or what went wrong."""
        self._stopped = threading.Event()
        self._is_idle = False
        """Whether it was stopped because the client took nothing."""
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._lent: Lent | None = None
        self._rows = 0
        self._begun = time.monotonic()

    # --- the client's side ---------------------------------------------------------------------

    def begin(self, is_gone: IsGone) -> pa.Schema:
        """Waits for a place and for the first answer; gives the result's schema.

        :raises Error: what a guard, the admission or a source says.
        """
        user = self.request.user.name
        try:
            self._admission.enter(user, lambda: self._stopped.is_set() or is_gone())
        except BaseException as error:
            self._ended.set()
            self._log(self.request.user, status_of(error), self._seconds(), 0)
            raise
        threading.Thread(target=self._work, name="batuta-query", daemon=True).start()
        found = self._next(is_gone)
        assert isinstance(found, pa.Schema)
        return found

    def pieces(self, is_gone: IsGone) -> Iterator[pa.RecordBatch]:
        """The result, as it comes.

        :raises Error: what a source says in the middle of it.
        """
        while (piece := self._next(is_gone)) is not None:
            yield piece

    def stop(self) -> None:
        """Ends it, at its sources too; returns at once."""
        if not self._stopped.is_set() and not self._ended.is_set():
            self._stopped.set()
            threading.Thread(target=self._cancel, name="batuta-cancel", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, in this time."""
        return self._ended.wait(seconds)

    def _next(self, is_gone: IsGone) -> Any:
        while True:
            try:
                found = self._arrived.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if not is_gone() and not self._stopped.is_set():
                    continue
                self.stop()
                raise self._reason() from None
            if isinstance(found, _Failed):
                error = found.error
                try:
                    raise error
                finally:
                    # The error knows this frame: a frame that knows the error would keep both.
                    del found, error
            return found

    # --- the query's side ----------------------------------------------------------------------

    def _work(self) -> None:
        status = "finished"
        try:
            lent = self._connections.take(self.request.user)
            with self._lock:
                self._lent = lent
            self._deliver(lent.connection)
            self._put(None)
        except BaseException as error:
            status = "cancelled" if self._stopped.is_set() else status_of(error)
            self._put(_Failed(_alone(error)))
        finally:
            with self._lock:
                # From here on the connection may be another query's.
                lent_or_none, self._lent = self._lent, None
            if lent_or_none is not None:
                self._connections.give_back(lent_or_none)
            self._admission.leave(self.request.user.name)
            self._log(self.request.user, status, self._seconds(), self._rows)
            self._ended.set()

    def _deliver(self, connection: Connection) -> None:
        request = self.request
        labels = request.user.labels
        labels.check_query(connection, request.sql, request.parameters)
        reserved = self._reserve(connection)
        with connection.cursor() as cursor:
            try:
                self._check_wanted()
                cursor.execute(request.sql, request.parameters)
                # What is known of the sources may have changed since it was planned.
                labels.check(cursor.plan.result_labels.all if cursor.plan is not None else ())
            except Refused:
                self._budgets.give_back(request.user, reserved)
                raise
            reader = cursor.fetch_record_batch()
            self._put(reader.schema)
            for batch in reader:
                for piece in _pieces(batch):
                    self._put(piece)
                    self._check_wanted()
                    self._rows += piece.num_rows

    def _reserve(self, connection: Connection) -> float:
        """Counts the query in the user's day. Sources that cost nothing are not asked."""
        request = self.request
        if request.user.budget_usd_per_day is None or not self._connections.charges:
            return 0.0
        estimate = connection.estimate(request.sql, request.parameters)
        return self._budgets.reserve(request.user, estimate)

    def _check_wanted(self) -> None:
        if self._stopped.is_set():
            raise self._reason()

    def _put(self, item: Any) -> None:
        ends = time.monotonic() + self._idle_seconds
        while not self._stopped.is_set():
            try:
                self._arrived.put(item, timeout=_LOOK_SECONDS)
                return
            except queue.Full:
                if time.monotonic() > ends:
                    self._is_idle = True
                    self._stopped.set()

    def _reason(self) -> Error:
        """What is said of it when it was stopped."""
        if self._is_idle:
            return OperationalError(
                "the query was ended: nothing of its result was taken for"
                f" {self._idle_seconds:g} s",
                hint="read the result as it comes; an administrator may raise serve.idle_seconds",
            )
        return QueryCancelled("the query was cancelled")

    def _cancel(self) -> None:
        # Again and again: a query that is just being planned is not yet there to cancel.
        while not self._ended.is_set():
            with self._lock:
                if self._lent is not None:
                    self._lent.connection.cancel()
            self._ended.wait(_CANCEL_SECONDS)
        # Nobody takes what is left.
        with contextlib.suppress(queue.Empty):
            while True:
                self._arrived.get_nowait()

    def _seconds(self) -> float:
        return time.monotonic() - self._begun


class ResultStream:
    """What is sent to a client. When nobody holds it any more, the client has gone.

    Each item is a reader of one batch: with a bare batch pyarrow would leave out the dictionaries
    that its columns (enums) refer to.
    """

    def __init__(
        self, running: RunningQuery, schema: pa.Schema, pieces: Iterator[pa.RecordBatch]
    ) -> None:
        self._running = running
        self._schema = schema
        self._pieces = pieces
        self._is_begun = False
        self._is_complete = False

    def __iter__(self) -> ResultStream:
        return self

    def __next__(self) -> pa.RecordBatchReader:
        piece = next(self._pieces, None)
        if piece is None:
            self._is_complete = True
            if self._is_begun:
                raise StopIteration
            # Clients expect dictionaries where there are no rows, too.
            piece = pa.RecordBatch.from_pylist([], schema=self._schema)
        self._is_begun = True
        return pa.RecordBatchReader.from_batches(self._schema, [piece])

    def __del__(self) -> None:
        if not self._is_complete:
            self._running.stop()


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch in parts that fit a message; one row is never divided."""
    if batch.nbytes <= _PIECE_BYTES or batch.num_rows <= 1:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _pieces(batch.slice(0, half))
    yield from _pieces(batch.slice(half))


def _alone(error: BaseException) -> BaseException:
    """An error without the frames that it went through: they hold batches and connections."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def status_of(error: BaseException) -> str:
    """How a query ended that gave this error, for the log."""
    match error:
        case QueryCancelled():
            return "cancelled"
        case LabelRefused():
            return "refused (labels)"
        case CostRefused():
            return "refused (cost)"
        case Refused():
            return "refused"
        case Error():
            return f"failed ({type(error).__name__})"
    return f"failed (unexpected {type(error).__name__})"
