"""Generated queries whose residuals go to Spark Connect where they may: DuckDB's answers.

``BATUTA_ENGINE_QUERIES`` (120) says how many for Sail; Apache Spark gets a third of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb
import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer
from tests.differential.conftest import BothSides, check_generated
from tests.differential.generator import random_query
from tests.differential.tables import for_batuta, sources
from tests.emulators.process import Emulator
from tests.engines.conftest import engine

QUERIES = int(os.environ.get("BATUTA_ENGINE_QUERIES", "120"))
SEED = os.environ.get("BATUTA_DIFF_SEED", "20261127")
SEEDS = [f"{SEED}/{number}" for number in range(QUERIES)]


@contextmanager
def with_engine(
    truth: duckdb.DuckDBPyConnection, postgres: PostgresServer, server: Emulator, folder: Path
) -> Iterator[BothSides]:
    with (
        sources(truth, folder, postgres) as config,
        closing(
            batuta_sql.connect(
                # Without them more is left for the engine.
                config
                | {"semi_joins": "off", "partial_aggregation": "off"}
                | {"engine": engine(server, folder / "stage")}
            )
        ) as connection,
    ):
        yield BothSides(connection, truth)


@pytest.fixture(scope="module")
def on_sail(
    truth: duckdb.DuckDBPyConnection,
    postgres: PostgresServer,
    spark_connect: Emulator,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[BothSides]:
    with with_engine(truth, postgres, spark_connect, tmp_path_factory.mktemp("sail")) as made:
        yield made


@pytest.fixture(scope="module")
def on_apache(
    truth: duckdb.DuckDBPyConnection,
    postgres: PostgresServer,
    apache_spark: Emulator,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[BothSides]:
    with with_engine(truth, postgres, apache_spark, tmp_path_factory.mktemp("apache")) as made:
        yield made


@pytest.mark.parametrize("seed", SEEDS)
def test_on_sail(seed: str, on_sail: BothSides) -> None:
    check_generated(seed, on_sail)


@pytest.mark.xdist_group("apache spark")
@pytest.mark.parametrize("seed", SEEDS[::3])
def test_on_apache_spark(seed: str, on_apache: BothSides) -> None:
    check_generated(seed, on_apache)


def test_some_of_them_go_there(on_sail: BothSides) -> None:
    went = 0
    for number in range(60):
        with closing(on_sail.connection.cursor()) as cursor:
            try:
                cursor.execute(for_batuta(random_query(f"there/{number}"))).fetchall()
            except batuta_sql.Error:
                continue
            went += cursor.metrics["engine"] is not None
    assert went >= 6
