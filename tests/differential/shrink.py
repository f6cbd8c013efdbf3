"""Makes a failing query small: parts are taken away for as long as it still fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

SECONDS = 60.0
ATTEMPTS = 600

CLAUSES = ("with_", "with", "where", "group", "having", "qualify", "order", "limit", "offset")


def shrink(
    sql: str,
    fails: Callable[[str], bool],
    seconds: float = SECONDS,
    attempts: int = ATTEMPTS,
) -> str:
    """The smallest query found for which ``fails`` is still true.

    :param fails: must be false for a query that is not valid.
    :param seconds: when to be content with what there is.
    :param attempts: how often ``fails`` is asked at most.
    """
    best = _normal(sql)
    if best is None or not fails(best):
        return sql
    deadline = time.monotonic() + seconds
    tried = {best}
    improved = True
    while improved:
        improved = False
        for smaller in sorted(_candidates(best), key=len):
            if smaller in tried or len(smaller) >= len(best):
                continue
            if len(tried) > attempts or time.monotonic() > deadline:
                return best
            tried.add(smaller)
            if fails(smaller):
                best, improved = smaller, True
                break
    return best


def _normal(sql: str) -> str | None:
    try:
        return sqlglot.parse_one(sql, dialect="duckdb").sql(dialect="duckdb")
    except SqlglotError:
        return None


def _candidates(sql: str) -> Iterator[str]:
    """Queries with one thing less."""
    count = sum(1 for _ in sqlglot.parse_one(sql, dialect="duckdb").walk())
    for index in range(count):
        option = 0
        while True:
            # A fresh tree for each edit: edits are made in place.
            tree = sqlglot.parse_one(sql, dialect="duckdb")
            node = next(node for at, node in enumerate(tree.walk()) if at == index)
            edited = _edit(tree, node, option)
            if edited is None:
                break
            option += 1
            try:
                yield edited.sql(dialect="duckdb")
            except (SqlglotError, ValueError, AttributeError):
                continue


def _edit(tree: exp.Expression, node: exp.Expression, option: int) -> exp.Expression | None:
    """The tree with the ``option``-th edit made at a node of it; None where there is no such."""
    edits = _edits(tree, node)
    return edits[option]() if option < len(edits) else None


def _edits(tree: exp.Expression, node: exp.Expression) -> list[Callable[[], exp.Expression]]:
    found: list[Callable[[], exp.Expression]] = []

    def become(replacement: exp.Expression) -> Callable[[], exp.Expression]:
        def edit() -> exp.Expression:
            if node is tree:
                return replacement.copy()
            node.replace(replacement.copy())
            return tree

        return edit

    def without(key: str, position: int | None = None) -> Callable[[], exp.Expression]:
        def edit() -> exp.Expression:
            if position is None:
                node.set(key, None)
            else:
                kept = list(node.args[key])
                del kept[position]
                node.set(key, kept or None)
            return tree

        return edit

    if isinstance(node, exp.Query):
        found += [without(key) for key in (*CLAUSES, "distinct") if node.args.get(key)]
        if node is not tree or isinstance(node, exp.SetOperation):
            found += [
                become(part)
                for part in (node.args.get("this"), node.args.get("expression"))
                if isinstance(part, exp.Query)
            ]
        if node is tree:
            found += [
                become(inner)
                for inner in tree.find_all(exp.Select)
                if inner is not tree and not isinstance(inner.parent, exp.SetOperation)
            ]
    if isinstance(node, exp.Select) and node.args.get("joins"):
        found.append(_first_joined_alone(tree, node))
    if isinstance(node, exp.CTE):
        found.append(_common_table_inlined(tree, node))
    for key in ("expressions", "joins"):
        items = node.args.get(key)
        if isinstance(items, list) and len(items) > (0 if key == "joins" else 1):
            found += [without(key, position) for position in range(len(items))]
    if isinstance(node, exp.Subquery | exp.Table | exp.From | exp.Join | exp.Identifier | exp.With):
        return found
    if isinstance(node, exp.Filter | exp.Window | exp.Alias):
        if not isinstance(node, exp.Alias) and isinstance(node.this, exp.Expression):
            found.append(become(node.this))
        return found
    if isinstance(node, exp.Condition) and not isinstance(node, exp.Column | exp.Literal):
        found += [
            become(child)
            for child in node.iter_expressions()
            if isinstance(child, exp.Condition) and not isinstance(child, exp.Identifier)
        ]
    if isinstance(node, exp.Case):
        found += [become(branch.args["true"]) for branch in node.args["ifs"]]
    return found


def _first_joined_alone(tree: exp.Expression, select: exp.Select) -> Callable[[], exp.Expression]:
    """What is joined first takes the place of what it is joined to."""

    def edit() -> exp.Expression:
        first, *rest = select.args["joins"]
        select.find(exp.From).set("this", first.this.copy())
        select.set("joins", [join.copy() for join in rest] or None)
        return tree

    return edit


def _common_table_inlined(tree: exp.Expression, common: exp.CTE) -> Callable[[], exp.Expression]:
    """The table below a WITH takes the place of the WITH's name."""

    def edit() -> exp.Expression:
        below = common.this.find(exp.Table)
        if below is not None:
            for table in list(tree.find_all(exp.Table)):
                if table.name == common.alias and table is not below:
                    table.set("this", below.this.copy())
            head = common.parent
            if head is not None:
                head.pop()
        return tree

    return edit
