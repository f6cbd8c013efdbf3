"""Binds a parsed query to the catalog: a sqlglot tree becomes relational operators.

A block with a construct that the operators do not model raises ``Unmodelled``; the nearest block
around it that can stand alone becomes a ``LocalScan`` of its own SQL (the fallback), whose tables
are read by pruned scans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

from sqlglot import exp

from batuta_sql.errors import Error, ProgrammingError
from batuta_sql.frontend.expressions import ExpressionBinder, Parameters, SymbolMaker
from batuta_sql.frontend.from_clause import FromBinder
from batuta_sql.frontend.scope import (
    Bound,
    CommonTable,
    OutputColumn,
    Scope,
    Unmodelled,
)
from batuta_sql.frontend.select import SelectBinder
from batuta_sql.plan.relational import (
    Expr,
    Filter,
    Limit,
    LocalScan,
    Project,
    Relation,
    SetKind,
    SetOperation,
    Sort,
    With,
    column,
    free_symbols,
)
from batuta_sql.plan.site import TableInfo


class Names(Protocol):
    """What the binder asks of the world: tables by name, and DuckDB's own opinion of a block."""

    @property
    def aggregate_names(self) -> frozenset[str]:
        """Lower-cased names of all aggregate functions of the residual engine."""
        ...

    def resolve(self, table: exp.Table, sql: str) -> TableInfo | LocalTable | Expr:
        """The table a FROM item names, or the definition of a view.

        :raises ProgrammingError: where there is none, or several.
        """
        ...

    def fallback(self, query: Expr, sql: str) -> tuple[LocalScan, list[str]]:
        """A block that the residual engine runs as it is; the names of its output columns.

        :raises ProgrammingError: where DuckDB does not accept it either.
        """
        ...

    def describe_function(self, item: Expr) -> list[str]:
        """The column names of a table function or VALUES list that reads no table."""
        ...


@dataclass(frozen=True)
class LocalTable:
    """A table, view or registered frame of the residual engine.

    :param rows: how many it has; None where that is not known.
    """

    relation: exp.Table
    column_names: tuple[str, ...]
    rows: float | None = None


