"""Snowflake: fakesnow's server, over its own protocol and driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from tests.conformance.stand import Stand, Table
from tests.emulators.snowflake_process import DATABASE, SCHEMA, snowflake_emulator

NATIVE = {
    "TINYINT": "NUMBER(3,0)",
    "SMALLINT": "NUMBER(5,0)",
    "INTEGER": "NUMBER(10,0)",
    "BIGINT": "NUMBER(19,0)",
    "DOUBLE": "FLOAT",
    "BLOB": "BINARY",
    "TIMESTAMP": "TIMESTAMP_NTZ(6)",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP_LTZ(6)",
    "TIME": "TIME(6)",
}
MOST_LITERALS = 5000


@contextmanager
def snowflake(folder: Path, fixture: Any) -> Iterator[Stand]:
    with snowflake_emulator(folder) as server:

        def load(truth: duckdb.DuckDBPyConnection, table: Table) -> None:
            quote = any(not n.isidentifier() or not n.isascii() for n, _ in table.columns)
            mark = '"' if quote else ""
            columns = ", ".join(f"{mark}{n}{mark} {NATIVE.get(t, t)}" for n, t in table.columns)
            name = f'"{table.name}"' if quote else table.name
            server.run(f"CREATE TABLE {name} ({columns})")
            counted = truth.execute(f'SELECT count(*) FROM "{table.name}"').fetchone()
            assert counted is not None
            if counted[0] > MOST_LITERALS:
                # As statements they take the emulator minutes.
                path = folder / f"{table.name}.parquet"
                truth.execute(f"COPY \"{table.name}\" TO '{path}' (FORMAT parquet)")
                server.run_behind(
                    f"INSERT INTO {DATABASE}.{SCHEMA}.{table.name} FROM read_parquet('{path}')"
                )
                return
            shown = ", ".join(_literal(n, t) for n, t in table.columns)
            rows = truth.execute(f'SELECT {shown} FROM "{table.name}"').fetchall()
            if rows:
                values = ", ".join("(" + ", ".join(r) + ")" for r in rows)
                server.run(f"INSERT INTO {name} SELECT * FROM VALUES {values}")

        yield Stand(
            kind="snowflake",
            folds_names=True,
            settings=server.settings(pricing={"usd_per_credit": 3.0, "warehouse_size": "X-Small"}),
            prefix=(),
            load=load,
            address=server.emulator.url,
            settings_at=lambda uri: server.settings(port=int(uri.rpartition(":")[2])),
            # A FLOAT has 64 bits there; it was written as text.
            expressions={"FLOAT": "CAST({} AS VARCHAR)"},
            untested={"DECIMAL(38,0)": "the emulator keeps it in 64 bits"},
            types={
                "TINYINT": "DECIMAL(3,0)",
                "SMALLINT": "DECIMAL(5,0)",
                "INTEGER": "DECIMAL(10,0)",
                "BIGINT": "DECIMAL(19,0)",
                "FLOAT": "DOUBLE",
                "UUID": None,
                "JSON": None,
                "INTEGER[]": None,
                "STRUCT(a INTEGER, b VARCHAR)": None,
            },
        )


def _literal(name: str, type_: str) -> str:
    """SQL, for DuckDB, of the text of a Snowflake literal."""
    text = f"replace(replace(\"{name}\"::VARCHAR, '\\', '\\\\'), '''', '''''')"
    match type_:
        case "BLOB":
            written = f"'TO_BINARY(''' || hex(\"{name}\") || ''', ''HEX'')'"
        case "DOUBLE" | "FLOAT":
            written = f"'''' || \"{name}\"::VARCHAR || '''::FLOAT'"
        case _ if type_.startswith(("VARCHAR", "DATE", "TIME", "DECIMAL")):
            written = f"'''' || {text} || '''::{NATIVE.get(type_, type_)}'"
        case _:
            written = f'"{name}"::VARCHAR'
    return f"coalesce({written}, 'NULL')"
