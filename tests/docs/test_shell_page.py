"""The session on docs/shell.md, in a terminal: what is typed, and what is then to be seen."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from tests.docs.pages import DOCS, blocks_of, figures_apart
from tests.shell.conftest import Opened, config, home, shell  # noqa: F401 - fixtures

LABELS = """
[sources.crm.tables."customer".columns]
name = { labels = ["origin:internal", "pii"] }
email = { labels = ["pii"] }
"""


def test_the_session_of_the_page(shell: Opened, tmp_path: Path) -> None:  # noqa: F811
    with sqlite3.connect(tmp_path / "crm.sqlite") as crm:
        crm.execute("CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, email TEXT)")
        rows = [(n, f"customer {n}", f"c{n}@x.org") for n in (1, 2)]
        crm.executemany("INSERT INTO customer VALUES (?, ?, ?)", rows)
    settings = tmp_path / "shown.toml"
    settings.write_text(
        f"[sources.crm]\nkind = 'sqlite'\npath = '{tmp_path}/crm.sqlite'\n{LABELS}\n"
        f"[sources.lake]\nkind = 'files'\npath = '{tmp_path}'\n"
    )
    (session,) = [b.text for b in blocks_of(DOCS / "shell.md") if b.language == "console"]
    command, *lines = session.splitlines()
    assert command == "$ batuta-sql shell"
    terminal = shell(settings)
    for line in lines:
        if typed := re.match(r"(?:batuta> | +\.\.\.> )(.*)", line):
            terminal.enter(typed[1])
    terminal.see(r"\(2 rows.*\)")
    seen = [s.rstrip() for s in figures_apart(terminal.text).splitlines()]
    for line in lines:
        assert figures_apart(line).rstrip() in seen, terminal.text
