"""Tables whose files another engine reads where they lie.

Where a table is plain Parquet files (``TellsParquet``), a fragment over it need not run: the engine
reads the files with the same predicates and projections, and no row passes through this process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sqlglot import exp

from batuta_sql.plan.relational import Exchange, Relation, Scan
from batuta_sql.plan.site import TableInfo
from batuta_sql.plan.translate import quoted_column
from batuta_sql.sources.base import ChecksFiles, Source, TellsParquet

MOST_FILES = 500
"""Of one table: each is named in the statement."""

IN_PLACE = "read in place"
"""The kind of such a table; its path is ``parquet`` and its files."""

_PLAIN = re.compile(r"(?:s3a?:/)?(?:/[\w.+@~:-]+)+")
"""A path without anything that a reader could take for a pattern, a partition or an escape."""


def in_place(
    exchange: Exchange,
    engine: str,
    sources: Mapping[str, Source],
    is_read: Callable[[str], bool],
) -> Relation | None:
    """What the engine reads instead of an exchange's fragment; None: it has to be fetched.

    :param engine: its name.
    :param is_read: whether a column of a DuckDB type is the same when the engine reads it.
    :raises Error: where the files of a table cannot be told.
    """

    def of(node: Relation) -> Relation | None:
        if isinstance(node, Scan):
            files = _files(node, sources, is_read)
            if files is None:
                return None
            used = tuple(dict.fromkeys(c for _, c in node.columns))
            table = TableInfo(
                engine, ("parquet", *files), used, IN_PLACE, statistics=node.table.statistics
            )
            return replace(node, table=table)
        if not node.inputs:
            return None
        inputs = [of(i) for i in node.inputs]
        found = [i for i in inputs if i is not None]
        return node.with_inputs(*found) if len(found) == len(inputs) else None

    return of(exchange.input)


def _files(
    scan: Scan, sources: Mapping[str, Source], is_read: Callable[[str], bool]
) -> Sequence[str] | None:
    source: object = sources.get(scan.table.source)
    if not isinstance(source, TellsParquet) or not scan.columns:
        return None
    if not all(is_read(c.type) for _, c in scan.columns):
        return None
    files = source.parquet_files(scan.table)
    if not 0 < len(files) <= MOST_FILES or not all(_PLAIN.fullmatch(f) for f in files):
        return None
    return files


Watched = tuple[TableInfo, tuple[str, ...]]
"""A table whose files may be written over, and what names their content."""


def watched_files(
    exchange: Exchange, sources: Mapping[str, Source]
) -> dict[tuple[str, ...], Watched]:
    """The tables of an exchange whose files may be written over while they are read."""
    found: dict[tuple[str, ...], Watched] = {}
    for scan in exchange.walk():
        if isinstance(scan, Scan):
            source: object = sources.get(scan.table.source)
            if isinstance(source, ChecksFiles):
                names = tuple(name for name, _ in source.files_of_table(scan.table))
                found[scan.table.qualified_parts] = (scan.table, names)
    return found


def check_watched(watched: Sequence[Watched], sources: Mapping[str, Source]) -> None:
    """
    :raises OperationalError: where a file is not any more what it was.
    """
    for table, names in watched:
        source: object = sources.get(table.source)
        if isinstance(source, ChecksFiles):
            source.check_files(table, names)


def relation_in_place(table: TableInfo, dialect: str) -> exp.Table:
    """A table that is read in place, as an item of FROM: each file by its name."""
    columns = ", ".join(quoted_column(c.name, None).sql(dialect) for c in table.columns)
    kind, *files = table.path
    each = [f"SELECT {columns} FROM {kind}.`{f}`" for f in files]
    return exp.Table(this=exp.Var(this=f"({' UNION ALL '.join(each)})"))
