"""DuckDB database files, opened read-only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
from sqlglot import exp

from batuta_sql.config import DuckDBSettings
from batuta_sql.engines.duckdb import quote
from batuta_sql.errors import OperationalError
from batuta_sql.plan.site import BaseTable, ColumnInfo, Statistics, TableInfo
from batuta_sql.sources.base import FragmentQuery, SourceEstimate, TableName
from batuta_sql.sources.embedded import EmbeddedSource, estimated
from batuta_sql.sources.sizes import parsed, stored_bytes
from batuta_sql.sources.view_bases import bases_of_view, tables_are_labelled

_DATABASE = "db"
_RELATIONS = """
SELECT schema_name, table_name, 'table' AS kind, estimated_size FROM duckdb_tables()
WHERE database_name = 'db' AND NOT internal
UNION ALL
SELECT schema_name, view_name, 'view', NULL FROM duckdb_views()
WHERE database_name = 'db' AND NOT internal
"""


class DuckDBFile(EmbeddedSource):
    """A DuckDB database file."""

    kind = "duckdb"

    def __init__(self, name: str, settings: DuckDBSettings) -> None:
        super().__init__(name, settings.query_timeout)
        self._settings = settings

    def connect(self) -> duckdb.DuckDBPyConnection:
        path = Path(self._settings.path)
        if not path.is_file():
            raise OperationalError(
                f"there is no file {path}", source=self.name, hint="check this source's path"
            )
        connection = super().connect()
        literal = str(path).replace("'", "''")
        try:
            connection.execute(f"ATTACH '{literal}' AS {_DATABASE} (TYPE duckdb, READ_ONLY)")
        except duckdb.Error as error:
            connection.close()
            raise OperationalError(str(error), source=self.name, hint=_hint(str(error))) from None
        return connection

    def list_tables(self) -> Sequence[TableName]:
        with self.cursor() as cursor:
            rows = cursor.execute(_RELATIONS + " ORDER BY 1, 2").fetchall()
        return [TableName((r[0], r[1]), r[2]) for r in rows]

    def resolve(self, path: tuple[str, ...]) -> Sequence[TableInfo]:
        if len(path) > 2:
            return []
        where = "lower(table_name) = lower(?)"
        values: list[Any] = [path[-1]]
        if len(path) == 2:
            where += " AND lower(schema_name) = lower(?)"
            values.append(path[0])
        with self.cursor() as cursor:
            rows = cursor.execute(f"SELECT * FROM ({_RELATIONS}) WHERE {where}", values).fetchall()
            if len(path) == 1 and len(rows) > 1:
                rows = [r for r in rows if r[0] == "main"] or rows
            return [self._table(cursor, *row) for row in rows]

    def _table(
        self,
        cursor: duckdb.DuckDBPyConnection,
        schema: str,
        name: str,
        kind: str,
        rows: int | None,
    ) -> TableInfo:
        columns = cursor.execute(
            "SELECT column_name, data_type, is_nullable FROM duckdb_columns()"
            " WHERE database_name = 'db' AND schema_name = ? AND table_name = ?"
            " ORDER BY column_index",
            [schema, name],
        ).fetchall()
        keys = cursor.execute(
            "SELECT constraint_column_names FROM duckdb_constraints() WHERE database_name = 'db'"
            " AND schema_name = ? AND table_name = ? AND constraint_type = 'PRIMARY KEY'",
            [schema, name],
        ).fetchall()
        return TableInfo(
            source=self.name,
            path=(schema, name),
            bases=self._bases(cursor, name) if kind == "view" else (),
            columns=tuple(ColumnInfo(c, t, t, nullable) for c, t, nullable in columns),
            kind=kind,
            keys=tuple(tuple(k[0]) for k in keys),
            statistics=Statistics(rows=float(rows) if rows is not None else None),
        )

    def _bases(self, cursor: duckdb.DuckDBPyConnection, name: str) -> tuple[BaseTable, ...]:
        if not tables_are_labelled(self._settings):
            return ()
        schemas = cursor.execute(
            "SELECT schema_name FROM duckdb_schemas() WHERE database_name = 'db'"
        ).fetchall()
        views = cursor.execute(
            "SELECT lower(view_name), string_agg(sql, ' ') FROM duckdb_views()"
            " WHERE database_name = 'db' AND NOT internal GROUP BY 1"
        ).fetchall()
        return bases_of_view(name, dict(views), [s[0] for s in schemas])

    def prepare(self, cursor: duckdb.DuckDBPyConnection, query: FragmentQuery) -> None:
        cursor.execute(f"USE {_DATABASE}")

    def relation(self, cursor: duckdb.DuckDBPyConnection, name: str, query: FragmentQuery) -> str:
        return quote(name)

    def estimate(self, query: FragmentQuery) -> SourceEstimate:
        """Row counts times the width of the columns that are read: the file keeps no sizes."""
        tree = parsed(query)
        sizes = [
            stored_bytes(t, {c.name for c in tree.find_all(exp.Column)} if tree else None)
            for t in query.tables
        ]
        known = [s for s in sizes if s is not None]
        scanned = sum(known) if len(known) == len(sizes) else None
        return estimated(query, tree, scanned, "estimated", "row counts and types of the columns")


def _hint(message: str) -> str | None:
    """What ends the trouble of a file that cannot be attached."""
    if "already attached" in message or "different configuration" in message:
        return "close the connection of this program that has the file open"
    if "lock" in message:
        return "close the program that has the file open for writing"
    return None
