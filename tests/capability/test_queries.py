"""Grouping, ordering, joins, subqueries, set operations: DuckDB's answer, and really pushed.

Each line is a query (``{}`` is the source), what its fragment must contain where it is pushed, and
the sources that push it. Where a source is not listed, the fragment must not contain it.
"""

from __future__ import annotations

import re

import pytest

from tests.capability.conftest import KINDS, Bench

Query = tuple[str, str, str]

AGGREGATES: tuple[Query, ...] = (
    ("SELECT count(*) AS v FROM {}.edge", r"COUNT\(\*\)", "pg lite"),
    ("SELECT count(t) AS v FROM {}.edge", r"COUNT\(", "pg lite"),
    ("SELECT count(DISTINCT t) AS v FROM {}.edge", r"COUNT\(DISTINCT", "pg lite"),
    ("SELECT count(DISTINCT ling) AS v FROM {}.edge", r"COUNT\(DISTINCT", "pg lite"),
    ("SELECT count(DISTINCT blind) AS v FROM {}.edge", r"COUNT\(DISTINCT", "pg lite"),
    ("SELECT count(DISTINCT ch) AS v FROM {}.edge", r"COUNT\(DISTINCT", "pg lite"),
    ("SELECT count(DISTINCT i) AS v FROM {}.edge", r"COUNT\(DISTINCT", "pg lite"),
    ("SELECT count(DISTINCT d) AS v FROM {}.edge", r"COUNT\(DISTINCT", ""),
    ("SELECT count(DISTINCT day) AS v FROM {}.edge", r"COUNT\(DISTINCT", "pg"),
    ("SELECT count(DISTINCT dec) AS v FROM {}.edge", r"COUNT\(DISTINCT", "pg"),
    ("SELECT count(*) FILTER (WHERE i > 0) AS v FROM {}.edge", r"FILTER", "pg lite"),
    ("SELECT count(t) FILTER (WHERE ling < 'b') AS v FROM {}.edge", r"FILTER", "pg lite"),
    ("SELECT count(DISTINCT few) FILTER (WHERE t <> '') AS v FROM {}.edge", "FILTER", "pg lite"),
    ("SELECT sum(i) AS v FROM {}.edge", r"SUM\(", "pg"),
    ("SELECT sum(big) AS v FROM {}.edge", r"SUM\(", "pg"),
    ("SELECT sum(small) AS v FROM {}.edge", r"SUM\(", "pg"),
    ("SELECT sum(dec) AS v FROM {}.edge", r"SUM\(", "pg"),
    ("SELECT sum(dec18) AS v FROM {}.edge", r"SUM\(", "pg"),
    ("SELECT sum(wide) AS v FROM {}.edge WHERE wide < 10", r"SUM\(", "pg"),
    ("SELECT sum(d) AS v FROM {}.edge WHERE d BETWEEN 0 AND 7", r"SUM\(", ""),
    ("SELECT sum(DISTINCT few) AS v FROM {}.edge", r"SUM\(DISTINCT", "pg"),
    ("SELECT sum(i) FILTER (WHERE ok) AS v FROM {}.edge", r"SUM\(.*FILTER", "pg"),
    ("SELECT sum(few * few) AS v FROM {}.edge", r"SUM\(.*\*", "pg"),
    ("SELECT sum(CASE WHEN ok THEN 1 ELSE 0 END) AS v FROM {}.edge", r"SUM\(CASE", "pg"),
    ("SELECT sum(i) AS v FROM {}.edge WHERE i > 5 AND i < 6", r"SUM\(", "pg"),
    ("SELECT avg(i) AS v FROM {}.edge", r"SUM\(", "pg"),
    ("SELECT avg(dec) AS v FROM {}.edge", r"SUM\(", "pg"),
    ("SELECT avg(wide) AS v FROM {}.edge WHERE wide < 10", r"SUM\(", "pg"),
    ("SELECT avg(big) AS v FROM {}.edge WHERE big > 5 AND big < 6", r"SUM\(", "pg"),
    ("SELECT avg(d) AS v FROM {}.edge WHERE d BETWEEN 0 AND 7", r"(SUM|AVG)\(", ""),
    ("SELECT avg(DISTINCT few) AS v FROM {}.edge", r"(SUM|AVG)\(", ""),
    ("SELECT avg(few) FILTER (WHERE few > 1) AS v FROM {}.edge", r"SUM\(.*FILTER", "pg"),
    ("SELECT min(i) AS a, max(i) AS b FROM {}.edge", r"MIN\(.*MAX\(", "pg lite"),
    ("SELECT min(dec) AS a, max(wide) AS b FROM {}.edge", r"MIN\(.*MAX\(", "pg"),
    ("SELECT min(d) AS a, max(d) AS b, max(f) AS c FROM {}.edge", r"MIN\(.*MAX\(", "pg lite"),
    ("SELECT min(t) AS a, max(t) AS b FROM {}.edge", r"MIN\(.*MAX\(", "pg lite"),
    ("SELECT min(ling) AS a, max(ling) AS b FROM {}.edge", r"MIN\(.*MAX\(", "pg lite"),
    ("SELECT min(blind) AS a, max(blind) AS b FROM {}.edge", r"MIN\(.*MAX\(", "pg lite"),
    ("SELECT min(day) AS a, max(ts) AS b, max(tz) AS c FROM {}.edge", r"MIN\(.*MAX\(", "pg"),
    ("SELECT min(ok) AS v FROM {}.edge", r"MIN\(", ""),
    ("SELECT bool_or(ok) AS v FROM {}.edge", r"(?i)bool_or\(", ""),
    ("SELECT string_agg(t, ',' ORDER BY t) AS v FROM {}.edge", r"(?i)_agg\(", ""),
    ("SELECT median(few) AS v FROM {}.edge", r"(?i)median\(", ""),
    ("SELECT stddev(few) AS v FROM {}.edge", r"(?i)stddev", ""),
)

