"""What has changed in a schema since the last copy, and whether every value still fits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sqlglot import exp
from sqlglot.errors import SqlglotError

from batuta_sql.errors import OperationalError
from batuta_sql.plan.types import decimal_parts
from batuta_sql.sync.schema import Column, Schema

Kind = Literal["added", "removed", "type", "nullable", "order"]


@dataclass(frozen=True)
class Change:
    """A difference between the schema of the last copy and that of now.

    :param column: its name; ``*`` for the order of the columns.
    :param before: the type it had; None for a column that is new.
    :param now: the type it has; None for one that is gone.
    :param is_safe: whether every value that was there is still there as it was, and nothing that
        reads the copy meets a value that it could not meet before, new columns apart.
    :param effect: what copying with it means.
    """

    column: str
    kind: Kind
    before: str | None
    now: str | None
    is_safe: bool
    effect: str


class SchemaDrift(OperationalError):
    """What is copied has another schema than before, and nobody said that it may."""

    exit_status = 5

    def __init__(self, subject: str, changes: tuple[Change, ...], hint: str) -> None:
        listed = "\n".join(f"  {line}" for line in described(changes))
        super().__init__(f"the schema of {subject} has changed:\n{listed}", hint=hint)
        self.changes = changes


def changes(before: Schema, now: Schema) -> tuple[Change, ...]:
    """What is different, column by column, in the order of ``now``; what is gone comes last."""
    old, new = {c.name: c for c in before}, {c.name: c for c in now}
    found: list[Change] = []
    for column in now:
        if column.name in old:
            found += _changed(old[column.name], column)
        else:
            found.append(_added(column))
    for column in before:
        if column.name not in new:
            effect = "the copy loses it"
            found.append(Change(column.name, "removed", _shown(column), None, False, effect))
    if [c.name for c in before if c.name in new] != [c.name for c in now if c.name in old]:
        effect = "the columns stand in the new order"
        names = (", ".join(c.name for c in before), ", ".join(c.name for c in now))
        found.append(Change("*", "order", *names, True, effect))
    return tuple(found)


def described(changes: tuple[Change, ...]) -> list[str]:
    """A line for each change: the column, before, now, whether it is safe and what it means."""
    rows = [
        (
            c.column,
            c.before or "(not there)",
            "->",
            c.now or "(gone)",
            "safe:" if c.is_safe else "NOT SAFE:",
            c.effect,
        )
        for c in changes
    ]
    widths = [max(len(r[i]) for r in rows) for i in range(5)] if rows else []
    return [
        "  ".join([*(part.ljust(w) for part, w in zip(r, widths, strict=False)), r[5]])
        for r in rows
    ]


def _added(column: Column) -> Change:
    if column.nullable:
        effect = "the copy has one column more"
    else:
        effect = "the copy has one column more, which is never NULL"
    return Change(column.name, "added", None, _shown(column), column.nullable, effect)


def _changed(before: Column, now: Column) -> Iterator[Change]:
    if (before.type, before.native) != (now.type, now.native):
        is_safe = keeps_every_value(before, now)
        effect = "every value fits" if is_safe else "values may not fit, or mean something else"
        yield Change(now.name, "type", _typed(before, now), _typed(now, before), is_safe, effect)
    if before.nullable != now.nullable:
        effect = "NULLs may come" if now.nullable else "no NULLs come any more"
        was, is_ = ("NULL" if c.nullable else "NOT NULL" for c in (before, now))
        yield Change(now.name, "nullable", was, is_, True, effect)


def _shown(column: Column) -> str:
    return column.native or column.type


def _typed(column: Column, other: Column) -> str:
    """The type in whose spelling two columns differ."""
    return _shown(column) if column.native != other.native else column.type


# --- types ---------------------------------------------------------------------------------------

_SIGNED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_UNSIGNED = ("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT")
_DIGITS = {"TINYINT": 3, "SMALLINT": 5, "INTEGER": 10, "BIGINT": 19}


def keeps_every_value(before: Column, now: Column) -> bool:
    """Whether each value of the old type is the same value of the new one."""
    if before.type != now.type:
        return _widens(before.type, now.type)
    return _grows(before.native, now.native)


def _widens(before: str, now: str) -> bool:
    if before == now:
        return True
    for order in (_SIGNED, _UNSIGNED):
        if before in order and now in order:
            return order.index(before) < order.index(now)
    if before in _UNSIGNED and now in _SIGNED:
        return _UNSIGNED.index(before) < _SIGNED.index(now)
    if (before, now) == ("FLOAT", "DOUBLE"):
        return True
    old, new = decimal_parts(before), decimal_parts(now)
    if new is not None and before in _DIGITS:
        return new[0] - new[1] >= _DIGITS[before]
    if old is not None and new is not None:
        # At another scale 1.5 becomes 1.50: equal, and another text.
        return old[1] == new[1] and old[0] < new[0]
    return _widens_inside(before, now)


def _widens_inside(before: str, now: str) -> bool:
    """The same of lists, maps and structs: fields may be added at their end."""
    try:
        old, new = (exp.DataType.build(t, dialect="duckdb") for t in (before, now))
    except SqlglotError:
        return False
    if old.this != new.this or not old.args.get("nested"):
        return False
    mine, theirs = old.expressions, new.expressions
    if len(mine) > len(theirs) or (len(mine) < len(theirs) and old.this != exp.DType.STRUCT):
        return False
    for a, b in zip(mine, theirs, strict=False):
        if isinstance(a, exp.ColumnDef) or isinstance(b, exp.ColumnDef):
            if type(a) is not type(b) or a.name != b.name:
                return False
            a, b = a.args["kind"], b.args["kind"]
        if not _widens(_text(a), _text(b)):
            return False
    return True


def _text(type_: exp.Expression) -> str:
    text = type_.sql("duckdb").replace(", ", ",")
    return {"INT": "INTEGER", "TEXT": "VARCHAR", "REAL": "FLOAT"}.get(text, text)


_NUMBERS = re.compile(r"\((\d+)(?:\s*,\s*(\d+))?\)")
_TEXTS = frozenset({"text", "string", "varchar", "charactervarying", "clob", "longtext"})


def _grows(before: str, now: str) -> bool:
    """Whether a source's type is a longer one of the same name: ``varchar(10)``, ``varchar(20)``.

    ``text`` is longer than any.
    """
    names = [_NUMBERS.sub("", t).replace(" ", "").lower() for t in (before, now)]
    sizes = [_NUMBERS.search(t) for t in (before, now)]
    old, new = ([int(n) for n in s.groups() if n] if s is not None else None for s in sizes)
    if new is None and names[1] in _TEXTS and names[0] in _TEXTS:
        return True
    if names[0] != names[1] or old is None:
        return False
    return new is None or (len(old) == len(new) == 1 and old[0] < new[0])
