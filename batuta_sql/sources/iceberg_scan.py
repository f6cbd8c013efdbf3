"""The SQL that reads files of an Iceberg snapshot and takes away what is deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batuta_sql.engines.duckdb import quote
from batuta_sql.sources.iceberg_deletes import Equality, equality_condition
from batuta_sql.sources.iceberg_metadata import FILE, IcebergSnapshot
from batuta_sql.sources.iceberg_schema import IcebergColumn, Reading
from batuta_sql.sources.parquet_layout import entry, reader_of


@dataclass(frozen=True)
class Group:
    """Files of which all columns come out in the same way.

    :param readings: of ``scanned_columns``, in their order.
    :param from_partition: which of these come from the partition's values in the metadata.
    :param positions: whether rows of the files are deleted by position.
    :param equalities: the numbers of the equality deletes that are for the files.
    """

    files: tuple[int, ...]
    readings: tuple[Reading, ...]
    from_partition: tuple[bool, ...]
    positions: bool
    equalities: tuple[int, ...]


def scanned_columns(
    snapshot: IcebergSnapshot, equalities: Sequence[Equality]
) -> tuple[IcebergColumn, ...]:
    """The table's columns, then those that only equality deletes look at."""
    present = {c.field_id for c in snapshot.columns}
    extra = {c.field_id: c for e in equalities for c in e.columns if c.field_id not in present}
    return (*snapshot.columns, *extra.values())


def names_in_files(snapshot: IcebergSnapshot, group: Group) -> dict[str, str]:
    """Names of the columns in the files; one that is not there has none."""
    pairs = zip(snapshot.columns, group.readings, strict=False)
    return {c.name: r.physical if r.physical is not None else "" for c, r in pairs}


def scan_sql(
    snapshot: IcebergSnapshot, name: str, group: Group, equalities: Sequence[Equality]
) -> str:
    """The SELECT that reads the files of a group.

    Inside it every column has a name of ours: the table's may be those that DuckDB reserves.
    """
    columns = scanned_columns(snapshot, equalities)
    values: dict[int, str] = {}
    entries: list[str] = []
    for i, (column, reading) in enumerate(zip(columns, group.readings, strict=True)):
        if group.from_partition[i]:
            values[column.field_id] = f"CAST(p.p{column.field_id} AS {column.type})"
            continue
        if reading.key is not None:
            entries.append(entry(reading.key, f"c{i}", reading.type))
        values[column.field_id] = reading.of(f"f.c{i}")
    reader = reader_of([snapshot.files[i].path for i in group.files], entries)
    outputs = ", ".join(f"{values[c.field_id]} AS {quote(c.name)}" for c in snapshot.columns)
    sql = f"SELECT {outputs} FROM {reader} AS f"
    if any(group.from_partition) or group.positions or group.equalities:
        # The reader numbers the files that it is given.
        numbers = ", ".join(f"({i}, {number})" for i, number in enumerate(group.files))
        sql += (
            f" JOIN (SELECT n.here, v.* FROM {quote(f'files:{name}')} AS v"
            f" JOIN (VALUES {numbers}) AS n(here, there) ON v.{quote(FILE)} = n.there) AS p"
            " ON f.file_index = p.here"
        )
    if group.positions:
        sql += (
            f" ANTI JOIN {quote(f'positions:{name}')} AS d"
            f" ON p.{quote(FILE)} = d.file AND f.file_row_number = d.pos"
        )
    for i in group.equalities:
        condition = equality_condition(equalities[i], values, f"e{i}")
        sql += f" ANTI JOIN {quote(f'equality:{name}:{i}')} AS e{i} ON {condition}"
    return sql
