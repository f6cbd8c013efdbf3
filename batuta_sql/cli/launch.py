"""Parses the command line, runs the command, and turns every end into an exit status."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cyclopts import CycloptsError

from batuta_sql.errors import SealError

if TYPE_CHECKING:
    from batuta_sql.dbapi import Connection

DONE, ERROR, USAGE, INTERRUPTED = 0, 1, 2, 130

_GRACE_SECONDS = 5.0
"""How long sources have to end their statements after Ctrl-C."""

_CANCEL_SECONDS = 0.2


class UsageError(Exception):
    """The command line itself is wrong."""


class Run:
    """One command: the connection it opened, so that Ctrl-C can reach the sources."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.interrupted = threading.Event()
        self._outcome: int | BaseException = ERROR
        # Not Thread.join: interrupted in it, Python 3.11 takes a running thread for an ended one.
        self._ended = threading.Event()

    def __call__(self, work: Callable[[], Any]) -> int:
        """Runs ``work`` in a thread and waits.

        Python delivers a signal to the main thread, and only between two of its own steps: a main
        thread that waits inside a driver would not see Ctrl-C until the driver returns.
        """
        thread = threading.Thread(target=self._work, args=(work,), name="batuta-cli", daemon=True)
        thread.start()
        try:
            while not self._ended.wait(0.2):
                pass
        except KeyboardInterrupt:
            self._interrupt()
            return INTERRUPTED
        finally:
            self._close()
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome

    def in_this_thread(self, work: Callable[[], Any]) -> int:
        """Runs ``work``, which looks after Ctrl-C itself."""
        try:
            return int(work() or DONE)
        finally:
            self._close()

    def _work(self, work: Callable[[], Any]) -> None:
        try:
            self._outcome = int(work() or DONE)
        except BaseException as error:
            self._outcome = error
        finally:
            self._ended.set()

    def _interrupt(self) -> None:
        self.interrupted.set()
        with contextlib.suppress(KeyboardInterrupt):
            for _ in range(round(_GRACE_SECONDS / _CANCEL_SECONDS)):
                # Again and again: a query that is just being planned is not yet there to cancel.
                with contextlib.suppress(Exception):
                    if self.connection is not None:
                        self.connection.cancel()
                if self._ended.wait(_CANCEL_SECONDS):
                    return
        # A driver that does not come back must not hold the terminal.
        os._exit(INTERRUPTED)

    def _close(self) -> None:
        if self.connection is not None:
            with contextlib.suppress(Exception):
                self.connection.close()


def launch(arguments: Sequence[str] | None) -> int:
    """Runs a command line and gives its exit status; says on stderr what went wrong."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _tolerant(sys.stdout)
    _tolerant(sys.stderr)
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        return _launched(given)


def _launched(given: list[str]) -> int:
    run = Run()
    try:
        status = _run(run, given)
        sys.stdout.flush()
        return status
    except (UsageError, CycloptsError) as error:
        _say(f"{error}\nTry: batuta-sql --help")
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.ECONNRESET):
            return _reader_has_left()
        where = error.filename or "output"
        _say(f"{where}: {error.strerror}" if error.strerror else str(error))
        return ERROR
    except Exception as error:
        _say(_words(error))
        return int(getattr(error, "exit_status", ERROR))


def _run(run: Run, given: list[str]) -> int:
    from batuta_sql.cli import commands, seal

    options, sealed = seal.split(given)
    chosen = commands.parse(run, [_as_value(t) for t in options], sealed)
    if chosen is None:
        return DONE
    # A seal is made in the main thread, while there is no other.
    if chosen.name == "seal":
        return int(chosen.work())
    try:
        status = seal.reexecuted(given, chosen.commands.config)
    except SealError as error:
        if chosen.name != "doctor":
            raise
        chosen.commands.refusal = error
        status = None
    if status is not None:
        return status
    # These look after signals themselves.
    is_alone = chosen.name in ("shell", "serve")
    return run.in_this_thread(chosen.work) if is_alone else run(chosen.work)


def _as_value(token: str) -> str:
    """SQL that starts with a comment, or ``-`` for stdin, is a value and no option."""
    starts_with_comment = token.startswith("-") and any(c.isspace() for c in token.split("=")[0])
    return " " + token if token == "-" or starts_with_comment else token


def _words(error: BaseException) -> str:
    from batuta_sql.errors import Error
    from batuta_sql.secrets import without_passwords

    if isinstance(error, Error):
        return str(error)
    return without_passwords(f"unexpected {type(error).__name__}: {error}")


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {message}")


def _tolerant(stream: Any) -> None:
    """A terminal that cannot show a character gets an escape, not an exception."""
    with contextlib.suppress(AttributeError, ValueError):
        stream.reconfigure(errors="backslashreplace")


def _reader_has_left() -> int:
    """``batuta-sql ... | head`` is no error: what is still buffered goes nowhere."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
    return DONE
