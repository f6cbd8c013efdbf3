"""Work in a thread of its own, and what Ctrl-C does to it."""

from __future__ import annotations

import threading

import pytest

from batuta_sql.waiting import LEFT, waited


def interrupt(seconds: float) -> None:
    """Ctrl-C raises this where the main thread is: in its wait, or here."""
    raise KeyboardInterrupt


def nothing() -> None:
    """Cancels nothing."""


def test_what_the_work_gives_and_raises() -> None:
    assert waited(lambda: threading.current_thread().name, nothing) == "batuta-work"
    with pytest.raises(ZeroDivisionError):
        waited(lambda: 1 / 0, nothing)


def test_ctrl_c_waits_for_what_is_cancelled() -> None:
    cancelled, ended = threading.Event(), threading.Event()
    told: list[str] = []

    def work() -> None:
        cancelled.wait(30)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        waited(
            work,
            cancelled.set,
            look=interrupt,
            stopping=lambda: told.append("stopping"),
            complain=told.append,
        )
    assert ended.is_set()
    assert told == ["stopping"]


def test_ctrl_c_does_not_wait_for_ever() -> None:
    never, told = threading.Event(), list[str]()
    with pytest.raises(KeyboardInterrupt):
        waited(lambda: never.wait(60), nothing, look=interrupt, complain=told.append)
    assert told == [LEFT]
    never.set()
