"""Iceberg tables: schema evolution, partitions, deletes, snapshots, labels."""

from __future__ import annotations

import datetime
import decimal
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    Transform,
    TruncateTransform,
    YearTransform,
)
from pyiceberg.types import (
    BinaryType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
)

import batuta_sql
from batuta_sql.sources.file_labels import read_labels
from tests.sources.conftest import rows_of, types_of
from tests.sources.iceberg_writer import HandMade, settings_of, sql_catalog, with_id

Opened = Callable[..., Any]
UTC = datetime.UTC


def optional(number: int, name: str, kind: Any) -> NestedField:
    return NestedField(number, name, kind, required=False)


def plain(folder: Path, *fields: NestedField, spec: Any = None, **properties: str) -> HandMade:
    """A table without rows, to be filled by hand."""
    more = {"partition_spec": spec} if spec is not None else {}
    made = sql_catalog(folder).create_table("n.t", Schema(*fields), properties=properties, **more)
    return HandMade(made)


# --- columns by field id -----------------------------------------------------------------------


def test_renamed_reordered_dropped_and_added_again(tmp_path: Path, opened: Opened) -> None:
    table = sql_catalog(tmp_path).create_table(
        "n.t", pa.schema([("id", pa.int64()), ("name", pa.string()), ("gone", pa.int32())])
    )
    table.append(pa.table({"id": [1], "name": ["a"], "gone": pa.array([7], pa.int32())}))
    with table.update_schema() as update:
        update.rename_column("name", "title").delete_column("gone")
    with table.update_schema() as update:
        update.add_column("gone", StringType()).add_column("name", LongType())
        update.move_first("gone")
    table.append(pa.table({"gone": ["x"], "id": [2], "title": ["b"], "name": [9]}))
    connection = opened(**settings_of(tmp_path))
    assert list(types_of(connection, "s.n.t")) == ["gone", "id", "title", "name"]
    assert rows_of(connection, "SELECT * FROM s.n.t") == [
        ("x", 2, "b", 9),
        (None, 1, "a", None),
    ]
    # What is read under a name, and what a filter on it finds, are the same column.
    assert rows_of(connection, "SELECT id FROM s.t WHERE gone IS NULL") == [(1,)]
    assert rows_of(connection, "SELECT id FROM s.t WHERE title = 'a'") == [(1,)]
    assert rows_of(connection, "SELECT id FROM s.t WHERE name = 9") == [(2,)]


def test_columns_that_were_widened(tmp_path: Path, opened: Opened) -> None:
    fields = [
        optional(1, "i", IntegerType()),
        optional(2, "f", FloatType()),
        optional(3, "d", DecimalType(9, 2)),
    ]
    table = sql_catalog(tmp_path).create_table("n.t", Schema(*fields))
    old = {
        "i": pa.array([1, -2147483648], pa.int32()),
        "f": pa.array([0.5, float("nan")], pa.float32()),
        "d": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(9, 2)),
    }
    table.append(pa.table(old))
    with table.update_schema() as update:
        update.update_column("i", LongType()).update_column("f", DoubleType())
        update.update_column("d", DecimalType(18, 2))
    new = {"i": [9000000000], "f": [1e300], "d": [decimal.Decimal("1234567890123456.25")]}
    table.append(pa.table(new).cast(table.schema().as_arrow()))
    connection = opened(**settings_of(tmp_path))
    assert list(types_of(connection, "s.t").values()) == ["BIGINT", "DOUBLE", "DECIMAL(18,2)"]
    assert rows_of(connection, "SELECT i FROM s.t WHERE i > 2147483647 OR i < 0") == [
        (-2147483648,),
        (9000000000,),
    ]
    assert rows_of(connection, "SELECT i FROM s.t WHERE f > 1") == [(-2147483648,), (9000000000,)]
    assert rows_of(connection, "SELECT i FROM s.t WHERE d = 1.5") == [(1,)]
    assert rows_of(connection, "SELECT sum(d) AS x FROM s.t") == [
        (decimal.Decimal("1234567890123457.75"),)
    ]


NESTED = StructType(
    optional(3, "a", IntegerType()),
    optional(4, "b", StringType()),
    optional(5, "deep", ListType(6, StructType(optional(7, "k", IntegerType())), False)),
)


def test_fields_of_nested_values_evolve_like_columns(tmp_path: Path, opened: Opened) -> None:
    fields = [
        optional(1, "id", LongType()),
        optional(2, "s", NESTED),
        optional(8, "l", ListType(9, StructType(optional(10, "x", IntegerType())), False)),
        optional(11, "m", MapType(12, StringType(), 13, FloatType(), False)),
    ]
    table = sql_catalog(tmp_path).create_table("n.t", Schema(*fields))
    rows = [
        {
            "id": 1,
            "s": {"a": 1, "b": "x", "deep": [{"k": 5}, None]},
            "l": [{"x": 1}, {"x": None}, None],
            "m": {"k": 0.5},
        },
        {"id": 2, "s": None, "l": [], "m": None},
        {"id": 3, "s": {"a": None, "b": None, "deep": []}, "l": [], "m": {}},
    ]
    table.append(pa.Table.from_pylist(rows, table.schema().as_arrow()))
    with table.update_schema() as update:
        update.rename_column("s.a", "b2").rename_column("s.b", "a")
        update.update_column("s.a", LongType())
        update.rename_column("s.deep.element.k", "key")
        update.add_column(("l", "y"), StringType())
        update.update_column("l.x", LongType())
        update.update_column("m.value", DoubleType())
    with table.update_schema() as update:
        update.add_column(("s", "b"), LongType())
    rows = [
        {
            "id": 4,
            "s": {"b2": 10**10, "a": "y", "deep": [{"key": 6}], "b": 3},
            "l": [{"x": 10**10, "y": "n"}],
            "m": {"z": 1e300},
        }
    ]
    table.append(pa.Table.from_pylist(rows, table.schema().as_arrow()))
    connection = opened(**settings_of(tmp_path))
    assert types_of(connection, "s.t")["s"].replace('"', "") == (
        "STRUCT(b2 BIGINT, a VARCHAR, deep STRUCT(key INTEGER)[], b BIGINT)"
    )
    found = connection.execute("SELECT * FROM s.t ORDER BY id").fetch_arrow_table().to_pylist()
    assert found == [
        {
            "id": 1,
            "s": {"b2": 1, "a": "x", "deep": [{"key": 5}, None], "b": None},
            "l": [{"x": 1, "y": None}, {"x": None, "y": None}, None],
            "m": [("k", 0.5)],
        },
        {"id": 2, "s": None, "l": [], "m": None},
        {
            "id": 3,
            "s": {"b2": None, "a": None, "deep": [], "b": None},
            "l": [],
            "m": [],
        },
        {
            "id": 4,
            "s": {"b2": 10**10, "a": "y", "deep": [{"key": 6}], "b": 3},
            "l": [{"x": 10**10, "y": "n"}],
            "m": [("z", 1e300)],
        },
    ]
    assert rows_of(connection, "SELECT id FROM s.t WHERE s.a = 'x'") == [(1,)]
    assert rows_of(connection, "SELECT id FROM s.t WHERE s.b IS NULL AND id <> 2") == [(1,), (3,)]


