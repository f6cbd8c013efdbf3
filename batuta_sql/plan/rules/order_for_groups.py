"""Asks for rows in the order of an index where they are grouped by what it begins with.

PostgreSQL groups by hash where it thinks that there are few groups, and writes to disk when they
turn out to be many. Samples show too few values of a column whose equal values lie together, as the
order's number does in a table of its lines, so that is just where it errs: TPC-H's Q18 at scale 1
takes 3.9 s by hash and 1.8 s over rows in order. An order in a subquery is one that it keeps.
"""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from batuta_sql.plan.cardinality import Cardinality
from batuta_sql.plan.relational import Aggregate, Filter, Project, Relation, Scan, Sort, column
from batuta_sql.plan.rewrite import transform_up
from batuta_sql.plan.types import is_integer

_MANY_GROUPS = 200_000
"""A hash table of fewer fits, or nearly, into what a server gives one operation."""

_IN_ORDER = 0.95
"""How the rows have to lie: read by an index in another order, a page would be read for each."""


def ordered_for_groups(plan: Relation) -> Relation:
    """A fragment with an order below each such aggregate."""
    if not any(isinstance(n, Aggregate) for n in plan.walk()):
        return plan
    cardinality = Cardinality()

    def rewrite(node: Relation) -> Relation:
        if not isinstance(node, Aggregate) or node.grouping_sets is not None or not node.keys:
            return node
        first = node.keys[0][1]
        if not isinstance(first, exp.Column) or not _leads_an_index(node.input, first.name):
            return node
        if cardinality.rows(node) < _MANY_GROUPS:
            return node
        key = exp.Ordered(this=column(first.name), desc=False, nulls_first=False)
        return replace(node, input=Sort(node.input, (key,)))

    return transform_up(plan, rewrite)


def _leads_an_index(node: Relation, symbol: str) -> bool:
    """Whether ``symbol`` is a number that a key begins with, of a table that lies in its order."""
    match node:
        case Filter():
            return _leads_an_index(node.input, symbol)
        case Project():
            value = dict(node.assignments)[symbol]
            return isinstance(value, exp.Column) and _leads_an_index(node.input, value.name)
        case Scan():
            info = dict(node.columns)[symbol]
            known = node.table.statistics.columns.get(info.name)
            return (
                is_integer(info.type)
                and any(key[0] == info.name for key in node.table.keys)
                and known is not None
                and (known.correlation or 0.0) >= _IN_ORDER
            )
    return False
