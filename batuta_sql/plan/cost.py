"""What a plan will take: the estimates of its fragments, and their sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Confidence = Literal["exact", "estimated", "unknown"]


@dataclass(frozen=True)
class Estimate:
    """What a query or a fragment will take.

    :param bytes_scanned: bytes that the sources read; None where that is not known.
    :param rows: rows that the fragments deliver; None where that is not known.
    :param usd: price in US dollars; None where no price is known.
    :param credits: warehouse credits; None where the source has none.
    :param confidence: ``exact``, ``estimated`` or ``unknown``.
    :param basis: what it rests on.
    :param fragments: the estimate of each fragment.
    """

    bytes_scanned: float | None = None
    rows: float | None = None
    usd: float | None = None
    credits: float | None = None
    confidence: Confidence = "unknown"
    basis: str = ""
    fragments: tuple[Estimate, ...] = ()


def total(parts: Sequence[Estimate]) -> Estimate:
    """The sum; what is not known of a part is not known of the sum."""
    if not parts:
        return Estimate(0.0, 0.0, confidence="exact", basis="nothing is read from a source")
    order: tuple[Confidence, ...] = ("exact", "estimated", "unknown")
    return Estimate(
        bytes_scanned=_sum([p.bytes_scanned for p in parts]),
        rows=_sum([p.rows for p in parts]),
        usd=_sum([p.usd for p in parts]),
        credits=_sum([p.credits for p in parts]),
        confidence=max((p.confidence for p in parts), key=order.index),
        basis="; ".join(dict.fromkeys(p.basis for p in parts if p.basis)),
        fragments=tuple(parts),
    )


def _sum(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) if len(known) == len(values) else None
