"""Counts the key of a left join instead of another column: one column fewer is read.

``count(o.id)`` over ``c LEFT JOIN o ON c.id = o.customer`` counts the rows that have a match, where
``o.id`` is never NULL. So does ``count(o.customer)``, which the join needs anyway: a row that
matches by an equality has no NULL there.
"""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from batuta_sql.plan.cardinality import equi_pairs
from batuta_sql.plan.relational import (
    Aggregate,
    Expr,
    Filter,
    Join,
    Project,
    Relation,
    Scan,
    column,
    is_stable,
)
from batuta_sql.plan.rewrite import transform_up


def count_keys(plan: Relation) -> Relation:
    """``plan`` with each such count over a join's key."""
    return transform_up(plan, _rewrite)


def _rewrite(node: Relation) -> Relation:
    if not isinstance(node, Aggregate):
        return node
    below = node.input
    aggregates: list[tuple[str, Expr]] = []
    for symbol, call in node.aggregates:
        key = _key_of(below, call.this.name) if _counts_a_column(call) else None
        if key is not None:
            counted = call.copy()
            counted.set("this", column(key))
            call, below = counted, _showing(below, key)
        aggregates.append((symbol, call))
    if below is node.input and tuple(aggregates) == node.aggregates:
        return node
    return replace(node, input=below, aggregates=tuple(aggregates))


def _counts_a_column(call: Expr) -> bool:
    return (
        isinstance(call, exp.Count) and isinstance(call.this, exp.Column) and not call.expressions
    )


def _key_of(node: Relation, symbol: str) -> str | None:
    """The key of a left join below that is NULL exactly where ``symbol`` is."""
    match node:
        case Filter():
            return _key_of(node.input, symbol)
        case Project():
            value = dict(node.assignments)[symbol]
            passes = isinstance(value, exp.Column) and all(is_stable(e) for e in node.expressions)
            return _key_of(node.input, value.name) if passes else None
        case Join(kind="LEFT") if symbol in node.right.symbols and _is_never_null(
            node.right, symbol
        ):
            keys = [right for _, right in equi_pairs(node)]
            return keys[0] if keys and symbol not in keys else None
    return None


def _is_never_null(node: Relation, symbol: str) -> bool:
    match node:
        case Scan():
            return not dict(node.columns)[symbol].nullable
        case Filter():
            return _is_never_null(node.input, symbol)
        case Project():
            value = dict(node.assignments)[symbol]
            return isinstance(value, exp.Column) and _is_never_null(node.input, value.name)
    return False


def _showing(node: Relation, symbol: str) -> Relation:
    """``node`` with a symbol among its own that the join below it has."""
    if symbol in node.symbols:
        return node
    match node:
        case Filter():
            return replace(node, input=_showing(node.input, symbol))
        case Project():
            shown = (*node.assignments, (symbol, column(symbol)))
            return replace(node, input=_showing(node.input, symbol), assignments=shown)
    raise AssertionError("only what stands above the join hides its columns")
