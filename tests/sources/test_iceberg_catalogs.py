"""Iceberg catalogs (REST, Glue, SQL) and files on S3: access, secrets, failures, what travels."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog

import batuta_sql
from batuta_sql import NotSupportedError, OperationalError
from tests.emulators.aws_process import KEY, REGION, SECRET, AwsEmulator, aws_emulator
from tests.emulators.iceberg_rest import RestCatalog, rest_catalog
from tests.faults.proxy import Proxy
from tests.sources.conftest import rows_of

Opened = Callable[..., Any]
TOKEN = "rest-token-0815"
ROWS = 60_000


def access_to(endpoint: str) -> dict[str, str]:
    return {
        "s3.endpoint": endpoint,
        "s3.access-key-id": KEY,
        "s3.secret-access-key": SECRET,
        "s3.region": REGION,
    }


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsEmulator]:
    with aws_emulator(tmp_path_factory.mktemp("aws")) as server:
        server.filesystem().mkdir("lake")
        yield server


@pytest.fixture(scope="module")
def lake(aws: AwsEmulator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A SQL catalog whose files are in the bucket: ``n.wide``, in two files."""
    folder = tmp_path_factory.mktemp("lake")
    properties = {
        "type": "sql",
        "uri": f"sqlite:///{folder}/catalog.db",
        "warehouse": "s3://lake/warehouse",
        **access_to(aws.emulator.url),
    }
    catalog = SqlCatalog("default", **properties)
    catalog.create_namespace("n")
    # Digests do not compress: small files DuckDB reads as a whole.
    digests = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(ROWS)]
    wide = pa.table({"id": range(ROWS), **{f"c{i}": digests[i:] + digests[:i] for i in range(5)}})
    limit = {"write.parquet.row-group-limit": "5000"}
    table = catalog.create_table("n.wide", wide.schema, properties=limit)
    for half in (wide.slice(0, ROWS // 2), wide.slice(ROWS // 2)):
        table.append(half)
    return properties


@pytest.fixture
def rest(tmp_path: Path) -> Iterator[RestCatalog]:
    """A REST catalog with ``n.t``, its files on this machine."""
    with rest_catalog(tmp_path) as server:
        server.catalog.create_namespace("n")
        table = server.catalog.create_table("n.t", pa.schema([("id", pa.int64())]))
        table.append(pa.table({"id": [1, 2]}))
        yield server


def settings(rest: RestCatalog, **catalog: str) -> dict[str, Any]:
    return {"kind": "iceberg", "catalog": {"type": "rest", "uri": rest.uri, **catalog}}


# --- S3 ----------------------------------------------------------------------------------------


def sent_for(aws: AwsEmulator, lake: dict[str, str], sql: str) -> int:
    """Bytes that the stand-in for S3 sent for a query."""
    with Proxy(aws.emulator.url) as proxy:
        endpoint = proxy.uri.replace("http://@", "http://").rstrip("/")
        source = {"kind": "iceberg", "catalog": {**lake, "s3.endpoint": endpoint}}
        with batuta_sql.connect({"sources": {"s": source}}) as connection:
            connection.execute(sql).fetchall()
        return proxy.received


def test_only_what_is_needed_travels(aws: AwsEmulator, lake: dict[str, str]) -> None:
    everything = sum(
        f["size"] for f in aws.filesystem().find("lake/warehouse", detail=True).values()
    )
    assert sent_for(aws, lake, "SELECT * FROM s.n.wide") > everything * 0.7
    assert sent_for(aws, lake, "SELECT sum(id) FROM s.n.wide") < everything / 3
    # One file by the bounds in the manifest, one row group of it by the footer.
    assert sent_for(aws, lake, "SELECT c0 FROM s.n.wide WHERE id = 40000") < everything / 5


def test_a_table_by_its_folder_in_a_bucket(
    aws: AwsEmulator, lake: dict[str, str], opened: Opened
) -> None:
    place = "s3://lake/warehouse/n/wide"
    connection = opened(kind="iceberg", catalog=access_to(aws.emulator.url), tables={"w": place})
    assert rows_of(connection, "SELECT count(*) AS n FROM s.w") == [(ROWS,)]


def test_deletes_and_schemes_of_other_engines(
    aws: AwsEmulator, lake: dict[str, str], opened: Opened
) -> None:
    """Deletes, which rewrite here, and a later scan see one state."""
    catalog = SqlCatalog("default", **lake)
    table = catalog.create_table("n.small", pa.schema([("id", pa.int64())]))
    table.append(pa.table({"id": [1, 2, 3]}))
    table.delete("id = 2")
    connection = opened(kind="iceberg", catalog=lake)
    assert rows_of(connection, "SELECT id FROM s.n.small") == [(1,), (3,)]


@pytest.mark.parametrize("fault", ["cut_after", "end_after"])
def test_an_answer_that_breaks_off_is_an_error(
    aws: AwsEmulator, lake: dict[str, str], opened: Opened, fault: str
) -> None:
    with Proxy(aws.emulator.url) as proxy:
        endpoint = proxy.uri.replace("http://@", "http://").rstrip("/")
        connection = opened(
            kind="iceberg",
            catalog={**lake, "s3.endpoint": endpoint},
            connect_timeout=3,
            query_timeout=20,
        )
        assert rows_of(connection, "SELECT count(*) AS n FROM s.n.wide") == [(ROWS,)]
        proxy.reset_all()
        setattr(proxy, fault, 200_000)
        with pytest.raises(OperationalError, match="^s: ") as failure:
            connection.execute("SELECT * FROM s.n.wide").fetchall()
        assert SECRET not in str(failure.value)


def test_access_that_is_denied_and_a_store_that_is_not_there(
    lake: dict[str, str], opened: Opened
) -> None:
    lost = {**lake, "s3.endpoint": "http://127.0.0.1:9", "s3.connect-timeout": "1"}
    connection = opened(kind="iceberg", catalog=lost, connect_timeout=1, query_timeout=5)
    with pytest.raises(OperationalError, match="n/wide|n.wide") as failure:
        connection.execute("SELECT * FROM s.n.wide")
    assert SECRET not in str(failure.value)


# --- REST --------------------------------------------------------------------------------------


def test_a_rest_catalog(rest: RestCatalog, opened: Opened) -> None:
    connection = opened(**settings(rest))
    assert [t[1] for t in connection.tables("s")] == [("n", "t")]
    assert rows_of(connection, "SELECT id FROM s.n.t WHERE id > 1") == [(2,)]


def test_a_token_and_a_credential(
    rest: RestCatalog, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    rest.control(token=TOKEN, credential="batuta:client-secret-0815")
    with pytest.raises(OperationalError, match="not authorized") as failure:
        opened(**settings(rest)).execute("SELECT id FROM s.n.t")
    assert "token" in str(failure.value.hint)
    with caplog.at_level(logging.DEBUG):
        with_token = opened(**settings(rest, token=TOKEN))
        assert rows_of(with_token, "SELECT id FROM s.n.t") == [(1,), (2,)]
        by_login = opened(**settings(rest, credential="batuta:client-secret-0815"))
        assert rows_of(by_login, "SELECT id FROM s.n.t") == [(1,), (2,)]
        wrong = opened(**settings(rest, credential="batuta:wrong-secret-0815"))
        with pytest.raises(OperationalError, match="invalid_client|unknown client") as failure:
            wrong.execute("SELECT id FROM s.n.t")
    shown = [caplog.text, repr(with_token), repr(by_login), str(failure.value), repr(wrong)]
    for secret in (TOKEN, "client-secret-0815", "wrong-secret-0815"):
        assert not any(secret in text for text in shown)
    assert not any("secret-0815" in line for line in rest.requests())


FAULTS = {
    "forbidden": (403, "ForbiddenException", "may not read {token}"),
    "server error": (500, "ServerError", "broken at {token}"),
    "unavailable": (503, "ServiceUnavailable", "come again, {token}"),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("place", ["config", "namespaces"])
def test_what_the_server_says_comes_in_its_own_words_without_the_token(
    rest: RestCatalog, opened: Opened, name: str, place: str
) -> None:
    status, type_, message = FAULTS[name]
    fault = {"status": status, "type": type_, "message": message}
    rest.control(token=TOKEN, faults={place: fault})
    with pytest.raises(OperationalError) as failure:
        opened(**settings(rest, token=TOKEN)).execute("SELECT id FROM s.n.t")
    assert message.partition("{")[0].strip(" ,") in str(failure.value)
    assert TOKEN not in str(failure.value)


def test_a_server_that_is_silent_or_not_there(rest: RestCatalog, opened: Opened) -> None:
    rest.control(faults={"namespaces": {"seconds": 30}})
    connection = opened(**settings(rest), query_timeout=0.5)
    with pytest.raises(OperationalError, match="timed out|timeout"):
        connection.execute("SELECT id FROM s.n.t")
    nobody = opened(kind="iceberg", catalog={"type": "rest", "uri": "http://127.0.0.1:9"})
    with pytest.raises(OperationalError, match="the catalog cannot be opened"):
        nobody.execute("SELECT id FROM s.n.t")


def test_a_server_that_sends_elsewhere_is_not_followed(rest: RestCatalog, opened: Opened) -> None:
    """The tier was judged by the configured host."""
    rest.control(overrides={"uri": "http://192.0.2.1:8181"})
    with pytest.raises(OperationalError, match=r"192\.0\.2\.1:8181: another host"):
        opened(**settings(rest)).execute("SELECT id FROM s.n.t")


def test_vended_credentials_are_each_tables_own_and_asked_for_anew(
    aws: AwsEmulator, tmp_path: Path, opened: Opened
) -> None:
    vended = access_to(aws.emulator.url)
    with rest_catalog(tmp_path, warehouse="s3://lake/rest", **vended) as rest:
        rest.catalog.create_namespace("n")
        for name in ("a", "b"):
            made = rest.catalog.create_table(f"n.{name}", pa.schema([("id", pa.int64())]))
            made.append(pa.table({"id": [1, 2]}))
        connection = opened(**settings(rest), object_stores=True)
        with pytest.raises(OperationalError):
            connection.execute("SELECT id FROM s.n.a")
        short = {k: v for k, v in vended.items() if "secret" not in k}
        secret = {"prefix": "s3://lake", "config": {"s3.secret-access-key": SECRET}}
        rest.control(config=short, **{"storage-credentials": [secret]})
        sql = "SELECT a.id FROM s.n.a a JOIN s.n.b b ON a.id = b.id"
        assert rows_of(connection, sql) == [(1,), (2,)]
        rest.control(config={**vended, "s3.access-key-id": "AKIAOTHER"})
        assert rows_of(connection, sql) == [(1,), (2,)]
        access = connection._session.sources["s"]._stores._given["n/a"][0]
        assert access["AWS_ACCESS_KEY_ID"] == "AKIAOTHER"
        assert SECRET not in repr(connection._session.sources["s"])


def test_a_sql_catalog_opens_no_store_that_the_settings_do_not_speak_of(
    aws: AwsEmulator, lake: dict[str, str], opened: Opened
) -> None:
    """It would open the metadata by itself, wherever that lies."""
    catalog = SqlCatalog("default", **lake)
    catalog.create_namespace_if_not_exists("elsewhere")
    catalog.create_table("elsewhere.t", pa.schema([("id", pa.int64())]))
    connection = opened(kind="iceberg", catalog={"type": "sql", "uri": lake["uri"]})
    with pytest.raises(batuta_sql.Error, match="object_stores is not set"):
        connection.execute("SELECT id FROM s.elsewhere.t")


def test_a_table_does_not_tell_which_class_opens_it(lake: dict[str, str], opened: Opened) -> None:
    catalog = SqlCatalog("default", **lake)
    catalog.create_namespace_if_not_exists("told")
    told = {"py-io-impl": "tests.sources.no_such_module.Class", "s3.endpoint": "http://127.0.0.1:9"}
    table = catalog.create_table("told.t", pa.schema([("id", pa.int64())]))
    table.append(pa.table({"id": [1]}))
    with contextlib.suppress(ValueError), table.transaction() as change:
        # It opens the table again, once it is written.
        change.set_properties(told)
    assert rows_of(opened(kind="iceberg", catalog=lake), "SELECT id FROM s.told.t") == [(1,)]


def test_a_store_that_the_settings_do_not_speak_of_is_not_dialled(
    aws: AwsEmulator, tmp_path: Path, opened: Opened
) -> None:
    vended = access_to(aws.emulator.url)
    with rest_catalog(tmp_path, warehouse="s3://lake/unspoken", **vended) as rest:
        rest.catalog.create_namespace("n")
        rest.catalog.create_table("n.t", pa.schema([("id", pa.int64())]))
        rest.control(config=vended)
        with pytest.raises(NotSupportedError, match="object_stores is not set"):
            opened(**settings(rest)).execute("SELECT id FROM s.n.t")
        # A configured endpoint stays, whatever the catalog says.
        other = {**vended, "s3.endpoint": "http://192.0.2.1:9000"}
        rest.control(config=other)
        connection = opened(**settings(rest, **{"s3.endpoint": aws.emulator.url}))
        assert rows_of(connection, "SELECT id FROM s.n.t") == []


def test_requests_that_the_catalog_would_sign_are_refused(
    rest: RestCatalog, opened: Opened
) -> None:
    rest.control(config={"s3.remote-signing-enabled": "true"})
    with pytest.raises(NotSupportedError, match="sign each request"):
        opened(**settings(rest)).execute("SELECT id FROM s.n.t")


# --- Glue --------------------------------------------------------------------------------------


def test_a_glue_catalog(aws: AwsEmulator, opened: Opened) -> None:
    from pyiceberg.catalog.glue import GlueCatalog

    properties = {
        "type": "glue",
        "warehouse": "s3://lake/glue",
        "glue.endpoint": aws.emulator.url,
        "glue.access-key-id": KEY,
        "glue.secret-access-key": SECRET,
        "glue.region": REGION,
        **access_to(aws.emulator.url),
    }
    catalog = GlueCatalog("default", **properties)
    catalog.create_namespace("sales")
    table = catalog.create_table("sales.orders", pa.schema([("id", pa.int64())]))
    table.append(pa.table({"id": [1, 2]}))
    connection = opened(kind="iceberg", catalog=properties)
    assert ("sales", "orders") in [t[1] for t in connection.tables("s")]
    assert rows_of(connection, "SELECT id FROM s.sales.orders WHERE id = 2") == [(2,)]


# --- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("catalog", "message"),
    [
        ({"type": "nosuch"}, 'there is no type "nosuch"'),
        ({"type": "rest"}, "the catalog cannot be opened"),
        ({"py-catalog-impl": "os.system", "uri": "x"}, "say its type"),
    ],
)
def test_catalogs_that_make_no_sense(opened: Opened, catalog: dict[str, str], message: str) -> None:
    with pytest.raises(batuta_sql.Error, match=message):
        opened(kind="iceberg", catalog=catalog).execute("SELECT id FROM s.n.t")


def test_pyicebergs_own_configuration_is_not_looked_at(
    rest: RestCatalog, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYICEBERG_CATALOG__DEFAULT__URI", "http://192.0.2.1:1")
    monkeypatch.setenv("PYICEBERG_CATALOG__S__TOKEN", "other")
    assert rows_of(opened(**settings(rest)), "SELECT id FROM s.n.t") == [(1,), (2,)]
