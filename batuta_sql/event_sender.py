"""Sends events in a thread of its own: a place that is slow or down delays and fails no query."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import time
import warnings
import weakref
from collections.abc import Callable

_LOGGER = logging.getLogger(__name__)

MOST_WAITING = 1_000
"""Events that wait at the most; what comes then is dropped."""

_IDLE_SECONDS = 10.0
_AT_EXIT_SECONDS = 2.0


class EventWarning(UserWarning):
    """Events about queries are lost; the queries run all the same."""


class EventSender:
    """A bounded queue and the thread that empties it.

    :param place: where the events go, as people may read it.
    """

    def __init__(self, place: str, most: int = MOST_WAITING) -> None:
        self._place = place
        self._waiting: queue.Queue[Callable[[], None]] = queue.Queue(most)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._at_exit = False
        self._owner = os.getpid()
        self._dropped = 0
        self._warned = False

    def put(self, send: Callable[[], None]) -> None:
        """Has ``send`` called soon; drops it where too much waits. Never waits itself."""
        if self._owner != os.getpid():
            # After a fork what waits is the other process's, and so is the thread.
            self._owner, self._thread = os.getpid(), None
            self._waiting = queue.Queue(self._waiting.maxsize)
        try:
            self._waiting.put_nowait(send)
        except queue.Full:
            with self._lock:
                self._dropped += 1
            self._warn("they are slower than the queries: some are lost")
            return
        with self._lock:
            if not self._at_exit:
                self._at_exit = True
                atexit.register(_flush_at_exit, weakref.ref(self))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="batuta-events", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                send = self._waiting.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._waiting.empty():
                        self._thread = None
                        return
                continue
            try:
                send()
            except Exception as error:
                # Its message may quote the address and what was sent.
                _LOGGER.debug("an event was not sent", exc_info=True)
                self._warn(f"they cannot be sent ({type(error).__name__}) and are lost")
            finally:
                self._waiting.task_done()

    def _warn(self, what: str) -> None:
        """Once: the log and a warning."""
        with self._lock:
            if self._warned:
                return
            self._warned = True
        text = f"events about queries, to {self._place}: {what}; queries go on"
        _LOGGER.warning(text)
        try:
            warnings.warn(text, EventWarning, stacklevel=2)
        except EventWarning:
            # Where warnings are errors; it is no error of the query.
            return

    def flush(self, seconds: float) -> bool:
        """Waits until everything is sent, so long at the most; whether it is."""
        deadline = time.monotonic() + seconds
        finished = self._waiting.all_tasks_done
        with finished:
            while self._waiting.unfinished_tasks:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                finished.wait(left)
        return True

    def close(self, seconds: float) -> None:
        """``flush``; what is left then is dropped."""
        if not self.flush(seconds):
            while True:
                try:
                    self._waiting.get_nowait()
                except queue.Empty:
                    break
                self._waiting.task_done()
                self._dropped += 1
            self._warn("they were not sent in time and are lost")
        if self._dropped:
            _LOGGER.warning("%d events about queries were lost", self._dropped)


def _flush_at_exit(reference: weakref.ref[EventSender]) -> None:
    sender = reference()
    if sender is not None:
        sender.flush(_AT_EXIT_SECONDS)
