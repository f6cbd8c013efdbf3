"""Residuals on Spark Connect: the same answers, and what stays here and why."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import batuta_sql
from batuta_sql.cli.seal import ways_of
from batuta_sql.config import load_settings
from batuta_sql.dbapi import Connection
from batuta_sql.engines.duckdb import DuckDBEngine
from batuta_sql.errors import ConfigError, OperationalError, QueryCancelled, TierRefused
from batuta_sql.guards.confinement import needing_ip_sockets
from tests.comparison import answer_of, difference
from tests.emulators.process import Emulator
from tests.engines.conftest import compare, engine, truth_of, two_files
from tests.faults.conftest import eventually
from tests.tpc.check import check, parameters
from tests.tpc.federation import Federation, federation
from tests.tpc.placements import place, query_numbers

Connect = Callable[..., Connection]

JOINED = (
    "SELECT c.name, count(*) AS n, sum(o.total) AS total FROM crm.customer c"
    " JOIN lake.orders o ON o.customer = c.id GROUP BY c.name ORDER BY c.name"
)


@pytest.fixture
def shops(tmp_path: Path) -> dict[str, Any]:
    """Two DuckDB files, as sources."""
    for name, table in (
        ("crm", "customer AS SELECT i AS id, 'n' || i % 7 AS name FROM range(100) r(i)"),
        ("lake", "orders AS SELECT i % 100 AS customer, i AS total FROM range(5000) r(i)"),
    ):
        with duckdb.connect(str(tmp_path / f"{name}.duckdb")) as made:
            made.execute(f"CREATE TABLE {table}")
    return {n: {"kind": "duckdb", "path": str(tmp_path / f"{n}.duckdb")} for n in ("crm", "lake")}


@pytest.fixture
def connect(spark_connect: Emulator, shops: dict[str, Any], stage: Path) -> Iterator[Connect]:
    """An engine beside them."""
    with ExitStack() as cleanup:

        def opened(
            crm: dict[str, Any] | None = None, tier: str = "standard", **settings: Any
        ) -> Connection:
            paths = shops | {"crm": shops["crm"] | (crm or {})}
            config = {"sources": paths, "engine": engine(spark_connect, stage) | settings}
            return cleanup.enter_context(batuta_sql.connect(config, tier=tier))

        yield opened


def used(cursor: Any) -> bool:
    return cursor.metrics["engine"] is not None


# --- the same answers --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(spark_connect: Emulator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return engine(spark_connect, tmp_path_factory.mktemp("stage"))


Load = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def tpch(tpc_sources: Load, own: dict[str, Any]) -> Iterator[Federation]:
    """Every residual that brings rows together goes to the engine, however small."""
    with federation("tpch", tpc_sources("tpch"), engine=own) as made:
        yield made


@pytest.fixture(scope="module")
def tpcds(tpc_sources: Load, own: dict[str, Any]) -> Iterator[Federation]:
    with federation("tpcds", tpc_sources("tpcds"), engine=own) as made:
        yield made


@pytest.fixture(scope="module")
def on_apache(
    tpc_sources: Load, apache_spark: Emulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Federation]]:
    """A benchmark's tables, and Apache Spark as the engine."""
    own = engine(apache_spark, tmp_path_factory.mktemp("stage"))
    made: dict[str, Federation] = {}
    with ExitStack() as cleanup:

        def of(benchmark: str) -> Federation:
            if benchmark not in made:
                made[benchmark] = cleanup.enter_context(
                    federation(benchmark, tpc_sources(benchmark), engine=own)
                )
            return made[benchmark]

        yield of


@pytest.mark.parametrize(("number", "attempt"), parameters("tpch", 2))
def test_tpch(number: int, attempt: int, tpch: Federation) -> None:
    check("tpch", number, attempt, tpch)


@pytest.mark.parametrize(("number", "attempt"), parameters("tpcds", 1))
def test_tpcds(number: int, attempt: int, tpcds: Federation) -> None:
    check("tpcds", number, attempt, tpcds)


