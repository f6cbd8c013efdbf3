"""Copies: every row once, of one state; nothing twice that has not changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import pyarrow as pa
import pytest

import batuta_sql
from batuta_sql.errors import CostRefused, Error, NotSupportedError, OperationalError
from batuta_sql.sync.checkpoint import CheckpointError
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


@pytest.mark.parametrize("form", TARGETS)
def test_a_table_is_copied_whole(connect: Connect, tmp_path: Path, form: str) -> None:
    connection, target = connect(), tmp_path / TARGETS[form]
    result = connection.sync("crm.orders", target, format=form, split_bytes=SPLIT)
    assert (result.outcome, result.rows) == ("copied", ROWS)
    assert result.splits == result.copied > 3
    assert rows_of(target, form) == truth(connection)


@pytest.mark.parametrize("form", TARGETS)
def test_a_finished_copy_is_not_copied_again(connect: Connect, tmp_path: Path, form: str) -> None:
    connection, target = connect(), tmp_path / TARGETS[form]
    connection.sync("crm.orders", target, format=form, split_bytes=SPLIT)
    again = connection.sync("crm.orders", target, format=form, split_bytes=SPLIT)
    assert (again.outcome, again.copied, again.rows) == ("unchanged", 0, ROWS)


@pytest.mark.parametrize("form", TARGETS)
def test_a_changed_table(connect: Connect, uri: str, tmp_path: Path, form: str) -> None:
    """Rows that came, went and changed; files keep what did not change."""
    connection, target = connect(), tmp_path / TARGETS[form]
    first = connection.sync("crm.orders", target, format=form, split_bytes=SPLIT)
    run(
        uri,
        "UPDATE orders SET note = 'changed' WHERE id = 5",
        "DELETE FROM orders WHERE id = 6",
        f"INSERT INTO orders (id) VALUES ({ROWS + 1})",
    )
    second = connection.sync("crm.orders", target, format=form, split_bytes=SPLIT)
    assert rows_of(target, form) == truth(connection)
    if form in ("parquet", "delta"):
        # The first split, from which rows are gone, and the last, to which they came.
        assert second.copied == 2 < first.splits
    assert connection.sync("crm.orders", target, format=form).outcome == "unchanged"


@pytest.mark.parametrize("form", TARGETS)
@pytest.mark.parametrize("changed", [False, True])
def test_an_interrupted_copy_goes_on(
    connect: Connect, uri: str, tmp_path: Path, form: str, changed: bool
) -> None:
    connection, target = connect(), tmp_path / TARGETS[form]
    with pytest.raises(Interrupted):
        connection.sync("crm.orders", target, format=form, split_bytes=SPLIT, progress=after(3))
    assert not target.exists(), "nothing is visible before all of it is there"
    if changed:
        run(uri, "UPDATE orders SET note = 'changed' WHERE id % 1000 = 1 AND id < 10000")
    result = connection.sync("crm.orders", target, format=form, split_bytes=SPLIT)
    assert rows_of(target, form) == truth(connection)
    assert result.splits - result.copied >= (1 if changed else 3)


@pytest.mark.parametrize("form", TARGETS)
@pytest.mark.parametrize("copied_before", [False, True])
def test_what_was_lost_of_an_interrupted_copy_is_read_again(
    connect: Connect, uri: str, tmp_path: Path, form: str, copied_before: bool
) -> None:
    """A file of a split is gone, and the target is there with the last copy, or other tables."""
    connection, target = connect(), tmp_path / TARGETS[form]
    if copied_before:
        connection.sync("crm.orders", target, format=form, split_bytes=SPLIT)
        run(uri, "UPDATE orders SET note = 'changed'")
    elif form == "duckdb":
        with duckdb.connect(str(target)) as con:
            con.execute("CREATE TABLE mine AS SELECT 1 AS a")
    with pytest.raises(Interrupted):
        connection.sync("crm.orders", target, format=form, split_bytes=SPLIT, progress=after(2))
    sorted((tmp_path / f".{target.name}.batuta-sync" / "files").glob("part-*"))[0].unlink()
    connection.sync("crm.orders", target, format=form, split_bytes=SPLIT)
    assert rows_of(target, form) == truth(connection)


def test_a_table_that_has_grown_gets_more_splits(
    connect: Connect, uri: str, tmp_path: Path
) -> None:
    connection, target = connect(), tmp_path / "orders"
    first = connection.sync("crm.orders", target, split_bytes=SPLIT)
    run(uri, f"INSERT INTO orders SELECT id + {ROWS}, customer, total, day, note FROM orders")
    second = connection.sync("crm.orders", target, split_bytes=SPLIT)
    assert rows_of(target, "parquet") == truth(connection)
    assert second.splits > first.splits * 1.5
    assert second.copied == second.splits - first.splits + 1


def test_a_table_that_was_emptied(connect: Connect, uri: str, tmp_path: Path) -> None:
    connection, target = connect(), tmp_path / "orders"
    before = connection.sync("crm.orders", target, split_bytes=SPLIT)
    run(uri, "TRUNCATE orders")
    assert connection.sync("crm.orders", target, split_bytes=SPLIT).rows == 0
    assert before.rows == ROWS
    assert rows_of(target, "parquet") == []
    assert list(types_of(target)) == ["id", "customer", "total", "day", "note", "at"]


def test_files_that_were_lost_are_copied_again(connect: Connect, tmp_path: Path) -> None:
    connection, target = connect(), tmp_path / "orders"
    connection.sync("crm.orders", target, split_bytes=SPLIT)
    lost = sorted(target.iterdir())[2]
    lost.unlink()
    assert connection.sync("crm.orders", target, split_bytes=SPLIT).copied == 1
    assert rows_of(target, "parquet") == truth(connection)


def test_types_stay(connect: Connect, tmp_path: Path) -> None:
    connect().sync("crm.orders", tmp_path / "orders")
    assert types_of(tmp_path / "orders") == {
        "id": "INTEGER",
        "customer": "INTEGER",
        "total": "DECIMAL(12,2)",
        "day": "DATE",
        "note": "VARCHAR",
        "at": "TIMESTAMP WITH TIME ZONE",
    }


def test_all_splits_are_of_one_state(connect: Connect, uri: str, tmp_path: Path) -> None:
    """Every row is updated while the copy runs: it has all of the updates, or none."""
    run(uri, "ALTER TABLE orders ADD COLUMN n int DEFAULT 0")
    connection, done = connect(), []

    def watch(progress: Any) -> None:
        if progress.done and not done:
            done.append(True)
            run(uri, "UPDATE orders SET n = n + 1")

    connection.sync("crm.orders", tmp_path / "orders", split_bytes=SPLIT, progress=watch)
    assert done
    rows = rows_of(tmp_path / "orders", "parquet")
    assert len(rows) == ROWS
    assert {r[-1] for r in rows} == {0}


# --- other things that are copied ----------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as lite:
        lite.execute("CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT)")
        lite.executemany("INSERT INTO customer VALUES (?, ?)", [(i, f"c{i}") for i in range(97)])
        lite.commit()
    return {"kind": "sqlite", "path": str(path)}


def test_a_query_over_several_sources(
    connect: Connect, tmp_path: Path, shop: dict[str, Any]
) -> None:
    connection = connect(shop=shop)
    sql = (
        "SELECT c.name, count(*) AS orders, sum(o.total) AS total FROM crm.orders o"
        " JOIN shop.customer c ON c.id = o.customer GROUP BY c.name"
    )
    result = connection.sync(sql, tmp_path / "totals")
    assert (result.rows, result.splits) == (97, 1)
    assert rows_of(tmp_path / "totals", "parquet") == truth(connection, sql)
    again = connection.sync(sql, tmp_path / "totals")
    assert again.outcome == "copied"
    assert "does not tell what has changed" in again.note


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id, upper(note) AS note, total * 2 AS twice FROM crm.orders WHERE customer > 40",
        "SELECT id, md5(note) AS digest FROM crm.orders",
    ],
)
def test_a_query_row_by_row_has_splits(connect: Connect, tmp_path: Path, sql: str) -> None:
    connection = connect()
    assert connection.sync(sql, tmp_path / "some", split_bytes=SPLIT).splits > 3
    assert rows_of(tmp_path / "some", "parquet") == truth(connection, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id, random() AS r FROM crm.orders",
        "SELECT id FROM crm.orders ORDER BY id LIMIT 1000",
        "SELECT DISTINCT customer FROM crm.orders",
        "SELECT id, row_number() OVER (ORDER BY id) AS n FROM crm.orders",
        "SELECT a.id FROM crm.orders a JOIN crm.orders b USING (id)",
    ],
)
def test_other_queries_are_one_split(connect: Connect, tmp_path: Path, sql: str) -> None:
    connection = connect()
    result = connection.sync(sql, tmp_path / "some", split_bytes=SPLIT)
    assert result.splits == 1
    assert result.rows == len(connection.execute(sql).fetchall())


def test_a_table_of_a_file_and_a_view(
    connect: Connect, uri: str, tmp_path: Path, shop: dict[str, Any]
) -> None:
    run(uri, "CREATE VIEW seen AS SELECT id, note FROM orders WHERE id < 1000")
    connection = connect(shop=shop)
    assert connection.sync("shop.customer", tmp_path / "customer").rows == 97
    assert connection.sync("crm.seen", tmp_path / "seen").rows == 999
    assert rows_of(tmp_path / "customer", "parquet") == truth(
        connection, "SELECT * FROM shop.customer"
    )


def test_a_copy_of_one_split_that_was_interrupted_says_that_it_begins_again(
    connect: Connect, tmp_path: Path, shop: dict[str, Any]
) -> None:
    connection, target = connect(shop=shop), tmp_path / "customer"

    def interrupt(progress: Any) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        connection.sync("shop.customer", target, progress=interrupt)
    assert "it began again" in connection.sync("shop.customer", target).note


def test_a_versioned_table_is_copied_once_a_version(connect: Connect, tmp_path: Path) -> None:
    lake = tmp_path / "lake" / "t"
    deltalake.write_deltalake(str(lake), pa.table({"a": [1, 2]}))
    connection = connect(lake={"kind": "delta", "path": str(tmp_path / "lake")})
    assert connection.sync("lake.t", tmp_path / "t").outcome == "copied"
    assert connection.sync("lake.t", tmp_path / "t").outcome == "unchanged"
    deltalake.write_deltalake(str(lake), pa.table({"a": [3]}), mode="append")
    assert connection.sync("lake.t", tmp_path / "t").outcome == "copied"
    assert rows_of(tmp_path / "t", "parquet") == [(1,), (2,), (3,)]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A Delta table of five files, partitioned."""
    path = tmp_path / "lake" / "t"
    for n in range(5):
        rows = pa.table({"id": range(n * 100, n * 100 + 100), "part": [n % 2] * 100})
        deltalake.write_deltalake(str(path), rows, mode="append", partition_by=["part"])
    return path


