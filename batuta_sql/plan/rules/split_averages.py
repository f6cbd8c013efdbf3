"""``avg`` of exact numbers as a sum and a count, which sources compute exactly.

DuckDB divides the exact sum by the count in floating point; sources round in other ways. So the
division happens here, over what the source delivered.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from batuta_sql.plan.relational import (
    Aggregate,
    Assignment,
    Project,
    Relation,
    column,
)
from batuta_sql.plan.rewrite import transform_up


def split_averages(
    plan: Relation, wanted: Callable[[Aggregate], bool], fresh: Callable[[str], str]
) -> Relation:
    """``plan`` with ``avg`` split in each Aggregate that ``wanted`` chooses."""

    def split(node: Relation) -> Relation:
        if not isinstance(node, Aggregate) or not any(_is_average(e) for _, e in node.aggregates):
            return node
        if not wanted(node):
            return node
        return _split(node, fresh)

    return transform_up(plan, split)


def _is_average(call: exp.Expr) -> bool:
    inner = call.this if isinstance(call, exp.Filter) else call
    return isinstance(inner, exp.Avg) and not isinstance(inner.this, exp.Distinct)


def _split(node: Aggregate, fresh: Callable[[str], str]) -> Relation:
    calls: list[Assignment] = []
    known: dict[exp.Expr, str] = {}
    outputs: list[Assignment] = [(s, column(s)) for s, _ in node.keys]

    def add(call: exp.Expr, name: str) -> str:
        if call not in known:
            known[call] = fresh(name)
            calls.append((known[call], call))
        return known[call]

    for symbol, call in node.aggregates:
        if not _is_average(call):
            if call in known:
                outputs.append((symbol, column(known[call])))
            else:
                known[call] = symbol
                calls.append((symbol, call))
                outputs.append((symbol, column(symbol)))
            continue
        argument = (call.this if isinstance(call, exp.Filter) else call).this
        total = add(_wrapped_like(call, exp.Sum(this=argument.copy())), "sum")
        count = add(_wrapped_like(call, exp.Count(this=argument.copy(), big_int=True)), "count")
        outputs.append((symbol, quotient(column(total), column(count))))
    return Project(
        Aggregate(node.input, node.keys, tuple(calls), node.grouping_sets), tuple(outputs)
    )


def _wrapped_like(original: exp.Expr, call: exp.Expr) -> exp.Expr:
    if isinstance(original, exp.Filter):
        return exp.Filter(this=call, expression=original.expression.copy())
    return call


def quotient(total: exp.Expr, count: exp.Expr) -> exp.Expr:
    """sum / count as DOUBLE; NULL for no rows, as avg gives."""
    divisor = exp.Nullif(this=count, expression=exp.Literal.number(0))
    double = exp.DataType.build("DOUBLE")
    return exp.Div(
        this=exp.Cast(this=total, to=double),
        expression=exp.Cast(this=divisor, to=double.copy()),
    )
