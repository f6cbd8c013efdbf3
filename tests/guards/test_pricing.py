"""Figures to dollars."""

from __future__ import annotations

from typing import Any

import pytest

import batuta_sql
from batuta_sql.config import load_settings
from batuta_sql.guards.pricing import billed, price, unpriceable
from batuta_sql.plan.cost import Estimate, total
from batuta_sql.source_settings import PricingSettings
from batuta_sql.sources.base import SourceEstimate, Usage
from batuta_sql.units import dollars, size
from batuta_sql.warehouses import CREDITS, DBUS, per_hour

TB, TIB = 10**12, 2**40


def priced(found: SourceEstimate, **pricing: Any) -> Estimate:
    (estimate,) = price("s", [found], PricingSettings(**pricing))
    return estimate


def scanned(bytes_: float | None, confidence: str = "estimated", **more: Any) -> SourceEstimate:
    return SourceEstimate(bytes_scanned=bytes_, confidence=confidence, basis="told", **more)


def test_five_terabytes_at_five_dollars() -> None:
    found = priced(scanned(5 * TB), usd_per_tb_scanned=5.0)
    assert (found.usd, found.confidence, found.priced) == (25.0, "estimated", True)
    assert "$5.00 per TB" in found.basis
    assert priced(scanned(5 * TIB), usd_per_tib_scanned=6.25).usd == 31.25


def test_what_is_billed_goes_before_what_is_read() -> None:
    # BigQuery bills 10 MB of a table at the least.
    found = priced(scanned(1000, "exact", bytes_billed=10**7), usd_per_tb_scanned=TB)
    assert (found.usd, found.confidence) == (10**7, "exact")
    assert found.bytes_scanned == 1000


def test_without_a_price_a_source_is_free() -> None:
    found = priced(scanned(5 * TB))
    assert (found.usd, found.priced, found.missing) == (None, False, ())
    assert priced(scanned(5 * TB), usd_per_tb_scanned=0).usd == 0.0


def test_what_is_not_known_has_no_price_and_is_named() -> None:
    found = priced(scanned(None), usd_per_tb_scanned=5)
    assert (found.usd, found.confidence, found.missing) == (None, "unknown", ("s: bytes scanned",))
    unsure = priced(scanned(TB, "unknown"), usd_per_tb_scanned=5)
    assert (unsure.usd, unsure.confidence) == (None, "unknown")
    nothing = unpriceable("s", "it is away", PricingSettings(usd_per_tb_scanned=5))
    assert (nothing.usd, nothing.basis) == (None, "it is away")


def test_a_price_known_in_part_says_at_least() -> None:
    found = priced(scanned(TB), usd_per_tb_scanned=5, usd_per_gb_egress=0.1)
    assert found.usd == 5.0
    assert found.at_least
    assert found.confidence == "unknown"
    assert found.missing == ("s: bytes delivered",)


def test_egress_is_as_sure_as_the_rows_are() -> None:
    found = scanned(TB, "exact", bytes_delivered=2 * 10**9, rows_confidence="estimated")
    both = priced(found, usd_per_tb_scanned=5, usd_per_gb_egress=0.5)
    assert (both.usd, both.confidence) == (6.0, "estimated")
    assert priced(found, usd_per_tb_scanned=5).confidence == "exact"


@pytest.mark.parametrize(
    ("seconds", "resumes", "credits"),
    [
        (3600, None, 4.0),
        (90, True, 0.1),
        (10, False, 4 * 10 / 3600),
        # Resumed, or perhaps: at least 60 seconds.
        (10, True, 4 / 60),
        (10, None, 4 / 60),
    ],
)
def test_credits_by_the_second(seconds: float, resumes: bool | None, credits: float) -> None:  # noqa: A002
    found = priced(
        SourceEstimate(seconds=seconds, resumes=resumes, confidence="estimated"),
        usd_per_credit=3,
        warehouse_size="Medium",
    )
    assert found.credits == pytest.approx(credits)
    assert found.usd == pytest.approx(3 * credits)


def test_the_minimum_of_a_resume_is_billed_once() -> None:
    both = price(
        "s",
        [SourceEstimate(seconds=s, confidence="estimated") for s in (10.0, 20.0)],
        PricingSettings(usd_per_credit=1, warehouse_size="XS"),
    )
    assert sum(e.credits or 0 for e in both) == pytest.approx(1 / 60)


def test_the_size_may_come_from_the_source_and_the_rate_from_the_user() -> None:
    hour = SourceEstimate(seconds=3600, confidence="estimated", warehouse_size="LARGE")
    assert priced(hour, usd_per_credit=1).usd == 8
    assert priced(hour, usd_per_credit=1, credits_per_hour=10.8).usd == 10.8
    assert priced(hour, usd_per_dbu=0.5).usd == 20
    assert priced(hour, usd_per_dbu=0.5, warehouse_size="2X-Small").usd == 2
    sizeless = SourceEstimate(seconds=3600, confidence="estimated")
    assert priced(sizeless, usd_per_credit=1).missing == ("s: credits",)


