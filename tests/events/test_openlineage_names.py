"""Tables have the names that OpenLineage's specification gives them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from batuta_sql.config import load_settings
from batuta_sql.openlineage_names import DatasetName, SourceNames, of_destination
from batuta_sql.watching import Destination


def name(settings: dict[str, Any], *path: str) -> tuple[str, str]:
    found = SourceNames(load_settings({"sources": {"s": settings}}).sources).of(("s", *path))
    return found.namespace, found.name


PG = {"kind": "postgresql"}
WAREHOUSE = {"kind": "snowflake", "account": "org-acc", "database": "DB", "schema": "S"}


@pytest.mark.parametrize(
    ("settings", "path", "expected"),
    [
        (
            {**PG, "uri": "postgresql://app:hush@db.internal:5433/crm"},
            ("public", "customer"),
            ("postgres://db.internal:5433", "crm.public.customer"),
        ),
        (
            {**PG, "host": "db", "database": "crm", "user": "app"},
            ("sales", "t"),
            ("postgres://db:5432", "crm.sales.t"),
        ),
        (
            {**PG, "uri": "postgresql://db/?dbname=other"},
            ("public", "t"),
            ("postgres://db:5432", "other.public.t"),
        ),
        (
            {**PG, "uri": "postgresql:///crm?host=/run/postgresql"},
            ("public", "t"),
            ("postgres://localhost:5432", "crm.public.t"),
        ),
        (WAREHOUSE, ("DB2", "S2", "T"), ("snowflake://org-acc", "DB2.S2.T")),
        (WAREHOUSE, ("T",), ("snowflake://org-acc", "DB.S.T")),
        ({"kind": "bigquery", "project": "p"}, ("d", "t"), ("bigquery", "p.d.t")),
        ({"kind": "bigquery", "project": "p"}, ("q", "d", "t"), ("bigquery", "q.d.t")),
        (
            {
                "kind": "databricks",
                "host": "https://w.example",
                "warehouse_id": "1",
                "catalog": "c",
            },
            ("s", "t"),
            ("unitycatalog://w.example", "c.s.t"),
        ),
        (
            {"kind": "unity", "host": "http://localhost:8080", "token": "hush"},
            ("c", "s", "t"),
            ("unitycatalog://localhost:8080", "c.s.t"),
        ),
        (
            {"kind": "delta", "path": "s3://lake/gold"},
            ("orders",),
            ("s3://lake", "gold/orders"),
        ),
        (
            {"kind": "files", "tables": {"t": "s3a://key:hush@lake/x/*.parquet"}},
            ("t",),
            ("s3://lake", "x/*.parquet"),
        ),
        (
            {"kind": "files", "tables": {"t": "https://example.com/t.csv?sig=hush"}},
            ("t",),
            ("https://example.com", "t.csv"),
        ),
        ({"kind": "sqlite", "path": "/data/x.db"}, ("t",), ("sqlite:///data/x.db", "t")),
        (
            {"kind": "duckdb", "path": "/data/x.db"},
            ("main", "t"),
            ("duckdb:///data/x.db", "main.t"),
        ),
        ({"kind": "huggingface", "repo": "a/b"}, ("t",), ("batuta://s", "t")),
    ],
)
def test_the_name_of_a_table(
    settings: dict[str, Any],
    path: tuple[str, ...],
    expected: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key in [k for k in os.environ if k.startswith("PG")]:
        monkeypatch.delenv(key)
    assert name(settings, *path) == expected


def test_files_have_their_own_names(tmp_path: Path) -> None:
    (tmp_path / "orders.parquet").touch()
    (tmp_path / "people").mkdir()
    settings = {"kind": "files", "path": str(tmp_path)}
    assert name(settings, "orders") == ("file", str(tmp_path / "orders.parquet"))
    assert name(settings, "people") == ("file", str(tmp_path / "people"))
    assert name(settings, "gone") == ("batuta://s", "gone")


def test_a_secret_that_is_not_to_be_had_costs_the_name_only() -> None:
    settings = {**PG, "uri": {"env": "BATUTA_TEST_NOT_SET"}}
    assert name(settings, "public", "t") == ("batuta://s", "public.t")


def test_a_secret_is_looked_up_once(tmp_path: Path) -> None:
    asked: list[int] = []

    def uri() -> str:
        asked.append(1)
        return "postgresql://app:hush@db/crm"

    sources = load_settings({"sources": {"s": {**PG, "uri": uri}}}).sources
    names = SourceNames(sources)
    for table in "abc":
        assert names.of(("s", "public", table)).namespace == "postgres://db:5432"
    once = len(asked)
    names.of(("s", "public", "d"))
    assert len(asked) == once


def test_where_rows_lie(tmp_path: Path) -> None:
    assert of_destination(None, "f00") == DatasetName("batuta://query", "f00")
    assert of_destination(Destination("table", "t"), "") == DatasetName("batuta://local", "t")
    file = tmp_path / "x.parquet"
    assert of_destination(Destination("file", str(file)), "") == DatasetName("file", str(file))
    assert of_destination(Destination("duckdb", str(file), "t"), "") == DatasetName(
        f"duckdb://{file}", "main.t"
    )
