"""Operators -> SELECT statements that read as a person would write them.

Each operator adds to the block below it while SQL's order of evaluation allows, and wraps it in a
derived table where not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from sqlglot import exp

from batuta_sql.plan.relational import (
    Aggregate,
    Apply,
    CommonScan,
    Distinct,
    Exchange,
    Expr,
    Filter,
    Join,
    Limit,
    LocalScan,
    OneRow,
    Project,
    Relation,
    Scan,
    SetOperation,
    Sort,
    Window,
    With,
    conjuncts,
    is_stable,
    references,
)
from batuta_sql.plan.site import Capabilities
from batuta_sql.plan.text_codes import coded
from batuta_sql.plan.translate import (
    CORRELATED,
    NotPushable,
    Translator,
    Typed,
    WireColumn,
    quoted_column,
    quoted_table,
)

_EVALUATED_ELSEWHERE = "the WITH entry is evaluated elsewhere"


class Stage(IntEnum):
    """The last clause that a block has; a clause may only follow earlier ones."""

    FROM = 0
    WHERE = 1
    GROUP = 2
    HAVING = 3
    WINDOW = 4
    SELECT = 5
    DISTINCT = 6
    ORDER = 7
    LIMIT = 8


@dataclass(frozen=True)
class Delivery:
    """Where the rows of an Exchange are read, and the expressions that restore its columns.

    In an expression ``{}`` stands for the arrived column; a symbol without one is read as it is.
    """

    table: tuple[str, ...]
    decode: Mapping[str, str]


@dataclass
class Block:
    """A SELECT under construction. ``columns`` gives each symbol in the block's own terms."""

    relation: Expr | None
    columns: dict[str, Typed]
    stage: Stage = Stage.FROM
    joins: list[exp.Join] = field(default_factory=list)
    where: list[Expr] = field(default_factory=list)
    group: exp.Group | None = None
    having: list[Expr] = field(default_factory=list)
    distinct: exp.Distinct | None = None
    order: list[exp.Ordered] = field(default_factory=list)
    limit: Expr | None = None
    offset: Expr | None = None
    percent: bool = False
    aggregated: bool = False
    computed: set[str] = field(default_factory=set)
    """Symbols that are more than a column: using one twice would compute it twice."""


Refused = dict[int, tuple[Relation, NotPushable]]
"""Of operators by id, which is only good while they live, why one site cannot run them."""


