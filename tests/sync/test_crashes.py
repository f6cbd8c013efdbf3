"""``kill -9`` at random moments of a copy, rows changing in between: in the end each is there once.
A full disk, connections that break.

``BATUTA_SYNC_KILLS`` says how many kills for each target.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import batuta_sql
from tests.faults.proxy import Proxy
from tests.sync.conftest import ROWS, SPLIT, config_of, rows_of, run, truth

KILLS = int(os.environ.get("BATUTA_SYNC_KILLS", "50"))
TARGETS = {"parquet": "orders", "delta": "orders", "duckdb": "copy.duckdb", "ald": "orders.ald"}

SYNC = """
import json, sys
import batuta_sql
config, target, form = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
with batuta_sql.connect(config) as connection:
    print("started", flush=True)
    result = connection.sync("crm.orders", target, format=form, split_bytes=2 << 20)
    print(json.dumps({"outcome": result.outcome, "copied": result.copied, "splits": result.splits}))
"""


def command(uri: str, target: Path, form: str) -> list[str]:
    return [sys.executable, "-c", SYNC, json.dumps(config_of(uri)), str(target), form]


def finished(uri: str, target: Path, form: str, **options: Any) -> dict[str, Any]:
    done = subprocess.run(
        command(uri, target, form), capture_output=True, text=True, timeout=300, **options
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def seconds_of_a_copy(uri: str, target: Path, form: str) -> float:
    """From the moment that a kill is counted from: when the copy begins."""
    with subprocess.Popen(command(uri, target, form), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = time.monotonic()
        process.communicate()
    assert process.returncode == 0
    return time.monotonic() - started


@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", TARGETS)
def test_kill_9_at_any_moment(
    uri: str, connect: Callable[..., Any], tmp_path: Path, form: str
) -> None:
    chance = random.Random(f"{form} 7")
    target = tmp_path / TARGETS[form]
    whole = seconds_of_a_copy(uri, tmp_path / f"timed-{TARGETS[form]}", form)
    killed = 0
    for attempt in range(KILLS):
        process = subprocess.Popen(
            command(uri, target, form), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0, whole))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        if attempt % 2:
            run(
                uri,
                f"UPDATE orders SET note = 'n{attempt}' WHERE id % 5000 = {attempt}",
                f"DELETE FROM orders WHERE id = {chance.randint(1, ROWS)}",
                f"INSERT INTO orders (id) VALUES ({ROWS + 1 + attempt})",
            )
    assert killed
    finished(uri, target, form)
    assert rows_of(target, form) == truth(connect())
    assert finished(uri, target, form)["outcome"] == "unchanged"


def test_after_a_kill_at_most_a_split_a_worker_is_copied_again(uri: str, tmp_path: Path) -> None:
    """The table does not change: what was committed stays."""
    target = tmp_path / "orders"
    process = subprocess.Popen(
        command(uri, target, "parquet"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    staging = tmp_path / ".orders.batuta-sync" / "files"
    deadline = time.monotonic() + 60
    while len(list(staging.glob("part-*"))) < 5 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate()
    whole = len(list(staging.glob("part-*")))
    result = finished(uri, target, "parquet")
    if whole:
        # A file may be whole and not yet in the checkpoint, one for each of two workers.
        assert result["splits"] - result["copied"] >= whole - 2


NOISE = "UPDATE orders SET noise = md5(id::text) || md5((id * 2)::text)"
"""What does not compress."""


def _little_room() -> None:
    # Like a disk that is full: a file cannot grow beyond that, and writing says so.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


@pytest.mark.parametrize("form", ["parquet", "delta"])
def test_a_full_disk(uri: str, connect: Callable[..., Any], tmp_path: Path, form: str) -> None:
    target = tmp_path / TARGETS[form]
    run(uri, "ALTER TABLE orders ADD COLUMN noise text", NOISE)
    done = subprocess.run(
        command(uri, target, form),
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=_little_room,
    )
    assert done.returncode != 0
    assert "the copy cannot be written" in done.stderr
    assert not target.exists()
    finished(uri, target, form)
    assert rows_of(target, form) == truth(connect())


def test_connections_that_are_ended(uri: str, connect: Callable[..., Any], tmp_path: Path) -> None:
    """The server ends every session in the middle: the copy goes on by itself, in a new state."""
    connection, done, told, turn = connect(), [], set(), threading.Lock()

    def watch(progress: Any) -> None:
        told.add(progress.again)
        # The other reader waits here too, and does not finish meanwhile.
        with turn:
            if progress.done >= 2 and not done:
                done.append(True)
                run(
                    uri,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()",
                    "UPDATE orders SET note = 'meanwhile' WHERE id = 3",
                )

    result = connection.sync("crm.orders", tmp_path / "orders", split_bytes=SPLIT, progress=watch)
    assert done
    assert len(told) > 1
    assert any("crm" in t for t in told)
    assert "were there already" in result.note
    assert rows_of(tmp_path / "orders", "parquet") == truth(connection)


@pytest.mark.parametrize(
    # A connection that is silent is waited for.
    ("fault", "limit"),
    [("cut_after", 3_000_000), ("end_after", 3_000_000), ("stall_after", 7_000_000)],
)
def test_a_network_that_breaks_again_and_again(
    uri: str, connect: Callable[..., Any], tmp_path: Path, fault: str, limit: int
) -> None:
    """Every connection breaks after some megabytes; each attempt gets a little further."""
    with Proxy(uri) as proxy:
        setattr(proxy, fault, limit)
        config = config_of(proxy.uri)
        if fault == "stall_after":
            config["sources"]["crm"]["query_timeout"] = 1.0
        with batuta_sql.connect(config) as connection:
            result = connection.sync("crm.orders", tmp_path / "orders", split_bytes=1 << 20)
        assert proxy.connections > 4
    assert result.rows == ROWS
    assert rows_of(tmp_path / "orders", "parquet") == truth(connect())


def test_a_source_that_stays_away(uri: str, tmp_path: Path) -> None:
    with Proxy(uri) as proxy, batuta_sql.connect(config_of(proxy.uri)) as connection:
        proxy.cut_after = 50_000
        with pytest.raises(batuta_sql.OperationalError) as caught:
            connection.sync("crm.orders", tmp_path / "orders", split_bytes=SPLIT)
        assert caught.value.source == "crm"
        assert not (tmp_path / "orders").exists()
        proxy.heal()
        assert connection.sync("crm.orders", tmp_path / "orders", split_bytes=SPLIT).rows == ROWS


def test_what_is_wrong_is_not_tried_again(
    uri: str, connect: Callable[..., Any], tmp_path: Path
) -> None:
    run(
        uri,
        "CREATE TABLE bad AS SELECT id, ARRAY[id] AS a, note FROM orders",
        "UPDATE bad SET a = ARRAY[[1], [2]] WHERE id = 100000",
        "ANALYZE bad",
    )
    told: list[str] = []
    with pytest.raises(batuta_sql.DataError, match="2 dimensions"):
        connect().sync("crm.bad", tmp_path / "bad", progress=lambda p: told.append(p.again))
    assert set(told) == {""}
