"""Brings a semi- or anti-join down to the relation of its own source, so that it runs there.

``(A JOIN B) SEMI C`` is ``(A SEMI C) JOIN B`` where the condition reads A and C alone. With A and C
in one source, what is moved is A's rows that pass, instead of A and C.
"""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from batuta_sql.plan.cardinality import Cardinality, equi_pairs
from batuta_sql.plan.relational import (
    Apply,
    Distinct,
    Filter,
    Join,
    Project,
    Relation,
    Scan,
    Sort,
    conjuncts,
    is_stable,
    references,
)
from batuta_sql.plan.rewrite import transform_up
from batuta_sql.plan.rules.group_joins import sites
from batuta_sql.plan.site import LOCAL


def push_semi_joins(plan: Relation) -> Relation:
    """``plan`` with each semi- and anti-join as low as its own source goes."""

    def rewrite(node: Relation) -> Relation:
        if isinstance(node, Join) and node.kind in ("SEMI", "ANTI"):
            return _pushed(node, node.left) or node
        return node

    return transform_up(plan, rewrite)


def _pushed(join: Join, left: Relation) -> Relation | None:
    """``left`` with the join inside it; None where it has no better place than above."""
    home = sites(join.right)
    if len(home) != 1 or LOCAL in home:
        return None
    if sites(left) == home and not any(isinstance(n, Apply) for n in left.walk()):
        at_the_top = left is join.left
        return None if at_the_top or not _pays(join, left) else replace(join, left=left)
    match left:
        case Filter() | Sort() | Distinct(on=()):
            if all(is_stable(e) for e in left.expressions):
                return _below(join, left, left.inputs[0])
        case Apply() if left.symbol not in references(join.on):
            return _below(join, left, left.input)
        case Project() if all(is_stable(e) for e in left.expressions):
            values = dict(left.assignments)
            if all(
                isinstance(e := values[s], exp.Column) and e.name == s
                for s in references(join.on) & values.keys()
            ):
                return _below(join, left, left.input)
        case Join(kind="INNER" | "CROSS"):
            if all(is_stable(e) for e in left.expressions):
                found = _below(join, left, left.left)
                return found if found is not None else _below(join, left, left.right)
        case Join(kind="LEFT" | "SEMI" | "ANTI"):
            if all(is_stable(e) for e in left.expressions):
                return _below(join, left, left.left)
    return None


def _below(join: Join, node: Relation, inside: Relation) -> Relation | None:
    """``node`` with the join brought into one of its inputs."""
    own = references(join.on) - frozenset(join.right.symbols)
    if not own or not own <= frozenset(inside.symbols):
        return None
    found = _pushed(join, inside)
    if found is None:
        return None
    return node.with_inputs(*(found if i is inside else i for i in node.inputs))


def _pays(join: Join, left: Relation) -> bool:
    """Whether the source can be trusted to run the join quickly.

    With equalities alone it hashes. Another condition beside them is checked for each pair of
    rows, and servers go wrong in estimating those: an index on the equality bounds the harm.
    """
    pairs = equi_pairs(replace(join, left=left))
    scan = join.right
    while isinstance(scan, Filter | Project):
        scan = scan.inputs[0]
    if not pairs or not isinstance(scan, Scan):
        return False
    cardinality = Cardinality()
    if cardinality.rows(left) > cardinality.rows(scan):
        return False
    if len(pairs) == len(conjuncts(join.on)):
        return True
    named = {s: c.name for s, c in scan.columns}
    equal = {named[s] for _, s in pairs if s in named}
    return any(key[0] in equal for key in scan.table.keys)
