"""Aggregates below joins and unions of several sources: fewer rows are moved.

A sum over ``orders JOIN customer`` grouped by the customers' region needs of orders, from another
source, only their sums by customer; one over ``old UNION ALL new`` only those of each. These
partial aggregates are made at the source, and put together above. Only exact ones are: sums and
averages of exact numbers, counts, least and greatest values.

Below joins it is Yan and Larson's eager group-by ("Eager Aggregation and Lazy Aggregation", VLDB
1995): rows that a condition cannot tell apart, since it reads only what they are grouped by, pass
or fail together and have the same partners. A union does nothing to rows but cast them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from sqlglot import exp

from batuta_sql.plan.relational import (
    Aggregate,
    Assignment,
    Expr,
    Filter,
    Join,
    Project,
    Relation,
    SetOperation,
    column,
    is_stable,
    parenthesized,
    references,
    substitute,
)
from batuta_sql.plan.rewrite import transform_up
from batuta_sql.plan.rules.group_joins import sites
from batuta_sql.plan.rules.split_averages import quotient
from batuta_sql.plan.site import LOCAL
from batuta_sql.plan.types import is_exact, wider_exact

Fresh = Callable[[str], str]


class Judge(Protocol):
    """What a rule has to know of the sources."""

    def pays(self, reduced: Relation) -> bool:
        """Whether an Aggregate or Distinct can be made at its source, exactly, and is worth it."""
        ...

    def narrows(self, side: Relation, saved: float) -> bool:
        """Whether ``saved`` bytes in each row of ``side`` are worth computing something there."""
        ...

    def is_near(self, node: Relation) -> bool:
        """Whether the one source of ``node`` is an engine here, where nothing is worth it."""
        ...

    def runs(self, node: Relation) -> bool:
        """Whether one source can run ``node`` whole."""
        ...

    def type_of(self, node: Relation, symbol: str) -> str | None:
        """The DuckDB type of a column; None where it is not known."""
        ...


def eager_aggregates(plan: Relation, judge: Judge, fresh: Fresh) -> Relation:
    """``plan`` with partial aggregates below the joins and unions of several sources.

    :param fresh: makes a symbol that is unique in the query.
    """

    def rewrite(node: Relation) -> Relation:
        if isinstance(node, Aggregate) and node.grouping_sets is None and _is_split(node, judge):
            return _eager(node, judge, fresh) or node
        return node

    return transform_up(plan, rewrite)


def _is_split(node: Aggregate, judge: Judge) -> bool:
    """Whether ``node`` reads several relations that stay apart."""
    if len(sites(node)) > 1:
        return True
    below = node.input
    while isinstance(below, Project):
        below = below.input
    return isinstance(below, SetOperation) and not judge.is_near(node) and not judge.runs(node)


def _eager(node: Aggregate, judge: Judge, fresh: Fresh) -> Relation | None:
    stable = all(is_stable(e) for e in node.expressions)
    if not node.aggregates or not stable or not all(_is_partial(e) for _, e in node.aggregates):
        return None
    split = _Split(fresh)
    for symbol, call in node.aggregates:
        split.add(symbol, call)
    descent = _Descent(judge, fresh, keyed=bool(node.keys))
    found = descent.grouped(node.input, tuple(e for _, e in node.keys), tuple(split.below))
    if found is None:
        return None
    keys = tuple((s, e) for (s, _), e in zip(node.keys, found.keys, strict=True))
    final = Aggregate(found.relation, keys, tuple(split.above))
    return Project(final, (*((s, column(s)) for s, _ in node.keys), *split.results))


# --- down to the sources -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """What is wanted of a relation: the calls, by groups of the keys."""

    relation: Relation
    keys: tuple[Expr, ...]
    calls: tuple[Assignment, ...]


@dataclass(frozen=True)
class _Grouped:
    """A relation whose rows are parts of the calls asked for, under their symbols.

    :param keys: the values asked for, in terms of the relation.
    """

    relation: Relation
    keys: tuple[Expr, ...]


@dataclass(frozen=True)
class _Descent:
    """Brings partial aggregates to the relations of one source.

    :param keyed: whether the whole is grouped by anything. If it is not, a part of no rows, which
        has counts of 0 and NULLs, does not change it; else it would be a group too many.
    """

    judge: Judge
    fresh: Fresh
    keyed: bool

    def grouped(
        self, node: Relation, keys: tuple[Expr, ...], calls: tuple[Assignment, ...]
    ) -> _Grouped | None:
        """The calls over ``node`` in parts, at the most one for each value of ``keys``.

        None where no part can be made at a source, or none is worth it.
        """
        if isinstance(node, Project):
            if not all(is_stable(e) for e in node.expressions):
                return None
            values = dict(node.assignments).get
            return self.grouped(
                node.input,
                tuple(substitute(k, values) for k in keys),
                tuple((s, substitute(e, values)) for s, e in calls),
            )
        home = sites(node)
        if len(home) == 1 and LOCAL not in home:
            found = self._at_source(node, keys, calls)
            if found is not None or not isinstance(node, SetOperation):
                return found
        match node:
            case Filter() if is_stable(node.condition):
                return self._below(node, node.input, node.condition, keys, calls)
            case Join() if node.on is None or is_stable(node.on):
                return self._below_join(node, keys, calls)
            case SetOperation(kind="UNION", all=True):
                return self._below_union(node, keys, calls)
        return None

    def _at_source(
        self, node: Relation, keys: tuple[Expr, ...], calls: tuple[Assignment, ...]
    ) -> _Grouped | None:
        names: dict[Expr, str] = {}
        for key in keys:
            # A constant tells no rows apart.
            if references(key) and key not in names:
                names[key] = self.fresh(_name_of(key))
        counted: tuple[Assignment, ...] = ()
        if self.keyed and not names:
            counted = ((self.fresh("rows"), exp.Count(this=exp.Star(), big_int=True)),)
        partial = Aggregate(node, tuple((s, e) for e, s in names.items()), calls + counted)
        if not self.judge.pays(partial):
            return None
        relation: Relation = partial
        for symbol, _ in counted:
            any_row = exp.GT(this=column(symbol), expression=exp.Literal.number(0))
            relation = Filter(relation, any_row)
        return _Grouped(relation, tuple(column(names[k]) if k in names else k for k in keys))

    def _below_join(
        self, node: Join, keys: tuple[Expr, ...], calls: tuple[Assignment, ...]
    ) -> _Grouped | None:
        arguments = references(*(e for _, e in calls))
        for side in kept_sides(node):
            if arguments <= frozenset(side.symbols):
                found = self._below(node, side, node.on, keys, calls)
                if found is not None:
                    return found
        return None

    def _below(
        self,
        node: Filter | Join,
        side: Relation,
        condition: Expr | None,
        keys: tuple[Expr, ...],
        calls: tuple[Assignment, ...],
    ) -> _Grouped | None:
        """``node`` over parts of ``side``, grouped by what its condition reads of it, too."""
        mine = frozenset(side.symbols)
        wholly = [k for k in keys if references(k) and references(k) <= mine]
        read = references(condition, *(k for k in keys if k not in wholly))
        asked = (*wholly, *(column(s) for s in side.symbols if s in read))
        found = self.grouped(side, asked, calls)
        if found is None:
            return None
        values = dict(zip(asked, found.keys, strict=True))
        columns = {k.name: v for k, v in values.items() if isinstance(k, exp.Column)}
        inputs = tuple(found.relation if i is side else i for i in node.inputs)
        return _Grouped(
            _with_condition(node.with_inputs(*inputs), condition, columns.get),
            tuple(values[k] if k in values else substitute(k, columns.get) for k in keys),
        )

    # --- unions --------------------------------------------------------------------------------

    def _below_union(
        self, node: SetOperation, keys: tuple[Expr, ...], calls: tuple[Assignment, ...]
    ) -> _Grouped | None:
        """A union of the parts of both branches; a row of a branch without is a part by itself.

        Keys that are columns keep their types, so that the union casts them as before. All else
        is computed over the type that the union has, where that is known for sure.
        """
        everything = references(*keys, *(e for _, e in calls))
        computed = [k for k in keys if not isinstance(k, exp.Column)] + [e for _, e in calls]
        types = self._types(node, references(*computed))
        if types is None or not everything <= frozenset(node.symbols):
            return None
        asked: list[_Asked] = []
        for branch, names in _branches(node):
            values = self._in_branch(branch, names, types)
            branch_keys = tuple(
                column(names[k.name]) if isinstance(k, exp.Column) else substitute(k, values)
                for k in keys
            )
            parts = tuple((self.fresh("part"), substitute(e, values)) for _, e in calls)
            asked.append(_Asked(branch, branch_keys, parts))
        found = [self.grouped(a.relation, a.keys, a.calls) for a in asked]
        if not any(found):
            return None
        left, right = (self._side(a, f) for a, f in zip(asked, found, strict=True))
        names_above = tuple(self.fresh(_name_of(k)) for k in keys)
        above = (*names_above, *(s for s, _ in calls))
        columns = tuple(zip(above, left.symbols, right.symbols, strict=True))
        union = SetOperation(left, right, "UNION", True, columns)
        return _Grouped(union, tuple(column(s) for s in names_above))

    def _side(self, asked: _Asked, found: _Grouped | None) -> Project:
        """A branch with the keys and the parts as its columns, in this order."""
        if found is None:
            relation, keys = asked.relation, asked.keys
            parts = tuple((s, _of_one_row(e)) for s, e in asked.calls)
        else:
            relation, keys = found.relation, found.keys
            parts = tuple((s, column(s)) for s, _ in asked.calls)
        named: dict[str, Expr] = {}
        for key in keys:
            is_free = isinstance(key, exp.Column) and key.name not in named
            named[key.name if is_free else self.fresh(_name_of(key))] = key
        return Project(relation, (*named.items(), *parts))

    def _types(self, node: SetOperation, symbols: frozenset[str]) -> dict[str, str] | None:
        """The types of columns of a union; None where one is not known."""
        types: dict[str, str] = {}
        for symbol in symbols:
            type_ = self._type_of(node, symbol)
            if type_ is None:
                return None
            types[symbol] = type_
        return types

    def _type_of(self, node: Relation, symbol: str) -> str | None:
        match node:
            case SetOperation(kind="UNION", all=True):
                if symbol not in node.symbols:
                    return None
                a, b = (self._type_of(branch, names[symbol]) for branch, names in _branches(node))
                if a == b or a is None or b is None:
                    return a if a == b else None
                return wider_exact(a, b) if is_exact(a) and is_exact(b) else None
            case Project():
                value = dict(node.assignments).get(symbol)
                if isinstance(value, exp.Column):
                    return self._type_of(node.input, value.name)
        return self.judge.type_of(node, symbol)

    def _in_branch(
        self, branch: Relation, names: dict[str, str], types: dict[str, str]
    ) -> Callable[[str], Expr | None]:
        """The union's columns in terms of a branch, cast as the union casts them."""

        def value(symbol: str) -> Expr | None:
            own = column(names[symbol])
            if self._type_of(branch, names[symbol]) == types[symbol]:
                return own
            return exp.Cast(this=own, to=exp.DataType.build(types[symbol], dialect="duckdb"))

        return value


