"""Turns subqueries in expressions into joins, where the rows and values stay the same.

EXISTS and IN that stand alone in a filter become semi-joins, NOT EXISTS an anti-join, and a
correlated scalar aggregate becomes a left join with the aggregate grouped by its correlation.
NOT IN stays: a NULL on either side makes it another question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from sqlglot import exp

from batuta_sql.plan.relational import (
    Aggregate,
    Apply,
    Assignment,
    Expr,
    Filter,
    Join,
    Project,
    Relation,
    column,
    conjunction,
    conjuncts,
    filtered,
    free_symbols,
    is_stable,
    references,
    substitute,
)
from batuta_sql.plan.rewrite import transform_up

Fresh = Callable[[str], str]


def decorrelate(plan: Relation, fresh: Fresh) -> Relation:
    """``plan`` with each subquery that allows it as a join.

    :param fresh: makes a symbol that is unique in the query.
    """
    uses = Counter(
        node.name
        for relation in plan.walk()
        for e in relation.expressions
        for node in e.find_all(exp.Column)
    )

    def rewrite(node: Relation) -> Relation:
        if isinstance(node, Filter):
            return _filter(node, uses)
        if isinstance(node, Apply) and node.kind == "scalar":
            return _scalar(node, fresh)
        return node

    return transform_up(plan, rewrite)


def _filter(node: Filter, uses: Counter[str]) -> Relation:
    """Semi- and anti-joins for the conjuncts that are a subquery's truth and nothing more."""
    relation = node.input
    rest = conjuncts(node.condition)
    applies: list[Apply] = []
    while isinstance(relation, Apply):
        applies.append(relation)
        relation = relation.input
    if not applies:
        return node
    for apply in reversed(applies):
        joined = None
        for part in rest:
            negated = isinstance(part, exp.Not)
            bare = part.this if negated else part
            while isinstance(bare, exp.Paren):
                bare = bare.this
            if isinstance(bare, exp.Column) and bare.name == apply.symbol:
                if uses[apply.symbol] == 1:
                    joined = _semi_join(apply, relation, negated=negated)
                if joined is not None:
                    rest.remove(part)
                break
        relation = joined if joined is not None else apply.with_inputs(relation, apply.subquery)
    return filtered(relation, rest)


def _semi_join(apply: Apply, left: Relation, *, negated: bool) -> Relation | None:
    if apply.kind not in ("exists", "in") or (negated and apply.kind == "in"):
        return None
    taken = _without_correlation(apply.subquery, apply.kind == "exists")
    if taken is None:
        return None
    right, correlated = taken
    on = list(correlated)
    if apply.kind == "in":
        values = _subquery_values(apply.subquery)
        on += [
            exp.EQ(this=operand.copy(), expression=value)
            for operand, value in zip(apply.operands, values, strict=True)
        ]
    if not on:
        return None
    needed = references(*on) - frozenset(left.symbols)
    if not needed <= frozenset(right.symbols):
        return None
    return Join(left, right, "ANTI" if negated else "SEMI", conjunction(on))


def _subquery_values(subquery: Relation) -> list[Expr]:
    return [column(s) for s in subquery.symbols]


def _without_correlation(
    subquery: Relation, drop_columns: bool
) -> tuple[Relation, list[Expr]] | None:
    """The subquery without its correlated predicates, and these; None where they lie too deep.

    Columns that the predicates need are passed through the projections above them.
    """
    outer = free_symbols(subquery)
    if not outer:
        return subquery, []
    match subquery:
        case Project():
            below = _without_correlation(subquery.input, drop_columns)
            if below is None or references(*subquery.expressions) & outer:
                if below is None or not drop_columns:
                    return None
                return below
            relation, predicates = below
            if drop_columns:
                return relation, predicates
            passed = references(*predicates) & frozenset(relation.symbols)
            have = frozenset(subquery.symbols)
            extra: tuple[Assignment, ...] = tuple((s, column(s)) for s in sorted(passed - have))
            return Project(relation, subquery.assignments + extra), predicates
        case Filter():
            if free_symbols(subquery.input):
                return None
            mine = conjuncts(subquery.condition)
            correlated = [p for p in mine if references(p) & outer]
            if not all(is_stable(p) for p in mine):
                return None
            return filtered(subquery.input, [p for p in mine if p not in correlated]), correlated
    return None


_EMPTY_IS_NULL = (exp.Sum, exp.Avg, exp.Min, exp.Max)


def _scalar(node: Apply, fresh: Fresh) -> Relation:
    """A correlated scalar aggregate as a left join with a grouped one."""
    project = node.subquery
    if not isinstance(project, Project) or not isinstance(project.input, Aggregate):
        return node
    aggregate = project.input
    outer = free_symbols(project)
    if not outer or aggregate.keys or aggregate.grouping_sets is not None:
        return node
    if references(*project.expressions) & outer or references(*aggregate.expressions) & outer:
        return node
    if not all(
        isinstance(_plain(e), (*_EMPTY_IS_NULL, exp.Count)) for _, e in aggregate.aggregates
    ):
        return node
    if not isinstance(aggregate.input, Filter):
        return node
    taken = _without_correlation(aggregate.input, False)
    if taken is None:
        return node
    inner, correlated = taken
    keys: list[Assignment] = []
    on: list[Expr] = []
    for predicate in correlated:
        sides = _equality(predicate, outer)
        if sides is None:
            return node
        inside, outside = sides
        symbol = fresh("group")
        keys.append((symbol, inside))
        on.append(exp.EQ(this=column(symbol), expression=outside))
    grouped = Aggregate(inner, tuple(keys), aggregate.aggregates)
    joined = Join(node.input, grouped, "LEFT", conjunction(on))
    ((_, value),) = project.assignments
    counts = {s for s, e in aggregate.aggregates if isinstance(_plain(e), exp.Count)}

    def over_no_rows(symbol: str) -> Expr | None:
        """A group without rows has no partner: its count is 0, its other aggregates NULL."""
        if symbol not in counts:
            return None
        return exp.Coalesce(this=column(symbol), expressions=[exp.Literal.number(0)])

    kept: list[Assignment] = [(s, column(s)) for s in node.input.symbols]
    return Project(joined, (*kept, (node.symbol, substitute(value, over_no_rows))))


def _plain(call: Expr) -> Expr:
    return call.this if isinstance(call, exp.Filter) else call


def _equality(predicate: Expr, outer: frozenset[str]) -> tuple[Expr, Expr] | None:
    """The inner and the outer side of ``inner = outer``, each free of the other's columns."""
    if not isinstance(predicate, exp.EQ):
        return None
    for inside, outside in (
        (predicate.this, predicate.expression),
        (predicate.expression, predicate.this),
    ):
        if references(inside) and not references(inside) & outer and references(outside) <= outer:
            return inside.copy(), outside.copy()
    return None
