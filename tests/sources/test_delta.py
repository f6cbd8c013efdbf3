"""Delta tables: versions, partitions, schema evolution, column mapping."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import pyarrow as pa
import pytest

import batuta_sql
from tests.sources.conftest import rows_of, types_of

Opened = Callable[..., Any]


def append(path: Path, **columns: Any) -> None:
    deltalake.write_deltalake(str(path), pa.table(columns), mode="append", schema_mode="merge")


def test_time_travel(tmp_path: Path, opened: Opened) -> None:
    for value in (1, 2, 3):
        append(tmp_path / "t", id=[value])
    connection = opened(kind="delta", path=str(tmp_path))
    assert rows_of(connection, "SELECT id FROM s.t") == [(1,), (2,), (3,)]
    assert rows_of(connection, 'SELECT id FROM s."t@v0"') == [(1,)]
    assert rows_of(connection, 'SELECT id FROM s."t@v1"') == [(1,), (2,)]
    both = 'SELECT count(*) AS n FROM s.t a JOIN s."t@v0" b ON a.id = b.id'
    assert rows_of(connection, both) == [(1,)]
    pinned = opened(kind="delta", tables={"t": {"path": str(tmp_path / "t"), "version": 0}})
    assert rows_of(pinned, "SELECT id FROM s.t") == [(1,)]


def test_deleted_and_overwritten_rows_are_gone(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "t"
    append(path, id=[1, 2, 3])
    deltalake.DeltaTable(str(path)).delete("id = 2")
    connection = opened(kind="delta", path=str(tmp_path))
    assert rows_of(connection, "SELECT id FROM s.t") == [(1,), (3,)]
    deltalake.write_deltalake(str(path), pa.table({"id": [9]}), mode="overwrite")
    assert rows_of(connection, "SELECT id FROM s.t") == [(9,)]
    assert rows_of(connection, 'SELECT id FROM s."t@v0"') == [(1,), (2,), (3,)]


def test_a_query_reads_one_version(tmp_path: Path, opened: Opened) -> None:
    """A commit between the plan and the read, and between two reads of one query, is not seen."""
    append(tmp_path / "t", id=[1])
    connection = opened(kind="delta", path=str(tmp_path))
    seen: list[str] = []
    source = connection._session.sources["s"]
    original = source.relation

    def relation(cursor: Any, name: str) -> str:
        if not seen:
            append(tmp_path / "t", id=[2])
        seen.append(name)
        return str(original(cursor, name))

    source.relation = relation
    sql = "SELECT a.id, random() < 2 AS r FROM s.t a WHERE a.id IN (SELECT id FROM s.t)"
    assert rows_of(connection, sql) == [(1, True)]
    assert set(seen) == {"t@v0"}
    assert rows_of(connection, "SELECT id FROM s.t") == [(1,), (2,)]


ODD = ("a b", "a/b", "a%20b", "x=y", "ü", "it's", "", None, "NULL", "a#b?c", "C:\\d")


def test_partition_values_that_paths_must_quote(tmp_path: Path, opened: Opened) -> None:
    table = pa.table({"id": list(range(len(ODD))), "part": pa.array(ODD, pa.string())})
    deltalake.write_deltalake(str(tmp_path / "t"), table, partition_by=["part"])
    connection = opened(kind="delta", path=str(tmp_path))
    stored = deltalake.DeltaTable(str(tmp_path / "t")).to_pyarrow_table().to_pylist()
    want = sorted(((r["id"], r["part"]) for r in stored), key=repr)
    assert rows_of(connection, "SELECT id, part FROM s.t") == want
    for number, value in want:
        if value:
            quoted = value.replace("'", "''")
            found = rows_of(connection, f"SELECT id FROM s.t WHERE part = '{quoted}'")
            assert found == [(number,)], value


def test_partitions_of_every_type(tmp_path: Path, opened: Opened) -> None:
    columns = {
        "day": pa.array([datetime.date(2024, 2, 29), None], pa.date32()),
        "price": pa.array([decimal.Decimal("1.50"), decimal.Decimal("-2.00")], pa.decimal128(9, 2)),
        "ok": pa.array([True, None]),
        "small": pa.array([1, -1], pa.int16()),
        "ts": pa.array([datetime.datetime(2024, 1, 1, 2, 3, 4), None], pa.timestamp("us")),
    }
    for name, values in columns.items():
        path = tmp_path / name
        deltalake.write_deltalake(
            str(path), pa.table({"id": [1, 2], "part": values}), partition_by=["part"]
        )
    connection = opened(kind="delta", path=str(tmp_path))
    for name, values in columns.items():
        want = sorted(enumerate(values.to_pylist(), 1), key=repr)
        assert rows_of(connection, f"SELECT id, part FROM s.{name}") == want
    assert types_of(connection, "s.price")["part"] == "DECIMAL(9,2)"


def test_partitions_are_pruned(tmp_path: Path, opened: Opened) -> None:
    for part in ("a", "b"):
        deltalake.write_deltalake(
            str(tmp_path / "t"),
            pa.table({"id": [1], "part": [part]}),
            partition_by=["part"],
            mode="append",
        )
    for file in (tmp_path / "t" / "part=b").glob("*.parquet"):
        file.unlink()
    connection = opened(kind="delta", path=str(tmp_path))
    # DuckDB looks at the files of a branch when it binds it: pruning is of rows, not of opening.
    with pytest.raises(batuta_sql.Error, match="part=b"):
        rows_of(connection, "SELECT id FROM s.t")


def test_a_column_that_older_files_lack_is_null(tmp_path: Path, opened: Opened) -> None:
    append(tmp_path / "t", id=[1])
    append(tmp_path / "t", id=[2], name=["b"])
    connection = opened(kind="delta", path=str(tmp_path))
    assert rows_of(connection, "SELECT id, name FROM s.t") == [(1, None), (2, "b")]
    assert rows_of(connection, "SELECT id FROM s.t WHERE name IS NULL") == [(1,)]
    assert list(types_of(connection, 's."t@v0"')) == ["id"]


def test_an_empty_table(tmp_path: Path, opened: Opened) -> None:
    deltalake.DeltaTable.create(str(tmp_path / "t"), pa.schema([("id", pa.int64())]))
    connection = opened(kind="delta", path=str(tmp_path))
    assert rows_of(connection, "SELECT id FROM s.t") == []
    assert types_of(connection, "s.t") == {"id": "BIGINT"}


def hand_written(folder: Path, mode: str) -> None:
    """A table with column mapping, as Spark would write it: the files hold physical names."""
    table = folder / "t"
    (table / "_delta_log").mkdir(parents=True)
    file = table / "part-0.parquet"
    duckdb.sql('SELECT 1::BIGINT AS "col-1", \'Ann\' AS "col-2"').write_parquet(str(file))

    def field(name: str, kind: str, number: int) -> dict[str, Any]:
        metadata = {
            "delta.columnMapping.id": number,
            "delta.columnMapping.physicalName": f"col-{number}",
        }
        return {"name": name, "type": kind, "nullable": True, "metadata": metadata}

    fields = [field("id", "long", 1), field("full name", "string", 2), field("part", "string", 3)]
    actions = [
        {
            "protocol": {
                "minReaderVersion": 2,
                "minWriterVersion": 5,
            }
        },
        {
            "metaData": {
                "id": "00000000-0000-0000-0000-000000000000",
                "format": {"provider": "parquet", "options": {}},
                "schemaString": json.dumps({"type": "struct", "fields": fields}),
                "partitionColumns": ["part"],
                "configuration": {
                    "delta.columnMapping.mode": mode,
                    "delta.columnMapping.maxColumnId": "3",
                },
                "createdTime": 0,
            }
        },
        {
            "add": {
                "path": "part-0.parquet",
                "partitionValues": {"col-3": "x y"},
                "size": file.stat().st_size,
                "modificationTime": 0,
                "dataChange": True,
            }
        },
    ]
    log = table / "_delta_log" / f"{0:020}.json"
    log.write_text("\n".join(map(json.dumps, actions)))


def test_column_mapping(tmp_path: Path, opened: Opened) -> None:
    hand_written(tmp_path, "name")
    connection = opened(kind="delta", path=str(tmp_path))
    assert rows_of(connection, 'SELECT id, "full name", part FROM s.t') == [(1, "Ann", "x y")]
    assert list(types_of(connection, "s.t")) == ["id", "full name", "part"]


def test_a_version_is_part_of_the_fragment(tmp_path: Path, opened: Opened) -> None:
    append(tmp_path / "t", id=[1])
    cursor = opened(kind="delta", path=str(tmp_path)).execute("SELECT id FROM s.t")
    assert "t@v0" in cursor.plan.fragments[0].sql
