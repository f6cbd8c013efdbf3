"""Partitions that a table's properties describe instead of the catalog: Athena's projection.

https://docs.aws.amazon.com/athena/latest/ug/partition-projection-supported-types.html
"""

from __future__ import annotations

import calendar
import datetime
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from batuta_sql.errors import NotSupportedError, ProgrammingError
from batuta_sql.sources.glue_tables import HiveTable

MOST_VALUES = 1_000_000
"""Combinations beyond this number are not made: the query has to say more."""

_UNITS = {
    "years": "years",
    "months": "months",
    "weeks": "weeks",
    "days": "days",
    "hours": "hours",
    "minutes": "minutes",
    "seconds": "seconds",
}
_NOW = re.compile(r"NOW(?:\s*([+-])\s*(\d+)\s*(YEAR|MONTH|WEEK|DAY|HOUR|MINUTE|SECOND)S?)?", re.I)
_FORMAT_TOKEN = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']+")
_STRFTIME = {
    "yyyy": "%Y",
    "uuuu": "%Y",
    "MM": "%m",
    "dd": "%d",
    "HH": "%H",
    "mm": "%M",
    "ss": "%S",
}


def is_projected(table: HiveTable) -> bool:
    return table.parameters.get("projection.enabled", "").strip().lower() == "true"


def projected(
    table: HiveTable, condition: str | None, now: datetime.datetime
) -> list[tuple[tuple[str, ...], str]]:
    """The values and location of each partition that the properties allow.

    :param condition: in DuckDB's SQL, over the keys; values of type ``injected`` come out of it.
    :param now: UTC.
    :raises NotSupportedError: for properties that are not understood.
    :raises ProgrammingError: where the query does not give what it has to.
    """
    lists = [_values(table, key.name, condition, now) for key in table.keys]
    if math.prod(len(v) for v in lists) > MOST_VALUES:
        raise ProgrammingError(
            f'"{table.shown}" has more than {MOST_VALUES} projected partitions',
            hint="give values for keys of the type injected, or narrow the projection's ranges",
        )
    template = table.parameters.get("storage.location.template")
    return [(values, _location(table, values, template)) for values in itertools.product(*lists)]


def _location(table: HiveTable, values: Sequence[str], template: str | None) -> str:
    named = {k.name: v for k, v in zip(table.keys, values, strict=True)}
    if template is None:
        parts = "/".join(f"{n}={v}" for n, v in named.items())
        return f"{table.location.rstrip('/')}/{parts}"
    return re.sub(r"\$\{([^}]*)\}", lambda m: named.get(m[1].strip().lower(), m[0]), template)


def _values(
    table: HiveTable, key: str, condition: str | None, now: datetime.datetime
) -> Sequence[str]:
    told = {
        k.lower().removeprefix(f"projection.{key.lower()}."): v
        for k, v in table.parameters.items()
        if k.lower().startswith(f"projection.{key.lower()}.")
    }
    match told.get("type", "").strip().lower():
        case "enum":
            return told.get("values", "").split(",")
        case "integer":
            return _integers(table, key, told)
        case "date":
            return _dates(table, key, told, now)
        case "injected":
            found = _given(key, condition)
            if found is None:
                raise ProgrammingError(
                    f'"{table.shown}" needs a value for "{key}", whose values nobody knows'
                    " (projection of the type injected)",
                    hint=f"add WHERE {key} = '...' or {key} IN (...)",
                )
            return found
    raise _refused(table, key, f"its type is {told.get('type')!r}")


def _refused(table: HiveTable, key: str, reason: str) -> NotSupportedError:
    return NotSupportedError(
        f'"{table.shown}": the projection of "{key}" is not understood: {reason}',
        hint="see Athena's documentation of partition projection; other forms are not read yet",
    )


def _range(table: HiveTable, key: str, told: Mapping[str, str]) -> tuple[str, str]:
    match [p.strip() for p in told.get("range", "").split(",")]:
        case [low, high]:
            return low, high
    raise _refused(table, key, f"its range is {told.get('range')!r}")


def _integers(table: HiveTable, key: str, told: Mapping[str, str]) -> Sequence[str]:
    try:
        low, high = (int(n) for n in _range(table, key, told))
        step, digits = int(told.get("interval", "1")), int(told.get("digits", "0"))
    except ValueError:
        raise _refused(table, key, "its range, interval or digits are no numbers") from None
    if step < 1 or (high - low) // step > MOST_VALUES:
        raise _refused(table, key, f"it has more than {MOST_VALUES} values")
    return [f"{n:0{digits}d}" if digits else str(n) for n in range(low, high + 1, step)]


