"""Evaluates constant parts of predicates once, by DuckDB itself, so that they can be pushed.

``date '1998-12-01' - INTERVAL 90 DAY`` becomes the timestamp that it is: no source has to be
proved equal in its calendar arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlglot import exp

from batuta_sql.plan.relational import Expr, Filter, Join, Relation, is_stable
from batuta_sql.plan.rewrite import map_expressions, transform_up

Evaluate = Callable[[Sequence[str]], Sequence[tuple[str | None, str] | None]]
"""Gives the text and the DuckDB type of each constant expression, None for one that fails."""

_FOLDABLE_TYPES = (
    "DATE",
    "TIMESTAMP",
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "DECIMAL",
    "VARCHAR",
    "BOOLEAN",
)
_MOMENT = (exp.CurrentTimestamp, exp.CurrentDate, exp.CurrentTime)


def fold_constants(plan: Relation, evaluate: Evaluate) -> Relation:
    """``plan`` with constants in its filters and join conditions evaluated."""
    found: dict[str, None] = {}
    for node in plan.walk():
        if isinstance(node, Filter | Join):
            for expression in node.expressions:
                for constant in _constants(expression):
                    found.setdefault(constant.sql("duckdb"))
    if not found:
        return plan
    values = dict(zip(found, evaluate(list(found)), strict=True))

    def replace(expression: Expr) -> Expr:
        def visit(node: Expr) -> Expr:
            if not _is_foldable(node):
                return node
            value = values.get(node.sql("duckdb"))
            literal = _literal(*value) if value is not None else None
            return literal if literal is not None else node

        return expression.copy().transform(visit, copy=False)

    def rewrite(node: Relation) -> Relation:
        return map_expressions(node, replace) if isinstance(node, Filter | Join) else node

    return transform_up(plan, rewrite)


def _constants(node: Expr) -> list[Expr]:
    """The largest foldable parts of an expression."""
    if _is_foldable(node):
        return [node]
    return [c for child in node.iter_expressions() for c in _constants(child)]


def _is_foldable(node: Expr) -> bool:
    if not isinstance(node, exp.Binary | exp.Func) or isinstance(
        node, exp.Connector | exp.AggFunc | exp.Anonymous | exp.Predicate | exp.Dot | exp.Bracket
    ):
        return False
    if isinstance(node, exp.Cast) and isinstance(node.this, exp.Literal):
        return False
    if node.find(exp.Column, exp.Star, exp.Query, exp.Lambda, exp.Placeholder, *_MOMENT):
        return False
    return is_stable(node) and not node.find(exp.Anonymous)


def _literal(text: str | None, type_: str) -> Expr | None:
    if text is None or not type_.startswith(_FOLDABLE_TYPES) or "WITH TIME ZONE" in type_:
        return None
    if type_ == "VARCHAR":
        return exp.Literal.string(text)
    return exp.Cast(this=exp.Literal.string(text), to=exp.DataType.build(type_, dialect="duckdb"))
