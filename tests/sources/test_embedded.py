"""What all sources that read through an engine of their own share: cancelling, closing, errors."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

import batuta_sql
from batuta_sql.source_settings import FilesSettings
from batuta_sql.sources.base import FragmentQuery
from batuta_sql.sources.files import Files

HEAVY = "SELECT count(*) AS n FROM s.t a, s.t b WHERE a.r + b.r > 1.9999"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    sql = "SELECT range AS id, random() AS r FROM range(1000000)"
    duckdb.sql(sql).write_parquet(str(tmp_path / "t.parquet"))
    return str(tmp_path)


@pytest.fixture
def source(folder: str) -> Files:
    return Files("s", FilesSettings(kind="files", path=folder, query_timeout=3))


def of(source: Files, sql: str) -> FragmentQuery:
    return FragmentQuery(sql, tables=tuple(source.resolve(("t",))))


def test_cancelling_ends_a_statement_before_its_first_row(folder: str) -> None:
    caught: list[BaseException] = []

    def work() -> None:
        try:
            connection.execute(HEAVY).fetchall()
        except BaseException as error:
            caught.append(error)

    with batuta_sql.connect({"sources": {"s": {"kind": "files", "path": folder}}}) as connection:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        time.sleep(0.5)
        started = time.monotonic()
        connection.cancel()
        thread.join(20)
        assert not thread.is_alive()
        assert time.monotonic() - started < 3
        assert [type(e) for e in caught] == [batuta_sql.QueryCancelled]
        assert connection.execute("SELECT count(*) AS n FROM s.t").fetchall() == [(1_000_000,)]


def test_cancelling_ends_a_read_at_any_moment(source: Files) -> None:
    query = of(source, "SELECT id FROM t")
    prepare = source.prepare
    snapshot = source.open()
    reader = snapshot.read(query)
    next(reader)
    snapshot.cancel()
    with pytest.raises(batuta_sql.QueryCancelled):
        next(reader)
    with pytest.raises(batuta_sql.QueryCancelled):
        snapshot.read(query)

    late = source.open()

    def cancelled(*arguments: Any) -> None:
        prepare(*arguments)
        threading.Thread(target=late.cancel).start()
        time.sleep(0.2)

    source.prepare = cancelled  # type: ignore[method-assign]
    with pytest.raises(batuta_sql.QueryCancelled):
        late.read(query)


def test_a_reader_ends_once_and_for_all(source: Files) -> None:
    with_end = source.open().read(of(source, "SELECT id FROM t LIMIT 3"))
    assert sum(batch.num_rows for batch in with_end) == 3
    assert list(with_end) == []
    with_end.close()
    with_end.close()


def test_a_closed_snapshot_reads_no_more(source: Files) -> None:
    query = of(source, "SELECT id FROM t")
    snapshot = source.open()
    snapshot.close()
    with pytest.raises(batuta_sql.QueryCancelled):
        snapshot.read(query)


def test_the_timeout_of_the_settings_holds(source: Files) -> None:
    assert source.query_timeout == 3


def test_it_does_not_spill_into_the_callers_folder(source: Files) -> None:
    row = source.cursor().execute("SELECT current_setting('temp_directory')").fetchone()
    assert row is not None
    assert Path(row[0]).is_absolute()
