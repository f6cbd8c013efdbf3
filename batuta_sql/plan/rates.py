"""How fast a source and the way to it are, and what that makes of a plan: seconds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlglot import exp

from batuta_sql.plan.cardinality import Cardinality, equi_pairs, statistics_of
from batuta_sql.plan.relational import (
    Aggregate,
    Distinct,
    Filter,
    Join,
    Project,
    Relation,
    Scan,
    conjuncts,
    references,
)
from batuta_sql.plan.rewrite import known_type

_WIDTHS = {"BOOLEAN": 1, "SMALLINT": 2, "INTEGER": 4, "DATE": 4, "FLOAT": 4, "UUID": 16}
_TEXT_WIDTH = 16.0
_NUMBER_WIDTH = 8.0
FIELD_BYTES = 4.0
"""What goes before each value in PostgreSQL's binary COPY; others are much alike."""

_FEW_GROUPS = 10_000
"""So many groups stay in a processor's cache, and in a source's memory for one operation."""

_FEW_TIMES = 6.0
"""How much faster a source groups into few groups than into many, roughly."""

_DISTINCT_TIMES = 0.5
"""How much slower where each group counts distinct values: rows are sorted for that."""

_JOIN_TIMES = 2.5
"""How much faster it joins by hash than it groups, roughly."""


@dataclass(frozen=True)
class Rates:
    """What was measured of a source (``batuta_sql.tuning``).

    :param latency: seconds from a small statement to its answer.
    :param bytes_per_second: that arrive, of wide rows.
    :param values_per_second: that arrive, of rows of a few numbers, dates and short texts: the
        source's, the driver's and our work.
    :param grouped_per_second: rows that the source groups into about as many groups.
    :param degree: connections at once with which rows arrive soonest; None: not measured.
    :param parallel: how many times sooner they then arrive than with one.
    :param grouped_here_per_second: the same in the residual engine.
    """

    latency: float
    bytes_per_second: float
    values_per_second: float
    grouped_per_second: float
    grouped_here_per_second: float
    degree: int | None = None
    parallel: float = 1.0


ASSUMED = Rates(0.02, 25e6, 4e6, 1e6, 10e6)
"""Of a source that was not measured: a server in the next town, not too busy."""

_FAR_LONGER = 3.0


def moving_seconds(node: Relation, rates: Rates, cardinality: Cardinality) -> float:
    """After how long the rows that ``node`` is made of would long have been here.

    Whoever waits that long for a source's answer, and only then brings the rows, has lost no more
    than a few times what the better of the two would have taken (the ski-rental argument).
    """
    seconds = 0.0
    for scan in node.walk():
        if isinstance(scan, Scan):
            rows = cardinality.rows(scan)
            symbols = scan.symbols
            values, size = rows * len(symbols), rows * row_bytes(scan, symbols)
            seconds += max(values / rates.values_per_second, size / rates.bytes_per_second)
    return _FAR_LONGER * (rates.latency + seconds)


@dataclass
class SecondsOf:
    """Seconds that one source's part of a plan takes, at the source, on the way and here.

    What every placement has to do in the same way, reading the tables, is left out.
    """

    rates: Rates
    cardinality: Cardinality

    def pushed(self, node: Relation, needed: frozenset[str]) -> float:
        """The whole of ``node`` at the source, and its rows brought here.

        :param needed: the symbols that are read above.
        """
        return self._at_source(node) + self._delivery(node, needed)

    def split(self, node: Relation, needed: frozenset[str]) -> float:
        """``node`` itself here, and each input wherever that is quicker."""
        if isinstance(node, Join) and len(equi_pairs(node)) != len(conjuncts(node.on)):
            # What else a condition says may leave few rows, and tells a source where to look.
            return math.inf
        below = _needed_below(node, needed)
        return self._operator(node, self.rates.grouped_here_per_second) + sum(
            min(self.pushed(i, below), self.split(i, below)) if i.inputs else self.pushed(i, below)
            for i in node.inputs
        )

    def _delivery(self, node: Relation, needed: frozenset[str]) -> float:
        rows = self.cardinality.rows(node)
        symbols = [s for s in node.symbols if s in needed]
        size = rows * row_bytes(node, symbols)
        values = rows * max(len(symbols), 1)
        if is_parallel(node, rows):
            values /= self.rates.parallel
        return self.rates.latency + max(
            values / self.rates.values_per_second, size / self.rates.bytes_per_second
        )

    def _at_source(self, node: Relation) -> float:
        return sum(self._operator(n, self.rates.grouped_per_second) for n in node.walk())

    def _operator(self, node: Relation, grouped_per_second: float) -> float:
        """Seconds that one operator takes by itself."""
        match node:
            case Aggregate():
                rows, groups = self.cardinality.rows(node.input), self.cardinality.rows(node)
                times = _FEW_TIMES if groups < _FEW_GROUPS else 1.0
                if any(e.find(exp.Distinct) for _, e in node.aggregates):
                    times = _DISTINCT_TIMES
                return rows / (grouped_per_second * times)
            case Distinct():
                return self.cardinality.rows(node.input) / grouped_per_second
            case Join():
                rows = sum(self.cardinality.rows(i) for i in node.inputs)
                return rows / (grouped_per_second * _JOIN_TIMES)
        return 0.0


PARALLEL_ROWS = 100_000
_PARALLEL_BLOCKS = 2_000
"""16 MB: less is read sooner than another connection is made."""


def is_parallel(node: Relation, rows: float | None) -> bool:
    """Whether ``node`` reads one table that several connections should read at once."""
    return rows is not None and rows >= PARALLEL_ROWS and scans_large_table(node)


def scans_large_table(node: Relation) -> bool:
    """Whether ``node`` reads, row by row, one table of many blocks."""
    while isinstance(node, Project | Filter):
        node = node.input
    return isinstance(node, Scan) and sum(node.table.blocks) >= _PARALLEL_BLOCKS


def row_bytes(node: Relation, symbols: Iterable[str]) -> float:
    """Bytes that a row of some columns takes on the way, on average."""
    return sum(FIELD_BYTES + _width(node, s) for s in symbols)


def _needed_below(node: Relation, needed: frozenset[str]) -> frozenset[str]:
    """The symbols that ``node`` reads of its inputs."""
    match node:
        case Project():
            return references(*(e for s, e in node.assignments if s in needed))
        case Aggregate():
            return references(*node.expressions)
    return needed | references(*node.expressions)


def _width(node: Relation, symbol: str) -> float:
    """Bytes of a value, on average."""
    type_ = known_type(node, symbol)
    if type_ == "VARCHAR":
        known = statistics_of(node, symbol)
        return known.width if known is not None and known.width is not None else _TEXT_WIDTH
    return fixed_width(type_)


def fixed_width(type_: str | None) -> float:
    """Bytes of a value of a type that has one width, or of a number."""
    return float(_WIDTHS.get(type_ or "", _NUMBER_WIDTH))


RatesOf = Mapping[str, Rates]
"""By source; one that was never measured is not in it."""