@pytest.mark.parametrize("form", ["parquet", "duckdb"])
def test_files_of_a_delta_table_are_splits(
    connect: Connect, tmp_path: Path, lake: Path, form: str
) -> None:
    connection, target = connect(lake={"kind": "delta", "path": str(lake.parent)}), tmp_path / "t"
    with pytest.raises(Interrupted):
        connection.sync("lake.t", target, format=form, split_bytes=1, progress=after(2))
    first = connection.sync("lake.t", target, format=form, split_bytes=1)
    assert first.splits == 5
    assert first.copied <= 3
    assert rows_of(target, form, "t") == truth(connection, "SELECT * FROM lake.t")


def test_only_new_files_of_a_delta_table_are_read(
    connect: Connect, tmp_path: Path, lake: Path
) -> None:
    connection = connect(lake={"kind": "delta", "path": str(lake.parent)})
    sql = "SELECT id, part * 2 AS twice FROM lake.t WHERE id <> 7"
    connection.sync(sql, tmp_path / "t", split_bytes=1)
    more = pa.table({"id": [1000, 1001], "part": [0, 1]})
    deltalake.write_deltalake(str(lake), more, mode="append")
    assert connection.sync(sql, tmp_path / "t", split_bytes=1).copied == 2
    assert rows_of(tmp_path / "t", "parquet") == truth(connection, sql)
    deltalake.DeltaTable(str(lake)).delete("id < 100 OR id = 1000")
    result = connection.sync(sql, tmp_path / "t", split_bytes=1)
    assert result.copied < 5
    assert rows_of(tmp_path / "t", "parquet") == truth(connection, sql)
    deltalake.DeltaTable(str(lake)).optimize.compact()
    connection.sync(sql, tmp_path / "t", split_bytes=1)
    assert rows_of(tmp_path / "t", "parquet") == truth(connection, sql)
    assert connection.sync(sql, tmp_path / "t", split_bytes=1).outcome == "unchanged"


