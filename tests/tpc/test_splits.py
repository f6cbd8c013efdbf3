"""The splits of the benchmark that are written by hand give DuckDB's answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing

import duckdb
import pytest

from batuta_sql.demo.postgres_server import PostgresServer
from benchmarks.ideal import Pool, run
from benchmarks.splits import NEAR, SPLITS, split_of
from benchmarks.tpch import HOMES
from tests.comparison import answer_of, difference
from tests.tpc.federation import load_postgres, truth_of
from tests.tpc.placements import query_numbers, query_text


@pytest.fixture(scope="module")
def truth() -> Iterator[duckdb.DuckDBPyConnection]:
    with truth_of("tpch") as con:
        yield con


@pytest.fixture(scope="module")
def pool(postgres: PostgresServer) -> Iterator[Pool]:
    with ExitStack() as cleanup:
        uris = {home: cleanup.enter_context(postgres.database(home)) for home in HOMES}
        for home, tables in HOMES.items():
            load_postgres("tpch", postgres, uris[home], frozenset(tables))
        yield cleanup.enter_context(closing(Pool(uris)))


def test_every_query_has_a_split() -> None:
    assert sorted(SPLITS) == query_numbers("tpch")


@pytest.mark.parametrize(
    ("number", "near"), [*((n, False) for n in SPLITS), *((n, True) for n in NEAR)]
)
def test_split(number: int, near: bool, pool: Pool, truth: duckdb.DuckDBPyConnection) -> None:
    sql = query_text("tpch", number)
    relation = truth.sql(sql)
    assert relation is not None
    got = answer_of(run(split_of(number, near), pool))
    assert difference(got, answer_of(relation.to_arrow_table()), sql) is None
