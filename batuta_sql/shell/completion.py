"""What may follow where the cursor is: commands, sources, tables, columns, functions, keywords."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from batuta_sql.shell.names import KnownNames, Path, quoted
from batuta_sql.shell.reading import is_in_text, statements

_NAME = r'(?:[A-Za-z_]\w*|"(?:[^"]|"")*")'
_WRITTEN = re.compile(rf'(?:(?:{_NAME}\.)*)(?:[A-Za-z_]\w*|"[^"]*)?\Z')
_USED = re.compile(
    rf"\b(?:from|join|,)\s*(?P<name>{_NAME}(?:\.{_NAME})+)(?:\s+(?:as\s+)?(?P<alias>{_NAME}))?",
    re.IGNORECASE,
)
_TABLE_FOLLOWS = re.compile(
    r"\b(?:from|join|describe|desc|into|table)\s+\Z|\b(?:from|join)\s[^()]*,\s*\Z", re.IGNORECASE
)
_CLAUSES = frozenset(
    [
        "where",
        "on",
        "using",
        "group",
        "order",
        "limit",
        "join",
        "left",
        "right",
        "inner",
        "outer",
        "full",
        "cross",
        "having",
        "union",
        "window",
        "qualify",
        "natural",
        "asof",
        "semi",
        "anti",
    ]
)
_USUAL = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "ORDER",
    "LIMIT",
    "JOIN",
    "LEFT",
    "RIGHT",
    "INNER",
    "FULL",
    "CROSS",
    "ON",
    "USING",
    "HAVING",
    "UNION",
    "ALL",
    "DISTINCT",
    "AS",
    "AND",
    "OR",
    "NOT",
    "NULL",
    "IS",
    "IN",
    "EXISTS",
    "BETWEEN",
    "LIKE",
    "ILIKE",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "WITH",
    "CAST",
    "OVER",
    "PARTITION",
    "EXPLAIN",
    "ANALYZE",
    "DESCRIBE",
    "SHOW",
    "TABLES",
    "CREATE",
    "TABLE",
    "VIEW",
    "DESC",
    "ASC",
    "OFFSET",
    "QUALIFY",
    "INTERVAL",
    "DATE",
    "TIMESTAMP",
    "TRUE",
    "FALSE",
]


@dataclass(frozen=True)
class CommandNames:
    """What completion knows of the shell's commands.

    :param described: each with a line about it.
    :param arguments: what may follow a command's name.
    """

    described: Mapping[str, str]
    arguments: Callable[[str], Iterable[str]]


class SqlCompleter(Completer):
    """Completes from what is known; never asks and waits."""

    def __init__(self, names: KnownNames, commands: CommandNames) -> None:
        self._names = names
        self._commands = commands

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterator[Completion]:
        before = document.text_before_cursor
        statement = _current(before)
        if statement.lstrip().startswith("."):
            yield from self._of_command(statement.lstrip())
            return
        if is_in_text(statement):
            return
        match = _WRITTEN.search(before)
        written = match[0] if match else ""
        is_asked = complete_event.completion_requested or _TABLE_FOLLOWS.search(statement)
        if not written and not is_asked:
            return
        # What stands behind the cursor names tables too.
        whole = statement + document.text_after_cursor.partition(";")[0]
        head = statement[: len(statement) - len(written)]
        *outer, last = _split(written)
        offered = self._inside(outer, whole) if outer else self._outermost(head, whole, written)
        wanted = last.lower()
        seen: set[str] = set()
        for name, meta in offered:
            bare = name.strip('"').lower()
            if bare.startswith(wanted) and name not in seen and bare != "":
                seen.add(name)
                yield Completion(name, start_position=-len(_last_part(written)), display_meta=meta)

    def _of_command(self, line: str) -> Iterator[Completion]:
        name, space, rest = line.partition(" ")
        if not space:
            for command, about in self._commands.described.items():
                if command.startswith(name):
                    yield Completion(command, start_position=-len(name), display_meta=about)
            return
        for argument in self._commands.arguments(name):
            if argument.lower().startswith(rest.lstrip().lower()):
                yield Completion(argument, start_position=-len(rest.lstrip()))

    def _inside(self, outer: list[str], statement: str) -> Iterator[tuple[str, str]]:
        """What may follow a dot."""
        used = self._used(statement)
        alias = used.get(outer[0].lower()) if len(outer) == 1 else None
        table = alias or self._names.table_of(outer)
        if table is not None:
            yield from ((quoted(c), "column") for c in self._names.columns(table))
        wanted = [o.lower() for o in outer]
        below = [
            path
            for path in self._names.tables(wanted[0])
            if [p.lower() for p in path[: len(outer)]] == wanted and len(path) > len(outer)
        ]
        for path in below:
            is_table = len(path) == len(outer) + 1
            yield quoted(path[len(outer)]), "table" if is_table else "schema"
        for path in below:
            # A schema may be left out.
            if len(outer) == 1 and len(path) > 2:
                yield quoted(path[-1]), f"table in {'.'.join(path[1:-1])}"

    def _outermost(self, head: str, statement: str, written: str) -> Iterator[tuple[str, str]]:
        if _TABLE_FOLLOWS.search(head):
            yield from ((quoted(s), "source") for s in self._names.sources)
            return
        used = self._used(statement)
        for path in dict.fromkeys(used.values()):
            yield from ((quoted(c), f"column of {path[-1]}") for c in self._names.columns(path))
        yield from ((quoted(alias), "table") for alias in used)
        upper = not written or written[0].isupper()
        usual = dict.fromkeys((*_USUAL, *self._names.keywords))
        yield from ((w if upper else w.lower(), "keyword") for w in usual)
        yield from ((f, "function") for f in self._names.functions)
        yield from ((quoted(s), "source") for s in self._names.sources)

    def _used(self, statement: str) -> dict[str, Path]:
        """The tables that a statement names, by their aliases or last names, in lower case."""
        found: dict[str, Path] = {}
        for match in _USED.finditer(statement):
            parts = _split(match["name"])
            path = self._names.table_of(parts)
            alias = (match["alias"] or "").strip('"')
            if path is not None:
                called = alias if alias and alias.lower() not in _CLAUSES else parts[-1]
                found[called.lower()] = path
        return found


def _current(text: str) -> str:
    """The statement at the end of a text, which has no end yet; or the command there."""
    found, left = statements(text)
    if not left and found and found[-1].kind == "command":
        return text[text.rindex(found[-1].text) :]
    return left


def _split(written: str) -> list[str]:
    """The parts of a name, without their quotes; the last may be empty."""
    parts = re.findall(r'"(?:[^"]|"")*"?|[^."]+|(?<=\.)(?=\Z)', written)
    return [p.strip('"').replace('""', '"') for p in parts] or [""]


def _last_part(written: str) -> str:
    """The part of a name that is being written, with its quote."""
    match = re.search(r'(?:"[^"]*|[^."]*)\Z', written)
    return match[0] if match else ""
