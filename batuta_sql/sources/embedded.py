"""Sources whose fragments a DuckDB engine of their own runs, inside this process.

Everything is proved equal there, because it is the same engine; what differs is only how a table
becomes a relation, which each subclass says.
"""

from __future__ import annotations

import abc
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import duckdb
import pyarrow as pa
from sqlglot import exp

from batuta_sql.engines.duckdb import (
    ISOLATION,
    close_when_free,
    engine_error,
    quote,
    stream_error,
)
from batuta_sql.errors import Error, OperationalError, QueryCancelled
from batuta_sql.exchange.wire import with_duckdb_types
from batuta_sql.plan.site import Capabilities, TableInfo
from batuta_sql.plan.translate import DuckDBTranslator, quoted_table
from batuta_sql.sources.base import FragmentQuery, SourceEstimate, TableName
from batuta_sql.sources.sizes import delivered_bytes, known_rows

_BATCH_ROWS = 100_000
_CANCEL_SECONDS = 2.0
_numbers = itertools.count()


class ViewNames:
    """Names of views for tables whose own names may differ in case alone.

    To DuckDB ``Orders`` and ``orders`` are one name, to a file system they are two.
    """

    def __init__(self) -> None:
        self._views: dict[str, str] = {}
        self._tables: dict[str, str] = {}

    def tell_apart(self, names: Iterable[str]) -> None:
        """Gives each of ``names``, which are alike without case, a view of its own."""
        for number, name in enumerate(sorted(set(names))):
            view = f"{name}/{number}" if number else name
            self._views[name] = view
            self._tables[view] = name

    def view(self, name: str) -> str:
        return self._views.get(name, name)

    def table(self, view: str) -> str:
        return self._tables.get(view, view)


class ViewTranslator(DuckDBTranslator):
    """Reads each table from its view."""

    def __init__(self, names: ViewNames) -> None:
        self._names = names

    def table(self, table: TableInfo) -> exp.Table:
        return quoted_table((self._names.view(table.name),))


class EmbeddedSource(abc.ABC):
    """A source that DuckDB reads by itself."""

    kind = ""
    remembers_catalog = False
    """The catalog may not believe an old answer: files change under us without a word."""

    def __init__(self, name: str, query_timeout: float | None = None) -> None:
        self.name = name
        self.query_timeout = query_timeout
        self._lock = threading.Lock()
        self._pending_settings: list[str] = []

    @cached_property
    def engine(self) -> duckdb.DuckDBPyConnection:
        """The source's own engine; made anew after a failure to open it."""
        return self.connect()

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Opens the engine.

        :raises OperationalError: where it cannot be opened.
        """
        # Not ".tmp" in the caller's folder; DuckDB makes it when it spills and removes it.
        spill = f"batuta-spill-{os.getpid()}-{next(_numbers)}"
        config = dict(ISOLATION, temp_directory=os.path.join(tempfile.gettempdir(), spill))
        connection = duckdb.connect(":memory:", config=config)
        # HUGEINT, UUID and their like keep their type on the way.
        connection.execute("SET GLOBAL arrow_lossless_conversion = true")
        return connection

    @cached_property
    def capabilities(self) -> Capabilities:
        return Capabilities(dialect="duckdb", translator=DuckDBTranslator(), windows=True)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            engine = self.engine
            while self._pending_settings:
                engine.execute(self._pending_settings.pop(0))
            return engine.cursor()

    def apply_setting(self, sql: str) -> None:
        """Runs a ``SET GLOBAL`` of the session in this engine too, before its next use.

        What is pushed here must read time zones, and keep limits, as the residual engine does.
        """
        with self._lock:
            self._pending_settings.append(sql)

    @abc.abstractmethod
    def list_tables(self) -> Sequence[TableName]: ...

    @abc.abstractmethod
    def resolve(self, path: tuple[str, ...]) -> Sequence[TableInfo]: ...

    @abc.abstractmethod
    def relation(self, cursor: duckdb.DuckDBPyConnection, name: str, query: FragmentQuery) -> str:
        """The FROM item behind a table's name in ``query``; may register things on ``cursor``."""

    @abc.abstractmethod
    def estimate(self, query: FragmentQuery) -> SourceEstimate: ...

    def open(self, readers: int | None = 1) -> EmbeddedSnapshot:
        return EmbeddedSnapshot(self)

    def prepare(self, cursor: duckdb.DuckDBPyConnection, query: FragmentQuery) -> None:
        """Makes the tables that a fragment names readable on its cursor."""
        for name in self.names_of(query):
            relation = self.relation(cursor, name, query)
            cursor.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS SELECT * FROM {relation}")

    def names_of(self, query: FragmentQuery) -> list[str]:
        """The names under which a fragment reads its tables."""
        translator = self.capabilities.translator
        return list(dict.fromkeys(translator.table(t).name for t in query.tables))

    def described(self, relation: str) -> list[tuple[str, str]]:
        """Names and types of a relation's columns, in DuckDB's own opinion."""
        with self.cursor() as cursor:
            try:
                rows = cursor.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
            except duckdb.Error as error:
                raise self.error(error) from None
        return [(r[0], r[1]) for r in rows]

    def error(self, error: BaseException) -> Error:
        """An engine's error in its own words, with this source's name."""
        found = engine_error(error)
        if isinstance(error, duckdb.IOException | duckdb.InvalidInputException):
            found = OperationalError(found.message, hint=found.hint)
        # DuckDB points into SQL of ours that the user never wrote.
        found.message = found.message.partition("\n\nLINE ")[0]
        if found.source is None:
            found.source = self.name
        return found

    def close(self) -> None:
        if "engine" in self.__dict__:
            close_when_free(self.engine)