def test_credits_that_the_source_tells() -> None:
    told = SourceEstimate(credits=0.25, confidence="exact")
    assert (priced(told, usd_per_credit=4).usd, priced(told, usd_per_credit=4).credits) == (1, 0.25)


@pytest.mark.parametrize("size", ["X-Small", "XSMALL", "xs", "x_small"])
def test_sizes_in_every_spelling(size: str) -> None:
    assert per_hour(size, CREDITS) == 1
    assert per_hour(size, DBUS) == 6


def test_each_size_of_a_warehouse_takes_twice_the_credits() -> None:
    values = list(CREDITS.values())
    assert values == [2**n for n in range(10)]
    assert per_hour("2XL", CREDITS) == per_hour("XXLARGE", CREDITS) == 32
    assert per_hour("Huge", CREDITS) is None


def test_the_sum_is_of_what_is_known() -> None:
    free = price("f", [scanned(None, "unknown")], PricingSettings())[0]
    five = priced(scanned(TB), usd_per_tb_scanned=5)
    away = unpriceable("b", "it is away", PricingSettings(usd_per_tb_scanned=5))
    assert total([free]).usd is None
    assert (total([free, five]).usd, total([free, five]).at_least) == (5.0, False)
    assert total([free, five]).cost_confidence == "estimated"
    partly = total([five, away])
    assert (partly.usd, partly.at_least, partly.confidence) == (5.0, True, "unknown")
    assert (total([away]).usd, total([away]).at_least) == (None, True)


def test_what_was_billed() -> None:
    pricing = PricingSettings(usd_per_tb_scanned=5, usd_per_gb_egress=1)
    assert billed(Usage(bytes=TB), 10**9, pricing) == 6
    assert billed(Usage(), 10**9, pricing) is None
    assert billed(Usage(credits=2), None, PricingSettings(usd_per_credit=3)) == 6


@pytest.mark.parametrize(
    ("pricing", "says"),
    [
        ({"usd_per_tb_scanned": 1, "usd_per_tib_scanned": 1}, "not both"),
        ({"usd_per_credit": 1, "warehouse_size": "Huge"}, "no warehouse size"),
        ({"usd_per_dbu": 1, "warehouse_size": "6X-Large"}, "no warehouse size"),
        ({"budget_usd": 100}, "needs a price"),
        ({"usd_per_tb_scaned": 1}, "usd_per_tb_scanned"),
    ],
)
def test_pricing_that_makes_no_sense(pricing: dict[str, Any], says: str) -> None:
    source = {"kind": "sqlite", "path": "x", "pricing": pricing}
    with pytest.raises(batuta_sql.ConfigError, match=says):
        load_settings({"sources": {"s": source}})


def test_a_budget_needs_the_history() -> None:
    pricing = {"usd_per_tb_scanned": 1, "budget_usd": 100}
    config = {"sources": {"s": {"kind": "sqlite", "path": "x", "pricing": pricing}}}
    assert load_settings(config).sources["s"].pricing.budget_usd == 100
    with pytest.raises(batuta_sql.ConfigError, match=r"sources\.s\.pricing\.budget_usd"):
        load_settings({**config, "cost": {"history": False}})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (5 * TB, "5.0 TB"), (12.34e9, "12.3 GB"),
        (999_960, "1.0 MB"), (1.5e18, "1,500.0 PB"),
    ],
)  # fmt: skip
def test_sizes(value: float, shown: str) -> None:
    assert size(value) == shown


@pytest.mark.parametrize(
    ("usd", "shown"),
    [(25, "$25.00"), (1234.5, "$1,234.50"), (0, "$0.00"), (0.004, "$0.004"), (1e-9, "less than")],
)
def test_amounts_are_never_rounded_to_nothing(usd: float, shown: str) -> None:
    assert dollars(usd).startswith(shown)


def test_a_warehouse_without_a_configured_price_is_not_free() -> None:
    (found,) = price("w", [SourceEstimate(bytes_scanned=5e12)], PricingSettings(), bills=True)
    assert (found.priced, found.usd, found.confidence) == (True, None, "unknown")
    assert found.missing == ("w: a price: sources.w.pricing",)
    (free,) = price("w", [SourceEstimate(bytes_scanned=5e12)], PricingSettings())
    assert (free.priced, free.usd, free.missing) == (False, None, ())


@pytest.mark.parametrize(
    ("settings", "charges"),
    [
        ({"kind": "snowflake", "account": "a"}, True),
        ({"kind": "databricks", "host": "h"}, True),
        ({"kind": "bigquery", "project": "p"}, True),
        ({"kind": "sqlite", "path": "p"}, False),
        ({"kind": "sqlite", "path": "p", "pricing": {"usd_per_gb_egress": 0.1}}, True),
    ],
)
def test_who_charges(settings: dict[str, object], charges: bool) -> None:
    assert load_settings({"sources": {"s": settings}}).sources["s"].charges is charges
