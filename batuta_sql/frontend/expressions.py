"""Binds scalar expressions: names become symbols, subqueries become ``Apply`` operators."""

from __future__ import annotations

import datetime
import decimal
import math
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

from sqlglot import exp

from batuta_sql.errors import Position, ProgrammingError, did_you_mean
from batuta_sql.frontend.scope import Bound, OutputColumn, Scope, Unmodelled
from batuta_sql.plan.relational import Apply, Expr, Relation, column, parenthesized

ParameterValues = Sequence[Any] | dict[str, Any]

_NOT_MODELLED = {
    exp.Columns: "COLUMNS(...)",
    exp.Comprehension: "a list comprehension",
    exp.PositionalColumn: "a positional column reference (#1)",
}
_RESERVED = re.compile(
    r"\d|_(_root_|change_|colidentifier|file_|partition|row_timestamp|table_)", re.IGNORECASE
)
"""Beginnings of names that a system keeps for itself (BigQuery), or takes from nobody."""

_COMPARISONS = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE)


@dataclass
class SymbolMaker:
    """Makes symbols that are unique in one query."""

    count: int = 0

    def fresh(self, name: str) -> str:
        self.count += 1
        return f"{_stem(name)}_{self.count}"


@lru_cache(maxsize=8192)
def _stem(name: str) -> str:
    stem = "".join(c if c.isalnum() and c.isascii() else "_" for c in name)[:24] or "c"
    return f"c{stem}" if _RESERVED.match(stem) else stem


