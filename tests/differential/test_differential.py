"""Generated queries: Batuta answers as DuckDB does, and refuses where DuckDB refuses.

``BATUTA_DIFF_QUERIES`` (300) says how many, ``BATUTA_DIFF_SEED`` which; the seed is in the name of
each test: ``test_generated_query[20260101/17]``. A failure is shrunk before it is shown.
"""

from __future__ import annotations

import os
from collections import Counter

import duckdb
import pytest

import batuta_sql
from tests.differential.conftest import BothSides, check_generated
from tests.differential.generator import random_query
from tests.differential.tables import for_batuta, for_truth

QUERIES = int(os.environ.get("BATUTA_DIFF_QUERIES", "300"))
SEED = os.environ.get("BATUTA_DIFF_SEED", "20260101")


@pytest.mark.parametrize("seed", [f"{SEED}/{number}" for number in range(QUERIES)])
def test_generated_query(seed: str, both: BothSides) -> None:
    check_generated(seed, both)


def test_the_generator_makes_queries_that_say_something(truth: duckdb.DuckDBPyConnection) -> None:
    refused, empty, total = 0, 0, 300
    for number in range(total):
        try:
            rows = truth.execute(for_truth(random_query(f"quality/{number}"))).fetchall()
        except duckdb.Error:
            refused += 1
        else:
            empty += not rows
    assert refused <= total * 0.03
    assert empty <= total * 0.45


def test_a_seed_gives_the_same_query_for_ever() -> None:
    assert random_query("fixed/1") == random_query("fixed/1")
    assert random_query("fixed/1") != random_query("fixed/2")


def test_generated_queries_reach_what_is_forced(both: BothSides) -> None:
    """A rule that no query reaches is not tested by them."""
    if both.connection._session.settings.semi_joins != "always":
        pytest.skip("nothing is forced")
    reached: Counter[str] = Counter()
    for number in range(400):
        try:
            plan = both.connection.explain(for_batuta(random_query(f"reach/{number}")))
        except batuta_sql.Error:
            continue
        reached["keys"] += "<keys of" in plan
        reached["grouped here"] += "by its profile" in plan
    assert min(reached.values()) >= 4, reached
    assert len(reached) == 2
