"""Where the first fragment had far more or fewer rows than thought, the rest is sent otherwise."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer

CUSTOMERS, ORDERS = 300_000, 600_000
FEW = [3, 70_000, 150_000, 299_999]
TWO = (
    "SELECT count(*) AS n, sum(o.amount) AS s FROM crm.vip v JOIN erp.orders o ON o.customer = v.id"
)
THREE = (
    "SELECT count(*) AS n, sum(o.amount) AS s FROM crm.vip v"
    " JOIN shop.card c ON c.customer = v.id JOIN erp.orders o ON o.customer = c.customer"
)

Connect = Callable[..., Any]


@pytest.fixture(scope="module")
def uri(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database("replanning") as made:
        keep = ", ".join(map(str, FEW))
        postgres.run(
            # As after a purge that nobody has analysed: the statistics tell of rows that are gone.
            "CREATE TABLE vip (id int PRIMARY KEY) WITH (autovacuum_enabled = false);"
            f"INSERT INTO vip SELECT i FROM generate_series(0, {CUSTOMERS - 1}) i;"
            "CREATE TABLE orders (id int PRIMARY KEY, customer int, amount int);"
            f"INSERT INTO orders SELECT i, i % {CUSTOMERS}, i % 100"
            f" FROM generate_series(1, {ORDERS}) i;"
            "CREATE TABLE card (customer int PRIMARY KEY);"
            f"INSERT INTO card SELECT i FROM generate_series(0, {CUSTOMERS - 1}, 10) i;"
            f"ANALYZE; DELETE FROM vip WHERE id NOT IN ({keep});",
            made.rsplit("/", 1)[1],
        )
        yield made


@pytest.fixture
def connect(uri: str) -> Iterator[Connect]:
    with ExitStack() as stack:

        def opened(**settings: Any) -> Any:
            prices = settings.pop("pricing", {})
            source = {"kind": "postgresql", "uri": uri, "pricing": prices}
            config = {
                "partial_aggregation": "off",
                **settings,
                # The first to arrive waits for nobody's keys.
                "sources": {
                    "crm": {**source, "receives_keys": False},
                    "erp": source,
                    "shop": source,
                },
            }
            return stack.enter_context(closing(batuta_sql.connect(config)))

        yield opened


@contextmanager
def locked(postgres: PostgresServer, uri: str, table: str) -> Iterator[None]:
    """Keeps everybody from reading ``table`` for a moment, so that others arrive before it."""
    name = uri.rsplit("/", 1)[1]
    sql = f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(1.5); COMMIT"
    thread = threading.Thread(target=postgres.run, args=(sql, name))
    thread.start()
    try:
        waiting = (
            f"SELECT count(*) FROM pg_locks WHERE relation = '{table}'::regclass"
            " AND mode = 'AccessExclusiveLock'"
        )
        for _ in range(100):
            if postgres.run(waiting, name).strip().endswith("1"):
                break
            time.sleep(0.02)
        yield
    finally:
        thread.join()


def moved(cursor: Any, source: str) -> int:
    return sum(f.rows for f in cursor.plan.fragments if f.source == source)


def test_what_runs_already_is_sent_anew_with_keys(
    connect: Connect, postgres: PostgresServer, uri: str
) -> None:
    con = connect()
    expected = connect(semi_joins="off").execute(TWO).fetchall()
    assert len(con.plan(TWO).fragments) == 2
    with locked(postgres, uri, "orders"):
        cursor = con.execute(TWO)
        assert cursor.fetchall() == expected
    assert moved(cursor, "erp") == ORDERS // CUSTOMERS * len(FEW)


def test_what_has_not_begun_waits_for_other_keys(
    connect: Connect, postgres: PostgresServer, uri: str
) -> None:
    con = connect()
    expected = connect(semi_joins="off").execute(THREE).fetchall()
    plan = con.plan(THREE)
    assert "keys" in str(plan)
    with locked(postgres, uri, "card"):
        cursor = con.execute(THREE)
        assert cursor.fetchall() == expected
    assert moved(cursor, "erp") <= ORDERS // CUSTOMERS * len(FEW)


@pytest.mark.parametrize(
    "settings",
    [{"semi_joins": "off"}, {"pricing": {"usd_per_gb_egress": 0.01}, "cost": {"history": False}}],
    ids=["no keys at all", "it would be billed twice"],
)
def test_where_nothing_is_sent_anew(
    connect: Connect, postgres: PostgresServer, uri: str, settings: dict[str, Any]
) -> None:
    con = connect(**settings)
    con.plan(TWO)
    with locked(postgres, uri, "orders"):
        cursor = con.execute(TWO)
        cursor.fetchall()
    assert moved(cursor, "erp") == ORDERS


def test_the_next_query_is_planned_as_before(
    connect: Connect, postgres: PostgresServer, uri: str
) -> None:
    """What one run has found is not taken for what the next will find."""
    con = connect()
    before = str(con.plan(TWO))
    with locked(postgres, uri, "orders"):
        con.execute(TWO).fetchall()
    assert str(con.plan(TWO)) == before
