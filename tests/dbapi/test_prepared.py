"""A text that comes again is planned again only where its plan could have changed."""

from __future__ import annotations

import datetime
import decimal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import batuta_sql
from batuta_sql import prepared, provenance


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "shop.sqlite"
    with sqlite3.connect(made) as database:
        database.execute("CREATE TABLE sale (id INTEGER PRIMARY KEY, amount INTEGER, day TEXT)")
        database.executemany(
            "INSERT INTO sale VALUES (?, ?, ?)",
            [(i, i * 10, f"2024-01-{i + 1:02}") for i in range(20)],
        )
    return made


@pytest.fixture
def con(file: Path) -> Iterator[Any]:
    with batuta_sql.connect({"sources": {"shop": {"kind": "sqlite", "path": str(file)}}}) as made:
        yield made


def changed(file: Path, *statements: str) -> None:
    with sqlite3.connect(file) as database:
        for statement in statements:
            database.execute(statement)


def rows(con: Any, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = con.execute(sql, parameters).fetchall()
    return found


def test_the_same_text_has_the_same_plan(con: Any) -> None:
    first, again = (
        con.plan("SELECT max(id) FROM shop.sale"),
        con.plan("SELECT max(id) FROM shop.sale"),
    )
    assert first._placed is again._placed
    assert rows(con, "SELECT max(id) FROM shop.sale") == [(19,)]


def test_blanks_and_comments_do_not_matter(con: Any) -> None:
    first = con.plan("SELECT id FROM shop.sale WHERE amount = 30")
    again = con.plan("SELECT id -- which?\n  FROM shop.sale\n  WHERE amount   = 30 /* only */")
    assert first._placed is again._placed


@pytest.mark.parametrize(
    "other",
    [
        "SELECT id FROM shop.sale WHERE day = 'a  b'",
        "SELECT id FROM shop.sale WHERE day = 'A b'",
        "SELECT ID FROM shop.sale WHERE day = 'a b'",
        "SELECT \"id\" FROM shop.sale WHERE day = 'a b' AND TRUE",
    ],
)
def test_texts_that_say_something_else_have_their_own(con: Any, other: str) -> None:
    first = con.plan("SELECT id FROM shop.sale WHERE day = 'a b'")
    assert con.plan(other)._placed is not first._placed


def test_each_value_of_a_parameter_has_its_own_plan(con: Any) -> None:
    sql = "SELECT id FROM shop.sale WHERE amount = ?"
    assert [rows(con, sql, [10 * i]) for i in range(5)] == [[(i,)] for i in range(5)]
    assert rows(con, sql, [10]) == [(1,)]


@pytest.mark.parametrize(
    "values",
    [
        [decimal.Decimal("1.0"), decimal.Decimal("1.00"), 1, 1.0, True, "1"],
        [0.0, -0.0],
        [datetime.date(2024, 1, 1), datetime.datetime(2024, 1, 1), "2024-01-01"],
        [b"1", "b'1'", None, "None"],
    ],
    ids=["numbers", "zeros", "dates", "texts"],
)
def test_values_that_are_equal_but_not_the_same_are_told_apart(con: Any, values: list[Any]) -> None:
    sql = "SELECT typeof(?), CAST(? AS VARCHAR) FROM shop.sale LIMIT 1"
    alone = [rows(con, sql, [v, v]) for v in values]
    con.refresh()
    assert [rows(con, sql, [v, v]) for v in reversed(values)] == list(reversed(alone))
    assert len({str(a) for a in alone}) == len(values)


def test_a_table_that_has_changed_is_planned_again(con: Any, file: Path) -> None:
    sql = "SELECT * FROM shop.sale WHERE id = 3"
    assert rows(con, sql) == [(3, 30, "2024-01-04")]
    changed(file, "ALTER TABLE sale ADD COLUMN note TEXT DEFAULT 'none'")
    con._session.catalog.forget()  # as when the catalog's time has run out
    assert rows(con, sql) == [(3, 30, "2024-01-04", "none")]
    changed(file, "DROP TABLE sale")
    con._session.catalog.forget()
    with pytest.raises(batuta_sql.ProgrammingError, match="no table"):
        rows(con, sql)


def test_a_view_and_a_frame_may_be_another_the_next_time(con: Any) -> None:
    con.register("wanted", pa.table({"id": [1, 2]}))
    con.execute("CREATE VIEW chosen AS SELECT id, amount FROM shop.sale WHERE id < 2")
    frame = "SELECT s.amount FROM shop.sale s JOIN wanted USING (id) ORDER BY 1"
    view = "SELECT * FROM chosen ORDER BY 1"
    assert (rows(con, frame), rows(con, view)) == ([(10,), (20,)], [(0, 0), (1, 10)])
    con.register("wanted", pa.table({"id": ["3"], "amount_": [1]}).select(["id"]))
    con.execute("CREATE OR REPLACE VIEW chosen AS SELECT day FROM shop.sale WHERE id < 2")
    assert rows(con, view) == [("2024-01-01",), ("2024-01-02",)]
    con.register("wanted", pa.table({"id": [4]}))
    assert rows(con, frame) == [(40,)]


def test_another_time_zone_is_another_plan(con: Any) -> None:
    sql = (
        "SELECT count(*) FROM shop.sale WHERE CAST(day AS TIMESTAMP)"
        " < CAST(CAST('2024-01-05 23:30:00+00' AS TIMESTAMPTZ) AS TIMESTAMP)"
    )
    con.execute("SET timezone = 'UTC'")
    assert rows(con, sql) == [(5,)]
    con.execute("SET timezone = 'Europe/Berlin'")
    assert rows(con, sql) == [(6,)]


def test_the_random_and_the_present_are_not_remembered(con: Any) -> None:
    sql = "SELECT random(), uuid() FROM shop.sale WHERE id = 1"
    assert rows(con, sql) != rows(con, sql)


def test_what_is_on_record_is_each_query_and_its_own_text(file: Path, tmp_path: Path) -> None:
    shop = {"kind": "sqlite", "path": str(file), "labels": ["pii"]}
    decision = {
        "columns": ["shop.sale.id"],
        "labels": ["pii"],
        "who": "Ann",
        "why": "a number",
        "until": "2999-01-01",
    }
    log = {"audit_log": str(tmp_path / "audit.jsonl"), "declassify": [decision]}
    with batuta_sql.connect({"sources": {"shop": shop}, "labels": log}) as con:
        for sql in (
            "SELECT id FROM shop.sale",
            "SELECT id FROM shop.sale",
            "SELECT id\nFROM shop.sale",
        ):
            con.execute(sql).fetchall()
        events, fault = con.audit()
    assert fault is None
    assert [e["event"] for e in events] == ["declassify"] * 3
    assert len({e["query"] for e in events}) == 2


def test_a_decision_that_has_ended_is_not_remembered(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = {"kind": "sqlite", "path": str(file), "labels": ["pii"]}
    decision = {
        "columns": ["shop.sale.id"],
        "labels": ["pii"],
        "who": "Ann",
        "why": "a number",
        "until": "2050-06-30",
    }
    log = {"audit_log": str(tmp_path / "audit.jsonl"), "declassify": [decision]}

    class Later(datetime.datetime):
        day = datetime.datetime(2050, 6, 30, 23, 59, tzinfo=datetime.UTC)

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.day

    for module in (prepared, provenance):
        monkeypatch.setattr(module.datetime, "datetime", Later)
    with batuta_sql.connect({"sources": {"shop": shop}, "labels": log}) as con:
        sql = "SELECT id FROM shop.sale"
        assert not con.plan(sql).result_labels.columns[0][1].all
        Later.day += datetime.timedelta(minutes=2)
        assert con.plan(sql).result_labels.columns[0][1].all == {"pii"}
