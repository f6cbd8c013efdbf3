"""PEP 249 type objects, equal to the DuckDB types that belong to them."""

from __future__ import annotations

import datetime
import time
from functools import lru_cache


class TypeCode(str):
    """A DuckDB type name that also equals PEP 249's type objects: ``code == NUMBER``."""

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TypeGroup):
            return other == self
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


class TypeGroup:
    """One of PEP 249's type objects: equal to every type of its family."""

    def __init__(self, name: str, *types: str) -> None:
        self.name = name
        self._types = frozenset(types)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TypeGroup):
            return self is other
        return isinstance(other, str) and other.split("(")[0].strip() in self._types

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return self.name


STRING = TypeGroup("STRING", "VARCHAR", "JSON", "UUID", "ENUM", "BIT")
BINARY = TypeGroup("BINARY", "BLOB")
NUMBER = TypeGroup(
    "NUMBER",
    *[
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "HUGEINT",
        "UTINYINT",
        "USMALLINT",
        "UINTEGER",
        "UBIGINT",
        "UHUGEINT",
    ],
    *["FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN"],
)
DATETIME = TypeGroup(
    "DATETIME",
    "DATE",
    "TIME",
    "TIME WITH TIME ZONE",
    "TIMESTAMP",
    "TIMESTAMP WITH TIME ZONE",
    "TIMESTAMP_S",
    "TIMESTAMP_MS",
    "TIMESTAMP_NS",
    "INTERVAL",
)
ROWID = TypeGroup("ROWID")

Date = datetime.date
Time = datetime.time
Timestamp = datetime.datetime
Binary = bytes


def DateFromTicks(ticks: float) -> datetime.date:
    return datetime.date(*time.localtime(ticks)[:3])


def TimeFromTicks(ticks: float) -> datetime.time:
    return datetime.time(*time.localtime(ticks)[3:6])


def TimestampFromTicks(ticks: float) -> datetime.datetime:
    return datetime.datetime(*time.localtime(ticks)[:6])


@lru_cache(maxsize=256)
def type_code(duckdb_type: str) -> TypeCode:
    """The type code of a DuckDB type."""
    return TypeCode(duckdb_type)
