"""What is written down of a run, what is learnt of it, and that it never stands in the way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import batuta_sql
from batuta_sql.config import load_settings
from batuta_sql.costing import place_of
from batuta_sql.guards.history import (
    History,
    HistoryWarning,
    Run,
    default_file,
    month_start,
    without_constants,
)
from batuta_sql.guards.learning import Learned, Observation
from batuta_sql.sources.base import SourceEstimate, Usage
from tests.guards.conftest import ROWS, Opened, Shop


def run_of(query: str, **more: Any) -> Run:
    values: dict[str, Any] = {
        "fragment": "x1", "started": time.time(), "sql": "SELECT ?", "sql_hash": "h",
        "source": "s", "place": "p", "shape": "a", "status": "finished",
    }  # fmt: skip
    return Run(query=query, **{**values, **more})


# --- what is written ---------------------------------------------------------------------------


def test_a_run_stands_beside_its_estimate(opened: Opened, shop: Shop) -> None:
    connection = opened(pricing={})
    connection.execute(f"SELECT name FROM {shop.name} WHERE name <> 'secret-17'").fetchall()
    (run,) = connection.history()
    assert (run.source, run.status, run.rows) == ("shop", "finished", ROWS)
    assert run.estimated_rows == pytest.approx(ROWS, rel=0.05)
    assert run.estimated_bytes == pytest.approx(run.bytes, rel=0.2)
    assert run.estimated_usd is None
    assert run.seconds is not None
    assert "secret" not in repr(run)
    assert run.sql == f"SELECT name FROM {shop.name} WHERE name <> ?"


def test_how_a_query_ended(opened: Opened, shop: Shop) -> None:
    connection = opened(pricing={})
    cursor = connection.execute(f"SELECT * FROM {shop.name}, range(1000)")
    cursor.fetchone()
    cursor.close()
    with pytest.raises(batuta_sql.DataError):
        connection.execute(f"SELECT CAST(name AS INTEGER) FROM {shop.name}").fetchall()
    running = connection.execute(f"SELECT a.id FROM {shop.name} a, range(10000000) ORDER BY a.id")
    threading.Timer(0.5, connection.cancel).start()
    with pytest.raises(batuta_sql.QueryCancelled):
        running.fetchall()
    connection.execute(f"SELECT 1 FROM {shop.name} LIMIT 1").fetchall()
    ended = [r.status for r in connection.history()]
    # A fragment that was read to its end has finished, however its query ended.
    assert len(ended) == 4
    assert ended[0] == "finished"


def test_what_was_only_planned_or_refused_is_not_written(opened: Opened, shop: Shop) -> None:
    connection = opened()
    connection.estimate(f"SELECT id FROM {shop.name}")
    connection.explain(f"SELECT id FROM {shop.name}")
    with pytest.raises(batuta_sql.CostRefused):
        connection.execute(f"SELECT id FROM {shop.name}")
    assert connection.history() == []


def test_every_fragment_of_a_fallback_is_written(opened: Opened, shop: Shop) -> None:
    connection = opened(cost={"warn_usd": 1000, "stop_usd": 2000})
    connection.execute(f"PIVOT {shop.name} ON id % 2 USING count(*)").fetchall()
    runs = connection.history()
    assert runs
    assert all(r.estimated_usd and r.status != "running" for r in runs)


def test_what_the_source_billed(opened: Opened, shop: Shop) -> None:
    """A reader that tells its bill, as BigQuery's will: here twice the estimate."""
    connection = opened(cost={"warn_usd": 1000, "stop_usd": 2000})
    source = connection._session.sources["shop"]
    original = source.open

    def metered(readers: int = 1) -> Any:
        snapshot = original(readers)
        read = snapshot.read

        def reading(query: Any) -> Any:
            reader = read(query)
            reader.usage = lambda: Usage(bytes=2.0 * shop.bytes)
            return reader

        snapshot.read = reading
        return snapshot

    source.open = metered
    for _ in range(3):
        cursor = connection.execute(f"SELECT id FROM {shop.name}")
        cursor.fetchall()
    assert cursor.metrics["fragments"][0]["billed"].bytes == 2.0 * shop.bytes
    runs = connection.history()
    assert [r.usd for r in runs] == [pytest.approx(20)] * 3
    assert runs[0].billed_bytes == 2.0 * shop.bytes
    corrected = opened().estimate(f"SELECT id FROM {shop.name}")
    assert 10 < (corrected.usd or 0) < 20
    assert "cost corrected by" in corrected.basis


