"""Asks the person at the terminal; where there is none, nobody is asked."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batuta_sql import Estimate

_POLL_SECONDS = 0.1


def confirmation(interrupted: threading.Event) -> Callable[[Estimate], bool] | None:
    """What asks about a query's cost; None without a terminal.

    The question goes to stderr, since stdout may be a file. The answer is read from the terminal
    itself, since stdin may hold the SQL.

    :param interrupted: set when Ctrl-C was pressed, which another thread is told of.
    """
    if not is_there():
        return None

    def ask(estimate: Estimate) -> bool:
        from batuta_sql.guards.cost import question

        return answered_yes(question(estimate), interrupted)

    return ask


def is_there() -> bool:
    """Whether somebody can be asked."""
    if not sys.stderr.isatty():
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY))
    except OSError:
        return False
    return True


def answered_yes(question: str, interrupted: threading.Event) -> bool:
    """Whether the answer is y or yes; Enter and the end of input mean no.

    :raises KeyboardInterrupt: on Ctrl-C.
    """
    return answer(question, interrupted) in ("y", "yes")


def answer(question: str, interrupted: threading.Event) -> str:
    """What is answered, in small letters; empty for Enter and the end of input.

    :raises KeyboardInterrupt: on Ctrl-C.
    """
    terminal = os.open("/dev/tty", os.O_RDONLY)
    try:
        _forget_typed_ahead(terminal)
        sys.stdout.flush()
        print(question, end="", file=sys.stderr, flush=True)
        while not select.select([terminal], [], [], _POLL_SECONDS)[0]:
            if interrupted.is_set():
                print(file=sys.stderr, flush=True)
                raise KeyboardInterrupt
        typed = os.read(terminal, 4096).decode(errors="replace")
    finally:
        os.close(terminal)
    if not typed:
        print(file=sys.stderr, flush=True)
    return typed.strip().lower()


def _forget_typed_ahead(terminal: int) -> None:
    """What was typed before the question is no answer to it."""
    import termios

    termios.tcflush(terminal, termios.TCIFLUSH)
