"""Operators -> the tree that people read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlglot import exp

from batuta_sql.plan.fragments import Fragment
from batuta_sql.plan.placement import Placed
from batuta_sql.plan.relational import (
    Aggregate,
    Apply,
    CommonScan,
    Distinct,
    Exchange,
    Expr,
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
)
from batuta_sql.plan.rules.key_filters import Keyed, KeyFilter

Annotate = Callable[[Fragment], Sequence[str]]


def explain(placed: Placed, annotate: Annotate = lambda _: ()) -> str:
    """The tree of a placed plan.

    :param annotate: further lines for a fragment: its estimate, its actual figures.
    """
    fragments = {f.name: f for f in placed.fragments}
    lines: list[str] = []

    def remarks(fragment: Fragment) -> list[str]:
        return [*_waiting(placed, fragment), *_expected(placed, fragment), *annotate(fragment)]

    for name, keyed in placed.keyed.items():
        fragments[name] = replace(fragments[name], sql=_with_names_of_keys(keyed))
    _write(placed.plan, "", "", lines, fragments, remarks)
    if placed.kept or placed.fallbacks:
        lines.append("")
        lines.append("Runs here:")
        lines.extend(f"  {reason}" for reason in placed.kept)
        lines.extend(f"  a block as it is: {f.reason}" for f in placed.fallbacks)
    return "\n".join(lines)


def _write(
    node: Relation,
    lead: str,
    below: str,
    lines: list[str],
    fragments: dict[str, Fragment],
    annotate: Annotate,
) -> None:
    lines.append(lead + describe(node))
    if isinstance(node, Exchange):
        fragment = fragments.pop(node.name, None)
        if fragment is None:
            lines[-1] += ": the same rows"
        else:
            lines.extend(f"{below}    {line}" for line in pretty(fragment).splitlines())
            lines.extend(f"{below}    -- {line}" for line in annotate(fragment))
        return
    inputs = _shown_inputs(node)
    for index, child in enumerate(inputs):
        last = index == len(inputs) - 1
        _write(
            child,
            below + ("└─ " if last else "├─ "),
            below + ("   " if last else "│  "),
            lines,
            fragments,
            annotate,
        )


def _waiting(placed: Placed, fragment: Fragment) -> list[str]:
    """What a fragment waits for before it is sent."""
    keyed = placed.keyed.get(fragment.name)
    if keyed is None:
        return []
    return [f"about {f.keys:,.0f} {_name_of(f)} for {f.column}" for f in keyed.filters]


def _expected(placed: Placed, fragment: Fragment) -> list[str]:
    """What a fragment is thought to deliver, and how long that takes where it was measured."""
    if fragment.rows is None:
        return []
    keyed = placed.keyed.get(fragment.name)
    rows, share, left = fragment.rows, 1.0, ""
    if keyed is not None:
        rows, share = keyed.rows, keyed.rows / max(fragment.rows, 1.0)
        left = f" of {fragment.rows:,.0f}"
    line = f"about {rows:,.0f}{left} row{'' if f'{rows:.0f}' == '1' and not left else 's'}"
    if fragment.bytes is not None:
        line += f", {_rounded(fragment.bytes * share)} bytes"
    if fragment.seconds is not None:
        line += f", {fragment.seconds:.2g} s{' without keys' if keyed else ''}"
    return [line]


def _rounded(number: float) -> str:
    """Three digits: an estimate is not better than that."""
    return f"{float(f'{number:.3g}'):,.0f}"


def _name_of(keys: KeyFilter) -> str:
    return f"keys of {', '.join(sorted(keys.exchanges)) or 'rows here'}"


def _with_names_of_keys(keyed: Keyed) -> str:
    """The statement with a name in the place of each list of keys."""
    sql = keyed.sql
    for one in keyed.filters:
        sql = sql.replace(f"'{one.marker}'", f"<{_name_of(one)}>")
    return sql


def _shown_inputs(node: Relation) -> tuple[Relation, ...]:
    return node.inputs


def pretty(fragment: Fragment) -> str:
    """A fragment's statement over several lines; as it was sent where it cannot be parsed."""
    return re.sub(r"\s+", " ", fragment.sql) if len(fragment.sql) < 100 else _wrapped(fragment.sql)


def _wrapped(sql: str) -> str:
    clauses = "FROM|WHERE|GROUP BY|HAVING|ORDER BY|LIMIT|UNION"
    joins = "(?:LEFT |RIGHT |FULL |CROSS )?JOIN"
    return re.sub(f" (?=(?:{clauses}|{joins}) )", "\n", sql)


def describe(node: Relation) -> str:
    """One line for an operator."""
    match node:
        case Exchange():
            return f"Exchange {node.site} ({node.name})"
        case Scan():
            return f"Scan {node.table.qualified} [{_names(node.symbols)}]"
        case LocalScan():
            tables = ", ".join(t.qualified for t in node.tables)
            what = f"fallback over {tables}" if node.reason else "local"
            return f"LocalScan {what} [{_names(node.symbols)}]"
        case OneRow():
            return "OneRow"
        case Filter():
            return f"Filter {_text(node.condition)}"
        case Project():
            return "Project " + ", ".join(_assignment(s, e) for s, e in node.assignments)
        case Join():
            on = f" ON {_text(node.on)}" if node.on is not None else ""
            return f"Join {node.kind}{on}"
        case Apply():
            return f"Apply {node.kind} -> {node.symbol}"
        case Aggregate():
            keys = ", ".join(_assignment(s, e) for s, e in node.keys)
            calls = ", ".join(_assignment(s, e) for s, e in node.aggregates)
            sets = f" sets {node.grouping_sets}" if node.grouping_sets is not None else ""
            return f"Aggregate by [{keys}]{sets} computing [{calls}]"
        case Window():
            return "Window " + ", ".join(_assignment(s, e) for s, e in node.functions)
        case Distinct():
            on = " ON " + ", ".join(_text(e) for e in node.on) if node.on else ""
            return f"Distinct{on}"
        case Sort():
            return "Sort " + ", ".join(_text(k) for k in node.keys)
        case Limit():
            parts = [f"Limit {_text(node.count)}"] if node.count is not None else ["Offset"]
            if node.percent:
                parts.append("percent")
            if node.offset is not None:
                parts.append(f"after {_text(node.offset)}")
            return " ".join(parts)
        case SetOperation():
            return f"{node.kind}{' ALL' if node.all else ''}"
        case With():
            return f"With {node.name}"
        case CommonScan():
            return f"CommonScan {node.name}"
    return type(node).__name__


def _assignment(symbol: str, value: Expr) -> str:
    text = _text(value)
    return symbol if text == symbol else f"{symbol} := {text}"


def _text(value: Expr) -> str:
    plain = value.copy()
    for node in plain.find_all(exp.Identifier):
        node.set("quoted", not node.name.replace("_", "a").isalnum())
    return plain.sql("duckdb")


def _names(symbols: Sequence[str]) -> str:
    return ", ".join(symbols)


__all__ = ["describe", "explain", "pretty"]
