"""Which site runs what: the largest subtrees that a source can run become fragments.

``place`` puts an ``Exchange`` above each of them; what is left is the residual.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from sqlglot import exp

from batuta_sql.plan.cardinality import Cardinality
from batuta_sql.plan.fragments import Fragment, Rendered, fragment, is_row_wise, statement
from batuta_sql.plan.pushdown import NULL, STRING_LITERAL
from batuta_sql.plan.rates import (
    RatesOf,
    SecondsOf,
)
from batuta_sql.plan.relational import (
    Aggregate,
    Apply,
    Distinct,
    Exchange,
    Expr,
    Filter,
    Join,
    Limit,
    LocalScan,
    Project,
    Relation,
    Scan,
    Sort,
    column,
    conjunction,
    conjuncts,
    filtered,
    free_symbols,
    references,
)
from batuta_sql.plan.rewrite import known_type, read_once
from batuta_sql.plan.rules.eager_aggregation import eager_aggregates
from batuta_sql.plan.rules.early_distinct import early_distinct
from batuta_sql.plan.rules.early_projection import early_projections
from batuta_sql.plan.rules.group_joins import sites
from batuta_sql.plan.rules.key_filters import Keyed, Statement, Worth, key_filters
from batuta_sql.plan.rules.prune_columns import prune_columns
from batuta_sql.plan.rules.share_fragments import share
from batuta_sql.plan.rules.split_averages import split_averages
from batuta_sql.plan.site import LOCAL, Capabilities
from batuta_sql.plan.translate import CORRELATED, NotPushable
from batuta_sql.plan.unparse import Block, Refused, Unparser

KnownRows = Mapping[tuple[str, str], float]
"""How many rows a source gave to a statement."""


@dataclass(frozen=True)
class Placed:
    """A placed plan: the residual with its exchanges, the fragments, and why things stayed."""

    plan: Relation
    outputs: tuple[tuple[str, str], ...]
    fragments: tuple[Fragment, ...]
    kept: tuple[str, ...] = ()
    fallbacks: tuple[LocalScan, ...] = ()
    keyed: Mapping[str, Keyed] = field(default_factory=dict)
    """The fragments that wait for keys of others, by name."""


TableKey = tuple[str, ...]
"""A table's source and path."""


