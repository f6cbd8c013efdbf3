"""What a query sees of a table whose files the catalog alone describes."""

from __future__ import annotations

from dataclasses import replace

from batuta_sql.errors import NotSupportedError
from batuta_sql.plan.site import ColumnInfo, Statistics, TableInfo
from batuta_sql.sources.glue_scan import delivered
from batuta_sql.sources.glue_tables import Column, HiveTable, Record, reader_of


def table_info(source: str, table: HiveTable, path: tuple[str, ...]) -> TableInfo:
    """The description of a table."""
    return TableInfo(
        source=source,
        path=path,
        columns=tuple(
            ColumnInfo(c.name, _delivered(c, table), c.told, note=_note(c, table))
            for c in table.columns
        ),
        kind="partitioned table" if table.keys else "table",
        statistics=_statistics(table),
    )


def kind_of(record: Record) -> str:
    """The kind of a table, for a listing."""
    if str(record.get("TableType")).upper() == "VIRTUAL_VIEW":
        return "view"
    try:
        reader = reader_of(record)
    except NotSupportedError:
        return "table"
    if reader == "hive":
        return "partitioned table" if record.get("PartitionKeys") else "table"
    return f"{reader} table"


def _delivered(column: Column, table: HiveTable) -> str:
    if column in table.keys:
        return delivered(column, replace(table.storage, format="text"))
    return delivered(column, table.storage)


def _note(column: Column, table: HiveTable) -> str | None:
    found = _delivered(column, table)
    if column.type.duckdb == found:
        return None
    if column.type.duckdb is None:
        return "read as text: no DuckDB type matches"
    return f"read as the text in the files, which is {column.told} there"


def _statistics(table: HiveTable) -> Statistics:
    """What crawlers and engines have written into the table's parameters, at some time."""

    def number(*keys: str) -> float | None:
        for key in keys:
            told = table.parameters.get(key, "")
            if told.isdigit() and int(told) > 0:
                return float(told)
        return None

    return Statistics(
        rows=number("recordCount", "numRows"),
        bytes=number("sizeKey", "totalSize", "rawDataSize"),
    )
