"""What sends events never waits for long, and never loses one in silence."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from batuta_sql.event_sender import EventSender, EventWarning


def test_events_are_sent_in_their_order() -> None:
    sent: list[int] = []
    sender = EventSender("x")
    for number in range(100):
        sender.put(lambda n=number: sent.append(n))
    sender.close(30)
    assert sent == list(range(100))


def test_what_does_not_fit_is_dropped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    go, begun = threading.Event(), threading.Event()
    sent: list[int] = []

    def first() -> None:
        begun.set()
        go.wait(30)

    sender = EventSender("x", most=2)
    sender.put(first)
    begun.wait(30)
    sender.put(lambda: sent.append(1))
    sender.put(lambda: sent.append(2))
    with pytest.warns(EventWarning, match="some are lost"):
        sender.put(lambda: sent.append(3))
    sender.put(lambda: sent.append(4))
    go.set()
    with caplog.at_level(logging.WARNING):
        sender.close(30)
    assert sent == [1, 2]
    assert "2 events about queries were lost" in caplog.text


def test_a_failure_is_said_once_and_the_next_are_sent() -> None:
    sent: list[int] = []

    def fails() -> None:
        raise OSError("postgresql://app:hush@db")

    sender = EventSender("there")
    with pytest.warns(EventWarning) as warned:  # noqa: PT031 - as long as it is sent
        for _ in range(3):
            sender.put(fails)
        sender.put(lambda: sent.append(1))
        sender.close(30)
    assert len(warned) == 1
    assert "hush" not in str(warned[0].message)
    assert sent == [1]


def test_closing_does_not_wait_for_ever() -> None:
    go, begun = threading.Event(), threading.Event()
    sent: list[int] = []

    def stuck() -> None:
        begun.set()
        go.wait(30)

    sender = EventSender("x")
    sender.put(stuck)
    begun.wait(30)
    sender.put(lambda: sent.append(1))
    with pytest.warns(EventWarning, match="not sent in time"):
        sender.close(0.05)
    go.set()
    assert sender.flush(30)
    assert sent == []


def test_a_thread_that_had_nothing_to_do_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batuta_sql.event_sender._IDLE_SECONDS", 0.01)
    sender = EventSender("x")
    threads: list[str] = []
    done = [threading.Event(), threading.Event()]
    for event in done:
        sender.put(lambda e=event: (threads.append(threading.current_thread().name), e.set()))
        assert event.wait(30)
        thread = sender._thread
        if thread is not None:
            thread.join(30)
    assert threads == ["batuta-events"] * 2


def test_a_program_that_ends_without_closing_loses_nothing(tmp_path: Path) -> None:
    file = tmp_path / "sent"
    program = f"""
import time
from batuta_sql.event_sender import EventSender
def send():
    time.sleep(0.2)
    open({str(file)!r}, "a").write("x")
sender = EventSender("x")
sender.put(send)
sender.put(send)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path.cwd(), timeout=60)
    assert file.read_text() == "xx"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_after_a_fork_the_child_sends_its_own(tmp_path: Path) -> None:
    """In a process of its own: this one has threads."""
    file = tmp_path / "sent"
    program = f"""
import os
from batuta_sql.event_sender import EventSender
def send(word):
    with open({str(file)!r}, "a") as target:
        target.write(word + "\\n")
sender = EventSender("x")
sender.put(lambda: send("parent"))
sender.flush(30)
child = os.fork()
if child == 0:
    sender.put(lambda: send("child"))
    os._exit(0 if sender.flush(30) else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path.cwd(), timeout=60)
    assert file.read_text().split() == ["parent", "child"]