@dataclass
class _Placer:
    capabilities: Mapping[str, Capabilities]
    whole: Relation
    rates: RatesOf = field(default_factory=dict)
    cardinality: Cardinality = field(default_factory=Cardinality)
    runaways: frozenset[TableKey] = frozenset()
    count: int = 0
    kept: dict[str, None] = field(default_factory=dict)
    statements: dict[int, tuple[Relation, Rendered]] = field(default_factory=dict)
    """Of operators by id, which is only good while they live."""
    refused: dict[str, Refused] = field(default_factory=lambda: defaultdict(dict))
    """By source."""

    # --- asking --------------------------------------------------------------------------------

    def home(self, node: Relation) -> str | None:
        """The one source that ``node`` reads, or None."""
        found = sites(node)
        if len(found) != 1 or LOCAL in found:
            return None
        return next(iter(found))

    def unparser(self, site: str) -> Unparser:
        capabilities = self.capabilities[site]
        return Unparser(capabilities.translator, capabilities, refused=self.refused[site])

    def refusal(self, node: Relation, site: str) -> str | None:
        """Why ``site`` cannot run ``node``, or should not again; None where it can."""
        if self.runaways and not is_row_wise(node) and self.runaways & tables_of(node):
            return f"at {site} it took far longer than bringing the rows here"
        try:
            self.statement(node, site)
        except NotPushable as reason:
            return reason.reason
        return None

    def statement(self, node: Relation, site: str) -> Rendered:
        """``statement`` of ``node``, rendered once.

        :raises NotPushable: naming what the source is not proved to do.
        """
        known = self.statements.get(id(node))
        if known is None:
            known = (node, statement(node, self.capabilities[site], self.refused[site]))
            self.statements[id(node)] = known
        return known[1]

    def multiplies(self, node: Relation) -> bool:
        """Whether ``node`` is a join that delivers more than it reads, and not the whole query.

        What follows the join here would otherwise meet all those rows after they were moved.
        """
        if node is self.whole:
            return False
        while isinstance(node, Project | Filter):
            node = node.input
        return isinstance(node, Join) and self.cardinality.multiplies(node)

    def quicker_here(self, node: Relation, site: str) -> bool:
        """Whether grouping or joining here, over rows that are moved, is thought to be quicker.

        Asked of sources whose rates were measured, and of queries over one source: in others, what
        is moved depends on the keys that other sources will send.
        """
        rates = self.rates.get(site)
        if rates is None or sites(self.whole) != {site} or not _may_be_split(node):
            return False
        seconds = SecondsOf(rates, self.cardinality)
        needed = frozenset(node.symbols)
        there, here = seconds.pushed(node, needed), seconds.split(node, needed)
        if there - here < _WORTH_SECONDS or here > there * _CLEARLY_LESS:
            return False
        if isinstance(node, Aggregate | Distinct | Join):
            what = f"about {here:.2f} s instead of {there:.2f} s at {site}, by its profile"
            self.kept[f"{type(node).__name__}: {what}"] = None
        return True

    def checked_sooner_here(self, node: Relation, site: str) -> Apply | None:
        """The ``[NOT] IN (subquery)`` over a join at ``site`` that is better checked here, if any.

        A server checks it as it reads the table that the value comes from, before the join: for
        far more rows than leave the join.
        """
        if not isinstance(node, Filter) or not isinstance(node.input, Apply):
            return None
        apply = node.input
        near = self.capabilities[site].dialect == "duckdb"
        if near or site not in self.rates or not isinstance(apply.input, Join):
            return None
        if apply.kind != "in" or free_symbols(apply.subquery):
            return None
        read = references(*apply.operands)
        checked = max(
            (self.cardinality.rows(n) for n in apply.input.walk() if _delivers(n, read)), default=0
        )
        left, members = (self.cardinality.rows(i) for i in apply.inputs)
        if members > left or checked - left - members < _WORTH_CHECKS:
            return None
        what = f"checked over about {left:,.0f} rows, {site} would check {checked:,.0f}"
        self.kept[f"NOT IN: {what}"] = None
        return apply

    def block(self, node: Relation, site: str) -> Block | None:
        try:
            return self.unparser(site).block(node)
        except NotPushable:
            return None

    def keep(self, what: str, reason: str) -> None:
        if reason == CORRELATED:
            return
        # Once is enough: what stands above stays here for the same reason.
        if not any(k.endswith(f": {reason}") for k in self.kept):
            self.kept[f"{what}: {reason}"] = None

    # --- placing -------------------------------------------------------------------------------

    def place(self, node: Relation) -> Relation:
        site = self.home(node)
        if site is not None and not self.multiplies(node) and not _is_ordered(node):
            reason = None
            if not _is_bare_sort(node):
                reason = self.refusal(node, site)
                apply = self.checked_sooner_here(node, site)
                if apply is not None:
                    parts = apply.with_inputs(*(self.place(i) for i in apply.inputs))
                    return node.with_inputs(parts)
                if reason is None and not self.quicker_here(node, site):
                    return self.exchange(node, site)
            split = self._split(node, site) if reason is not None or _is_bare_sort(node) else None
            if split is not None:
                return split
            if reason is not None:
                self.keep(type(node).__name__, reason)
        return node.with_inputs(*(self.place(i) for i in node.inputs))

    def exchange(self, node: Relation, site: str) -> Relation:
        self.count += 1
        return Exchange(node, site, f"x{self.count}")

    def _split(self, node: Relation, site: str) -> Relation | None:
        """The part of an operator that the source can run, the rest above it."""
        match node:
            case Filter():
                return self._split_filter(node, site)
            case Project():
                return self._split_project(node, site)
            case Join(kind="INNER"):
                return self._split_join(node, site)
            case Limit():
                return self._split_limit(node, site)
        return None

    def _split_filter(self, node: Filter, site: str) -> Relation | None:
        block = self.block(node.input, site)
        if block is None:
            return None
        pushed, kept = self._sorted_predicates(conjuncts(node.condition), block, site)
        if not pushed:
            return None
        below = self.place(filtered(node.input, pushed))
        return filtered(below, kept)

    def _sorted_predicates(
        self, predicates: list[Expr], block: Block, site: str
    ) -> tuple[list[Expr], list[Expr]]:
        translator = self.capabilities[site].translator
        pushed: list[Expr] = []
        kept: list[Expr] = []
        for predicate in predicates:
            try:
                translator.predicate(predicate, block.columns)
                pushed.append(predicate)
            except NotPushable as reason:
                kept.append(predicate)
                self.keep("Filter", reason.reason)
        return pushed, kept

    def _split_project(self, node: Project, site: str) -> Relation | None:
        block = self.block(node.input, site)
        if block is None:
            return None
        translator = self.capabilities[site].translator
        below: dict[str, Expr] = {}
        above: list[tuple[str, Expr]] = []
        for symbol, expression in node.assignments:
            try:
                translator.wire(translator.scalar(expression, block.columns))
                below[symbol] = expression
                above.append((symbol, column(symbol)))
            except NotPushable as reason:
                self.keep("Project", reason.reason)
                above.append((symbol, expression))
                for needed in sorted(references(expression)):
                    if needed in node.input.symbols:
                        below.setdefault(needed, column(needed))
        if not below or (
            len(below) == len(node.assignments)
            and all(isinstance(e, exp.Column) and e.name == s for s, e in above)
        ):
            return None
        inner = Project(node.input, tuple(below.items()))
        if self.refusal(inner, site) is not None:
            return None
        return Project(self.exchange(inner, site), tuple(above))

    def _split_join(self, node: Join, site: str) -> Relation | None:
        left, right = self.block(node.left, site), self.block(node.right, site)
        if left is None or right is None:
            return None
        merged = Block(None, left.columns | right.columns)
        pushed, kept = self._sorted_predicates(conjuncts(node.on), merged, site)
        connecting = [
            p
            for p in pushed
            if isinstance(p, exp.EQ)
            and references(p) & set(node.left.symbols)
            and references(p) & set(node.right.symbols)
        ]
        if not kept or not connecting:
            return None
        return filtered(self.place(replace(node, on=conjunction(pushed))), kept)

    def _split_limit(self, node: Limit, site: str) -> Relation | None:
        """Top-N or LIMIT at the source, and once more above it."""
        rows = node.rows
        inner = node.input
        if rows is None or _limited_below(inner):
            return None
        top = Limit(inner, exp.Literal.number(rows))
        if self.refusal(top, site) is not None:
            return None
        return node.with_inputs(self._again(inner, self.exchange(top, site)))

    @staticmethod
    def _again(inner: Relation, exchanged: Relation) -> Relation:
        return replace(inner, input=exchanged) if isinstance(inner, Sort) else exchanged


