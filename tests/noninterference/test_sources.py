"""The labels of a query do not depend on the kinds of its sources, nor on what is pushed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

import batuta_sql
from batuta_sql import Connection
from batuta_sql.demo.postgres_server import PostgresServer
from tests.differential.tables import HOMES, for_batuta, make_truth, sources
from tests.noninterference.conftest import World
from tests.noninterference.test_generated import flow_query
from tests.noninterference.world import for_sources, labels_of


@pytest.fixture(scope="module")
def real(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Connection]:
    """The same tables and labels in PostgreSQL, SQLite, DuckDB, Parquet and Delta."""
    folder: Path = tmp_path_factory.mktemp("labelled")
    with duckdb.connect() as truth:
        make_truth(truth)
        with sources(truth, folder, postgres) as config:
            for home in HOMES:
                config["sources"][home]["tables"] = labels_of(home)
            with closing(batuta_sql.connect(config)) as connection:
                yield connection


@pytest.mark.parametrize("seed", range(40))
def test_labels_are_the_same_over_every_kind_of_source(
    seed: int, world: World, real: Connection
) -> None:
    sql = flow_query(f"kinds/{seed}")
    try:
        expected = world.connection.plan(for_sources(sql)).result_labels
    except batuta_sql.Error:
        return  # refused by DuckDB: there is no result
    cursor = real.execute(for_batuta(sql))
    wanted = expected.by_name()
    assert cursor.labels == {n: wanted.get(n) or wanted["*"] for n in cursor.labels}
    assert len(cursor.labels) >= len(wanted)
