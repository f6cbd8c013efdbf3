"""Where the columns of a query come from: data flow and control flow through the operators.

Each column of an operator has two sets of origins. ``direct``: what its value was computed from.
``indirect``: what chose, joined, grouped or ordered the rows that it was computed over. Each
operator also has the origins of its ``rows``: what decides which rows there are, how often and in
which order; they reach every column that is delivered. An origin is a column of a table, or a
table's rows as such (which ``count(*)`` sees without reading any column).

The analysis runs on the plan as bound, before any rewrite: rewrites keep the answer, and so what
it depends on. It never asks what a condition does, so it says too much rather than too little:
with every input outside of a column's origins held, the column cannot change (docs/security.md
names what is not counted as an answer: errors, time, the choice of rows by LIMIT without ORDER BY).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from sqlglot import exp

from batuta_sql.plan.relational import (
    Aggregate,
    Apply,
    Assignment,
    CommonScan,
    Distinct,
    Exchange,
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
    references,
)
from batuta_sql.plan.site import TableInfo


class Origin(NamedTuple):
    """A column of a table; without ``column``: which rows the table has.

    ``table`` is a source's name and the path inside it, or the one name of a local table.
    """

    table: tuple[str, ...]
    column: str | None = None

    def __str__(self) -> str:
        return ".".join(self.table if self.column is None else (*self.table, self.column))


Origins = frozenset[Origin]
NOTHING: Origins = frozenset()


@dataclass(frozen=True)
class Flow:
    """The origins of one column."""

    direct: Origins = NOTHING
    indirect: Origins = NOTHING

    @property
    def all(self) -> Origins:
        return self.direct | self.indirect


@dataclass(frozen=True)
class Lineage:
    """The origins of a query's columns, in their order, and of its rows."""

    columns: tuple[tuple[str, Flow], ...]
    rows: Origins = NOTHING

    @property
    def origins(self) -> Origins:
        """All that the answer depends on."""
        return self.rows.union(*(f.all for _, f in self.columns))


def lineage_of(
    plan: Relation,
    outputs: Iterable[tuple[str, str]],
    local_tables: Callable[[Expr], Iterable[tuple[str, ...]]],
) -> Lineage:
    """The lineage of a bound plan.

    :param outputs: name and symbol of each delivered column.
    :param local_tables: names of the local tables and registered frames that an expression of a
        LocalScan reads.
    """
    analysis = Analysis(local_tables)
    rows = analysis.rows(plan)
    columns = tuple((name, delivered(analysis.flow(symbol), rows)) for name, symbol in outputs)
    return Lineage(columns, rows)


def flows_of(
    plan: Relation, local_tables: Callable[[Expr], Iterable[tuple[str, ...]]]
) -> list[tuple[Relation, Flow]]:
    """For each operator of a plan what its output depends on: all its columns, and its rows."""
    analysis = Analysis(local_tables)
    analysis.rows(plan)
    found = []
    for node in plan.walk():
        rows = analysis.rows(node)
        flows = [analysis.flow(s) for s in node.symbols]
        direct = NOTHING.union(*(f.direct for f in flows))
        found.append((node, Flow(direct, rows.union(*(f.indirect for f in flows)))))
    return found


def everything_of(
    tables: Iterable[TableInfo], local: Iterable[tuple[tuple[str, ...], Iterable[str]]]
) -> Origins:
    """All columns and the rows of the given tables: the sound answer for a block not modelled."""
    found: set[Origin] = set()
    for table in tables:
        parts = table.qualified_parts
        found.add(Origin(parts))
        found.update(Origin(parts, c.name) for c in table.columns)
    for name, columns in local:
        found.add(Origin(name))
        found.update(Origin(name, c) for c in columns)
    return frozenset(found)


def delivered(flow: Flow, rows: Origins) -> Flow:
    """A column as it is delivered: what chose its rows is in ``indirect``.

    A table's rows as such are left out where a column of the same table is there directly: it
    says as much, and more.
    """
    seen = {o.table for o in flow.direct}
    indirect = flow.indirect | rows
    return Flow(
        flow.direct,
        frozenset(o for o in indirect if o.column is not None or o.table not in seen),
    )


