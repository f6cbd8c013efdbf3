"""Every fenced block of the documentation runs, or says before it why it does not.

``python`` runs, in the order of the page and in one folder; ``toml`` is read by the loader of the
configuration, and a connection over it is opened, which contacts nothing; of a ``console`` the
commands run and say what is shown; ``json`` parses; ``text`` is what something says, and no code.
A block that cannot run has ``<!-- not run: why -->`` in front of it.

README.md, the tutorial and the pages on writing a source and on the server have tests of their own
beside this one.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from adbc_driver_postgresql import dbapi

import batuta_sql
from batuta_sql.config import load_settings
from batuta_sql.demo.postgres_server import PostgresServer
from tests.docs.pages import (
    DOCS,
    PAGES,
    ROOT,
    Block,
    blocks_of,
    figures_apart,
    name_of,
    run,
)

RUN = {"console", "json", "python", "toml"}
"""Languages whose blocks are run here."""

TOLD = {"text"}
"""Languages of what is shown, and is no code."""

ELSEWHERE = {
    "README.md": {"python", "sh", "toml"},
    "docs/serve.md": {"console", "python", "toml"},
    "docs/tutorial.md": {"console", "python", "toml"},
    "docs/writing-a-source.md": {"python", "toml"},
}
"""Pages whose blocks of these languages all run in tests of their own."""

HERE = [page for page in PAGES if name_of(page) not in ELSEWHERE]

PREPARATION = """
CREATE SCHEMA sales;
CREATE TABLE orders AS
  SELECT i AS id, i % 7 AS customer, i * 1.5::numeric(9,2) AS total,
         DATE '2024-01-01' + i % 60 AS day,
         TIMESTAMP '2024-01-01' + i * INTERVAL '1 hour' AS updated_at
  FROM generate_series(1, 500) t(i);
CREATE TABLE sales.orders AS SELECT * FROM orders;
"""
"""What the commands of the pages find at the sources ``crm`` and ``wh``."""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_runs_or_says_why_not(page: Path) -> None:
    known = RUN | TOLD if name_of(page) not in ELSEWHERE else TOLD | ELSEWHERE[name_of(page)]
    stray = [b for b in blocks_of(page) if b.excuse is None and b.language not in known]
    assert stray == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_only_told_is_no_command(page: Path) -> None:
    """A command shown as text would never run: usage and examples of the reference apart."""
    if name_of(page) == "docs/reference/cli.md":
        pytest.skip("made of the commands' own help")
    told = [b for b in blocks_of(page) if b.language in TOLD and b.excuse is None]
    assert [b for b in told if re.search(r"^(\$ |%|batuta-sql )", b.text, re.MULTILINE)] == []


@pytest.fixture(scope="module")
def server(postgres: PostgresServer) -> Iterator[str]:
    """The URI of a database with what the pages ask for."""
    with postgres.database() as uri:
        with dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
            for statement in PREPARATION.split(";"):
                if statement.strip():
                    cursor.execute(statement)
        yield uri


def _runs(page: Path) -> bool:
    return any(b.language in RUN and b.excuse is None for b in blocks_of(page))


@pytest.mark.parametrize("page", [p for p in HERE if _runs(p)], ids=name_of)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, server: str) -> None:
    world = {
        "crm": {"kind": "postgresql", "uri": server},
        "wh": {"kind": "postgresql", "uri": server},
    }
    written = "".join(f"[sources.{n}]\nkind = 'postgresql'\nuri = '{server}'\n" for n in world)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "POSTGRES_URI": server,
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    folder = tmp_path / "here"
    folder.mkdir()
    for block in blocks_of(page):
        if block.excuse is not None:
            continue
        match block.language:
            case "python":
                (folder / "example.py").write_text(block.text)
                run(["example.py"], folder, environment)
            case "toml":
                loads(block.text)
            case "json":
                json.loads(block.text)
            case "console":
                (folder / "batuta.toml").write_text(written)
                for command, shown in block.commands:
                    program, *words = shlex.split(command.replace("/lake/", f"{tmp_path}/"))
                    assert program == "batuta-sql", command
                    said = run(["-m", "batuta_sql", *words], folder, environment)
                    assert figures_apart(said).startswith(figures_apart(shown)), said


def loads(text: str) -> None:
    """Reads a configuration as a user's, and opens a connection over it."""
    settings = load_settings(tomllib.loads(text))
    told = tomllib.loads(text)
    if settings.tier != "fully_sovereign":  # this process would be locked for good
        batuta_sql.connect(told).close()


def test_an_excuse_is_taken_from_the_line_before(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "a\n\n<!-- not run: why -->\n```sql\nx\n```\n\n```\ny\n```\n\n"
        "1. b\n\n   ```sh\n   z\n   ```\n"
    )
    assert blocks_of(page) == [
        Block("sql", "x\n", "why"),
        Block("", "y\n", None),
        Block("sh", "   z\n", None),
    ]


def test_pages_are_found() -> None:
    assert {DOCS / "index.md", DOCS / "sources" / "sqlite.md", ROOT / "README.md"} <= set(PAGES)
