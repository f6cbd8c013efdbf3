"""Threads that ask sources beside the run of a query."""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
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
        self._changed = threading.Condition()
        self._tasks: deque[_Task] = deque()
        """Those that no thread has taken yet."""
        self._idle = 0
        """Threads that wait for a task."""
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
        with self._changed:
            self._running.add(future)
            self._tasks.append((lambda: context.run(work), future))
            start = self._idle < len(self._tasks) and self._threads < self._most
            if start:
                self._threads += 1
            self._changed.notify()
        if start:
            threading.Thread(target=self._run, name="batuta-estimate", daemon=True).start()
        return future

    def _next(self) -> _Task | None:
        """The next task; None when there was none for a while, or will be none, and the thread
        ends.
        """
        with self._changed:
            while not self._tasks:
                self._idle += 1
                told = not self._closed and self._changed.wait(_IDLE_SECONDS)
                self._idle -= 1
                if not self._tasks and not told:
                    self._threads -= 1
                    return None
            return self._tasks.popleft()

    def _run(self) -> None:
        while (task := self._next()) is not None:
            work, future = task
            _complete(future, work)
            del work, task
            with self._changed:
                self._running.discard(future)
            del future

    def close(self, seconds: float) -> None:
        """Waits for what runs, and ends the threads."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._closed = True
            running = list(self._running)
            self._changed.notify_all()
        for future in running:
            try:
                future.result(max(0.0, deadline - time.monotonic()))
            except BaseException:
                continue


def _complete(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
