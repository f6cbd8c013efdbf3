"""Copies of tables that are files: a split is some of them, and what did not change stays."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.expressions import EqualTo

import batuta_sql
from tests.emulators.aws_process import AwsEmulator, aws_emulator
from tests.sources.iceberg_writer import PATH_ID, HandMade, settings_of, sql_catalog, with_id
from tests.sync.conftest import Interrupted, after, rows_of, truth

FILES = 6
SETTLES = 2.1
"""Seconds after which a local file counts as written."""


def rows(n: int) -> pa.Table:
    return pa.table({"id": range(n * 100, n * 100 + 100), "word": [f"w{n}"] * 100})


def over(**sources: Any) -> Any:
    return batuta_sql.connect({"cost": {"history": False}, "sources": sources})


def copied(connection: Any, origin: str, target: Path, **options: Any) -> int:
    """How many splits a run reads, of a copy that equals its source then."""
    result = connection.sync(origin, target, split_bytes=1, **options)
    assert rows_of(target, "parquet") == truth(connection, f"SELECT * FROM {origin}")
    return int(result.copied)


# --- folders of files ----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A table of six Parquet files."""
    made = tmp_path / "lake" / "t"
    made.mkdir(parents=True)
    for n in range(FILES):
        pq.write_table(rows(n), made / f"{n}.parquet")
    time.sleep(SETTLES)
    return made


@pytest.fixture
def lake(folder: Path) -> Iterator[Any]:
    with over(lake={"kind": "files", "path": str(folder.parent)}) as connection:
        yield connection


def test_an_interrupted_copy_of_files_goes_on(lake: Any, tmp_path: Path) -> None:
    target = tmp_path / "t"
    with pytest.raises(Interrupted):
        lake.sync("lake.t", target, split_bytes=1, progress=after(2))
    assert copied(lake, "lake.t", target) <= FILES - 2
    assert lake.sync("lake.t", target, split_bytes=1).outcome == "unchanged"


