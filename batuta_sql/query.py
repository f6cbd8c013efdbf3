"""One query's trip.

parse -> bind -> optimise -> place -> estimate -> authorise -> fetch -> join -> deliver.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
from sqlglot import exp, tokenize
from sqlglot.tokenizer_core import TokenType

from batuta_sql.catalog.catalog import Catalog
from batuta_sql.catalog.names import NamesInReach
from batuta_sql.costing import Costing, QueryCost
from batuta_sql.engines.duckdb import (
    DuckDBEngine,
    PendingResult,
    engine_error,
    quote,
    stream_error,
)
from batuta_sql.errors import (
    DataError,
    Error,
    InterfaceError,
    ProgrammingError,
    QueryCancelled,
)
from batuta_sql.exchange.fetch import Fetch, Misjudged, Prefetch, RunsAway, Stop
from batuta_sql.exchange.gather import Gathering
from batuta_sql.exchange.keys import with_keys
from batuta_sql.exchange.result_cache import Kept, KeptSnapshot, ResultCache
from batuta_sql.frontend.binder import Binder
from batuta_sql.frontend.expressions import Parameters, ParameterValues
from batuta_sql.frontend.parser import PIVOT, Statement
from batuta_sql.guards.history import Status
from batuta_sql.key_permission import permitted_keys
from batuta_sql.labels import TableLabels
from batuta_sql.plan.optimise import optimise
from batuta_sql.plan.placement import (
    ANY_REDUCTION,
    Fragment,
    Placed,
    Reduction,
    TableKey,
    place,
    scan_fragment,
    with_key_filters,
)
from batuta_sql.plan.rates import RatesOf
from batuta_sql.plan.relational import (
    CommonScan,
    Exchange,
    LocalScan,
    Relation,
    Scan,
)
from batuta_sql.plan.rules.key_filters import ALWAYS, Worth
from batuta_sql.plan.site import Capabilities, TableInfo
from batuta_sql.plan.translate import LocalTranslator, WireColumn
from batuta_sql.plan.unparse import Delivery, Unparser
from batuta_sql.prepared import Optimised, Prepared, PreparedPlans, key_of
from batuta_sql.provenance import BoundColumns, Provenance
from batuta_sql.sources.base import Snapshot, Source, Usage

if TYPE_CHECKING:
    import pyarrow.dataset as ds

    from batuta_sql.config import Settings
    from batuta_sql.engines.remote_dataset import Test

PREFETCH_BYTES = 32 << 20
"""How far a streamed fragment runs ahead of its consumer."""

_REDUCTION: Mapping[str, Reduction | None] = {
    "auto": Reduction(),
    "always": ANY_REDUCTION,
    "off": None,
}
_WORTH: Mapping[str, Worth | None] = {"auto": Worth(), "always": ALWAYS, "off": None}

_CLOSE_SECONDS = 5.0

_query_numbers = itertools.count(1)


@dataclass
class Session:
    """What all queries of a Connection share."""

    engine: DuckDBEngine
    catalog: Catalog
    settings: Settings
    costing: Costing
    registered: dict[str, Any] = field(default_factory=dict)
    views: dict[str, exp.Expr] = field(default_factory=dict)
    labels: dict[str, TableLabels] = field(default_factory=dict)
    """The labels of registered frames and local tables, by lower-cased name."""
    rates: RatesOf = field(default_factory=dict)
    """Of the sources that were measured."""
    prepared: PreparedPlans = field(default_factory=PreparedPlans)
    results: ResultCache = field(default_factory=lambda: ResultCache(0, {}))

    @property
    def sources(self) -> Mapping[str, Source]:
        return self.catalog.sources


@dataclass
class FragmentRun:
    """A fragment and what it took; None before the run.

    :param usage: what its source billed.
    :param keys: how many keys were sent with it; None where it was sent as it is.
    :param connections: how many read it at once.
    :param age: seconds since the source was asked, of a result that was kept; None where it was
        asked now.
    """

    fragment: Fragment
    rows: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    usage: Usage | None = None
    keys: int | None = None
    connections: int = 1
    age: float | None = None


class Query:
    """One query: planned when made, run by ``run``, released by ``close``."""

    def __init__(
        self, session: Session, statement: Statement, parameters: ParameterValues | None
    ) -> None:
        self.session = session
        self.statement = statement
        self.parameters = parameters
        self.number = next(_query_numbers)
        self.cursor = session.engine.cursor()
        self.stop = Stop()
        self.cost = QueryCost(session.costing, statement.sql, self.stop)
        self.placed: Placed | None = None
        self.runs: list[FragmentRun] = []
        self.expected: list[Fragment] = []
        """The scans that a fallback will make, before they are made."""
        self.fetches: list[Fetch] = []
        self.planning_seconds = 0.0
        self._snapshots: dict[str, Snapshot] = {}
        self._snapshot_lock = threading.Lock()
        self._prefetches: list[Prefetch] = []
        self._kept: dict[str, Kept] = {}
        """Results of fragments that need not be asked for."""
        self._spilled: list[str] = []
        self._scan_numbers = itertools.count(1)
        self._local_labels = dict(session.labels)
        self._closed = False
        self._cancelled = False
        self._abandoned = False
        self._failed = False
        self._unknown: ProgrammingError | None = None
        self._text = statement.sql
        """What DuckDB runs where the statement has no tree."""
        self._bound: BoundColumns | None = None
        self._optimised: Optimised | None = None
        self._attempt = 0
        self._known: dict[tuple[str, str], float] = {}
        """Rows that statements gave, which nobody would have thought."""
        self.names = NamesInReach(
            session.catalog,
            session.engine,
            self.cursor,
            session.registered,
            session.views,
            self._dataset,
        )
        started = time.perf_counter()
        try:
            self._plan()
        except BaseException:
            self.close()
            raise
        self.planning_seconds = time.perf_counter() - started

    # --- parse, bind, optimise, place ----------------------------------------------------------

    def _plan(self) -> None:
        tree = self.statement.tree
        if tree is None:
            self._text = self._expose_tables_of_text()
            self._expect_scans(list(self.names.tables.values()))
            return
        key = key_of(self.statement.sql, self.parameters)
        known = self.session.prepared.get(key) if key is not None else None
        if known is not None and self.names.still_mean(known.tables):
            self._use(known)
            return
        self.names.prefetch(tree, self.statement.sql)
        parameters = Parameters(self.parameters)
        binder = Binder(self.names, self.statement.sql, parameters)
        # Binding may write in the tree, which is remembered with its text.
        bound = binder.bind(tree.copy())
        parameters.check_all_used()
        outputs = tuple((c.name, c.symbol) for c in bound.columns)
        self._bound = BoundColumns(bound.plan, outputs)
        plan = optimise(
            bound.plan, outputs, binder.symbols.fresh, self.session.engine.evaluate_constants
        )
        self._place(Optimised(plan, outputs))
        assert self.placed is not None
        self._expect_scans([t for f in self.placed.fallbacks for t in f.tables])
        if key is not None and self.names.only_sources and not _reads_here(bound.plan):
            tables = dict(self.names.tables)
            prepared = Prepared(
                self.statement.sql,
                tables,
                self._bound,
                Optimised(plan, outputs),
                self.placed,
                self.provenance,
            )
            self.session.prepared.put(key, prepared)

    def _place(self, optimised: Optimised, runaways: frozenset[TableKey] = frozenset()) -> None:
        """Decides which source runs what.

        :param runaways: tables over which nothing is joined or grouped at their source.
        """
        plan = optimised.plan
        settings = self.session.settings
        placed = place(
            plan,
            optimised.outputs,
            _CapabilitiesOf(self.session.sources),
            tuple(n for n in plan.walk() if isinstance(n, LocalScan) and n.reason),
            _WORTH[settings.semi_joins],
            self.session.rates,
            _REDUCTION[settings.partial_aggregation],
            runaways,
            self._known,
        )
        self._optimised = optimised
        self.placed = permitted_keys(placed, self.provenance, settings)
        self.runs = [FragmentRun(f) for f in self.placed.fragments]

    def _use(self, known: Prepared) -> None:
        """Takes over a plan that was made for the same text."""
        self._bound = known.bound
        self._optimised = known.optimised
        self.placed = known.placed
        self.runs = [FragmentRun(f) for f in known.placed.fragments]
        if known.sql == self.statement.sql:
            # What a refusal quotes, and the audit log keeps, is the user's own text.
            self.provenance = known.provenance

    def _expect_scans(self, tables: Sequence[TableInfo]) -> None:
        """Foresees the scans of a fallback, at the most: DuckDB will ask for fewer columns."""
        distinct = {t.qualified_parts: t for t in tables}
        for number, table in enumerate(distinct.values(), 1):
            columns = tuple((f"c{i}", c) for i, c in enumerate(table.columns))
            capabilities = self.session.sources[table.source].capabilities
            self.expected.append(
                scan_fragment(Scan(table, columns), (), f"scan{number}", capabilities)
            )

    def _expose_tables_of_text(self, sql: str | None = None) -> str:
        """For a text that only DuckDB reads: its tables become readable under their own names.

        Gives the text back, with names of three parts, DuckDB's most, where it had longer ones.
        """
        text = self.statement.sql if sql is None else sql
        long: dict[tuple[str, ...], tuple[str, ...]] = {}
        for parts in sorted(_dotted_names(text)):
            if len(parts) == 1:
                self._expose_bare(parts[0])
            elif self.session.catalog.source(parts[0]) is not None:
                exposed = self._expose_table(parts)
                if exposed is not None and len(parts) > 3:
                    long[parts] = exposed
        return _with_names(text, long)

    def _expose_bare(self, name: str) -> None:
        """A registered frame or a view of the session."""
        lower = name.lower()
        if lower in self.session.registered:
            self.cursor.register(lower, self.session.registered[lower])
        elif lower in self.session.views:
            text = self.session.views[lower].sql("duckdb")
            text = self._expose_tables_of_text(text)
            self.cursor.execute(f"CREATE OR REPLACE TEMP VIEW {quote(lower)} AS {text}")

    def _expose_table(self, parts: tuple[str, ...]) -> tuple[str, str, str] | None:
        try:
            meaning = self.names.lookup(parts)
        except ProgrammingError as error:
            # Not every dotted name is a table; the engine says whether this one had to be.
            self._unknown = self._unknown or error
            return None
        if not isinstance(meaning, TableInfo):
            return None
        exposed = self.names.expose(meaning)
        schema = parts[1] if len(parts) == 3 else "main"
        if len(parts) <= 3 and exposed[1].lower() != schema.lower():
            self._shorthand(parts[0], schema, parts[-1], exposed)
        return exposed

    def _shorthand(
        self, source: str, schema: str, table: str, exposed: tuple[str, str, str]
    ) -> None:
        """A shorter name of a table inside DuckDB, as the user wrote it."""
        target = ".".join(quote(p) for p in exposed)
        self.cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(source)}.{quote(schema)}")
        self.cursor.execute(
            f"CREATE OR REPLACE VIEW {quote(source)}.{quote(schema)}.{quote(table)}"
            f" AS SELECT * FROM {target}"
        )

    @cached_property
    def provenance(self) -> Provenance:
        """Lineage and labels."""
        return Provenance(
            self.names.tables.values(),
            self._local_labels,
            self._bound,
            self.statement.sql,
            self.session.settings,
        )

    # --- the fallback scan ---------------------------------------------------------------------

    def _dataset(self, table: TableInfo) -> ds.Dataset:
        from batuta_sql.engines.remote_dataset import RemoteDataset

        schema = self._arrow_schema(table)
        return RemoteDataset(
            schema, lambda columns, tests: self._scan(table, schema, columns, tests)
        )

    def _arrow_schema(self, table: TableInfo) -> pa.Schema:
        columns = ", ".join(f"CAST(NULL AS {c.type}) AS {quote(c.name)}" for c in table.columns)
        with self.session.engine.lossless_cursor() as cursor:
            return cursor.sql(f"SELECT {columns} LIMIT 0").to_arrow_table().schema

    def _scan(
        self, table: TableInfo, schema: pa.Schema, columns: Sequence[str], tests: Sequence[Test]
    ) -> pa.RecordBatchReader:
        """Runs a scan of a table's columns now; called by DuckDB once for each use."""
        by_name = {c.name: c for c in table.columns}
        chosen = tuple((f"c{i}", by_name[n]) for i, n in enumerate(columns))
        capabilities = self.session.sources[table.source].capabilities
        name = f"s{next(self._scan_numbers)}"
        fragment = scan_fragment(Scan(table, chosen), tests, name, capabilities)
        try:
            if self.session.results.get(fragment) is None:
                self.cost.authorise_scan(fragment)
        except Error as refusal:
            # DuckDB, which calls this, would reword it.
            self.stop.set(refusal)
            raise
        run = FragmentRun(fragment)
        self.runs.append(run)
        fetch = self._fetch(fragment)
        prefetch = Prefetch(fetch, PREFETCH_BYTES)
        self._prefetches.append(prefetch)
        stream = prefetch.reader()
        inner = self.session.engine.lossless_cursor()
        inner.register("arrived", stream)
        decode = _decoders(fragment.columns)
        restored = ", ".join(
            f"{decode.get(s, '{}').replace('{}', quote(s))} AS {quote(c.name)}" for s, c in chosen
        )
        wanted = pa.schema([schema.field(n) for n in columns])
        reader = inner.sql(f"SELECT {restored} FROM arrived").to_arrow_reader(100_000)
        return pa.RecordBatchReader.from_batches(
            wanted, (b.cast(wanted) if b.schema != wanted else b for b in reader)
        )

    # --- authorise -----------------------------------------------------------------------------

    def _authorise(self) -> None:
        """Nothing that bills or leaks has been sent before this.

        :raises LabelRefused: where labels meet that must not.
        :raises CostRefused: where the query costs more than is allowed.
        """
        self.provenance.authorise()
        for run in self.runs:
            waits = self.placed is not None and run.fragment.name in self.placed.keyed
            kept = None if waits else self.session.results.get(run.fragment)
            if kept is not None:
                self._kept[run.fragment.name] = kept
        asked = [r.fragment for r in self.runs if r.fragment.name not in self._kept]
        self.cost.authorise(asked, self.expected)

    # --- fetch, join, deliver ------------------------------------------------------------------

    def run(self) -> PendingResult:
        """Starts the fragments and gives the residual's result, still to be read.

        :raises Error: what a source said, or what is wrong with the residual.
        """
        if self._closed:
            raise InterfaceError("the query is closed")
        try:
            self._authorise()
            if self.placed is None:
                return PendingResult(
                    self.cursor,
                    self._text,
                    self.parameters,
                    several=self.statement.reason == PIVOT,
                )
            return PendingResult(self.cursor, self.residual_sql(self._delivered()))
        except BaseException as error:
            raise self.failure(error) from None

    def run_into(self, words: str) -> None:
        """Runs the query as the rest of a statement: ``CREATE TABLE name AS``."""
        try:
            self._authorise()
            if self.placed is None:
                text, values = self._text, self.parameters
            else:
                text, values = self.residual_sql(self._delivered()), None
            self.cursor.execute(f"{words} {text}", values or None)
        except BaseException as error:
            raise self.failure(error) from None

    def residual_sql(self, deliveries: Mapping[str, Delivery] | None = None) -> str:
        """The statement that the residual engine runs."""
        assert self.placed is not None
        if deliveries is None:
            deliveries = {
                f.name: Delivery((f.name,), _decoders(f.columns)) for f in self.placed.fragments
            }
        unparser = Unparser(LocalTranslator(), deliveries=deliveries)
        return unparser.statement(self.placed.plan, self.placed.outputs).sql("duckdb")

    def _delivered(self) -> dict[str, Delivery]:
        """The results of the fragments; of others, where one of them runs away."""
        assert self.placed is not None
        try:
            return self._fetch_fragments(self.placed)
        except RunsAway as runaway:
            tables = frozenset(t.qualified_parts for t in runaway.fragment.tables)
            self._begin_again(tables)
        except Misjudged:
            self._begin_again()
        return self._fetch_fragments(self.placed)

    def _look_again(
        self,
        placed: Placed,
        arrived: Fragment,
        deliveries: Mapping[str, Delivery],
        waiting: Sequence[Fragment],
    ) -> Placed:
        """The plan by the true numbers, where a fragment had far more or fewer rows than thought.

        :raises Misjudged: where that is worth sending other statements for what runs already.
        """
        rows = {f.fragment.name: f.metrics.rows for f in self.fetches}
        if self._attempt or arrived.name in placed.keyed or not _far_off(arrived, rows):
            return placed
        known = {n: float(rows[n]) for n in deliveries if n not in placed.keyed}
        settings = self.session.settings
        better = with_key_filters(
            placed,
            _CapabilitiesOf(self.session.sources),
            _WORTH[settings.semi_joins],
            known,
            frozenset(deliveries),
        )
        better = permitted_keys(better, self.provenance, settings)
        running = [f for f in placed.fragments if f not in waiting and f.name not in deliveries]
        if (
            any(_is_better(better, f, rows.get(f.name, 0)) for f in running)
            and self._may_begin_again
        ):
            by_name = {f.name: f for f in placed.fragments}
            self._known = {(by_name[n].source, by_name[n].sql): r for n, r in known.items()}
            raise Misjudged
        names = {f.name for f in waiting}
        kept = {n: k for n, k in placed.keyed.items() if n not in names}
        self.placed = replace(
            better, keyed=kept | {n: k for n, k in better.keyed.items() if n in names}
        )
        return self.placed

    @property
    def _may_begin_again(self) -> bool:
        """Once at the most, and never where what is asked again would be billed again."""
        sources = {r.fragment.source for r in self.runs}
        charging = any(self.session.settings.sources[s].charges for s in sources)
        return not self._attempt and not charging and self._optimised is not None

    def _begin_again(self, runaways: frozenset[TableKey] = frozenset()) -> None:
        """Places the query anew, by what is known now.

        All of it: what has arrived is of a state of its source that is gone with its snapshot.

        :param runaways: tables over which nothing is joined or grouped at their source.
        """
        assert self._optimised is not None
        self.stop.set(QueryCancelled("placed another way"))
        self._release()
        stop = Stop()
        self.stop = stop
        if self._cancelled:
            stop.set(None)
            raise QueryCancelled("the query was cancelled")
        self._snapshots, self._prefetches, self._kept = {}, [], {}
        self.fetches = []
        self._attempt += 1
        self._place(self._optimised, runaways)

    def _release(self) -> None:
        """Ends what still runs at the sources."""
        for snapshot in self._snapshots.values():
            snapshot.cancel()
        for prefetch in self._prefetches:
            prefetch.abandon()
        for snapshot in self._snapshots.values():
            snapshot.close()
        for prefetch in self._prefetches:
            prefetch.join(_CLOSE_SECONDS)

    def _fetch_fragments(self, placed: Placed) -> dict[str, Delivery]:
        if len(placed.fragments) == 1 and _read_once(placed.plan):
            return self._streamed(placed)
        limit = max(8 << 20, min(128 << 20, self.session.engine.memory_limit_bytes() // 16))
        gathering = Gathering(self.stop, self._spill, limit)
        deliveries: dict[str, Delivery] = {}
        waiting = list(placed.fragments)
        while True:
            for fragment in [f for f in waiting if _is_ready(placed, f, deliveries)]:
                waiting.remove(fragment)
                gathering.start(self._fetch(fragment, deliveries))
            if not gathering.running:
                return deliveries
            gathered = gathering.next()
            name = gathered.fragment.name
            if gathered.table is not None:
                self.cursor.register(name, gathered.table)
            table = name if gathered.table is not None else self._spill_name(name)
            deliveries[name] = Delivery((table,), _decoders(gathered.fragment.columns))
            placed = self._look_again(placed, gathered.fragment, deliveries, waiting)

    def _streamed(self, placed: Placed) -> dict[str, Delivery]:
        """One fragment that the residual reads once, while it arrives."""
        (fragment,) = placed.fragments
        prefetch = Prefetch(self._fetch(fragment, {}), PREFETCH_BYTES)
        self._prefetches.append(prefetch)
        self.cursor.register(fragment.name, prefetch.reader())
        return {fragment.name: Delivery((fragment.name,), _decoders(fragment.columns))}

    def _fetch(self, fragment: Fragment, deliveries: Mapping[str, Delivery] | None = None) -> Fetch:
        """A fragment to be run, with the keys that it has waited for.

        :param deliveries: what has arrived; None for a scan of the fallback.
        """
        timeout = self.session.sources[fragment.source].query_timeout
        most = self.cost.authorised_bytes(fragment)
        keyed = None
        if self.placed is not None and deliveries is not None:
            keyed = self.placed.keyed.get(fragment.name)
        asked, count = fragment, None
        if keyed is not None and deliveries is not None:
            translator = self.session.sources[fragment.source].capabilities.translator
            reduced = with_keys(fragment, keyed, deliveries, self.cursor, translator)
            if reduced is not None:
                fragment, count = reduced
        kept = self._kept.get(fragment.name) or self.session.results.get(fragment)
        if kept is not None:
            fetch = Fetch(fragment, KeptSnapshot(kept), self.stop)
            fetch.metrics.age = kept.age
        else:
            degree = self._degree(fragment)
            snapshot = self.session.results.keeping(fragment, self._snapshot(fragment.source))
            patience = self._patience(asked)
            fetch = Fetch(fragment, snapshot, self.stop, timeout, most, degree, patience)
            self.cost.ask_beside(asked, fetch.sent)
        fetch.metrics.keys = count
        self.fetches.append(fetch)
        return fetch

    def _patience(self, fragment: Fragment) -> float | None:
        """After how many seconds a fragment is given up; None: never."""
        least = self.session.settings.runaway_seconds
        if not least or fragment.patience is None or not self._may_begin_again:
            return None
        return max(least, fragment.patience)

    def _degree(self, fragment: Fragment) -> int:
        """How many connections may read a fragment at once."""
        mine = len(self._asked_of(fragment.source))
        settings = self.session.settings
        cores = settings.threads or os.cpu_count() or 1
        return min(settings.sources[fragment.source].max_connections // max(mine, 1), cores)

    def _asked_of(self, source: str) -> list[Fragment]:
        """The fragments that a source will run."""
        mine = [r.fragment for r in self.runs if r.fragment.source == source]
        return [f for f in mine if f.name not in self._kept]

    def _snapshot(self, source: str) -> Snapshot:
        with self._snapshot_lock:
            found = self._snapshots.get(source)
            if found is None:
                mine = self._asked_of(source)
                scans = self.placed is None or bool(self.placed.fallbacks)
                # The fallback scans when and as often as DuckDB asks.
                parts = [len(f.parts(self._degree(f))) or 1 for f in mine]
                readers = None if scans else max(sum(parts), 1)
                found = self.session.sources[source].open(readers)
                self._snapshots[source] = found
            return found

    def _spill_name(self, name: str) -> str:
        return f"spill:{self.number}.{self._attempt}:{name}"

    def _spill(self, name: str, reader: pa.RecordBatchReader) -> None:
        table = self._spill_name(name)
        self._spilled.append(table)
        with self.session.engine.cursor() as cursor:
            cursor.register("arrived", reader)
            cursor.execute(f"CREATE TABLE {quote(table)} AS SELECT * FROM arrived")

    # --- the end -------------------------------------------------------------------------------

    def failure(self, error: BaseException) -> BaseException:
        """``error`` as the user should see it: a source's own words before the engine's."""
        self._failed = True
        if not isinstance(error, Exception):
            self.cancel()
            return error
        if isinstance(error, RuntimeError) and str(error) == "Query interrupted":
            # What DuckDB makes of Ctrl-C.
            self.cancel()
            return KeyboardInterrupt()
        if self._cancelled:
            return QueryCancelled("the query was cancelled")
        if self.stop:
            # The first error; what came after it is what ending the other statements gave.
            error = self.stop.error or QueryCancelled("the query was cancelled")
        if isinstance(error, Error):
            return error
        for fetch in self.fetches:
            if fetch.error is not None and not isinstance(fetch.error, QueryCancelled):
                return fetch.error
        if isinstance(error, duckdb.CatalogException) and self._unknown is not None:
            return self._unknown
        if not isinstance(error, duckdb.Error | pa.ArrowException | OSError):
            return error
        return self._misfit(str(error)) or engine_error(stream_error(error))

    def _misfit(self, message: str) -> DataError | None:
        """A value that did not fit its column's declared type, found while it was restored."""
        told = re.search(r'(column "(.*?)" is declared .* but holds .*)', message)
        if told is None:
            return None
        for run in self.runs:
            for _, wire in run.fragment.columns:
                if wire.decode is not None and f'column "{told[2]}" is declared' in wire.decode:
                    return DataError(told[1], source=run.fragment.source)
        return None

    def record_metrics(self) -> None:
        """Copies what the fetches measured into the fragments' runs."""
        by_name = {f.fragment.name: f for f in self.fetches}
        for run in self.runs:
            fetch = by_name.get(run.fragment.name)
            if fetch is not None:
                run.rows, run.bytes = fetch.metrics.rows, fetch.metrics.bytes
                run.seconds, run.usage = fetch.metrics.seconds, fetch.metrics.usage
                run.keys, run.connections = fetch.metrics.keys, fetch.metrics.connections
                run.age = fetch.metrics.age

    def cancel(self) -> None:
        """Ends the query from any thread: remote statements first."""
        self._cancelled = True
        self.stop.set(None)
        for snapshot in list(self._snapshots.values()):
            snapshot.cancel()
        with contextlib.suppress(duckdb.Error):
            # The query may have ended, and its cursor with it, in the meantime.
            self.cursor.interrupt()

    def abandon(self) -> None:
        """Ends the query because nobody wants the rest of its rows."""
        self._abandoned = not self._cancelled
        self.cancel()

    def close(self) -> None:
        """Ends what still runs and releases everything; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self.record_metrics()
        for prefetch in self._prefetches:
            prefetch.abandon()
        for snapshot in self._snapshots.values():
            snapshot.close()
        for prefetch in self._prefetches:
            prefetch.join(_CLOSE_SECONDS)
        self.record_metrics()
        self._write_down()
        self._when_free(self._drop_spilled)

    def _write_down(self) -> None:
        """For the history: what the fragments took, and how the query ended."""
        if not self.runs:
            return
        status: Status = "finished"
        if self._abandoned:
            status = "partial"
        elif self._cancelled:
            status = "cancelled"
        elif self._failed:
            status = "failed"
        by_name = {f.fragment.name: f.metrics for f in self.fetches}
        # What was kept was asked, and is written down, before.
        asked = [r.fragment for r in self.runs if r.age is None]
        took = [(f, by_name.get(f.name)) for f in asked]
        self.cost.finish(took, status)

    def _drop_spilled(self) -> None:
        for table in self._spilled:
            self.cursor.execute(f"DROP TABLE IF EXISTS {quote(table)}")
        self.cursor.close()

    def _when_free(self, action: Callable[[], None]) -> None:
        """Runs ``action`` on the cursor, which another thread may still be fetching from."""
        deadline = time.monotonic() + _CLOSE_SECONDS
        while True:
            try:
                action()
                return
            except duckdb.ResourceInUseException:
                if time.monotonic() > deadline:
                    return
                self.cursor.interrupt()
                time.sleep(0.02)


class _CapabilitiesOf(Mapping[str, Capabilities]):
    """The capabilities of sources, made when they are first asked for."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources

    def __getitem__(self, name: str) -> Capabilities:
        return self._sources[name].capabilities

    def __iter__(self) -> Any:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


def _decoders(columns: Sequence[tuple[str, WireColumn]]) -> dict[str, str]:
    """The expressions that restore columns, where they need one."""
    found: dict[str, str] = {}
    for symbol, wire in columns:
        if wire.decode is not None:
            found[symbol] = wire.decode
        elif wire.type is not None and wire.arrow is None:
            found[symbol] = f"CAST({{}} AS {wire.type})"
    return found


def _is_ready(placed: Placed, fragment: Fragment, arrived: Mapping[str, Delivery]) -> bool:
    """Whether all keys that a fragment waits for can be known."""
    keyed = placed.keyed.get(fragment.name)
    return keyed is None or all(f.exchanges <= arrived.keys() for f in keyed.filters)


_FAR_OFF = 10.0
_WORTH_BEGINNING_AGAIN = 200_000
"""Rows that need not be moved then; fewer arrive sooner than another statement is sent."""


def _far_off(fragment: Fragment, rows: Mapping[str, int]) -> bool:
    """Whether a fragment had far more or far fewer rows than it was thought to have."""
    if fragment.rows is None:
        return False
    low, high = sorted((max(fragment.rows, 1.0), max(float(rows[fragment.name]), 1.0)))
    return high / low >= _FAR_OFF


def _is_better(better: Placed, running: Fragment, so_far: int) -> bool:
    """Whether a fragment that runs would have far fewer rows left if it were sent with keys."""
    keyed = better.keyed.get(running.name)
    if keyed is None or running.rows is None:
        return False
    left = running.rows - so_far
    return left - keyed.rows >= _WORTH_BEGINNING_AGAIN and keyed.rows <= left / _FAR_OFF


def _reads_here(plan: Relation) -> bool:
    """Whether a bound plan reads more than its sources: what may be another thing next time."""
    scans = [n for n in plan.walk() if isinstance(n, LocalScan)]
    return any(not isinstance(s.relation.this, exp.Values) for s in scans)


def _read_once(plan: Relation) -> bool:
    """Whether the one Exchange of ``plan`` is scanned exactly once, so that it may be a stream."""
    from batuta_sql.plan.relational import Apply, With

    return not any(isinstance(n, Apply | With | CommonScan) for n in plan.walk()) and (
        sum(isinstance(n, Exchange) for n in plan.walk()) == 1
    )


def _dotted_names(sql: str) -> set[tuple[str, ...]]:
    """Every name in a text, dotted or not: a superset of its tables."""
    found: set[tuple[str, ...]] = set()
    name: list[str] = []
    after_dot = False

    def end() -> None:
        found.update(tuple(name[:n]) for n in range(1, min(len(name), 4) + 1))
        name.clear()

    for token in tokenize(sql, read="duckdb"):
        if token.token_type == TokenType.DOT:
            after_dot = bool(name)
            continue
        if not after_dot:
            end()
        if token.token_type != TokenType.STRING and (
            token.token_type == TokenType.IDENTIFIER or token.text.isidentifier()
        ):
            name.append(token.text)
        else:
            end()
        after_dot = False
    end()
    return found


def _with_names(sql: str, names: Mapping[tuple[str, ...], tuple[str, ...]]) -> str:
    """``sql`` with each dotted name that is in ``names`` replaced."""
    if not names:
        return sql
    tokens = tokenize(sql, read="duckdb")
    pieces: list[str] = []
    done = at = 0
    while at < len(tokens):
        # A name of n parts is 2n - 1 tokens.
        for parts, exposed in names.items():
            run = tokens[at : at + 2 * len(parts) - 1]
            dots = all(t.token_type == TokenType.DOT for t in run[1::2])
            if dots and tuple(t.text for t in run[::2]) == parts:
                pieces += [sql[done : run[0].start], ".".join(quote(p) for p in exposed)]
                done, at = run[-1].end + 1, at + len(run) - 1
                break
        at += 1
    return "".join([*pieces, sql[done:]])
