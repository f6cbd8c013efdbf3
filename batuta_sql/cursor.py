"""PEP 249 cursors, with the Arrow methods known from ADBC and DuckDB."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import duckdb
import pyarrow as pa

from batuta_sql.engines.duckdb import PendingResult
from batuta_sql.errors import (
    InterfaceError,
)
from batuta_sql.frontend.expressions import ParameterValues
from batuta_sql.labels import KEY, ColumnLabels
from batuta_sql.outcome import Outcome
from batuta_sql.planview import Plan
from batuta_sql.provenance import ColumnLineage
from batuta_sql.query import Query
from batuta_sql.statements import run_statement
from batuta_sql.watching import Destination

if TYPE_CHECKING:
    from batuta_sql.dbapi import Connection

_ARROW_BATCH_ROWS = 100_000


class Cursor:
    """A cursor: one statement at a time and its result."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.arraysize = 1
        self.target: str | Path | None = None
        """The file that the program writes the rows to, for events about the query."""
        self._outcome: Outcome | None = None
        self._query: Query | None = None
        self._plan: Plan | None = None
        self._closed = False
        self._count = -1

    # --- PEP 249 -------------------------------------------------------------------------------

    @property
    def description(self) -> list[tuple[Any, ...]] | None:
        """PEP 249's seven items per column; the type code is a ``TypeCode``."""
        return self._outcome.description if self._outcome is not None else None

    @property
    def rowcount(self) -> int:
        """-1: the number of rows is known only when they have been fetched."""
        return self._count

    def execute(self, sql: str, parameters: ParameterValues | None = None) -> Self:
        """Runs one statement.

        :param parameters: a sequence for ``?`` and ``$1``, a mapping for ``$name``.
        :raises ProgrammingError: for wrong SQL, with the place and the nearest names.
        :raises OperationalError: for a source that fails, in its own words.
        :raises CostRefused: for a query that costs too much, before anything of it was sent.
        """
        self._check_open()
        self._finish()
        into = Destination("file", str(self.target)) if self.target is not None else None
        outcome, query = run_statement(self.connection, sql, parameters, into)
        self._outcome, self._query = outcome, query
        self._plan = Plan.of(query) if query is not None else None
        self._count = outcome.affected
        return self

    def executemany(self, sql: str, rows: Sequence[ParameterValues]) -> Self:
        """Runs a query for each set of parameters; the results follow each other."""
        self._check_open()
        self._finish()
        tables: list[pa.Table] = []
        changed: list[int] = []
        for parameters in rows:
            self.execute(sql, parameters)
            changed.append(self._count)
            if self._outcome is not None and self._outcome.relation is not None:
                tables.append(self.fetch_arrow_table())
        if tables:
            merged = pa.concat_tables(tables)
            engine = self.connection._session.engine.cursor()
            engine.register("results", merged)
            self._outcome = Outcome(PendingResult(engine, "SELECT * FROM results"))
        elif changed and min(changed) >= 0:
            self._count = sum(changed)
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row; None behind the last one."""
        row: tuple[Any, ...] | None = self._fetching(lambda r: r.fetchone())
        if row is None:
            self._exhausted()
        return row

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """The next rows, at most ``size`` (``arraysize`` where none is given)."""
        wanted = self.arraysize if size is None else size
        rows: list[tuple[Any, ...]] = self._fetching(lambda r: r.fetchmany(wanted))
        if len(rows) < wanted:
            self._exhausted()
        return rows

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows that are left."""
        rows: list[tuple[Any, ...]] = self._fetching(lambda r: r.fetchall())
        self._exhausted()
        return rows

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while (row := self.fetchone()) is not None:
            yield row

    def setinputsizes(self, sizes: Sequence[Any]) -> None:
        """PEP 249; types are taken from the values."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """PEP 249; large values need no preparation."""

    def close(self) -> None:
        """Ends a query that still runs and forgets its result."""
        self._finish()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- Arrow and frames ----------------------------------------------------------------------

    def fetch_arrow_table(self) -> pa.Table:
        """What is left of the result, as one Arrow table."""
        table = self._fetching(_to_arrow_table)
        self._exhausted()
        return pa.Table.from_arrays(table.columns, schema=self._labelled(table.schema))

    def fetch_record_batch(self, rows_per_batch: int = _ARROW_BATCH_ROWS) -> pa.RecordBatchReader:
        """What is left of the result as a stream; the query runs while it is read."""
        reader = self._fetching(lambda r: r.to_arrow_reader(rows_per_batch))
        schema = self._labelled(reader.schema)
        return pa.RecordBatchReader.from_batches(schema, self._streamed(reader))

    def fetch_df(self) -> Any:
        """What is left of the result as a pandas DataFrame."""
        frame = self._fetching(_to_arrow_table).to_pandas()
        self._exhausted()
        if labels := {n: sorted(found.all) for n, found in self.labels.items() if found}:
            frame.attrs[KEY] = labels
        return frame

    def fetch_polars(self) -> Any:
        """What is left of the result as a Polars DataFrame."""
        import polars

        frame = polars.from_arrow(self._fetching(_to_arrow_table))
        self._exhausted()
        return frame

    # --- what was done -------------------------------------------------------------------------

    @property
    def plan(self) -> Plan | None:
        """The placed plan of the last query; ``str()`` is its EXPLAIN tree."""
        return self._plan

    @property
    def labels(self) -> dict[str, ColumnLabels]:
        """The labels of each column of the last query's result; empty sets where it has none."""
        if self._plan is None:
            return {}
        return self._plan.labels(d[0] for d in self.description or ())

    @property
    def lineage(self) -> dict[str, ColumnLineage]:
        """For each column the sources' columns behind its values, and behind its rows."""
        if self._plan is None:
            return {}
        return self._plan.lineage(d[0] for d in self.description or ())

    @property
    def metrics(self) -> dict[str, Any] | None:
        """Rows, bytes and seconds per fragment, the estimate beside the actual."""
        if self._plan is None:
            return None
        if self._query is not None:
            self._query.record_metrics()
        return self._plan.metrics()

    # --- inside --------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise InterfaceError("the cursor is closed")
        self.connection._check_open()

    def _labelled(self, schema: pa.Schema) -> pa.Schema:
        return schema if self._plan is None else self._plan.labelled(schema)

    def _fetching(self, fetch: Callable[[Any], Any]) -> Any:
        self._check_open()
        if self._outcome is None or self._outcome.relation is None:
            raise InterfaceError("there is no result: execute a query first")
        try:
            return fetch(self._outcome.relation)
        except BaseException as error:
            raise self._failed(error) from None

    def _failed(self, error: BaseException) -> BaseException:
        if self._query is not None:
            failure = self._query.failure(error)
            self._exhausted()
            return failure
        from batuta_sql.engines.duckdb import engine_error

        return engine_error(error) if isinstance(error, duckdb.Error) else error

    def _streamed(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        try:
            yield from reader
        except GeneratorExit:
            raise
        except BaseException as error:
            raise self._failed(error) from None
        self._exhausted()

    def _exhausted(self) -> None:
        """The result has been read: the remote side can be released."""
        if self._query is not None:
            query, self._query = self._query, None
            self._query_ended_at = time.time()
            query.record_metrics()
            if self._outcome is not None:
                self._outcome.keep_description()
            self.connection._ended(query)
            if self._outcome is not None:
                self._outcome.relation = _Empty()

    def _finish(self) -> None:
        if self._query is not None:
            query, self._query = self._query, None
            query.abandon()
            self.connection._ended(query)
        self._outcome = None
        self._plan = None
        self._count = -1


class _Empty:
    """A result that has been read to its end."""

    def fetchone(self) -> None:
        return None

    def fetchmany(self, size: int) -> list[tuple[Any, ...]]:
        return []

    def fetchall(self) -> list[tuple[Any, ...]]:
        return []

    def to_arrow_reader(self, rows_per_batch: int) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(pa.schema([]), iter(()))

    def to_arrow_table(self) -> pa.Table:
        return pa.table({})


def _to_arrow_table(result: PendingResult) -> pa.Table:
    return result.to_arrow_table()
