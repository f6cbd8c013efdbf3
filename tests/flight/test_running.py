"""A running query by itself: what is left of it when it has ended."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batuta_sql.config import load_settings
from batuta_sql.flight.admission import Admission, DailyBudgets, Places
from batuta_sql.flight.connections import Connections
from batuta_sql.flight.running import Request, ResultStream, RunningQuery
from batuta_sql.flight.users import User
from tests.faults.conftest import eventually

LARGE = "SELECT n, repeat('x', 300) AS filler FROM duck.numbers"


@pytest.fixture
def connections(config: Path) -> Iterator[Connections]:
    with closing(Connections(load_settings(config), 2)) as found:
        yield found


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def begun(connections: Connections, sql: str) -> tuple[RunningQuery, ResultStream]:
    ended: list[Any] = []
    query = RunningQuery(
        Request(User("ann"), sql),
        connections,
        Admission(Places(1, 1, 0, 1.0)),
        DailyBudgets(),
        60.0,
        lambda *told: ended.append(told),
    )
    schema = query.begin(lambda: False)
    return query, ResultStream(query, schema, query.pieces(lambda: False))


def is_forgotten(query: weakref.ref[RunningQuery]) -> bool:
    return eventually(lambda: query() is None)


@pytest.mark.usefixtures("without_collector")
def test_one_that_is_given_up_holds_no_rows(connections: Connections) -> None:
    """Without waiting for the collector, which counts objects and not their bytes."""
    query, stream = begun(connections, LARGE)
    assert next(stream).read_all().num_rows > 0
    held = weakref.ref(query)
    del query, stream
    assert is_forgotten(held)


def test_a_connection_is_used_again(connections: Connections) -> None:
    user = User("ann")
    first = connections.take(user)
    connections.give_back(user, first)
    assert connections.take(user) is first
    other = connections.take(user)
    assert other is not first
    connections.give_back(user, first)
    assert connections.take(User("bo")) is not first
    for one in (first, other):
        one.close()


def test_connections_that_nobody_uses_are_few(connections: Connections) -> None:
    taken = [connections.take(User(name)) for name in ("ann", "bo", "cy")]
    for name, one in zip(("ann", "bo", "cy"), taken, strict=True):
        connections.give_back(User(name), one)
    assert [str(one).startswith("<batuta_sql.Connection closed") for one in taken] == [
        True,
        False,
        False,
    ]
