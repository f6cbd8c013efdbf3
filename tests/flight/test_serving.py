"""Where the command listens, and where it will not."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import batuta_sql
from batuta_sql.config import load_settings
from batuta_sql.guards.egress import abilities
from tests.faults.conftest import eventually
from tests.flight.conftest import ANN, USERS, client, fetched, served
from tests.flight.test_authentication import certificate

SEAL = abilities()[0]
SEALED = pytest.mark.skipif(
    not SEAL.ok and "BATUTA_REQUIRE_SEAL" not in os.environ,
    reason=f"this machine cannot make a seal: {SEAL.detail}; {SEAL.remedy}",
)


def refused(path: Path, *options: str) -> tuple[int, str]:
    """Status and words of a server that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "batuta_sql", "--config", str(path), "serve", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_a_free_port_is_printed(config: Path, tmp_path: Path) -> None:
    with served(config, tmp_path) as server:
        assert server.uri.startswith("grpc://127.0.0.1:")
        assert not server.uri.endswith(":0")
        assert server.process.stdout is not None
        assert "no users are configured" in server.process.stdout.readline()
        with client(server, None) as connection:
            assert fetched(connection, "SELECT count(*) FROM pub.beer") == [(4,)]


def test_a_line_is_written_for_each_query(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "batuta.toml"
    path.write_text(config.read_text() + USERS)
    with served(path, tmp_path) as server, client(server, ANN) as connection:
        fetched(connection, "SELECT id FROM pub.beer WHERE name <> ?", ("a value",))
        # The rows may arrive before the line is written.
        assert eventually(lambda: len(server.lines()) == 1)
    (line,) = server.lines()
    assert re.search(r"user=ann status='finished' seconds=\d+\.\d{3} rows=3$", line)
    assert "a value" not in line


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "db.example"])
def test_others_are_served_with_tls_and_users_alone(
    config: Path, with_users: Path, tmp_path: Path, host: str
) -> None:
    pem, key = certificate(tmp_path)
    tls = ("--tls-certificate", str(pem), "--tls-key", str(key))
    for path, options, missing in (
        (config, (), "no TLS (--tls-certificate, --tls-key) and no users"),
        (with_users, (), "no TLS"),
        (config, tls, "no users (serve.users.NAME)"),
    ):
        status, said = refused(path, "--host", host, *options)
        assert status == 1
        assert f"{host} can be reached from elsewhere" in said
        assert missing in said
        assert "listen on 127.0.0.1" in said


def test_with_both_it_listens_everywhere(with_users: Path, tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    options = ["--host", "0.0.0.0", "--tls-certificate", str(pem), "--tls-key", str(key)]
    with served(with_users, tmp_path, *options) as server:
        server.uri = server.uri.replace("0.0.0.0", "127.0.0.1")
        roots = {"adbc.flight.sql.client_option.tls_root_certs": pem.read_text()}
        with client(server, **roots) as connection:
            assert fetched(connection, "SELECT 42 AS answer") == [(42,)]


def test_a_port_that_is_taken(config: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        status, said = refused(config, "--port", port)
    assert status == 1
    assert f"nothing can be served at grpc://127.0.0.1:{port}" in said
    assert "the port may be in use" in said


def test_options_that_do_not_go_together(config: Path, with_users: Path, tmp_path: Path) -> None:
    assert "give tls_certificate and tls_key, or neither" in refused(config, "--tls-key", "k")[1]
    assert "port" in refused(config, "--port", "70000")[1]
    assert "cannot be read" in refused(config, "--tls-key", "k", "--tls-certificate", "c")[1]
    assert "serve.users.NAME.allow_labels" in refused(with_users, "--allow-label", "pii")[1]


def test_a_secret_that_is_not_there(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "batuta.toml"
    user = '[serve.users.ann]\npassword = { env = "BATUTA_TEST_NOBODY_SETS_THIS" }\n'
    path.write_text(config.read_text() + user)
    assert "BATUTA_TEST_NOBODY_SETS_THIS is not set" in refused(path)[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[serve.users.ann]\nmax_cost_usd = 1", "give the user a password or a token"),
        ('[serve.users."a:b"]\ntoken = "t"', "serve.users"),
        ("[serve]\nmax_querys = 1", 'did you mean "max_queries"'),
        ("[serve]\nqueue_seconds = 0", "greater than 0"),
        ('[serve]\ntls_key = "k"', "give tls_certificate and tls_key, or neither"),
    ],
)
def test_wrong_settings_are_named_with_their_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "batuta.toml"
    path.write_text(f"\n\n{text}\n")
    with pytest.raises(batuta_sql.Error) as caught:
        load_settings(path)
    assert said in str(caught.value)
    assert f"{path}:" in str(caught.value)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "batuta.toml"
    path.write_text(USERS)
    assert "secret'" not in repr(load_settings(path).serve)
    assert "ann's" not in repr(load_settings(path).serve)


@SEALED
def test_fully_sovereign_serves_this_machine_alone(with_users: Path, tmp_path: Path) -> None:
    path = tmp_path / "batuta.toml"
    path.write_text('tier = "fully_sovereign"\n' + with_users.read_text())
    pem, key = certificate(tmp_path)
    tls = ("--tls-certificate", str(pem), "--tls-key", str(key))
    status, said = refused(path, "--host", "0.0.0.0", *tls)
    assert status == 4
    assert "the tier fully_sovereign serves this machine alone" in said


# --- Unix sockets --------------------------------------------------------------------------------


def test_a_unix_socket_is_this_users_alone(config: Path, tmp_path: Path) -> None:
    place = tmp_path / "serve.sock"
    with served(config, tmp_path, "--socket", str(place)) as server:
        assert server.uri == f"grpc+unix://{place}"
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        with client(server, None) as connection:
            assert fetched(connection, "SELECT 42 AS answer") == [(42,)]
        status, said = refused(config, "--socket", str(place))
        assert status == 1
        assert "another server listens" in said
        with client(server, None) as connection:
            assert fetched(connection, "SELECT 42 AS answer") == [(42,)]


def test_a_socket_that_a_killed_server_has_left_is_taken_over(config: Path, tmp_path: Path) -> None:
    place = tmp_path / "serve.sock"
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(place))
    options = ["--socket", str(place)]
    with served(config, tmp_path, *options) as server, client(server, None) as connection:
        assert fetched(connection, "SELECT 42 AS answer") == [(42,)]


def test_a_file_is_not_written_over(config: Path, tmp_path: Path) -> None:
    place = tmp_path / "notes.txt"
    place.write_text("keep me")
    assert "is there, and no socket" in refused(config, "--socket", str(place))[1]
    assert place.read_text() == "keep me"


@SEALED
def test_under_a_seal_clients_come_by_the_socket(with_users: Path, tmp_path: Path) -> None:
    path = tmp_path / "batuta.toml"
    path.write_text('tier = "fully_sovereign"\n' + with_users.read_text())
    place = tmp_path / "serve.sock"
    options = ["--socket", str(place)]
    with served(path, tmp_path, *options) as server, client(server, ANN) as connection:
        assert fetched(connection, "SELECT count(*) FROM pub.beer") == [(4,)]
