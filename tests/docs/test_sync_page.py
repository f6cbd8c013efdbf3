"""What docs/sync.md shows of a schema that has changed is what a copy says, figures apart."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from adbc_driver_postgresql import dbapi

from tests.docs.pages import DOCS, ROOT, blocks_of, figures_apart, run

PAGE = blocks_of(DOCS / "sync.md")
DRIFTED = 5


class Copies:
    """A PostgreSQL table, and the command line that copies it."""

    def __init__(self, folder: Path, uri: str) -> None:
        self._folder, self._uri = folder, uri
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "XDG_DATA_HOME": str(folder / "data"),
            "XDG_CONFIG_HOME": str(folder / "config"),
        }
        (folder / "lake").mkdir()
        settings = f"[sources.crm]\nkind = 'postgresql'\nuri = '{uri}'\n"
        (folder / "batuta.toml").write_text(settings)

    def change(self, *statements: str) -> None:
        with dbapi.connect(self._uri, autocommit=True) as connection:
            for statement in statements:
                with connection.cursor() as cursor:
                    cursor.execute(statement)

    def run(self, command: str, status: int = 0) -> str:
        program, *words = shlex.split(command.replace("/lake/", f"{self._folder}/lake/"))
        assert program == "batuta-sql"
        said = run(["-m", "batuta_sql", *words], self._folder, self._environment, status)
        return figures_apart(said.replace(f"{self._folder}/lake", "/lake"))


def test_a_changed_schema_is_shown(tmp_path: Path, postgres_uri: str) -> None:
    (shown,) = [b.text for b in PAGE if b.text.startswith("the schema of")]
    copies = Copies(tmp_path, postgres_uri)
    copies.change("CREATE TABLE orders (customer integer, id integer)")
    copies.run("batuta-sql sync crm.orders --to /lake/orders")
    copies.change(
        "ALTER TABLE orders ALTER customer TYPE bigint, ALTER id TYPE text, ADD extra integer"
    )
    said = copies.run("batuta-sql sync crm.orders --to /lake/orders", DRIFTED)
    assert figures_apart(shown) in said


def test_unsafe_changes_that_are_named_are_taken(tmp_path: Path, postgres_uri: str) -> None:
    (block,) = [b for b in PAGE if "--on-drift force" in b.text and b.language == "console"]
    ((command, shown),) = block.commands
    copies = Copies(tmp_path, postgres_uri)
    copies.change(
        "CREATE TABLE orders (id integer, amount integer, note text)",
        "INSERT INTO orders SELECT i, i, 'n' FROM generate_series(1, 100) t(i)",
    )
    copies.run("batuta-sql sync crm.orders --to /lake/orders")
    copies.change(
        "ALTER TABLE orders ALTER amount TYPE text, DROP note",
        "UPDATE orders SET amount = 'none' WHERE id < 4",
    )
    # A hundred rows are one split.
    assert figures_apart(shown).replace("splits", "split") in copies.run(command)
