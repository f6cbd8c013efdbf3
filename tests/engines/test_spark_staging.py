"""Where rows are staged: in a folder or an object store, while they arrive; what it costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pytest

import batuta_sql
from batuta_sql.config import load_settings
from batuta_sql.dbapi import Connection
from batuta_sql.demo.postgres_server import PostgresServer
from batuta_sql.engines.held_folder import STAGE
from batuta_sql.errors import CostRefused, OperationalError, TierRefused
from batuta_sql.guards.tiers import TierGate
from batuta_sql.plan.cost import Estimate
from tests.emulators.aws_process import KEY, REGION, SECRET, AwsEmulator, aws_emulator
from tests.emulators.databricks import Workspace
from tests.emulators.process import Emulator, running
from tests.engines.conftest import engine
from tests.faults.proxy import Proxy

ROWS = 1_500_000
"""A fragment of them is more than what is held in memory."""

JOINED = (
    # A count of distinct values: nothing of it can be counted before the join.
    "SELECT c.name, count(*) AS n, count(DISTINCT o.total) AS totals FROM crm.customer c"
    " JOIN lake.orders o ON o.customer = c.id GROUP BY c.name ORDER BY c.name"
)
CUSTOMERS = [15 if i < 2 else 14 for i in range(7)]
ANSWER = [(f"n{i}", ROWS // 100 * n, 10 * n) for i, n in enumerate(CUSTOMERS)]

NOT_PROVED = (
    "SELECT count(total) FROM lake.orders"
    " WHERE customer NOT IN (SELECT id FROM crm.customer WHERE id < 50)"
)
"""It stays here, though it was thought to go there."""

Connect = Callable[..., Connection]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two DuckDB files, as sources."""
    folder = tmp_path_factory.mktemp("files")
    made: dict[str, Any] = {}
    for name, table in (
        ("crm", "customer AS SELECT i AS id, 'n' || i % 7 AS name FROM range(100) r(i)"),
        (
            "lake",
            "orders AS SELECT i % 100 AS customer, (i % 1000)::DECIMAL(12, 2) AS total"
            f" FROM range({ROWS}) r(i)",
        ),
    ):
        made[name] = {"kind": "duckdb", "path": str(folder / f"{name}.duckdb")}
        with duckdb.connect(made[name]["path"]) as con:
            con.execute(f"CREATE TABLE {table}")
    return made


@pytest.fixture
def connect(spark_connect: Emulator, files: dict[str, Any], stage: Path) -> Iterator[Connect]:
    with ExitStack() as cleanup:

        def opened(
            confirm: Callable[[Estimate], bool] | None = None,
            cost: dict[str, Any] | None = None,
            **settings: Any,
        ) -> Connection:
            config = {
                "sources": files,
                "memory_limit": "160MB",
                "semi_joins": "off",
                "cost": cost or {},
                "engine": engine(spark_connect, stage) | settings,
            }
            return cleanup.enter_context(batuta_sql.connect(config, confirm=confirm))

        yield opened


# --- while they arrive -------------------------------------------------------------------------


def test_what_is_large_is_staged_while_it_arrives(connect: Connect, stage: Path) -> None:
    connection = connect()
    cursor = connection.execute(JOINED)
    assert cursor.fetchall() == ANSWER
    assert cursor.metrics["engine"]["bytes_staged"] > 0
    # Nothing of it was put on this machine's disk besides.
    assert connection._session.engine.cursor().execute(
        "SELECT count(*) FROM duckdb_tables()"
    ).fetchall() == [(0,)]
    assert list(stage.iterdir()) == []


