"""Which queries run now, which wait, which are refused: for places, and for a day's money."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from batuta_sql.errors import CostRefused, OperationalError, QueryCancelled
from batuta_sql.flight.users import User
from batuta_sql.units import dollars

if TYPE_CHECKING:
    from batuta_sql import Estimate

_LOOK_SECONDS = 0.1
"""How often one that waits looks whether its client is still there."""


class Busy(OperationalError):
    """There was no place for a query; nothing of it was sent."""


@dataclass(frozen=True)
class Places:
    """How many queries run at once, how many wait, and how long (seconds)."""

    most: int
    most_of_a_user: int
    queue_length: int
    queue_seconds: float


class _Waiting:
    def __init__(self) -> None:
        self.is_admitted = False


class Admission:
    """Gives places to queries; those that wait get theirs in turns, a user after the other."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self._changed = threading.Condition()
        self._running: Counter[str] = Counter()
        self._queues: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        """By user; the first user's turn is next."""
        self._is_closed = False

    def enter(self, user: str, is_gone: Callable[[], bool]) -> None:
        """Waits for a place, which ``leave`` gives back.

        :param is_gone: whether the client has given up.
        :raises Busy: where the queue is full, or no place was free in time.
        :raises QueryCancelled: where the client has given up, or the server ends.
        """
        mine = _Waiting()
        ends = time.monotonic() + self.places.queue_seconds
        with self._changed:
            self._queues.setdefault(user, deque()).append(mine)
            self._admit()
            if not mine.is_admitted and self._waiting() > self.places.queue_length:
                self._forget(user, mine)
                raise self._busy("the queue is full")
            while not self._changed.wait_for(lambda: mine.is_admitted, _LOOK_SECONDS):
                if self._is_closed or is_gone():
                    self._forget(user, mine)
                    raise QueryCancelled("the query was cancelled while it waited for its turn")
                if time.monotonic() > ends:
                    self._forget(user, mine)
                    raise self._busy(f"none was free in {self.places.queue_seconds:g} s")

    def leave(self, user: str) -> None:
        """Gives a place back."""
        with self._changed:
            self._running[user] -= 1
            if not self._running[user]:
                del self._running[user]
            self._admit()
            self._changed.notify_all()

    def close(self) -> None:
        """Sends away all who wait."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _admit(self) -> None:
        """Gives the free places, by turns."""
        while self._running.total() < self.places.most:
            user = next(
                (u for u in self._queues if self._running[u] < self.places.most_of_a_user), None
            )
            if user is None:
                return
            self._queues[user].popleft().is_admitted = True
            self._running[user] += 1
            self._queues.move_to_end(user)
            if not self._queues[user]:
                del self._queues[user]
            self._changed.notify_all()

    def _forget(self, user: str, waiting: _Waiting) -> None:
        queue = self._queues[user]
        queue.remove(waiting)
        if not queue:
            del self._queues[user]

    def _waiting(self) -> int:
        return sum(len(q) for q in self._queues.values())

    def _busy(self, why: str) -> Busy:
        places = self.places
        return Busy(
            f"there is no place for the query, nothing was sent: {why}; {self._running.total()} of"
            f" at most {places.most} run ({places.most_of_a_user} of one user), and"
            f" {self._waiting()} of at most {places.queue_length} wait",
            hint="try again in a moment; an administrator may raise serve.max_queries,"
            " serve.queue_length or serve.queue_seconds",
        )


class DailyBudgets:
    """What each user's queries of the day were estimated to cost; in memory, gone with the server.

    :param today: the date in UTC.
    """

    def __init__(self, today: Callable[[], date] = lambda: datetime.now(UTC).date()) -> None:
        self._today = today
        self._day = today()
        self._spent: dict[str, float] = {}
        self._lock = threading.Lock()

    def reserve(self, user: User, estimate: Estimate) -> float:
        """Counts a query that is about to run; gives what was counted, in US dollars.

        :raises CostRefused: where the day's budget does not hold it, or its price is not known.
        """
        limit = user.budget_usd_per_day
        if limit is None:
            return 0.0
        if estimate.missing:
            raise CostRefused(
                f"refused, nothing was sent: the cost is not known (missing:"
                f" {', '.join(estimate.missing)}), so the day's budget of {dollars(limit)} cannot"
                " be kept",
                hint="give the source a price that can be told",
            )
        usd = estimate.usd or 0.0
        with self._lock:
            self._begin_day()
            spent = self._spent.get(user.name, 0.0)
            if usd and spent + usd > limit:
                raise CostRefused(
                    f"refused, nothing was sent: the estimated cost of {dollars(usd)} and the"
                    f" {dollars(spent)} of today pass the day's budget of {dollars(limit)}",
                    hint="read less, or wait for the next day (UTC); an administrator may raise"
                    f" serve.users.{user.name}.budget_usd_per_day",
                )
            self._spent[user.name] = spent + usd
        return usd

    def give_back(self, user: User, usd: float) -> None:
        """Of a query that was refused after all."""
        with self._lock:
            self._begin_day()
            self._spent[user.name] = max(0.0, self._spent.get(user.name, 0.0) - usd)

    def _begin_day(self) -> None:
        if self._today() != self._day:
            self._day = self._today()
            self._spent.clear()