def test_lists_that_are_null_stay_so(tmp_path: Path, opened: Opened) -> None:
    """As do empty ones; pyiceberg itself writes a NULL list of structs as an empty one."""
    one = StructType(optional(3, "a", LongType()), optional(4, "b", StringType()))
    made = plain(tmp_path, optional(1, "l", ListType(2, one, False)))
    # The table's ids are given anew by the catalog, the same as these.
    element = with_id("element", pa.struct([with_id("old", pa.int32(), 3)]), 2)
    schema = pa.schema([with_id("l", pa.list_(element), 1)])
    rows = pa.table([[[{"old": 1}, None], None, []]], schema=schema)
    made.commit(made.file("a.parquet", rows))
    found = opened(**made.settings).execute("SELECT l FROM s.t").fetch_arrow_table()
    assert found.column("l").to_pylist() == [[{"a": 1, "b": None}, None], None, []]


MAPPING = json.dumps(
    [
        {"field-id": 1, "names": ["id", "ident"]},
        {
            "field-id": 2,
            "names": ["s"],
            "fields": [{"field-id": 4, "names": ["old"]}, {"field-id": 5, "names": ["b"]}],
        },
    ]
)


def test_files_without_field_ids_by_the_name_mapping(tmp_path: Path, opened: Opened) -> None:
    inner = StructType(optional(3, "a", LongType()), optional(4, "b", StringType()))
    made = plain(
        tmp_path,
        optional(1, "number", LongType()),
        optional(2, "s", inner),
        optional(5, "late", StringType()),
        **{"schema.name-mapping.default": MAPPING},
    )
    rows = pa.table(
        {
            "ident": pa.array([1], pa.int32()),
            "s": [{"b": "x", "old": 5}],
            # Not in the mapping: another column, of whatever name.
            "late": ["no"],
        }
    )
    made.commit(made.file("a.parquet", rows))
    connection = opened(**made.settings)
    assert rows_of(connection, "SELECT * FROM s.t") == [(1, {"a": 5, "b": "x"}, None)]


def test_files_without_field_ids_and_no_mapping_are_refused(tmp_path: Path, opened: Opened) -> None:
    """By name they might be another column's values."""
    made = plain(tmp_path, optional(1, "id", LongType()))
    made.commit(made.file("a.parquet", pa.table({"id": [1]})))
    with pytest.raises(batuta_sql.OperationalError, match=r"a\.parquet has no field ids") as error:
        rows_of(opened(**made.settings), "SELECT id FROM s.t")
    assert "schema.name-mapping.default" in str(error.value.hint)


DEFAULTS: dict[str, tuple[Any, Any]] = {
    "int": (5, 5),
    "boolean": (False, False),
    "string": ("it's", "it's"),
    "date": ("2024-02-29", datetime.date(2024, 2, 29)),
    "timestamp": ("2024-02-29T10:00:00.000001", datetime.datetime(2024, 2, 29, 10, 0, 0, 1)),
    "timestamptz": (
        "2024-02-29T10:00:00+00:00",
        datetime.datetime(2024, 2, 29, 10, tzinfo=UTC),
    ),
    "decimal(9, 2)": ("1.50", decimal.Decimal("1.50")),
    "binary": ("00ff", b"\x00\xff"),
    "double": (1.5, 1.5),
}


def test_defaults_of_columns_that_were_added_later(tmp_path: Path, opened: Opened) -> None:
    made = plain(tmp_path, optional(1, "id", LongType()))
    ids = pa.schema([with_id("id", pa.int64(), 1)])
    made.commit(made.file("a.parquet", pa.table([[1]], schema=ids)))
    made.upgrade()
    fields = made.metadata["schemas"][0]["fields"]
    for number, (kind, (written, _)) in enumerate(DEFAULTS.items(), 2):
        fields.append(
            {
                "id": number,
                "name": f"c{number}",
                "type": kind,
                "required": False,
                "initial-default": written,
                "write-default": written,
            }
        )
    made.metadata["last-column-id"] = 20
    made.save()
    # A file that has the column has its own values, NULL too.
    both = pa.schema([with_id("id", pa.int64(), 1), with_id("c2", pa.int32(), 2)])
    made.commit(made.file("b.parquet", pa.table([[2], [None]], schema=both)))
    connection = opened(**made.settings)
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    wanted = [v for _, v in DEFAULTS.values()]
    assert rows_of(connection, "SELECT * FROM s.t") == [(1, *wanted), (2, None, *wanted[1:])]
    assert rows_of(connection, "SELECT id FROM s.t WHERE c2 = 5") == [(1,)]
    assert rows_of(connection, "SELECT id FROM s.t WHERE c2 IS NULL") == [(2,)]


def test_timestamps_that_a_file_holds_as_the_other_kind(tmp_path: Path, opened: Opened) -> None:
    """The session's time zone has no say in it."""
    made = plain(
        tmp_path, optional(1, "plain", TimestampType()), optional(2, "zoned", TimestamptzType())
    )
    moment = datetime.datetime(2024, 1, 1, 12)
    schema = pa.schema(
        [
            with_id("plain", pa.timestamp("us", "UTC"), 1),
            with_id("zoned", pa.timestamp("us"), 2),
        ]
    )
    made.commit(made.file("a.parquet", pa.table([[moment.replace(tzinfo=UTC)], [moment]], schema)))
    connection = opened(**made.settings)
    connection.execute("SET TimeZone = 'America/New_York'")
    sql = "SELECT CAST(plain AS VARCHAR) AS p, epoch_us(zoned) AS z FROM s.t"
    assert rows_of(connection, sql) == [("2024-01-01 12:00:00", 1704110400000000)]
    assert rows_of(
        connection, "SELECT count(*) AS n FROM s.t WHERE plain > '2024-01-01 11:59'"
    ) == [(1,)]


def test_values_that_other_writers_store_in_another_way(tmp_path: Path, opened: Opened) -> None:
    from pyiceberg.types import UUIDType

    made = plain(
        tmp_path,
        optional(1, "u", UUIDType()),
        optional(2, "t", StringType()),
        optional(3, "b", BinaryType()),
        optional(4, "x", FixedType(2)),
    )
    schema = pa.schema(
        [
            with_id("u", pa.binary(16), 1),
            with_id("t", pa.binary(), 2),
            with_id("b", pa.string(), 3),
            with_id("x", pa.binary(2), 4),
        ]
    )
    rows = pa.table([[bytes(range(16))], ["ü".encode()], ["ü"], [b"\x00\xff"]], schema=schema)
    made.commit(made.file("a.parquet", rows))
    sql = "SELECT CAST(u AS VARCHAR) AS u, t, b, x FROM s.t WHERE t = 'ü'"
    assert rows_of(opened(**made.settings), sql) == [
        ("00010203-0405-0607-0809-0a0b0c0d0e0f", "ü", "ü".encode(), b"\x00\xff")
    ]
    with pytest.raises(batuta_sql.NotSupportedError, match="ORC"):
        entry = made.entry(made.folder / "data" / "a.parquet", 1, file_format="ORC")
        made.commit(entry)
        rows_of(opened(**made.settings), "SELECT u FROM s.t")


