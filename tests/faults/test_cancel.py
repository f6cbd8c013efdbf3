"""Whoever stops wanting an answer stops the server's work for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import batuta_sql
from tests.faults.conftest import connect, eventually, usable

SLOW = "SELECT * FROM shop.public.slow"
MARK = '"public"."slow"'
Running = Callable[[str], int]


@pytest.fixture
def caught() -> list[BaseException]:
    return []


def in_background(work: Callable[[], Any], caught: list[BaseException]) -> threading.Thread:
    def run() -> None:
        try:
            work()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "sql",
    [
        SLOW,
        "SELECT count(*) AS n FROM shop.public.slow s JOIN local_keys k ON s.id = k.id",
        "SELECT * FROM (PIVOT shop.public.slow ON id % 3 USING count(nap))",
    ],
    ids=["streamed", "gathered", "fallback"],
)
def test_cancel_from_another_thread(
    big_uri: str, running: Running, caught: list[BaseException], sql: str
) -> None:
    with connect(big_uri) as connection:
        connection.register("local_keys", {"id": [1, 2, 3]})
        thread = in_background(lambda: connection.execute(sql).fetch_arrow_table(), caught)
        assert eventually(lambda: running(MARK) > 0)
        connection.cancel()
        thread.join(20)
        assert not thread.is_alive()
        assert [type(e) for e in caught] == [batuta_sql.QueryCancelled]
        assert eventually(lambda: running(MARK) == 0)
        assert usable(connection)


def test_closing_a_cursor_half_way(big_uri: str, running: Running) -> None:
    with connect(big_uri) as connection:
        cursor = connection.execute("SELECT id, filler FROM shop.public.big")
        assert len(next(iter(cursor.fetch_record_batch(1000)))) > 0
        cursor.close()
        assert eventually(lambda: running('"public"."big"') == 0)
        assert usable(connection)


def test_a_new_query_on_the_cursor_ends_the_old_one(big_uri: str, running: Running) -> None:
    with connect(big_uri) as connection:
        cursor = connection.execute("SELECT id, filler FROM shop.public.big")
        cursor.fetchmany(5)
        cursor.execute("SELECT 1 AS one")
        assert cursor.fetchall() == [(1,)]
        assert eventually(lambda: running('"public"."big"') == 0)


def test_a_stream_that_is_dropped_half_way(big_uri: str, running: Running) -> None:
    with connect(big_uri) as connection:
        cursor = connection.execute("SELECT id, filler FROM shop.public.big")
        reader = cursor.fetch_record_batch(1000)
        reader.read_next_batch()
        del reader
        cursor.close()
        assert eventually(lambda: running('"public"."big"') == 0)
        assert usable(connection)


def test_closing_the_connection_ends_its_queries(
    big_uri: str, running: Running, caught: list[BaseException]
) -> None:
    connection = connect(big_uri)
    thread = in_background(lambda: connection.execute(SLOW).fetch_arrow_table(), caught)
    assert eventually(lambda: running(MARK) > 0)
    connection.close()
    thread.join(20)
    assert not thread.is_alive()
    assert eventually(lambda: running(MARK) == 0)
    assert all(isinstance(e, batuta_sql.Error) for e in caught)
    assert len(caught) == 1


def test_an_error_at_one_source_ends_the_other_statements(
    big_uri: str, running: Running, caught: list[BaseException]
) -> None:
    failing = (
        "SELECT count(*) AS n FROM shop.public.slow s JOIN"
        " (SELECT id * 2000000000 AS id, random() AS r FROM shop.public.small) t"
        " ON s.id = t.id AND t.r < 2"
    )
    connection = connect(big_uri)
    thread = in_background(lambda: connection.execute(failing).fetch_arrow_table(), caught)
    thread.join(20)
    assert not thread.is_alive(), "the other statement was not ended"
    assert [type(e) for e in caught] == [batuta_sql.DataError]
    assert "out of range" in str(caught[0])
    assert eventually(lambda: running(MARK) == 0)
    assert usable(connection)
    connection.close()


def test_cancel_with_nothing_running(big_uri: str) -> None:
    with connect(big_uri) as connection:
        connection.cancel()
        assert usable(connection)
