"""Harlequin, with and without its screen, over a configuration."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi
import pytest
from harlequin.catalog import InteractiveCatalogItem
from harlequin.exception import HarlequinConfigError, HarlequinQueryError

from batuta_sql.demo.postgres_server import PostgresServer
from batuta_sql.harlequin_adapter import BatutaAdapter, BatutaConnection, short_type
from tests.shell.conftest import Terminal

Headless = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    with sqlite3.connect(tmp_path / "crm.sqlite") as db:
        db.execute("CREATE TABLE customer (id INTEGER, email TEXT)")
        db.executemany("INSERT INTO customer VALUES (?, ?)", [(1, "a@x"), (2, "b@x")])
        db.execute("CREATE VIEW both AS SELECT id FROM customer")
    path = tmp_path / "batuta.toml"
    path.write_text(
        f'[sources.crm]\nkind = "sqlite"\npath = "{tmp_path}/crm.sqlite"\n'
        "pricing = { usd_per_tb_scanned = 5.0 }\n"
        '[sources.crm.tables.customer.columns]\nemail = { labels = ["pii"] }\n'
    )
    return path


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Harlequin's own files go where nobody's are."""
    names = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "HOME")
    return {name: str(tmp_path / "home") for name in names}


@pytest.fixture
def headless(config: Path, environment: dict[str, str]) -> Headless:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("hsql")), "-a", "batuta", str(config), *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.fixture
def connection(config: Path) -> Iterator[BatutaConnection]:
    made = BatutaAdapter([str(config)]).connect()
    yield made
    made.close()


def fetched(connection: BatutaConnection, sql: str, limit: int | None = None) -> Any:
    cursor = connection.execute(sql)
    assert cursor is not None
    return (cursor if limit is None else cursor.set_limit(limit)).fetchall()


# --- the program -------------------------------------------------------------------------------


def test_harlequin_finds_the_adapter() -> None:
    (found,) = entry_points(group="harlequin.adapter", name="batuta")
    assert found.load() is BatutaAdapter


def test_a_query_from_the_command_line(headless: Headless) -> None:
    done = headless("-c", "SELECT * FROM crm.customer ORDER BY id", "--json")
    assert json.loads(done.stdout) == [{"id": 1, "email": "a@x"}, {"id": 2, "email": "b@x"}]


def test_an_error_points_at_the_sql_and_suggests_the_next_step(headless: Headless) -> None:
    done = headless("-c", "SELECT mail FROM crm.customer")
    assert done.returncode != 0
    assert 'did you mean "email"' in done.stderr
    assert "^" in done.stderr


def test_the_catalog_is_listed_level_by_level(headless: Headless) -> None:
    def names(*path: str) -> list[tuple[str, str]]:
        done = headless("--catalog", *path, "--json")
        return [(row["name"], row["type"]) for row in json.loads(done.stdout)]

    assert names() == [("crm", "sqlite")]
    assert names("--path", "crm") == [("both", "view"), ("customer", "table")]
    assert names("--path", "crm.customer") == [("id", "BIGINT"), ("email", "VARCHAR")]


def test_the_catalog_is_searched(headless: Headless) -> None:
    done = headless("--catalog-search", "mail", "--json")
    assert [row["path"] for row in json.loads(done.stdout)] == ["crm.customer.email"]


def test_on_a_screen(config: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "harlequin", "-a", "batuta", str(config)]
    terminal = Terminal(command, {**environment, "TERM": "xterm-256color"})
    terminal.see("crm")
    terminal.type("SELECT email, 40 + 2 AS n FROM crm.customer ORDER BY 1")
    terminal.press("j")
    terminal.see("b@x")
    # What has labels is marked on its head.
    assert "email s!" in terminal.text
    assert "n ##~" in terminal.text
    terminal.press("q")


# --- rows --------------------------------------------------------------------------------------


def test_a_limit_leaves_nothing_running(connection: BatutaConnection) -> None:
    assert fetched(connection, "SELECT range AS n FROM range(10000000)", 7).num_rows == 7
    assert fetched(connection, "SELECT * FROM crm.customer WHERE false").schema.names == [
        "id",
        "email",
    ]
    assert fetched(connection, "SELECT * FROM crm.customer", 0).num_rows == 0