# --- partitions --------------------------------------------------------------------------------


def spec(*fields: tuple[int, Transform[Any, Any], str]) -> PartitionSpec:
    parts = [PartitionField(i, 1000 + n, t, name) for n, (i, t, name) in enumerate(fields)]
    return PartitionSpec(*parts)


EDGE_ROWS = pa.table(
    {
        "id": pa.array(range(1, 11), pa.int64()),
        "n": pa.array([-11, -10, -1, 0, 1, 9, 10, 11, 2**40, None], pa.int64()),
        "w": pa.array(["", "a", "ab", "abc", "b", "Ab", "ü", "üx", "zzzz", None]),
        "d": pa.array(
            [
                datetime.date(*x) if x else None
                for x in (
                    (1, 1, 1), (1969, 12, 31), (1970, 1, 1), (1970, 1, 2), (2023, 12, 31),
                    (2024, 1, 1), (2024, 2, 29), (2024, 3, 1), (9999, 12, 31), None,
                )
            ],
            pa.date32(),
        ),
        "ts": pa.array(
            [
                datetime.datetime(*x) if x else None
                for x in (
                    (1, 1, 1), (1969, 12, 31, 23, 59, 59, 999999), (1970, 1, 1),
                    (1970, 1, 1, 0, 59),
                    (2023, 12, 31, 23), (2024, 1, 1), (2024, 2, 29, 1), (2024, 2, 29, 2),
                    (9999, 12, 31, 23, 59, 59, 999999), None,
                )
            ],
            pa.timestamp("us"),
        ),
        "p": pa.array(
            [
                decimal.Decimal(x) if x else None
                for x in ("-10.01", "-0.01", "0.00", "0.01", "0.99", "1.00", "9.99", "10.00",
                          "99999.99", None)
            ],
            pa.decimal128(9, 2),
        ),
        "x": pa.array(
            [float("-inf"), -1.5, -0.0, 0.0, 1.5, 2.5, 1e300, float("inf"), float("nan"), None]
        ),
    }
)  # fmt: skip

CONDITIONS = (
    "n = 9", "n < -10", "n <= -10", "n > 10", "n >= 10", "n IN (-11, 11)", "n IS NULL",
    "n IS NOT NULL", "n BETWEEN -1 AND 1", "n > 9.5", "n < 0.5", "n = 9.5", "n = 1e1", "NOT n = 9",
    "n > 5 AND n < 10", "n = 9 OR id = 1", "n <> 9", "n + 1 = 10", "n = 1099511627776",
    "n > 9223372036854775807", "n < 99999999999999999999",
    "w = 'ab'", "w = 'ü'", "w > 'ab'", "w <= 'a'", "w < 'b'", "w IN ('', 'üx')", "w IS NULL",
    "w LIKE 'ab%'", "w = 'AB'", "w >= 'zzz'", "upper(w) = 'AB'", "w > ''", "w IN ('a', NULL)",
    "d = DATE '2024-02-29'", "d < DATE '1970-01-01'", "d > '2024-01-01'", "d >= '2024-01-01'",
    "d = TIMESTAMP '2024-02-29 00:00:00'", "d < TIMESTAMP '2024-02-29 12:00:00'",
    "d > TIMESTAMP '2024-02-28 12:00:00'", "d IN ('1969-12-31', '9999-12-31')", "d IS NULL",
    "d < DATE 'infinity'", "d > DATE '2023-12-31' + INTERVAL 1 DAY", "year(d) = 2024",
    "ts = '1969-12-31 23:59:59.999999'", "ts < '1970-01-01'", "ts >= TIMESTAMP '1970-01-01'",
    "ts <= DATE '2024-01-01'", "ts > '2024-02-29 01:30'", "ts < TIMESTAMP '1970-01-01 00:30:00'",
    "ts BETWEEN '2023-12-31' AND '2024-01-01'", "ts > '9999-12-31'", "ts IS NULL",
    "p = 0.01", "p < 0", "p > 9.995", "p >= 1", "p IN (0.99, 99999.99)", "p < 0.005",
    "p = 1::DOUBLE",
    "p > 99999.991", "p IS NULL",
    "x > 1", "x < 1", "x = 0", "x >= 1e300", "x = 'nan'", "x > 'inf'", "x <= 'inf'", "x <> 0",
    "x IS NULL", "x = 1.5::FLOAT", "x < 2", "x IN (1.5, 'nan')",
    "n = 9 AND w = 'Ab' AND d > '2000-01-01'", "n IS NULL AND w IS NULL", "n > (SELECT 5)",
)  # fmt: skip

SPECS: dict[str, PartitionSpec | None] = {
    "none": None,
    "identity": spec((2, IdentityTransform(), "n_i"), (3, IdentityTransform(), "w_i")),
    "bucket": spec((2, BucketTransform(3), "n_b"), (3, BucketTransform(4), "w_b")),
    "bucket times": spec((4, BucketTransform(3), "d_b"), (5, BucketTransform(3), "ts_b")),
    "truncate": spec(
        (2, TruncateTransform(10), "n_t"), (3, TruncateTransform(2), "w_t"),
        (6, TruncateTransform(100), "p_t"),
    ),
    "year": spec((4, YearTransform(), "d_y"), (5, YearTransform(), "ts_y")),
    "month": spec((4, MonthTransform(), "d_m"), (5, MonthTransform(), "ts_m")),
    "day": spec((4, DayTransform(), "d_d"), (5, DayTransform(), "ts_d")),
    "hour": spec((5, HourTransform(), "ts_h")),
    "identity times": spec((4, IdentityTransform(), "d_i"), (5, IdentityTransform(), "ts_i")),
    "identity decimal": spec((6, IdentityTransform(), "p_i")),
}  # fmt: skip


@pytest.mark.parametrize("name", SPECS)
def test_pruning_loses_no_row(tmp_path: Path, opened: Opened, name: str) -> None:
    """Every condition gives DuckDB's rows, whatever the table is partitioned by."""
    catalog = sql_catalog(tmp_path)
    made = catalog.create_table("n.t", EDGE_ROWS.schema)
    if (wanted := SPECS[name]) is not None:
        catalog.drop_table("n.t")
        made = catalog.create_table("n.t", made.schema(), partition_spec=wanted)
    # Files of one row each, so that each can be left out.
    for i in range(EDGE_ROWS.num_rows):
        made.append(EDGE_ROWS.slice(i, 1))
    connection = opened(**settings_of(tmp_path))
    with duckdb.connect() as local:
        local.register("rows", EDGE_ROWS)
        for condition in CONDITIONS:
            sql = f"SELECT id FROM {{}} WHERE {condition}"
            known = sorted(local.execute(sql.format("rows")).fetchall(), key=repr)
            assert rows_of(connection, sql.format("s.n.t")) == known, condition


