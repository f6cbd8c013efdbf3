"""DuckDB with its postgres extension, or with all tables in memory, as a process of its own."""

from __future__ import annotations

import importlib
from pathlib import Path

import duckdb
import pyarrow as pa

from benchmarks.serving import serve, settings


def main() -> None:
    tables, uris = settings()
    con = duckdb.connect()
    con.execute("SET enable_progress_bar = false")
    for schema, files in tables.items():
        con.execute(f"ATTACH ':memory:' AS {schema}")
        con.execute(f"CREATE SCHEMA {schema}.public")
        for name, file in files.items():
            con.execute(f"CREATE TABLE {schema}.public.{name} AS FROM '{file}'")
    if uris:
        package = importlib.import_module("duckdb_extension_postgres_scanner")
        folder = Path(str(package.__file__)).parent / "extensions"
        (binary,) = folder.rglob("*.duckdb_extension")
        con.execute(f"LOAD '{binary}'")
    for name, uri in uris.items():
        con.execute(f"ATTACH '{uri}' AS {name} (TYPE postgres, READ_ONLY)")

    def answer(sql: str) -> pa.Table:
        # Not arrow(): that is a reader, and nobody would have read it.
        return con.sql(sql).to_arrow_table()

    serve(answer)


if __name__ == "__main__":
    main()
