"""What DuckDB's SQL can say, one construct a line: answered over sources as over local tables.

``constructs.sql`` holds what the planner models, ``constructs_fallback.sql`` what runs through the
fallback scan: a line that moves from the second to the first is progress that shows.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi
import duckdb
import pytest
import sqlglot
from sqlglot.tokens import TokenType

import batuta_sql

FOLDER = Path(__file__).parent
PLANNED = (FOLDER / "constructs.sql").read_text(encoding="utf-8").splitlines()
FALLBACK = (FOLDER / "constructs_fallback.sql").read_text(encoding="utf-8").splitlines()

PARAMETERS = [
    "SELECT 1 AS a WHERE EXISTS (SELECT 1 FROM pg.ex.emp e WHERE e.name = 'ann')",
    "SELECT id, 5 AS five FROM (SELECT id, 6 AS six FROM pg.ex.emp) WHERE six = 6 ORDER BY id",
    "SELECT d.title, 'x' AS x FROM (SELECT 10 AS ten) t JOIN lake.dep d ON d.id = t.ten + 10",
    "SELECT a, 9 AS z FROM (VALUES (1), (2)) t(a) WHERE a IN (1, 2) AND EXISTS (SELECT 3)",
    "WITH w AS (SELECT 10 AS q) SELECT 7, e.id FROM pg.ex.emp e, w WHERE e.dept = w.q",
    "SELECT sum(sal) FILTER (WHERE sal > 60) AS s, 4 AS f FROM pg.ex.emp WHERE id < 5",
    "SELECT id, 3 AS c FROM pg.ex.emp WHERE id NOT IN (SELECT 2) AND dept IN (10, 20)",
    "SELECT dept, count(*) AS n, 8 AS e FROM pg.ex.emp WHERE id > 1 GROUP BY dept"
    " HAVING count(*) >= 1",
    "SELECT tags[1], tags[1:1], tags[1 + 0], name[2:3] FROM pg.ex.emp WHERE tags[1] = 'a'",
    "SELECT d.info['b'], d.m['k'], list_extract([5, 6], 2), [7, 8][1 + 1] FROM lake.dep d",
    "SELECT date_trunc('month', ts), date_part('year', ts), strftime(ts, '%Y') FROM pg.ex.emp",
    "SELECT round(sal, 1), substring(name, 2, 1), left(name, 1), lpad(name, 5, '*') FROM pg.ex.emp",
    "SELECT replace(name, 'n', 'm'), regexp_replace(name, 'n', 'm', 'g') FROM pg.ex.emp",
    "SELECT ts + INTERVAL 1 DAY, ts - INTERVAL '2 hours', hired + 3 FROM pg.ex.emp WHERE id = 1",
    "SELECT json_extract('{\"a\": [1, 2]}', '$.a[1]'), split_part('a-b', '-', 2) FROM pg.ex.emp",
    "SELECT string_agg(name, '/' ORDER BY id), list(id ORDER BY -id) FROM pg.ex.emp WHERE id < 3",
    "SELECT id, ntile(2) OVER (ORDER BY id), nth_value(name, 2) OVER (ORDER BY id) FROM pg.ex.emp",
    "SELECT id FROM pg.ex.emp WHERE name LIKE 'a%' OR name ILIKE 'B%' OR name SIMILAR TO 'c.d'",
    "SELECT quantile_cont(sal, 0.5), approx_count_distinct(id) > 2 FROM pg.ex.emp WHERE id <> 4",
    "SELECT coalesce(name, 'none'), nullif(dept, 10), greatest(id, 3) FROM pg.ex.emp",
    "SELECT least(1.5, sal), id % 2 = 1, -id + 3, id ** 2, id // 2 FROM pg.ex.emp WHERE id > 1",
    "SELECT CAST('7' AS INT) + id, TRY_CAST('x' AS INT), '2024-01-01'::DATE FROM pg.ex.emp",
    "SELECT unnest([1, 2]), generate_series(1, 3), struct_pack(a := 1) FROM lake.dep WHERE id = 10",
    "SELECT * FROM range(1, 4) r(i) WHERE i <> 2",
    "SELECT CASE WHEN id = 1 THEN 'one' WHEN id = 2 THEN 'two' ELSE 'more' END FROM pg.ex.emp",
    "SELECT e.id, (SELECT max(d.id) + 100 FROM lake.dep d WHERE d.id < 25) AS m FROM pg.ex.emp e"
    " WHERE e.id BETWEEN 2 AND 4 ORDER BY e.id LIMIT 2 OFFSET 1",
    "SELECT 'l' AS side, id FROM pg.ex.emp WHERE id = 1 UNION ALL SELECT 'r', id FROM lake.dep"
    " WHERE id = 30",
    "SELECT lag(id, 1, -7) OVER (ORDER BY id) AS p, 2 AS two FROM pg.ex.emp WHERE id <= 3",
    "SELECT e.name || '-' || d.title AS t FROM pg.ex.emp e LEFT JOIN lake.dep d"
    " ON d.id = e.dept AND d.title <> 'dev' WHERE coalesce(d.id, 99) > 5",
]
"""With constants in clauses that are bound in another order than they are written."""

EMPLOYEES = """
CREATE TABLE {schema}.emp(
  id int, name text, dept int, sal decimal(10,2), hired date, ts timestamp, tags text[]
);
INSERT INTO {schema}.emp VALUES
 (1, 'ann', 10, 100.50, '2020-01-15', '2020-01-15 10:00:00', array['a', 'b']),
 (2, 'bob', 10, 200.25, '2021-03-01', '2021-03-01 12:30:00', NULL),
 (3, 'cid', 20, NULL, '2019-07-31', '2019-07-31 00:00:00', array['c']),
 (4, NULL, 20, 50.00, NULL, NULL, array[]::text[]),
 (5, 'eve', NULL, 75.10, '2022-12-31', '2022-12-31 23:59:59.5', NULL)
