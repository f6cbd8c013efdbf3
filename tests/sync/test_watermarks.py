"""Copies that read only what is new, by a watermark, and put it in by a key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import pytest

from batuta_sql.errors import DataError, NotSupportedError, OperationalError, ProgrammingError
from batuta_sql.sync import job
from tests.sync.conftest import ROWS, SPLIT, rows_of, run, truth

Connect = Callable[..., Any]
TARGETS = {"parquet": "orders", "delta": "orders", "duckdb": "copy.duckdb"}
NEW = {"key": "id", "watermark": "at"}

LATER = "at = TIMESTAMPTZ '2030-01-01 00:00:00+00' + id * INTERVAL '1 second'"


@pytest.fixture(params=TARGETS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def target(tmp_path: Path, form: str) -> Path:
    return tmp_path / TARGETS[form]


def test_only_what_is_new_is_read(connect: Connect, uri: str, target: Path, form: str) -> None:
    connection = connect()
    connection.sync("crm.orders", target, format=form, split_bytes=SPLIT, **NEW)
    run(
        uri,
        f"UPDATE orders SET note = 'changed', {LATER} WHERE id IN (5, 6, 90000)",
        f"INSERT INTO orders SELECT id + {ROWS}, customer, total, day, note,"
        " at + INTERVAL '1 year' FROM orders WHERE id <= 10",
    )
    seen: list[int] = []
    result = connection.sync(
        "crm.orders", target, format=form, progress=lambda p: seen.append(p.rows), **NEW
    )
    assert rows_of(target, form) == truth(connection)
    assert result.rows == ROWS + 10
    assert "13 rows are new or changed" in result.note
    # The rows of the greatest watermark come once more: others may have it too.
    assert max(seen) == 14
    assert connection.sync("crm.orders", target, format=form, **NEW).outcome == "unchanged"


def test_rows_that_share_the_greatest_watermark(
    connect: Connect, uri: str, target: Path, form: str
) -> None:
    connection = connect()
    connection.sync("crm.orders", target, format=form, **NEW)
    run(uri, f"INSERT INTO orders (id, at) SELECT {ROWS + 1}, max(at) FROM orders")
    assert connection.sync("crm.orders", target, format=form, **NEW).rows == ROWS + 1
    assert rows_of(target, form) == truth(connection)


def test_rows_that_are_gone(connect: Connect, uri: str, target: Path, form: str) -> None:
    connection = connect()
    connection.sync("crm.orders", target, format=form, split_bytes=SPLIT, **NEW)
    run(uri, "DELETE FROM orders WHERE id IN (1, 2, 70000)")
    assert connection.sync("crm.orders", target, format=form, **NEW).outcome == "unchanged"
    result = connection.sync("crm.orders", target, format=form, full_compare=True, **NEW)
    assert "3 are gone" in result.note
    assert result.rows == ROWS - 3
    assert rows_of(target, form) == truth(connection)


def test_a_few_copies_one_after_the_other(
    connect: Connect, uri: str, target: Path, form: str
) -> None:
    connection = connect()
    connection.sync("crm.orders", target, format=form, split_bytes=SPLIT, **NEW)
    for n in range(4):
        run(
            uri,
            f"DELETE FROM orders WHERE id = {n + 1}",
            f"UPDATE orders SET total = {n}, at = at + INTERVAL '{n + 1} years' WHERE id = 100",
            f"INSERT INTO orders (id, at) SELECT {ROWS + 1 + n}, max(at) FROM orders",
        )
        connection.sync("crm.orders", target, format=form, full_compare=True, **NEW)
        assert rows_of(target, form) == truth(connection)


def test_files_without_changes_stay(connect: Connect, uri: str, tmp_path: Path) -> None:
    connection, target = connect(), tmp_path / "orders"
    connection.sync("crm.orders", target, format="delta", split_bytes=SPLIT, **NEW)
    before = set(deltalake.DeltaTable(str(target)).file_uris())
    run(uri, f"UPDATE orders SET note = 'changed', {LATER} WHERE id = 5")
    connection.sync("crm.orders", target, format="delta", **NEW)
    table = deltalake.DeltaTable(str(target))
    after = set(table.file_uris())
    assert table.version() == 1
    assert len(before - after) == 1
    assert len(after - before) == 2


@pytest.mark.parametrize("step", ["_staged", "_publish"])
def test_an_interruption_leaves_the_copy_as_it_was(
    connect: Connect,
    uri: str,
    target: Path,
    form: str,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = connect()
    connection.sync("crm.orders", target, format=form, **NEW)
    before = rows_of(target, form)
    run(uri, f"UPDATE orders SET note = 'changed', {LATER} WHERE id = 5")

    def breaks(*_: Any, **__: Any) -> None:
        raise OperationalError("interrupted")

    with monkeypatch.context() as patch, pytest.raises(OperationalError, match="interrupted"):
        patch.setattr(job._Job, step, breaks)
        connection.sync("crm.orders", target, format=form, **NEW)
    assert rows_of(target, form) == before
    connection.sync("crm.orders", target, format=form, **NEW)
    assert rows_of(target, form) == truth(connection)
    assert connection.sync("crm.orders", target, format=form, **NEW).outcome == "unchanged"


def test_a_crash_after_the_target_was_changed(
    connect: Connect, uri: str, target: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint does not know that the target has the rows already: they go in once."""
    from batuta_sql.sync.checkpoint import Checkpoint

    connection = connect()
    connection.sync("crm.orders", target, format=form, **NEW)
    run(
        uri,
        f"UPDATE orders SET note = 'changed', {LATER} WHERE id = 5",
        f"INSERT INTO orders (id, at) VALUES ({ROWS + 1}, '2031-01-01')",
    )

    def breaks(*_: Any, **__: Any) -> None:
        raise OperationalError("interrupted")

    with monkeypatch.context() as patch, pytest.raises(OperationalError, match="interrupted"):
        patch.setattr(Checkpoint, "go_on", breaks)
        connection.sync("crm.orders", target, format=form, **NEW)
    connection.sync("crm.orders", target, format=form, **NEW)
    assert rows_of(target, form) == truth(connection)


