"""PEP 249, clause by clause, for a driver that reads.

The ``dbapi-compliance`` package creates and fills its tables through the driver, which a driver
that refuses writes cannot pass; its checks that apply to reading are here.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pytest

import batuta_sql
from tests.dbapi.conftest import BEERS

NAMES = "SELECT name FROM pub.beer ORDER BY name"


class TestModule:
    def test_globals(self) -> None:
        assert batuta_sql.apilevel == "2.0"
        assert batuta_sql.threadsafety == 2
        assert batuta_sql.paramstyle == "qmark"

    def test_exceptions_form_the_tree_of_the_pep(self) -> None:
        assert issubclass(batuta_sql.Warning, Exception)
        assert issubclass(batuta_sql.Error, Exception)
        assert issubclass(batuta_sql.InterfaceError, batuta_sql.Error)
        assert issubclass(batuta_sql.DatabaseError, batuta_sql.Error)
        for name in ("Data", "Operational", "Integrity", "Internal", "Programming", "NotSupported"):
            assert issubclass(getattr(batuta_sql, f"{name}Error"), batuta_sql.DatabaseError)

    def test_constructors(self) -> None:
        assert batuta_sql.Date(2024, 2, 29) == date(2024, 2, 29)
        assert batuta_sql.Time(1, 2, 3) == time(1, 2, 3)
        assert batuta_sql.Timestamp(2024, 2, 29, 1, 2, 3) == datetime(2024, 2, 29, 1, 2, 3)
        assert bytes(batuta_sql.Binary(b"\x00x")) == b"\x00x"
        ticks = 86400 * 365.0
        assert isinstance(batuta_sql.DateFromTicks(ticks), date)
        assert isinstance(batuta_sql.TimeFromTicks(ticks), time)
        assert isinstance(batuta_sql.TimestampFromTicks(ticks), datetime)


class TestConnection:
    def test_exceptions_are_attributes(self, connection: Any) -> None:
        for name in ("Warning", "Error", "InterfaceError", "DatabaseError", "ProgrammingError"):
            assert getattr(connection, name) is getattr(batuta_sql, name)

    def test_commit_and_rollback_have_nothing_to_do(self, connection: Any) -> None:
        connection.commit()
        with suppress(batuta_sql.NotSupportedError):
            connection.rollback()

    def test_nothing_works_after_close(self, config: dict[str, Any]) -> None:
        connection = batuta_sql.connect(config)
        cursor = connection.cursor()
        connection.close()
        with pytest.raises(batuta_sql.Error):
            connection.cursor()
        with pytest.raises(batuta_sql.Error):
            cursor.execute(NAMES)
        with pytest.raises(batuta_sql.Error):
            connection.commit()

    def test_is_a_context_manager_that_closes(self, config: dict[str, Any]) -> None:
        with batuta_sql.connect(config) as connection:
            assert connection.cursor() is not None
        with pytest.raises(batuta_sql.Error):
            connection.cursor()

    def test_may_be_shared_between_threads(self, connection: Any) -> None:
        start = threading.Barrier(4)

        def ask(number: int) -> list[Any]:
            start.wait(10)
            with closing(connection.cursor()) as cursor:
                cursor.execute("SELECT name FROM pub.beer WHERE id = ?", (number,))
                return list(cursor.fetchall())

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(ask, (1, 2, 3, 4)))
        assert answers == [[(name,)] for name in BEERS[:4]]


class TestCursor:
    def test_description(self, cursor: Any) -> None:
        assert cursor.description is None
        cursor.execute(
            "SELECT b.name, b.price, g.seen, g.raw, g.id AS number "
            "FROM pub.beer b JOIN crm.public.guest g ON g.beer = b.id"
        )
        assert [column[0] for column in cursor.description] == [
            *("name", "price", "seen", "raw", "number")
        ]
        assert all(len(column) == 7 for column in cursor.description)
        codes = [column[1] for column in cursor.description]
        assert codes[0] == batuta_sql.STRING
        assert codes[1] == batuta_sql.NUMBER
        assert codes[2] == batuta_sql.DATETIME
        assert codes[3] == batuta_sql.BINARY
        assert codes[4] == batuta_sql.NUMBER
        assert codes[0] != batuta_sql.NUMBER

    def test_description_is_there_for_no_rows(self, cursor: Any) -> None:
        cursor.execute("SELECT id FROM pub.beer WHERE false")
        assert [column[0] for column in cursor.description] == ["id"]
        assert cursor.fetchall() == []

    def test_rowcount_is_the_number_of_rows_or_unknown(self, cursor: Any) -> None:
        assert cursor.rowcount == -1
        cursor.execute(NAMES)
        assert cursor.rowcount in (-1, len(BEERS))

    def test_fetchone(self, cursor: Any) -> None:
        cursor.execute(NAMES)
        assert [cursor.fetchone()[0] for _ in BEERS] == list(BEERS)
        assert cursor.fetchone() is None
        assert cursor.fetchone() is None

    def test_fetchmany(self, cursor: Any) -> None:
        cursor.execute(NAMES)
        assert len(cursor.fetchmany()) == 1
        assert len(cursor.fetchmany(3)) == 3
        assert len(cursor.fetchmany(10)) == 1
        assert len(cursor.fetchmany(10)) == 0

    def test_fetchmany_takes_arraysize(self, cursor: Any) -> None:
        assert cursor.arraysize == 1
        cursor.arraysize = 4
        cursor.execute(NAMES)
        assert len(cursor.fetchmany()) == 4
        assert len(cursor.fetchmany()) == 1

    def test_fetchall(self, cursor: Any) -> None:
        cursor.execute(NAMES)
        assert [row[0] for row in cursor.fetchall()] == list(BEERS)
        assert cursor.fetchall() == []

    def test_fetches_mix(self, cursor: Any) -> None:
        cursor.execute(NAMES)
        rows = [cursor.fetchone(), *cursor.fetchmany(2), *cursor.fetchall()]
        assert [row[0] for row in rows] == list(BEERS)

    def test_iterates(self, cursor: Any) -> None:
        cursor.execute(NAMES)
        assert [name for (name,) in cursor] == list(BEERS)

    def test_a_new_query_replaces_the_old_result(self, cursor: Any) -> None:
        cursor.execute(NAMES)
        cursor.fetchone()
        cursor.execute("SELECT 42 AS answer")
        assert cursor.fetchall() == [(42,)]

    def test_fetch_without_a_query_is_an_error(self, cursor: Any) -> None:
        for fetch in (cursor.fetchone, cursor.fetchmany, cursor.fetchall):
            with pytest.raises(batuta_sql.Error):
                fetch()

    def test_a_failed_query_leaves_no_result_and_a_usable_cursor(self, cursor: Any) -> None:
        cursor.execute(NAMES)
        with pytest.raises(batuta_sql.Error):
            cursor.execute("SELECT nope FROM pub.beer")
        with pytest.raises(batuta_sql.Error):
            cursor.fetchall()
        cursor.execute("SELECT count(*) FROM pub.beer")
        assert cursor.fetchone() == (len(BEERS),)

    def test_nothing_works_after_close(self, connection: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(NAMES)
        cursor.close()
        with pytest.raises(batuta_sql.Error):
            cursor.fetchone()
        with pytest.raises(batuta_sql.Error):
            cursor.execute(NAMES)

    def test_is_a_context_manager_that_closes(self, connection: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(NAMES)
        with pytest.raises(batuta_sql.Error):
            cursor.fetchone()

    def test_cursors_are_independent(self, connection: Any) -> None:
        one, other = connection.cursor(), connection.cursor()
        one.execute(NAMES)
        other.execute("SELECT 1 AS a")
        assert one.fetchone() == (BEERS[0],)
        assert other.fetchall() == [(1,)]
        assert len(one.fetchall()) == len(BEERS) - 1

    def test_sizes_may_be_set(self, cursor: Any) -> None:
        cursor.setinputsizes((25,))
        cursor.setoutputsize(1000)
        cursor.setoutputsize(1000, 0)
        cursor.execute(NAMES)

    def test_optional_methods_are_absent_or_say_so(self, cursor: Any) -> None:
        for name, arguments in (("callproc", ("lower", ("FOO",))), ("nextset", ())):
            method = getattr(cursor, name, None)
            if method is not None:
                with pytest.raises(batuta_sql.NotSupportedError):
                    method(*arguments)

    def test_values_have_the_types_of_the_pep(self, cursor: Any) -> None:
        cursor.execute(
            "SELECT b.name, b.price, b.since, g.raw, g.ok, g.seen FROM pub.beer b "
            "JOIN crm.public.guest g ON g.beer = b.id WHERE g.id = 1"
        )
        name, price, since, raw, ok, seen = cursor.fetchone()
        assert name == BEERS[0]
        assert isinstance(price, Decimal)
        assert str(price) == "1.50"
        assert since == date(1901, 1, 31)
        assert bytes(raw) == b"\x00\xff"
        assert ok is True
        assert isinstance(seen, datetime)
        assert seen.utcoffset() is not None

    def test_null_is_none(self, cursor: Any) -> None:
        cursor.execute("SELECT name, beer, ok FROM crm.public.guest WHERE id = 3")
        assert cursor.fetchall() == [(None, None, None)]
