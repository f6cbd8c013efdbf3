"""The queries on the pages of sources that need an account are asked of what stands in for it.

The configuration beside them is read and opened by test_examples.py; here the emulator's takes its
place, and the name of its table that of the page's.
"""

from __future__ import annotations

import re
import tomllib
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

import batuta_sql
from tests.conformance.kinds import OPENERS
from tests.conformance.stand import Table
from tests.docs.pages import DOCS, blocks_of

KINDS = ("bigquery", "databricks", "glue", "huggingface", "snowflake", "unity")
ORDERS = Table(
    "orders",
    (
        ("id", "BIGINT"),
        ("region", "VARCHAR"),
        ("day", "DATE"),
        ("year", "BIGINT"),
        ("stars", "BIGINT"),
    ),
)


def example(kind: str) -> tuple[str, str]:
    """The query of a kind's page, and the name of the table in it."""
    blocks = blocks_of(DOCS / "sources" / f"{kind}.md")
    (sql,) = [b.text for b in blocks if b.language == "sql"]
    (table,) = re.findall(r"FROM ([\w.\"]+)", sql)
    (settings, *_) = [tomllib.loads(b.text) for b in blocks if b.language == "toml"]
    assert settings["sources"][table.split(".")[0]]["kind"] == kind
    return sql, table


@pytest.mark.parametrize("kind", KINDS)
def test_the_query_of_a_page_is_answered(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    sql, table = example(kind)
    with (
        duckdb.connect() as truth,
        OPENERS[kind](tmp_path, request.getfixturevalue) as stand,
    ):
        truth.execute(
            "CREATE SCHEMA truth; USE truth; CREATE TABLE orders AS SELECT i AS id,"
            " ['NZ', 'SE'][1 + i % 2] AS region, DATE '2023-12-28' + (i % 9)::INTEGER AS day,"
            " 2023 + i % 3 AS year, i % 6 AS stars FROM range(60) t(i)"
        )
        stand.load(truth, ORDERS)
        config = {"sources": {"s": stand.settings}, "cost": {"on_unknown": "allow"}}
        with closing(batuta_sql.connect(config)) as connection:
            told = connection.execute(sql.replace(table, stand.name("orders"))).fetchall()
        assert sorted(told) == sorted(truth.execute(sql.replace(table, "orders")).fetchall())
