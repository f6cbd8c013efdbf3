"""Stands of Iceberg tables: in a SQL catalog on this machine, and in a bucket."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog

from tests.conformance.stand import Stand, Table
from tests.emulators.aws_process import KEY, REGION, SECRET, aws_emulator
from tests.emulators.iceberg_rest import rest_catalog

_TYPES: dict[str, str | None] = {
    "TINYINT": "INTEGER",
    "SMALLINT": "INTEGER",
    "JSON": "VARCHAR",
}


def write_table(catalog: Any, truth: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Makes an Iceberg table of a table of the truth."""
    shown = ", ".join(f'CAST("{n}" AS {_TYPES.get(t) or t}) AS "{n}"' for n, t in table.columns)
    rows = truth.sql(f'SELECT {shown} FROM "{table.name}"').to_arrow_table()
    uuids = [i for i, (_, t) in enumerate(table.columns) if t == "UUID"]
    for i in uuids:
        values = [uuid.UUID(v).bytes if v is not None else None for v in rows.column(i).to_pylist()]
        column = pa.ExtensionArray.from_storage(pa.uuid(), pa.array(values, pa.binary(16)))
        rows = rows.set_column(i, rows.schema.field(i).name, column)
    made = catalog.create_table(("s", table.name), rows.schema)
    made.append(rows)


@contextmanager
def iceberg(folder: Path, fixture: Any) -> Iterator[Stand]:
    uri = f"sqlite:///{folder}/catalog.db"
    catalog = SqlCatalog("default", uri=uri, warehouse=f"file://{folder}/warehouse")
    catalog.create_namespace("s")

    yield Stand(
        kind="iceberg",
        settings={"kind": "iceberg", "catalog": {"type": "sql", "uri": uri}},
        prefix=("s",),
        load=lambda truth, table: write_table(catalog, truth, table),
        types=_TYPES,
        limits={"mid-stream error": "there is no connection that could break"},
    )


@contextmanager
def iceberg_s3(folder: Path, fixture: Any) -> Iterator[Stand]:
    """The catalog on this machine, everything else in a bucket."""
    with aws_emulator(folder) as aws:
        aws.filesystem().mkdir("lake")
        uri = f"sqlite:///{folder}/catalog.db"
        properties = {
            "type": "sql",
            "uri": uri,
            "warehouse": "s3://lake/warehouse",
            "s3.endpoint": aws.emulator.url,
            "s3.access-key-id": KEY,
            "s3.secret-access-key": SECRET,
            "s3.region": REGION,
        }
        catalog = SqlCatalog("default", **properties)
        catalog.create_namespace("s")
        yield Stand(
            kind="iceberg on S3",
            settings={"kind": "iceberg", "catalog": properties},
            prefix=("s",),
            load=lambda truth, table: write_table(catalog, truth, table),
            types=_TYPES,
            limits={"mid-stream error": "tests/sources/test_iceberg_catalogs.py has its own"},
        )


@contextmanager
def iceberg_rest(folder: Path, fixture: Any) -> Iterator[Stand]:
    """A REST catalog, the files in a bucket with credentials that the catalog vends."""
    with aws_emulator(folder) as aws:
        aws.filesystem().mkdir("lake")
        access = {
            "s3.endpoint": aws.emulator.url,
            "s3.access-key-id": KEY,
            "s3.secret-access-key": SECRET,
            "s3.region": REGION,
        }
        with rest_catalog(folder, warehouse="s3://lake/warehouse", **access) as rest:
            rest.catalog.create_namespace("s")
            rest.control(config=access, token="rest-token-0815")
            catalog = {
                "type": "rest",
                "uri": rest.uri,
                "token": "rest-token-0815",
                "s3.endpoint": aws.emulator.url,
            }
            yield Stand(
                kind="iceberg over REST",
                settings={"kind": "iceberg", "catalog": catalog},
                prefix=("s",),
                load=lambda truth, table: write_table(rest.catalog, truth, table),
                types=_TYPES,
                limits={"mid-stream error": "tests/sources/test_iceberg_catalogs.py has its own"},
            )