def test_without_the_watermark_the_copy_is_compared_as_ever(
    connect: Connect, uri: str, tmp_path: Path
) -> None:
    connection, target = connect(), tmp_path / "orders"
    connection.sync("crm.orders", target, split_bytes=SPLIT, **NEW)
    run(uri, "DELETE FROM orders WHERE id = 5", "UPDATE orders SET note = 'old' WHERE id = 7")
    connection.sync("crm.orders", target, split_bytes=SPLIT)
    assert rows_of(target, "parquet") == truth(connection)


@pytest.mark.parametrize("key", ["customer", "note"])
def test_what_is_no_key(connect: Connect, uri: str, tmp_path: Path, key: str) -> None:
    connection, target = connect(), tmp_path / "orders"
    new = {"key": key, "watermark": "at"}
    connection.sync("crm.orders", target, **new)
    run(uri, f"UPDATE orders SET {LATER} WHERE id % 10 = 0")
    with pytest.raises(DataError, match="is no key"):
        connection.sync("crm.orders", target, **new)


def test_keys_of_several_columns(connect: Connect, uri: str, tmp_path: Path) -> None:
    run(
        uri,
        "CREATE TABLE lines AS SELECT i / 3 AS a, i % 3 AS b, i AS n FROM generate_series(1, 30) i",
    )
    connection, target = connect(), tmp_path / "lines"
    new = {"key": ("a", "b"), "watermark": "n"}
    connection.sync("crm.lines", target, **new)
    run(
        uri, "UPDATE lines SET n = 100 WHERE a = 3 AND b = 1", "INSERT INTO lines VALUES (9, 9, 99)"
    )
    connection.sync("crm.lines", target, **new)
    assert rows_of(target, "parquet") == truth(connection, "SELECT * FROM crm.lines")


def test_what_does_not_go_together(connect: Connect, tmp_path: Path) -> None:
    connection = connect()
    for wrong in ({"key": "id"}, {"watermark": "at"}, {"full_compare": True}):
        with pytest.raises(ProgrammingError, match="go together"):
            connection.sync("crm.orders", tmp_path / "orders", **wrong)
    with pytest.raises(NotSupportedError, match="written whole"):
        connection.sync("crm.orders", tmp_path / "orders.ald", format="ald", **NEW)
    connection.sync("crm.orders", tmp_path / "orders", **NEW)
    with pytest.raises(ProgrammingError, match='no column "nothing"'):
        connection.sync("crm.orders", tmp_path / "orders", key="id", watermark="nothing")
