"""Gives way at sources whose other users would suffer.

Each source has one governor for all queries and copies of a connection. While something is read, it
asks the source now and then how it is, and sets a level: how many readers' worth may be read at
once. The level falls by half and rises by steps (additive increase, multiplicative decrease:
Chiu and Jain, 1989), so that readers that know nothing of each other come to fair shares.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from batuta_sql.errors import Error
from batuta_sql.sources.base import Health, Load

_LOGGER = logging.getLogger(__name__)

_LOOKS_SECONDS = 0.5
_FIRST_LOOKS = 3
_IDLE_SECONDS = 5.0
"""Without readers, after which nobody looks any more and what was seen is forgotten."""

_FLOOR = 1 / 16
"""Of one reader: a copy always goes on."""

_STEP_BELOW_ONE = 1 / 16
_STEPS_ABOVE_ONE = 8
_LONGEST_REST = 5.0
_SLICE_SECONDS = 0.1


@dataclass(frozen=True)
class Throttled:
    """How much a source is read at once, and why no more.

    :param level: readers' worth; below 1 the share of the time in which one reads.
    :param most: what it would be without other users.
    """

    source: str
    health: Health
    reason: str
    level: float
    most: int

    @property
    def is_slowed(self) -> bool:
        return self.level < self.most

    def __str__(self) -> str:
        if not self.is_slowed:
            return f"{self.source} is {self.health}"
        worth = f"{self.level:.1f} of {self.most} readers"
        if self.level < 1:
            worth = f"one reader {self.level:.0%} of the time"
        why = f": {self.reason}" if self.reason else ""
        return f"{self.source} is {self.health}, slowed down to {worth}{why}"


class Governor:
    """How much of one source may be read at once.

    :param load: asks the source how it is; None: it cannot tell, and nothing is ever slowed down.
    :param most: readers at once without other users.
    """

    def __init__(self, source: str, load: Callable[[], Load | None] | None, most: int) -> None:
        self._source = source
        self._load = load
        self._most = max(most, 1)
        self._level = float(self._most)
        self._now = Load()
        self._lock = threading.Lock()
        self._running = 0
        self._ended = 0.0
        self._is_watching = False
        self._closed = threading.Event()

    @contextmanager
    def reading(self, readers: int = 1) -> Iterator[None]:
        """While so many readers run."""
        self._begin(readers)
        try:
            yield
        finally:
            with self._lock:
                self._running -= readers
                self._ended = time.monotonic()

    def look_first(self) -> None:
        """Asks the source how it is before anything is read: what comes later is compared with it.

        Takes some hundredths of a second; for what will read for long.
        """
        if self._load is not None:
            for _ in range(_FIRST_LOOKS):
                self._look()

    @property
    def readers(self) -> int:
        """How many may read at once now."""
        return max(1, int(self._level))

    def rest(self, worked: float, gives_up: Callable[[], bool] = lambda: False) -> float:
        """Waits, after a reader has read for so many seconds, for as long as others are to have.

        :param gives_up: whether nobody waits for the rows any more.
        :returns: seconds.
        """
        share = self._level / max(self._running, 1)
        if share >= 1:
            return 0.0
        began = time.monotonic()
        until = began + min(worked * (1 / share - 1), _LONGEST_REST)
        while (left := until - time.monotonic()) > 0 and not gives_up():
            if self._closed.wait(min(left, _SLICE_SECONDS)) or self._level >= self._running:
                break
        return time.monotonic() - began

    def state(self) -> Throttled:
        now = self._now
        return Throttled(self._source, now.health, now.reason, self._level, self._most)

    def hear(self, load: Load) -> None:
        """Takes what a source says of itself."""
        with self._lock:
            was = self._now.health
            # What nobody uses is no help to give up.
            used = min(self._level, float(max(self._running, 1)))
            match load.health:
                case "healthy":
                    below = self._level < 1
                    step = _STEP_BELOW_ONE if below else self._most / _STEPS_ABOVE_ONE
                    self._level = min(float(self._most), self._level + step)
                case "busy":
                    self._level = max(_FLOOR, used / 2)
                case "overloaded":
                    self._level = max(_FLOOR, min(used / 2, 0.5))
            self._now = load
        if load.health != was:
            _LOGGER.info("%s", self.state())

    def close(self) -> None:
        self._closed.set()

    def _begin(self, readers: int) -> None:
        with self._lock:
            self._running += readers
            if self._load is None or self._is_watching or self._closed.is_set():
                return
            self._is_watching = True
        name = f"batuta-load-{self._source}"
        threading.Thread(target=self._watch, name=name, daemon=True).start()

    def _watch(self) -> None:
        """Looks until nothing has been read for a while."""
        while not self._closed.wait(_LOOKS_SECONDS):
            with self._lock:
                if not self._running and time.monotonic() - self._ended > _IDLE_SECONDS:
                    self._level, self._now = float(self._most), Load()
                    self._is_watching = False
                    return
                if not self._running:
                    continue
            self._look()
        self._is_watching = False

    def _look(self) -> None:
        assert self._load is not None
        try:
            load = self._load()
        except Error:
            # Whatever is wrong there, the readers themselves will hear of it.
            return
        if load is not None:
            self.hear(load)