def _dates(
    table: HiveTable, key: str, told: Mapping[str, str], now: datetime.datetime
) -> Sequence[str]:
    """The dates of a range, both ends in it; https://docs.oracle.com SimpleDateFormat patterns."""
    form = _strftime(table, key, told.get("format", ""))
    low, high = (_moment(table, key, t, form, now) for t in _range(table, key, told))
    unit = told.get("interval.unit", "").strip().lower() or _finest(form)
    unit = unit if unit.endswith("s") else unit + "s"
    if unit not in _UNITS:
        raise _refused(table, key, f"its interval.unit is {unit!r}")
    try:
        count = int(told.get("interval", "1"))
    except ValueError:
        raise _refused(table, key, "its interval is no number") from None
    if count < 1:
        raise _refused(table, key, "its interval is no positive number")
    found: dict[str, None] = {}
    for step in itertools.count():
        moment = _later(low, unit, step * count)
        if moment > high:
            return list(found)
        found[moment.strftime(form)] = None
        if len(found) > MOST_VALUES:
            raise _refused(table, key, f"it has more than {MOST_VALUES} values")
    return list(found)


def _finest(form: str) -> str:
    """The step that Athena takes where none is told: a day, or a month where days are not told."""
    if "%d" in form:
        fine = [u for u, t in (("seconds", "%S"), ("minutes", "%M"), ("hours", "%H")) if t in form]
        return fine[0] if fine else "days"
    return "months" if "%m" in form else "years"


def _strftime(table: HiveTable, key: str, form: str) -> str:
    """A Java date pattern as one of Python's."""
    found = ""
    for match in _FORMAT_TOKEN.finditer(form):
        word = match[0]
        if word.startswith("'"):
            found += match[1].replace("''", "'").replace("%", "%%") if match[1] else "'"
        elif word[0].isalpha():
            if word not in _STRFTIME:
                raise _refused(table, key, f"its format {form!r} has {word}")
            found += _STRFTIME[word]
        else:
            found += word.replace("%", "%%")
    if "%Y" not in found:
        raise _refused(table, key, f"its format {form!r} has no year")
    return found


def _moment(
    table: HiveTable, key: str, text: str, form: str, now: datetime.datetime
) -> datetime.datetime:
    relative = _NOW.fullmatch(text)
    try:
        if relative is None:
            return datetime.datetime.strptime(text, form)
        here = now.replace(tzinfo=None)
        if relative[1] is None:
            return here
        count = int(relative[2]) * (-1 if relative[1] == "-" else 1)
        return _later(here, relative[3].lower() + "s", count)
    except ValueError:
        raise _refused(table, key, f"{text!r} is no date of its format") from None


def _later(moment: datetime.datetime, unit: str, count: int) -> datetime.datetime:
    if unit in ("years", "months"):
        months = moment.year * 12 + moment.month - 1 + count * (12 if unit == "years" else 1)
        year, month = divmod(months, 12)
        day = min(moment.day, calendar.monthrange(year, month + 1)[1])
        return moment.replace(year=year, month=month + 1, day=day)
    return moment + datetime.timedelta(**{unit: count})


def _given(key: str, condition: str | None) -> list[str] | None:
    """The values that a condition allows a key to have; None where it allows any."""
    if condition is None:
        return None
    try:
        tree = sqlglot.parse_one(condition, read="duckdb")
    except SqlglotError:
        return None
    return _allowed(tree, key.lower())


def _allowed(node: exp.Expr, key: str) -> list[str] | None:
    of: Callable[[exp.Expr], list[str] | None] = lambda n: _allowed(n, key)  # noqa: E731
    match node:
        case exp.Paren():
            return of(node.this)
        case exp.And():
            left, right = of(node.left), of(node.right)
            if left is None or right is None:
                return left if right is None else right
            return [v for v in left if v in right]
        case exp.Or():
            left, right = of(node.left), of(node.right)
            if left is None or right is None:
                return None
            return list(dict.fromkeys([*left, *right]))
        case exp.EQ():
            sides = (node.left, node.right)
            for one, other in (sides, sides[::-1]):
                if isinstance(one, exp.Column) and one.name.lower() == key:
                    value = _text(other)
                    return None if value is None else [value]
        case exp.In() if isinstance(node.this, exp.Column) and node.this.name.lower() == key:
            values = [_text(v) for v in node.expressions]
            known = [v for v in values if v is not None]
            return known if known and len(known) == len(values) else None
    return None


def _text(node: exp.Expr) -> str | None:
    node = node.unnest()
    if isinstance(node, exp.Cast):
        node = node.this
    return str(node.this) if isinstance(node, exp.Literal) else None
