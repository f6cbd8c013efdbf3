"""Reads the field cases, and writes rows the way they do.

A case file is a list of blocks, each ended by a blank line:

- ``source NAME KIND`` and the SQL that fills it, in the source's own dialect;
- ``truth NAME`` and the SQL that makes the same rows as DuckDB tables, where the source's own SQL
  would not run there;
- ``query [rowsort] [error]``, the SQL, a line ``----``, and the answer: one line a row with tabs
  between the values, or with ``error`` a pattern that the message must match.

Lines that start with ``#`` before a block are comments.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

KINDS = ("postgresql", "sqlite", "duckdb", "parquet", "csv", "delta")
FLAGS = ("rowsort", "error")
SEPARATOR = "----"


class FormatError(ValueError):
    """A case file that does not follow the format; the message starts with ``file:line``."""


@dataclass(frozen=True)
class SourceBlock:
    """A source to build: its name in ``connect()``, its kind, the SQL that fills it."""

    name: str
    kind: str
    sql: str
    line: int


@dataclass(frozen=True)
class QueryBlock:
    """One query and its one right answer.

    :param expected: the lines below ``----``; with ``error`` the pattern alone.
    """

    sql: str
    expected: tuple[str, ...]
    rowsort: bool
    error: bool
    line: int

    def mismatch(self, rows: Iterable[Sequence[object]]) -> str | None:
        """None where the rows are the answer, else the two beside each other for people."""
        got = [render_row(row) for row in rows]
        want = list(self.expected)
        if self.rowsort:
            got, want = sorted(got), sorted(want)
        if got == want:
            return None
        return "\n".join(["expected:", *want, "got:", *got])

    def error_mismatch(self, message: str) -> str | None:
        """None where an error's message matches the pattern, else both for people.

        Case is ignored: DuckDB itself says "More than one row" where the case has "more".
        """
        (pattern,) = self.expected
        if re.search(pattern, message, re.IGNORECASE):
            return None
        return f"expected an error that matches {pattern!r}, got: {message}"


@dataclass(frozen=True)
class CaseFile:
    """A parsed file. ``truth`` maps a source's name to DuckDB SQL, for all sources of the file."""

    path: Path
    sources: tuple[SourceBlock, ...]
    truth: dict[str, str]
    queries: tuple[QueryBlock, ...]

    @property
    def name(self) -> str:
        return self.path.stem


def read_case_file(path: Path) -> CaseFile:
    """Parses one file. Raises FormatError with the line of what is wrong."""
    sources: list[SourceBlock] = []
    truth: dict[str, str] = {}
    queries: list[QueryBlock] = []
    for line, block in _blocks(path.read_text(encoding="utf-8")):
        where = f"{path.name}:{line}"
        head = block[0].split()
        if head[0] == "source":
            sources.append(_source(where, line, head, block[1:], {s.name for s in sources}))
        elif head[0] == "truth":
            if len(head) != 2 or not block[1:]:
                raise FormatError(f"{where}: `truth NAME` and SQL below it expected")
            if head[1] in truth:
                raise FormatError(f"{where}: a second truth of {head[1]}")
            truth[head[1]] = "\n".join(block[1:])
        elif head[0] == "query":
            queries.append(_query(where, line, head, block[1:]))
        else:
            raise FormatError(f"{where}: a block starts with source, truth or query: {block[0]!r}")
    unknown = truth.keys() - {source.name for source in sources}
    if unknown:
        raise FormatError(f"{path.name}: truth of unknown source {', '.join(sorted(unknown))}")
    if not queries:
        raise FormatError(f"{path.name}: no query")
    complete = {source.name: truth.get(source.name, source.sql) for source in sources}
    return CaseFile(path, tuple(sources), complete, tuple(queries))


def _blocks(text: str) -> list[tuple[int, list[str]]]:
    """The blocks as (1-based line of the first, lines)."""
    found: list[tuple[int, list[str]]] = []
    current: list[str] = []
    start = 0
    # Not splitlines(): it also splits at characters that may be data (U+2028, form feed).
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if line == "":
            if current:
                found.append((start, current))
            current = []
        elif not current and line.startswith("#"):
            continue
        else:
            if not current:
                start = number
            current.append(line)
    if current:
        found.append((start, current))
    return found


def _source(
    where: str, line: int, head: list[str], body: list[str], taken: set[str]
) -> SourceBlock:
    if len(head) != 3:
        raise FormatError(f"{where}: `source NAME KIND` expected")
    _, name, kind = head
    if kind not in KINDS:
        raise FormatError(f"{where}: unknown kind {kind!r}, known: {', '.join(KINDS)}")
    if name in taken:
        raise FormatError(f"{where}: a second source {name}")
    if not body:
        raise FormatError(f"{where}: source {name} has no SQL")
    return SourceBlock(name, kind, "\n".join(body), line)


def _query(where: str, line: int, head: list[str], body: list[str]) -> QueryBlock:
    flags = head[1:]
    for flag in flags:
        if flag not in FLAGS:
            raise FormatError(f"{where}: unknown flag {flag!r}, known: {', '.join(FLAGS)}")
    if SEPARATOR not in body:
        raise FormatError(f"{where}: query without {SEPARATOR}")
    cut = body.index(SEPARATOR)
    sql, expected = "\n".join(body[:cut]), tuple(body[cut + 1 :])
    if not sql.strip():
        raise FormatError(f"{where}: query without SQL")
    error = "error" in flags
    if error and len(expected) != 1:
        raise FormatError(f"{where}: `query error` takes one line, the pattern")
    if error:
        try:
            re.compile(expected[0])
        except re.error as problem:
            raise FormatError(f"{where}: not a pattern: {expected[0]!r}: {problem}") from None
    return QueryBlock(sql, expected, "rowsort" in flags, error, line)


def render_row(row: Sequence[object]) -> str:
    """A row as a line of a case file."""
    return "\t".join(render(value) for value in row)


def render(value: object) -> str:
    """A value as the case files write it: SQL's NULL and true, decimals with their scale, UTC."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else repr(value)
    if isinstance(value, Decimal):
        # str() would write small ones with an exponent.
        return format(value, "f")
    if isinstance(value, bytes | bytearray | memoryview):
        return "\\x" + bytes(value).hex()
    if isinstance(value, datetime) and value.tzinfo is not None:
        return str(value.astimezone(UTC).replace(tzinfo=None))
    return str(value)
