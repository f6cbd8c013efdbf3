"""What sources say before they are read, against what is then read."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import pytest

from batuta_sql.demo.postgres_server import PostgresServer
from batuta_sql.sources.postgresql_plans import PAGE, delivered_bytes, relations, scanned_bytes

Opened = Callable[..., Any]

ROWS = 600_000
TABLE = (
    "SELECT i AS id, i % 1000 AS k, CAST(i AS DECIMAL(12,2)) / 100 AS price,"
    " md5(i::VARCHAR) AS name, DATE '2020-01-01' + CAST(i // 2000 AS INTEGER) AS day,"
    " i::DOUBLE AS f FROM range({low}, {high}) t(i)"
)


# --- Parquet and Delta -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    (folder / "t").mkdir()
    with duckdb.connect() as con:
        for number in range(3):
            low, high = number * ROWS // 3, (number + 1) * ROWS // 3
            con.execute(
                f"COPY ({TABLE.format(low=low, high=high)}) TO '{folder}/t/{number}.parquet'"
                " (ROW_GROUP_SIZE 20000)"
            )
    return folder


ALONE = """
import sys
from pathlib import Path
import batuta_sql

def read_by(connection, sql):
    before = int(Path("/proc/self/io").read_text().split()[1])
    connection.execute(sql).fetch_arrow_table()
    return int(Path("/proc/self/io").read_text().split()[1]) - before

folder, sql, nothing = sys.argv[1:]
cost = {"estimate": "priced", "history": False}
sources = {"s": {"kind": "files", "path": folder}}
with batuta_sql.connect({"cost": cost, "sources": sources}) as connection:
    for each in (nothing, sql):
        read_by(connection, each)
    read = min(read_by(connection, sql) for _ in range(5))
    print(read - min(read_by(connection, nothing) for _ in range(5)))
