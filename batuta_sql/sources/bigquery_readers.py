"""Readers of a BigQuery result: what is fetched ahead, counted, and ended.

Pages of JSON come one after the other; the streams of a read session come side by side.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from batuta_sql.errors import Error, OperationalError, QueryCancelled
from batuta_sql.sources.base import Usage
from batuta_sql.sources.bigquery_rest import Client
from batuta_sql.sources.bigquery_types import Shape, batch_of, schema_of

PAGES_AHEAD = 2
"""Pages that are held before they are wanted. The service cuts them at 10 MB and more."""

_CLOSE_SECONDS = 5.0

Page = Mapping[str, Any]
Stopped = Callable[[], bool]


class BatchReader:
    """A running fragment; see ``FragmentReader``. Threads fetch ahead of the consumer.

    :param feeds: what the rows come from, each read in a thread of its own.
    :param convert: makes a batch of the fragment's schema of one item of a feed.
    :param expected: how many rows they all have together.
    :param end: gives what was billed, once all feeds have ended.
    :param hang_up: ends whatever a feed may be waiting for.
    """

    def __init__(
        self,
        client: Client,
        source: str,
        shapes: Sequence[Shape],
        feeds: Sequence[Iterator[Any]],
        convert: Callable[[Any], pa.RecordBatch],
        expected: int | None,
        end: Callable[[], Usage | None],
        stop: threading.Event,
        hang_up: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._source = source
        self._shapes = shapes
        self._convert = convert
        self._expected = expected
        self._seen = 0
        self._end = end
        self._usage: Usage | None = None
        self._stop = stop
        self._hang_up = hang_up
        self._done = False
        self._lock = threading.Lock()
        self._running = len(feeds)
        # An item, the error that ended a feed, or None after the last of all.
        self._queue: queue.Queue[Any] = queue.Queue(max(PAGES_AHEAD, len(feeds)))
        self._threads = [
            threading.Thread(
                target=self._fetch, args=(feed,), name="batuta-bigquery-pages", daemon=True
            )
            for feed in feeds
        ]
        for thread in self._threads:
            thread.start()

    @property
    def schema(self) -> pa.Schema:
        return schema_of(self._shapes)

    def usage(self) -> Usage | None:
        return self._usage

    def __iter__(self) -> BatchReader:
        return self

    def __next__(self) -> pa.RecordBatch:
        if self._done:
            raise StopIteration
        item = self._take()
        if isinstance(item, BaseException):
            self._finish()
            raise self._client.error(item) from None
        if item is None:
            self._finish()
            if self._expected is not None and self._seen != self._expected:
                raise OperationalError(
                    f"the answer ended after {self._seen} of {self._expected} rows",
                    source=self._source,
                    hint="run the query again",
                )
            raise StopIteration
        try:
            batch = self._convert(item)
        except Error as error:
            self.close()
            error.source = self._source
            raise
        self._seen += batch.num_rows
        return batch

    def _take(self) -> Any:
        while True:
            try:
                return self._queue.get(timeout=0.1)
            except queue.Empty:
                if self._stop.is_set():
                    return QueryCancelled("the query was cancelled", source=self._source)

    def _fetch(self, feed: Iterator[Any]) -> None:
        try:
            for item in feed:
                self._put(item)
                if self._stop.is_set():
                    return
            with self._lock:
                self._running -= 1
                last = self._running == 0
            if not last:
                return
            self._usage = self._end()
        except BaseException as error:
            self._put(error)
            return
        self._put(None)

    def _put(self, item: Any) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def cancel(self) -> None:
        self._stop.set()
        self._hang_up()

    def _finish(self) -> None:
        self._done = True
        self.cancel()

    def close(self) -> None:
        self._finish()
        deadline = time.monotonic() + _CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))


class PageReader(BatchReader):
    """The rows of pages of JSON.

    :param pages: the pages that follow the first; ends after the last.
    """

    def __init__(
        self,
        client: Client,
        source: str,
        shapes: Sequence[Shape],
        first: Page,
        pages: Iterator[Page],
        expected: int | None,
        end: Callable[[], Usage | None],
        stop: threading.Event,
    ) -> None:
        super().__init__(
            client,
            source,
            shapes,
            [itertools.chain([first], pages)],
            lambda page: batch_of(page.get("rows") or [], shapes),
            expected,
            end,
            stop,
        )


def following(first: Page, ask: Callable[[str], Page]) -> Iterator[Page]:
    """The pages after the first one.

    :raises OperationalError: for a token that leads in a circle.
    """
    token = first.get("pageToken")
    known: set[str] = set()
    while token:
        if token in known:
            raise OperationalError("the server gave the same page token twice")
        known.add(token)
        page = ask(token)
        yield page
        token = page.get("pageToken")
