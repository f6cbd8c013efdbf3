"""SQLite files: declared types are honoured."""

from __future__ import annotations

import datetime
import decimal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import batuta_sql
from batuta_sql.sources.sqlite import duckdb_type_of
from tests.sources.conftest import rows_of, types_of

Opened = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path, opened: Opened) -> Callable[[str], Any]:
    def build(script: str) -> Any:
        path = tmp_path / "t.sqlite"
        with closing(sqlite3.connect(path)) as con:
            con.executescript(script)
            con.commit()
        return opened(kind="sqlite", path=str(path))

    return build


@pytest.mark.parametrize(
    ("declared", "type_"),
    [
        ("INTEGER", "BIGINT"),
        ("int", "BIGINT"),
        ("UNSIGNED BIG INT", "BIGINT"),
        ("POINT", "BIGINT"),
        ("VARCHAR(20)", "VARCHAR"),
        ("NATIVE CHARACTER(70)", "VARCHAR"),
        ("clob", "VARCHAR"),
        ("BLOB", "BLOB"),
        ("REAL", "DOUBLE"),
        ("DOUBLE PRECISION", "DOUBLE"),
        ("NUMERIC", "DOUBLE"),
        ("DECIMAL(10,5)", "DECIMAL(10,5)"),
        ("numeric(4)", "DECIMAL(4,0)"),
        ("DECIMAL(60,2)", "DOUBLE"),
        ("BOOLEAN", "BOOLEAN"),
        ("DATE", "DATE"),
        ("DATETIME", "TIMESTAMP"),
        ("TIMESTAMP", "TIMESTAMP"),
        ("", None),
    ],
)
def test_declared_types(declared: str, type_: str | None) -> None:
    assert duckdb_type_of(declared) == type_


def test_values_of_every_declared_type(make: Callable[[str], Any]) -> None:
    connection = make(
        "CREATE TABLE t(i INTEGER, r REAL, t TEXT, b BLOB, d DATE, ts TIMESTAMP, p DECIMAL(9,2),"
        " ok BOOLEAN);"
        "INSERT INTO t VALUES (9223372036854775807, 1, 'ü', x'00ff', '2024-02-29',"
        " '2024-02-29 01:02:03.000004', '1.10', 1),"
        " (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
    )
    assert rows_of(connection, "SELECT * FROM s.t WHERE i IS NOT NULL") == [
        (
            2**63 - 1,
            1.0,
            "ü",
            b"\x00\xff",
            datetime.date(2024, 2, 29),
            datetime.datetime(2024, 2, 29, 1, 2, 3, 4),
            decimal.Decimal("1.10"),
            True,
        )
    ]
    assert rows_of(connection, "SELECT count(*) AS n FROM s.t WHERE d IS NULL") == [(1,)]
    assert types_of(connection, "s.t")["p"] == "DECIMAL(9,2)"


@pytest.mark.parametrize("value", ["0.1", "0.07", "9999999.99", "-0.01", "1e2", "5"])
def test_decimals_stored_as_floats_come_back_exact(make: Callable[[str], Any], value: str) -> None:
    connection = make(f"CREATE TABLE t(p DECIMAL(9,2)); INSERT INTO t VALUES ({value})")
    want = decimal.Decimal(value).quantize(decimal.Decimal("0.01"))
    assert rows_of(connection, "SELECT p FROM s.t") == [(want,)]


def test_columns_without_a_type_take_it_from_their_values(make: Callable[[str], Any]) -> None:
    connection = make("CREATE TABLE t(a, b, c); INSERT INTO t VALUES (1, 'x', 1.5), (2, 'y', 2)")
    assert types_of(connection, "s.t") == {"a": "BIGINT", "b": "VARCHAR", "c": "DOUBLE"}
    assert rows_of(connection, "SELECT a, b, c FROM s.t") == [(1, "x", 1.5), (2, "y", 2.0)]


