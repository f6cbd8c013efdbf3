"""``information_schema`` and SHOW over all sources, made from the catalog when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from batuta_sql.catalog.catalog import Catalog
from batuta_sql.catalog.local_objects import CATALOG, SCHEMA, LocalObject
from batuta_sql.errors import Error
from batuta_sql.plan.site import TableInfo

VIEWS = ("schemata", "tables", "columns")


def contents(view: str, catalog: Catalog, local: Sequence[LocalObject]) -> pa.Table:
    """The rows of ``information_schema.VIEW`` over every source that answers, and what is here."""
    match view:
        case "schemata":
            return _schemata(catalog, local)
        case "tables":
            return _tables(catalog, local)
        case "columns":
            return _columns(catalog, local)
    raise KeyError(view)


def listing(catalog: Catalog) -> Iterable[tuple[str, tuple[str, ...], str]]:
    """Source, path and kind of every table; a source that does not answer has none to show."""
    for source in catalog.sources.values():
        try:
            names = catalog.list_tables(source)
        except Error:
            continue
        for name in names:
            yield source.name, name.path, name.kind


def _schema_of(path: tuple[str, ...]) -> str:
    return path[-2] if len(path) > 1 else "main"


def _schemata(catalog: Catalog, local: Sequence[LocalObject]) -> pa.Table:
    pairs = sorted({(s, _schema_of(p)) for s, p, _ in listing(catalog)})
    pairs += [(CATALOG, SCHEMA)] if local else []
    return pa.table(
        {
            "catalog_name": pa.array([p[0] for p in pairs], pa.string()),
            "schema_name": pa.array([p[1] for p in pairs], pa.string()),
        }
    )


def _tables(catalog: Catalog, local: Sequence[LocalObject]) -> pa.Table:
    rows = sorted(listing(catalog))
    rows += [(CATALOG, (SCHEMA, one.name), one.kind) for one in local]
    kinds = {"view": "VIEW", "materialized view": "VIEW", "local view": "VIEW"}
    return pa.table(
        {
            "table_catalog": pa.array([r[0] for r in rows], pa.string()),
            "table_schema": pa.array([_schema_of(r[1]) for r in rows], pa.string()),
            "table_name": pa.array([r[1][-1] for r in rows], pa.string()),
            "table_type": pa.array([kinds.get(r[2], "BASE TABLE") for r in rows], pa.string()),
        }
    )


def _columns(catalog: Catalog, local: Sequence[LocalObject]) -> pa.Table:
    tables: list[TableInfo] = []
    for source_name, path, _ in sorted(listing(catalog)):
        try:
            tables.append(catalog.resolve(catalog.sources[source_name], path))
        except Error:
            continue
    rows: list[tuple[Any, ...]] = [
        (
            t.source,
            _schema_of(t.path),
            t.name,
            c.name,
            i,
            "YES" if c.nullable else "NO",
            c.type,
            c.native,
        )
        for t in tables
        for i, c in enumerate(t.columns, 1)
    ]
    rows += [
        (CATALOG, SCHEMA, one.name, name, i, "YES" if nullable else "NO", kind, kind)
        for one in local
        for i, (name, kind, nullable) in enumerate(one.columns, 1)
    ]
    names = (
        "table_catalog",
        "table_schema",
        "table_name",
        "column_name",
        "ordinal_position",
        "is_nullable",
        "data_type",
        "native_type",
    )
    return pa.table(
        {
            n: pa.array(
                [r[i] for r in rows], pa.int32() if n == "ordinal_position" else pa.string()
            )
            for i, n in enumerate(names)
        }
    )
