"""Databricks through ADBC drivers: Spark Connect's for real, the vendor's by one of the same face.

The server is Sail, a Spark Connect server. The vendor's driver is not on the package index: what
is found under its name here is Spark Connect's, so that these tests say nothing of its options.
"""

from __future__ import annotations

import datetime
import uuid
from contextlib import closing
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import batuta_sql
from tests.emulators.databricks import TOKEN, Workspace
from tests.emulators.process import Emulator

TABLE = (
    "CREATE TABLE lab.{}.orders AS SELECT id, cast(id % 7 AS int) AS k, concat('w', id) AS word,"
    " cast(id / 4 AS decimal(12,2)) AS price, date'2024-01-01' AS day,"
    " timestamp'2024-02-29 23:30:00' AS at, cast('2024-02-29 23:30:00' AS timestamp_ntz) AS n,"
    " array(1, null) AS l, named_struct('a', 1) AS s, map('a', 1) AS m FROM range(1000)"
)


@pytest.fixture
def options(spark_connect: Emulator) -> dict[str, str]:
    """Options of a driver: all connections of one source share a session of Sail's."""
    return {
        "uri": f"sc://127.0.0.1:{spark_connect.port}",
        "adbc.spark.session_id": str(uuid.uuid4()),
    }


def fill(connection: Any, schema: str = "s0") -> None:
    """Makes the table ``orders``: what Sail holds ends with the session."""
    transport = connection._session.sources["dbx"]._adbc
    transport.rows(f"CREATE SCHEMA lab.{schema}")
    transport.rows(TABLE.format(schema))


def connect(settings: dict[str, Any]) -> Any:
    config = {"sources": {"dbx": settings}, "cost": {"on_unknown": "allow"}}
    return closing(batuta_sql.connect(config))


def spark(options: dict[str, str], **more: Any) -> Any:
    return connect({"kind": "databricks", "transport": "spark_connect", "options": options, **more})


def test_tables_are_found_by_sql_where_there_is_no_workspace(options: dict[str, str]) -> None:
    with spark(options) as connection:
        fill(connection)
        assert ("lab", "s0", "orders") in {path for _, path, _ in connection.tables("dbx")}
        rows = connection.describe("dbx.s0.orders").to_pylist()
    assert {r["column_name"]: r["column_type"] for r in rows} == {
        "id": "BIGINT",
        "k": "INTEGER",
        "word": "VARCHAR",
        "price": "DECIMAL(12,2)",
        "day": "DATE",
        "at": "TIMESTAMP WITH TIME ZONE",
        "n": "TIMESTAMP",
        "l": "INTEGER[]",
        "s": 'STRUCT("a" INTEGER)',
        "m": "MAP(VARCHAR, INTEGER)",
    }


def test_values_arrive_as_they_are(options: dict[str, str]) -> None:
    with spark(options) as connection:
        fill(connection)
        connection.execute("SET TimeZone = 'UTC'")
        sql = 'SELECT price, day, "at"::VARCHAR, n, l, s, m FROM dbx.s0.orders WHERE id = 3'
        assert connection.execute(sql).fetchall() == [
            (
                Decimal("0.75"),
                datetime.date(2024, 1, 1),
                "2024-02-29 23:30:00+00",
                datetime.datetime(2024, 2, 29, 23, 30),
                [1, None],
                {"a": 1},
                {"a": 1},
            )
        ]


def test_work_is_sent_to_the_server(options: dict[str, str]) -> None:
    with spark(options) as connection:
        fill(connection)
        sql = (
            "SELECT k, count(*), sum(price), min(word) FROM dbx.s0.orders"
            " WHERE word LIKE 'w1%' AND price > 3.5 GROUP BY k ORDER BY k LIMIT 1"
        )
        cursor = connection.execute(sql)
        assert cursor.fetchall() == [(0, 14, Decimal("526.75"), "w105")]
        assert "SUM(CAST(`t1`.`price` AS DECIMAL(28, 2)))" in cursor.plan.fragments[0].sql


def test_an_estimate_knows_nothing_and_says_so(options: dict[str, str]) -> None:
    with spark(options) as connection:
        fill(connection)
        found = connection.estimate("SELECT id FROM dbx.s0.orders")
    assert (found.confidence, found.bytes_scanned, found.usd) == ("unknown", None, None)


