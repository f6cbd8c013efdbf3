"""A condition on partition keys as the service's filter expression, or as much of it as is sure.

The service may give more partitions than the condition asks for, never fewer: what it is asked is
true wherever the condition is. https://docs.aws.amazon.com/glue/latest/webapi/API_GetPartitions.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from batuta_sql.sources.glue_types import HiveType

MOST_CHARACTERS = 2048
"""The longest expression that the service takes."""

_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_PLAIN = re.compile(r"[A-Za-z0-9 _.:/+@=-]+")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_WHOLE = frozenset({"tinyint", "smallint", "int", "bigint"})
_OPERATORS: Mapping[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.LT: "<",
    exp.LTE: "<=",
}
_FLIPPED: Mapping[type[exp.Expr], type[exp.Expr]] = {
    exp.EQ: exp.EQ,
    exp.GT: exp.LT,
    exp.GTE: exp.LTE,
    exp.LT: exp.GT,
    exp.LTE: exp.GTE,
}
_LOOSE: Mapping[str, str] = {">": ">=", "<": "<="}


def filter_expression(condition: str | None, keys: Mapping[str, HiveType]) -> str | None:
    """What of a condition in DuckDB's SQL the service can be asked to test.

    Whole numbers and dates are compared there as such. Text is compared for equality only: its
    order there is not documented. Decimals only with bounds included, since the service may round.
    NULL is never asked for: how it is stored depends on the writer.

    :param keys: the partition keys' types, by name.
    :return: None where nothing is sure, or it would be too long.
    """
    if condition is None:
        return None
    try:
        tree = sqlglot.parse_one(condition, read="duckdb")
    except SqlglotError:
        return None
    found = _translated(tree, {n.lower(): t for n, t in keys.items()})
    return found if found is not None and len(found) <= MOST_CHARACTERS else None


def _translated(node: exp.Expr, keys: Mapping[str, HiveType]) -> str | None:
    match node:
        case exp.Paren():
            return _translated(node.this, keys)
        case exp.And():
            sides = [_translated(s, keys) for s in (node.left, node.right)]
            sure = [s for s in sides if s is not None]
            return " AND ".join(sure) or None
        case exp.Or():
            left, right = _translated(node.left, keys), _translated(node.right, keys)
            return f"(({left}) OR ({right}))" if left and right else None
        case exp.Between():
            low = _comparison(exp.GTE, node.this, node.args["low"], keys)
            high = _comparison(exp.LTE, node.this, node.args["high"], keys)
            return " AND ".join(s for s in (low, high) if s is not None) or None
        case exp.In() if not node.args.get("query") and not node.args.get("unnest"):
            return _membership(node, keys)
        case exp.EQ() | exp.GT() | exp.GTE() | exp.LT() | exp.LTE():
            return _comparison(type(node), node.left, node.right, keys)
    return None


def _membership(node: exp.In, keys: Mapping[str, HiveType]) -> str | None:
    key = _key(node.this, keys)
    if key is None or not node.expressions:
        return None
    values = [_constant(v, keys[key]) for v in node.expressions]
    sure = [v for v in values if v is not None]
    return f"{key} IN ({', '.join(sure)})" if len(sure) == len(values) else None


def _comparison(
    operator: type[exp.Expr], left: exp.Expr, right: exp.Expr, keys: Mapping[str, HiveType]
) -> str | None:
    if not isinstance(left, exp.Column):
        left, right, operator = right, left, _FLIPPED[operator]
    key = _key(left, keys)
    value = _constant(right, keys[key]) if key is not None else None
    if key is None or value is None:
        return None
    sign = _OPERATORS[operator]
    if keys[key].name == "string" and sign != "=":
        return None
    if keys[key].name == "decimal":
        if sign == "=":
            return f"{key} >= {value} AND {key} <= {value}"
        sign = _LOOSE.get(sign, sign)
    return f"{key} {sign} {value}"


def _key(node: exp.Expr, keys: Mapping[str, HiveType]) -> str | None:
    if not isinstance(node, exp.Column) or node.table:
        return None
    name = node.name.lower()
    return name if name in keys and _NAME.fullmatch(name) else None


def _constant(node: exp.Expr, type_: HiveType) -> str | None:
    """A constant as the service writes it, where it is of the key's own type."""
    node = node.unnest()
    if type_.name == "string":
        if isinstance(node, exp.Cast) and node.to.is_type("varchar", "text"):
            node = node.this
        plain = isinstance(node, exp.Literal) and node.is_string and _PLAIN.fullmatch(node.this)
        return f"'{node.this}'" if plain else None
    if type_.name == "date":
        if not isinstance(node, exp.Cast) or not node.to.is_type("date"):
            return None
        text = node.this
        sure = isinstance(text, exp.Literal) and text.is_string and _DATE.fullmatch(text.this)
        return f"'{text.this}'" if sure else None
    sign = ""
    if isinstance(node, exp.Neg):
        node, sign = node.this, "-"
    if not isinstance(node, exp.Literal) or node.is_string:
        return None
    number = str(node.this)
    if type_.name in _WHOLE:
        return sign + number if number.isdigit() else None
    if type_.name == "decimal":
        return sign + number if re.fullmatch(r"\d+(\.\d+)?", number) else None
    return None
