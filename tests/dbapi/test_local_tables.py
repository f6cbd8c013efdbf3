"""Local tables, views and frames: made, changed, listed and counted as in DuckDB."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batuta_sql
from batuta_sql.catalog.local_objects import SPILLED
from batuta_sql.dbapi import Connection
from batuta_sql.errors import NotSupportedError

PII = "pii"


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with sqlite3.connect(tmp_path / "crm.sqlite") as db:
        db.execute("CREATE TABLE customer (id INTEGER, email TEXT)")
        db.execute("INSERT INTO customer VALUES (1, 'a@x'), (2, 'b@x')")
    crm = {
        "kind": "sqlite",
        "path": str(tmp_path / "crm.sqlite"),
        "tables": {"customer": {"columns": {"email": {"labels": [PII]}}}},
    }
    with batuta_sql.connect({"sources": {"crm": crm}}) as made:
        yield made


def rows(connection: Connection, sql: str) -> list[tuple[object, ...]]:
    return connection.execute(sql).fetchall()


def labels(connection: Connection, sql: str) -> frozenset[str]:
    cursor = connection.execute(sql)
    return frozenset().union(*(found.all for found in cursor.labels.values()))


# --- listed ------------------------------------------------------------------------------------


def test_what_is_here_is_listed_beside_the_sources(connection: Connection) -> None:
    connection.execute("CREATE TABLE mine (id INTEGER PRIMARY KEY, x VARCHAR DEFAULT 'y')")
    connection.execute("CREATE VIEW seen AS SELECT id FROM crm.customer")
    connection.register("frame", pa.table({"a": [1]}))
    assert rows(connection, "SHOW TABLES") == [
        ("crm.customer", "crm", "table"),
        ("seen", None, "local view"),
        ("frame", None, "registered frame"),
        ("mine", None, "local table"),
    ]
    assert rows(connection, "SHOW TABLES FROM crm") == [("crm.customer", "crm", "table")]
    sql = "SELECT table_catalog, table_name, table_type FROM information_schema.tables ORDER BY ALL"
    assert rows(connection, sql) == [
        ("crm", "customer", "BASE TABLE"),
        ("memory", "frame", "BASE TABLE"),
        ("memory", "mine", "BASE TABLE"),
        ("memory", "seen", "VIEW"),
    ]
    columns = "SELECT column_name, data_type, is_nullable FROM information_schema.columns"
    assert rows(connection, f"{columns} WHERE table_name = 'mine' ORDER BY ordinal_position") == [
        ("id", "INTEGER", "NO"),
        ("x", "VARCHAR", "YES"),
    ]
    # What it is called there is a name.
    assert rows(connection, "SELECT count(*) FROM memory.main.mine") == [(0,)]
    described = rows(connection, "DESCRIBE mine")
    assert [r[:5] for r in described] == [
        ("id", "INTEGER", "NO", "PRI", None),
        ("x", "VARCHAR", "YES", None, "'y'"),
    ]


def test_what_a_query_holds_for_itself_is_not_listed(connection: Connection) -> None:
    with connection._session.engine.cursor() as engine:
        engine.execute(f'CREATE TABLE "{SPILLED}1:x1" AS SELECT 1 AS a')
    assert [r[0] for r in rows(connection, "SHOW TABLES")] == ["crm.customer"]


# --- changed -----------------------------------------------------------------------------------


def test_changes_tell_how_many_rows(connection: Connection) -> None:
    connection.execute("CREATE TABLE t (id INTEGER, x INTEGER)")
    cursor = connection.cursor()
    assert cursor.execute("INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)").rowcount == 3
    assert cursor.executemany("INSERT INTO t VALUES (?, ?)", [(4, 4), (5, 5)]).rowcount == 2
    assert cursor.execute("UPDATE t SET x = 0 WHERE id > 3").rowcount == 2
    assert cursor.execute("DELETE FROM t WHERE id = 1").rowcount == 1
    assert cursor.execute("INSERT INTO t SELECT id, 9 FROM crm.customer").rowcount == 2
    assert cursor.execute("SELECT * FROM t").rowcount == -1


def test_returning_gives_rows_and_is_done_whether_they_are_fetched_or_not(
    connection: Connection,
) -> None:
    connection.execute("CREATE TABLE t (id UUID, x DECIMAL(5, 2))")
    key = uuid.uuid4()
    cursor = connection.cursor()
    assert cursor.execute("INSERT INTO t VALUES (?, 1.5) RETURNING id", [key]).fetchall() == [
        (key,)
    ]
    cursor.execute("INSERT INTO t VALUES (?, 2) RETURNING x", [key])
    assert rows(connection, "SELECT count(*) FROM t") == [(2,)]
    assert len(connection.execute("DELETE FROM t RETURNING *").fetch_arrow_table()) == 2


def test_a_sequence_counts_each_row_once(connection: Connection) -> None:
    connection.execute("CREATE SEQUENCE numbers START 10")
    assert rows(connection, "SELECT nextval('numbers')") == [(10,)]
    assert (
        connection.execute("SELECT nextval('numbers') AS n").fetch_arrow_table()["n"][0].as_py()
        == 11
    )
    assert rows(connection, "SELECT NEXTVAL('numbers') FROM range(3)") == [(12,), (13,), (14,)]
    connection.execute("CREATE TABLE t (id INTEGER DEFAULT nextval('numbers'), x INTEGER)")
    connection.execute("INSERT INTO t (x) VALUES (1), (2)")
    assert rows(connection, "SELECT id FROM t ORDER BY id") == [(15,), (16,)]


def test_indexes(connection: Connection) -> None:
    connection.execute("CREATE TABLE t (id INTEGER)")
    connection.execute("CREATE UNIQUE INDEX one ON t (id)")
    connection.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(batuta_sql.IntegrityError):
        connection.execute("INSERT INTO t VALUES (1)")
    connection.execute("DROP INDEX one")
    connection.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(NotSupportedError, match="never changes a source"):
        connection.execute("CREATE INDEX two ON crm.customer (id)")


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t SELECT * FROM crm.customer",
        "INSERT INTO t (email, id) SELECT email, id FROM crm.customer WHERE id = ?",
        "INSERT INTO t SELECT id, (SELECT max(email) FROM crm.customer) FROM range(2) r(id)",
    ],
)
def test_rows_of_sources_come_with_their_labels(connection: Connection, sql: str) -> None:
    connection.execute("CREATE TABLE t (id INTEGER, email VARCHAR)")
    connection.execute(sql, [1] if "?" in sql else None)
    assert rows(connection, "SELECT count(*) > 0 FROM t") == [(True,)]
    assert labels(connection, "SELECT email FROM t") == {PII}


def test_rows_of_files_come_with_their_labels(connection: Connection, tmp_path: Path) -> None:
    cursor = connection.execute("SELECT email AS e FROM crm.customer")
    pq.write_table(cursor.fetch_arrow_table(), tmp_path / "e.parquet")
    connection.execute("CREATE TABLE t (e VARCHAR)")
    connection.execute(f"INSERT INTO t SELECT * FROM '{tmp_path}/e.parquet'")
    assert labels(connection, "SELECT e FROM t") == {PII}


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE t SET e = (SELECT max(e) FROM '{file}')",
        "UPDATE t SET e = x.e FROM read_parquet('{file}') x",
        "DELETE FROM t WHERE e IN (SELECT e FROM read_parquet('{file}'))",
        "INSERT INTO t SELECT e FROM '{file}' ON CONFLICT DO NOTHING",
        "INSERT INTO t SELECT e FROM '{file}' RETURNING e",
        "INSERT INTO t BY NAME SELECT e FROM '{file}'",
        "WITH x AS (SELECT e FROM '{file}') INSERT INTO t SELECT e FROM x",
        "INSERT INTO t VALUES ((SELECT max(e) FROM '{file}'))",
        "UPDATE t SET e = (SELECT max(email) FROM crm.customer)",
    ],
)
def test_a_change_never_takes_rows_without_their_labels(
    connection: Connection, tmp_path: Path, sql: str
) -> None:
    """Refused, or labelled."""
    cursor = connection.execute("SELECT email AS e FROM crm.customer")
    pq.write_table(cursor.fetch_arrow_table(), tmp_path / "e.parquet")
    connection.execute("CREATE TABLE t (e VARCHAR)")
    connection.execute("INSERT INTO t VALUES ('a@x')")
    with pytest.raises(NotSupportedError, match="only local tables"):
        connection.execute(sql.replace("{file}", str(tmp_path / "e.parquet")))
    assert rows(connection, "SELECT * FROM t") == [("a@x",)]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t SELECT * FROM range(3) ON CONFLICT DO NOTHING",
        "UPDATE t SET n = n + 1 FROM generate_series(1, 2) g(x) WHERE t.n = g.x",
        "DELETE FROM t WHERE n IN (SELECT unnest([1, 2]))",
        "WITH c AS (SELECT 7 AS n) INSERT INTO t SELECT n FROM c",
    ],
)
def test_what_is_made_of_nothing_but_values_is_let_in(connection: Connection, sql: str) -> None:
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
    connection.execute("INSERT INTO t VALUES (1)")
    assert connection.execute(sql).rowcount > 0


@pytest.mark.parametrize("sql", ["DELETE FROM nowhere", "UPDATE nowhere SET n = 1"])
def test_a_table_that_is_not_there_is_said_not_to_be(connection: Connection, sql: str) -> None:
    with pytest.raises(batuta_sql.ProgrammingError, match="nowhere does not exist"):
        connection.execute(sql)


def test_returning_does_not_lose_labels(connection: Connection) -> None:
    connection.execute("CREATE TABLE t AS SELECT email FROM crm.customer")
    with pytest.raises(NotSupportedError, match="labelled pii"):
        connection.execute("DELETE FROM t RETURNING email")
    assert rows(connection, "SELECT count(*) FROM t") == [(2,)]


def test_labels_end_with_their_table_alone(connection: Connection) -> None:
    connection.execute("CREATE TABLE t AS SELECT email FROM crm.customer")
    connection.execute("CREATE TABLE u (email VARCHAR)")
    connection.execute("CREATE INDEX t ON u (email)")
    connection.execute("DROP INDEX t")
    assert labels(connection, "SELECT email FROM t") == {PII}
    connection.execute("DROP TABLE t")
    connection.execute("CREATE TABLE t (email VARCHAR)")
    assert labels(connection, "SELECT email FROM t") == frozenset()
