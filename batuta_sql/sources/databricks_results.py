"""The result of a statement: parts in the workspace's storage, fetched ahead and given on in order.

Each part is an Arrow stream behind a link that is good for 15 minutes at most. What comes is held
against what the manifest told: a stream that ends between two batches looks whole.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import Any

import pyarrow as pa
import tenacity

from batuta_sql.errors import DatabaseError, OperationalError, QueryCancelled
from batuta_sql.sources.base import FragmentQuery, Usage
from batuta_sql.sources.databricks_rest import refuse_if
from batuta_sql.sources.databricks_statements import CANCEL_SECONDS, Link, Statement, links_of
from batuta_sql.sources.databricks_types import arrow_of, fitted_batch
from batuta_sql.sources.http_package import http_package

AHEAD_BYTES = 64 * 2**20
"""Bytes of a result that are fetched before they are asked for, beside the part that is read."""

_PIECE = 1 << 18
_TRIES = 3
_EXPIRED = frozenset({403, 410})
_SAYS_EXPIRED = ("expired", "ExpiredToken")


class _Expired(Exception):
    """The storage takes a link no longer."""


class _Passing(Exception):
    """A part did not come whole; it may, if it is asked for again."""


class StatementReader:
    """The rows of a finished statement; see ``FragmentReader``.

    :param parallel: parts that are fetched at once.
    :param billed: asks afterwards what was billed.
    :param only: the numbers of the parts to read; None: all.
    """

    def __init__(
        self,
        statement: Statement,
        query: FragmentQuery,
        parallel: int,
        billed: Callable[[str], Usage | None],
        only: Sequence[int] | None = None,
    ) -> None:
        manifest = statement.answer.get("manifest") or {}
        self._statement = statement
        self._source = statement.source
        self._billed = billed
        self.schema = pa.schema([(n, arrow_of(t or "VARCHAR")) for n, t in query.columns])
        refuse_if_truncated(manifest, self._source)
        self._rows: int | None = int(manifest.get("total_row_count") or 0)
        told = {int(c["chunk_index"]): c for c in manifest.get("chunks") or ()}
        count = int(manifest.get("total_chunk_count") or len(told)) if self._rows else 0
        self._sizes = [told.get(i, {}).get("byte_count") for i in range(count)]
        self._counts = [told.get(i, {}).get("row_count") for i in range(count)]
        self._wanted = [i for i in range(count) if only is None or i in only]
        if only is not None:
            counts = [self._counts[i] for i in self._wanted]
            self._rows = sum(counts) if None not in counts else None
        self._links = links_of(statement.answer.get("result") or {})
        self._links_lock = threading.Lock()
        self._parallel = parallel
        self._pool: ThreadPoolExecutor | None = None
        self._coming: deque[tuple[int, Future[pa.Table]]] = deque()
        self._asked_for = 0
        self._batches: deque[pa.RecordBatch] = deque()
        self._given = 0
        self._stop = threading.Event()
        self._whole = False

    def __iter__(self) -> StatementReader:
        return self

    def __next__(self) -> pa.RecordBatch:
        while not self._batches:
            if self._whole:
                raise StopIteration
            if self._stop.is_set():
                raise QueryCancelled("the query was cancelled", source=self._source)
            self._ask_for_more()
            if not self._coming:
                self._end()
                raise StopIteration
            table = self._next_part()
            self._given += table.num_rows
            self._batches.extend(b for b in table.to_batches() if b.num_rows)
        return fitted_batch(self._batches.popleft(), self.schema, self._source)

    def _ask_for_more(self) -> None:
        """Asks for parts ahead: as many as may come at once, and as fit the memory for them."""
        while self._asked_for < len(self._wanted) and len(self._coming) < self._parallel:
            part = self._wanted[self._asked_for]
            held = sum(self._size(i) for i, _ in self._coming)
            if self._coming and held + self._size(part) > AHEAD_BYTES:
                return
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._parallel, "batuta-databricks")
            self._coming.append((part, self._pool.submit(self._part, part)))
            self._asked_for += 1

    def _size(self, index: int) -> int:
        size = self._sizes[index]
        return int(size) if size is not None else AHEAD_BYTES // self._parallel

    def _next_part(self) -> pa.Table:
        _, future = self._coming.popleft()
        while True:
            try:
                return future.result(0.1)
            except NotYet:
                if self._stop.is_set():
                    raise QueryCancelled("the query was cancelled", source=self._source) from None
            except BaseException:
                self.close()
                raise

    def _end(self) -> None:
        self.close()
        if self._rows is not None and self._given != self._rows:
            raise OperationalError(
                f"{self._given} rows came of {self._rows}: a part of the answer is missing",
                source=self._source,
                hint="run the query again",
            )
        self._whole = True

    # --- parts ---------------------------------------------------------------------------------

    def _part(self, index: int) -> pa.Table:
        """A part of the result, whole; asks anew for a link that has expired, once."""
        again = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(_TRIES) | tenacity.stop_when_event_set(self._stop),
            wait=tenacity.wait_exponential_jitter(multiplier=0.1, max=5, jitter=0.1),
            retry=tenacity.retry_if_exception_type(_Passing),
            sleep=tenacity.sleep_using_event(self._stop),
            reraise=True,
        )
        try:
            try:
                table: pa.Table = again(self._fetched, index)
            except _Expired:
                with self._links_lock:
                    self._links.pop(index, None)
                table = again(self._fetched, index)
        except _Expired as error:
            raise OperationalError(
                f"the storage refuses a new link to part {index + 1} of the answer: {error}",
                source=self._source,
                hint="check that this machine may reach the workspace's storage",
            ) from None
        except _Passing as error:
            raise OperationalError(
                f"part {index + 1} of {len(self._sizes)} of the answer did not come: {error}",
                source=self._source,
            ) from None
        return table

    def _link(self, index: int) -> Link:
        with self._links_lock:
            known = self._links.get(index)
        if known is not None and known.is_good:
            return known
        fresh = self._statement.links(index, self._stop)
        with self._links_lock:
            self._links.update(fresh)
        if index not in fresh:
            raise OperationalError(
                f"the workspace gives no link to part {index + 1} of the answer",
                source=self._source,
            )
        return fresh[index]

    def _fetched(self, index: int) -> pa.Table:
        link = self._link(index)
        if link.url.startswith("http:") and self._statement.workspace.login.host.startswith(
            "https"
        ):
            raise OperationalError("a link to a result without TLS", source=self._source)
        data = self._downloaded(link)
        try:
            with pa.ipc.open_stream(pa.py_buffer(data)) as stream:
                table = stream.read_all()
        except (pa.ArrowException, OSError) as error:
            raise _Passing(f"no whole Arrow stream ({error})") from None
        # An Arrow stream may end anywhere between two batches and look whole.
        expected = link.rows if link.rows is not None else self._counts[index]
        if expected is not None and table.num_rows != expected:
            raise _Passing(f"{table.num_rows} rows came of {expected}")
        return table

    def _downloaded(self, link: Link) -> bytes:
        httpx = http_package(self._source, "databricks")
        client = self._statement.workspace.client
        pieces: list[bytes] = []
        try:
            # Without the login: it is not the storage's business.
            with client.stream("GET", link.url, headers=dict(link.headers)) as answer:
                if not answer.is_success:
                    self._refused(answer)
                for piece in answer.iter_bytes(_PIECE):
                    pieces.append(piece)
                    refuse_if(self._stop, self._source)
        except (httpx.HTTPError, httpx.StreamError, RuntimeError) as error:
            refuse_if(self._stop, self._source)
            # The message could have the link in it.
            raise _Passing(
                f"the connection to the storage broke ({type(error).__name__})"
            ) from None
        return b"".join(pieces)

    @staticmethod
    def _refused(answer: Any) -> None:
        """The storage's refusal, told by its status alone: its text may repeat the link."""
        text = answer.read()[:4096].decode("utf-8", "replace")
        status = f"status {answer.status_code}"
        expired = answer.status_code in (400, 401) and any(w in text for w in _SAYS_EXPIRED)
        if answer.status_code in _EXPIRED or expired:
            raise _Expired(status)
        raise _Passing(status)

    # --- the end -------------------------------------------------------------------------------

    def usage(self) -> Usage | None:
        return self._billed(self._statement.id) if self._statement.id is not None else None

    def cancel(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self._stop.set()
        for _, future in self._coming:
            future.cancel()
        self._coming.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def refuse_if_truncated(manifest: Mapping[str, Any], source: str) -> None:
    """:raises DatabaseError: where a result is not whole."""
    if manifest.get("truncated"):
        raise DatabaseError(
            "the warehouse cut the answer off at its limit for one result",
            source=source,
            hint="ask for fewer rows or columns at once",
        )


def parts_of(statement: Statement) -> list[tuple[str, float]]:
    """Names and sizes of the parts of a finished statement's result; at least one.

    :raises DatabaseError: where it is not whole.
    """
    manifest = statement.answer.get("manifest") or {}
    refuse_if_truncated(manifest, statement.source)
    told = {int(c["chunk_index"]): c for c in manifest.get("chunks") or ()}
    # Of a large result not every part need be described.
    count = int(manifest.get("total_chunk_count") or len(told))
    sizes = [float(told.get(i, {}).get("byte_count") or 0) for i in range(max(count, 1))]
    return [(f"{statement.id}/{i}", size) for i, size in enumerate(sizes)]


def numbers_of_parts(names: Sequence[str]) -> tuple[str, list[int]]:
    """The statement's id, and the numbers, of parts that ``parts_of`` has named."""
    ids = {name.rpartition("/")[0] for name in names}
    assert len(ids) == 1
    return ids.pop(), [int(name.rpartition("/")[2]) for name in names]


class StatementSnapshot:
    """One query's view of a warehouse: each fragment is a statement of its own.

    :param parallel: parts of one result that are fetched at once.
    """

    def __init__(
        self,
        make: Callable[[str], Statement],
        parallel: int,
        billed: Callable[[str], Usage | None] = lambda _: None,
    ) -> None:
        self._make = make
        self._parallel = parallel
        self._billed = billed
        self._lock = threading.Lock()
        self._running: set[int] = set()
        self._statements: list[Statement] = []
        self._readers: list[StatementReader] = []
        self._cancelled = False

    def read(self, query: FragmentQuery) -> StatementReader:
        statement = self._make(query.sql)
        with self._lock:
            if self._cancelled:
                statement.stop.set()
            self._statements.append(statement)
        if query.files:
            statement.id, only = numbers_of_parts(query.files)
            statement.reopen()
            reader = StatementReader(statement, query, self._parallel, self._billed, only)
        else:
            statement.run()
            reader = StatementReader(statement, query, self._parallel, self._billed)
        with self._lock:
            self._readers.append(reader)
        refuse_if(statement.stop, statement.source)
        return reader

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            statements, readers = list(self._statements), list(self._readers)
        for reader in readers:
            reader.cancel()
        threads = [threading.Thread(target=s.cancel, daemon=True) for s in statements]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + CANCEL_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        self.cancel()
        for reader in self._readers:
            reader.close()
