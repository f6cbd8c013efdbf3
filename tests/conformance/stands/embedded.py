"""Stands of the embedded kinds: SQLite, DuckDB files, Parquet files, Delta tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import deltalake
import duckdb

from batuta_sql.sources.ald_format import write_ald
from tests.conformance.stand import Stand, Table
from tests.emulators.aws_process import aws_emulator

_NO_CANCEL = "the answer is there before a cancellation could come"
_NO_STREAM = "there is no connection that could break"


@contextmanager
def sqlite(folder: Path, fixture: Any) -> Iterator[Stand]:
    path = folder / "s.sqlite"
    declared = {"VARCHAR": "TEXT", "TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}

    def load(truth: duckdb.DuckDBPyConnection, table: Table) -> None:
        columns = ", ".join(f'"{n}" {declared.get(t, t)}' for n, t in table.columns)
        shown = ", ".join(_stored(n, t) for n, t in table.columns)
        rows = truth.execute(f'SELECT {shown} FROM "{table.name}"').fetchall()
        with closing(sqlite3.connect(path)) as lite:
            lite.execute(f'CREATE TABLE "{table.name}" ({columns})')
            marks = ", ".join("?" * len(table.columns))
            lite.executemany(f'INSERT INTO "{table.name}" VALUES ({marks})', rows)
            lite.commit()

    sqlite3.connect(path).close()
    whole = dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER"), "BIGINT")
    yield Stand(
        kind="sqlite",
        settings={"kind": "sqlite", "path": str(path)},
        prefix=(),
        load=load,
        types={
            **whole,
            "FLOAT": "DOUBLE",
            # SQLite keeps decimals as floats: more than 15 digits are gone when it has stored them.
            "DECIMAL(18,4)": None,
            "DECIMAL(38,0)": None,
            "INTEGER[]": None,
            "STRUCT(a INTEGER, b VARCHAR)": None,
        },
        # SQLite stores NaN as NULL.
        expressions={"DOUBLE": "CASE WHEN NOT isnan({0}) THEN {0} END"},
        limits={
            "statistics": "SQLite keeps no row counts; the largest rowid stands in",
            "mid-stream error": _NO_STREAM,
        },
    )


def _stored(name: str, type_: str) -> str:
    """How SQLite stores a value of the type: as number, text or blob."""
    match type_:
        case "TINYINT" | "SMALLINT" | "INTEGER" | "BIGINT" | "FLOAT" | "DOUBLE" | "BLOB":
            return f'"{name}"'
        case "BOOLEAN":
            return f'"{name}"::INTEGER'
    return f'"{name}"::VARCHAR'


@contextmanager
def duckdb_file(folder: Path, fixture: Any) -> Iterator[Stand]:
    path = folder / "s.duckdb"

    def load(truth: duckdb.DuckDBPyConnection, table: Table) -> None:
        truth.execute(f"ATTACH '{path}' AS target")
        truth.execute(f'CREATE TABLE target."{table.name}" AS FROM truth."{table.name}"')
        truth.execute("DETACH target")

    duckdb.connect(str(path)).close()
    yield Stand(
        kind="duckdb",
        settings={"kind": "duckdb", "path": str(path)},
        prefix=("main",),
        load=load,
        limits={"mid-stream error": _NO_STREAM},
    )


@contextmanager
def parquet(folder: Path, fixture: Any) -> Iterator[Stand]:
    def load(truth: duckdb.DuckDBPyConnection, table: Table) -> None:
        truth.execute(f"COPY \"{table.name}\" TO '{folder / table.name}.parquet' (FORMAT parquet)")

    yield Stand(
        kind="files",
        settings={"kind": "files", "path": str(folder)},
        prefix=(),
        load=load,
        limits={"mid-stream error": _NO_STREAM},
    )


@contextmanager
def delta(folder: Path, fixture: Any) -> Iterator[Stand]:
    def load(truth: duckdb.DuckDBPyConnection, table: Table) -> None:
        rows = truth.sql(f'FROM "{table.name}"').to_arrow_table()
        deltalake.write_deltalake(str(folder / table.name), rows)

    yield Stand(
        kind="delta",
        settings={"kind": "delta", "path": str(folder)},
        prefix=(),
        load=load,
        types={"TIME": None, "UUID": None, "JSON": "VARCHAR"},
        limits={"mid-stream error": _NO_STREAM},
    )


@contextmanager
def ald(folder: Path, fixture: Any) -> Iterator[Stand]:
    def load(truth: duckdb.DuckDBPyConnection, table: Table) -> None:
        rows = truth.sql(f'FROM "{table.name}"').to_arrow_table()
        write_ald(folder / f"{table.name}.ald", rows, name=table.name)

    yield Stand(
        kind="ald",
        settings={"kind": "ald", "path": str(folder)},
        prefix=(),
        load=load,
        # Arrow's own types: what DuckDB writes of these is text.
        types={"UUID": "VARCHAR", "JSON": "VARCHAR"},
        limits={"mid-stream error": _NO_STREAM},
    )


@contextmanager
def s3(folder: Path, fixture: Any) -> Iterator[Stand]:
    """Parquet files in a bucket: DuckDB reads them by range."""
    with aws_emulator(folder) as aws:
        store = aws.filesystem()
        store.mkdir("lake")

        def load(truth: duckdb.DuckDBPyConnection, table: Table) -> None:
            path = folder / f"{table.name}.parquet"
            truth.execute(f"COPY \"{table.name}\" TO '{path}' (FORMAT parquet)")
            store.put(str(path), f"lake/data/{table.name}.parquet")

        yield Stand(
            kind="files on S3",
            settings={
                "kind": "files",
                "path": "s3://lake/data",
                "storage_options": aws.storage_options,
            },
            prefix=(),
            load=load,
            limits={"mid-stream error": "tests/sources/test_object_store.py has its own"},
        )


@contextmanager
def delta_s3(folder: Path, fixture: Any) -> Iterator[Stand]:
    """Delta tables in a bucket: deltalake reads the log, DuckDB the files by range."""
    with aws_emulator(folder) as aws:
        aws.filesystem().mkdir("lake")
        options = aws.storage_options

        def load(truth: duckdb.DuckDBPyConnection, table: Table) -> None:
            rows = truth.sql(f'FROM "{table.name}"').to_arrow_table()
            unsafe = {**options, "AWS_S3_ALLOW_UNSAFE_RENAME": "true"}
            target = f"s3://lake/delta/{table.name}"
            deltalake.write_deltalake(target, rows, storage_options=unsafe)

        yield Stand(
            kind="delta on S3",
            settings={"kind": "delta", "path": "s3://lake/delta", "storage_options": options},
            prefix=(),
            load=load,
            types={"TIME": None, "UUID": None, "JSON": "VARCHAR"},
            limits={"mid-stream error": "tests/sources/test_object_store.py has its own"},
        )
