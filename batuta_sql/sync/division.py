"""Divides what is copied into splits, and reads each of them, all in one state of the source."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from batuta_sql.engines.duckdb import PendingResult
from batuta_sql.plan.fragments import Fragment
from batuta_sql.plan.relational import Exchange, Filter, Project, is_stable
from batuta_sql.plan.site import TableInfo
from batuta_sql.query import Query
from batuta_sql.sources.base import FragmentQuery, TellsRows
from batuta_sql.sync.checkpoint import SplitRecord

_BATCH_ROWS = 65_536
_BLOCK_BYTES = 8192.0


@dataclass
class Division:
    """A planned query as what it is copied by.

    :param fragment: the one that can be read range by range; None where the query is one split.
    """

    query: Query
    fragment: Fragment | None

    @classmethod
    def of(cls, query: Query) -> Division:
        """By ranges, where each row of the result comes of one row of one table alone."""
        placed = query.placed
        if placed is None or len(placed.fragments) != 1 or placed.fallbacks:
            return cls(query, None)
        (fragment,) = placed.fragments
        row_wise = all(
            isinstance(node, Exchange)
            or (isinstance(node, Project | Filter) and all(map(is_stable, node.expressions)))
            for node in _above_exchange(placed.plan)
        )
        if not row_wise or fragment.ranged is None:
            return cls(query, None)
        query.execution.reads_in_splits = True
        return cls(query, fragment)

    @property
    def table(self) -> TableInfo | None:
        """The one table that is read."""
        tables = {t.qualified_parts: t for r in self.query.runs for t in r.fragment.tables}
        return next(iter(tables.values())) if len(tables) == 1 else None

    def splits(self, split_bytes: float) -> list[SplitRecord]:
        """All that there is to do, in splits of about so many bytes of the table."""
        if self.fragment is None:
            return [SplitRecord(0)]
        (table,) = self.fragment.tables
        wanted = max(1, round(sum(table.blocks) * _BLOCK_BYTES / split_bytes))
        ends: list[int | None] = [*self.fragment.begins(wanted), None]
        return [
            SplitRecord(n, low, high)
            for n, (low, high) in enumerate(itertools.pairwise(ends))
            if low is not None
        ]

    def regrown(self, splits: Sequence[SplitRecord], split_bytes: float) -> list[SplitRecord]:
        """``splits`` with the last one, which has no end, cut again where the table has grown."""
        *others, last = splits
        if self.fragment is None or last.low is None:
            return list(splits)
        (table,) = self.fragment.tables
        blocks = max(table.blocks) - last.low
        pieces = int(blocks * len(table.blocks) * _BLOCK_BYTES / split_bytes)
        if pieces < 2:
            return list(splits)
        ends = [last.low + blocks * i // pieces for i in range(1, pieces)]
        cut = [SplitRecord(last.number, last.low, ends[0])]
        cut += [
            SplitRecord(last.number + n, low, high)
            for n, (low, high) in enumerate(zip(ends, [*ends[1:], None], strict=True), 1)
        ]
        return [*others, *cut]

    @property
    def workers(self) -> int:
        """How many splits may be read at once."""
        if self.fragment is None:
            return 1
        execution = self.query.execution
        most = execution.session.settings.sources[self.fragment.source].max_connections
        # One connection holds the state that all of them read.
        return max(1, min(execution.degree(self.fragment), most - 1))

    # --- what the rows of a split are ----------------------------------------------------------

    @property
    def tells_versions(self) -> bool:
        """Whether it can be told that the rows of a split are what they were."""
        return self.version_of_all is not None or self._teller is not None

    @property
    def version_of_all(self) -> str | None:
        """What no other content of the tables is called; None where they have no such name."""
        runs = self.query.runs
        contents = sorted({t.content or "" for r in runs for t in r.fragment.tables})
        is_whole = self.query.placed is not None and not self.query.placed.fallbacks
        return "\n".join(contents) if runs and all(contents) and is_whole else None

    @property
    def _teller(self) -> TellsRows | None:
        if self.fragment is None:
            return None
        source = self.query.session.sources[self.fragment.source]
        return source if isinstance(source, TellsRows) else None

    def version(self, split: SplitRecord) -> str | None:
        """What the source says of a split's rows now; see ``SplitRecord.version``.

        :raises Error: what the source says instead.
        """
        if self.fragment is None or self._teller is None:
            return self.version_of_all
        (table,) = self.fragment.tables
        sql = self._teller.rows_version(table, split.low or 0, split.high)
        snapshot = self.query.execution.snapshot(self.fragment.source)
        with closing(snapshot.read(FragmentQuery(sql, (("version", "VARCHAR"),)))) as reader:
            (found,) = [v.as_py() for batch in reader for v in batch.column(0)]
        return str(found)

    # --- reading -------------------------------------------------------------------------------

    @contextmanager
    def read(self, split: SplitRecord) -> Iterator[Rows]:
        """The rows of a split, as they are in the result.

        :raises Error: what a source says instead.
        """
        query = self.query
        if self.fragment is None:
            yield Rows(query, lambda: query.run().to_arrow_reader(_BATCH_ROWS))
            return
        sql = self.fragment.range(split.low or 0, split.high)
        fetch = query.execution.fetch(replace(self.fragment, sql=sql, ranged=None))
        prefetch = query.execution.prefetch(fetch)
        name = self.fragment.name
        with query.session.engine.cursor() as cursor:

            def residual() -> pa.RecordBatchReader:
                cursor.register(name, prefetch.reader())
                return PendingResult(cursor, query.residual_sql()).to_arrow_reader(_BATCH_ROWS)

            try:
                yield Rows(query, residual)
            finally:
                prefetch.abandon()


class Rows:
    """A stream of rows whose errors are the source's own.

    :param start: gives the stream.
    """

    def __init__(self, query: Query, start: Callable[[], pa.RecordBatchReader]) -> None:
        self._query = query
        self._reader = self._asked(start)
        self.schema: pa.Schema = self._reader.schema

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The batches, with a schema that differs in metadata and time zones alone.

        :raises Error: in mid-stream.
        """
        while (batch := self._asked(lambda: next(self._reader, None))) is not None:
            if batch.schema.types != schema.types:
                batch = batch.cast(schema)
            yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)

    def _asked(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except BaseException as error:
            raise self._query.failure(error) from None


def _above_exchange(node: object) -> Iterator[object]:
    yield node
    while isinstance(node, Project | Filter):
        node = node.input
        yield node
