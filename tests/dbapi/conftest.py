"""A small federation for the DB-API tests: one SQLite file and one PostgreSQL database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer

BEERS = ("Carlton Cold", "Carlton Draft", "Mountain Goat", "Victoria Bitter", "XXXX")


@pytest.fixture(scope="session")
def config(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    path = tmp_path_factory.mktemp("dbapi") / "pub.sqlite"
    with closing(sqlite3.connect(path)) as lite:
        lite.execute("CREATE TABLE beer(id INTEGER, name TEXT, price DECIMAL(6,2), since DATE)")
        lite.executemany(
            "INSERT INTO beer VALUES (?, ?, ?, ?)",
            [
                (number, name, f"{number}.50", f"19{number:02}-01-31")
                for number, name in enumerate(BEERS, start=1)
            ],
        )
        lite.commit()
    with postgres.database("dbapi") as uri:
        postgres.run(
            "CREATE TABLE guest(id int, name text, beer int, raw bytea, seen timestamptz, ok bool);"
            "INSERT INTO guest VALUES (1, 'Ann', 1, '\\x00ff', '2024-01-01 00:00:00+00', true),"
            " (2, 'Bob', 5, NULL, NULL, false), (3, NULL, NULL, '', 'infinity', NULL);",
            uri.rsplit("/", 1)[1],
        )
        yield {
            "sources": {
                "pub": {"kind": "sqlite", "path": str(path)},
                "crm": {"kind": "postgresql", "uri": uri},
            }
        }


@pytest.fixture
def connection(config: dict[str, Any]) -> Iterator[Any]:
    with closing(batuta_sql.connect(config)) as made:
        yield made


@pytest.fixture
def cursor(connection: Any) -> Iterator[Any]:
    with closing(connection.cursor()) as made:
        yield made