@pytest.mark.xdist_group("apache spark")
@pytest.mark.parametrize(("number", "attempt"), parameters("tpch", 1))
def test_tpch_on_apache_spark(
    number: int, attempt: int, on_apache: Callable[[str], Federation]
) -> None:
    check("tpch", number, attempt, on_apache("tpch"))


EVERY = int(os.environ.get("BATUTA_APACHE_SPARK_EVERY", "4"))
"""Of TPC-DS, each query that often: 1 for all of them, in about three minutes."""


@pytest.mark.xdist_group("apache spark")
@pytest.mark.parametrize(("number", "attempt"), parameters("tpcds", 1)[::EVERY])
def test_tpcds_on_apache_spark(
    number: int, attempt: int, on_apache: Callable[[str], Federation]
) -> None:
    check("tpcds", number, attempt, on_apache("tpcds"))


@pytest.mark.parametrize("number", [3, 7, 42, 72, 98])
def test_such_queries_do_go_there(number: int, tpcds: Federation) -> None:
    placed = place("tpcds", number, 0, tpcds.homes)
    assert tpcds.connection.analyze(placed.sql).metrics()["engine"] is not None


RESIDUALS_EVERY = int(os.environ.get("BATUTA_RESIDUALS_EVERY", "5"))


def test_most_residuals_of_tpcds_go_there(tpcds: Federation) -> None:
    """With ``-s``, and of every query, it prints the figure of docs/scale.md."""
    plans = [
        tpcds.connection.analyze(place("tpcds", number, 0, tpcds.homes).sql)
        for number in query_numbers("tpcds")[::RESIDUALS_EVERY]
    ]
    went = sum(plan.metrics()["engine"] is not None for plan in plans)
    print(f"{went} of {len(plans)} residuals went to the engine")
    assert went >= 0.7 * len(plans)


VALUES = """
SELECT i::INTEGER AS i, (i * 1000000007)::BIGINT AS big, (i % 5)::SMALLINT AS small,
  CASE WHEN i % 4 = 0 THEN NULL ELSE (i * 1.005)::DECIMAL(18, 3) END AS amount,
  CASE i % 6 WHEN 0 THEN 'NaN'::DOUBLE WHEN 1 THEN '-inf'::DOUBLE WHEN 2 THEN -0.0
    ELSE i / 7 END AS d,
  CASE i % 5 WHEN 0 THEN '' WHEN 1 THEN NULL WHEN 2 THEN 'ä' WHEN 3 THEN 'Z '
    ELSE 'a' || i END AS t,
  DATE '1960-01-01' + (i * 300)::INTEGER AS day, i % 3 = 0 AS flag, (i % 9 - 4)::TINYINT AS tiny,
  CASE i % 5 WHEN 0 THEN 'NaN'::FLOAT WHEN 1 THEN -0.0::FLOAT ELSE (i / 3)::FLOAT END AS f,
  CASE i % 7 WHEN 0 THEN NULL WHEN 1 THEN TIMESTAMP '1600-02-29 23:59:59.999999' ELSE
    TIMESTAMP '1969-12-31 12:00:00.000001' + to_days((i * 99)::INTEGER) END AS at,
  CASE i % 6 WHEN 0 THEN NULL WHEN 1 THEN TIMESTAMPTZ '1890-03-01 00:00:00+00' ELSE
    TIMESTAMPTZ '2024-03-31 00:30:00+00' + to_minutes((i * 7)::INTEGER) END AS zoned
FROM range(200) r(i)
"""

