"""The virtual catalog: every source's tables in one name space, read when they are asked for.

Only what a query names is looked up; answers live for ``ttl`` seconds. Nothing is ever copied or
listed in advance, so a source with 100,000 tables costs as much as one with ten.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from cachetools import TTLCache

from batuta_sql.errors import Error, ProgrammingError, did_you_mean, nearest
from batuta_sql.plan.site import TableInfo
from batuta_sql.sources.base import Source, TableName

_SOON_SECONDS = 0.02
"""What takes less is done before threads have started, and has taken turns."""

_NOT_KNOWN_SECONDS = 0.1

_MOST_TABLES = 4096
_MOST_NAMES_FOR_HINTS = 20_000
_FRESH_SECONDS = 0.5


class Catalog:
    """Looks names up in the sources and remembers the answers for a while.

    :param ttl: seconds for which an answer is believed.
    :param admit: called with a source's name before it is contacted; raises where the source may
        not be.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        ttl: float,
        admit: Callable[[str], None] = lambda source: None,
    ) -> None:
        self.sources = sources
        self.admit = admit
        self._lock = threading.Lock()
        self._tables: TTLCache[tuple[str, tuple[str, ...]], tuple[TableInfo, ...]] = TTLCache(
            _MOST_TABLES, ttl, timer=time.monotonic
        )
        self._seconds: dict[str, float] = {}
        """What the last look-up at each source took."""
        self._looked: dict[tuple[str, tuple[str, ...]], float] = {}
        self._listings: TTLCache[str, tuple[TableName, ...]] = TTLCache(
            64, ttl, timer=time.monotonic
        )

    def source(self, name: str) -> Source | None:
        """The source called ``name``, without case."""
        found = self.sources.get(name)
        if found is not None:
            return found
        for known, source in self.sources.items():
            if known.lower() == name.lower():
                return source
        return None

    def resolve(self, source: Source, path: tuple[str, ...]) -> TableInfo:
        """The one table that ``path`` means in ``source``.

        :raises ProgrammingError: where there is none or more than one, with the nearest names.
        """
        found = self._lookup(source, path)
        if len(found) == 1:
            return found[0]
        shown = ".".join((source.name, *path))
        if found:
            names = " or ".join(t.qualified for t in found)
            raise ProgrammingError(f'table "{shown}" is ambiguous', hint=f"say {names}")
        raise ProgrammingError(
            f'there is no table "{shown}"', source=source.name, hint=self._hint(source, path)
        )

    def prefetch(
        self, wanted: Sequence[tuple[Source, tuple[str, ...]]]
    ) -> dict[tuple[str, tuple[str, ...]], TableInfo]:
        """Looks several names up at once, so that a query waits for one round trip, not for many.

        Gives what was found, by source and path. Failures, and names of several tables, are left
        for ``resolve`` to report at the right place.
        """
        missing = [w for w in wanted if not self._known(w[0], w[1])]
        if len(missing) < 2:
            return {}

        def look(item: tuple[Source, tuple[str, ...]]) -> tuple[TableInfo, ...]:
            try:
                return self._lookup(*item)
            except Error:
                return ()

        if sum(self._seconds.get(s.name, _NOT_KNOWN_SECONDS) for s, _ in missing) < _SOON_SECONDS:
            found = [look(item) for item in missing]
        else:
            with ThreadPoolExecutor(min(8, len(missing))) as pool:
                # Each in the caller's context, and none in one that another thread is in.
                contexts = [contextvars.copy_context() for _ in missing]
                found = list(pool.map(lambda c, item: c.run(look, item), contexts, missing))
        return {
            (source.name, path): tables[0]
            for (source, path), tables in zip(missing, found, strict=True)
            if len(tables) == 1
        }

    def list_tables(self, source: Source) -> tuple[TableName, ...]:
        """All tables of a source, for SHOW TABLES and hints."""
        self.admit(source.name)
        with self._lock:
            known = self._listings.get(source.name)
        if known is None:
            known = tuple(source.list_tables())
            with self._lock:
                self._listings[source.name] = known
        return known

    def forget(self) -> bool:
        """Drops all remembered answers; says whether any was older than a moment."""
        with self._lock:
            now = time.monotonic()
            stale = any(now - self._looked.get(k, now) > _FRESH_SECONDS for k in self._tables)
            self._tables.clear()
            self._listings.clear()
            self._looked.clear()
        return stale

    def _known(self, source: Source, path: tuple[str, ...]) -> bool:
        with self._lock:
            return (source.name, path) in self._tables

    def _lookup(self, source: Source, path: tuple[str, ...]) -> tuple[TableInfo, ...]:
        self.admit(source.name)
        key = (source.name, path)
        with self._lock:
            known = self._tables.get(key)
        if known is None:
            started = time.perf_counter()
            known = tuple(source.resolve(path))
            self._seconds[source.name] = time.perf_counter() - started
            if known and source.remembers_catalog:
                with self._lock:
                    self._tables[key] = known
                    self._looked[key] = time.monotonic()
        return known

    def _hint(self, source: Source, path: tuple[str, ...]) -> str | None:
        try:
            names = self.list_tables(source)
        except Error:
            return None
        if not names:
            return f'source "{source.name}" has no tables'
        if len(names) > _MOST_NAMES_FOR_HINTS:
            return None
        by_shown = {".".join((source.name, *n.path)): n for n in names}
        same = [s for s, n in by_shown.items() if n.path[-1].lower() == path[-1].lower()]
        if same:
            return "did you mean " + " or ".join(same[:3]) + "?"
        close = nearest(path[-1], [n.path[-1] for n in names])
        if close:
            shown = [s for c in close for s, n in by_shown.items() if n.path[-1] == c]
            return "did you mean " + " or ".join(shown[:3]) + "?"
        few = list(by_shown)[:8]
        return (
            f'source "{source.name}" has ' + ", ".join(few) + (" ..." if len(by_shown) > 8 else "")
        )


def unknown_source(name: str, sources: Mapping[str, Source]) -> ProgrammingError:
    """The error for a first name part that is no source."""
    hint = did_you_mean(name, sources)
    if hint is None and sources:
        hint = "the sources are " + ", ".join(sources)
    return ProgrammingError(f'there is no source "{name}"', hint=hint)
