"""Which files a fragment reads of a table of the catalog, and the SQL that reads them.

Files of one format, and of one schema of their own, are read together; partition values are the
catalog's, joined by the file's number. Parquet columns are found by name without case, since the
catalog keeps none; those of text files by their place among the partition's own columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from batuta_sql.engines.duckdb import quote
from batuta_sql.errors import NotSupportedError
from batuta_sql.sources.files import NAN_SAFE, path_literal
from batuta_sql.sources.glue_files import DataFile
from batuta_sql.sources.glue_lines import (
    FILE,
    LINE,
    LINES,
    TextFile,
    field,
    fields_of,
    lines_of,
    positions,
)
from batuta_sql.sources.glue_tables import Column, HiveTable, Storage
from batuta_sql.sources.glue_values import (
    Held,
    alone,
    fitted,
    from_json,
    from_text,
    json_member,
    literal,
    text_type,
)

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
"""What stands for NULL among partition values."""

_KEY = "partition key"

Values = tuple[str | None, ...]


@dataclass(frozen=True)
class Part:
    """Some files that hold their columns alike, with their partition's values."""

    storage: Storage
    files: tuple[DataFile, ...]
    values: tuple[Values, ...]
    partition: str = ""


@dataclass(frozen=True)
class HiveScan:
    """What a fragment reads of a table."""

    table: HiveTable
    parts: tuple[Part, ...]

    @property
    def files(self) -> list[DataFile]:
        return [f for p in self.parts for f in p.files]

    @property
    def bytes(self) -> float:
        return float(sum(f.size for f in self.files))


@dataclass(frozen=True)
class ParquetSet:
    """Parquet files of one schema.

    :param held: names and types of their columns.
    """

    part: Part
    held: tuple[tuple[str, Held], ...]

    def column(self, column: Column, table: HiveTable) -> tuple[str, Held] | None:
        """The name and type of a table's column in the files; None: they have none such."""
        name = alone(column.name, [n for n, _ in self.held], place(column, table))
        return None if name is None else (name, dict(self.held)[name])


def delivered(column: Column, storage: Storage) -> str:
    """The DuckDB type of a table's column."""
    if storage.format in ("text", "opencsv"):
        return text_type(column.type)
    if storage.format == "json" and column.type.duckdb == "BLOB":
        return "VARCHAR"
    return column.type.delivered


def place(column: Column, table: HiveTable) -> str:
    return f'column "{column.name}" of "{table.shown}"'


def value_of(text: str) -> str | None:
    """A partition value as it is compared: NULL is written as a text."""
    return None if text == NULL_PARTITION else text


# --- partitions --------------------------------------------------------------------------------


def fitting(
    cursor: duckdb.DuckDBPyConnection,
    table: HiveTable,
    values: Sequence[Values],
    condition: str | None,
) -> list[int]:
    """The indices of the partitions for which a condition in DuckDB's SQL may hold.

    :raises duckdb.Error: for a value that is none of its key's type.
    """
    if condition is None or not values:
        return list(range(len(values)))
    registered = f"partitions:{table.shown}"
    cursor.register(registered, _as_table(table, values))
    typed = ", ".join(f"{v} AS {quote(k.name)}" for k, v in _typed(table, "v"))
    try:
        rows = cursor.execute(
            f"SELECT {FILE} FROM (SELECT v.{FILE}, {typed} FROM {quote(registered)} AS v)"
            f" WHERE {condition} ORDER BY 1"
        ).fetchall()
    except duckdb.Error as error:
        if _KEY in str(error):
            raise
        return list(range(len(values)))  # the query itself will say what is wrong with it
    return [r[0] for r in rows]


def _as_table(table: HiveTable, values: Sequence[Values]) -> pa.Table:
    """Partition values as texts, by place, each row with its number."""
    columns: dict[str, Any] = {FILE: pa.array(range(len(values)), pa.int64())}
    for index in range(len(table.keys)):
        columns[f"k{index}"] = pa.array([v[index] for v in values], pa.string())
    return pa.table(columns)


def _typed(table: HiveTable, alias: str) -> list[tuple[Column, str]]:
    """The partition keys, and the SQL that makes them of ``_as_table``."""
    return [
        (key, from_text(f"{alias}.k{i}", key.type, f"{_KEY} {place(key, table)}"))
        for i, key in enumerate(table.keys)
    ]


# --- reading -----------------------------------------------------------------------------------


