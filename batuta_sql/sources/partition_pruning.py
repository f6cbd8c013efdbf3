"""Which partitions a fragment can need, read from its text.

Only what is certain counts: a partition is left out where every place that reads the table drops
its rows before anything else can see them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError


def partition_condition(sql: str, view: str, columns: Collection[str]) -> str | None:
    """A condition over ``columns`` that holds for every row of ``view`` that ``sql`` can need.

    :param sql: a statement in DuckDB's dialect.
    :param columns: names of the partition columns.
    :return: None where any row may be needed.
    """
    wanted = {c.lower() for c in columns}
    found: list[str] = []
    for alias, conditions in uses_of_view(sql, view):
        kept = [c for c in conditions if _is_about(c, alias, wanted)]
        if not kept:
            return None
        found.append(" AND ".join(f"({_bare(c)})" for c in kept))
    return " OR ".join(f"({c})" for c in found) or None


def uses_of_view(sql: str, view: str) -> list[tuple[str, list[exp.Expr]]]:
    """Each place that reads ``view``: its name there, and conditions that its rows must meet.

    A row that fails one of them has no effect in that place. Without conditions
    every row may have one; without places the text was not understood.
    """
    try:
        tree = sqlglot.parse_one(sql, read="duckdb")
    except SqlglotError:
        return []
    uses = [t for t in tree.find_all(exp.Table) if t.name == view and not t.db]
    return [(use.alias_or_name, _demanded(use)) for use in uses]


def _demanded(table: exp.Table) -> list[exp.Expr]:
    """What the SELECT around a table demands of all its rows."""
    clause = table.parent
    select = clause.parent if isinstance(clause, exp.From | exp.Join) else None
    if not isinstance(select, exp.Select) or not only_inner(select) or _decorated(table):
        return []
    return list(conjuncts(select.args.get("where")))


def only_inner(select: exp.Select) -> bool:
    """Whether rows that WHERE drops could not have had another effect before it.

    Under an outer join a row that is gone makes its partner look unmatched.
    """
    if select.args.get("laterals"):
        return False
    return all(
        not join.side and not join.method and join.kind.upper() in ("", "INNER", "CROSS")
        for join in select.args.get("joins") or ()
    )


def _decorated(table: exp.Table) -> bool:
    return any(table.args.get(k) for k in ("pivots", "sample", "joins", "laterals"))


def conjuncts(where: exp.Where | None) -> Iterator[exp.Expr]:
    """The conditions of a WHERE that must all hold."""
    waiting = [where.this] if where is not None else []
    while waiting:
        node = waiting.pop()
        match node:
            case exp.And():
                waiting += [node.left, node.right]
            case exp.Paren():
                waiting.append(node.this)
            case _:
                yield node


def _is_about(condition: exp.Expr, alias: str, columns: Collection[str]) -> bool:
    """Whether a condition looks at nothing but partition columns of one table."""
    if condition.find(exp.Query, exp.Lambda, exp.Window, exp.Star):
        return False
    used = list(condition.find_all(exp.Column))
    return bool(used) and all(c.table == alias and c.name.lower() in columns for c in used)


def _bare(condition: exp.Expr) -> str:
    def bare(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Column):
            return exp.Column(this=exp.to_identifier(node.name, quoted=True))
        return node

    return condition.transform(bare).sql("duckdb")