"""
"""Counts what its process reads: in a process of its own, where nothing else reads."""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts with /proc/self/io")
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM s.t",
        "SELECT sum(price) FROM s.t",
        "SELECT id, name FROM s.t WHERE id < 100000",
        "SELECT name FROM s.t WHERE day BETWEEN DATE '2020-03-01' AND DATE '2020-04-10'",
        "SELECT sum(price) FROM s.t WHERE 250000 <= id AND price < 3000",
        "SELECT sum(price) FROM s.t WHERE id IN (5, 250000)",
        "SELECT f, k FROM s.t WHERE f < 100000",
    ],
)
def test_parquet_is_exact_to_what_is_read(sql: str, lake: Path, opened: Opened) -> None:
    """Beside the footers, which a query that needs nothing else reads too."""
    nothing = "SELECT sum(price) FROM s.t WHERE id = -1"
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(lake), sql, nothing],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    read = int(done.stdout)
    connection = opened(kind="files", path=str(lake))
    estimate = connection.estimate(sql)
    assert estimate.confidence == "exact"
    assert estimate.bytes_scanned == pytest.approx(read, rel=0.05, abs=30_000)
    assert connection.estimate(nothing).bytes_scanned == 0


def test_what_statistics_cannot_tell_is_the_most(lake: Path, opened: Opened) -> None:
    connection = opened(kind="files", path=str(lake))
    whole = connection.estimate("SELECT id FROM s.t")
    for where in ("id % 2 = 0", "id < 10 OR id IS NULL", "id = (SELECT max(k) FROM s.t)"):
        found = connection.estimate(f"SELECT id FROM s.t WHERE {where}")
        assert found.confidence == "estimated", where
        assert found.bytes_scanned >= whole.bytes_scanned
    # NaN is in no range of a Parquet file, and larger than every number.
    floats = connection.estimate("SELECT f FROM s.t WHERE f > 1e9")
    assert floats.confidence == "estimated"
    assert floats.bytes_scanned == connection.estimate("SELECT f FROM s.t").bytes_scanned
    twice = connection.estimate("SELECT a.id FROM s.t a JOIN s.t b ON a.id = b.k")
    k = connection.estimate("SELECT k FROM s.t").bytes_scanned
    assert twice.bytes_scanned == whole.bytes_scanned + k


def test_counting_reads_footers_only(lake: Path, opened: Opened) -> None:
    found = opened(kind="files", path=str(lake)).estimate("SELECT count(*) FROM s.t")
    assert (found.bytes_scanned, found.confidence) == (0, "exact")
    assert (found.rows, found.rows_confidence) == (1, "exact")


def test_delta_leaves_out_files_and_row_groups(tmp_path: Path, opened: Opened) -> None:
    with duckdb.connect() as con:
        for part in range(3):
            table = con.sql(f"SELECT {part} AS part, * FROM ({TABLE.format(low=0, high=50_000)})")
            deltalake.write_deltalake(
                str(tmp_path / "d"), table.to_arrow_table(), mode="append", partition_by=["part"]
            )
    connection = opened(kind="delta", path=str(tmp_path))
    every = connection.estimate("SELECT name FROM s.d")
    one = connection.estimate("SELECT name FROM s.d WHERE part = 1")
    none = connection.estimate("SELECT name FROM s.d WHERE id < 0")
    assert every.confidence == one.confidence == "exact"
    assert one.bytes_scanned == pytest.approx(every.bytes_scanned / 3, rel=0.01)
    assert none.bytes_scanned == 0
    assert every.rows == 150_000
    # The partition's value is in the log and in no file.
    assert connection.estimate("SELECT part FROM s.d").bytes_scanned == 0


def test_text_files_are_read_whole(tmp_path: Path, opened: Opened) -> None:
    file = tmp_path / "c.csv"
    file.write_text("a,b\n" + "1,x\n" * 1000)
    found = opened(kind="files", path=str(tmp_path)).estimate("SELECT a FROM s.c WHERE a > 5")
    assert (found.bytes_scanned, found.confidence) == (file.stat().st_size, "exact")
    assert found.rows is None


# --- SQLite and DuckDB files -------------------------------------------------------------------


def test_sqlite_tells_a_scan_from_a_search(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as lite:
        lite.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT)")
        lite.executemany("INSERT INTO t VALUES (?, ?)", ((i, f"n{i}") for i in range(1, 10_001)))
        lite.commit()
    connection = opened(kind="sqlite", path=str(path))
    scan = connection.estimate("SELECT id FROM s.t WHERE name = 'x'")
    search = connection.estimate("SELECT name FROM s.t WHERE id = 5")
    assert 0 < search.bytes_scanned < scan.bytes_scanned / 100
    assert scan.bytes_scanned <= path.stat().st_size
    assert connection.estimate("SELECT * FROM s.t").rows == 10_000
    assert scan.confidence == "estimated"


def test_a_duckdb_file_reads_the_columns_that_are_named(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "a.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE t AS SELECT i AS id, i AS other FROM range(100000) r(i)")
    connection = opened(kind="duckdb", path=str(path))
    one = connection.estimate("SELECT sum(id) FROM s.t").bytes_scanned
    both = connection.estimate("SELECT sum(id), sum(other) FROM s.t").bytes_scanned
    assert one == pytest.approx(100_000 * 8, rel=0.05)
    assert both == 2 * one


# --- PostgreSQL --------------------------------------------------------------------------------


def test_a_sequential_scan_reads_every_page(
    postgres: PostgresServer, postgres_uri: str, opened: Opened
) -> None:
    database = postgres_uri.rsplit("/", 1)[1]
    postgres.run(
        "CREATE TABLE t(id int PRIMARY KEY, name text);"
        "INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 50000) i;"
        "CREATE TABLE p(id int, name text) PARTITION BY RANGE (id);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (1000);"
        "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (1000) TO (100000);"
        "INSERT INTO p SELECT * FROM t; CREATE VIEW v AS SELECT * FROM t; VACUUM ANALYZE;",
        database,
    )

    def size(table: str) -> int:
        return int(postgres.run(f"SELECT pg_relation_size('{table}')", database))

    connection = opened(kind="postgresql", uri=postgres_uri)
    estimate = connection.estimate
    assert estimate("SELECT max(name) FROM s.t").bytes_scanned == size("t")
    assert estimate("SELECT name FROM s.v").bytes_scanned == size("t")
    assert estimate("SELECT name FROM s.p").bytes_scanned == size("p1") + size("p2")
    assert estimate("SELECT name FROM s.p WHERE id < 5").bytes_scanned == size("p1")
    assert estimate("SELECT name FROM s.t WHERE id = 5").bytes_scanned == PAGE
    delivered = connection.execute("SELECT id, name FROM s.t")
    delivered.fetchall()
    (fragment,) = delivered.metrics["fragments"]
    assert fragment["estimate"].bytes_delivered == pytest.approx(fragment["bytes"], rel=0.05)


def scan(kind: str, rows: float, **more: Any) -> dict[str, Any]:
    return {"Node Type": kind, "Relation Name": "t", "Plan Rows": rows, "Plan Width": 8, **more}


@pytest.mark.parametrize(
    ("plan", "pages"),
    [
        (scan("Seq Scan", 5), 100),
        (scan("Index Scan", 5), 5),
        (scan("Bitmap Heap Scan", 1000), 100),
        (
            # Once for each row of the outer side.
            {"Node Type": "Nested Loop", "Plan Rows": 1, "Plan Width": 1, "Plans": [
                {"Node Type": "Result", "Plan Rows": 20, "Plan Width": 1},
                scan("Index Scan", 1, **{"Parent Relationship": "Inner"}),
            ]},
            20,
        ),
        (
            # Kept in memory, and read from there.
            {"Node Type": "Nested Loop", "Plan Rows": 1, "Plan Width": 1, "Plans": [
                {"Node Type": "Result", "Plan Rows": 20, "Plan Width": 1},
                {"Node Type": "Materialize", "Parent Relationship": "Inner", "Plan Rows": 5,
                 "Plan Width": 1, "Plans": [scan("Index Scan", 5)]},
            ]},
            5,
        ),
        (
            # Of 10 rows in each of two workers and a leader's share: 2.4 times as many.
            {"Node Type": "Gather", "Workers Planned": 2, "Plan Rows": 24, "Plan Width": 1,
             "Plans": [scan("Index Scan", 10, **{"Parallel Aware": True})]},
            24,
        ),
    ],
)  # fmt: skip
def test_pages_that_a_plan_touches(plan: dict[str, Any], pages: int) -> None:
    assert relations(plan) == {"t"}
    assert scanned_bytes(plan, {"t": 100 * PAGE}) == pages * PAGE


def test_arrow_adds_offsets_to_texts() -> None:
    plan = {"Node Type": "Result", "Plan Rows": 1000, "Plan Width": 20}
    assert delivered_bytes(plan, ["INTEGER", "BIGINT"]) == 1000 * 20.25
    assert delivered_bytes(plan, ["VARCHAR"]) == 1000 * 23.125