class Binder:
    """Binds one statement. ``sql`` is its text, for positions in errors."""

    def __init__(self, names: Names, sql: str, parameters: Parameters) -> None:
        self.names = names
        self.sql = sql
        self.parameters = parameters
        self.symbols = SymbolMaker()
        self.from_clause = FromBinder(self)

    def bind(self, query: Expr) -> Bound:
        """The plan of a whole query and its output columns."""
        return self.query(query, Scope())

    def expressions(self, scope: Scope) -> ExpressionBinder:
        return ExpressionBinder(scope, self.symbols, self.query, self.parameters, self.sql)

    # --- queries -------------------------------------------------------------------------------

    def query(self, node: Expr, outer: Scope) -> Bound:
        """Binds any query expression; falls back where the block can stand alone."""
        try:
            return self._query(node, outer)
        except Unmodelled as gap:
            return self._fallback(node, outer, gap.reason, gap)
        except ProgrammingError as error:
            # Our own binder knows less than DuckDB's: ask it before refusing.
            try:
                return self._fallback(node, outer, "the binder does not know a name", error)
            except (Unmodelled, Error):
                raise error from None

    def _query(self, node: Expr, outer: Scope) -> Bound:
        scope = Scope(parent=outer)
        shared = self._common_tables(node, scope)
        match node:
            case exp.Subquery():
                bound = self._query_body(node.this, scope)
                bound = self._tail(bound, node, scope)
            case _:
                bound = self._query_body(node, scope)
        for table in reversed(shared):
            if table.bound is not None:
                bound = replace(bound, plan=With(table.plan_name, table.bound.plan, bound.plan))
        return bound

    def _query_body(self, node: Expr, scope: Scope) -> Bound:
        match node:
            case exp.Select():
                if node.args.get("with_") and scope.common_tables == {}:
                    return self.query(node, scope)
                return SelectBinder(self, node, Scope(parent=scope)).bind()
            case exp.SetOperation():
                return self._tail(self._set_operation(node, scope), node, scope)
            case exp.Subquery():
                return self.query(node, scope)
            case exp.Values():
                return self.from_clause.values(node)
            case exp.Table():
                star = exp.select("*").from_(node.copy())
                return SelectBinder(self, star, Scope(parent=scope)).bind()
        raise Unmodelled(f"{type(node).__name__.upper()} as a query")

    def _common_tables(self, node: Expr, scope: Scope) -> list[CommonTable]:
        clause = node.args.get("with_")
        if clause is None:
            return []
        if clause.args.get("recursive") and _is_recursive(clause):
            raise Unmodelled("a recursive common table expression")
        shared: list[CommonTable] = []
        body_tables = [t.name.lower() for t in node.find_all(exp.Table) if not t.db]
        for cte in clause.expressions:
            if cte.args.get("key_expressions"):
                raise Unmodelled("USING KEY in a common table expression")
            # Names inside see the entries before it, not those after it.
            inner = Scope(parent=scope.parent, common_tables=dict(scope.common_tables))
            alias = cte.args["alias"]
            uses = body_tables.count(cte.alias.lower())
            table = CommonTable(
                cte.alias,
                cte.this,
                tuple(c.name for c in alias.args.get("columns") or ()),
                inner,
                shared=uses > 1,
            )
            if table.shared:
                shared.append(table)
            scope.common_tables[cte.alias.lower()] = table
        return shared

    def common_table(self, table: CommonTable) -> Bound:
        """The bound definition of a WITH entry."""
        if table.shared and table.bound is not None:
            return table.bound
        bound = self.query(table.query, table.scope)
        if free_symbols(bound.plan):
            raise Unmodelled("a correlated common table expression")
        bound = renamed(bound, table.column_names)
        if table.shared:
            table.plan_name = self.symbols.fresh(table.name)
            table.bound = bound
        return bound

    # --- set operations ------------------------------------------------------------------------

    def _set_operation(self, node: exp.SetOperation, scope: Scope) -> Bound:
        left = self.query(node.left, scope)
        right = self.query(node.right, scope)
        kind = cast(SetKind, type(node).__name__.upper())
        if node.args.get("by_name"):
            left, right = self._by_name(left, right)
        if len(left.columns) != len(right.columns):
            raise ProgrammingError(
                f"{kind} needs the same number of columns on both sides:"
                f" {len(left.columns)} and {len(right.columns)}",
                sql=self.sql,
            )
        columns = tuple(
            (self.symbols.fresh(a.name), a.symbol, b.symbol)
            for a, b in zip(left.columns, right.columns, strict=True)
        )
        plan = SetOperation(
            left.plan, right.plan, kind, not node.args.get("distinct", True), columns
        )
        names = [c.name for c in left.columns]
        return Bound(
            plan,
            tuple(OutputColumn(n, s) for n, (s, _, _) in zip(names, columns, strict=True)),
        )

    def _by_name(self, left: Bound, right: Bound) -> tuple[Bound, Bound]:
        names = [c.name for c in left.columns]
        lower = {n.lower() for n in names}
        names += [c.name for c in right.columns if c.name.lower() not in lower]

        def widen(side: Bound) -> Bound:
            by_name = {c.name.lower(): c.symbol for c in side.columns}
            columns: list[OutputColumn] = []
            assignments: list[tuple[str, Expr]] = []
            for name in names:
                symbol = by_name.get(name.lower())
                new = self.symbols.fresh(name)
                assignments.append((new, column(symbol) if symbol else exp.Null()))
                columns.append(OutputColumn(name, new))
            return Bound(Project(side.plan, tuple(assignments)), tuple(columns))

        return widen(left), widen(right)

    # --- ORDER BY and LIMIT after a set operation or a parenthesis -----------------------------

    def _tail(self, bound: Bound, node: Expr, scope: Scope) -> Bound:
        if node.args.get("pivots") or node.args.get("sample"):
            raise Unmodelled("PIVOT or SAMPLE")
        plan = bound.plan
        order = node.args.get("order")
        if order is not None:
            plan = Sort(plan, tuple(self._output_keys(order, bound)))
        return replace(bound, plan=self.limited(plan, node, scope))

    def _output_keys(self, order: exp.Order, bound: Bound) -> list[exp.Ordered]:
        keys: list[exp.Ordered] = []
        for item in order.expressions:
            key = item.this
            if is_all(key):
                return [ordered(column(c.symbol), item) for c in bound.columns]
            if isinstance(key, exp.Literal) and not key.is_string:
                keys.append(ordered(column(nth(bound.columns, key, self.sql).symbol), item))
                continue
            inner = Scope()
            from batuta_sql.frontend.scope import Range

            inner.ranges = [Range((), bound.columns)]
            binder = self.expressions(inner)
            value = binder.bind(key)
            if binder.pending:
                raise Unmodelled("a subquery in ORDER BY of a set operation")
            keys.append(ordered(value, item))
        return keys

    def limited(self, plan: Relation, node: Expr, scope: Scope) -> Relation:
        """``plan`` under the LIMIT and OFFSET of ``node``."""
        limit, offset = node.args.get("limit"), node.args.get("offset")
        if limit is None and offset is None:
            return plan
        if isinstance(limit, exp.Fetch):
            raise Unmodelled("FETCH FIRST")
        count = limit.expression if limit is not None else None
        percent = bool(limit is not None and limit.args.get("limit_options"))
        parts: list[Expr | None] = []
        for part in (count, offset.expression if offset is not None else None):
            if part is None:
                parts.append(None)
                continue
            binder = self.expressions(Scope())
            value = binder.bind(part)
            if binder.pending or value.find(exp.Column):
                raise Unmodelled("a subquery in LIMIT")
            parts.append(value)
        return Limit(plan, parts[0], parts[1], percent)

    # --- the fallback --------------------------------------------------------------------------

    def _fallback(self, node: Expr, outer: Scope, reason: str, cause: Exception) -> Bound:
        """The block as SQL that DuckDB runs over scans, where it stands alone."""
        query = self._with_definitions(node, outer)
        scan, names = self.names.fallback(self.parameters.put_into(query), self.sql)
        columns = tuple(
            (self.symbols.fresh(n), p) for n, (_, p) in zip(names, scan.columns, strict=True)
        )
        scan = replace(scan, columns=columns, reason=reason)
        outputs = zip(names, columns, strict=True)
        return Bound(scan, tuple(OutputColumn(n, s) for n, (s, _) in outputs))

    @staticmethod
    def _with_definitions(node: Expr, outer: Scope) -> Expr:
        """``node`` with the WITH entries around it that it uses, so that it stands alone."""
        query = node.copy()
        if isinstance(query, exp.Subquery) and not query.args.get("with_"):
            tail = any(query.args.get(k) for k in ("order", "limit", "offset", "pivots", "sample"))
            if not tail and isinstance(query.this, exp.Query):
                query = query.this
        visible = outer.visible_common_tables()
        wanted: list[str] = []

        def collect(expression: Expr) -> None:
            for table in expression.find_all(exp.Table):
                name = table.name.lower()
                if not table.db and name in visible and name not in wanted:
                    collect(visible[name].query)
                    wanted.append(name)

        collect(query)
        own = query.args.get("with_")
        defined = {c.alias.lower() for c in own.expressions} if own else set()
        entries = []
        for name in wanted:
            if name in defined:
                continue
            table = visible[name]
            alias = exp.TableAlias(
                this=exp.to_identifier(table.name, quoted=True),
                columns=[exp.to_identifier(c, quoted=True) for c in table.column_names],
            )
            entries.append(exp.CTE(this=table.query.copy(), alias=alias))
        if entries:
            recursive = bool(own and own.args.get("recursive"))
            query.set(
                "with_",
                exp.With(
                    expressions=entries + (list(own.expressions) if own else []),
                    recursive=recursive,
                ),
            )
        return query


