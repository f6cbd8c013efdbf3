"""Loads every TPC table into every kind of source, once, and opens one federation over them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi
import deltalake
import duckdb
import pyarrow as pa
import pyarrow.dataset
import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer
from tests.comparison import Answer, answer_of
from tests.tpc.keys import PRIMARY_KEYS
from tests.tpc.placements import HOMES, Home

DATA = Path(os.environ.get("BATUTA_TPC_DATA", Path(__file__).parents[2] / ".cache" / "tpc"))
"""Where ``generate.py`` has written, and where what is made from it is kept."""

# Several files and row groups a table, so that there is something to prune and to split.
ROWS_PER_FILE = 20_000
ROWS_PER_GROUP = 5_000

SQLITE_TYPES = {"BIGINT": "INTEGER", "VARCHAR": "TEXT", "DOUBLE": "REAL"}


class Federation:
    """Batuta over all homes of a benchmark's tables, and the truth beside it.

    :param connection: with semi-joins where they pay.
    :param keyed: with semi-joins wherever they are legal.
    """

    def __init__(
        self,
        connection: Any,
        keyed: Any,
        truth: duckdb.DuckDBPyConnection,
        homes: Mapping[str, Home] = HOMES,
    ) -> None:
        self.connection = connection
        self.keyed = keyed
        self.homes = homes
        self._truth = truth

    def ask(self, sql: str, always: bool = False) -> Answer:
        """Batuta's answer; with semi-joins wherever they are legal, or where they pay."""
        connection = self.keyed if always else self.connection
        with closing(connection.cursor()) as cursor:
            cursor.execute(sql)
            return answer_of(cursor.fetch_arrow_table())

    def know(self, sql: str) -> Answer:
        """DuckDB's answer over local tables."""
        relation = self._truth.sql(sql)
        assert relation is not None
        return answer_of(relation.to_arrow_table())


@contextmanager
def federation(benchmark: str, config: Mapping[str, Any], **settings: Any) -> Iterator[Federation]:
    """Connected to what ``sources`` has loaded.

    :param settings: of the connections, beside the sources.
    """
    with ExitStack() as cleanup:
        truth = cleanup.enter_context(truth_of(benchmark))
        yield Federation(*connections({**config, **settings}, cleanup), truth)


def connections(config: dict[str, Any], cleanup: ExitStack) -> tuple[Any, Any]:
    """With semi-joins and partial aggregates where they pay, and wherever they are legal."""
    auto, always = (
        cleanup.enter_context(
            closing(batuta_sql.connect(config | {"semi_joins": how, "partial_aggregation": how}))
        )
        for how in ("auto", "always")
    )
    return auto, always


def sources(benchmark: str, server: PostgresServer, cleanup: ExitStack) -> dict[str, Any]:
    """What ``batuta_sql.connect`` takes: two PostgreSQL databases, SQLite, DuckDB, Parquet, Delta.

    :param cleanup: where dropping the databases is registered.
    """
    homes = files_of(benchmark)
    # The second database sorts as people do, not byte by byte: text cannot be pushed blindly.
    locale = "en-US" if server.has_icu else None
    pg_a = cleanup.enter_context(server.database(f"{benchmark}_a"))
    pg_b = cleanup.enter_context(server.database(f"{benchmark}_b", icu_locale=locale))
    for uri in (pg_a, pg_b):
        load_postgres(benchmark, server, uri)
    return {
        "sources": {
            "pg_a": {"kind": "postgresql", "uri": pg_a},
            "pg_b": {"kind": "postgresql", "uri": pg_b},
            "lite": {"kind": "sqlite", "path": str(homes / "lite.sqlite")},
            "duck": {"kind": "duckdb", "path": str(homes / "duck.duckdb")},
            "lake": {"kind": "files", "path": str(homes / "lake")},
            "delta": {"kind": "delta", "path": str(homes / "delta")},
        }
    }


def tables_of(benchmark: str) -> dict[str, pa.Table]:
    """The generated tables. Fails the test where they have not been generated."""
    with duckdb.connect() as con:
        return {
            path.stem: con.sql(f"FROM '{path}'").to_arrow_table()
            for path in sorted(_generated(benchmark))
        }


def _generated(benchmark: str) -> list[Path]:
    found = list((DATA / benchmark).glob("*.parquet"))
    if not found:
        pytest.fail(f"no {benchmark} data in {DATA}: `make test` generates it", pytrace=False)
    return found


