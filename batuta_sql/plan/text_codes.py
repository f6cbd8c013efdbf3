"""Texts of few values travel as codes of one letter over a link that is slower than making them.

The statement itself says what each code means, and a text that has none travels as it is behind
``=``: whatever has become of the table since its values were counted, what arrives is exact.
"""

from __future__ import annotations

import string
from dataclasses import replace

from sqlglot import exp

from batuta_sql.plan.relational import Expr
from batuta_sql.plan.site import Usual
from batuta_sql.plan.translate import Typed, WireColumn

_LETTERS = string.ascii_letters
_NO_CODE = "="

MOST = len(_LETTERS)
"""Values that have a code."""

SECONDS = 100e-9
"""What a code costs: 1.5 million texts of seven values took 0.15 s longer to read from PostgreSQL
15, of four values 0.11 s."""


def least_width(bytes_per_second: float) -> float:
    """From how many bytes on, on average, a text is sooner here as a code."""
    return 1 + _CLEARLY * SECONDS * bytes_per_second


_CLEARLY = 1.5


def coded(value: Typed, wire: WireColumn, least: float) -> WireColumn:
    """How a column travels: as codes, where its usual texts have ``least`` bytes on average."""
    # "{}" stands for the arrived column.
    usual = tuple(u for u in value.usual if "{}" not in u[0])[:MOST]
    # Where unlike texts are equal, a code would stand for all of them.
    if value.collation == "other" or wire.decode is not None or average_bytes(usual) < least:
        return wire
    pairs = list(zip(_LETTERS, (text for text, _ in usual), strict=False))
    ifs = [
        exp.If(this=exp.Literal.string(text), true=exp.Literal.string(code)) for code, text in pairs
    ]
    other = exp.DPipe(this=exp.Literal.string(_NO_CODE), expression=exp.Paren(this=wire.sql.copy()))
    decoded = exp.Case(
        this=exp.Var(this="{}"),
        ifs=[exp.If(this=i.args["true"].copy(), true=i.this.copy()) for i in ifs],
        default=exp.Anonymous(
            this="substr", expressions=[exp.Var(this="{}"), exp.Literal.number(2)]
        ),
    )
    sql: Expr = exp.Case(this=wire.sql.copy(), ifs=ifs, default=other)
    return replace(wire, sql=sql, decode=decoded.sql("duckdb"), width=1.0)


def average_bytes(usual: Usual) -> float:
    """Of usual texts, by how usual each is; 0 where there are none."""
    shares = sum(share for _, share in usual)
    if not shares:
        return 0.0
    return sum(len(text.encode()) * share for text, share in usual) / shares
