"""How columns are made of their origins, in OpenLineage's words, and which clauses choose rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

import batuta_sql
from batuta_sql.plan.transformations import Transformations

TABLES = "CREATE TABLE t (a INTEGER, b INTEGER, c TEXT); CREATE TABLE u (a INTEGER, d INTEGER);"


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[batuta_sql.Connection]:
    path = tmp_path_factory.mktemp("tables") / "s.db"
    with sqlite3.connect(path) as database:
        database.executescript(TABLES)
    database.close()
    sources = {"s": {"kind": "sqlite", "path": str(path)}}
    with batuta_sql.connect({"cost": {"history": False}, "sources": sources}) as opened:
        yield opened


def found(connection: batuta_sql.Connection, sql: str) -> Transformations:
    query = connection._query(sql, None)
    query.close()
    provenance = query.provenance
    made = provenance.transformations.made
    # Nothing is said of what is no origin.
    for (_, flow), how in zip(provenance.lineage.columns, made, strict=True):
        assert set(how) <= flow.direct
    return provenance.transformations


SAME, T, A = "IDENTITY", "TRANSFORMATION", "AGGREGATION"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT a FROM s.t", [{"s.t.a": SAME}]),
        ("SELECT x.y FROM (SELECT a AS y FROM s.t) x", [{"s.t.a": SAME}]),
        ("SELECT a + b AS e, 1 AS one FROM s.t", [{"s.t.a": T, "s.t.b": T}, {}]),
        ("SELECT CASE WHEN a > 1 THEN b END AS k FROM s.t", [{"s.t.a": T, "s.t.b": T}]),
        ("SELECT sum(a + b) AS s FROM s.t", [{"s.t.a": A, "s.t.b": A}]),
        ("SELECT sum(a) + max(b) AS s FROM s.t", [{"s.t.a": A, "s.t.b": A}]),
        ("SELECT c, count(*) AS n FROM s.t GROUP BY c", [{"s.t.c": SAME}, {"s.t": A}]),
        ("SELECT count(*) AS n FROM s.t, s.u", [{"s.t": A, "s.u": A}]),
        ("SELECT sum(a) FILTER (WHERE b > 0) AS s FROM s.t", [{"s.t.a": A}]),
        ("SELECT lag(a) OVER (ORDER BY b) AS w FROM s.t", [{"s.t.a": T}]),
        ("SELECT a FROM s.t UNION ALL SELECT d + 1 FROM s.u", [{"s.t.a": SAME, "s.u.d": T}]),
        ("SELECT a FROM s.t EXCEPT SELECT d FROM s.u", [{"s.t.a": SAME}]),
        ("SELECT (SELECT max(d) FROM s.u) AS m FROM s.t", [{"s.u.d": A}]),
        ("SELECT a IN (SELECT d FROM s.u) AS m FROM s.t", [{"s.t.a": T, "s.u.d": T}]),
        (
            "WITH w AS (SELECT a, b * 2 AS b FROM s.t) SELECT * FROM w",
            [{"s.t.a": SAME}, {"s.t.b": T}],
        ),
        # A block that is not modelled: any column may be made of any, nobody knows how.
        ("SELECT * FROM (FROM s.u POSITIONAL JOIN s.t) LIMIT 1", [{}, {}, {}, {}, {}]),
    ],
)
def test_how_columns_are_made(
    sql: str, expected: list[dict[str, str]], connection: batuta_sql.Connection
) -> None:
    made = found(connection, sql).made
    assert [{str(o): m for o, m in how.items()} for how in made] == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT a FROM s.t", {}),
        ("SELECT a FROM s.t WHERE b > 1", {"s.t.b": {"FILTER"}}),
        ("SELECT b FROM s.t JOIN s.u USING (a)", {"s.t.a": {"JOIN"}, "s.u.a": {"JOIN"}}),
        ("SELECT sum(a) FROM s.t GROUP BY c", {"s.t.c": {"GROUP_BY"}}),
        (
            "SELECT c FROM s.t GROUP BY c HAVING sum(a) > 1",
            {"s.t.c": {"GROUP_BY"}, "s.t.a": {"FILTER"}},
        ),
        ("SELECT a FROM s.t ORDER BY b + 1", {"s.t.b": {"SORT"}}),
        (
            "SELECT sum(a) OVER (PARTITION BY b ORDER BY c) FROM s.t WHERE b > 0",
            {"s.t.b": {"FILTER", "WINDOW"}, "s.t.c": {"WINDOW"}},
        ),
    ],
)
def test_what_chooses_rows(
    sql: str, expected: dict[str, set[str]], connection: batuta_sql.Connection
) -> None:
    uses = found(connection, sql).uses
    assert {str(o): set(clauses) for o, clauses in uses.items()} == expected


def test_of_a_text_that_only_duckdb_reads_nothing_is_known(
    connection: batuta_sql.Connection,
) -> None:
    query = connection._query("PIVOT s.t ON c USING sum(a)", None)
    query.close()
    assert query.provenance.transformations == Transformations()
