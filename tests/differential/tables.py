"""A handful of small tables with the values that break things, in every kind of source.

Every table is in every home. A query names one as ``HOME__TABLE`` (``pg__t1``); ``for_batuta`` and
``for_truth`` turn that into the names that each side knows.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deltalake
import duckdb

from batuta_sql.demo.postgres_server import PostgresServer

HOMES = {
    "pg": "pg.public",
    "lite": "lite",
    "duck": "duck.main",
    "lake": "lake",
    "delta": "delta",
}
"""Home -> what stands before a table's name in a query to Batuta."""

_REFERENCE = re.compile(rf"\b({'|'.join(HOMES)})__(\w+)\b")


@dataclass(frozen=True)
class Column:
    """A column: its DuckDB type, and the family of types it mixes with in expressions."""

    name: str
    type: str
    family: str


# Families: small (arithmetic cannot overflow), big (it can: only compared and aggregated), dec,
# dbl, text, date, time, bool.
TABLES: dict[str, tuple[Column, ...]] = {
    "t1": (
        Column("id", "INTEGER", "small"),
        Column("k", "INTEGER", "small"),
        Column("s", "VARCHAR", "text"),
        Column("d", "DATE", "date"),
        Column("n", "DECIMAL(12,4)", "dec"),
        Column("x", "DOUBLE", "dbl"),
        Column("b", "BOOLEAN", "bool"),
    ),
    "t2": (
        Column("id", "BIGINT", "small"),
        Column("k", "INTEGER", "small"),
        Column("s", "VARCHAR", "text"),
        Column("ts", "TIMESTAMP", "time"),
        Column("n", "DECIMAL(18,2)", "dec"),
        Column("big", "BIGINT", "big"),
    ),
    "t3": (
        Column("id", "INTEGER", "small"),
        Column("k", "SMALLINT", "small"),
        Column("s", "VARCHAR", "text"),
        Column("d", "DATE", "date"),
        Column("x", "DOUBLE", "dbl"),
    ),
    "none": (
        Column("id", "INTEGER", "small"),
        Column("k", "INTEGER", "small"),
        Column("s", "VARCHAR", "text"),
    ),
}

TEXTS = [
    "",
    "a",
    "A",
    "á",
    "Zoë",
    "a_b",
    "a%b",
    " pad ",
    "a ",
    "日本",
    "ß",
    "B",
    "😀",
    "it's",
    "\\",
]
DATES = ["2024-02-29", "1969-12-31", "2023-12-31", "0001-01-01", "9999-12-31", "2024-03-01"]
TIMES = ["2024-02-29 23:59:59.999999", "1970-01-01 00:00:00", "1969-12-31 23:59:59.5", "2024-06-01"]
DECIMALS = ["0", "-0.01", "0.5", "1.25", "-7.5", "99999999.99", "2.5", "-2.5"]
# Sums of these are exact in any order (but for infinity and NaN, which absorb all).
DOUBLES = ["0.0", "-0.0", "1.5", "-2.25", "1000000.5", "'NaN'", "'inf'", "0.125", "-0.5"]
BIGS = ["9223372036854775807", "-9223372036854775808", "0", "1", "-1", "4294967296"]
ROWS = 24