@dataclass
class ExpressionBinder:
    """Binds the expressions of one query block; collects the subqueries that they contain.

    ``pending`` holds an Apply (its input still to be set) by the symbol that stands for it.
    """

    scope: Scope
    symbols: SymbolMaker
    bind_query: Callable[[Expr, Scope], Bound]
    parameters: Parameters
    sql: str
    pending: dict[str, Apply] = field(default_factory=dict)

    def bind(self, node: Expr) -> Expr:
        """A copy of ``node`` over symbols."""
        return node.copy().transform(self._visit, copy=False)

    def attach(self, relation: Relation, *expressions: Expr | None) -> Relation:
        """Puts the pending subqueries that the expressions use above ``relation``."""
        from batuta_sql.plan.relational import references

        wanted = references(*expressions) & self.pending.keys()
        for symbol in [s for s in self.pending if s in wanted]:
            apply = self.pending[symbol]
            relation = self.attach(relation, *apply.operands)
            if symbol in self.pending:
                relation = replace(self.pending.pop(symbol), input=relation)
        return relation

    def _visit(self, node: Expr) -> Expr:
        for kind, what in _NOT_MODELLED.items():
            if isinstance(node, kind):
                raise Unmodelled(what)
        match node:
            case exp.Column():
                return self._column(node)
            case exp.Placeholder() | exp.Parameter():
                return self.parameters.literal(node)
            case exp.Exists(this=exp.Query() as query):
                return self._apply("exists", query)
            case exp.In() if node.args.get("query") is not None:
                return self._membership(node)
            case exp.Any() | exp.All():
                raise Unmodelled("ANY or ALL outside a comparison")
            case exp.Binary() if isinstance(node.expression, exp.Any | exp.All):
                return self._quantified(node)
            case exp.Subquery() | exp.Select() | exp.SetOperation():
                return self._apply("scalar", node)
            case exp.Interval() | exp.DataType():
                return node
        return node

    # --- names ---------------------------------------------------------------------------------

    def _column(self, node: exp.Column) -> Expr:
        if node.meta_get("symbol"):
            return node
        if isinstance(node.this, exp.Star):
            raise Unmodelled("a qualified star inside an expression")
        parts = tuple(
            p.name
            for p in (node.args.get("catalog"), node.args.get("db"), node.args.get("table"))
            if p is not None
        )
        found = self._resolve(parts, node.name)
        if found is not None:
            return found
        # a.b.c may be column a, field b, field c
        names = [*parts, node.name]
        for cut in range(len(names) - 1, 0, -1):
            base = self._resolve(tuple(names[: cut - 1]), names[cut - 1])
            if base is not None:
                for part in names[cut:]:
                    base = exp.Bracket(
                        this=base, expressions=[exp.Literal.string(part)], offset=1, safe=True
                    )
                return base
        raise self._unknown(node, parts)

    def _resolve(self, parts: tuple[str, ...], name: str) -> Expr | None:
        scope: Scope | None = self.scope
        while scope is not None:
            matches = self._in_scope(scope, parts, name)
            if len(matches) > 1:
                raise ProgrammingError(
                    f'column "{name}" is ambiguous',
                    hint="qualify it with the table's name or alias",
                )
            if matches:
                return column(matches[0].symbol)
            if not parts:
                alias = self._alias(scope, name)
                if alias is not None:
                    return alias
            scope = scope.parent
        return None

    @staticmethod
    def _in_scope(scope: Scope, parts: tuple[str, ...], name: str) -> list[OutputColumn]:
        if not parts:
            return scope.unqualified(name)
        ranges = [r for r in scope.ranges if r.answers_to(parts)]
        if len(ranges) > 1:
            raise Unmodelled("two relations of the same name")
        return ranges[0].find(name) if ranges else []

    def _alias(self, scope: Scope, name: str) -> Expr | None:
        """DuckDB lets later clauses and later SELECT items reuse an alias of the SELECT list."""
        item = scope.aliases.get(name.lower())
        if item is None or scope is not self.scope or name.lower() in scope.alias_stack:
            return None
        scope.alias_stack.append(name.lower())
        try:
            return parenthesized(self.bind(item))
        finally:
            scope.alias_stack.pop()

    def _unknown(self, node: exp.Column, parts: tuple[str, ...]) -> ProgrammingError:
        hint = None
        if parts and not self._knows_range(parts):
            shown = ".".join(parts)
            aliases = [r.qualifiers[-1] for r in self.scope.ranges if r.qualifiers]
            message = f'there is no table or alias "{shown}" in this query'
            hint = did_you_mean(parts[-1], aliases)
        else:
            message = f'there is no column "{node.name}"'
            names = [
                c.name
                for r in self.scope.ranges
                if not parts or r.answers_to(parts)
                for c in r.columns
            ] or list(self.scope.all_names())
            hint = did_you_mean(node.name, names) or _listing(names)
        return ProgrammingError(message, hint=hint, sql=self.sql, position=place(node, self.sql))

    def _knows_range(self, parts: tuple[str, ...]) -> bool:
        scope: Scope | None = self.scope
        while scope is not None:
            if any(r.answers_to(parts) for r in scope.ranges):
                return True
            scope = scope.parent
        return False

    # --- subqueries ----------------------------------------------------------------------------

    def _apply(
        self,
        kind: Literal["scalar", "exists", "in", "compare"],
        query: Expr,
        operands: tuple[Expr, ...] = (),
        comparison: tuple[type[exp.Expr], Literal["ANY", "ALL"]] | None = None,
    ) -> Expr:
        bound = self.bind_query(query, self.scope)
        if kind == "scalar" and len(bound.columns) != 1:
            raise Unmodelled("a scalar subquery of several columns")
        if kind in ("in", "compare") and len(bound.columns) != len(operands):
            raise Unmodelled("a subquery compared with another number of columns")
        plan = bound.plan
        if kind != "exists" and plan.symbols != tuple(c.symbol for c in bound.columns):
            from batuta_sql.plan.relational import Project

            plan = Project(plan, tuple((c.symbol, column(c.symbol)) for c in bound.columns))
        symbol = self.symbols.fresh(kind)
        from batuta_sql.plan.relational import OneRow

        self.pending[symbol] = Apply(OneRow(), plan, kind, symbol, operands, comparison)
        return column(symbol)

    def _membership(self, node: exp.In) -> Expr:
        query = node.args["query"]
        if isinstance(query, exp.Subquery) and not query.alias:
            query = query.this if not query.args.get("with_") else query
        operand = node.this
        if isinstance(operand, exp.Tuple):
            operands = tuple(self.bind(e) for e in operand.expressions)
        else:
            operands = (self.bind(operand),)
        return self._apply("in", query, operands)

    def _quantified(self, node: exp.Binary) -> Expr:
        side = node.expression
        query = side.this
        if not isinstance(node, _COMPARISONS) or not isinstance(query, exp.Query):
            raise Unmodelled("ANY or ALL over something other than a subquery")
        word: Literal["ANY", "ALL"] = "ANY" if isinstance(side, exp.Any) else "ALL"
        inner = query.this if isinstance(query, exp.Subquery) and not query.alias else query
        return self._apply("compare", inner, (self.bind(node.this),), (type(node), word))


