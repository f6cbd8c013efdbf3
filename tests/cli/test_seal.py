"""``batuta-sql seal``, and the commands of a tier, which run sealed by themselves."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from batuta_sql.guards.egress import abilities
from tests.cli.conftest import Command
from tests.cli.test_postgresql import run_sql
from tests.guards.egress.test_fail_closed import refusing

SEAL = abilities()[0]
# A container may be unable. Where `.ci/run` has seen that it is not, skipping would be an error.
pytestmark = pytest.mark.skipif(
    not SEAL.ok and "BATUTA_REQUIRE_SEAL" not in os.environ,
    reason=f"this machine cannot make a seal: {SEAL.detail}; {SEAL.remedy}",
)

REFUSING = refusing("unshare") + "\nimport os, sys; os.execv(sys.executable, sys.argv[1:])"
"""Starts the rest of the command line where no seal can be made."""


@pytest.fixture
def banner() -> Iterator[tuple[int, list[bytes]]]:
    """A server that notes what it is sent, and answers with a line; its port."""
    heard: list[bytes] = []

    def serve(server: socket.socket) -> None:
        while True:
            try:
                one, _ = server.accept()
            except OSError:
                return
            with one:
                heard.append(one.recv(100))
                one.sendall(b"welcome\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield server.getsockname()[1], heard


def dial(host: str, port: int) -> list[str]:
    program = (
        f"import socket; one = socket.create_connection(({host!r}, {port}), 10)\n"
        "one.sendall(b'hello'); print(one.recv(100).decode().strip())"
    )
    return [sys.executable, "-c", program]


def test_a_command_runs_with_its_own_arguments_and_status(batuta: Command) -> None:
    script = 'printf "%s|" "$@"; exit 9'
    given = ["sh", "-c", script, "x", "--config", "a", "--help", "-", "--", "-- b"]
    done = batuta("seal", "--", *given, config=None)
    assert done.stdout == b"--config|a|--help|-|--|-- b|"
    assert done.returncode == 9


def test_it_reaches_a_forward_and_nothing_else(
    batuta: Command, banner: tuple[int, list[bytes]]
) -> None:
    port, heard = banner
    done = batuta("seal", "--", *dial("127.0.0.1", port), config=None)
    assert b"ConnectionRefusedError" in done.stderr
    assert heard == []
    for forward, host, inside in (
        (f"127.0.0.1:{port}", "127.0.0.1", port),
        (f"warehouse.example:443=127.0.0.1:{port}", "warehouse.example", 443),
        (f"[2001:db8::1]:443=localhost:{port}", "2001:db8::1", 443),
    ):
        arguments = ["seal", "--forward", forward, "--", *dial(host, inside)]
        assert batuta(*arguments, config=None).stdout == b"welcome\n"
    assert heard == [b"hello"] * 3


def test_it_hides_sockets_that_are_not_kept(batuta: Command, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        program = f"import socket; socket.socket(socket.AF_UNIX).connect({path!r})"
        command = ["--", sys.executable, "-c", program]
        assert b"refused" in batuta("seal", *command, config=None).stderr
        assert batuta("seal", "--keep", path, *command, config=None).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["seal"],
        ["seal", "--"],
        ["seal", "echo", "ran"],
        ["seal", "--forward", "warehouse.example", "--", "echo", "ran"],
        ["seal", "--forward", "warehouse.example:x", "--", "echo", "ran"],
        ["seal", "--forward", "warehouse.example:443=other", "--", "echo", "ran"],
        ["seal", "--forward", "0.0.0.0:443", "--", "echo", "ran"],
        ["seal", "--forward", "a:1=/x", "--forward", "a:1=/y", "--", "echo", "ran"],
    ],
)
def test_a_wrong_command_line_runs_nothing(batuta: Command, arguments: list[str]) -> None:
    done = batuta(*arguments, config=None)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Try: batuta-sql --help" in done.stderr


def test_where_no_seal_can_be_made_nothing_runs(batuta: Command) -> None:
    started = [sys.executable, "-c", REFUSING, sys.executable, "-m", "batuta_sql"]
    done = subprocess.run([*started, "seal", "--", "echo", "ran"], capture_output=True)
    assert (done.returncode, done.stdout) == (78, b"")
    assert b"nothing was run" in done.stderr
    assert b"Hint: " in done.stderr


# --- tiers -------------------------------------------------------------------------------------


def configured(folder: Path, tier: str, sources: str) -> Path:
    path = folder / "batuta.toml"
    path.write_text(f'tier = "{tier}"\n{sources}')
    return path


def postgresql(name: str, port: int, locality: str) -> str:
    return (
        f'[sources.{name}]\nkind = "postgresql"\nuri = "postgresql://u@127.0.0.1:{port}/d"\n'
        f'locality = "{locality}"\nconnect_timeout = 5\n'
    )


@pytest.mark.parametrize("tier", ["fully_sovereign", "private_cloud"])
def test_a_tiers_commands_run_sealed_and_reach_its_databases(
    batuta: Command, tmp_path: Path, postgres_uri: str, tier: str
) -> None:
    run_sql(postgres_uri, "CREATE TABLE guest AS SELECT 1 AS id, 'Ann'::text AS name")
    source = f'[sources.crm]\nkind = "postgresql"\nuri = "{postgres_uri}"\nlocality = "local"\n'
    config = configured(tmp_path, tier, source)
    query = ["query", "SELECT * FROM crm.guest", "--format", "csv"]
    done = batuta(*query, config=config)
    assert done.stdout == b"id,name\n1,Ann\n", done.stderr
    state = json.loads(batuta("doctor", "--json", config=config).stdout)
    assert state["tier"] == tier
    assert [a["detail"] for a in state["abilities"]] == ["in force: this process is sealed"]
    assert state["sources"][0]["tables"] == 1


def test_what_the_tier_does_not_allow_has_no_way_out(
    batuta: Command, tmp_path: Path, banner: tuple[int, list[bytes]]
) -> None:
    """Not even for a program that asks no guard: ``seal`` with the tier's own configuration."""
    port, heard = banner
    for locality, said in (("public", b""), ("private", b"welcome\n")):
        config = configured(tmp_path, "hybrid_sovereign", postgresql("db", port, locality))
        done = batuta("seal", "--", *dial("127.0.0.1", port), config=config)
        assert done.stdout == said, done.stderr
    assert heard == [b"hello"]


