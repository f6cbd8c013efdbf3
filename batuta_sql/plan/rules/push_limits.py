"""Brings LIMIT and Top-N towards the scans: below projections as they are, elsewhere as a copy.

A limit may pass as it is only where nothing between drops, multiplies or reorders rows; a copy of
it, only where each row that is cut off has enough others before it in the answer.
"""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from batuta_sql.plan.relational import (
    Apply,
    Distinct,
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
from batuta_sql.plan.unparse import at_most_one_row


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
    """``node`` with a limit of its own somewhere below what keeps its rows and their order.

    Not below what may drop rows: filters, inner, semi- and anti-joins, INTERSECT, EXCEPT; nor
    where a row depends on others: windows, aggregates, both sides of a full join (a row whose only
    partner was cut off would be padded).
    """
    match node:
        case Project() if _row_wise(node) and (below := _keys_below(node, keys)) is not None:
            return replace(node, input=_top(node.input, rows, below))
        case SetOperation(kind="UNION", all=True):
            return _both_branches(node, rows, keys)
        case SetOperation(kind="UNION") | Distinct(on=()):
            return _distinct(node, rows, keys)
        case Join(kind="LEFT") if references(*keys) <= frozenset(node.left.symbols):
            # Each left row gives at least one row, in the left row's own place of the order.
            return replace(node, left=_top(node.left, rows, keys))
        case Join(kind="RIGHT") if references(*keys) <= frozenset(node.right.symbols):
            return replace(node, right=_top(node.right, rows, keys))
        case Join(kind="CROSS", on=None):
            return _both_factors(node, rows, keys)
        case Apply() if node.symbol not in references(*keys) and _cannot_fail(node):
            return replace(node, input=_top(node.input, rows, keys))
    return node


def _cannot_fail(node: Apply) -> bool:
    """Whether a subquery has no second row, which is an error even of a row that is cut off."""
    return node.kind != "scalar" or at_most_one_row(node.subquery)


def _both_branches(node: SetOperation, rows: int, keys: tuple[exp.Ordered, ...]) -> Relation:
    """UNION ALL of the first rows of each branch."""
    if keys and not _same_types(node):
        return node
    left = {s: column(a) for s, a, _ in node.columns}
    right = {s: column(b) for s, _, b in node.columns}
    return replace(
        node,
        left=_top(node.left, rows, _renamed(keys, left)),
        right=_top(node.right, rows, _renamed(keys, right)),
    )


def _same_types(node: SetOperation) -> bool:
    """Whether a union takes the values of its branches as they are.

    A cast could order them in another way, and make one value of two.
    """
    types = [(known_type(node.left, a), known_type(node.right, b)) for _, a, b in node.columns]
    return all(a is not None and a == b for a, b in types)


def _distinct(node: Relation, rows: int, keys: tuple[exp.Ordered, ...]) -> Relation:
    """A relation whose distinct rows are taken, with as many of them of each branch of a union.

    A branch that has more gives enough by itself. They have to be distinct before they are
    counted: a limit of all of its rows could be one row, again and again.
    """
    match node:
        case Distinct(on=()):
            return replace(node, input=_distinct(node.input, rows, keys))
        case Project() if _renames(node) and (below := _keys_below(node, keys)) is not None:
            return replace(node, input=_distinct(node.input, rows, below))
        case SetOperation(kind="UNION") if _same_types(node):
            branches = replace(node, left=_once(node.left), right=_once(node.right))
            return _both_branches(branches, rows, keys)
    return node


def _once(node: Relation) -> Relation:
    return node if isinstance(node, Distinct) and not node.on else Distinct(node)


def _renames(node: Project) -> bool:
    """Whether a projection has each column of its input, and nothing else."""
    values = [e.name if isinstance(e, exp.Column) else None for e in node.expressions]
    return sorted(values, key=str) == sorted(node.input.symbols)


def _both_factors(node: Join, rows: int, keys: tuple[exp.Ordered, ...]) -> Relation:
    """A product of the first rows of each side.

    A row that is cut off has ``rows`` others of its side before it or beside it. With any row of
    the other side these come no later than it does, however the keys of both sides alternate; if
    there is none, there is nothing to be had.
    """
    left, right = frozenset(node.left.symbols), frozenset(node.right.symbols)
    of_left = tuple(k for k in keys if references(k) <= left)
    of_right = tuple(k for k in keys if references(k) and references(k) <= right)
    if len(of_left) + len(of_right) < len(keys):
        return node
    return replace(
        node, left=_top(node.left, rows, of_left), right=_top(node.right, rows, of_right)
    )


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
