"""Where a source is, from its settings alone."""

from __future__ import annotations

from typing import Any

import pytest

from batuta_sql.config import load_settings
from batuta_sql.guards.locality import Endpoint, endpoints, whereabouts


def settings_of(**keys: Any) -> Any:
    return load_settings({"sources": {"s": keys}}).sources["s"]


def postgresql(uri: str) -> Any:
    return settings_of(kind="postgresql", uri=uri)


@pytest.fixture(autouse=True)
def _no_libpq_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("uri", "locality"),
    [
        ("postgresql://u@127.0.0.1/d", "local"),
        ("postgresql://u@127.8.9.1:6000/d", "local"),
        ("postgresql://u@localhost/d", "local"),
        ("postgresql://u@[::1]:5433/d", "local"),
        ("postgresql://u@%2Frun%2Fpostgresql/d", "local"),
        ("postgresql:///d?host=/run/postgresql", "local"),
        ("postgresql:///d", "local"),
        ("postgresql://u@10.1.2.3/d", "private"),
        ("postgresql://u@172.31.0.1/d", "private"),
        ("postgresql://u@192.168.1.1/d", "private"),
        ("postgresql://u@[fd00::1]/d", "private"),
        ("postgresql://u@[::ffff:10.0.0.1]/d", "private"),
        ("postgresql://u@172.32.0.1/d", "public"),
        ("postgresql://u@8.8.8.8/d", "public"),
        ("postgresql://u@[2001:db8::1]/d", "public"),
        ("postgresql://u@vpce-0a-b.x.vpce.amazonaws.com/d", "vpc"),
        ("postgresql://u@db.internal/d", "public"),
        ("postgresql://u@localhost.evil.example/d", "public"),
        ("postgresql://u@notlocalhost/d", "public"),
    ],
)
def test_the_host_of_a_uri_tells_the_locality(uri: str, locality: str) -> None:
    assert whereabouts(postgresql(uri)).locality == locality


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://u@127.0.0.1,8.8.8.8/d",
        "postgresql://u@127.0.0.1/d?host=db.example.com",
        "postgresql://u@127.0.0.1/d?hostaddr=8.8.8.8",
        "postgresql://u@/d?host=/tmp,db.example.com",
        "postgresql://u@127.0.0.1/d?service=far",
    ],
)
def test_the_farthest_of_what_libpq_may_dial_counts(uri: str) -> None:
    assert whereabouts(postgresql(uri)).locality == "public"