@pytest.mark.parametrize("tier", ["fully_sovereign", "private_cloud"])
@pytest.mark.parametrize("command", [["query", "SELECT * FROM db.t"], ["tree"], ["doctor"]])
def test_a_tier_that_cannot_be_enforced_stops_every_command(
    tmp_path: Path, banner: tuple[int, list[bytes]], tier: str, command: list[str]
) -> None:
    config = configured(tmp_path, tier, postgresql("db", banner[0], "local"))
    started = [sys.executable, "-c", REFUSING, sys.executable, "-m", "batuta_sql"]
    done = subprocess.run([*started, "--config", str(config), *command], capture_output=True)
    assert done.returncode == 78
    assert b"cannot be enforced" in done.stderr
    assert banner[1] == []
    if command == ["doctor"]:
        assert b"egress seal              no: " in done.stdout
    else:
        assert done.stdout == b""


def test_a_standard_tier_is_not_sealed(batuta: Command, tmp_path: Path) -> None:
    config = configured(tmp_path, "standard", "")
    found = json.loads(batuta("doctor", "--json", config=config).stdout)["abilities"]
    assert [a["name"] for a in found] == ["egress seal", "in-process lock"]
    assert all(a["ok"] for a in found)
    assert b"egress seal              yes: tried" in batuta("doctor", config=config).stdout


def test_signals_and_interruption_reach_a_sealed_query(batuta: Command, tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    source = f'[sources.lake]\nkind = "files"\npath = "{tmp_path}/lake"\n'
    config = configured(tmp_path, "fully_sovereign", source)
    arguments = [sys.executable, "-m", "batuta_sql", "--config", str(config), "query", "-"]
    running = subprocess.Popen(arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdin is not None
    long = b"SELECT count(*) FROM range(1000000000) a, range(1000000000) b\n"
    running.stdin.write(long)
    running.stdin.close()
    timer = threading.Timer(3.0, lambda: running.send_signal(2))
    timer.start()
    assert running.wait(60) == 130


# --- from Python -------------------------------------------------------------------------------

CONNECT = """
import sys, batuta_sql
from batuta_sql.guards.egress import lock
{first}
try:
    with batuta_sql.connect({{"sources": {{}}}}, tier="fully_sovereign") as con:
        print(con.execute("SELECT 42").fetchall())
except batuta_sql.SealError as error:
    print(error)
    sys.exit(error.exit_status)
"""


def test_a_program_of_ones_own_works_sealed_and_locked(batuta: Command) -> None:
    bare = [sys.executable, "-c", CONNECT.format(first="")]
    assert batuta("seal", "--", *bare, config=None).stdout == b"[(42,)]\n"
    locked = [sys.executable, "-c", CONNECT.format(first="lock()")]
    assert subprocess.run(locked, capture_output=True, text=True).stdout == "[(42,)]\n"


def test_a_tier_keeps_postgresqls_socket_and_hides_its_folder(
    batuta: Command, tmp_path: Path
) -> None:
    paths = [tmp_path / ".s.PGSQL.5432", tmp_path / "other"]
    program = (
        "import socket\n"
        f"for path in {[str(p) for p in paths]!r}:\n"
        "    print(socket.socket(socket.AF_UNIX).connect_ex(path))"
    )
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        for one, path in zip((first, second), paths, strict=True):
            one.bind(str(path))
            one.listen()
        uri = f"postgresql:///d?host={tmp_path}"
        source = f'[sources.db]\nkind = "postgresql"\nuri = "{uri}"\n'
        config = configured(tmp_path, "fully_sovereign", source)
        done = batuta("seal", "--", sys.executable, "-c", program, config=config)
    assert done.stdout.split() == [b"0", b"111"], done.stderr
