"""What past runs teach about estimates: factors that correct the next one.

A factor is the median over runs of actual / estimated, taken of logarithms, so that too high and
too low weigh the same. With ``n`` observations it is drawn towards 1 by n / (n + prior), and it
never leaves 1 / bound to bound. What a statement's own runs say goes before what the source's
others say, where each statement counts once however often it ran, and is believed sooner and
further: prior 2 and bound 1000 instead of 5 and 20. Statements that differ in their constants alone
are the same.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from batuta_sql.sources.base import SourceEstimate

_LEAST = 3
"""Observations below which nothing is corrected."""

_NOTICEABLE = math.log(1.05)


@dataclass(frozen=True)
class Observation:
    """One finished fragment: actual over estimated of each figure; None where either is missing.

    :param shape: which statements count as the same.
    """

    shape: str
    rows: float | None = None
    bytes: float | None = None
    billed: float | None = None


@dataclass(frozen=True)
class Factor:
    """A correction: ``value`` to multiply by, from ``count`` ``what`` ("runs", "statements")."""

    value: float
    count: int
    what: str

    def __str__(self) -> str:
        return f"{self.value:.2g} from {self.count} {self.what}"


@dataclass(frozen=True)
class Learned:
    """What has been observed of one source."""

    observations: Mapping[str, Sequence[Observation]] = field(default_factory=dict)

    @classmethod
    def of(cls, observations: Iterable[Observation]) -> Learned:
        grouped: dict[str, list[Observation]] = {}
        for one in observations:
            grouped.setdefault(one.shape, []).append(one)
        return cls(grouped)

    def factor(self, figure: str, shape: str) -> Factor | None:
        """The correction of ``rows``, ``bytes`` or ``billed`` for a statement; None for none."""
        mine = _logs(self.observations.get(shape, ()), figure)
        if len(mine) >= _LEAST:
            return _factor(mine, "runs of this statement", prior=2, bound=1000)
        medians = [
            statistics.median(logs)
            for runs in self.observations.values()
            if (logs := _logs(runs, figure))
        ]
        if len(medians) < _LEAST:
            return None
        return _factor(medians, "statements", prior=5, bound=20)

    def correct(self, found: SourceEstimate, shape: str) -> tuple[SourceEstimate, Correction]:
        """The estimate with its figures multiplied, where they are estimates at all."""
        rows = bytes_ = billed = None
        if (found.rows_confidence or found.confidence) == "estimated":
            rows = self.factor("rows", shape) if found.rows is not None else None
            bytes_ = self.factor("bytes", shape) if found.bytes_delivered is not None else None
        if found.confidence == "estimated":
            billed = self.factor("billed", shape)
        correction = Correction(rows, bytes_, billed)
        said = str(correction)
        return replace(
            found,
            rows=_times(found.rows, rows),
            bytes_delivered=_times(found.bytes_delivered, bytes_),
            bytes_scanned=_times(found.bytes_scanned, billed),
            bytes_billed=_times(found.bytes_billed, billed),
            seconds=_times(found.seconds, billed),
            credits=_times(found.credits, billed),
            dbus=_times(found.dbus, billed),
            basis=f"{found.basis}, {said}" if said else found.basis,
        ), correction


@dataclass(frozen=True)
class Correction:
    """The factors that an estimate was multiplied by."""

    rows: Factor | None = None
    bytes: Factor | None = None
    billed: Factor | None = None

    def __str__(self) -> str:
        told = [
            f"{what} corrected by {factor}"
            for what, factor in (("rows", self.rows), ("bytes", self.bytes), ("cost", self.billed))
            if factor is not None
        ]
        return ", ".join(told)


def ratio(actual: float | None, estimated: float | None) -> float | None:
    """Actual over estimated; one is added to each, so that nothing divides by 0."""
    if actual is None or estimated is None or actual < 0 or estimated < 0:
        return None
    return (actual + 1) / (estimated + 1)


def ratio_of_usd(actual: float | None, estimated: float | None) -> float | None:
    """As ``ratio``, of amounts that may be far below 1."""
    if actual is None or estimated is None or actual <= 0 or estimated <= 0:
        return None
    return actual / estimated


def _logs(runs: Iterable[Observation], figure: str) -> list[float]:
    values = (getattr(r, figure) for r in runs)
    return [math.log(v) for v in values if v is not None and v > 0]


def _factor(logs: Sequence[float], what: str, *, prior: int, bound: float) -> Factor | None:
    """:param prior: imagined observations of a right estimate."""
    drawn = statistics.median(logs) * len(logs) / (len(logs) + prior)
    bounded = max(-math.log(bound), min(math.log(bound), drawn))
    return Factor(math.exp(bounded), len(logs), what) if abs(bounded) >= _NOTICEABLE else None


def _times(value: float | None, factor: Factor | None) -> float | None:
    return value * factor.value if value is not None and factor is not None else value
