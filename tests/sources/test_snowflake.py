"""Snowflake, against an emulator that speaks its protocol; what is pushed, by the text."""

from __future__ import annotations

import datetime
import decimal
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import batuta_sql
from batuta_sql import ConfigError, CostRefused, OperationalError, ProgrammingError
from batuta_sql.config import load_settings
from batuta_sql.sources.base import Load
from batuta_sql.sources.snowflake_login import driver_options
from batuta_sql.sources.snowflake_sql import column_info
from tests.emulators.snowflake_process import PASSWORD, SnowflakeEmulator, snowflake_emulator

PRICE = {"usd_per_credit": 3.0, "warehouse_size": "X-Small"}
FREE = {"cost": {"on_unknown": "allow", "warn_usd": 1000, "stop_usd": 1000}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SnowflakeEmulator]:
    with snowflake_emulator(tmp_path_factory.mktemp("snowflake")) as server:
        server.run(
            "CREATE TABLE customer (id NUMBER(38,0), name VARCHAR, vip BOOLEAN)",
            "INSERT INTO customer SELECT * FROM VALUES (1, 'Ann', true), (2, 'Bob\\\\s', false)",
            'CREATE TABLE "MiXed" ("Case" NUMBER(3,0), plain VARCHAR)',
            """INSERT INTO "MiXed" SELECT 7, 'x'""",
            "CREATE TABLE event (moment TIMESTAMP_NTZ(6), local TIMESTAMP_LTZ(6),"
            " zoned TIMESTAMP_TZ(6), v VARIANT, o OBJECT, a ARRAY, amount NUMBER(18,2))",
            "INSERT INTO event SELECT '9999-12-31 23:59:59.999999'::TIMESTAMP_NTZ(6),"
            " '2024-02-29 12:00:00.123456 +0200'::TIMESTAMP_LTZ(6),"
            " '2024-02-29 12:00:00 +0530'::TIMESTAMP_TZ(6), parse_json('{\"k\": [1, null]}'),"
            " object_construct('x', 'y'), array_construct(1, 'b'), 12.34",
            "CREATE SCHEMA other",
            "CREATE TABLE other.customer (id NUMBER(38,0))",
        )
        yield server


@pytest.fixture
def connect(server: SnowflakeEmulator) -> Iterator[Callable[..., Any]]:
    opened: list[Any] = []

    def make(**more: Any) -> Any:
        settings = server.settings(**more)
        opened.append(batuta_sql.connect({"sources": {"sf": settings}, **FREE}))
        return opened[-1]

    yield make
    server.heal()
    for one in opened:
        one.close()


def sent_by(connection: Any, sql: str) -> str:
    return "\n".join(f.sql for f in connection.plan(sql).fragments)


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["sf.customer", "sf.public.customer", "sf.shop.public.customer", "SF.PUBLIC.CUSTOMER"]
)
def test_names_of_one_to_three_parts_fold(connect: Callable[..., Any], name: str) -> None:
    assert connect().execute(f"SELECT count(ID) FROM {name}").fetchone() == (2,)


def test_a_name_in_two_schemas_is_the_configured_ones(connect: Callable[..., Any]) -> None:
    assert connect().describe("sf.customer").num_rows == 3
    assert connect().describe("sf.other.customer").num_rows == 1


def test_names_that_were_quoted(connect: Callable[..., Any]) -> None:
    connection = connect()
    assert connection.execute('SELECT "Case", PLAIN FROM sf."MiXed"').fetchall() == [(7, "x")]
    assert connection.execute("SELECT case_ FROM (SELECT \"Case\" AS case_ FROM sf.mixed)").fetchone() == (7,)  # fmt: skip  # noqa: E501


def test_without_a_database_the_query_has_to_name_one(connect: Callable[..., Any]) -> None:
    connection = connect(database=None)
    with pytest.raises(ProgrammingError, match="no database is configured"):
        connection.execute("SELECT * FROM sf.customer")
    assert connection.execute("SELECT count(*) FROM sf.shop.public.customer").fetchone() == (2,)


def test_only_what_a_query_names_is_described_in_one_statement(
    connect: Callable[..., Any], server: SnowflakeEmulator
) -> None:
    connection = connect()
    before = len(server.sent())
    connection.plan("SELECT name FROM sf.customer")
    asked = server.sent()[before:]
    assert len(asked) == 1
    assert "INFORMATION_SCHEMA.TABLES" in asked[0]
    assert "UPPER('customer')" in asked[0]


def test_nothing_is_contacted_before_a_query_names_it(
    connect: Callable[..., Any], server: SnowflakeEmulator
) -> None:
    before = len(server.sent())
    connect().execute("SELECT 1").fetchall()
    assert len(server.sent()) == before


