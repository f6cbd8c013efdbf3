"""Work that a person waits for, and that Ctrl-C ends at the sources too."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from batuta_sql.errors import Error

T = TypeVar("T")

GRACE_SECONDS = 5.0
"""How long sources have to end their statements after Ctrl-C."""

LEFT = "a source does not answer to the cancellation: it is left to end by itself"

_LOOK_SECONDS = 0.1
_CANCEL_SECONDS = 0.2


def waited(
    work: Callable[[], T],
    cancel: Callable[[], None],
    *,
    look: Callable[[float], None] = lambda seconds: None,
    stopping: Callable[[], None] = lambda: None,
    complain: Callable[[str], None] = lambda text: None,
) -> T:
    """What ``work`` gives; it runs in a thread of its own, so that Ctrl-C reaches the sources.

    :param cancel: ends what runs; called again until that has ended, for ``GRACE_SECONDS``.
    :param look: called while it runs, with the seconds since it began.
    :param stopping: called on Ctrl-C, before anything is cancelled.
    :param complain: told where a source does not end its statement.
    :raises KeyboardInterrupt: where it was cancelled.
    """
    task = _Task(work)
    try:
        while not task.ended.wait(_LOOK_SECONDS):
            look(task.seconds)
    except KeyboardInterrupt:
        stopping()
        if not _has_ended(task, cancel):
            complain(LEFT)
        raise
    return task.outcome()


def _has_ended(task: _Task[T], cancel: Callable[[], None]) -> bool:
    """Ends what runs, at the sources too; waits a few seconds for it."""
    until = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(Error):
            cancel()
        if task.ended.wait(_CANCEL_SECONDS):
            return True
    return False


class _Task(Generic[T]):
    """Work in a thread of its own."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._began = time.monotonic()
        self._found: T | None = None
        self._error: BaseException | None = None
        self.ended = threading.Event()
        threading.Thread(target=self._run, name="batuta-work", daemon=True).start()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return cast("T", self._found)

    def _run(self) -> None:
        try:
            self._found = self._work()
        except BaseException as error:
            self._error = error
        finally:
            self.ended.set()