def kept_sides(node: Join) -> tuple[Relation, ...]:
    """The sides of a join whose rows it drops or multiplies, but does not pad with NULLs.

    A row that stands for a missing partner would have to count for nothing.
    """
    match node.kind:
        case "INNER" | "CROSS":
            return (node.left, node.right)
        case "LEFT" | "SEMI" | "ANTI":
            return (node.left,)
        case "RIGHT":
            return (node.right,)
    return ()


def _with_condition(
    node: Relation, condition: Expr | None, values: Callable[[str], Expr | None]
) -> Relation:
    if condition is None:
        return node
    new = substitute(condition, values)
    match node:
        case Join():
            return replace(node, on=new)
        case Filter():
            return replace(node, condition=new)
    return node


def _branches(node: SetOperation) -> tuple[tuple[Relation, dict[str, str]], ...]:
    """Each branch, and its symbol for each column of the union."""
    return (
        (node.left, {s: a for s, a, _ in node.columns}),
        (node.right, {s: b for s, _, b in node.columns}),
    )


def _name_of(key: Expr) -> str:
    return key.name if isinstance(key, exp.Column) else "key"


# --- aggregates in two parts -------------------------------------------------------------------


def _is_partial(call: Expr) -> bool:
    """Whether a call can be made of parts; what numbers are exact is the source's to say."""
    inner = call.this if isinstance(call, exp.Filter) else call
    match inner:
        case exp.Count(this=exp.Star()):
            return True
        case exp.Sum() | exp.Count() | exp.Min() | exp.Max() | exp.Avg():
            others = [a for a in inner.expressions if isinstance(a, exp.Expr)]
            return not others and not isinstance(inner.this, exp.Distinct | exp.Order)
    return False