def test_files_that_cannot_match_are_not_touched(tmp_path: Path, opened: Opened) -> None:
    table = sql_catalog(tmp_path).create_table("n.t", EDGE_ROWS.schema)
    with table.update_spec() as update:
        update.add_field("d", YearTransform(), "year")
    for i in range(EDGE_ROWS.num_rows):
        table.append(EDGE_ROWS.slice(i, 1))
    connection = opened(**settings_of(tmp_path), file_labels=False)
    for file in (tmp_path / "warehouse/n/t/data/year=2024").glob("*.parquet"):
        file.unlink()
    for condition, want in (
        ("d < '2000-01-01'", [(1,), (2,), (3,), (4,)]),
        ("n IN (-11, 0)", [(1,), (4,)]),
        ("w IS NULL", [(10,)]),
        ("x < -1", [(1,), (2,)]),
    ):
        assert rows_of(connection, f"SELECT id FROM s.n.t WHERE {condition}") == want
    for condition in ("true", "d >= '2024-01-01'", "n = 10 OR id = 1", "random() < 2"):
        with pytest.raises(batuta_sql.OperationalError, match="year=2024"):
            rows_of(connection, f"SELECT id FROM s.n.t WHERE {condition}")


@pytest.mark.parametrize("count", [3, 500])
@pytest.mark.parametrize("key", ["n", "w"])
def test_keys_that_are_sent_leave_files_out(tmp_path: Path, key: str, count: int) -> None:
    """The keys of a small frame reach the manifests: few of them one by one, many as a range."""
    table = sql_catalog(tmp_path).create_table(
        "n.t", pa.schema([("n", pa.int64()), ("w", pa.string())])
    )
    for start in (0, 100_000):
        numbers = range(start, start + 20_000)
        table.append(pa.table({"n": numbers, "w": [f"{n:08}" for n in numbers]}))
    wanted = [7 * n for n in range(count)]
    keys = {"n": pa.array(wanted, pa.int64()), "w": [f"{n:08}" for n in wanted]}
    for file in Path(table.location().removeprefix("file://")).glob("data/*.parquet"):
        if pq.read_metadata(file).row_group(0).column(0).statistics.max > 99_999:
            file.write_bytes(b"")
    config = {
        "semi_joins": "always",
        "cost": {"estimate": "priced"},
        "sources": {"s": {**settings_of(tmp_path), "file_labels": False}},
    }
    with batuta_sql.connect(config) as connection:
        connection.register("small", pa.table({"k": keys[key]}))
        sql = f"SELECT t.n FROM small JOIN s.n.t t ON t.{key} = small.k"
        assert rows_of(connection, sql) == sorted(((n,) for n in wanted), key=repr)


JOINS = (
    "SELECT o.id, t.id AS tid FROM s.n.o o LEFT JOIN s.n.t t ON o.id = t.id WHERE t.part IS NULL",
    "SELECT o.id, t.id AS tid FROM s.n.o o LEFT JOIN s.n.t t ON o.id = t.id AND t.part = 'a'",
    "SELECT t.id, u.id AS uid FROM s.n.t t, s.n.t u WHERE t.part = 'a' AND u.part = 'b'",
    "SELECT t.id, u.id AS uid FROM s.n.t t, s.n.t u WHERE t.part = 'a'",
    "SELECT id FROM s.n.o o WHERE NOT EXISTS (FROM s.n.t t WHERE t.id = o.id AND t.part = 'a')",
    "SELECT id FROM s.n.t WHERE part = (SELECT min(part) FROM s.n.t)",
    "SELECT id, count(*) OVER () AS n FROM s.n.t WHERE part > 'a'",
    "SELECT id FROM s.n.t WHERE part = 'a' UNION ALL SELECT id FROM s.n.t WHERE part = 'b'",
    "SELECT id FROM s.n.t WHERE coalesce(part, 'a') = 'a'",
    "SELECT part, count(*) AS c FROM s.n.t GROUP BY part HAVING part = 'a' OR part IS NULL",
)


@pytest.mark.parametrize("sql", JOINS)
def test_pruning_under_joins_loses_no_row(tmp_path: Path, opened: Opened, sql: str) -> None:
    catalog = sql_catalog(tmp_path)
    rows = pa.table({"id": [1, 2, 3], "part": ["a", "b", None]})
    table = catalog.create_table("n.t", rows.schema)
    with table.update_spec() as update:
        update.add_identity("part")
    table.append(rows)
    catalog.create_table("n.o", rows.schema.remove(1)).append(pa.table({"id": [1, 2, 3, 4]}))
    with duckdb.connect() as local:
        local.execute("ATTACH ':memory:' AS s; CREATE SCHEMA s.n")
        local.execute("CREATE TABLE s.n.o AS SELECT range AS id FROM range(1, 5)")
        local.execute(
            "CREATE TABLE s.n.t AS SELECT * FROM (VALUES (1, 'a'), (2, 'b'), (3, NULL)) v(id, part)"
        )
        want = sorted(local.execute(sql).fetchall(), key=repr)
    assert rows_of(opened(**settings_of(tmp_path)), sql) == want


def test_partition_evolution(tmp_path: Path, opened: Opened) -> None:
    catalog = sql_catalog(tmp_path)
    table = catalog.create_table("n.t", EDGE_ROWS.schema)
    table.append(EDGE_ROWS.slice(0, 3))
    with table.update_spec() as update:
        update.add_field("n", BucketTransform(4), "bucket")
    table.append(EDGE_ROWS.slice(3, 3))
    with table.update_spec() as update:
        update.remove_field("bucket").add_field("d", MonthTransform(), "month")
    table.append(EDGE_ROWS.slice(6, 2))
    with table.update_spec() as update:
        update.add_identity("w")
    table.append(EDGE_ROWS.slice(8, 2))
    with table.update_schema() as update:
        update.rename_column("n", "number").rename_column("w", "n")
    connection = opened(**settings_of(tmp_path))
    with duckdb.connect() as local:
        local.register("rows", EDGE_ROWS)
        for condition in CONDITIONS:
            if re.search(r"\bw\b|SELECT", condition):
                continue
            known = local.execute(f"SELECT id FROM rows WHERE {condition}").fetchall()
            renamed = re.sub(r"\bn\b", "number", condition)
            found = rows_of(connection, f"SELECT id FROM s.n.t WHERE {renamed}")
            assert found == sorted(known, key=repr), condition
    assert rows_of(connection, "SELECT id FROM s.n.t WHERE n = 'ab'") == [(3,)]


def test_identity_partition_columns_that_files_lack(tmp_path: Path, opened: Opened) -> None:
    """As in tables that were made of Hive's: the value is in the metadata alone."""
    made = plain(
        tmp_path,
        optional(1, "id", LongType()),
        optional(2, "day", DateType()),
        optional(3, "word", StringType()),
        optional(4, "price", DecimalType(9, 2)),
        spec=spec(
            (2, IdentityTransform(), "day"),
            (3, IdentityTransform(), "word_as"),
            (4, IdentityTransform(), "price"),
        ),
    )
    ids = pa.schema([with_id("id", pa.int64(), 1)])
    price = decimal.Decimal("1.50")
    made.commit(
        made.file("a.parquet", pa.table([[1]], schema=ids), partition=(19782, "it's", price)),
        made.file("b.parquet", pa.table([[2]], schema=ids), partition=(-1, None, None)),
    )
    connection = opened(**made.settings)
    assert rows_of(connection, "SELECT * FROM s.t") == [
        (1, datetime.date(2024, 2, 29), "it's", price),
        (2, datetime.date(1969, 12, 31), None, None),
    ]
    assert rows_of(connection, "SELECT id FROM s.t WHERE day = '2024-02-29'") == [(1,)]
    assert rows_of(connection, "SELECT id FROM s.t WHERE word IS NULL") == [(2,)]
    assert rows_of(connection, "SELECT id FROM s.t WHERE price > 1") == [(1,)]


