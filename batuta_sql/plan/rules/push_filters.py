"""Moves predicates towards the scans, as far as the rows stay the same."""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from batuta_sql.plan.implied_predicates import (
    COMPARISONS,
    implied_by_equalities,
    implied_of_one_side,
)
from batuta_sql.plan.relational import (
    Aggregate,
    Apply,
    Distinct,
    Expr,
    Filter,
    Join,
    JoinKind,
    Limit,
    Project,
    Relation,
    SetOperation,
    Sort,
    Window,
    With,
    column,
    conjunction,
    conjuncts,
    filtered,
    is_stable,
    references,
    substitute,
)
from batuta_sql.plan.rewrite import known_type
from batuta_sql.plan.rules.group_joins import sites


def push_filters(plan: Relation) -> Relation:
    """``plan`` with every predicate as low as it can be evaluated."""
    return _push(plan, [])


def _push(node: Relation, predicates: list[Expr]) -> Relation:
    match node:
        case Filter():
            mine = conjuncts(node.condition)
            moving = [p for p in mine if is_stable(p)]
            staying = [p for p in mine if not is_stable(p)]
            if staying:
                # What comes after a volatile predicate must not run before it.
                return filtered(_push(node.input, moving), staying + predicates)
            # The same twice comes of implications, which each run finds again.
            return _push(node.input, moving + [p for p in predicates if p not in moving])
        case Project():
            return _through_project(node, predicates)
        case Join():
            return _through_join(node, predicates)
        case Aggregate():
            return _through_aggregate(node, predicates)
        case Window():
            return _through_window(node, predicates)
        case Distinct() if node.on:
            keys = frozenset(e.name for e in node.on if isinstance(e, exp.Column))
            below, above = _split(predicates, keys)
            return filtered(replace(node, input=_push(node.input, below)), above)
        case Distinct() | Sort():
            return node.with_inputs(_push(node.inputs[0], predicates))
        case Limit():
            return filtered(replace(node, input=_push(node.input, [])), predicates)
        case SetOperation():
            return _through_set(node, predicates)
        case With():
            return replace(
                node, definition=_push(node.definition, []), body=_push(node.body, predicates)
            )
        case Apply():
            below, above = _split(predicates, frozenset(node.input.symbols), outer=node.symbol)
            applied = replace(
                node, input=_push(node.input, below), subquery=_push(node.subquery, [])
            )
            return filtered(applied, above)
    rebuilt = node.with_inputs(*(_push(i, []) for i in node.inputs))
    return filtered(rebuilt, predicates)


def _split(
    predicates: list[Expr], symbols: frozenset[str], outer: str | None = None
) -> tuple[list[Expr], list[Expr]]:
    """Predicates that need only ``symbols``, and the others.

    With ``outer``, whatever does not read that one symbol may go below: correlated references
    are constants there.
    """
    below: list[Expr] = []
    above: list[Expr] = []
    for predicate in predicates:
        used = references(predicate)
        fits = outer not in used if outer is not None else used <= symbols
        (below if fits else above).append(predicate)
    return below, above


def _through_project(node: Project, predicates: list[Expr]) -> Relation:
    values = dict(node.assignments)
    below: list[Expr] = []
    above: list[Expr] = []
    for predicate in predicates:
        used = references(predicate)
        if all(s not in values or is_stable(values[s]) for s in used) and _keeps_rows(node):
            below.append(substitute(predicate, values.get))
        else:
            above.append(predicate)
    return filtered(replace(node, input=_push(node.input, below)), above)


def _keeps_rows(node: Project) -> bool:
    """unnest() in a SELECT list multiplies rows."""
    return not any(e.find(exp.Explode, exp.Unnest) for e in node.expressions)


def _through_join(node: Join, predicates: list[Expr]) -> Relation:
    left_symbols, right_symbols = frozenset(node.left.symbols), frozenset(node.right.symbols)
    on = conjuncts(node.on)
    kind: JoinKind = node.kind
    if kind in ("LEFT", "RIGHT", "FULL"):
        kind = _stricter(kind, predicates, left_symbols, right_symbols)
    match kind:
        case "INNER" | "CROSS":
            everything = predicates + on
            stable = [p for p in everything if is_stable(p)]
            volatile = [p for p in everything if not is_stable(p)]
            stable += implied_by_equalities(node, stable)
            to_left, rest = _split(stable, left_symbols)
            to_right, both = _split(rest, right_symbols)
            if len(sites(node)) > 1:
                # A source finds for itself what it can make of its own joins.
                to_left += implied_of_one_side(both, left_symbols)
                to_right += implied_of_one_side(both, right_symbols)
            joined = Join(
                _push(node.left, to_left),
                _push(node.right, to_right),
                "INNER" if both else "CROSS",
                conjunction(both),
            )
            return filtered(joined, volatile)
        case "LEFT" | "ASOF LEFT" | "ASOF":
            to_left, above = _split(predicates, left_symbols)
            to_right, stay = ([], on) if kind != "LEFT" else _split(on, right_symbols)
            if kind == "LEFT":
                to_right += _matching(node, to_left + on, right_symbols)
            stay = stay or ([exp.true()] if kind == "LEFT" else stay)
            return filtered(
                Join(
                    _push(node.left, to_left), _push(node.right, to_right), kind, conjunction(stay)
                ),
                above,
            )
        case "RIGHT":
            to_right, above = _split(predicates, right_symbols)
            to_left, stay = _split(on, left_symbols)
            to_left += _matching(node, to_right + on, left_symbols)
            return filtered(
                Join(
                    _push(node.left, to_left),
                    _push(node.right, to_right),
                    kind,
                    conjunction(stay or [exp.true()]),
                ),
                above,
            )
        case "SEMI" | "ANTI":
            to_left = list(predicates)
            to_right, stay = _split(on, right_symbols)
            to_right += _matching(node, predicates + on, right_symbols)
            if kind == "SEMI":
                more, stay = _split(stay, left_symbols)
                to_left += more
                to_left += _matching(node, to_left + to_right + stay, left_symbols)
            return Join(
                _push(node.left, to_left),
                _push(node.right, to_right),
                kind,
                conjunction(stay or [exp.true()]),
            )
    return filtered(
        replace(node, left=_push(node.left, []), right=_push(node.right, [])), predicates
    )