def _of_one_row(call: Expr) -> Expr:
    """What a partial aggregate is over a single row."""
    condition = call.expression.this if isinstance(call, exp.Filter) else None
    inner = call.this if isinstance(call, exp.Filter) else call
    if not isinstance(inner, exp.Count):
        return inner.this.copy() if condition is None else _where(condition, inner.this)
    if not isinstance(inner.this, exp.Star):
        known = exp.Not(this=exp.Is(this=parenthesized(inner.this.copy()), expression=exp.Null()))
        condition = known if condition is None else exp.and_(condition, known)
    one = exp.Literal.number(1)
    return one if condition is None else _where(condition, one, exp.Literal.number(0))


def _where(condition: Expr, value: Expr, default: Expr | None = None) -> exp.Case:
    choice = exp.If(this=condition.copy(), true=value.copy())
    return exp.Case(ifs=[choice], default=default)


@dataclass
class _Split:
    """Each call as one or two below, one or two above, and an expression of those."""

    fresh: Fresh
    known: dict[tuple[Expr, type[exp.AggFunc]], str] = field(default_factory=dict)
    below: list[Assignment] = field(default_factory=list)
    above: list[Assignment] = field(default_factory=list)
    results: list[Assignment] = field(default_factory=list)

    def add(self, symbol: str, call: Expr) -> None:
        inner = call.this if isinstance(call, exp.Filter) else call
        match inner:
            case exp.Sum():
                result: Expr = self._part(call, inner.copy(), exp.Sum)
            case exp.Min():
                result = self._part(call, inner.copy(), exp.Min)
            case exp.Max():
                result = self._part(call, inner.copy(), exp.Max)
            case exp.Avg():
                total = self._part(call, exp.Sum(this=inner.this.copy()), exp.Sum)
                count = exp.Count(this=inner.this.copy(), big_int=True)
                result = quotient(total, self._part(call, count, exp.Sum))
            case _:
                counted = self._part(call, inner.copy(), exp.Sum)
                whole = exp.Coalesce(this=counted, expressions=[exp.Literal.number(0)])
                result = exp.Cast(this=whole, to=exp.DataType.build("BIGINT"))
        self.results.append((symbol, result))

    def _part(self, call: Expr, partial: Expr, final: type[exp.AggFunc]) -> exp.Column:
        if isinstance(call, exp.Filter):
            partial = exp.Filter(this=partial, expression=call.expression.copy())
        if (partial, final) in self.known:
            return column(self.known[partial, final])
        below, above = self.fresh("part"), self.fresh("whole")
        self.known[partial, final] = above
        self.below.append((below, partial))
        self.above.append((above, final(this=column(below))))
        return column(above)
