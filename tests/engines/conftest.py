"""A Spark Connect server as the engine of residuals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

import batuta_sql
from tests.comparison import Answer, answer_of, difference
from tests.emulators.process import Emulator


def engine(server: Emulator, stage: Path | str) -> dict[str, Any]:
    """The configuration of an engine to which every residual goes that may."""
    return {
        "kind": "spark",
        "url": f"sc://127.0.0.1:{server.port}",
        "stage": str(stage),
        "from_bytes": 0,
    }


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    return tmp_path / "stage"


def two_files(folder: Path, values: str) -> dict[str, Any]:
    """The sources ``crm`` and ``lake``, DuckDB files with the same table ``v``."""
    paths: dict[str, Any] = {}
    for name in ("crm", "lake"):
        paths[name] = {"kind": "duckdb", "path": str(folder / f"{name}.duckdb")}
        with duckdb.connect(paths[name]["path"]) as made:
            made.execute(f"CREATE TABLE v AS {values}")
    return paths


def truth_of(paths: dict[str, Any], sql: str) -> Answer:
    """DuckDB's answer over these files.

    :raises duckdb.Error: what it says instead.
    """
    with duckdb.connect() as truth:
        for name, source in paths.items():
            truth.execute(f"ATTACH '{source['path']}' AS {name} (READ_ONLY)")
        return answer_of(truth.sql(sql).to_arrow_table())


def compare(server: Emulator, tmp_path: Path, values: str, sql: str, **settings: Any) -> Any:
    """Compares with DuckDB's answer over ``crm.v`` and ``lake.v``; gives the engine's metrics."""
    paths = two_files(tmp_path, values)
    wanted = truth_of(paths, sql)
    config = {"sources": paths, "engine": engine(server, tmp_path / "stage") | settings}
    with batuta_sql.connect(config) as connection:
        cursor = connection.execute(sql)
        got = answer_of(cursor.fetch_arrow_table())
        assert difference(got, wanted, sql) is None
        return cursor.metrics["engine"]