@pytest.mark.parametrize(
    ("sql", "kept"),
    [
        ("SELECT 'a', 17, 1.5e3 -- for Ann\nFROM t", "SELECT ?, ?, ? FROM t"),
        ("SELECT $$top secret$$, E'it''s' /* hm */", "SELECT ?, ?"),
        ('SELECT "a b" FROM t WHERE x = $n AND y = ?',) * 2,
        ("SELECT 'never closed", "(not readable)"),
    ],
)  # fmt: skip
def test_sql_is_kept_without_its_constants(sql: str, kept: str) -> None:
    assert without_constants(sql) == kept


def test_the_file_is_the_users_own(opened: Opened, shop: Shop, tmp_path: Path) -> None:
    connection = opened(pricing={})
    connection.execute(f"SELECT count(*) FROM {shop.name}").fetchall()
    connection.history()
    assert (tmp_path / "history.sqlite").stat().st_mode & 0o077 == 0


def test_the_default_file_is_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert default_file() == Path("/somewhere/batuta-sql/history.sqlite")


def test_a_process_that_just_ends_still_writes(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "h.sqlite"
    config = {
        "cost": {"history_file": str(file)},
        "sources": {"shop": {"kind": "postgresql", "uri": shop.uri}},
    }
    code = (
        f"import batuta_sql; con = batuta_sql.connect({config!r});"
        f"con.execute('SELECT count(*) FROM {shop.name}').fetchall()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    (run,) = History(file).runs(5)
    assert (run.status, run.rows) == ("finished", 1)


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    file = tmp_path / "h.sqlite"
    code = (
        "import sys; from pathlib import Path; from batuta_sql.guards.history import History;"
        "from tests.guards.test_history import run_of;"
        "h = History(Path(sys.argv[1]));"
        "[(h.add(lambda i=i: [run_of(f'{sys.argv[2]}-{i}')]), h.flush()) for i in range(50)]"
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])}
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(file), str(n)], env=environment)
        for n in range(4)
    ]
    assert [p.wait(120) for p in processes] == [0] * 4
    assert len(History(file).runs(1000)) == 200


@pytest.mark.parametrize("trouble", ["a folder", "not a database", "newer"])
def test_a_history_that_cannot_be_written_costs_a_warning_only(
    trouble: str, opened: Opened, shop: Shop, tmp_path: Path
) -> None:
    file = tmp_path / "history.sqlite"
    match trouble:
        case "a folder":
            file.mkdir()
        case "not a database":
            file.write_bytes(b"no database at all" * 100)
        case "newer":
            history = History(file)
            with history._opened() as connection:
                connection.execute("PRAGMA user_version = 99")
            history.close()
    connection = opened(pricing={})
    sql = f"SELECT count(*) FROM {shop.name}"
    assert connection.execute(sql).fetchall() == [(ROWS,)]
    with pytest.warns(HistoryWarning, match="cannot be written"):
        connection.close()
    again = opened(pricing={})
    assert again.execute(sql).fetchall() == [(ROWS,)]
    with pytest.raises(batuta_sql.OperationalError, match="cannot be read"):
        again.history()


