"""How many rows an operator will deliver, from what the sources know of their tables.

Rough on purpose: it has to tell a join that follows a key from one that multiplies. The formulas
are System R's (Selinger et al., 1979): independent predicates, and for an equi-join the product of
the inputs over the larger number of distinct values.
"""

from __future__ import annotations

import bisect
import datetime
import decimal
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlglot import exp

from batuta_sql.plan.relational import (
    Aggregate,
    Apply,
    Distinct,
    Expr,
    Filter,
    Join,
    Limit,
    LocalScan,
    OneRow,
    Project,
    Relation,
    Scan,
    SetOperation,
    Sort,
    Window,
    With,
    column,
    conjuncts,
    references,
)
from batuta_sql.plan.site import ColumnStatistics

DEFAULT_ROWS = 10_000.0
"""Rows of a table of which nothing is known."""

_LEAST_SHARE = 1e-4
"""A range outside of what the statistics know may still hold rows that came later."""

_SELECTIVITY = {"equal": 0.05, "range": 0.3, "like": 0.1, "other": 0.3}

_VALUES_OF_PART: dict[type[Expr], float] = {
    exp.Year: 10.0,
    exp.Quarter: 4.0,
    exp.Month: 12.0,
    exp.Week: 53.0,
    exp.Day: 31.0,
    exp.DayOfWeek: 7.0,
}
"""Of parts of dates, as they are mostly found in one table."""


