"""Connections for queries: each running query has one for itself.

So the memory of its engine is limited, its money by the guard that every query passes,
and cancelling it ends nothing else. A connection keeps nothing of its query but what it knows of
the sources, and so serves users in turn.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batuta_sql.dbapi import Connection
from batuta_sql.errors import CostRefused
from batuta_sql.flight.users import User

if TYPE_CHECKING:
    from batuta_sql import Estimate
    from batuta_sql.config import Settings

_USUAL_LIMIT = "80%"
"""DuckDB's, of the machine's memory."""


def divided(limit: str | None, parts: int) -> str:
    """One part of a memory limit in DuckDB's notation."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(\S+)\s*", limit or _USUAL_LIMIT)
    assert found is not None, "the configuration has checked it"
    return f"{float(found[1]) / parts:.3f}{found[2]}"


class Confirmation:
    """Answers the question about cost in the place of a person: yes below the user's own limit,
    where the whole price is known.

    :param user: whose query runs.
    """

    def __init__(self, user: User) -> None:
        self.user = user

    def __call__(self, estimate: Estimate) -> bool:
        user = self.user
        # From max_cost_usd on the guard has refused already.
        if user.max_cost_usd is not None and not estimate.missing:
            return True
        key = user.setting("max_cost_usd", "--max-cost USD")
        hint = (
            f"read less; or an administrator allows it with {key}"
            if not estimate.missing
            else "give the source a price that can be told, or set cost.on_unknown"
        )
        raise CostRefused(
            "nobody is there to say that this may run, nothing was sent: "
            + "; ".join(estimate.reasons),
            hint=hint,
        )


@dataclass(frozen=True, eq=False)
class Lent:
    """A connection for one query.

    :param limit: in US dollars, above which its guard refuses.
    """

    connection: Connection
    confirmation: Confirmation
    limit: float | None


class Connections:
    """Connections that wait for a query are kept, so that the next one finds their catalog and
    their sources' connections ready.

    :param most: how many queries run at once; each has this part of the memory and the threads. So
        many connections wait at most, but at least one for each limit of cost.
    """

    def __init__(self, settings: Settings, most: int) -> None:
        threads = settings.threads or os.cpu_count() or 1
        self._settings = settings.model_copy(
            update={
                "memory_limit": divided(settings.memory_limit, most),
                "threads": max(1, threads // most),
                "result_cache": settings.result_cache // most,
            }
        )
        self._most = most
        self._lock = threading.Lock()
        self._idle: list[Lent] = []
        """The one that was used last is the last."""
        self._is_closed = False
        self.shared = Connection(self._settings)
        """For plans, schemas and names: nothing that bills is run on it."""

    @property
    def charges(self) -> bool:
        """Whether any source may cost something."""
        return any(s.charges for s in self._settings.sources.values())

    def take(self, user: User) -> Lent:
        """A connection with a user's limits, for one query."""
        cost = self._settings.cost
        limits = [v for v in (cost.max_cost_usd, user.max_cost_usd) if v is not None]
        limit = min(limits, default=None)
        with self._lock:
            for at in reversed(range(len(self._idle))):
                if self._idle[at].limit == limit:
                    lent = self._idle.pop(at)
                    lent.confirmation.user = user
                    return lent
        settings = self._settings.model_copy(
            update={"cost": cost.model_copy(update={"max_cost_usd": limit})}
        )
        confirmation = Confirmation(user)
        return Lent(Connection(settings, confirmation), confirmation, limit)

    def give_back(self, lent: Lent) -> None:
        """Keeps a connection for the next query with its limits."""
        with self._lock:
            unwanted = lent if self._is_closed else self._kept(lent)
        if unwanted is not None:
            with contextlib.suppress(Exception):
                unwanted.connection.close()

    def _kept(self, lent: Lent) -> Lent | None:
        """Keeps one, and gives what is one too many: of each limit the last one stays."""
        self._idle.append(lent)
        if len(self._idle) <= self._most:
            return None
        limits = Counter(one.limit for one in self._idle)
        spare = next((one for one in self._idle if limits[one.limit] > 1), None)
        if spare is not None:
            self._idle.remove(spare)
        return spare

    def close(self) -> None:
        """Closes those that wait; those that run are closed when they are given back."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in [lent.connection for lent in idle] + [self.shared]:
            with contextlib.suppress(Exception):
                connection.close()