def test_a_locked_history_does_not_hold_up_a_query(
    opened: Opened, shop: Shop, tmp_path: Path
) -> None:
    history = History(tmp_path / "history.sqlite")
    connection = opened(pricing={})
    sql = f"SELECT count(*) FROM {shop.name}"
    connection.execute(sql).fetchall()
    connection.history()
    with history._opened() as locking:
        locking.execute("BEGIN EXCLUSIVE")
        for _ in range(20):
            assert connection.execute(sql).fetchall() == [(ROWS,)]
        locking.execute("ROLLBACK")
    assert len(connection.history(100)) == 21


def test_the_history_may_be_off(opened: Opened, shop: Shop, tmp_path: Path) -> None:
    connection = opened(cost={"history": False}, pricing={})
    connection.execute(f"SELECT count(*) FROM {shop.name}").fetchall()
    with pytest.raises(batuta_sql.ProgrammingError, match="no history"):
        connection.history()
    connection.close()
    assert not (tmp_path / "history.sqlite").exists()


def test_old_runs_go(tmp_path: Path) -> None:
    file = tmp_path / "h.sqlite"
    history = History(file)
    history.add(lambda: [run_of("new"), run_of("old", started=time.time() - 401 * 86400)])
    history.close()
    assert [r.query for r in history.runs(10)] == ["new"]


# --- what is learnt ----------------------------------------------------------------------------


def observed(count: int, ratio: float, shape: str = "a") -> Learned:
    return Learned.of([Observation(shape, rows=ratio, bytes=ratio) for _ in range(count)])


def test_few_runs_teach_nothing_and_many_the_truth() -> None:
    found = SourceEstimate(rows=100, bytes_delivered=1000, confidence="estimated", basis="b")
    factors = [observed(n, 10.0).correct(found, "a")[0].rows for n in (0, 2, 3, 10, 1000)]
    assert factors[0] == factors[1] == 100
    assert factors[1] < factors[2] < factors[3] < factors[4] < 1000  # type: ignore[operator]
    assert factors[4] == pytest.approx(1000, rel=0.01)


def test_the_middle_run_counts_not_the_wildest() -> None:
    runs = [Observation("a", rows=r) for r in (2, 2, 2, 2, 1e9)] * 100
    corrected, _ = Learned.of(runs).correct(SourceEstimate(rows=100, confidence="estimated"), "a")
    assert corrected.rows == pytest.approx(200, rel=0.02)
    assert "corrected by 2 from 500 runs of this statement" in corrected.basis


def test_other_statements_of_a_source_teach_within_bounds() -> None:
    other = [Observation(f"s{i}", rows=1e6) for i in range(100)]
    corrected, _ = Learned.of(other).correct(SourceEstimate(rows=1, confidence="estimated"), "new")
    assert corrected.rows == pytest.approx(20)
    # One statement that runs a thousand times is one opinion.
    often = [Observation("often", rows=100.0)] * 1000
    alone, _ = Learned.of(often).correct(SourceEstimate(rows=1, confidence="estimated"), "new")
    assert alone.rows == 1


