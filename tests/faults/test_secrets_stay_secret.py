"""A password appears nowhere: not in errors, tracebacks, reprs, plans, nor what drivers log."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote

import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer
from tests.faults.conftest import connect

PASSWORD = "Pa$$ w%rd/?#&'\"ö"
"""With all that URIs, SQL and shells treat in some special way."""


@pytest.fixture(scope="module")
def account(postgres: PostgresServer, big_uri: str) -> Iterator[dict[str, Any]]:
    """A role with a password of its own, as settings of a source."""
    postgres.run(
        f"CREATE ROLE guest LOGIN PASSWORD $pw${PASSWORD}$pw$;"
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest;",
        big_uri.rsplit("/", 1)[1],
    )
    yield {
        "kind": "postgresql",
        "host": postgres.host,
        "port": postgres.port,
        "database": big_uri.rsplit("/", 1)[1],
        "user": "guest",
        "password": PASSWORD,
    }
    postgres.run("DROP OWNED BY guest; DROP ROLE guest", big_uri.rsplit("/", 1)[1])


def shows(text: str, secret: str = PASSWORD) -> bool:
    forms = {secret, quote(secret), quote(secret, safe=""), repr(secret)[1:-1]}
    return any(form in text for form in forms)


def everything_about(error: BaseException) -> str:
    return "\n".join(
        [
            str(error),
            repr(error),
            str(vars(error)),
            "".join(traceback.format_exception(error)),
            "".join(traceback.TracebackException.from_exception(error).format(chain=True)),
        ]
    )


def as_uri(account: dict[str, Any], password: str = PASSWORD, port: int | None = None) -> str:
    return (
        f"postgresql://{account['user']}:{quote(password, safe='')}@{account['host']}"
        f":{port or account['port']}/{account['database']}"
    )


def test_the_password_works_in_either_form(account: dict[str, Any]) -> None:
    for settings in (account, {"kind": "postgresql", "uri": as_uri(account)}):
        with closing(batuta_sql.connect({"sources": {"shop": settings}})) as connection:
            table = connection.execute("SELECT count(*) AS n FROM shop.public.small")
            assert table.fetchall() == [(10,)]


@pytest.mark.parametrize("form", ["key", "uri"])
def test_reprs_and_plans(account: dict[str, Any], form: str) -> None:
    settings = account if form == "key" else {"kind": "postgresql", "uri": as_uri(account)}
    with closing(batuta_sql.connect({"sources": {"shop": settings}})) as connection:
        cursor = connection.execute("SELECT id FROM shop.public.small WHERE id > 3")
        source = connection._session.sources["shop"]
        shown = [
            repr(connection),
            str(vars(connection)),
            repr(connection._settings),
            str(connection._settings.model_dump()),
            connection._settings.model_dump_json(),
            repr(source),
            str(vars(source)),
            repr(cursor),
            str(cursor.plan),
            repr(cursor.plan.fragments),
            cursor.plan.residual,
            str(cursor.metrics),
            connection.explain("SELECT * FROM shop.public.small"),
            repr(connection.estimate("SELECT * FROM shop.public.small")),
        ]
        assert not [text for text in shown if shows(text)]
        with pytest.raises(TypeError):
            pickle.dumps(connection._settings)


FAILURES = {
    "refused": (1, PASSWORD, "SELECT * FROM shop.public.small"),
    "wrong password": (None, PASSWORD + "x", "SELECT * FROM shop.public.small"),
    "no such table": (None, PASSWORD, "SELECT * FROM shop.public.smal"),
    "no such column": (None, PASSWORD, "SELECT idd FROM shop.public.small"),
    "fails at the server": (None, PASSWORD, "SELECT id * 2000000000 FROM shop.public.small"),
}


@pytest.mark.parametrize("form", ["key", "uri"])
@pytest.mark.parametrize("failure", FAILURES)
def test_errors_and_tracebacks(account: dict[str, Any], failure: str, form: str) -> None:
    port, password, sql = FAILURES[failure]
    if form == "key":
        settings = account | {"port": port or account["port"], "password": password}
    else:
        settings = {"kind": "postgresql", "uri": as_uri(account, password, port)}
    with closing(batuta_sql.connect({"sources": {"shop": settings}})) as connection:
        with pytest.raises(batuta_sql.Error) as caught:
            connection.execute(sql).fetch_arrow_table()
        assert not shows(everything_about(caught.value), password)


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://guest:{}@127.0.0.1:notaport/shop",
        "postgresql://guest:{}@[half/shop",
        "host=127.0.0.1 password={}",
        "postgresql://guest@127.0.0.1:1/shop?password={}&nonsense=1",
    ],
)
def test_a_uri_that_is_wrong(uri: str) -> None:
    secret = "hunter2hunter2"
    with pytest.raises(batuta_sql.Error) as caught, closing(connect(uri.format(secret))) as made:
        made.execute("SELECT * FROM shop.public.small").fetch_arrow_table()
    assert secret not in everything_about(caught.value)


def test_settings_that_are_wrong() -> None:
    for settings in (
        {"kind": "postgresql", "host": "h", "password": PASSWORD, "prot": 1},
        {"kind": "postgresql", "host": "h", "passwort": PASSWORD},
        {
            "kind": "postgresql",
            "uri": f"postgresql://u:{quote(PASSWORD, safe='')}@h/d",
            "host": "h",
        },
        {"kind": "postgresql", "host": "h", "password": [PASSWORD]},
        {"kind": "postgresql", "host": "h", "password": {"plain": PASSWORD}},
        {"kind": "postgresql", "host": "h", "port": f"u:{PASSWORD}"},
    ):
        with pytest.raises(batuta_sql.Error) as caught:
            batuta_sql.connect({"sources": {"shop": settings}})
        assert not shows(everything_about(caught.value)), settings


def test_logs_at_debug(
    account: dict[str, Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        for settings in (account, account | {"password": PASSWORD + "x"}):
            with closing(batuta_sql.connect({"sources": {"shop": settings}})) as connection:
                try:
                    connection.execute("SELECT * FROM shop.public.small").fetch_arrow_table()
                except batuta_sql.Error:
                    continue
    written = capfd.readouterr()
    assert not shows(caplog.text + written.out + written.err)
