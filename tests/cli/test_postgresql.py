"""The command line over a real server, and its secrets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import adbc_driver_postgresql.dbapi
import pytest

from tests.cli.conftest import Command

PASSWORD = "s3cr%21et"


def configured(folder: Path, uri: str, extra: str = "") -> Path:
    path = folder / "batuta.toml"
    path.write_text(f'[sources.crm]\nkind = "postgresql"\nuri = "{uri}"\n{extra}')
    return path


def run_sql(uri: str, *statements: str) -> None:
    with adbc_driver_postgresql.dbapi.connect(uri, autocommit=True) as con, con.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def test_a_query_on_postgresql(batuta: Command, postgres_uri: str, tmp_path: Path) -> None:
    run_sql(postgres_uri, "CREATE TABLE guest AS SELECT 1 AS id, 'Ann'::text AS name")
    config = configured(tmp_path, postgres_uri, 'locality = "local"\n')
    done = batuta("query", "SELECT * FROM crm.guest", "--format", "csv", config=config)
    assert done.stdout == b"id,name\n1,Ann\n", done.stderr
    tree = json.loads(batuta("tree", "--json", config=config).stdout)
    assert tree[0]["tables"][0]["name"] == "crm.public.guest"
    doctor = batuta("doctor", config=config).stdout.decode()
    assert "crm (postgresql, local: declared): 1 table" in doctor


@pytest.mark.parametrize(
    "arguments",
    [
        ("query", "SELECT * FROM crm.public.guest"),
        ("query", "SELECT * FROM crm.public.guest", "--dry-run"),
        ("explain", "SELECT * FROM crm.public.guest", "--json"),
        ("tree",),
        ("tree", "crm"),
        ("describe", "crm.public.guest"),
        ("search", "guest", "--json"),
        ("doctor",),
        ("doctor", "--json"),
    ],
)
def test_the_password_is_in_no_output(
    arguments: tuple[str, ...], batuta: Command, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        # Bound but not listening: the connection is refused.
        taken.bind(("127.0.0.1", 0))
        uri = f"postgresql://app:{PASSWORD}@127.0.0.1:{taken.getsockname()[1]}/crm"
        done = batuta(*arguments, config=configured(tmp_path, uri))
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 1
    assert "refused" in said
    assert "Traceback" not in said
    for form in (PASSWORD, "s3cr!et", "s3cr"):
        assert form not in said


def test_ctrl_c_ends_the_remote_statement(postgres_uri: str, tmp_path: Path) -> None:
    # A statement the server would take minutes for.
    run_sql(
        postgres_uri,
        "CREATE VIEW slow AS SELECT 1 AS id FROM pg_sleep(120)",
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "batuta_sql",
            "query",
            "SELECT * FROM crm.public.slow",
            "--config",
            str(configured(tmp_path, postgres_uri)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ),
    )
    running = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = 'batuta-sql' AND query LIKE '%slow%' AND state = 'active'"
    )
    with adbc_driver_postgresql.dbapi.connect(postgres_uri, autocommit=True) as con:
        assert _soon(con, running, 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert _soon(con, running, 0)
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()


def _soon(connection: adbc_driver_postgresql.dbapi.Connection, sql: str, wanted: int) -> bool:
    for _ in range(200):
        with connection.cursor() as cursor:
            cursor.execute(sql)
            if cursor.fetchall()[0][0] == wanted:
                return True
        time.sleep(0.1)
    return False
