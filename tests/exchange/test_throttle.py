"""Sources with other users are read less: by half at a time, and up again by steps."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import adbc_driver_postgresql.dbapi
import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer
from batuta_sql.errors import OperationalError
from batuta_sql.exchange.throttle import Governor
from batuta_sql.sources.base import Load
from batuta_sql.sources.postgresql_load import ServerLoad
from batuta_sql.sources.refusals import Queue, Refusals

HEALTHY = Load()
BUSY = Load("busy", "2 other sessions are active")
OVERLOADED = Load("overloaded", "99 of 100 connections are taken")


@pytest.fixture
def governor() -> Iterator[Governor]:
    made = Governor("crm", None, 8)
    yield made
    made.close()


def levels(governor: Governor, *loads: Load) -> list[float]:
    found = []
    for load in loads:
        governor.hear(load)
        found.append(governor.state().level)
    return found


# --- the level ---------------------------------------------------------------------------------


def test_without_news_everything_may_be_read(governor: Governor) -> None:
    assert governor.readers == 8
    assert not governor.state().is_slowed
    assert governor.rest(10.0) == 0


def test_it_falls_by_half_and_rises_by_steps(governor: Governor) -> None:
    with governor.reading(8):
        assert levels(governor, BUSY, BUSY, BUSY) == [4, 2, 1]
        risen = levels(governor, *[HEALTHY] * 8)
        assert [b - a for a, b in pairwise([1.0, *risen])][:6] == [1.0] * 6
        assert risen[-1] == 8


def test_what_is_not_used_is_given_up_first(governor: Governor) -> None:
    with governor.reading(2):
        assert levels(governor, BUSY) == [1]


def test_a_source_that_is_overloaded_is_left_to_one_reader_at_most(governor: Governor) -> None:
    with governor.reading(8):
        assert levels(governor, OVERLOADED)[0] <= 1
        assert governor.readers == 1


def test_it_never_stops_altogether(governor: Governor) -> None:
    with governor.reading(8):
        floor = levels(governor, *[OVERLOADED] * 50)[-1]
        assert floor > 0
        assert governor.readers == 1
        assert levels(governor, HEALTHY)[0] > floor
        assert levels(governor, *[HEALTHY] * 100)[-1] == 8


def test_a_reader_rests_for_as_long_as_others_are_to_have(governor: Governor) -> None:
    with governor.reading(1):
        levels(governor, BUSY)
        # A level of a half: as long as it has worked.
        assert 0.19 <= governor.rest(0.2) < 1.0
        levels(governor, BUSY)
        assert 0.29 <= governor.rest(0.1) < 1.1


def test_a_rest_ends_when_nobody_waits_for_the_rows(governor: Governor) -> None:
    with governor.reading(1):
        levels(governor, BUSY, BUSY)
        assert governor.rest(100.0, lambda: True) < 0.5
        threading.Timer(0.2, governor.close).start()
        assert governor.rest(100.0) < 2


def test_a_rest_ends_when_the_others_are_gone(governor: Governor) -> None:
    with governor.reading(1):
        levels(governor, BUSY)
        threading.Timer(0.2, lambda: levels(governor, *[HEALTHY] * 20)).start()
        assert governor.rest(100.0) < 2


def test_changes_are_told_with_their_reason(
    governor: Governor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "batuta_sql.exchange.throttle"), governor.reading(8):
        levels(governor, HEALTHY, BUSY, BUSY, HEALTHY)
    first, second = (r.getMessage() for r in caplog.records)
    assert first == "crm is busy, slowed down to 4.0 of 8 readers: 2 other sessions are active"
    assert second == "crm is healthy, slowed down to 3.0 of 8 readers"


# --- looking -----------------------------------------------------------------------------------


def test_a_source_is_asked_only_while_it_is_read() -> None:
    asked: list[float] = []

    def load() -> Load:
        asked.append(time.monotonic())
        return HEALTHY

    governor = Governor("crm", load, 4)
    time.sleep(0.7)
    assert not asked
    with governor.reading():
        time.sleep(1.4)
    seen = len(asked)
    assert seen >= 2
    time.sleep(1.2)
    assert len(asked) == seen
    governor.close()


def test_a_source_that_cannot_be_asked_is_read_on() -> None:
    def load() -> Load:
        raise OperationalError("gone", source="crm")

    governor = Governor("crm", load, 4)
    with governor.reading():
        time.sleep(0.8)
        assert governor.readers == 4
    governor.close()


def test_services_that_ask_for_patience_are_busy_for_as_long() -> None:
    refusals = Refusals()
    refusals.note(500)
    assert refusals.load() == HEALTHY
    refusals.note(429, after=2.2)
    assert refusals.load() == Load("busy", "it answered 429 Too Many Requests")
    time.sleep(2.3)
    assert refusals.load() == HEALTHY


def test_a_queue_is_asked_for_now_and_then() -> None:
    waiting = iter([3, 0, None])
    queue = Queue(lambda: next(waiting), seconds=0.2)
    assert queue.load() == Load("busy", "3 statements wait in the warehouse's queue")
    assert queue.load() is None
    time.sleep(0.25)
    assert queue.load() == HEALTHY
    time.sleep(0.25)
    assert queue.load() is None


# --- PostgreSQL --------------------------------------------------------------------------------

CROWD = 16
"""Sessions: enough to be felt on a machine that is busy already."""

BUSY_WORK = "SELECT count(*) FROM generate_series(1, 1000) a, generate_series(1, 1000) b"
"""Over and over: a tenth of a second, so that the crowd can be told to go home."""


@pytest.fixture
def uri(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database("throttle") as uri:
        with (
            adbc_driver_postgresql.dbapi.connect(uri, autocommit=True) as server,
            server.cursor() as cursor,
        ):
            cursor.execute(
                "CREATE TABLE wide AS SELECT i AS id, repeat(md5(i::text), 8) AS filler"
                " FROM generate_series(1, 400000) i"
            )
            cursor.execute("ANALYZE")
        yield uri


@pytest.fixture
def load_of(uri: str) -> Iterator[Callable[[], Load]]:
    """What our source says of the server."""
    config = {"kind": "postgresql", "uri": uri, "locality": "local"}
    with batuta_sql.connect({"sources": {"crm": config}}) as connection:
        source: Any = connection._session.sources["crm"]
        connection.execute("SELECT count(*) FROM crm.wide").fetchall()
        yield source.load


class Crowd:
    """Sessions that keep a server's processors occupied."""

    def __init__(self, uri: str, many: int) -> None:
        self._stack = ExitStack()
        connect = adbc_driver_postgresql.dbapi.connect
        self._sessions = [
            self._stack.enter_context(connect(uri, autocommit=True)) for _ in range(many)
        ]
        self._threads = [threading.Thread(target=self._work, args=(s,)) for s in self._sessions]
        self._over = threading.Event()

    def _work(self, session: Any) -> None:
        with session.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
            while not self._over.is_set():
                cursor.execute(BUSY_WORK)
                cursor.fetchall()

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._stack.close()


