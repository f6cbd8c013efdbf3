"""Databricks SQL and the Unity Catalog: minilake, as ``databricks_server.py`` completes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import deltalake
import duckdb

from tests.conformance.stand import Stand, Table
from tests.emulators.databricks import CATALOG, Workspace

STORED = {"JSON": "VARCHAR"}


@contextmanager
def databricks(folder: Path, fixture: Any) -> Iterator[Stand]:
    server: Workspace = fixture("databricks")
    schema = server.new_schema()

    def load(truth: duckdb.DuckDBPyConnection, table: Table) -> None:
        file = folder / f"{table.name}.parquet"
        truth.execute(f"COPY \"{table.name}\" TO '{file}' (FORMAT parquet)")
        # Names in the Unity Catalog are in lower case.
        name = f'"{CATALOG}"."{schema}"."{table.name.lower()}"'
        shown = ", ".join(f'CAST("{n}" AS {STORED.get(t, t)}) AS "{n}"' for n, t in table.columns)
        server.run(f"CREATE TABLE {name} AS SELECT {shown} FROM read_parquet('{file}')")

    settings = server.settings(pricing={"usd_per_dbu": 0.7})
    yield Stand(
        kind="databricks",
        settings=settings,
        prefix=(CATALOG, schema),
        load=load,
        run=server.run,
        types={"TIME": None, "UUID": None, "JSON": "VARCHAR"},
        address=server.url,
        settings_at=lambda through: {**settings, "host": through.replace("//@", "//")},
    )


@contextmanager
def unity(folder: Path, fixture: Any) -> Iterator[Stand]:
    """Delta tables on this machine, found through the catalog."""
    server: Workspace = fixture("databricks")
    schema = server.new_schema()

    def load(truth: duckdb.DuckDBPyConnection, table: Table) -> None:
        place = folder / table.name
        rows = truth.sql(f'FROM "{table.name}"').to_arrow_table()
        deltalake.write_deltalake(str(place), rows)
        server.register(schema, table.name.lower(), place)

    yield Stand(
        kind="unity",
        settings={**server.settings(kind="unity"), "warehouse_id": None},
        prefix=(CATALOG, schema),
        load=load,
        types={"TIME": None, "UUID": None, "JSON": "VARCHAR"},
        limits={"mid-stream error": "there is no connection that could break"},
    )
