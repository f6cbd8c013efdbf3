"""The shrinker: what is left of a failing query is what makes it fail."""

from __future__ import annotations

import duckdb

from tests.differential.generator import random_query
from tests.differential.shrink import shrink
from tests.differential.tables import for_truth


def valid(truth: duckdb.DuckDBPyConnection, sql: str) -> bool:
    try:
        truth.execute(for_truth(sql)).fetchall()
    except duckdb.Error:
        return False
    return True


def test_a_query_is_shrunk_to_the_part_that_fails(truth: duckdb.DuckDBPyConnection) -> None:
    sql = (
        "WITH w AS (SELECT id, s FROM pg__t1) SELECT upper(a.s) AS c0, b.k + 1 AS c1, a.id AS c2 "
        "FROM w AS a LEFT JOIN lite__t2 AS b ON a.id = b.id AND b.k > 0 "
        "WHERE (a.id > 1 AND b.s LIKE 'a%') OR a.id IN (1, 2, 3) ORDER BY c1 DESC, c0 LIMIT 5"
    )
    small = shrink(sql, lambda text: "LIKE" in text and valid(truth, text))
    assert "LIKE" in small
    assert "WITH" not in small
    assert "ORDER" not in small
    assert len(small) < 100


def test_every_generated_query_can_be_shrunk(truth: duckdb.DuckDBPyConnection) -> None:
    for number in range(10):
        sql = random_query(f"shrink/{number}")
        small = shrink(sql, lambda text: valid(truth, text), seconds=5, attempts=200)
        assert valid(truth, small)
        assert len(small) <= len(sql) + 40


def test_what_does_not_fail_is_left_alone() -> None:
    assert shrink("SELECT 1 AS a", lambda _: False) == "SELECT 1 AS a"
