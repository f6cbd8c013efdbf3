"""The question, the refusal, and that nothing is sent before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batuta_sql
from batuta_sql.config import CostSettings
from batuta_sql.guards.cost import Budget, CostGuard, question
from batuta_sql.plan.cost import Estimate, total
from tests.guards.conftest import ROWS, Opened, Shop

TB = 10**12


def part(usd: float | None, source: str = "s", **more: Any) -> Estimate:
    missing = (f"{source}: bytes scanned",) if usd is None else ()
    confidence: Any = "unknown" if usd is None else "estimated"
    return Estimate(
        usd=usd, source=source, priced=True, missing=missing, confidence=confidence, **more
    )


# --- the limits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usd", "decision"),
    [(0.0, "run"), (0.99, "run"), (1.0, "ask"), (49.99, "ask"), (50.0, "refuse"), (1e6, "refuse")],
)
def test_a_limit_is_reached_at_its_amount(usd: float, decision: str) -> None:
    assert CostGuard(CostSettings()).judge(total([part(usd)])).decision == decision


@pytest.mark.parametrize(
    ("on_unknown", "decision"), [("allow", "run"), ("warn", "ask"), ("stop", "refuse")]
)
def test_an_unknown_price_follows_on_unknown(on_unknown: Any, decision: str) -> None:
    guard = CostGuard(CostSettings(on_unknown=on_unknown))
    assert guard.judge(total([part(None)])).decision == decision
    # What is known of a price that is not known whole holds all the same.
    assert guard.judge(total([part(None), part(50.0)])).decision == "refuse"


def test_a_source_without_a_price_is_never_asked_about() -> None:
    free = Estimate(confidence="unknown", source="f")
    guard = CostGuard(CostSettings(on_unknown="stop", warn_usd=0))
    assert guard.judge(total([free])).decision == "run"


def test_the_lower_of_two_limits_holds_and_is_named() -> None:
    settings = CostSettings(stop_usd=50, max_cost_usd=5)
    (reason,) = CostGuard(settings).judge(total([part(6)])).reasons
    assert "max_cost_usd is $5.00" in reason
    assert "on s is $6.00" in reason
    settings = CostSettings(stop_usd=50, max_cost_usd=100)
    assert "stop_usd is $50.00" in CostGuard(settings).judge(total([part(60)])).reasons[0]


def test_neither_yes_nor_confirm_lifts_a_limit() -> None:
    guard = CostGuard(CostSettings(stop_usd=5), lambda _: True)
    with pytest.raises(batuta_sql.CostRefused, match="stop_usd") as caught:
        guard.authorise(total([part(5)]))
    assert caught.value.exit_status == 3
    assert "narrower WHERE" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("spent", "usd", "decision"),
    [(0, 0.5, "run"), (79, 0.5, "run"), (79.5, 0.5, "ask"), (99.5, 0.5, "ask"),
     (99.6, 0.5, "refuse")],
)  # fmt: skip
def test_a_budget_asks_from_80_percent_and_ends_at_100(
    spent: float, usd: float, decision: str
) -> None:
    verdict = CostGuard(CostSettings()).judge(total([part(usd)]), {"s": Budget(100, spent)})
    assert verdict.decision == decision
    if decision != "run":
        assert "budget" in verdict.reasons[0]


def test_a_budget_that_cannot_be_read_is_an_unknown() -> None:
    budgets = {"s": Budget(100, None, "the disk is full")}
    verdict = CostGuard(CostSettings()).judge(total([part(0.1)]), budgets)
    assert verdict.decision == "ask"
    assert "the disk is full" in verdict.reasons[0]


# --- the words ---------------------------------------------------------------------------------


def test_the_question_is_the_issues_own() -> None:
    asked = question(total([part(25.0, "warehouse", bytes_scanned=5 * TB)]))
    assert asked == (
        "This query will scan 5.0 TB on warehouse. Estimated cost: $25.00 (estimated)."
        " Proceed? [y/N] "
    )


def test_the_question_never_shows_an_unknown_as_nothing() -> None:
    asked = question(total([part(None, "a"), part(2.0, "b", bytes_scanned=1e9)]))
    assert "an unknown amount on a and 1.0 GB on b" in asked
    assert "at least $2.00" in asked
    assert "$0" not in question(total([part(None, "a")]))


# --- a real source -----------------------------------------------------------------------------


def statements(shop: Shop) -> dict[str, str]:
    name = shop.name
    return {
        "a query": f"SELECT id FROM {name}",
        "a local table": f"CREATE TABLE mine AS SELECT id FROM {name}",
        "EXPLAIN ANALYZE": f"EXPLAIN ANALYZE SELECT count(*) FROM {name}",
        "a PIVOT": f"PIVOT {name} ON id % 2 USING count(*)",
        "a fallback block": f"SELECT * FROM {name} USING SAMPLE 5 ROWS",
        "text that only DuckDB reads": f"FROM {name} SELECT COLUMNS('id') ORDER BY ALL LIMIT 3",
        "a subquery": f"SELECT (SELECT max(id) FROM {name}) + 1",
        "a recursive query": f"WITH RECURSIVE r AS (SELECT min(id) AS n FROM {name} UNION ALL"
        f" SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r",
    }


@pytest.mark.parametrize(
    "what",
    ["a query", "a local table", "EXPLAIN ANALYZE", "a PIVOT", "a fallback block",
     "text that only DuckDB reads", "a subquery", "a recursive query"],
)  # fmt: skip
def test_nothing_runs_that_nobody_permitted(what: str, opened: Opened, shop: Shop) -> None:
    sql = statements(shop)[what]
    with pytest.raises(batuta_sql.CostRefused, match=r"on shop is .*warn_usd"):
        opened(cost={"warn_usd": 0.000001}).execute(sql).fetchall()
    with pytest.raises(batuta_sql.CostRefused, match=r"stop_usd"):
        limits = {"warn_usd": 0, "stop_usd": 0.000001}
        opened(cost=limits, confirm=lambda _: True).execute(sql).fetchall()
    with pytest.raises(batuta_sql.CostRefused, match="not confirmed"):
        opened(cost={"warn_usd": 0}, confirm=lambda _: False).execute(sql).fetchall()
    assert shop.sent(), "the log shows nothing: the test proves nothing"
    assert shop.ran() == []
    cursor = opened(cost={"warn_usd": 100, "stop_usd": 1000}).execute(sql)
    if cursor.description is not None:
        cursor.fetchall()
    assert shop.ran()


@pytest.mark.parametrize("form", ["DESCRIBE {}", "EXPLAIN {}", "CREATE VIEW w AS {}"])
def test_what_only_looks_at_a_query_reads_nothing(form: str, opened: Opened, shop: Shop) -> None:
    """DuckDB reads a table to find the columns of a PIVOT: that is a read like any other."""
    connection = opened(cost={"warn_usd": 0.000001})
    pivot = f"SELECT * FROM (PIVOT {shop.name} ON id % 2 USING count(*))"
    connection.execute(form.format(f"SELECT id FROM {shop.name}"))
    with pytest.raises(batuta_sql.Error) as caught:
        connection.execute(form.format(pivot))
    assert isinstance(caught.value, batuta_sql.CostRefused) == form.startswith("DESCRIBE")
    assert shop.ran() == []


def test_executemany_asks_for_each(opened: Opened, shop: Shop) -> None:
    asked: list[Estimate] = []

    def confirm(estimate: Estimate) -> bool:
        asked.append(estimate)
        return len(asked) < 2

    cursor = opened(cost={"warn_usd": 0}, confirm=confirm).cursor()
    with pytest.raises(batuta_sql.CostRefused):
        cursor.executemany(f"SELECT name FROM {shop.name} WHERE id = ?", [[1], [2], [3]])
    assert len(asked) == 2
    assert len(shop.ran()) == 1


def test_confirm_gets_the_estimate(opened: Opened, shop: Shop) -> None:
    asked: list[Estimate] = []
    connection = opened(confirm=lambda e: asked.append(e) or True)
    cursor = connection.execute(f"SELECT id FROM {shop.name}")
    assert len(cursor.fetchall()) == ROWS
    (estimate,) = asked
    assert estimate.usd == pytest.approx(10.0)
    assert estimate.bytes_scanned == shop.bytes
    assert estimate.confidence == "estimated"
    assert estimate.rows == pytest.approx(ROWS, rel=0.05)
    assert "EXPLAIN" in estimate.basis
    assert "warn_usd is $1.00" in estimate.reasons[0]
    assert [f.source for f in estimate.fragments] == ["shop"]
    figures = cursor.metrics
    assert figures["estimate"].usd == estimate.usd
    (fragment,) = figures["fragments"]
    assert fragment["rows"] == ROWS
    assert fragment["estimate"].rows == estimate.rows


def test_max_cost_holds_beside_stop_usd(opened: Opened, shop: Shop) -> None:
    sql = f"SELECT id FROM {shop.name}"
    with pytest.raises(batuta_sql.CostRefused, match=r"max_cost_usd is \$5\.00"):
        opened(max_cost_usd=5, confirm=lambda _: True).execute(sql)
    with pytest.raises(batuta_sql.CostRefused, match=r"stop_usd is \$9\.00"):
        opened(cost={"stop_usd": 9}, max_cost_usd=100, confirm=lambda _: True).execute(sql)
    assert shop.ran() == []
    # Nobody set stop_usd: its default is not held against a higher limit that somebody gave.
    priced = {"usd_per_tb_scanned": 8 * shop.usd_per_tb}
    run = opened(pricing=priced, max_cost_usd=100, confirm=lambda _: True).execute(sql)
    assert len(run.fetchall()) == ROWS


def test_a_source_whose_seconds_nobody_knows(opened: Opened, shop: Shop) -> None:
    priced = {"usd_per_credit": 3, "warehouse_size": "X-Small"}
    sql = f"SELECT count(*) FROM {shop.name}"
    estimate = opened(pricing=priced).estimate(sql)
    assert (estimate.usd, estimate.confidence, estimate.priced) == (None, "unknown", True)
    for on_unknown in ("warn", "stop"):
        with pytest.raises(batuta_sql.CostRefused, match="not known"):
            opened(cost={"on_unknown": on_unknown}, pricing=priced).execute(sql)
    assert shop.ran() == []
    allowed = opened(cost={"on_unknown": "allow"}, pricing=priced).execute(sql)
    assert allowed.fetchall() == [(ROWS,)]


def test_a_free_source_is_never_asked_about(opened: Opened, shop: Shop) -> None:
    cost = {"warn_usd": 0, "stop_usd": 0, "on_unknown": "stop"}
    rows = opened(cost=cost, pricing={}).execute(f"SELECT count(*) FROM {shop.name}").fetchall()
    assert rows == [(ROWS,)]


def test_estimates_of_free_sources_may_wait(opened: Opened, shop: Shop) -> None:
    """``priced`` sends nothing beside the query; the metrics ask when they are read."""
    cursor = opened(cost={"estimate": "priced"}, pricing={}).execute(f"SELECT id FROM {shop.name}")
    cursor.fetchall()
    assert shop.sent() == shop.ran() != []
    assert cursor.metrics["estimate"].rows == pytest.approx(ROWS, rel=0.05)
    assert len(shop.sent()) == len(shop.ran()) + 1


def test_estimates_run_nothing(opened: Opened, shop: Shop) -> None:
    connection = opened()
    for sql in statements(shop).values():
        if not sql.startswith("CREATE"):
            assert connection.estimate(sql).usd is not None, sql
    assert shop.ran() == []


def test_a_narrower_where_costs_less(opened: Opened, shop: Shop) -> None:
    database = shop.uri.rsplit("/", 1)[1]
    shop.server.run(f"CREATE INDEX ON {shop.table} (id); ANALYZE {shop.table}", database)
    connection = opened()
    whole = connection.estimate(f"SELECT * FROM {shop.name}").usd
    one = connection.estimate(f"SELECT * FROM {shop.name} WHERE id = 7").usd
    assert one is not None
    assert whole is not None
    assert 0 < one < whole / 100


def test_a_table_that_is_read_twice_by_a_fallback_is_paid_twice(opened: Opened, shop: Shop) -> None:
    asked: list[Estimate] = []
    connection = opened(confirm=lambda e: asked.append(e) or True)
    both = f"SELECT a.id FROM {shop.name} a JOIN {shop.name} b USING (id)"
    sql = f"PIVOT ({both}) ON id % 2 USING count(*)"
    connection.execute(sql).fetchall()
    assert asked[0].usd == pytest.approx(10)
    assert max(e.usd or 0 for e in asked) >= 20


def test_a_fallback_is_asked_about_before_it_begins(opened: Opened, shop: Shop) -> None:
    asked: list[Estimate] = []
    connection = opened(confirm=lambda e: asked.append(e) or True)
    cursor = connection.execute(f"SELECT id FROM {shop.name} USING SAMPLE 5 ROWS")
    assert [e.usd for e in asked] == [pytest.approx(10)]
    assert shop.ran() == []
    assert len(cursor.fetchall()) == 5
    assert len(asked) == 1


def test_egress_is_priced(opened: Opened, shop: Shop) -> None:
    connection = opened(pricing={"usd_per_gb_egress": 1000.0})
    few = connection.estimate(f"SELECT count(*) FROM {shop.name}").usd
    many = connection.estimate(f"SELECT * FROM {shop.name}").usd
    assert few is not None
    assert many == pytest.approx(ROWS * 40 / 10**9 * 1000, rel=0.3)
    assert few < many / 1000


def test_an_estimate_of_two_sources_sums_what_is_priced(
    shop: Shop, opened: Opened, tmp_path: Path
) -> None:
    connection = opened()
    connection.register("local", pa.table({"id": [1, 2]}))
    estimate = connection.estimate(f"SELECT * FROM {shop.name} JOIN local USING (id)")
    assert estimate.usd == pytest.approx(10)
    pq.write_table(pa.table({"id": [1, 2]}), tmp_path / "ids.parquet")
    config = {
        "cost": {"history_file": str(tmp_path / "h.sqlite")},
        "sources": {
            "shop": {
                "kind": "postgresql",
                "uri": shop.uri,
                "pricing": {"usd_per_tb_scanned": shop.usd_per_tb},
            },
            "files": {"kind": "files", "path": str(tmp_path)},
        },
    }
    with batuta_sql.connect(config) as both:
        found = both.estimate(f"SELECT * FROM {shop.name} JOIN files.ids USING (id)")
    assert found.usd == pytest.approx(10)
    assert {f.source: f.priced for f in found.fragments} == {"shop": True, "files": False}
    assert not found.at_least