def test_partitions_have_splits_too(connect: Connect, uri: str, tmp_path: Path) -> None:
    run(
        uri,
        "CREATE TABLE parted (LIKE orders) PARTITION BY RANGE (id)",
        "CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO (50000)",
        "CREATE TABLE part_2 PARTITION OF parted DEFAULT",
        "INSERT INTO parted SELECT * FROM orders",
        "ANALYZE part_1",
        "ANALYZE part_2",
    )
    connection = connect()
    first = connection.sync("crm.parted", tmp_path / "parted", split_bytes=SPLIT)
    assert first.splits > 3
    assert rows_of(tmp_path / "parted", "parquet") == truth(connection)
    run(uri, "UPDATE part_2 SET note = 'changed' WHERE id = 60001")
    second = connection.sync("crm.parted", tmp_path / "parted", split_bytes=SPLIT)
    assert 0 < second.copied < first.splits
    assert rows_of(tmp_path / "parted", "parquet") == truth(connection, "SELECT * FROM crm.parted")


# --- Delta and DuckDB ----------------------------------------------------------------------------


def test_each_copy_is_one_commit_of_a_delta_table(
    connect: Connect, uri: str, tmp_path: Path
) -> None:
    connection, target = connect(), tmp_path / "orders"
    connection.sync("crm.orders", target, format="delta", split_bytes=SPLIT)
    old = deltalake.DeltaTable(str(target))
    assert old.version() == 0
    files = set(old.file_uris())
    run(uri, "UPDATE orders SET note = 'changed' WHERE id = 5")
    connection.sync("crm.orders", target, format="delta", split_bytes=SPLIT)
    new = deltalake.DeltaTable(str(target))
    assert new.version() == 1
    assert len(files & set(new.file_uris())) >= len(files) - 2
    # The old version can still be read.
    assert deltalake.DeltaTable(str(target), version=0).to_pyarrow_table().num_rows == ROWS