@pytest.mark.parametrize(
    ("variable", "value", "uri"),
    [
        ("PGHOST", "db.example.com", "postgresql:///d"),
        ("PGHOSTADDR", "8.8.8.8", "postgresql://u@localhost/d"),
        ("PGSERVICE", "far", "postgresql:///d"),
    ],
)
def test_what_libpq_takes_from_the_environment_counts(
    variable: str, value: str, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert whereabouts(postgresql(uri)).locality == "local"
    monkeypatch.setenv(variable, value)
    assert whereabouts(postgresql(uri)).locality == "public"


@pytest.mark.parametrize(
    ("keys", "locality"),
    [
        ({"kind": "sqlite", "path": "a.sqlite"}, "local"),
        ({"kind": "duckdb", "path": "a.duckdb"}, "local"),
        ({"kind": "files", "path": "folder"}, "local"),
        ({"kind": "files", "tables": {"t": "file:///data/*.parquet"}}, "local"),
        ({"kind": "files", "tables": {"t": "https://example.com/t.parquet"}}, "public"),
        ({"kind": "files", "tables": {"t": "http://127.0.0.1:9000/t.parquet"}}, "local"),
        ({"kind": "delta", "path": "s3://bucket/folder"}, "public"),
        (
            {
                "kind": "delta",
                "path": "s3://bucket/folder",
                "storage_options": {"AWS_ENDPOINT_URL": "http://10.0.0.8:9000"},
            },
            "private",
        ),
        ({"kind": "snowflake", "account": "acct"}, "public"),
        ({"kind": "snowflake", "account": "acct.privatelink"}, "private"),
        ({"kind": "snowflake", "account": "a", "host": "127.0.0.1", "port": 8082}, "local"),
        ({"kind": "databricks", "host": "https://dbc-1.cloud.databricks.com"}, "public"),
        ({"kind": "bigquery", "project": "p"}, "public"),
        ({"kind": "bigquery", "project": "p", "endpoint": "http://localhost:9050"}, "local"),
        (
            {
                "kind": "bigquery",
                "project": "p",
                "endpoint": "https://10.1.2.3",
                "storage_endpoint": "10.1.2.4:443",
            },
            "private",
        ),
        (
            {
                "kind": "bigquery",
                "project": "p",
                "endpoint": "https://10.1.2.3",
                "storage_endpoint": "bigquerystorage.googleapis.com",
            },
            "public",
        ),
        ({"kind": "glue"}, "public"),
        ({"kind": "glue", "endpoint": "http://192.168.3.4:5000"}, "private"),
        ({"kind": "glue", "storage_options": {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}}, "public"),
        (
            {
                "kind": "glue",
                "endpoint": "http://127.0.0.1:5000",
                "storage_options": {"AWS_ENDPOINT_URL": "https://s3.eu-west-1.amazonaws.com"},
            },
            "public",
        ),
        ({"kind": "huggingface", "repo": "a/b"}, "public"),
        ({"kind": "ald", "path": "x.ald"}, "local"),
        ({"kind": "iceberg", "catalog": {"type": "sql"}}, "public"),
        ({"kind": "iceberg", "catalog": {"uri": "sqlite:////data/cat.db"}}, "local"),
        ({"kind": "iceberg", "tables": {"t": "/data/t"}}, "local"),
        ({"kind": "iceberg", "tables": {"t": "s3://b/t"}}, "public"),
        ({"kind": "iceberg", "catalog": {"uri": "http://10.0.0.8:8181"}}, "private"),
        (
            {"kind": "iceberg", "catalog": {"uri": "http://10.0.0.8:8181"}, "object_stores": True},
            "public",
        ),
        (
            {
                "kind": "iceberg",
                "catalog": {"uri": "http://127.0.0.1:1", "s3.endpoint": "http://10.0.0.8:9000"},
            },
            "private",
        ),
        ({"kind": "iceberg", "catalog": {"type": "glue", "glue.region": "eu-west-1"}}, "public"),
        (
            {"kind": "iceberg", "catalog": {"type": "glue", "glue.endpoint": "http://127.0.0.1"}},
            "local",
        ),
        (
            {
                "kind": "iceberg",
                "catalog": {"uri": "http://127.0.0.1:1", "oauth2-server-uri": "https://login.x"},
            },
            "public",
        ),
    ],
)
def test_every_kind_has_a_locality_and_the_unknown_is_public(
    keys: dict[str, Any], locality: str
) -> None:
    assert whereabouts(settings_of(**keys)).locality == locality


def test_a_declared_locality_wins_and_reads_no_secret() -> None:
    def secret() -> str:
        raise AssertionError("the secret was read")

    found = whereabouts(settings_of(kind="postgresql", uri=secret, locality="vpc"))
    assert (found.locality, found.declared) == ("vpc", True)


def test_endpoints_name_each_address_and_port() -> None:
    assert endpoints(postgresql("postgresql://u@a:1,b/d")) == (
        Endpoint("a", 1),
        Endpoint("b", 5432),
    )
    assert endpoints(settings_of(kind="postgresql", host="10.0.0.1", port=6000)) == (
        Endpoint("10.0.0.1", 6000),
    )
    assert endpoints(postgresql("postgresql:///d?host=/run/pg")) == (
        Endpoint(port=5432, socket="/run/pg"),
    )
    assert endpoints(settings_of(kind="sqlite", path="x")) == ()
