"""Unsafe changes of a schema that are forced: values are cast; what does not fit is kept apart."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

import batuta_sql
from batuta_sql.errors import OperationalError, ProgrammingError
from batuta_sql.sync.checkpoint import Checkpoint
from batuta_sql.sync.drift import SchemaDrift
from batuta_sql.sync.rejects import Rejects
from tests.sync.conftest import (
    ROWS,
    SPLIT,
    Interrupted,
    after,
    config_of,
    files_of,
    rows_of,
    run,
    truth,
    types_of,
)

Connect = Callable[..., Any]

TARGETS = {"parquet": "orders", "delta": "orders", "duckdb": "copy.duckdb", "ald": "orders.ald"}
MERGED = ("parquet", "delta", "duckdb")

TO_TEXT = "ALTER TABLE orders ALTER customer TYPE text"
# In their place: an update would put them all at the table's end.
TO_BAD = (
    f"{TO_TEXT} USING CASE id WHEN 5 THEN 'x' WHEN 60000 THEN '1.5'"
    " WHEN 119000 THEN '99999999999' WHEN 8 THEN NULL WHEN 9 THEN ' 08 ' ELSE customer::text END"
)
REASONS = {
    5: ("x", '"x" is not a number'),
    60000: ("1.5", '"1.5" would become 2'),
    119000: ("99999999999", '"99999999999" does not fit in INTEGER'),
}
FITTING = (
    'SELECT id, CAST(customer AS INTEGER) AS customer, total, day, note, "at" FROM crm.orders'
    " WHERE id NOT IN (5, 60000, 119000)"
)
FORCE: dict[str, Any] = {"on_drift": "force", "changes": {"customer": None}}


def rejects_of(target: Path) -> list[tuple[Any, ...]]:
    """Id, customer, column and reason of each row that is kept apart."""
    folder = target.parent / f".{target.name}.batuta-sync" / "rejects"
    if not folder.exists():
        return []
    with duckdb.connect() as con:
        return con.execute(
            "SELECT id, customer, rejected_column, rejected_reason"
            f" FROM read_parquet('{folder}/*.parquet') ORDER BY id"
        ).fetchall()


def ids_of(target: Path, form: str) -> Counter[int]:
    """How often each id is in the copy and its rejects together."""
    copied = Counter(r[0] for r in rows_of(target, form))
    return copied + Counter(r[0] for r in rejects_of(target))


@pytest.fixture(params=TARGETS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def target(tmp_path: Path, form: str) -> Path:
    return tmp_path / TARGETS[form]


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    return tmp_path / "orders"


# --- what is copied ------------------------------------------------------------------------------


def test_readers_see_the_type_that_the_copy_had(
    connect: Connect, uri: str, target: Path, form: str
) -> None:
    connection = connect()
    connection.sync("crm.orders", target, format=form, split_bytes=SPLIT)
    run(uri, TO_BAD)
    result = connection.sync("crm.orders", target, format=form, split_bytes=SPLIT, **FORCE)
    assert rows_of(target, form) == truth(connection, FITTING)
    assert rejects_of(target) == [
        (i, value, "customer", reason) for i, (value, reason) in sorted(REASONS.items())
    ]
    assert (result.rows, result.rejected) == (ROWS - 3, 3)
    assert result.rejects == target.parent / f".{target.name}.batuta-sync" / "rejects"
    assert len(files_of(result.rejects)) == 3, "one file for each split that has some"
    assert ids_of(target, form) == Counter(range(1, ROWS + 1))


def test_where_all_fits_there_are_no_rejects(connect: Connect, uri: str, orders: Path) -> None:
    connection = connect()
    connection.sync("crm.orders", orders, split_bytes=SPLIT)
    run(uri, TO_TEXT)
    result = connection.sync("crm.orders", orders, split_bytes=SPLIT, **FORCE)
    assert (result.rows, result.rejected, result.rejects) == (ROWS, 0, None)
    assert types_of(orders)["customer"] == "INTEGER"
    assert files_of(orders.parent / ".orders.batuta-sync").isdisjoint({"rejects", "rejects.staged"})


def test_another_type_may_be_asked_for(connect: Connect, uri: str, orders: Path) -> None:
    connection = connect()
    connection.sync("crm.orders", orders, split_bytes=SPLIT)
    run(uri, TO_BAD)
    changes = {"customer": "decimal(12, 1)"}
    result = connection.sync(
        "crm.orders", orders, split_bytes=SPLIT, on_drift="force", changes=changes
    )
    assert types_of(orders)["customer"] == "DECIMAL(12,1)"
    assert [r[0] for r in rejects_of(orders)] == [5]
    assert result.rejected == 1


def test_texts_may_have_a_length(connect: Connect, uri: str, orders: Path) -> None:
    connection = connect()
    connection.sync("crm.orders", orders, split_bytes=SPLIT)
    run(uri, TO_BAD)
    changes = {"customer": "varchar(3)"}
    for _ in range(2):
        result = connection.sync(
            "crm.orders", orders, split_bytes=SPLIT, on_drift="force", changes=changes
        )
        assert types_of(orders)["customer"] == "VARCHAR"
        assert rejects_of(orders) == [
            (9, " 08 ", "customer", '" 08 " is longer than 3 characters'),
            (119000, "99999999999", "customer", '"99999999999" is longer than 3 characters'),
        ]
        assert result.rows == ROWS - 2
    assert result.outcome == "unchanged"


def test_more_rejects_than_are_allowed_publish_nothing(
    connect: Connect, uri: str, target: Path, form: str
) -> None:
    connection = connect()
    connection.sync("crm.orders", target, format=form, split_bytes=SPLIT)
    before = rows_of(target, form)
    run(uri, TO_BAD)
    options = {"format": form, "split_bytes": SPLIT, **FORCE}
    for most in (2, 1, 0):
        with pytest.raises(OperationalError, match=f"more than {most} rows? do"):
            connection.sync("crm.orders", target, max_rejects=most, **options)
        assert rows_of(target, form) == before
        assert rejects_of(target) == []
    result = connection.sync("crm.orders", target, max_rejects=3, **options)
    assert result.copied < result.splits, "what was read is kept"
    assert result.rejected == 3
    assert ids_of(target, form) == Counter(range(1, ROWS + 1))


def test_rejects_are_counted_in_increments_too(connect: Connect, uri: str, orders: Path) -> None:
    connection = connect()
    options = {"key": "id", "watermark": "at", "split_bytes": SPLIT}
    connection.sync("crm.orders", orders, **options)
    run(uri, TO_BAD)
    connection.sync("crm.orders", orders, **options, **FORCE)
    later = "UPDATE orders SET customer = '{}', at = '2090-01-01' WHERE id IN ({})"
    run(uri, later.format("y", "5, 6"))
    before = rows_of(orders, "parquet")
    with pytest.raises(OperationalError, match="more than 3 rows do"):
        connection.sync("crm.orders", orders, **options, **FORCE, max_rejects=3)
    assert rows_of(orders, "parquet") == before
    assert [r[0] for r in rejects_of(orders)] == sorted(REASONS)
    # 5 was one already.
    assert connection.sync("crm.orders", orders, **options, **FORCE, max_rejects=4).rejected == 4
    assert [r[0] for r in rejects_of(orders)] == [5, 6, 60000, 119000]


def test_the_type_of_the_source_may_be_taken_as_it_is(
    connect: Connect, uri: str, target: Path, form: str
) -> None:
    connection = connect()
    connection.sync("crm.orders", target, format=form, split_bytes=SPLIT)
    run(uri, TO_BAD)
    options = {"on_drift": "force", "changes": {"customer": "text"}, "format": form}
    assert connection.sync("crm.orders", target, **options).rejected == 0
    assert rows_of(target, form) == truth(connection)
    assert connection.sync("crm.orders", target, format=form).outcome == "unchanged"


def test_columns_that_are_gone_and_new_ones_that_are_never_null(
    connect: Connect, uri: str, target: Path, form: str
) -> None:
    connection = connect()
    connection.sync("crm.orders", target, format=form, split_bytes=SPLIT)
    run(
        uri,
        "ALTER TABLE orders DROP note",
        "ALTER TABLE orders ADD COLUMN extra int NOT NULL DEFAULT 7",
        # Safe: needs no name.
        "ALTER TABLE orders ADD COLUMN more int",
    )
    options = {"on_drift": "force", "changes": {"note": None, "extra": None}, "format": form}
    result = connection.sync("crm.orders", target, split_bytes=SPLIT, **options)
    assert {c.column for c in result.changes} == {"note", "extra", "more"}
    assert rows_of(target, form) == truth(connection)
    # The same command again is no error.
    assert connection.sync("crm.orders", target, **options).outcome == "unchanged"


def test_a_safe_change_may_be_named_too(connect: Connect, uri: str, orders: Path) -> None:
    connection = connect()
    connection.sync("crm.orders", orders)
    run(
        uri,
        "ALTER TABLE orders ALTER customer TYPE bigint",
        "UPDATE orders SET customer = 3000000000 WHERE id = 5",
    )
    connection.sync("crm.orders", orders, **FORCE)
    assert types_of(orders)["customer"] == "INTEGER"
    assert [r[3] for r in rejects_of(orders)] == ["3000000000 does not fit in INTEGER"]


def test_a_numeric_that_lost_its_digits(connect: Connect, uri: str, orders: Path) -> None:
    """It has come to hold NaN, more digits, and numbers that are too large; and travels as text."""
    connection = connect()
    connection.sync("crm.orders", orders)
    run(
        uri,
        "ALTER TABLE orders ALTER total TYPE numeric USING CASE id WHEN 5 THEN 'NaN'"
        " WHEN 6 THEN 1.005 WHEN 7 THEN 1e12 WHEN 8 THEN NULL WHEN 9 THEN 2.5000 ELSE total END",
    )
    connection.sync("crm.orders", orders, on_drift="force", changes={"total": None})
    assert types_of(orders)["total"] == "DECIMAL(12,2)"
    assert [(r[0], r[3]) for r in rejects_of(orders)] == [
        (5, '"NaN" is not a number'),
        (6, '"1.005" would become 1.01'),
        (7, '"1000000000000" does not fit in DECIMAL(12,2)'),
    ]
    columns = 'id, customer, CAST(total AS DECIMAL(12,2)) AS total, day, note, "at"'
    expected = f"SELECT {columns} FROM crm.orders WHERE id NOT IN (5, 6, 7)"
    assert rows_of(orders, "parquet") == truth(connection, expected)


def test_a_query_is_cast_too(connect: Connect, uri: str, tmp_path: Path) -> None:
    connection, target = connect(), tmp_path / "totals"
    sql = "SELECT customer, count(*) AS orders FROM crm.orders GROUP BY customer"
    connection.sync(sql, target)
    run(uri, TO_BAD)
    result = connection.sync(sql, target, **FORCE)
    assert types_of(target)["customer"] == "INTEGER"
    assert result.rejected == 3


def test_labels_are_on_the_rejects(uri: str, orders: Path) -> None:
    config = config_of(uri)
    config["sources"]["crm"]["tables"] = {
        "public.orders": {"columns": {"customer": {"labels": ["pii"]}}}
    }
    with batuta_sql.connect(config) as connection:
        connection.sync("crm.orders", orders, split_bytes=SPLIT)
        run(uri, TO_BAD)
        result = connection.sync("crm.orders", orders, split_bytes=SPLIT, **FORCE)
    for file in [*result.rejects.iterdir(), *orders.iterdir()]:
        found = batuta_sql.read_labels(file)
        assert found.of("customer").direct == {"pii"}
        assert found.of("total").all == frozenset()
        if file.parent == result.rejects:
            assert found.of("rejected_reason").direct == {"pii"}


# --- what is remembered --------------------------------------------------------------------------


@pytest.fixture
def forced(connect: Connect, uri: str, target: Path, form: str) -> Any:
    """A connection, after a copy with a cast and three rejects."""
    connection = connect()
    connection.sync("crm.orders", target, format=form, split_bytes=SPLIT)
    run(uri, TO_BAD)
    connection.sync("crm.orders", target, format=form, split_bytes=SPLIT, **FORCE)
    return connection


def test_the_next_run_does_not_stop_and_finds_nothing(forced: Any, target: Path, form: str) -> None:
    for options in ({}, FORCE):
        again = forced.sync("crm.orders", target, format=form, split_bytes=SPLIT, **options)
        assert (again.outcome, again.copied) == ("unchanged", 0)
        assert (again.rows, again.rejected) == (ROWS - 3, 3)
        assert again.rejects is not None
    assert forced.drift("crm.orders") == ()


def test_the_next_copy_casts_the_same_way(forced: Any, uri: str, target: Path, form: str) -> None:
    run(
        uri,
        "UPDATE orders SET customer = '77' WHERE id = 5",
        "UPDATE orders SET customer = 'y' WHERE id = 6",
    )
    result = forced.sync("crm.orders", target, format=form, split_bytes=SPLIT)
    if form in ("parquet", "delta"):
        assert result.copied < result.splits, "what has not changed is not copied again"
    assert [r[:2] for r in rejects_of(target)] == [
        (6, "y"),
        (60000, "1.5"),
        (119000, "99999999999"),
    ]
    assert ids_of(target, form) == Counter(range(1, ROWS + 1))


@pytest.mark.parametrize("form", ["parquet", "duckdb"])
def test_rejects_that_were_lost_are_written_again(forced: Any, target: Path, form: str) -> None:
    folder = target.parent / f".{target.name}.batuta-sync" / "rejects"
    sorted(folder.iterdir())[1].unlink()
    assert forced.sync("crm.orders", target, format=form, split_bytes=SPLIT).copied > 0
    assert [r[0] for r in rejects_of(target)] == [5, 60000, 119000]
    assert ids_of(target, form) == Counter(range(1, ROWS + 1))


@pytest.mark.parametrize("form", ["parquet"])
def test_another_type_later_copies_all_again(
    forced: Any, uri: str, target: Path, form: str
) -> None:
    options = {"on_drift": "force", "split_bytes": SPLIT}
    result = forced.sync("crm.orders", target, changes={"customer": "BIGINT"}, **options)
    assert result.copied == result.splits
    assert [(c.before, c.now) for c in result.changes] == [("INTEGER", "BIGINT")]
    assert types_of(target)["customer"] == "BIGINT"
    assert [r[0] for r in rejects_of(target)] == [5, 60000]
    # Without a type it is the one that the copy has.
    again = forced.sync("crm.orders", target, changes={"customer": None}, **options)
    assert again.outcome == "unchanged"
    result = forced.sync("crm.orders", target, changes={"customer": "VARCHAR"}, **options)
    assert (result.rejected, result.rejects) == (0, None)
    assert rows_of(target, "parquet") == truth(forced)
    assert rejects_of(target) == []


@pytest.mark.parametrize("form", ["parquet"])
def test_a_later_drift_is_from_what_was_forced(
    forced: Any, uri: str, target: Path, form: str
) -> None:
    run(uri, "ALTER TABLE orders ALTER customer TYPE varchar(20)")
    (change,) = forced.drift("crm.orders")
    assert (change.before, change.now) == ("text", "character varying(20)")
    with pytest.raises(SchemaDrift):
        forced.sync("crm.orders", target, split_bytes=SPLIT)
    # Named again, the values are cast as they were.
    forced.sync("crm.orders", target, split_bytes=SPLIT, **FORCE)
    assert types_of(target)["customer"] == "INTEGER"
    run(uri, "DELETE FROM orders WHERE id IN (5, 60000, 119000)")
    run(uri, "ALTER TABLE orders ALTER customer TYPE int USING customer::int")
    result = forced.sync("crm.orders", target, split_bytes=SPLIT, **FORCE)
    assert (result.rejected, rejects_of(target)) == (0, [])
    assert rows_of(target, "parquet") == truth(forced)
    with closing(Checkpoint(target.parent / ".orders.batuta-sync" / "checkpoint.sqlite")) as known:
        assert known.copy is not None
        assert known.copy.casts == {}


@pytest.mark.parametrize("form", ["parquet"])
def test_a_safe_change_keeps_the_casts(forced: Any, uri: str, target: Path, form: str) -> None:
    run(uri, "ALTER TABLE orders ADD COLUMN extra int")
    forced.sync("crm.orders", target, split_bytes=SPLIT, on_drift="apply")
    assert types_of(target)["customer"] == "INTEGER"
    assert "extra" in types_of(target)
    assert [r[0] for r in rejects_of(target)] == [5, 60000, 119000]


@pytest.mark.parametrize("form", ["parquet"])
def test_rejects_are_those_of_the_published_copy(
    forced: Any, uri: str, target: Path, form: str
) -> None:
    """Until the next copy is published; then those of the last one go."""
    before = files_of(target.parent / ".orders.batuta-sync" / "rejects")
    run(uri, "UPDATE orders SET customer = 'z' WHERE id % 1000 = 7")
    with pytest.raises(Interrupted):
        forced.sync("crm.orders", target, split_bytes=SPLIT, progress=after(2))
    assert files_of(target.parent / ".orders.batuta-sync" / "rejects") == before
    assert [r[0] for r in rejects_of(target)] == [5, 60000, 119000]
    forced.sync("crm.orders", target, split_bytes=SPLIT)
    assert not files_of(target.parent / ".orders.batuta-sync" / "rejects") & before
    assert ids_of(target, form) == Counter(range(1, ROWS + 1))


@pytest.mark.parametrize("form", ["parquet"])
def test_decisions_are_on_record_with_the_cast(
    connect: Connect, uri: str, orders: Path, form: str
) -> None:
    connection = connect()
    connection.sync("crm.orders", orders)
    before = len(connection.audit()[0])
    run(uri, TO_TEXT, "ALTER TABLE orders DROP note")
    with pytest.raises(SchemaDrift):
        connection.sync("crm.orders", orders, on_drift="force", changes={"customer": None})
    changes = {"customer": None, "note": None}
    connection.sync("crm.orders", orders, on_drift="force", changes=changes)
    connection.sync("crm.orders", orders, on_drift="force", changes=changes)
    connection.sync("crm.orders", orders, on_drift="force", changes={"customer": "BIGINT"})
    events, fault = connection.audit()
    assert fault is None
    told = [e for e in events[before:] if str(e.get("event", "")).startswith("schema drift")]
    assert [e["event"] for e in told] == ["schema drift: stopped", *["schema drift: force"] * 2]
    assert [(c["column"], c.get("cast")) for c in told[1]["changes"]] == [
        ("customer", "INTEGER"),
        ("note", None),
    ]
    assert [(c["column"], c["cast"]) for c in told[2]["changes"]] == [("customer", "BIGINT")]


# --- what is refused -----------------------------------------------------------------------------


def test_each_unsafe_change_is_named(connect: Connect, uri: str, orders: Path) -> None:
    connection = connect()
    connection.sync("crm.orders", orders)
    before = rows_of(orders, "parquet")
    run(uri, TO_TEXT, 'ALTER TABLE orders RENAME day TO "the day"')
    for named, missing in (
        ({}, "--on-drift force --change customer --change day"),
        ({"customer": None}, "--on-drift force --change customer --change day"),
        ({"customer": "BIGINT"}, "--on-drift force --change customer=BIGINT --change day"),
    ):
        with pytest.raises(SchemaDrift) as caught:
            connection.sync("crm.orders", orders, on_drift="force", changes=named)
        assert caught.value.exit_status == 5
        assert str(caught.value.hint).endswith(missing)
    with pytest.raises(SchemaDrift, match="--on-drift force --change customer --change day"):
        connection.sync("crm.orders", orders)
    assert rows_of(orders, "parquet") == before


def test_what_cannot_be_forced(connect: Connect, uri: str, orders: Path) -> None:
    connection = connect()

    def sync(on_drift: str = "force", **changes: str | None) -> None:
        connection.sync("crm.orders", orders, on_drift=on_drift, changes=changes)

    with pytest.raises(ProgrammingError, match="no copy yet"):
        sync(customer=None)
    connection.sync("crm.orders", orders)
    with pytest.raises(ProgrammingError, match='"customer" cannot be taken: it has not changed'):
        sync(customer=None)
    run(uri, TO_TEXT, "ALTER TABLE orders DROP note")
    for changes, why in (
        ({"customer": None, "note": None, "total": None}, '"total" .* has not changed'),
        ({"custmer": None, "note": None}, 'did you mean "customer"'),
        ({"customer": "nothing", "note": None}, "nothing is no type of DuckDB"),
        ({"customer": None, "note": "VARCHAR"}, '"note" is gone'),
    ):
        with pytest.raises(ProgrammingError, match=why):
            sync(**changes)
    with pytest.raises(ProgrammingError, match='on_drift="force"'):
        sync("apply", customer=None)
    run(uri, "ALTER TABLE orders ALTER customer TYPE int USING customer::int")
    run(uri, "ALTER TABLE orders ALTER day TYPE int USING 5")
    with pytest.raises(ProgrammingError, match="cannot be cast from INTEGER to DATE.*\n.*day=INT"):
        sync(day=None, note=None)
    sync(day="INTEGER", note=None)
    assert rows_of(orders, "parquet") == truth(connection)


# --- interruptions -------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [False, True])
def test_an_interrupted_copy_goes_on_with_its_casts(
    connect: Connect, uri: str, target: Path, form: str, changed: bool
) -> None:
    connection = connect()
    connection.sync("crm.orders", target, format=form, split_bytes=SPLIT)
    run(uri, TO_BAD)
    before = rows_of(target, form)
    options = {"format": form, "split_bytes": SPLIT}
    with pytest.raises(Interrupted):
        connection.sync("crm.orders", target, progress=after(3), **options, **FORCE)
    assert rows_of(target, form) == before
    if changed:
        # What was rejected already fits now, and the other way round.
        run(
            uri,
            "UPDATE orders SET customer = '1' WHERE id = 5",
            "UPDATE orders SET customer = 'late' WHERE id = 119500",
        )
    result = connection.sync("crm.orders", target, **options)
    assert result.splits - result.copied >= (1 if changed else 3)
    expected = [60000, 119000, 119500] if changed else [5, 60000, 119000]
    assert [r[0] for r in rejects_of(target)] == expected
    assert ids_of(target, form) == Counter(range(1, ROWS + 1))
    assert "rejects.staged" not in files_of(target.parent / f".{target.name}.batuta-sync")


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_crash_while_it_is_published(
    connect: Connect,
    uri: str,
    target: Path,
    form: str,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = connect()
    connection.sync("crm.orders", target, format=form, split_bytes=SPLIT)
    run(uri, TO_BAD)
    original = Rejects.publish

    def breaks(self: Rejects, splits: Any) -> None:
        if place == "after":
            original(self, splits)
        raise OperationalError("interrupted")

    with monkeypatch.context() as patch, pytest.raises(OperationalError, match="interrupted"):
        patch.setattr(Rejects, "publish", breaks)
        connection.sync("crm.orders", target, format=form, split_bytes=SPLIT, **FORCE)
    result = connection.sync("crm.orders", target, format=form, split_bytes=SPLIT, **FORCE)
    assert (result.outcome, result.rejected) == ("unchanged", 3)
    assert ids_of(target, form) == Counter(range(1, ROWS + 1))
    assert [r[0] for r in rejects_of(target)] == [5, 60000, 119000]


SYNC = """
import json, sys
import batuta_sql
config, target, form = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
with batuta_sql.connect(config) as connection:
    print("started", flush=True)
    connection.sync(
        "crm.orders", target, format=form, split_bytes=2 << 20,
        on_drift="force", changes={"customer": None},
    )
