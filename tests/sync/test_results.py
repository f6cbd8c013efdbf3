"""Copies by the parts of one result, which a warehouse keeps for a while."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import batuta_sql
from batuta_sql.sources.databricks_results import parts_of
from tests.emulators.databricks import Workspace
from tests.emulators.process import Emulator
from tests.sync.conftest import Interrupted, Rows, after, rows_of, truth

ROWS, PARTS = 20_000, 10
TARGETS = {"parquet": "orders", "delta": "orders", "duckdb": "copy.duckdb", "ald": "orders.ald"}
STATEMENT = "POST /api/2.0/sql/statements"


@pytest.fixture
def lake(databricks: Workspace) -> Iterator[Workspace]:
    databricks.reset()
    databricks.set(options={"part_rows": ROWS // PARTS})
    yield databricks
    databricks.reset()


@pytest.fixture
def table(lake: Workspace) -> str:
    schema = lake.new_schema()
    lake.run(
        f"CREATE TABLE lab.{schema}.orders AS SELECT i AS id, 'w' || i AS word, i % 7 AS k,"
        f" (i / 4)::DECIMAL(12,2) AS price FROM range({ROWS}) r(i)"
    )
    return f"{schema}.orders"


@pytest.fixture
def connection(lake: Workspace) -> Iterator[Any]:
    sources = {"dbx": lake.settings()}
    config = {"sources": sources, "cost": {"on_unknown": "allow", "history": False}}
    with batuta_sql.connect(config) as made:
        yield made


def statements(lake: Workspace) -> int:
    return lake.lines().count(STATEMENT)


@pytest.mark.parametrize("form", TARGETS)
def test_an_interrupted_copy_goes_on_with_the_same_result(
    lake: Workspace, table: str, connection: Any, tmp_path: Path, form: Any
) -> None:
    target, origin = tmp_path / TARGETS[form], f"dbx.{table}"
    before = truth(connection, f"SELECT * FROM {origin}")
    asked = statements(lake)
    with pytest.raises(Interrupted):
        connection.sync(origin, target, format=form, split_bytes=1, progress=after(3))
    # What was read and what is still to be read are of one state.
    lake.run(f"UPDATE lab.{table} SET word = 'changed'")
    lake.run(f"DELETE FROM lab.{table} WHERE id > 500")
    changed = statements(lake)
    result = connection.sync(origin, target, format=form, split_bytes=1)
    assert statements(lake) == changed == asked + 3
    assert result.splits == PARTS
    assert result.copied <= PARTS - 3
    assert "were there already" in result.note
    assert rows_of(target, form) == before


def test_a_finished_copy_is_made_anew(
    lake: Workspace, table: str, connection: Any, tmp_path: Path
) -> None:
    """The warehouse still has the old result: that does not make it what there is now."""
    target, origin = tmp_path / "orders", f"dbx.{table}"
    connection.sync(origin, target, split_bytes=1)
    lake.run(f"UPDATE lab.{table} SET word = 'changed' WHERE id = 7")
    assert connection.sync(origin, target, split_bytes=1).copied == PARTS
    assert rows_of(target, "parquet") == truth(connection, f"SELECT * FROM {origin}")


def test_a_result_that_is_gone_is_asked_for_again(
    lake: Workspace, table: str, connection: Any, tmp_path: Path
) -> None:
    target, origin = tmp_path / "orders", f"dbx.{table}"
    with pytest.raises(Interrupted):
        connection.sync(origin, target, split_bytes=1, progress=after(3))
    lake.set(forget_statements=True)
    lake.run(f"DELETE FROM lab.{table} WHERE id > 15000")
    result = connection.sync(origin, target, split_bytes=1)
    assert "has the result no more" in result.note
    assert rows_of(target, "parquet") == truth(connection, f"SELECT * FROM {origin}")


def test_a_result_that_is_forgotten_in_the_middle(
    lake: Workspace, table: str, connection: Any, tmp_path: Path
) -> None:
    target, origin, forgotten = tmp_path / "orders", f"dbx.{table}", []

    def forget(progress: Any) -> None:
        if progress.done >= 3 and not forgotten:
            forgotten.append(lake.set(forget_statements=True))

    connection.sync(origin, target, split_bytes=1, progress=forget)
    assert forgotten
    assert rows_of(target, "parquet") == truth(connection, f"SELECT * FROM {origin}")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a.id, b.word, a.price FROM {0} a JOIN {0} b ON a.id = b.id WHERE a.k <> 3",
        "SELECT id, count(*) AS n FROM {0} GROUP BY id",
        # The residual computes what the warehouse is not asked for.
        "SELECT id, upper(word) AS word, price / 3 AS third FROM {0} WHERE word NOT LIKE '%99'",
    ],
    ids=["join", "groups", "residual"],
)
def test_of_any_query_whose_rows_come_of_one_statement(
    lake: Workspace, table: str, connection: Any, tmp_path: Path, sql: str
) -> None:
    target, query = tmp_path / "orders", sql.format(f"dbx.{table}")
    with pytest.raises(Interrupted):
        connection.sync(query, target, split_bytes=1, progress=after(2))
    asked = statements(lake)
    result = connection.sync(query, target, split_bytes=1)
    assert statements(lake) == asked
    assert 2 < result.splits <= PARTS
    assert result.copied <= result.splits - 2
    assert rows_of(target, "parquet") == truth(connection, query)


def test_an_order_or_a_limit_is_of_the_whole_result(
    lake: Workspace, table: str, connection: Any, tmp_path: Path
) -> None:
    sql = f"SELECT id FROM dbx.{table} ORDER BY id DESC LIMIT 5000"
    connection.sync(sql, tmp_path / "orders", split_bytes=1)
    assert rows_of(tmp_path / "orders", "parquet") == [(i,) for i in range(15_000, ROWS)]


def test_a_result_without_rows(
    lake: Workspace, table: str, connection: Any, tmp_path: Path
) -> None:
    result = connection.sync(f"SELECT * FROM dbx.{table} WHERE id < 0", tmp_path / "orders")
    assert (result.rows, result.splits) == (0, 1)
    assert len(rows_of(tmp_path / "orders", "parquet")) == 0


def test_a_dry_run_runs_nothing(
    lake: Workspace, table: str, connection: Any, tmp_path: Path
) -> None:
    asked = statements(lake)
    planned = connection.sync(f"dbx.{table}", tmp_path / "orders", dry_run=True)
    assert planned.outcome == "planned"
    explained = [r for r in lake.requests() if r["line"] == STATEMENT]
    assert len(explained) - asked <= 1
    assert isinstance(truth(connection, f"SELECT * FROM dbx.{table}"), Rows)


def test_a_warehouse_that_tells_of_the_first_parts_only(connection: Any) -> None:
    """All that it counts are there, whether it describes them or not."""
    told = [{"chunk_index": 0, "row_count": 10, "byte_count": 5}]
    manifest = {"total_chunk_count": 3, "total_row_count": 30, "chunks": told}
    statement: Any = connection._session.sources["dbx"]._statement("")
    statement.id, statement.answer = "s", {"manifest": manifest}
    assert parts_of(statement) == [("s/0", 5.0), ("s/1", 0.0), ("s/2", 0.0)]


def test_a_transport_that_keeps_no_results_delivers_all_rows(
    spark_connect: Emulator, tmp_path: Path
) -> None:
    options = {
        "uri": f"sc://127.0.0.1:{spark_connect.port}",
        "adbc.spark.session_id": str(uuid.uuid4()),
    }
    source = {"kind": "databricks", "transport": "spark_connect", "options": options}
    config = {"sources": {"dbx": source}, "cost": {"on_unknown": "allow", "history": False}}
    with batuta_sql.connect(config) as made:
        transport = made._session.sources["dbx"]._adbc
        transport.rows("CREATE SCHEMA lab.s0")
        transport.rows("CREATE TABLE lab.s0.orders AS SELECT id FROM range(1000)")
        made.sync("dbx.s0.orders", tmp_path / "orders")
    assert rows_of(tmp_path / "orders", "parquet") == [(i,) for i in range(1000)]
