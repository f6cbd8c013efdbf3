"""Brings LIMIT and Top-N towards the scans: below projections as they are, elsewhere as a copy.

A limit may pass only where nothing between drops, multiplies or reorders rows.
"""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from batuta_sql.plan.relational import (
    Join,
    Limit,
    Project,
    Relation,
    SetOperation,
    Sort,
    column,
    is_stable,
    references,
    substitute,
)
from batuta_sql.plan.rewrite import known_type


def push_limits(plan: Relation) -> Relation:
    """``plan`` with copies of its limits as low as they may go."""
    plan = plan.with_inputs(*(push_limits(i) for i in plan.inputs))
    if not isinstance(plan, Limit) or plan.rows is None:
        return plan
    inner = plan.input
    keys: tuple[exp.Ordered, ...] = inner.keys if isinstance(inner, Sort) else ()
    project = inner.input if isinstance(inner, Sort) else inner
    if isinstance(project, Project) and _row_wise(project):
        moved = _keys_below(project, keys)
        if moved is not None:
            # Whole, not as a copy: the rows are the same ones before and after a projection.
            below = Sort(project.input, moved) if moved else project.input
            return replace(project, input=push_limits(replace(plan, input=below)))
    if isinstance(inner, Sort):
        below = _limited(inner.input, plan.rows, keys)
        return replace(plan, input=replace(inner, input=below))
    return replace(plan, input=_limited(inner, plan.rows, ()))


def _limited(node: Relation, rows: int, keys: tuple[exp.Ordered, ...]) -> Relation:
    """``node`` with a limit of its own somewhere below its row-wise operators."""
    match node:
        case Project() if _row_wise(node) and (below := _keys_below(node, keys)) is not None:
            return replace(node, input=_top(node.input, rows, below))
        case SetOperation(kind="UNION", all=True):
            left = {s: column(a) for s, a, _ in node.columns}
            right = {s: column(b) for s, _, b in node.columns}
            if keys and not all(
                known_type(node.left, a) is not None
                and known_type(node.left, a) == known_type(node.right, b)
                for _, a, b in node.columns
            ):
                return node
            return replace(
                node,
                left=_top(node.left, rows, _renamed(keys, left)),
                right=_top(node.right, rows, _renamed(keys, right)),
            )
        case Join(kind="LEFT") if references(*keys) <= frozenset(node.left.symbols):
            # Each left row gives at least one row, in the left row's own place of the order.
            return replace(node, left=_top(node.left, rows, keys))
    return node


def _top(node: Relation, rows: int, keys: tuple[exp.Ordered, ...]) -> Relation:
    node = _limited(node, rows, keys)
    if isinstance(node, Limit) and node.rows is not None and node.rows <= rows and not keys:
        return node
    ordered = Sort(node, keys) if keys else node
    return Limit(ordered, exp.Literal.number(rows))


def _row_wise(node: Project) -> bool:
    return all(is_stable(e) for e in node.expressions)


def _keys_below(node: Project, keys: tuple[exp.Ordered, ...]) -> tuple[exp.Ordered, ...] | None:
    """The sort keys in terms of the input, where each is a plain column there."""
    values = dict(node.assignments)
    result: list[exp.Ordered] = []
    for key in keys:
        if not isinstance(key.this, exp.Column):
            return None
        value = values.get(key.this.name)
        if not isinstance(value, exp.Column):
            return None
        new = key.copy()
        new.set("this", value.copy())
        result.append(new)
    return tuple(result)


def _renamed(
    keys: tuple[exp.Ordered, ...], mapping: dict[str, exp.Column]
) -> tuple[exp.Ordered, ...]:
    renamed: list[exp.Ordered] = []
    for key in keys:
        new = key.copy()
        new.set("this", substitute(key.this, mapping.get))
        renamed.append(new)
    return tuple(renamed)