def relation(
    cursor: duckdb.DuckDBPyConnection,
    source: str,
    scan: HiveScan,
    name: str,
    opener: Callable[[DataFile], Callable[[], Any]],
) -> str:
    """The FROM item that reads what a scan has found; registers what it needs on ``cursor``.

    :param name: of the view, different for each table that the cursor reads.
    :param opener: makes what opens a text file.
    :raises NotSupportedError: for files that cannot be read as the catalog says.
    """
    branches: list[str] = []
    for part in scan.parts:
        if part.storage.format == "parquet":
            sets = parquet_sets(cursor, part)
            branches += [
                _parquet(cursor, scan.table, s, f"{name}:{len(branches) + i}")
                for i, s in enumerate(sets)
            ]
        else:
            branch = _text(cursor, source, scan.table, part, f"{name}:{len(branches)}", opener)
            branches.append(branch)
    if not branches:
        storage = scan.table.storage
        typed = ", ".join(
            f"CAST(NULL AS {delivered(c, storage)}) AS {quote(c.name)}" for c in scan.table.columns
        )
        return f"(SELECT {typed} WHERE false)"
    return "(" + " UNION ALL ".join(branches) + ")"


def parquet_sets(cursor: duckdb.DuckDBPyConnection, part: Part) -> list[ParquetSet]:
    """The files of a part by what their footers say of their columns.

    :raises duckdb.Error: for a file that is not Parquet.
    """
    listed = ", ".join(path_literal(f.path) for f in part.files)
    shapes = dict(
        cursor.execute(
            "SELECT file_name, md5(string_agg(concat_ws('|', name, type, type_length,"
            " repetition_type, num_children, converted_type, scale, precision, logical_type,"
            " duckdb_type), ';' ORDER BY column_id)) FROM (SELECT row_number() OVER () AS"
            f" column_id, * FROM parquet_schema([{listed}])) GROUP BY file_name"
        ).fetchall()
    )
    groups: dict[str, list[int]] = {}
    for index, file in enumerate(part.files):
        groups.setdefault(shapes.get(file.path, file.path), []).append(index)
    found: list[ParquetSet] = []
    for indices in groups.values():
        first = path_literal(part.files[indices[0]].path)
        described = cursor.sql(f"SELECT * FROM read_parquet({first}, hive_partitioning = false)")
        names = _own_names(cursor, first, described.columns)
        held = tuple(zip(names, described.types, strict=True))
        some = Part(
            part.storage,
            tuple(part.files[i] for i in indices),
            tuple(part.values[i] for i in indices),
            part.partition,
        )
        found.append(ParquetSet(some, held))
    return found


def _own_names(cursor: duckdb.DuckDBPyConnection, path: str, names: Sequence[str]) -> list[str]:
    """The names of a file's columns: of two that differ in case alone DuckDB numbers the second."""
    rows = cursor.execute(f"SELECT name FROM parquet_schema({path})").fetchall()
    written = {r[0] for r in rows}
    return [n if n in written else re.sub(r"_\d+$", "", n) for n in names]


def _parquet(
    cursor: duckdb.DuckDBPyConnection, table: HiveTable, files: ParquetSet, name: str
) -> str:
    """The SELECT that reads files of one schema; inside it every column has a name of ours."""
    schema: list[str] = []
    outputs: list[str] = []
    for index, column in enumerate(table.storage.columns):
        found = files.column(column, table)
        there = delivered(column, table.storage)
        if found is None:
            outputs.append(f"CAST(NULL AS {there}) AS {quote(column.name)}")
            continue
        held_name, held = found
        schema.append(
            f"{literal(held_name)}: {{name: 'c{index}', type: {literal(str(held))},"
            " default_value: NULL}"
        )
        value = fitted(f"f.c{index}", held, column.type, place(column, table))
        value = _as_delivered(value, column, table.storage)
        outputs.append(f"{value} AS {quote(column.name)}")
    told = f", schema = MAP {{{', '.join(schema)}}}" if schema else ""
    paths = ", ".join(path_literal(f.path) for f in files.part.files)
    reader = f"read_parquet([{paths}]{told}, hive_partitioning = false{NAN_SAFE})"
    return _joined(cursor, table, files.part, reader, outputs, name)


def _as_delivered(value: str, column: Column, storage: Storage) -> str:
    """A value of the catalog's type as the table delivers the column: nested values of a table
    whose own format is text are texts."""
    there = delivered(column, storage)
    return value if there == column.type.delivered else f"CAST({value} AS {there})"


