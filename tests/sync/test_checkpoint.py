"""What a checkpoint remembers, who may have it, and how damage to it shows."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from batuta_sql.sync.checkpoint import (
    Checkpoint,
    CheckpointError,
    CopyRecord,
    SplitRecord,
    read_copy,
)

COPY = CopyRecord("crm.t", "/copies/t", "parquet", schema="[]")
SPLITS = [SplitRecord(0, 0, 10, file="a"), SplitRecord(1, 10, None, file="b")]
DONE = SplitRecord(1, 10, None, "committed", "b", 7, 1000, "ab" * 32, "7 x")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "checkpoint.sqlite"
    with closing(Checkpoint(path)) as checkpoint:
        checkpoint.begin(COPY, SPLITS)
        checkpoint.commit(DONE)
    return path


def test_it_remembers(file: Path) -> None:
    with closing(Checkpoint(file)) as checkpoint:
        assert checkpoint.copy == COPY
        assert list(checkpoint.splits.values()) == [SPLITS[0], DONE]
        checkpoint.go_on("publishing")
    with closing(Checkpoint(file)) as checkpoint:
        assert checkpoint.copy is not None
        assert checkpoint.copy.state == "publishing"
        checkpoint.begin(COPY, SPLITS[:1])
        assert read_copy(file) == COPY
    with closing(Checkpoint(file)) as checkpoint:
        assert list(checkpoint.splits.values()) == SPLITS[:1]


HOLD = """
import sys, time
from pathlib import Path
from batuta_sql.sync.checkpoint import Checkpoint
held = Checkpoint(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_one_process_at_a_time(file: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    with holder, holder.stdout:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match=f"another process .id {holder.pid}."):
            Checkpoint(file)
        # Looking at it is allowed.
        assert read_copy(file) == COPY
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    # The lock ends with the process.
    Checkpoint(file).close()


def edited(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        assert database.execute(sql).rowcount == 1


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a row that was edited": lambda p: edited(
        p,
        "UPDATE split SET content = replace(content, '\"rows\": 7', '\"rows\": 8')"
        " WHERE number = 1",
    ),
    "a row that is gone": lambda p: edited(p, "DELETE FROM split WHERE number = 1"),
    "a copy that was edited": lambda p: edited(
        p, "UPDATE copy SET content = replace(content, 'crm.t', 'crm.u')"
    ),
    "half a file": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "a page of zeros": lambda p: p.write_bytes(p.read_bytes()[:-4096] + bytes(4096)),
    "no SQLite file": lambda p: p.write_bytes(b"something else" * 1000),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_out(file: Path, damage: str) -> None:
    DAMAGE[damage](file)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(file)
    assert str(file) in str(caught.value)
    assert "delete it" in str(caught.value)


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE mine (a)")
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="of something else"):
        Checkpoint(path)
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_version_says_so(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(CheckpointError, match="another version"):
        Checkpoint(file)


def test_what_is_committed_survives_a_kill(tmp_path: Path) -> None:
    """Every commit that was told of is there after SIGKILL, at whatever moment."""
    commits = """
import sys
from pathlib import Path
from batuta_sql.sync.checkpoint import Checkpoint, CopyRecord, SplitRecord
checkpoint = Checkpoint(Path(sys.argv[1]))
checkpoint.begin(CopyRecord("a", "b", "parquet"), [SplitRecord(i) for i in range(2000)])
for i in range(2000):
    checkpoint.commit(SplitRecord(i, state="committed", rows=i))
    print(i, flush=True)
"""
    for attempt in range(3):
        file = tmp_path / f"{attempt}.sqlite"
        process = subprocess.Popen(
            [sys.executable, "-c", commits, str(file)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(5 + attempt * 20)]
        time.sleep(0.003 * attempt)
        process.kill()
        told += process.stdout.readlines()
        process.stdout.close()
        process.wait()
        last = int(told[-1] if told[-1].endswith("\n") else told[-2])
        with closing(Checkpoint(file)) as checkpoint:
            rows = {n: s.rows for n, s in checkpoint.splits.items() if s.state == "committed"}
            assert all(rows[i] == i for i in range(last + 1))
            assert len(rows) <= last + 2