def test_files_that_are_new_changed_or_gone(lake: Any, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "t"
    assert copied(lake, "lake.t", target) == FILES
    pq.write_table(rows(50), folder / "new.parquet")
    pq.write_table(rows(51), folder / "3.parquet")
    time.sleep(SETTLES)
    assert copied(lake, "lake.t", target) == 2
    (folder / "0.parquet").unlink()
    assert copied(lake, "lake.t", target) == 1
    pq.write_table(rows(53), folder / "newer.parquet")
    time.sleep(SETTLES)
    # Into the split that became empty.
    assert copied(lake, "lake.t", target) == 1
    assert len(list(target.glob("*.parquet"))) == FILES + 1
    assert lake.sync("lake.t", target, split_bytes=1).outcome == "unchanged"


def test_a_file_that_is_written_over_during_the_copy(
    lake: Any, folder: Path, tmp_path: Path
) -> None:
    """What was read of the state before is not mixed with the state after."""
    target, changed = tmp_path / "t", []

    def change(progress: Any) -> None:
        if progress.done == 2 and not changed:
            changed.append(pq.write_table(rows(52), folder / "5.parquet"))
            (folder / "0.parquet").unlink()
            time.sleep(SETTLES)

    lake.sync("lake.t", target, split_bytes=1, progress=change)
    assert changed
    assert rows_of(target, "parquet") == truth(lake, "SELECT * FROM lake.t")


# --- large files ---------------------------------------------------------------------------------

LARGE = 1_300_000
"""Rows of a file of some 45 MB."""


def write_large(path: Path, word: str = "", rows: int = LARGE) -> None:
    with duckdb.connect() as con:
        con.execute(
            f"COPY (SELECT i AS id, md5('{word}' || i) AS digest FROM range({rows}) t(i))"
            f" TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 50000)"
        )


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A table of a large Parquet file and a small one."""
    made = tmp_path / "lake" / "t"
    made.mkdir(parents=True)
    write_large(made / "large.parquet")
    write_large(made / "small.parquet", "small", rows=10)
    time.sleep(SETTLES)
    return made


def test_a_large_file_is_copied_in_pieces(large: Path, tmp_path: Path) -> None:
    target = tmp_path / "t"
    with over(lake={"kind": "files", "path": str(large.parent)}) as lake:
        with pytest.raises(Interrupted):
            lake.sync("lake.t", target, split_bytes=1, progress=after(1))
        result = lake.sync("lake.t", target, split_bytes=1)
        assert result.splits >= 3
        assert result.copied < result.splits
        assert rows_of(target, "parquet") == truth(lake, "SELECT * FROM lake.t")
        assert lake.sync("lake.t", target, split_bytes=1).outcome == "unchanged"
        # All of its pieces are others.
        write_large(large / "large.parquet", "other")
        time.sleep(SETTLES)
        assert lake.sync("lake.t", target, split_bytes=1).copied == result.splits - 1
        assert rows_of(target, "parquet") == truth(lake, "SELECT * FROM lake.t")


@pytest.mark.parametrize("split_bytes", [1, 20 << 20, 1 << 30])
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM lake.t",
        "SELECT digest, id * 2 AS twice FROM lake.t WHERE id % 3 = 0",
        "SELECT digest FROM lake.t WHERE id < 70000",
    ],
)
def test_pieces_are_the_table(large: Path, tmp_path: Path, sql: str, split_bytes: int) -> None:
    with over(lake={"kind": "files", "path": str(large.parent)}) as lake:
        lake.sync(sql, tmp_path / "copy", split_bytes=split_bytes)
        assert rows_of(tmp_path / "copy", "parquet") == truth(lake, sql)


def test_a_file_that_is_written_over_while_it_is_read(large: Path, tmp_path: Path) -> None:
    """The one that is read last too, of which nobody would ask again."""
    (large / "small.parquet").unlink()
    write_large(tmp_path / "other", "other")
    time.sleep(SETTLES)
    changed: list[Path] = []

    def change(progress: Any) -> None:
        if progress.rows and not changed:
            changed.append((tmp_path / "other").replace(large / "large.parquet"))

    target = tmp_path / "t"
    with over(lake={"kind": "files", "path": str(large.parent)}) as lake:
        lake.sync("lake.t", target, progress=change)
        assert changed
        assert rows_of(target, "parquet") == truth(lake, "SELECT * FROM lake.t")


def test_a_column_that_is_called_as_the_row_number_is_no_row_number(tmp_path: Path) -> None:
    made = tmp_path / "lake" / "t"
    made.mkdir(parents=True)
    with duckdb.connect() as con:
        con.execute(
            f"COPY (SELECT i % 5 AS file_row_number, md5(i::VARCHAR) AS digest"
            f" FROM range({LARGE}) t(i)) TO '{made}/large.parquet' (FORMAT parquet)"
        )
    time.sleep(SETTLES)
    with over(lake={"kind": "files", "path": str(made.parent)}) as lake:
        lake.sync("lake.t", tmp_path / "t", split_bytes=1)
        assert rows_of(tmp_path / "t", "parquet") == truth(lake, "SELECT * FROM lake.t")


# --- what cannot be divided ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        pa.table({"id": pa.array([1], pa.int32()), "word": ["x"]}),
        pa.table({"id": [1]}),
        pa.table({"id": [1], "word": ["x"], "more": [True]}),
        pa.table({"word": ["x"], "id": [1]}),
    ],
    ids=["type", "fewer", "more", "order"],
)
def test_files_of_several_schemas_are_one_split(
    lake: Any, folder: Path, tmp_path: Path, other: pa.Table
) -> None:
    """Each by itself would be read with other types."""
    pq.write_table(other, folder / "other.parquet")
    time.sleep(SETTLES)
    assert copied(lake, "lake.t", tmp_path / "t") == 1


def test_folders_of_partitions_and_other_formats_are_one_split(tmp_path: Path) -> None:
    parts, texts = tmp_path / "lake" / "parts", tmp_path / "lake" / "texts"
    for n in ("1", "2", "x"):
        (parts / f"k={n}").mkdir(parents=True)
        pq.write_table(rows(0), parts / f"k={n}" / "f.parquet")
    texts.mkdir()
    for n in range(3):
        (texts / f"{n}.csv").write_text(f"a,b\n{n},x\n")
    time.sleep(SETTLES)
    with over(lake={"kind": "files", "path": str(tmp_path / "lake")}) as connection:
        assert copied(connection, "lake.parts", tmp_path / "p") == 1
        assert copied(connection, "lake.texts", tmp_path / "t") == 1


def test_a_query_over_files_too(lake: Any, folder: Path, tmp_path: Path) -> None:
    sql, target = "SELECT id * 2 AS twice FROM lake.t WHERE word <> 'w2'", tmp_path / "t"
    lake.sync(sql, target, split_bytes=1)
    pq.write_table(rows(60), folder / "new.parquet")
    time.sleep(SETTLES)
    assert lake.sync(sql, target, split_bytes=1).copied == 1
    assert rows_of(target, "parquet") == truth(lake, sql)


# --- objects -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsEmulator]:
    with aws_emulator(tmp_path_factory.mktemp("aws")) as server:
        yield server


def test_objects_are_told_apart_by_their_etags(aws: AwsEmulator, tmp_path: Path) -> None:
    store = aws.filesystem()
    store.mkdir("copied")

    def put(name: str, table: pa.Table) -> None:
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        store.pipe(f"copied/t/{name}.parquet", buffer.getvalue())

    for n in range(FILES):
        put(str(n), rows(n))
    source = {"kind": "files", "path": "s3://copied", "storage_options": aws.storage_options}
    target = tmp_path / "t"
    with over(lake=source) as connection:
        with pytest.raises(Interrupted):
            connection.sync("lake.t", target, split_bytes=1, progress=after(2))
        assert copied(connection, "lake.t", target) <= FILES - 2
        put("3", rows(70))
        put("new", rows(71))
        put("4", rows(4))
        # 4 is what it was.
        assert copied(connection, "lake.t", target) == 2
        assert connection.sync("lake.t", target, split_bytes=1).outcome == "unchanged"


# --- Iceberg -------------------------------------------------------------------------------------


def test_data_files_of_an_iceberg_table_are_splits(tmp_path: Path) -> None:
    table = sql_catalog(tmp_path).create_table("n.t", rows(0).schema)
    for n in range(FILES):
        table.append(rows(n))
    target = tmp_path / "t"
    with over(ice=settings_of(tmp_path)) as connection:
        with pytest.raises(Interrupted):
            connection.sync("ice.t", target, split_bytes=1, progress=after(2))
        assert copied(connection, "ice.t", target) <= FILES - 2
        table.append(rows(80))
        assert copied(connection, "ice.t", target) == 1
        # Written anew without its row.
        table.delete(EqualTo("id", 301))
        assert copied(connection, "ice.t", target) <= 2
        assert connection.sync("ice.t", target, split_bytes=1).outcome == "unchanged"


def test_deletes_change_the_splits_that_they_are_for(tmp_path: Path) -> None:
    """By position, by value, and by deletion vectors."""
    made = sql_catalog(tmp_path).create_table("n.t", rows(0).schema)
    table = HandMade(made)
    schema = pa.schema([with_id("id", pa.int64(), 1), with_id("word", pa.string(), 2)])
    table.commit(*(table.file(f"{n}.parquet", rows(n).cast(schema)) for n in range(FILES)))
    target = tmp_path / "t"
    with over(ice=table.settings) as connection:
        assert copied(connection, "ice.t", target) == FILES
        only = {PATH_ID: f"file://{table.folder}/data/2.parquet".encode()}
        bounds = {"lower_bounds": only, "upper_bounds": only}
        table.commit(table.position_deletes("d1.parquet", {"2.parquet": [0, 5]}, **bounds))
        assert copied(connection, "ice.t", target) == 1
        ids = pa.table({"id": [401]}, schema=pa.schema([with_id("id", pa.int64(), 1)]))
        table.commit(table.equality_deletes("d2.parquet", ids, [1]))
        # It may be for any file that is older.
        assert copied(connection, "ice.t", target) == FILES
        table.commit(table.file("new.parquet", rows(90).cast(schema)))
        assert copied(connection, "ice.t", target) == 1
        table.upgrade()
        table.commit(table.deletion_vector("d3.puffin", "4.parquet", [7, 8]))
        assert copied(connection, "ice.t", target) == 1
        assert connection.sync("ice.t", target, split_bytes=1).outcome == "unchanged"
