"""Where statements end in what is typed: DuckDB's quotes and comments, and no more of SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

_PARTS = re.compile(
    r"""
      (?P<end>;)
    | --[^\n]*(?:\n|(?P<open_line>\Z))
    | /\*(?:.*?\*/|(?P<open_comment>.*\Z))
    | [eE]'(?:[^'\\]|\\.|'')*(?:'|(?P<open_escape>\Z))
    | '(?:[^']|'')*(?:'|(?P<open_text>\Z))
    | "(?:[^"]|"")*(?:"|(?P<open_name>\Z))
    | \$(?P<tag>(?:[A-Za-z_]\w*)?)\$(?:.*?\$(?P=tag)\$|(?P<open_dollar>.*\Z))
    | (?<![\w$])\$(?P<parameter>[^\W\d]\w*)
    """,
    re.DOTALL | re.VERBOSE,
)
_TEXTS = ("open_comment", "open_escape", "open_text", "open_dollar")
_OPEN = (*_TEXTS, "open_name")
_COMMAND = re.compile(r"\s*(?P<line>[.\\][^\n]*)")
_ONLY_COMMENTS = re.compile(r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*", re.DOTALL)


@dataclass(frozen=True)
class Typed:
    """One statement without its semicolon, or one command of the shell without its line's end."""

    kind: Literal["sql", "command"]
    text: str


def statements(text: str) -> tuple[list[Typed], str]:
    """What is complete in a text, and what is left of it: a statement without its end."""
    found: list[Typed] = []
    begin = 0
    while begin < len(text):
        command = _COMMAND.match(text, begin)
        if command is not None:
            found.append(Typed("command", command["line"].strip()))
            begin = command.end()
            continue
        end = next(_ends(text, begin), None)
        if end is None:
            break
        if not is_blank(text[begin:end]):
            found.append(Typed("sql", text[begin:end].strip()))
        begin = end + 1
    left = text[begin:]
    return found, "" if is_blank(left) else left


def is_complete(text: str) -> bool:
    """Whether Enter runs a text; else the next line belongs to it."""
    return not statements(text)[1]


def is_blank(text: str) -> bool:
    """Whether there is nothing in it but space and comments that have an end."""
    return _ONLY_COMMENTS.fullmatch(text) is not None


def is_in_text(text: str) -> bool:
    """Whether what is written at the end of a text is a value's text or a comment, not SQL."""
    *_, last = (None, *_PARTS.finditer(text))
    return last is not None and any(last[name] is not None for name in (*_TEXTS, "open_line"))


def parameters(text: str) -> dict[str, int]:
    """The names of a statement's ``$name`` parameters, and where each is first used: the offset of
    its ``$``. What is in texts, quoted names and comments is none.
    """
    found: dict[str, int] = {}
    for part in _PARTS.finditer(text):
        if part["parameter"]:
            found.setdefault(part["parameter"], part.start())
    return found


def _ends(text: str, begin: int) -> Iterator[int]:
    """Where semicolons are that end a statement."""
    for part in _PARTS.finditer(text, begin):
        if any(part[name] is not None for name in _OPEN):
            return
        if part["end"]:
            yield part.start()