def estimated(
    query: FragmentQuery,
    tree: exp.Expr | None,
    bytes_scanned: float | None,
    confidence: str,
    basis: str,
) -> SourceEstimate:
    """The estimate of a statement that reads ``bytes_scanned``; rows are the planner's."""
    rows, rows_confidence = known_rows(query, tree)
    return SourceEstimate(
        rows=rows,
        bytes_scanned=bytes_scanned,
        confidence=confidence if bytes_scanned is not None else rows_confidence,
        basis=basis,
        bytes_delivered=delivered_bytes(query, rows, tree),
        rows_confidence=rows_confidence,
    )


class EmbeddedSnapshot:
    """One query's view; each read has a cursor of its own.

    A cursor is known here from before its statement starts, so that whatever it does can be ended:
    DuckDB may run most of a statement before it hands out the stream.
    """

    def __init__(self, source: EmbeddedSource) -> None:
        self._source = source
        self._changed = threading.Condition()
        self._starting: set[duckdb.DuckDBPyConnection] = set()
        self._readers: set[EmbeddedReader] = set()
        self._cancelled = False

    def read(self, query: FragmentQuery) -> EmbeddedReader:
        cursor = self._source.cursor()
        try:
            with self._changed:
                self._check()
                self._starting.add(cursor)
            self._source.prepare(cursor, query)
            self._check()
            relation = cursor.sql(query.sql)
            stream = relation.to_arrow_reader(_BATCH_ROWS)
            schema = with_duckdb_types(stream.schema, [str(t) for t in relation.types])
            reader = EmbeddedReader(self._source, stream, schema, cursor, self._forget)
            with self._changed:
                self._check()
                self._readers.add(reader)
            return reader
        except Exception as error:
            cursor.close()
            self._check()
            raise self._source.error(error) from None
        finally:
            with self._changed:
                self._starting.discard(cursor)
                self._changed.notify_all()

    def _check(self) -> None:
        if self._cancelled:
            raise QueryCancelled("the query was cancelled", source=self._source.name)

    def _forget(self, reader: EmbeddedReader) -> None:
        with self._changed:
            self._readers.discard(reader)

    def cancel(self) -> None:
        deadline = time.monotonic() + _CANCEL_SECONDS
        with self._changed:
            self._cancelled = True
            for reader in self._readers:
                reader.cancel()
            # An interrupt just before a statement begins is lost: again, until it has ended.
            while self._starting and time.monotonic() < deadline:
                for cursor in self._starting:
                    interrupt(cursor)
                self._changed.wait(0.01)

    def close(self) -> None:
        self.cancel()
        with self._changed:
            readers = list(self._readers)
        for reader in readers:
            reader.close()


def interrupt(cursor: duckdb.DuckDBPyConnection) -> None:
    """Ends what a cursor runs; one that is closed runs nothing."""
    try:
        cursor.interrupt()
    except duckdb.ConnectionException:
        return


class EmbeddedReader:
    """A running fragment; see ``FragmentReader``."""

    def __init__(
        self,
        source: EmbeddedSource,
        reader: pa.RecordBatchReader,
        schema: pa.Schema,
        cursor: duckdb.DuckDBPyConnection,
        release: Callable[[EmbeddedReader], None],
    ) -> None:
        self._source = source
        self._reader = reader
        self.schema = schema
        self._cursor = cursor
        self._release = release
        self._busy = threading.Lock()
        self._open = True
        self._cancelled = False

    def __iter__(self) -> EmbeddedReader:
        return self

    def __next__(self) -> pa.RecordBatch:
        with self._busy:
            if self._cancelled:
                self._close()
                raise QueryCancelled("the query was cancelled", source=self._source.name)
            if not self._open:
                raise StopIteration
            try:
                return self._reader.read_next_batch()
            except StopIteration:
                self._close()
                raise
            except Exception as error:
                self._close()
                raise self._source.error(stream_error(error)) from None

    def cancel(self) -> None:
        if self._open:
            self._cancelled = True
            interrupt(self._cursor)

    def close(self) -> None:
        # Not under a thread that is reading: the interrupt makes it come back first.
        self.cancel()
        with self._busy:
            self._close()

    def _close(self) -> None:
        if self._open:
            self._open = False
            self._reader.close()
            self._cursor.close()
            self._release(self)