def test_bounds_that_a_writer_cut(tmp_path: Path, opened: Opened) -> None:
    """Long texts have bounds of 16 letters: the upper one is then no value of the column."""
    word = "x" * 40
    catalog = sql_catalog(tmp_path)
    table = catalog.create_table("n.t", pa.schema([("w", pa.string())]))
    for value in (word, word + "y", "\U0010ffff" * 20):
        table.append(pa.table({"w": [value]}))
    connection = opened(**settings_of(tmp_path))
    assert rows_of(connection, f"SELECT w FROM s.t WHERE w = '{word}'") == [(word,)]
    assert len(rows_of(connection, f"SELECT w FROM s.t WHERE w > '{word}'")) == 2
    assert len(rows_of(connection, f"SELECT w FROM s.t WHERE w <= '{word}'")) == 1


# --- deletes -----------------------------------------------------------------------------------

IDS = pa.schema([with_id("id", pa.int64(), 1), with_id("w", pa.string(), 2)])


def rows_in(*pairs: tuple[int | None, str | None]) -> pa.Table:
    return pa.table([[i for i, _ in pairs], [w for _, w in pairs]], schema=IDS)


def two_columns(folder: Path, **options: Any) -> HandMade:
    return plain(folder, optional(1, "id", LongType()), optional(2, "w", StringType()), **options)


def test_position_deletes(tmp_path: Path, opened: Opened) -> None:
    made = two_columns(tmp_path)
    made.commit(
        made.file("a.parquet", rows_in(*[(i, f"a{i}") for i in range(6)])),
        made.file("b.parquet", rows_in(*[(i, f"b{i}") for i in range(6, 9)])),
    )
    made.commit(made.position_deletes("d1.parquet", {"a.parquet": [0, 5], "b.parquet": [1]}))
    made.commit(made.position_deletes("d2.parquet", {"a.parquet": [3, 5], "other.parquet": [2]}))
    connection = opened(**made.settings)
    assert rows_of(connection, "SELECT id FROM s.t") == [(1,), (2,), (4,), (6,), (8,)]
    assert rows_of(connection, "SELECT w FROM s.t WHERE id >= 4") == [("a4",), ("b6",), ("b8",)]
    assert rows_of(connection, "SELECT count(*) AS n FROM s.t") == [(5,)]
    assert rows_of(connection, "SELECT a.id FROM s.t a JOIN s.t b ON a.id = b.id + 2") == [
        (4,),
        (6,),
        (8,),
    ]
    assert rows_of(connection, 'SELECT id FROM s."t@v1000001" WHERE id < 2') == [(0,), (1,)]
    assert not connection._session.sources["s"].resolve(("t",))[0].statistics.exact


def test_deletes_come_after_what_they_delete(tmp_path: Path, opened: Opened) -> None:
    """By sequence number; a position delete of its own commit counts, an equality delete not."""
    made = two_columns(tmp_path)
    made.commit(made.equality_deletes("e0.parquet", rows_in((1, "x")).select([0]), [1]))
    made.commit(
        made.file("a.parquet", rows_in((1, "a"), (2, "b"), (3, "c"))),
        made.position_deletes("d.parquet", {"a.parquet": [2]}),
        made.equality_deletes("e1.parquet", rows_in((2, "x")).select([0]), [1]),
    )
    connection = opened(**made.settings)
    assert rows_of(connection, "SELECT id FROM s.t") == [(1,), (2,)]
    made.commit(made.equality_deletes("e2.parquet", rows_in((2, "x")).select([0]), [1]))
    made.commit(made.file("b.parquet", rows_in((2, "again"))))
    assert rows_of(connection, "SELECT id, w FROM s.t") == [(1, "a"), (2, "again")]


def test_equality_deletes(tmp_path: Path, opened: Opened) -> None:
    made = two_columns(tmp_path)
    made.commit(
        made.file("a.parquet", rows_in((1, "a"), (1, "b"), (None, "a"), (2, None), (None, None)))
    )
    made.commit(made.equality_deletes("e1.parquet", rows_in((1, "b"), (None, None)), [1, 2]))
    connection = opened(**made.settings)
    assert rows_of(connection, "SELECT id, w FROM s.t") == [(1, "a"), (2, None), (None, "a")]
    made.commit(made.equality_deletes("e2.parquet", rows_in((0, None)).select([1]), [2]))
    assert rows_of(connection, "SELECT id, w FROM s.t") == [(1, "a"), (None, "a")]
    assert rows_of(connection, "SELECT w FROM s.t WHERE id IS NULL") == [("a",)]
    made.commit(made.position_deletes("d.parquet", {"a.parquet": [0]}))
    assert rows_of(connection, "SELECT id, w FROM s.t") == [(None, "a")]


def test_equality_deletes_by_a_column_that_is_gone(tmp_path: Path, opened: Opened) -> None:
    made = two_columns(tmp_path)
    made.commit(made.file("a.parquet", rows_in((1, "a"), (2, "b"))))
    made.commit(made.equality_deletes("e.parquet", rows_in((0, "a")).select([1]), [2]))
    schemas = made.metadata["schemas"]
    schemas.append({**schemas[0], "schema-id": 1, "fields": schemas[0]["fields"][:1]})
    made.metadata["current-schema-id"] = 1
    made.save()
    assert rows_of(opened(**made.settings), "SELECT * FROM s.t") == [(2,)]


def test_equality_deletes_are_of_their_partition(tmp_path: Path, opened: Opened) -> None:
    made = two_columns(tmp_path, spec=spec((2, IdentityTransform(), "w")))
    made.metadata["partition-specs"].append({"spec-id": 1, "fields": []})
    made.save()
    made.commit(
        made.file("a.parquet", rows_in((1, "a"), (2, "a")), partition=("a",)),
        made.file("b.parquet", rows_in((1, "b"), (3, "b")), partition=("b",)),
        made.file("n.parquet", rows_in((1, None)), partition=(None,)),
    )
    keys = rows_in((1, "a")).select([0])
    made.commit(made.equality_deletes("e1.parquet", keys, [1], partition=("a",)))
    connection = opened(**made.settings)
    assert rows_of(connection, "SELECT * FROM s.t") == [(1, "b"), (1, None), (2, "a"), (3, "b")]
    made.commit(made.equality_deletes("e2.parquet", keys, [1], partition=(None,)))
    assert rows_of(connection, "SELECT * FROM s.t") == [(1, "b"), (2, "a"), (3, "b")]
    # Deletes under a spec without fields are for every partition.
    made.commit(made.equality_deletes("e3.parquet", keys, [1], spec_id=1))
    assert rows_of(connection, "SELECT * FROM s.t") == [(2, "a"), (3, "b")]


