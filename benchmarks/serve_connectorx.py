"""ConnectorX reads tables, DuckDB joins them: what one writes by hand with the two.

The tables of a query are read at the same time, the large ones in as many partitions as there are
cores.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import connectorx
import duckdb
import pyarrow as pa

from benchmarks.serving import serve, settings

DECIMAL = "DECIMAL(15,2)"
"""What every decimal column of TPC-H is; ConnectorX delivers all of them as decimal(38,10)."""


def read(uri: str, sql: str, partition_on: str | None) -> pa.Table:
    parts: dict[str, Any] = {}
    if partition_on is not None:
        parts = {"partition_on": partition_on, "partition_num": os.cpu_count() or 1}
    return connectorx.read_sql(uri, sql, return_type="arrow", **parts)


def joined(sql: str, tables: Mapping[str, pa.Table]) -> pa.Table:
    with duckdb.connect() as con:
        for name, table in tables.items():
            con.register(f"read_{name}", table)
            casts = ", ".join(
                f"CAST({f.name} AS {DECIMAL}) AS {f.name}"
                for f in table.schema
                if pa.types.is_decimal(f.type)
            )
            columns = f"* REPLACE ({casts})" if casts else "*"
            con.execute(f"CREATE VIEW {name} AS SELECT {columns} FROM read_{name}")
        return con.sql(sql).to_arrow_table()


def main() -> None:
    uris = settings()

    def answer(question: Any) -> pa.Table:
        sql, reads = question
        with ThreadPoolExecutor(len(reads)) as pool:
            coming = {
                table: pool.submit(read, uris[site], text, partition_on)
                for table, (site, text, partition_on) in reads.items()
            }
            return joined(sql, {table: future.result() for table, future in coming.items()})

    serve(answer)


if __name__ == "__main__":
    main()
