"""Binds one SELECT block, clause by clause, in the order in which SQL evaluates them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlglot import exp

from batuta_sql.errors import ProgrammingError
from batuta_sql.frontend.expressions import ExpressionBinder, place
from batuta_sql.frontend.scope import Bound, OutputColumn, Scope, Unmodelled
from batuta_sql.plan.relational import (
    Aggregate,
    Assignment,
    Distinct,
    Expr,
    Filter,
    OneRow,
    Project,
    Relation,
    Sort,
    Window,
    bound_symbols,
    column,
    free_symbols,
    references,
)

if TYPE_CHECKING:
    from batuta_sql.frontend.binder import Binder

_AGGREGATE_WRAPPERS = (exp.Filter, exp.WithinGroup, exp.IgnoreNulls, exp.RespectNulls)


class SelectBinder:
    """Binds one SELECT; ``scope`` is its own, still empty."""

    def __init__(self, binder: Binder, select: exp.Select, scope: Scope) -> None:
        self.binder = binder
        self.select = select
        self.scope = scope
        self.names = binder.symbols

    def bind(self) -> Bound:
        from batuta_sql.frontend.binder import is_all

        select = self.select
        for unsupported in ("sample", "into", "match", "connect", "cluster", "kind", "hint"):
            if select.args.get(unsupported):
                raise Unmodelled(unsupported.upper())
        relation = self.binder.from_clause.bind(select, self.scope) or OneRow()
        items = self._items()
        self.scope.aliases = {i.alias.lower(): i.this for i in items if isinstance(i, exp.Alias)}
        expressions = self.binder.expressions(self.scope)

        if where := select.args.get("where"):
            self._refuse_aggregates(where.this, "WHERE")
            condition = expressions.bind(where.this)
            relation = Filter(expressions.attach(relation, condition), condition)

        values = [expressions.bind(i.this if isinstance(i, exp.Alias) else i) for i in items]
        having = self._bound_clause("having", expressions)
        qualify = self._bound_clause("qualify", expressions)
        outputs = [self._output_name(i) for i in items]
        order_items = list(select.args["order"].expressions) if select.args.get("order") else []
        order_all = bool(order_items) and is_all(order_items[0].this)
        sort_values = [] if order_all else self._order_values(order_items, items, expressions)
        distinct = select.args.get("distinct")
        on_clause = distinct.args.get("on") if distinct else None
        on_values = (
            [self._order_value(e, items, expressions) for e in _tuple_items(on_clause)]
            if on_clause is not None
            else []
        )

        group = select.args.get("group")
        everything = [*values, *[s for s in sort_values if isinstance(s, exp.Expr)]]
        everything += [e for e in (having, qualify) if e is not None]
        everything += [e for e in on_values if isinstance(e, exp.Expr)]
        if (
            group is not None
            or having is not None
            or any(self._aggregates_in(e) for e in everything)
        ):
            grouping = _Grouping(self, expressions)
            relation, rewrite = grouping.bind(relation, group, items, values, everything)
            values = [rewrite(v) for v in values]
            having = rewrite(having) if having is not None else None
            qualify = rewrite(qualify) if qualify is not None else None
            sort_values = [rewrite(s) if isinstance(s, exp.Expr) else s for s in sort_values]
            on_values = [rewrite(s) if isinstance(s, exp.Expr) else s for s in on_values]
            relation = expressions.attach(relation, having)
            if having is not None:
                relation = Filter(relation, having)
        relation = expressions.attach(
            relation,
            *values,
            qualify,
            *[s for s in (*sort_values, *on_values) if isinstance(s, exp.Expr)],
        )
        relation, replaced = self._windows(
            relation,
            [
                *values,
                qualify,
                *[s if isinstance(s, exp.Expr) else None for s in sort_values],
            ],
        )
        values = [v for v in replaced[: len(values)] if v is not None]
        qualify = replaced[len(values)]
        sort_values = [
            r if r is not None else s
            for r, s in zip(replaced[len(values) + 1 :], sort_values, strict=True)
        ]
        if qualify is not None:
            relation = Filter(relation, qualify)
        return self._deliver(
            relation, outputs, values, order_items, order_all, sort_values, distinct, on_values
        )

    # --- the SELECT list -----------------------------------------------------------------------

    def _items(self) -> list[Expr]:
        """The SELECT items with stars expanded, each an Alias or an expression."""
        items: list[Expr] = []
        for item in self.select.expressions:
            star = item if isinstance(item, exp.Star) else None
            parts: tuple[str, ...] = ()
            if isinstance(item, exp.Column) and isinstance(item.this, exp.Star):
                star = item.this
                parts = tuple(
                    p.name
                    for p in (item.args.get("catalog"), item.args.get("db"), item.args.get("table"))
                    if p is not None
                )
            if star is None:
                while isinstance(item, exp.Paren) and not isinstance(item.this, exp.Query):
                    item = item.this
                items.append(item)
            else:
                items.extend(self._expand(star, parts))
        return items

    def _expand(self, star: exp.Star, parts: tuple[str, ...]) -> list[Expr]:
        excluded = {e.name.lower() for e in star.args.get("except_") or ()}
        replaced = {e.alias.lower(): e.this for e in star.args.get("replace") or ()}
        renames = {e.this.name.lower(): e.alias for e in star.args.get("rename") or ()}
        if any(
            k not in ("except_", "replace", "rename", "this") and v for k, v in star.args.items()
        ):
            raise Unmodelled("a filtered star")
        ranges = [r for r in self.scope.ranges if not parts or r.answers_to(parts)]
        if not ranges:
            if parts:
                raise Unmodelled("a star over something other than a table")
            raise ProgrammingError("SELECT * needs a FROM clause", sql=self.binder.sql)
        found: list[Expr] = []
        for item in ranges:
            for c in item.columns:
                lower = c.name.lower()
                if lower in excluded or (not parts and lower in item.merged):
                    continue
                symbol = c.symbol
                if not parts and lower in self.scope.using:
                    symbol = self.scope.using[lower]
                value = replaced.get(lower) or _bound_column(symbol)
                found.append(
                    exp.Alias(
                        this=value.copy(),
                        alias=exp.to_identifier(renames.get(lower, c.name), quoted=True),
                    )
                )
        return found

    def _output_name(self, item: Expr) -> str:
        if isinstance(item, exp.Alias):
            return item.alias
        if isinstance(item, exp.Column):
            return item.name
        if isinstance(item, exp.Dot):
            return item.name
        return item.meta.get("duckdb_name") or item.sql("duckdb")

    # --- clauses -------------------------------------------------------------------------------

    def _bound_clause(self, name: str, expressions: ExpressionBinder) -> Expr | None:
        clause = self.select.args.get(name)
        return expressions.bind(clause.this) if clause is not None else None

    def _refuse_aggregates(self, node: Expr, clause: str) -> None:
        for found in self._aggregates_in(node):
            raise ProgrammingError(
                f"{clause} cannot contain aggregates",
                hint="filter groups with HAVING",
                sql=self.binder.sql,
                position=place(found, self.binder.sql),
            )

    def _order_values(
        self, order: list[Expr], items: list[Expr], expressions: ExpressionBinder
    ) -> list[Expr | int]:
        return [self._order_value(o.this, items, expressions) for o in order]

    def _order_value(
        self, key: Expr, items: list[Expr], expressions: ExpressionBinder
    ) -> Expr | int:
        """A sort key: the index of a SELECT item, or an expression of its own."""
        if isinstance(key, exp.Literal) and not key.is_string:
            if not key.is_int:
                raise Unmodelled("a constant in ORDER BY")
            position = int(key.name)
            if not 1 <= position <= len(items):
                raise ProgrammingError(
                    f"ORDER BY position {position} is not in the select list of"
                    f" {len(items)} columns",
                    sql=self.binder.sql,
                )
            return position - 1
        if isinstance(key, exp.Column) and not key.table:
            lower = key.name.lower()
            for index, item in enumerate(items):
                if isinstance(item, exp.Alias) and item.alias.lower() == lower:
                    return index
        return expressions.bind(key)

    def _aggregates_in_arguments(self, call: Expr) -> list[Expr]:
        """Aggregates nested in the arguments of an aggregate call."""
        while isinstance(call, _AGGREGATE_WRAPPERS):
            call = call.this
        return [a for child in call.iter_expressions() for a in self._aggregates_in(child)]

    def aggregate_root(self, node: Expr) -> bool:
        """Whether ``node`` is an aggregate call with all its wrappers (FILTER, WITHIN GROUP)."""
        if isinstance(node, _AGGREGATE_WRAPPERS):
            return self.aggregate_root(node.this)
        if isinstance(node, exp.AggFunc):
            return True
        if isinstance(node, exp.Anonymous | exp.AnonymousAggFunc):
            return node.name.lower() in self.binder.names.aggregate_names
        return False

    def _aggregates_in(self, node: Expr) -> list[Expr]:
        """The aggregate calls of this block in ``node``, outermost first; windows do not count."""
        if isinstance(node, exp.Window):
            inner = [a for a in _window_inputs(node) for a in self._aggregates_in(a)]
            return inner
        if isinstance(node, exp.Query):
            return []
        if self.aggregate_root(node):
            return [node]
        return [a for child in node.iter_expressions() for a in self._aggregates_in(child)]

    # --- windows -------------------------------------------------------------------------------

    def _windows(
        self, relation: Relation, expressions: list[Expr | None]
    ) -> tuple[Relation, list[Expr | None]]:
        definitions = {w.name.lower(): w for w in self.select.args.get("windows") or ()}
        functions: list[Assignment] = []
        seen: dict[Expr, str] = {}

        def visit(node: Expr) -> Expr:
            if not isinstance(node, exp.Window):
                return node
            if node.find(exp.Window) is not node or any(
                w is not node for w in node.find_all(exp.Window)
            ):
                raise Unmodelled("a window function inside another")
            if node.args.get("alias") is not None:
                node = self._named_window(node, definitions)
            for key in (o for o in node.find_all(exp.Ordered)):
                if key.args.get("nulls_first") is None:
                    key.set("nulls_first", False)
            if node not in seen:
                symbol = self.names.fresh("w")
                seen[node] = symbol
                functions.append((symbol, node))
            return column(seen[node])

        result = [
            e.copy().transform(visit, copy=False) if e is not None else None for e in expressions
        ]
        if functions:
            relation = Window(relation, tuple(functions))
        return relation, result

    def _named_window(self, node: exp.Window, definitions: dict[str, Expr]) -> exp.Window:
        name = node.args["alias"].name.lower()
        definition = definitions.get(name)
        if definition is None:
            raise ProgrammingError(f'there is no window "{name}"', sql=self.binder.sql)
        if any(node.args.get(k) for k in ("partition_by", "order", "spec")) or (
            definition.args.get("alias") is not None
        ):
            raise Unmodelled("a window built upon another")
        expressions = self.binder.expressions(self.scope)
        merged = node.copy()
        merged.set("alias", None)
        for part in ("partition_by", "order", "spec"):
            value = definition.args.get(part)
            if isinstance(value, list):
                merged.set(part, [expressions.bind(v) for v in value])
            elif value is not None:
                merged.set(part, expressions.bind(value))
        if expressions.pending or self._aggregates_in(merged):
            raise Unmodelled("an aggregate or subquery in a named window")
        return merged

    # --- the end of the block ------------------------------------------------------------------

    def _deliver(
        self,
        relation: Relation,
        names: list[str],
        values: list[Expr],
        order_items: list[Expr],
        order_all: bool,
        sort_values: list[Expr | int],
        distinct: Expr | None,
        on_values: list[Expr | int],
    ) -> Bound:
        from batuta_sql.frontend.binder import ordered

        assignments: list[Assignment] = [
            (self.names.fresh(n), v) for n, v in zip(names, values, strict=True)
        ]
        columns = tuple(OutputColumn(n, s) for n, (s, _) in zip(names, assignments, strict=True))
        visible = len(assignments)

        def symbol_of(value: Expr | int) -> str:
            if isinstance(value, int):
                return assignments[value][0]
            for symbol, known in assignments:
                if known == value:
                    return symbol
            symbol = self.names.fresh("key")
            assignments.append((symbol, value))
            return symbol

        if order_all:
            keys = [ordered(column(s), order_items[0]) for s, _ in assignments]
        else:
            keys = [
                ordered(column(symbol_of(v)), o)
                for v, o in zip(sort_values, order_items, strict=True)
            ]
        plain_distinct = distinct is not None and not on_values
        if plain_distinct and len(assignments) > visible:
            raise ProgrammingError(
                "with SELECT DISTINCT, ORDER BY must name items of the select list",
                sql=self.binder.sql,
            )
        on = tuple(column(symbol_of(v)) for v in on_values)
        plan: Relation = Project(relation, tuple(assignments))
        if distinct is not None:
            plan = Distinct(plan, on, tuple(keys) if on else ())
        if keys:
            plan = Sort(plan, tuple(keys))
        plan = self.binder.limited(plan, self.select, self.scope)
        if len(assignments) > visible:
            plan = Project(plan, tuple((c.symbol, column(c.symbol)) for c in columns))
        return Bound(plan, columns)


def _bound_column(symbol: str) -> exp.Column:
    """A column that is a symbol already; binding leaves it alone."""
    node = column(symbol)
    node.meta["symbol"] = True
    return node


class _Grouping:
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
            for call in self.block._aggregates_in(expression):
                if call not in calls:
                    if self.block._aggregates_in_arguments(call):
                        raise ProgrammingError(
                            "an aggregate cannot contain another", sql=self.block.binder.sql
                        )
                    symbol = self.block.names.fresh(_call_name(call))
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
            if node in calls and not _is_window_call(node):
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
                if not self.block._aggregates_in(value) and not value.find(exp.Window):
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
        if self.block._aggregates_in(value):
            raise ProgrammingError("GROUP BY cannot contain aggregates", sql=self.block.binder.sql)
        return value


def _window_inputs(window: exp.Window) -> list[Expr]:
    """What a window function reads: its arguments, partition and order, not the call itself."""
    call = window.this
    while isinstance(call, _AGGREGATE_WRAPPERS):
        call = call.this
    parts: list[Expr] = list(call.iter_expressions())
    parts.extend(window.args.get("partition_by") or ())
    if window.args.get("order") is not None:
        parts.append(window.args["order"])
    node = window.this
    while isinstance(node, _AGGREGATE_WRAPPERS):
        if isinstance(node.args.get("expression"), exp.Expr):
            parts.append(node.args["expression"])
        node = node.this
    return parts


def _is_window_call(node: Expr) -> bool:
    """Whether ``node`` is the function of a window, not an aggregate of the block."""
    parent = node.parent
    while isinstance(parent, _AGGREGATE_WRAPPERS) and parent.this is node:
        node, parent = parent, parent.parent
    return isinstance(parent, exp.Window) and parent.this is node


def _call_name(call: Expr) -> str:
    while isinstance(call, _AGGREGATE_WRAPPERS):
        call = call.this
    return call.key if not isinstance(call, exp.Anonymous) else call.name


def _with_null_order(call: Expr) -> Expr:
    call = call.copy()
    for key in call.find_all(exp.Ordered):
        if key.args.get("nulls_first") is None:
            key.set("nulls_first", False)
    return call


def _tuple_items(node: Expr) -> list[Expr]:
    if isinstance(node, exp.Tuple):
        return list(node.expressions)
    return [node.this] if isinstance(node, exp.Paren) else [node]


def _renamed_free(relation: Relation, mapping: dict[str, str]) -> Relation:
    """``relation`` with correlated symbols renamed."""
    from batuta_sql.plan.relational import substitute
    from batuta_sql.plan.rewrite import map_expressions

    def rename(e: Expr) -> Expr:
        return substitute(e, lambda s: column(mapping[s]) if s in mapping else None)

    def visit(node: Relation) -> Relation:
        node = node.with_inputs(*(visit(i) for i in node.inputs))
        return map_expressions(node, rename)

    return visit(relation)
