"""What the commands show of plans, estimates and the virtual catalog."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from batuta_sql.errors import Error

if TYPE_CHECKING:
    from batuta_sql import Connection

Table = tuple[str, tuple[str, ...], str]
Listed = list[tuple[str, list[Table], str]]
"""For each source its name, its tables, and what it said where it did not answer."""


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def plan_values(plan: Any) -> dict[str, Any]:
    """A plan for programs."""
    return {
        "plan": str(plan),
        "planning_seconds": plan.planning_seconds,
        "fragments": [{"name": f.name, "source": f.source, "sql": f.sql} for f in plan.fragments],
        "residual": plan.residual,
        "kept": list(plan.kept),
        "fallbacks": list(plan.fallbacks),
    }


# --- the virtual catalog -----------------------------------------------------------------------


def tables_by_source(connection: Connection) -> Listed:
    """Every source's tables; one that does not answer is listed with its error."""
    listed: Listed = []
    for name in connection.sources:
        try:
            listed.append((name, connection.tables(name), ""))
        except Error as error:
            listed.append((name, [], error.message))
    return listed


def tree_values(listed: Listed) -> list[dict[str, Any]]:
    """The tree for programs."""
    return [
        {
            "source": name,
            "error": error or None,
            "tables": [
                {"name": ".".join((source, *path)), "path": list(path), "kind": kind}
                for source, path, kind in tables
            ],
        }
        for name, tables, error in listed
    ]


def print_tree(listed: Listed) -> None:
    """Source, schema, table, indented."""
    for name, tables, error in listed:
        print(f"{name} (does not answer)" if error else f"{name}")
        shown: tuple[str, ...] = ()
        for _, path, kind in tables:
            folders = path[:-1]
            for depth, folder in enumerate(folders):
                if folders[: depth + 1] != shown[: depth + 1]:
                    print("  " * (depth + 1) + folder)
            shown = folders
            note = "" if kind == "table" else f" ({kind})"
            print("  " * len(path) + path[-1] + note)
    if not listed:
        print("no sources are configured")


def matches(connection: Connection, listed: Listed, text: str) -> list[dict[str, Any]]:
    """Tables and columns whose names contain ``text``; from listings only."""
    wanted = text.lower()
    found: list[dict[str, Any]] = [
        {"table": ".".join((source, *path)), "column": None, "type": kind}
        for _, tables, _ in listed
        for source, path, kind in tables
        if wanted in path[-1].lower()
    ]
    # The view's schema is "main" where a source has none.
    known = {
        (source, path[-2] if len(path) > 1 else "main", path[-1]): ".".join((source, *path))
        for _, tables, _ in listed
        for source, path, _ in tables
    }
    if known:
        columns = connection.execute(
            "SELECT table_catalog, table_schema, table_name, column_name, data_type"
            " FROM information_schema.columns WHERE contains(lower(column_name), ?)"
            " ORDER BY table_catalog, table_schema, table_name, ordinal_position",
            [wanted],
        ).fetchall()
        found += [
            {"table": known.get(key, ".".join(key)), "column": column, "type": type_}
            for *parts, column, type_ in columns
            for key in [(parts[0], parts[1], parts[2])]
        ]
    return found


def print_matches(found: list[dict[str, Any]], text: str) -> None:
    for match in found:
        name = match["table"] + (f".{match['column']}" if match["column"] else "")
        print(f"{name}  ({match['type']})")
    if not found:
        print(f'no table or column has "{text}" in its name')
