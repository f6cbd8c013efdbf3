"""The question on a terminal, the refusal without one, dry runs, the history."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pexpect
import pytest

from tests.cli.conftest import Command

SQL = "SELECT count(DISTINCT n) FROM duck.numbers"


@pytest.fixture
def priced(config: Path, tmp_path: Path) -> Path:
    """The configuration, with a DuckDB file of 250,000 BIGINTs that costs some $10 to read."""
    path = tmp_path / "batuta.toml"
    history = f'[cost]\nhistory_file = "{tmp_path}/history.sqlite"\n'
    price = "pricing = { usd_per_tb_scanned = 5000000.0 }\n"
    path.write_text(history + config.read_text() + price)
    return path


def terminal(priced: Path, *arguments: str, shell: str = "") -> pexpect.spawn:
    """``batuta-sql`` on a terminal; ``shell`` is appended to the command: a redirection."""
    command = [sys.executable, "-m", "batuta_sql", "--config", str(priced), *arguments]
    # The shell gets the arguments as its own, so that nothing of them is quoted.
    script = 'exec "$@" ' + shell
    return pexpect.spawn(
        "/bin/sh", ["-c", script, "sh", *command], timeout=30, encoding="utf-8",
        env={**os.environ, "COLUMNS": "200"}, dimensions=(40, 200),
    )  # fmt: skip


def ended(child: pexpect.spawn) -> int:
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus is not None
    return child.exitstatus


QUESTION = (
    r"This query will scan 2\.0 MB on duck\. Estimated cost: \$10\.\d\d \(estimated\)\."
    r" Proceed\? \[y/N\] "
)


def test_yes_runs(priced: Path) -> None:
    child = terminal(priced, "query", SQL, "--format", "csv")
    child.expect(QUESTION)
    child.sendline("y")
    child.expect("250000")
    assert ended(child) == 0


@pytest.mark.parametrize("answer", ["", "n", "nonsense", "\x04"])
def test_anything_else_does_not(answer: str, priced: Path) -> None:
    child = terminal(priced, "query", SQL, "--format", "csv")
    child.expect(QUESTION)
    child.send(answer) if answer == "\x04" else child.sendline(answer)
    child.expect("not confirmed, nothing was sent")
    assert "250000" not in child.before
    assert ended(child) == 3


def test_what_was_typed_before_the_question_is_no_answer(priced: Path) -> None:
    child = terminal(priced, "query", SQL, "--format", "csv")
    child.sendline("y")
    child.expect(QUESTION)
    assert child.expect(["250000", pexpect.TIMEOUT], timeout=2) == 1
    child.sendline("")
    assert ended(child) == 3


def test_ctrl_c_at_the_question(priced: Path) -> None:
    child = terminal(priced, "query", SQL)
    child.expect(QUESTION)
    child.sendintr()
    assert ended(child) == 130
    assert "Traceback" not in child.before


def test_the_question_is_on_stderr_and_the_answer_from_the_terminal(
    priced: Path, tmp_path: Path
) -> None:
    """stdin carries the SQL, stdout is a file."""
    (tmp_path / "q.sql").write_text(SQL)
    shell = f"--format csv < {tmp_path}/q.sql > {tmp_path}/out.csv"
    child = terminal(priced, "query", "-", shell=shell)
    child.expect(QUESTION)
    child.sendline("yes")
    assert ended(child) == 0
    assert (tmp_path / "out.csv").read_text().splitlines()[1:] == ["250000"]


def test_without_a_terminal_nobody_answers(batuta: Command, priced: Path) -> None:
    done = batuta("query", SQL, config=priced, stdin=b"y\n")
    assert (done.returncode, done.stdout) == (3, b"")
    said = done.stderr.decode()
    assert "the estimated cost on duck is $10." in said
    assert "--yes" in said
    assert json.loads(batuta("history", "--json", config=priced).stdout) == []


def test_yes_answers_and_lifts_no_limit(batuta: Command, priced: Path) -> None:
    done = batuta("query", SQL, "--yes", "--format", "csv", config=priced)
    assert done.stdout.splitlines()[1:] == [b"250000"], done.stderr
    refused = batuta("query", SQL, "--yes", "--max-cost", "10", config=priced)
    assert (refused.returncode, refused.stdout) == (3, b"")
    assert "max_cost_usd is $10.00" in refused.stderr.decode()


def test_a_dry_run_tells_the_price_and_asks_nothing(batuta: Command, priced: Path) -> None:
    done = batuta("query", SQL, "--dry-run", config=priced)
    assert done.returncode == 0
    text = done.stdout.decode()
    assert "$10." in text
    assert "250000\n" not in text
    assert "warn_usd is $1.00" in text
    found = json.loads(batuta("estimate", SQL, "--json", config=priced).stdout)
    assert found["usd"] == pytest.approx(10.2, abs=0.1)
    assert found["fragments"][0]["source"] == "duck"
    free = json.loads(batuta("estimate", "SELECT * FROM pub.beer", "--json", config=priced).stdout)
    assert (free["usd"], free["priced"]) == (None, False)


def test_the_history_shows_costs_and_errors(batuta: Command, priced: Path) -> None:
    assert "no query" in batuta("history", config=priced).stdout.decode()
    for limit in (5, 6):
        sql = f"SELECT n FROM duck.numbers WHERE n < {limit}"
        assert batuta("query", sql, "--yes", config=priced).returncode == 0
    text = batuta("history", config=priced).stdout.decode()
    assert "SELECT n FROM duck.numbers WHERE n < ?" in text
    assert "$10." in text
    assert "rows off by" in text
    runs = json.loads(batuta("history", "--json", "--limit", "1", config=priced).stdout)
    (newest,) = runs
    assert newest["actual"]["rows"] == 6
    assert newest["estimated"]["usd"] == pytest.approx(10.2, abs=0.1)
    assert newest["rows_off_by"] > 1
    assert batuta("history", "--limit", "0", config=priced).returncode == 2
