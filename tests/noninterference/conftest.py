"""One world of labelled tables, its variations, and a connection that plans over it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import duckdb
import pytest

import batuta_sql
from batuta_sql import Connection
from tests.noninterference.check import Tally, check_query
from tests.noninterference.world import Variation, make_sources, make_world


@dataclass(frozen=True)
class World:
    connection: Connection
    con: duckdb.DuckDBPyConnection
    variations: list[Variation]

    def check(self, sql: str, tally: Tally) -> None:
        check_query(sql, self.connection, self.con, self.variations, tally)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with duckdb.connect() as con:
        con.execute("SET threads = 1")
        variations = make_world(con)
        config = make_sources(con, tmp_path_factory.mktemp("noninterference"))
        with closing(batuta_sql.connect(config)) as connection:
            yield World(connection, con, variations)
