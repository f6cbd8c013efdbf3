"""The residual of a query on a Spark Connect server.

What has arrived is staged as Parquet where the server reads it, or is read by the server where it
lies, and the residual is placed once more, as a query over these tables. So the rules are those of
any source: what Spark is proved to compute with DuckDB's answer goes there, what is not stays here,
over what comes back.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from batuta_sql.catalog.catalog import Catalog
from batuta_sql.config import ENGINE, STAGE, CostSettings, Settings
from batuta_sql.costing import Costing, EngineRun, QueryCost
from batuta_sql.engines.base import Foreseen, Left
from batuta_sql.engines.duckdb import quote
from batuta_sql.engines.in_place import (
    check_watched,
    in_place,
    watched_files,
)
from batuta_sql.engines.local_relations import LOCAL, LocalRelation, local_relation
from batuta_sql.engines.spark_server import SparkServer, is_staged
from batuta_sql.engines.staging import Stage, StagedFolder, write_parquet
from batuta_sql.errors import ConfigError, Error
from batuta_sql.exchange.fetch import FetchMetrics, Stop
from batuta_sql.exchange.result_cache import ResultCache
from batuta_sql.exchange.wire import restoring
from batuta_sql.execution import Execution
from batuta_sql.guards.locality import whereabouts
from batuta_sql.guards.tiers import TierGate
from batuta_sql.health import SourceCheck
from batuta_sql.labels import Labels, not_covered
from batuta_sql.plan.cost import Estimate
from batuta_sql.plan.placement import Placed, place
from batuta_sql.plan.relational import (
    Aggregate,
    Apply,
    Distinct,
    Exchange,
    Join,
    Relation,
    Scan,
    SetOperation,
    Window,
)
from batuta_sql.plan.site import ColumnInfo, Statistics, TableInfo
from batuta_sql.plan.unparse import Delivery
from batuta_sql.session import Session
from batuta_sql.source_settings import DatabricksSettings, SourceSettings
from batuta_sql.sources.base import FragmentQuery, Source
from batuta_sql.units import size

_SHUFFLES = (Aggregate, Apply, Distinct, Join, SetOperation, Window)
"""What brings rows together, and is worth another engine; it keeps no order of its input."""

_BATCH_ROWS = 100_000
_NOT_PROVED = "a part of it, or all, is not proved there"


class SparkEngine:
    """A Spark Connect server; see ``ResidualEngine``.

    :raises TierRefused: where the tier does not allow its place.
    """

    name = "spark"
    is_here = False

    def __init__(self, settings: Settings, session: Session) -> None:
        self.settings = settings.engine
        self._connected = session
        own = settings.systems[ENGINE]
        assert isinstance(own, DatabricksSettings)
        systems = {n: s for n, s in settings.systems.items() if n in (ENGINE, STAGE)}
        self._gate = gate = TierGate(settings.tier, systems)
        for name in systems:
            gate.check(name)
        self.is_local = all(whereabouts(s).locality == "local" for s in systems.values())
        source = SparkServer(ENGINE, own)
        sources: dict[str, SourceSettings] = {ENGINE: own}
        free = CostSettings(estimate="priced", history=False)
        self.session = replace(
            session,
            catalog=Catalog({ENGINE: source}, settings.catalog_ttl, gate.check),
            settings=settings.model_copy(update={"sources": sources, "cost": free}),
            costing=Costing({ENGINE: source}, sources, free, None),
            rates={},
            governors={},
            results=ResultCache(0, {}),
        )
        if self.settings.stage is None and not self.is_local:
            raise ConfigError(
                "engine: a server that is not on this machine needs stage",
                hint="a folder that it reads under the same path, or s3://bucket/folder",
            )
        self.stage = Stage(
            ENGINE,
            self.settings.stage or tempfile.gettempdir(),
            self.settings.stage_options,
            self.settings.stage_encryption,
            self.settings.stage_kms_key,
        )

    @property
    def from_bytes(self) -> int:
        engine, asked = self.session.engine, self.settings.from_bytes
        if asked is None:
            return engine.memory_limit_bytes()
        # What does not fit here goes there, whatever was asked.
        return min(int(asked), engine.room_bytes())

    def check(self) -> SourceCheck:
        place = self._gate.whereabouts_of(ENGINE)
        started = time.perf_counter()
        error = self._fault()
        seconds = time.perf_counter() - started
        return SourceCheck(
            ENGINE, self.name, place.locality, place.reason, seconds=seconds, error=error
        )

    def _fault(self) -> str | None:
        ask = FragmentQuery("SELECT 1 AS a", (("a", "INTEGER"),))
        try:
            self.stage.check()
            with (
                closing(self.session.sources[ENGINE].open()) as snapshot,
                closing(snapshot.read(ask)) as rows,
            ):
                for _ in rows:
                    pass
        except Error as error:
            return error.message
        return None

    # --- what is foreseen ----------------------------------------------------------------------

    def foresee(self, plan: Placed, labels: Callable[[], Labels]) -> Foreseen:
        sources = self._connected.sources
        bytes_ = _thought_bytes(plan)
        why = self.obstacle(plan, labels)
        if not why and bytes_ is None:
            why = "how much will arrive is not known"
        if not why and bytes_ is not None and bytes_ < self.from_bytes:
            why = f"about {size(bytes_)} will arrive, and it is from {size(self.from_bytes)} on"
        if why:
            return Foreseen(False, why, bytes_)
        found: dict[str, Relation] = {}
        watched: dict[tuple[str, ...], tuple[TableInfo, tuple[str, ...]]] = {}
        wanted = self._wanted_keys(plan)
        by_name = {f.name: f for f in plan.fragments}
        dialect = self.session.capabilities[ENGINE].dialect
        exchanges = [n for n in plan.plan.walk() if isinstance(n, Exchange)]
        readers = Counter(n.name for n in exchanges)
        for node in exchanges:
            # What several read is fetched, once.
            if node.site not in self.settings.in_place or readers[node.name] > 1:
                continue
            if node.name not in wanted:
                sql = by_name[node.name].sql
                relation = in_place(node, sql, ENGINE, dialect, sources, is_staged)
                if relation is not None:
                    found[node.name] = relation
                    watched |= watched_files(node, sources)
        estimate = self._estimate(bytes_ or 0.0)
        return Foreseen(True, "", bytes_, found, tuple(watched.values()), estimate)

    def _wanted_keys(self, plan: Placed) -> set[str]:
        """The fragments whose keys make others, of sources that are not read in place, smaller."""
        fetched = [f.name for f in plan.fragments if f.source not in self.settings.in_place]
        waiting = [plan.keyed[n] for n in fetched if n in plan.keyed]
        return {name for keyed in waiting for one in keyed.filters for name in one.exchanges}

    def _estimate(self, bytes_: float) -> Estimate | None:
        """The price of the server's time, where it has one."""
        settings = self.settings
        if settings.usd_per_hour is None:
            return None
        seconds = bytes_ / float(settings.bytes_per_second)
        return Estimate(
            bytes_scanned=bytes_,
            rows=0.0,
            usd=settings.usd_per_hour * seconds / 3600,
            confidence="estimated",
            basis=f"{size(bytes_)} at engine.bytes_per_second, engine.usd_per_hour",
            source=ENGINE,
            seconds=seconds,
            bytes_delivered=0.0,
            priced=True,
            rows_confidence="estimated",
        )

    def obstacle(self, plan: Placed, labels: Callable[[], Labels]) -> str:
        """Why a residual stays here whatever arrives; empty: it need not."""
        if not _brings_together(plan.plan):
            return "it joins and groups nothing"
        if not self.is_local:
            for label in not_covered(labels(), self.settings.allow_labels):
                return f"data labelled {label} may not go there (engine.allow_labels)"
        return ""

    def residual(
        self, cursor: duckdb.DuckDBPyConnection, stop: Stop, sql: str, foreseen: Foreseen
    ) -> SparkResidual:
        return SparkResidual(self, cursor, stop, sql, foreseen, self._connected.sources)

    def close(self) -> None:
        self.session.close()
        self.session.costing.close()
        for source in self.session.sources.values():
            source.close()


