"""How far running queries are."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from batuta_sql.exchange.fetch import Fetch
from batuta_sql.execution import Execution, FragmentRun

State = Literal["waiting", "running", "done"]


@dataclass(frozen=True)
class FragmentProgress:
    """How far one fragment of a running query is.

    :param tables: the names of the tables that it reads.
    :param rows: that have arrived.
    :param bytes: of Arrow memory, likewise.
    :param seconds: since it was sent.
    :param expected_rows: by the tables' statistics; None: not known.
    :param slowed: why it is read less than it could be; empty: it is not.
    """

    name: str
    source: str
    tables: tuple[str, ...]
    state: State
    rows: int
    bytes: int
    seconds: float
    expected_rows: float | None
    slowed: str = ""


def progress_of(executions: Iterable[Execution]) -> list[FragmentProgress]:
    """Of all fragments of running queries."""
    return [one for e in executions for one in _fragments(e)]


def _fragments(execution: Execution) -> list[FragmentProgress]:
    slowed = {s.source: str(s) for s in execution.session.slowed()}
    fetches: dict[str, list[Fetch]] = {}
    for fetch in list(execution.fetches):
        fetches.setdefault(fetch.fragment.name, []).append(fetch)
    return [
        _fragment(run, fetches.get(run.fragment.name, ()), slowed.get(run.fragment.source, ""))
        for run in execution.runs
        if run.fragment.name not in execution.not_fetched
    ]


def _fragment(run: FragmentRun, fetches: Sequence[Fetch], slowed: str) -> FragmentProgress:
    fragment, now = run.fragment, time.monotonic()
    is_done = bool(fetches) and all(f.metrics.finished for f in fetches)
    taken = [f.metrics.seconds or now - f.started for f in fetches]
    return FragmentProgress(
        fragment.name,
        fragment.source,
        tuple(".".join(t.path) for t in fragment.tables),
        "done" if is_done else "running" if fetches else "waiting",
        sum(f.metrics.rows for f in fetches),
        sum(f.metrics.bytes for f in fetches),
        max(taken, default=0.0),
        fragment.rows,
        "" if is_done else slowed,
    )
