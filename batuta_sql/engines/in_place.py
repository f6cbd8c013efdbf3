"""Tables whose files another engine reads where they lie.

Where a table is plain Parquet files (``TellsParquet``), a fragment over it need not run: the engine
reads the files with the same predicates and projections, and no row passes through this process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sqlglot import exp

from batuta_sql.engines.local_relations import constant, has_one_text
from batuta_sql.plan.relational import Exchange, Relation, Scan
from batuta_sql.plan.site import ColumnInfo, TableInfo
from batuta_sql.plan.translate import quoted_column
from batuta_sql.plan.types import is_float
from batuta_sql.sources.base import ChecksFiles, ParquetFile, Source, TellsParquet

MOST_FILES = 500
"""Of one table: each is named in the statement."""

IN_PLACE = "read in place"
"""The kind of such a table; its path is the text that reads its files."""

_PLAIN = re.compile(r"(?:s3a?:/)?(?:/[\w.+@~:=-]+)+")
"""A path without anything that a reader could take for a pattern or an escape."""

_CONSTANTS = frozenset(
    {"BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "VARCHAR", "DATE", "TIMESTAMP"}
)
"""Types of partitions' values; of others some have several texts."""


def in_place(
    exchange: Exchange,
    sql: str,
    engine: str,
    dialect: str,
    sources: Mapping[str, Source],
    is_read: Callable[[str], bool],
) -> Relation | None:
    """What the engine reads instead of an exchange's fragment; None: it has to be fetched.

    :param sql: the fragment's statement: files that it cannot need are not read.
    :param engine: its name.
    :param dialect: of its statements.
    :param is_read: whether a column of a DuckDB type is the same when the engine reads it.
    :raises Error: where the files of a table cannot be told.
    """

    def of(node: Relation) -> Relation | None:
        if isinstance(node, Scan):
            used = tuple(dict.fromkeys(c for _, c in node.columns))
            files = _files(node, sql, sources, is_read)
            if files is None:
                return None
            text = _union(used, files, dialect)
            table = TableInfo(engine, (text,), used, IN_PLACE, statistics=node.table.statistics)
            return replace(node, table=table)
        if not node.inputs:
            return None
        inputs = [of(i) for i in node.inputs]
        found = [i for i in inputs if i is not None]
        return node.with_inputs(*found) if len(found) == len(inputs) else None

    return of(exchange.input)


def _files(
    scan: Scan, sql: str, sources: Mapping[str, Source], is_read: Callable[[str], bool]
) -> Sequence[ParquetFile] | None:
    source: object = sources.get(scan.table.source)
    if not isinstance(source, TellsParquet) or not scan.columns:
        return None
    types = {c.name: c.type for _, c in scan.columns}
    if not all(map(is_read, types.values())):
        return None
    files = source.parquet_files(scan.table, sql, MOST_FILES)
    if files is None or not all(_PLAIN.fullmatch(f.path) for f in files):
        return None
    for name, value in {c for f in files for c in f.constants if c[0] in types}:
        type_ = types[name]
        if type_ not in _CONSTANTS or (value is not None and not has_one_text(value, type_)):
            return None
    return files


def _union(columns: Sequence[ColumnInfo], files: Sequence[ParquetFile], dialect: str) -> str:
    """The rows of files, each by its name."""
    names = {c.name: quoted_column(c.name, None).sql(dialect) for c in columns}

    def value(column: ColumnInfo, constants: Mapping[str, str | None]) -> str:
        name = names[column.name]
        if column.name in constants:
            return f"{constant(constants[column.name], column.type, dialect)} AS {name}"
        if is_float(column.type):
            # Writers leave NaN out of a file's statistics, by which readers leave rows out.
            nan = constant("NaN", column.type, dialect)
            return f"CASE WHEN isnan({name}) THEN {nan} ELSE {name} END AS {name}"
        return name

    def selected(constants: Mapping[str, str | None]) -> str:
        return ", ".join(value(c, constants) for c in columns)

    each = [f"SELECT {selected(dict(f.constants))} FROM parquet.`{f.path}`" for f in files]
    if not each:
        each = [f"SELECT {selected(dict.fromkeys(names))} WHERE FALSE"]
    return f"({' UNION ALL '.join(each)})"


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


def relation_in_place(table: TableInfo) -> exp.Table:
    """A table that is read in place, as an item of FROM."""
    return exp.Table(this=exp.Var(this=table.path[0]))
