"""Running a statement at BigQuery: a job, its pages of rows, and what it billed.

https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs. The job's id is made here, so that
an insert that is sent again finds its job instead of running it, and billing it, twice.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from batuta_sql.errors import DataError, Error, QueryCancelled
from batuta_sql.sources.base import FragmentQuery, Usage
from batuta_sql.sources.bigquery_readers import BatchReader, PageReader, Stopped, following
from batuta_sql.sources.bigquery_rest import Client, RemoteError, job_error
from batuta_sql.sources.bigquery_storage import ReadSessions, Result
from batuta_sql.sources.bigquery_types import shape_of

MEBIBYTE = 1 << 20
TABLE_MINIMUM = 10 * MEBIBYTE
"""The least that is billed of a table: https://cloud.google.com/bigquery/pricing."""

_WAIT_MILLISECONDS = 10_000
_CANCEL_SECONDS = 2.0
_INT64 = {"formatOptions.useInt64Timestamp": "true"}


@dataclass(frozen=True)
class DryRun:
    """What a dry run told.

    :param scanned: bytes that the statement will read; None where that cannot be told beforehand.
    :param billed: at most that many bytes will be billed.
    :param exact: whether ``scanned`` is more than an upper bound.
    """

    scanned: int | None
    billed: int | None
    exact: bool


@dataclass(eq=False)
class Job:
    """A job: its id, made here, and where it runs, once the service has told.

    Outside of the US and EU a job is found by both alone.
    """

    location: str | None
    id: str = field(default_factory=lambda: f"batuta_{uuid.uuid4().hex}")

    @property
    def where(self) -> dict[str, str]:
        return {"location": self.location} if self.location else {}


class Project:
    """The jobs of one project.

    :param timeout: seconds for a statement with its rows; None: never.
    """

    def __init__(
        self, client: Client, project: str, location: str | None, timeout: float | None
    ) -> None:
        self.client = client
        self._project = project
        self._location = location
        self._timeout = timeout

    def deadline(self) -> float:
        """Of a statement that begins now, as ``time.monotonic`` tells it."""
        return time.monotonic() + (self._timeout if self._timeout is not None else 10.0**9)

    def job(self) -> Job:
        return Job(self._location)

    def _request(self, sql: str, job: Job, **more: Any) -> dict[str, Any]:
        query = {"query": sql, "useLegacySql": False}
        if "maximumBytesBilled" in more:
            query["maximumBytesBilled"] = more.pop("maximumBytesBilled")
        reference = {"projectId": self._project, "jobId": job.id, **job.where}
        return {"jobReference": reference, "configuration": {"query": query, **more}}

    def dry_run(self, sql: str) -> DryRun:
        """What a statement would read; nothing is run and nothing billed.

        :raises RemoteError: for a statement that cannot run.
        """
        body = self._request(sql, self.job(), dryRun=True)
        found = self.client.call("POST", f"{self._project}/jobs", body=body)
        failure = job_error(found)
        if failure is not None:
            raise failure
        told = (found.get("statistics") or {}).get("query") or {}
        accuracy = told.get("totalBytesProcessedAccuracy", "PRECISE")
        processed = told.get("totalBytesProcessed")
        if processed is None or accuracy not in ("PRECISE", "UPPER_BOUND"):
            return DryRun(None, None, False)
        scanned = int(processed)
        tables = max(1, len(told.get("referencedTables") or ()))
        return DryRun(scanned, most_billed(scanned, tables), accuracy == "PRECISE")

    def start(
        self, sql: str, job: Job, most: float | None, deadline: float, stopped: Stopped
    ) -> None:
        """Inserts a job.

        :param most: bytes that it may bill; the service refuses a job that would bill more.
        """
        more: dict[str, Any] = {}
        if most is not None:
            # What was authorised as free may bill nothing: 0 could be read as no limit.
            more["maximumBytesBilled"] = str(max(int(most), 1))
        if self._timeout is not None:
            more["jobTimeoutMs"] = str(max(1, int(self._timeout * 1000)))
        body = self._request(sql, job, **more)
        try:
            found = self.client.call(
                "POST", f"{self._project}/jobs", body=body, deadline=deadline, stopped=stopped
            )
        except RemoteError as error:
            if error.reason != "duplicate":
                raise
            # An insert whose answer was lost: the job is ours, and runs. "project:location.job"
            told = re.search(r":([\w-]+)\." + job.id, error.message)
            job.location = job.location or (told[1] if told is not None else None)
            return
        job.location = (found.get("jobReference") or {}).get("location") or job.location
        failure = job_error(found)
        if failure is not None:
            raise failure

    def results(
        self, job: Job, token: str | None, deadline: float, stopped: Stopped
    ) -> dict[str, Any]:
        """A page of a job's rows; the first one waits until the job is done."""
        while True:
            left = int(max(0.0, deadline - time.monotonic()) * 1000)
            parameters = {**_INT64, **job.where}
            if token is None:
                parameters["timeoutMs"] = str(min(_WAIT_MILLISECONDS, left))
            else:
                parameters["pageToken"] = token
            try:
                page = self.client.call(
                    "GET",
                    f"{self._project}/queries/{job.id}",
                    parameters,
                    deadline=deadline,
                    stopped=stopped,
                )
            except RemoteError as error:
                raise self._cause(job, deadline, error) from None
            if page.get("jobComplete", True):
                return page
            if time.monotonic() >= deadline:
                raise RemoteError(0, "timeout", "the job has not ended within query_timeout")

    def _cause(self, job: Job, deadline: float, error: RemoteError) -> RemoteError:
        """A failed job's own error before that of asking for its rows."""
        try:
            found = self.client.call("GET", f"{self._project}/jobs/{job.id}", job.where, attempts=1)
        except (RemoteError, Error):
            return error
        return job_error(found) or error

    def billed(self, job: Job) -> Usage | None:
        """What a job that is done has billed; None where the service does not say."""
        told = ((self._shown(job).get("statistics") or {}).get("query") or {}).get(
            "totalBytesBilled"
        )
        return Usage(bytes=float(told)) if told is not None else None

    def destination(self, job: Job) -> Mapping[str, str] | None:
        """The table that holds the result of a job that is done; None where none is told.

        https://cloud.google.com/bigquery/docs/cached-results
        """
        told = ((self._shown(job).get("configuration") or {}).get("query") or {}).get(
            "destinationTable"
        )
        return told if isinstance(told, Mapping) else None

    def _shown(self, job: Job) -> dict[str, Any]:
        try:
            return self.client.call("GET", f"{self._project}/jobs/{job.id}", job.where)
        except (RemoteError, Error):
            return {}

    def cancel(self, job: Job) -> None:
        """Asks to end a job; bounded, since the network may be silent."""

        def ask() -> None:
            with contextlib.suppress(Exception):
                deadline = time.monotonic() + _CANCEL_SECONDS
                path = f"{self._project}/jobs/{job.id}/cancel"
                self.client.call("POST", path, job.where, deadline=deadline)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(_CANCEL_SECONDS)


