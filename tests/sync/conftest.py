"""A PostgreSQL table of several splits, and how copies are read back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi
import duckdb
import pyarrow as pa
import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer

ROWS = 120_000
SPLIT = 4 << 20
"""Bytes of a split in tests: "orders" has about six."""

# After a vacuum new rows go where there is room, in any split.
MAKE = f"""
CREATE TABLE orders WITH (autovacuum_enabled = false) AS
SELECT i AS id, i % 97 AS customer, (i / 7.0)::numeric(12, 2) AS total,
  DATE '2024-01-01' + i % 365 AS day, CASE WHEN i % 10 > 0 THEN repeat('x', i % 200) END AS note,
  TIMESTAMPTZ '2024-05-01 12:00:00+02' + i * INTERVAL '1 second' AS at
FROM generate_series(1, {ROWS}) i
"""


def run(uri: str, *statements: str) -> None:
    """Runs statements on a server."""
    with (
        adbc_driver_postgresql.dbapi.connect(uri, autocommit=True) as server,
        server.cursor() as cursor,
    ):
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def uri(postgres: PostgresServer) -> Iterator[str]:
    """A database with the table "orders"."""
    with postgres.database("sync") as uri:
        run(uri, MAKE, "ANALYZE orders")
        yield uri


def config_of(uri: str, **sources: Any) -> dict[str, Any]:
    crm = {"kind": "postgresql", "uri": uri, "locality": "local"}
    return {"threads": 2, "cost": {"history": False}, "sources": {"crm": crm, **sources}}


@pytest.fixture
def connect(uri: str) -> Iterator[Callable[..., Any]]:
    opened: list[Any] = []

    def make(**sources: Any) -> Any:
        opened.append(batuta_sql.connect(config_of(uri, **sources)))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


class Rows:
    """Rows without an order; two are equal where each row is as often in one as in the other."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(zip(*(c.to_pylist() for c in self._table.columns), strict=True))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, list):
            return sorted(self) == other
        if not isinstance(other, Rows):
            return NotImplemented
        with duckdb.connect() as con:
            con.register("a", self._table)
            con.register("b", other._table)
            both = "(FROM a EXCEPT ALL FROM b) UNION ALL (FROM b EXCEPT ALL FROM a)"
            return con.execute(f"SELECT count(*) FROM ({both})").fetchall() == [(0,)]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{len(self)} rows, {self._table.slice(0, 3).to_pylist()}"


def rows_of(path: Path, form: str, table: str = "orders") -> Rows:
    """What a reader of a copy sees."""
    source: dict[str, Any] = {
        "parquet": {"kind": "files", "path": str(path.parent)},
        "delta": {"kind": "delta", "path": str(path.parent)},
        "ald": {"kind": "ald", "path": str(path.parent)},
        "duckdb": {"kind": "duckdb", "path": str(path)},
    }[form]
    name = table if form == "duckdb" else path.name.removesuffix(".ald")
    with batuta_sql.connect({"sources": {"copy": source}}) as connection:
        return Rows(connection.execute(f'SELECT * FROM copy."{name}"').fetch_arrow_table())


def truth(connection: Any, sql: str = "SELECT * FROM crm.orders") -> Rows:
    """What the source has now."""
    return Rows(connection.execute(sql).fetch_arrow_table())


def files_of(path: Path) -> set[str]:
    """The names of what lies in a folder."""
    return {p.name for p in path.iterdir()}


class Interrupted(Exception):
    """What ends a copy in a test."""


def after(splits: int) -> Callable[[Any], None]:
    """Ends a copy when so many splits of this run are on the disk."""

    def watch(progress: Any) -> None:
        if progress.done - progress.kept >= splits:
            raise Interrupted

    return watch


def types_of(path: Path) -> dict[str, str]:
    """The DuckDB types of the columns of a folder of Parquet files."""
    with duckdb.connect() as con:
        rows = con.execute(f"DESCRIBE SELECT * FROM read_parquet('{path}/*.parquet')").fetchall()
    return {r[0]: r[1] for r in rows}
