"""Measures how fast a source and the way to it are, by small statements of its own making.

No table of the user is read. Each probe grows until it takes long enough to be told from noise, or
comes to its bound.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from batuta_sql.errors import NotSupportedError
from batuta_sql.plan.rates import Rates
from batuta_sql.profile import Measured
from batuta_sql.source_settings import SourceSettings
from batuta_sql.sources.base import FragmentQuery, Source

_LONG_ENOUGH = 0.25
_GROWTH = 4
_FIRST_ROWS = 20_000
_MOST_ROWS = 320_000
_VALUES = 4
_ROW_BYTES = 50
_WIDE_BYTES = 1024
_MOST_WIDE_ROWS = 32_768
_MOST_GROUPED_ROWS = 1_280_000
_HERE_ROWS = 4_000_000
_ROWS_OF_A_GROUP = 4
_REPEATS = 5

_DEGREES = (1, 2, 4, 8)
_NEARLY = 1.05
"""How much slower fewer connections may be: they leave more of the source to others."""

_TIMES = 2
"""How often each is tried: the quicker one counts."""

_DEGREE_ROWS = _MOST_ROWS // 2

MOST_BYTES = (
    2 * _MOST_ROWS + _TIMES * len(_DEGREES) * _DEGREE_ROWS
) * _ROW_BYTES + 2 * _MOST_WIDE_ROWS * _WIDE_BYTES
"""So many bytes come back at the most; each probe may run twice, once to grow to its last size."""


@dataclass(frozen=True)
class Probe:
    """Statements of one dialect; ``{rows}`` and ``{groups}`` are filled in.

    :param one: gives one row.
    :param narrow: gives ``{rows}`` rows of two integers, a date and a short text.
    :param wide: gives ``{rows}`` rows of one text of 1,024 bytes that does not compress well.
    :param grouped: groups ``{rows}`` rows into ``{groups}`` and gives one row.
    """

    one: str
    narrow: str
    wide: str
    grouped: str


PROBES: Mapping[str, Probe] = {
    "postgresql": Probe(
        one="SELECT 1 AS a",
        narrow="SELECT i AS a, CAST((i * 1.25) * 100 AS int8) AS b,"
        " DATE '2000-01-01' + i % 1000 AS c, 'text ' || i % 100 AS d"
        " FROM (SELECT generate_series(1, {rows}) AS i) AS s",
        wide="SELECT (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 32))"
        " || left(i::text, 0) AS a FROM generate_series(1, {rows}) AS t(i)",
        grouped="SELECT count(*) AS a FROM (SELECT i % {groups} FROM"
        " (SELECT generate_series(1, {rows}) AS i) AS s GROUP BY 1) AS g",
    )
}
"""By kind of source. Of the others nothing is measured."""


@dataclass(frozen=True)
class Proposal:
    """What measuring a source will take, said before it is asked anything.

    :param bytes: that come back at the most.
    :param usd: their price at the most; 0 where the source is free.
    """

    source: str
    bytes: int
    usd: float


@dataclass(frozen=True)
class Tuned:
    """What was measured of a source, and what was known of it before."""

    now: Measured
    before: Measured | None


def proposal(name: str, settings: SourceSettings) -> Proposal:
    """:raises NotSupportedError: for a kind of source that has no probe."""
    kind = str(getattr(settings, "kind", ""))
    if kind not in PROBES:
        raise NotSupportedError(
            f"there is no probe for sources of the kind {kind}",
            source=name,
            hint="kinds that can be measured: " + ", ".join(PROBES),
        )
    price = settings.pricing.usd_per_gb_egress or 0.0
    return Proposal(name, MOST_BYTES, MOST_BYTES / 1e9 * price)


def measure(
    source: Source, place: str, cursor: duckdb.DuckDBPyConnection, connections: int = 1
) -> Measured:
    """The rates of a source, now.

    :param cursor: of the residual engine.
    :param connections: how many may be used at once.
    :raises Error: what the source says instead.
    """
    probe = PROBES[source.kind]
    degrees = [d for d in _DEGREES if d <= min(connections, os.cpu_count() or 1)] or [1]
    snapshot = source.open(max(degrees))
    with closing(snapshot):

        def seconds(sql: str, type_: str, parts: tuple[str, ...] = ()) -> float:
            started = time.perf_counter()
            query = FragmentQuery(sql, (("a", type_),), parts=parts)
            with closing(snapshot.read(query)) as reader:
                for _ in reader:
                    pass
            return time.perf_counter() - started

        seconds(probe.one, "INTEGER")
        latency = statistics.median(seconds(probe.one, "INTEGER") for _ in range(_REPEATS))

        def rate(sql: str, type_: str, most: int, first: int = _FIRST_ROWS) -> float:
            return _rate(
                lambda n: seconds(sql.format(rows=n, groups=n // _ROWS_OF_A_GROUP), type_),
                latency,
                first,
                most,
            )

        def parts(degree: int) -> tuple[str, ...]:
            return (probe.narrow.format(rows=_DEGREE_ROWS // degree),) * degree

        taken = {
            d: min(seconds(parts(d)[0], "BIGINT", parts(d) if d > 1 else ()) for _ in range(_TIMES))
            for d in degrees
        }
        degree = _best(taken)
        rates = Rates(
            latency=latency,
            bytes_per_second=_WIDE_BYTES * rate(probe.wide, "VARCHAR", _MOST_WIDE_ROWS, 512),
            values_per_second=_VALUES * rate(probe.narrow, "BIGINT", _MOST_ROWS),
            grouped_per_second=rate(probe.grouped, "BIGINT", _MOST_GROUPED_ROWS),
            grouped_here_per_second=_grouped_here(cursor),
            degree=degree,
            parallel=max(taken[1] / taken[degree], 1.0),
        )
    return Measured.of(source.name, place, datetime.now(UTC), rates)


def _best(taken: Mapping[int, float]) -> int:
    """The least degree that takes hardly longer than the quickest."""
    return min(d for d, seconds in taken.items() if seconds <= min(taken.values()) * _NEARLY)


def _rate(seconds: Callable[[int], float], latency: float, first: int, most: int) -> float:
    """Rows a second beyond the latency."""
    rows = first
    while True:
        taken = seconds(rows) - latency
        if taken >= _LONG_ENOUGH or rows >= most:
            return rows / max(taken, 1e-4)
        rows = min(rows * _GROWTH, most)


def _grouped_here(cursor: duckdb.DuckDBPyConnection) -> float:
    groups = _HERE_ROWS // _ROWS_OF_A_GROUP
    sql = f"SELECT count(*) FROM (SELECT i % {groups} FROM range({_HERE_ROWS}) t(i) GROUP BY 1)"
    started = time.perf_counter()
    cursor.execute(sql).fetchall()
    return _HERE_ROWS / (time.perf_counter() - started)
