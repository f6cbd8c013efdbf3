"""The names that may be written, as far as they are known; asking for them never waits.

Each source is asked in a thread of its own, so that one that is slow holds up nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import duckdb

Path = tuple[str, ...]


class Asked(Protocol):
    """What is asked for names: a connection."""

    @property
    def sources(self) -> tuple[str, ...]: ...

    def tables(self, source: str | None = None) -> list[tuple[str, Path, str]]: ...

    def describe(self, name: str) -> Any: ...


class KnownNames:
    """
    :param connection: whose sources they are of.
    """

    def __init__(self, connection: Asked) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._tables: dict[str, tuple[Path, ...]] = {}
        self._columns: dict[Path, tuple[str, ...]] = {}
        self._asking: set[object] = set()
        self.keywords: tuple[str, ...] = ()
        self.functions: tuple[str, ...] = ()

    def refresh(self) -> None:
        """Asks for all that is not columns, in the background."""
        with self._lock:
            self._columns.clear()
        self._begin("words", self.read_words)
        for source in self._connection.sources:
            self._begin(source, partial(self._read_tables, source))

    @property
    def sources(self) -> tuple[str, ...]:
        return self._connection.sources

    def tables(self, source: str | None = None) -> list[Path]:
        """Whole paths, their source first; of the sources that have answered, or of one of them.

        :param source: without case.
        """
        with self._lock:
            known = dict(self._tables)
        return [
            (name, *path)
            for name, paths in known.items()
            if source is None or name.lower() == source.lower()
            for path in paths
        ]

    def columns(self, table: Path) -> tuple[str, ...]:
        """Empty while nobody has answered."""
        with self._lock:
            known = self._columns.get(table)
        if known is None:
            self._begin(table, lambda: self._read_columns(table))
        return known or ()

    def table_of(self, written: Sequence[str]) -> Path | None:
        """The one table that a name may mean, without case."""
        wanted = tuple(w.lower() for w in written)
        if len(wanted) < 2:
            return None
        found = [
            path
            for path in self.tables(wanted[0])
            if tuple(p.lower() for p in path[1:])[-(len(wanted) - 1) :] == wanted[1:]
        ]
        return found[0] if len(found) == 1 else None

    def _begin(self, what: object, work: Callable[[], None]) -> None:
        with self._lock:
            if what in self._asking:
                return
            self._asking.add(what)

        def run() -> None:
            try:
                work()
            except Exception:
                # Whoever uses the source will hear what is wrong there.
                return
            finally:
                with self._lock:
                    self._asking.discard(what)

        threading.Thread(target=run, name="batuta-names", daemon=True).start()

    def read_words(self) -> None:
        """Keywords and functions; they are DuckDB's, and no source is asked."""
        with duckdb.connect(":memory:") as engine:
            words = engine.execute("SELECT keyword_name FROM duckdb_keywords()").fetchall()
            names = engine.execute(
                "SELECT DISTINCT function_name FROM duckdb_functions()"
                " WHERE regexp_full_match(function_name, '[a-z][a-z0-9_]*') ORDER BY 1"
            ).fetchall()
        self.keywords = tuple(w.upper() for (w,) in words)
        self.functions = tuple(n for (n,) in names)

    def _read_tables(self, source: str) -> None:
        found = tuple(path for _, path, _ in self._connection.tables(source))
        with self._lock:
            self._tables[source] = found

    def _read_columns(self, table: Path) -> None:
        found = self._connection.describe(".".join(map(quoted, table)))
        with self._lock:
            self._columns[table] = tuple(found.column("column_name").to_pylist())


def quoted(name: str) -> str:
    """A name as it may be written in SQL: in quotes where it must be."""
    if name.isidentifier() and name.isascii() and name == name.lower():
        return name
    return '"' + name.replace('"', '""') + '"'
