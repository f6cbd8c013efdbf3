"""Puts relations of one source side by side, so that they become one fragment.

Only inner joins are reordered, and only relations that an equality connects without multiplying
their rows are brought together: such a join at the source would move more, not less.
"""

from __future__ import annotations

from sqlglot import exp

from batuta_sql.plan.cardinality import Cardinality
from batuta_sql.plan.relational import (
    Expr,
    Filter,
    Join,
    LocalScan,
    Relation,
    Scan,
    column,
    conjunction,
    conjuncts,
    filtered,
    references,
)
from batuta_sql.plan.rewrite import known_type
from batuta_sql.plan.site import LOCAL


def group_joins(plan: Relation, cardinality: Cardinality | None = None) -> Relation:
    """``plan`` with each cluster of inner joins grouped by source."""
    known = cardinality or Cardinality()
    if isinstance(plan, Join | Filter):
        relations: list[Relation] = []
        predicates: list[Expr] = []
        _flatten(plan, relations, predicates)
        if len(relations) > 2:
            return _assemble([group_joins(r, known) for r in relations], predicates, known)
    return plan.with_inputs(*(group_joins(i, known) for i in plan.inputs))


def sites(plan: Relation) -> frozenset[str]:
    """The sources whose tables ``plan`` reads; ``LOCAL`` for local relations."""
    found: set[str] = set()
    for node in plan.walk():
        match node:
            case Scan():
                found.add(node.table.source)
            case LocalScan():
                found.add(LOCAL)
    return frozenset(found)


def _flatten(node: Relation, relations: list[Relation], predicates: list[Expr]) -> None:
    match node:
        case Join(kind="INNER" | "CROSS"):
            _flatten(node.left, relations, predicates)
            _flatten(node.right, relations, predicates)
            predicates.extend(conjuncts(node.on))
        case Filter(input=Join(kind="INNER" | "CROSS")):
            _flatten(node.input, relations, predicates)
            predicates.extend(conjuncts(node.condition))
        case _:
            relations.append(node)


def _assemble(
    relations: list[Relation], predicates: list[Expr], cardinality: Cardinality
) -> Relation:
    groups: list[Relation] = []
    left = list(predicates)
    pending = list(relations)
    homes = {id(r): sites(r) for r in relations}
    while pending:
        group = pending.pop(0)
        home = homes[id(group)]
        if len(home) == 1 and LOCAL not in home:
            grown = True
            while grown:
                grown = False
                for other in pending:
                    if homes[id(other)] != home:
                        continue
                    told = left
                    if not _connecting(group, other, left):
                        told = _bridged(group, other, relations, left)
                    if _worth_joining(group, other, told, cardinality):
                        left = told
                        group = _join(group, other, left)
                        pending.remove(other)
                        grown = True
                        break
        groups.append(group)
    result = groups.pop(0)
    while groups:
        connected = next((g for g in groups if _connecting(result, g, left)), groups[0])
        groups.remove(connected)
        result = _join(result, connected, left)
    return filtered(result, left)


def _connecting(a: Relation, b: Relation, predicates: list[Expr]) -> list[Expr]:
    """Predicates that read both relations and nothing else of the cluster."""
    mine, theirs = frozenset(a.symbols), frozenset(b.symbols)
    return [
        p
        for p in predicates
        if references(p) & mine and references(p) & theirs and references(p) <= mine | theirs
    ]


def _bridged(
    a: Relation, b: Relation, relations: list[Relation], predicates: list[Expr]
) -> list[Expr]:
    """The predicates with one that connects two relations, where others imply it.

    ``a.x = c.z AND c.z = b.y`` says the same as ``a.x = c.z AND a.x = b.y`` where all three are of
    one type: the join of ``a`` and ``b`` need not wait for ``c``.
    """

    def type_of(symbol: str) -> str | None:
        return next((known_type(r, symbol) for r in relations if symbol in r.symbols), None)

    edges: dict[str, list[tuple[str, Expr]]] = {}
    for predicate in predicates:
        match predicate:
            case exp.EQ(this=exp.Column() as x, expression=exp.Column() as y):
                if (known := type_of(x.name)) is not None and known == type_of(y.name):
                    edges.setdefault(x.name, []).append((y.name, predicate))
                    edges.setdefault(y.name, []).append((x.name, predicate))
    theirs = frozenset(b.symbols)
    for start in [s for s in a.symbols if s in edges]:
        seen, waiting = {start}, [start]
        while waiting:
            for reached, edge in edges[waiting.pop(0)]:
                if reached in theirs:
                    bridge = exp.EQ(this=column(start), expression=column(reached))
                    return [bridge if p is edge else p for p in predicates]
                if reached not in seen:
                    seen.add(reached)
                    waiting.append(reached)
    return predicates


def _worth_joining(
    a: Relation, b: Relation, predicates: list[Expr], cardinality: Cardinality
) -> bool:
    on = _connecting(a, b, predicates)
    return bool(on) and not cardinality.multiplies(Join(a, b, "INNER", conjunction(on)))


def _join(a: Relation, b: Relation, predicates: list[Expr]) -> Relation:
    """Joins two relations, taking what connects them out of ``predicates``."""
    on = _connecting(a, b, predicates)
    for p in on:
        predicates.remove(p)
    return Join(a, b, "INNER" if on else "CROSS", conjunction(on))
