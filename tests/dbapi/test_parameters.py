"""Parameters: qmark and named, bound as values and never pasted, in what is pushed and what not."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

import batuta_sql
from tests.dbapi.conftest import BEERS

VALUES = [
    None,
    True,
    0,
    -(2**63),
    2**100,
    1.5,
    math.inf,
    Decimal("12.340"),
    "",
    "it's; DROP TABLE beer --",
    'quo"te',
    "\\",
    "日本 😀",
    b"\x00\xff",
    date(2024, 2, 29),
    time(23, 59, 59, 500000),
    datetime(2024, 2, 29, 1, 2, 3, 4),
    UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    [1, None, 3],
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_as_it_went(cursor: Any, value: object) -> None:
    cursor.execute("SELECT ? AS v", (value,))
    assert cursor.fetchone() == (value,)


def test_an_instant_keeps_its_moment(cursor: Any) -> None:
    moment = datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC)
    cursor.execute("SELECT ? AS v", (moment,))
    assert cursor.fetchone() == (moment,)


def test_nan_comes_back(cursor: Any) -> None:
    cursor.execute("SELECT ? AS v", (math.nan,))
    assert math.isnan(cursor.fetchone()[0])


@pytest.mark.parametrize("table", ["pub.beer", "crm.public.guest"])
@pytest.mark.parametrize("hostile", ["x' OR '1'='1", "'; DROP TABLE beer; --", "$1", "?", "%s"])
def test_text_is_never_sql(cursor: Any, table: str, hostile: str) -> None:
    cursor.execute(f"SELECT count(*) FROM {table} WHERE name = ?", (hostile,))
    assert cursor.fetchone() == (0,)
    cursor.execute("SELECT count(*) FROM pub.beer")
    assert cursor.fetchone() == (len(BEERS),)


def test_qmark_in_order(cursor: Any) -> None:
    cursor.execute(
        "SELECT name FROM pub.beer WHERE id > ? AND id < ? ORDER BY id LIMIT ?", (1, 5, 2)
    )
    assert cursor.fetchall() == [(BEERS[1],), (BEERS[2],)]


def test_a_question_mark_in_text_is_not_a_parameter(cursor: Any) -> None:
    cursor.execute("SELECT '?' AS a, \"name\" FROM pub.beer WHERE id = ? -- why?", (1,))
    assert cursor.fetchone() == ("?", BEERS[0])


def test_named(cursor: Any) -> None:
    cursor.execute(
        "SELECT b.name FROM pub.beer b JOIN crm.public.guest g ON g.beer = b.id "
        "WHERE g.name = $who OR b.id = $number OR g.name = $who ORDER BY b.id",
        {"who": "Ann", "number": 5},
    )
    assert cursor.fetchall() == [(BEERS[0],), (BEERS[4],)]


@pytest.mark.parametrize(
    ("sql", "given"),
    [
        ("SELECT ? AS a", ()),
        ("SELECT ? AS a", (1, 2)),
        ("SELECT ? AS a", None),
        ("SELECT $a AS a", {"b": 1}),
        ("SELECT 1 AS a", (1,)),
    ],
)
def test_too_few_or_too_many_is_an_error(cursor: Any, sql: str, given: Any) -> None:
    with pytest.raises(batuta_sql.Error):
        cursor.execute(sql, given) if given is not None else cursor.execute(sql)


def test_executemany_reads_once_for_each(cursor: Any) -> None:
    cursor.executemany("SELECT name FROM pub.beer WHERE id = ?", [(1,), (3,)])
    assert BEERS[2] in [name for (name,) in cursor.fetchall()]


@pytest.mark.parametrize(
    ("sql", "values", "expected"),
    [
        ("SELECT x, ? FROM (SELECT ? AS x)", [5, 6], [(6, 5)]),
        (
            "SELECT ? AS a WHERE EXISTS (SELECT 1 FROM (SELECT 'x' AS d) WHERE d = ?)",
            [1, "x"],
            [(1,)],
        ),
        (
            "SELECT ?, a, b FROM (SELECT ? AS a) JOIN (SELECT ? AS b) ON a < b",
            [1, 2, 3],
            [(1, 2, 3)],
        ),
        ("SELECT list_value(7, 8, 9)[?], ?", [2, "b"], [(8, "b")]),
        ('SELECT \'a?b\', ?, "?" FROM (SELECT ? AS "?") -- ?', [1, 2], [("a?b", 1, 2)]),
        ("SELECT $2, x FROM (SELECT $1 AS x)", [5, 6], [(6, 5)]),
    ],
)
def test_they_are_counted_as_they_are_written(
    cursor: Any, sql: str, values: list[Any], expected: list[tuple[Any, ...]]
) -> None:
    assert cursor.execute(sql, values).fetchall() == expected
