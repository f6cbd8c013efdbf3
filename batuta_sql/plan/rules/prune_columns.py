"""Reads and moves only the columns that something above needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from batuta_sql.plan.relational import (
    Aggregate,
    Apply,
    CommonScan,
    Distinct,
    Exchange,
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
    column,
    free_symbols,
    references,
)
from batuta_sql.plan.site import ColumnInfo

Symbols = frozenset[str]


def prune_columns(plan: Relation, needed: Symbols) -> Relation:
    """``plan`` without what does not contribute to the symbols ``needed``."""
    return _prune(plan, needed)


def _prune(node: Relation, needed: Symbols) -> Relation:
    match node:
        case Scan():
            kept = tuple(c for c in node.columns if c[0] in needed)
            return _reduced(node, columns=kept or _narrowest(node))
        case LocalScan():
            kept_local = tuple(c for c in node.columns if c[0] in needed)
            return _reduced(node, columns=kept_local or node.columns[:1])
        case CommonScan():
            pairs = tuple(c for c in node.columns if c[0] in needed)
            return _reduced(node, columns=pairs or node.columns[:1])
        case OneRow():
            return node
        case Exchange():
            wanted = tuple(s for s in node.symbols if s in needed) or node.symbols[:1]
            inner = _prune(node.input, frozenset(wanted))
            if inner.symbols != wanted:
                inner = Project(inner, tuple((s, column(s)) for s in wanted))
            return _reduced(node, input=inner)
        case Filter():
            below = _prune(node.input, needed | references(node.condition))
            return _reduced(node, input=below)
        case Project():
            kept_items = tuple(a for a in node.assignments if a[0] in needed)
            if not kept_items:
                kept_items = node.assignments[:1]
            below = _prune(node.input, references(*(e for _, e in kept_items)))
            return _reduced(node, input=below, assignments=kept_items)
        case Join():
            wanted_here = needed | references(node.on)
            return _reduced(
                node, left=_prune(node.left, wanted_here), right=_prune(node.right, wanted_here)
            )
        case Apply():
            return _prune_apply(node, needed)
        case Aggregate():
            calls = tuple(a for a in node.aggregates if a[0] in needed)
            if not node.keys and not calls:
                calls = node.aggregates[:1]
            below = _prune(node.input, references(*(e for _, e in node.keys + calls)))
            return _reduced(node, input=below, aggregates=calls)
        case Window():
            functions = tuple(f for f in node.functions if f[0] in needed)
            below = _prune(node.input, needed | references(*(e for _, e in functions)))
            return _reduced(node, input=below, functions=functions) if functions else below
        case Distinct() if not node.on:
            return _reduced(node, input=_prune(node.input, frozenset(node.input.symbols)))
        case Distinct() | Sort():
            below = _prune(node.inputs[0], needed | references(*node.expressions))
            return node.with_inputs(below)
        case Limit():
            return _reduced(node, input=_prune(node.input, needed))
        case SetOperation():
            return _prune_set(node, needed)
        case With():
            body = _prune(node.body, needed)
            used = frozenset(
                source
                for inner in body.walk()
                if isinstance(inner, CommonScan) and inner.name == node.name
                for _, source in inner.columns
            )
            if not used:
                return body
            return _reduced(node, definition=_prune_to(node.definition, used), body=body)
    return node.with_inputs(*(_prune(i, frozenset(i.symbols)) for i in node.inputs))


def _reduced(node: Relation, **parts: Any) -> Relation:
    """``node`` with other inputs, and with no more than these of its items; itself where both are
    what it has, so that what is known of it is not asked again.
    """
    for name, new in parts.items():
        old = getattr(node, name)
        if new is not old and not (isinstance(new, tuple) and len(new) == len(old)):
            return replace(node, **parts)
    return node


def _prune_to(node: Relation, wanted: Symbols) -> Relation:
    """Pruned to exactly the wanted symbols, in the node's own order."""
    symbols = tuple(s for s in node.symbols if s in wanted)
    pruned = _prune(node, wanted)
    if pruned.symbols == symbols:
        return pruned
    return Project(pruned, tuple((s, column(s)) for s in symbols))


def _prune_apply(node: Apply, needed: Symbols) -> Relation:
    if node.symbol not in needed:
        return _prune(node.input, needed)
    if node.kind == "exists":
        subquery = _prune(node.subquery, frozenset())
    else:
        subquery = _prune_to(node.subquery, frozenset(node.subquery.symbols))
    outer = free_symbols(node.subquery)
    below = _prune(node.input, needed | references(*node.operands) | outer)
    return _reduced(node, input=below, subquery=subquery)


def _prune_set(node: SetOperation, needed: Symbols) -> Relation:
    columns = node.columns
    if node.kind == "UNION" and node.all:
        columns = tuple(c for c in columns if c[0] in needed) or columns[:1]
    return _reduced(
        node,
        columns=columns,
        left=_prune_to(node.left, frozenset(c[1] for c in columns)),
        right=_prune_to(node.right, frozenset(c[2] for c in columns)),
    )


def _narrowest(scan: Scan) -> tuple[tuple[str, ColumnInfo], ...]:
    """A column to count rows by: of the shortest plain type."""
    order = ("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "DATE", "BIGINT")

    def rank(item: tuple[str, ColumnInfo]) -> int:
        return order.index(item[1].type) if item[1].type in order else len(order)

    return (min(scan.columns, key=rank),) if scan.columns else ()
