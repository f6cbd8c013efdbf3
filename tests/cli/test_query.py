"""``batuta-sql query``: formats, files, stdin, exit status."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import Command

BEERS = "SELECT * FROM pub.beer ORDER BY id"
FEDERATED = (
    "SELECT b.name, sum(v.minutes) AS minutes FROM pub.beer b"
    " JOIN delta.visits v ON v.beer = b.id GROUP BY ALL ORDER BY ALL"
)


def test_a_table_is_what_people_get(batuta: Command) -> None:
    done = batuta("query", FEDERATED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines() == [
        "+----------+---------+",
        "| name     | minutes |",
        "+----------+---------+",
        "| Ann's    |       5 |",
        '| a "b", c |      13 |',
        "+----------+---------+",
        "(2 rows)",
    ]


def test_a_long_table_says_that_there_is_more(batuta: Command) -> None:
    done = batuta("query", "SELECT n FROM duck.numbers", "--max-rows", "3")
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 8
    assert "first 3 rows" in lines[-1]


def test_control_characters_do_not_reach_the_terminal(batuta: Command) -> None:
    done = batuta("query", "SELECT chr(27) || '[31m' AS x")
    assert b"\x1b" not in done.stdout
    assert b"\\x1b[31m" in done.stdout


def test_csv_keeps_empty_text_and_null_apart(batuta: Command) -> None:
    done = batuta("query", BEERS, "--format", "csv")
    assert done.stdout.decode() == (
        'id,name,price,since\n1,Ann\'s,1.50,2001-01-31\n2,"a ""b"", c",2.50,\n3,"",3.25,\n4,,,\n'
    )


def test_json_is_json(batuta: Command) -> None:
    done = batuta("query", BEERS, "--format", "json")
    rows = json.loads(done.stdout)
    assert rows[0] == {"id": 1, "name": "Ann's", "price": 1.5, "since": "2001-01-31"}
    assert rows[3] == {"id": 4, "name": None, "price": None, "since": None}
    shares = batuta("query", "SELECT share, share FROM lake.shares ORDER BY id", "--format", "json")
    assert json.loads(shares.stdout)[0] == {"share": "NaN", "share_1": "NaN"}
    assert json.loads(batuta("query", "SELECT 1 WHERE false", "--format", "json").stdout) == []


def test_arrow_and_parquet_through_a_pipe(batuta: Command) -> None:
    sql = "SELECT n FROM duck.numbers"
    arrow = batuta("query", sql, "--format", "arrow").stdout
    assert pa.ipc.open_stream(io.BytesIO(arrow)).read_all().num_rows == 250_000
    parquet = batuta("query", sql, "--format", "parquet").stdout
    table = pq.read_table(io.BytesIO(parquet))
    assert table.column("n").to_pylist() == list(range(250_000))


def test_what_parquet_has_no_type_for_is_said_in_words(batuta: Command) -> None:
    done = batuta("query", "SELECT INTERVAL 1 DAY AS d", "--format", "parquet")
    assert done.returncode == 1
    assert b'Parquet has no type for the column "d"' in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("suffix", ["csv", "json", "arrow", "parquet"])
def test_a_file_gets_its_format_from_its_name(suffix: str, batuta: Command, tmp_path: Path) -> None:
    target = tmp_path / f"out.{suffix}"
    done = batuta("query", "SELECT n FROM duck.numbers", "-o", str(target))
    assert (done.returncode, done.stdout) == (0, b"")
    match suffix:
        case "csv":
            assert target.read_text().count("\n") == 250_001
        case "json":
            assert len(json.loads(target.read_text())) == 250_000
        case "arrow":
            assert pa.ipc.open_file(target).read_all().num_rows == 250_000
        case "parquet":
            assert pq.read_metadata(target).num_rows == 250_000
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


def test_a_failed_query_leaves_the_old_file(batuta: Command, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("old")
    sql = "SELECT CAST(CASE WHEN n = 249999 THEN 'x' ELSE '1' END AS INTEGER) FROM duck.numbers"
    done = batuta("query", sql, "-o", str(target))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr.decode()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize("arguments", [("query",), ("query", "-")])
def test_sql_from_stdin(arguments: tuple[str, ...], batuta: Command) -> None:
    done = batuta(*arguments, "--format", "csv", stdin=b"-- a comment\nSELECT 42 AS x")
    assert done.stdout == b"x\n42\n"


def test_sql_that_starts_with_a_comment_is_no_option(batuta: Command) -> None:
    done = batuta("query", "-- a comment\nSELECT 42 AS x", "--format=csv")
    assert done.stdout == b"x\n42\n"


def test_the_configuration_may_come_after_the_command(batuta: Command, config: Path) -> None:
    done = batuta("query", BEERS, "--format", "csv", "--config", str(config), config=None)
    assert done.returncode == 0, done.stderr


def test_a_dry_run_shows_plan_and_estimate(batuta: Command) -> None:
    done = batuta("query", FEDERATED, "--dry-run")
    text = done.stdout.decode()
    assert "Exchange pub" in text
    assert "Exchange delta" in text
    assert "confidence:" in text
    assert "Ann's" not in text


def test_local_statements_have_no_rows(batuta: Command) -> None:
    assert batuta("query", "CREATE TABLE x AS SELECT 1").stdout == b""


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELEC 1", "LINE 1: SELEC 1\n        ^"),
        ("SELECT * FROM pub.bear", "did you mean pub.beer?"),
        ("CREATE TABLE pub.x AS SELECT 1", "never changes a source"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
    ],
)
def test_errors_are_sentences_on_stderr(sql: str, says: str, batuta: Command) -> None:
    done = batuta("query", sql)
    assert done.returncode == 1
    assert done.stdout == b""
    assert says in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


@pytest.mark.parametrize(
    "arguments",
    [("nonsense",), ("query",), ("query", "SELECT 1", "--fromat", "csv"), ("query", "a", "b"),
     ("query", "SELECT 1", "--format", "xml"), ("describe",)],
)  # fmt: skip
def test_usage_errors_end_with_2(arguments: tuple[str, ...], batuta: Command) -> None:
    done = batuta(*arguments)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr


def test_a_missing_configuration_is_an_error(batuta: Command, tmp_path: Path) -> None:
    done = batuta("query", "SELECT 1", config=tmp_path / "none.toml")
    assert done.returncode == 1
    assert "none.toml" in done.stderr.decode()


def test_a_reader_that_leaves_is_no_error(config: Path) -> None:
    command = [sys.executable, "-m", "batuta_sql", "--config", str(config), "query"]
    process = subprocess.Popen(
        [*command, "SELECT * FROM range(100000000)", "--format", "csv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"range\n"
    process.stdout.close()
    assert process.wait(30) == 0
    assert process.stderr.read() == b""


@pytest.mark.parametrize("form", ["csv", "arrow"])
def test_ctrl_c_ends_with_130(form: str) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "batuta_sql",
            "query",
            "FROM range(1000000000000)",
            "--format",
            form,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(100)
    os.set_blocking(process.stdout.fileno(), False)
    process.send_signal(signal.SIGINT)
    # The pipe is full: the process must still end.
    started = time.monotonic()
    assert process.wait(30) == 130
    assert time.monotonic() - started < 10
    assert b"Traceback" not in process.stderr.read()