def test_what_stays_here_is_read_back(connect: Connect, stage: Path) -> None:
    """It was thought to go there, and something of it is not proved."""
    cursor = connect().execute(NOT_PROVED)
    assert cursor.fetchall() == [(ROWS // 2,)]
    assert cursor.metrics["engine"] is None
    cursor.close()
    assert list(stage.iterdir()) == []


BROKEN = [
    {"on": "GET .*/result/chunks/", "after": 2, "kind": "status", "status": 503},
    {"on": "GET /storage/", "after": 4, "kind": "cut"},
    {"on": "GET /storage/", "after": 8, "kind": "short"},
    {"on": r"GET /api/2.0/sql/statements/[^/]+$", "kind": "status", "status": 429},
]


def test_a_part_of_a_result_that_breaks_off_is_staged_once(
    databricks: Workspace, spark_connect: Emulator, files: dict[str, Any], stage: Path
) -> None:
    """A warehouse keeps the result of a statement: what has not come whole is asked for again."""
    databricks.reset()
    schema, rows = databricks.new_schema(), 600_000
    databricks.run(
        f"CREATE TABLE lab.{schema}.orders AS SELECT i % 100 AS customer,"
        f" (i % 1000)::DECIMAL(12, 2) AS total, repeat('x', 20) AS filler FROM range({rows}) r(i)"
    )
    faults = [{"times": 1, "headers": {"Retry-After": "0"}, **fault} for fault in BROKEN]
    databricks.set(options={"part_rows": 50_000}, faults=faults)
    own = {
        "sources": {"crm": files["crm"], "dbx": databricks.settings()},
        "memory_limit": "160MB",
        "semi_joins": "off",
        "cost": {"on_unknown": "allow", "history": False},
        "engine": engine(spark_connect, stage),
    }
    sql = (
        "SELECT c.name, count(DISTINCT o.total) AS totals, count(*) AS n, max(o.filler)"
        f" FROM crm.customer c JOIN dbx.{schema}.orders o ON o.customer = c.id"
        " GROUP BY c.name ORDER BY c.name"
    )
    try:
        with batuta_sql.connect(own) as connection:
            cursor = connection.execute(sql)
            found = cursor.fetchall()
            assert cursor.metrics["engine"]["bytes_staged"] > 0
            assert found == [
                (f"n{i}", 10 * n, rows // 100 * n, "x" * 20) for i, n in enumerate(CUSTOMERS)
            ]
        parts = [line for line in databricks.lines() if line.startswith("GET /storage/")]
        assert len(parts) > len(set(parts))
    finally:
        databricks.reset()
    assert list(stage.iterdir()) == []


def test_a_source_that_breaks_off_leaves_nothing_staged(
    postgres: PostgresServer,
    postgres_uri: str,
    spark_connect: Emulator,
    files: dict[str, Any],
    stage: Path,
) -> None:
    postgres.run(
        "CREATE TABLE orders AS SELECT i % 100 AS customer, repeat('x', 50) AS filler"
        " FROM generate_series(1, 600000) s(i)",
        postgres_uri.rsplit("/", 1)[1],
    )
    with Proxy(postgres_uri) as proxy:
        own = {
            "sources": {"crm": files["crm"], "shop": {"kind": "postgresql", "uri": proxy.uri}},
            "memory_limit": "160MB",
            "semi_joins": "off",
            "partial_aggregation": "off",
            "engine": engine(spark_connect, stage),
        }
        sql = (
            "SELECT c.name, count(DISTINCT o.filler) FROM crm.customer c"
            " JOIN shop.orders o ON o.customer = c.id GROUP BY c.name"
        )
        with batuta_sql.connect(own) as connection:
            assert connection.execute(sql).fetchall()
            proxy.reset_all()
            proxy.cut_after = 25_000_000
            with pytest.raises(OperationalError) as caught:
                connection.execute(sql).fetchall()
            assert caught.value.source == "shop"
            assert list(stage.iterdir()) == []
            proxy.heal()
            assert connection.execute(sql).fetchall()


CODE = """
import batuta_sql, json, sys
connection = batuta_sql.connect(json.loads(sys.argv[1]))
def wait(*_):
    print("staged", flush=True)
    sys.stdin.read()
import batuta_sql.engines.spark as spark
spark.SparkResidual._placed = wait
connection.execute(sys.argv[2])
"""


def test_what_a_killed_process_left_is_removed_by_the_next(
    connect: Connect, spark_connect: Emulator, files: dict[str, Any], stage: Path
) -> None:
    own = {"sources": files, "memory_limit": "160MB", "engine": engine(spark_connect, stage)}
    config = json.dumps(own)
    with subprocess.Popen(
        [sys.executable, "-c", CODE, config, JOINED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"staged\n"
        (held,) = stage.glob(f"{STAGE}*")
        hour_ago = time.time() - 3600
        os.utime(held, (hour_ago, hour_ago))
        connection = connect()
        connection.execute(JOINED).fetchall()
        assert held.exists(), "its process lives"
        process.send_signal(signal.SIGKILL)
        process.wait()
        connection.execute(JOINED).fetchall()
        assert not held.exists()


# --- the price ---------------------------------------------------------------------------------

PRICED = {"usd_per_hour": 3_600.0, "bytes_per_second": "1MB"}


def test_a_price_is_asked_for_before_anything_is_sent(connect: Connect) -> None:
    asked: list[Estimate] = []

    def yes(estimate: Estimate) -> bool:
        asked.append(estimate)
        return True

    connection = connect(yes, **PRICED)
    told = connection.explain(JOINED)
    assert "Residual: on spark, over about 36.0 MB, $36.00" in told
    cursor = connection.execute(JOINED)
    assert cursor.fetchall() == ANSWER
    (estimate,) = asked
    assert [p.source for p in estimate.priced_parts()] == ["engine:spark"]
    assert cursor.metrics["engine"] is not None
    assert connection.estimate(JOINED).usd == pytest.approx(estimate.usd)


def test_what_it_took_is_in_the_history(connect: Connect, tmp_path: Path) -> None:
    history = {"history_file": str(tmp_path / "history.sqlite")}
    connection = connect(lambda estimate: True, cost=history, usd_per_hour=3600.0)
    assert connection.execute(JOINED).fetchall() == ANSWER
    assert connection.execute(NOT_PROVED).fetchall() == [(ROWS // 2,)]
    last, first = [
        {r.source: r for r in connection.history() if r.query == query}
        for query in dict.fromkeys(r.query for r in connection.history())
    ]
    assert last.keys() == {"crm", "lake"}
    run = first["engine:spark"]
    assert (run.status, run.rows) == ("finished", 7)
    assert run.seconds is not None
    assert run.usd == pytest.approx(run.seconds)
    assert run.estimated_usd is not None
    assert "bytes_per_second" in run.basis


def test_a_price_that_nobody_agrees_to(connect: Connect, stage: Path) -> None:
    with pytest.raises(CostRefused, match="engine:spark"):
        connect(**PRICED).execute(JOINED)
    assert not stage.exists()


def test_what_was_not_foreseen_is_not_paid_for(connect: Connect) -> None:
    """More has arrived than was thought, when it is too late to ask."""
    sql = JOINED.replace("GROUP BY", "WHERE o.total + 0 <> -1 AND o.customer >= 0 GROUP BY")
    connection = connect(**PRICED, from_bytes="20MB")
    assert "where 20.0 MB or more have arrived" in connection.explain(sql)
    cursor = connection.execute(sql)
    assert cursor.fetchall() == ANSWER
    assert cursor.metrics["engine"] is None
    assert "nobody was asked for its price" in str(cursor.plan)


# --- an object store ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsEmulator]:
    with aws_emulator(tmp_path_factory.mktemp("aws")) as made:
        made.filesystem().mkdir("stage")
        yield made


@pytest.fixture(scope="module")
def spark_with_s3(aws: AwsEmulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """Sail, with its own way into the object store."""
    with running(
        "spark",
        lambda port: ["-m", "pysail", "spark", "server", "--port", str(port)],
        tmp_path_factory.mktemp("spark"),
        environment={
            "AWS_ENDPOINT": aws.emulator.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        },
    ) as emulator:
        yield emulator


@pytest.fixture
def stored(aws: AwsEmulator, spark_with_s3: Emulator, files: dict[str, Any]) -> Iterator[Connect]:
    with ExitStack() as cleanup:

        def opened(**settings: Any) -> Connection:
            own = engine(spark_with_s3, "s3://stage/below")
            own |= {"stage_options": aws.storage_options} | settings
            config = {
                "sources": files,
                "memory_limit": "160MB",
                "semi_joins": "off",
                "engine": own,
            }
            return cleanup.enter_context(batuta_sql.connect(config))

        yield opened


def objects(aws: AwsEmulator) -> list[str]:
    system = aws.filesystem()
    system.invalidate_cache()
    found: list[str] = system.find("stage")
    return found


def test_rows_are_staged_in_an_object_store(aws: AwsEmulator, stored: Connect) -> None:
    cursor = stored().execute(JOINED)
    assert cursor.fetchall() == ANSWER
    assert cursor.metrics["engine"]["bytes_staged"] > 0
    assert "parquet`.`s3://stage/below/" in cursor.metrics["engine"]["fragments"][0]["sql"]
    cursor.close()
    assert objects(aws) == []


def test_what_was_stored_is_read_back_where_it_stays_here(
    aws: AwsEmulator, stored: Connect
) -> None:
    cursor = stored().execute(NOT_PROVED)
    assert cursor.fetchall() == [(ROWS // 2,)]
    assert cursor.metrics["engine"] is None
    cursor.close()
    assert objects(aws) == []


def test_objects_are_encrypted_as_configured(
    aws: AwsEmulator, stored: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []
    client = boto3.client(
        "s3",
        endpoint_url=aws.emulator.url,
        region_name=REGION,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    )

    def look(self: Any, *_: Any) -> None:
        for one in client.list_objects_v2(Bucket="stage").get("Contents", []):
            told = client.head_object(Bucket="stage", Key=one["Key"])
            seen.append(told.get("ServerSideEncryption"))

    monkeypatch.setattr("batuta_sql.engines.spark.SparkResidual.release", look)
    stored(stage_encryption="AES256").execute(JOINED).fetchall()
    assert seen
    assert set(seen) == {"AES256"}


def test_a_store_that_refuses_says_so_without_its_secrets(stored: Connect) -> None:
    connection = stored(stage="s3://no-such-bucket/x")
    with pytest.raises(OperationalError, match="cannot be staged") as raised:
        connection.execute(JOINED).fetchall()
    assert SECRET not in str(raised.value)


def test_the_tier_is_asked_about_the_store_too() -> None:
    own = {"kind": "spark", "url": "sc://127.0.0.1:1", "stage": "s3://bucket/x"}
    settings = load_settings({"sources": {}, "engine": own}, tier="fully_sovereign")
    with pytest.raises(TierRefused, match="engine:stage"):
        TierGate(settings.tier, settings.systems).check("engine:stage")
    own |= {"url": "sc://127.0.0.1:1", "stage": "s3://bucket/x"}
    with pytest.raises(TierRefused, match="engine:stage"):
        batuta_sql.connect({"sources": {}, "engine": own}, tier="private_cloud")
