"""The query that docs/architecture.md follows is planned as the page shows."""

from __future__ import annotations

import sqlite3
import textwrap
from pathlib import Path

import deltalake
import pyarrow as pa

import batuta_sql
from tests.docs.pages import DOCS, blocks_of


def words(text: str) -> list[str]:
    """The text, however its lines are broken."""
    return [w for line in text.splitlines() if "-- about" not in line for w in line.split()]


def test_a_querys_trip(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.sqlite") as shop:
        shop.execute("CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, country TEXT)")
        shop.execute("INSERT INTO customer VALUES (1, 'Ann', 'NZ'), (2, 'Bo', 'SE')")
    orders = pa.table({"id": [1, 2], "customer_id": [1, 2], "total": [10.0, 20.0]})
    deltalake.write_deltalake(str(tmp_path / "lake" / "orders"), orders)
    sources = {
        "shop": {"kind": "sqlite", "path": str(tmp_path / "shop.sqlite")},
        "lake": {"kind": "delta", "path": str(tmp_path / "lake")},
    }
    blocks = blocks_of(DOCS / "architecture.md")
    (sql,) = [b.text for b in blocks if b.language == "sql"]
    tree, residual = [textwrap.dedent(b.text) for b in blocks if b.language == "text"]
    with batuta_sql.connect({"sources": sources}) as connection:
        plan = connection.plan(sql)
        assert words(tree) == words(str(plan))
        assert plan.residual is not None
        assert words(residual) == words(plan.residual)
        assert connection.execute(sql).fetchall() == [("Ann", 10.0)]
