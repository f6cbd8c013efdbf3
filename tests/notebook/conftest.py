"""A notebook in this process: a real IPython, and what is to be seen of a cell."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from tests.cli.conftest import config  # noqa: F401 - a fixture


@dataclass(frozen=True)
class Seen:
    """
    :param value: what the cell gave.
    :param html: of what was displayed beside it.
    :param text: that was printed, errors included.
    """

    value: Any
    html: str
    text: str
    error: BaseException | None


class Notebook:
    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell

    def cell(self, text: str) -> Seen:
        """Runs a cell, whatever becomes of it."""
        with capture_output() as captured:
            done = self.shell.run_cell(inspect.cleandoc(text), store_history=False)
        html = "".join(o._repr_html_() or "" for o in captured.outputs if o._repr_html_())
        error = done.error_before_exec or done.error_in_exec
        return Seen(done.result, html, captured.stdout + captured.stderr, error)

    def run(self, text: str) -> Any:
        """What a cell gives, which does not fail."""
        seen = self.cell(text)
        assert seen.error is None, seen.text
        return seen.value

    def html(self, text: str) -> str:
        """How a notebook shows what a cell gives."""
        formatter = self.shell.display_formatter
        assert formatter is not None
        return str(formatter.format(self.run(text))[0]["text/html"])


@pytest.fixture
def ipython(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    """Without the extension."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    settings = Config(
        {"HistoryManager": {"enabled": False}, "InteractiveShell": {"colors": "nocolor"}}
    )
    shell = InteractiveShell.instance(config=settings, user_ns={})
    yield Notebook(shell)
    if "BatutaMagics" in shell.magics_manager.registry:
        shell.run_line_magic("unload_ext", "batuta_sql")
    InteractiveShell.clear_instance()


@pytest.fixture
def notebook(ipython: Notebook, config: Path) -> Notebook:  # noqa: F811
    ipython.run("%load_ext batuta_sql")
    ipython.run(f"con = %batuta connect {config}")
    return ipython
