"""What a plan will take: the estimates of its fragments, and their sum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Confidence = Literal["exact", "estimated", "unknown"]

_ORDER: tuple[Confidence, ...] = ("exact", "estimated", "unknown")


@dataclass(frozen=True)
class Estimate:
    """What a query or a fragment will take.

    :param bytes_scanned: bytes that the sources read; None where that is not known.
    :param rows: rows that the fragments deliver; None where that is not known.
    :param usd: price in US dollars; None where no price is known. Of a price that is known in part
        only, that part: ``missing`` then says what is not in it.
    :param credits: warehouse credits; None where the source has none.
    :param confidence: ``exact``, ``estimated`` or ``unknown``: of the price where the source has
        one, else of ``bytes_scanned``.
    :param basis: what it rests on.
    :param fragments: the estimate of each fragment.
    :param source: the source's name; empty for a sum.
    :param seconds: time at the source; None where that is not known.
    :param bytes_delivered: bytes of Arrow data that come back; None where that is not known.
    :param dbus: Databricks units; None where the source has none.
    :param priced: whether the source charges, by its ``pricing``.
    :param missing: what would have to be known for the whole price.
    :param rows_confidence: of ``rows`` and ``bytes_delivered``.
    :param factor: what past runs have taught to multiply ``rows`` by; None: nothing, or 1.
    :param reasons: why somebody is asked before the run, or it is refused: limits that it reaches.
    """

    bytes_scanned: float | None = None
    rows: float | None = None
    usd: float | None = None
    credits: float | None = None
    confidence: Confidence = "unknown"
    basis: str = ""
    fragments: tuple[Estimate, ...] = ()
    source: str = ""
    seconds: float | None = None
    bytes_delivered: float | None = None
    dbus: float | None = None
    priced: bool = False
    missing: tuple[str, ...] = ()
    rows_confidence: Confidence = "unknown"
    factor: float | None = None
    reasons: tuple[str, ...] = ()

    @property
    def at_least(self) -> bool:
        """Whether ``usd`` is only a part of the price."""
        return bool(self.missing)

    def priced_parts(self) -> Iterator[Estimate]:
        """The fragments whose sources charge; the estimate itself where it is of one fragment."""
        for part in self.fragments or (self,):
            if part.priced:
                yield part

    @property
    def cost_confidence(self) -> Confidence:
        """How sure the price is: of the sources that charge alone."""
        return worst(p.confidence for p in self.priced_parts())


def worst(confidences: Iterable[Confidence]) -> Confidence:
    """The least sure of some; ``exact`` for none."""
    return max(confidences, key=_ORDER.index, default="exact")


def total(parts: Sequence[Estimate]) -> Estimate:
    """The sum. What is not known of a part is not known of the sum, the price apart: there the sum
    is of what is known, and ``missing`` says what is not in it. Sources without a price are free.
    """
    if not parts:
        basis = "nothing is read from a source"
        return Estimate(
            0.0, 0.0, confidence="exact", basis=basis, rows_confidence="exact", bytes_delivered=0.0
        )
    priced = [p for p in parts if p.priced]
    known = [p.usd for p in parts if p.usd is not None]
    return Estimate(
        bytes_scanned=_sum([p.bytes_scanned for p in parts]),
        rows=_sum([p.rows for p in parts]),
        usd=sum(known) if known else None,
        credits=_sum_of_known([p.credits for p in parts]),
        confidence=worst(p.confidence for p in parts),
        basis="; ".join(dict.fromkeys(p.basis for p in parts if p.basis)),
        fragments=tuple(parts),
        bytes_delivered=_sum([p.bytes_delivered for p in parts]),
        dbus=_sum_of_known([p.dbus for p in parts]),
        priced=bool(priced),
        missing=tuple(dict.fromkeys(m for p in parts for m in p.missing)),
        rows_confidence=worst(p.rows_confidence for p in parts),
    )


def _sum(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) if len(known) == len(values) else None


def _sum_of_known(values: Sequence[float | None]) -> float | None:
    """Of units that only some sources have."""
    known = [v for v in values if v is not None]
    return sum(known) if known else None
