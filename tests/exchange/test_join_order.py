"""The order of joins between sources: the residual engine's, which knows how many rows came."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

import batuta_sql

# Each row of "a" meets 10,000 of "b", and one of these a row of "c".
TABLES = {
    "a": "SELECT i AS id, i % 10 AS k, i AS x, i AS y FROM range(400000) t(i)",
    "b": "SELECT i % 10 AS k, i AS j FROM range(100000) t(i)",
    "c": "SELECT 77 AS j, 'one' AS name",
}
AS_WRITTEN = "FROM a.a a JOIN b.b b ON a.k = b.k JOIN c.c c ON b.j = c.j"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("order")
    with duckdb.connect() as con:
        for name, sql in TABLES.items():
            (folder / name).mkdir()
            con.execute(f"COPY ({sql}) TO '{folder}/{name}/{name}.parquet'")
    return folder


@pytest.fixture
def connection(folder: Path) -> Iterator[Any]:
    sources = {n: {"kind": "files", "path": str(folder / n)} for n in TABLES}
    config = {"semi_joins": "off", "memory_limit": "128MB", "sources": sources}
    with batuta_sql.connect(config) as connection:
        yield connection


def scans(node: dict[str, Any]) -> set[float]:
    """The rows of what a part of DuckDB's plan reads, as it estimates them."""
    below = [scans(child) for child in node["children"]]
    if not below:
        return {float(node["extra_info"]["Estimated Cardinality"])}
    return set().union(*below)


def joins(node: dict[str, Any]) -> list[set[float]]:
    """What each join of a plan reads, from the top down."""
    mine = [scans(node)] if "JOIN" in node["name"] else []
    return mine + [found for child in node["children"] for found in joins(child)]


@pytest.mark.parametrize(
    ("columns", "is_spilled"), [("a.id, c.name", False), ("a.id, a.x, a.y, c.name", True)]
)
def test_what_leaves_few_rows_is_joined_first(
    connection: Any, columns: str, is_spilled: bool
) -> None:
    with closing(connection._query(f"SELECT {columns} {AS_WRITTEN}", None)) as query:
        deliveries = query._delivered()
        spilled = {d.table[-1] for d in deliveries.values() if d.table[-1].startswith("spill")}
        assert bool(spilled) == is_spilled
        text = query.residual_sql(deliveries)
        ((_, explained),) = query.cursor.execute(f"EXPLAIN (FORMAT json) {text}").fetchall()
        (plan,) = json.loads(explained)
        assert joins(plan) == [{400_000, 100_000, 1}, {100_000, 1}]
