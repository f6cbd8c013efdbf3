"""Binds one SELECT block, clause by clause, in the order in which SQL evaluates them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp

from batuta_sql.errors import ProgrammingError
from batuta_sql.frontend.aggregates import Aggregates
from batuta_sql.frontend.expressions import ExpressionBinder, place
from batuta_sql.frontend.grouping import Grouping
from batuta_sql.frontend.scope import Bound, OutputColumn, Scope, Unmodelled
from batuta_sql.plan.relational import (
    Assignment,
    Distinct,
    Expr,
    Filter,
    OneRow,
    Project,
    Relation,
    Sort,
    Window,
    column,
)

if TYPE_CHECKING:
    from batuta_sql.frontend.binder import Binder


class SelectBinder:
    """Binds one SELECT; ``scope`` is its own, still empty."""

    def __init__(self, binder: Binder, select: exp.Select, scope: Scope) -> None:
        self.binder = binder
        self.select = select
        self.scope = scope
        self.names = binder.symbols
        self.aggregates = Aggregates(binder.names.aggregate_names)

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
            or any(self.aggregates.within(e) for e in everything)
        ):
            grouping = Grouping(self, expressions)
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
        return item.meta_get("duckdb_name") or item.sql("duckdb")

    # --- clauses -------------------------------------------------------------------------------

    def _bound_clause(self, name: str, expressions: ExpressionBinder) -> Expr | None:
        clause = self.select.args.get(name)
        return expressions.bind(clause.this) if clause is not None else None

    def _refuse_aggregates(self, node: Expr, clause: str) -> None:
        for found in self.aggregates.within(node):
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
            e.copy().transform(visit, copy=False) if e is not None and e.find(exp.Window) else e
            for e in expressions
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
        if expressions.pending or self.aggregates.within(merged):
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


def _tuple_items(node: Expr) -> list[Expr]:
    if isinstance(node, exp.Tuple):
        return list(node.expressions)
    return [node.this] if isinstance(node, exp.Paren) else [node]