def test_a_factor_does_not_learn_from_itself(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    run = run_of("1", rows=600, estimated_rows=300.0, rows_factor=3.0, rows_confidence="estimated")
    history.add(lambda: [run])
    history.flush()
    ((one,),) = history.learned("s", "p").observations.values()
    assert one.rows == pytest.approx(601 / 101)


def test_what_is_exact_is_not_corrected() -> None:
    exact = SourceEstimate(rows=100, bytes_scanned=10, confidence="exact", basis="b")
    assert observed(50, 10.0).correct(exact, "a")[0] == exact


def test_the_next_estimate_of_a_source_is_corrected(opened: Opened, shop: Shop) -> None:
    """PostgreSQL takes a function's result for a third of the rows; the truth is learnt."""
    sql = f"SELECT id FROM {shop.name} WHERE abs(id) >= {{}}"
    first = opened(pricing={}).estimate(sql.format(0))
    assert first.factor is None
    assert first.rows == pytest.approx(ROWS / 3, rel=0.1)
    connection = opened(pricing={})
    for number in range(6):
        connection.execute(sql.format(-number)).fetchall()
    connection.close()
    learnt = opened(pricing={}).estimate(sql.format(-9))
    assert learnt.fragments[0].factor is not None
    assert learnt.rows == pytest.approx(ROWS * (1 / 3) ** (2 / 8), rel=0.1)
    assert "rows corrected by" in learnt.basis
    # The factor was applied to what is written, and is not learnt from a second time.
    again = opened(pricing={})
    again.execute(sql.format(-10)).fetchall()
    (newest,) = again.history(1)
    assert newest.rows_factor == pytest.approx(learnt.fragments[0].factor)
    again.close()
    rows = opened(pricing={}).estimate(sql.format(-11)).rows
    assert rows is not None
    assert rows < ROWS * 1.05


# --- the month ---------------------------------------------------------------------------------


def test_a_month_begins_in_utc() -> None:
    now = datetime(2026, 3, 1, 0, 30, tzinfo=UTC)
    assert month_start(now) == datetime(2026, 3, 1, tzinfo=UTC)


def test_a_month_sums_billed_else_estimated(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    last_month = month_start().timestamp() - 1
    history.add(
        lambda: [
            run_of("1", usd=2.0, estimated_usd=50.0),
            run_of("2", estimated_usd=3.0, status="failed"),
            run_of("3", usd=100.0, started=last_month),
            run_of("4", usd=100.0, source="other"),
            run_of("5", usd=100.0, place="elsewhere"),
            run_of("6"),
        ]
    )
    history.flush()
    assert history.spent("s", "p") == 5.0


def test_a_budget_warns_and_stops(opened: Opened, shop: Shop) -> None:
    """Each query costs $10 of $30: the third would pass 80 %, the fourth the whole."""
    priced = {"usd_per_tb_scanned": shop.usd_per_tb, "budget_usd": 30.5}
    cost = {"warn_usd": 1000, "stop_usd": 2000}
    sql = f"SELECT count(*) FROM {shop.name}"
    for _ in range(2):
        opened(cost=cost, pricing=priced).execute(sql).fetchall()
    with pytest.raises(batuta_sql.CostRefused, match=r"98 %"):
        opened(cost=cost, pricing=priced).execute(sql)
    sent = len(shop.ran())
    asked: list[Any] = []
    yes = opened(cost=cost, pricing=priced, confirm=lambda e: asked.append(e) or True)
    yes.execute(sql).fetchall()
    assert "budget" in asked[0].reasons[0]
    with pytest.raises(batuta_sql.CostRefused, match=r"pass its budget_usd of \$30\.50"):
        yes.execute(sql)
    assert len(shop.ran()) == sent + 1
    # Another source of the same name is another source.
    elsewhere = load_settings(
        {"sources": {"shop": {"kind": "postgresql", "uri": "postgresql://h/d"}}}
    )
    here = load_settings({"sources": {"shop": {"kind": "postgresql", "uri": shop.uri}}})
    assert place_of(elsewhere.sources["shop"]) != place_of(here.sources["shop"])


def test_queries_at_once_do_not_spend_the_same_money(tmp_path: Path) -> None:
    file = tmp_path / "h.sqlite"
    refused: list[str | None] = []

    def spend(number: int) -> None:
        runs = [run_of(str(number), status="running", estimated_usd=10.0)]
        refused.append(History(file).reserve(runs, {("s", "p"): 35.0}))

    History(file).close()
    threads = [threading.Thread(target=spend, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(refused, key=str) == [None] * 3 + ["s"] * 5
    assert History(file).spent("s", "p") == 30.0


def test_a_budget_whose_history_cannot_be_kept_is_asked_about(
    opened: Opened, shop: Shop, tmp_path: Path
) -> None:
    (tmp_path / "history.sqlite").mkdir()
    priced = {"usd_per_tb_scanned": 0.001, "budget_usd": 30}
    with pytest.raises(batuta_sql.CostRefused, match="spent this month"):
        opened(pricing=priced).execute(f"SELECT count(*) FROM {shop.name}")
    assert shop.ran() == []
