"""The edge values: one table of them in every kind of source, and its twin in DuckDB.

Column by column, each list holds the values at which systems differ. Row ``n`` of ``edge`` takes
the n-th value of every list (the lists start over as needed), so a cross join of ``edge`` with
itself meets every pair of values of any two columns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb

from batuta_sql.demo.postgres_server import PostgresServer

INFINITY = ("infinity", "-infinity")


@dataclass(frozen=True)
class Column:
    """A column of ``edge``: its type in each system and its values as DuckDB writes them.

    :param postgres: the native type; the values are read from their text.
    :param sqlite: the declared type, and the DuckDB type that Batuta gives it.
    :param truth: the DuckDB type for PostgreSQL and for DuckDB files.
    :param lite: the values that SQLite can hold, where it cannot hold all.
    """

    name: str
    postgres: str
    sqlite: tuple[str, str]
    truth: str
    values: tuple[str | None, ...]
    lite: tuple[str | None, ...] | None = None

    def values_in(self, kind: str) -> tuple[str | None, ...]:
        return self.lite if kind == "sqlite" and self.lite is not None else self.values

    def type_in(self, kind: str) -> str:
        return self.sqlite[1] if kind == "sqlite" else self.truth


_TEXTS = (
    None,
    "",
    "a",
    "A",
    "b",
    "B",
    "a ",
    "ab",
    "aB",
    "é",
    "e\u0301",
    "ß",
    "SS",
    "Ω",
    "%",
    "a%b",
    "a_b",
    "a\\b",
    "a*b",
    "[a]",
    "日本語",
    "😀x",
    "-a",
    "Z",
    "it's",
)

COLUMNS = (
    Column("small", "smallint", ("SMALLINT", "BIGINT"), "SMALLINT", (None, "0", "-32768", "32767")),
    Column(
        "i",
        "int",
        ("INT", "BIGINT"),
        "INTEGER",
        ("0", None, "1", "-1", "7", "-7", "2147483647", "-2147483648"),
    ),
    Column(
        "big",
        "bigint",
        ("BIGINT", "BIGINT"),
        "BIGINT",
        ("0", "1", None, "-7", "2147483648", "9223372036854775807", "-9223372036854775808"),
    ),
    Column("few", "int", ("INT", "BIGINT"), "INTEGER", ("1", "2", None, "2", "3", "-2")),
    Column(
        "dec",
        "numeric(9,2)",
        ("DECIMAL(9,2)", "DECIMAL(9,2)"),
        "DECIMAL(9,2)",
        (None, "0.00", "0.01", "-0.01", "1.00", "7.50", "9999999.99", "-9999999.99"),
    ),
    Column(
        "dec18",
        "numeric(18,4)",
        ("DECIMAL(18,4)", "DECIMAL(18,4)"),
        "DECIMAL(18,4)",
        ("1.0000", None, "0.0001", "-2.5000", "99999999999999.9999", "-99999999999999.9999"),
        ("1.0", None, "0.0001", "-2.5", "99999999.9999"),
    ),
    Column(
        "wide",
        "numeric(38,10)",
        ("DECIMAL(38,10)", "DECIMAL(38,10)"),
        "DECIMAL(38,10)",
        ("1", "0.0000000001", None, "-7.5", "9999999999999999999999999999.9999999999"),
        ("1.0", "0.25", None, "-7.5"),
    ),
    Column(
        "whole",
        "numeric(5,0)",
        ("DECIMAL(5,0)", "DECIMAL(5,0)"),
        "DECIMAL(5,0)",
        ("1", "-99999", "99999", None, "0"),
    ),
    Column(
        "f",
        "real",
        ("REAL", "DOUBLE"),
        "FLOAT",
        ("0", "-0.0", None, "nan", "inf", "-inf", "0.1", "1e-45", "3.4028235e38", "1"),
        ("0", None, "inf", "-inf", "0.1", "1e-45", "1"),
    ),
    Column(
        "d",
        "double precision",
        ("DOUBLE", "DOUBLE"),
        "DOUBLE",
        ("-0.0", "0", "nan", None, "-inf", "inf", "0.1", "5e-324", "1.7976931348623157e308", "7"),
        ("0", None, "-inf", "inf", "0.1", "5e-324", "1.7976931348623157e308", "7"),
    ),
    Column("t", 'text COLLATE "C"', ("TEXT", "VARCHAR"), "VARCHAR", _TEXTS),
    Column("u", "text", ("VARCHAR(20)", "VARCHAR"), "VARCHAR", _TEXTS[::-1]),
    Column(
        "ling", 'text COLLATE "en-x-icu"', ("TEXT COLLATE NOCASE", "VARCHAR"), "VARCHAR", _TEXTS
    ),
    Column("blind", "text COLLATE blind", ("TEXT COLLATE RTRIM", "VARCHAR"), "VARCHAR", _TEXTS),
    Column(
        "ch", "char(5)", ("CHAR(5)", "VARCHAR"), "VARCHAR", (None, "", "a", "ab", "A", "é", "abcde")
    ),
    Column(
        "day",
        "date",
        ("DATE", "DATE"),
        "DATE",
        (
            "2000-02-29",
            None,
            *INFINITY,
            "1970-01-01",
            "9999-12-31",
            "0001-01-01",
            "0044-03-15 (BC)",
            "1999-12-31",
            "5874897-12-31",
        ),
    ),
    Column(
        "ts",
        "timestamp",
        ("TIMESTAMP", "TIMESTAMP"),
        "TIMESTAMP",
        (
            "2000-02-29 00:00:00",
            "2000-02-29 23:59:59.999999",
            None,
            *INFINITY,
            "9999-12-31 23:59:59.999999",
            "0044-03-15 (BC) 01:02:03",
            "1969-12-31 23:59:59.000001",
        ),
    ),
    Column(
        "tz",
        "timestamptz",
        ("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"),
        "TIMESTAMP WITH TIME ZONE",
        (
            None,
            "2000-02-29 00:00:00+00",
            "2024-03-31 01:59:59.999999+00",
            *INFINITY,
            "9999-12-31 00:00:00+00",
            "1969-12-31 23:59:59.000001+00",
        ),
    ),
    Column(
        "tm", "time", ("TIME", "TIME"), "TIME", ("00:00:00", None, "23:59:59.999999", "12:00:00")
    ),
    Column("ok", "boolean", ("BOOLEAN", "BOOLEAN"), "BOOLEAN", ("true", "false", None)),
    Column(
        "id128",
        "uuid",
        ("UUID", "UUID"),
        "UUID",
        (
            "00000000-0000-0000-0000-000000000000",
            None,
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "7fffffff-ffff-ffff-ffff-ffffffffffff",
        ),
    ),
)

ROWS = max(len(c.values) for c in COLUMNS)


def rows(kind: str) -> Iterable[tuple[str | None, ...]]:
    """The rows of ``edge`` in a kind of source, after the number ``id`` that comes first."""
    lists = [c.values_in(kind) for c in COLUMNS]
    for number in range(ROWS):
        yield (str(number), *(values[number % len(values)] for values in lists))


def _text(value: str | None) -> str:
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"


def make_truth(con: duckdb.DuckDBPyConnection, schema: str, kind: str) -> None:
    """``edge`` and ``words`` as they are in a source of this kind, as local tables."""
    columns = "".join(f", {c.name} {c.type_in(kind)}" for c in COLUMNS)
    con.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    con.execute(f"CREATE TABLE {schema}.edge(id {_id_type(kind)}{columns})")
    casts = [f"CAST({{}} AS {type_})" for type_ in (_id_type(kind), *_types(kind))]
    for row in rows(kind):
        shown = ", ".join(c.format(_text(v)) for c, v in zip(casts, row, strict=True))
        con.execute(f"INSERT INTO {schema}.edge VALUES ({shown})")
    con.execute(f"CREATE TABLE {schema}.words AS SELECT id, t, few FROM {schema}.edge")


def _id_type(kind: str) -> str:
    return "BIGINT" if kind == "sqlite" else "INTEGER"


def _types(kind: str) -> list[str]:
    return [c.type_in(kind) for c in COLUMNS]


def fill_postgres(server: PostgresServer, database: str, *, icu: bool) -> None:
    """The same rows in PostgreSQL; without ICU the columns of its collations compare as "C"."""
    types = {c.name: c.postgres for c in COLUMNS}
    script = ""
    if icu:
        script = (
            "CREATE COLLATION blind"
            " (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
        )
    else:
        types |= {"ling": 'text COLLATE "C"', "blind": 'text COLLATE "C"'}
    columns = "".join(f", {name} {type_}" for name, type_ in types.items())
    values = ",\n".join(
        "(" + ", ".join(_text(_as_postgres(v)) for v in row) + ")" for row in rows("postgresql")
    )
    script += f"CREATE TABLE edge(id int{columns}); INSERT INTO edge VALUES {values};"
    script += 'CREATE TABLE words(id int, t text COLLATE "C", few int);'
    script += "INSERT INTO words SELECT id, t, few FROM edge; ANALYZE;"
    server.run(script, database)


def _as_postgres(value: str | None) -> str | None:
    if value is not None and "(BC)" in value:
        return value.replace(" (BC)", "") + " BC"
    return value


def fill_sqlite(path: Path) -> None:
    """The same rows in a SQLite file, each value in the storage class of its declared type."""
    columns = "".join(f", {c.name} {c.sqlite[0]}" for c in COLUMNS)
    types = ("BIGINT", *_types("sqlite"))
    with closing(sqlite3.connect(path)) as con:
        con.execute(f"CREATE TABLE edge(id INTEGER{columns})")
        marks = ", ".join("?" for _ in types)
        for row in rows("sqlite"):
            stored = [_stored(v, type_) for v, type_ in zip(row, types, strict=True)]
            con.execute(f"INSERT INTO edge VALUES ({marks})", stored)
        con.execute("CREATE TABLE words(id INTEGER, t TEXT, few INT)")
        con.execute("INSERT INTO words SELECT id, t, few FROM edge")
        con.commit()


def _stored(value: str | None, type_: str) -> object:
    if value is None:
        return None
    if type_ == "BIGINT":
        return int(value)
    if type_ == "DOUBLE":
        return float(value)
    if type_ == "BOOLEAN":
        return int(value == "true")
    return value


def fill_duckdb(path: Path) -> None:
    with duckdb.connect(str(path)) as con:
        make_truth(con, "main", "duckdb")
