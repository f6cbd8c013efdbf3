"""What an engine for residuals is, beside the DuckDB of this process (``engines/duckdb.py``).

A residual goes there in three steps: what is foreseen before anything is fetched (``Foreseen``);
the rows of the fragments, staged while they arrive where they are many; and the residual itself,
placed over what is staged, whose rows come back as deliveries like those of any fragment.
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


class ResidualRun(Protocol):
    """One query's residual on an engine, once.

    ``placed`` is what is placed there and here, None while, and where, all of it stays here, which
    ``why`` then explains.
    """

    placed: Placed | None
    why: str
    foreseen: Foreseen
    bytes_staged: int
    execution: Execution | None

    def stage_early(self, name: str, restored: duckdb.DuckDBPyRelation) -> ds.Dataset | None:
        """Stages a delivery while it arrives.

        :param restored: its rows, as they are meant.
        :returns: what has been staged, to be read here should the residual stay; None where it
            cannot be staged, and nothing has been read of it.
        """
        ...

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
        ...

    def metrics(self) -> dict[str, Any] | None:
        """What it took; None where the engine was not asked."""
        ...

    def cancel(self) -> None: ...

    def release(self) -> None:
        """Ends what still runs there; nothing stays staged."""
        ...

    def drop_spilled(self) -> None: ...


class ResidualEngine(Protocol):
    """An engine of a connection; it is contacted when a residual is first sent there."""

    name: str

    @property
    def from_bytes(self) -> int:
        """Of what has arrived, or is thought to: from here on a residual goes there."""
        ...

    def check(self) -> SourceCheck:
        """Whether it answers, and can be given rows."""
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
