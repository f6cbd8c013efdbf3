"""DISTINCT at the sources, where repeated rows are no matter above.

``SELECT DISTINCT a.x FROM a JOIN b ON a.k = b.k`` needs of ``a``, from another source, each pair of
``x`` and ``k`` once. So it is wherever rows are only looked at as a set: below DISTINCT, in the
branches of UNION, INTERSECT and EXCEPT, on the right of a semi- or anti-join, in the subquery of
EXISTS, IN, ANY and ALL, and below aggregates that count no row twice (``count(DISTINCT x)``, least
and greatest values).

Why it is right: the set of rows that a projection, a filter, a join of any kind or a union delivers
depends on the sets of rows that it reads, and on nothing else, as long as its expressions give the
same for the same row. What a source is not proved to tell apart as DuckDB does, it is not asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlglot import exp

from batuta_sql.plan.relational import (
    Aggregate,
    Apply,
    Distinct,
    Expr,
    Filter,
    Join,
    Project,
    Relation,
    SetOperation,
    column,
    is_stable,
    references,
)
from batuta_sql.plan.rules.eager_aggregation import Judge
from batuta_sql.plan.rules.group_joins import sites
from batuta_sql.plan.site import LOCAL

Symbols = frozenset[str]


def early_distinct(plan: Relation, judge: Judge) -> Relation:
    """``plan`` with a Distinct at each source where that saves rows."""
    if not any(_asks_for_sets(n) for n in plan.walk()):
        return plan
    return _Search(judge).visit(plan)


def _asks_for_sets(node: Relation) -> bool:
    """Whether repeated rows of an input of ``node`` are no matter."""
    match node:
        case Distinct(on=()) | SetOperation(all=False) | Join(kind="SEMI" | "ANTI"):
            return True
        case Apply():
            return node.kind != "scalar"
        case Aggregate(grouping_sets=None):
            return all(_counts_no_row_twice(e) for _, e in node.aggregates)
    return False


def _counts_no_row_twice(call: Expr) -> bool:
    inner = call.this if isinstance(call, exp.Filter) else call
    match inner:
        case exp.Min() | exp.Max():
            return not inner.expressions
        case exp.LogicalAnd() | exp.LogicalOr():
            return True
        case exp.Count() | exp.Sum() | exp.Avg():
            return isinstance(inner.this, exp.Distinct)
    return False


@dataclass(frozen=True)
class _Search:
    judge: Judge

    def visit(self, node: Relation) -> Relation:
        """``node`` with the same rows, as often as before."""
        if self._stays_whole(node):
            return node
        if _is_stable(node) and _asks_for_sets(node):
            match node:
                case Distinct():
                    return replace(node, input=self.as_set(node.input, frozenset(node.symbols)))
                case SetOperation():
                    return self._branches(node)
                case Join():
                    right = self.as_set(node.right, references(node.on))
                    return replace(node, left=self.visit(node.left), right=right)
                case Apply():
                    values = frozenset(node.subquery.symbols)
                    subquery = self.as_set(node.subquery, values)
                    return replace(node, input=self.visit(node.input), subquery=subquery)
                case Aggregate():
                    return replace(
                        node, input=self.as_set(node.input, references(*node.expressions))
                    )
        return node.with_inputs(*(self.visit(i) for i in node.inputs))

    def as_set(self, node: Relation, read: Symbols) -> Relation:
        """``node`` with the same set of rows.

        :param read: the symbols that are read above; others may be gone.
        """
        home = sites(node)
        if len(home) == 1 and LOCAL not in home:
            reduced = self._reduced(node, read)
            if reduced is not None:
                return reduced
        if not _is_stable(node):
            return self.visit(node)
        match node:
            case Project():
                return replace(node, input=self.as_set(node.input, references(*node.expressions)))
            case Filter():
                below = read | references(node.condition)
                return replace(node, input=self.as_set(node.input, below))
            case Join() if not node.kind.startswith("ASOF"):
                below = read | references(node.on)
                right = references(node.on) if node.kind in ("SEMI", "ANTI") else below
                return replace(
                    node, left=self.as_set(node.left, below), right=self.as_set(node.right, right)
                )
            case SetOperation() if node.kind == "UNION" or not node.all:
                return self._branches(node)
        return self.visit(node)

    def _branches(self, node: SetOperation) -> SetOperation:
        left = self.as_set(node.left, frozenset(a for _, a, _ in node.columns))
        right = self.as_set(node.right, frozenset(b for _, _, b in node.columns))
        return replace(node, left=left, right=right)

    def _reduced(self, node: Relation, read: Symbols) -> Relation | None:
        """The distinct values of what is read of ``node``, where its source should find them."""
        kept = tuple(s for s in node.symbols if s in read)
        if not kept or _has_no_repeats(node):
            return None
        if kept != node.symbols:
            node = Project(node, tuple((s, column(s)) for s in kept))
        reduced = Distinct(node)
        return reduced if self.judge.pays(reduced) else None

    def _stays_whole(self, node: Relation) -> bool:
        """Whether ``node`` will be run by one source, which knows best what it reads twice."""
        return (
            len(sites(node)) == 1
            and any(_asks_for_sets(n) for n in node.walk())
            and self.judge.runs(node)
        )


def _is_stable(node: Relation) -> bool:
    return all(is_stable(e) for e in node.expressions)


def _has_no_repeats(node: Relation) -> bool:
    """Whether each row is there once, by the form of ``node``."""
    while isinstance(node, Filter):
        node = node.input
    return isinstance(node, Aggregate | Distinct) or (
        isinstance(node, SetOperation) and not node.all
    )
