"""Every block of README.md runs or parses: what is documented is true.

Python blocks run, the first TOML block becomes ``batuta.toml``, and ``batuta-sql`` lines run in the
same folder, in the order of the page. ``make`` lines must name a target.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from batuta_sql.config import load_settings
from batuta_sql.shell.commands import COMMANDS
from batuta_sql.shell.preferences import Preferences
from tests.docs.pages import PAGES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = BLOCK.findall(README)


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCKS if found == language]


def run(arguments: list[str], folder: Path) -> str:
    # The folder comes last in the path: the package is found as it is installed, or in the tree.
    code = f"import sys; sys.path.append({str(ROOT)!r}); sys.argv = sys.argv[1:]; "
    code += "import runpy; runpy.run_path(sys.argv[0]) if sys.argv[0] != 'batuta-sql' else "
    code += "sys.exit(__import__('batuta_sql.cli').cli.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{arguments}\n{done.stderr}"
    return done.stdout


def test_the_examples_run(tmp_path: Path) -> None:
    (example,) = blocks("python")
    (tmp_path / "example.py").write_text(example)
    said = run(["example.py"], tmp_path)
    (promised,) = re.findall(r"print\(cur\.fetchall\(\)\)  # (.*)", example)
    assert promised in said
    (tmp_path / "batuta.toml").write_text(blocks("toml")[0])
    lines = [s for b in blocks("sh") for s in b.splitlines() if s.startswith("batuta-sql ")]
    assert len(lines) > 5
    for line in lines:
        assert run(shlex.split(line), tmp_path) or " -o " in line
    assert (tmp_path / "copy.parquet").exists()


@pytest.mark.parametrize("text", blocks("toml"))
def test_configurations_are_valid(text: str) -> None:
    assert load_settings(tomllib.loads(text)).sources


def test_the_choices_of_the_shell_are_its_own() -> None:
    """What the page shows are the names, and the values that there are without the file."""
    text = (ROOT / "docs" / "shell.md").read_text(encoding="utf-8")
    (told,) = [tomllib.loads(t) for found, t in BLOCK.findall(text) if found == "toml"]
    assert told == Preferences().model_dump()


def test_the_commands_of_the_shell_are_documented() -> None:
    text = (ROOT / "docs" / "shell.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"`{name}" not in text] == []


def test_make_lines_name_targets() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = [s for b in blocks("sh") for s in b.splitlines() if not s.startswith("batuta-sql ")]
    assert lines
    for line in lines:
        program, target = line.split()
        assert program == "make"
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_modules_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"`((?:batuta_sql|tests|benchmarks)/[\w./]+)`", page.read_text("utf-8")):
        assert (ROOT / name).exists(), name
