"""SHOW and DESCRIBE, answered from the catalog."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa
from sqlglot import exp
from sqlglot.errors import SqlglotError

from batuta_sql.catalog import information_schema
from batuta_sql.catalog.local_objects import LocalObject, local_objects, local_tables
from batuta_sql.engines.duckdb import quote
from batuta_sql.outcome import Outcome, of_table
from batuta_sql.plan.site import TableInfo

if TYPE_CHECKING:
    from batuta_sql.dbapi import Connection


_SHOW = re.compile(r"\s*show\s+(all\s+)?(tables|databases|schemas)\s*;?\s*", re.IGNORECASE)
_SHOW_FROM = re.compile(r"\s*show\s+tables\s+from\s+(.+?)\s*;?\s*", re.IGNORECASE)
_DESCRIBE = re.compile(
    r"\s*(?:describe|desc|show)\s+(?:table\s+)?([^\s;(][^;]*?)\s*;?\s*", re.IGNORECASE
)


def is_show_or_describe(sql: str) -> bool:
    """Whether a statement may be answered from the catalog alone."""
    return any(form.fullmatch(sql) for form in (_SHOW_FROM, _SHOW, _DESCRIBE))


def show_or_describe(connection: Connection, sql: str) -> Outcome | None:
    if match := _SHOW_FROM.fullmatch(sql):
        return _show_tables(connection, match[1].strip('"'))
    if match := _SHOW.fullmatch(sql):
        return _show(connection, match[2].lower(), all_=bool(match[1]))
    if match := _DESCRIBE.fullmatch(sql):
        return _describe(connection, match[1])
    return None


def _show(connection: Connection, what: str, *, all_: bool) -> Outcome:
    catalog = connection._session.catalog
    if what == "tables":
        return _show_tables(connection, None)
    name = "database_name" if what == "databases" else "schema_name"
    values = (
        list(catalog.sources)
        if what == "databases"
        else sorted(
            {f"{s}.{p[-2]}" if len(p) > 1 else s for s, p, _ in information_schema.listing(catalog)}
        )
    )
    return of_table(connection, pa.table({name: pa.array(values, pa.string())}))


def _show_tables(connection: Connection, source: str | None) -> Outcome:
    rows = [
        r
        for r in information_schema.listing(connection._session.catalog)
        if source is None or r[0].lower() == source.lower()
    ]
    shown: list[tuple[str, str | None, str]] = [
        (".".join((s, *path)), s, kind) for s, path, kind in rows
    ]
    if source is None:
        shown += [(one.name, None, one.kind) for one in _local_objects(connection)]
    return of_table(
        connection,
        pa.table(
            {
                name: pa.array([row[place] for row in shown], pa.string())
                for place, name in enumerate(("name", "source", "kind"))
            }
        ),
    )


def _local_objects(connection: Connection) -> list[LocalObject]:
    session = connection._session
    with session.engine.cursor() as cursor:
        return local_objects(cursor, session.registered, session.views)


def _describe(connection: Connection, target: str) -> Outcome | None:
    if re.match(r"(select|with|from|values|pivot|\()\b", target, re.IGNORECASE):
        return _describe_query(connection, target)
    session = connection._session
    try:
        table = exp.to_table(target, dialect="duckdb")
    except SqlglotError:
        return None
    from batuta_sql.catalog.names import table_parts

    parts = table_parts(table)
    if parts is not None and len(parts) == 1 and _is_local_table(connection, parts[0]):
        with session.engine.cursor() as cursor:
            found = cursor.sql(f"DESCRIBE {quote(parts[0])}").to_arrow_table()
        return of_table(connection, found)
    if parts is None or len(parts) < 2 or session.catalog.source(parts[0]) is None:
        return _describe_query(connection, f"SELECT * FROM {target}")
    source = session.catalog.source(parts[0])
    assert source is not None
    return of_table(connection, described(session.catalog.resolve(source, parts[1:])))


def _is_local_table(connection: Connection, name: str) -> bool:
    """Whether a bare name means a table that was made here."""
    session = connection._session
    if name.lower() in session.views or name.lower() in session.registered:
        return False
    with session.engine.cursor() as cursor:
        return name.lower() in {t.name.lower() for t in local_tables(cursor)}


def described(table: TableInfo) -> pa.Table:
    """DESCRIBE's rows: DuckDB's columns, and what the source calls the type."""
    keys = {c for key in table.keys[:1] for c in key}
    return pa.table(
        {
            "column_name": pa.array([c.name for c in table.columns], pa.string()),
            "column_type": pa.array([c.type for c in table.columns], pa.string()),
            "null": pa.array(["YES" if c.nullable else "NO" for c in table.columns], pa.string()),
            "key": pa.array(
                ["PRI" if c.name in keys else None for c in table.columns], pa.string()
            ),
            "default": pa.nulls(len(table.columns), pa.string()),
            "extra": pa.nulls(len(table.columns), pa.string()),
            "native_type": pa.array([c.native for c in table.columns], pa.string()),
            "note": pa.array([c.note for c in table.columns], pa.string()),
        }
    )


def _describe_query(connection: Connection, sql: str) -> Outcome:
    query = connection._query(sql, None)
    try:
        types = query.result_columns()
    except BaseException as error:
        raise query.failure(error) from None
    finally:
        query.close()
    return of_table(
        connection,
        pa.table(
            {
                "column_name": pa.array([n for n, _ in types], pa.string()),
                "column_type": pa.array([t for _, t in types], pa.string()),
                "null": pa.array(["YES"] * len(types), pa.string()),
                **{n: pa.nulls(len(types), pa.string()) for n in ("key", "default", "extra")},
            }
        ),
    )
