"""Runs fragments at once and brings their rows here, bounded in bytes.

One thread per fragment reads ahead of the consumer. A result that one residual scan consumes is
streamed; where several fragments meet, each is gathered (``exchange.gather``).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import pyarrow as pa

from batuta_sql.errors import Error, OperationalError, QueryCancelled
from batuta_sql.exchange.throttle import Governor
from batuta_sql.exchange.wire import restore, restored_schema
from batuta_sql.plan.fragments import Fragment
from batuta_sql.sources.base import (
    FragmentQuery,
    FragmentReader,
    Metered,
    Snapshot,
    SourceEstimate,
    Usage,
)


def fragment_query(
    fragment: Fragment, max_bytes: float | None = None, degree: int = 1
) -> FragmentQuery:
    """A fragment as its source is asked for it.

    :param max_bytes: bytes that it may bill.
    :param degree: how many connections may read it at once.
    """
    types = tuple((symbol, wire.type) for symbol, wire in fragment.columns)
    parts = fragment.parts(degree)
    return FragmentQuery(
        fragment.sql, types, fragment.tables, fragment.rows, max_bytes, parts, fragment.files
    )


@dataclass
class FetchMetrics:
    """What a fragment took: rows, bytes (of Arrow memory), seconds from start to end.

    ``usage`` is what the source says that it billed, where it says so; ``keys`` how many keys went
    with the statement, None where it was sent as it is; ``connections`` how many read it at once;
    ``age`` how many seconds before a result was read that was kept, None where it was read now;
    ``rested`` how many seconds nothing was read so that others could be served; ``first`` how many
    seconds it took until rows came, None where none did.
    """

    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0
    finished: bool = False
    usage: Usage | None = None
    keys: int | None = None
    connections: int = 1
    age: float | None = None
    rested: float = 0.0
    first: float | None = None

    def with_another(self, other: FetchMetrics) -> FetchMetrics:
        """Of two statements that together are one fragment."""
        return replace(
            self,
            rows=self.rows + other.rows,
            bytes=self.bytes + other.bytes,
            seconds=self.seconds + other.seconds,
            rested=self.rested + other.rested,
            finished=self.finished and other.finished,
        )


class Stop:
    """A flag that all threads of one query watch, and the first error that set it."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self.error: BaseException | None = None

    def set(self, error: BaseException | None) -> None:
        with self._lock:
            if self.error is None and not self._event.is_set():
                self.error = error
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()


class RunsAway(Exception):
    """A fragment takes far longer at its source than another way would have."""

    def __init__(self, fragment: Fragment) -> None:
        super().__init__(f"{fragment.name} at {fragment.source}")
        self.fragment = fragment


class Misjudged(Exception):
    """What has arrived is so far from what was thought that other statements are to be sent."""


class FetchWatch:
    """Hears of one fetch; this one does nothing with it."""

    def begun(self, fetch: Fetch) -> None:
        """The statement is sent next, in this thread, which is the fetch's own."""

    def ended(self, fetch: Fetch, error: BaseException | None) -> None:
        """It is over; perhaps in another thread.

        :param error: what ended it early; None where it was read, or nobody wanted the rest.
        """


UNWATCHED = FetchWatch()


