"""One query's trip.

parse -> bind -> optimise -> place -> estimate -> authorise -> fetch -> join -> deliver.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
from sqlglot import exp

from batuta_sql.catalog.names import NamesInReach
from batuta_sql.costing import QueryCost
from batuta_sql.engines.base import Foreseen, Left
from batuta_sql.engines.duckdb import (
    PendingResult,
    changed_rows,
    engine_error,
    quote,
    stream_error,
    when_free,
)
from batuta_sql.errors import (
    DataError,
    Error,
    InterfaceError,
    ProgrammingError,
    QueryCancelled,
)
from batuta_sql.exchange.fetch import Misjudged, RunsAway, Stop
from batuta_sql.exchange.wire import decoders, planned_decoders, restoring
from batuta_sql.execution import Execution, FragmentRun
from batuta_sql.frontend.binder import Binder
from batuta_sql.frontend.dotted_names import dotted_names, with_names
from batuta_sql.frontend.expressions import Parameters, ParameterValues
from batuta_sql.frontend.parser import PIVOT, Statement
from batuta_sql.guards.history import Status
from batuta_sql.key_permission import permitted_keys
from batuta_sql.labels import NO_LABELS, Labels
from batuta_sql.plan.fragments import Fragment, scan_fragment
from batuta_sql.plan.optimise import optimise
from batuta_sql.plan.placement import KnownRows, Placed, TableKey, place
from batuta_sql.plan.relational import (
    LocalScan,
    Relation,
    Scan,
)
from batuta_sql.plan.site import TableInfo
from batuta_sql.plan.translate import LocalTranslator
from batuta_sql.plan.unparse import Delivery, Unparser
from batuta_sql.prepared import Optimised, Prepared, key_of
from batuta_sql.provenance import BoundColumns, Provenance
from batuta_sql.session import Session
from batuta_sql.watching import Destination, Ending, Written

if TYPE_CHECKING:
    import pyarrow.dataset as ds

    from batuta_sql.engines.base import ResidualRun
    from batuta_sql.engines.remote_dataset import Test


_query_numbers = itertools.count(1)


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
        self.watch = session.watchers.watch(statement.sql)
        self.cost = QueryCost(session.costing, statement.sql, self.stop)
        self.execution = self._execution(None, str(self.number))
        self.residual_run: ResidualRun | None = None
        """The residual on its engine; None before anything is fetched."""
        self.expected: list[Fragment] = []
        """The scans that a fallback will make, before they are made."""
        self.planning_seconds = 0.0
        self.into: Destination | None = None
        """Where the rows will lie, if that is known."""
        self.written = Written()
        self.columns: tuple[tuple[str, str], ...] = ()
        """Names and DuckDB types of the result's columns, once they are known."""
        self._scan_numbers = itertools.count(1)
        self._local_labels = dict(session.labels)
        self._closed = False
        self._cancelled = False
        self._abandoned = False
        self._error: BaseException | None = None
        self._begun = False
        self._authorised = False
        self._foreseen: Foreseen | None = None
        self._engine_usd: float | None = None
        """What another engine may cost."""
        self._unknown: ProgrammingError | None = None
        self._text = statement.sql
        """What DuckDB runs where the statement has no tree."""
        self._bound: BoundColumns | None = None
        self._optimised: Optimised | None = None
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
        except BaseException as error:
            self._error = error
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
        with self.watch.step("bind"):
            self.names.prefetch(tree, self.statement.sql)
            parameters = Parameters(self.parameters)
            binder = Binder(self.names, self.statement.sql, parameters)
            # Binding may write in the tree, which is remembered with its text.
            bound = binder.bind(tree.copy())
            parameters.check_all_used()
        outputs = tuple((c.name, c.symbol) for c in bound.columns)
        self._bound = BoundColumns(bound.plan, outputs)
        with self.watch.step("optimise"):
            plan = optimise(
                bound.plan, outputs, binder.symbols.fresh, self.session.engine.evaluate_constants
            )
        self._optimised = Optimised(plan, outputs)
        with self.watch.step("place"):
            placed = self._placed(self._optimised)
        self.execution = self._execution(placed, str(self.number))
        self._expect_scans([t for f in placed.fallbacks for t in f.tables])
        if key is not None and self.names.only_sources and not _reads_here(bound.plan):
            tables = dict(self.names.tables)
            prepared = Prepared(tables, self._bound, self._optimised, placed)
            self.session.prepared.put(key, prepared)

    def _placed(
        self,
        optimised: Optimised,
        runaways: frozenset[TableKey] = frozenset(),
        known: KnownRows | None = None,
    ) -> Placed:
        """Which source runs what.

        :param runaways: tables over which nothing is joined or grouped at their source.
        :param known: rows that statements are known to give.
        """
        plan, session = optimised.plan, self.session
        placed = place(
            plan,
            optimised.outputs,
            session.capabilities,
            tuple(n for n in plan.walk() if isinstance(n, LocalScan) and n.reason),
            session.worth,
            session.rates,
            session.reduction,
            runaways,
            known,
        )
        return self._permitted(placed)

    def _permitted(self, placed: Placed) -> Placed:
        return permitted_keys(placed, self.provenance, self.session.settings)

    def _execution(self, placed: Placed | None, name: str, *, last: bool = False) -> Execution:
        return Execution(
            self.session,
            placed,
            self.cursor,
            self.cost,
            self.stop,
            self._permitted,
            name,
            last=last,
            watch=self.watch,
        )

    def _use(self, known: Prepared) -> None:
        """Takes over a plan that was made for the same text."""
        self._bound = known.bound
        self._optimised = known.optimised
        self.execution = self._execution(known.placed, str(self.number))

    @property
    def placed(self) -> Placed | None:
        """The placed plan; None where the whole text runs here as it is."""
        return self.execution.placed

    @property
    def executions(self) -> list[Execution]:
        """What fetches now: from the sources, and from another engine."""
        second = self.residual_run.execution if self.residual_run is not None else None
        return [self.execution] if second is None else [self.execution, second]

    @property
    def runs(self) -> list[FragmentRun]:
        """The fragments, the scans of a fallback included, and what they took."""
        return self.execution.runs

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
        for parts in sorted(dotted_names(text)):
            if len(parts) == 1:
                self._expose_bare(parts[0])
            elif self.session.catalog.source(parts[0]) is not None:
                exposed = self._expose_table(parts)
                if exposed is not None and len(parts) > 3:
                    long[parts] = exposed
        return with_names(text, long)

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

    def result_columns(self) -> list[tuple[str, str]]:
        """Names and DuckDB types of the result's columns, without running a fragment."""
        if self.placed is None:
            # DuckDB reads the tables of a PIVOT to tell its columns.
            self.provenance.authorise()
            text = f"DESCRIBE {self.statement.sql}"
            rows = self.cursor.execute(text, self.parameters or None).fetchall()
            return [(r[0], r[1]) for r in rows]
        tables: list[TableInfo] = list(self.names.tables.values())
        for table in tables:
            self.names.expose(table)
        tree = self.statement.tree
        assert tree is not None
        bound = Parameters(self.parameters).put_into(tree.copy())
        scan, _ = self.names.fallback(bound, self.statement.sql)
        rows = self.cursor.execute(f"DESCRIBE {scan.relation.this.sql('duckdb')}").fetchall()
        # The names are those of the text as it was written, with its parameters.
        names = [name for name, _ in self.placed.outputs]
        return [(n, r[1]) for n, r in zip(names, rows, strict=True)]

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
        stream = self.execution.prefetch(self.execution.fetch(fragment)).reader()
        inner = self.session.engine.lossless_cursor()
        inner.register("arrived", stream)
        decode = decoders(stream.schema, fragment.columns)
        restored = restoring(decode, ((s, c.name) for s, c in chosen))
        wanted = pa.schema([schema.field(n) for n in columns])
        reader = inner.sql(f"SELECT {restored} FROM arrived").to_arrow_reader(100_000)
        return pa.RecordBatchReader.from_batches(
            wanted, (b.cast(wanted) if b.schema != wanted else b for b in reader)
        )

    # --- authorise -----------------------------------------------------------------------------

    def authorise(self, into: Path | None = None) -> None:
        """Nothing that bills or leaks has been sent before this; what was permitted stays so.

        :param into: where the result will lie, if that is known.
        :raises LabelRefused: where labels meet that must not.
        :raises CostRefused: where the query costs more than is allowed.
        """
        if self._authorised:
            return
        with self.watch.step("authorise"):
            self.provenance.authorise(into)
            price = self.foreseen.estimate
            besides = [price] if price is not None else []
            self.cost.authorise(self.execution.to_be_asked(), self.expected, besides)
            self._engine_usd = price.usd if price is not None else None
        self._authorised = True

    def begin(self) -> None:
        """Tells those who listen that statements are sent next; once."""
        if not self._begun:
            self._begun = True
            self.watch.sent(self)

    # --- fetch, join, deliver ------------------------------------------------------------------

    def run(self) -> PendingResult:
        """Starts the fragments and gives the residual's result, still to be read.

        :raises Error: what a source said, or what is wrong with the residual.
        """
        if self._closed:
            raise InterfaceError("the query is closed")
        try:
            self.authorise()
            self.begin()
            with self.watch.step("run"):
                result = self._result()
        except BaseException as error:
            raise self.failure(error) from None
        self.columns = tuple(zip(result.columns, result.types, strict=True))
        self.watch.delivers()
        return result

    def _result(self) -> PendingResult:
        if self.placed is not None:
            return PendingResult(self.cursor, self._residual())
        several = self.statement.reason == PIVOT
        return PendingResult(self.cursor, self._text, self.parameters, several=several)

    def run_into(self, words: str) -> int:
        """Runs the query as the rest of a statement: ``CREATE TABLE name AS``.

        :returns: how many rows it has changed; -1 where that is not said.
        """
        try:
            self.authorise()
            self.begin()
            with self.watch.step("run"):
                if self.placed is None:
                    text, values = self._text, self.parameters
                else:
                    text, values = self._residual(), None
                self.cursor.execute(f"{words} {text}", values or None)
                changed = changed_rows(self.cursor)
        except BaseException as error:
            raise self.failure(error) from None
        self.written = Written(changed if changed >= 0 else None)
        return changed

    def residual_sql(self, deliveries: Mapping[str, Delivery] | None = None) -> str:
        """The statement that the residual engine of this process runs.

        :param deliveries: what has arrived; None: under the fragments' names.
        """
        assert self.placed is not None
        if deliveries is None:
            deliveries = {
                f.name: Delivery((f.name,), planned_decoders(f.columns))
                for f in self.placed.fragments
            }
        return _statement(self.placed, deliveries)

    def _residual(self) -> str:
        """The statement that runs here, over what has arrived."""
        deliveries = self._delivered()
        assert self.residual_run is not None
        taken = self.execution.taken()
        left = self.residual_run.run(self._placed_now(), deliveries, taken, self._labels_of_all)
        if left is None:
            # What the engine was to read by itself.
            self.execution.stage_early = None
            deliveries = self.execution.deliver(arrived=deliveries)
            left = Left(self._placed_now(), deliveries)
        return _statement(left.placed, left.deliveries)

    def _placed_now(self) -> Placed:
        """The plan that was carried out; keys may have been chosen anew meanwhile."""
        assert self.placed is not None
        return self.placed

    @property
    def foreseen(self) -> Foreseen:
        """What is known of the engine that will run the residual, before anything is fetched."""
        if self._foreseen is None:
            engine, placed = self.session.residuals, self.placed
            self._foreseen = (
                engine.foresee(placed, self._labels_of_all)
                if placed is not None and placed.fragments
                else Foreseen()
            )
        return self._foreseen

    def _labels_of_all(self) -> Labels:
        """The labels of whatever the query reads."""
        assert self._bound is not None
        if not self.provenance.is_labelled:
            return NO_LABELS
        return self.provenance.labels_of_relation(self._bound.plan)

    def _delivered(self) -> dict[str, Delivery]:
        """The results of the fragments; of others, where the plan turns out misjudged."""
        try:
            return self._deliver()
        except RunsAway as runaway:
            self._begin_again(frozenset(t.qualified_parts for t in runaway.fragment.tables))
        except Misjudged:
            self._begin_again()
        return self._deliver()

    def _deliver(self) -> dict[str, Delivery]:
        engine, foreseen = self.session.residuals, self.foreseen
        self.residual_run = engine.residual(self.cursor, self.stop, self._text, foreseen)
        if foreseen.is_likely:
            self.execution.stage_early = self.residual_run.stage_early
        return self.execution.deliver(frozenset(foreseen.in_place))

    def _begin_again(self, runaways: frozenset[TableKey] = frozenset()) -> None:
        """Places the query anew, by what is known now.

        All of it: what has arrived is of a state of its source that is gone with its snapshot.

        :param runaways: tables over which nothing is joined or grouped at their source.
        """
        assert self._optimised is not None
        if self.residual_run is not None:
            self.residual_run.release()
        known = self.execution.known
        self.execution.cancel()
        self.execution.release()
        self.execution.drop_spilled()
        self.stop = Stop()
        if self._cancelled:
            self.stop.set(None)
            raise QueryCancelled("the query was cancelled")
        self.cost.begin_again()
        placed = self._placed(self._optimised, runaways, known)
        self.execution = self._execution(placed, f"{self.number} again", last=True)
        self._foreseen = None
        again = self.foreseen.estimate
        if again is not None and (again.usd or 0.0) > (self._engine_usd or 0.0):
            # Nobody was asked for that.
            self._foreseen = Foreseen(why="it would cost more than was asked for")

    # --- the end -------------------------------------------------------------------------------

    def failure(self, error: BaseException) -> BaseException:
        """``error`` as the user should see it: a source's own words before the engine's."""
        told = self._told(error)
        self._error = self._error or told
        return told

    def _told(self, error: BaseException) -> BaseException:
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
        for fetch in [f for e in self.executions for f in e.fetches]:
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

    def fail(self, error: BaseException) -> None:
        """Tells of a failure that ended what the query was for."""
        self._error = self._error or error

    def record_metrics(self) -> None:
        """Copies what the fetches measured into the fragments' runs."""
        for execution in self.executions:
            execution.record_metrics()

    def cancel(self) -> None:
        """Ends the query from any thread: remote statements first."""
        self._cancelled = True
        self.stop.set(None)
        self.execution.cancel()
        if self.residual_run is not None:
            self.residual_run.cancel()
        with contextlib.suppress(duckdb.Error):
            # The query may have ended, and its cursor with it, in the meantime.
            self.cursor.interrupt()

    def abandon(self) -> None:
        """Ends the query because nobody wants the rest of its rows."""
        self._abandoned = not self._cancelled
        self.cancel()

    @property
    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Ends what still runs and releases everything; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self.record_metrics()
        self.execution.release()
        if self.residual_run is not None:
            self.residual_run.release()
        self.record_metrics()
        ending = self._ending()
        self._write_down(ending)
        self.watch.ended(self, ending, self._error)
        when_free(self.cursor, self._drop_spilled)

    def _ending(self) -> Ending:
        if self._abandoned:
            return "partial"
        error = self._error
        if isinstance(error, Exception) and not isinstance(error, QueryCancelled):
            # A copy that fails cancels what still runs of it.
            return "failed"
        if self._cancelled:
            return "cancelled"
        if error is not None:
            return "failed"
        return "finished" if self._begun else "planned"

    def _write_down(self, ending: Ending) -> None:
        """For the history: what the fragments took, another engine, and how the query ended."""
        if not self.runs:
            return
        status: Status = "finished" if ending == "planned" else ending
        by_name = self.execution.taken()
        # What was kept was asked, and is written down, before.
        skipped = self.execution.not_fetched
        asked = [r.fragment for r in self.runs if r.age is None and r.fragment.name not in skipped]
        took = [(f, by_name.get(f.name)) for f in asked]
        engine = self.residual_run.taken() if self.residual_run is not None else None
        self.cost.finish(took, status, engine)

    def _drop_spilled(self) -> None:
        self.execution.drop_spilled()
        if self.residual_run is not None:
            self.residual_run.drop_spilled()
        self.cursor.close()


def _statement(placed: Placed, deliveries: Mapping[str, Delivery]) -> str:
    unparser = Unparser(LocalTranslator(), deliveries=deliveries)
    return unparser.statement(placed.plan, placed.outputs).sql("duckdb", copy=False)


def _reads_here(plan: Relation) -> bool:
    """Whether a bound plan reads more than its sources: what may be another thing next time."""
    scans = [n for n in plan.walk() if isinstance(n, LocalScan)]
    return any(not isinstance(s.relation.this, exp.Values) for s in scans)
