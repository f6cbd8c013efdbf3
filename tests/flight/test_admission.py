"""Who runs, who waits and in what order, who is sent away; and what each gets of the memory."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from batuta_sql import CostRefused, Estimate, QueryCancelled
from batuta_sql.flight import messages
from batuta_sql.flight.admission import Admission, Busy, DailyBudgets, Places
from batuta_sql.flight.connections import divided
from batuta_sql.flight.users import User
from tests.faults.conftest import eventually
from tests.flight.conftest import (
    ANN,
    BO,
    USERS,
    Raw,
    Server,
    client,
    fetched,
    naps,
    of_postgres,
    served,
)
from tests.flight.test_cancelling import NAP, Waiting


def admission(most: int, of_a_user: int, queue_length: int = 9, seconds: float = 30.0) -> Admission:
    return Admission(Places(most, of_a_user, queue_length, seconds))


def stays() -> bool:
    """A client that does not give up."""
    return False


class Queue:
    """Threads that wait for a place, one after the other, and the order in which they got one."""

    def __init__(self, admission: Admission) -> None:
        self.order: list[str] = []
        self._admission = admission
        self._threads: list[threading.Thread] = []

    def add(self, user: str) -> None:
        def wait() -> None:
            self._admission.enter(user, stays)
            self.order.append(user)

        before = self._admission._waiting()
        thread = threading.Thread(target=wait)
        self._threads.append(thread)
        thread.start()
        assert eventually(lambda: self._admission._waiting() > before or not thread.is_alive())

    def end(self) -> None:
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


# --- places --------------------------------------------------------------------------------------


def test_users_take_turns() -> None:
    gate = admission(1, 1)
    gate.enter("ann", stays)
    queue = Queue(gate)
    for user in ("ann", "ann", "ann", "bo", "cy", "bo"):
        queue.add(user)
    gate.leave("ann")
    for count in range(1, 7):
        assert eventually(lambda count=count: len(queue.order) == count)  # type: ignore[misc]
        gate.leave(queue.order[-1])
    queue.end()
    assert queue.order == ["ann", "bo", "cy", "ann", "bo", "ann"]


def test_one_user_leaves_room_for_others() -> None:
    gate = admission(2, 1)
    gate.enter("ann", stays)
    queue = Queue(gate)
    queue.add("ann")
    gate.enter("bo", stays)
    assert queue.order == []
    gate.leave("ann")
    queue.end()
    assert queue.order == ["ann"]


def test_a_full_queue_sends_away_at_once() -> None:
    gate = admission(1, 1, queue_length=1)
    gate.enter("ann", stays)
    queue = Queue(gate)
    queue.add("bo")
    with pytest.raises(Busy, match="the queue is full; 1 of at most 1 run") as caught:
        gate.enter("cy", stays)
    assert "nothing was sent" in str(caught.value)
    assert "serve.queue_length" in str(caught.value)
    gate.leave("ann")
    queue.end()
    gate.leave("bo")
    gate.enter("cy", stays)


def test_no_queue_at_all() -> None:
    gate = admission(1, 1, queue_length=0)
    gate.enter("ann", stays)
    with pytest.raises(Busy):
        gate.enter("bo", stays)
    gate.leave("ann")
    gate.enter("bo", stays)


def test_nobody_waits_for_ever() -> None:
    gate = admission(1, 1, seconds=0.2)
    gate.enter("ann", stays)
    with pytest.raises(Busy, match=r"none was free in 0\.2 s"):
        gate.enter("bo", stays)
    gate.leave("ann")
    gate.enter("bo", stays)


def test_who_gives_up_is_not_waited_for() -> None:
    gate = admission(1, 1)
    gate.enter("ann", stays)
    with pytest.raises(QueryCancelled, match="waited for its turn"):
        gate.enter("bo", lambda: True)
    gate.leave("ann")
    gate.enter("cy", stays)


def test_a_server_that_ends_sends_all_away() -> None:
    gate = admission(1, 1)
    gate.enter("ann", stays)
    waiting = Waiting(lambda: gate.enter("bo", stays))
    assert eventually(lambda: gate._waiting() == 1)
    gate.close()
    assert isinstance(waiting.end(), QueryCancelled)


# --- a day's money -------------------------------------------------------------------------------


def costing(usd: float | None, *missing: str) -> Estimate:
    return Estimate(usd=usd, priced=True, missing=missing)


def test_a_budget_is_kept_to_the_cent() -> None:
    budgets, ann = DailyBudgets(), User("ann", budget_usd_per_day=10.0)
    assert budgets.reserve(ann, costing(6.0)) == 6.0
    with pytest.raises(CostRefused, match=r"\$4\.50 and the \$6\.00 of today"):
        budgets.reserve(ann, costing(4.5))
    assert budgets.reserve(ann, costing(4.0)) == 4.0
    assert budgets.reserve(ann, costing(0.0)) == 0.0
    assert budgets.reserve(User("bo", budget_usd_per_day=10.0), costing(10.0)) == 10.0


def test_what_was_refused_after_all_is_given_back() -> None:
    budgets, ann = DailyBudgets(), User("ann", budget_usd_per_day=10.0)
    budgets.give_back(ann, budgets.reserve(ann, costing(8.0)))
    assert budgets.reserve(ann, costing(9.0)) == 9.0


def test_a_budget_begins_anew_each_day() -> None:
    day = [datetime.date(2026, 1, 1)]
    budgets, ann = DailyBudgets(lambda: day[0]), User("ann", budget_usd_per_day=10.0)
    budgets.reserve(ann, costing(10.0))
    day[0] = datetime.date(2026, 1, 2)
    assert budgets.reserve(ann, costing(10.0)) == 10.0


def test_what_is_not_known_cannot_be_counted() -> None:
    budgets, ann = DailyBudgets(), User("ann", budget_usd_per_day=10.0)
    with pytest.raises(CostRefused, match="warehouse_size"):
        budgets.reserve(ann, costing(1.0, "warehouse_size"))
    assert budgets.reserve(User("bo"), costing(None, "warehouse_size")) == 0.0


@pytest.mark.parametrize(
    ("limit", "part"),
    [("8GB", "2.000GB"), (" 1.5 GiB ", "0.375GiB"), ("60%", "15.000%"), (None, "20.000%")],
)
def test_memory_is_divided(limit: str | None, part: str) -> None:
    assert divided(limit, 4) == part


# --- the server ----------------------------------------------------------------------------------


def configured(folder: Path, uri: str, serve: str) -> Path:
    path = folder / "batuta.toml"
    path.write_text('memory_limit = "400MB"\n' + of_postgres(uri, f"[serve]\n{serve}\n{USERS}"))
    return path


def napping(server: Server, user: tuple[str, str], inside: ExitStack) -> tuple[Any, Waiting]:
    """A query that runs until its cursor is cancelled."""
    cursor = inside.enter_context(inside.enter_context(client(server, user)).cursor())
    return cursor, Waiting(lambda: cursor.execute(NAP).fetchall())


def test_two_users_at_once_and_a_third_query_that_is_sent_away(
    nap_uri: str, tmp_path: Path, is_napping: Callable[[], bool], postgres: Any
) -> None:
    path = configured(tmp_path, nap_uri, "max_queries = 2\nqueue_length = 0")
    with served(path, tmp_path) as server, ExitStack() as inside:
        running = [napping(server, user, inside) for user in (ANN, BO)]
        assert eventually(lambda: naps(postgres) == 2)
        with client(server, BO) as connection, pytest.raises(connection.Error) as caught:
            fetched(connection, "SELECT 42 AS answer")
        assert "Unavailable" in str(caught.value)
        assert "the queue is full; 2 of at most 2 run" in str(caught.value)
        for cursor, waiting in running:
            cursor.adbc_cancel()
            assert waiting.end() is not None
        assert eventually(lambda: not is_napping())
        with client(server, BO) as connection:
            assert eventually(lambda: answers(connection))


def answers(connection: Any) -> bool:
    """Whether there is a place again: a cancelled query gives its own back when it has ended."""
    try:
        return fetched(connection, "SELECT 42 AS answer") == [(42,)]
    except connection.Error:
        return False


def test_one_that_waits_is_served_when_a_place_is_free(
    nap_uri: str, tmp_path: Path, is_napping: Callable[[], bool]
) -> None:
    path = configured(tmp_path, nap_uri, "max_queries = 1")
    with served(path, tmp_path) as server, ExitStack() as inside:
        cursor, waiting = napping(server, ANN, inside)
        assert eventually(is_napping)
        connection = inside.enter_context(client(server, BO))
        found: list[Any] = []
        second = Waiting(lambda: found.extend(fetched(connection, "SELECT 42 AS answer")))
        cursor.adbc_cancel()
        assert waiting.end() is not None
        assert second.end() is None
        assert found == [(42,)]


def test_a_query_that_waits_can_be_cancelled(
    nap_uri: str, tmp_path: Path, is_napping: Callable[[], bool]
) -> None:
    path = configured(tmp_path, nap_uri, "max_queries = 1\nqueue_seconds = 600")
    with served(path, tmp_path) as server, ExitStack() as inside:
        cursor, running = napping(server, ANN, inside)
        assert eventually(is_napping)
        raw = inside.enter_context(closing(Raw(server, BO)))
        info = raw.query("SELECT 42 AS answer")
        waiting = Waiting(lambda: raw.get(info).read_all())
        request = messages.message("CancelFlightInfoRequest", info=info.serialize())
        (answer,) = raw.act("CancelFlightInfo", request.SerializeToString())
        assert messages.parsed("CancelFlightInfoResult", answer).status == messages.CANCELLED
        assert waiting.end() is not None
        assert is_napping()
        assert running.error is None
        cursor.adbc_cancel()
        assert running.end() is not None


def test_each_running_query_has_its_part_of_the_memory(nap_uri: str, tmp_path: Path) -> None:
    path = configured(tmp_path, nap_uri, "max_queries = 4")
    with served(path, tmp_path) as server, client(server) as connection:
        sql = "SELECT current_setting('memory_limit') AS m"
        assert fetched(connection, sql) == [("95.3 MiB",)]
        with pytest.raises(connection.Error, match="memory"):
            fetched(connection, "SELECT list(g ORDER BY g DESC) FROM range(40000000) r(g)")
        assert fetched(connection, "SELECT 42 AS answer") == [(42,)]
