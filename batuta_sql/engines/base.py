"""What an engine for residuals is.

A residual goes to one in three steps: what is foreseen before anything is fetched (``Foreseen``);
the rows of the fragments, staged while they arrive where they are many; and the residual itself. An
engine elsewhere runs as much of it as is proved there, and what it makes comes back as deliveries
like those of any fragment; what is left (``Left``), all of it where the engine is the one of this
process, the query's own cursor runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from batuta_sql.plan.cost import Estimate
from batuta_sql.plan.relational import Relation
from batuta_sql.plan.unparse import Delivery

if TYPE_CHECKING:
    import duckdb
    import pyarrow.dataset as ds

    from batuta_sql.costing import EngineRun
    from batuta_sql.exchange.fetch import FetchMetrics, Stop
    from batuta_sql.execution import Execution
    from batuta_sql.health import SourceCheck
    from batuta_sql.labels import Labels
    from batuta_sql.plan.placement import Placed
    from batuta_sql.plan.site import TableInfo


@dataclass(frozen=True)
class Foreseen:
    """What is known of a residual's engine before anything is fetched.

    :param is_likely: whether it is thought to go there.
    :param why: it is not, or may not.
    :param bytes: of Arrow data that its inputs are thought to take; None where that is not known.
    :param in_place: by the names of fragments that need not run, since the engine reads the files
        of their tables where they lie: what it reads instead.
    :param watched: of these, the tables whose files may be written over, with what names their
        files' content.
    :param estimate: what the engine will cost; None where it is free.
    """

    is_likely: bool = False
    why: str = ""
    bytes: float | None = None
    in_place: Mapping[str, Relation] = field(default_factory=dict)
    watched: tuple[tuple[TableInfo, tuple[str, ...]], ...] = ()
    estimate: Estimate | None = None


@dataclass(frozen=True)
class Left:
    """What is left of a residual for the cursor of its query.

    :param deliveries: what it reads, by the names of the plan's exchanges.
    """

    placed: Placed
    deliveries: Mapping[str, Delivery]


class ResidualRun(Protocol):
    """One query's residual on an engine, once.

    ``placed`` is what is placed elsewhere and here, None while, and where, all of it stays here,
    which ``why`` then explains.
    """

    placed: Placed | None
    why: str
    foreseen: Foreseen
    bytes_staged: int
    execution: Execution | None

    @property
    def sent(self) -> tuple[str, ...]:
        """The fragments whose few rows go with the statement."""
        ...

    def stage_early(self, name: str, restored: duckdb.DuckDBPyRelation) -> ds.Dataset | None:
        """Stages a delivery while it arrives.

        :param restored: its rows, as they are meant.
        :returns: what has been staged, to be read here should the residual stay; None where it
            cannot be staged, and nothing has been read of it.
        """
        ...

    def run(
        self,
        plan: Placed,
        deliveries: Mapping[str, Delivery],
        taken: Mapping[str, FetchMetrics],
        labels: Callable[[], Labels],
    ) -> Left | None:
        """Runs what it can over what has arrived; None: all of it stays, and what the engine was
        to read by itself has still to be fetched.

        :param taken: what each fragment took.
        :param labels: the labels of whatever the plan reads.
        :raises Error: what the engine said.
        """
        ...

    def metrics(self) -> dict[str, Any] | None:
        """What it took; None where the engine was not asked."""
        ...

    def taken(self) -> EngineRun | None:
        """The same for the history; when it has ended."""
        ...

    def cancel(self) -> None: ...

    def release(self) -> None:
        """Ends what still runs there; nothing stays staged."""
        ...

    def drop_spilled(self) -> None: ...


class ResidualEngine(Protocol):
    """An engine of a connection; one elsewhere is contacted when a residual is first sent there."""

    name: str
    is_here: bool
    """Whether it is the DuckDB of this process, which needs no word in a plan."""

    @property
    def from_bytes(self) -> int:
        """Of what has arrived, or is thought to: from here on a residual goes there."""
        ...

    def check(self) -> SourceCheck | None:
        """Whether it answers, and can be given rows; None where that goes without saying."""
        ...

    def foresee(self, plan: Placed, labels: Callable[[], Labels]) -> Foreseen: ...

    def residual(
        self, cursor: duckdb.DuckDBPyConnection, stop: Stop, sql: str, foreseen: Foreseen
    ) -> ResidualRun:
        """For one query.

        :param cursor: the query's own.
        """
        ...

    def close(self) -> None: ...
