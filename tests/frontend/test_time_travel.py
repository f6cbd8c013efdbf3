"""Clauses of time travel, in other systems' words and in DuckDB's."""

from __future__ import annotations

import pytest

from batuta_sql.frontend.time_travel import in_duckdb_words


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("FROM t FOR VERSION AS OF 3", "FROM t AT (VERSION => 3)"),
        ("FROM t FOR VERSION AS OF 'main'", "FROM t AT (VERSION => 'main')"),
        ("FROM t FOR VERSION AS OF 3 AS x, u", "FROM t AS x AT (VERSION => 3), u"),
        ("FROM t for version as of 3 x JOIN u", "FROM t x AT (VERSION => 3) JOIN u"),
        ("FROM t FOR VERSION AS OF 3 SEMI JOIN u", "FROM t AT (VERSION => 3) SEMI JOIN u"),
        (
            "FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '2024-01-01' \"a b\"",
            "FROM t \"a b\" AT (TIMESTAMP => TIMESTAMP '2024-01-01')",
        ),
        (
            "FROM t FOR VERSION AS OF 1 a JOIN t FOR TIMESTAMP AS OF '2024-01-01' b",
            "FROM t a AT (VERSION => 1) JOIN t b AT (TIMESTAMP => '2024-01-01')",
        ),
    ],
)
def test_a_clause_is_read(written: str, read: str) -> None:
    assert in_duckdb_words(f"SELECT 1 {written}") == f"SELECT 1 {read}"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT ' FOR VERSION AS OF 3 '",
        "SELECT 1 -- FOR VERSION AS OF 3",
        "SELECT a AS of FROM t",
        "SELECT 1 FROM t FOR VERSION AS OF x",
        "SELECT substring('a' FOR 3) AS of",
        "SELECT 'unterminated AS OF",
    ],
)
def test_what_only_looks_like_one_is_left_as_it_is(sql: str) -> None:
    assert in_duckdb_words(sql) == sql
