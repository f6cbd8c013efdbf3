"""Aggregates below a join with another source: fewer rows are moved.

A sum over ``orders JOIN customer`` grouped by the customers' region needs of orders, from another
source, only their sums by customer. These partial aggregates are made at the source, and put
together above the join. Only exact ones are: sums and averages of exact numbers, counts, least and
greatest values.

The rule is Yan and Larson's eager group-by ("Eager Aggregation and Lazy Aggregation", VLDB 1995).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from sqlglot import exp

from batuta_sql.plan.relational import (
    Aggregate,
    Assignment,
    Expr,
    Join,
    Project,
    Relation,
    Scan,
    column,
    is_stable,
    references,
    substitute,
)
from batuta_sql.plan.rewrite import transform_up
from batuta_sql.plan.rules.group_joins import sites
from batuta_sql.plan.rules.split_averages import quotient
from batuta_sql.plan.site import LOCAL

Fresh = Callable[[str], str]
Pays = Callable[[Aggregate], bool]


def eager_aggregates(plan: Relation, pays: Pays, fresh: Fresh) -> Relation:
    """``plan`` with partial aggregates below the joins of several sources.

    :param pays: whether a partial aggregate can be made at its source, and is worth it.
    :param fresh: makes a symbol that is unique in the query.
    """
    uses = Counter(n.table.qualified_parts for n in plan.walk() if isinstance(n, Scan))

    def alone(partial: Aggregate) -> bool:
        # What is read twice is moved once, as it is, for both.
        scans = [n for n in partial.walk() if isinstance(n, Scan)]
        return all(uses[n.table.qualified_parts] == 1 for n in scans)

    def rewrite(node: Relation) -> Relation:
        if isinstance(node, Aggregate) and node.grouping_sets is None and len(sites(node)) > 1:
            return _eager(_over_join(node), lambda p: alone(p) and pays(p), fresh) or node
        return node

    return transform_up(plan, rewrite)


def _over_join(node: Aggregate) -> Aggregate:
    """The Aggregate over what a projection below it reads."""
    while isinstance(node.input, Project) and all(is_stable(e) for e in node.input.expressions):
        values = dict(node.input.assignments).get
        node = Aggregate(
            node.input.input,
            tuple((s, substitute(e, values)) for s, e in node.keys),
            tuple((s, substitute(e, values)) for s, e in node.aggregates),
        )
    return node


def _eager(node: Aggregate, pays: Pays, fresh: Fresh) -> Relation | None:
    arguments = references(*(e for _, e in node.aggregates))
    stable = all(is_stable(e) for e in node.expressions)
    if not node.aggregates or not stable or not all(_is_partial(e) for _, e in node.aggregates):
        return None
    for side in _sides(node.input, arguments):
        found = _below(node, side, pays, fresh)
        if found is not None:
            return found
    return None


def _below(node: Aggregate, side: Relation, pays: Pays, fresh: Fresh) -> Relation | None:
    """``node`` in two parts, one of them over ``side``."""
    split = _Split(fresh)
    for symbol, call in node.aggregates:
        split.add(symbol, call)
    mine = frozenset(side.symbols)
    keys: list[Assignment] = []
    final_keys: list[Assignment] = []
    for symbol, key in node.keys:
        used = references(key)
        if used and used <= mine and not isinstance(key, exp.Column):
            name = fresh(symbol)
            keys.append((name, key))
            final_keys.append((symbol, column(name)))
        else:
            final_keys.append((symbol, key))
    needed = references(*(e for _, e in final_keys)) | _read_above(node.input, side)
    renamed = {s: fresh(s) for s in side.symbols if s in needed}
    keys += [(new, column(old)) for old, new in renamed.items()]
    partial = Aggregate(side, tuple(keys), tuple(split.below))
    if not keys or not pays(partial):
        return None
    above = _renamed(renamed)
    final = Aggregate(
        _replaced(node.input, side, partial, renamed),
        tuple((s, substitute(e, above)) for s, e in final_keys),
        tuple(split.above),
    )
    return Project(final, (*((s, column(s)) for s, _ in node.keys), *split.results))


def _sides(node: Relation, arguments: frozenset[str]) -> Iterator[Relation]:
    """The relations of one source, below joins with others, that have all arguments."""
    if not isinstance(node, Join) or node.kind not in ("INNER", "CROSS", "LEFT"):
        return
    if not (node.on is None or is_stable(node.on)):
        return
    # Of a left join's right side, a row that has no match has to count for nothing.
    for below in (node.left,) if node.kind == "LEFT" else (node.left, node.right):
        if not arguments <= frozenset(below.symbols):
            continue
        home = sites(below)
        if len(home) > 1:
            yield from _sides(below, arguments)
        elif LOCAL not in home:
            yield below


def _read_above(node: Relation, side: Relation) -> frozenset[str]:
    """The symbols that the joins above ``side`` read in their conditions."""
    used: frozenset[str] = frozenset()
    while node is not side:
        assert isinstance(node, Join)
        used |= references(node.on)
        node = node.left if _holds(node.left, side) else node.right
    return used


def _replaced(
    node: Relation, side: Relation, partial: Relation, renamed: dict[str, str]
) -> Relation:
    if node is side:
        return partial
    assert isinstance(node, Join)
    on = substitute(node.on, _renamed(renamed)) if node.on is not None else None
    if _holds(node.left, side):
        return replace(node, left=_replaced(node.left, side, partial, renamed), on=on)
    return replace(node, right=_replaced(node.right, side, partial, renamed), on=on)


def _holds(node: Relation, side: Relation) -> bool:
    return any(n is side for n in node.walk())


def _renamed(names: dict[str, str]) -> Callable[[str], Expr | None]:
    return lambda symbol: column(names[symbol]) if symbol in names else None


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


@dataclass
class _Split:
    """Each call as one or two below the join, one or two above it, and an expression of those."""

    fresh: Fresh
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
        below, above = self.fresh("part"), self.fresh("whole")
        self.below.append((below, partial))
        self.above.append((above, final(this=column(below))))
        return column(above)