def test_deletes_in_the_partition_of_nan(tmp_path: Path, opened: Opened) -> None:
    nan = float("nan")
    made = plain(
        tmp_path,
        optional(1, "id", LongType()),
        optional(2, "x", DoubleType()),
        spec=spec((2, IdentityTransform(), "x")),
    )
    ids = pa.schema([with_id("id", pa.int64(), 1)])
    made.commit(
        made.file("a.parquet", pa.table([[1, 2]], schema=ids), partition=(nan,)),
        made.file("b.parquet", pa.table([[1]], schema=ids), partition=(0.5,)),
    )
    keys = pa.table([[1]], schema=ids)
    made.commit(made.equality_deletes("e.parquet", keys, [1], partition=(float("nan"),)))
    connection = opened(**made.settings)
    assert rows_of(connection, "SELECT id FROM s.t WHERE x > 1") == [(2,)]
    assert rows_of(connection, "SELECT id FROM s.t WHERE x < 1") == [(1,)]


def test_deletes_of_renamed_and_widened_columns(tmp_path: Path, opened: Opened) -> None:
    made = plain(tmp_path, optional(1, "id", IntegerType()), optional(2, "w", StringType()))
    old = pa.schema([with_id("id", pa.int32(), 1), with_id("w", pa.string(), 2)])
    made.commit(made.file("a.parquet", pa.table([[1, 2, 3], ["a", "b", "c"]], schema=old)))
    made.commit(
        made.equality_deletes("e1.parquet", pa.table([[1]], schema=pa.schema([old.field(0)])), [1])
    )
    made.metadata["schemas"][0]["fields"][0] |= {"type": "long", "name": "number"}
    made.save()
    wide = pa.schema([with_id("number", pa.int64(), 1)])
    made.commit(made.equality_deletes("e2.parquet", pa.table([[3]], schema=wide), [1]))
    assert rows_of(opened(**made.settings), "SELECT number, w FROM s.t") == [(2, "b")]


def test_deletion_vectors(tmp_path: Path, opened: Opened) -> None:
    made = two_columns(tmp_path)
    made.upgrade()
    made.commit(
        made.file("a.parquet", rows_in(*[(i, "a") for i in range(6)])),
        made.file("b.parquet", rows_in((6, "b"), (7, "b"))),
    )
    made.commit(made.deletion_vector("v.puffin", "a.parquet", [0, 2, 5]))
    connection = opened(**made.settings)
    assert rows_of(connection, "SELECT id FROM s.t") == [(1,), (3,), (4,), (6,), (7,)]
    assert rows_of(connection, "SELECT id FROM s.t WHERE id > 4") == [(6,), (7,)]
    (table,) = connection._session.sources["s"].resolve(("t",))
    assert (table.statistics.rows, table.statistics.exact) == (5, True)
    broken = made.deletion_vector("w.puffin", "b.parquet", [0])
    made.commit(broken)
    (made.folder / "data" / "w.puffin").write_bytes(b"no puffin")
    with pytest.raises(batuta_sql.OperationalError, match=r"deletion vector of .*b\.parquet"):
        rows_of(connection, "SELECT id FROM s.t")


def test_a_delete_file_that_is_gone_is_an_error(tmp_path: Path, opened: Opened) -> None:
    made = two_columns(tmp_path)
    made.commit(made.file("a.parquet", rows_in((1, "a"))))
    made.commit(made.position_deletes("d.parquet", {"a.parquet": [0]}))
    (made.folder / "data" / "d.parquet").unlink()
    with pytest.raises(batuta_sql.OperationalError, match=r"d\.parquet"):
        rows_of(opened(**made.settings), "SELECT id FROM s.t")


# --- snapshots ---------------------------------------------------------------------------------


def counting(folder: Path, commits: int) -> Any:
    table = sql_catalog(folder).create_table("n.t", pa.schema([("id", pa.int64())]))
    for i in range(commits):
        table.append(pa.table({"id": [i]}))
    return table


def test_time_travel(tmp_path: Path, opened: Opened) -> None:
    table = counting(tmp_path, 2)
    first, second = (s.snapshot_id for s in table.snapshots())
    table.manage_snapshots().create_tag(first, "q1").create_branch(first, "dev").commit()
    with table.update_schema() as update:
        update.rename_column("id", "number")
    connection = opened(**settings_of(tmp_path))
    assert rows_of(connection, "SELECT number FROM s.n.t") == [(0,), (1,)]
    assert rows_of(connection, f'SELECT * FROM s.n."t@v{second}"') == [(0,), (1,)]
    for name in (f"v{first}", "q1", "dev"):
        # An older snapshot has the columns of its time.
        assert rows_of(connection, f'SELECT id FROM s.n."t@{name}"') == [(0,)]
    both = f'SELECT count(*) AS n FROM s.t a JOIN s."t@v{first}" b ON a.number = b.id'
    assert rows_of(connection, both) == [(1,)]
    with pytest.raises(batuta_sql.ProgrammingError, match='no snapshot, branch or tag "q9"') as e:
        connection.execute('SELECT * FROM s.n."t@q9"')
    assert "q1" in str(e.value.hint)


def test_time_travel_in_duckdbs_own_words(tmp_path: Path, opened: Opened) -> None:
    table = counting(tmp_path, 2)
    first, second = table.snapshots()
    table.manage_snapshots().create_tag(first.snapshot_id, "q1").commit()
    middle = datetime.datetime.fromtimestamp(second.timestamp_ms / 1000 - 0.001, UTC)
    connection = opened(**settings_of(tmp_path))
    for at in (
        f"VERSION => {first.snapshot_id}",
        "VERSION => 'q1'",
        f"TIMESTAMP => TIMESTAMPTZ '{middle.isoformat()}'",
        f"TIMESTAMP => '{middle.replace(tzinfo=None).isoformat(' ')}'",
    ):
        assert rows_of(connection, f"SELECT id FROM s.n.t AT ({at})") == [(0,)], at
        assert rows_of(connection, f"SELECT x.id FROM s.t AS x AT ({at})") == [(0,)], at
    both = f"SELECT t.id FROM s.n.t AT (VERSION => {first.snapshot_id}) JOIN s.n.t u USING (id)"
    assert rows_of(connection, both) == [(0,)]
    for at in ("VERSION => 7", "TIMESTAMP => '1999-01-01'", "VERSION => 'q2'"):
        with pytest.raises(batuta_sql.ProgrammingError, match="no snapshot"):
            connection.execute(f"SELECT id FROM s.n.t AT ({at})")


