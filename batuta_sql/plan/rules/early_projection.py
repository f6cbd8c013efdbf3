"""Expressions at their source, below joins, where they are narrower than what they are made of.

``SELECT count(*) FILTER (WHERE o.note LIKE '%late%') FROM a JOIN o ...`` needs of each row of ``o``
whether its note is like that: a truth value, not the note. Only expressions that cannot fail are
computed early, since it is for rows too that the join drops; and only on sides that the joins
above do not pad with NULLs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sqlglot import exp

from batuta_sql.plan.rates import FIELD_BYTES, fixed_width, row_bytes
from batuta_sql.plan.relational import (
    Aggregate,
    Expr,
    Filter,
    Join,
    Project,
    Relation,
    column,
    is_stable,
    references,
)
from batuta_sql.plan.rewrite import transform_up
from batuta_sql.plan.rules.eager_aggregation import Fresh, Judge, kept_sides
from batuta_sql.plan.rules.group_joins import sites
from batuta_sql.plan.site import LOCAL

_NEVER_FAIL = (
    exp.Column,
    exp.Identifier,
    exp.Literal,
    exp.Boolean,
    exp.Null,
    exp.Paren,
    exp.Not,
    exp.And,
    exp.Or,
    exp.EQ,
    exp.NEQ,
    exp.LT,
    exp.LTE,
    exp.GT,
    exp.GTE,
    exp.Between,
    exp.In,
    exp.Is,
    exp.Like,
    exp.Case,
    exp.If,
    exp.Coalesce,
    exp.Substring,
    exp.Length,
    exp.Year,
    exp.Quarter,
    exp.Month,
    exp.Day,
)


def early_projections(plan: Relation, judge: Judge, fresh: Fresh) -> Relation:
    """``plan`` with expressions computed at their sources where that makes rows narrower.

    :param fresh: makes a symbol that is unique in the query.
    """

    def rewrite(node: Relation) -> Relation:
        if not isinstance(node, Project | Aggregate) or len(sites(node)) < 2:
            return node
        for side in list(_sides(node.input)):
            node = _with_side(node, side, judge, fresh) or node
        return node

    return transform_up(plan, rewrite)


def _sides(node: Relation) -> Iterator[Relation]:
    """The relations of one source below joins and filters, whose rows are not padded."""
    home = sites(node)
    if len(home) == 1:
        if LOCAL not in home:
            yield node
        return
    match node:
        case Filter():
            yield from _sides(node.input)
        case Join():
            for side in kept_sides(node):
                yield from _sides(side)


def _with_side(
    node: Project | Aggregate, side: Relation, judge: Judge, fresh: Fresh
) -> Project | Aggregate | None:
    mine = frozenset(side.symbols)
    found = dict.fromkeys(e for whole in node.expressions for e in _computable(whole, mine))
    if not found:
        return None
    names = {e: fresh("early") for e in found}
    above = _replaced(node, names)
    needed = references(*above.expressions) | _read_between(node.input, side)
    kept = tuple((s, column(s)) for s in side.symbols if s in needed)
    early = Project(side, (*kept, *((n, e) for e, n in names.items())))
    gone = [s for s in side.symbols if s in references(*found) and s not in needed]
    added = sum(FIELD_BYTES + _width(e, judge.type_of(early, n)) for e, n in names.items())
    if not judge.narrows(side, row_bytes(side, gone) - added) or not judge.runs(early):
        return None
    return replace(above, input=_swapped(node.input, side, early))


def _computable(expression: Expr, mine: frozenset[str]) -> list[Expr]:
    """The largest parts of an expression over one side that can be computed there."""
    if isinstance(expression, exp.Column):
        return []
    read = references(expression)
    if read and read <= mine and _cannot_fail(expression):
        return [expression]
    return [e for part in expression.iter_expressions() for e in _computable(part, mine)]


def _cannot_fail(expression: Expr) -> bool:
    return is_stable(expression) and all(isinstance(n, _NEVER_FAIL) for n in expression.walk())


def _replaced(node: Project | Aggregate, names: dict[Expr, str]) -> Project | Aggregate:
    """``node`` over the columns that stand for its expressions."""

    def visit(part: Expr) -> Expr:
        return column(names[part]) if part in names else part

    def all_of(items: tuple[tuple[str, Expr], ...]) -> tuple[tuple[str, Expr], ...]:
        return tuple((s, e.copy().transform(visit, copy=False)) for s, e in items)

    match node:
        case Project():
            return replace(node, assignments=all_of(node.assignments))
        case Aggregate():
            return replace(node, keys=all_of(node.keys), aggregates=all_of(node.aggregates))


def _read_between(node: Relation, side: Relation) -> frozenset[str]:
    """The symbols that operators from ``node`` down to ``side`` read."""
    if node is side or not any(n is side for n in node.walk()):
        return frozenset()
    return references(*node.expressions).union(*(_read_between(i, side) for i in node.inputs))


def _swapped(node: Relation, side: Relation, new: Relation) -> Relation:
    if node is side:
        return new
    return node.with_inputs(*(_swapped(i, side, new) for i in node.inputs))


def _width(expression: Expr, type_: str | None) -> float:
    """Bytes of a value, at the most where that can be told."""
    if type_ != "VARCHAR":
        return fixed_width(type_)
    length = expression.args.get("length") if isinstance(expression, exp.Substring) else None
    if isinstance(length, exp.Literal) and length.name.isdigit():
        return float(length.name)
    return float("inf")
