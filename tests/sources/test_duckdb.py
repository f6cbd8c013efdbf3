"""DuckDB files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

import batuta_sql
from tests.sources.conftest import rows_of, types_of

Opened = Callable[..., Any]


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute(
            "CREATE TABLE customer(id INTEGER PRIMARY KEY, kind ENUM('a', 'b'), n HUGEINT,"
            " tags VARCHAR[]);"
            "INSERT INTO customer VALUES (1, 'b', 170141183460469231731687303715884105727, ['x']);"
            "CREATE SCHEMA other; CREATE TABLE other.customer(id INTEGER);"
            "CREATE VIEW names AS SELECT id, upper(kind::VARCHAR) AS kind FROM customer;"
            'CREATE TABLE "odd ""name"""("a b" INTEGER); INSERT INTO "odd ""name""" VALUES (7)'
        )
    return str(path)


def test_tables_views_and_schemas(path: str, opened: Opened) -> None:
    connection = opened(kind="duckdb", path=path)
    assert rows_of(connection, "SELECT id, tags FROM s.customer") == [(1, ["x"])]
    assert rows_of(connection, "SELECT id FROM s.main.customer") == [(1,)]
    assert rows_of(connection, "SELECT id FROM s.other.customer") == []
    assert rows_of(connection, "SELECT kind FROM s.names") == [("B",)]
    assert rows_of(connection, 'SELECT "a b" FROM s."odd ""name"""') == [(7,)]


def test_types_survive(path: str, opened: Opened) -> None:
    connection = opened(kind="duckdb", path=path)
    assert types_of(connection, "s.customer") == {
        "id": "INTEGER",
        "kind": "ENUM('a', 'b')",
        "n": "HUGEINT",
        "tags": "VARCHAR[]",
    }
    sql = (
        "SELECT typeof(n) AS t, n = 170141183460469231731687303715884105727 AS same FROM s.customer"
    )
    assert rows_of(connection, sql) == [("HUGEINT", True)]
    assert rows_of(connection, "SELECT kind FROM s.customer ORDER BY kind") == [("b",)]


def test_everything_is_pushed(path: str, opened: Opened) -> None:
    sql = (
        "SELECT id, levenshtein(kind::VARCHAR, 'x') AS d, row_number() OVER (ORDER BY id) AS n"
        " FROM s.customer WHERE list_contains(tags, 'x')"
    )
    cursor = opened(kind="duckdb", path=path).execute(sql)
    assert str(cursor.plan).startswith("Exchange s")
    assert cursor.fetch_arrow_table().num_rows == 1


def test_the_file_is_read_only(path: str, opened: Opened) -> None:
    connection = opened(kind="duckdb", path=path)
    for sql in ("DELETE FROM s.customer", "INSERT INTO s.other.customer VALUES (1)"):
        with pytest.raises(batuta_sql.Error):
            connection.execute(sql)
    assert rows_of(connection, "SELECT count(*) AS n FROM s.customer") == [(1,)]


def test_a_file_that_is_being_written_can_be_read_afterwards(path: str, opened: Opened) -> None:
    connection = opened(kind="duckdb", path=path)
    program = f"import duckdb; c = duckdb.connect({path!r}); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        for _ in range(2):
            with pytest.raises(batuta_sql.OperationalError, match=r"s: [^\n]*lock.*\nHint"):
                rows_of(connection, "SELECT id FROM s.customer")
        writer.communicate(b"\n")
    assert rows_of(connection, "SELECT id FROM s.customer") == [(1,)]


def test_a_file_that_this_program_has_open(path: str, opened: Opened) -> None:
    connection = opened(kind="duckdb", path=path)
    with (
        duckdb.connect(path),
        pytest.raises(batuta_sql.OperationalError, match="of this program"),
    ):
        rows_of(connection, "SELECT id FROM s.customer")
    assert rows_of(connection, "SELECT id FROM s.customer") == [(1,)]


def test_a_file_of_another_kind(tmp_path: Path, opened: Opened) -> None:
    (tmp_path / "x.duckdb").write_bytes(b"x" * 5000)
    for name, words in (("x", "not a valid DuckDB"), ("none", "there is no file")):
        with pytest.raises(batuta_sql.OperationalError, match=words):
            rows_of(opened(kind="duckdb", path=str(tmp_path / f"{name}.duckdb")), "FROM s.t")
