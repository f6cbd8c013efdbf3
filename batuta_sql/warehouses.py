"""What a warehouse consumes in an hour, by its size.

``CREDITS``: Snowflake, "Overview of warehouses", standard warehouses of the first generation: each
size takes twice the credits of the one before. ``DBUS``: Databricks, SQL warehouse sizes (classic,
pro and serverless alike). Both vendors have other tables for other generations and regions:
``credits_per_hour`` and ``dbus_per_hour`` in ``pricing`` go before these.
"""

from __future__ import annotations

import re

CREDITS = {
    "X-Small": 1.0,
    "Small": 2.0,
    "Medium": 4.0,
    "Large": 8.0,
    "X-Large": 16.0,
    "2X-Large": 32.0,
    "3X-Large": 64.0,
    "4X-Large": 128.0,
    "5X-Large": 256.0,
    "6X-Large": 512.0,
}
"""Snowflake credits per hour."""

DBUS = {
    "2X-Small": 4.0,
    "X-Small": 6.0,
    "Small": 12.0,
    "Medium": 24.0,
    "Large": 40.0,
    "X-Large": 80.0,
    "2X-Large": 144.0,
    "3X-Large": 272.0,
    "4X-Large": 528.0,
}
"""Databricks units per hour."""

SNOWFLAKE_MINIMUM_SECONDS = 60.0
"""Billed each time a suspended warehouse resumes; from then on by the second."""

_SHORT = {"XS": "XSMALL", "S": "SMALL", "M": "MEDIUM", "L": "LARGE", "XL": "XLARGE"}
_SPELLINGS = {"XXLARGE": "2XLARGE", "XXXLARGE": "3XLARGE", "XXSMALL": "2XSMALL"}


def _key(size: str) -> str:
    plain = re.sub(r"[^A-Z0-9]", "", size.upper())
    digit = re.match(r"(\d?)(.*)", plain)
    assert digit is not None
    plain = digit[1] + _SHORT.get(digit[2], digit[2])
    return _SPELLINGS.get(plain, plain)


def per_hour(size: str, table: dict[str, float]) -> float | None:
    """Units per hour of a size in any spelling (``X-Small``, ``XSMALL``, ``xs``), or None."""
    return {_key(n): units for n, units in table.items()}.get(_key(size))
