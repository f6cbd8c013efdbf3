"""The cells of docs/notebooks.md run in IPython, over the sources that they name."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.docs.pages import DOCS, blocks_of
from tests.notebook.conftest import Notebook, ipython  # noqa: F401 - a fixture


def test_the_cells_of_the_page(ipython: Notebook, tmp_path: Path) -> None:  # noqa: F811
    with sqlite3.connect(tmp_path / "crm.sqlite") as crm:
        crm.execute("CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT)")
        crm.execute("INSERT INTO customer VALUES (1, 'Ann'), (2, 'Bo')")
    pq.write_table(
        pa.table({"customer": [1, 1, 2], "total": [100, 200, 5]}), tmp_path / "orders.parquet"
    )
    (tmp_path / "batuta.toml").write_text(
        f"[sources.crm]\nkind = 'sqlite'\npath = '{tmp_path}/crm.sqlite'\n"
        f"[sources.lake]\nkind = 'files'\npath = '{tmp_path}'\n"
    )
    (cells,) = [b.text for b in blocks_of(DOCS / "notebooks.md") if b.language == "text"]
    first, second = cells.replace("connect batuta.toml", f"connect {tmp_path}/batuta.toml").split(
        "\n\n"
    )
    ipython.run(first)
    assert ipython.run(second).arrow().to_pylist() == [{"name": "Ann", "spent": 300}]
