"""The residual of a query on another engine than the one in this process.

What has arrived is staged as Parquet where that engine reads it, and the residual is placed once
more, as a query over these tables. So the rules are those of any source: what the engine is proved
to compute with DuckDB's answer goes there, what is not stays here, over what comes back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow.parquet as pq

from batuta_sql.catalog.catalog import Catalog
from batuta_sql.config import ENGINE, CostSettings, Settings, SourceSettings
from batuta_sql.costing import Costing, QueryCost
from batuta_sql.engines.duckdb import quote
from batuta_sql.errors import Error, OperationalError, QueryCancelled
from batuta_sql.exchange.fetch import Stop
from batuta_sql.exchange.result_cache import ResultCache
from batuta_sql.execution import Execution
from batuta_sql.guards.locality import whereabouts
from batuta_sql.guards.tiers import TierGate
from batuta_sql.health import SourceCheck
from batuta_sql.labels import Labels, not_covered
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
from batuta_sql.sources.base import FragmentQuery
from batuta_sql.sources.registry import make_source
from batuta_sql.units import size

if TYPE_CHECKING:
    from batuta_sql.exchange.fetch import FetchMetrics

_TYPES = frozenset({"BOOLEAN", "SMALLINT", "INTEGER", "BIGINT", "DOUBLE", "VARCHAR", "DATE"})
"""That Parquet takes there and back as they are; decimals too."""

_SHUFFLES = (Aggregate, Apply, Distinct, Join, SetOperation, Window)
"""What brings rows together, and is worth another engine; it keeps no order of its input."""

_BATCH_ROWS, _GROUP_ROWS = 100_000, 1_000_000


class Elsewhere:
    """The other engine of a connection; it is contacted when a residual is first sent there.

    :raises TierRefused: where the tier does not allow its place.
    """

    def __init__(self, settings: Settings, session: Session) -> None:
        self.settings = settings.engine
        own = settings.systems[ENGINE]
        self._gate = gate = TierGate(settings.tier, {ENGINE: own})
        gate.check(ENGINE)
        self.is_local = whereabouts(own).locality == "local"
        source = make_source(ENGINE, own)
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

    @property
    def from_bytes(self) -> int:
        """Of what has arrived; from here on the residual goes there."""
        if self.settings.from_bytes is not None:
            return int(self.settings.from_bytes)
        return self.session.engine.memory_limit_bytes()

    def check(self) -> SourceCheck:
        """Whether the server answers, and the folder can be written to."""
        place = self._gate.whereabouts_of(ENGINE)
        started = time.perf_counter()
        error = self._fault()
        seconds = time.perf_counter() - started
        return SourceCheck(
            ENGINE, "spark", place.locality, place.reason, seconds=seconds, error=error
        )

    def _fault(self) -> str | None:
        assert self.settings.stage is not None
        folder = Path(self.settings.stage)
        if not any(os.access(f, os.W_OK) for f in (folder, folder.parent)):
            return f"{folder} cannot be written to"
        ask = FragmentQuery("SELECT 1 AS a", (("a", "INTEGER"),))
        try:
            with (
                closing(self.session.sources[ENGINE].open()) as snapshot,
                closing(snapshot.read(ask)) as rows,
            ):
                for _ in rows:
                    pass
        except Error as error:
            return error.message
        return None

    def second_stage(self, cursor: duckdb.DuckDBPyConnection, stop: Stop, sql: str) -> SecondStage:
        """For one query.

        :param cursor: the query's own.
        """
        return SecondStage(self, cursor, stop, sql)

    def close(self) -> None:
        self.session.close()
        self.session.costing.close()
        for source in self.session.sources.values():
            source.close()


@dataclass
class SecondStage:
    """One query's residual there, once.

    :param labels: of whatever the plan reads.
    """

    elsewhere: Elsewhere
    cursor: duckdb.DuckDBPyConnection
    stop: Stop
    sql: str
    placed: Placed | None = None
    """What is placed there and here; None: it stayed here."""
    why: str = ""
    """It stayed here."""
    bytes_staged: int = 0
    execution: Execution | None = None
    _folder: Path | None = field(default=None, repr=False)

    def deliver(
        self,
        plan: Placed,
        deliveries: Mapping[str, Delivery],
        taken: Mapping[str, FetchMetrics],
        labels: Callable[[], Labels],
    ) -> dict[str, Delivery] | None:
        """The rows that the engine made of those that have arrived; None: it is not asked.

        :param taken: what each fragment took.
        :param labels: the labels of whatever the plan reads.
        :raises Error: what the engine said.
        """
        described = self._described(plan, deliveries)
        self.why = self._obstacle(plan, described, taken, labels)
        if self.why:
            return None
        placed = self._placed(plan, described, taken)
        if placed is None:
            self.why = "a part of it, or all, is not proved there"
            return None
        self._stage(deliveries, described)
        self.placed = placed
        session = self.elsewhere.session
        cost = QueryCost(session.costing, self.sql, self.stop)
        self.execution = Execution(
            session, placed, self.cursor, cost, self.stop, lambda p: p, str(self._folder), last=True
        )
        return self.execution.deliver()

    def _described(
        self, plan: Placed, deliveries: Mapping[str, Delivery]
    ) -> dict[str, tuple[ColumnInfo, ...]]:
        """Each delivery's columns, by their symbols."""
        found: dict[str, tuple[ColumnInfo, ...]] = {}
        for fragment in plan.fragments:
            symbols = [symbol for symbol, _ in fragment.columns]
            rows = self.cursor.execute(
                f"DESCRIBE {_restored(deliveries[fragment.name], symbols)}"
            ).fetchall()
            found[fragment.name] = tuple(ColumnInfo(r[0], r[1], r[1]) for r in rows)
        return found

    def _obstacle(
        self,
        plan: Placed,
        described: Mapping[str, tuple[ColumnInfo, ...]],
        taken: Mapping[str, FetchMetrics],
        labels: Callable[[], Labels],
    ) -> str:
        """Why the residual stays here; empty: it need not."""
        least = self.elsewhere.from_bytes
        arrived = sum(
            # Of what is streamed, what was thought: it has not been read.
            taken[f.name].bytes or int(f.bytes or 0)
            for f in plan.fragments
            if f.name in taken
        )
        if arrived < least:
            return f"{size(arrived)} have arrived, and it is from {size(least)} on"
        if not _brings_together(plan.plan):
            return "it joins and groups nothing"
        for columns in described.values():
            for column in columns:
                if column.type not in _TYPES and not column.type.startswith("DECIMAL("):
                    return f"{column.type} is not staged"
        settings = self.elsewhere.settings
        if not self.elsewhere.is_local:
            for label in not_covered(labels(), settings.allow_labels):
                return f"data labelled {label} may not go there (engine.allow_labels)"
        return ""

    def _placed(
        self,
        plan: Placed,
        described: Mapping[str, tuple[ColumnInfo, ...]],
        taken: Mapping[str, FetchMetrics],
    ) -> Placed | None:
        """The residual over staged tables; None where the engine would only give one back."""
        assert self.elsewhere.settings.stage is not None
        self._folder = Path(self.elsewhere.settings.stage) / f"batuta-{uuid.uuid4().hex}"
        tables = {
            name: TableInfo(
                source=ENGINE,
                path=("parquet", str(self._folder / f"{name}.parquet")),
                columns=columns,
                kind="staged",
                statistics=Statistics(
                    float(taken[name].rows) if name in taken and taken[name].finished else None
                ),
            )
            for name, columns in described.items()
        }
        session = self.elsewhere.session
        placed = place(
            _over(plan.plan, tables),
            plan.outputs,
            session.capabilities,
            partial=session.reduction,
        )
        pushed = [n for n in placed.plan.walk() if isinstance(n, Exchange)]
        # What only comes back was moved for nothing, and may have lost the order of its rows.
        if not all(any(isinstance(n, _SHUFFLES) for n in p.input.walk()) for p in pushed):
            return None
        return _renamed(placed)

    def _stage(
        self,
        deliveries: Mapping[str, Delivery],
        described: Mapping[str, tuple[ColumnInfo, ...]],
    ) -> None:
        assert self._folder is not None
        try:
            self._folder.mkdir(parents=True)
            for name, columns in described.items():
                path = self._folder / f"{name}.parquet"
                rows = self.cursor.sql(_restored(deliveries[name], [c.name for c in columns]))
                reader = rows.to_arrow_reader(_BATCH_ROWS)
                with pq.ParquetWriter(path, reader.schema) as writer:
                    for batch in reader:
                        if self.stop:
                            # A part of the rows must never be joined.
                            raise self.stop.error or QueryCancelled("the query was cancelled")
                        writer.write_batch(batch, row_group_size=_GROUP_ROWS)
                self.bytes_staged += path.stat().st_size
        except OSError as error:
            raise OperationalError(
                f"what is to be joined cannot be staged: {error}",
                source=ENGINE,
                hint="engine.stage is a folder that the engine reads too",
            ) from None

    def cancel(self) -> None:
        if self.execution is not None:
            self.execution.cancel()

    def release(self) -> None:
        """Ends what still runs there; nothing stays staged."""
        if self.execution is not None:
            self.execution.release()
            self.execution.record_metrics()
        if self._folder is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(self._folder, ignore_errors=True)

    def drop_spilled(self) -> None:
        if self.execution is not None:
            self.execution.drop_spilled()


def _restored(delivery: Delivery, symbols: list[str]) -> str:
    columns = ", ".join(
        f"{delivery.decode.get(s, '{}').replace('{}', quote(s))} AS {quote(s)}" for s in symbols
    )
    return f"SELECT {columns} FROM {'.'.join(map(quote, delivery.table))}"


def _over(node: Relation, tables: Mapping[str, TableInfo]) -> Relation:
    """A residual that scans staged tables where it had exchanges."""
    if isinstance(node, Exchange):
        table = tables[node.name]
        by_name = {c.name: c for c in table.columns}
        return Scan(table, tuple((s, by_name[s]) for s in node.symbols))
    return node.with_inputs(*[_over(i, tables) for i in node.inputs])


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
