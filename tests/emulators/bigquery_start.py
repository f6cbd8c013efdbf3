"""Starts bqemulator with DuckDB's spatial extension from its package, not from the network."""

from pathlib import Path

import duckdb
import duckdb_extension_spatial
from bqemulator.cli import main

(extension,) = Path(duckdb_extension_spatial.__file__).parent.rglob("spatial.duckdb_extension")
with duckdb.connect() as connection:
    connection.execute(f"INSTALL '{extension}'")
main()
