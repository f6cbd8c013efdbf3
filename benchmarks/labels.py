"""What labels cost: ``python -m benchmarks.labels`` times lineage and labels of the TPC-H queries.

Over DuckDB's Parquet files of TPC-H, every column with labels of its own; nothing is run. Reports
the milliseconds that a query's authorisation takes beside those of its planning.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import sqlglot
from sqlglot import exp

import batuta_sql

ROOT = Path(__file__).parents[1]
DATA = ROOT / ".cache" / "tpc" / "tpch"
QUERIES = sorted((ROOT / "tests" / "tpc" / "tpch").glob("*.sql"))
REPEATS = 5


def main() -> int:
    files = sorted(DATA.glob("*.parquet"))
    if not files:
        print("no data: run `make test` once", file=sys.stderr)
        return 1
    tables = {
        path.stem: {
            "labels": ["tier:sovereign"],
            "columns": {c: {"labels": [f"of:{c}"]} for c in pq.read_schema(path).names},
        }
        for path in files
    }
    source = {"kind": "files", "path": str(DATA), "tables": tables}
    planning: list[float] = []
    labelling: list[float] = []
    with batuta_sql.connect({"sources": {"t": source}}) as connection:
        for path in QUERIES:
            sql = qualified(path.read_text("utf-8"), frozenset(tables))
            best = float("inf")
            for _ in range(REPEATS):
                plan = connection.plan(sql)
                started = time.perf_counter()
                labels = plan.result_labels
                best = min(best, time.perf_counter() - started)
            assert labels.all
            planning.append(plan.planning_seconds * 1000)
            labelling.append(best * 1000)
    for name, times in (("planning", planning), ("lineage and labels", labelling)):
        print(f"{name}: median {statistics.median(times):.2f} ms, most {max(times):.2f} ms")
    return 0


def qualified(sql: str, tables: frozenset[str]) -> str:
    """The query with its tables in the source ``t``."""
    tree = sqlglot.parse_one(sql, read="duckdb")
    for table in tree.find_all(exp.Table):
        if table.name in tables:
            table.set("db", exp.to_identifier("t"))
    return tree.sql("duckdb")


if __name__ == "__main__":
    sys.exit(main())