def test_a_delta_table_takes_a_new_schema(connect: Connect, uri: str, tmp_path: Path) -> None:
    connection, target = connect(), tmp_path / "orders"
    connection.sync("crm.orders", target, format="delta", split_bytes=SPLIT)
    run(uri, "ALTER TABLE orders ADD COLUMN extra int")
    connection.sync("crm.orders", target, format="delta", on_drift="apply", split_bytes=SPLIT)
    assert rows_of(target, "delta") == truth(connection)
    assert "extra" in deltalake.DeltaTable(str(target)).to_pyarrow_table().column_names


def test_a_type_that_delta_has_not_is_named(connect: Connect, uri: str, tmp_path: Path) -> None:
    run(uri, "CREATE TABLE odd AS SELECT 1 AS id, TIME '10:00' AS clock")
    with pytest.raises(NotSupportedError, match='"clock"'):
        connect().sync("crm.odd", tmp_path / "odd", format="delta")
    assert not (tmp_path / "odd").exists()


def test_other_tables_of_a_duckdb_file_stay(connect: Connect, uri: str, tmp_path: Path) -> None:
    target = tmp_path / "mine.duckdb"
    with duckdb.connect(str(target)) as con:
        con.execute("CREATE TABLE kept AS SELECT 1 AS a")
        con.execute("CREATE TABLE taken AS SELECT 1 AS a")
    run(uri, "CREATE TABLE taken AS SELECT 2 AS a")
    connection = connect()
    connection.sync("crm.orders", target, format="duckdb")
    with duckdb.connect(str(target), read_only=True) as con:
        assert con.execute("SELECT a FROM kept").fetchall() == [(1,)]
        assert con.execute("SELECT count(*) FROM orders").fetchall() == [(ROWS,)]
    with pytest.raises(OperationalError, match='a table "taken" already'):
        connection.sync("crm.taken", target, format="duckdb", checkpoint=tmp_path / "other.sqlite")


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["parquet", "delta", "ald"])
def test_what_is_there_is_never_written_over(connect: Connect, tmp_path: Path, form: str) -> None:
    target = tmp_path / TARGETS[form]
    if form == "ald":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    with pytest.raises(OperationalError, match="is there already"):
        connect().sync("crm.orders", target, format=form)
    assert target.read_text() == "mine" if form == "ald" else files_of(target) == {"mine.txt"}


