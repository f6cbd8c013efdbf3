"""What columns Parquet files hold, and how a reader is told which to take for which.

DuckDB's reader takes a ``schema``: for each column of the table the name or field id that it has in
the files, and a type. https://duckdb.org/docs/stable/data/parquet/overview
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb

from batuta_sql.sources.files import NAN_SAFE, path_literal

ZONED, PLAIN = "TIMESTAMP WITH TIME ZONE", "TIMESTAMP"


@dataclass(frozen=True)
class Node:
    """A column of a file, or what lies inside a nested one.

    :param type: what DuckDB reads it as.
    :param type_below: types of all that it holds, depth first, itself included.
    """

    name: str
    field_id: int | None
    type: str
    children: tuple[Node, ...] = ()

    @property
    def types_below(self) -> Iterator[str]:
        yield self.type
        for child in self.children:
            yield from child.types_below

    @property
    def has_ids(self) -> bool:
        return self.field_id is not None or any(c.has_ids for c in self.children)


def layouts_of(
    cursor: duckdb.DuckDBPyConnection, paths: Sequence[str]
) -> dict[str, tuple[Node, ...]]:
    """The columns of each file, from its footer.

    :raises duckdb.Error: for a file that cannot be read.
    """
    listed = ", ".join(path_literal(p) for p in paths)
    rows = cursor.execute(
        "SELECT file_name, name, coalesce(num_children, 0), field_id, duckdb_type"
        f" FROM parquet_schema([{listed}])"
    ).fetchall()
    found: dict[str, tuple[Node, ...]] = {}
    remaining = iter(rows)
    for file, _, children, _, _ in remaining:
        found[file] = _nodes(remaining, children)
    return found


def _nodes(
    rows: Iterator[tuple[str, str, int, int | None, str | None]], count: int
) -> tuple[Node, ...]:
    """Parquet lists a tree depth first."""
    found: list[Node] = []
    for _ in range(count):
        _, name, inner, field_id, kind = next(rows)
        number = int(field_id) if field_id is not None else None
        found.append(Node(name, number, kind or "", _nodes(rows, inner)))
    return tuple(found)


def holds_as_named(layout: Sequence[Node], columns: Mapping[str, str]) -> bool:
    """Whether a file has each column under its own name and type, so that any reader finds it.

    :param columns: DuckDB types by name.
    """
    held = {n.name: n.type for n in layout if not n.children}
    # Some readers tell no case apart.
    unique = len({n.name.lower() for n in layout}) == len(layout)
    return unique and all(held.get(name) == type_ for name, type_ in columns.items())


def reader_of(paths: Iterable[str], entries: Sequence[str]) -> str:
    """The table function that reads files; ``entries`` are of ``entry``."""
    listed = ", ".join(path_literal(p) for p in paths)
    told = f", schema = MAP {{{', '.join(entries)}}}" if entries else ""
    return f"read_parquet([{listed}]{told}, hive_partitioning = false{NAN_SAFE})"


def entry(key: int | str, name: str, type_: str) -> str:
    """A column: its field id or its name in the files, the name and type that it is read under."""
    known = str(key) if isinstance(key, int) else text(key)
    return f"{known}: {{name: {text(name)}, type: {text(type_)}, default_value: NULL}}"


def is_other_time(held: str, wanted: str) -> bool:
    """Whether one of the types is a zoned timestamp, and the other a plain one.

    A cast between them would follow the session's time zone. Either may be a nested type.
    """
    return _has_plain(held) if _has_zoned(wanted) else _has_zoned(held)


def _has_zoned(type_: str) -> bool:
    return ZONED in type_ or "TIMESTAMPTZ" in type_


def _has_plain(type_: str) -> bool:
    return PLAIN in type_.replace(ZONED, "").replace("TIMESTAMPTZ", "")


def text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