QUERIES = [
    "SELECT a.t, b.flag, count(*), sum(a.amount), min(a.day), max(b.t) FROM crm.v a"
    " JOIN lake.v b ON a.i = b.i GROUP BY ALL ORDER BY ALL",
    "SELECT a.i, b.d, a.d = b.d AS same FROM crm.v a LEFT JOIN lake.v b ON a.d = b.d AND b.i < 20"
    " ORDER BY ALL",
    # Statistics of what is staged leave NaN out, which equals itself.
    "SELECT a.i, a.d, b.f FROM crm.v a JOIN lake.v b ON a.d = b.d AND b.i IN (0, 6) ORDER BY ALL",
    "SELECT a.i, a.f FROM crm.v a JOIN lake.v b ON a.f = b.f AND b.i IN (0, 5) ORDER BY ALL",
    "SELECT a.t, count(b.t) FROM crm.v a FULL JOIN lake.v b ON a.t = b.t GROUP BY a.t"
    " ORDER BY a.t NULLS FIRST",
    "SELECT DISTINCT a.small, b.amount FROM crm.v a JOIN lake.v b USING (i) ORDER BY ALL DESC",
    "SELECT i FROM crm.v EXCEPT SELECT i FROM lake.v WHERE small = 3 ORDER BY i",
    "SELECT a.i FROM crm.v a WHERE a.t IN (SELECT t FROM lake.v WHERE i < 9) ORDER BY 1",
    "SELECT a.i, row_number() OVER (PARTITION BY b.small ORDER BY a.i DESC) AS n FROM crm.v a"
    " JOIN lake.v b USING (i) ORDER BY ALL",
    "SELECT b.small, sum(a.i), avg(a.amount), count(DISTINCT a.t) FROM crm.v a"
    " JOIN lake.v b USING (i) GROUP BY b.small HAVING count(*) > 1 ORDER BY 1",
    "SELECT a.at, b.zoned, a.tiny, a.f, count(*) FROM crm.v a JOIN lake.v b USING (i)"
    " GROUP BY ALL ORDER BY ALL",
    "SELECT a.i, b.at, b.zoned FROM crm.v a JOIN lake.v b ON a.at = b.at AND a.zoned = b.zoned"
    " WHERE a.at > TIMESTAMP '1980-01-01 00:00:00'"
    " OR b.zoned < TIMESTAMPTZ '2024-03-31 02:00:00+01'"
    " ORDER BY ALL",
    "SELECT a.tiny, min(b.at), max(b.at), min(b.zoned), max(b.zoned), count(DISTINCT b.f)"
    " FROM crm.v a JOIN lake.v b USING (i) GROUP BY a.tiny ORDER BY 1",
    "SELECT a.f, year(b.at) AS y, month(b.at) AS m, count(*) FROM crm.v a"
    " JOIN lake.v b ON a.f = b.f AND a.i < 60 GROUP BY ALL ORDER BY ALL",
    "SELECT a.tiny, sum(a.amount) FILTER (WHERE b.flag), sum(DISTINCT b.small), sum(a.tiny),"
    " count(a.tiny) FROM crm.v a JOIN lake.v b USING (i) GROUP BY a.tiny ORDER BY ALL",
    "SELECT b.small, sum(a.amount * b.amount), max(a.amount * 2), sum(a.amount * (1 - b.amount)"
    " * (1 + a.amount)), count(a.amount * b.i) FROM crm.v a JOIN lake.v b USING (i) WHERE i < 9"
    " GROUP BY b.small ORDER BY 1",
    "SELECT a.i // 7 AS q, a.i % 7 AS r, upper(b.t) FROM crm.v a JOIN lake.v b USING (i)"
    " WHERE b.t LIKE '%a%' OR b.day > DATE '2000-01-01' ORDER BY ALL",
]


WAYS = {"staged": 0, "with the statement": 1000}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sql", QUERIES)
def test_edge_values(spark_connect: Emulator, tmp_path: Path, sql: str, way: str) -> None:
    compare_edge_values(spark_connect, tmp_path, sql, way)


@pytest.mark.xdist_group("apache spark")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sql", QUERIES)
def test_edge_values_on_apache_spark(
    apache_spark: Emulator, tmp_path: Path, sql: str, way: str
) -> None:
    compare_edge_values(apache_spark, tmp_path, sql, way)