@dataclass(frozen=True)
class Parameters:
    """The values bound to ``$1`` (which the parser makes of ``?`` too) and ``$name``; each becomes
    a typed literal node.

    A literal node is rendered by the dialect's generator with its own quoting: no value is ever
    pasted into a text.
    """

    values: ParameterValues | None
    _used: set[int | str] = field(default_factory=set)

    def check_all_used(self) -> None:
        """Refuses values that no parameter takes.

        :raises ProgrammingError: as DuckDB does.
        """
        if self.values is None:
            return
        given = set(self.values) if isinstance(self.values, dict) else set(range(len(self.values)))
        unused = given - self._used
        if unused:
            raise ProgrammingError(
                f"{len(given)} parameters were given, {len(given) - len(unused)} are used",
                hint="pass as many values as the statement has parameters",
            )

    def literal(self, node: Expr) -> Expr:
        name = node.name if node.args.get("this") is not None else ""
        name = "" if name == "?" else name
        if self.values is None:
            raise ProgrammingError(
                "the statement has parameters but no values were given",
                hint="pass them as the second argument of execute()",
            )
        if name.isdigit():
            return value_literal(self._positional(int(name) - 1))
        if not isinstance(self.values, dict) or name not in self.values:
            raise ProgrammingError(f'no value was given for the parameter "${name}"')
        self._used.add(name)
        return value_literal(self.values[name])

    def put_into(self, query: Expr) -> Expr:
        """``query`` with literals for its parameters."""
        if not query.find(exp.Placeholder, exp.Parameter):
            return query
        return query.transform(
            lambda n: self.literal(n) if isinstance(n, exp.Placeholder | exp.Parameter) else n
        )

    def _positional(self, index: int) -> Any:
        if isinstance(self.values, dict) or self.values is None:
            key = str(index + 1)
            if isinstance(self.values, dict) and key in self.values:
                self._used.add(key)
                return self.values[key]
            raise ProgrammingError("the statement has positional parameters; pass a sequence")
        if index >= len(self.values):
            raise ProgrammingError(
                f"the statement needs at least {index + 1} parameters,"
                f" {len(self.values)} were given"
            )
        self._used.add(index)
        return self.values[index]


def value_literal(value: Any) -> Expr:
    """The typed literal of a Python value; its text form is what DuckDB's cast reads back exactly.

    :raises Unmodelled: for a value with no literal form (lists, dicts, frames).
    """

    def typed(text: str, kind: str) -> Expr:
        return exp.Cast(
            this=exp.Literal.string(text), to=exp.DataType.build(kind, dialect="duckdb")
        )

    match value:
        case None:
            return exp.Null()
        case bool():
            return exp.Boolean(this=value)
        case int():
            literal: Expr = exp.Literal.number(str(abs(value)))
            return exp.Neg(this=literal) if value < 0 else literal
        case float():
            if math.isfinite(value):
                return typed(repr(value), "DOUBLE")
            return typed(str(value), "DOUBLE")
        case decimal.Decimal():
            if not value.is_finite():
                raise ProgrammingError("a Decimal parameter must be finite")
            _, digits, exponent = value.as_tuple()
            assert isinstance(exponent, int)
            scale = max(0, -exponent)
            width = max(len(digits) + max(exponent, 0), scale, 1)
            if width > 38:
                raise ProgrammingError("a Decimal parameter has more than 38 digits")
            return typed(format(value, "f"), f"DECIMAL({width},{scale})")
        case str():
            return exp.Literal.string(value)
        case datetime.datetime():
            kind = "TIMESTAMPTZ" if value.tzinfo is not None else "TIMESTAMP"
            return typed(value.isoformat(sep=" "), kind)
        case datetime.date():
            return typed(value.isoformat(), "DATE")
        case datetime.time() if value.tzinfo is None:
            return typed(value.isoformat(), "TIME")
        case uuid.UUID():
            return typed(str(value), "UUID")
        case bytes() | bytearray() | memoryview():
            return typed("".join(f"\\x{b:02X}" for b in bytes(value)), "BLOB")
        case list() | tuple():
            return exp.Array(expressions=[value_literal(v) for v in value])
    raise Unmodelled(f"a parameter of type {type(value).__name__}")


def place(node: Expr, sql: str) -> Position | None:
    """Where ``node`` stands in the text it was parsed from."""
    for part in node.find_all(exp.Identifier):
        start, end = part.meta_get("start"), part.meta_get("end")
        if start is not None and end is not None and end < len(sql):
            return Position.at_offset(sql, start, end - start + 1)
    return None


def _listing(names: list[str]) -> str | None:
    shown = list(dict.fromkeys(names))
    if not shown:
        return None
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return "the columns in reach are " + ", ".join(shown[:12]) + more