@dataclass
class Cardinality:
    """Estimates for one plan; remembers each operator's."""

    _rows: dict[int, float] = field(default_factory=dict)
    _kept: list[Relation] = field(default_factory=list)

    def rows(self, node: Relation) -> float:
        """Estimated rows of an operator's output, at least 1."""
        known = self._rows.get(id(node))
        if known is None:
            known = max(1.0, self._estimate(node))
            self._rows[id(node)] = known
            self._kept.append(node)  # an id is only good while its object lives
        return known

    def multiplies(self, node: Join) -> bool:
        """Whether a join delivers clearly more rows than it reads."""
        if node.kind in ("SEMI", "ANTI"):
            return False
        if not equi_pairs(node):
            return True
        return self.rows(node) > 1.5 * (self.rows(node.left) + self.rows(node.right))

    def _estimate(self, node: Relation) -> float:
        match node:
            case Scan():
                known = node.table.statistics.rows
                return known if known is not None else DEFAULT_ROWS
            case LocalScan():
                return node.rows if node.rows is not None else DEFAULT_ROWS
            case OneRow():
                return 1.0
            case Filter():
                return self.rows(node.input) * self.share(conjuncts(node.condition), node.input)
            case Join():
                return self._join(node)
            case Aggregate():
                if not node.keys:
                    return 1.0
                return self._groups([key for _, key in node.keys], node.input)
            case Distinct():
                values = node.on or tuple(column(s) for s in node.input.symbols)
                return self._groups(values, node.input)
            case Limit():
                count = node.rows
                below = self.rows(node.input)
                return min(below, float(count)) if count is not None else below
            case SetOperation():
                return self.rows(node.left) + self.rows(node.right)
            case With():
                return self.rows(node.body)
            case Project() | Sort() | Window() | Apply():
                return self.rows(node.inputs[0])
        return self.rows(node.inputs[0]) if node.inputs else DEFAULT_ROWS

    def _join(self, node: Join) -> float:
        left, right = self.rows(node.left), self.rows(node.right)
        rows = left * right
        pairs = equi_pairs(node)
        if pairs:
            # Of several columns together: as many values as their product, but not more than rows.
            of_left = math.prod(self.distinct(a, node.left) for a, _ in pairs)
            of_right = math.prod(self.distinct(b, node.right) for _, b in pairs)
            rows /= max(min(of_left, left), min(of_right, right), 1.0)
        rows *= _SELECTIVITY["other"] ** (len(conjuncts(node.on)) - len(pairs))
        match node.kind:
            case "SEMI" | "ANTI":
                return min(left, left * right)
            case "LEFT" | "ASOF LEFT":
                return max(rows, left)
            case "RIGHT":
                return max(rows, right)
            case "FULL":
                return max(rows, left, right)
            case "ASOF":
                return left
        return rows

    def _selectivity(self, predicate: Expr, node: Relation) -> float:
        match predicate:
            case exp.Paren():
                return self._selectivity(predicate.this, node)
            case exp.And():
                return self.share(conjuncts(predicate), node)
            case exp.Or():
                # As if the branches excluded each other, which constants of one column do.
                branches = (predicate.this, predicate.expression)
                return min(1.0, sum(self.share(conjuncts(b), node) for b in branches))
            case exp.EQ(this=exp.Column() as column):
                if not references(predicate.expression):
                    return self._equal(column.name, predicate.expression, node)
                return _SELECTIVITY["equal"]
            case exp.In(this=exp.Column() as column) if predicate.expressions:
                shares = (self._equal(column.name, e, node) for e in predicate.expressions)
                return min(1.0, sum(shares))
            case exp.LT() | exp.LTE() | exp.GT() | exp.GTE() | exp.Between():
                return _SELECTIVITY["range"]
            case exp.Like():
                return 0.9 if predicate.args.get("negate") else _SELECTIVITY["like"]
            case exp.Not() | exp.NEQ():
                return 0.9
        return _SELECTIVITY["other"]

    def _equal(self, symbol: str, constant: Expr, node: Relation) -> float:
        """The share of rows in which a column has one value."""
        distinct = max(self.distinct(symbol, node), 1.0)
        known = statistics_of(node, symbol)
        if known is None or not known.common:
            return 1.0 / distinct
        for value, share in known.common:
            if _is_value(constant, value):
                return share
        others = 1.0 - (known.null_fraction or 0.0) - sum(s for _, s in known.common)
        return max(others / max(distinct - len(known.common), 1.0), _LEAST_SHARE / distinct)

    def share(self, predicates: list[Expr], node: Relation) -> float:
        """The share of rows for which all predicates are thought to hold.

        Bounds of one column belong together; of the values between the least and the greatest they
        leave a part, as a histogram says, or as if these were spread evenly.
        """
        share = 1.0
        bounds: dict[str, tuple[ColumnStatistics, _Range, _Range]] = {}
        for predicate in predicates:
            found = _range_of(predicate)
            known = statistics_of(node, found[0]) if found is not None else None
            whole = _Range.of(known) if known is not None else None
            if found is None or known is None or whole is None:
                share *= self._selectivity(predicate, node)
            else:
                name, range_ = found
                before = bounds[name][2] if name in bounds else whole
                bounds[name] = (known, whole, before.meet(range_))
        for known, whole, part in bounds.values():
            share *= _share_of(known, whole, part)
        return share

    def _groups(self, keys: Iterable[Expr], node: Relation) -> float:
        """Into how many groups the keys divide the rows of ``node``."""
        return min(math.prod(self._distinct_of(k, node) for k in keys), self.rows(node))

    def _distinct_of(self, key: Expr, node: Relation) -> float:
        if isinstance(key, exp.Column):
            return self.distinct(key.name, node)
        return _VALUES_OF_PART.get(type(key), max(1.0, float(self.rows(node) ** 0.5)))

    def distinct(self, symbol: str, node: Relation) -> float:
        """Estimated distinct values of a symbol, never more than the rows of ``node``."""
        rows = self.rows(node)
        for inner in node.walk():
            match inner:
                case Scan():
                    for s, column in inner.columns:
                        if s == symbol:
                            values = _distinct_in_table(inner, column.name)
                            return max(1.0, min(rows, _met(values, rows / self.rows(inner), inner)))
                case Aggregate() if len(inner.keys) == 1 and inner.keys[0][0] == symbol:
                    return rows
                case Aggregate() if isinstance(key := dict(inner.keys).get(symbol), exp.Column):
                    # Grouping leaves each value, in fewer rows.
                    return min(rows, self.distinct(key.name, inner.input))
                case Distinct() if symbol in inner.symbols:
                    return min(rows, self.distinct(symbol, inner.input))
                case Project():
                    for s, value in inner.assignments:
                        if s == symbol and isinstance(value, exp.Column) and value.name != symbol:
                            return min(rows, self.distinct(value.name, inner.input))
                case LocalScan(rows=float()) if any(s == symbol for s, _ in inner.columns):
                    # As many as there can be: a small frame is mostly a list of keys.
                    return rows
        return max(1.0, float(rows**0.8))