def test_a_query_reads_one_snapshot(tmp_path: Path, opened: Opened) -> None:
    """A commit between the plan and the read, and between two reads of one query, is not seen."""
    table = counting(tmp_path, 1)
    connection = opened(**settings_of(tmp_path))
    seen: list[str] = []
    source = connection._session.sources["s"]
    original = source.relation

    def relation(cursor: Any, name: str, query: Any) -> str:
        if not seen:
            table.append(pa.table({"id": [2]}))
            with table.update_schema() as update:
                update.rename_column("id", "other")
            with table.update_schema() as update:
                update.add_column("id", StringType())
        seen.append(name)
        return str(original(cursor, name, query))

    source.relation = relation
    sql = "SELECT a.id, random() < 2 AS r FROM s.n.t a WHERE a.id IN (SELECT id FROM s.n.t)"
    assert rows_of(connection, sql) == [(0, True)]
    assert rows_of(connection, "SELECT other, id FROM s.n.t") == [(0, None), (2, None)]


def test_a_table_that_was_made_anew(tmp_path: Path, opened: Opened) -> None:
    counting(tmp_path, 1)
    connection = opened(**settings_of(tmp_path))
    assert rows_of(connection, "SELECT id FROM s.n.t") == [(0,)]
    catalog = sql_catalog(tmp_path)
    catalog.drop_table("n.t")
    catalog.create_table("n.t", pa.schema([("id", pa.string())])).append(pa.table({"id": ["x"]}))
    assert rows_of(connection, "SELECT id FROM s.n.t") == [("x",)]


def test_format_version_1(tmp_path: Path, opened: Opened) -> None:
    table = sql_catalog(tmp_path).create_table(
        "n.t",
        pa.schema([("id", pa.int64()), ("w", pa.string())]),
        properties={"format-version": "1"},
    )
    with table.update_spec() as update:
        update.add_identity("w")
    table.append(pa.table({"id": [1, 2], "w": ["a", "b"]}))
    with table.update_spec() as update:
        update.remove_field("w")
    table.append(pa.table({"id": [3], "w": ["a"]}))
    table.delete("id = 1")
    connection = opened(**settings_of(tmp_path))
    assert rows_of(connection, "SELECT id FROM s.n.t WHERE w = 'a'") == [(3,)]
    assert rows_of(connection, "SELECT * FROM s.n.t") == [(2, "b"), (3, "a")]


def test_nanoseconds(tmp_path: Path, opened: Opened) -> None:
    made = plain(tmp_path, optional(1, "id", LongType()))
    made.upgrade()
    made.metadata["schemas"][0]["fields"] += [
        {"id": 2, "name": "p", "type": "timestamp_ns", "required": False},
        {"id": 3, "name": "z", "type": "timestamptz_ns", "required": False},
    ]
    made.save()
    schema = pa.schema(
        [
            with_id("p", pa.timestamp("ns"), 2),
            with_id("z", pa.timestamp("ns", "UTC"), 3),
        ]
    )
    at = 1704067200123456789
    made.commit(made.file("a.parquet", pa.table([[at], [at]], schema=schema)))
    connection = opened(**made.settings)
    assert list(types_of(connection, "s.t").values())[1:] == ["TIMESTAMP_NS", "TIMESTAMPTZ_NS"]
    sql = "SELECT epoch_ns(p) AS p, CAST(z AS VARCHAR) AS z FROM s.t"
    connection.execute("SET TimeZone = 'UTC'")
    assert rows_of(connection, sql) == [(at, "2024-01-01 00:00:00.123456789+00")]


def test_an_empty_table(tmp_path: Path, opened: Opened) -> None:
    counting(tmp_path, 0)
    connection = opened(**settings_of(tmp_path))
    assert rows_of(connection, "SELECT id FROM s.n.t") == []
    assert types_of(connection, "s.n.t") == {"id": "BIGINT"}


def test_a_version_fixed_in_the_settings(tmp_path: Path, opened: Opened) -> None:
    table = counting(tmp_path, 2)
    first = table.snapshots()[0].snapshot_id
    folder = table.location().removeprefix("file://")
    connection = opened(kind="iceberg", tables={"t": {"path": folder, "version": first}})
    assert rows_of(connection, "SELECT id FROM s.t") == [(0,)]


# --- places and names --------------------------------------------------------------------------


def test_tables_by_folder_metadata_file_and_version_hint(tmp_path: Path, opened: Opened) -> None:
    table = counting(tmp_path, 2)
    folder = Path(table.location().removeprefix("file://"))
    files = sorted((folder / "metadata").glob("*.metadata.json"))
    connection = opened(
        kind="iceberg",
        tables={"newest": str(folder), "uri": f"file://{folder}", "older": str(files[1])},
    )
    assert rows_of(connection, "SELECT id FROM s.newest") == [(0,), (1,)]
    assert rows_of(connection, "SELECT id FROM s.uri") == [(0,), (1,)]
    assert rows_of(connection, "SELECT id FROM s.older") == [(0,)]
    for number, file in enumerate(files, 1):
        file.rename(folder / "metadata" / f"v{number}.metadata.json")
    (folder / "metadata" / "version-hint.text").write_text("2")
    assert rows_of(connection, "SELECT id FROM s.newest") == [(0,), (1,)]
    (folder / "metadata" / "00003-0.metadata.json").write_text("{}")
    with pytest.raises(batuta_sql.OperationalError, match="may be its newest"):
        rows_of(connection, "SELECT id FROM s.newest")
    missing = opened(kind="iceberg", tables={"t": str(tmp_path / "nowhere")})
    with pytest.raises(batuta_sql.OperationalError, match="has no metadata file"):
        rows_of(missing, "SELECT id FROM s.t")


def test_namespaces_of_several_levels_and_names_alike(tmp_path: Path, opened: Opened) -> None:
    catalog = sql_catalog(tmp_path)
    for number, (space, name) in enumerate(
        [("n", "Größe"), ("a.b.c", "t"), ("a.b", "t"), ("a.b", "T"), ("n", "x@y")]
    ):
        catalog.create_namespace_if_not_exists(space)
        made = catalog.create_table(f"{space}.{name}", pa.schema([("id", pa.int64())]))
        made.append(pa.table({"id": [number]}))
    connection = opened(**settings_of(tmp_path))
    assert {t[1] for t in connection.tables("s")} == {
        ("n", "Größe"),
        ("a", "b", "c", "t"),
        ("a", "b", "t"),
        ("a", "b", "T"),
        ("n", "x@y"),
    }
    assert rows_of(connection, 'SELECT id FROM s."größe"') == [(0,)]
    assert rows_of(connection, 'SELECT id FROM s."x@y"') == [(4,)]
    assert rows_of(connection, "SELECT id FROM s.a.b.c.t") == [(1,)]
    assert rows_of(connection, "SELECT id FROM s.C.T") == [(1,)]
    both = 'SELECT x.id, y.id AS z FROM s.a.b."t" x, s.a.b."T" y'
    assert rows_of(connection, both) == [(2, 3)]
    with pytest.raises(batuta_sql.ProgrammingError, match="ambiguous|several|may be"):
        connection.execute("SELECT id FROM s.t")


# --- labels ------------------------------------------------------------------------------------


