"""``connect(tier="fully_sovereign")`` in a program that nothing encloses yet.

Each program is a process of its own: a lock stays for good.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batuta_sql.config import load_settings
from batuta_sql.guards.confinement import needing_ip_sockets
from batuta_sql.guards.egress import abilities

LOCK = next(a for a in abilities() if "lock" in a.name)
needs_lock = pytest.mark.skipif(
    not LOCK.ok and "BATUTA_REQUIRE_SEAL" not in os.environ,
    reason=f"this machine cannot lock a process: {LOCK.detail}",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "t.parquet")
    return tmp_path


def run(program: str, folder: Path) -> list[str]:
    head = f"""
import socket, batuta_sql
from batuta_sql.guards.egress import enforced
near = {{"kind": "files", "path": {str(folder)!r}}}
far = {{"kind": "postgresql", "uri": "postgresql://u@db.example.com/d"}}
database = {{"kind": "postgresql", "uri": "postgresql://u@127.0.0.1:1/d"}}
def dial():
    try:
        socket.socket().close()
        return "open"
    except OSError as error:
        return type(error).__name__
"""
    done = subprocess.run([sys.executable, "-c", head + program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@needs_lock
def test_a_program_over_local_files_is_locked_and_works(folder: Path) -> None:
    program = """
print(enforced(), dial())
with batuta_sql.connect({"sources": {"s": near, "far": far}}, tier="fully_sovereign") as con:
    print(con.execute("SELECT sum(a) FROM s.t").fetchone())
print(enforced(), dial())
with batuta_sql.connect({"sources": {"s": near}}, tier="fully_sovereign") as con:
    print(con.execute("SELECT count(*) FROM s.t").fetchone())
"""
    assert run(program, folder) == [
        "None open",
        "(3,)",
        "locked PermissionError",
        "(2,)",
    ]


def test_a_program_that_dials_a_database_is_refused_and_told_how(folder: Path) -> None:
    program = """
try:
    batuta_sql.connect({"sources": {"s": near, "crm": database}}, tier="fully_sovereign")
except batuta_sql.SealError as error:
    print(error.exit_status, "crm can only be reached through an IP socket" in error.message)
    print("batuta-sql seal -- COMMAND" in error.hint)
print(enforced(), dial())
"""
    assert run(program, folder) == ["78 True", "True", "None open"]


def test_a_program_with_an_open_socket_is_refused(folder: Path) -> None:
    program = """
held = socket.socket()
try:
    batuta_sql.connect({"sources": {"s": near}}, tier="fully_sovereign")
except batuta_sql.SealError as error:
    print("cannot be enforced on this process" in error.message)
print(enforced())
"""
    assert run(program, folder) == ["True", "None"]


@pytest.mark.parametrize(
    ("uri", "dialled"),
    [
        ("postgresql://u@127.0.0.1/d", ["crm"]),
        ("postgresql://u@localhost/d", ["crm"]),
        ("postgresql:///d?host=/run/postgresql", []),
        ("postgresql:///d?host=/run/postgresql,127.0.0.1", ["crm"]),
        # Not allowed by the tier, so never dialled.
        ("postgresql://u@db.example.com/d", []),
    ],
)
def test_who_needs_ip_sockets(
    uri: str, dialled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    sources = {"crm": {"kind": "postgresql", "uri": uri}, "s": {"kind": "files", "path": "."}}
    settings = load_settings({"tier": "fully_sovereign", "sources": sources})
    assert needing_ip_sockets(settings) == dialled


@pytest.mark.parametrize(
    ("openlineage", "dialled"),
    [({"url": "http://127.0.0.1:5000"}, ["openlineage.url"]), ({"file": "events.jsonl"}, [])],
)
def test_events_need_an_ip_socket_where_they_have_an_address(
    openlineage: dict[str, str], dialled: list[str]
) -> None:
    settings = load_settings({"tier": "fully_sovereign", "openlineage": openlineage})
    assert needing_ip_sockets(settings) == dialled
