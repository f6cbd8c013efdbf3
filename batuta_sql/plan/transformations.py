"""How a query's columns are made of their origins, in the words of OpenLineage.

``plan.lineage`` says which origins a column has; this says of the direct ones whether the value is
theirs as it was, computed or aggregated, and of the others which clauses they stand in. The words
are those of OpenLineage's column lineage facet:
https://openlineage.io/docs/spec/facets/dataset-facets/column_lineage_facet
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sqlglot import exp

from batuta_sql.plan.lineage import Analysis, Origin, roles
from batuta_sql.plan.relational import (
    Aggregate,
    Apply,
    CommonScan,
    Expr,
    Filter,
    Join,
    Project,
    Relation,
    SetOperation,
    Sort,
    Window,
    references,
)

Made = Literal["IDENTITY", "TRANSFORMATION", "AGGREGATION"]
Use = Literal["FILTER", "GROUP_BY", "JOIN", "SORT", "WINDOW"]

_ORDER: tuple[Made, ...] = ("IDENTITY", "TRANSFORMATION", "AGGREGATION")


@dataclass(frozen=True)
class Transformations:
    """How the columns of a query are made.

    :param made: for each delivered column, in their order, how its value is made of its direct
        origins; an origin is missing where that is not known (a block that is not modelled).
    :param uses: the clauses that an origin stands in, anywhere in the query; it says too much of a
        column that another column's clause does not reach.
    """

    made: tuple[Mapping[Origin, Made], ...] = ()
    uses: Mapping[Origin, frozenset[Use]] = field(default_factory=dict)


def transformations_of(
    plan: Relation,
    outputs: Iterable[tuple[str, str]],
    local_tables: Callable[[Expr], Iterable[tuple[str, ...]]],
) -> Transformations:
    """The transformations of a bound plan; the parameters are those of ``lineage_of``."""
    analysis = Analysis(local_tables)
    analysis.rows(plan)
    making = _Making(analysis, dict(_definitions(plan)))
    made = tuple(making.of(symbol) for _, symbol in outputs)
    return Transformations(made, _uses(plan, analysis))


# --- how values are made -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Definition:
    """The symbols that a symbol is computed from, and how."""

    symbols: frozenset[str]
    made: Made


def _definitions(plan: Relation) -> Iterator[tuple[str, _Definition]]:
    for node in plan.walk():
        match node:
            case Project():
                yield from ((s, _of_expression(e)) for s, e in node.assignments)
            case Aggregate():
                yield from ((s, _of_expression(e)) for s, e in node.keys)
                for symbol, function in node.aggregates:
                    yield symbol, _Definition(roles(function)[0], "AGGREGATION")
            case Window():
                for symbol, function in node.functions:
                    yield symbol, _Definition(roles(function)[0], "TRANSFORMATION")
            case SetOperation():
                for symbol, left, right in node.columns:
                    sides = {left, right} if node.kind == "UNION" else {left}
                    yield symbol, _Definition(frozenset(sides), "IDENTITY")
            case CommonScan():
                for symbol, defined in node.columns:
                    yield symbol, _Definition(frozenset({defined}), "IDENTITY")
            case Apply():
                inner = frozenset() if node.kind == "exists" else frozenset(node.subquery.symbols)
                symbols = inner | references(*node.operands)
                made: Made = "IDENTITY" if node.kind == "scalar" else "TRANSFORMATION"
                yield node.symbol, _Definition(symbols, made)


def _of_expression(expression: Expr) -> _Definition:
    made: Made = "IDENTITY" if isinstance(expression, exp.Column) else "TRANSFORMATION"
    return _Definition(frozenset(references(expression)), made)


class _Making:
    def __init__(self, analysis: Analysis, definitions: Mapping[str, _Definition]) -> None:
        self._analysis = analysis
        self._definitions = definitions
        self._known: dict[str, Mapping[Origin, Made]] = {}

    def of(self, symbol: str) -> Mapping[Origin, Made]:
        """How a symbol's value is made of each of its direct origins."""
        known = self._known.get(symbol)
        if known is None:
            self._known[symbol] = {}  # what a recursive query asks for while it is worked out
            known = self._known[symbol] = self._worked_out(symbol)
        return known

    def _worked_out(self, symbol: str) -> Mapping[Origin, Made]:
        direct = self._analysis.flow(symbol).direct
        definition = self._definitions.get(symbol)
        if definition is None:
            # A column of a table; of a block that is not modelled there are several.
            return dict.fromkeys(direct, "IDENTITY") if len(direct) == 1 else {}
        found: dict[Origin, Made] = {}
        for part in definition.symbols:
            for origin, made in self.of(part).items():
                found[origin] = _later(found.get(origin, made), _later(made, definition.made))
        if not definition.symbols:
            # count(*): made of the rows themselves.
            found = dict.fromkeys(direct, definition.made)
        return {o: m for o, m in found.items() if o in direct}


def _later(one: Made, other: Made) -> Made:
    return max(one, other, key=_ORDER.index)


# --- what chooses rows -------------------------------------------------------------------------


def _uses(plan: Relation, analysis: Analysis) -> Mapping[Origin, frozenset[Use]]:
    found: dict[Origin, set[Use]] = defaultdict(set)
    for symbols, use in _choices(plan):
        for symbol in symbols:
            for origin in analysis.flow(symbol).direct:
                found[origin].add(use)
    return {o: frozenset(uses) for o, uses in found.items()}


def _choices(plan: Relation) -> Iterator[tuple[Iterable[str], Use]]:
    """The symbols that choose, join, group or order rows."""
    for node in plan.walk():
        match node:
            case Filter():
                yield references(node.condition), "FILTER"
            case Join():
                yield references(node.on), "JOIN"
            case Aggregate():
                yield references(*(e for _, e in node.keys)), "GROUP_BY"
            case Sort():
                yield references(*node.keys), "SORT"
            case Window():
                for _, function in node.functions:
                    yield roles(function)[1], "WINDOW"