class Analysis:
    """One walk over a plan. Symbols are unique in a query, so one table of flows serves it all."""

    def __init__(self, local_tables: Callable[[Expr], Iterable[tuple[str, ...]]]) -> None:
        self._flows: dict[str, Flow] = {}
        self._common: dict[str, Origins] = {}
        self._local_tables = local_tables

    def flow(self, symbol: str) -> Flow:
        return self._flows.get(symbol, Flow())

    def rows(self, node: Relation) -> Origins:
        """Enters the flows of the operator's columns and gives the origins of its rows."""
        match node:
            case Scan():
                parts = node.table.qualified_parts
                for symbol, column in node.columns:
                    self._flows[symbol] = Flow(frozenset({Origin(parts, column.name)}))
                return frozenset({Origin(parts)})
            case LocalScan():
                return self._local_scan(node)
            case OneRow():
                return NOTHING
            case Filter():
                rows = self.rows(node.input)
                return rows | self._touched(node.condition)
            case Project():
                rows = self.rows(node.input)
                self._enter(node.assignments)
                return rows
            case Join():
                rows = self.rows(node.left) | self.rows(node.right)
                return rows | self._touched(node.on)
            case Apply():
                return self._apply(node)
            case Aggregate():
                return self._aggregate(node)
            case Window():
                rows = self.rows(node.input)
                for symbol, function in node.functions:
                    self._flows[symbol] = self._of_window(function, rows)
                return rows
            case Distinct():
                rows = self.rows(node.input)
                if node.on:
                    return rows | self._touched(*node.on, *node.order)
                return rows | self._all_of(node.input.symbols)
            case Sort():
                return self.rows(node.input) | self._touched(*node.keys)
            case Limit():
                return self.rows(node.input) | self._touched(node.count, node.offset)
            case SetOperation():
                return self._set_operation(node)
            case With():
                self._common[node.name] = self.rows(node.definition)
                return self.rows(node.body)
            case CommonScan():
                for symbol, defined in node.columns:
                    self._flows[symbol] = self.flow(defined)
                return self._common.get(node.name, NOTHING)
            case Exchange():
                return self.rows(node.input)
        raise TypeError(f"no lineage through {type(node).__name__}")

    # --- leaves --------------------------------------------------------------------------------

    def _local_scan(self, node: LocalScan) -> Origins:
        names = list(self._local_tables(node.relation))
        by_name = isinstance(node.relation.this, exp.Identifier)
        if node.reason is None and len(names) == 1 and by_name:
            for symbol, column in node.columns:
                self._flows[symbol] = Flow(frozenset({Origin(names[0], column)}))
            return frozenset({Origin(names[0])})
        # A block of SQL: any column of the outcome may be made of any column that it reads.
        found = everything_of(node.tables, ((n, ("*",)) for n in names))
        for symbol, _ in node.columns:
            self._flows[symbol] = Flow(found, found)
        return found

    # --- operators -----------------------------------------------------------------------------

    def _apply(self, node: Apply) -> Origins:
        rows = self.rows(node.input)
        inner = self.rows(node.subquery)
        outputs = [self.flow(s) for s in node.subquery.symbols]
        direct = self._direct(*node.operands)
        indirect = inner | self._indirect(*node.operands)
        for flow in outputs if node.kind != "exists" else ():
            direct |= flow.direct
            indirect |= flow.indirect
        if node.kind == "exists":
            direct |= _tables_of(inner)
        self._flows[node.symbol] = Flow(direct, indirect)
        return rows

    def _aggregate(self, node: Aggregate) -> Origins:
        rows = self.rows(node.input)
        grouping = self._touched(*(e for _, e in node.keys))
        self._enter(node.keys)
        for symbol, function in node.aggregates:
            computed, chosen = roles(function)
            direct = self._direct_of(computed)
            if not computed:
                # count(*): its value is the number of the rows themselves.
                direct |= _tables_of(rows)
            indirect = self._indirect_of(computed) | self._all_of(chosen) | rows | grouping
            self._flows[symbol] = Flow(direct, indirect)
        return rows | grouping if node.keys else NOTHING

    def _of_window(self, function: Expr, rows: Origins) -> Flow:
        """Arguments are direct; what partitions, orders and filters the rows is indirect."""
        computed, chosen = roles(function)
        direct = self._direct_of(computed)
        if not computed:
            direct |= _tables_of(rows)
        return Flow(direct, self._indirect_of(computed) | self._all_of(chosen) | rows)

    def _set_operation(self, node: SetOperation) -> Origins:
        rows = self.rows(node.left) | self.rows(node.right)
        for symbol, left, right in node.columns:
            a, b = self.flow(left), self.flow(right)
            if node.kind == "UNION":
                self._flows[symbol] = Flow(a.direct | b.direct, a.indirect | b.indirect)
            else:
                # The values are those of the left side; the right side chooses among them.
                self._flows[symbol] = a
        if node.kind == "UNION" and node.all:
            return rows
        compared = [s for _, a, b in node.columns for s in (a, b)]
        return rows | self._all_of(compared)

    # --- expressions ---------------------------------------------------------------------------

    def _enter(self, assignments: Iterable[Assignment]) -> None:
        made = [(s, Flow(self._direct(e), self._indirect(e))) for s, e in assignments]
        self._flows.update(made)

    def _direct(self, *expressions: Expr | None) -> Origins:
        return self._direct_of(references(*expressions))

    def _indirect(self, *expressions: Expr | None) -> Origins:
        return self._indirect_of(references(*expressions))

    def _touched(self, *expressions: Expr | None) -> Origins:
        return self._all_of(references(*expressions))

    def _direct_of(self, symbols: Iterable[str]) -> Origins:
        return NOTHING.union(*(self.flow(s).direct for s in symbols))

    def _indirect_of(self, symbols: Iterable[str]) -> Origins:
        return NOTHING.union(*(self.flow(s).indirect for s in symbols))

    def _all_of(self, symbols: Iterable[str]) -> Origins:
        return NOTHING.union(*(self.flow(s).all for s in symbols))


def _tables_of(origins: Origins) -> Origins:
    return frozenset(o for o in origins if o.column is None)


def roles(function: Expr) -> tuple[frozenset[str], frozenset[str]]:
    """The symbols that a function's value is computed from, and those that only choose rows."""
    computed, chosen = set[str](), set[str]()
    for found in function.find_all(exp.Column):
        (chosen if _chooses(found, function) else computed).add(found.name)
    return frozenset(computed), frozenset(chosen)


def _chooses(node: Expr, function: Expr) -> bool:
    """Whether ``node`` stands where rows are chosen: FILTER, ORDER BY, PARTITION BY, a frame."""
    inner: Expr = node
    while inner is not function and inner.parent is not None:
        outer = inner.parent
        match outer:
            case exp.Filter() | exp.Window() if outer.this is not inner:
                return True
            case exp.WithinGroup():
                return False  # the order is what a percentile is taken of
            case exp.Order() if outer.this is not inner:
                # list(x ORDER BY y) is Order(x, [y]).
                return not isinstance(outer.parent, exp.WithinGroup)
        inner = outer
    return False


__all__ = [
    "Analysis",
    "Flow",
    "Lineage",
    "Origin",
    "Origins",
    "everything_of",
    "flows_of",
    "lineage_of",
    "roles",
]
