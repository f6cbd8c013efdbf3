"""Brings the whole results of fragments here, several at once.

Each is held in memory while it is small, and in a table of the residual engine (which spills to
disk) from then on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from batuta_sql.errors import QueryCancelled
from batuta_sql.exchange.fetch import Fetch, RunsAway, Stop
from batuta_sql.plan.fragments import Fragment

_END_SECONDS = 5.0

Spill = Callable[[str, pa.RecordBatchReader], None]
"""Stores a stream as a table of the residual engine under the given name."""


@dataclass
class Gathered:
    """A fragment's whole result: a table in memory, or None where the engine holds it.

    :param schema: as it has arrived.
    """

    fragment: Fragment
    schema: pa.Schema
    table: pa.Table | None


class Gathering:
    """Runs fragments, each from when it is started; gives the results as they come.

    :param memory: bytes that one result may take here before it goes to the engine's tables.
    """

    def __init__(self, stop: Stop, spill: Spill, memory: int) -> None:
        self._stop = stop
        self._spill = spill
        self._memory = memory
        self._running: list[Fetch] = []
        self._results: queue.Queue[tuple[Fetch, Gathered | None]] = queue.Queue()

    @property
    def running(self) -> int:
        """How many results are still to come."""
        return len(self._running)

    def start(self, fetch: Fetch) -> None:
        self._running.append(fetch)
        name = f"batuta-fetch-{fetch.fragment.name}"
        threading.Thread(target=self._run, args=(fetch,), name=name, daemon=True).start()

    def next(self) -> Gathered:
        """Waits for the next result.

        :raises Error: the first failure; the other statements are ended first.
        :raises RunsAway: likewise.
        """
        try:
            while True:
                try:
                    # A wait without limit could not be interrupted by Ctrl-C.
                    fetch, found = self._results.get(timeout=0.1)
                except queue.Empty:
                    self._look_after()
                    continue
                self._running.remove(fetch)
                if found is not None and not self._stop:
                    return found
                raise self._stop.error or QueryCancelled("the query was cancelled")
        except BaseException as interruption:
            self.end(interruption)
            raise

    def _look_after(self) -> None:
        for fetch in self._running:
            if self._stop:
                # Again: a cancellation that comes before the statement has begun is lost.
                fetch.snapshot.cancel()
            if (error := fetch.overdue()) is not None:
                raise error
            if fetch.runs_away():
                raise RunsAway(fetch.fragment)

    def end(self, reason: BaseException) -> None:
        """Ends all statements, and waits until their threads have noticed."""
        self._stop.set(reason)
        for fetch in self._running:
            fetch.snapshot.cancel()
        while self._running:
            try:
                fetch, _ = self._results.get(timeout=_END_SECONDS)
            except queue.Empty:
                return
            self._running.remove(fetch)

    def _run(self, fetch: Fetch) -> None:
        found: Gathered | None = None
        try:
            found = self._gathered(fetch)
        except BaseException as error:
            self._stop.set(fetch.error or error)
        finally:
            self._results.put((fetch, found))

    def _gathered(self, fetch: Fetch) -> Gathered:
        schema, batches = fetch.batches()
        held: list[pa.RecordBatch] = []
        size = 0
        for batch in batches:
            held.append(batch)
            size += batch.nbytes
            if size > self._memory:
                stream = pa.RecordBatchReader.from_batches(schema, _chained(held, batches))
                self._spill(fetch.fragment.name, stream)
                return Gathered(fetch.fragment, schema, None)
        return Gathered(fetch.fragment, schema, pa.Table.from_batches(held, schema))


def _chained(
    held: list[pa.RecordBatch], rest: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    while held:
        yield held.pop(0)
    yield from rest
