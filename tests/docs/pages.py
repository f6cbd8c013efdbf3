"""The pages of the documentation: their blocks of code, their links and headings."""

from __future__ import annotations

import re
import subprocess
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]

_BLOCK = re.compile(
    r"(?:^<!-- not run(?: here)?: (?P<excuse>[^\n]+?) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)```[ \t]*$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    :param language: behind the fence; empty where none is told.
    :param excuse: why it is not run; None: it has to run.
    """

    language: str
    text: str
    excuse: str | None

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Of a console: each command, and what is shown of its answer."""
        return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", self.text, re.MULTILINE)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    return [
        Block(m["language"].strip(), m["text"], m["excuse"])
        for m in _BLOCK.finditer(page.read_text("utf-8"))
    ]


def links_of(page: Path) -> list[tuple[str, str]]:
    """The file and the anchor of each link that leads to no other site; code is no link."""
    prose = re.sub(r"`[^`\n]*`", "", _BLOCK.sub("", page.read_text("utf-8")))
    found = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", prose)
    return [(file, anchor) for file, anchor in found if "://" not in file]


def anchors_of(page: Path) -> set[str]:
    """What a link to the page may end with, here and where repositories are shown."""
    text = _BLOCK.sub("", page.read_text("utf-8"))
    found: set[str] = set(re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE))
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        ascii_ = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
        words = re.sub(r"[^\w\s-]", "", ascii_).strip().lower()
        found |= {re.sub(r"[-\s]+", "-", words), words.replace(" ", "-")}
    return found


def figures_apart(text: str) -> str:
    """A text without what is measured: figures, their units and the width of columns."""
    text = re.sub(r"\d[\d,.]*( (k|M|G)?B\b| (µ|m)?s\b)?", "N", text)
    return re.sub(r"[ \t]+", " ", text)


def run(words: list[str], folder: Path, environment: Mapping[str, str], status: int = 0) -> str:
    """What a Python process says that runs in ``folder``, its errors too.

    :raises AssertionError: where it ends with another status.
    """
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == status, f"{words}\n{done.stdout}"
    return done.stdout
