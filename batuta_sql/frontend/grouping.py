"""Binds GROUP BY, grouping sets and the aggregates of one block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlglot import exp

from batuta_sql.errors import ProgrammingError
from batuta_sql.frontend.aggregates import call_name, is_window_call
from batuta_sql.frontend.expressions import ExpressionBinder
from batuta_sql.frontend.scope import Unmodelled
from batuta_sql.plan.relational import (
    Aggregate,
    Assignment,
    Expr,
    Relation,
    bound_symbols,
    column,
    free_symbols,
    references,
    substitute,
)
from batuta_sql.plan.rewrite import map_expressions

if TYPE_CHECKING:
    from batuta_sql.frontend.select import SelectBinder


class Grouping:
    """Binds GROUP BY and the aggregates of one block."""

    def __init__(self, block: SelectBinder, expressions: ExpressionBinder) -> None:
        self.block = block
        self.expressions = expressions

    def bind(
        self,
        relation: Relation,
        group: exp.Group | None,
        items: list[Expr],
        values: list[Expr],
        everything: list[Expr],
    ) -> tuple[Relation, Callable[[Expr], Expr]]:
        keys: list[Assignment] = []
        known: dict[Expr, str] = {}

        def add_key(value: Expr) -> int:
            if value not in known:
                symbol = self.block.names.fresh(value.name or "key")
                known[value] = symbol
                keys.append((symbol, value))
            return [s for s, _ in keys].index(known[value])

        sets = self._sets(group, items, values, add_key)
        aggregates: list[Assignment] = []
        key_count = len(known)
        calls: dict[Expr, str] = {}
        for expression in everything:
            for call in self.block.aggregates.within(expression):
                if call not in calls:
                    if self.block.aggregates.within_arguments(call):
                        raise ProgrammingError(
                            "an aggregate cannot contain another", sql=self.block.binder.sql
                        )
                    symbol = self.block.names.fresh(call_name(call))
                    calls[call] = symbol
                    aggregates.append((symbol, _with_null_order(call)))
        below = self.expressions.attach(
            relation, *(e for _, e in keys), *(e for _, e in aggregates)
        )
        plan = Aggregate(below, tuple(keys), tuple(aggregates), sets)
        assert key_count == len(keys)
        inner = bound_symbols(below)

        def rewrite(expression: Expr) -> Expr:
            result = self._rewrite(expression, known, calls)
            self._rewrite_pending(result, known, calls, inner)
            left = (references(result) & inner) - {s for s, _ in keys + aggregates}
            if left:
                raise Unmodelled("a column that is neither grouped nor aggregated")
            return result

        return plan, rewrite

    def _rewrite(self, expression: Expr, keys: dict[Expr, str], calls: dict[Expr, str]) -> Expr:
        def visit(node: Expr) -> Expr:
            if node in keys:
                return column(keys[node])
            if node in calls and not is_window_call(node):
                return column(calls[node])
            return node

        if expression in keys:
            return column(keys[expression])
        return expression.copy().transform(visit, copy=False)

    def _rewrite_pending(
        self,
        expression: Expr,
        keys: dict[Expr, str],
        calls: dict[Expr, str],
        inner: frozenset[str],
    ) -> None:
        """Subqueries above the Aggregate may read its keys, not the columns below it."""
        for symbol in references(expression) & self.expressions.pending.keys():
            apply = self.expressions.pending[symbol]
            operands = tuple(self._rewrite(o, keys, calls) for o in apply.operands)
            outer = free_symbols(apply.subquery) & inner
            subquery = apply.subquery
            if outer:
                mapping = {k.name: s for k, s in keys.items() if isinstance(k, exp.Column)}
                if not outer <= mapping.keys():
                    raise Unmodelled("a subquery that reads a column which is not grouped")
                subquery = _renamed_free(subquery, {o: mapping[o] for o in outer})
            updated = replace(apply, operands=operands, subquery=subquery)
            self.expressions.pending[symbol] = updated
            for operand in operands:
                if (references(operand) & inner) - set(keys.values()) - set(calls.values()):
                    raise Unmodelled("a column that is neither grouped nor aggregated")

    def _sets(
        self,
        group: exp.Group | None,
        items: list[Expr],
        values: list[Expr],
        add_key: Callable[[Expr], int],
    ) -> tuple[tuple[int, ...], ...] | None:
        if group is None:
            return None
        if group.args.get("all"):
            for value in values:
                if not self.block.aggregates.within(value) and not value.find(exp.Window):
                    add_key(value)
            return None
        alternatives: list[list[tuple[int, ...]]] = []
        special = False
        parts = list(group.expressions)
        for name in ("rollup", "cube", "grouping_sets"):
            extra = group.args.get(name)
            if extra:
                parts.extend(extra if isinstance(extra, list) else [extra])
        for part in parts:
            match part:
                case exp.Rollup():
                    special = True
                    columns = [self._key_set(e, items, values, add_key) for e in part.expressions]
                    alternatives.append([sum(columns[:n], ()) for n in range(len(columns), -1, -1)])
                case exp.Cube():
                    special = True
                    columns = [self._key_set(e, items, values, add_key) for e in part.expressions]
                    alternatives.append(
                        [
                            sum((c for i, c in enumerate(columns) if mask >> i & 1), ())
                            for mask in range(2 ** len(columns) - 1, -1, -1)
                        ]
                    )
                case exp.GroupingSets():
                    special = True
                    if part.find(exp.Rollup, exp.Cube) or any(
                        isinstance(e, exp.GroupingSets) for e in part.expressions
                    ):
                        raise Unmodelled("nested grouping sets")
                    alternatives.append(
                        [self._key_set(e, items, values, add_key) for e in part.expressions]
                    )
                case _:
                    alternatives.append([self._key_set(part, items, values, add_key)])
        if not special:
            return None
        sets: list[tuple[int, ...]] = [()]
        for choice in alternatives:
            sets = [tuple(dict.fromkeys(a + b)) for a in sets for b in choice]
        return tuple(sets)

    def _key_set(
        self, part: Expr, items: list[Expr], values: list[Expr], add_key: Callable[[Expr], int]
    ) -> tuple[int, ...]:
        if isinstance(part, exp.Paren):
            part = part.this
        if isinstance(part, exp.Tuple):
            return tuple(add_key(self._key(e, items, values)) for e in part.expressions)
        return (add_key(self._key(part, items, values)),)

    def _key(self, node: Expr, items: list[Expr], values: list[Expr]) -> Expr:
        if isinstance(node, exp.Literal) and node.is_int:
            position = int(node.name)
            if not 1 <= position <= len(values):
                raise ProgrammingError(
                    f"GROUP BY position {position} is not in the select list",
                    sql=self.block.binder.sql,
                )
            value = values[position - 1]
        else:
            value = self.expressions.bind(node)
            if isinstance(value, exp.Paren) and isinstance(node, exp.Column):
                value = value.this
        if self.block.aggregates.within(value):
            raise ProgrammingError("GROUP BY cannot contain aggregates", sql=self.block.binder.sql)
        return value


def _with_null_order(call: Expr) -> Expr:
    call = call.copy()
    for key in call.find_all(exp.Ordered):
        if key.args.get("nulls_first") is None:
            key.set("nulls_first", False)
    return call


def _renamed_free(relation: Relation, mapping: dict[str, str]) -> Relation:
    """``relation`` with correlated symbols renamed."""

    def rename(e: Expr) -> Expr:
        return substitute(e, lambda s: column(mapping[s]) if s in mapping else None)

    def visit(node: Relation) -> Relation:
        node = node.with_inputs(*(visit(i) for i in node.inputs))
        return map_expressions(node, rename)

    return visit(relation)
