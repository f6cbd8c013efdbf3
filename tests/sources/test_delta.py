"""Delta tables: versions, partitions, schema evolution, column mapping."""

from __future__ import annotations

import datetime
import decimal
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
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


def test_a_version_in_duckdbs_own_words(tmp_path: Path, opened: Opened) -> None:
    for value in (1, 2):
        append(tmp_path / "t", id=[value])
    connection = opened(kind="delta", path=str(tmp_path))
    for sql in (
        "SELECT id FROM s.t AT (VERSION => 0)",
        "SELECT t.id FROM s.main.t AT (VERSION => 0)",
        "SELECT x.id FROM s.t AS x AT (VERSION => 0) WHERE x.id > 0",
        "SELECT id FROM (SELECT * FROM s.t AT (VERSION => 0))",
        "SELECT id FROM s.t AT (VERSION => 0) TABLESAMPLE 100%",
        "WITH w AS (FROM s.t AT (VERSION => 0)) SELECT id FROM w",
        "SELECT id FROM s.t FOR VERSION AS OF 0",
        "SELECT x.id FROM s.t FOR SYSTEM_VERSION AS OF 0 AS x WHERE x.id > 0",
        'SELECT "x y".id FROM s.t for version as of 0 "x y", (VALUES (1)) v(n)',
        "SELECT id FROM s.t FOR VERSION AS OF 0 SEMI JOIN s.t u USING (id)",
    ):
        assert rows_of(connection, sql) == [(1,)], sql
    both = "SELECT b.id FROM s.t AT (VERSION => 0) RIGHT JOIN s.t AS b USING (id)"
    assert rows_of(connection, both) == [(1,), (2,)]
    for refused in (
        "SELECT id FROM s.t AT (VERSION => 1 + 0)",
        "SELECT id FROM s.t AT (TIMESTAMP => now())",
        "PIVOT s.t AT (VERSION => 0) ON id USING count(*)",
    ):
        with pytest.raises(batuta_sql.Error):
            rows_of(connection, refused)


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

    def relation(cursor: Any, name: str, query: Any) -> str:
        if not seen:
            append(tmp_path / "t", id=[2])
        seen.append(name)
        return str(original(cursor, name, query))

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


def partitioned(path: Path) -> None:
    table = pa.table({"id": [1, 2, 3], "part": ["a", "b", None]})
    deltalake.write_deltalake(str(path), table, partition_by=["part"])


def test_files_of_other_partitions_are_not_touched(tmp_path: Path, opened: Opened) -> None:
    partitioned(tmp_path / "t")
    for file in (tmp_path / "t" / "part=b").glob("*.parquet"):
        file.unlink()
    connection = opened(kind="delta", path=str(tmp_path))
    for test, want in (
        ("part = 'a'", [(1,)]),
        ("part IS NULL AND id > 0", [(3,)]),
        ("upper(part) IN ('A', 'X')", [(1,)]),
        ("part < 'b'", [(1,)]),
    ):
        assert rows_of(connection, f"SELECT id FROM s.t WHERE {test}") == want
    for test in ("true", "part = 'a' OR id = 2", "part <> 'a'"):
        with pytest.raises(batuta_sql.OperationalError, match="part=b"):
            rows_of(connection, f"SELECT id FROM s.t WHERE {test}")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT o.id, t.id AS tid FROM s.o LEFT JOIN s.t ON o.id = t.id WHERE t.part IS NULL",
        "SELECT o.id, t.id AS tid FROM s.o LEFT JOIN s.t ON o.id = t.id AND t.part = 'a'",
        "SELECT t.id, u.id AS uid FROM s.t, s.t u WHERE t.part = 'a'",
        "SELECT t.id, u.id AS uid FROM s.t, s.t u WHERE t.part = 'a' AND u.part = 'b'",
        "SELECT id FROM s.o WHERE NOT EXISTS (FROM s.t WHERE t.id = o.id AND t.part = 'a')",
        "SELECT id FROM s.t WHERE part = (SELECT min(part) FROM s.t)",
        "SELECT id, count(*) OVER () AS n FROM s.t WHERE part > 'a'",
        "SELECT id FROM s.t WHERE part = 'a' UNION ALL SELECT id FROM s.t WHERE part = 'b'",
        "SELECT id FROM s.t WHERE coalesce(part, 'a') = 'a'",
    ],
)
def test_pruning_loses_no_row(tmp_path: Path, opened: Opened, sql: str) -> None:
    partitioned(tmp_path / "t")
    append(tmp_path / "o", id=[1, 2, 3, 4])
    with duckdb.connect() as local:
        local.execute(
            "CREATE SCHEMA s; CREATE TABLE s.o AS SELECT range AS id FROM range(1, 5);"
            "CREATE TABLE s.t AS SELECT * FROM (VALUES (1, 'a'), (2, 'b'), (3, NULL)) v(id, part)"
        )
        want = sorted(local.execute(sql).fetchall(), key=repr)
    assert rows_of(opened(kind="delta", path=str(tmp_path)), sql) == want