PRODUCTS = [
    "a.d18 * b.d18",
    "a.d18 * b.d18 * 2",
    "sum(a.d18 * b.d18)",
    "sum(a.d9 * b.d18)",
    "max(a.d9 * b.d9 * a.d9)",
    "sum(a.d18 * (1 - b.d18) * (1 + a.d9))",
    "sum(a.i * b.d9)",
    "min(a.d18 * -b.d30)",
]


def compare_products(server: Emulator, tmp_path: Path, stage: Path, value: str, low: int) -> None:
    values = (
        "SELECT i, (i * 107.11)::DECIMAL(18, 2) AS d18, (i * 1.001)::DECIMAL(9, 3) AS d9,"
        " (i * 1000000.5)::DECIMAL(30, 1) AS d30 FROM"
        f" (SELECT (range * range)::INTEGER AS i FROM range({low}, {low + 30}))"
    )
    sql = f"SELECT {value} AS p, count(*) FROM crm.v a JOIN lake.v b ON a.i = b.i"
    if not value.startswith(("sum", "max", "min")):
        sql += " GROUP BY 1 ORDER BY 1"
    paths = two_files(tmp_path, values)
    try:
        wanted = truth_of(paths, sql)
    except duckdb.Error:
        wanted = None
    config = {"sources": paths, "partial_aggregation": "off", "engine": engine(server, stage)}
    with batuta_sql.connect(config) as connection:
        cursor = connection.cursor()
        if wanted is None:
            with pytest.raises(batuta_sql.Error):
                cursor.execute(sql).fetchall()
        else:
            got = answer_of(cursor.execute(sql).fetch_arrow_table())
            assert used(cursor), cursor.plan
            assert difference(got, wanted, sql) is None


@pytest.mark.parametrize("low", [0, 60, 500])
@pytest.mark.parametrize("value", PRODUCTS)
def test_products_overflow_where_they_do_in_duckdb(
    spark_connect: Emulator, tmp_path: Path, stage: Path, value: str, low: int
) -> None:
    compare_products(spark_connect, tmp_path, stage, value, low)


@pytest.mark.xdist_group("apache spark")
@pytest.mark.parametrize("low", [0, 60, 500])
@pytest.mark.parametrize("value", PRODUCTS)
def test_products_on_apache_spark(
    apache_spark: Emulator, tmp_path: Path, stage: Path, value: str, low: int
) -> None:
    compare_products(apache_spark, tmp_path, stage, value, low)


def compare_edge_values(server: Emulator, tmp_path: Path, sql: str, way: str) -> None:
    found = compare(server, tmp_path, VALUES, sql, local_rows=WAYS[way])
    assert (found["bytes_staged"] == 0) == (WAYS[way] > 0)


# --- what is to be seen ------------------------------------------------------------------------


def test_the_plan_tells_where_it_ran(connect: Connect, stage: Path) -> None:
    connection = connect()
    assert "Residual: on spark, over about 123.2 kB" in connection.explain(JOINED)
    plan = connection.analyze(JOINED)
    assert "Residual: on spark, over" in str(plan)
    assert "Exchange engine:spark (ex1)" in str(plan)
    engine = plan.metrics()["engine"]
    assert engine["bytes_staged"] > 0
    assert sum(f["rows"] for f in engine["fragments"]) == 7
    # The sources' own fragments are told as ever, and the engine is no source.
    assert {f.source for f in plan.fragments} == {"crm", "lake"}
    assert connection.sources == ("crm", "lake")
    assert list(stage.iterdir()) == []


def test_its_progress_is_told_beside_that_of_the_sources(connect: Connect) -> None:
    connection = connect()
    cursor = connection.execute(JOINED)
    told = {(p.source, p.state, p.rows) for p in connection.progress()}
    assert "engine:spark" in {source for source, _, _ in told}
    cursor.fetchall()


def test_a_local_table_is_filled_from_there(connect: Connect) -> None:
    connection = connect()
    connection.execute(f"CREATE TABLE mine AS {JOINED}")
    assert connection.execute("SELECT sum(n) FROM mine").fetchall() == [(5000,)]


