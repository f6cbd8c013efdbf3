"""A world in which every column and every table has a label of its own, and its variations.

The tables are those of the differential test, in every home. A variation changes what one label
stands for and nothing else: the values of one column, or which rows a table has. Variations are
tables beside the first ones, so that a query is run under one by naming it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from tests.differential.tables import HOMES, TABLES, make_truth

_REFERENCE = re.compile(rf"\b({'|'.join(HOMES)})__(\w+)\b")
ROWS_KEPT = ("id % 2 = 0", "false")


@dataclass(frozen=True)
class Variation:
    """Another content of one table, which differs only in what ``label`` stands for."""

    home: str
    table: str
    label: str
    name: str


def column_label(home: str, table: str, column: str) -> str:
    return f"value:{home}.{table}.{column}"


def rows_label(home: str, table: str) -> str:
    return f"rows:{home}.{table}"


def make_world(con: duckdb.DuckDBPyConnection) -> list[Variation]:
    """The tables and all variations of them, in ``con``."""
    make_truth(con)
    found: list[Variation] = []
    for home in HOMES:
        for table, columns in TABLES.items():
            for column in columns:
                label = column_label(home, table, column.name)
                for number, changed in enumerate(_changes(home, table, column.name)):
                    name = f"{table}__{column.name}_{number}"
                    con.execute(f"CREATE TABLE {home}.{name} AS {changed}")
                    found.append(Variation(home, table, label, name))
            for number, content in enumerate(_other_rows(home, table)):
                name = f"{table}__rows_{number}"
                con.execute(f"CREATE TABLE {home}.{name} AS {content}")
                found.append(Variation(home, table, rows_label(home, table), name))
    return found


def _changes(home: str, table: str, column: str) -> Iterator[str]:
    """The table with other values in one column: moved between rows, NULL, all the same."""
    listed = ", ".join(c.name for c in TABLES[table])
    moved = (
        f"SELECT * EXCLUDE (place) REPLACE (coalesce(lead({column}, 7) OVER (ORDER BY place),"
        f" min({column}) OVER ()) AS {column})"
        f" FROM (SELECT *, row_number() OVER (ORDER BY id) AS place FROM {home}.{table})"
    )
    yield f"SELECT {listed} FROM ({moved}) ORDER BY ALL"
    type_ = f"(SELECT {column} FROM {home}.{table} WHERE false)"
    yield f"SELECT * REPLACE ({type_} AS {column}) FROM {home}.{table}"
    yield f"SELECT * REPLACE (max({column}) OVER () AS {column}) FROM {home}.{table}"


def _other_rows(home: str, table: str) -> Iterator[str]:
    """Fewer rows, none, and some of them twice."""
    for kept in ROWS_KEPT:
        yield f"SELECT * FROM {home}.{table} WHERE {kept}"
    yield f"FROM {home}.{table} UNION ALL SELECT * FROM {home}.{table} WHERE id % 3 = 1"


def make_sources(con: duckdb.DuckDBPyConnection, folder: Path) -> dict[str, Any]:
    """A configuration with each home as a DuckDB file, everything labelled."""
    sources: dict[str, Any] = {}
    for home in HOMES:
        path = folder / f"{home}.duckdb"
        con.execute(f"ATTACH '{path}' AS file")
        for table in TABLES:
            con.execute(f"CREATE TABLE file.{table} AS FROM {home}.{table}")
        con.execute("DETACH file")
        sources[home] = {"kind": "duckdb", "path": str(path), "tables": labels_of(home)}
    return {"sources": sources}


def labels_of(home: str) -> dict[str, Any]:
    """The configuration's labels of a home's tables."""
    return {
        table: {
            "labels": [rows_label(home, table)],
            "columns": {c.name: {"labels": [column_label(home, table, c.name)]} for c in columns},
        }
        for table, columns in TABLES.items()
    }


def tables_in(sql: str) -> set[tuple[str, str]]:
    """The homes and tables that a query names."""
    return {(home, table) for home, table in _REFERENCE.findall(sql)}


def under(sql: str, variation: Variation | None) -> str:
    """The query over the tables of ``make_world``, one of them changed."""

    def named(found: re.Match[str]) -> str:
        home, table = found[1], found[2]
        if variation is not None and (home, table) == (variation.home, variation.table):
            return f"{home}.{variation.name}"
        return f"{home}.{table}"

    return _REFERENCE.sub(named, sql)


def for_sources(sql: str) -> str:
    """The query over the sources of ``make_sources``."""
    return _REFERENCE.sub(lambda found: f"{found[1]}.{found[2]}", sql)