def _joined(
    cursor: duckdb.DuckDBPyConnection,
    table: HiveTable,
    part: Part,
    reader: str,
    outputs: Sequence[str],
    name: str,
) -> str:
    """The SELECT over a reader, with the values of the partition that each file belongs to."""
    if not table.keys:
        return f"SELECT {', '.join(outputs)} FROM {reader} AS f"
    registered = f"values:{name}"
    cursor.register(registered, _as_table(table, part.values))
    typed = _typed(table, "v")
    inner = ", ".join(f"{v} AS p{i}" for i, (_, v) in enumerate(typed))
    values = f"SELECT v.{FILE} AS here, {inner} FROM {quote(registered)} AS v"
    keys = [f"p.p{i} AS {quote(k.name)}" for i, (k, _) in enumerate(typed)]
    return (
        f"SELECT {', '.join([*outputs, *keys])} FROM {reader} AS f"
        f" JOIN ({values}) AS p ON f.{FILE} = p.here"
    )


def _text(
    cursor: duckdb.DuckDBPyConnection,
    source: str,
    table: HiveTable,
    part: Part,
    name: str,
    opener: Callable[[DataFile], Callable[[], Any]],
) -> str:
    """The SELECT that reads text files, whose lines come one by one."""
    from batuta_sql.engines.remote_dataset import RemoteDataset

    skipped = int(part.storage.option("skip.header.line.count", "0"))
    files = [TextFile(f.path, opener(f), skipped) for f in part.files]

    def scan(names: Sequence[str], tests: Any) -> pa.RecordBatchReader:
        every = lines_of(source, files)
        shape = pa.schema([LINES.field(n) for n in names])
        return pa.RecordBatchReader.from_batches(shape, (b.select(names) for b in every))

    registered = f"lines:{name}"
    cursor.register(registered, RemoteDataset(LINES, scan))
    where = f'"{table.shown}"' + (f", partition {part.partition}" if part.partition else "")
    if part.storage.format == "json":
        lines = f"SELECT CAST({LINE} AS JSON) AS j, {FILE} FROM {quote(registered)}"
        lines += f" WHERE trim({LINE}) <> ''"
        values = _json_values(table, part.storage, where)
    else:
        fields = fields_of(part.storage, where)
        lines = f"SELECT {fields} AS l, {FILE} FROM {quote(registered)}"
        values = _field_values(cursor, table, part, where)
    outputs = [
        f"{values.get(c.name, _null(c, table))} AS {quote(c.name)}" for c in table.storage.columns
    ]
    return _joined(cursor, table, part, f"({lines})", outputs, name)


def _null(column: Column, table: HiveTable) -> str:
    return f"CAST(NULL AS {delivered(column, table.storage)})"


def _json_values(table: HiveTable, storage: Storage, where: str) -> Mapping[str, str]:
    exact = storage.option("case.insensitive", "true").lower() == "false"
    found: dict[str, str] = {}
    for column in table.storage.columns:
        told = place(column, table)
        if column.type.duckdb == "BLOB" and delivered(column, table.storage) == "BLOB":
            raise NotSupportedError(f"{where} cannot be read: JSON has no bytes, as {told} needs")
        mapped = storage.option(f"mapping.{column.name.lower()}")
        value = json_member("f.j", mapped or column.name, exact=exact)
        value = from_json(value, column.type, told, exact=exact)
        found[column.name] = _as_delivered(value, column, table.storage)
    return found


def _field_values(
    cursor: duckdb.DuckDBPyConnection, table: HiveTable, part: Part, where: str
) -> Mapping[str, str]:
    """The table's columns out of a line's fields: read as the partition says, then widened."""
    try:
        found = positions(part.storage.columns, table.storage.columns)
    except NotSupportedError as error:
        raise NotSupportedError(
            f"{where} cannot be read: {error.message}", hint=error.hint
        ) from None
    values: dict[str, str] = {}
    for column in table.storage.columns:
        if column.name not in found:
            continue
        own = part.storage.columns[found[column.name]]
        told = place(column, table)
        value = from_text(field("f.l", found[column.name]), own.type, told)
        if text_type(own.type) != delivered(column, table.storage):
            if text_type(own.type) != own.type.delivered:
                raise NotSupportedError(
                    f"{where} cannot be read: {told} is {own.told}, which is not read from text"
                )
            value = fitted(value, cursor.type(text_type(own.type)), column.type, told)
        values[column.name] = value
    return values