@dataclass
class SparkResidual:
    """One query's residual there, once; see ``ResidualRun``."""

    engine: SparkEngine
    cursor: duckdb.DuckDBPyConnection
    stop: Stop
    sql: str
    foreseen: Foreseen
    sources: Mapping[str, Source]
    placed: Placed | None = None
    why: str = ""
    bytes_staged: int = 0
    execution: Execution | None = None
    _folder: StagedFolder | None = field(default=None, repr=False)
    _early: dict[str, tuple[ColumnInfo, ...]] = field(default_factory=dict, repr=False)
    """What was staged while it arrived."""
    _local: dict[str, LocalRelation] = field(default_factory=dict, repr=False)
    """What is sent with the statements."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    # --- staging -------------------------------------------------------------------------------

    def stage_early(self, name: str, restored: duckdb.DuckDBPyRelation) -> ds.Dataset | None:
        columns = _described(restored)
        if not all(is_staged(c.type) for c in columns):
            return None
        self._write(name, restored.to_arrow_reader(_BATCH_ROWS))
        self._early[name] = columns
        return self.open_folder().dataset(name)

    def open_folder(self) -> StagedFolder:
        with self._lock:
            if self._folder is None:
                self._folder = self.engine.stage.folder()
            return self._folder

    def _write(self, name: str, rows: pa.RecordBatchReader) -> None:
        folder = self.open_folder()
        with self.engine.stage.told(), folder.open(name) as file:
            written = write_parquet(file, rows.schema, rows, self.stop)
        with self._lock:
            self.bytes_staged += written

    def _stage(self, waiting: Mapping[str, str]) -> None:
        """Stages what is here.

        :param waiting: by name, the statement that gives the rows.
        """
        for name, sql in waiting.items():
            self._write(name, self.cursor.sql(sql).to_arrow_reader(_BATCH_ROWS))

    def _written_out(
        self,
        fetched: Mapping[str, str],
        described: Mapping[str, tuple[ColumnInfo, ...]],
        taken: Mapping[str, FetchMetrics],
    ) -> dict[str, LocalRelation]:
        """The fragments whose rows are few enough to go with the statements."""
        dialect = self.engine.session.capabilities[ENGINE].dialect
        found: dict[str, LocalRelation] = {}
        for name, sql in fetched.items():
            metrics = taken.get(name)
            if name in self._early or metrics is None or not metrics.finished:
                continue
            if metrics.rows <= self.engine.settings.local_rows:
                relation = local_relation(self.cursor.sql(sql), described[name], dialect)
                if relation is not None:
                    found[name] = relation
        return found

    # --- the residual --------------------------------------------------------------------------

    def run(
        self,
        plan: Placed,
        deliveries: Mapping[str, Delivery],
        taken: Mapping[str, FetchMetrics],
        labels: Callable[[], Labels],
    ) -> Left | None:
        fetched = {
            f.name: _restored(deliveries[f.name], [s for s, _ in f.columns])
            for f in plan.fragments
            if f.name in deliveries
        }
        described = {
            n: self._early.get(n) or _described(self.cursor.sql(sql)) for n, sql in fetched.items()
        }
        self.why = self._obstacle(plan, described, taken, labels)
        if self.why:
            return None
        if len(plan.fragments) > 1:
            # One that comes alone may be a stream, which is read once.
            self._local = self._written_out(fetched, described, taken)
        placed = self._placed(plan, described, taken)
        if placed is None:
            self.why = _NOT_PROVED
            return None
        here = self._early.keys() | self._local.keys()
        self._stage({n: sql for n, sql in fetched.items() if n not in here})
        self.placed = placed
        session = self.engine.session
        cost = QueryCost(session.costing, self.sql, self.stop)
        name = f"engine:{id(self):x}"
        self.execution = Execution(
            session,
            placed,
            self.cursor,
            cost,
            self.stop,
            lambda p: p,
            name,
            last=True,
            local=self._local,
        )
        watched = self.foreseen.watched
        made = self.execution.deliver(whole=bool(watched))
        check_watched(watched, self.sources)
        return Left(placed, made)

    def _obstacle(
        self,
        plan: Placed,
        described: Mapping[str, tuple[ColumnInfo, ...]],
        taken: Mapping[str, FetchMetrics],
        labels: Callable[[], Labels],
    ) -> str:
        """Why the residual stays here; empty: it need not."""
        least = self.engine.from_bytes
        thought = {f.name: int(f.bytes or 0) for f in plan.fragments}
        # Of what is streamed, or not fetched, what was thought: it has not been read.
        arrived = sum(
            taken[n].bytes or b if n in taken else b * (n in self.foreseen.in_place)
            for n, b in thought.items()
        )
        if not self.foreseen.is_likely and arrived < least:
            return f"{size(arrived)} have arrived, and it is from {size(least)} on"
        why = self.engine.obstacle(plan, labels)
        if why:
            return why
        for columns in described.values():
            for column in columns:
                if not is_staged(column.type):
                    return f"{column.type} is not staged"
        if not self.foreseen.is_likely and self.engine.settings.usd_per_hour is not None:
            return f"nobody was asked for its price: {self.foreseen.why}"
        return ""

    def _placed(
        self,
        plan: Placed,
        described: Mapping[str, tuple[ColumnInfo, ...]],
        taken: Mapping[str, FetchMetrics],
    ) -> Placed | None:
        """The residual over these tables; None where the engine would only give one back."""
        tables = {name: self._table(name, c, taken) for name, c in described.items()}
        session = self.engine.session
        placed = place(
            _over(plan.plan, tables, self.foreseen.in_place),
            plan.outputs,
            session.capabilities,
            partial=session.reduction,
        )
        pushed = [n for n in placed.plan.walk() if isinstance(n, Exchange)]
        # What only comes back was moved for nothing, and may have lost the order of its rows.
        if not all(any(isinstance(n, _SHUFFLES) for n in p.input.walk()) for p in pushed):
            return None
        return _renamed(placed)

    @property
    def sent(self) -> tuple[str, ...]:
        return tuple(sorted(self._local))

    def _table(
        self, name: str, columns: tuple[ColumnInfo, ...], taken: Mapping[str, FetchMetrics]
    ) -> TableInfo:
        """What has arrived, as the engine reads it."""
        metrics = taken.get(name)
        rows = float(metrics.rows) if metrics is not None and metrics.finished else None
        local = self._local.get(name)
        if local is not None:
            return TableInfo(ENGINE, (local.marker,), columns, LOCAL, statistics=Statistics(rows))
        path = ("parquet", self.open_folder().place(name))
        return TableInfo(ENGINE, path, columns, "staged", statistics=Statistics(rows))

    def metrics(self) -> dict[str, Any] | None:
        if self.execution is None:
            return None
        return {
            "name": self.engine.name,
            "bytes_staged": self.bytes_staged,
            "with_statement": list(self.sent),
            "in_place": sorted(self.foreseen.in_place),
            "fragments": [
                {"sql": r.fragment.sql, "rows": r.rows, "bytes": r.bytes, "seconds": r.seconds}
                for r in self.execution.runs
            ],
        }

    def taken(self) -> EngineRun | None:
        if self.execution is None:
            return None
        runs, rate = self.execution.runs, self.engine.settings.usd_per_hour
        seconds = max(((r.began or 0.0) + (r.seconds or 0.0) for r in runs), default=0.0)
        return EngineRun(
            ENGINE,
            self.foreseen.estimate,
            sum(r.rows or 0 for r in runs),
            sum(r.bytes or 0 for r in runs),
            seconds,
            rate * seconds / 3600 if rate is not None else None,
        )

    # --- the end -------------------------------------------------------------------------------

    def cancel(self) -> None:
        if self.execution is not None:
            self.execution.cancel()

    def release(self) -> None:
        if self.execution is not None:
            self.execution.release()
            self.execution.record_metrics()
        if self._folder is not None:
            self._folder.remove()

    def drop_spilled(self) -> None:
        if self.execution is not None:
            self.execution.drop_spilled()


def _described(relation: duckdb.DuckDBPyRelation) -> tuple[ColumnInfo, ...]:
    types = [str(t) for t in relation.types]
    return tuple(ColumnInfo(n, t, t) for n, t in zip(relation.columns, types, strict=True))


def _restored(delivery: Delivery, symbols: list[str]) -> str:
    columns = restoring(delivery.decode, ((s, s) for s in symbols))
    return f"SELECT {columns} FROM {'.'.join(map(quote, delivery.table))}"


def _thought_bytes(plan: Placed) -> float | None:
    """What all fragments are thought to deliver, with the keys that they wait for."""
    total = 0.0
    for fragment in plan.fragments:
        if fragment.bytes is None:
            return None
        keyed = plan.keyed.get(fragment.name)
        share = keyed.rows / fragment.rows if keyed is not None and fragment.rows else 1.0
        total += fragment.bytes * min(share, 1.0)
    return total


def _over(
    node: Relation, tables: Mapping[str, TableInfo], in_place: Mapping[str, Relation]
) -> Relation:
    """A residual that scans staged tables, or files, where it had exchanges."""
    if isinstance(node, Exchange):
        if node.name in in_place:
            return in_place[node.name]
        table = tables[node.name]
        by_name = {c.name: c for c in table.columns}
        return Scan(table, tuple((s, by_name[s]) for s in node.symbols))
    return node.with_inputs(*[_over(i, tables, in_place) for i in node.inputs])


def _brings_together(node: Relation, *, above: bool = False) -> bool:
    """Whether all that has arrived goes through a join, a group or the like.

    Elsewhere the order of its rows may matter, and is lost where it is staged.
    """
    if isinstance(node, Exchange):
        return above
    below = [_brings_together(i, above=above or isinstance(node, _SHUFFLES)) for i in node.inputs]
    return all(below)


def _renamed(placed: Placed) -> Placed:
    """With names of fragments that the first ones do not have: both are seen side by side."""

    def new(node: Relation) -> Relation:
        if isinstance(node, Exchange):
            return replace(node, name=f"e{node.name}")
        return node.with_inputs(*[new(i) for i in node.inputs])

    fragments = tuple(replace(f, name=f"e{f.name}") for f in placed.fragments)
    return replace(placed, plan=new(placed.plan), fragments=fragments)
