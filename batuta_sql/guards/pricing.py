"""What a source's figures cost: ``SourceEstimate`` and ``PricingSettings`` -> ``Estimate``.

- Scanned: ``bytes_billed`` (else ``bytes_scanned``) / 10^12 * ``usd_per_tb_scanned``, or / 2^40 *
  ``usd_per_tib_scanned``.
- Egress: ``bytes_delivered`` / 10^9 * ``usd_per_gb_egress``.
- Credits: seconds / 3600 * credits per hour of the warehouse * ``usd_per_credit``; seconds of all
  fragments of the query together, and at least 60 where the warehouse has to resume, or may have
  to.
- DBUs: seconds / 3600 * DBUs per hour of the warehouse * ``usd_per_dbu``.

Credits and DBUs that the source itself tells go before those computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from batuta_sql.plan.cost import Confidence, Estimate, worst
from batuta_sql.source_settings import PricingSettings
from batuta_sql.sources.base import SourceEstimate, Usage
from batuta_sql.units import dollars
from batuta_sql.warehouses import CREDITS, DBUS, SNOWFLAKE_MINIMUM_SECONDS, per_hour

TB = 10**12
TIB = 2**40
GB = 10**9


@dataclass(frozen=True)
class _Part:
    """One component of a price: dollars (None: not known), how sure, and of what."""

    usd: float | None
    confidence: Confidence
    words: str


def confidence_of(text: str) -> Confidence:
    """A source's word; anything else than the two known ones knows nothing."""
    match text:
        case "exact":
            return "exact"
        case "estimated":
            return "estimated"
    return "unknown"


def price(
    source: str,
    found: Sequence[SourceEstimate],
    pricing: PricingSettings,
    *,
    bills: bool = False,
) -> list[Estimate]:
    """The estimates of one query's fragments on one source, in their order.

    :param bills: whether the source charges even where no price is configured.
    """
    seconds = _billed_seconds(found)
    return [_priced(source, f, s, pricing, bills) for f, s in zip(found, seconds, strict=True)]


def _billed_seconds(found: Sequence[SourceEstimate]) -> list[float | None]:
    """The seconds of each fragment with its share of the minimum of a warehouse that resumes.

    The minimum is billed once for a resume, not once for each statement.
    """
    known = [f.seconds for f in found if f.seconds is not None]
    sum_ = sum(known)
    if not known or any(f.resumes is False for f in found) or sum_ >= SNOWFLAKE_MINIMUM_SECONDS:
        return [f.seconds for f in found]
    missing = SNOWFLAKE_MINIMUM_SECONDS - sum_
    return [f.seconds + missing / len(known) if f.seconds is not None else None for f in found]


def _priced(
    source: str,
    found: SourceEstimate,
    resumed: float | None,
    pricing: PricingSettings,
    bills: bool,
) -> Estimate:
    confidence = confidence_of(found.confidence)
    rows_confidence = confidence_of(found.rows_confidence or found.confidence)
    parts: list[_Part] = []
    consumed = dbus = None
    scanned = found.bytes_billed if found.bytes_billed is not None else found.bytes_scanned
    if pricing.usd_per_tb_scanned is not None:
        each = pricing.usd_per_tb_scanned
        parts.append(_part(scanned, TB, each, confidence, "bytes scanned", "TB scanned"))
    if pricing.usd_per_tib_scanned is not None:
        each = pricing.usd_per_tib_scanned
        parts.append(_part(scanned, TIB, each, confidence, "bytes scanned", "TiB scanned"))
    if pricing.usd_per_credit is not None:
        consumed = found.credits
        if consumed is None:
            hourly = pricing.credits_per_hour or _hourly(pricing, found, CREDITS)
            consumed = _consumed(resumed, hourly)
        each = pricing.usd_per_credit
        parts.append(_part(consumed, 1, each, confidence, "credits", "credit"))
    if pricing.usd_per_dbu is not None:
        dbus = found.dbus
        if dbus is None:
            hourly = pricing.dbus_per_hour or _hourly(pricing, found, DBUS)
            dbus = _consumed(found.seconds, hourly)
        parts.append(_part(dbus, 1, pricing.usd_per_dbu, confidence, "DBUs", "DBU"))
    if pricing.usd_per_gb_egress is not None:
        each, delivered = pricing.usd_per_gb_egress, found.bytes_delivered
        parts.append(_part(delivered, GB, each, rows_confidence, "bytes delivered", "GB egress"))
    if bills and not parts:
        parts.append(_Part(None, "unknown", f"a price: sources.{source}.pricing"))
    known = [p.usd for p in parts if p.usd is not None]
    prices = [p.words for p in parts if p.usd is not None]
    return Estimate(
        bytes_scanned=found.bytes_scanned,
        rows=found.rows,
        usd=sum(known) if known else None,
        credits=consumed if consumed is not None else found.credits,
        confidence=worst(p.confidence for p in parts) if parts else confidence,
        basis=" at ".join(b for b in (found.basis, " and ".join(prices)) if b),
        source=source,
        seconds=found.seconds,
        bytes_delivered=found.bytes_delivered,
        dbus=dbus if dbus is not None else found.dbus,
        priced=bool(parts),
        missing=tuple(f"{source}: {p.words}" for p in parts if p.usd is None),
        rows_confidence=rows_confidence,
    )


def _part(
    quantity: float | None,
    unit: int,
    usd: float,
    confidence: Confidence,
    what: str,
    priced_by: str,
) -> _Part:
    if quantity is None or confidence == "unknown":
        return _Part(None, "unknown", what)
    return _Part(quantity / unit * usd, confidence, f"{dollars(usd)} per {priced_by}")


def _hourly(
    pricing: PricingSettings, found: SourceEstimate, table: dict[str, float]
) -> float | None:
    size = pricing.warehouse_size or found.warehouse_size
    return per_hour(size, table) if size is not None else None


def _consumed(seconds: float | None, hourly: float | None) -> float | None:
    return seconds / 3600 * hourly if seconds is not None and hourly is not None else None


def billed(usage: Usage, delivered: float | None, pricing: PricingSettings) -> float | None:
    """What a finished fragment has cost, in US dollars; None where the source does not tell.

    :param delivered: bytes that came back.
    """
    # The minimum of a warehouse that resumed is in the seconds that were billed, if at all.
    told = SourceEstimate(
        bytes_scanned=usage.bytes,
        seconds=usage.seconds,
        credits=usage.credits,
        dbus=usage.dbus,
        bytes_delivered=delivered,
        confidence="exact",
        resumes=False,
    )
    (found,) = price("", [told], pricing)
    return None if found.missing else found.usd


def unpriceable(source: str, reason: str, pricing: PricingSettings) -> Estimate:
    """The estimate of a fragment of which its source could tell nothing."""
    (found,) = price(source, [SourceEstimate(basis=reason)], pricing)
    return replace(found, basis=reason)
