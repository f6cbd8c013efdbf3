"""What a service's answers and queues say of its load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from batuta_sql.sources.base import Load

_TOO_MANY = {429: "Too Many Requests", 503: "Service Unavailable"}
_LASTS_SECONDS = 2.0
"""For how long such an answer is thought to hold where it does not say; RFC 9110, 10.2.3."""

_LONGEST_SECONDS = 60.0


class Refusals:
    """Remembers the last time that a service said that it is asked too much."""

    def __init__(self) -> None:
        self._until = 0.0
        self._status = 0

    def note(self, status: int, after: float | None = None) -> None:
        """Takes the status of an answer.

        :param after: seconds that it asks to wait.
        """
        if status in _TOO_MANY:
            lasts = min(max(after or 0.0, _LASTS_SECONDS), _LONGEST_SECONDS)
            self._status, self._until = status, time.monotonic() + lasts

    def load(self) -> Load:
        if time.monotonic() >= self._until:
            return Load()
        return Load("busy", f"it answered {self._status} {_TOO_MANY[self._status]}")


class Queue:
    """How many statements of anybody wait in a warehouse's queue, asked for now and then.

    :param waiting: asks; None where it is not told.
    :param seconds: between two times.
    """

    def __init__(self, waiting: Callable[[], int | None], seconds: float = 5.0) -> None:
        self._waiting = waiting
        self._seconds = seconds
        self._lock = threading.Lock()
        self._next = 0.0

    def load(self) -> Load | None:
        """None where it was asked a moment ago.

        :raises Error: where it cannot be asked.
        """
        with self._lock:
            if time.monotonic() < self._next:
                return None
            self._next = time.monotonic() + self._seconds
        waiting = self._waiting()
        if waiting is None:
            return None
        if not waiting:
            return Load()
        what = "1 statement waits" if waiting == 1 else f"{waiting} statements wait"
        return Load("busy", f"{what} in the warehouse's queue")
