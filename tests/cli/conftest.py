"""A configuration over embedded sources, and the real command as a process."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

CONFIG = """
[sources.pub]
kind = "sqlite"
path = "{folder}/pub.sqlite"
locality = "local"

[sources.lake]
kind = "files"
path = "{folder}/lake"

[sources.delta]
kind = "delta"
path = "{folder}/delta"

[sources.duck]
kind = "duckdb"
path = "{folder}/duck.duckdb"
"""

Command = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    with closing(sqlite3.connect(folder / "pub.sqlite")) as lite:
        lite.execute("CREATE TABLE beer(id INTEGER, name TEXT, price DECIMAL(6,2), since DATE)")
        rows = [
            (1, "Ann's", "1.50", "2001-01-31"),
            (2, 'a "b", c', "2.50", None),
            (3, "", "3.25", None),
            (4, None, None, None),
        ]
        lite.executemany("INSERT INTO beer VALUES (?, ?, ?, ?)", rows)
        lite.commit()
    (folder / "lake").mkdir()
    pq.write_table(
        pa.table({"id": [1, 2], "share": [float("nan"), 0.5]}), folder / "lake" / "shares.parquet"
    )
    deltalake.write_deltalake(
        str(folder / "delta" / "visits"), pa.table({"beer": [1, 2, 2], "minutes": [5, 6, 7]})
    )
    with duckdb.connect(str(folder / "duck.duckdb")) as duck:
        duck.execute("CREATE TABLE numbers AS SELECT range AS n FROM range(250000)")
    path = folder / "batuta.toml"
    path.write_text(CONFIG.format(folder=folder))
    return path


@pytest.fixture
def batuta(config: Path) -> Command:
    """Runs ``batuta-sql`` with the configuration (``config=None``: without one)."""

    def run(
        *arguments: str, config: Path | None = config, stdin: bytes = b"", **options: Any
    ) -> subprocess.CompletedProcess[bytes]:
        given = ["--config", str(config)] if config is not None else []
        return subprocess.run(
            [sys.executable, "-m", "batuta_sql", *given, *arguments],
            input=stdin,
            capture_output=True,
            check=False,
            timeout=60,
            **options,
        )

    return run