def load_postgres(
    benchmark: str, server: PostgresServer, uri: str, only: frozenset[str] | None = None
) -> None:
    """Creates the tables (all, or only some) with their primary keys, fills and analyses them."""
    database = uri.rsplit("/", 1)[1]
    tables = {
        name: table for name, table in tables_of(benchmark).items() if only is None or name in only
    }
    server.run("".join(_ddl(benchmark, name) for name in tables), database)
    with adbc_driver_postgresql.dbapi.connect(uri) as con, con.cursor() as cursor:
        for name, table in tables.items():
            cursor.adbc_ingest(name, table, mode="append")
        con.commit()
    server.run("VACUUM ANALYZE", database)


def _ddl(benchmark: str, table: str, types: dict[str, str] | None = None) -> str:
    """CREATE TABLE with the generated types, which PostgreSQL and SQLite both read."""
    with duckdb.connect() as con:
        described = con.execute(f"DESCRIBE FROM '{DATA / benchmark / table}.parquet'").fetchall()
    renamed = types or {}
    columns = [f"{name} {renamed.get(kind, kind)}" for name, kind, *_ in described]
    columns.append(f"PRIMARY KEY ({', '.join(PRIMARY_KEYS[benchmark][table])})")
    return f"CREATE TABLE {table} ({', '.join(columns)});\n"


@contextmanager
def truth_of(benchmark: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with the tables in ``main``, and in ``wide`` as views with integers as BIGINT."""
    with duckdb.connect() as con:
        con.execute("CREATE SCHEMA wide")
        for path in _generated(benchmark):
            con.execute(f"CREATE TABLE main.{path.stem} AS FROM '{path}'")
            described = con.execute(f"DESCRIBE main.{path.stem}").fetchall()
            columns = ", ".join(
                f"{name}::BIGINT AS {name}" if kind == "INTEGER" else name
                for name, kind, *_ in described
            )
            con.execute(f"CREATE VIEW wide.{path.stem} AS SELECT {columns} FROM main.{path.stem}")
        yield con


def files_of(benchmark: str) -> Path:
    """The folder with the SQLite and DuckDB files, the Parquet and the Delta tables.

    Made once and kept: its name holds a digest of what made it.
    """
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(_generated(benchmark)):
        digest.update(f"{path.name} {path.stat().st_size}".encode())
    target = DATA / f"{benchmark}-{digest.hexdigest()[:12]}"
    # The worker processes of one run want the same folder at the same time.
    with (DATA / f"{benchmark}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            for old in DATA.glob(f"{benchmark}-*"):
                shutil.rmtree(old)
            making = DATA / f"{benchmark}-making"
            making.mkdir()
            _make_files(benchmark, making)
            making.rename(target)
    return target


def _make_files(benchmark: str, folder: Path) -> None:
    tables = tables_of(benchmark)
    with duckdb.connect(str(folder / "duck.duckdb")) as con:
        for name in tables:
            con.execute(f"CREATE TABLE {name} AS FROM '{DATA / benchmark / name}.parquet'")
    with closing(sqlite3.connect(folder / "lite.sqlite")) as lite:
        for name, table in tables.items():
            types = {**SQLITE_TYPES, "INTEGER": "INTEGER"}
            lite.execute(_ddl(benchmark, name, types))
            marks = ", ".join("?" * table.num_columns)
            lite.executemany(f"INSERT INTO {name} VALUES ({marks})", _sqlite_rows(table))
        lite.execute("ANALYZE")
        lite.commit()
    for name, table in tables.items():
        if table.num_rows > ROWS_PER_FILE:
            pyarrow.dataset.write_dataset(
                table,
                folder / "lake" / name,
                format="parquet",
                max_rows_per_file=ROWS_PER_FILE,
                max_rows_per_group=ROWS_PER_GROUP,
            )
        else:
            (folder / "lake").mkdir(exist_ok=True)
            shutil.copy(DATA / benchmark / f"{name}.parquet", folder / "lake")
        for start in range(0, max(table.num_rows, 1), ROWS_PER_FILE):
            part = table.slice(start, ROWS_PER_FILE)
            deltalake.write_deltalake(str(folder / "delta" / name), part, mode="append")


def _sqlite_rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Rows as SQLite keeps them: decimals as numbers or digits, dates and times as ISO text."""
    columns = [
        column.cast(pa.string()).to_pylist()
        if pa.types.is_decimal(column.type) or pa.types.is_temporal(column.type)
        else column.to_pylist()
        for column in table.columns
    ]
    return zip(*columns, strict=True)