def looks(load: Callable[[], Load], times: int) -> list[Load]:
    found = []
    for _ in range(times):
        found.append(load())
        time.sleep(0.1)
    return found


def first(load: Callable[[], Load], is_it: Callable[[Load], bool]) -> Load:
    """The first look of a kind."""
    until = time.monotonic() + 30
    while not is_it(found := load()):
        assert time.monotonic() < until, found
        time.sleep(0.1)
    return found


@pytest.mark.alone
def test_a_server_that_others_keep_busy_is_seen(uri: str, load_of: Callable[[], Load]) -> None:
    assert {found.health for found in looks(load_of, 5)} == {"healthy"}
    with Crowd(uri, CROWD):
        slowed = first(load_of, lambda found: found.health != "healthy")
    assert "other sessions are active" in slowed.reason
    # Two seconds after the last of them was active.
    first(load_of, lambda found: found == HEALTHY)


def test_it_is_no_matter_that_a_server_is_slow_where_nobody_else_is_there() -> None:
    """The rows of a look: milliseconds, active, hidden, connected, most, commits, lag."""
    took = iter([5.0, 5.0, *[50.0] * 10])
    load = ServerLoad(lambda sql: [(next(took), 0, 0, 3, 100, 7, None)], lambda: [1, 2, 3])
    assert {load.look() == HEALTHY for _ in range(12)} == {True}


