"""How many bytes rows take: as Arrow data on their way here, or stored at the source.

An Arrow value takes its fixed width and one bit for NULL; a text its bytes and an offset of 4.
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from batuta_sql.plan.site import TableInfo
from batuta_sql.plan.types import decimal_parts
from batuta_sql.sources.base import FragmentQuery

DEFAULT_TEXT = 16.0
"""Bytes of a text or another value of any length, where nobody tells."""

_VARIABLE = 4.0
_FIXED = {
    "BOOLEAN": 0.125,
    "TINYINT": 1.0,
    "UTINYINT": 1.0,
    "SMALLINT": 2.0,
    "USMALLINT": 2.0,
    "INTEGER": 4.0,
    "UINTEGER": 4.0,
    "FLOAT": 4.0,
    "DATE": 4.0,
    "BIGINT": 8.0,
    "UBIGINT": 8.0,
    "DOUBLE": 8.0,
    "TIME": 8.0,
    "HUGEINT": 16.0,
    "UHUGEINT": 16.0,
    "UUID": 16.0,
    "INTERVAL": 16.0,
}


def fixed_width(type_: str | None) -> float | None:
    """Bytes of a value of a DuckDB type, or None where it has any length."""
    name = (type_ or "").lstrip("?")
    if name.startswith("TIMESTAMP"):
        return 8.0
    if decimal_parts(name) is not None:
        return 16.0
    return _FIXED.get(name)


def value_width(type_: str | None, text: float | None = None) -> float:
    """Bytes of a value in Arrow's memory.

    :param text: the average length of a text, where that is known.
    """
    fixed = fixed_width(type_)
    if fixed is not None:
        return fixed + 0.125
    return (text if text is not None else DEFAULT_TEXT) + _VARIABLE + 0.125


def parsed(query: FragmentQuery, dialect: str = "duckdb") -> exp.Expr | None:
    """A fragment's statement, for an estimate; None where it cannot be read."""
    try:
        return sqlglot.parse_one(query.sql, read=dialect)
    except SqlglotError:
        return None


def delivered_bytes(
    query: FragmentQuery, rows: float | None, tree: exp.Expr | None
) -> float | None:
    """Bytes that come back, as Arrow data, where ``query`` gives ``rows``.

    :param tree: the statement, which says whose texts its columns are.
    """
    if rows is None:
        return None
    items = tree.expressions if isinstance(tree, exp.Select) else []
    told = {item.alias_or_name: _item_width(query, item.unalias()) for item in items}
    return rows * sum(_column_width(type_, told.get(name)) for name, type_ in query.columns)


def _column_width(type_: str | None, told: float | None) -> float:
    return value_width(type_) if told is None or fixed_width(type_) is not None else told


def _item_width(query: FragmentQuery, item: exp.Expr) -> float | None:
    """The width of a column of a table as it is, and of an aggregate; None where nobody tells."""
    if isinstance(item, exp.Count | exp.Sum | exp.Avg):
        return value_width("BIGINT")
    if not isinstance(item, exp.Column):
        return None
    for table in query.tables:
        statistics = table.statistics.columns.get(item.name)
        for column in table.columns:
            if column.name == item.name:
                return value_width(column.type, statistics.width if statistics else None)
    return None


def stored_bytes(table: TableInfo, columns: Iterable[str] | None = None) -> float | None:
    """Bytes of a table by its row count and its columns' types, where nobody knows better.

    :param columns: only these; None: all, as a store of rows reads them.
    """
    if table.statistics.rows is None:
        return None
    wanted = None if columns is None else {c.lower() for c in columns}
    return table.statistics.rows * sum(
        value_width(c.type) for c in table.columns if wanted is None or c.name.lower() in wanted
    )


def known_rows(query: FragmentQuery, tree: exp.Expr | None) -> tuple[float | None, str]:
    """Rows that come back, and how sure that is: a whole table's are as sure as its count."""
    if not isinstance(tree, exp.Select):
        return query.rows, "estimated" if query.rows is not None else "unknown"
    clauses = {k for k, v in tree.args.items() if v and k not in ("expressions", "from", "from_")}
    aggregates = any(e.find(exp.AggFunc) and not e.find(exp.Window) for e in tree.expressions)
    if aggregates and not clauses & {"group", "having", "limit"}:
        return 1.0, "exact"
    whole = not clauses and not aggregates and len(query.tables) == 1
    if whole and query.tables[0].statistics.exact and not tree.find(exp.Subquery):
        return query.tables[0].statistics.rows, "exact"
    return query.rows, "estimated" if query.rows is not None else "unknown"
