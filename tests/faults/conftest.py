"""A PostgreSQL of these tests' own (they restart it), with a table too large for one packet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer
from tests.faults.proxy import Proxy

ROWS = 300_000
"""Rows of ``public.big``: about 30 MB on the wire."""

SLOW = "SELECT id, pg_sleep(0.2)::text AS nap FROM generate_series(1, 10000) s(id)"
"""The definition of the view ``public.slow``: an answer that takes half an hour."""


@pytest.fixture(scope="session")
def big_uri(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database("faults") as uri:
        postgres.run(
            f"CREATE TABLE big AS SELECT id, repeat(md5(id::text), 3) AS filler"
            f" FROM generate_series(1, {ROWS}) s(id);"
            "CREATE TABLE small AS SELECT id FROM generate_series(1, 10) s(id);"
            f"CREATE VIEW slow AS {SLOW}; ANALYZE;",
            uri.rsplit("/", 1)[1],
        )
        yield uri


@pytest.fixture
def proxy(big_uri: str) -> Iterator[Proxy]:
    with Proxy(big_uri) as made:
        yield made


@pytest.fixture
def connection(proxy: Proxy) -> Iterator[Any]:
    """A connection whose source ``shop`` is reached through the proxy."""
    with closing(connect(proxy.uri)) as made:
        yield made


def connect(uri: str, **settings: Any) -> Any:
    return batuta_sql.connect({"sources": {"shop": {"kind": "postgresql", "uri": uri} | settings}})


def usable(connection: Any) -> bool:
    """Whether the connection answers a query to its source."""
    with closing(connection.cursor()) as cursor:
        cursor.execute("SELECT count(*) AS n FROM shop.public.small")
        return cursor.fetch_arrow_table().to_pylist() == [{"n": 10}]


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Waits for something that another process does in its own time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


@pytest.fixture
def running(postgres: PostgresServer) -> Callable[[str], int]:
    """How many statements with a text like this the server is running now."""

    def count(text: str) -> int:
        pattern = text.replace("'", "''")
        return int(
            postgres.run(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
                f" AND pid <> pg_backend_pid() AND query LIKE '%{pattern}%'"
            )
        )

    return count
