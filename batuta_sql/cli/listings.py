"""What the commands show of plans, estimates and the virtual catalog."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batuta_sql.errors import Error, TierRefused

if TYPE_CHECKING:
    from batuta_sql import Connection
    from batuta_sql.labels import TableLabels

Table = tuple[str, tuple[str, ...], str]


@dataclass(frozen=True)
class SourceTables:
    """A source's tables; ``error`` is what it said where it did not answer.

    ``refused`` is why it was not asked, where the tier does not allow it.
    """

    source: str
    tables: tuple[Table, ...] = ()
    error: str = ""
    refused: str = ""


Listed = list[SourceTables]


def print_json(value: Any, indent: int | None = 2) -> None:
    print(json.dumps(value, indent=indent, ensure_ascii=False, default=str))


def plan_values(plan: Any) -> dict[str, Any]:
    """A plan for programs."""
    return {
        "plan": str(plan),
        "planning_seconds": plan.planning_seconds,
        "fragments": [_fragment_values(f) for f in plan.fragments],
        "residual": plan.residual,
        "kept": list(plan.kept),
        "fallbacks": list(plan.fallbacks),
        "lineage": [
            {"column": n, "direct": sorted(c.direct), "indirect": sorted(c.indirect)}
            for n, c in plan.column_lineage
        ],
        "labels": [
            {"column": n, "direct": sorted(c.direct), "indirect": sorted(c.indirect)}
            for n, c in plan.result_labels.columns
        ],
        "label_origins": [o._asdict() for o in plan.label_origins],
    }


def _fragment_values(fragment: Any) -> dict[str, Any]:
    """A fragment; what it took where it has run."""
    values = {"name": fragment.name, "source": fragment.source, "sql": fragment.sql}
    if fragment.rows is not None:
        took = ("rows", "bytes", "seconds", "keys", "connections")
        values |= {name: getattr(fragment, name) for name in took}
    return values


def print_label_origins(plan: Any) -> None:
    """The labels of each column of a plan, and below each where it comes from."""
    for name, labels in plan.result_labels.columns:
        print("all columns" if name == "*" else name)
        for kind, held in (("direct", labels.direct), ("indirect", labels.indirect)):
            for label in sorted(held):
                print(f"  {label} ({kind})")
                for one in plan.label_origins:
                    if (one.column, one.label, one.kind) == (name, label, kind):
                        print(f"    from {one.origin}: {one.where}")
        if not labels:
            print("  no labels")


def label_values(labels: TableLabels) -> dict[str, Any]:
    """The labels of a file for programs."""
    return {
        "rows": sorted(labels.rows),
        "columns": {
            n: {"direct": sorted(c.direct), "indirect": sorted(c.indirect)}
            for n, c in labels.columns.items()
        },
    }


def print_labels(labels: TableLabels) -> None:
    """The labels of a file for people."""
    for name, column in labels.columns.items():
        direct, indirect = sorted(column.direct), sorted(column.indirect)
        shown = ", ".join([*direct, *(f"{i} (indirect)" for i in indirect if i not in direct)])
        print(f"{name}: {shown}")
    if labels.rows:
        print(f"which rows there are: {', '.join(sorted(labels.rows))}")
    if not labels:
        print("no labels")


def print_audit(events: list[dict[str, Any]]) -> None:
    """The audit log for people, a line an event."""
    for event in events:
        match event:
            case {"event": "declassify"}:
                told = (
                    f"{', '.join(event['labels'])} taken from {event['column']}: {event['why']}"
                    f" (decided by {event['who']}, until {event['until']})"
                )
            case {"event": "mixed"}:
                told = f"{', '.join(event['when'])} mixed with {', '.join(event['into'])}"
            case _:
                told = str(event.get("event"))
        print(f"{event['time']} {event['user']}: {told}; query {event['query'][:12]}")
    if not events:
        print("nothing is on record")


# --- the virtual catalog -----------------------------------------------------------------------


def tables_by_source(connection: Connection) -> Listed:
    """Every source's tables; one that does not answer is listed with its error."""
    listed: Listed = []
    for name in connection.sources:
        try:
            listed.append(SourceTables(name, tuple(connection.tables(name))))
        except TierRefused as error:
            listed.append(SourceTables(name, refused=error.message))
        except Error as error:
            listed.append(SourceTables(name, error=error.message))
    return listed


def tree_values(listed: Listed) -> list[dict[str, Any]]:
    """The tree for programs."""
    return [
        {
            "source": one.source,
            "allowed": not one.refused,
            "error": one.error or one.refused or None,
            "tables": [
                {"name": ".".join((source, *path)), "path": list(path), "kind": kind}
                for source, path, kind in one.tables
            ],
        }
        for one in listed
    ]


def print_tree(listed: Listed) -> None:
    """Source, schema, table, indented."""
    for one in listed:
        note = "does not answer" if one.error else "not allowed by the tier" if one.refused else ""
        print(f"{one.source} ({note})" if note else one.source)
        shown: tuple[str, ...] = ()
        for _, path, kind in one.tables:
            folders = path[:-1]
            for depth, folder in enumerate(folders):
                if folders[: depth + 1] != shown[: depth + 1]:
                    print("  " * (depth + 1) + folder)
            shown = folders
            note = "" if kind == "table" else f" ({kind})"
            print("  " * len(path) + path[-1] + note)
    if not listed:
        print("no sources are configured")


@dataclass(frozen=True)
class Match:
    """A table, or a column of one, whose name contains what was looked for.

    :param path: the source's name and the table's path in it.
    :param kind: of the table, or the column's type.
    """

    path: tuple[str, ...]
    column: str | None
    kind: str


def matches(connection: Connection, listed: Listed, text: str) -> list[dict[str, Any]]:
    """Tables and columns whose names contain ``text``; from listings only."""
    return [
        {"table": ".".join(m.path), "column": m.column, "type": m.kind}
        for m in matched(connection, listed, text)
    ]


def matched(connection: Connection, listed: Listed, text: str) -> list[Match]:
    """As ``matches``, in parts."""
    wanted = text.lower()
    found = [
        Match((source, *path), None, kind)
        for one in listed
        for source, path, kind in one.tables
        if wanted in path[-1].lower()
    ]
    # The view's schema is "main" where a source has none.
    known = {
        (source, path[-2] if len(path) > 1 else "main", path[-1]): (source, *path)
        for one in listed
        for source, path, _ in one.tables
    }
    if known:
        columns = connection.execute(
            "SELECT table_catalog, table_schema, table_name, column_name, data_type"
            " FROM information_schema.columns WHERE contains(lower(column_name), ?)"
            " ORDER BY table_catalog, table_schema, table_name, ordinal_position",
            [wanted],
        ).fetchall()
        found += [
            Match(known.get(key, key), column, type_)
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