"""
DEPARTMENTS = """
CREATE TABLE lake.main.dep(
  id int, title varchar, parent int, info struct(a int, b varchar), m map(varchar, int)
);
INSERT INTO lake.main.dep VALUES
 (10, 'ops', NULL, {'a': 1, 'b': 'x'}, map {'k': 1}),
 (20, 'dev', 10, {'a': 2, 'b': NULL}, map {}),
 (30, 'hr', 10, NULL, NULL)
"""


@dataclass(frozen=True)
class BothSides:
    connection: Any
    truth: duckdb.DuckDBPyConnection


@pytest.fixture(scope="module")
def sides(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BothSides]:
    folder = tmp_path_factory.mktemp("constructs")
    truth = duckdb.connect()
    truth.execute("SET TimeZone = 'UTC'")
    truth.execute("ATTACH ':memory:' AS pg; CREATE SCHEMA pg.ex; ATTACH ':memory:' AS lake")
    truth.execute(EMPLOYEES.format(schema="pg.ex").replace("array[]::text[]", "[]::text[]"))
    truth.execute(DEPARTMENTS)
    truth.execute(f"COPY lake.main.dep TO '{folder}/dep.parquet'")
    with postgres.database() as uri:
        with (
            adbc_driver_postgresql.dbapi.connect(uri, autocommit=True) as server,
            server.cursor() as cursor,
        ):
            cursor.execute("CREATE SCHEMA ex")
            for statement in EMPLOYEES.format(schema="ex").split(";"):
                cursor.execute(statement)
        connection = batuta_sql.connect(
            {
                "sources": {
                    "pg": {"kind": "postgresql", "uri": uri},
                    "lake": {"kind": "files", "path": str(folder)},
                }
            }
        )
        yield BothSides(connection, truth)
        connection.close()
    truth.close()


@pytest.mark.parametrize("sql", [*PLANNED, *FALLBACK])
def test_the_answer_is_that_of_duckdb(sql: str, sides: BothSides) -> None:
    expected = sides.truth.execute(sql).fetchall()
    names = [d[0] for d in sides.truth.description]
    cursor = sides.connection.cursor()
    cursor.execute(sql)
    answer = cursor.fetchall()
    assert sorted(map(str, answer)) == sorted(map(str, expected))
    if "ORDER BY" in sql and "(" not in sql.rpartition("ORDER BY")[2]:
        assert answer == expected
    if "FROM lake" not in "".join(names):
        assert [d[0] for d in cursor.description] == names


@pytest.mark.parametrize("sql", PLANNED)
def test_it_is_planned(sql: str, sides: BothSides) -> None:
    cursor = sides.connection.cursor()
    cursor.execute(sql)
    assert cursor.plan.fallbacks == ()


@pytest.mark.parametrize("sql", FALLBACK)
def test_it_still_falls_back(sql: str, sides: BothSides) -> None:
    cursor = sides.connection.cursor()
    cursor.execute(sql)
    assert cursor.plan.fallbacks, "the planner models it now: move the line to constructs.sql"


def with_parameters(sql: str, chosen: Callable[[int], bool]) -> tuple[str, list[Any]]:
    """A text with ``?`` in the place of the constants that are chosen, and their values."""
    parts, values, at = [], list[Any](), 0
    constants = [
        t
        for t in sqlglot.tokenize(sql, read="duckdb")
        if t.token_type in (TokenType.NUMBER, TokenType.STRING)
    ]
    for number, token in enumerate(constants):
        if not chosen(number):
            continue
        parts += [sql[at : token.start], "?"]
        at = token.end + 1
        is_text = token.token_type == TokenType.STRING
        values.append(token.text if is_text else Decimal(token.text))
        if not is_text and token.text.isdigit():
            values[-1] = int(token.text)
    return "".join(parts) + sql[at:], values


@pytest.mark.parametrize("sql", [*PLANNED, *FALLBACK, *PARAMETERS])
def test_parameters_are_counted_as_they_are_written(sql: str, sides: BothSides) -> None:
    """Whatever is bound, planned or run first. DuckDB does not take one in every place."""
    chance = random.Random(sql)
    for share in (1.0, 0.7, 0.4):
        asked, values = with_parameters(sql, lambda _, share=share: chance.random() < share)
        try:
            expected = sides.truth.execute(asked, values).fetchall()
        except duckdb.Error:
            continue
        answer = sides.connection.execute(asked, values).fetchall()
        assert sorted(map(str, answer)) == sorted(map(str, expected)), (asked, values)


def test_parameters_were_tried(sides: BothSides) -> None:
    """Most of the statements have places for them."""
    tried = 0
    for sql in (*PLANNED, *FALLBACK, *PARAMETERS):
        asked, values = with_parameters(sql, lambda _: True)
        with contextlib.suppress(duckdb.Error):
            sides.truth.execute(asked, values)
            tried += len(values) > 1
    assert tried > 25