def test_an_empty_folder_may_be_the_target(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "orders").mkdir()
    assert connect().sync("crm.orders", tmp_path / "orders").rows == ROWS


def test_a_checkpoint_is_of_one_copy(connect: Connect, tmp_path: Path) -> None:
    connection, checkpoint = connect(), tmp_path / "checkpoint.sqlite"
    connection.sync("crm.orders", tmp_path / "a", checkpoint=checkpoint)
    with pytest.raises(CheckpointError, match="of another copy"):
        connection.sync("crm.orders", tmp_path / "b", checkpoint=checkpoint)


def test_a_url_is_no_target(connect: Connect) -> None:
    with pytest.raises(NotSupportedError, match="only local targets"):
        connect().sync("crm.orders", "s3://bucket/orders")


def test_guards_hold(connect: Connect, uri: str, tmp_path: Path) -> None:
    config = config_of(uri)
    config["sources"]["crm"] |= {"pricing": {"usd_per_tb_scanned": 1e9}, "labels": ["pii"]}
    with (
        batuta_sql.connect(config, max_cost_usd=0.01) as connection,
        pytest.raises(CostRefused),
    ):
        connection.sync("crm.orders", tmp_path / "orders")
    assert not (tmp_path / "orders").exists()
    config["sources"]["crm"].pop("pricing")
    with batuta_sql.connect(config) as connection:
        connection.sync("crm.orders", tmp_path / "orders", split_bytes=SPLIT)
        assert batuta_sql.read_labels(tmp_path / "orders").of("note").all == {"pii"}
        connection.sync("crm.orders", tmp_path / "d" / "orders", format="delta")
        assert batuta_sql.read_labels(tmp_path / "d" / "orders").of("note").all == {"pii"}


@pytest.mark.parametrize("options", [{}, {"key": "id", "watermark": "at"}])
def test_labels_that_have_changed_reach_every_file(
    uri: str, tmp_path: Path, options: dict[str, str]
) -> None:
    config, target = config_of(uri), tmp_path / "orders"
    for labels in (["pii"], ["pii", "origin:internal"], []):
        config["sources"]["crm"]["labels"] = labels
        with batuta_sql.connect(config) as connection:
            result = connection.sync("crm.orders", target, split_bytes=SPLIT, **options)
        assert result.outcome == "copied"
        for file in target.iterdir():
            assert batuta_sql.read_labels(file).of("note").all == set(labels)


