"""The tutorial does what it shows: each of its blocks runs, in order, and says what it says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_the_tutorial(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert not done.returncode or done.stderr, words
        return done.stdout + (done.stderr if done.returncode else "")

    blocks = BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"))
    commands = 0
    for language, text in blocks:
        match language:
            case "python":
                assert run("-c", text) == ""
            case "toml":
                (tmp_path / "batuta.toml").write_text(text)
            case "console":
                for command, shown in re.findall(
                    r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE
                ):
                    program, *words = shlex.split(command)
                    assert program == "batuta-sql"
                    said = run("-m", "batuta_sql", *words).replace(f"{tmp_path}/", "")
                    # Of long answers the page shows the beginning.
                    assert said.startswith(shown), f"{command}\n{said}"
                    commands += 1
    assert commands > 8
