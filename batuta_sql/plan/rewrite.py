"""Ways to rebuild a plan: over its operators, over their expressions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from sqlglot import exp

from batuta_sql.plan.relational import (
    Aggregate,
    Apply,
    Distinct,
    Expr,
    Filter,
    Join,
    Project,
    Relation,
    Scan,
    Sort,
    Window,
)
from batuta_sql.plan.types import literal_type


def transform_up(relation: Relation, rewrite: Callable[[Relation], Relation]) -> Relation:
    """Rewrites the inputs of an operator, then the operator itself."""
    return rewrite(relation.with_inputs(*(transform_up(i, rewrite) for i in relation.inputs)))


def map_expressions(relation: Relation, change: Callable[[Expr], Expr]) -> Relation:
    """The operator with each of its own scalar expressions changed; inputs stay."""

    def pairs(items: tuple[tuple[str, Expr], ...]) -> tuple[tuple[str, Expr], ...]:
        return tuple((s, change(e)) for s, e in items)

    def keys(items: tuple[exp.Ordered, ...]) -> tuple[exp.Ordered, ...]:
        changed: list[exp.Ordered] = []
        for item in items:
            new = item.copy()
            new.set("this", change(item.this))
            changed.append(new)
        return tuple(changed)

    match relation:
        case Filter():
            return replace(relation, condition=change(relation.condition))
        case Project():
            return replace(relation, assignments=pairs(relation.assignments))
        case Join() if relation.on is not None:
            return replace(relation, on=change(relation.on))
        case Apply():
            return replace(relation, operands=tuple(change(e) for e in relation.operands))
        case Aggregate():
            return replace(
                relation, keys=pairs(relation.keys), aggregates=pairs(relation.aggregates)
            )
        case Window():
            return replace(relation, functions=pairs(relation.functions))
        case Distinct():
            return replace(
                relation, on=tuple(change(e) for e in relation.on), order=keys(relation.order)
            )
        case Sort():
            return replace(relation, keys=keys(relation.keys))
    return relation


def read_once(plan: Relation) -> Callable[[Relation], bool]:
    """Whether ``plan`` reads the tables of a relation in no other place."""
    uses = Counter(n.table.qualified_parts for n in plan.walk() if isinstance(n, Scan))

    def once(relation: Relation) -> bool:
        scans = [n for n in relation.walk() if isinstance(n, Scan)]
        return all(uses[n.table.qualified_parts] == 1 for n in scans)

    return once


def known_type(node: Relation, symbol: str) -> str | None:
    """The DuckDB type of a symbol that is a scanned column or a constant; None where not known."""
    for inner in node.walk():
        match inner:
            case Scan():
                for s, c in inner.columns:
                    if s == symbol:
                        return c.type
            case Project():
                for s, e in inner.assignments:
                    if s == symbol:
                        return _type_below(inner.input, e)
            case Aggregate():
                for s, e in inner.keys:
                    if s == symbol:
                        return _type_below(inner.input, e)
    return None


def _type_below(node: Relation, expression: Expr) -> str | None:
    match expression:
        case exp.Column():
            return known_type(node, expression.name)
        case exp.Literal():
            return "VARCHAR" if expression.is_string else literal_type(expression.name)
    return None
