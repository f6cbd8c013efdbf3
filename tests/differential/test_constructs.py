"""What DuckDB's SQL can say, one construct a line: answered over sources as over local tables.

``constructs.sql`` holds what the planner models, ``constructs_fallback.sql`` what runs through the
fallback scan: a line that moves from the second to the first is progress that shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi
import duckdb
import pytest

import batuta_sql

FOLDER = Path(__file__).parent
PLANNED = (FOLDER / "constructs.sql").read_text(encoding="utf-8").splitlines()
FALLBACK = (FOLDER / "constructs_fallback.sql").read_text(encoding="utf-8").splitlines()

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
