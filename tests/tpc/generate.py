"""Makes the TPC-H and TPC-DS data and query texts. Run by DuckDB 1.5.5, in its own environment.

``generate.py --into FOLDER`` writes ``FOLDER/tpch/*.parquet`` and ``FOLDER/tpcds/*.parquet``, small
(``--scale`` for another size). ``--queries FOLDER`` also writes the texts of the queries, which are
part of the repository (``tests/tpc/tpch``, ``tests/tpc/tpcds``).
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import duckdb

GENERATORS = {"tpch": "dbgen", "tpcds": "dsdgen"}

# At 0.01 a third of the TPC-DS queries find no row and prove little; at 0.05 a fifth.
SCALES = {"tpch": 0.01, "tpcds": 0.05}


def extension(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """Loads an extension from its wheel: nothing is downloaded."""
    package = importlib.import_module(f"duckdb_extension_{name}")
    folder = Path(str(package.__file__)).parent / "extensions"
    (binary,) = folder.rglob(f"{name}.duckdb_extension")
    con.execute(f"LOAD '{binary}'")


def generate(benchmark: str, generator: str, into: Path, scale: float) -> int:
    """Writes every table of a benchmark as one Parquet file; returns the number of rows."""
    folder = into / benchmark
    folder.mkdir(parents=True, exist_ok=True)
    rows = 0
    with duckdb.connect() as con:
        extension(con, benchmark)
        con.execute(f"CALL {generator}(sf = {scale})")
        for (table,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            con.execute(f"COPY {table} TO '{folder / table}.parquet' (FORMAT parquet)")
            counted = con.execute(f"SELECT count(*) FROM {table}").fetchone()
            rows += counted[0] if counted else 0
    return rows


def write_queries(benchmark: str, into: Path) -> None:
    """Writes each query's text as ``NN.sql``."""
    folder = into / benchmark
    folder.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as con:
        extension(con, benchmark)
        for number, text in con.execute(f"FROM {benchmark}_queries()").fetchall():
            (folder / f"{number:02}.sql").write_text(text.strip().rstrip(";").rstrip() + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, help="where the data goes")
    parser.add_argument("--scale", type=float)
    parser.add_argument("--queries", type=Path, help="where the query texts go")
    wanted = parser.parse_args()
    for benchmark, generator in GENERATORS.items():
        if wanted.into:
            scale = wanted.scale or SCALES[benchmark]
            rows = generate(benchmark, generator, wanted.into, scale)
            print(f"{benchmark}: {rows} rows at scale {scale}")
        if wanted.queries:
            write_queries(benchmark, wanted.queries)


if __name__ == "__main__":
    main()
