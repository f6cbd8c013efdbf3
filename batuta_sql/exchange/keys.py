"""Keys that are here become part of a statement that has waited for them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import duckdb

from batuta_sql.plan.placement import Fragment
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
        the column. All rows are fetched then. Of several filters those that can be are.
    """
    values: dict[str, Sequence[str]] = {}
    for one in keyed.filters:
        most = one.distinct * keyed.worth.kept * _KEPT_BEYOND_ESTIMATE
        most = min(keyed.most_keys, max(most, _FEW))
        keys = _keys(one, deliveries, cursor, int(most))
        if keys is not None:
            values[one.marker] = keys
    sent = keyed.only([f for f in keyed.filters if f.marker in values])
    if sent is None:
        return None
    texts = {f"'{f.marker}'": translator.key_text(f.type, values[f.marker]) for f in sent.filters}
    # In one pass: a key may be a text that looks like a marker.
    markers = re.compile("|".join(map(re.escape, texts)))
    if sum(len(texts[m]) for m in markers.findall(sent.sql)) > MOST_TEXT:
        return None
    sql = markers.sub(lambda m: texts[m[0]], sent.sql)
    return replace(fragment, sql=sql, ranged=None), sum(map(len, values.values()))


def _keys(
    wanted: KeyFilter,
    deliveries: Mapping[str, Delivery],
    cursor: duckdb.DuckDBPyConnection,
    most: int,
) -> Sequence[str] | None:
    """The distinct keys, as DuckDB writes them, in order; None where they cannot be used."""
    unparser = Unparser(LocalTranslator(), deliveries=deliveries)
    query = unparser.statement(wanted.producer, (("k", wanted.key),)).sql("duckdb")
    relation = cursor.sql(query)
    if relation is None or not comparable(str(relation.types[0]), wanted.type):
        return None
    fitting = "k IS NOT NULL"
    if is_integer(wanted.type):
        low, high = integer_bounds(wanted.type)
        fitting = f"k BETWEEN {low} AND {high}"
    distinct = f"SELECT DISTINCT k FROM ({query}) WHERE {fitting} LIMIT {most + 1}"
    # In order: an index is then walked once from its beginning to its end.
    relation = cursor.sql(f"SELECT CAST(k AS VARCHAR) FROM ({distinct}) ORDER BY k")
    assert relation is not None
    values: list[str] = relation.to_arrow_table().column(0).to_pylist()
    if len(values) > most or not all(_has_one_text(v, wanted.type) for v in values):
        return None
    return values


def _has_one_text(value: str, type_: str) -> bool:
    if type_ == "VARCHAR":
        return "\0" not in value
    if type_ == "DATE":
        try:
            datetime.date.fromisoformat(value)
        except ValueError:
            return False
    return True