@dataclass(eq=False)
class Fetch:
    """One running fragment.

    :param patience: seconds after which it runs away, unless half of its rows are here.
    :param governor: of the source that is asked; None where no source is.
    :param gives_way_after: seconds after which it gives way to others.
    """

    fragment: Fragment
    snapshot: Snapshot
    stop: Stop
    timeout: float | None = None
    max_bytes: float | None = None
    degree: int = 1
    patience: float | None = None
    governor: Governor | None = None
    gives_way_after: float = 0.0
    watch: FetchWatch = UNWATCHED
    least_seconds: float | None = None
    """What the source's own plan says; known a moment after the statement was sent."""
    metrics: FetchMetrics = field(default_factory=FetchMetrics)
    sent: threading.Event = field(default_factory=threading.Event)
    """Set when the source has taken the statement, or refused it."""
    error: Error | None = None
    """What ended the stream early, in our own terms: an engine in between rewords it."""
    started: float = field(default_factory=time.monotonic)

    def overdue(self) -> OperationalError | None:
        """The error of a fragment that has run past its timeout, with a second's grace.

        The source enforces the timeout itself; this is for one that has gone silent.
        """
        if self.timeout is None or self.metrics.finished:
            return None
        if time.monotonic() - self.started < self.timeout + _GRACE_SECONDS:
            return None
        self.error = OperationalError(
            f"no end of the answer within {self.timeout:g} s",
            source=self.fragment.source,
            hint="raise query_timeout, or look at the network",
        )
        return self.error

    def told(self, estimate: SourceEstimate) -> None:
        """Takes what the source thinks of the statement."""
        self.least_seconds = estimate.least_seconds

    def runs_away(self) -> bool:
        """Whether it has run far past what it was thought to take, or will by the source's plan."""
        if self.patience is None or self.metrics.finished:
            return False
        hopeless = (self.least_seconds or 0.0) > self.patience
        took = time.monotonic() - self.started - self.metrics.rested
        if took < self.patience and not hopeless:
            return False
        return self.metrics.rows < (self.fragment.rows or 0.0) / 2

    def batches(self) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The restored batches; the statement starts now, in the calling thread."""
        started = time.perf_counter()
        columns = self.fragment.columns
        query = fragment_query(self.fragment, self.max_bytes, self.degree)
        self.metrics.connections = max(len(query.parts), 1)
        self.watch.begun(self)
        try:
            reader = self.snapshot.read(query)
        except BaseException as error:
            self.metrics.seconds = time.perf_counter() - started
            self.watch.ended(self, error)
            raise
        finally:
            self.sent.set()
        try:
            schema = restored_schema(reader.schema, columns)
        except BaseException as error:
            reader.close()
            self.watch.ended(self, error)
            raise
        return schema, self._restored(reader, started)

    def _restored(self, reader: FragmentReader, started: float) -> Iterator[pa.RecordBatch]:
        governed = self._governed(reader)
        try:
            for batch in governed:
                if self.stop:
                    raise QueryCancelled("the query was cancelled", source=self.fragment.source)
                if batch.num_rows:
                    if self.metrics.first is None:
                        self.metrics.first = time.perf_counter() - started
                    restored = restore(batch, self.fragment.columns)
                    self.metrics.rows += restored.num_rows
                    self.metrics.bytes += batch.nbytes
                    yield restored
            if isinstance(reader, Metered):
                self.metrics.usage = reader.usage()
            self.metrics.finished = True
        except Error as error:
            self.error = error
            raise
        except (pa.ArrowException, OSError) as failure:
            self.error = OperationalError(str(failure), source=self.fragment.source)
            raise self.error from None
        finally:
            self.metrics.seconds = time.perf_counter() - started
            governed.close()
            reader.close()
            self.watch.ended(self, self.error)

    def _governed(self, reader: FragmentReader) -> Generator[pa.RecordBatch]:
        """What is read, with rests in between where the source has others to serve."""
        governor = self.governor
        if governor is None:
            yield from reader
            return
        with ExitStack() as stack:
            is_long = False
            began = time.monotonic()
            for batch in reader:
                worked = time.monotonic() - began
                yield batch
                if not is_long and began - self.started >= self.gives_way_after:
                    is_long = True
                    stack.enter_context(governor.reading(self.metrics.connections))
                if is_long and self._may_rest():
                    self.metrics.rested += governor.rest(worked, lambda: bool(self.stop))
                began = time.monotonic()

    def _may_rest(self) -> bool:
        """The source counts rests as time that the statement takes."""
        return self.timeout is None or self.metrics.rested < self.timeout * _RESTS_SHARE


class Prefetch:
    """Reads a fragment ahead of its consumer, at most ``limit`` bytes."""

    def __init__(self, fetch: Fetch, limit: int) -> None:
        self._fetch = fetch
        self._limit = limit
        self._queue: queue.Queue[pa.RecordBatch | BaseException | None] = queue.Queue()
        self._held = 0
        self._room = threading.Condition()
        self._schema: pa.Schema | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._abandoned = False
        self._thread = threading.Thread(
            target=self._run, name=f"batuta-fetch-{fetch.fragment.name}", daemon=True
        )
        self._thread.start()

    def reader(self) -> pa.RecordBatchReader:
        """The stream; waits until the source has answered with a schema.

        :raises Error: what the source said instead.
        """
        while not self._ready.wait(0.2):
            if self._fetch.stop:
                raise self._fetch.stop.error or QueryCancelled("the query was cancelled")
            if (error := self._fetch.overdue()) is not None:
                raise error
            if self._fetch.runs_away():
                raise RunsAway(self._fetch.fragment)
        if self._failure is not None:
            raise self._failure
        assert self._schema is not None
        return pa.RecordBatchReader.from_batches(self._schema, self._consume())

    def _run(self) -> None:
        try:
            schema, batches = self._fetch.batches()
            self._schema = schema
            if self._fetch.patience is None:
                self._ready.set()
            for batch in batches:
                # Where another way may still be taken, nothing is given before there are rows.
                self._ready.set()
                self._wait_for_room()
                if self._abandoned or self._fetch.stop:
                    batches.close()  # type: ignore[attr-defined]
                    break
                with self._room:
                    self._held += batch.nbytes
                self._queue.put(batch)
            self._ready.set()
            self._queue.put(None)
        except BaseException as error:
            self._fetch.stop.set(error)
            self._failure = error
            self._ready.set()
            self._queue.put(error)

    def _wait_for_room(self) -> None:
        with self._room:
            while self._held > self._limit and not self._abandoned and not self._fetch.stop:
                self._room.wait(0.1)

    def _consume(self) -> Iterator[pa.RecordBatch]:
        while True:
            item = self._next()
            if item is None:
                if self._fetch.stop:
                    raise self._fetch.stop.error or QueryCancelled("the query was cancelled")
                return
            if isinstance(item, BaseException):
                raise item
            with self._room:
                self._held -= item.nbytes
                self._room.notify()
            yield item

    def _next(self) -> pa.RecordBatch | BaseException | None:
        while True:
            try:
                return self._queue.get(timeout=0.2)
            except queue.Empty:
                if self._fetch.stop:
                    return self._fetch.stop.error or QueryCancelled("the query was cancelled")
                if (error := self._fetch.overdue()) is not None:
                    return error

    def abandon(self) -> None:
        """The consumer wants no more: ends the thread and the remote statement."""
        self._abandoned = True
        with self._room:
            self._room.notify()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)


_GRACE_SECONDS = 1.0
_RESTS_SHARE = 0.25
"""Of ``query_timeout`` that rests may take."""