def test_columns_called_as_the_reader_calls_its_own(tmp_path: Path, opened: Opened) -> None:
    names = ["file_index", "filename", "c0", "#read", "here", "f", "p"]
    for part in names:
        path = tmp_path / f"t{names.index(part)}"
        table = pa.table({n: [i] for i, n in enumerate(names)})
        deltalake.write_deltalake(str(path), table, partition_by=[part])
    connection = opened(kind="delta", path=str(tmp_path))
    for number in range(len(names)):
        assert rows_of(connection, f"SELECT * FROM s.t{number}") == [tuple(range(len(names)))]


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


def hand_written(
    table: Path,
    rows: pa.Table,
    fields: list[dict[str, Any]],
    *,
    partition_values: dict[str, str] | None = None,
    partition_columns: list[str] | None = None,
    mode: str = "none",
    features: list[str] | None = None,
    **options: Any,
) -> None:
    """A table of one file as another engine would write it."""
    (table / "_delta_log").mkdir(parents=True)
    file = table / "part-0.parquet"
    pq.write_table(rows, str(file), **options)
    protocol: dict[str, Any] = {"minReaderVersion": 2, "minWriterVersion": 5}
    if features:
        protocol = {"minReaderVersion": 3, "minWriterVersion": 7}
        protocol |= {"readerFeatures": features, "writerFeatures": features}
    metadata = {
        "id": "00000000-0000-0000-0000-000000000000",
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps({"type": "struct", "fields": fields}),
        "partitionColumns": partition_columns or [],
        "configuration": {
            "delta.columnMapping.mode": mode,
            "delta.columnMapping.maxColumnId": "9",
        },
        "createdTime": 0,
    }
    add = {
        "path": file.name,
        "partitionValues": partition_values or {},
        "size": file.stat().st_size,
        "modificationTime": 0,
        "dataChange": True,
    }
    log = table / "_delta_log" / f"{0:020}.json"
    actions = [{"protocol": protocol}, {"metaData": metadata}, {"add": add}]
    log.write_text("\n".join(map(json.dumps, actions)))


def field(name: str, kind: Any, number: int | None = None) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if number is not None:
        metadata = {
            "delta.columnMapping.id": number,
            "delta.columnMapping.physicalName": f"col-{number}",
        }
    return {"name": name, "type": kind, "nullable": True, "metadata": metadata}


def numbered(name: str, kind: pa.DataType, number: int) -> pa.Field:
    return pa.field(name, kind, metadata={"PARQUET:field_id": str(number)})


MAPPED = [field("id", "long", 1), field("full name", "string", 2), field("part", "string", 3)]
TAGS = field("tags", {"type": "array", "elementType": "long", "containsNull": True}, 4)


@pytest.mark.parametrize(("mode", "prefix"), [("name", "col-"), ("id", "col-"), ("id", "other-")])
def test_column_mapping(tmp_path: Path, opened: Opened, mode: str, prefix: str) -> None:
    """By name the files hold the physical names; by id their names mean nothing."""
    schema = pa.schema(
        [
            numbered(f"{prefix}2", pa.string(), 2),
            numbered(f"{prefix}1", pa.int64(), 1),
            numbered(f"{prefix}4", pa.list_(pa.int64()), 4),
        ]
    )
    rows = pa.table([["Ann"], [1], [[5, None]]], schema=schema)
    hand_written(
        tmp_path / "t",
        rows,
        [*MAPPED, TAGS, field("late", "date", 5)],
        partition_values={"col-3": "x y"},
        partition_columns=["part"],
        mode=mode,
    )
    connection = opened(kind="delta", path=str(tmp_path))
    sql = "SELECT id, \"full name\", part, tags, late FROM s.t WHERE part = 'x y'"
    assert rows_of(connection, sql) == [(1, "Ann", "x y", [5, None], None)]
    assert list(types_of(connection, "s.t")) == ["id", "full name", "part", "tags", "late"]