@dataclass(frozen=True)
class _Range:
    """Numbers between two bounds."""

    low: float
    high: float

    @classmethod
    def of(cls, known: ColumnStatistics) -> _Range | None:
        """All values of a column; None where that is not known."""
        low, high = _as_number(known.minimum), _as_number(known.maximum)
        return cls(low, high) if low is not None and high is not None and low < high else None

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def meet(self, other: _Range) -> _Range:
        return _Range(max(self.low, other.low), min(self.high, other.high))

    def share_of(self, part: _Range) -> float:
        inside = self.meet(part)
        return max((inside.high - inside.low) / (self.high - self.low), _LEAST_SHARE)


def _share_of(known: ColumnStatistics, whole: _Range, part: _Range) -> float:
    """The share of rows whose value lies in ``part``."""
    marks = [m for b in known.bounds if (m := _as_number(b)) is not None]
    common = [(v, s) for value, s in known.common if (v := _as_number(value)) is not None]
    inside = sum(s for v, s in common if part.holds(v))
    others = max(1.0 - (known.null_fraction or 0.0) - sum(s for _, s in common), 0.0)
    if len(marks) < 2:
        return max(inside + others * whole.share_of(part), _LEAST_SHARE)
    between = _place_among(marks, part.high) - _place_among(marks, part.low)
    return max(inside + others * between, _LEAST_SHARE)


def _place_among(marks: list[float], value: float) -> float:
    """Where a value stands among marks that divide all rows evenly: 0 to 1."""
    if value <= marks[0]:
        return 0.0
    if value >= marks[-1]:
        return 1.0
    at = bisect.bisect_right(marks, value) - 1
    low, high = marks[at], marks[at + 1]
    return (at + (value - low) / (high - low)) / (len(marks) - 1)


def _is_value(constant: Expr, value: object) -> bool:
    """Whether a constant of a query is a value of the statistics."""
    if isinstance(value, bool):
        return isinstance(constant, exp.Boolean) and constant.this is value
    if isinstance(value, str):
        while isinstance(constant, exp.Cast | exp.Paren):
            constant = constant.this
        return isinstance(constant, exp.Literal) and constant.is_string and constant.name == value
    number = _number(constant)
    return number is not None and number == _as_number(value)


def _range_of(predicate: Expr) -> tuple[str, _Range] | None:
    """A column and the range that a comparison with constants leaves of it."""
    low: float | None = -math.inf
    high: float | None = math.inf
    match predicate:
        case exp.Between(this=exp.Column() as column):
            low, high = _number(predicate.args["low"]), _number(predicate.args["high"])
        case exp.GTE(this=exp.Column() as column):
            low = _number(predicate.expression)
        case exp.LTE(this=exp.Column() as column):
            high = _number(predicate.expression)
        case exp.GT(this=exp.Column() as column):
            low = _number(predicate.expression)
            low = math.nextafter(low, math.inf) if low is not None else None
        case exp.LT(this=exp.Column() as column):
            high = _number(predicate.expression)
            high = math.nextafter(high, -math.inf) if high is not None else None
        case _:
            return None
    return (column.name, _Range(low, high)) if low is not None and high is not None else None


def statistics_of(node: Relation, symbol: str) -> ColumnStatistics | None:
    """What is known of the table's column that ``symbol`` is; None where it is none."""
    for inner in node.walk():
        if isinstance(inner, Scan):
            for s, column in inner.columns:
                if s == symbol:
                    return inner.table.statistics.columns.get(column.name)
    return None


