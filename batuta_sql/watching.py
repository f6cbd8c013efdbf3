"""Who hears of a query's life: planned, sent, fetched, over.

The query knows none of them. What hears of it never changes, delays or fails it: an error of theirs
is logged, once, and goes no further.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from batuta_sql.errors import Error
from batuta_sql.exchange.fetch import UNWATCHED, Fetch, FetchWatch
from batuta_sql.secrets import without_passwords

if TYPE_CHECKING:
    from batuta_sql.query import Query

_LOGGER = logging.getLogger(__name__)

Ending = Literal["planned", "finished", "partial", "cancelled", "failed"]
"""How a query ended. ``planned``: it was never run. ``partial``: nobody wanted the rest."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Destination:
    """Where a query's rows lie afterwards.

    :param kind: ``table``: a local table; ``file``: a file or a folder of files; ``duckdb``: a
        table of a DuckDB file.
    :param name: the table's name, or the path.
    :param table: of a DuckDB file.
    :param copied: of a copy: the statement of what is copied, which the copy's runs have in common.
    """

    kind: Literal["table", "file", "duckdb"]
    name: str
    table: str | None = None
    copied: str | None = None


@dataclass(frozen=True)
class Written:
    """What came to a destination; None where it is not known."""

    rows: int | None = None
    bytes: int | None = None


class QueryWatch:
    """Hears of one query; this one does nothing with it."""

    def step(self, name: str) -> AbstractContextManager[None]:
        """Encloses a step: ``bind``, ``optimise``, ``place``, ``authorise``, ``run``; the last one
        ends when the result can be read.
        """
        return nullcontext()

    def sent(self, query: Query) -> None:
        """The query may run, and its statements are sent next."""

    def fetch(self) -> FetchWatch:
        """What hears of one fragment's fetch."""
        return UNWATCHED

    def delivers(self) -> None:
        """Whoever asked can read the result from now on."""

    def ended(self, query: Query, ending: Ending, error: BaseException | None) -> None:
        """The query is over; its figures are those of the run."""


NOT_WATCHED = QueryWatch()


class Watcher(Protocol):
    """Hears of the queries of one connection."""

    def watch(self, sql: str) -> QueryWatch: ...

    def close(self) -> None:
        """The connection is closed: what is still to be told is told now, or never."""


class Watchers:
    """All that hear of a connection's queries."""

    def __init__(self, watchers: Sequence[Watcher] = ()) -> None:
        self._watchers = tuple(watchers)

    def watch(self, sql: str) -> QueryWatch:
        if not self._watchers:
            return NOT_WATCHED
        found = [_quietly(lambda w=w: w.watch(sql), NOT_WATCHED) for w in self._watchers]  # type: ignore[misc]
        found = [w for w in found if w is not NOT_WATCHED]
        return _Several(found) if found else NOT_WATCHED

    def close(self) -> None:
        for watcher in self._watchers:
            _quietly(watcher.close, None)


NOBODY = Watchers()


class _Several(QueryWatch):
    def __init__(self, watches: Sequence[QueryWatch]) -> None:
        self._watches = watches

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        with ExitStack() as stack:
            for watch in self._watches:
                stack.enter_context(_Step(watch, name))
            yield

    def sent(self, query: Query) -> None:
        for watch in self._watches:
            _quietly(lambda w=watch: w.sent(query), None)  # type: ignore[misc]

    def fetch(self) -> FetchWatch:
        found = [_quietly(w.fetch, UNWATCHED) for w in self._watches]
        found = [w for w in found if w is not UNWATCHED]
        return _SeveralOfFetch(found) if found else UNWATCHED

    def delivers(self) -> None:
        for watch in self._watches:
            _quietly(watch.delivers, None)

    def ended(self, query: Query, ending: Ending, error: BaseException | None) -> None:
        for watch in self._watches:
            _quietly(lambda w=watch: w.ended(query, ending, error), None)  # type: ignore[misc]


class _Step:
    """A step as one watch hears of it, and nothing of its failures."""

    def __init__(self, watch: QueryWatch, name: str) -> None:
        self._watch = watch
        self._name = name
        self._inner: AbstractContextManager[None] | None = None

    def __enter__(self) -> None:
        self._inner = _quietly(self._entered, None)

    def _entered(self) -> AbstractContextManager[None]:
        inner = self._watch.step(self._name)
        inner.__enter__()
        return inner

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        inner = self._inner
        if inner is not None:
            _quietly(lambda: inner.__exit__(kind, error, trace), None)


class _SeveralOfFetch(FetchWatch):
    def __init__(self, watches: Sequence[FetchWatch]) -> None:
        self._watches = watches

    def begun(self, fetch: Fetch) -> None:
        for watch in self._watches:
            _quietly(lambda w=watch: w.begun(fetch), None)  # type: ignore[misc]

    def ended(self, fetch: Fetch, error: BaseException | None) -> None:
        for watch in self._watches:
            _quietly(lambda w=watch: w.ended(fetch, error), None)  # type: ignore[misc]


def message_of(error: BaseException) -> str:
    """An error in one message: no password, and nothing of the query's text behind it."""
    if isinstance(error, Error):
        where = f"{error.source}: " if error.source else ""
        return without_passwords(f"{type(error).__name__}: {where}{error.message}")
    return without_passwords(f"{type(error).__name__}: {error}")


def _quietly(tell: Callable[[], _T], otherwise: _T) -> _T:
    """What ``tell`` gives; ``otherwise`` where it fails."""
    try:
        return tell()
    except Exception as error:
        # Not the message: it could quote what it was working on.
        _LOGGER.warning("a query could not be told of: %s", type(error).__name__, exc_info=False)
        _LOGGER.debug("a query could not be told of", exc_info=True)
        return otherwise
