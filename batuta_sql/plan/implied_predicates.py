"""What predicates that hold imply of a relation on its own: tests that can be made lower down."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from batuta_sql.plan.relational import Expr, Join, column, conjunction, references, substitute
from batuta_sql.plan.rewrite import known_type
from batuta_sql.plan.translate import is_key_test

COMPARISONS = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE)

_TESTS = (*COMPARISONS, exp.In, exp.Between, exp.Like, exp.Is, exp.Not)
_VALUES = (exp.Column, exp.Identifier, exp.Literal, exp.Boolean, exp.Null, exp.Neg, exp.Paren)
_CONSTANT_CASTS = (exp.Cast, exp.DataType)


def implied_by_equalities(node: Join, predicates: Sequence[Expr]) -> list[Expr]:
    """``a = b`` and a test of ``a`` against constants imply the same test of ``b``."""
    pairs: list[tuple[str, str]] = []
    for p in predicates:
        if (
            isinstance(p, exp.EQ)
            and isinstance(p.this, exp.Column)
            and isinstance(p.expression, exp.Column)
        ):
            pairs += [(p.this.name, p.expression.name), (p.expression.name, p.this.name)]
    known = set(predicates)
    found: list[Expr] = []
    for p in predicates:
        used = references(p)
        test = isinstance(p, (*COMPARISONS, exp.In, exp.Between)) or is_key_test(p)
        if len(used) != 1 or not test:
            continue
        (symbol,) = used
        for a, b in pairs:
            if (
                a != symbol
                or known_type(node, a) is None
                or known_type(node, a) != known_type(node, b)
            ):
                continue
            target = column(b)
            new = substitute(p, {symbol: target}.get)
            if new not in known:
                known.add(new)
                found.append(new)
    return found


def implied_of_one_side(predicates: Sequence[Expr], symbols: frozenset[str]) -> list[Expr]:
    """What predicates that read both sides of a join say of one of them.

    ``(a = 1 AND b = 2) OR (a = 3 AND b = 4)`` implies ``a = 1 OR a = 3``: where a disjunction is
    true one of its branches is, and all of that branch's parts are. Only plain tests of columns
    against constants are taken: they cannot fail on rows that the join would have left out.
    """
    found = [_weakened(p, symbols) for p in predicates if isinstance(_bare(p), exp.Or)]
    return [p for p in found if p is not None]


def _weakened(predicate: Expr, symbols: frozenset[str]) -> Expr | None:
    """The strongest test of ``symbols`` alone that holds wherever ``predicate`` does."""
    match _bare(predicate):
        case exp.And() as both:
            left, right = _weakened(both.this, symbols), _weakened(both.expression, symbols)
            if left is None or right is None:
                return left if right is None else right
            return conjunction([left, right])
        case exp.Or() as either:
            left, right = _weakened(either.this, symbols), _weakened(either.expression, symbols)
            if left is None or right is None:
                return None
            if left == right:
                return left
            return exp.Or(this=left, expression=right)
        case test:
            return test if _is_plain_test(test, symbols) else None


def _is_plain_test(test: Expr, symbols: frozenset[str]) -> bool:
    used = references(test)
    if not used or not used <= symbols or not isinstance(test, _TESTS):
        return False
    return all(
        isinstance(node, (*_TESTS, *_VALUES))
        or (isinstance(node, _CONSTANT_CASTS) and not references(node))
        for node in test.walk()
    )


def _bare(predicate: Expr) -> Expr:
    while isinstance(predicate, exp.Paren):
        predicate = predicate.this
    return predicate
