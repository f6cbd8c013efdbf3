"""What a person may choose, and what is said of other choices."""

from __future__ import annotations

from pathlib import Path

import pytest

from batuta_sql.errors import ConfigError
from batuta_sql.shell.preferences import Preferences


def test_without_a_file_all_is_as_usual(tmp_path: Path) -> None:
    assert Preferences.read(tmp_path / "shell.toml") == Preferences()


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "shell.toml"
    file.write_text('max_rows = 5\nediting = "vi"\n')
    found = Preferences.read(file)
    assert (found.max_rows, found.editing) == (5, "vi")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_rows = -1", "max_rows: .*greater than or equal to 0"),
        ("maxrows = 1", "maxrows: "),
        ('expanded = "maybe"', "expanded: "),
        ("max_rows = ", "shell.toml: "),
    ],
)
def test_a_wrong_file_names_itself_and_the_fault(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "shell.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"shell.toml: .*{said}|{said}"):
        Preferences.read(file)


def test_changes() -> None:
    preferences = Preferences()
    preferences.change("max_rows", "7")
    preferences.change("timing", "off")
    assert (preferences.max_rows, preferences.timing) == (7, False)
    with pytest.raises(ConfigError, match='did you mean "max_rows"'):
        preferences.change("maxrows", "7")
    with pytest.raises(ConfigError, match="max_rows: "):
        preferences.change("max_rows", "many")
    assert preferences.max_rows == 7