# --- values ------------------------------------------------------------------------------------


def test_moments_are_exact_to_the_microsecond_and_far(connect: Callable[..., Any]) -> None:
    at, local, zoned = connect().execute("SELECT moment, local, zoned FROM sf.event").fetchone()
    assert at == datetime.datetime(9999, 12, 31, 23, 59, 59, 999999)
    assert local == datetime.datetime(2024, 2, 29, 10, 0, 0, 123456, tzinfo=datetime.UTC)
    assert zoned == datetime.datetime(2024, 2, 29, 6, 30, tzinfo=datetime.UTC)


def test_semi_structured_values_are_json(connect: Callable[..., Any]) -> None:
    row = connect().execute("SELECT v, o, a, v->'k'->>0 FROM sf.event").fetchone()
    assert [json.loads(value) for value in row[:3]] == [{"k": [1, None]}, {"x": "y"}, [1, "b"]]
    assert row[3] == "1"


def test_numbers_are_decimals_of_their_own_digits(connect: Callable[..., Any]) -> None:
    connection = connect()
    assert connection.execute("SELECT amount FROM sf.event").fetchone() == (
        decimal.Decimal("12.34"),
    )
    types = {
        r["column_name"]: r["column_type"] for r in connection.describe("sf.event").to_pylist()
    }
    assert types["AMOUNT"] == "DECIMAL(18,2)"


@pytest.mark.parametrize(
    ("native", "facts", "type_", "comparable", "value_sql"),
    [
        ("NUMBER", (38, 0, None), "DECIMAL(38,0)", True, "{}"),
        ("TIMESTAMP_NTZ", (None, None, 6), "TIMESTAMP", True, "{}"),
        ("TIMESTAMP_NTZ", (None, None, 9), "TIMESTAMP", True, "DATE_TRUNC('MICROSECOND', {})"),
        ("TIMESTAMP_LTZ", (None, None, 3), "TIMESTAMP WITH TIME ZONE", True, "{}"),
        ("TIMESTAMP_TZ", (None, None, 6), "TIMESTAMP WITH TIME ZONE", False, "{}"),
        ("TIME", (None, None, 0), "TIME", True, "{}"),
        ("TIME", (None, None, 9), "TIME", False, "{}"),
        ("VARIANT", (None, None, None), "JSON", False, "{}"),
        ("GEOGRAPHY", (None, None, None), "VARCHAR", False, "ST_ASWKT({})"),
        ("VECTOR", (None, None, None), "VARCHAR", False, "TO_VARCHAR({})"),
    ],
)
def test_types(
    native: str, facts: tuple[Any, ...], type_: str, comparable: bool, value_sql: str
) -> None:
    column = column_info("C", native, "YES", *facts, None)
    assert (column.type, column.comparable, column.value_sql) == (type_, comparable, value_sql)


def test_a_column_with_a_collation_of_its_own_is_compared_here() -> None:
    assert column_info("C", "TEXT", "YES", None, None, None, "en-ci").collation == "other"
    assert column_info("C", "TEXT", "YES", None, None, None, None).collation == "binary"


# --- what is pushed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "sent"),
    [
        ("SELECT id FROM sf.customer WHERE name = 'Bob\\s'", "= 'Bob\\\\s'"),
        ("SELECT id FROM sf.customer WHERE name = 'it''s'", "= 'it\\'s'"),
        ("SELECT id FROM sf.customer WHERE name LIKE 'A%'", "LIKE 'A%'"),
        ("SELECT count(*), sum(id) FROM sf.customer GROUP BY vip", "GROUP BY"),
        ("SELECT name FROM sf.customer ORDER BY name LIMIT 1", "LIMIT 1"),
        ("SELECT a.id FROM sf.customer a JOIN sf.customer b ON a.id = b.id", "JOIN"),
    ],
)
def test_what_means_the_same_is_pushed(connect: Callable[..., Any], sql: str, sent: str) -> None:
    connection = connect()
    assert sent in sent_by(connection, sql)
    connection.execute(sql).fetchall()


@pytest.mark.parametrize(
    ("sql", "not_sent"),
    [
        ("SELECT amount * amount FROM sf.event", "*"),
        ("SELECT amount / 3 FROM sf.event", "/"),
        ("SELECT id FROM sf.customer WHERE name LIKE 'a\\%'", "LIKE"),
        ("SELECT upper(name) FROM sf.customer", "UPPER"),
        ("SELECT zoned FROM sf.event GROUP BY zoned", "GROUP BY"),
        ("SELECT v FROM sf.event GROUP BY v", "GROUP BY"),
        ("SELECT CAST(amount AS INTEGER) FROM sf.event", "AS INT"),
    ],
)
def test_what_may_not_mean_the_same_stays_here(
    connect: Callable[..., Any], sql: str, not_sent: str
) -> None:
    connection = connect()
    assert not_sent not in sent_by(connection, sql)
    connection.execute(sql).fetchall()


