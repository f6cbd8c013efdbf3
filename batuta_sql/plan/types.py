"""DuckDB's types as text, and how DuckDB combines them.

Only what pushdown needs: exact numbers, floats, text, dates. ``tests/plan/test_types.py`` holds
each rule against DuckDB's own answer.
"""

from __future__ import annotations

import re
from functools import lru_cache

INTEGER_WIDTHS = {"TINYINT": 3, "SMALLINT": 5, "INTEGER": 10, "BIGINT": 19}
"""Decimal digits that DuckDB gives an integer type when it meets a DECIMAL."""

_INTEGER_ORDER = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")


@lru_cache(maxsize=512)
def decimal_parts(type_: str) -> tuple[int, int] | None:
    """Width and scale of a DECIMAL, or None."""
    match = _DECIMAL.fullmatch(type_)
    return (int(match[1]), int(match[2])) if match else None


def is_integer(type_: str | None) -> bool:
    return type_ in _INTEGER_ORDER


def integer_bounds(type_: str) -> tuple[int, int]:
    """The least and the greatest value of an integer type."""
    most = 1 << (8 << _INTEGER_ORDER.index(type_)) - 1
    return -most, most - 1


def is_exact(type_: str | None) -> bool:
    """Integers and decimals: arithmetic without rounding."""
    return type_ is not None and (is_integer(type_) or decimal_parts(type_) is not None)


def is_float(type_: str | None) -> bool:
    return type_ in ("FLOAT", "DOUBLE")


def as_decimal(type_: str) -> tuple[int, int] | None:
    """An exact type as width and scale; None for HUGEINT, which has no DECIMAL of its size."""
    if type_ in INTEGER_WIDTHS:
        return (INTEGER_WIDTHS[type_], 0)
    return decimal_parts(type_)


def wider_exact(a: str, b: str) -> str | None:
    """The type that holds every value of both: CASE, COALESCE, set operations."""
    if a == b:
        return a
    if is_integer(a) and is_integer(b):
        return max(a, b, key=_INTEGER_ORDER.index)
    left, right = as_decimal(a), as_decimal(b)
    if left is None or right is None:
        return None
    scale = max(left[1], right[1])
    width = max(left[0] - left[1], right[0] - right[1]) + scale
    return f"DECIMAL({width},{scale})" if width <= 38 else None


def sum_of(a: str, b: str) -> str | None:
    """The type of ``a + b`` and ``a - b``."""
    if is_integer(a) and is_integer(b):
        return wider_exact(a, b)
    left, right = as_decimal(a), as_decimal(b)
    if left is None or right is None:
        return None
    scale = max(left[1], right[1])
    width = max(left[0] - left[1], right[0] - right[1]) + scale + 1
    return f"DECIMAL({min(width, 38)},{scale})" if scale <= 38 else None


def product_of(a: str, b: str) -> str | None:
    """The type of ``a * b``: DuckDB keeps a product of two 64-bit decimals in 64 bits."""
    if is_integer(a) and is_integer(b):
        return wider_exact(a, b)
    left, right = as_decimal(a), as_decimal(b)
    if left is None or right is None:
        return None
    width, scale = left[0] + right[0], left[1] + right[1]
    if width > 18 and left[0] <= 18 and right[0] <= 18 and scale < 18:
        width = 18
    return f"DECIMAL({min(width, 38)},{scale})" if scale <= 38 else None


def literal_type(text: str) -> str | None:
    """The type of a numeric literal."""
    if re.fullmatch(r"\d+", text):
        value = int(text)
        if value < 2**31:
            return "INTEGER"
        if value < 2**63:
            return "BIGINT"
        return "HUGEINT" if value < 2**127 else None
    match = re.fullmatch(r"(\d*)\.(\d*)", text)
    if match and (match[1] or match[2]):
        width, scale = len(match[1]) + len(match[2]), len(match[2])
        return f"DECIMAL({width},{scale})" if width <= 38 else None
    return None


_RANGE_BITS = {"TINYINT": 7, "SMALLINT": 15, "INTEGER": 31, "BIGINT": 63, "HUGEINT": 127}


def integer_fits(value: int, type_: str) -> bool:
    """Whether an integer literal takes on ``type_`` beside a value of it."""
    bits = _RANGE_BITS.get(type_)
    return bits is not None and -(2**bits) <= value < 2**bits
