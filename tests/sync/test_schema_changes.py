"""A schema that changes stops a copy, before it or in the middle, unless that is accepted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batuta_sql.sync import job
from batuta_sql.sync.drift import SchemaDrift
from tests.sync.conftest import ROWS, SPLIT, rows_of, run, truth, types_of

Connect = Callable[..., Any]

NEW = "ALTER TABLE orders ADD COLUMN extra int"
WIDER = "ALTER TABLE orders ALTER customer TYPE bigint"
NARROWER = "ALTER TABLE orders ALTER id TYPE text"


@pytest.fixture
def copied(connect: Connect, tmp_path: Path) -> Any:
    """A connection, after a first copy."""
    connection = connect()
    connection.sync("crm.orders", tmp_path / "orders", split_bytes=SPLIT)
    return connection


@pytest.mark.parametrize("change", [NEW, WIDER, NARROWER, "ALTER TABLE orders DROP note"])
def test_every_change_stops_the_copy(copied: Any, uri: str, tmp_path: Path, change: str) -> None:
    before = rows_of(tmp_path / "orders", "parquet")
    run(uri, change)
    with pytest.raises(SchemaDrift) as caught:
        copied.sync("crm.orders", tmp_path / "orders", split_bytes=SPLIT)
    assert caught.value.exit_status == 5
    assert len(caught.value.changes) == 1
    assert rows_of(tmp_path / "orders", "parquet") == before


@pytest.mark.parametrize("change", [NEW, WIDER])
def test_safe_changes_may_be_applied(copied: Any, uri: str, tmp_path: Path, change: str) -> None:
    run(uri, change)
    result = copied.sync("crm.orders", tmp_path / "orders", on_drift="apply", split_bytes=SPLIT)
    assert len(result.changes) == 1
    assert rows_of(tmp_path / "orders", "parquet") == truth(copied)
    types = types_of(tmp_path / "orders")
    assert types.get("extra") == "INTEGER" if change == NEW else types["customer"] == "BIGINT"
    assert copied.sync("crm.orders", tmp_path / "orders").outcome == "unchanged"


@pytest.mark.parametrize("decision", ["apply", "skip"])
def test_an_unsafe_change_is_never_applied(
    copied: Any, uri: str, tmp_path: Path, decision: str
) -> None:
    run(uri, NEW, NARROWER)
    with pytest.raises(SchemaDrift, match="NOT SAFE"):
        copied.sync("crm.orders", tmp_path / "orders", on_drift=decision)


def test_new_columns_may_be_left_out(copied: Any, uri: str, tmp_path: Path) -> None:
    run(uri, NEW, "UPDATE orders SET extra = 1, note = 'changed' WHERE id = 5")
    result = copied.sync("crm.orders", tmp_path / "orders", on_drift="skip", split_bytes=SPLIT)
    assert 0 < result.copied < result.splits, "what has not changed is not copied again"
    assert "extra" not in types_of(tmp_path / "orders")
    columns = 'id, customer, total, day, note, "at"'
    expected = truth(copied, f"SELECT {columns} FROM crm.orders")
    assert rows_of(tmp_path / "orders", "parquet") == expected


def test_a_change_between_splits_stops_the_copy(
    connect: Connect, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query's view changes while it is copied; a table that is read is locked by its server."""
    monkeypatch.setattr(job, "_LOOKS_AGAIN_SECONDS", 0.0)
    connection, done, turn = connect(), [], threading.Lock()

    def watch(progress: Any) -> None:
        # The other reader waits here too, and does not finish meanwhile.
        with turn:
            if progress.done >= 1 and not done:
                done.append(True)
                # As another session may, once its lock is granted: the description changes.
                run(uri, "ALTER TABLE other ADD COLUMN extra int")

    run(uri, "CREATE TABLE other AS SELECT * FROM orders", "ANALYZE other")
    config = {"split_bytes": SPLIT, "progress": watch}
    original = job.schema_now

    def described(origin: str, make: Any) -> Any:
        return original("crm.other" if origin == "crm.orders" else origin, make)

    monkeypatch.setattr(job, "schema_now", described)
    with pytest.raises(SchemaDrift, match="extra"):
        connection.sync("crm.orders", tmp_path / "orders", **config)
    assert done
    assert not (tmp_path / "orders").exists()


def test_a_change_after_an_interruption(connect: Connect, uri: str, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def watch(progress: Any) -> None:
        if progress.done == 2:
            raise Stop

    connection, target = connect(), tmp_path / "orders"
    with pytest.raises(Stop):
        connection.sync("crm.orders", target, split_bytes=SPLIT, progress=watch)
    run(uri, NEW)
    with pytest.raises(SchemaDrift):
        connection.sync("crm.orders", target, split_bytes=SPLIT)
    result = connection.sync("crm.orders", target, split_bytes=SPLIT, on_drift="apply")
    assert result.copied == result.splits
    assert rows_of(target, "parquet") == truth(connection)
    assert result.rows == ROWS


def test_decisions_are_on_record(copied: Any, uri: str, tmp_path: Path) -> None:
    before = len(copied.audit()[0])
    run(uri, NEW)
    with pytest.raises(SchemaDrift):
        copied.sync("crm.orders", tmp_path / "orders")
    copied.sync("crm.orders", tmp_path / "orders", on_drift="apply")
    events, fault = copied.audit()
    assert fault is None
    told = [e for e in events[before:] if str(e.get("event", "")).startswith("schema drift")]
    assert [e["event"] for e in told] == ["schema drift: stopped", "schema drift: apply"]
    assert "extra" in json.dumps(told[0])


def test_drift_is_seen_without_copying(copied: Any, uri: str, tmp_path: Path) -> None:
    assert copied.drift("crm.orders") == ()
    run(uri, WIDER)
    (change,) = copied.drift("crm.orders")
    assert (change.column, change.is_safe) == ("customer", True)
    checkpoint = tmp_path / ".orders.batuta-sync" / "checkpoint.sqlite"
    assert copied.drift("crm.orders", checkpoint=checkpoint) == (change,)


def test_a_query_has_a_schema_too(connect: Connect, uri: str, tmp_path: Path) -> None:
    connection = connect()
    sql = "SELECT customer, sum(id) AS total FROM crm.orders GROUP BY customer"
    connection.sync(sql, tmp_path / "totals")
    assert connection.drift(sql) == ()
    run(uri, "ALTER TABLE orders ALTER customer TYPE bigint")
    (change,) = connection.drift(sql)
    assert (change.column, change.before, change.now) == ("customer", "INTEGER", "BIGINT")
    with pytest.raises(SchemaDrift):
        connection.sync(sql, tmp_path / "totals")
