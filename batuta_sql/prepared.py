"""Plans that are remembered, so that a text that comes again is not bound and placed again.

A plan holds as long as the tables that it was made for are described as they were then. A change
of what else it rests on (the session's settings, what was measured of sources) empties the store.
"""

from __future__ import annotations

import datetime
import decimal
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cachetools import LRUCache
from sqlglot import tokenize

from batuta_sql.frontend.expressions import ParameterValues
from batuta_sql.plan.placement import Placed
from batuta_sql.plan.relational import Relation
from batuta_sql.plan.site import TableInfo
from batuta_sql.provenance import BoundColumns

_MOST_PLANS = 256
_MOST_TEXT = 20_000
"""Characters of a text and its parameters; longer ones hardly come again."""

_PLAIN = (
    type(None),
    bool,
    int,
    float,
    str,
    bytes,
    decimal.Decimal,
    datetime.date,
    datetime.time,
    datetime.datetime,
    uuid.UUID,
)


@dataclass(frozen=True)
class Optimised:
    """A plan that is still to be placed, and the names and symbols of its outputs."""

    plan: Relation
    outputs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Prepared:
    """A plan over sources alone. Labels and lineage are worked out for each query anew.

    :param tables: what the names in it meant.
    """

    tables: Mapping[tuple[str, ...], TableInfo]
    bound: BoundColumns
    optimised: Optimised
    placed: Placed


class PreparedPlans:
    """The plans used last; may be shared between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plans: LRUCache[str, Prepared] = LRUCache(_MOST_PLANS)

    def get(self, key: str) -> Prepared | None:
        with self._lock:
            return self._plans.get(key)

    def put(self, key: str, plan: Prepared) -> None:
        with self._lock:
            self._plans[key] = plan

    def clear(self) -> None:
        with self._lock:
            self._plans.clear()


def key_of(sql: str, parameters: ParameterValues | None) -> str | None:
    """What texts that mean the same plan have in common: all but blanks and comments, the values of
    their parameters, and the day, since decisions about labels end with one. None for a text that
    is not worth remembering.
    """
    if len(sql) > _MOST_TEXT:
        return None
    values = _values_key(parameters)
    if values is None or len(values) > _MOST_TEXT:
        return None
    words = [sql[t.start : t.end + 1] for t in tokenize(sql, read="duckdb")]
    today = datetime.datetime.now(datetime.UTC).date()
    return "\0".join([*words, values, today.isoformat()])


def _values_key(parameters: ParameterValues | None) -> str | None:
    match parameters:
        case None:
            return ""
        case Mapping():
            items = sorted(parameters.items())
            values: Sequence[object] = [v for _, v in items]
            names = [str(n) for n, _ in items]
        case _:
            values, names = list(parameters), []
    if not all(type(v) in _PLAIN and _has_plain_zone(v) for v in values):
        return None
    return repr((names, [(type(v).__name__, v) for v in values]))


def _has_plain_zone(value: object) -> bool:
    zone = value.tzinfo if isinstance(value, datetime.datetime | datetime.time) else None
    return zone is None or type(zone) is datetime.timezone
