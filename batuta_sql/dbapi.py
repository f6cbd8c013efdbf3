"""PEP 249 connections, and what they know of the sources."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
from cachetools import LRUCache

from batuta_sql import errors
from batuta_sql.catalog.catalog import Catalog, unknown_source
from batuta_sql.costing import Costing
from batuta_sql.cursor import Cursor
from batuta_sql.engines.duckdb import DuckDBEngine, quote
from batuta_sql.errors import (
    InterfaceError,
    OperationalError,
    ProgrammingError,
)
from batuta_sql.exchange.result_cache import ResultCache
from batuta_sql.frontend.expressions import ParameterValues
from batuta_sql.frontend.parser import Statement, parse
from batuta_sql.guards.audit import AuditLog
from batuta_sql.guards.confinement import confine
from batuta_sql.guards.history import Run
from batuta_sql.guards.locality import events_endpoint
from batuta_sql.guards.tiers import TierGate
from batuta_sql.health import SourceCheck, check_sources
from batuta_sql.labels import ColumnLabels, TableLabels, check_label, labels_of_schema
from batuta_sql.plan.cost import Estimate
from batuta_sql.planview import Plan, estimate_of
from batuta_sql.profile import default_file, read, write
from batuta_sql.progress import FragmentProgress, progress_of
from batuta_sql.query import Query
from batuta_sql.session import Session
from batuta_sql.show_and_describe import is_show_or_describe
from batuta_sql.sources.embedded import EmbeddedSource
from batuta_sql.sources.registry import make_source
from batuta_sql.tuning import PROBES, Proposal, Tuned, measure, proposal
from batuta_sql.watchers import watchers_of

if TYPE_CHECKING:
    from batuta_sql.config import Settings
    from batuta_sql.sync.drift import Change
    from batuta_sql.sync.request import Form, OnDrift, Progress, SyncResult

_MOST_PARSED = 256
"""Texts whose trees are remembered: dashboards and loops send the same ones again and again."""


def connect(
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    tier: str | None = None,
    max_cost_usd: float | None = None,
    confirm: Callable[[Estimate], bool] | None = None,
    local_files: bool | None = None,
) -> Connection:
    """Opens a connection over the configured sources; none of them is contacted yet.

    :param config: a ``batuta.toml``, a dict of the same shape, or None: ``./batuta.toml``, then
        the user's configuration folder.
    :param tier: overrides the configured sovereignty tier.
    :param max_cost_usd: a query that is estimated to cost as much is refused, as from
        ``cost.stop_usd``; where both are set, both hold.
    :param confirm: asked, with the estimate, before a query that costs ``warn_usd`` or more; True
        lets it run. ``estimate.reasons`` says why. Without it such a query is refused.
    :param local_files: overrides whether queries may read files by their paths (``read_csv``,
        ``FROM 'file.parquet'``), beside those of the sources.
    :raises ConfigError: naming file, key and line.
    :raises SealError: for the tier ``fully_sovereign`` in a process that is not sealed and cannot
        be locked. A lock stays for good: the process opens no IP socket any more.
    """
    from batuta_sql.config import load_settings

    settings = load_settings(config, tier=tier, max_cost_usd=max_cost_usd, local_files=local_files)
    return Connection(settings, confirm)


class Connection:
    """A connection over all sources. It may be shared between threads."""

    Warning = errors.Warning
    Error = errors.Error
    InterfaceError = errors.InterfaceError
    DatabaseError = errors.DatabaseError
    DataError = errors.DataError
    OperationalError = errors.OperationalError
    IntegrityError = errors.IntegrityError
    InternalError = errors.InternalError
    ProgrammingError = errors.ProgrammingError
    NotSupportedError = errors.NotSupportedError

    def __init__(
        self, settings: Settings, confirm: Callable[[Estimate], bool] | None = None
    ) -> None:
        self._gate = TierGate(settings.tier, settings.sources)
        events = events_endpoint(settings.openlineage)
        if events is not None:
            # Before a lock that would stay.
            self._gate.check_events(events)
        confine(settings)
        self._settings = settings
        watchers = watchers_of(settings, self._gate)
        sources = {n: make_source(n, s) for n, s in settings.sources.items()}
        engine = DuckDBEngine(
            settings.memory_limit,
            settings.temp_directory,
            settings.threads,
            local_files=settings.local_files,
        )
        limits = {"memory_limit": settings.memory_limit, "threads": settings.threads}
        for name, value in limits.items():
            for source in sources.values():
                if value is not None and isinstance(source, EmbeddedSource):
                    source.apply_setting(f"SET GLOBAL {name} = '{value}'")
        self._session = Session(
            engine,
            Catalog(sources, settings.catalog_ttl, self._gate.check),
            settings,
            Costing(sources, settings.sources, settings.cost, confirm),
            results=ResultCache(
                settings.result_cache, {n: s.result_ttl for n, s in settings.sources.items()}
            ),
            watchers=watchers,
        )
        if settings.engine.is_spark:
            from batuta_sql.engines.spark import SparkEngine

            self._session.residuals = SparkEngine(settings, self._session)
        self._profile_file = Path(settings.profile_file or default_file())
        self._read_profile()
        self._lock = threading.Lock()
        self._running: set[Query] = set()
        self._parsed: LRUCache[str, Statement] = LRUCache(_MOST_PARSED)
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else ", ".join(self._session.sources) or "no sources"
        return f"<batuta_sql.Connection {state}>"

    # --- PEP 249 -------------------------------------------------------------------------------

    def cursor(self) -> Cursor:
        """A new cursor; cursors of several threads may run at once."""
        self._check_open()
        return Cursor(self)

    def commit(self) -> None:
        """Nothing is ever written; PEP 249 asks for the method."""
        self._check_open()

    def rollback(self) -> None:
        """Nothing is ever written; PEP 249 asks for the method."""
        self._check_open()

    def close(self) -> None:
        """Ends running queries and releases every connection."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            running = list(self._running)
        for query in running:
            query.cancel()
            query.close()
        self._session.watchers.close()
        self._session.residuals.close()
        self._session.costing.close()
        self._session.close()
        for source in self._session.sources.values():
            source.close()
        self._session.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- more than PEP 249 ---------------------------------------------------------------------

    def execute(self, sql: str, parameters: ParameterValues | None = None) -> Cursor:
        """A new cursor on which ``sql`` has been executed."""
        return self.cursor().execute(sql, parameters)

    def cancel(self) -> None:
        """Ends every running query of this connection, at the sources too."""
        with self._lock:
            running = list(self._running)
        for query in running:
            query.cancel()

    def progress(self) -> list[FragmentProgress]:
        """How far each fragment of the running queries is; may be asked from another thread."""
        with self._lock:
            running = list(self._running)
        return progress_of(e for q in running for e in q.executions)

    def register(self, name: str, frame: Any, labels: Sequence[str] = ()) -> None:
        """Makes a pyarrow Table, Dataset or RecordBatchReader, a pandas or Polars frame readable
        as ``name``.

        A stream is read into memory, since a query may read it more than once.

        :param labels: for all its columns, beside those that its Arrow schema carries.
        :raises ProgrammingError: for what cannot be registered, and for labels of another form.
        """
        self._check_open()
        registered = _as_registered(frame)
        found = _labels_of(registered, labels)
        self._session.registered[name.lower()] = registered
        if found:
            self._session.labels[name.lower()] = found
        else:
            self._session.labels.pop(name.lower(), None)

    def unregister(self, name: str) -> None:
        """Forgets a registered name."""
        if self._session.registered.pop(name.lower(), None) is not None:
            self._session.labels.pop(name.lower(), None)

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the configured sources, of those too that the tier does not allow."""
        return tuple(self._session.sources)

    def kind_of(self, source: str) -> str:
        """The kind of a configured source, such as ``postgresql``.

        :raises ProgrammingError: for one that is not configured.
        """
        if source not in self._settings.sources:
            raise unknown_source(source, self._session.sources)
        return self._session.sources[source].kind

    @property
    def tier(self) -> str:
        """The sovereignty tier in force."""
        return self._settings.tier

    def tables(self, source: str | None = None) -> list[tuple[str, tuple[str, ...], str]]:
        """Source, path and kind of every table, of one source or of all.

        :raises Error: for a source that does not answer; nothing is left out silently.
        """
        self._check_open()
        catalog = self._session.catalog
        found = [catalog.source(n) for n in ([source] if source is not None else catalog.sources)]
        if source is not None and found == [None]:
            raise unknown_source(source, catalog.sources)
        return [(s.name, n.path, n.kind) for s in found if s for n in catalog.list_tables(s)]

    def describe(self, name: str) -> pa.Table:
        """The columns of a table: name, DuckDB type, NULLs, key, the source's type, a note."""
        return self.execute(f"DESCRIBE {name}").fetch_arrow_table()

    def check(self) -> list[SourceCheck]:
        """Asks every source for its tables, all at once; a failure is part of the answer."""
        self._check_open()
        found = check_sources(self._session.sources, self._gate)
        engine = self._session.residuals.check()
        return found if engine is None else [*found, engine]

    def _read_profile(self) -> None:
        known = read(self._profile_file)
        costing = self._session.costing
        found = {n: known.get((n, costing.place(n))) for n in self._session.sources}
        self._measured = {n: m for n, m in found.items() if m is not None}
        self._session.rates = {n: m.rates for n, m in self._measured.items()}
        self._session.prepared.clear()

    def proposals(self, sources: Sequence[str] = ()) -> list[Proposal]:
        """What measuring sources will take at the most; nothing is asked of them.

        :param sources: their names; none: all that can be measured.
        :raises NotSupportedError: for a named source of a kind that cannot be measured.
        :raises ProgrammingError: for one that is not configured.
        """
        self._check_open()
        for name in sources:
            if name not in self._settings.sources:
                raise unknown_source(name, self._session.sources)
        found: list[Proposal] = []
        for name, settings in self._settings.sources.items():
            if name in sources or (not sources and self._session.sources[name].kind in PROBES):
                found.append(proposal(name, settings))
        return found

    def tune(self, sources: Sequence[str] = ()) -> list[Tuned]:
        """Measures how fast sources are, stores that, and plans by it from now on.

        Runs small statements that read no table; ``proposals`` says beforehand what they take.

        :raises OSError: where the profile cannot be written.
        """
        session = self._session
        tuned: list[Tuned] = []
        for one in self.proposals(sources):
            self._gate.check(one.source)
            place = session.costing.place(one.source)
            with closing(session.engine.cursor()) as cursor:
                most = self._settings.sources[one.source].max_connections
                now = measure(session.sources[one.source], place, cursor, most)
            tuned.append(Tuned(now, self._measured.get(one.source)))
        write(self._profile_file, {(t.now.source, t.now.place): t.now for t in tuned})
        self._read_profile()
        return tuned

    def plan(self, sql: str, parameters: ParameterValues | None = None) -> Plan:
        """The placed plan of a query; nothing is run."""
        query = self._query(sql, parameters)
        query.close()
        return Plan.of(query)

    def result_schema(
        self, sql: str, parameters: ParameterValues | None = None
    ) -> pa.Schema | None:
        """The Arrow schema of a query's result, with its labels; nothing is run that bills.

        None where only running it tells: of a PIVOT, of SHOW and DESCRIBE.

        :raises Error: for wrong SQL.
        """
        if is_show_or_describe(sql):
            return None
        if self._single(sql).kind == "EXPLAIN":
            return pa.schema([("plan", pa.string())])
        query = self._query(sql, parameters)
        try:
            if query.placed is None:
                return None
            nothing = ", ".join(
                f"CAST(NULL AS {kind}) AS {quote(name)}" for name, kind in query.result_columns()
            )
            schema = query.cursor.sql(f"SELECT {nothing} LIMIT 0").to_arrow_table().schema
            return Plan.of(query).labelled(schema)
        except BaseException as error:
            raise query.failure(error) from None
        finally:
            query.close()

    def parameter_names(self, sql: str) -> tuple[str, ...]:
        """The parameters of a statement: ``1``, ``2``, ... of ``?``, else the names of ``$name``.

        :raises ProgrammingError: for wrong SQL.
        """
        statement = self._single(sql)
        with self._session.engine.cursor() as engine:
            found = {
                n for s in engine.extract_statements(statement.sql) for n in s.named_parameters
            }
        return tuple(sorted(found, key=lambda n: (int(n) if n.isdigit() else 0, n)))

    def explain(self, sql: str, parameters: ParameterValues | None = None) -> str:
        """The plan of a query as people read it; nothing is run."""
        query = self._query(sql, parameters)
        try:
            return str(Plan.of(query))
        finally:
            query.close()

    def analyze(self, sql: str, parameters: ParameterValues | None = None) -> Plan:
        """Runs a query and throws its rows away; its plan then tells what each fragment took.

        :raises CostRefused: as for a query.
        """
        query = self._query(sql, parameters)
        self._started(query)
        try:
            for _ in query.run().to_arrow_reader(100_000):
                pass
            query.record_metrics()
            return Plan.of(query)
        except BaseException as error:
            raise query.failure(error) from None
        finally:
            self._ended(query)

    def estimate(self, sql: str, parameters: ParameterValues | None = None) -> Estimate:
        """What a query will take, in the sources' own opinion; nothing is run that bills."""
        query = self._query(sql, parameters)
        try:
            return estimate_of(query)
        finally:
            query.close()

    def sync(
        self,
        origin: str,
        to: str | Path,
        *,
        format: Form = "parquet",  # noqa: A002 - the command line's name
        checkpoint: str | Path | None = None,
        on_drift: OnDrift = "stop",
        dry_run: bool = False,
        split_bytes: float | None = None,
        key: Sequence[str] = (),
        watermark: str | None = None,
        full_compare: bool = False,
        changes: Mapping[str, str | None] | None = None,
        max_rejects: int | None = None,
        progress: Callable[[Progress], None] = lambda progress: None,
    ) -> SyncResult:
        """Copies a table, a view or the result of a query, or goes on with a copy of it that was
        interrupted; see docs/sync.md.

        :param origin: a table's name, or a query.
        :param to: a folder (``parquet``, ``delta``) or a file (``duckdb``, ``ald``).
        :param checkpoint: the file that remembers what is done; None: beside the target.
        :param on_drift: what a changed schema does: ``stop``, ``apply`` safe changes, ``skip`` new
            columns, or ``force`` the unsafe changes that are named too.
        :param dry_run: only says what it would take.
        :param split_bytes: how much of a table is one split; None: 128 MB. After a crash at most
            one split a worker is copied again.
        :param key: the columns that say which row is which, with ``watermark``.
        :param watermark: a column that grows: the next copy reads only rows from its greatest value
            on, and puts them in by the key.
        :param full_compare: then also reads all keys, and takes out what the source has no more.
        :param changes: with ``force``: the columns whose changes are taken though they are not
            safe, and the DuckDB types to which their values are cast; None: that of the copy. Rows
            with values that do not fit are left out, see ``SyncResult.rejects``.
        :param max_rejects: with more such rows the copy fails, and nothing is published.
        :param progress: told a few times a second how far it is.
        :raises SchemaDrift: where the schema has changed and that was not accepted.
        :raises CheckpointError: where the checkpoint is damaged, of another copy, or in use.
        :raises Error: what a source, a guard or the target says.
        """
        from batuta_sql.sync.job import synchronise
        from batuta_sql.sync.request import SPLIT_BYTES, Request

        self._check_open()
        place = Path(checkpoint) if checkpoint is not None else None
        size = split_bytes or SPLIT_BYTES
        keys = (key,) if isinstance(key, str) else tuple(key)
        if (watermark is None) != (not keys) or (full_compare and watermark is None):
            raise ProgrammingError("a key and a watermark column go together")
        if changes and on_drift != "force":
            raise ProgrammingError('changes are named with on_drift="force"')
        if max_rejects is not None and max_rejects < 0:
            raise ProgrammingError("max_rejects is a number of rows, 0 or more")
        request = Request(
            origin,
            Path(to),
            format,
            place,
            on_drift,
            dry_run,
            size,
            keys,
            watermark,
            full_compare,
            dict(changes or {}),
            max_rejects,
        )
        audit = AuditLog.usual(self._settings.labels.audit_log)
        return synchronise(request, self._cancellable, progress, audit)

    def drift(self, origin: str, *, checkpoint: str | Path | None = None) -> tuple[Change, ...]:
        """How the schema of ``origin`` differs from that of its last copy; nothing is copied.

        :param checkpoint: the copy's; None: that of the last copy of this origin by this user.
        :raises CheckpointError: where there is none, or it cannot be read.
        """
        from batuta_sql.sync.job import drift_of

        self._check_open()
        place = Path(checkpoint) if checkpoint is not None else None
        return drift_of(origin, place, self._cancellable)

    def _cancellable(self, sql: str) -> Query:
        """A query over the tables as they are now, which ``cancel`` reaches until it is closed."""
        self._session.catalog.forget()
        query = self._query(sql, None)
        with self._lock:
            self._running = {q for q in self._running if not q.is_closed} | {query}
        return query

    def history(self, limit: int = 20) -> list[Run]:
        """What the last queries took beside what was estimated, a ``Run`` a fragment, the newest
        first; of all processes of this user.

        :param limit: how many queries.
        :raises OperationalError: where the history cannot be read.
        :raises ProgrammingError: where ``cost.history`` turns it off.
        """
        costing = self._session.costing
        if costing.history is None:
            raise ProgrammingError("there is no history", hint="set cost.history = true")
        costing.history.flush()
        try:
            return costing.history.runs(limit)
        except OSError as error:
            raise OperationalError(f"the history cannot be read: {error}") from None

    def audit(self) -> tuple[list[dict[str, Any]], str | None]:
        """The events of the audit log, oldest first, and what is wrong with it (None: nothing)."""
        log = AuditLog.usual(self._settings.labels.audit_log)
        verdict = log.verify()
        return log.read(verdict.lines), verdict.fault

    def refresh(self) -> None:
        """Forgets what is remembered of the sources' catalogs, and the results that were kept."""
        self._session.catalog.forget()
        self._session.prepared.clear()
        self._session.results.clear()

    # --- inside --------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise InterfaceError("the connection is closed")

    def _query(self, sql: str, parameters: ParameterValues | None) -> Query:
        self._check_open()
        statement = self._single(sql)
        if statement.kind == "EXPLAIN":
            statement = self._single(_explained(statement.sql))
        if statement.kind != "query":
            raise ProgrammingError(f"{statement.kind} is not a query", sql=sql)
        return Query(self._session, statement, parameters)

    def _single(self, sql: str) -> Statement:
        with self._lock:
            known = self._parsed.get(sql)
        if known is None:
            known = self._parse(sql)
            if known.tree is None:
                return known
            with self._lock:
                self._parsed[sql] = known
        return known

    def _parse(self, sql: str) -> Statement:
        with self._session.engine.cursor() as engine:
            statements = parse(sql, engine)
        if not statements:
            raise ProgrammingError("there is no statement in the text", sql=sql)
        if len(statements) > 1:
            raise ProgrammingError(
                "one statement at a time", hint="call execute() once for each", sql=sql
            )
        return statements[0]

    def _started(self, query: Query) -> None:
        with self._lock:
            self._running.add(query)

    def _ended(self, query: Query) -> None:
        with self._lock:
            self._running.discard(query)
        query.close()


