"""Snowflake: fakesnow's server, over its own protocol and driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from tests.conformance.stand import Stand, Table
from tests.conformance.tables import BIG, BIG_ROWS
from tests.emulators.snowflake_process import snowflake_emulator

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
ROWS_A_STATEMENT = 5000


@contextmanager
def snowflake(folder: Path, fixture: Any) -> Iterator[Stand]:
    with snowflake_emulator(folder) as server:

        def load(truth: duckdb.DuckDBPyConnection, table: Table) -> None:
            if table is BIG:
                # A hundred thousand literals take the emulator minutes.
                server.run(
                    "CREATE TABLE big (id NUMBER(19,0), text VARCHAR, n FLOAT)",
                    "INSERT INTO big SELECT seq4(), 'row number ' || seq4(), seq4() / 8"
                    f" FROM TABLE(GENERATOR(ROWCOUNT => {BIG_ROWS}))",
                )
                return
            quote = any(not n.isidentifier() or not n.isascii() for n, _ in table.columns)
            mark = '"' if quote else ""
            columns = ", ".join(f"{mark}{n}{mark} {NATIVE.get(t, t)}" for n, t in table.columns)
            shown = ", ".join(_literal(n, t) for n, t in table.columns)
            rows = truth.execute(f'SELECT {shown} FROM "{table.name}"').fetchall()
            name = f'"{table.name}"' if quote else table.name
            statements = [f"CREATE TABLE {name} ({columns})"]
            for first in range(0, len(rows), ROWS_A_STATEMENT):
                values = ", ".join(
                    "(" + ", ".join(r) + ")" for r in rows[first : first + ROWS_A_STATEMENT]
                )
                statements.append(f"INSERT INTO {name} SELECT * FROM VALUES {values}")
            server.run(*statements)

        yield Stand(
            kind="snowflake",
            folds_names=True,
            settings=server.settings(),
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