def test_a_statement_that_fails_says_why(options: dict[str, str]) -> None:
    with spark(options) as connection:
        fill(connection)
        with pytest.raises(batuta_sql.ProgrammingError, match=r"no table(.|\n)*dbx.lab.s0.orders"):
            connection.execute("SELECT id FROM dbx.s0.order")


def test_a_server_that_is_not_there(options: dict[str, str]) -> None:
    with (
        spark({"uri": "sc://127.0.0.1:1"}) as connection,
        pytest.raises(batuta_sql.OperationalError, match="^dbx: "),
    ):
        connection.execute("SELECT id FROM dbx.s0.orders")


# --- a driver by its name ----------------------------------------------------------------------


@pytest.fixture
def named_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A driver that the driver manager finds as ``databricks``."""
    library = files("adbc_driver_spark") / "libadbc_driver_spark.so"
    manifest = f'manifest_version = 1\nname = "stand-in"\n[Driver]\nshared = "{library}"\n'
    (tmp_path / "databricks.toml").write_text(manifest)
    monkeypatch.setenv("ADBC_DRIVER_PATH", str(tmp_path))
    return "databricks"


def test_the_catalog_comes_through_rest_and_the_rows_through_the_driver(
    options: dict[str, str], databricks: Workspace, named_driver: str
) -> None:
    databricks.reset()
    databricks.run("CREATE SCHEMA lab.s_adbc")
    databricks.run("CREATE TABLE lab.s_adbc.orders (id BIGINT, word VARCHAR)")
    settings = databricks.settings(transport="adbc", driver=named_driver, options=options)
    with connect(settings) as connection:
        fill(connection, "s_adbc")
        sql = "SELECT count(*), min(word) FROM dbx.s_adbc.orders WHERE id >= 10"
        assert connection.execute(sql).fetchall() == [(990, "w10")]


def test_what_a_driver_delivers_is_held_against_the_description(
    options: dict[str, str], databricks: Workspace, named_driver: str
) -> None:
    databricks.reset()
    databricks.run("CREATE SCHEMA IF NOT EXISTS lab.s0")
    databricks.run("CREATE OR REPLACE TABLE lab.s0.orders (id BIGINT, price DATE)")
    settings = databricks.settings(transport="adbc", driver=named_driver, options=options)
    with connect(settings) as connection:
        fill(connection)
        with pytest.raises(batuta_sql.DataError, match='column "price.*" arrived as decimal'):
            connection.execute("SELECT price FROM dbx.s0.orders").fetchall()


def test_a_driver_that_is_not_installed_says_how(databricks: Workspace) -> None:
    databricks.reset()
    schema = databricks.new_schema()
    databricks.run(f"CREATE TABLE lab.{schema}.t AS SELECT 1 AS x")
    settings = databricks.settings(transport="adbc", driver="no_such_driver")
    with (
        connect(settings) as connection,
        pytest.raises(batuta_sql.OperationalError, match="dbc install no_such_driver") as told,
    ):
        connection.execute(f"SELECT x FROM dbx.{schema}.t")
    assert TOKEN not in str(told.value)


def test_the_options_of_the_vendors_driver(databricks: Workspace) -> None:
    settings = databricks.settings(transport="adbc", schema="s1")
    with connect(settings) as connection:
        transport = connection._session.sources["dbx"]._adbc
        assert transport._workspace_options() == {
            "databricks.server_hostname": "127.0.0.1",
            "databricks.port": databricks.url.rsplit(":", 1)[1],
            "databricks.http_path": f"/sql/1.0/warehouses/{databricks.warehouse}",
            "databricks.access_token": TOKEN,
            "databricks.catalog": "lab",
            "databricks.schema": "s1",
        }


def test_a_cluster_of_a_workspace_is_named_in_the_uri(databricks: Workspace) -> None:
    settings = databricks.settings(transport="spark_connect", cluster_id="1234-5678")
    with connect(settings) as connection:
        uri = connection._session.sources["dbx"]._adbc._cluster_uri()
    assert uri == f"sc://127.0.0.1:443/;token={TOKEN};x-databricks-cluster-id=1234-5678"