def _labels_of(frame: Any, given: Sequence[str]) -> TableLabels:
    """The labels of a registered frame: those given, and those of its schema."""
    try:
        found = TableLabels.throughout(ColumnLabels(frozenset(check_label(g) for g in given)))
        schema = getattr(frame, "schema", None)
        carried = labels_of_schema(schema) if isinstance(schema, pa.Schema) else TableLabels()
    except ValueError as error:
        raise ProgrammingError(str(error)) from None
    return found | carried


def _as_registered(frame: Any) -> Any:
    if isinstance(frame, pa.RecordBatchReader):
        return frame.read_all()
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])
    if isinstance(frame, pa.Table) or hasattr(frame, "scanner"):
        return frame
    if hasattr(frame, "to_arrow"):
        return frame.to_arrow()
    if hasattr(frame, "__arrow_c_stream__"):
        return pa.table(frame)
    if isinstance(frame, Mapping):
        return pa.table(frame)
    raise ProgrammingError(
        f"a {type(frame).__name__} cannot be registered",
        hint="pass an Arrow table, a pandas or a Polars frame",
    )


def _explained(sql: str) -> str:
    words = sql.split(None, 2)
    if len(words) > 2 and words[1].upper() == "ANALYZE":
        return words[2]
    return sql.split(None, 1)[1]