def tables_of(node: Relation) -> frozenset[TableKey]:
    """The tables that ``node`` reads."""
    return frozenset(n.table.qualified_parts for n in node.walk() if isinstance(n, Scan))


_WORTH_SECONDS = 0.02
_CLEARLY_LESS = 0.8
"""By how much the estimate has to be better, since it is one."""


def _may_be_split(node: Relation) -> bool:
    """Whether ``node`` groups or joins, and everything above that is row by row."""
    while isinstance(node, Project | Filter):
        node = node.input
    return isinstance(node, Aggregate | Distinct | Join)


_WORTH_CHECKS = 300_000
"""Memberships that a server need not look up: some hundredths of a second."""


def _delivers(node: Relation, symbols: frozenset[str]) -> bool:
    return isinstance(node, Scan) and bool(symbols) and symbols <= frozenset(node.symbols)


def _limited_below(node: Relation) -> bool:
    """Whether a copy of the limit has been brought further down already."""
    while isinstance(node, Sort | Project):
        node = node.input
    return isinstance(node, Limit)


def _is_ordered(node: Relation) -> bool:
    """Whether row-wise operators stand above an order: they stay here, above the order made again.

    A source is asked for a Top-N, never trusted to deliver it in order.
    """
    if not isinstance(node, Project | Filter):
        return False
    while isinstance(node, Project | Filter):
        node = node.input
    return isinstance(node, Limit | Sort)


def _is_bare_sort(node: Relation) -> bool:
    """An order alone is not worth pushing: it is made again here."""
    return isinstance(node, Sort | Limit)


def place(
    plan: Relation,
    outputs: tuple[tuple[str, str], ...],
    capabilities: Mapping[str, Capabilities],
    fallbacks: tuple[LocalScan, ...] = (),
    worth: Worth | None = None,
    rates: RatesOf | None = None,
    partial: Reduction | None = None,
    runaways: frozenset[TableKey] = frozenset(),
    known: KnownRows | None = None,
) -> Placed:
    """Places an optimised plan.

    :param outputs: the names of the query's columns and their symbols.
    :param capabilities: by source, of every source that the plan reads.
    :param worth: when fragments wait for keys of others; None: never.
    :param rates: of the sources that were measured.
    :param partial: from where on rows are worth reducing at their source, by a partial aggregate
        or a DISTINCT; None: never.
    :param runaways: tables over which nothing is joined or grouped at their source, since it took
        far too long.
    :param known: rows that statements are known to give.
    """
    known = known or {}
    placer = _Placer(capabilities, plan, rates or {}, runaways=runaways)
    counter = iter(range(1, 1_000_000))
    plan = split_averages(
        plan, lambda node: _average_helps(placer, node), lambda name: f"{name}_p{next(counter)}"
    )
    if partial is not None:
        judge = _Judge(placer, partial, read_once(plan))
        plan = eager_aggregates(plan, judge, lambda name: f"{name}_e{next(counter)}")
        plan = early_distinct(plan, judge)
        plan = early_projections(plan, judge, lambda name: f"{name}_e{next(counter)}")
    placer.whole = plan
    placed = placer.place(plan)
    placed = prune_columns(placed, frozenset(s for _, s in outputs))
    statements = {
        node.name: placer.statement(node.input, node.site)
        for node in placed.walk()
        if isinstance(node, Exchange)
    }
    placed, deliveries = share(placed, statements)
    fragments = tuple(
        fragment(
            d.exchange,
            d.query,
            tuple(d.columns),
            capabilities[d.exchange.site],
            placer.rates.get(d.exchange.site),
        )
        for d in deliveries
    )
    result = Placed(placed, outputs, fragments, tuple(placer.kept), fallbacks)
    rows = {f.name: r for f in fragments if (r := known.get((f.source, f.sql))) is not None}
    return with_key_filters(result, capabilities, worth, rows)


