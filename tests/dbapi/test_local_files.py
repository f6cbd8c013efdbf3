"""Files by their paths, which a connection may be kept from."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batuta_sql


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "lake").mkdir()
    path = tmp_path / "lake" / "t.parquet"
    pq.write_table(pa.table({"n": [1, 2]}), path)
    return path


READS = ["FROM '{}'", "FROM read_parquet('{}')", "SELECT count(*) FROM glob('{}')"]


@pytest.mark.parametrize("sql", READS)
def test_a_connection_reads_them(file: Path, sql: str) -> None:
    with batuta_sql.connect({}) as connection:
        assert connection.execute(sql.format(file)).fetchall()


@pytest.mark.parametrize("sql", READS)
@pytest.mark.parametrize("how", ["setting", "argument"])
def test_one_that_may_not_reads_its_sources_alone(file: Path, sql: str, how: str) -> None:
    config = {"sources": {"lake": {"kind": "files", "path": str(file.parent)}}}
    options = {"local_files": False} if how == "argument" else {}
    config |= {"local_files": False} if how == "setting" else {}
    with batuta_sql.connect(config, **options) as connection:
        with pytest.raises(batuta_sql.Error):
            connection.execute(sql.format(file)).fetchall()
        assert connection.execute("SELECT sum(n) FROM lake.t").fetchall() == [(3,)]


def test_what_does_not_fit_in_memory_goes_to_the_disk_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    table = pa.table({"a": range(1_500_000), "b": [f"text {i * 7}" for i in range(1_500_000)]})
    pq.write_table(table, tmp_path / "lake" / "t.parquet")
    config = {
        "memory_limit": "80MB",
        "threads": 1,
        "local_files": False,
        "sources": {"lake": {"kind": "files", "path": str(tmp_path / "lake")}},
    }
    sql = "SELECT first(b), count(*) FROM (SELECT DISTINCT a, b FROM lake.t ORDER BY b)"
    with batuta_sql.connect(config) as connection:
        assert connection.execute(sql).fetchall() == [("text 0", 1_500_000)]
