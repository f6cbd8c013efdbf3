"""A large table is read by several connections at once: each row once, all in one state."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import adbc_driver_postgresql.dbapi
import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer
from batuta_sql.plan.fragments import scan_fragment
from batuta_sql.plan.relational import Scan
from batuta_sql.source_settings import PostgreSQLSettings
from batuta_sql.sources.postgresql import PostgreSQL

ROWS = 240_000
WHOLE = "SELECT id, n, pad FROM crm.big"


@pytest.fixture(scope="module")
def uri(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database("parallel") as uri:
        run(
            uri,
            "CREATE TABLE big AS SELECT i AS id, i % 1000 AS n, repeat('x', 100) AS pad"
            f" FROM generate_series(1, {ROWS}) i",
            # Rows that were deleted and rewritten: blocks are not what they were.
            "DELETE FROM big WHERE id % 7 = 0",
            "INSERT INTO big SELECT i, i % 1000, repeat('y', 100)"
            f" FROM generate_series(7, {ROWS}, 7) i",
            "ANALYZE big",
            "CREATE VIEW seen AS SELECT * FROM big",
            "CREATE TABLE parted (id int, n int, pad text) PARTITION BY RANGE (id)",
            f"CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO ({ROWS // 2})",
            f"CREATE TABLE part_2 PARTITION OF parted FOR VALUES FROM ({ROWS // 2}) TO (1000000)",
            "INSERT INTO parted SELECT * FROM big",
            "ANALYZE parted",
            "CREATE TABLE uneven (id int, n int, pad text) PARTITION BY RANGE (id)",
            *(
                f"CREATE TABLE uneven_{i} PARTITION OF uneven FOR VALUES FROM ({a}) TO ({b})"
                for i, (a, b) in enumerate(
                    [(0, 100), (100, 180_000), (180_000, ROWS - 90), (ROWS - 90, ROWS + 1)]
                )
            ),
            "CREATE TABLE uneven_rest PARTITION OF uneven DEFAULT",
            "INSERT INTO uneven SELECT * FROM big",
            # As autovacuum does: the partitions, never the table itself.
            *(f"ANALYZE uneven_{i}" for i in range(4)),
            "CREATE EXTENSION file_fdw",
            "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw",
            "CREATE TABLE mixed (id int, n int, pad text) PARTITION BY RANGE (id)",
            f"CREATE TABLE mixed_1 PARTITION OF mixed FOR VALUES FROM (0) TO ({ROWS + 1})",
            f"CREATE FOREIGN TABLE mixed_2 PARTITION OF mixed FOR VALUES FROM ({ROWS + 1})"
            " TO (1000000) SERVER files OPTIONS (program 'true')",
            "INSERT INTO mixed SELECT * FROM big",
            "ANALYZE mixed_1",
            "CREATE TABLE parent AS SELECT * FROM big",
            "CREATE TABLE child () INHERITS (parent)",
            "INSERT INTO child SELECT id + 1000000, n, pad FROM big",
            "ANALYZE parent",
        )
        yield uri


def run(uri: str, *statements: str) -> None:
    with (
        adbc_driver_postgresql.dbapi.connect(uri, autocommit=True) as server,
        server.cursor() as cursor,
    ):
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def connect(uri: str) -> Iterator[Callable[..., Any]]:
    opened: list[Any] = []

    def make(**options: Any) -> Any:
        crm = {"kind": "postgresql", "uri": uri, "locality": "local", **options}
        opened.append(batuta_sql.connect({"threads": 4, "sources": {"crm": crm}}))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def connections(cursor: Any) -> list[int]:
    return [f["connections"] for f in cursor.metrics["fragments"]]


def test_each_row_comes_once(connect: Callable[..., Any]) -> None:
    cursor = connect().execute(WHOLE)
    table = cursor.fetch_arrow_table()
    assert sorted(table["id"].to_pylist()) == list(range(1, ROWS + 1))
    assert connections(cursor) == [4]
    assert "by 4 connections" in str(cursor.plan)


@pytest.mark.parametrize(("most", "used"), [(1, 1), (2, 2), (3, 3)])
def test_the_source_says_how_many_connections_it_allows(
    connect: Callable[..., Any], most: int, used: int
) -> None:
    cursor = connect(max_connections=most).execute(WHOLE)
    assert cursor.fetch_arrow_table().num_rows == ROWS
    assert connections(cursor) == [used]


def test_fragments_that_run_at_once_share_them(connect: Callable[..., Any]) -> None:
    # An expression, so that neither side waits for the other's keys.
    sql = "SELECT count(*) FROM crm.big a JOIN crm.big b ON a.id = b.id + random() * 0"
    cursor = connect().execute(sql)
    assert cursor.fetchone() == (ROWS,)
    assert sum(connections(cursor)) <= 4


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT id, pad FROM crm.seen", ROWS),
        ("SELECT id, pad FROM crm.mixed", ROWS),
        ("SELECT id, pad FROM crm.big LIMIT 200000", 200_000),
        ("SELECT n, count(*) FROM crm.big GROUP BY n", 1000),
        ("SELECT id FROM crm.big WHERE id < 100", 99),
    ],
)
def test_what_is_no_plain_large_scan_is_one_statement(
    connect: Callable[..., Any], sql: str, rows: int
) -> None:
    cursor = connect().execute(sql)
    assert cursor.fetch_arrow_table().num_rows == rows
    assert connections(cursor) == [1]


@pytest.mark.parametrize("table", ["parted", "uneven"])
def test_partitions_are_read_by_ranges_too(connect: Callable[..., Any], table: str) -> None:
    cursor = connect().execute(f"SELECT id, pad FROM crm.{table}")
    ids = cursor.fetch_arrow_table()["id"].to_pylist()
    assert sorted(ids) == list(range(1, ROWS + 1))
    assert connections(cursor) == [4]


@pytest.mark.parametrize("table", ["parted", "uneven"])
def test_the_parts_of_partitions_are_alike(uri: str, table: str) -> None:
    source = PostgreSQL("crm", PostgreSQLSettings(kind="postgresql", uri=uri))
    with closing(source):
        (info,) = source.resolve((table,))
        scan = Scan(info, tuple((c.name, c) for c in info.columns))
        fragment = scan_fragment(scan, (), "x1", source.capabilities)
    with (
        adbc_driver_postgresql.dbapi.connect(uri) as server,
        server.cursor() as cursor,
    ):
        rows = []
        for part in fragment.parts(4):
            cursor.execute(part)
            rows.append(cursor.fetch_arrow_table().num_rows)
    assert len(rows) == 4
    assert sum(rows) == ROWS
    assert max(rows) < 1.1 * ROWS / 4


def test_a_parent_has_its_childrens_rows(connect: Callable[..., Any]) -> None:
    cursor = connect().execute("SELECT id FROM crm.parent")
    ids = cursor.fetch_arrow_table()["id"].to_pylist()
    assert len(ids) == len(set(ids)) == 2 * ROWS


def test_a_table_that_has_grown_since_it_was_described(
    connect: Callable[..., Any], uri: str
) -> None:
    run(uri, "CREATE TABLE growing AS SELECT * FROM big", "ANALYZE growing")
    connection = connect()
    sql = "SELECT id, pad FROM crm.growing"
    assert connection.execute(sql).fetch_arrow_table().num_rows == ROWS
    run(uri, "INSERT INTO growing SELECT * FROM big")
    cursor = connection.execute(sql)
    assert cursor.fetch_arrow_table().num_rows == 2 * ROWS
    assert connections(cursor) == [4]
    run(uri, "TRUNCATE growing")
    assert connection.execute(sql).fetch_arrow_table().num_rows == 0


def test_all_parts_see_one_state(connect: Callable[..., Any], uri: str) -> None:
    """Rows are moved between blocks while they are read."""
    run(
        uri,
        "CREATE TABLE moving AS SELECT id, 0 AS n, pad FROM big WHERE id <= 150000",
        "ANALYZE moving",
    )
    done = threading.Event()

    def write() -> None:
        with (
            adbc_driver_postgresql.dbapi.connect(uri, autocommit=True) as server,
            server.cursor() as cursor,
        ):
            while not done.is_set():
                cursor.execute("UPDATE moving SET n = n + 1 WHERE id % 10 = 3")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        connection = connect()
        for _ in range(6):
            cursor = connection.execute("SELECT id, n, pad FROM crm.moving")
            table = cursor.fetch_arrow_table()
            assert connections(cursor) == [4]
            assert len(set(table["id"].to_pylist())) == table.num_rows == 150_000
            # Every update is in one transaction: all of its rows are as it left them, or none.
            changed = {
                n for i, n in zip(*table.select(["id", "n"]), strict=True) if i.as_py() % 10 == 3
            }
            assert len({n.as_py() for n in changed}) == 1
    finally:
        done.set()
        writer.join()


def test_a_reader_that_stops_early_ends_all_parts(connect: Callable[..., Any], uri: str) -> None:
    connection = connect()
    with closing(connection.cursor()) as cursor:
        cursor.execute(WHOLE)
        assert len(cursor.fetchmany(10)) == 10
    with adbc_driver_postgresql.dbapi.connect(uri) as server, server.cursor() as watching:
        running = (
            "SELECT count(*)::int4 FROM pg_stat_activity WHERE state = 'active' AND datname"
            " = current_database() AND pid <> pg_backend_pid() AND query LIKE 'COPY%'"
        )
        # The server takes a moment to notice.
        for _ in range(100):
            watching.execute(running)
            if watching.fetchone() == (0,):
                break
            server.commit()
            time.sleep(0.05)
        else:
            pytest.fail("a part is still being read")
    assert connection.execute("SELECT count(*) FROM crm.big").fetchone() == (ROWS,)


def test_an_error_in_one_part_is_the_querys(connect: Callable[..., Any], uri: str) -> None:
    run(
        uri,
        "CREATE TABLE flawed AS SELECT id, ARRAY[n] AS a, pad FROM big",
        f"UPDATE flawed SET a = ARRAY[[1], [2]] WHERE id = {ROWS - 3}",
        "ANALYZE flawed",
    )
    connection = connect()
    sql = "SELECT id, a, pad FROM crm.flawed"
    with pytest.raises(batuta_sql.DataError, match="2 dimensions is not a list") as caught:
        connection.execute(sql).fetch_arrow_table()
    assert caught.value.source == "crm"
    cursor = connection.execute(f"SELECT id, pad FROM crm.flawed WHERE id <> {ROWS - 3}")
    assert cursor.fetch_arrow_table().num_rows == ROWS - 1
    assert connections(cursor) == [4]
