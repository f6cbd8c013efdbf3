"""Divides what is copied into splits, and reads each of them, all in one state of the source."""

from __future__ import annotations

import abc
import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa

from batuta_sql.engines.duckdb import PendingResult
from batuta_sql.exchange.fetch import fragment_query
from batuta_sql.plan.fragments import Fragment, is_row_wise
from batuta_sql.plan.relational import Exchange, Filter, Project, Relation, is_stable
from batuta_sql.query import Query
from batuta_sql.sources.base import (
    NO_FILE,
    ChecksFiles,
    FragmentQuery,
    HasFiles,
    KeepsResults,
    TellsRows,
)
from batuta_sql.sync.checkpoint import SplitRecord

_BATCH_ROWS = 65_536
_BLOCK_BYTES = 8192.0


def division_of(query: Query) -> Division:
    """How a planned query is copied: by ranges of blocks or by files where each row of the result
    comes of one row of one table alone, else whole.
    """
    placed = query.placed
    if placed is None or len(placed.fragments) != 1 or placed.fallbacks:
        return Whole(query)
    (fragment,) = placed.fragments
    if not _changes_row_by_row(placed.plan):
        return Whole(query)
    if not _reads_row_by_row(placed.plan):
        return _by_result(query, fragment)
    source = query.session.sources[fragment.source]
    if fragment.ranged is not None and isinstance(source, TellsRows):
        return ByBlocks(query, fragment, source)
    if len(fragment.tables) == 1 and isinstance(source, HasFiles):
        files = source.files_of_table(fragment.tables[0])
        if files:
            return ByFiles(query, fragment, source, files)
    return _by_result(query, fragment)


def _by_result(query: Query, fragment: Fragment) -> Division:
    source = query.session.sources[fragment.source]
    if isinstance(source, KeepsResults) and source.keeps_results:
        return ByResult(query, fragment, source)
    return Whole(query)


class Division(abc.ABC):
    """A query as what it is copied by."""

    def __init__(self, query: Query) -> None:
        self.query = query

    workers = 1
    """How many splits may be read at once."""

    is_of_one_run = False
    """Whether versions tell only that the splits of a copy that was interrupted are still there."""

    def foreseen(self, split_bytes: float) -> int:
        """How many splits there will be, at least; nothing is run for it."""
        return len(self.splits(split_bytes))

    @property
    def sources(self) -> frozenset[str]:
        """Whose rows are copied."""
        return frozenset(r.fragment.source for r in self.query.runs)

    @property
    @abc.abstractmethod
    def tells_versions(self) -> bool:
        """Whether it can be told that the rows of a split are what they were."""

    @abc.abstractmethod
    def splits(self, split_bytes: float) -> list[SplitRecord]:
        """All that there is to do, in splits of about so many bytes of the table.

        :raises Error: what a source says instead.
        """

    @abc.abstractmethod
    def fits(self, split: SplitRecord) -> bool:
        """Whether a split of an earlier copy is one of this division."""

    @abc.abstractmethod
    def updated(
        self, splits: Sequence[SplitRecord], same: Collection[int], split_bytes: float
    ) -> list[SplitRecord]:
        """The splits of an earlier copy as there is to do now.

        :param same: the numbers of those whose rows are what they were.
        """

    @abc.abstractmethod
    def version(self, split: SplitRecord) -> str | None:
        """What the source says of a split's rows now; see ``SplitRecord.version``.

        :raises Error: what the source says instead.
        """

    @abc.abstractmethod
    def read(self, split: SplitRecord) -> AbstractContextManager[Rows]:
        """The rows of a split, as they are in the result.

        :raises Error: what a source says instead.
        """


class Whole(Division):
    """One split: the whole result."""

    def splits(self, split_bytes: float) -> list[SplitRecord]:
        return [SplitRecord(0)]

    def fits(self, split: SplitRecord) -> bool:
        return split.low is None and not split.files

    def updated(
        self, splits: Sequence[SplitRecord], same: Collection[int], split_bytes: float
    ) -> list[SplitRecord]:
        return [s if s.number in same else SplitRecord(s.number) for s in splits]

    @property
    def tells_versions(self) -> bool:
        return self._content is not None

    def version(self, split: SplitRecord) -> str | None:
        return self._content

    @property
    def _content(self) -> str | None:
        """What no other content of the tables is called; None where they have no such name."""
        runs = self.query.runs
        contents = sorted({t.content or "" for r in runs for t in r.fragment.tables})
        is_whole = self.query.placed is not None and not self.query.placed.fallbacks
        return "\n".join(contents) if runs and all(contents) and is_whole else None

    @contextmanager
    def read(self, split: SplitRecord) -> Iterator[Rows]:
        yield Rows(self.query, lambda: self.query.run().to_arrow_reader(_BATCH_ROWS))


