"""Keys that are here become part of a statement that has waited for them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import duckdb

from batuta_sql.plan.cardinality import Cardinality
from batuta_sql.plan.fragments import Fragment
from batuta_sql.plan.relational import Expr
from batuta_sql.plan.rules.key_filters import Keyed, KeyFilter, comparable
from batuta_sql.plan.translate import LocalTranslator, Translator
from batuta_sql.plan.types import integer_bounds, is_integer
from batuta_sql.plan.unparse import Delivery, Unparser

_FEW = 1_000
"""So many keys are always sent."""

MOST_TEXT = 16 << 20
"""Characters of keys in one statement."""

_KEPT_BEYOND_ESTIMATE = 1.15
"""How much worse than it had to be a filter may turn out, since the rows have been waited for."""


def with_keys(
    fragment: Fragment,
    keyed: Keyed,
    deliveries: Mapping[str, Delivery],
    cursor: duckdb.DuckDBPyConnection,
    translator: Translator,
) -> tuple[Fragment, int] | None:
    """``fragment`` reduced to the rows that match what has arrived, and how many keys say so.

    :param deliveries: what has arrived.
    :param cursor: a cursor of the residual engine where it can be read.
    :returns: None where no keys can be sent: there are too many, or they are of another kind than
        the column. All rows are fetched then. Of several filters those that can be are. Of keys
        that are too many the least and the greatest are sent, where they are numbers or dates.
    """
    values: dict[str, Sequence[str]] = {}
    ranges: list[Expr] = []
    for one in keyed.filters:
        most = one.distinct * keyed.worth.kept * _KEPT_BEYOND_ESTIMATE
        most = min(keyed.most_keys, max(most, _FEW))
        keys = _keys(one, deliveries, cursor, int(most))
        if keys is not None:
            values[one.marker] = keys
        elif (range_ := _range(one, deliveries, cursor)) is not None and _helps(range_, keyed):
            ranges.append(range_)
    sent = keyed.only([f for f in keyed.filters if f.marker in values], ranges)
    if sent is None:
        return None
    texts = {f"'{f.marker}'": translator.key_text(f.type, values[f.marker]) for f in sent.filters}
    sql = sent.sql
    if texts:
        # In one pass: a key may be a text that looks like a marker.
        markers = re.compile("|".join(map(re.escape, texts)))
        if sum(len(texts[m]) for m in markers.findall(sql)) > MOST_TEXT:
            return None
        sql = markers.sub(lambda m: texts[m[0]], sql)
    count = sum(map(len, values.values())) + 2 * len(ranges)
    return replace(fragment, sql=sql, ranged=None), count


def _keys(
    wanted: KeyFilter,
    deliveries: Mapping[str, Delivery],
    cursor: duckdb.DuckDBPyConnection,
    most: int,
) -> Sequence[str] | None:
    """The distinct keys, as DuckDB writes them, in order; None where they cannot be used."""
    query = _query(wanted, deliveries, cursor)
    if query is None:
        return None
    distinct = f"SELECT DISTINCT k FROM ({query}) LIMIT {most + 1}"
    # In order: an index is then walked once from its beginning to its end.
    relation = cursor.sql(f"SELECT CAST(k AS VARCHAR) FROM ({distinct}) ORDER BY k")
    assert relation is not None
    values: list[str] = relation.to_arrow_table().column(0).to_pylist()
    if len(values) > most or not all(has_one_text(v, wanted.type) for v in values):
        return None
    return values


def _query(
    wanted: KeyFilter, deliveries: Mapping[str, Delivery], cursor: duckdb.DuckDBPyConnection
) -> str | None:
    """The query that gives the keys as ``k``; None where they are of another kind."""
    unparser = Unparser(LocalTranslator(), deliveries=deliveries)
    query = unparser.statement(wanted.producer, (("k", wanted.key),)).sql("duckdb")
    relation = cursor.sql(query)
    if relation is None or not comparable(str(relation.types[0]), wanted.type):
        return None
    fitting = "k IS NOT NULL"
    if is_integer(wanted.type):
        low, high = integer_bounds(wanted.type)
        fitting = f"k BETWEEN {low} AND {high}"
    return f"SELECT k FROM ({query}) WHERE {fitting}"


def _range(
    wanted: KeyFilter, deliveries: Mapping[str, Delivery], cursor: duckdb.DuckDBPyConnection
) -> Expr | None:
    """That the column lies between the least and the greatest key."""
    query = _query(wanted, deliveries, cursor) if wanted.has_order else None
    if query is None:
        return None
    ends = "SELECT CAST(min(k) AS VARCHAR), CAST(max(k) AS VARCHAR)"
    found = cursor.sql(f"{ends} FROM ({query})")
    assert found is not None
    low, high = found.to_arrow_table().to_pylist()[0].values()
    if low is None or not all(has_one_text(e, wanted.type) for e in (low, high)):
        return None
    return wanted.between(low, high)


def _helps(range_: Expr, keyed: Keyed) -> bool:
    """Whether a range leaves rows out, as far as is known, and can be asked for."""
    share = Cardinality().share([range_], keyed.relation)
    return share <= keyed.worth.kept and keyed.accepts(range_)


def has_one_text(value: str, type_: str) -> bool:
    """Whether a value as DuckDB writes it is one that others read as the same."""
    if type_ == "VARCHAR":
        return "\0" not in value
    if type_ == "DATE":
        try:
            datetime.date.fromisoformat(value)
        except ValueError:
            return False
    return True