def test_files_without_the_ids_that_the_table_maps_by(tmp_path: Path, opened: Opened) -> None:
    """DuckDB would read them as NULL."""
    hand_written(tmp_path / "t", pa.table({"col-1": [1]}), MAPPED[:1], mode="id")
    with pytest.raises(batuta_sql.OperationalError, match="by id"):
        rows_of(opened(kind="delta", path=str(tmp_path)), "SELECT id FROM s.t")


def test_a_mapped_struct_is_refused(tmp_path: Path, opened: Opened) -> None:
    inner = {"type": "struct", "fields": [field("x", "integer", 2)]}
    hand_written(
        tmp_path / "t", pa.table({"col-1": [{"col-2": 5}]}), [field("s", inner, 1)], mode="name"
    )
    with pytest.raises(batuta_sql.NotSupportedError, match='"s" of Delta table "t"'):
        rows_of(opened(kind="delta", path=str(tmp_path)), "SELECT * FROM s.t")


@pytest.mark.parametrize("features", [["deletionVectors"], ["timestampNtz", "variantType"]])
def test_a_feature_that_cannot_be_read_is_refused(
    tmp_path: Path, opened: Opened, features: list[str]
) -> None:
    hand_written(tmp_path / "t", pa.table({"id": [1]}), [field("id", "long")], features=features)
    append(tmp_path / "other", id=[1])
    connection = opened(kind="delta", path=str(tmp_path))
    with pytest.raises(batuta_sql.Error, match=rf'"t".*{features[-1]}') as caught:
        rows_of(connection, "SELECT * FROM s.t")
    assert caught.value.source == "s"
    assert rows_of(connection, "SELECT * FROM s.other") == [(1,)]


NOON = datetime.datetime(2024, 1, 1, 12)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("held", ["INT96", "plain", "zoned"])
@pytest.mark.parametrize("kind", ["timestamp", "timestamp_ntz"])
def test_a_timestamp_is_the_same_moment_however_it_is_stored(
    tmp_path: Path, opened: Opened, kind: str, held: str, zone: str
) -> None:
    type_ = pa.timestamp("us", "UTC") if held == "zoned" else pa.timestamp("us")
    hand_written(
        tmp_path / "t",
        pa.table({"t": pa.array([NOON, None], type_)}),
        [field("t", kind)],
        features=["timestampNtz"],
        use_deprecated_int96_timestamps=held == "INT96",
    )
    connection = opened(kind="delta", path=str(tmp_path))
    connection.execute(f"SET TimeZone = '{zone}'")
    assert rows_of(connection, "SELECT epoch(t) AS e FROM s.t") == [(1704110400.0,), (None,)]
    again = "SELECT count(*) AS n FROM s.t WHERE epoch(t) = 1704110400 AND t > '2023-01-01'"
    assert rows_of(connection, again) == [(1,)]


def test_files_whose_types_are_narrower_than_the_tables(tmp_path: Path, opened: Opened) -> None:
    price = pa.array([decimal.Decimal("1.5"), decimal.Decimal("-2.0")], pa.decimal128(5, 1))
    hand_written(
        tmp_path / "t",
        pa.table({"id": pa.array([1, 2], pa.int32()), "price": price}),
        [field("id", "long"), field("price", "decimal(12,3)")],
    )
    connection = opened(kind="delta", path=str(tmp_path))
    assert types_of(connection, "s.t") == {"id": "BIGINT", "price": "DECIMAL(12,3)"}
    sql = "SELECT id FROM s.t WHERE price >= 1.500 AND id < 5000000000"
    assert rows_of(connection, sql) == [(1,)]


