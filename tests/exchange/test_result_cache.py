"""A result is given again only where asking again would give the same, or as old as was allowed."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

import batuta_sql

Connect = Callable[..., Any]
SUM = "SELECT sum(amount) AS s FROM lake.sale"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    folder = tmp_path / "lake"
    append(folder, id=[1, 2], amount=[10, 20])
    return folder


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    file = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE sale (id INTEGER, amount INTEGER)")
        database.execute("INSERT INTO sale VALUES (1, 10), (2, 20)")
    return file


@pytest.fixture
def connect(lake: Path, shop: Path) -> Iterator[Connect]:
    with ExitStack() as stack:

        def made(shop_settings: dict[str, Any] | None = None, **settings: Any) -> Any:
            sources = {
                "lake": {"kind": "delta", "path": str(lake)},
                "shop": {"kind": "sqlite", "path": str(shop), **(shop_settings or {})},
            }
            settings.setdefault("catalog_ttl", 0)
            return stack.enter_context(
                closing(batuta_sql.connect({**settings, "sources": sources}))
            )

        yield made


def append(lake: Path, name: str = "sale", **columns: Any) -> None:
    deltalake.write_deltalake(str(lake / name), pa.table(columns), mode="append")


def answer(con: Any, sql: str) -> tuple[list[tuple[Any, ...]], list[bool]]:
    """Rows, and of each fragment whether its result was kept."""
    cursor = con.execute(sql)
    rows = cursor.fetchall()
    return rows, [f["age"] is not None for f in cursor.metrics["fragments"]]


def test_the_same_version_is_not_asked_again(connect: Connect, lake: Path) -> None:
    con = connect()
    assert answer(con, SUM) == ([(30,)], [False])
    assert answer(con, SUM) == ([(30,)], [True])
    append(lake, id=[3], amount=[30])
    assert answer(con, SUM) == ([(60,)], [False])
    assert answer(con, SUM) == ([(60,)], [True])
    assert answer(con, 'SELECT sum(amount) AS s FROM lake."sale@v0"') == ([(30,)], [False])


def test_another_table_of_the_same_name_is_another(connect: Connect, lake: Path) -> None:
    con = connect()
    assert answer(con, SUM) == ([(30,)], [False])
    shutil.rmtree(lake / "sale")
    append(lake, id=[1, 2], amount=[1, 2])
    assert answer(con, SUM) == ([(3,)], [False])


def test_every_way_of_reading_gives_what_was_kept(connect: Connect) -> None:
    con = connect()
    sql = "SELECT id, amount FROM lake.sale ORDER BY id"
    first = con.execute(sql).fetch_arrow_table()
    again = con.execute(sql)
    assert again.fetch_arrow_table() == first
    assert again.metrics["fragments"][0]["age"] is not None
    assert con.execute(sql).fetchall() == [(1, 10), (2, 20)]
    assert "kept from" in "\n".join(r[0] for r in con.execute(f"EXPLAIN ANALYZE {sql}").fetchall())


def test_what_was_not_read_to_its_end_is_not_kept(connect: Connect, lake: Path) -> None:
    # More than is read ahead of a consumer.
    append(lake, "many", id=range(5_000_000))
    con = connect(result_cache="1GB")
    sql = "SELECT id FROM lake.many"
    with closing(con.execute(sql)) as cursor:
        assert cursor.fetchone() is not None
    for was_kept in (False, True):
        cursor = con.execute(sql)
        assert cursor.fetch_arrow_table().num_rows == 5_000_000
        assert (cursor.metrics["fragments"][0]["age"] is not None) is was_kept


def test_a_join_may_have_one_side_kept(connect: Connect, shop: Path) -> None:
    con = connect()
    sql = "SELECT l.amount, s.amount FROM lake.sale l JOIN shop.sale s ON l.id = s.id ORDER BY 1"
    assert answer(con, sql)[0] == [(10, 10), (20, 20)]
    with closing(sqlite3.connect(shop)) as database, database:
        database.execute("UPDATE sale SET amount = 7 WHERE id = 1")
    rows, kept = answer(con, sql)
    assert rows == [(10, 7), (20, 20)]
    assert sorted(kept) == [False, True]


def test_without_versions_nothing_is_kept(connect: Connect) -> None:
    con = connect()
    sql = "SELECT sum(amount) FROM shop.sale"
    assert [answer(con, sql) for _ in range(2)] == [([(30,)], [False])] * 2


def test_as_old_as_was_allowed_and_no_older(connect: Connect, shop: Path) -> None:
    con = connect({"result_ttl": 1.0})
    sql = "SELECT sum(amount) FROM shop.sale"
    started = time.monotonic()
    assert answer(con, sql) == ([(30,)], [False])
    with closing(sqlite3.connect(shop)) as database, database:
        database.execute("UPDATE sale SET amount = 0")
    rows, kept = answer(con, sql)
    if time.monotonic() - started < 1.0:
        assert (rows, kept) == ([(30,)], [True])
    time.sleep(1.1)
    assert answer(con, sql) == ([(0,)], [False])


@pytest.mark.parametrize("forget", ["refresh", "SET timezone = 'UTC'"])
def test_it_can_be_forgotten(connect: Connect, forget: str) -> None:
    con = connect()
    answer(con, SUM)
    con.refresh() if forget == "refresh" else con.execute(forget)
    assert answer(con, SUM) == ([(30,)], [False])


@pytest.mark.parametrize("most", [0, 1000])
def test_it_is_bounded(connect: Connect, lake: Path, most: int) -> None:
    append(lake, "many", id=list(range(10_000)))
    con = connect(result_cache=most)
    for _ in range(2):
        rows, kept = answer(con, "SELECT id FROM lake.many WHERE id >= 0")
        assert (len(rows), kept) == (10_000, [False])
    cache = con._session.results
    for i in range(50):
        answer(con, f"SELECT id FROM lake.many WHERE id = {i}")
        assert cache._kept.currsize <= most


def test_what_was_kept_costs_nothing(connect: Connect, shop: Path, tmp_path: Path) -> None:
    pricing = {"usd_per_gb_egress": 2.0}
    con = connect(
        {"result_ttl": 60, "pricing": pricing},
        cost={"warn_usd": 100, "stop_usd": 100, "history_file": str(tmp_path / "h.sqlite")},
    )
    sql = "SELECT sum(amount) FROM shop.sale"
    answer(con, sql)
    answer(con, sql)
    assert len(con.history()) == 1


def test_labels_are_checked_all_the_same(lake: Path, shop: Path) -> None:
    config: dict[str, Any] = {
        "sources": {
            "lake": {"kind": "delta", "path": str(lake), "labels": ["tier:sovereign"]},
            "shop": {"kind": "sqlite", "path": str(shop), "labels": ["origin:public"]},
        },
        "labels": {"on_public_into_sovereign": "stop"},
    }
    with closing(batuta_sql.connect(config)) as con:
        answer(con, SUM)
        answer(con, SUM)
        for _ in range(2):
            with pytest.raises(batuta_sql.LabelRefused):
                con.execute("SELECT * FROM lake.sale l JOIN shop.sale s ON l.id = s.id")


def test_a_block_as_it_is_uses_it_too(connect: Connect, lake: Path) -> None:
    con = connect()
    sql = "SELECT sum(amount) AS s FROM (FROM lake.sale) TABLESAMPLE 100%"
    first, again = answer(con, sql), answer(con, sql)
    assert first[0] == again[0] == [(30,)]
    append(lake, id=[9], amount=[1])
    assert answer(con, sql)[0] == [(31,)]