def _number(literal: Expr) -> float | None:
    """A constant as a number: of a date or a timestamp the seconds since 1970."""
    match literal:
        case exp.Literal(is_string=False):
            return float(literal.name)
        case exp.Literal():
            return _as_number(_moment(literal.name))
        case exp.Neg():
            number = _number(literal.this)
            return -number if number is not None else None
        case exp.Cast() | exp.Paren():
            return _number(literal.this)
    return None


def _moment(text: str) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        return None


def _as_number(value: object) -> float | None:
    match value:
        case bool():
            return None
        case int() | float() | decimal.Decimal():
            number = float(value)
            return number if math.isfinite(number) else None
        case datetime.datetime():
            return value.replace(tzinfo=value.tzinfo or datetime.UTC).timestamp()
        case datetime.date():
            return float((value - datetime.date(1970, 1, 1)).days * 86400)
    return None


def times_off(expected: float, actual: float) -> float:
    """How many times too high or too low an estimate of rows was; 1 where it was right."""
    low, high = sorted((max(expected, 1.0), max(actual, 1.0)))
    return high / low


def equi_pairs(node: Join) -> list[tuple[str, str]]:
    """The pairs of a left and a right symbol that the join requires to be equal."""
    left, right = frozenset(node.left.symbols), frozenset(node.right.symbols)
    pairs: list[tuple[str, str]] = []
    for predicate in conjuncts(node.on):
        if not isinstance(predicate, exp.EQ):
            continue
        a, b = predicate.this, predicate.expression
        if isinstance(a, exp.Column) and isinstance(b, exp.Column):
            if a.name in left and b.name in right:
                pairs.append((a.name, b.name))
            elif b.name in left and a.name in right:
                pairs.append((b.name, a.name))
    return pairs


def _distinct_in_table(scan: Scan, name: str) -> float:
    statistics = scan.table.statistics
    rows = statistics.rows if statistics.rows is not None else DEFAULT_ROWS
    if any(key == (name,) for key in scan.table.keys):
        return rows
    known = _told_distinct(scan, name)
    return min(rows, max(known, _distinct_by_keys(scan, name, rows)))


def _met(values: float, share: float, scan: Scan) -> float:
    """How many of a column's values a share of the rows has, whatever chose them.

    Cardenas (Analysis and performance of inverted data base structures, 1975): a value of
    ``n`` rows is missed where all of them are.
    """
    rows = scan.table.statistics.rows
    if rows is None or share >= 1.0:
        return values
    return values * float(1.0 - (1.0 - share) ** max(rows / values, 1.0))


def _told_distinct(scan: Scan, name: str) -> float:
    """What the statistics say of a column alone."""
    statistics = scan.table.statistics
    rows = statistics.rows if statistics.rows is not None else DEFAULT_ROWS
    known = statistics.columns.get(name)
    if known is not None:
        if known.distinct is not None:
            return known.distinct
        spread = _spread(known.minimum, known.maximum)
        if spread is not None:
            return min(rows, spread)
    return float(rows**0.8)


def _distinct_by_keys(scan: Scan, name: str, rows: float) -> float:
    """The least that a column of a key has: with the key's others it must tell all rows apart.

    Samples see too few values of a column whose equal values lie together: of TPC-H's l_orderkey
    (1.5 million) PostgreSQL counts a tenth.
    """
    least = 1.0
    for key in scan.table.keys:
        if name in key:
            others = math.prod(_told_distinct(scan, other) for other in key if other != name)
            least = max(least, rows / max(others, 1.0))
    return least


def _spread(low: object, high: object) -> float | None:
    """How many values lie between two bounds of a discrete type: a bound for the distinct ones."""
    match low, high:
        case int() as least, int() as most:
            return float(most - least + 1)
        case datetime.datetime(), datetime.datetime():
            return None
        case datetime.date() as first, datetime.date() as last:
            return float((last - first).days + 1)
    return None
