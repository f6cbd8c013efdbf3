"""The shell as a person sees it: the real command in a terminal of 100 by 30 characters."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pyte
import pytest

from tests.cli.conftest import batuta, config  # noqa: F401 - fixtures

WIDTH, HEIGHT = 100, 30
SECONDS = 90.0
PROMPT = "batuta>"


class Terminal:
    """A program in a terminal, and what is to be seen there."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._screen = pyte.HistoryScreen(WIDTH, HEIGHT, history=2000)
        self._stream = pyte.Stream(self._screen)
        self.child = pexpect.spawn(
            command[0],
            command[1:],
            env={**os.environ, **environment},
            encoding="utf-8",
            dimensions=(HEIGHT, WIDTH),
        )

    def type(self, text: str) -> None:
        self.child.send(text)

    def enter(self, text: str = "") -> None:
        self.child.send(text + "\r")

    def press(self, letter: str) -> None:
        """Control and a letter."""
        self.child.sendcontrol(letter)

    @property
    def text(self) -> str:
        """All lines that there have been, without what was erased."""
        above = ["".join(line[x].data for x in range(WIDTH)) for line in self._screen.history.top]
        return "\n".join(line.rstrip() for line in (*above, *self._screen.display)).rstrip()

    def see(self, pattern: str, seconds: float = SECONDS) -> re.Match[str]:
        """Waits until something is to be seen."""
        until = time.monotonic() + seconds
        while True:
            self._look()
            if found := re.search(pattern, self.text):
                return found
            assert time.monotonic() < until, f"no {pattern!r} in:\n{self.text}"

    def answer(self, line: str) -> str:
        """What is to be seen between a line and the prompt after it."""
        before = self.text.count(PROMPT)
        self.enter(line)
        until = time.monotonic() + SECONDS
        while self.text.count(PROMPT) <= before or not self.text.endswith(PROMPT):
            assert time.monotonic() < until, f"no answer to {line!r} in:\n{self.text}"
            self._look()
        return self.text.split(PROMPT)[-2]

    def see_prompt(self) -> None:
        """Waits until the last line is an empty prompt."""
        self.see(r"batuta>\s*\Z")

    def style_of(self, text: str) -> tuple[str, bool]:
        """The colour, and whether it is bold, of the first letter of a text on the screen."""
        for y, line in enumerate(self._screen.display):
            if text in line:
                cell = self._screen.buffer[y][line.index(text)]
                return cell.fg, cell.bold
        raise AssertionError(f"no {text!r} on the screen:\n{self.text}")

    def ended(self) -> int:
        """The exit status."""
        self.child.expect(pexpect.EOF, timeout=SECONDS)
        self.child.close()
        assert self.child.exitstatus is not None
        return self.child.exitstatus

    def close(self) -> None:
        self.child.close(force=True)

    def _look(self) -> None:
        try:
            self._stream.feed(self.child.read_nonblocking(65536, timeout=0.1))
        except (pexpect.TIMEOUT, pexpect.EOF):
            time.sleep(0.02)


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return home_in(tmp_path)


def home_in(folder: Path) -> dict[str, str]:
    """Where the shell finds and keeps what is a person's own, and the terminal that it is in."""
    return {
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "TERM": "xterm-256color",
        "PROMPT_TOOLKIT_NO_CPR": "1",
        "COLUMNS": str(WIDTH),
        "LINES": str(HEIGHT),
        "PAGER": "cat",
    }


Opened = Callable[..., Terminal]


@pytest.fixture
def shell(config: Path, home: dict[str, str]) -> Iterator[Opened]:  # noqa: F811
    """Opens the shell, and sees its first prompt."""
    opened: list[Terminal] = []

    def open_(config: Path = config, *, prompts: bool = True, **environment: str) -> Terminal:
        command = [sys.executable, "-m", "batuta_sql", "--config", str(config), "shell"]
        opened.append(Terminal(command, home | environment))
        if prompts:
            opened[-1].see_prompt()
        return opened[-1]

    yield open_
    for one in opened:
        one.close()
