"""Threads that ask: every task is done, whatever came before, and no thread stays for nothing."""

from __future__ import annotations

import threading
import time

import pytest

from batuta_sql import workers
from batuta_sql.workers import Workers

SECONDS = 10


@pytest.fixture(autouse=True)
def _soon_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_IDLE_SECONDS", 0.05)


def asking() -> int:
    return sum(t.name == "batuta-estimate" for t in threading.enumerate())


def wait_for(threads: int, besides: int) -> None:
    end = time.monotonic() + SECONDS
    while asking() > besides + threads:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("burst", [1, 2, 3, 20, 100])
def test_after_a_burst_and_a_pause_it_still_answers(burst: int) -> None:
    """More tasks than threads at once, then none until the threads have ended."""
    before = asking()
    made = Workers(3)
    for _ in range(3):
        futures = [made.submit(lambda n=n: n) for n in range(burst)]  # type: ignore[misc]
        assert [f.result(SECONDS) for f in futures] == list(range(burst))
        wait_for(0, before)
        assert made.submit(lambda: 42).result(SECONDS) == 42
    made.close(1)


def test_no_more_threads_than_it_may_have_and_all_of_them() -> None:
    made, go = Workers(3), threading.Event()
    futures = [made.submit(lambda: go.wait(SECONDS)) for _ in range(10)]
    time.sleep(0.1)
    assert made._threads == 3
    go.set()
    assert all(f.result(SECONDS) for f in futures)
    made.close(1)


def test_one_that_never_answers_leaves_the_others_their_threads() -> None:
    made, never = Workers(2), threading.Event()
    made.submit(lambda: never.wait(SECONDS))
    for _ in range(20):
        assert made.submit(lambda: 42).result(SECONDS) == 42
        time.sleep(0.01)
    never.set()
    made.close(1)


def test_what_a_task_raises_is_its_answer() -> None:
    made = Workers(1)
    with pytest.raises(ZeroDivisionError):
        made.submit(lambda: 1 / 0).result(SECONDS)
    assert made.submit(lambda: 1).result(SECONDS) == 1
    made.close(1)
    # After the end it is done at once, by the one who asks.
    assert made.submit(threading.current_thread).result(0) is threading.current_thread()
