"""PostgreSQL: a real server, filled through its own text formats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from batuta_sql.demo.postgres_server import PostgresServer
from tests.conformance.stand import Stand, Table

NATIVE = {
    "TINYINT": "SMALLINT",
    "FLOAT": "REAL",
    "DOUBLE": "DOUBLE PRECISION",
    "VARCHAR": "TEXT",
    "BLOB": "BYTEA",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ",
    "STRUCT(a INTEGER, b VARCHAR)": None,
}


@contextmanager
def postgresql(folder: Path, fixture: Any) -> Iterator[Stand]:
    server: PostgresServer = fixture("postgres")
    with server.database("conformance") as uri:
        database = uri.rsplit("/", 1)[1]

        def run(sql: str) -> None:
            server.run(sql, database)

        def load(truth: duckdb.DuckDBPyConnection, table: Table) -> None:
            columns = ", ".join(f'"{n}" {NATIVE.get(t, t)}' for n, t in table.columns)
            shown = ", ".join(_text(n, t) for n, t in table.columns)
            rows = truth.execute(f'SELECT {shown} FROM "{table.name}"').fetchall()
            script = [f'CREATE TABLE "{table.name}" ({columns});']
            for first in range(0, len(rows), 1000):
                values = ", ".join(
                    "(" + ", ".join(map(_literal, row)) + ")" for row in rows[first : first + 1000]
                )
                script.append(f'INSERT INTO "{table.name}" VALUES {values};')
            server.run("\n".join([*script, f'ANALYZE "{table.name}";']), database)

        yield Stand(
            kind="postgresql",
            settings={"kind": "postgresql", "uri": uri},
            prefix=("public",),
            load=load,
            run=run,
            address=uri,
            settings_at=lambda through: {"kind": "postgresql", "uri": through},
            types={
                "TINYINT": "SMALLINT",
                "STRUCT(a INTEGER, b VARCHAR)": None,
            },
        )


def _text(name: str, type_: str) -> str:
    match type_:
        case "BLOB":
            return f"'\\x' || hex(\"{name}\")"
        case "INTEGER[]":
            return f"replace(replace(\"{name}\"::VARCHAR, '[', '{{'), ']', '}}')"
    return f'"{name}"::VARCHAR'


def _literal(value: str | None) -> str:
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"