@pytest.mark.parametrize(
    ("row", "health", "reason"),
    [
        ((5.0, 1, 0, 5, 100, 0, None), "healthy", ""),
        ((8.0, 1, 0, 5, 100, 0, None), "busy", "another session is active"),
        ((30.0, 2, 0, 5, 100, 0, None), "overloaded", "2 other sessions are active"),
        ((5.0, 0, 0, 95, 100, 0, None), "overloaded", "95 of 100 connections are taken"),
        ((5.0, 0, 0, 5, 100, 0, 90.0), "overloaded", "the replica is 90 s behind"),
        ((30.0, 0, 4, 5, 100, 0, None), "healthy", ""),
    ],
)
def test_what_is_thought_of_a_server(row: tuple[Any, ...], health: str, reason: str) -> None:
    rows = iter([(5.0, 0, 0, 5, 100, 0, None), *[row] * 8])
    load = ServerLoad(lambda sql: [next(rows)], lambda: [1])
    found = [load.look() for _ in range(9)][-1]
    assert found.health == health
    assert reason in found.reason


def test_sessions_that_may_not_be_seen_count_where_they_commit() -> None:
    commits = iter(range(0, 1000, 20))
    load = ServerLoad(lambda sql: [(9.0, 0, 4, 5, 100, next(commits), None)], lambda: [1])
    load._least = 5.0
    assert [load.look().health for _ in range(6)][-1] == "busy"


def test_the_least_time_is_forgotten_slowly() -> None:
    """A server that was made smaller is not busy for ever."""
    load = ServerLoad(lambda sql: [(10.0, 1, 0, 5, 100, 0, None)], lambda: [1])
    load._least = 5.0
    seen = [load.look().health for _ in range(3000)]
    assert seen[5] != "healthy"
    assert seen[-1] == "healthy"


# --- queries -----------------------------------------------------------------------------------


def beside_a_crowd(
    uri: str, most: int = 400_000, waits: float = 0.0, **settings: Any
) -> tuple[int, set[str], float]:
    """A query beside a crowd: its rows, what was said of the server, seconds rested.

    :param waits: seconds for which its reader, half-way through, waits for something to be said.
    """
    crm = {"kind": "postgresql", "uri": uri, "locality": "local", **settings}
    config = {"threads": 2, "cost": {"history": False}, "sources": {"crm": crm}}
    with batuta_sql.connect(config) as connection:
        connection.execute("SELECT count(*) FROM crm.wide").fetchall()
        # Other tests run beside this one: one of many looks is an undisturbed one.
        looks(connection._session.sources["crm"].load, 20)
        rows, slowed = 0, set()
        with Crowd(uri, CROWD):
            cursor = connection.execute(f"SELECT * FROM crm.wide WHERE id <= {most}")
            for number, batch in enumerate(cursor.fetch_record_batch()):
                rows += batch.num_rows
                if waits and number < SLOW_BATCHES:
                    time.sleep(0.2)
                until = time.monotonic() + waits
                while number == SLOW_BATCHES and not slowed and time.monotonic() < until:
                    slowed |= {str(s) for s in connection._session.slowed()}
                    time.sleep(0.05)
        (fragment,) = cursor.metrics["fragments"]
        return rows, slowed, fragment["rested"]


SLOW_BATCHES = 30
"""Of a megabyte: more than the seconds after which a query gives way, and less than the table
without what is read ahead."""


@pytest.mark.alone
def test_a_query_gives_way_and_says_so(uri: str) -> None:
    rows, slowed, rested = beside_a_crowd(uri, waits=60)
    assert rows == 400_000
    (said, *_) = slowed
    assert "crm is" in said
    assert "other sessions are active" in said
    assert rested > 0


@pytest.mark.alone
def test_unless_it_is_told_not_to(uri: str) -> None:
    rows, slowed, rested = beside_a_crowd(uri, waits=5, throttle=False)
    assert (rows, slowed, rested) == (400_000, set(), 0)


@pytest.mark.alone
def test_giving_way_is_no_reason_to_run_out_of_time(uri: str) -> None:
    """The server counts the time in which nothing is read of a statement."""
    rows, slowed, rested = beside_a_crowd(uri, waits=20, query_timeout=60.0)
    assert rows == 400_000
    assert slowed
    assert rested <= 60.0 * 0.25 + 6


@pytest.mark.alone
def test_a_query_that_is_soon_over_does_not(uri: str) -> None:
    """Somebody waits for it, and a server that is shared is busy often."""
    rows, slowed, rested = beside_a_crowd(uri, most=20_000)
    assert (rows, slowed, rested) == (20_000, set(), 0)