GROUPS: tuple[Query, ...] = (
    ("SELECT few, count(*) AS n FROM {}.edge GROUP BY few", "GROUP BY", "pg lite"),
    ("SELECT t, count(*) AS n FROM {}.edge GROUP BY t", "GROUP BY", "pg lite"),
    ("SELECT ling, count(*) AS n FROM {}.edge GROUP BY ling", "GROUP BY", "pg lite"),
    ("SELECT blind, count(*) AS n FROM {}.edge GROUP BY blind", "GROUP BY", "pg lite"),
    ("SELECT ch, count(*) AS n FROM {}.edge GROUP BY ch", "GROUP BY", "pg lite"),
    ("SELECT d, count(*) AS n FROM {}.edge GROUP BY d", "GROUP BY", ""),
    ("SELECT ok, day, count(*) AS n FROM {}.edge GROUP BY ok, day", "GROUP BY", "pg"),
    ("SELECT dec, max(i) AS n FROM {}.edge GROUP BY dec", "GROUP BY", "pg"),
    ("SELECT id128, tz, count(*) AS n FROM {}.edge GROUP BY ALL", "GROUP BY", "pg"),
    ("SELECT few > 1 AS k, count(*) AS n FROM {}.edge GROUP BY k", "GROUP BY", "pg lite"),
    ("SELECT year(day) AS k, sum(few) AS n FROM {}.edge GROUP BY k", "GROUP BY", "pg"),
    (
        "SELECT CASE WHEN i > 0 THEN 'p' ELSE t END AS k, count(*) AS n FROM {}.edge GROUP BY k",
        "GROUP BY",
        "pg lite",
    ),
    ("SELECT few FROM {}.edge GROUP BY few HAVING count(*) > 4", "HAVING", "pg lite"),
    ("SELECT few FROM {}.edge GROUP BY few HAVING sum(i) > 4", "HAVING", "pg"),
    ("SELECT few, avg(i) AS v FROM {}.edge GROUP BY few", r"SUM\(.*GROUP BY", "pg"),
    ("SELECT few, ok, count(*) AS n FROM {}.edge GROUP BY ROLLUP (few, ok)", "GROUP BY", ""),
    ("SELECT DISTINCT few FROM {}.edge", "DISTINCT", "pg lite"),
    ("SELECT DISTINCT t, few FROM {}.edge", "DISTINCT", "pg lite"),
    ("SELECT DISTINCT ling FROM {}.edge", "DISTINCT", "pg lite"),
    ("SELECT DISTINCT blind FROM {}.edge", "DISTINCT", "pg lite"),
    ("SELECT DISTINCT ch FROM {}.edge", "DISTINCT", "pg lite"),
    ("SELECT DISTINCT f FROM {}.edge", "DISTINCT", ""),
    ("SELECT DISTINCT wide, ts FROM {}.edge", "DISTINCT", "pg"),
    ("SELECT count(*) AS n FROM (SELECT DISTINCT t FROM {}.edge)", "DISTINCT", "pg lite"),
)

TOP_N: tuple[Query, ...] = tuple(
    (f"SELECT {column}, id FROM {{}}.edge ORDER BY {column}{way}, id LIMIT 9", "LIMIT 9", where)
    for where, columns in (
        ("pg lite", ("i", "big", "d", "f", "t", "ling", "blind", "ch")),
        ("pg", ("dec", "wide", "day", "ts", "tz", "tm")),
        ("", ("ok", "id128")),
    )
    for column in columns
    for way in ("", " DESC", " NULLS FIRST", " DESC NULLS FIRST", " DESC NULLS LAST")
)