def test_labels_in_the_table_property(tmp_path: Path, opened: Opened) -> None:
    table = sql_catalog(tmp_path).create_table(
        "n.t", pa.schema([("id", pa.int64()), ("email", pa.string())])
    )
    table.append(pa.table({"id": [1], "email": ["a"]}))
    connection = opened(**settings_of(tmp_path))
    assert not connection.execute("SELECT email FROM s.n.t").labels["email"].all
    labels = {"rows": ["origin:crm"], "columns": {"email": {"direct": ["pii"]}}}
    with table.transaction() as change:
        change.set_properties({"batuta.labels": json.dumps(labels)})
    cursor = connection.execute("SELECT id, email FROM s.n.t")
    assert cursor.labels["email"].direct == {"pii"}
    assert cursor.labels["id"].all == {"origin:crm"}
    for wrong in ("no json", '{"columns": {"mail": {"direct": ["pii"]}}}'):
        with table.transaction() as change:
            change.set_properties({"batuta.labels": wrong})
        with pytest.raises(batuta_sql.OperationalError, match="labels of Iceberg table"):
            connection.execute("SELECT id FROM s.n.t")


def test_labels_in_the_files_go_with_the_field(tmp_path: Path, opened: Opened) -> None:
    """A file says ``email``; the table has called the column ``mail`` since."""
    made = plain(tmp_path, optional(1, "id", LongType()), optional(2, "mail", StringType()))
    labelled = with_id("email", pa.string(), 2)
    labelled = labelled.with_metadata({**labelled.metadata, "batuta.labels": '["pii"]'})
    schema = pa.schema([with_id("id", pa.int64(), 1), labelled])
    made.commit(made.file("a.parquet", pa.table([[1], ["x"]], schema=schema)))
    connection = opened(**made.settings)
    cursor = connection.execute("SELECT id, mail FROM s.t")
    assert cursor.labels["mail"].direct == {"pii"}
    assert not cursor.labels["id"].all
    config = {"s": {**made.settings, "file_labels": False}}
    with batuta_sql.connect({"sources": config}) as without:
        assert not without.execute("SELECT mail FROM s.t").labels["mail"].all


def test_labels_of_the_configuration_hold_for_branches(tmp_path: Path, opened: Opened) -> None:
    table = counting(tmp_path, 1)
    table.manage_snapshots().create_tag(table.current_snapshot().snapshot_id, "q1").commit()
    labelled = {"n.t": {"labels": ["pii"]}}
    connection = opened(**settings_of(tmp_path), tables=labelled)
    for name in ("n.t", 'n."t@q1"'):
        assert connection.execute(f"SELECT id FROM s.{name}").labels["id"].direct == {"pii"}


# --- cost and statistics -----------------------------------------------------------------------


def test_an_estimate_is_of_the_needed_columns_of_the_needed_files(
    tmp_path: Path, opened: Opened
) -> None:
    rows = pa.table({"id": range(1000), "w": [f"word {i}" for i in range(1000)]})
    table = sql_catalog(tmp_path).create_table("n.t", rows.schema)
    for i in range(4):
        table.append(rows.slice(i * 250, 250))
    with table.update_schema() as update:
        update.rename_column("w", "word")
    connection = opened(**settings_of(tmp_path))
    files = sorted((tmp_path / "warehouse/n/t/data").glob("*.parquet"))
    chunks = {
        n: sum(pq.read_metadata(f).row_group(0).column(i).total_compressed_size for f in files)
        for i, n in enumerate(("id", "word"))
    }
    estimate = connection.estimate("SELECT word FROM s.n.t")
    assert (estimate.bytes_scanned, estimate.confidence) == (chunks["word"], "exact")
    one = connection.estimate("SELECT id FROM s.n.t WHERE id = 3")
    assert 0 < one.bytes_scanned < chunks["id"] / 2
    (info,) = connection._session.sources["s"].resolve(("n", "t"))
    assert (info.statistics.rows, info.statistics.exact) == (1000, True)
    assert info.statistics.columns["id"].minimum == 0
    assert info.statistics.columns["id"].maximum == 999
    assert info.statistics.columns["word"].null_fraction == 0


# --- what is refused ---------------------------------------------------------------------------


def test_settings_that_say_nothing(opened: Opened) -> None:
    with pytest.raises(batuta_sql.ConfigError, match="give catalog, or tables"):
        opened(kind="iceberg").execute("SELECT * FROM s.t")


def test_a_catalog_that_is_not_there_is_not_made(tmp_path: Path, opened: Opened) -> None:
    uri = f"sqlite:///{tmp_path}/none.db"
    connection = opened(kind="iceberg", catalog={"type": "sql", "uri": uri})
    with pytest.raises(batuta_sql.OperationalError, match=r"none\.db"):
        connection.execute("SELECT * FROM s.n.t")
    assert not (tmp_path / "none.db").exists()


def test_metadata_that_is_gone_or_broken(tmp_path: Path, opened: Opened) -> None:
    table = counting(tmp_path, 1)
    folder = Path(table.location().removeprefix("file://")) / "metadata"
    for manifest in folder.glob("*-m0.avro"):
        manifest.write_bytes(b"no avro")
    with pytest.raises(batuta_sql.OperationalError, match='manifests of Iceberg table "n/t"'):
        rows_of(opened(**settings_of(tmp_path)), "SELECT id FROM s.n.t")
    for file in folder.glob("*.metadata.json"):
        file.unlink()
    with pytest.raises(batuta_sql.OperationalError, match='"n/t" cannot be opened'):
        rows_of(opened(**settings_of(tmp_path)), "SELECT id FROM s.n.t")


def test_a_data_file_that_is_gone_is_an_error(tmp_path: Path, opened: Opened) -> None:
    made = two_columns(tmp_path)
    made.commit(made.file("a.parquet", rows_in((1, "a"))))
    connection = opened(**made.settings)
    assert rows_of(connection, "SELECT id FROM s.t") == [(1,)]
    (made.folder / "data" / "a.parquet").unlink()
    # The rows of this snapshot are kept: they are what they were.
    assert rows_of(connection, "SELECT id FROM s.t") == [(1,)]
    with pytest.raises(batuta_sql.OperationalError, match=r"a\.parquet"):
        rows_of(opened(**made.settings), "SELECT id FROM s.t")


def test_without_pyiceberg_it_says_what_to_install(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting(tmp_path, 0)
    monkeypatch.setitem(sys.modules, "pyiceberg", None)
    with pytest.raises(batuta_sql.ConfigError, match="needs the package pyiceberg") as error:
        opened(**settings_of(tmp_path)).execute("SELECT id FROM s.n.t")
    assert error.value.hint == "pip install 'batuta-sql[iceberg]'"


def test_labels_of_a_folder_alone_are_not_told(tmp_path: Path) -> None:
    made = two_columns(tmp_path)
    with pytest.raises(batuta_sql.OperationalError, match="Iceberg table"):
        read_labels(made.folder)


def test_object_stores_must_be_spoken_of(tmp_path: Path, opened: Opened) -> None:
    made = two_columns(tmp_path)
    entry = made.file("a.parquet", rows_in((1, "a")), file_path="s3://bucket/a.parquet")
    made.commit(entry)
    with pytest.raises(batuta_sql.NotSupportedError, match="object_stores is not set"):
        rows_of(opened(**made.settings), "SELECT id FROM s.t")
