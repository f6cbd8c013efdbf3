"""Whether an answer changes where its labels say that it cannot."""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

from batuta_sql import Connection
from tests.noninterference.world import Variation, for_sources, tables_in, under


@dataclass
class Tally:
    """What a run of checks found.

    :param checks: (column, variation) pairs in which the column does not carry the label: it must
        not change, and did not.
    :param carried: (column, label) pairs in which the column carries the label, of results that
        have rows: without any, nothing can be seen to matter. Those held directly, then the rest.
    :param idle: those in which no variation changed the column.
    :param failures: what changed and should not have.
    """

    queries: int = 0
    refused: int = 0
    checks: int = 0
    carried: list[int] = field(default_factory=lambda: [0, 0])
    idle: list[int] = field(default_factory=lambda: [0, 0])
    failures: list[str] = field(default_factory=list)


def check_query(
    sql: str,
    connection: Connection,
    world: duckdb.DuckDBPyConnection,
    variations: Sequence[Variation],
    tally: Tally,
) -> None:
    """Runs a query under each variation of its tables and compares."""
    try:
        first = rows_of(world, under(sql, None))
    except duckdb.Error:
        tally.refused += 1
        return
    found = [labels for _, labels in connection.plan(for_sources(sql)).result_labels.columns]
    width = len(first[0]) if first else 0
    if len(found) == 1:
        found *= max(width, 1)
    labels = [column.all for column in found]
    tally.queries += 1
    changed: dict[str, set[int]] = {}
    named = tables_in(sql)
    for variation in variations:
        if (variation.home, variation.table) not in named:
            continue
        try:
            second = rows_of(world, under(sql, variation))
        except duckdb.Error:
            continue  # an error is an answer of its own kind: docs/security.md
        free = [i for i, held in enumerate(labels) if variation.label not in held]
        if projected(first, free) != projected(second, free):
            tally.failures.append(
                f"{variation.label} changes column(s) {free}, which do not carry it"
                f" ({variation.name}):\n{for_sources(sql)}"
            )
        tally.checks += len(free)
        differing = changed.setdefault(variation.label, set())
        differing.update(i for i in range(width) if projected(first, [i]) != projected(second, [i]))
    for label, differing in changed.items() if first else ():
        for place, column in enumerate(found):
            if label in column.all:
                kind = 0 if label in column.direct else 1
                tally.carried[kind] += 1
                tally.idle[kind] += place not in differing


def rows_of(con: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(_plain(v) for v in row) for row in con.execute(sql).fetchall()]


def projected(rows: Sequence[tuple[Any, ...]], columns: Sequence[int]) -> Counter[tuple[Any, ...]]:
    """The rows cut down to some columns, as a multiset; nothing where there are no columns.

    Without columns nobody sees any row. A PIVOT may have lost a column.
    """
    if not columns:
        return Counter()
    return Counter(tuple(row[i] if i < len(row) else None for i in columns) for row in rows)


def _plain(value: Any) -> Any:
    """A value that compares as people see it: sums of doubles by nine digits, NaN with itself."""
    match value:
        case float() if math.isnan(value):
            return "NaN"
        case float():
            return float(f"{value:.9g}")
        case list():
            return tuple(_plain(v) for v in value)
        case dict():
            return tuple((k, _plain(v)) for k, v in value.items())
        case datetime.timedelta():
            return str(value)
    return value