def test_an_empty_table_keeps_its_types(make: Callable[[str], Any]) -> None:
    connection = make("CREATE TABLE t(i INTEGER, p DECIMAL(9,2), d DATE)")
    table = connection.execute("SELECT * FROM s.t").fetch_arrow_table()
    assert [str(f.type) for f in table.schema] == ["int64", "decimal128(9, 2)", "date32[day]"]


def test_a_column_of_nulls_alone_keeps_its_type(make: Callable[[str], Any]) -> None:
    connection = make("CREATE TABLE t(x TEXT, i INTEGER); INSERT INTO t VALUES (NULL, NULL)")
    table = connection.execute("SELECT * FROM s.t").fetch_arrow_table()
    assert [str(f.type) for f in table.schema] == ["string", "int64"]
    assert table.num_rows == 1


def test_views_generated_columns_and_tables_without_rowid(make: Callable[[str], Any]) -> None:
    connection = make(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, twice INTEGER GENERATED ALWAYS AS (id * 2));"
        "INSERT INTO t(id) VALUES (3);"
        "CREATE VIEW v AS SELECT id FROM t;"
        "CREATE TABLE w(k TEXT PRIMARY KEY, n INT) WITHOUT ROWID; INSERT INTO w VALUES ('a', 1)"
    )
    assert rows_of(connection, "SELECT id, twice FROM s.t") == [(3, 6)]
    assert rows_of(connection, "SELECT id FROM s.v") == [(3,)]
    assert rows_of(connection, "SELECT k, n FROM s.w") == [("a", 1)]


def test_odd_names(make: Callable[[str], Any]) -> None:
    connection = make('CREATE TABLE "a ""b"(" c;" INTEGER); INSERT INTO "a ""b" VALUES (1)')
    assert rows_of(connection, 'SELECT " c;" FROM s."a ""b"') == [(1,)]


def test_the_file_cannot_be_written(make: Callable[[str], Any]) -> None:
    connection = make("CREATE TABLE t(i INTEGER)")
    with pytest.raises(batuta_sql.Error):
        connection.execute("INSERT INTO s.t VALUES (1)")
    assert rows_of(connection, "SELECT count(*) AS n FROM s.t") == [(0,)]


def test_one_query_reads_while_another_program_writes(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "t.sqlite"
    with closing(sqlite3.connect(path)) as con:
        con.execute("PRAGMA journal_mode = wal")
        con.execute("CREATE TABLE t(i INTEGER)")
        con.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(10)])
        con.commit()
        con.execute("INSERT INTO t VALUES (99)")
        connection = opened(kind="sqlite", path=str(path))
        assert rows_of(connection, "SELECT count(*) AS n FROM s.t") == [(10,)]
        con.commit()
        assert rows_of(connection, "SELECT count(*) AS n FROM s.t") == [(11,)]


MISFIT = """
CREATE TABLE t(id INTEGER, n INTEGER);
INSERT INTO t VALUES (1, 1), (2, 'abc'), (3, 3);
"""


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT n FROM s.t",
        "SELECT count(*) FROM s.t WHERE n > 2",
        "SELECT max(n) FROM s.t",
        "SELECT id FROM s.t ORDER BY n LIMIT 1",
        "SELECT DISTINCT n FROM s.t",
        "SELECT n, count(*) FROM s.t GROUP BY n",
    ],
)
def test_a_value_of_another_storage_class_is_never_ranked_or_counted(
    make: Callable[[str], Any], sql: str
) -> None:
    with pytest.raises(batuta_sql.DataError) as caught:
        rows_of(make(MISFIT), sql)
    assert caught.value.source == "s"
    assert '"n"' in str(caught.value)
    assert "abc" in str(caught.value)


def test_equality_cannot_go_wrong_and_stays_plain(make: Callable[[str], Any]) -> None:
    connection = make(MISFIT)
    assert rows_of(connection, "SELECT id FROM s.t WHERE n = 3") == [(3,)]


def test_a_scalar_subquery_of_several_rows_is_an_error(make: Callable[[str], Any]) -> None:
    """SQLite itself takes the first row."""
    with pytest.raises(batuta_sql.Error, match="(?i)more than one row"):
        rows_of(make(MISFIT), "SELECT (SELECT id FROM s.t) AS one")
