"""Fragments that read the same rows are sent once, with the columns of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sqlglot import exp

from batuta_sql.plan.relational import (
    Aggregate,
    Exchange,
    Expr,
    Filter,
    Join,
    Project,
    Relation,
    Scan,
    column,
)
from batuta_sql.plan.rewrite import transform_up
from batuta_sql.plan.translate import WireColumn

Statement = tuple[exp.Query, tuple[tuple[str, WireColumn], ...]]
"""A fragment's query, and how each symbol that it delivers travels."""

_BODY = ("from_", "joins", "where", "group", "having")


@dataclass
class Delivery:
    """One statement for one or more exchanges."""

    exchange: Exchange
    query: exp.Query
    columns: list[tuple[str, WireColumn]]
    symbol_of: dict[tuple[str, str | None, str | None], str] = field(default_factory=dict)

    def symbol_for(self, symbol: str, wire: WireColumn) -> str:
        """The symbol under which a column is delivered; it is added where it is new."""
        key = _column_key(wire)
        found = self.symbol_of.get(key)
        if found is None:
            self.symbol_of[key] = found = symbol
            self.columns.append((symbol, wire))
            self.query.append(
                "expressions",
                exp.Alias(this=wire.sql.copy(), alias=exp.to_identifier(symbol, quoted=True)),
            )
        return found


def share(plan: Relation, statements: Mapping[str, Statement]) -> tuple[Relation, list[Delivery]]:
    """``plan`` with its exchanges joined where they read the same rows.

    :param statements: of each Exchange, by its name.
    """
    deliveries: dict[tuple[str, str], Delivery] = {}
    renamed: dict[str, tuple[Delivery, dict[str, str]]] = {}
    for node in plan.walk():
        if not isinstance(node, Exchange):
            continue
        query, columns = statements[node.name]
        key = (node.site, _body(node, query) or node.name)
        delivery = deliveries.get(key)
        if delivery is None:
            delivery = Delivery(node, query, list(columns))
            for symbol, wire in columns:
                delivery.symbol_of.setdefault(_column_key(wire), symbol)
            deliveries[key] = delivery
            renamed[node.name] = (delivery, {s: s for s, _ in columns})
        else:
            renamed[node.name] = (
                delivery,
                {s: delivery.symbol_for(s, wire) for s, wire in columns},
            )

    def rewrite(node: Relation) -> Relation:
        if not isinstance(node, Exchange):
            return node
        delivery, names = renamed[node.name]
        delivered = tuple(s for s, _ in delivery.columns)
        if delivery.exchange is node and delivered == node.symbols:
            return node
        shared = replace(
            node, input=delivery.exchange.input, name=delivery.exchange.name, delivered=delivered
        )
        return Project(shared, tuple((s, column(names[s])) for s in node.symbols))

    return transform_up(plan, rewrite), list(deliveries.values())


def _body(node: Exchange, query: exp.Query) -> str | None:
    """What a statement reads, apart from the columns it selects; None where that is not apart."""
    top = node.input
    while isinstance(top, Project | Filter):
        top = top.input
    if not isinstance(top, Scan | Join | Aggregate) or not isinstance(query, exp.Select):
        return None
    if any(value for name, value in query.args.items() if name not in (*_BODY, "expressions")):
        return None
    bare = exp.Select(expressions=[exp.Literal.number(1)])
    for name in _BODY:
        value = query.args.get(name)
        if isinstance(value, list):
            bare.set(name, [v.copy() for v in value])
        elif value is not None:
            bare.set(name, value.copy())
    return f"{type(top) is Aggregate}:{bare.sql('duckdb')}"


def _column_key(wire: WireColumn) -> tuple[str, str | None, str | None]:
    sql: Expr = wire.sql
    return sql.sql("duckdb"), wire.arrow, wire.decode
