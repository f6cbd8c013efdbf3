"""DuckDB database files, opened read-only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
from sqlglot import exp

from batuta_sql.engines.duckdb import quote
from batuta_sql.errors import OperationalError
from batuta_sql.labels import (
    LABELS_COMMENT,
    NO_LABELS,
    ColumnLabels,
    Labels,
    TableLabels,
    labels_of_table_text,
)
from batuta_sql.plan.site import BaseTable, ColumnInfo, Statistics, TableInfo
from batuta_sql.source_settings import DuckDBSettings
from batuta_sql.sources.base import FragmentQuery, SourceEstimate, TableName
from batuta_sql.sources.embedded import EmbeddedSource, estimated
from batuta_sql.sources.sizes import parsed, stored_bytes
from batuta_sql.sources.view_bases import bases_of_view, tables_are_labelled

_DATABASE = "db"
_RELATIONS = """
SELECT schema_name, table_name, 'table' AS kind, estimated_size, comment FROM duckdb_tables()
WHERE database_name = 'db' AND NOT internal
UNION ALL
SELECT schema_name, view_name, 'view', NULL, comment FROM duckdb_views()
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
        comment: str | None,
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
        labels = self._labels(comment, f"{schema}.{name}", [c[0] for c in columns])
        bases: tuple[BaseTable, ...] = ()
        if kind == "view":
            told = self._labels_of_tables(cursor)
            if told or tables_are_labelled(self._settings):
                bases = self._bases(cursor, name)
            behind = NO_LABELS.union(*(told.get(b.path, NO_LABELS) for b in bases))
            labels |= TableLabels.throughout(ColumnLabels(behind))
        return TableInfo(
            source=self.name,
            path=(schema, name),
            bases=bases,
            columns=tuple(
                ColumnInfo(c, t, t, nullable, labels=labels.of(c)) for c, t, nullable in columns
            ),
            kind=kind,
            keys=tuple(tuple(k[0]) for k in keys),
            statistics=Statistics(rows=float(rows) if rows is not None else None),
            labels=labels.rows,
        )

    def _labels(self, comment: str | None, table: str, columns: Sequence[str]) -> TableLabels:
        """What the comment on a table says of its labels.

        :raises OperationalError: where it means to and cannot be understood.
        """
        if comment is None or not comment.startswith(LABELS_COMMENT):
            return TableLabels()
        try:
            return labels_of_table_text(comment.removeprefix(LABELS_COMMENT), columns)
        except ValueError as error:
            raise OperationalError(
                f"the comment on {table}: {error}", source=self.name, hint="correct or remove it"
            ) from None

    def _labels_of_tables(self, cursor: duckdb.DuckDBPyConnection) -> dict[tuple[str, ...], Labels]:
        """All labels of tables and views whose comments give them any, by lower-cased name."""
        rows = cursor.execute(
            f"SELECT schema_name, lower(table_name), comment FROM ({_RELATIONS})"
            f" WHERE starts_with(comment, '{LABELS_COMMENT}')"
        ).fetchall()
        return {(s, n): self._labels(c, f"{s}.{n}", ()).all for s, n, c in rows}

    def _bases(self, cursor: duckdb.DuckDBPyConnection, name: str) -> tuple[BaseTable, ...]:
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