LIMITS: tuple[Query, ...] = (
    ("SELECT id FROM {}.edge ORDER BY id LIMIT 3 OFFSET 2", r"LIMIT 5", "pg lite"),
    ("SELECT id FROM {}.edge ORDER BY t || 'x', id LIMIT 3", r"LIMIT 3", "pg"),
    ("SELECT id FROM {}.edge ORDER BY few * few DESC, id LIMIT 3", r"LIMIT 3", "pg"),
    ("SELECT count(*) AS n FROM (SELECT * FROM {}.edge LIMIT 3)", r"LIMIT 3", "pg lite"),
    (
        "SELECT few, count(*) AS n FROM {}.edge GROUP BY few ORDER BY n, few LIMIT 2",
        r"LIMIT 2",
        "pg lite",
    ),
    ("SELECT id FROM {}.edge ORDER BY id LIMIT 10%", r"LIMIT", ""),
    (
        "SELECT id, t FROM {}.words UNION ALL SELECT id, u FROM {}.edge ORDER BY 1, 2 LIMIT 4",
        "UNION",
        "pg",
    ),
)

_TWO = "{}.edge a JOIN {}.edge b"
JOINS: tuple[Query, ...] = (
    (f"SELECT a.id, b.id AS j FROM {_TWO} ON a.i = b.small", " JOIN ", "pg lite"),
    (f"SELECT a.id, b.id AS j FROM {_TWO} ON a.t = b.u", " JOIN ", "pg lite"),
    (f"SELECT a.id, b.id AS j FROM {_TWO} ON a.ling = b.ling", " JOIN ", "pg lite"),
    (f"SELECT a.id, b.id AS j FROM {_TWO} ON a.blind = b.blind", " JOIN ", "pg lite"),
    (f"SELECT a.id, b.id AS j FROM {_TWO} ON a.t = b.blind", " JOIN ", "pg lite"),
    (f"SELECT a.id, b.id AS j FROM {_TWO} ON a.ch = b.t", " JOIN ", "pg lite"),
    (f"SELECT a.id, b.id AS j FROM {_TWO} ON a.dec = b.few", " JOIN ", "pg"),
    (f"SELECT a.id, b.id AS j FROM {_TWO} ON a.d = b.d", " JOIN ", "pg lite"),
    (f"SELECT a.id, b.id AS j FROM {_TWO} ON a.day = b.day AND a.id < b.id", " JOIN ", "pg"),
    (
        f"SELECT a.id, b.id AS j FROM {_TWO} ON a.i IS NOT DISTINCT FROM b.small",
        " JOIN ",
        "pg lite",
    ),
    (f"SELECT a.id, b.id AS j FROM {_TWO} USING (few)", " JOIN ", "pg lite"),
    (f"SELECT a.id, b.id AS j FROM {_TWO} ON a.few < b.few", " JOIN ", "pg lite"),
    (
        "SELECT a.id, b.id AS j FROM {}.edge a LEFT JOIN {}.edge b ON a.i = b.small",
        "LEFT JOIN",
        "pg lite",
    ),
    (
        "SELECT a.id, b.id AS j FROM {}.edge a LEFT JOIN {}.edge b ON a.i = b.small AND b.few > 1",
        "LEFT JOIN",
        "pg lite",
    ),
    (
        "SELECT a.id, b.id AS j FROM {}.edge a LEFT JOIN {}.edge b ON a.i = b.small AND a.few > 1",
        "LEFT JOIN",
        "pg lite",
    ),
    (
        "SELECT a.id, b.id AS j FROM {}.edge a LEFT JOIN {}.edge b ON a.t = b.u WHERE b.id IS NULL",
        "LEFT JOIN",
        "pg lite",
    ),
    (
        "SELECT a.id, b.id AS j FROM {}.edge a RIGHT JOIN {}.edge b ON a.i = b.small",
        "RIGHT JOIN",
        "pg",
    ),
    (
        "SELECT a.id, b.id AS j FROM {}.edge a FULL JOIN {}.edge b ON a.i = b.small",
        "FULL JOIN",
        "pg",
    ),
    (
        "SELECT a.id, b.id AS j FROM {}.edge a FULL JOIN {}.edge b ON a.i = b.small AND a.few = 1",
        "FULL JOIN",
        "pg",
    ),
    ("SELECT a.id, b.id AS j FROM {}.words a, {}.words b", "CROSS JOIN", "pg lite"),
    ("SELECT a.id FROM {}.edge a SEMI JOIN {}.edge b ON a.i = b.small", "EXISTS", "pg lite"),
    ("SELECT a.id FROM {}.edge a ANTI JOIN {}.edge b ON a.i = b.small", "NOT EXISTS", "pg lite"),
    ("SELECT id, t FROM {}.words NATURAL JOIN (SELECT id, t FROM {}.edge)", " JOIN ", "pg lite"),
    ("SELECT a.id FROM {}.edge a POSITIONAL JOIN {}.edge b", " JOIN ", ""),
    (
        "SELECT a.id, c.id AS k FROM {}.edge a LEFT JOIN ({}.edge b JOIN {}.words c ON b.id = c.id)"
        " ON a.i = b.small",
        "LEFT JOIN",
        "pg lite",
    ),
)