def test_statements_without_rows_give_no_cursor(connection: BatutaConnection) -> None:
    assert connection.execute("CREATE TABLE mine AS SELECT email FROM crm.customer") is None
    cursor = connection.execute("SELECT * FROM mine")
    assert cursor is not None
    assert cursor.columns() == [("email", "s!")]
    assert "mine" in fetched(connection, "SHOW TABLES")["name"].to_pylist()


@pytest.mark.parametrize(
    ("kind", "short"),
    [
        ("INTEGER", "##"),
        ("DECIMAL(18,2)", "#.#"),
        ("VARCHAR[]", "[]"),
        ("TIMESTAMP WITH TIME ZONE", "dt"),
        ("STRUCT(a INTEGER)", "{}"),
        ("BOOLEAN", "t/f"),
        ("GEOMETRY", "?"),
    ],
)
def test_types_are_short(kind: str, short: str) -> None:
    assert short_type(kind) == short


def test_a_source_that_does_not_answer_says_so_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "batuta.toml"
    path.write_text(
        '[sources.down]\nkind = "postgresql"\nuri = "postgresql://127.0.0.1:1/x"\n'
        'locality = "local"\n'
    )
    made = BatutaAdapter([str(path)]).connect()
    (source,) = made.get_catalog().items
    assert isinstance(source, InteractiveCatalogItem)
    with pytest.raises(HarlequinQueryError, match="down"):
        source.fetch_children()
    made.close()


def test_completions_are_duckdbs(connection: BatutaConnection) -> None:
    found = {(c.value, c.type_label) for c in connection.get_completions()}
    assert {("select", "kw"), ("list_transform", "fn")} <= found


# --- cost and cancelling -----------------------------------------------------------------------


def test_the_question_about_cost_is_answered_by_running_again(config: Path) -> None:
    config.write_text("[cost]\nwarn_usd = 0.0000000001\n" + config.read_text())
    made = BatutaAdapter(batuta_config=config).connect()
    sql = "SELECT * FROM crm.customer"
    with pytest.raises(HarlequinQueryError, match="Run it again to agree") as asked:
        made.execute(sql)
    assert "Estimated cost: less than" in asked.value.msg
    assert "[y/N]" not in asked.value.msg
    # Another text is another question.
    with pytest.raises(HarlequinQueryError, match="Run it again"):
        made.execute(f"{sql} WHERE id > 0")
    assert fetched(made, f"{sql} WHERE id > 0").num_rows == 2
    # And the next time it is asked again.
    with pytest.raises(HarlequinQueryError, match="Run it again"):
        made.execute(f"{sql} WHERE id > 0")
    made.close()


def test_limits_hold_all_the_same(config: Path) -> None:
    made = BatutaAdapter([str(config)], max_cost_usd="0.0000000001").connect()
    for _ in range(2):
        with pytest.raises(HarlequinQueryError, match="max_cost_usd"):
            made.execute("SELECT * FROM crm.customer")
    made.close()


@pytest.mark.parametrize("options", [{"max_cost_usd": "much"}, {"conn_str": ["a", "b"]}])
def test_wrong_options_are_said(options: dict[str, Any]) -> None:
    with pytest.raises(HarlequinConfigError):
        BatutaAdapter(**options)


def test_cancelling_leaves_nothing_running(postgres: PostgresServer, tmp_path: Path) -> None:
    with postgres.database("harlequin") as uri:
        path = tmp_path / "batuta.toml"
        path.write_text(f'[sources.slow]\nkind = "postgresql"\nuri = "{uri}"\nlocality = "local"\n')
        with adbc_driver_postgresql.dbapi.connect(uri, autocommit=True) as server:
            look = server.cursor()
            look.execute("CREATE VIEW nap AS SELECT pg_sleep(60)::text AS s")
            made = BatutaAdapter([str(path)]).connect()
            failed: list[Exception] = []

            def run() -> None:
                try:
                    fetched(made, "SELECT s FROM slow.nap")
                except HarlequinQueryError as error:
                    failed.append(error)

            thread = threading.Thread(target=run)
            thread.start()

            def others() -> int:
                look.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
                    " AND query LIKE '%nap%' AND pid <> pg_backend_pid()"
                )
                row = look.fetchone()
                assert row is not None
                return int(row[0])

            _until(lambda: others() > 0)
            made.cancel()
            thread.join(30)
            assert not thread.is_alive()
            assert failed
            _until(lambda: others() == 0)
            made.close()


def _until(met: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not met():
        assert time.monotonic() < end
        time.sleep(0.1)
