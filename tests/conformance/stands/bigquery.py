"""BigQuery: bqemulator over its REST API, with the front that supplies what it lacks."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from tests.conformance.stand import Stand, Table
from tests.emulators.bigquery_front import bigquery_front

NATIVE = {
    "BOOLEAN": "BOOL",
    "TINYINT": "INTEGER",
    "SMALLINT": "INTEGER",
    "INTEGER": "INTEGER",
    "BIGINT": "INTEGER",
    "FLOAT": "FLOAT",
    "DOUBLE": "FLOAT",
    "VARCHAR": "STRING",
    "BLOB": "BYTES",
    "DATE": "DATE",
    "TIME": "TIME",
    "TIMESTAMP": "DATETIME",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
    "JSON": "JSON",
}


@contextmanager
def bigquery(folder: Path, fixture: Any) -> Iterator[Stand]:
    with bigquery_front(folder) as front:
        front.dataset("suite")

        def load(truth: duckdb.DuckDBPyConnection, table: Table) -> None:
            front.table("suite", table.name, [_field(n, t) for n, t in table.columns])
            shown = ", ".join(_text(n, t) for n, t in table.columns)
            names = [n for n, _ in table.columns]
            rows = truth.execute(f'SELECT {shown} FROM "{table.name}"').fetchall()
            front.insert_all(
                "suite",
                table.name,
                [dict(zip(names, map(_sent, row), strict=True)) for row in rows],
            )

        yield Stand(
            kind="bigquery",
            settings=front.settings(dataset="suite", pricing={"usd_per_tib_scanned": 6.25}),
            prefix=("suite",),
            load=load,
            address=front.url,
            settings_at=lambda uri: front.settings(endpoint=uri.rstrip("/").replace("@", "")),
            # A FLOAT has 64 bits there, and was written as text; an array is never NULL.
            expressions={"FLOAT": "CAST({} AS VARCHAR)", "INTEGER[]": "coalesce({}, [])"},
            untested={"DECIMAL(38,0)": "the emulator has no tables with BIGNUMERIC"},
            types={
                "TINYINT": "BIGINT",
                "SMALLINT": "BIGINT",
                "INTEGER": "BIGINT",
                "FLOAT": "DOUBLE",
                "UUID": None,
                "INTEGER[]": "BIGINT[]",
                "STRUCT(a INTEGER, b VARCHAR)": "STRUCT(a BIGINT, b VARCHAR)",
            },
            limits={"cancellation": "the emulator cannot end a statement; see tests/faults"},
        )


def _field(name: str, type_: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "mode": "NULLABLE"}
    match type_:
        case "INTEGER[]":
            return {**found, "type": "INTEGER", "mode": "REPEATED"}
        case "STRUCT(a INTEGER, b VARCHAR)":
            fields = [{"name": "a", "type": "INTEGER"}, {"name": "b", "type": "STRING"}]
            return {**found, "type": "RECORD", "fields": fields}
    if type_.startswith("DECIMAL"):
        precision, scale = type_.removeprefix("DECIMAL(").rstrip(")").split(",")
        return {**found, "type": "NUMERIC", "precision": precision, "scale": scale}
    return {**found, "type": NATIVE[type_]}


def _text(name: str, type_: str) -> str:
    """SQL of a value as it is written in JSON."""
    if type_ == "INTEGER[]":
        # What is stored as NULL is an empty array there.
        return f'coalesce("{name}", [])'
    nested = type_ == "BLOB" or type_.startswith("STRUCT")
    return f'"{name}"' if nested else f'"{name}"::VARCHAR'


def _sent(value: Any) -> Any:
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case datetime.datetime():
            return value.isoformat()
    return value