SUBQUERIES: tuple[Query, ...] = (
    (
        "SELECT id FROM {}.edge a WHERE EXISTS (SELECT 1 FROM {}.words b WHERE b.few = a.i)",
        "EXISTS",
        "pg lite",
    ),
    (
        "SELECT id FROM {}.edge a WHERE NOT EXISTS (SELECT 1 FROM {}.words b WHERE b.few = a.i)",
        "NOT EXISTS",
        "pg lite",
    ),
    (
        "SELECT id FROM {}.edge WHERE t IN (SELECT u FROM {}.edge WHERE few > 1)",
        r"EXISTS|IN \(SELECT",
        "pg lite",
    ),
    (
        "SELECT id FROM {}.edge WHERE blind IN (SELECT t FROM {}.words)",
        r"EXISTS|IN \(SELECT",
        "pg lite",
    ),
    ("SELECT id FROM {}.edge WHERE i NOT IN (SELECT few FROM {}.words)", r"IN \(SELECT", "pg lite"),
    (
        "SELECT id FROM {}.edge WHERE i NOT IN (SELECT few FROM {}.words WHERE few IS NOT NULL)",
        r"IN \(SELECT",
        "pg lite",
    ),
    ("SELECT id, i IN (SELECT few FROM {}.words) AS v FROM {}.edge", r"IN \(SELECT", "pg lite"),
    ("SELECT id FROM {}.edge WHERE i = (SELECT max(i) FROM {}.edge)", r"MAX\(", "pg lite"),
    ("SELECT id, (SELECT max(few) FROM {}.words) AS v FROM {}.edge", r"MAX\(", "pg lite"),
    (
        "SELECT id, (SELECT count(*) FROM {}.words b WHERE b.few = a.i) AS v FROM {}.edge a",
        r"COUNT\(",
        "pg lite",
    ),
    (
        "SELECT id, (SELECT max(b.t) FROM {}.words b WHERE b.few = a.few) AS v FROM {}.edge a",
        r"MAX\(",
        "pg lite",
    ),
    (
        "SELECT id FROM {}.edge WHERE i >= ALL (SELECT few FROM {}.words WHERE few > 0)",
        r"ALL ?\(",
        "pg",
    ),
    (
        "SELECT id FROM {}.edge WHERE i = ANY (SELECT few FROM {}.words)",
        r"ANY ?\(|IN \(|EXISTS",
        "pg",
    ),
    (
        "WITH w AS (SELECT few, count(*) AS n FROM {}.edge GROUP BY few) SELECT * FROM w",
        "GROUP BY",
        "pg lite",
    ),
    (
        "WITH w AS (SELECT few, count(*) AS n FROM {}.edge GROUP BY few)"
        " SELECT a.few, b.n FROM w a JOIN w b ON a.n = b.n",
        "GROUP BY",
        "pg lite",
    ),
    ("SELECT * FROM (SELECT id, few + 1 AS k FROM {}.words) WHERE k > 2", r"> 2", "pg"),
    ("SELECT id, row_number() OVER (ORDER BY id) AS n FROM {}.words", "OVER", ""),
)

SETS: tuple[Query, ...] = tuple(
    (f"SELECT {a} AS v FROM {{}}.edge {operator} SELECT {b} AS v FROM {{}}.edge", operator, where)
    for operator in ("UNION", "UNION ALL", "INTERSECT", "INTERSECT ALL", "EXCEPT", "EXCEPT ALL")
    for a, b, where in (
        ("i", "few", "pg"),
        ("t", "u", "pg"),
        ("ling", "ling", "pg"),
        ("blind", "blind", "pg"),
        ("blind", "t", "pg"),
        ("ch", "t", "pg"),
        ("day", "day", "pg"),
        ("d", "d", ""),
        ("small", "dec", ""),
    )
)


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize(
    ("query", "marker", "where"),
    AGGREGATES + GROUPS + TOP_N + LIMITS + JOINS + SUBQUERIES + SETS,
    ids=lambda part: str(part) if "SELECT" in str(part) else "",
)
def test_query(bench: Bench, source: str, query: str, marker: str, where: str) -> None:
    run = bench.check(query.replace("{}", source))
    if source != "duck":
        found = re.search(marker, run.sent, re.DOTALL) is not None
        assert found == (source in where.split()), f"{run.sent}\n\n{run.tree}"
