"""Folders that processes spill into: they go with the process, or after it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import batuta_sql
from batuta_sql.engines.held_folder import SPILL

CODE = """
import batuta_sql, sys
connection = batuta_sql.connect({})
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made, of this process too."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def folders(place: Path) -> set[Path]:
    return set(place.glob(f"{SPILL}*"))


def make_old(folder: Path) -> None:
    hour_ago = time.time() - 3600
    os.utime(folder, (hour_ago, hour_ago))


def other() -> subprocess.Popen[str]:
    """A process with an open connection."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def test_a_folder_goes_with_its_connection(place: Path) -> None:
    with batuta_sql.connect({}):
        assert len(folders(place)) == 1
    assert folders(place) == set()


def test_what_a_killed_process_has_left_is_removed(place: Path) -> None:
    process = other()
    (left,) = folders(place)
    (left / "spilled").write_bytes(b"x" * 1000)
    process.send_signal(signal.SIGKILL)
    process.wait()
    make_old(left)
    with batuta_sql.connect({}):
        assert left not in folders(place)


def test_what_is_in_use_stays(place: Path) -> None:
    process = other()
    (used,) = folders(place)
    make_old(used)
    with batuta_sql.connect({}) as mine:
        (own,) = folders(place) - {used}
        make_old(own)
        with batuta_sql.connect({}):
            assert {used, own} <= folders(place)
        assert mine.execute("SELECT 1").fetchall() == [(1,)]
    process.communicate("")


def test_what_is_new_or_nobody_knows_stays(place: Path) -> None:
    process = other()
    (left,) = folders(place)
    process.kill()
    process.wait()
    (place / f"{SPILL}strange").mkdir()
    make_old(place / f"{SPILL}strange")
    with batuta_sql.connect({}):
        assert {left, place / f"{SPILL}strange"} <= folders(place)
