"""Semi-join reduction: one side of a join says which rows of the other are needed at all.

The rows of one side are fetched first; the distinct values of its join column, its keys, become a
predicate of the fragment on the other side. ``key_filters`` finds where that is legal and pays; the
values come when the query runs (``exchange.keys``). A join here still decides which rows match:
the keys may be more than needed, never fewer.

The idea is Bernstein and Chiu's (1981); it pays by the estimate of System R's join formula.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlglot import exp

from batuta_sql.plan.cardinality import Cardinality, equi_pairs
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
    column,
    filtered,
    free_symbols,
    is_stable,
)
from batuta_sql.plan.rules.push_filters import push_filters
from batuta_sql.plan.site import Capabilities, ColumnInfo
from batuta_sql.plan.translate import KEYS, NotPushable, WireColumn
from batuta_sql.plan.types import decimal_parts, is_integer
from batuta_sql.plan.unparse import Unparser


@dataclass(frozen=True)
class Worth:
    """When a fragment should wait for keys.

    :param rows: rows that it has to save; fewer are sooner fetched than waited for.
    :param local_rows: the same for engines on this machine, which deliver faster than a network.
    :param kept: the share of rows up to which a filter is thought to be worth it.
    :param waited: the rows saved must be more than this share of the rows waited for.
    """

    rows: float = 5_000
    local_rows: float = 200_000
    kept: float = 0.7
    waited: float = 0.5


ALWAYS = Worth(0, 0, math.inf, -1)
"""Wherever it is legal."""


@dataclass(frozen=True)
class Statement:
    """What an Exchange sends, and what it delivers: a filter must not change that."""

    sql: str
    columns: tuple[tuple[str, WireColumn], ...]


@dataclass(frozen=True)
class KeyFilter:
    """A column of a fragment is among the keys of a relation here.

    :param marker: the text that stands for the keys in the fragment's statement.
    :param symbol: the column's symbol in the fragment.
    :param column: the table's column, as people write it.
    :param type: its DuckDB type.
    :param distinct: how many values it is thought to have.
    :param producer: the relation whose column ``key`` gives the keys; every Exchange in it has been
        fetched before.
    :param keys: how many are expected.
    """

    marker: str
    symbol: str
    column: str
    type: str
    distinct: float
    producer: Relation
    key: str
    keys: float

    @property
    def test(self) -> Expr:
        """The predicate that a translator writes as its system reads keys."""
        arguments = [exp.Literal.string(self.type), exp.Literal.string(self.marker)]
        return exp.Anonymous(this=KEYS, expressions=[column(self.symbol), *arguments])

    @property
    def has_order(self) -> bool:
        """Whether the least and the greatest key say something of the others, and everywhere."""
        return self.type not in ("VARCHAR", "UUID")

    def between(self, low: str, high: str) -> Expr:
        """The predicate that the column lies between two keys, written as DuckDB writes them."""

        def end(text: str) -> Expr:
            if self.type == "DATE":
                date = exp.DataType.build("DATE", dialect="duckdb")
                return exp.Cast(this=exp.Literal.string(text), to=date)
            return exp.Literal.number(text)

        return exp.Between(this=column(self.symbol), low=end(low), high=end(high))

    @property
    def exchanges(self) -> frozenset[str]:
        """What has to be here before the keys are known."""
        return _exchanges(self.producer)


@dataclass(frozen=True)
class Keyed:
    """A fragment's statement with key filters, each a marker that the keys replace.

    :param rows: rows that it is expected to deliver.
    :param relation: what the fragment reads, without the filters.
    """

    sql: str
    filters: tuple[KeyFilter, ...]
    rows: float
    worth: Worth
    relation: Relation
    capabilities: Capabilities

    @property
    def most_keys(self) -> int:
        return self.capabilities.translator.most_keys

    def only(self, filters: Sequence[KeyFilter], ranges: Sequence[Expr] = ()) -> Keyed | None:
        """The same with some of its filters; None where there are none left.

        :param ranges: further predicates.
        """
        if len(filters) == len(self.filters) and not ranges:
            return self
        if not filters and not ranges:
            return None
        query, _ = _statement(self.relation, filters, self.capabilities, ranges)
        sql = query.sql(dialect=self.capabilities.dialect)
        return replace(self, sql=sql, filters=tuple(filters))

    def accepts(self, range_: Expr) -> bool:
        """Whether the source is proved to make a further predicate."""
        try:
            _statement(self.relation, (), self.capabilities, (range_,))
        except NotPushable:
            return False
        return True


def _statement(
    relation: Relation,
    filters: Sequence[KeyFilter],
    capabilities: Capabilities,
    ranges: Sequence[Expr] = (),
) -> tuple[exp.Query, tuple[tuple[str, WireColumn], ...]]:
    narrower = push_filters(filtered(relation, [*(f.test for f in filters), *ranges]))
    return Unparser(capabilities.translator, capabilities).remote_statement(narrower)


_PASSES = 3
_HARDLY_MORE = 1.25


def _exchanges(relation: Relation) -> frozenset[str]:
    return frozenset(n.name for n in relation.walk() if isinstance(n, Exchange))


def key_filters(
    plan: Relation,
    statements: Mapping[str, Statement],
    capabilities: Mapping[str, Capabilities],
    worth: Worth,
    known: Mapping[str, float] | None = None,
    here: frozenset[str] = frozenset(),
) -> dict[str, Keyed]:
    """The fragments that wait for keys, by the name of their Exchange.

    :param plan: a placed plan.
    :param statements: of each Exchange, as it is without keys.
    :param known: how many rows an Exchange has without keys, where that is no estimate.
    :param here: those that have been fetched already.
    """
    search = _Search(plan, statements, capabilities, worth, known or {}, here)
    search.run()
    return search.keyed()


@dataclass
class _Wanted:
    """A filter that may be put on an Exchange."""

    consumer: Exchange
    symbol: str
    info: ColumnInfo
    producer: Relation
    key: str
    keys: float
    distinct: float

    @property
    def kept(self) -> float:
        """The share of rows that the filter is thought to keep."""
        return min(1.0, self.keys / max(self.distinct, 1.0))

    @property
    def exchanges(self) -> frozenset[str]:
        """What has to be here before the keys are known."""
        return _exchanges(self.producer)


@dataclass(frozen=True)
class _Shared:
    """A filter that several places may want of one delivery: of what column, by whose keys."""

    consumer: str
    symbol: str
    producer: str
    key: str


class _Scaled(Cardinality):
    """Estimates that know of the filters chosen so far, and of what is no estimate."""

    def __init__(self, kept: Mapping[str, float], known: Mapping[str, float]) -> None:
        super().__init__()
        self._kept_share = kept
        self._known = known

    def _estimate(self, node: Relation) -> float:
        if isinstance(node, Exchange):
            rows = self._known.get(node.name)
            rows = self.rows(node.input) if rows is None else rows
            return rows * self._kept_share.get(node.name, 1.0)
        return super()._estimate(node)


@dataclass
class _Search:
    plan: Relation
    statements: Mapping[str, Statement]
    capabilities: Mapping[str, Capabilities]
    worth: Worth
    known: Mapping[str, float]
    here: frozenset[str]
    chosen: dict[str, list[_Wanted]] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)
    shared: dict[_Shared, dict[int, _Wanted]] = field(default_factory=dict)
    """Filters of deliveries that are read in several places, and the places that want them."""
    shared_taken: set[_Shared] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.readers = Counter(n.name for n in self.plan.walk() if isinstance(n, Exchange))
        self.cardinality = _Scaled(self.shares, self.known)

    def run(self) -> None:
        """Chooses filters, and again as long as those that were chosen make others worth it."""
        for _ in range(_PASSES):
            before = sum(map(len, self.chosen.values()))
            self.visit(self.plan)
            self._choose_shared()
            if sum(map(len, self.chosen.values())) == before:
                return

    def visit(self, node: Relation) -> None:
        """From the top down: what an outer join leaves over tells how selective an inner one is."""
        if isinstance(node, Join) and id(node) not in self.settled:
            self._choose(node)
        for below in node.inputs:
            if not isinstance(node, Exchange):
                self.visit(below)

    def _choose(self, node: Join) -> None:
        """Puts filters on one of the two sides: never on both, or each would wait for the other."""
        pairs = equi_pairs(node)
        directions = []
        if node.kind in ("INNER", "LEFT", "SEMI", "ANTI"):
            directions.append([(node.left, a, node.right, b) for a, b in pairs])
        if node.kind in ("INNER", "RIGHT", "SEMI"):
            directions.append([(node.right, b, node.left, a) for a, b in pairs])
        best: list[_Wanted] = []
        most = -1.0
        for direction in directions:
            wanted = [w for one in direction for w in self._wanted(*one)]
            saved = self._saved(wanted)
            if wanted and saved is not None and saved > most:
                best, most = wanted, saved
        if best:
            self.settled.add(id(node))
            self._take(best)

    def _take(self, wanted: Sequence[_Wanted]) -> None:
        for one in wanted:
            self.chosen.setdefault(one.consumer.name, []).append(one)
            self.shares[one.consumer.name] = self.shares.get(one.consumer.name, 1.0) * one.kept
        self.cardinality = _Scaled(self.shares, self.known)

    def _choose_shared(self) -> None:
        """A delivery that is read in several places has to hold the rows of all of them."""
        for key, places in list(self.shared.items()):
            if len(places) < self.readers[key.consumer] or key in self.shared_taken:
                continue
            (one, *_) = places.values()
            saved = self._saved([one])
            if saved is not None and not self._waits_for(one.exchanges, key.consumer):
                self.shared_taken.add(key)
                self._take([one])

    def _waits_for(self, names: frozenset[str], other: str) -> bool:
        """Whether one of some exchanges waits for ``other``, through others too."""
        if other in names:
            return True
        waited = [w.exchanges for n in names for w in self.chosen.get(n, ())]
        return any(self._waits_for(more, other) for more in waited)

    def _wanted(self, side: Relation, key: str, other: Relation, symbol: str) -> Iterator[_Wanted]:
        producer = producer_of(side, key)
        if producer is None:
            return
        relation, key = producer
        if free_symbols(relation):
            return
        relation, keys = self._lighter(relation, key)
        source = _scanned(relation, key)
        for consumer, found in consumers_of(other, symbol):
            info = _scanned(consumer.input, found)
            if info is None or not _may_be_key(info.type) or consumer.name in self.here:
                continue
            if source is not None and not comparable(source.type, info.type):
                continue
            if keys > self.capabilities[consumer.site].translator.most_keys:
                continue
            distinct = self.cardinality.distinct(found, consumer.input)
            wanted = _Wanted(consumer, found, info, relation, key, keys, distinct)
            if wanted.kept > self.worth.kept:
                continue
            if self.readers[consumer.name] == 1:
                if not self._waits_for(wanted.exchanges, consumer.name):
                    yield wanted
            elif (origin := _exchanged(relation, key)) is not None:
                shared = _Shared(consumer.name, found, *origin)
                self.shared.setdefault(shared, {})[id(consumer)] = wanted

    def _lighter(self, relation: Relation, key: str) -> tuple[Relation, float]:
        """A part of ``relation`` that has hardly more keys and waits for less; and how many."""
        keys = self.cardinality.distinct(key, relation)
        while isinstance(relation, Join):
            side = relation.left if key in relation.left.symbols else relation.right
            if self.cardinality.distinct(key, side) > keys * _HARDLY_MORE:
                break
            relation = side
        return relation, keys

    def _saved(self, wanted: Sequence[_Wanted]) -> float | None:
        """Rows that need not be moved; None where they are too few to wait for the others."""
        saved = waited = 0.0
        for name in {w.consumer.name for w in wanted}:
            mine = [w for w in wanted if w.consumer.name == name]
            consumer = mine[0].consumer
            rows = self.cardinality.rows(consumer)
            less = rows * (1.0 - min(w.kept for w in mine))
            local = self.capabilities[consumer.site].dialect == "duckdb"
            if less < (self.worth.local_rows if local else self.worth.rows):
                return None
            saved += less
        for relation in {id(w.producer): w.producer for w in wanted}.values():
            moved = [n for n in relation.walk() if isinstance(n, Exchange)]
            waited = max(waited, sum(self.cardinality.rows(n) for n in moved))
        return saved if saved >= waited * self.worth.waited else None

    # --- statements ----------------------------------------------------------------------------

    def keyed(self) -> dict[str, Keyed]:
        found: dict[str, Keyed] = {}
        for name, wanted in self.chosen.items():
            keyed = self._keyed(name, wanted)
            if keyed is not None:
                found[name] = keyed
        return found

    def _keyed(self, name: str, wanted: Sequence[_Wanted]) -> Keyed | None:
        consumer = wanted[0].consumer
        capabilities = self.capabilities[consumer.site]
        filters: list[KeyFilter] = []
        query = None
        for one in wanted:
            marker = f"keys_{name}_{len(filters) + 1}"
            while marker in self.statements[name].sql:
                # A constant of the query that looks like one.
                marker += "_"
            info = one.info
            found = KeyFilter(
                marker,
                one.symbol,
                info.name,
                info.type,
                one.distinct,
                one.producer,
                one.key,
                one.keys,
            )
            try:
                statement, columns = _statement(consumer.input, [*filters, found], capabilities)
            except NotPushable:
                continue
            if columns == self.statements[name].columns:
                query = statement
                filters.append(found)
        if query is None:
            return None
        rows = self.cardinality.rows(consumer)
        sql = query.sql(dialect=capabilities.dialect)
        return Keyed(sql, tuple(filters), rows, self.worth, consumer.input, capabilities)


def _may_be_key(type_: str) -> bool:
    """Types whose values have one text everywhere, and whose equality is no matter of rounding."""
    plain = type_ in ("VARCHAR", "DATE", "UUID")
    return plain or is_integer(type_) or decimal_parts(type_) is not None


def comparable(key: str, column: str) -> bool:
    """Whether values of one type are equal as those of the other are, and are written alike."""
    return key == column or (is_integer(key) and is_integer(column))


# --- where keys come from, and where they go ---------------------------------------------------


def producer_of(node: Relation, symbol: str) -> tuple[Relation, str] | None:
    """A relation below ``node`` with all values that ``symbol`` has there, and its name in it.

    It runs twice, once for its keys and once for the answer, so it has to be one that gives the
    same rows each time: what may not (a LIMIT, a window, an aggregate) is left out of it, which
    only makes the keys more. None where there is no such relation.
    """
    if _repeatable(node):
        return node, symbol
    match node:
        case Filter() | Sort() | Distinct() | Window() | Apply() | Limit():
            below = node.inputs[0]
            return producer_of(below, symbol) if symbol in below.symbols else None
        case Project():
            value = dict(node.assignments)[symbol]
            if isinstance(value, exp.Column) and value.name in node.input.symbols:
                return producer_of(node.input, value.name)
        case Aggregate():
            key = dict(node.keys).get(symbol)
            if isinstance(key, exp.Column):
                return producer_of(node.input, key.name)
        case Join(kind="INNER" | "LEFT" | "RIGHT" | "FULL" | "SEMI" | "ANTI" | "CROSS"):
            side = node.left if symbol in node.left.symbols else node.right
            return producer_of(side, symbol)
    return None


def _repeatable(node: Relation) -> bool:
    match node:
        case Exchange() | OneRow():
            return True
        case LocalScan():
            return node.is_repeatable
        case Filter() | Project() | Join() | Distinct(on=()):
            if isinstance(node, Join) and node.kind.startswith("ASOF"):
                return False
            stable = all(is_stable(e) for e in node.expressions)
            return stable and all(_repeatable(i) for i in node.inputs)
    return False


def consumers_of(node: Relation, symbol: str) -> list[tuple[Exchange, str]]:
    """The exchanges whose rows may be left out where ``symbol`` of ``node`` has no match."""
    match node:
        case Exchange():
            # What another reader of the same delivery added to it is not in this one's input.
            return [(node, symbol)] if symbol in node.input.symbols else []
        case Filter() | Sort() | Distinct(on=()):
            return consumers_of(node.inputs[0], symbol)
        case Apply() if symbol != node.symbol:
            return consumers_of(node.input, symbol)
        case Project():
            value = dict(node.assignments)[symbol]
            # A volatile column has other values when it is given other rows.
            if isinstance(value, exp.Column) and all(is_stable(e) for e in node.expressions):
                return consumers_of(node.input, value.name)
        case Aggregate(grouping_sets=None):
            key = dict(node.keys).get(symbol)
            if isinstance(key, exp.Column):
                return consumers_of(node.input, key.name)
        case Join():
            if symbol in node.left.symbols:
                if node.kind in ("INNER", "CROSS", "LEFT", "SEMI", "ANTI"):
                    return consumers_of(node.left, symbol)
            elif node.kind in ("INNER", "CROSS", "RIGHT"):
                return consumers_of(node.right, symbol)
        case SetOperation(kind="UNION"):
            left, right = next((a, b) for s, a, b in node.columns if s == symbol)
            return consumers_of(node.left, left) + consumers_of(node.right, right)
    return []


def _exchanged(node: Relation, symbol: str) -> tuple[str, str] | None:
    """The delivery that ``node`` is, renamed at most, and the symbol's name in it."""
    while isinstance(node, Project):
        value = dict(node.assignments)[symbol]
        if not isinstance(value, exp.Column):
            return None
        node, symbol = node.input, value.name
    return (node.name, symbol) if isinstance(node, Exchange) else None


def _scanned(node: Relation, symbol: str) -> ColumnInfo | None:
    """The table's column that ``symbol`` is, unchanged; None where it is something else."""
    match node:
        case Scan():
            return dict(node.columns).get(symbol)
        case CommonScan() | SetOperation():
            return None
        case Project():
            value = dict(node.assignments).get(symbol)
            return _scanned(node.input, value.name) if isinstance(value, exp.Column) else None
        case Aggregate():
            key = dict(node.keys).get(symbol)
            return _scanned(node.input, key.name) if isinstance(key, exp.Column) else None
    found = [i for i in node.inputs if symbol in i.symbols]
    return _scanned(found[0], symbol) if found else None