def test_frames_and_local_tables_are_joined_here(connect: Connect) -> None:
    connection = connect()
    connection.register("seven", pa.table({"name": [f"n{i}" for i in range(3)]}))
    sql = f"SELECT count(*), sum(n) FROM seven JOIN ({JOINED}) USING (name)"
    assert connection.execute(sql).fetchall() == [(3, 2200)]


# --- what stays here ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SELECT * FROM lake.orders ORDER BY total DESC", "it joins and groups nothing"),
        (
            "SELECT c.name, max(o.all_) FROM crm.customer c JOIN"
            " (SELECT customer, sum(total) AS all_ FROM lake.orders GROUP BY ALL) o"
            " ON o.customer = c.id GROUP BY 1",
            "HUGEINT is not staged",
        ),
        (
            "SELECT id FROM crm.customer WHERE id NOT IN (SELECT customer FROM lake.orders)",
            "a part of it, or all, is not proved there",
        ),
        (
            # One of the deliveries would only come back.
            "SELECT count(*) FROM crm.customer c JOIN lake.orders o ON o.customer = c.id"
            " JOIN (SELECT 'n' || customer AS name FROM lake.orders LIMIT 5) d"
            " ON regexp_matches(c.name, d.name)",
            "a part of it, or all, is not proved there",
        ),
        (
            "SELECT list(c.name ORDER BY o.total) FROM crm.customer c FULL JOIN lake.orders o"
            " ON regexp_matches(c.name, o.total::VARCHAR)",
            "a part of it, or all, is not proved there",
        ),
    ],
)
def test_reasons(connect: Connect, stage: Path, sql: str, why: str) -> None:
    plan = connect().analyze(sql)
    assert f"Residual: here, since {why}" in str(plan)
    assert plan.metrics()["engine"] is None
    assert not stage.exists() or list(stage.iterdir()) == []


def test_little_stays_here(connect: Connect) -> None:
    plan = connect(from_bytes="1GB").analyze(JOINED)
    assert "have arrived, and it is from 1.0 GB on" in str(plan)