"""


def test_kill_9_loses_and_doubles_no_row(
    connect: Connect, uri: str, target: Path, form: str
) -> None:
    """Rows go to and fro between copy and rejects while copies are killed at random moments."""
    chance = random.Random(f"{form} 11")
    connection = connect()
    connection.sync("crm.orders", target, format=form, split_bytes=2 << 20)
    run(uri, f"{TO_TEXT} USING CASE WHEN id % 1000 = 3 THEN 'bad' ELSE customer::text END")
    command = [sys.executable, "-c", SYNC, json.dumps(config_of(uri)), str(target), form]
    killed = 0
    for attempt in range(4):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.1, 0.8))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        run(
            uri,
            f"UPDATE orders SET customer = 'bad' WHERE id % 5000 = {attempt + 10}",
            f"UPDATE orders SET customer = '7' WHERE id % 7000 = 3 AND id > {attempt * 20000}",
        )
    assert killed
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert ids_of(target, form) == Counter(range(1, ROWS + 1))
    connection.refresh()
    bad = connection.execute("SELECT id FROM crm.orders WHERE customer = 'bad' ORDER BY id")
    assert [(r[0],) for r in rejects_of(target)] == bad.fetchall()
    assert connection.sync("crm.orders", target, format=form).outcome == "unchanged"
    left = target.parent / f".{target.name}.batuta-sync"
    assert not [p for p in left.rglob("*") if "partial" in p.name]
    assert "rejects.staged" not in files_of(left)


# --- only what is new ----------------------------------------------------------------------------

NEW = {"key": "id", "watermark": "at"}
LATER = "at = TIMESTAMPTZ '2030-01-01 00:00:00+00' + id * INTERVAL '1 second'"


@pytest.mark.parametrize("form", MERGED)
def test_increments_are_cast_too(forced: Any, uri: str, target: Path, form: str) -> None:
    options = {"format": form, **NEW}
    assert forced.sync("crm.orders", target, **options).outcome == "unchanged"
    run(
        uri,
        # One that fits now, one that does not any more, one that does not in another way.
        f"UPDATE orders SET customer = '77', {LATER} WHERE id = 5",
        f"UPDATE orders SET customer = 'y', {LATER} WHERE id = 6",
        f"UPDATE orders SET customer = 'worse', {LATER} WHERE id = 60000",
        f"INSERT INTO orders (id, customer, at) VALUES ({ROWS + 1}, '8', '2031-01-01'),"
        f" ({ROWS + 2}, '8.5', '2032-01-01')",
    )
    result = forced.sync("crm.orders", target, **options)
    assert "5 rows are new or changed" in result.note
    assert [r[:2] for r in rejects_of(target)] == [
        (6, "y"),
        (60000, "worse"),
        (119000, "99999999999"),
        (ROWS + 2, "8.5"),
    ]
    assert (result.rows, result.rejected) == (ROWS - 2, 4)
    assert ids_of(target, form) == Counter(range(1, ROWS + 3))
    expected = FITTING.replace("5, 60000, 119000", f"6, 60000, 119000, {ROWS + 2}")
    assert rows_of(target, form) == truth(forced, expected)
    # What did not fit comes again, since its watermark is greater than any of the copy.
    again = forced.sync("crm.orders", target, **options)
    assert (again.outcome, again.rejected) == ("unchanged", 4)
    assert [r[0] for r in rejects_of(target)] == [6, 60000, 119000, ROWS + 2]


@pytest.mark.parametrize("form", MERGED)
def test_rejects_that_are_gone_at_the_source(
    forced: Any, uri: str, target: Path, form: str
) -> None:
    options = {"format": form, "full_compare": True, **NEW}
    run(uri, "DELETE FROM orders WHERE id IN (5, 100)")
    result = forced.sync("crm.orders", target, **options)
    assert "2 are gone" in result.note
    assert [r[0] for r in rejects_of(target)] == [60000, 119000]
    run(uri, "DELETE FROM orders WHERE id IN (60000, 119000)")
    result = forced.sync("crm.orders", target, **options)
    assert (result.rows, result.rejected, result.rejects) == (ROWS - 4, 0, None)
    assert rejects_of(target) == []
    assert rows_of(target, form) == truth(forced, FITTING)


@pytest.mark.parametrize("form", MERGED)
def test_a_few_increments_and_a_whole_copy_after_them(
    forced: Any, uri: str, target: Path, form: str
) -> None:
    chance = random.Random(5)
    for n in range(4):
        some = ", ".join(str(chance.randint(1, 200)) for _ in range(30))
        value = f"CASE WHEN id % 3 = {n % 3} THEN 'bad' ELSE '{n}' END"
        later = f"at = '203{n}-06-01 00:00:00+00'::timestamptz + id * INTERVAL '1 second'"
        run(uri, f"UPDATE orders SET customer = {value}, {later} WHERE id IN ({some})")
        forced.sync("crm.orders", target, format=form, **NEW)
        assert ids_of(target, form) == Counter(range(1, ROWS + 1))
        expected = f"{FITTING.replace('5, 60000, 119000', '60000, 119000')}"
        expected += " AND customer IS DISTINCT FROM 'bad' AND customer IS DISTINCT FROM 'x'"
        assert rows_of(target, form) == truth(forced, expected)
    forced.sync("crm.orders", target, format=form, split_bytes=SPLIT)
    assert ids_of(target, form) == Counter(range(1, ROWS + 1))
    assert rows_of(target, form) == truth(forced, expected)


@pytest.mark.parametrize("form", MERGED)
def test_an_increment_without_its_rejects_is_a_whole_copy(
    forced: Any, uri: str, target: Path, form: str
) -> None:
    folder = target.parent / f".{target.name}.batuta-sync" / "rejects"
    sorted(folder.iterdir())[1].unlink()
    run(uri, f"UPDATE orders SET customer = 'y', {LATER} WHERE id = 6")
    forced.sync("crm.orders", target, format=form, split_bytes=SPLIT, **NEW)
    assert [r[0] for r in rejects_of(target)] == [5, 6, 60000, 119000]
    assert ids_of(target, form) == Counter(range(1, ROWS + 1))


@pytest.mark.parametrize("form", MERGED)
@pytest.mark.parametrize("step", ["_staged", "_publish"])
def test_an_interrupted_increment_is_done_over(
    forced: Any, uri: str, target: Path, form: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from batuta_sql.sync import job

    before, rejects = rows_of(target, form), rejects_of(target)
    run(
        uri,
        f"UPDATE orders SET customer = 'y', {LATER} WHERE id = 6",
        f"UPDATE orders SET customer = '6', {LATER} WHERE id = 5",
    )

    def breaks(*_: Any, **__: Any) -> None:
        raise OperationalError("interrupted")

    with monkeypatch.context() as patch, pytest.raises(OperationalError, match="interrupted"):
        patch.setattr(job._Job, step, breaks)
        forced.sync("crm.orders", target, format=form, **NEW)
    assert (rows_of(target, form), rejects_of(target)) == (before, rejects)
    forced.sync("crm.orders", target, format=form, **NEW)
    assert [r[0] for r in rejects_of(target)] == [6, 60000, 119000]
    assert ids_of(target, form) == Counter(range(1, ROWS + 1))


@pytest.mark.parametrize("cast", ["id", "at"])
def test_a_key_or_watermark_that_is_cast_makes_a_whole_copy(
    connect: Connect, uri: str, orders: Path, cast: str
) -> None:
    connection = connect()
    connection.sync("crm.orders", orders, split_bytes=SPLIT, **NEW)
    run(uri, f"ALTER TABLE orders ALTER {cast} TYPE text USING {cast}::text")
    changes = {cast: None}
    options = {"split_bytes": SPLIT, **NEW}
    connection.sync("crm.orders", orders, on_drift="force", changes=changes, **options)
    run(
        uri,
        "UPDATE orders SET note = 'old' WHERE id::text = '7'",
        "DELETE FROM orders WHERE id::text = '9'",
    )
    connection.sync("crm.orders", orders, **options)
    rows = {r[0]: r[4] for r in rows_of(orders, "parquet")}
    assert rows[7] == "old"
    assert 9 not in rows
    assert len(rows) == ROWS - 1


# --- checkpoints of before -----------------------------------------------------------------------


def test_a_checkpoint_of_the_last_version_goes_on(connect: Connect, uri: str, orders: Path) -> None:
    connection = connect()
    connection.sync("crm.orders", orders, split_bytes=SPLIT)
    file = orders.parent / ".orders.batuta-sync" / "checkpoint.sqlite"
    new = {"rejects", "rejected", "rejects_digest", "forced", "withdrawn"}
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        for table in ("copy", "split"):
            for row, text in database.execute(f"SELECT rowid, content FROM {table}").fetchall():
                old = {k: v for k, v in json.loads(text).items() if k not in new}
                content = json.dumps(old, sort_keys=True)
                assert content != text
                seal = hashlib.sha256(content.encode()).hexdigest()
                change = f"UPDATE {table} SET content = ?, seal = ? WHERE rowid = ?"
                database.execute(change, (content, seal, row))
        database.execute("PRAGMA user_version = 1")
    assert connection.sync("crm.orders", orders, split_bytes=SPLIT).outcome == "unchanged"
    run(uri, "UPDATE orders SET note = 'changed' WHERE id = 5")
    # The split that the row was in, and the last one, to which it went.
    assert connection.sync("crm.orders", orders, split_bytes=SPLIT).copied == 2
    assert rows_of(orders, "parquet") == truth(connection)
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (2,)
