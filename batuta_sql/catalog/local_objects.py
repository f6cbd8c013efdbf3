"""Local tables, views of the session and registered frames, as they are listed beside sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import duckdb

from batuta_sql.engines.duckdb import quote

CATALOG, SCHEMA = "memory", "main"
"""Of the residual engine's own database: ``memory.main.name`` is a name of a local table."""

Kind = Literal["local table", "local view", "registered frame"]

_COLUMNS = """
SELECT c.table_name, c.column_name, c.data_type, c.is_nullable
FROM duckdb_columns() c JOIN duckdb_tables() t USING (table_oid)
WHERE c.database_name = ? AND c.schema_name = ? AND t.database_name = c.database_name
  AND NOT starts_with(c.table_name, ?)
ORDER BY c.table_name, c.column_index
"""


@dataclass(frozen=True)
class LocalObject:
    """What has a bare name.

    :param columns: name, DuckDB type and whether it takes NULL; of a view they are not listed.
    """

    name: str
    kind: Kind
    columns: tuple[tuple[str, str, bool], ...] = ()


SPILLED = "spill:"
"""Begins the names of tables that hold what arrives for one query."""


def local_tables(cursor: duckdb.DuckDBPyConnection) -> list[LocalObject]:
    """The tables that statements have made here."""
    found: dict[str, list[tuple[str, str, bool]]] = {}
    rows = cursor.execute(_COLUMNS, [CATALOG, SCHEMA, SPILLED]).fetchall()
    for table, column, kind, nullable in rows:
        found.setdefault(table, []).append((column, kind, nullable))
    return [LocalObject(name, "local table", tuple(columns)) for name, columns in found.items()]


def local_objects(
    cursor: duckdb.DuckDBPyConnection, registered: Mapping[str, Any], views: Iterable[str]
) -> list[LocalObject]:
    """All that has a bare name; what a name means comes first where two have it."""
    found = {name: LocalObject(name, "local view") for name in sorted(views)}
    for name, frame in registered.items():
        if name not in found:
            found[name] = LocalObject(name, "registered frame", _columns_of(cursor, name, frame))
    for table in local_tables(cursor):
        found.setdefault(table.name.lower(), table)
    return list(found.values())


def _columns_of(
    cursor: duckdb.DuckDBPyConnection, name: str, frame: Any
) -> tuple[tuple[str, str, bool], ...]:
    cursor.register(name, frame)
    rows = cursor.execute(f"DESCRIBE SELECT * FROM {quote(name)}").fetchall()
    return tuple((r[0], r[1], True) for r in rows)