def test_what_does_not_fit_here_goes_there(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect(from_bytes="1TB")
    monkeypatch.setattr(DuckDBEngine, "memory_limit_bytes", lambda self: 50_000)
    full = os.statvfs_result((4096, 4096, 100, 10, 10, 10, 1, 1, 0, 255))
    monkeypatch.setattr("os.statvfs", lambda path: full)
    cursor = connection.execute(JOINED)
    assert used(cursor), cursor.plan
    assert "Residual: on spark, over about 123.2 kB" in connection.explain(JOINED)


def test_without_a_bound_it_is_the_memory(connect: Connect) -> None:
    assert "on spark where" in connect(from_bytes=None).explain(JOINED)


@pytest.mark.parametrize("allowed", [[], ["pii"], ["p*"]])
def test_labelled_data_goes_where_it_may(connect: Connect, allowed: list[str]) -> None:
    crm = {"tables": {"customer": {"columns": {"name": {"labels": ["pii"]}}}}}
    connection = connect(crm, locality="public", allow_labels=allowed)
    cursor = connection.execute(JOINED)
    cursor.fetchall()
    assert used(cursor) is bool(allowed)
    if not allowed:
        assert "data labelled pii may not go there (engine.allow_labels)" in str(cursor.plan)
    # Wherever it ran, the answer has its labels.
    assert cursor.labels["name"].direct == {"pii"}


def test_on_this_machine_labels_are_no_matter(connect: Connect) -> None:
    crm = {"tables": {"customer": {"columns": {"name": {"labels": ["pii"]}}}}}
    cursor = connect(crm).execute(JOINED)
    cursor.fetchall()
    assert used(cursor)


def test_the_tier_is_asked_before_anything_is_opened(connect: Connect) -> None:
    with pytest.raises(TierRefused, match="engine:spark"):
        connect(tier="hybrid_sovereign", locality="public")
    connect(tier="hybrid_sovereign", locality="private")


def test_doctor_asks_it_too(connect: Connect, stage: Path) -> None:
    *_, found = connect().check()
    assert (found.name, found.kind, found.locality) == ("engine:spark", "spark", "local")
    assert found.error is None
    stage.rmdir()
    stage.write_text("")
    *_, found = connect().check()
    assert "cannot be staged" in (found.error or "")
    *_, found = connect(url="sc://127.0.0.1:1").check()
    assert found.error


def test_a_seal_leaves_a_way_to_it() -> None:
    server = {"kind": "spark", "url": "sc://spark.example:15002", "stage": "/s", "locality": "vpc"}
    settings = load_settings({"engine": server, "sources": {}}, tier="private_cloud")
    forwards, _ = ways_of(settings)
    assert ("spark.example", 15002) in {(f.name, f.port) for f in forwards}
    local = server | {"url": "sc://127.0.0.1:15002", "locality": "local"}
    settings = load_settings({"engine": local, "sources": {}}, tier="fully_sovereign")
    assert needing_ip_sockets(settings) == ["engine:spark"]


@pytest.mark.parametrize(
    ("given", "why"),
    [("spark", "needs url"), ({"kind": "spark", "url": "sc://h:1"}, "needs stage")],
)
def test_a_server_needs_an_address_and_a_stage(given: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        batuta_sql.connect({"engine": given, "sources": {}})


def test_a_server_on_this_machine_needs_no_stage(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cursor = connect(stage=None).execute(JOINED)
    assert "batuta-stage-" in cursor.metrics["engine"]["fragments"][0]["sql"]
    cursor.close()
    assert list(tmp_path.glob("batuta-stage-*")) == []


@pytest.mark.parametrize("given", ["auto", "duckdb", {"kind": "auto"}])
def test_without_an_address_everything_stays_here(given: Any) -> None:
    with batuta_sql.connect({"engine": given, "sources": {}}) as connection:
        cursor = connection.execute("SELECT 42")
        assert cursor.fetchall() == [(42,)]
        assert "Residual:" not in connection.explain("SELECT 42")


def test_an_address_alone_is_enough_for_auto(connect: Connect) -> None:
    cursor = connect(kind="auto").execute(JOINED)
    assert used(cursor)


# --- what goes wrong ---------------------------------------------------------------------------


def test_a_server_that_is_not_there_fails_the_query_by_its_name(
    connect: Connect, stage: Path
) -> None:
    connection = connect(url="sc://127.0.0.1:1")
    with pytest.raises(OperationalError, match="engine:spark"):
        connection.execute(JOINED).fetchall()
    assert list(stage.iterdir()) == []


def test_a_stage_that_cannot_be_written_says_so(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    connection = connect(stage=str(tmp_path / "file" / "below"))
    with pytest.raises(OperationalError, match="cannot be staged"):
        connection.execute(JOINED).fetchall()


CROSSED = (
    "SELECT count(*) FROM lake.orders a JOIN lake.orders b ON a.total <> b.total"
    " JOIN crm.customer c ON c.id <> a.customer {more}"
)


def cancelled(connection: Connection, sql: str, stage: Path, seconds: float) -> None:
    """Runs a query, and cancels it so many seconds after the engine has its rows."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            connection.execute(sql).fetchall()
        except batuta_sql.Error as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert eventually(lambda: (stage.exists() and list(stage.iterdir())) or not thread.is_alive())
    assert eventually(lambda: "engine:spark" in {p.source for p in connection.progress()})
    time.sleep(seconds)
    connection.cancel()
    thread.join(60)
    assert not thread.is_alive()
    assert [type(f) for f in failed] == [QueryCancelled]


def test_a_query_that_is_cancelled_leaves_nothing(connect: Connect, stage: Path) -> None:
    """Sail 0.7.2 works on for nobody: so one that ends by itself, after some seconds."""
    connection = connect()
    cancelled(connection, CROSSED.format(more="AND c.id < 20"), stage, 0.5)
    assert list(stage.iterdir()) == []
    assert connection.execute("SELECT 1").fetchall() == [(1,)]