def _literal(column: Column, row: int, stride: int) -> str:
    """The value of a column in a row: some NULLs, some repeats, all of the list in the end."""
    if column.name == "id":
        return str(row * stride % ROWS + stride // 3)
    pick = row * stride + len(column.name) + ord(column.name[0])
    if pick % 5 == 0:
        return "NULL"
    pools = {
        "small": [str(value) for value in (-3, -1, 0, 1, 2, 3, 7)],
        "big": BIGS,
        "dec": DECIMALS,
        "dbl": DOUBLES,
        "bool": ["true", "false"],
        "text": ["'" + text.replace("'", "''") + "'" for text in TEXTS],
        "date": [f"'{date}'" for date in DATES],
        "time": [f"'{time}'" for time in TIMES],
    }
    pool = pools[column.family]
    return pool[pick % len(pool)]


def make_truth(con: duckdb.DuckDBPyConnection) -> None:
    """Every table as each home delivers it: ``pg.t1``, ``lite.t1`` ... as schemas of DuckDB."""
    con.execute("SET TimeZone = 'UTC'")
    con.execute("CREATE SCHEMA pg")
    for stride, (table, columns) in zip((5, 7, 11, 13), TABLES.items(), strict=True):
        typed = ", ".join(f"{column.name} {column.type}" for column in columns)
        con.execute(f"CREATE TABLE pg.{table} ({typed})")
        for row in range(0 if table == "none" else ROWS):
            values = ", ".join(_literal(column, row, stride) for column in columns)
            con.execute(f"INSERT INTO pg.{table} VALUES ({values})")
    for home in HOMES:
        if home == "pg":
            continue
        con.execute(f"CREATE SCHEMA {home}")
        for table, columns in TABLES.items():
            shown = ", ".join(_as_delivered(column, home) for column in columns)
            con.execute(f"CREATE TABLE {home}.{table} AS SELECT {shown} FROM pg.{table}")


def _as_delivered(column: Column, home: str) -> str:
    """SQLite has one integer type, and stores NaN as NULL."""
    if home == "lite" and column.family == "small":
        return f"{column.name}::BIGINT AS {column.name}"
    if home == "lite" and column.family == "dbl":
        return f"CASE WHEN NOT isnan({column.name}) THEN {column.name} END AS {column.name}"
    return column.name


@contextmanager
def sources(
    truth: duckdb.DuckDBPyConnection, folder: Path, server: PostgresServer
) -> Iterator[dict[str, Any]]:
    """Builds the homes out of the truth, in an empty folder; what ``batuta_sql.connect`` takes."""
    with ExitStack() as cleanup:
        uri = cleanup.enter_context(server.database("differential"))
        server.run(_postgres_script(truth, icu=server.has_icu), uri.rsplit("/", 1)[1])
        _sqlite_file(truth, folder / "lite.sqlite")
        for home in ("lake", "delta"):
            (folder / home).mkdir()
        with duckdb.connect(str(folder / "duck.duckdb")) as duck:
            for table in TABLES:
                relation = truth.sql(f"FROM duck.{table}")
                duck.register("rows_of_it", relation.to_arrow_table())
                duck.execute(f"CREATE TABLE {table} AS FROM rows_of_it")
                truth.execute(f"COPY lake.{table} TO '{folder / 'lake' / table}.parquet'")
                # Two commits: a table of more than one file.
                rows = truth.sql(f"FROM delta.{table}").to_arrow_table()
                for part in (rows.slice(0, ROWS // 2), rows.slice(ROWS // 2)):
                    target = str(folder / "delta" / table)
                    deltalake.write_deltalake(target, part, mode="append")
        yield {
            "sources": {
                "pg": {"kind": "postgresql", "uri": uri},
                "lite": {"kind": "sqlite", "path": str(folder / "lite.sqlite")},
                "duck": {"kind": "duckdb", "path": str(folder / "duck.duckdb")},
                "lake": {"kind": "files", "path": str(folder / "lake")},
                "delta": {"kind": "delta", "path": str(folder / "delta")},
            }
        }


def _postgres_script(truth: duckdb.DuckDBPyConnection, *, icu: bool) -> str:
    script: list[str] = ["SET standard_conforming_strings = on;"]
    for table, columns in TABLES.items():
        typed = []
        for column in columns:
            kind = {"DOUBLE": "DOUBLE PRECISION", "VARCHAR": "TEXT"}.get(column.type, column.type)
            # One table sorts text as people do.
            collation = ' COLLATE "en-x-icu"' if icu and kind == "TEXT" and table == "t2" else ""
            typed.append(f"{column.name} {kind}{collation}")
        script.append(f"CREATE TABLE {table} ({', '.join(typed)}, PRIMARY KEY (id));")
        for row in _rows_as_text(truth, "pg", table):
            values = ", ".join("NULL" if value is None else _quoted(value) for value in row)
            script.append(f"INSERT INTO {table} VALUES ({values});")
    return "\n".join([*script, "ANALYZE;"])


def _sqlite_file(truth: duckdb.DuckDBPyConnection, path: Path) -> None:
    types = {"INTEGER": "INTEGER", "BIGINT": "INTEGER", "SMALLINT": "INTEGER", "DOUBLE": "REAL"}
    with closing(sqlite3.connect(path)) as lite:
        for table, columns in TABLES.items():
            typed = ", ".join(
                f"{c.name} {'TEXT' if c.type == 'VARCHAR' else types.get(c.type, c.type)}"
                for c in columns
            )
            lite.execute(f"CREATE TABLE {table} ({typed})")
            marks = ", ".join("?" * len(columns))
            for row in _rows_as_text(truth, "lite", table):
                values = [
                    _sqlite_value(column, value) for column, value in zip(columns, row, strict=True)
                ]
                lite.execute(f"INSERT INTO {table} VALUES ({marks})", values)
        lite.commit()


def _sqlite_value(column: Column, text: str | None) -> object:
    if text is None:
        return None
    if column.family == "bool":
        return int(text == "true")
    return float(text) if column.family == "dbl" else text


def _rows_as_text(
    truth: duckdb.DuckDBPyConnection, home: str, table: str
) -> list[tuple[str | None, ...]]:
    shown = ", ".join(f"CAST({column.name} AS VARCHAR)" for column in TABLES[table])
    return truth.execute(f"SELECT {shown} FROM {home}.{table}").fetchall()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def for_batuta(sql: str) -> str:
    """The query with the names that Batuta knows."""
    return _REFERENCE.sub(lambda found: f"{HOMES[found[1]]}.{found[2]}", sql)


def for_truth(sql: str) -> str:
    """The query over the tables of ``make_truth``."""
    return _REFERENCE.sub(lambda found: f"{found[1]}.{found[2]}", sql)
