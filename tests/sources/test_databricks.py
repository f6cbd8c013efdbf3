"""Databricks: what is sent to the workspace, how its types arrive, what it is asked beforehand."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlglot

import batuta_sql
from batuta_sql.databrickscfg import workspace_of
from batuta_sql.plan.site import ColumnInfo
from batuta_sql.source_settings import DatabricksSettings
from batuta_sql.sources.base import Load
from batuta_sql.sources.databricks_sql import DatabricksTranslator
from batuta_sql.sources.databricks_types import arrow_of, delivery_of, fitted
from tests.emulators.databricks import CLIENT_ID, CLIENT_SECRET, TOKEN, Workspace


@pytest.fixture
def lake(databricks: Workspace) -> Iterator[Workspace]:
    databricks.reset()
    yield databricks
    databricks.reset()


@pytest.fixture(scope="module")
def schema(databricks: Workspace) -> str:
    name = databricks.new_schema()
    databricks.run(
        f"CREATE TABLE lab.{name}.orders AS SELECT i AS id, (i % 7)::INTEGER AS k,"
        " CASE WHEN i % 5 <> 0 THEN 'w' || i END AS word, (i / 4)::DECIMAL(12,2) AS price,"
        " DATE '2024-01-01' + i::INTEGER AS day FROM range(1000) r(i)"
    )
    return name


def connect(lake: Workspace, **more: Any) -> Any:
    settings = lake.settings(**more)
    return closing(
        batuta_sql.connect({"sources": {"dbx": settings}, "cost": {"on_unknown": "allow"}})
    )


def statements(lake: Workspace) -> int:
    return lake.lines().count("POST /api/2.0/sql/statements")


def test_no_text_is_taken_for_a_variable(lake: Workspace) -> None:
    """Spark puts a value where ``${...}`` stands in a statement, in a text too."""
    name = lake.new_schema()
    lake.run(f"CREATE TABLE lab.{name}.t AS SELECT 1 AS id, '$' || '{{env:PATH}}' AS word")
    text = "${env:PATH}"
    with connect(lake) as connection:
        for sql, parameters in (
            (f"SELECT word FROM dbx.{name}.t WHERE word = '{text}'", None),
            (f"SELECT word FROM dbx.{name}.t WHERE word = ?", [text]),
            (f"SELECT t.word FROM dbx.{name}.t t JOIN mine USING (word)", None),
        ):
            connection.register("mine", pa.table({"word": [text, "x"]}))
            cursor = connection.execute(sql, parameters)
            assert cursor.fetchall() == [(text,)], sql


# --- metadata ----------------------------------------------------------------------------------


def test_nothing_is_asked_before_a_query_names_the_source(lake: Workspace) -> None:
    with connect(lake) as connection:
        connection.execute("SELECT 1").fetchall()
    assert lake.lines() == []


def test_a_table_is_described_by_one_request_and_no_statement(lake: Workspace, schema: str) -> None:
    lake.set(warehouse={"state": "STOPPED"})
    with connect(lake) as connection:
        rows = connection.describe(f"dbx.{schema}.orders").to_pylist()
    assert [r["column_type"] for r in rows] == [
        "BIGINT", "INTEGER", "VARCHAR", "DECIMAL(12,2)", "DATE",
    ]  # fmt: skip
    assert [line for line in lake.lines() if "/warehouses/" not in line] == [
        f"GET /api/2.1/unity-catalog/tables/lab.{schema}.orders"
    ]


@pytest.mark.parametrize("summaries", [True, False])
def test_a_name_alone_is_looked_for_in_all_schemas(
    lake: Workspace, schema: str, summaries: bool
) -> None:
    lake.set(options={"summaries": summaries})
    lake.run(f"CREATE OR REPLACE TABLE lab.{schema}.only_here AS SELECT 1 AS x")
    with connect(lake) as connection:
        assert connection.execute("SELECT x FROM dbx.Only_Here").fetchall() == [(1,)]
        listed = {path for _, path, _ in connection.tables("dbx")}
    assert ("lab", schema, "orders") in listed


def test_a_name_in_two_schemas_is_ambiguous(lake: Workspace, schema: str) -> None:
    other = lake.new_schema()
    for name in (schema, other):
        lake.run(f"CREATE OR REPLACE TABLE lab.{name}.twice AS SELECT '{name}' AS x")
    with connect(lake) as connection, pytest.raises(batuta_sql.ProgrammingError, match="ambiguous"):
        connection.execute("SELECT x FROM dbx.twice")
        sql = f"SELECT x FROM dbx.{schema}.twice UNION ALL SELECT x FROM dbx.{other}.twice"
        assert sorted(connection.execute(sql).fetchall()) == sorted([(schema,), (other,)])


def test_tables_of_two_catalogs_are_told_apart_in_blocks_that_duckdb_runs(
    lake: Workspace, schema: str
) -> None:
    lake.ask("POST", "/api/2.1/unity-catalog/catalogs", {"name": f"c_{schema}"})
    for catalog in ("lab", f"c_{schema}"):
        lake.run(f'CREATE OR REPLACE TABLE "{catalog}"."default".same AS SELECT \'{catalog}\' AS x')
    with connect(lake) as connection:
        sql = (
            f"SELECT x FROM (FROM dbx.lab.default.same POSITIONAL JOIN"
            f" (SELECT x AS y FROM dbx.c_{schema}.default.same)) WHERE x <> y"
        )
        assert connection.execute(sql).fetchall() == [("lab",)]


def test_sizes_come_from_analyze_and_else_from_describe_detail(
    lake: Workspace, schema: str
) -> None:
    lake.run(f"CREATE OR REPLACE TABLE lab.{schema}.unanalysed AS SELECT 1 AS x FROM range(10)")
    with connect(lake) as connection:
        source = connection._session.sources["dbx"]
        (analysed,) = source.resolve((schema, "orders"))
        (other,) = source.resolve((schema, "unanalysed"))
    assert (analysed.statistics.rows, analysed.statistics.bytes) == (1000, 40_000)
    assert (other.statistics.rows, other.statistics.bytes) == (None, 500)


def test_a_warehouse_that_does_not_run_is_not_started_for_an_estimate(
    lake: Workspace, schema: str
) -> None:
    lake.set(warehouse={"state": "STOPPED", "cluster_size": "Medium"})
    with connect(lake, pricing={"usd_per_dbu": 0.7}) as connection:
        found = connection.estimate(f"SELECT id FROM dbx.{schema}.orders")
    assert (found.confidence, found.usd, statements(lake)) == ("unknown", None, 0)
    assert "ANALYZE" in found.basis


def test_an_estimate_prices_the_seconds_of_the_warehouses_size(
    lake: Workspace, schema: str
) -> None:
    lake.set(warehouse={"state": "RUNNING", "cluster_size": "Medium"})
    with connect(lake, pricing={"usd_per_dbu": 0.7}) as connection:
        found = connection.estimate(f"SELECT id FROM dbx.{schema}.orders")
    seconds = 1 + 40_000 / 800e6
    assert found.usd == pytest.approx(seconds / 3600 * 24 * 0.7)
    assert (found.bytes_scanned, found.confidence) == (40_000, "estimated")


def test_the_query_history_tells_afterwards_what_it_took(lake: Workspace, schema: str) -> None:
    with connect(lake, pricing={"usd_per_dbu": 0.7}) as connection:
        cursor = connection.execute(f"SELECT id FROM dbx.{schema}.orders")
        cursor.fetchall()
    (asked,) = [r for r in lake.requests() if r["line"] == "GET /api/2.0/sql/history/queries"]
    assert "filter_by.statement_ids=" in asked["query"]


def test_labels_of_a_table_hold_for_the_views_of_it(lake: Workspace, schema: str) -> None:
    lake.run(f"CREATE OR REPLACE VIEW lab.{schema}.seen AS SELECT id FROM lab.{schema}.orders")
    view = {"table_type": "VIEW", "view_dependencies": {
        "dependencies": [{"table": {"table_full_name": f"lab.{schema}.orders"}}]
    }}  # fmt: skip
    lake.set(tables={f"lab.{schema}.seen": view})
    labelled = {f"lab.{schema}.orders": {"labels": ["pii"]}}
    with connect(lake, tables=labelled) as connection:
        cursor = connection.execute(f"SELECT id FROM dbx.{schema}.seen WHERE id = 1")
        assert cursor.labels["id"].direct == {"pii"}


def test_tags_become_labels_where_that_is_wanted(lake: Workspace, schema: str) -> None:
    name = f"lab.{schema}.orders"
    lake.set(tags={
        "catalogs/lab": {"origin": "public"},
        f"tables/{name}": {"owner": "team a"},
        f"columns/{name}.word": {"pii": ""},
    })  # fmt: skip
    with connect(lake, tags=True) as connection:
        cursor = connection.execute(f"SELECT id, word FROM dbx.{schema}.orders WHERE id = 1")
        assert cursor.labels["word"].direct == {"origin:public", "owner:team_a", "pii"}
        assert cursor.labels["id"].direct == {"origin:public", "owner:team_a"}


def test_tags_that_cannot_be_read_are_not_taken_for_none(lake: Workspace, schema: str) -> None:
    lake.set(faults=[{"on": "entity-tag", "kind": "status", "status": 403, "times": 99,
                      "message": "no APPLY TAG"}])  # fmt: skip
    with (
        connect(lake, tags=True) as connection,
        pytest.raises(batuta_sql.OperationalError, match="no APPLY TAG"),
    ):
        connection.execute(f"SELECT id FROM dbx.{schema}.orders")


# --- types -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("native", "type_", "value_sql", "comparable", "collation"),
    [
        ("int", "INTEGER", "{}", True, "binary"),
        ("long", "BIGINT", "{}", True, "binary"),
        ("decimal(10,2)", "DECIMAL(10,2)", "{}", True, "binary"),
        ("string", "VARCHAR", "{}", True, "binary"),
        ("string collate UTF8_BINARY", "VARCHAR", "{}", True, "binary"),
        ("string collate UTF8_LCASE", "VARCHAR", "{}", True, "other"),
        ("varchar(5)", "VARCHAR", "{}", True, "binary"),
        ("char(5)", "VARCHAR", "rtrim({})", True, "binary"),
        ("binary", "BLOB", "{}", False, "binary"),
        ("timestamp", "TIMESTAMP WITH TIME ZONE", "{}", True, "binary"),
        ("timestamp_ntz", "TIMESTAMP", "{}", True, "binary"),
        ("array<timestamp_ntz>", "TIMESTAMP[]", "{}", False, "binary"),
        ("map<string,array<bigint>>", "MAP(VARCHAR, BIGINT[])", "{}", False, "binary"),
        ("struct<a:int,`b c`:string>", 'STRUCT("a" INTEGER, "b c" VARCHAR)', "{}", False, "binary"),
        ("variant", "JSON", "to_json({})", False, "binary"),
        ("array<variant>", "VARCHAR", "to_json({})", False, "binary"),
        ("interval day to second", "VARCHAR", "CAST({} AS STRING)", False, "binary"),
        ("something_new", "VARCHAR", "CAST({} AS STRING)", False, "binary"),
    ],
)
def test_a_type_is_read_as(
    native: str, type_: str, value_sql: str, comparable: bool, collation: str
) -> None:
    found = delivery_of(native)
    assert (found.type, found.value_sql, found.comparable, found.collation) == (
        type_, value_sql, comparable, collation,
    )  # fmt: skip


@pytest.mark.parametrize("as_json", [False, True])
def test_nested_values_arrive_as_arrow_or_as_json_and_are_the_same(
    lake: Workspace, schema: str, as_json: bool
) -> None:
    lake.run(
        f"CREATE OR REPLACE TABLE lab.{schema}.nested AS SELECT [1, NULL, 3] AS l,"
        " {'a': 1.10::DECIMAL(20,2), 'b': NULL::VARCHAR} AS s, MAP {'k': [0.1::DOUBLE]} AS m"
        " UNION ALL SELECT NULL, NULL, NULL"
    )
    lake.set(options={"nested_as_json": as_json})
    with connect(lake) as connection:
        rows = connection.execute(f"SELECT l, s, m FROM dbx.{schema}.nested").fetchall()
    assert rows == [
        ([1, None, 3], {"a": Decimal("1.10"), "b": None}, {"k": [0.1]}),
        (None, None, None),
    ]


@pytest.mark.parametrize(
    ("column", "type_"),
    [
        (pa.array(["1"]), "INTEGER"),
        (pa.array([2**40]), "INTEGER"),
        (pa.array([Decimal("1.005")]), "DECIMAL(10,2)"),
        (pa.array([1.5]), "FLOAT"),
        (pa.array([datetime.datetime(2024, 1, 1)], pa.timestamp("us")), "TIMESTAMP WITH TIME ZONE"),
        (pa.array([1], pa.timestamp("ns")), "TIMESTAMP"),
        (pa.array(['["x"]']), "INTEGER[]"),
        (pa.array(["[1.5]"]), "INTEGER[]"),
        (pa.array(["[true]"]), "INTEGER[]"),
        (pa.array(['{"a": 1, "z": 2}']), "STRUCT(a INTEGER)"),
    ],
)
def test_a_value_that_would_change_is_an_error_that_names_the_column(
    column: pa.Array, type_: str
) -> None:
    with pytest.raises(batuta_sql.DataError, match='column "price"'):
        fitted(column, arrow_of(type_), "price", "dbx")


def test_an_instant_is_the_same_in_whatever_zone_the_session_is(
    lake: Workspace, schema: str
) -> None:
    lake.run(
        f"CREATE OR REPLACE TABLE lab.{schema}.times AS SELECT"
        " TIMESTAMPTZ '2024-02-29 23:30:00+00' AS t, TIMESTAMP '2024-02-29 23:30:00' AS n"
    )
    with connect(lake) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        sql = f"SELECT t::VARCHAR, n::VARCHAR, day(t), day(n) FROM dbx.{schema}.times"
        assert connection.execute(sql).fetchall() == [
            ("2024-02-29 23:30:00+00", "2024-02-29 23:30:00", 29, 29)
        ]
        found = f"SELECT count(*) FROM dbx.{schema}.times WHERE t = '2024-03-01 01:30:00+02'"
        assert connection.execute(found).fetchall() == [(1,)]


# --- what is sent ------------------------------------------------------------------------------

COLUMNS = {
    "n": ColumnInfo("n", "BIGINT"),
    "d": ColumnInfo("d", "DECIMAL(12,2)"),
    "wide": ColumnInfo("wide", "DECIMAL(38,10)"),
    "text": ColumnInfo("text", "VARCHAR"),
    "blind": ColumnInfo("blind", "VARCHAR", collation="other"),
    "day": ColumnInfo("day", "DATE"),
    "at": ColumnInfo("at", "TIMESTAMP WITH TIME ZONE"),
    "f": ColumnInfo("f", "DOUBLE"),
}


def written(sql: str, method: str = "scalar") -> str:
    """An expression as it is sent to Databricks.

    :raises NotPushable: where it is not sent.
    """
    translator = DatabricksTranslator()
    environment = {n: translator.scanned(c, "t") for n, c in COLUMNS.items()}
    tree = sqlglot.parse_one(sql, read="duckdb")
    return getattr(translator, method)(tree, environment).sql.sql("databricks").replace("`t`.", "")


@pytest.mark.parametrize(
    ("sql", "sent"),
    [
        (r"text = 'it''s \ all'", r"`text` = 'it\'s \\ all'"),
        ("text LIKE 'a_%'", "`text` LIKE 'a_%'"),
        ("blind = 'a'", "(`blind` COLLATE UTF8_BINARY) = 'a'"),
        ("blind LIKE 'a%'", "(`blind` COLLATE UTF8_BINARY) LIKE 'a%'"),
        ("starts_with(text, 'a')", "STARTSWITH(`text`, 'a')"),
        ("at = '2024-01-01 00:00:00+05'", "`at` = CAST('2024-01-01 00:00:00+05:00' AS TIMESTAMP)"),
        ("day >= TIMESTAMP '2024-01-01 00:00:00'", "`day` >= CAST('2024-01-01' AS DATE)"),
        ("d + 1", "`d` + 1"),
        (
            "d * d",
            "CASE WHEN (CAST(`d` AS DECIMAL(12, 2)) * CAST(`d` AS DECIMAL(12, 2))) IS NULL OR"
            " ABS(CAST(`d` AS DECIMAL(12, 2)) * CAST(`d` AS DECIMAL(12, 2)))"
            " < CAST('100000000000000' AS DECIMAL(38, 0)) THEN"
            " CAST(CAST(`d` AS DECIMAL(12, 2)) * CAST(`d` AS DECIMAL(12, 2)) AS DECIMAL(18, 4))"
            " ELSE CAST(RAISE_ERROR('a product does not fit DECIMAL(18,4)') AS DECIMAL(18, 4)) END",
        ),
        ("n IS NOT DISTINCT FROM 3", "`n` IS NOT DISTINCT FROM 3"),
    ],
)
def test_what_is_sent(sql: str, sent: str) -> None:
    assert written(sql) == sent


@pytest.mark.parametrize(
    "sql",
    [
        r"text LIKE 'a\%'",
        "n + 1",
        "-n",
        "n * n",
        "wide * d",
        "n / 2",
        "n // 2",
        "f + 1",
        "f = 0.12345678901234567890",
        "wide = 12345678901234567890123456789012",
        "wide IN (1, 12345678901234567890123456789012)",
        "day(at)",
        "at > '2024-01-01 00:00:00'",
        "upper(text)",
        "substring(text, 0, 2)",
        "substring(text, -2)",
        "CAST(text AS INTEGER)",
        "CAST(d AS INTEGER)",
        "dayofweek(day)",
        "text ~ 'a'",
    ],
)
def test_what_is_not_sent(sql: str) -> None:
    from batuta_sql.plan.translate import NotPushable

    with pytest.raises(NotPushable):
        written(sql)


@pytest.mark.parametrize(
    ("sql", "sent"),
    [
        ("sum(n)", "SUM(CAST(`n` AS DECIMAL(28, 0)))"),
        ("sum(DISTINCT d)", "SUM(DISTINCT CAST(`d` AS DECIMAL(28, 2)))"),
        ("max(blind)", "MAX((`blind` COLLATE UTF8_BINARY))"),
        ("sum(wide)", None),
        ("sum(f)", None),
        ("avg(n)", None),
        ("max(f)", None),
    ],
)
def test_aggregates(sql: str, sent: str | None) -> None:
    from batuta_sql.plan.translate import NotPushable

    if sent is None:
        with pytest.raises(NotPushable):
            written(sql, "aggregate")
    else:
        assert written(sql, "aggregate") == sent


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("nulls_first", [True, False])
def test_the_place_of_nulls_is_kept(descending: bool, nulls_first: bool) -> None:
    from sqlglot import exp

    translator = DatabricksTranslator()
    environment = {"n": translator.scanned(COLUMNS["n"], "t")}
    key = exp.Ordered(this=exp.column("n"), desc=descending, nulls_first=nulls_first)
    text = translator.sort_key(key, environment).sql("databricks")
    back = sqlglot.parse_one(f"SELECT 1 ORDER BY {text}", read="databricks").find(exp.Ordered)
    assert back is not None
    assert bool(back.args["nulls_first"]) is nulls_first
    assert bool(back.args.get("desc")) is descending


# --- logins ------------------------------------------------------------------------------------


def test_a_profile_of_databrickscfg(
    lake: Workspace, schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "profiles"
    file.write_text(f"[lab]\nhost = {lake.url}\ntoken = {TOKEN}\nwarehouse_id = {lake.warehouse}\n")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(file))
    settings = {"kind": "databricks", "profile": "lab", "catalog": "lab"}
    config = {"sources": {"dbx": settings}, "cost": {"on_unknown": "allow"}}
    with closing(batuta_sql.connect(config)) as connection:
        sql = f"SELECT count(*) FROM dbx.{schema}.orders"
        assert connection.execute(sql).fetchall() == [(1000,)]
    config["sources"]["dbx"]["profile"] = "lob"
    with (
        closing(batuta_sql.connect(config)) as connection,
        pytest.raises(batuta_sql.ConfigError, match='no profile "lob"(.|\n)*"lab"'),
    ):
        connection.execute(sql)


def test_oauth_from_machine_to_machine_asks_for_one_token(lake: Workspace, schema: str) -> None:
    login = {"token": None, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    with connect(lake, **login) as connection:
        sql = (
            f"SELECT count(*) FROM (SELECT id FROM dbx.{schema}.orders) a"
            f" FULL JOIN (SELECT id FROM dbx.{schema}.orders LIMIT 10) b ON a.id = b.id"
        )
        assert connection.execute(sql).fetchall() == [(1000,)]
        assert lake.lines().count("POST /oidc/v1/token") == 1
        lake.set(forget_tokens=True)
        assert connection.execute(sql).fetchall() == [(1000,)]
        assert lake.lines().count("POST /oidc/v1/token") == 2


def test_a_token_is_renewed_before_it_expires(lake: Workspace, schema: str) -> None:
    lake.set(options={"token_seconds": 0.5})
    login = {"token": None, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    with connect(lake, **login) as connection:
        for _ in range(3):
            sql = f"SELECT count(*) FROM dbx.{schema}.orders"
            assert connection.execute(sql).fetchall() == [(1000,)]
            time.sleep(0.3)
    # Half a second each, renewed after half of that: none of the requests came with an old one.
    assert lake.lines().count("POST /oidc/v1/token") >= 3
    assert not [r for r in lake.requests() if r.get("status") == 401]


# --- load --------------------------------------------------------------------------------------


def test_statements_of_anybody_that_wait_in_the_queue_are_load(
    lake: Workspace, schema: str
) -> None:
    lake.set(options={"queued": 3})
    with connect(lake) as connection:
        connection.execute(f"SELECT id FROM dbx.{schema}.orders").fetchall()
        source: Any = connection._session.sources["dbx"]
        assert source.load() == Load("busy", "3 statements wait in the warehouse's queue")
        # Asked for now and then only.
        assert source.load() is None
    (asked,) = [r for r in lake.requests() if "QUEUED" in r["query"]]
    assert f"filter_by.warehouse_ids={lake.warehouse}" in asked["query"]


def test_an_answer_that_asks_for_patience_is_load(lake: Workspace, schema: str) -> None:
    busy = {"status": 429, "headers": {"Retry-After": "1"}}
    lake.set(faults=[{"on": "POST /api/2.0/sql/statements$", "kind": "status", "times": 1, **busy}])
    with connect(lake) as connection:
        connection.execute(f"SELECT id FROM dbx.{schema}.orders").fetchall()
        source: Any = connection._session.sources["dbx"]
        assert source.load() == Load("busy", "it answered 429 Too Many Requests")


# --- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"host": None}, "without a host"),
        ({"host": "http://dbc-1.cloud.databricks.com"}, "without TLS"),
        ({"client_id": "x"}, "belong together"),
        ({"token": None}, "no login"),
        ({"warehouse_id": None}, "names no SQL warehouse"),
        ({"warehouse_id": None, "http_path": "/sql/2.0/x"}, "is not that of a SQL warehouse"),
    ],
)
def test_settings_that_cannot_work_say_so(
    lake: Workspace, schema: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(batuta_sql.ConfigError, match=message), connect(lake, **settings) as made:
        made.execute(f"SELECT id FROM dbx.lab.{schema}.orders").fetchall()


def test_the_warehouse_may_be_told_by_its_http_path(lake: Workspace, schema: str) -> None:
    path = {"warehouse_id": None, "http_path": f"/sql/1.0/warehouses/{lake.warehouse}"}
    with connect(lake, **path) as connection:
        sql = f"SELECT count(*) FROM dbx.{schema}.orders"
        assert connection.execute(sql).fetchall() == [(1000,)]


def test_the_profile_tells_the_locality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from batuta_sql.guards.locality import whereabouts

    file = tmp_path / "profiles"
    file.write_text("[far]\nhost = https://10.1.2.3\n")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(file))
    settings = DatabricksSettings(kind="databricks", profile="far")
    assert workspace_of(settings).host == "https://10.1.2.3"
    assert whereabouts(settings).locality == "private"