def renamed(bound: Bound, names: Sequence[str]) -> Bound:
    """``bound`` with its first columns called by ``names``: ``AS t(a, b)``."""
    if not names:
        return bound
    if len(names) > len(bound.columns):
        raise ProgrammingError(
            f"{len(names)} column aliases for a relation of {len(bound.columns)} columns"
        )
    columns = tuple(
        OutputColumn(names[i] if i < len(names) else c.name, c.symbol)
        for i, c in enumerate(bound.columns)
    )
    return replace(bound, columns=columns)


def nth(columns: Sequence[OutputColumn], literal: exp.Literal, sql: str) -> OutputColumn:
    """The output column that an ordinal in ORDER BY or GROUP BY means."""
    try:
        position = int(literal.name)
    except ValueError:
        raise Unmodelled("a constant in ORDER BY or GROUP BY") from None
    if not 1 <= position <= len(columns):
        raise ProgrammingError(
            f"position {position} is not in the select list of {len(columns)} columns", sql=sql
        )
    return columns[position - 1]


def ordered(key: Expr, like: Expr) -> exp.Ordered:
    """A sort key with its direction, and NULLs placed explicitly (DuckDB's default: last)."""
    nulls_first = bool(like.args.get("nulls_first")) if isinstance(like, exp.Ordered) else False
    desc = bool(like.args.get("desc")) if isinstance(like, exp.Ordered) else False
    return exp.Ordered(this=key, desc=desc, nulls_first=nulls_first)


def is_all(key: Expr) -> bool:
    """Whether a key is the word ALL of ORDER BY ALL."""
    return (
        isinstance(key, exp.Column)
        and not key.table
        and key.name.upper() == "ALL"
        and not (isinstance(key.this, exp.Identifier) and key.this.quoted)
    ) or (isinstance(key, exp.Var) and key.name.upper() == "ALL")


def _is_recursive(clause: exp.With) -> bool:
    return any(
        table.name.lower() == cte.alias.lower() and not table.db
        for cte in clause.expressions
        for table in cte.this.find_all(exp.Table)
    )


__all__ = ["Binder", "Filter", "LocalTable", "Names", "is_all", "nth", "ordered", "renamed"]
