"""Random Iceberg tables with deletes of both kinds, beside a model that is a list of rows."""

from __future__ import annotations

import datetime
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadataUtil
from pyiceberg.transforms import (
    BucketTransform,
    IdentityTransform,
    MonthTransform,
    TruncateTransform,
    YearTransform,
)
from pyiceberg.types import DateType, DoubleType, LongType, NestedField, StringType

from tests.sources.conftest import rows_of
from tests.sources.iceberg_writer import HandMade, sql_catalog, with_id
from tests.sources.test_iceberg import CONDITIONS

EPOCH = datetime.date(1970, 1, 1)
FILE = pa.schema(
    [
        with_id("id", pa.int64(), 1),
        with_id("n", pa.int64(), 2),
        with_id("w", pa.string(), 3),
        with_id("d", pa.date32(), 4),
        with_id("x", pa.float64(), 5),
    ]
)
NAMES = FILE.names
TYPES = (LongType(), LongType(), StringType(), DateType(), DoubleType())
VALUES: dict[str, tuple[Any, ...]] = {
    "n": (None, -7, -5, -1, 0, 1, 4, 5, 9),
    "w": (None, "", "a", "ab", "b", "B", "ü"),
    "d": (None, datetime.date(1969, 12, 31), EPOCH, datetime.date(2024, 2, 29)),
    "x": (None, float("nan"), -1.0, 0.0, 2.5, float("inf")),
}
PARTS = (
    (2, IdentityTransform(), "n_i"),
    (2, BucketTransform(2), "n_b"),
    (2, TruncateTransform(5), "n_t"),
    (3, IdentityTransform(), "w_i"),
    (3, TruncateTransform(1), "w_t"),
    (4, MonthTransform(), "d_m"),
    (4, YearTransform(), "d_y"),
    (5, IdentityTransform(), "x_i"),
)
KEYS = (["id"], ["n", "w"], ["w"], ["d", "n"])


class Model:
    """A table, and the rows that it should have."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        chosen = self.random.sample(PARTS, self.random.randint(0, 2))
        parts = [PartitionField(i, 1000 + k, t, n) for k, (i, t, n) in enumerate(chosen)]
        fields = [
            NestedField(i, n, t, required=False)
            for i, (n, t) in enumerate(zip(NAMES, TYPES, strict=True), 1)
        ]
        made = sql_catalog(folder).create_table(
            "n.t", Schema(*fields), partition_spec=PartitionSpec(*parts)
        )
        self.table = HandMade(made)
        known = TableMetadataUtil.parse_obj(self.table.metadata)
        self.schema, self.spec = known.schema(), known.specs()[0]
        self.rows: list[dict[str, Any]] = []
        """Each with its file, its place in it and its partition."""
        self.files = 0

    def row(self) -> dict[str, Any]:
        chosen = {name: self.random.choice(values) for name, values in VALUES.items()}
        return {"id": self.random.randint(0, 60), **chosen}

    def partition(self, row: dict[str, Any]) -> tuple[Any, ...]:
        found = []
        for part in self.spec.fields:
            value = row[NAMES[part.source_id - 1]]
            if isinstance(value, datetime.date):
                value = (value - EPOCH).days
            transform = part.transform.transform(self.schema.find_type(part.source_id))
            found.append(transform(value) if value is not None else None)
        return tuple(found)

    def append(self) -> DataFile:
        """A file of some rows of one partition, with or without bounds in its manifest."""
        first = self.row()
        partition = self.partition(first)
        others = [self.row() for _ in range(5)]
        rows = [first, *(r for r in others if repr(self.partition(r)) == repr(partition))]
        self.files += 1
        name = f"f{self.files}.parquet"
        made = self.table.file(name, pa.Table.from_pylist(rows, FILE), partition=partition)
        if self.random.random() < 0.7:
            path = self.table.folder / "data" / name
            statistics = data_file_statistics_from_parquet_metadata(
                pq.read_metadata(path),
                compute_statistics_plan(self.schema, {}),
                parquet_path_to_id_mapping(self.schema),
            ).to_serialized_dict()
            statistics.pop("record_count")
            made = self.table.entry(path, len(rows), partition=partition, **statistics)
        self.rows += [
            {**r, "file": name, "place": i, "partition": partition} for i, r in enumerate(rows)
        ]
        return made

    def delete(self) -> DataFile:
        """Deletes in one partition, by position or by value; of rows that are gone already too."""
        self.files += 1
        name = f"delete{self.files}.parquet"
        partition = self.random.choice(self.rows)["partition"]
        near = [r for r in self.rows if repr(r["partition"]) == repr(partition)]
        if self.random.random() < 0.5:
            gone = self.random.sample(near, self.random.randint(1, len(near)))
            where: dict[str, list[int]] = {}
            for row in gone:
                where.setdefault(row["file"], []).append(row["place"])
            self.rows = [r for r in self.rows if not any(r is g for g in gone)]
            return self.table.position_deletes(name, where, partition=partition)
        columns = self.random.choice(KEYS)
        keys = [self.row(), self.row(), self.random.choice(near)]
        table = pa.Table.from_pylist([{n: k[n] for n in NAMES} for k in keys], FILE)
        values = {tuple(k[c] for c in columns) for k in keys}
        self.rows = [
            r
            for r in self.rows
            if repr(r["partition"]) != repr(partition) or tuple(r[c] for c in columns) not in values
        ]
        ids = [NAMES.index(c) + 1 for c in columns]
        return self.table.equality_deletes(name, table.select(columns), ids, partition=partition)

    def commit(self) -> None:
        deletes = [self.delete() for _ in range(self.random.randint(0, 2)) if self.rows]
        added = [self.append() for _ in range(self.random.randint(1, 4))]
        self.table.commit(*deletes, *added)

    def expected(self) -> pa.Table:
        plain = pa.schema([f.remove_metadata() for f in FILE])
        return pa.Table.from_pylist([{n: r[n] for n in NAMES} for r in self.rows], plain)


@pytest.mark.parametrize("seed", range(12))
def test_a_random_table(tmp_path: Path, opened: Callable[..., Any], seed: int) -> None:
    model = Model(tmp_path, seed)
    for _ in range(4):
        model.commit()
    connection = opened(**model.table.settings)
    usable = [c for c in CONDITIONS if not re.search(r"\b(ts|p)\b|SELECT", c)]
    some = model.random.sample(usable, 10)
    both = [f"({a}) OR ({b})" for a, b in zip(some[:3], some[3:6], strict=True)]
    with duckdb.connect() as local:
        local.register("rows", model.expected())
        for condition in ("true", *some, *both):
            sql = f"SELECT id, n, w, d, x FROM {{}} WHERE {condition}"
            known = sorted(local.execute(sql.format("rows")).fetchall(), key=repr)
            assert repr(rows_of(connection, sql.format("s.t"))) == repr(known), condition
