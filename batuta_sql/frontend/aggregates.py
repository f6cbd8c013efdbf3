"""Which calls of an expression are aggregates of its block."""

from __future__ import annotations

from sqlglot import exp

from batuta_sql.plan.relational import Expr

WRAPPERS = (exp.Filter, exp.WithinGroup, exp.IgnoreNulls, exp.RespectNulls)
"""What may stand around an aggregate call and belongs to it."""


class Aggregates:
    """Finds aggregate calls.

    :param names: lower-cased names of all aggregate functions of the residual engine.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def is_call(self, node: Expr) -> bool:
        """Whether ``node`` is an aggregate call with all its wrappers (FILTER, WITHIN GROUP)."""
        if isinstance(node, WRAPPERS):
            return self.is_call(node.this)
        if isinstance(node, exp.AggFunc):
            return True
        if isinstance(node, exp.Anonymous | exp.AnonymousAggFunc):
            return node.name.lower() in self._names
        return False

    def within(self, node: Expr) -> list[Expr]:
        """The aggregate calls of this block in ``node``, outermost first; windows do not count."""
        if isinstance(node, exp.Window):
            return [a for part in window_inputs(node) for a in self.within(part)]
        if isinstance(node, exp.Query):
            return []
        if self.is_call(node):
            return [node]
        return [a for child in node.iter_expressions() for a in self.within(child)]

    def within_arguments(self, call: Expr) -> list[Expr]:
        """Aggregates nested in the arguments of an aggregate call."""
        return [a for part in unwrapped(call).iter_expressions() for a in self.within(part)]


def unwrapped(call: Expr) -> Expr:
    """The call itself, without FILTER and its like."""
    while isinstance(call, WRAPPERS):
        call = call.this
    return call


def window_inputs(window: exp.Window) -> list[Expr]:
    """What a window function reads: its arguments, partition and order, not the call itself."""
    parts: list[Expr] = list(unwrapped(window.this).iter_expressions())
    parts.extend(window.args.get("partition_by") or ())
    if window.args.get("order") is not None:
        parts.append(window.args["order"])
    node = window.this
    while isinstance(node, WRAPPERS):
        if isinstance(node.args.get("expression"), exp.Expr):
            parts.append(node.args["expression"])
        node = node.this
    return parts


def is_window_call(node: Expr) -> bool:
    """Whether ``node`` is the function of a window, not an aggregate of the block."""
    parent = node.parent
    while isinstance(parent, WRAPPERS) and parent.this is node:
        node, parent = parent, parent.parent
    return isinstance(parent, exp.Window) and parent.this is node


def call_name(call: Expr) -> str:
    """A name for the column of an aggregate call."""
    call = unwrapped(call)
    return call.key if not isinstance(call, exp.Anonymous) else call.name