@pytest.mark.parametrize("options", [{}, {"key": "id", "watermark": "at"}])
def test_a_duckdb_table_carries_its_labels_to_whoever_reads_it(
    uri: str, tmp_path: Path, options: dict[str, str]
) -> None:
    config, target = config_of(uri), tmp_path / "copy.duckdb"
    columns = {"note": {"labels": ["pii", "use:odd"]}}
    config["sources"]["crm"]["tables"] = {"orders": {"labels": ["origin:crm"], "columns": columns}}
    for _ in range(2):
        with batuta_sql.connect(config) as connection:
            connection.sync("crm.orders", target, format="duckdb", **options)
        run(uri, "UPDATE orders SET note = 'new', at = now() WHERE id = 5")
        with duckdb.connect(str(target)) as database:
            database.execute("CREATE OR REPLACE VIEW ids AS SELECT id FROM orders")
            database.execute("CREATE OR REPLACE VIEW few AS SELECT * FROM ids LIMIT 3")
        copy = {"sources": {"copy": {"kind": "duckdb", "path": str(target)}}}
        with batuta_sql.connect(copy) as connection:

            def labels(sql: str, name: str, connection: Any = connection) -> set[str]:
                return set(connection.execute(sql).labels[name].all)

            everything = {"pii", "use:odd", "origin:crm"}
            assert labels("SELECT note FROM copy.orders", "note") == everything
            assert labels("SELECT id FROM copy.orders", "id") == {"origin:crm"}
            assert labels("SELECT count(*) AS n FROM copy.orders", "n") == {"origin:crm"}
            # Which columns of a table a view reads is not asked.
            assert labels("SELECT id FROM copy.few", "id") == everything


def test_labels_of_a_comment_that_cannot_be_read_stop_the_query(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "copy.duckdb")) as database:
        database.execute("CREATE TABLE orders AS SELECT 1 AS id")
        database.execute("CREATE TABLE other AS SELECT 1 AS id")
        database.execute("COMMENT ON TABLE orders IS 'batuta.labels={'")
        database.execute("COMMENT ON TABLE other IS 'a comment'")
    copy = {"sources": {"copy": {"kind": "duckdb", "path": str(tmp_path / "copy.duckdb")}}}
    with batuta_sql.connect(copy) as connection:
        assert connection.execute("SELECT id FROM copy.other").fetchall() == [(1,)]
        with pytest.raises(batuta_sql.OperationalError, match="the comment on main.orders"):
            connection.execute("SELECT id FROM copy.orders")


@pytest.mark.parametrize("form", ["parquet", "delta", "duckdb", "ald"])
def test_public_data_is_not_copied_into_a_sovereign_place(
    uri: str, tmp_path: Path, form: Any
) -> None:
    """A place is what a source reads; its labels are that source's."""
    vault = {"kind": "files", "path": str(tmp_path / "vault"), "labels": ["tier:sovereign"]}
    config = config_of(uri, vault=vault)
    config["sources"]["crm"]["labels"] = ["origin:public"]
    (tmp_path / "vault").mkdir()
    with batuta_sql.connect(config) as connection:
        target = tmp_path / "vault" / "deep" / "orders"
        with pytest.raises(batuta_sql.LabelRefused, match="origin:public(.|\n)*would go to"):
            connection.sync("crm.orders", target, format=form)
        assert not target.exists()
        connection.sync("crm.orders", tmp_path / "elsewhere", format=form)
    config["labels"] = {"on_public_into_sovereign": "warn"}
    with batuta_sql.connect(config) as connection, pytest.warns(batuta_sql.LabelWarning):
        assert connection.sync("crm.orders", target, format=form).outcome == "copied"


def test_a_dry_run_copies_nothing(connect: Connect, tmp_path: Path) -> None:
    result = connect().sync("crm.orders", tmp_path / "orders", dry_run=True, split_bytes=SPLIT)
    assert result.outcome == "planned"
    assert result.splits > 3
    assert result.estimate is not None
    assert result.estimate.rows == pytest.approx(ROWS, rel=0.05)
    assert not (tmp_path / "orders").exists()


def test_an_unknown_table(connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(Error, match="nothing"):
        connect().sync("crm.nothing", tmp_path / "orders")


@pytest.mark.parametrize("form", ["parquet", "duckdb", "ald"])
@pytest.mark.parametrize("value", ["INTERVAL 1 DAY", "union_value(k := 1)"])
def test_a_type_that_cannot_be_kept_is_refused_by_its_column(
    connect: Connect, tmp_path: Path, form: str, value: str
) -> None:
    query = f'SELECT id, {value} AS "how long" FROM crm.orders'
    with pytest.raises(NotSupportedError, match='no type for the column "how long"'):
        connect().sync(query, tmp_path / TARGETS[form], format=form)
