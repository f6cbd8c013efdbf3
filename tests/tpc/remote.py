"""The TPC-H tables in warehouses, catalogs and table formats, each in its conformance stand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import duckdb

from tests.conformance.kinds import OPENERS
from tests.conformance.stand import Stand, Table
from tests.tpc.federation import Federation, connections, truth_of
from tests.tpc.placements import Home

KINDS = (
    "snowflake",
    "databricks",
    "bigquery",
    "unity",
    "glue",
    "delta on S3",
    "iceberg on S3",
    "huggingface",
)


@contextmanager
def remote_federation(folder: Path, fixture: Any) -> Iterator[Federation]:
    """All tables at each of ``KINDS``, and the truth with the types that each delivers."""
    with ExitStack() as cleanup:
        truth = cleanup.enter_context(truth_of("tpch"))
        tables = [_table(truth, n) for n in _names(truth)]
        homes, sources = {}, {}
        for kind in KINDS:
            name = kind.replace(" ", "_").lower()
            place = folder / name
            place.mkdir()
            stand = cleanup.enter_context(OPENERS[kind](place, fixture))
            for table in tables:
                stand.load(truth, table)
            _delivered(truth, f"at_{name}", stand, tables)
            homes[name] = Home((name, *stand.prefix), f"at_{name}")
            sources[name] = stand.settings
        config = {"sources": sources, "cost": {"on_unknown": "allow"}}
        yield Federation(*connections(config, cleanup), truth, homes)


def _names(truth: duckdb.DuckDBPyConnection) -> list[str]:
    sql = "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main' ORDER BY 1"
    return [n for (n,) in truth.execute(sql).fetchall()]


def _table(truth: duckdb.DuckDBPyConnection, name: str) -> Table:
    described = truth.execute(f"DESCRIBE main.{name}").fetchall()
    return Table(name, tuple((column, kind) for column, kind, *_ in described))


def _delivered(
    truth: duckdb.DuckDBPyConnection, schema: str, stand: Stand, tables: list[Table]
) -> None:
    """The tables again, with the types under which this kind of source delivers them."""
    truth.execute(f"CREATE SCHEMA {schema}")
    for table in tables:
        shown = ", ".join(f"{stand.value_of(n, t)} AS {n}" for n, t in table.columns)
        truth.execute(f"CREATE TABLE {schema}.{table.name} AS SELECT {shown} FROM {table.name}")
