"""The help of each command, with examples that are command lines; completion for other shells."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from batuta_sql.cli import seal
from batuta_sql.cli.commands import Commands, parse
from batuta_sql.cli.examples import EXAMPLES
from batuta_sql.cli.launch import Run
from tests.cli.conftest import Command

NAMES = [name for name in vars(Commands) if not name.startswith("_")]


def test_every_command_has_examples() -> None:
    assert set(NAMES) == set(EXAMPLES)


@pytest.mark.parametrize(("name", "line"), [(n, e) for n, es in EXAMPLES.items() for e in es])
def test_examples_are_command_lines(name: str, line: str) -> None:
    words = shlex.split(line.partition(" > ")[0])
    assert words[0] == "batuta-sql"
    options, sealed = seal.split(words[1:])
    chosen = parse(Run(), options, sealed)
    assert chosen is not None
    assert chosen.name == name


@pytest.mark.parametrize("name", NAMES)
def test_help_ends_with_the_examples(batuta: Command, name: str) -> None:
    done = batuta(name, "--help", config=None)
    assert done.returncode == 0, done.stderr
    _, _, examples = done.stdout.decode().partition("\nExamples:\n")
    # The terminal may be too narrow for a line.
    assert examples.split() == [word for line in EXAMPLES[name] for word in line.split()]


ASK = """
source {script}
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); COMPREPLY=()
_batuta_sql
echo "${{COMPREPLY[*]}}"
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("batuta-sql sy", {"sync"}),
        ("batuta-sql sync t --format ''", {"parquet", "delta", "duckdb", "ald"}),
        ("batuta-sql query --dry", {"--dry-run"}),
    ],
)
def test_bash_completes(batuta: Command, tmp_path: Path, words: str, expected: set[str]) -> None:
    script = tmp_path / "batuta-sql"
    script.write_bytes(batuta("completion", "bash", config=None).stdout)
    done = subprocess.run(
        ["bash", "-c", ASK.format(script=script, words=words)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_scripts_for_other_shells(batuta: Command, tmp_path: Path, shell: str) -> None:
    text = batuta("completion", shell, config=None).stdout
    assert b"batuta-sql" in text
    assert b"--on-drift" in text or b"on-drift" in text
    if shutil.which(shell):
        (tmp_path / "script").write_bytes(text)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)
