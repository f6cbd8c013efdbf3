"""Rows that are so few that they go with the statement, as VALUES.

Spark makes a local relation of them, and reads no file and infers no schema:
https://spark.apache.org/docs/latest/sql-ref-syntax-qry-select-inline-table.html
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb
from sqlglot import exp

from batuta_sql.engines.duckdb import quote
from batuta_sql.exchange import keys
from batuta_sql.plan.site import ColumnInfo, TableInfo
from batuta_sql.plan.translate import quoted_column

LOCAL = "local relation"
"""The kind of such a table; its path is what stands for it in statements that are shown."""

_MOST_TEXT = 64 << 10
"""Characters of one relation."""

_TYPES = {
    "TIMESTAMP": "TIMESTAMP_NTZ",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
    "VARCHAR": "STRING",
}
"""Spark's names, where they are others."""

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
"""How a moment begins that both write in the same way."""


@dataclass(frozen=True)
class LocalRelation:
    """
    :param marker: what stands for it where a statement is kept or shown; it is found nowhere else.
    :param sql: what stands there when the statement is sent.
    """

    marker: str
    sql: str


def local_relation(
    rows: duckdb.DuckDBPyRelation, columns: Sequence[ColumnInfo], dialect: str
) -> LocalRelation | None:
    """Rows as an item of FROM; None where there are none, or they cannot be written so."""
    texts = ", ".join(f"{_text(c)} AS {quote(c.name)}" for c in columns)
    found = rows.project(texts).fetchall()
    if not found:
        return None
    for values, column in zip(zip(*found, strict=True), columns, strict=True):
        if not all(v is None or has_one_text(v, column.type) for v in values):
            return None
    each = [f"({', '.join(_literal(v, dialect) for v in row)})" for row in found]
    names = [f"c{n}" for n in range(len(columns))]
    casts = ", ".join(_cast(n, c, dialect) for n, c in zip(names, columns, strict=True))
    sql = f"(SELECT {casts} FROM VALUES {', '.join(each)} AS v({', '.join(names)}))"
    if len(sql) > _MOST_TEXT:
        return None
    return LocalRelation(f"rows_{uuid.uuid4().hex}", sql)


def local_table(table: TableInfo) -> exp.Table:
    """A table of this kind as an item of FROM, in a statement that is not yet sent."""
    return exp.Table(this=exp.Var(this=table.path[0]))


def with_local_relations(sql: str, relations: Mapping[str, LocalRelation]) -> str:
    """A statement as it is sent."""
    for relation in relations.values():
        sql = sql.replace(relation.marker, relation.sql)
    return sql


def _text(column: ColumnInfo) -> str:
    name = quote(column.name)
    if column.type == "TIMESTAMP WITH TIME ZONE":
        utc = f"CAST(make_timestamp(epoch_us({name})) AS VARCHAR) || 'Z'"
        return f"CASE WHEN isfinite({name}) THEN {utc} ELSE CAST({name} AS VARCHAR) END"
    return f"CAST({name} AS VARCHAR)"


def has_one_text(value: str, type_: str) -> bool:
    """Whether a value of a DuckDB type that is staged is written here as it is there."""
    if type_ in ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE"):
        return _DAY.match(value) is not None and "BC" not in value
    return keys.has_one_text(value, type_)


def _literal(value: str | None, dialect: str) -> str:
    return "NULL" if value is None else exp.Literal.string(value).sql(dialect)


def _cast(name: str, column: ColumnInfo, dialect: str) -> str:
    return f"{read_as(name, column.type)} AS {quoted_column(column.name, None).sql(dialect)}"


def read_as(text: str, type_: str) -> str:
    """An expression that is a text, as a value of a DuckDB type; of one that is NULL, too."""
    return f"CAST({text} AS {_TYPES.get(type_, type_)})"


def constant(value: str | None, type_: str, dialect: str) -> str:
    """A value as DuckDB writes it, as one of a DuckDB type there."""
    return read_as(_literal(value, dialect), type_)
