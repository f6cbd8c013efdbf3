"""Threads that ask sources beside the run of a query."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
_Task = tuple[Callable[[], Any], "Future[Any]"]


_IDLE_SECONDS = 10.0


class Workers:
    """Threads that ask sources; started when they are needed, ended by the process.

    Not a ThreadPoolExecutor: a source that never answers must not hold the end of the program.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._threads = 0
        self._running: set[Future[Any]] = set()
        self._closed = False

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Runs ``work`` in another thread and the caller's context; after ``close`` here."""
        future: Future[T] = Future()
        context = contextvars.copy_context()
        if self._closed:
            _complete(future, work)
            return future
        with self._lock:
            self._running.add(future)
            start = self._idle == 0 and self._threads < self._most
            if start:
                self._threads += 1
            else:
                self._idle = max(0, self._idle - 1)
            self._tasks.put((lambda: context.run(work), future))
        if start:
            threading.Thread(target=self._run, name="batuta-estimate", daemon=True).start()
        return future

    def _next(self) -> _Task | None:
        """The next task; None when there was none for a while, and the thread may end."""
        while True:
            try:
                return self._tasks.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._tasks.empty():
                        self._idle = max(0, self._idle - 1)
                        self._threads = max(0, self._threads - 1)
                        return None

    def _run(self) -> None:
        while (task := self._next()) is not None:
            work, future = task
            _complete(future, work)
            del work, task
            with self._lock:
                self._running.discard(future)
                self._idle += 1
            del future

    def close(self, seconds: float) -> None:
        """Waits for what runs, and ends the threads."""
        deadline = time.monotonic() + seconds
        with self._lock:
            self._closed = True
            running, threads, self._threads = list(self._running), self._threads, 0
        for future in running:
            try:
                future.result(max(0.0, deadline - time.monotonic()))
            except BaseException:
                continue
        for _ in range(threads):
            self._tasks.put(None)


def _complete(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
