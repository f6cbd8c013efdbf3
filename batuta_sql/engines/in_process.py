"""The DuckDB of this process as an engine of residuals: it runs all of each, and what another
engine leaves of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batuta_sql.engines.base import Foreseen, Left

if TYPE_CHECKING:
    import duckdb
    import pyarrow.dataset as ds

    from batuta_sql.exchange.fetch import FetchMetrics, Stop
    from batuta_sql.execution import Execution
    from batuta_sql.labels import Labels
    from batuta_sql.plan.placement import Placed
    from batuta_sql.plan.unparse import Delivery


class InProcess:
    """See ``ResidualEngine``. It costs nothing, and reads what has arrived where it arrived."""

    name = "duckdb"
    is_here = True
    from_bytes = 0

    def check(self) -> None:
        """There is nothing that could be missing."""

    def foresee(self, plan: Placed, labels: Callable[[], Labels]) -> Foreseen:
        return Foreseen()

    def residual(
        self, cursor: duckdb.DuckDBPyConnection, stop: Stop, sql: str, foreseen: Foreseen
    ) -> InProcessResidual:
        return InProcessResidual(foreseen)

    def close(self) -> None:
        """The engine is the connection's own."""


@dataclass
class InProcessResidual:
    """See ``ResidualRun``."""

    foreseen: Foreseen
    placed: Placed | None = None
    why: str = ""
    bytes_staged: int = 0
    sent: tuple[str, ...] = ()
    execution: Execution | None = None

    def stage_early(self, name: str, restored: duckdb.DuckDBPyRelation) -> ds.Dataset | None:
        return None

    def run(
        self,
        plan: Placed,
        deliveries: Mapping[str, Delivery],
        taken: Mapping[str, FetchMetrics],
        labels: Callable[[], Labels],
    ) -> Left:
        return Left(plan, deliveries)

    def metrics(self) -> dict[str, Any] | None:
        return None

    def taken(self) -> None:
        """Its time is the query's own."""

    def cancel(self) -> None:
        """Whoever ends the query interrupts its cursor."""

    def release(self) -> None:
        """Nothing is held."""

    def drop_spilled(self) -> None:
        """Nothing was spilled beside what the query's own execution knows."""