def most_billed(scanned: int, tables: int) -> int:
    """The most that is billed for reading ``scanned`` bytes of so many tables.

    Each table counts for 10 MB at the least, and the sum is rounded up to whole MB. A dry run does
    not say how the bytes are shared out: the most is billed where they are all of one table.
    """
    if scanned == 0:
        return 0
    sum_ = max(scanned, TABLE_MINIMUM) + (tables - 1) * TABLE_MINIMUM
    return -(-sum_ // MEBIBYTE) * MEBIBYTE


# --- reading -----------------------------------------------------------------------------------


class BigQuerySnapshot:
    """One query's view: each fragment is a job of its own, and sees the tables as it starts.

    :param preview: gives the reader of a fragment that needs no job, else None.
    :param price: the most that a statement may bill, where nobody has authorised its estimate.
    :param sessions: reads results of several pages, where it can.
    """

    def __init__(
        self,
        project: Project,
        source: str,
        preview: Callable[[FragmentQuery, threading.Event], PageReader | None],
        price: Callable[[FragmentQuery], float | None],
        sessions: ReadSessions,
    ) -> None:
        self._project = project
        self._source = source
        self._preview = preview
        self._price = price
        self._sessions = sessions
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._running: set[Job] = set()
        self._readers: list[BatchReader] = []

    def read(self, query: FragmentQuery) -> BatchReader:
        try:
            reader = self._preview(query, self._reader_stop()) or self._run(query)
        except (RemoteError, Error) as error:
            if self._stop.is_set():
                raise QueryCancelled("the query was cancelled", source=self._source) from None
            raise self._project.client.error(error) from None
        with self._lock:
            self._readers.append(reader)
        if self._stop.is_set():
            reader.close()
            raise QueryCancelled("the query was cancelled", source=self._source)
        return reader

    def _reader_stop(self) -> threading.Event:
        if self._stop.is_set():
            raise QueryCancelled("the query was cancelled", source=self._source)
        return threading.Event()

    def _run(self, query: FragmentQuery) -> BatchReader:
        project, stop = self._project, self._reader_stop()
        most = query.max_bytes if query.max_bytes is not None else self._price(query)
        job = project.job()
        deadline = project.deadline()

        def stopped() -> bool:
            return stop.is_set() or self._stop.is_set()

        with self._lock:
            self._running.add(job)
        try:
            project.start(query.sql, job, most, deadline, stopped)
            first = project.results(job, None, deadline, stopped)
        except BaseException:
            # Whatever became of it here, there it may still run, and bill.
            project.cancel(job)
            raise
        finally:
            with self._lock:
                self._running.discard(job)
        fields = (first.get("schema") or {}).get("fields") or []
        if len(fields) != len(query.columns):
            raise DataError(
                f"the answer has {len(fields)} columns instead of {len(query.columns)}",
                source=self._source,
            )
        wanted = [type_ for _, type_ in query.columns]
        shapes = [shape_of(f, w) for f, w in zip(fields, wanted, strict=True)]
        total = first.get("totalRows")

        def end() -> Usage | None:
            return project.billed(job)

        if first.get("pageToken") and total is not None and self._sessions.may_read(fields, shapes):
            table = project.destination(job)
            if table is not None:
                result = Result(table, fields, shapes, int(total), end, deadline)
                reader = self._sessions.read(result, stop)
                if reader is not None:
                    return reader
        return PageReader(
            project.client,
            self._source,
            shapes,
            first,
            following(first, lambda token: project.results(job, token, deadline, stopped)),
            int(total) if total is not None else None,
            end,
            stop,
        )

    def cancel(self) -> None:
        self._stop.set()
        with self._lock:
            running, readers = list(self._running), list(self._readers)
        for job in running:
            self._project.cancel(job)
        for reader in readers:
            reader.cancel()

    def close(self) -> None:
        self.cancel()
        with self._lock:
            readers, self._readers = self._readers, []
        for reader in readers:
            reader.close()
