"""All that one query reads from one PostgreSQL is of one moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer

BALANCE = (
    # Two fragments that cannot become one: random() stays here, and they read other rows.
    "SELECT (SELECT sum(amount + random() * 0) FROM s.public.account) AS a,"
    " (SELECT sum(amount + random() * 0) FROM s.public.account WHERE id >= 0) AS b"
)


@pytest.fixture
def bank(postgres: PostgresServer, postgres_uri: str) -> Iterator[tuple[Any, str]]:
    database = postgres_uri.rsplit("/", 1)[1]
    postgres.run(
        "CREATE TABLE account AS SELECT i AS id, 100 AS amount FROM generate_series(1, 100) i;"
        "CREATE TABLE ledger AS SELECT 0 AS moved",
        database,
    )
    settings = {"sources": {"s": {"kind": "postgresql", "uri": postgres_uri}}}
    with closing(batuta_sql.connect(settings)) as connection:
        yield connection, database


def test_a_commit_between_two_fragments_is_not_seen(
    bank: tuple[Any, str], postgres: PostgresServer
) -> None:
    """The other session commits when the first fragment has its answer, before the second asks."""
    connection, database = bank
    source = connection._session.sources["s"]
    original = source.open
    reads: list[str] = []
    first_read = threading.Lock()

    def open_(readers: int = 1) -> Any:
        snapshot = original(readers)
        read = snapshot.read

        def reading(query: Any) -> Any:
            with first_read:
                reader = read(query)
                reads.append(query.sql)
                if len(reads) == 1:
                    postgres.run("UPDATE account SET amount = 1", database)
                return reader

        snapshot.read = reading
        return snapshot

    source.open = open_
    table = connection.execute(BALANCE).fetch_arrow_table().to_pylist()
    assert len(reads) >= 2
    assert table == [{"a": 10_000.0, "b": 10_000.0}]
    source.open = original
    after = connection.execute("SELECT sum(amount)::INT AS a FROM s.account").fetchall()
    assert after == [(100,)]


def test_totals_stay_whole_while_money_moves(
    bank: tuple[Any, str], postgres: PostgresServer
) -> None:
    """What leaves the accounts is in the ledger in the same commit: the sum of both is constant."""
    connection, database = bank
    stop = threading.Event()

    def move() -> None:
        script = (
            "BEGIN; UPDATE account SET amount = amount - 1; UPDATE ledger SET moved = moved + 100;"
            " COMMIT;"
        )
        while not stop.is_set():
            postgres.run(script * 20, database)

    mover = threading.Thread(target=move, daemon=True)
    mover.start()
    seen: set[float] = set()
    try:
        for _ in range(40):
            row = (
                connection.execute(
                    "SELECT (SELECT sum(amount + random() * 0) FROM s.public.account) AS here,"
                    " (SELECT sum(moved + random() * 0) FROM s.public.ledger) AS there"
                )
                .fetch_arrow_table()
                .to_pylist()[0]
            )
            assert row["here"] + row["there"] == 10_000
            seen.add(row["there"])
    finally:
        stop.set()
        mover.join(20)
    assert len(seen) > 1, "nothing moved while the queries ran: the test proves nothing"


def test_the_fallback_reads_one_moment_too(bank: tuple[Any, str], postgres: PostgresServer) -> None:
    connection, _ = bank
    sql = (
        "SELECT * FROM (PIVOT s.public.account ON id % 1 USING sum(amount)),"
        " (PIVOT s.public.ledger ON moved * 0 USING sum(moved))"
    )
    (before,) = connection.execute(sql).fetchall()
    assert sum(int(v) for v in before if v is not None) == 10_000


def test_the_session_is_left_clean(bank: tuple[Any, str], postgres: PostgresServer) -> None:
    connection, database = bank
    connection.execute(BALANCE).fetchall()
    open_ = postgres.run(
        "SELECT count(*) FROM pg_stat_activity"
        f" WHERE datname = '{database}' AND state LIKE 'idle in transaction%'"
    )
    assert open_ == "0\n"