class Unparser:
    """Writes one statement for one site.

    :param refused: what is known to have no SQL there; it is added to.
    """

    def __init__(
        self,
        translator: Translator,
        capabilities: Capabilities | None = None,
        deliveries: Mapping[str, Delivery] | None = None,
        refused: Refused | None = None,
    ) -> None:
        self.refused: Refused = {} if refused is None else refused
        self.translator = translator
        self.capabilities = capabilities
        self.deliveries = deliveries or {}
        self.count = 0
        self.common: dict[str, dict[str, Typed]] = {}
        self.outer: list[dict[str, Typed]] = []

    # --- whole statements ----------------------------------------------------------------------

    def statement(self, relation: Relation, outputs: Sequence[tuple[str, str]]) -> exp.Query:
        """``relation`` as a query whose columns are ``outputs``: pairs of a name and a symbol."""
        entries: list[exp.CTE] = []
        while isinstance(relation, With):
            entries.append(self._common_entry(relation))
            relation = relation.body
        block = self.block(relation)
        query = self._select(block, [(n, block.columns[s].sql) for n, s in outputs])
        if entries:
            query.set("with_", exp.With(expressions=entries))
        return query

    def remote_statement(
        self, relation: Relation
    ) -> tuple[exp.Query, tuple[tuple[str, WireColumn], ...]]:
        """``relation`` as a query that selects each symbol in the form in which it travels."""
        entries: list[exp.CTE] = []
        symbols = relation.symbols
        while isinstance(relation, With):
            entries.append(self._common_entry(relation))
            relation = relation.body
        block = self.block(relation)
        columns = tuple((s, self.translator.wire(block.columns[s])) for s in symbols)
        encoded = any(w.sql != block.columns[s].sql for s, w in columns)
        if (block.distinct is not None or block.order) and encoded:
            # The form in which a column travels must not take part in DISTINCT or ORDER BY.
            block = self._sealed(block, symbols)
            columns = tuple((s, self.translator.wire(block.columns[s])) for s in symbols)
        least = self.capabilities.codes_from if self.capabilities is not None else None
        if least is not None and block.stage <= Stage.WHERE:
            columns = tuple((s, coded(block.columns[s], w, least)) for s, w in columns)
        query = self._select(block, [(s, w.sql) for s, w in columns])
        if entries:
            query.set("with_", exp.With(expressions=entries))
        return query, columns

    def _common_entry(self, node: With) -> exp.CTE:
        if self.capabilities is not None and not self.capabilities.common_tables:
            raise NotPushable("it has no WITH")
        block = self.block(node.definition)
        values = {s: self._settled(block.columns[s]) for s in node.definition.symbols}
        query = self._select(block, [(s, values[s].sql) for s in node.definition.symbols])
        self.common[node.name] = values
        return exp.CTE(
            this=query,
            alias=exp.TableAlias(this=exp.to_identifier(node.name, quoted=True)),
            materialized=True if self.capabilities is None else None,
        )

    def query(self, relation: Relation) -> tuple[exp.Query, dict[str, Typed]]:
        """``relation`` as a query that names each column by its symbol."""
        block = self.block(relation)
        symbols = relation.symbols
        values = {s: self._settled(block.columns[s]) for s in symbols}
        return self._select(block, [(s, values[s].sql) for s in symbols]), values

    # --- blocks --------------------------------------------------------------------------------

    def block(self, node: Relation) -> Block:
        """
        :raises NotPushable: naming what the site is not proved to do.
        """
        if (known := self.refused.get(id(node))) is not None:
            raise known[1]
        try:
            return self._block(node)
        except NotPushable as reason:
            # What stands around an operator may have what it misses.
            if reason.reason not in (CORRELATED, _EVALUATED_ELSEWHERE):
                self.refused[id(node)] = (node, reason)
            raise

    def _block(self, node: Relation) -> Block:
        match node:
            case Scan():
                return self._scan(node)
            case LocalScan():
                return self._local_scan(node)
            case OneRow():
                return Block(None, {})
            case Exchange():
                return self._exchange(node)
            case CommonScan():
                return self._common_scan(node)
            case SetOperation():
                return self._set_operation(node)
            case Join():
                return self._join(node)
            case With():
                # A WITH inside a plan becomes a derived table with a WITH of its own.
                query = self.statement(node, [(s, s) for s in node.symbols])
                return self._derived(query, {s: Typed(column_of(s)) for s in node.symbols})
        block = self.block(node.inputs[0])
        match node:
            case Filter():
                return self._filter(block, node)
            case Project():
                return self._project(block, node)
            case Aggregate():
                return self._aggregate(block, node)
            case Window():
                return self._window(block, node)
            case Distinct():
                return self._distinct(block, node)
            case Sort():
                return self._sort(block, node)
            case Limit():
                return self._limit(block, node)
            case Apply():
                return self._apply(block, node)
        raise NotPushable(f"{type(node).__name__} has no SQL")

    def _alias(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def _scan(self, node: Scan) -> Block:
        alias = self._alias()
        table = self.translator.table(node.table)
        table.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
        columns = {s: self.translator.scanned(c, alias) for s, c in node.columns}
        return Block(table, columns)

    def _local_scan(self, node: LocalScan) -> Block:
        if self.capabilities is not None:
            raise NotPushable("it reads a local relation")
        alias = self._alias()
        relation = node.relation.copy()
        if relation.args.get("alias") is not None:
            names = relation.args["alias"].args.get("columns")
            relation.set(
                "alias",
                exp.TableAlias(this=exp.to_identifier(alias, quoted=True), columns=names),
            )
        else:
            relation.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
        return Block(relation, {s: Typed(quoted_column(n, alias)) for s, n in node.columns})

    def _exchange(self, node: Exchange) -> Block:
        """What a fragment delivered, each column restored as it is read."""
        alias = self._alias()
        delivery = self.deliveries.get(node.name, Delivery((node.name,), {}))
        table = quoted_table(delivery.table)
        table.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
        columns: dict[str, Typed] = {}
        computed: set[str] = set()
        for symbol in node.symbols:
            reference = quoted_column(symbol, alias)
            decode = delivery.decode.get(symbol)
            if decode is None:
                columns[symbol] = Typed(reference)
            else:
                columns[symbol] = Typed(exp.Var(this=decode.replace("{}", reference.sql("duckdb"))))
                computed.add(symbol)
        return Block(table, columns, computed=computed)

    def _common_scan(self, node: CommonScan) -> Block:
        known = self.common.get(node.name)
        if known is None:
            raise NotPushable(_EVALUATED_ELSEWHERE)
        alias = self._alias()
        table = quoted_table((node.name,))
        table.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
        columns = {
            s: Typed(quoted_column(source, alias), known[source].type, known[source].collation)
            for s, source in node.columns
        }
        return Block(table, columns)

    def _derived(self, query: exp.Query, values: dict[str, Typed]) -> Block:
        alias = self._alias()
        relation = exp.Subquery(
            this=query, alias=exp.TableAlias(this=exp.to_identifier(alias, quoted=True))
        )
        columns = {
            s: Typed(quoted_column(s, alias), v.type, v.collation) for s, v in values.items()
        }
        return Block(relation, columns)

    def _sealed(self, block: Block, symbols: Sequence[str]) -> Block:
        """``block`` as a derived table, so that any clause may follow."""
        values = {s: self._settled(block.columns[s]) for s in symbols}
        return self._derived(self._select(block, [(s, v.sql) for s, v in values.items()]), values)

    def _settled(self, value: Typed) -> Typed:
        return value

    def _upto(self, block: Block, stage: Stage, symbols: Sequence[str]) -> Block:
        return block if block.stage <= stage else self._sealed(block, symbols)

    # --- operators -----------------------------------------------------------------------------

    def _environment(self, block: Block) -> dict[str, Typed]:
        merged: dict[str, Typed] = {}
        for outer in self.outer:
            merged |= outer
        return merged | block.columns

    def _filter(self, block: Block, node: Filter) -> Block:
        if block.aggregated and block.stage <= Stage.HAVING:
            target, stage = block.having, Stage.HAVING
        else:
            block = self._upto(block, Stage.WHERE, node.input.symbols)
            block = self._without_windows(block, node.input.symbols)
            target, stage = block.where, Stage.WHERE
        environment = self._environment(block)
        for part in conjuncts(node.condition):
            target.append(self.translator.predicate(part, environment))
        block.stage = max(block.stage, stage)
        return block

    def _without_windows(self, block: Block, symbols: Sequence[str]) -> Block:
        if any(v.sql.find(exp.Window) for v in block.columns.values()):
            return self._sealed(block, symbols)
        return block

    def _project(self, block: Block, node: Project) -> Block:
        # Row-wise expressions may follow ORDER BY and LIMIT in one block, and must: a derived
        # table would lose the order.
        after = Stage.LIMIT if block.distinct is None and _row_wise(node) else Stage.SELECT
        block = self._upto(block, after, node.input.symbols)
        if self._computes_twice(block, node):
            block = self._sealed(block, node.input.symbols)
        environment = self._environment(block)
        columns: dict[str, Typed] = {}
        computed: set[str] = set()
        for symbol, expression in node.assignments:
            columns[symbol] = self.translator.scalar(expression, environment)
            if not isinstance(expression, exp.Column) or expression.name in block.computed:
                computed.add(symbol)
        block.columns = columns
        block.computed = computed
        return block

    def _computes_twice(self, block: Block, node: Project) -> bool:
        """Whether merging would evaluate a computed column several times, or nest windows."""
        uses: dict[str, int] = {}
        for expression in node.expressions:
            for reference in expression.find_all(exp.Column):
                uses[reference.name] = uses.get(reference.name, 0) + 1
        for symbol, count in uses.items():
            if symbol not in block.computed:
                continue
            value = block.columns[symbol].sql
            trivial = isinstance(value, exp.Literal | exp.Null | exp.Boolean | exp.Column)
            if not trivial and (count > 1 or not is_stable(value)):
                return True
        if any(not is_stable(e) for e in node.expressions):
            return block.stage > Stage.WHERE
        return False

    def _aggregate(self, block: Block, node: Aggregate) -> Block:
        block = self._upto(block, Stage.WHERE, node.input.symbols)
        block = self._without_windows(block, node.input.symbols)
        if any(not is_stable(block.columns[s].sql) for s in block.computed):
            block = self._sealed(block, node.input.symbols)
        if self.capabilities is not None and self.capabilities.groups_by_columns:
            block, node = self._with_key_columns(block, node)
        environment = self._environment(block)
        keys = [(s, self.translator.group_key(e, environment)) for s, e in node.keys]
        calls = [(s, self.translator.aggregate(e, environment)) for s, e in node.aggregates]
        group = exp.Group(expressions=[group_term(v.sql) for _, v in keys])
        if node.grouping_sets is not None:
            if self.capabilities is not None and self.capabilities.dialect != "duckdb":
                raise NotPushable("grouping sets")
            sets = [
                exp.Tuple(expressions=[keys[i][1].sql.copy() for i in chosen])
                for chosen in node.grouping_sets
            ]
            group = exp.Group(expressions=[exp.GroupingSets(expressions=sets)])
        block.group = group if keys else None
        block.columns = dict(keys + calls)
        block.computed = {s for s, _ in node.aggregates} | {
            s for s, e in node.keys if not isinstance(e, exp.Column)
        }
        block.stage = Stage.GROUP
        block.aggregated = True
        return block

    def _with_key_columns(self, block: Block, node: Aggregate) -> tuple[Block, Aggregate]:
        """The block below with each computed key as a column of its own."""
        environment = self._environment(block)
        computed = {
            s: e
            for s, e in node.keys
            if not isinstance(self.translator.scalar(e, environment).sql, exp.Column)
        }
        if not computed:
            return block, node
        kept = tuple((s, column_of(s)) for s in node.input.symbols)
        below = Project(node.input, (*kept, *computed.items()))
        block = self._sealed(self._project(block, below), below.symbols)
        keys = tuple((s, column_of(s) if s in computed else e) for s, e in node.keys)
        return block, replace(node, input=below, keys=keys)

    def _window(self, block: Block, node: Window) -> Block:
        if self.capabilities is not None and not self.capabilities.windows:
            raise NotPushable("window functions")
        block = self._upto(block, Stage.HAVING, node.input.symbols)
        if block.aggregated or block.computed:
            block = self._sealed(block, node.input.symbols)
        environment = self._environment(block)
        for symbol, expression in node.functions:
            block.columns[symbol] = self.translator.window(expression, environment)
            block.computed.add(symbol)
        block.stage = Stage.WINDOW
        return block

    def _distinct(self, block: Block, node: Distinct) -> Block:
        block = self._upto(block, Stage.SELECT, node.input.symbols)
        if node.on:
            if self.capabilities is not None and self.capabilities.dialect != "duckdb":
                raise NotPushable("DISTINCT ON")
            environment = self._environment(block)
            on = [self.translator.scalar(e, environment).sql for e in node.on]
            block.distinct = exp.Distinct(on=exp.Tuple(expressions=on))
            block.order = [self.translator.sort_key(k, environment) for k in node.order]
            block.stage = Stage.ORDER
            # DISTINCT ON keeps all columns and its ORDER BY belongs to it alone.
            return self._sealed(block, node.input.symbols)
        block.columns = {
            s: self.translator.distinct_value(block.columns[s]) for s in node.input.symbols
        }
        block.distinct = exp.Distinct()
        block.stage = Stage.DISTINCT
        return block

    def _sort(self, block: Block, node: Sort) -> Block:
        if block.stage == Stage.DISTINCT:
            # The sort keys of a DISTINCT block must be its own columns; sealing keeps it simple.
            block = self._sealed(block, node.input.symbols)
        block = self._upto(block, Stage.SELECT, node.input.symbols)
        environment = self._environment(block)
        keys = [
            self.translator.sort_key(k, environment)
            for k in node.keys
            if not (isinstance(k.this, exp.Column) and is_constant(environment[k.this.name].sql))
        ]
        # A constant would be read as the number of a column, and orders nothing.
        block.order = [k for k in keys if not is_constant(k.this)]
        block.stage = Stage.ORDER
        return block

    def _limit(self, block: Block, node: Limit) -> Block:
        block = self._upto(block, Stage.ORDER, node.input.symbols)
        foreign = self.capabilities is not None and self.capabilities.dialect != "duckdb"
        if foreign and node.rows is None:
            raise NotPushable("LIMIT with an expression or a percentage")
        block.limit, block.offset, block.percent = node.count, node.offset, node.percent
        block.stage = Stage.LIMIT
        return block

    def _join(self, node: Join) -> Block:
        if self.capabilities is not None and node.kind not in self.capabilities.joins:
            raise NotPushable(f"{node.kind} JOIN")
        if (
            self.capabilities is not None
            and self.capabilities.joins_need_equality
            and node.kind not in ("INNER", "CROSS")
            and not _equates(node)
        ):
            raise NotPushable(f"{node.kind} JOIN without an equality of both sides")
        left = self.block(node.left)
        right = self.block(node.right)
        inner = node.kind in ("INNER", "CROSS")
        keeps_left = inner or node.kind in ("LEFT", "SEMI", "ANTI")
        if not (self._joinable(left) and (keeps_left or not (left.where or left.computed))):
            left = self._sealed(left, node.left.symbols)
        if node.kind in ("RIGHT", "FULL") and (left.where or left.computed):
            left = self._sealed(left, node.left.symbols)
        if node.kind.startswith("ASOF") and (left.where or left.joins):
            left = self._sealed(left, node.left.symbols)
        mergeable = self._joinable(right) and not right.joins and not right.computed
        if not mergeable or (right.where and not inner) or right.relation is None:
            right = self._sealed(right, node.right.symbols)
        if left.relation is None:
            left = self._sealed(left, node.left.symbols)
        columns = left.columns | right.columns
        condition = None
        if node.on is not None:
            environment = self._environment(Block(None, columns))
            parts = [self.translator.predicate(p, environment) for p in conjuncts(node.on)]
            condition = _all_of(parts)
        if (
            node.kind in ("SEMI", "ANTI")
            and self.capabilities is not None
            and (self.capabilities.dialect != "duckdb")
        ):
            return self._semi_join(left, right, node, condition)
        join = exp.Join(this=right.relation, **_join_words(node.kind))
        if condition is not None:
            join.set("on", condition)
        elif node.kind not in ("CROSS",):
            join.set("on", exp.Boolean(this=True))
        if inner and left.where + right.where:
            left.where = left.where + right.where
        left.joins.append(join)
        left.columns = left.columns if node.kind in ("SEMI", "ANTI") else columns
        left.computed |= right.computed
        left.stage = Stage.WHERE if left.where else Stage.FROM
        return left

    def _semi_join(self, left: Block, right: Block, node: Join, condition: Expr | None) -> Block:
        """SEMI and ANTI in a dialect without them: EXISTS, which treats NULL alike."""
        right.where = right.where + ([condition] if condition is not None else [])
        right.columns = {}
        query = self._select(right, [("one", exp.Literal.number(1))])
        test: Expr = exp.Exists(this=query)
        left.where.append(exp.Not(this=test) if node.kind == "ANTI" else test)
        left.stage = Stage.WHERE
        return left

    @staticmethod
    def _joinable(block: Block) -> bool:
        return block.stage <= Stage.WHERE and not any(
            v.sql.find(exp.Window, exp.Query) or not is_stable(v.sql)
            for v in block.columns.values()
        )

    def _apply(self, block: Block, node: Apply) -> Block:
        if self.capabilities is not None:
            if not self.capabilities.correlated:
                raise NotPushable("subqueries in expressions")
            if node.kind == "compare" and not self.capabilities.quantified:
                raise NotPushable("ANY and ALL over a subquery")
            checked = self.capabilities.checks_scalar or at_most_one_row(node.subquery)
            if node.kind == "scalar" and not checked:
                raise NotPushable("a scalar subquery that may have several rows")
        block = self._upto(block, Stage.SELECT, node.input.symbols)
        if block.aggregated:
            block = self._sealed(block, node.input.symbols)
        # A correlated reference to a window function would evaluate it inside the subquery.
        block = self._without_windows(block, node.input.symbols)
        environment = self._environment(block)
        self.outer.append(dict(block.columns))
        try:
            inner = self.block(node.subquery)
            symbols = node.subquery.symbols
            values = [inner.columns[s] for s in symbols]
            if node.kind == "exists":
                query = self._select(
                    inner,
                    [("one", exp.Literal.number(1))]
                    if inner.stage < Stage.DISTINCT and not inner.aggregated
                    else [(s, v.sql) for s, v in zip(symbols, values, strict=True)],
                )
            else:
                query = self._select(
                    inner, [(s, v.sql) for s, v in zip(symbols, values, strict=True)]
                )
        finally:
            self.outer.pop()
        block.columns = dict(block.columns)
        block.columns[node.symbol] = self._applied(node, query, values, environment)
        block.computed.add(node.symbol)
        return block

    def _applied(
        self,
        node: Apply,
        query: exp.Query,
        values: list[Typed],
        environment: dict[str, Typed],
    ) -> Typed:
        match node.kind:
            case "exists":
                return Typed(exp.Exists(this=query), "BOOLEAN")
            case "scalar":
                return Typed(exp.Subquery(this=query), values[0].type, values[0].collation)
        if self.capabilities is not None and self.capabilities.dialect != "duckdb":
            # Each operand must compare equal to DuckDB's way with the subquery's column.
            for operand, value in zip(node.operands, values, strict=True):
                probe = {**environment, "\0": value}
                comparison = node.comparison[0] if node.comparison else exp.EQ
                test = comparison(this=operand.copy(), expression=column_of("\0"))
                written = self.translator.predicate(test, probe)
                plain = self.translator.scalar(operand, environment).sql
                if (
                    not isinstance(written, exp.Binary)
                    or written.this != plain
                    or (written.expression != value.sql)
                ):
                    raise NotPushable("a comparison with a subquery that needs a conversion")
        operands = [self.translator.scalar(o, environment).sql for o in node.operands]
        left = operands[0] if len(operands) == 1 else exp.Tuple(expressions=operands)
        if node.kind == "in":
            return Typed(exp.In(this=_grouped(left), query=exp.Subquery(this=query)), "BOOLEAN")
        assert node.comparison is not None
        kind, word = node.comparison
        side = (exp.Any if word == "ANY" else exp.All)(this=exp.Subquery(this=query))
        return Typed(kind(this=_grouped(left), expression=side), "BOOLEAN")

    def _set_operation(self, node: SetOperation) -> Block:
        word = node.kind + (" ALL" if node.all else "")
        if self.capabilities is not None and word not in self.capabilities.set_operations:
            raise NotPushable(word)
        sides: list[exp.Query] = []
        values: list[list[Typed]] = []
        for relation, index in ((node.left, 1), (node.right, 2)):
            block = self.block(relation)
            chosen = [block.columns[c[index]] for c in node.columns]
            if not node.all or self.capabilities is not None:
                chosen = [self.translator.distinct_value(v) for v in chosen]
            if block.stage >= Stage.ORDER:
                block = self._sealed(block, relation.symbols)
                chosen = [block.columns[c[index]] for c in node.columns]
            query = self._select(
                block, [(c[0], v.sql) for c, v in zip(node.columns, chosen, strict=True)]
            )
            sides.append(query)
            values.append(chosen)
        kind = {"UNION": exp.Union, "INTERSECT": exp.Intersect, "EXCEPT": exp.Except}[node.kind]
        merged = {
            c[0]: self.translator.set_column(a, b)
            for c, a, b in zip(node.columns, values[0], values[1], strict=True)
        }
        left = _operand(sides[0])
        right = _operand(sides[1])
        merged_query = kind(this=left, expression=right, distinct=not node.all)
        return self._derived(merged_query, merged)

    # --- text ----------------------------------------------------------------------------------

    def _select(self, block: Block, outputs: list[tuple[str, Expr]]) -> exp.Select:
        select = exp.Select(
            expressions=[
                exp.Alias(this=v.copy(), alias=exp.to_identifier(n, quoted=True))
                for n, v in outputs
            ]
            or [exp.Alias(this=exp.Literal.number(1), alias=exp.to_identifier("one", quoted=True))]
        )
        if block.relation is not None:
            select.set("from_", exp.From(this=block.relation))
        if block.joins:
            select.set("joins", list(block.joins))
        if block.where:
            select.set("where", exp.Where(this=_all_of(block.where)))
        if block.group is not None:
            select.set("group", block.group)
        if block.having:
            select.set("having", exp.Having(this=_all_of(block.having)))
        if block.distinct is not None:
            select.set("distinct", block.distinct)
        if block.order:
            select.set("order", exp.Order(expressions=list(block.order)))
        if block.limit is not None:
            options = exp.LimitOptions(percent=True) if block.percent else None
            select.set(
                "limit", exp.Limit(expression=_limit_term(block.limit), limit_options=options)
            )
        if block.offset is not None:
            select.set("offset", exp.Offset(expression=_limit_term(block.offset)))
        return select


def _equates(node: Join) -> bool:
    """Whether the condition says that something of one side equals something of the other.

    For a FULL JOIN every part of it has to.
    """
    left, right = set(node.left.symbols), set(node.right.symbols)

    def equates(part: Expr) -> bool:
        if not isinstance(part, exp.EQ):
            return False
        sides = references(part.this), references(part.expression)
        return any(a and b and a <= left and b <= right for a, b in (sides, sides[::-1]))

    parts = [equates(p) for p in conjuncts(node.on)]
    return all(parts) and bool(parts) if node.kind == "FULL" else any(parts)


def is_constant(value: Expr) -> bool:
    """Whether an expression is a literal, however it is signed, cast or wrapped."""
    if isinstance(value, exp.Neg | exp.Paren | exp.Cast):
        return is_constant(value.this)
    return isinstance(value, exp.Literal | exp.Null | exp.Boolean)


def column_of(symbol: str) -> exp.Column:
    return exp.Column(this=exp.Identifier(this=symbol, quoted=True))


def at_most_one_row(node: Relation) -> bool:
    """Whether a relation has one row at the most, by its form."""
    while isinstance(node, Project | Filter | Sort):
        node = node.input
    if isinstance(node, Limit):
        return node.rows is not None and node.rows <= 1
    return isinstance(node, Aggregate) and not node.keys and node.grouping_sets is None


def _row_wise(node: Project) -> bool:
    return all(is_stable(e) and e.find(exp.Window) is None for e in node.expressions)


def group_term(value: Expr) -> Expr:
    """A GROUP BY term; a bare number there would be read as a position."""
    if isinstance(value, exp.Literal | exp.Neg):
        return (
            exp.Cast(this=value.copy(), to=exp.DataType.build("INT"))
            if isinstance(value, exp.Literal) and not value.is_string and value.is_int
            else exp.Paren(this=value.copy())
        )
    return value.copy()


def _limit_term(value: Expr) -> Expr:
    return value.copy() if isinstance(value, exp.Literal) else exp.Paren(this=value.copy())


def _grouped(value: Expr) -> Expr:
    return exp.Paren(this=value) if isinstance(value, exp.Binary | exp.Unary) else value


def _operand(query: exp.Query) -> exp.Query:
    if query.args.get("with_") or query.args.get("order") or query.args.get("limit"):
        return exp.Subquery(this=query)
    return query


def _all_of(parts: Sequence[Expr]) -> Expr:
    result: Expr | None = None
    for part in parts:
        wrapped = exp.Paren(this=part) if isinstance(part, exp.Or) else part
        result = wrapped if result is None else exp.And(this=result, expression=wrapped)
    assert result is not None
    return result


def _join_words(kind: str) -> dict[str, str]:
    match kind:
        case "INNER":
            return {}
        case "ASOF":
            return {"method": "ASOF"}
        case "ASOF LEFT":
            return {"method": "ASOF", "side": "LEFT"}
        case "LEFT" | "RIGHT" | "FULL":
            return {"side": kind}
    return {"kind": kind}
