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


def test_a_connection_is_used_again_by_others_too(connections: Connections) -> None:
    ann, bo = User("ann"), User("bo")
    first = connections.take(ann)
    other = connections.take(bo)
    assert other.connection is not first.connection
    connections.give_back(first)
    again = connections.take(bo)
    assert again.connection is first.connection
    # What is said about cost is said to the one who asks now.
    assert again.confirmation.user == bo
    for one in (again, other):
        one.connection.close()


def test_a_connection_is_not_used_under_other_limits(connections: Connections) -> None:
    first = connections.take(User("ann", max_cost_usd=1.0))
    connections.give_back(first)
    other = connections.take(User("bo"))
    assert other.connection is not first.connection
    assert connections.take(User("cy", max_cost_usd=1.0)).connection is first.connection
    for one in (first, other):
        one.connection.close()


def test_under_every_limit_one_waits(connections: Connections) -> None:
    """However many there are: a new one connects to its sources and asks for their catalogs."""
    users = [User(f"u{n}", max_cost_usd=n) for n in range(5)]
    taken = [connections.take(user) for user in users for _ in range(2)]
    for one in taken:
        connections.give_back(one)
    kept = {connections.take(user).connection for user in users}
    assert kept <= {one.connection for one in taken}
    for each in kept:
        each.close()


def test_connections_that_nobody_uses_are_few(connections: Connections) -> None:
    taken = [connections.take(User(name)) for name in ("ann", "bo", "cy")]
    for one in taken:
        connections.give_back(one)
    assert [str(one.connection).startswith("<batuta_sql.Connection closed") for one in taken] == [
        True,
        False,
        False,
    ]
