"""Texts of few values travel as codes where the link is slow, and arrive as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi
import pytest

import batuta_sql
from batuta_sql import profile
from batuta_sql.config import load_settings
from batuta_sql.costing import place_of
from batuta_sql.demo.postgres_server import PostgresServer
from batuta_sql.plan.rates import ASSUMED

ROWS = 120_000
VALUES = [
    "DELIVER IN PERSON",
    "TAKE BACK RETURN",
    "it's 100 % \\ {curly}",
    "= a sign first",
    "löst",
]
SLOW, FAST = ASSUMED, replace(ASSUMED, bytes_per_second=1e9)

Connect = Callable[..., Any]


@pytest.fixture(scope="module")
def uri(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database("codes") as uri:
        names = ", ".join("'" + v.replace("'", "''") + "'" for v in VALUES)
        chosen = f"(ARRAY[{names}])[1 + i % {len(VALUES)}]"
        run(
            uri,
            f"CREATE TABLE big AS SELECT i AS id, {chosen} AS how,"
            f" CASE WHEN i % 10 > 0 THEN {chosen}::char(30) END AS fixed,"
            " 'number ' || i AS many, 'ab' AS short"
            f" FROM generate_series(1, {ROWS}) i",
            "ANALYZE big",
            # After its values were counted.
            "INSERT INTO big VALUES (-1, 'new', 'new', 'new', 'new'), (-2, '', '', '', ''),"
            " (-3, NULL, NULL, NULL, NULL), (-4, '=', '=', '=', '='), (-5, 'a', 'a', 'a', 'a')",
            "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2',"
            " deterministic = false)",
            "CREATE TABLE alike AS SELECT i AS id,"
            " (CASE WHEN i % 2 = 0 THEN 'Written So' ELSE 'written so' END)"
            f" COLLATE blind AS how FROM generate_series(1, {ROWS}) i",
            "ANALYZE alike",
        )
        yield uri


def run(uri: str, *statements: str) -> None:
    with (
        adbc_driver_postgresql.dbapi.connect(uri, autocommit=True) as server,
        server.cursor() as cursor,
    ):
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def connect(uri: str, tmp_path: Path) -> Iterator[Connect]:
    opened: list[Any] = []

    def make(rates: Any = SLOW, **options: Any) -> Any:
        file = tmp_path / "profile.json"
        crm = {"kind": "postgresql", "uri": uri, "locality": "local"}
        config = {"profile_file": str(file), "sources": {"crm": crm}, **options}
        place = place_of(load_settings(config).sources["crm"])
        known = profile.Measured.of("crm", place, datetime.now(UTC), rates)
        profile.write(file, {("crm", place): known})
        opened.append(batuta_sql.connect(config))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def sent(cursor: Any) -> list[str]:
    return [f.sql for f in cursor.plan.fragments]


def expected(id_: int) -> str:
    return VALUES[id_ % len(VALUES)]


def test_every_text_arrives_as_it_was(connect: Connect) -> None:
    cursor = connect().execute("SELECT id, how, fixed, many FROM crm.big")
    rows = cursor.fetchall()
    assert "WHEN 'DELIVER IN PERSON' THEN" in sent(cursor)[0]
    assert sent(cursor)[0].count("CASE") == 2, "what has many values travels as it is"
    late = {-1: "new", -2: "", -3: None, -4: "=", -5: "a"}
    assert {id_: (how, fixed, many) for id_, how, fixed, many in rows if id_ < 0} == {
        id_: (text, text, text) for id_, text in late.items()
    }
    assert len(rows) == ROWS + len(late)
    for id_, how, fixed, _ in rows:
        if id_ > 0:
            assert how == expected(id_)
            assert fixed == (expected(id_) if id_ % 10 else None)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT how, count(*), min(fixed), max(how) FROM crm.big GROUP BY how",
        "SELECT DISTINCT fixed FROM crm.big",
        "SELECT how FROM crm.big ORDER BY how, id LIMIT 10",
        "SELECT a.id, b.how FROM crm.big a JOIN crm.big b ON a.id = b.id + 1 WHERE b.how <> 'löst'",
        "SELECT how || '!', upper(fixed), how IS NULL FROM crm.big WHERE id < 3000",
        "SELECT how FROM crm.big UNION SELECT fixed FROM crm.big",
        "SELECT l.v, count(b.id) FROM (VALUES ('löst'), ('new'), ('none')) l(v)"
        " LEFT JOIN crm.big b ON b.how = l.v GROUP BY 1",
        "WITH w AS (SELECT id, how FROM crm.big) SELECT count(*) FROM w a JOIN w b USING (how, id)",
        "SELECT id, how FROM crm.alike",
    ],
)
@pytest.mark.parametrize("semi_joins", ["off", "always"])
def test_answers_do_not_depend_on_how_texts_travel(
    connect: Connect, sql: str, semi_joins: str
) -> None:
    answers = [
        sorted(connect(rates, semi_joins=semi_joins).execute(sql).fetchall(), key=repr)
        for rates in (SLOW, FAST)
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("rates", "table", "column"),
    [
        (FAST, "big", "how"),
        (SLOW, "big", "many"),
        (SLOW, "big", "short"),
        # Texts that are equal there, and not here.
        (SLOW, "alike", "how"),
    ],
)
def test_texts_travel_as_they_are_where_codes_do_not_help(
    connect: Connect, rates: Any, table: str, column: str
) -> None:
    cursor = connect(rates).execute(f"SELECT {column} FROM crm.{table}")
    assert "CASE" not in sent(cursor)[0]


def test_the_estimate_knows(connect: Connect) -> None:
    slow, fast = (connect(rates).plan("SELECT how FROM crm.big") for rates in (SLOW, FAST))
    (coded,), (plain,) = slow.fragments, fast.fragments
    assert coded._run.fragment.bytes < plain._run.fragment.bytes / 2
