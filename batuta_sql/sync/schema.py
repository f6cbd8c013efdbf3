"""The schema of what is copied, as it is kept from one copy to the next."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from batuta_sql.plan.site import TableInfo


@dataclass(frozen=True)
class Column:
    """One column of what is copied.

    :param type: its DuckDB type, nested ones written out (``STRUCT(a INTEGER, b VARCHAR)``).
    :param native: the source's own type, where a column of a table is copied as it is; else empty.
    :param nullable: False only where the source guarantees it.
    """

    name: str
    type: str
    native: str = ""
    nullable: bool = True


Schema = tuple[Column, ...]
"""The columns, in order."""


def schema_of_table(table: TableInfo) -> Schema:
    """The schema of a table that is copied whole."""
    return tuple(Column(c.name, c.type, c.native, c.nullable) for c in table.columns)


def schema_of_result(columns: Sequence[tuple[str, str]]) -> Schema:
    """The schema of a query's result, of which only names and types are known."""
    return tuple(Column(name, type_) for name, type_ in columns)


def fingerprint(schema: Schema) -> str:
    """A SHA-256 of names, types, nullability and order, in hexadecimal."""
    return hashlib.sha256(to_json(schema).encode()).hexdigest()


def to_json(schema: Schema) -> str:
    """One text for one schema."""
    return json.dumps([asdict(c) for c in schema], sort_keys=True, separators=(",", ":"))


def from_json(text: str) -> Schema:
    """The schema that ``to_json`` wrote.

    :raises ValueError: for another text.
    """
    try:
        return tuple(Column(**c) for c in json.loads(text))
    except TypeError as error:
        raise ValueError(str(error)) from None