def _matching(node: Join, predicates: list[Expr], side: frozenset[str]) -> list[Expr]:
    """What the rows of one side have to fulfil to match a row of the other that is kept."""
    found = implied_by_equalities(node, [p for p in predicates if is_stable(p)])
    return [p for p in found if references(p) <= side]


def _stricter(
    kind: JoinKind, predicates: list[Expr], left: frozenset[str], right: frozenset[str]
) -> JoinKind:
    """An outer join whose padded rows a predicate drops anyway is a stricter join."""
    drops_right_padding = any(_rejects_null(p, right) for p in predicates)
    drops_left_padding = any(_rejects_null(p, left) for p in predicates)
    match kind:
        case "LEFT" if drops_right_padding:
            return "INNER"
        case "RIGHT" if drops_left_padding:
            return "INNER"
        case "FULL" if drops_right_padding and drops_left_padding:
            return "INNER"
        case "FULL" if drops_left_padding:
            return "LEFT"
        case "FULL" if drops_right_padding:
            return "RIGHT"
    return kind


def _rejects_null(predicate: Expr, symbols: frozenset[str]) -> bool:
    """Whether the predicate is never true when all of ``symbols`` are NULL (sure cases only)."""

    def direct(e: Expr) -> bool:
        while isinstance(e, exp.Paren | exp.Neg | exp.Cast) and not isinstance(e, exp.TryCast):
            e = e.this
        if isinstance(e, exp.Add | exp.Sub | exp.Mul):
            return direct(e.this) or direct(e.expression)
        return isinstance(e, exp.Column) and e.name in symbols

    match predicate:
        case exp.Paren():
            return _rejects_null(predicate.this, symbols)
        case exp.And():
            return _rejects_null(predicate.this, symbols) or _rejects_null(
                predicate.expression, symbols
            )
        case exp.Or():
            return _rejects_null(predicate.this, symbols) and _rejects_null(
                predicate.expression, symbols
            )
        case exp.Not(this=exp.Is(expression=exp.Null()) as test):
            return direct(test.this)
        case exp.Between() | exp.In() | exp.Like():
            return direct(predicate.this)
    if isinstance(predicate, COMPARISONS):
        return direct(predicate.this) or direct(predicate.expression)
    return False


def _through_aggregate(node: Aggregate, predicates: list[Expr]) -> Relation:
    if not node.keys or node.grouping_sets is not None:
        return filtered(replace(node, input=_push(node.input, [])), predicates)
    keys = {s: e for s, e in node.keys if is_stable(e)}
    made = frozenset(node.symbols)
    below: list[Expr] = []
    above: list[Expr] = []
    for predicate in predicates:
        own = references(predicate) & made
        if own and own <= keys.keys():
            below.append(substitute(predicate, keys.get))
        else:
            above.append(predicate)
    return filtered(replace(node, input=_push(node.input, below)), above)


def _through_window(node: Window, predicates: list[Expr]) -> Relation:
    shared: frozenset[str] | None = None
    for _, function in node.functions:
        partition = frozenset(
            e.name for e in function.args.get("partition_by") or () if isinstance(e, exp.Column)
        )
        shared = partition if shared is None else shared & partition
    below, above = _split(predicates, shared or frozenset())
    below = [p for p in below if references(p)]
    above = [p for p in predicates if p not in below]
    return filtered(replace(node, input=_push(node.input, below)), above)


def _through_set(node: SetOperation, predicates: list[Expr]) -> Relation:
    same = {
        s
        for s, a, b in node.columns
        if known_type(node.left, a) is not None
        and known_type(node.left, a) == known_type(node.right, b)
    }
    to_left = {s: column(a) for s, a, _ in node.columns}
    to_right = {s: column(b) for s, _, b in node.columns}
    made = frozenset(node.symbols)
    below = [p for p in predicates if references(p) & made and references(p) & made <= same]
    above = [p for p in predicates if p not in below]
    return filtered(
        replace(
            node,
            left=_push(node.left, [substitute(p, to_left.get) for p in below]),
            right=_push(node.right, [substitute(p, to_right.get) for p in below]),
        ),
        above,
    )
