"""SQLAlchemy's own suite for dialects passes, as far as DuckDB's local tables can."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "sqlalchemy_suite"

PASSES = 500
"""At the least: what is skipped is not passed."""


@pytest.mark.timeout(600)
def test_the_suite(tmp_path: Path) -> None:
    config = tmp_path / "batuta.toml"
    config.write_text("")
    options = ["-c", str(FOLDER / "setup.cfg"), f"--rootdir={FOLDER}", "-q", "--no-header"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", *options, str(FOLDER / "suite.py")),
            *("--dburi", f"batuta:///{config}", f"--basetemp={tmp_path / 'temp'}"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_DATA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=580,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    told = re.search(r"(\d+) passed", done.stdout)
    assert told is not None
    assert int(told[1]) >= PASSES
    print(done.stdout.splitlines()[-1])