def test_a_literal_with_a_backslash_finds_its_row(connect: Callable[..., Any]) -> None:
    found = connect().execute("SELECT id FROM sf.customer WHERE name = 'Bob\\s'").fetchall()
    assert found == [(2,)]


# --- load --------------------------------------------------------------------------------------


def test_the_queue_of_the_warehouse_is_asked_for_by_a_statement_that_bills_nothing(
    connect: Callable[..., Any], server: SnowflakeEmulator
) -> None:
    connection = connect()
    connection.execute("SELECT id FROM sf.customer").fetchall()
    before = len(server.sent())
    source: Any = connection._session.sources["sf"]
    assert source.load() == Load()
    assert source.load() is None
    assert [s.split(" LIKE")[0] for s in server.sent()[before:]] == ["SHOW WAREHOUSES"]


# --- cost --------------------------------------------------------------------------------------


def test_an_estimate_comes_from_explain_and_bills_nothing(
    connect: Callable[..., Any], server: SnowflakeEmulator
) -> None:
    connection = connect(pricing=PRICE)
    before = len(server.sent())
    found = connection.estimate("SELECT id FROM sf.customer")
    (part,) = found.fragments
    assert part.bytes_scanned is not None
    assert part.usd is not None
    assert "EXPLAIN USING JSON" in part.basis
    ran = [s for s in server.sent()[before:] if "INFORMATION_SCHEMA" not in s]
    assert all(s.startswith(("EXPLAIN USING JSON", "SHOW WAREHOUSES")) for s in ran)


def test_a_minute_of_a_warehouse_is_the_least_that_is_billed(connect: Callable[..., Any]) -> None:
    found = connect(pricing=PRICE).estimate("SELECT id FROM sf.customer")
    assert found.usd == pytest.approx(3.0 / 60)
    assert found.credits == pytest.approx(1 / 60)


def test_a_query_that_costs_too_much_is_not_sent(server: SnowflakeEmulator) -> None:
    sources = {"sf": server.settings(pricing=PRICE)}
    with batuta_sql.connect({"sources": sources}, max_cost_usd=0.01) as connection:
        before = len(server.sent())
        with pytest.raises(CostRefused, match="sf"):
            connection.execute("SELECT id FROM sf.customer")
        assert not [s for s in server.sent()[before:] if s.lstrip().startswith('SELECT "')]


def test_without_a_price_somebody_has_to_say_yes(server: SnowflakeEmulator) -> None:
    with (
        batuta_sql.connect({"sources": {"sf": server.settings()}}) as connection,
        pytest.raises(CostRefused, match="not known"),
    ):
        connection.execute("SELECT id FROM sf.customer")


# --- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 401, "path": "login"},
        {"status": 500, "path": "login"},
        {"status": 429, "path": "login"},
        {"status": 401, "path": "query-request"},
        {"status": 500, "path": "query-request"},
        {"status": 429, "path": "query-request"},
    ],
    ids=lambda f: f"{f['status']} at {f['path']}",
)
def test_a_failure_ends_in_time_and_tells_no_secret(
    connect: Callable[..., Any],
    server: SnowflakeEmulator,
    fault: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    connection = connect(connect_timeout=2, query_timeout=3)
    server.fail(**fault)
    with pytest.raises(OperationalError, match=r"^sf: ") as failure:
        connection.execute("SELECT id FROM sf.customer")
    output = capfd.readouterr()
    for told in (str(failure.value), repr(failure.value), caplog.text, output.out, output.err):
        assert PASSWORD not in told


def test_a_server_that_fails_once_is_asked_again(
    connect: Callable[..., Any], server: SnowflakeEmulator
) -> None:
    server.fail(status=503, path="query-request", times=1)
    assert connect().execute("SELECT count(*) FROM sf.customer").fetchone() == (2,)


def test_what_snowflake_says_is_quoted(connect: Callable[..., Any]) -> None:
    with pytest.raises(ProgrammingError, match='there is no table "sf.customr"') as failure:
        connect().execute("SELECT * FROM sf.customr")
    assert "CUSTOMER" in str(failure.value)


# --- who logs in -------------------------------------------------------------------------------


def options_of(**keys: Any) -> dict[str, str]:
    settings = load_settings({"sources": {"s": {"kind": "snowflake", **keys}}}).sources["s"]
    return driver_options("s", settings)  # type: ignore[arg-type]


def auth(options: dict[str, str]) -> str:
    return options["adbc.snowflake.sql.auth_type"]


def test_a_password() -> None:
    options = options_of(account="a", user="u", password="p")
    assert (auth(options), options["username"], options["password"]) == (
        "auth_snowflake",
        "u",
        "p",
    )


def test_a_key_pair(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    (tmp_path / "key.p8").write_text(pem)
    options = options_of(account="a", user="u", private_key={"file": str(tmp_path / "key.p8")})
    assert auth(options) == "auth_jwt"
    value = options["adbc.snowflake.sql.client_option.jwt_private_key_pkcs8_value"]
    assert value.strip() == pem.strip()


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"token": "t"}, "auth_oauth"),
        ({"token": "t", "authenticator": "programmatic_access_token"}, "auth_pat"),
        ({"authenticator": "externalbrowser"}, "auth_ext_browser"),
        ({"authenticator": "username_password_mfa", "password": "p"}, "auth_mfa"),
        ({"authenticator": "https://acme.okta.com", "password": "p"}, "auth_okta"),
    ],
)
def test_other_ways_to_prove_it(keys: dict[str, Any], kind: str) -> None:
    assert auth(options_of(account="a", user="u", **keys)) == kind


