"""The comparison itself: what it must let pass, and what it must catch."""

from __future__ import annotations

import duckdb
import pytest

from tests.comparison import Answer, answer_of, difference, sort_keys, without_limit


def ask(sql: str) -> Answer:
    with duckdb.connect() as con:
        relation = con.sql(sql)
        assert relation is not None
        return answer_of(relation.to_arrow_table())


@pytest.mark.parametrize(
    ("got", "want", "sql"),
    [
        ("SELECT 1 AS a", "SELECT 1 AS a", "SELECT 1 AS a"),
        # No ORDER BY: any order.
        ("FROM (VALUES (1), (2)) t(a)", "FROM (VALUES (2), (1)) t(a)", "SELECT a FROM t"),
        # Ties under ORDER BY: any order among them.
        (
            "FROM (VALUES (1, 'x'), (1, 'y')) t(a, b)",
            "FROM (VALUES (1, 'y'), (1, 'x')) t(a, b)",
            "SELECT a, b FROM t ORDER BY a",
        ),
        ("SELECT 0.1::DOUBLE + 0.2 AS a", "SELECT 0.3::DOUBLE AS a", "SELECT a"),
        ("SELECT 'NaN'::DOUBLE AS a", "SELECT 'NaN'::DOUBLE AS a", "SELECT a"),
        ("SELECT DATE 'infinity' AS a", "SELECT DATE 'infinity' AS a", "SELECT a"),
    ],
)
def test_equal_answers_pass(got: str, want: str, sql: str) -> None:
    assert difference(ask(got), ask(want), sql) is None


@pytest.mark.parametrize(
    ("got", "want", "sql", "message"),
    [
        ("SELECT 1 AS a", "SELECT 1 AS b", "SELECT b", "columns"),
        ("SELECT 1 AS a", "SELECT 1::BIGINT AS a", "SELECT a", "types: a"),
        ("SELECT 1.0::DECIMAL(5,1) AS a", "SELECT 1.0::DECIMAL(5,2) AS a", "SELECT a", "types"),
        ("SELECT 1 AS a", "SELECT 1 AS a WHERE false", "SELECT a", "expected 0 rows, got 1"),
        ("SELECT 'a' AS a", "SELECT 'A' AS a", "SELECT a", "rows differ"),
        ("SELECT 1.0::DOUBLE AS a", "SELECT 1.00001::DOUBLE AS a", "SELECT a", "rows differ"),
        ("SELECT NULL::INT AS a", "SELECT 0 AS a", "SELECT a", "rows differ"),
        (
            "FROM (VALUES (1), (1), (2)) t(a)",
            "FROM (VALUES (1), (2), (2)) t(a)",
            "SELECT a FROM t",
            "rows differ",
        ),
        (
            "FROM (VALUES (2), (1)) t(a)",
            "FROM (VALUES (1), (2)) t(a)",
            "SELECT a FROM t ORDER BY a",
            "order differs",
        ),
        ("SELECT DATE 'infinity' AS a", "SELECT DATE '9999-12-31' AS a", "SELECT a", "rows differ"),
    ],
)
def test_wrong_answers_are_caught(got: str, want: str, sql: str, message: str) -> None:
    problem = difference(ask(got), ask(want), sql)
    assert problem is not None
    assert message in problem


def test_rows_that_tie_at_the_limit_are_free_but_must_exist() -> None:
    sql = "SELECT a, b FROM t ORDER BY a LIMIT 1"
    want, unlimited = ask("SELECT 1 AS a, 'x' AS b"), ask("FROM (VALUES (1,'x'),(1,'y')) t(a, b)")
    assert difference(ask("SELECT 1 AS a, 'y' AS b"), want, sql, unlimited) is None
    assert difference(ask("SELECT 1 AS a, 'z' AS b"), want, sql, unlimited) is not None


@pytest.mark.parametrize(
    ("sql", "names", "keys"),
    [
        ("SELECT a, b FROM t", ["a", "b"], []),
        ("SELECT a, b FROM t ORDER BY b DESC, a", ["a", "b"], [1, 0]),
        ("SELECT a, b FROM t ORDER BY 2", ["a", "b"], [1]),
        ("SELECT a AS x, sum(b) FROM t GROUP BY a ORDER BY sum(b), x", ["x", "sum(b)"], [1, 0]),
        ("SELECT a FROM t ORDER BY c, a", ["a"], []),
        ("SELECT -a AS a FROM t ORDER BY t.a", ["a"], []),
        ("SELECT a FROM t UNION ALL SELECT a FROM u ORDER BY a", ["a"], [0]),
    ],
)
def test_sort_keys_are_the_output_columns_that_order_fixes(
    sql: str, names: list[str], keys: list[int]
) -> None:
    assert sort_keys(sql, names) == keys


def test_only_the_outermost_limit_goes() -> None:
    shorter = without_limit("SELECT * FROM (SELECT 1 AS a LIMIT 2) ORDER BY a LIMIT 1 OFFSET 3")
    assert shorter == "SELECT * FROM (SELECT 1 AS a LIMIT 2) ORDER BY a"
    assert without_limit("SELECT 1") is None