class _OfOneFragment(Division):
    """Splits of the one fragment that a query has."""

    tells_versions = True

    def __init__(self, query: Query, fragment: Fragment) -> None:
        super().__init__(query)
        self._fragment = fragment
        query.execution.reads_in_splits = True

    @abc.abstractmethod
    def _part(self, split: SplitRecord) -> Fragment:
        """The fragment for one split."""

    @contextmanager
    def read(self, split: SplitRecord) -> Iterator[Rows]:
        query, name = self.query, self._fragment.name
        prefetch = query.execution.prefetch(query.execution.fetch(self._part(split)))
        with query.session.engine.cursor() as cursor:

            def residual() -> pa.RecordBatchReader:
                cursor.register(name, prefetch.reader())
                return PendingResult(cursor, query.residual_sql()).to_arrow_reader(_BATCH_ROWS)

            try:
                yield Rows(query, residual)
            finally:
                prefetch.abandon()


class ByBlocks(_OfOneFragment):
    """Ranges of a table's blocks; the last one has no end."""

    def __init__(self, query: Query, fragment: Fragment, source: TellsRows) -> None:
        super().__init__(query, fragment)
        (self._table,) = fragment.tables
        self._source = source
        execution = query.execution
        most = execution.session.settings.sources[fragment.source].max_connections
        # One connection holds the state that all of them read.
        self.workers = max(1, min(execution.degree(fragment), most - 1))

    def splits(self, split_bytes: float) -> list[SplitRecord]:
        wanted = max(1, round(sum(self._table.blocks) * _BLOCK_BYTES / split_bytes))
        begins = self._fragment.begins(wanted)
        ends = [*begins[1:], None]
        return [SplitRecord(n, *ends) for n, ends in enumerate(zip(begins, ends, strict=True))]

    def fits(self, split: SplitRecord) -> bool:
        return split.low is not None

    def updated(
        self, splits: Sequence[SplitRecord], same: Collection[int], split_bytes: float
    ) -> list[SplitRecord]:
        again = [s if s.number in same else SplitRecord(s.number, s.low, s.high) for s in splits]
        return again if splits[-1].number in same else self._regrown(again, split_bytes)

    def _regrown(self, splits: Sequence[SplitRecord], split_bytes: float) -> list[SplitRecord]:
        """With the last one cut again, where the table has grown."""
        *others, last = splits
        begin = last.low or 0
        blocks = max(self._table.blocks) - begin
        pieces = int(blocks * len(self._table.blocks) * _BLOCK_BYTES / split_bytes)
        if pieces < 2:
            return list(splits)
        begins = [begin + blocks * i // pieces for i in range(pieces)]
        cut = zip(begins, [*begins[1:], None], strict=True)
        return [*others, *(SplitRecord(n, *ends) for n, ends in enumerate(cut, last.number))]

    def version(self, split: SplitRecord) -> str | None:
        sql = self._source.rows_version(self._table, split.low or 0, split.high)
        snapshot = self.query.execution.snapshot(self._fragment.source)
        with closing(snapshot.read(FragmentQuery(sql, (("version", "VARCHAR"),)))) as reader:
            (found,) = [v.as_py() for batch in reader for v in batch.column(0)]
        return str(found)

    def _part(self, split: SplitRecord) -> Fragment:
        sql = self._fragment.range(split.low or 0, split.high)
        return replace(self._fragment, sql=sql, ranged=None)


class ByFiles(_OfOneFragment):
    """Groups of the files, or of pieces of them, that a version of a table has.

    :param files: their names and sizes.
    """

    workers = 2

    def __init__(
        self,
        query: Query,
        fragment: Fragment,
        source: HasFiles,
        files: Sequence[tuple[str, float]],
    ) -> None:
        super().__init__(query, fragment)
        (self._table,) = fragment.tables
        self._source = source
        self._files = dict(files)

    def splits(self, split_bytes: float) -> list[SplitRecord]:
        groups = _grouped(self._files.items(), split_bytes)
        return [SplitRecord(n, files=g) for n, g in enumerate(groups)]

    def fits(self, split: SplitRecord) -> bool:
        return bool(split.files)

    def updated(
        self, splits: Sequence[SplitRecord], same: Collection[int], split_bytes: float
    ) -> list[SplitRecord]:
        known = {f for s in splits for f in s.files}
        new = _grouped([(f, s) for f, s in self._files.items() if f not in known], split_bytes)
        again: list[SplitRecord] = []
        for split in splits:
            there = tuple(f for f in split.files if f in self._files)
            if split.number in same and there:
                again.append(split)
            elif there or new:
                again.append(SplitRecord(split.number, files=there or new.popleft()))
            elif split.number in same:
                again.append(split)
            else:
                again.append(SplitRecord(split.number, files=(NO_FILE,)))
        return [*again, *(SplitRecord(n, files=g) for n, g in enumerate(new, len(splits)))]

    def version(self, split: SplitRecord) -> str | None:
        there = sorted(f for f in split.files if f in self._files)
        return hashlib.sha256("\n".join(there).encode()).hexdigest()

    @contextmanager
    def read(self, split: SplitRecord) -> Iterator[Rows]:
        with super().read(split) as rows:
            yield rows
        if isinstance(self._source, ChecksFiles):
            # What was written over while it was read may be of both states.
            self._source.check_files(self._table, split.files)

    def _part(self, split: SplitRecord) -> Fragment:
        return replace(self._fragment, files=split.files)


class ByResult(_OfOneFragment):
    """Parts of the result of one statement, which the source keeps for a while.

    A copy that was interrupted goes on with the same result, and so with the same state.
    """

    is_of_one_run = True

    def __init__(self, query: Query, fragment: Fragment, source: KeepsResults) -> None:
        super().__init__(query, fragment)
        self._source = source
        self._there: dict[str, bool] = {}
        self.workers = query.session.settings.sources[fragment.source].max_connections

    def foreseen(self, split_bytes: float) -> int:
        return 1

    def splits(self, split_bytes: float) -> list[SplitRecord]:
        parts = self._source.parts_of_result(fragment_query(self._fragment))
        self._there |= {_result_of(name): True for name, _ in parts}
        return [SplitRecord(n, files=group) for n, group in enumerate(_grouped(parts, split_bytes))]

    def fits(self, split: SplitRecord) -> bool:
        return bool(split.files)

    def updated(
        self, splits: Sequence[SplitRecord], same: Collection[int], split_bytes: float
    ) -> list[SplitRecord]:
        return [s if s.number in same else SplitRecord(s.number, files=s.files) for s in splits]

    def version(self, split: SplitRecord) -> str | None:
        result = _result_of(split.files[0])
        if result not in self._there:
            self._there[result] = self._source.has_result(split.files[0])
        return " ".join(split.files) if self._there[result] else "gone"

    def _part(self, split: SplitRecord) -> Fragment:
        return replace(self._fragment, files=split.files)


def _result_of(part: str) -> str:
    return part.rpartition("/")[0]


def _grouped(named: Iterable[tuple[str, float]], split_bytes: float) -> deque[tuple[str, ...]]:
    """Names in groups of about so many bytes."""
    groups: list[list[str]] = []
    room = 0.0
    for name, size in named:
        if room <= 0:
            groups.append([])
            room = split_bytes
        groups[-1].append(name)
        room -= size
    return deque(map(tuple, groups))


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


def _changes_row_by_row(plan: Relation) -> bool:
    """Whether a placed plan chooses rows that arrive and computes their values, and no more."""
    return _exchange(plan) is not None


def _reads_row_by_row(plan: Relation) -> bool:
    """Whether a placed plan does nothing but choose rows of one table and compute their values."""
    exchange = _exchange(plan)
    return exchange is not None and is_row_wise(exchange.input)


def _exchange(plan: Relation) -> Exchange | None:
    """What arrives, where all above it is row by row."""
    node = plan
    while isinstance(node, Project | Filter):
        if not all(map(is_stable, node.expressions)):
            return None
        node = node.input
    return node if isinstance(node, Exchange) else None
