"""TPC-DS: every query, its tables placed at random, answers as DuckDB does over local tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from batuta_sql.demo.postgres_server import PostgresServer
from tests.tpc.check import check, parameters
from tests.tpc.federation import Federation, federation


@pytest.fixture(scope="module")
def everywhere(postgres: PostgresServer) -> Iterator[Federation]:
    with federation("tpcds", postgres) as made:
        yield made


@pytest.mark.parametrize(("number", "attempt"), parameters("tpcds"))
def test_placed_query(number: int, attempt: int, everywhere: Federation) -> None:
    check("tpcds", number, attempt, everywhere)