def with_key_filters(
    placed: Placed,
    capabilities: Mapping[str, Capabilities],
    worth: Worth | None,
    known: Mapping[str, float],
    here: frozenset[str] = frozenset(),
) -> Placed:
    """``placed`` with key filters where these are worth it.

    :param known: how many rows fragments have without keys, by name, where that is no estimate.
    :param here: the names of those that have been fetched already.
    """
    if worth is None:
        return placed
    sent = {f.name: Statement(f.sql, f.columns) for f in placed.fragments}
    keyed = key_filters(placed.plan, sent, capabilities, worth, known, here)
    return replace(placed, keyed=keyed)


@dataclass(frozen=True)
class Reduction:
    """What a partial aggregate or an early DISTINCT has to save.

    :param rows: that need not be moved.
    :param kept: the share of rows that is left, at the most.
    """

    rows: float = 50_000
    kept: float = 0.25


ANY_REDUCTION = Reduction(-math.inf, math.inf)
"""Wherever it is legal."""


_WORTH_BYTES = 100_000
"""That need not be moved: fewer are here in no time."""


@dataclass(frozen=True)
class _Judge:
    """What the rules that reduce rows early ask.

    :param alone: whether a relation's tables are read nowhere else: what is read twice is moved
        once, as it is, for both.
    """

    placer: _Placer
    wanted: Reduction
    alone: Callable[[Relation], bool]

    def is_near(self, node: Relation) -> bool:
        # On this machine: rows are here sooner than they are grouped twice.
        site = self.placer.home(node)
        return site is not None and self.placer.capabilities[site].dialect == "duckdb"

    def pays(self, reduced: Relation) -> bool:
        placer = self.placer
        site = placer.home(reduced)
        if site is None or self.is_near(reduced) or not self.alone(reduced):
            return False
        rows, groups = placer.cardinality.rows(reduced.inputs[0]), placer.cardinality.rows(reduced)
        if groups > rows * self.wanted.kept or rows - groups < self.wanted.rows:
            return False
        if placer.refusal(reduced, site) is not None:
            return False
        return not isinstance(reduced, Aggregate) or _sums_exactly(placer, reduced, site)

    def narrows(self, side: Relation, saved: float) -> bool:
        placer = self.placer
        if placer.home(side) is None or self.is_near(side) or not self.alone(side):
            return False
        if self.wanted is ANY_REDUCTION:
            return True
        return saved > 0 and saved * placer.cardinality.rows(side) >= _WORTH_BYTES

    def runs(self, node: Relation) -> bool:
        site = self.placer.home(node)
        return site is not None and self.placer.refusal(node, site) is None

    def type_of(self, node: Relation, symbol: str) -> str | None:
        known, site = known_type(node, symbol), self.placer.home(node)
        if known is not None or site is None:
            return known
        block = self.placer.block(node, site)
        type_ = block.columns[symbol].type if block is not None else None
        return {STRING_LITERAL: "VARCHAR", NULL: None}.get(type_ or "", type_)


def _sums_exactly(placer: _Placer, node: Aggregate, site: str) -> bool:
    """Whether the order in which numbers are summed is no matter."""
    block = placer.block(node.input, site)
    translator = placer.capabilities[site].translator
    return block is not None and all(
        translator.aggregate(call, block.columns).type not in ("DOUBLE", "FLOAT")
        for _, call in node.aggregates
        if call.find(exp.Sum) is not None
    )


def _average_helps(placer: _Placer, node: Aggregate) -> bool:
    site = placer.home(node)
    if site is None or placer.capabilities[site].dialect == "duckdb":
        return False
    trial = split_averages(node, lambda _: True, lambda name: f"{name}_trial")
    assert isinstance(trial, Project)
    return placer.refusal(trial.input, site) is None
