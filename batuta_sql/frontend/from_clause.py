"""Binds the FROM clause: tables, subqueries, joins."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sqlglot import exp

from batuta_sql.errors import ProgrammingError
from batuta_sql.frontend.scope import (
    Bound,
    OutputColumn,
    Range,
    Scope,
    Unmodelled,
    pick,
)
from batuta_sql.plan.relational import (
    CommonScan,
    Expr,
    Filter,
    Join,
    JoinKind,
    LocalScan,
    Project,
    Relation,
    Scan,
    column,
    conjunction,
    free_symbols,
)
from batuta_sql.plan.site import TableInfo

if TYPE_CHECKING:
    from batuta_sql.frontend.binder import Binder


class FromBinder:
    """Binds FROM items into relations and enters their names into the scope."""

    def __init__(self, binder: Binder) -> None:
        self.binder = binder

    def bind(self, select: exp.Select, scope: Scope) -> Relation | None:
        """The joined relation of a SELECT, or None without FROM."""
        clause = select.args.get("from_")
        if clause is None:
            return None
        if select.args.get("laterals"):
            raise Unmodelled("LATERAL VIEW")
        relation = self.item(clause.this, scope)
        for join in select.args.get("joins") or ():
            relation = self._join(relation, join, scope)
        return relation

    def item(self, node: Expr, scope: Scope) -> Relation:
        """One FROM item with the joins that hang on it."""
        if node.args.get("pivots") or node.args.get("sample") or node.args.get("version"):
            raise Unmodelled("PIVOT, SAMPLE or AT in FROM")
        match node:
            case exp.Table():
                relation = self._table(node, scope)
            case exp.Subquery():
                relation = self._subquery(node, scope)
            case exp.Values():
                relation = self._enter(self.values(node), node, scope)
            case exp.Unnest():
                relation = self._function(node, scope)
            case _:
                raise Unmodelled(f"{type(node).__name__.upper()} in FROM")
        for join in node.args.get("joins") or ():
            relation = self._join(relation, join, scope)
        return relation

    # --- leaves --------------------------------------------------------------------------------

    def _table(self, node: exp.Table, scope: Scope) -> Relation:
        if not isinstance(node.this, exp.Identifier | exp.Dot):
            return self._function(node, scope)
        if not node.db:
            common = scope.common_table(node.name)
            if common is not None:
                return self._common(node, common, scope)
        table = self.binder.names.resolve(node, self.binder.sql)
        if isinstance(table, TableInfo):
            columns = tuple((self.binder.symbols.fresh(c.name), c) for c in table.columns)
            relation: Relation = Scan(table, columns)
            outputs = tuple(OutputColumn(c.name, s) for s, c in columns)
            qualifiers = table.qualified_parts
        elif isinstance(table, exp.Expr):
            # A view of the session: its definition in its place.
            bound = self.binder.query(table, Scope())
            return self._named(bound.plan, bound.columns, node, (node.name,), scope)
        else:
            local = tuple((self.binder.symbols.fresh(n), n) for n in table.column_names)
            relation = LocalScan(table.relation.copy(), local, rows=table.rows)
            outputs = tuple(OutputColumn(n, s) for s, n in local)
            qualifiers = tuple(p.name for p in node.parts)
        return self._named(relation, outputs, node, qualifiers, scope)

    def _common(self, node: exp.Table, common: object, scope: Scope) -> Relation:
        from batuta_sql.frontend.scope import CommonTable

        assert isinstance(common, CommonTable)
        bound = self.binder.common_table(common)
        if common.shared:
            pairs = tuple((self.binder.symbols.fresh(c.name), c.symbol) for c in bound.columns)
            outputs = tuple(
                OutputColumn(c.name, s) for c, (s, _) in zip(bound.columns, pairs, strict=True)
            )
            return self._named(
                CommonScan(common.plan_name, pairs), outputs, node, (node.name,), scope
            )
        return self._named(bound.plan, bound.columns, node, (node.name,), scope)

    def _subquery(self, node: exp.Subquery, scope: Scope) -> Relation:
        if isinstance(node.this, exp.Table | exp.Subquery) and not isinstance(node.this, exp.Query):
            return self._parenthesis(node, scope)
        inner = node.this
        if isinstance(inner, exp.Table):
            return self._parenthesis(node, scope)
        # Its siblings are in reach only so that a lateral reference is recognised.
        bound = self.binder.query(inner, scope)
        if free_symbols(bound.plan) & _siblings(scope):
            raise Unmodelled("a lateral subquery")
        return self._enter(bound, node, scope)

    def _parenthesis(self, node: exp.Subquery, scope: Scope) -> Relation:
        """``(a JOIN b ON ...)``: its tables stay visible unless it has an alias."""
        if not node.alias:
            relation = self.item(node.this, scope)
            return relation
        inner = Scope(parent=scope.parent, common_tables=scope.common_tables)
        inner.siblings = [*scope.ranges, *scope.siblings]
        relation = self.item(node.this, inner)
        outputs = tuple(c for r in inner.ranges for c in r.columns)
        return self._named(relation, outputs, node, (node.alias,), scope)

    def values(self, node: exp.Values) -> Bound:
        """A VALUES list; DuckDB calls its columns col0, col1, ..."""
        if node.find(exp.Column, exp.Query):
            raise Unmodelled("a column or subquery in VALUES")
        binder = self.binder.expressions(Scope())
        bound = binder.bind(node)
        bound.set("alias", None)
        names = self.binder.names.describe_function(bound)
        columns = tuple((self.binder.symbols.fresh(n), n) for n in names)
        scan = LocalScan(exp.Subquery(this=bound), columns, rows=float(len(node.expressions)))
        return Bound(scan, tuple(OutputColumn(n, s) for s, n in columns))

    def _function(self, node: Expr, scope: Scope) -> Relation:
        """A table function such as range(10) or unnest([...]) that reads no column."""
        for part in node.find_all(exp.Column):
            if not isinstance(part.parent, exp.PropertyEQ):
                raise Unmodelled("a lateral table function")
        if node.find(exp.Query):
            raise Unmodelled("a subquery in a table function")
        bare = node.copy()
        bare.set("joins", None)
        bound = self.binder.expressions(Scope()).bind(bare)
        alias = bound.args.get("alias")
        bound.set("alias", None)
        names = self.binder.names.describe_function(bound)
        if alias is not None:
            bound.set("alias", alias)
            names = self.binder.names.describe_function(bound)
            bound.set("alias", None)
        columns = tuple((self.binder.symbols.fresh(n), n) for n in names)
        outputs = tuple(OutputColumn(n, s) for s, n in columns)
        if alias is not None:
            kept = exp.TableAlias(
                this=exp.to_identifier("f", quoted=True),
                columns=[exp.to_identifier(n, quoted=True) for n in names],
            )
            bound.set("alias", kept)
        relation = LocalScan(bound, columns)
        name = node.alias or (node.name if isinstance(node, exp.Table) else "unnest")
        scope.ranges.append(Range((name or "unnest",), outputs))
        return relation

    # --- names ---------------------------------------------------------------------------------

    def _enter(self, bound: Bound, node: Expr, scope: Scope) -> Relation:
        qualifiers = (node.alias,) if node.alias else ()
        return self._named(bound.plan, bound.columns, node, qualifiers, scope)

    def _named(
        self,
        relation: Relation,
        outputs: tuple[OutputColumn, ...],
        node: Expr,
        qualifiers: tuple[str, ...],
        scope: Scope,
    ) -> Relation:
        from batuta_sql.frontend.binder import renamed

        alias = node.args.get("alias")
        if alias is not None:
            names = [c.name for c in alias.args.get("columns") or ()]
            outputs = renamed(Bound(relation, outputs), names).columns
            if alias.this is not None:
                qualifiers = (alias.name,)
        scope.ranges.append(Range(qualifiers, outputs))
        return relation

    # --- joins ---------------------------------------------------------------------------------

    def _join(self, left: Relation, node: exp.Join, scope: Scope) -> Relation:
        method = (node.method or "").upper()
        if method not in ("", "ASOF", "NATURAL"):
            raise Unmodelled(f"a {method} JOIN")
        kind = _join_kind(node, method)
        before = len(scope.ranges)
        # The right side is bound in a scope of its own, then enters this one.
        inner = Scope(parent=scope.parent, common_tables=scope.common_tables)
        inner.ranges = []
        if isinstance(node.this, exp.Lateral):
            raise Unmodelled("a lateral join")
        right = self.item(node.this, _beside(scope, inner))
        right_ranges = inner.ranges
        left_ranges = scope.ranges[:before]
        using = [u.name for u in node.args.get("using") or ()]
        if method == "NATURAL":
            using = _natural(left_ranges, right_ranges)
        if using:
            if kind.startswith("ASOF"):
                raise Unmodelled("ASOF JOIN with USING")
            return self._join_using(left, right, kind, using, scope, right_ranges)
        on_node = node.args.get("on")
        scope.ranges = left_ranges + right_ranges
        relation = self._join_on(left, right, kind, on_node, scope)
        if kind in ("SEMI", "ANTI"):
            scope.ranges = left_ranges
        return relation

    def _join_on(
        self, left: Relation, right: Relation, kind: JoinKind, on: Expr | None, scope: Scope
    ) -> Relation:
        if on is None:
            if kind != "INNER" and kind != "CROSS":
                raise Unmodelled(f"a {kind} JOIN without ON")
            return Join(left, right, "CROSS")
        binder = self.binder.expressions(scope)
        condition = binder.bind(on)
        if not binder.pending:
            return Join(left, right, "INNER" if kind == "CROSS" else kind, condition)
        if kind not in ("INNER", "CROSS"):
            raise Unmodelled("a subquery in the condition of an outer join")
        joined = binder.attach(Join(left, right, "CROSS"), condition)
        return Filter(joined, condition)

    def _join_using(
        self,
        left: Relation,
        right: Relation,
        kind: JoinKind,
        using: list[str],
        scope: Scope,
        right_ranges: list[Range],
    ) -> Relation:
        parts: list[Expr] = []
        merged: list[tuple[str, str, str]] = []
        for name in using:
            a = _single(scope.unqualified(name), name, "left", self.binder.sql)
            right_scope = Scope(ranges=right_ranges)
            b = _single(right_scope.unqualified(name), name, "right", self.binder.sql)
            parts.append(exp.EQ(this=column(a.symbol), expression=column(b.symbol)))
            merged.append((name, a.symbol, b.symbol))
        relation: Relation = Join(left, right, kind, conjunction(parts))
        if kind in ("SEMI", "ANTI"):
            return relation
        computed: list[tuple[str, Expr]] = []
        for name, a_symbol, b_symbol in merged:
            lower = name.lower()
            if kind == "FULL":
                symbol = self.binder.symbols.fresh(name)
                both = exp.Coalesce(this=column(a_symbol), expressions=[column(b_symbol)])
                computed.append((symbol, both))
                scope.using[lower] = symbol
            elif kind == "RIGHT":
                scope.using[lower] = b_symbol
            else:
                scope.using[lower] = a_symbol
            for item in right_ranges:
                if item.find(name):
                    item.merged.add(lower)
        scope.ranges = scope.ranges + right_ranges
        if computed:
            kept = tuple((s, cast(Expr, column(s))) for s in relation.symbols)
            relation = Project(relation, kept + tuple(computed))
        return relation


def _join_kind(node: exp.Join, method: str) -> JoinKind:
    side, kind = (node.side or "").upper(), (node.kind or "").upper()
    if method == "ASOF":
        match side:
            case "":
                return "ASOF"
            case "LEFT":
                return "ASOF LEFT"
        raise Unmodelled(f"an ASOF {side} JOIN")
    if kind in ("SEMI", "ANTI", "CROSS"):
        return cast(JoinKind, kind)
    if side in ("LEFT", "RIGHT", "FULL"):
        return cast(JoinKind, side)
    if kind in ("", "INNER", "OUTER"):
        return "INNER"
    raise Unmodelled(f"a {kind} JOIN")


def _natural(left: list[Range], right: list[Range]) -> list[str]:
    right_names = {c.name.lower() for r in right for c in r.columns}
    names: list[str] = []
    for item in left:
        for c in item.columns:
            if c.name.lower() in right_names and c.name.lower() not in item.merged:
                names.append(c.name)
    if not names:
        raise ProgrammingError("NATURAL JOIN needs a column of the same name on both sides")
    return list(dict.fromkeys(names))


def _single(found: list[OutputColumn], name: str, side: str, sql: str) -> OutputColumn:
    if len(found) == 1:
        return found[0]
    found = pick(name, found)
    if len(found) == 1:
        return found[0]
    what = "is ambiguous" if found else "does not exist"
    raise ProgrammingError(f'USING column "{name}" {what} on the {side} side of the join')


def _siblings(scope: Scope) -> set[str]:
    return {c.symbol for r in (*scope.ranges, *scope.siblings) for c in r.columns}


def _beside(scope: Scope, inner: Scope) -> Scope:
    """The scope of a join's right side: ranges of its own, the left ones as its surroundings."""
    around = Scope(parent=scope.parent, ranges=scope.ranges, using=scope.using)
    around.common_tables = scope.common_tables
    inner.parent = around
    inner.siblings = [*scope.ranges, *scope.siblings]
    return inner
