"""The PEP 249 exception tree; every error can carry a source, a hint and a place in the SQL.

``str(error)`` is what a person reads: the message, the line of SQL with a caret where the place is
known, and the suggested next step. The parts stay available as attributes for programs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Position:
    """A place in a SQL text: 1-based line and column, and the width of the marked token."""

    line: int
    column: int
    width: int = 1

    @classmethod
    def at_offset(cls, sql: str, offset: int, width: int = 1) -> Position:
        """The position of the 0-based character ``offset`` in ``sql``."""
        before = sql[:offset]
        return cls(before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1, max(width, 1))


class Warning(Exception):  # noqa: A001 - the name is PEP 249's
    """PEP 249: an important warning."""


class LabelWarning(Warning, UserWarning):
    """Data whose labels should not meet has met, and the configuration only warns of it."""


class Error(Exception):
    """Base of all errors of Batuta-SQL.

    :param message: one sentence, the remote system's own words included where there are any.
    :param source: the name of the configured source that the error comes from.
    :param hint: the suggested next step.
    :param sql: the text that ``position`` points into.

    ``exit_status`` is what the command line ends with where nobody catches the error.
    """

    exit_status: ClassVar[int] = 1

    def __init__(
        self,
        message: str = "",
        *,
        source: str | None = None,
        hint: str | None = None,
        sql: str | None = None,
        position: Position | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.source = source
        self.hint = hint
        self.sql = sql
        self.position = position

    def __str__(self) -> str:
        parts = [f"{self.source}: {self.message}" if self.source else self.message]
        if self.sql is not None and self.position is not None:
            parts.append(caret(self.sql, self.position))
        if self.hint:
            parts.append(f"Hint: {self.hint}")
        return "\n".join(parts)


class InterfaceError(Error):
    """Misuse of the interface itself: a closed cursor, a fetch without a query."""


class DatabaseError(Error):
    """Errors related to the data sources."""


class DataError(DatabaseError):
    """A value cannot be processed: out of range, not of its declared type."""


class OperationalError(DatabaseError):
    """A source failed: connection lost, wrong password, disk full, interrupted."""


class IntegrityError(DatabaseError):
    """PEP 249; a read-only federation raises it only on behalf of the local engine."""


class InternalError(DatabaseError):
    """A defect in Batuta-SQL itself."""


class ProgrammingError(DatabaseError):
    """The SQL is wrong: syntax, unknown table or column, wrong number of parameters."""


class NotSupportedError(DatabaseError):
    """Something that Batuta-SQL does not do, such as writing to a source."""


class ConfigError(ProgrammingError):
    """The configuration is wrong; the message names file, key and, where known, line."""


class QueryCancelled(OperationalError):
    """The query was cancelled by ``Connection.cancel()`` or Ctrl-C."""


class Refused(OperationalError):
    """A guard stopped a query before anything was sent that bills or leaks."""


class CostRefused(Refused):
    """The query would cost more than is allowed, or nobody said that it may."""

    exit_status = 3


class LabelRefused(Refused):
    """The query would mix data whose labels must not meet."""

    exit_status = 4


class TierRefused(Refused):
    """The sovereignty tier does not allow the source."""

    exit_status = 4


class SealError(Refused):
    """The operating system cannot be made to enforce the tier here."""

    exit_status = 78


def caret(sql: str, position: Position) -> str:
    """The line of ``sql`` at ``position`` with carets below it."""
    lines = sql.splitlines() or [""]
    line = lines[min(position.line, len(lines)) - 1]
    label = f"LINE {position.line}: "
    marks = "^" * max(1, min(position.width, len(line) - position.column + 2))
    return f"{label}{line}\n{' ' * (len(label) + position.column - 1)}{marks}"


def nearest(name: str, candidates: Iterable[str], *, limit: int = 3) -> list[str]:
    """The names most like ``name``, best first, compared without case."""
    by_key: dict[str, str] = {}
    for candidate in candidates:
        by_key.setdefault(candidate.lower(), candidate)
    close = difflib.get_close_matches(name.lower(), list(by_key), n=limit, cutoff=0.55)
    return [by_key[key] for key in close]


def did_you_mean(name: str, candidates: Iterable[str]) -> str | None:
    """A hint that names the nearest candidates, or None where nothing is near."""
    close = nearest(name, candidates)
    if not close:
        return None
    return "did you mean " + " or ".join(f'"{c}"' for c in close) + "?"