def test_nan_that_statistics_leave_out_is_found(tmp_path: Path, opened: Opened) -> None:
    append(tmp_path / "t", id=[1, 2, 3], x=[float("nan"), 1.0, None])
    connection = opened(kind="delta", path=str(tmp_path))
    assert rows_of(connection, "SELECT id FROM s.t WHERE x > 1e308") == [(1,)]
    assert rows_of(connection, "SELECT id FROM s.t WHERE x < 2") == [(2,)]


def test_dates_that_python_does_not_have(tmp_path: Path, opened: Opened) -> None:
    append(tmp_path / "t", day=pa.array([4_000_000, None], pa.date32()))
    sql = "SELECT day::VARCHAR AS d FROM s.t WHERE day IS NOT NULL"
    assert rows_of(opened(kind="delta", path=str(tmp_path)), sql) == [("12921-08-18",)]


def test_a_table_made_anew_under_the_same_path(tmp_path: Path, opened: Opened) -> None:
    append(tmp_path / "t", id=[1])
    connection = opened(kind="delta", path=str(tmp_path))
    assert rows_of(connection, "SELECT * FROM s.t") == [(1,)]
    shutil.rmtree(tmp_path / "t")
    append(tmp_path / "t", name=["new"])
    assert rows_of(connection, "SELECT * FROM s.t") == [("new",)]


def test_folders_of_tables_are_schemas(tmp_path: Path, opened: Opened) -> None:
    append(tmp_path / "t", id=[0])
    append(tmp_path / "north" / "t", id=[1])
    append(tmp_path / "north" / "t", id=[2])
    append(tmp_path / "south" / "u", id=[3])
    connection = opened(kind="delta", path=str(tmp_path))
    shown = {row[0] for row in connection.execute("SHOW TABLES").fetchall()}
    assert shown == {"s.t", "s.north.t", "s.south.u"}
    assert rows_of(connection, "SELECT id FROM s.North.T") == [(1,), (2,)]
    assert rows_of(connection, "SELECT id FROM s.main.t") == [(0,)]
    assert rows_of(connection, "SELECT id FROM s.u") == [(3,)]
    assert rows_of(connection, 'SELECT id FROM s.north."t@v0"') == [(1,)]
    both = "SELECT a.id AS a, b.id AS b FROM s.main.t a JOIN s.north.t b ON a.id < b.id"
    assert rows_of(connection, both) == [(0, 1), (0, 2)]


def test_names_that_differ_in_case_alone_are_two_tables(tmp_path: Path, opened: Opened) -> None:
    append(tmp_path / "orders", id=[1])
    append(tmp_path / "Orders", id=[2])
    sql = 'SELECT a.id AS a, b.id AS b FROM s."orders" a, s."Orders" b'
    assert rows_of(opened(kind="delta", path=str(tmp_path)), sql) == [(1, 2)]


def damaged(folder: Path, damage: str) -> None:
    for number in range(4):
        append(folder / "t", id=[number])
    log = folder / "t" / "_delta_log"
    match damage:
        case "hole":
            (log / f"{1:020}.json").unlink()
        case "no beginning":
            (log / f"{0:020}.json").unlink()
        case "half an entry":
            entry = log / f"{3:020}.json"
            entry.write_text(entry.read_text()[:80])
        case "no log":
            for entry in log.iterdir():
                entry.unlink()
        case "a file is gone":
            next((folder / "t").glob("*.parquet")).unlink()


@pytest.mark.parametrize(
    "damage", ["hole", "no beginning", "half an entry", "no log", "a file is gone"]
)
def test_a_damaged_table_is_one_clear_error(tmp_path: Path, opened: Opened, damage: str) -> None:
    damaged(tmp_path, damage)
    append(tmp_path / "other", id=[1])
    connection = opened(kind="delta", path=str(tmp_path))
    with pytest.raises(batuta_sql.OperationalError, match="t") as caught:
        rows_of(connection, "SELECT * FROM s.t")
    assert str(caught.value).startswith("s: ")
    assert "<unknown>" not in str(caught.value)
    assert "LINE" not in str(caught.value)
    assert rows_of(connection, "SELECT * FROM s.other") == [(1,)]


def test_a_version_is_part_of_the_fragment(tmp_path: Path, opened: Opened) -> None:
    append(tmp_path / "t", id=[1])
    cursor = opened(kind="delta", path=str(tmp_path)).execute("SELECT id FROM s.t")
    assert "t@v0" in cursor.plan.fragments[0].sql
