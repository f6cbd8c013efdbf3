"""The stand of the Glue Data Catalog: moto's catalog over Parquet files in moto's bucket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from tests.conformance.stand import Stand, Table
from tests.emulators.aws_process import aws_emulator
from tests.emulators.glue import BUCKET, GlueCatalog

_TYPES = {
    "BOOLEAN": "boolean",
    "TINYINT": "tinyint",
    "SMALLINT": "smallint",
    "INTEGER": "int",
    "BIGINT": "bigint",
    "FLOAT": "float",
    "DOUBLE": "double",
    "VARCHAR": "string",
    "BLOB": "binary",
    "DATE": "date",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamp with local time zone",
    "UUID": "string",
    "JSON": "string",
    "INTEGER[]": "array<int>",
    "STRUCT(a INTEGER, b VARCHAR)": "struct<a:int,b:string>",
}


@contextmanager
def glue(folder: Path, fixture: Any) -> Iterator[Stand]:
    with aws_emulator(folder) as aws:
        catalog = GlueCatalog(aws)
        catalog.files.mkdir(BUCKET)
        catalog.database("lab")

        def load(truth: duckdb.DuckDBPyConnection, table: Table) -> None:
            path = folder / f"{table.name}.parquet"
            truth.execute(f"COPY \"{table.name}\" TO '{path}' (FORMAT parquet)")
            (rows,) = truth.sql(f'SELECT count(*) FROM "{table.name}"').fetchall()[0]
            columns = [(n.lower(), _TYPES.get(t, t.lower())) for n, t in table.columns]
            place = catalog.table(
                "lab", table.name.lower(), columns, parameters={"recordCount": str(rows)}
            )
            catalog.files.put(str(path), f"{place}/part-0.parquet")

        yield Stand(
            kind="glue",
            settings={**catalog.settings, "database": "lab"},
            prefix=("lab",),
            load=load,
            types={"TIME": None, "UUID": "VARCHAR", "JSON": "VARCHAR"},
            limits={"mid-stream error": "tests/sources/test_glue.py has its own"},
        )