def test_nothing_that_proves_it_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nothing proves who logs in"):
        options_of(account="a", user="u")
    with pytest.raises(ConfigError, match='did you mean "EXTERNALBROWSER"'):
        options_of(account="a", user="u", authenticator="externalbrowsr")


def test_a_named_connection_of_snowflakes_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNOWFLAKE_HOME", str(tmp_path))
    (tmp_path / "connections.toml").write_text(
        '[prod]\naccount = "acme"\nuser = "ann"\npassword = "pw"\nwarehouse = "W"\n'
        'database = "D"\nclient_session_keep_alive = true\n'
    )
    options = options_of(connection="prod", database="OTHER")
    assert options["adbc.snowflake.sql.account"] == "acme"
    assert options["adbc.snowflake.sql.warehouse"] == "W"
    assert options["adbc.snowflake.sql.db"] == "OTHER"
    with pytest.raises(ConfigError, match='has no connection "prd"'):
        options_of(connection="prd")


def test_retries_are_bounded_by_the_timeouts() -> None:
    options = options_of(account="a", user="u", password="p", connect_timeout=7, query_timeout=90)
    client = "adbc.snowflake.sql.client_option."
    assert options[client + "login_timeout"] == "7s"
    assert options[client + "request_timeout"] == "90s"


def test_statements_carry_a_tag(connect: Callable[..., Any], server: SnowflakeEmulator) -> None:
    """The emulator ignores the tag; that a statement with it runs is what can be seen."""
    with closing(connect()) as connection:
        assert connection.execute("SELECT id FROM sf.customer WHERE id = 1").fetchall() == [(1,)]


# --- tags --------------------------------------------------------------------------------------


def test_tags_of_columns_and_of_what_holds_them_are_labels(
    connect: Callable[..., Any], server: SnowflakeEmulator
) -> None:
    table = '"SHOP"."PUBLIC"."CUSTOMER"'
    server.tag(
        (table, "PII", "name", "COLUMN", "NAME"),
        (table, "TIER", "sovereign", "SCHEMA", "ID"),
        (table, "TIER", "sovereign", "SCHEMA", "NAME"),
        ('"SHOP"."OTHER"."CUSTOMER"', "PII", "other", "COLUMN", "ID"),
    )
    con = connect(tags=True)
    named = con.execute("SELECT id, name FROM sf.public.customer").labels
    assert {n: set(found.all) for n, found in named.items()} == {
        "id": {"TIER:sovereign"},
        "name": {"PII:name", "TIER:sovereign"},
    }
    counted = con.execute("SELECT count(*) AS n FROM sf.public.customer").labels
    assert set(counted["n"].all) == {"TIER:sovereign"}


def test_tags_that_cannot_be_read_stop_the_query(
    connect: Callable[..., Any], server: SnowflakeEmulator
) -> None:
    con = connect(tags=True)
    with pytest.raises(OperationalError, match="tags of .* cannot be read") as caught:
        con.execute("SELECT id FROM sf.public.customer")
    assert "tags = false" in (caught.value.hint or "")


def test_tags_are_not_asked_for_unless_they_are_wanted(
    connect: Callable[..., Any], server: SnowflakeEmulator
) -> None:
    before = len(server.sent())
    connect().execute("SELECT id FROM sf.public.customer").fetchall()
    assert not [s for s in server.sent()[before:] if "TAG_REFERENCES" in s]
