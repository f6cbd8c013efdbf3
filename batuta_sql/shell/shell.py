"""Reads statements and commands, runs them, shows what comes."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from batuta_sql import __version__
from batuta_sql.cli import output
from batuta_sql.errors import Error, ProgrammingError
from batuta_sql.shell import commands, rendering
from batuta_sql.shell.commands import Leave
from batuta_sql.shell.live import LiveView
from batuta_sql.shell.names import KnownNames
from batuta_sql.shell.preferences import Preferences
from batuta_sql.shell.reading import Typed, statements
from batuta_sql.shell.rendering import Rows
from batuta_sql.units import duration
from batuta_sql.waiting import waited

if TYPE_CHECKING:
    from batuta_sql.dbapi import Connection


@dataclass(frozen=True)
class Screen:
    """Where the shell is.

    :param reads: whether a person types, rather than a file or a pipe.
    :param shows: whether results are read by a person.
    """

    reads: bool
    shows: bool

    @classmethod
    def here(cls) -> Screen:
        return cls(sys.stdin.isatty(), sys.stdout.isatty())

    @property
    def is_dumb(self) -> bool:
        return os.environ.get("TERM", "dumb").lower() in ("dumb", "unknown", "")

    @property
    def colour(self) -> bool:
        return self.shows and not self.is_dumb and "NO_COLOR" not in os.environ

    @property
    def width(self) -> int:
        return shutil.get_terminal_size().columns if self.shows else 1_000_000

    @property
    def height(self) -> int:
        return shutil.get_terminal_size().lines


class Shell:
    """
    :param connection: what is asked.
    :param interrupted: what a question to the person looks at: set on Ctrl-C.
    :param kinds: of the sources, by name.
    """

    def __init__(
        self,
        connection: Connection,
        preferences: Preferences,
        interrupted: threading.Event,
        kinds: dict[str, str] | None = None,
        screen: Screen | None = None,
    ) -> None:
        self.connection = connection
        self.preferences = preferences
        self.screen = screen or Screen.here()
        self.names = KnownNames(connection)
        self.last: str | None = None
        self.target: Path | None = None
        self.draft = ""
        """What the prompt begins with."""
        self._kinds = kinds or {}
        self._interrupted = interrupted
        self._errors = Console(stderr=True, highlight=False)

    # --- reading -------------------------------------------------------------------------------

    def run(self) -> int:
        """Until the person leaves, or the text is at its end; gives the exit status.

        :raises Error: the first of a text that no person has typed.
        """
        with contextlib.suppress(Leave):
            if not self.screen.reads:
                self.run_text(sys.stdin.read())
            else:
                self._converse()
        return 0

    def run_text(self, text: str) -> None:
        """Runs all statements of a text; the last one needs no semicolon.

        :raises Error: the first.
        """
        found, left = statements(text)
        for typed in [*found, *([Typed("sql", left.strip())] if left else [])]:
            self._run(typed)

    def _converse(self) -> None:
        from batuta_sql.shell.prompt import Prompt

        prompt = Prompt(self)
        self.names.refresh()
        self.write(self._greeting())
        while True:
            try:
                text = prompt.read(self.draft)
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            finally:
                self.draft = ""
            try:
                self.run_text(text)
            except Leave:
                return
            except KeyboardInterrupt:
                self.complain("cancelled")
            except Error as error:
                self.complain(str(error))
            except OSError as error:
                self.complain(f"{error.filename or 'output'}: {error.strerror or error}")

    def _greeting(self) -> str:
        sources = ", ".join(self.connection.sources) or "none"
        return (
            f"Batuta-SQL {__version__}, tier {self.connection.tier}, sources: {sources}\n"
            "Statements end with ;  .help lists the commands\n"
        )

    # --- running -------------------------------------------------------------------------------

    def _run(self, typed: Typed) -> None:
        if typed.kind == "sql":
            self.last = typed.text
            self._query(typed.text)
        elif typed.text.split(maxsplit=1)[0] in (".read", r"\i", ".edit", r"\e"):
            # They run others, or need the terminal for themselves.
            commands.run_command(self, typed.text)
        else:
            self._waited(lambda: commands.run_command(self, typed.text))

    def statement(self, given: str) -> str:
        """The statement that a command is about: what was given, or else the last.

        :raises ProgrammingError: where there is none.
        """
        found = given or self.last
        if not found:
            raise ProgrammingError("there is no statement yet", hint="write it after the command")
        return found

    def _query(self, sql: str) -> None:
        began = time.perf_counter()
        if self.target is not None:
            target = self.target
            rows = self._waited(lambda: self.export(sql, target), shows_progress=True)
            self.write(f"{target}: {rows:,} row{'' if rows == 1 else 's'}\n")
            return
        answer = self._waited(lambda: self._answer(sql), shows_progress=True)
        if answer is None:
            self.write(f"done ({duration(time.perf_counter() - began)})\n")
            return
        found, moved = answer
        if found.names == ("plan",) and sql.lstrip().lower().startswith("explain"):
            self.show("".join(f"{row[0] or ''}\n" for row in found.rows))
            return
        seconds = duration(time.perf_counter() - began)
        took = f"; {seconds}{moved}" if self.preferences.timing else ""
        self._show_rows(found, f"({rendering.counted(found)}{took})\n")

    def _answer(self, sql: str) -> tuple[Rows, str] | None:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            if cursor.description is None:
                return None
            labels = cursor.labels
            reader = cursor.fetch_record_batch()
            found = Rows.read(reader, labels, self.preferences.max_rows)
            return found, rendering.moved(cursor)

    def export(self, sql: str, target: Path) -> int:
        """Writes a result to a file in the format of its name; gives its rows."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            if cursor.description is None:
                return 0
            return output.write(cursor, commands.form_of(target), str(target), 0)

    def plot(self, sql: str) -> None:
        """Shows a result as a chart."""
        from batuta_sql.shell.plot import chart

        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            if cursor.description is None:
                raise ProgrammingError("it has no result")
            found = Rows.read(cursor.fetch_record_batch(), {}, self.preferences.max_rows)
        width, height = min(self.screen.width, 100), min(self.screen.height - 4, 24)
        self.write(chart(found, width, height, colour=self.screen.colour))

    def _waited(self, work: Callable[[], Any], *, shows_progress: bool = False) -> Any:
        """What ``work`` gives; it runs in a thread of its own, so that Ctrl-C reaches the sources.

        :raises KeyboardInterrupt: where it was cancelled.
        """
        shows = shows_progress and self.preferences.progress and self.screen.reads
        view = LiveView(self._errors, self.connection.progress)

        def look(seconds: float) -> None:
            if shows and not self.screen.is_dumb:
                view.look(seconds)

        def stopping() -> None:
            view.close()
            self._interrupted.set()

        self._interrupted.clear()
        try:
            return waited(
                work,
                self.connection.cancel,
                look=look,
                stopping=stopping,
                complain=self.complain,
            )
        finally:
            view.close()

    # --- showing -------------------------------------------------------------------------------

    def write(self, text: str) -> None:
        """To stdout."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def complain(self, text: str) -> None:
        """To stderr."""
        from rich.text import Text

        self._errors.print(Text(text, "red" if self.screen.colour else ""), soft_wrap=True)

    def show(self, text: str) -> None:
        """To stdout; by the pager where it is longer than the terminal."""
        if not self._is_paged(text.count("\n")) or not _paged(text):
            self.write(text)

    def print_by(self, print_it: Callable[[], None]) -> None:
        """Shows what a function of the command line prints."""
        told = _Told(self.screen.shows)
        with contextlib.redirect_stdout(told):
            print_it()
        self.show(told.getvalue())

    def kind_of(self, source: str) -> str:
        """A source's kind."""
        return self._kinds.get(source, "")

    def _show_rows(self, found: Rows, footer: str) -> None:
        width = self.screen.width
        preferences, colour = self.preferences, self.screen.colour
        framed = self.screen.shows
        text = rendering.rendered(found, preferences, width, colour=colour, framed=framed) + footer
        if self._is_paged(text.count("\n")):
            paged = rendering.rendered(found, preferences, width, colour=colour, paged=True)
            if _paged(paged + footer):
                self.write(footer)
                return
        self.write(text)

    def _is_paged(self, lines: int) -> bool:
        if not (self.screen.reads and self.screen.shows) or self.screen.is_dumb:
            return False
        match self.preferences.pager:
            case "on":
                return True
            case "off":
                return False
        return lines >= self.screen.height


class _Told(io.StringIO):
    """Text that is shown later, written as for where that will be."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def _paged(text: str) -> bool:
    """Shows a text by the pager; False where there is none."""
    pager = os.environ.get("PAGER") or shutil.which("less")
    if not pager:
        return False
    environment = {"LESS": "-RSFX", **os.environ}
    try:
        subprocess.run(pager, shell=True, input=text.encode(), check=False, env=environment)
    except (OSError, KeyboardInterrupt):
        return False
    return True
