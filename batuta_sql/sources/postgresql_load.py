"""Whether a PostgreSQL server has other users, and how much slower it is for them.

The measure is time at the server itself: a small fixed piece of work, against the least time that
it ever took. That it takes longer matters only while others are there to notice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from batuta_sql.sources.base import Load

_WORK_ROWS = 20_000
"""Some milliseconds: long enough to be put aside by the server's scheduler, as others' work is."""

_BUSY_TIMES, _OVERLOADED_TIMES = 1.25, 2.0
_LEAST_GROWS = 1.0005
"""At each look: a server may have become another one."""

_FULL_SHARE = 0.9
_LAG_SECONDS = 30.0
_HIDDEN_COMMITS = 10
"""Between two looks, of sessions whose state the user may not see."""

# https://www.postgresql.org/docs/current/monitoring-stats.html
_LOOK = """
WITH work AS MATERIALIZED (SELECT sum(i) FROM generate_series(1, {rows}) i),
others AS MATERIALIZED (
  SELECT count(*) FILTER (WHERE state = 'active'
      OR state_change > clock_timestamp() - interval '2 seconds') AS active,
    count(*) FILTER (WHERE state IS NULL) AS hidden, count(*) AS connected
  FROM pg_stat_activity
  WHERE backend_type = 'client backend' AND pid <> ALL ('{{{mine}}}'::int[])
)
SELECT (extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000)::float8,
  active::int8, hidden::int8, connected::int8 + {count},
  current_setting('max_connections')::int8,
  (SELECT sum(xact_commit) FROM pg_stat_database)::int8,
  CASE WHEN pg_is_in_recovery() AND pg_last_wal_receive_lsn() <> pg_last_wal_replay_lsn()
    THEN extract(epoch FROM now() - pg_last_xact_replay_timestamp())::float8 END
FROM work CROSS JOIN others
"""


class ServerLoad:
    """What is seen of a server's load over time.

    :param rows: the rows of a small statement.
    :param mine: the process ids of our own connections.
    """

    def __init__(
        self, rows: Callable[[str], Sequence[tuple[Any, ...]]], mine: Callable[[], Sequence[int]]
    ) -> None:
        self._rows = rows
        self._mine = mine
        self._lock = threading.Lock()
        self._least: float | None = None
        self._times = 1.0
        self._commits: int | None = None

    def look(self) -> Load:
        """
        :raises Error: where the server cannot be asked.
        """
        mine = self._mine()
        listed = ",".join(map(str, mine))
        sql = _LOOK.format(rows=_WORK_ROWS, mine=listed, count=len(mine))
        ((took, active, hidden, connected, most, commits, lag),) = self._rows(sql)
        times = self._slower(took)
        others = active + (hidden if self._committed(commits) >= _HIDDEN_COMMITS else 0)
        if connected >= most * _FULL_SHARE:
            return Load("overloaded", f"{connected} of {most} connections are taken")
        if lag is not None and lag > _LAG_SECONDS:
            return Load("overloaded", f"the replica is {lag:.0f} s behind")
        if not others or times < _BUSY_TIMES:
            return Load()
        users = "another session is" if others == 1 else f"{others} other sessions are"
        reason = f"{users} active, and statements take {times:.1f} times as long"
        return Load("overloaded" if times >= _OVERLOADED_TIMES else "busy", reason)

    def _slower(self, took: float) -> float:
        """How many times as long as at best, of late."""
        with self._lock:
            least = took if self._least is None else min(self._least * _LEAST_GROWS, took)
            self._least = least
            self._times = (self._times + took / max(least, 0.01)) / 2
            return self._times

    def _committed(self, commits: int | None) -> int:
        """Transactions since the last look."""
        with self._lock:
            before, self._commits = self._commits, commits
        return (commits or 0) - before if before is not None else 0
