"""``batuta-sql sync`` and ``batuta-sql drift``: what is shown, asked, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from batuta_sql.cli import copying
from batuta_sql.demo.postgres_server import PostgresServer
from batuta_sql.sync.request import Progress
from tests.cli.conftest import Command
from tests.sync.conftest import MAKE, ROWS, rows_of, run


@pytest.fixture
def uri(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database("sync") as uri:
        run(uri, MAKE, "ANALYZE orders")
        yield uri


@pytest.fixture
def config(uri: str, tmp_path: Path) -> Path:
    path = tmp_path / "batuta.toml"
    path.write_text(
        f'threads = 2\n[labels]\naudit_log = "{tmp_path}/audit.jsonl"\n'
        f'[sources.crm]\nkind = "postgresql"\nuri = "{uri}"\nlocality = "local"\n'
    )
    return path


SYNC = ("sync", "crm.orders", "--split-mb", "4")


def test_a_copy_and_its_progress(batuta: Command, config: Path, tmp_path: Path) -> None:
    first = batuta(*SYNC, "--to", str(tmp_path / "orders"), config=config)
    assert first.returncode == 0, first.stderr
    assert f"{ROWS:,} rows".encode() in first.stdout
    lines = first.stderr.decode().splitlines()
    assert lines[0].startswith("0 of ")
    assert f"{ROWS:,} rows" in lines[-1]
    again = batuta(*SYNC, "--to", str(tmp_path / "orders"), config=config)
    assert b"nothing has changed" in again.stdout


def test_programs_read_lines(batuta: Command, config: Path, tmp_path: Path) -> None:
    done = batuta(*SYNC, "--to", str(tmp_path / "orders"), "--json", config=config)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {e["event"] for e in events[:-1]} == {"progress"}
    assert events[-1]["event"] == "result"
    assert events[-1]["outcome"] == "copied"
    assert events[-1]["rows"] == ROWS
    assert done.stderr == b""


@pytest.mark.parametrize("form", ["delta", "duckdb", "ald"])
def test_formats(batuta: Command, config: Path, tmp_path: Path, form: str) -> None:
    target = tmp_path / {"delta": "orders", "duckdb": "o.duckdb", "ald": "orders.ald"}[form]
    done = batuta(*SYNC, "--to", str(target), "--format", form, config=config)
    assert done.returncode == 0, done.stderr
    assert len(rows_of(target, form)) == ROWS


def test_a_dry_run(batuta: Command, config: Path, tmp_path: Path) -> None:
    done = batuta(*SYNC, "--to", str(tmp_path / "orders"), "--dry-run", config=config)
    assert done.returncode == 0, done.stderr
    assert b"splits to" in done.stdout
    assert b"crm" in done.stdout
    assert not (tmp_path / "orders").exists()


def test_a_changed_schema_ends_with_5(
    batuta: Command, config: Path, uri: str, tmp_path: Path
) -> None:
    to = ("--to", str(tmp_path / "orders"))
    env = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data")}
    assert batuta(*SYNC, *to, config=config, env=env).returncode == 0
    assert batuta("drift", "crm.orders", config=config, env=env).returncode == 0
    run(uri, "ALTER TABLE orders ADD COLUMN extra int")
    stopped = batuta(*SYNC, *to, config=config, env=env)
    assert stopped.returncode == 5
    assert b"extra" in stopped.stderr
    assert b"--on-drift apply" in stopped.stderr
    seen = batuta("drift", "crm.orders", config=config, env=env)
    assert seen.returncode == 5
    assert b"extra" in seen.stdout
    told = json.loads(batuta("drift", "crm.orders", "--json", config=config, env=env).stdout)
    assert [(c["column"], c["is_safe"]) for c in told] == [("extra", True)]
    assert batuta(*SYNC, *to, "--on-drift", "apply", config=config, env=env).returncode == 0
    assert batuta("drift", "crm.orders", config=config, env=env).returncode == 0


def test_drift_of_what_was_never_copied(batuta: Command, config: Path, tmp_path: Path) -> None:
    env = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data")}
    done = batuta("drift", "crm.orders", config=config, env=env)
    assert done.returncode == 1
    assert b"no copy of crm.orders is known" in done.stderr


def test_drift_watches(batuta: Command, config: Path, uri: str, tmp_path: Path) -> None:
    env = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data")}
    batuta(*SYNC, "--to", str(tmp_path / "orders"), config=config, env=env)
    command = [sys.executable, "-m", "batuta_sql", "--config", str(config)]
    watching = subprocess.Popen(
        [*command, "drift", "crm.orders", "--watch", "0.2"], stdout=subprocess.PIPE, env=env
    )
    time.sleep(1.5)
    assert watching.poll() is None
    run(uri, "ALTER TABLE orders ADD COLUMN extra int")
    out, _ = watching.communicate(timeout=60)
    assert watching.returncode == 5
    assert b"extra" in out


def test_ctrl_c_stops_and_the_same_command_goes_on(
    batuta: Command, config: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "batuta_sql", "--config", str(config), "sync", "crm.orders"]
    target = tmp_path / "orders"
    process = subprocess.Popen(
        [*command, "--to", str(target), "--split-mb", "1", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert process.returncode == 130
    assert "goes on from here" in said
    assert not target.exists()
    assert batuta(*SYNC, "--to", str(target), config=config).returncode == 0
    assert len(rows_of(target, "parquet")) == ROWS


@pytest.mark.parametrize(("typed", "status"), [("apply", 0), ("s", 0), ("", 5), ("quit", 5)])
def test_a_person_is_asked(
    batuta: Command, config: Path, uri: str, tmp_path: Path, typed: str, status: int
) -> None:
    to = ("--to", str(tmp_path / "orders"))
    batuta(*SYNC, *to, config=config)
    run(uri, "ALTER TABLE orders ADD COLUMN extra int")
    arguments = ["-m", "batuta_sql", "--config", str(config), *SYNC, *to]
    terminal = pexpect.spawn(sys.executable, arguments, timeout=60, encoding="utf-8")
    terminal.expect("extra")
    terminal.expect_exact("apply, skip or quit?")
    time.sleep(0.2)
    terminal.sendline(typed)
    terminal.expect(pexpect.EOF)
    assert terminal.wait() == status


TO_TEXT = (
    "ALTER TABLE orders ALTER customer TYPE text"
    " USING CASE id WHEN 5 THEN 'x' WHEN 6 THEN '1.5' WHEN 7 THEN NULL ELSE customer::text END"
)
FORCE = ("--on-drift", "force")


def test_an_unsafe_change_is_forced_by_its_name(
    batuta: Command, config: Path, uri: str, tmp_path: Path
) -> None:
    to = ("--to", str(tmp_path / "orders"))
    batuta(*SYNC, *to, config=config)
    run(uri, TO_TEXT, "ALTER TABLE orders DROP note")
    for options in ((), FORCE):
        stopped = batuta(*SYNC, *to, *options, config=config)
        assert stopped.returncode == 5
        assert b"--on-drift force --change customer --change note" in stopped.stderr
    named = (*FORCE, "--change", "customer", "--change", "note")
    done = batuta(*SYNC, *to, *named, config=config)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode()
    assert f"{ROWS - 2:,} rows" in shown
    assert f"2 rows did not fit: {tmp_path}/.orders.batuta-sync/rejects\n" in shown
    assert "rows whose value fits in INTEGER come" in shown
    again = batuta(*SYNC, *to, *named, config=config)
    assert again.returncode == 0
    assert b"nothing has changed" in again.stdout
    assert b"2 rows did not fit: " in again.stdout


def test_programs_read_how_many_did_not_fit(
    batuta: Command, config: Path, uri: str, tmp_path: Path
) -> None:
    to = ("--to", str(tmp_path / "orders"), "--json")
    first = json.loads(batuta(*SYNC, *to, config=config).stdout.splitlines()[-1])
    assert (first["rejected"], first["rejects"]) == (0, None)
    run(uri, TO_TEXT)
    done = batuta(*SYNC, *to, *FORCE, "--change", "customer=DECIMAL(12, 1)", config=config)
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["rejected"], result["rows"]) == (1, ROWS - 1)
    assert result["rejects"] == str(tmp_path / ".orders.batuta-sync" / "rejects")


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--change", "customer"), 2, b"--change goes with --on-drift force"),
        ((*FORCE, "--change", "customer="), 2, b"COLUMN or COLUMN=TYPE"),
        ((*FORCE, "--change", "=INTEGER"), 2, b"COLUMN or COLUMN=TYPE"),
        ((*FORCE, "--change", "a", "--change", "a=INTEGER"), 2, b"names a twice"),
        ((*FORCE, "--change", "total"), 1, b"has not changed"),
        ((*FORCE, "--change", "customer=nothing"), 1, b"is no type of DuckDB"),
    ],
)
def test_changes_that_are_named_wrongly(
    batuta: Command,
    config: Path,
    uri: str,
    tmp_path: Path,
    options: tuple[str, ...],
    status: int,
    said: bytes,
) -> None:
    to = ("--to", str(tmp_path / "orders"))
    batuta(*SYNC, *to, config=config)
    run(uri, TO_TEXT)
    done = batuta(*SYNC, *to, *options, config=config)
    assert done.returncode == status, done.stderr
    assert said in done.stderr


@pytest.mark.parametrize(("typed", "status"), [("force", 0), ("f", 0), ("apply", 5), ("", 5)])
def test_a_person_may_force_what_is_not_safe(
    batuta: Command, config: Path, uri: str, tmp_path: Path, typed: str, status: int
) -> None:
    to = ("--to", str(tmp_path / "orders"))
    batuta(*SYNC, *to, config=config)
    run(uri, TO_TEXT, "ALTER TABLE orders ADD COLUMN extra int")
    arguments = ["-m", "batuta_sql", "--config", str(config), *SYNC, *to]
    terminal = pexpect.spawn(sys.executable, arguments, timeout=60, encoding="utf-8")
    terminal.expect("NOT SAFE")
    terminal.expect_exact("force or quit?")
    time.sleep(0.2)
    terminal.sendline(typed)
    terminal.expect(pexpect.EOF)
    assert terminal.wait() == status
    if status == 0:
        assert "2 rows did not fit" in terminal.before
        assert len(rows_of(tmp_path / "orders", "parquet")) == ROWS - 2


def test_a_line_says_why_it_goes_slowly_and_how_long_a_credential_lasts() -> None:
    slowed = ("crm is busy, slowed down to one reader 25% of the time",)
    told = Progress(10, 4, 0, 1000, 1 << 20, 2.0, "crm: gone", slowed, 90.0)
    line = copying._line(told)
    for words in ("4 of 10 splits", "500 rows a second", "again, after crm: gone", slowed[0]):
        assert words in line
    assert "the credential is good for 90 s" in line
    assert "credential" not in copying._line(Progress(10, 4, 0, 1000, 1 << 20, 2.0))
