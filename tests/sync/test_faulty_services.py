"""Copies of tables that catalogs and stores over HTTP have, behind a front that fails in each way.

401, 429, 500, 503, resets, silence, half an answer, one of the wrong length, a slow one: in the end
each row is there once. ``BATUTA_SYNC_FAULTS`` says how many faults each copy meets.
"""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import batuta_sql
from tests.emulators.aws_process import KEY, REGION, SECRET, AwsEmulator, aws_emulator
from tests.emulators.bigquery_front import bigquery_front
from tests.emulators.databricks import Workspace
from tests.emulators.glue import BUCKET, GlueCatalog
from tests.emulators.hub import hub_emulator
from tests.emulators.iceberg_rest import rest_catalog
from tests.emulators.snowflake_process import snowflake_emulator
from tests.faults.http_front import http_front
from tests.sync.conftest import Rows, rows_of
from tests.sync.test_faults import until_done

FAULTS = int(os.environ.get("BATUTA_SYNC_FAULTS", "12"))
FILES, ROWS = 6, 4000
PATIENCE = {"connect_timeout": 2, "query_timeout": 6}


def piece(n: int) -> pa.Table:
    ids = range(n * ROWS, (n + 1) * ROWS)
    return pa.table({"id": ids, "word": [f"{i * 7919:x}" for i in ids]})


EVERYTHING = pa.concat_tables(map(piece, range(FILES)))


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def csv(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(table, buffer)
    return buffer.getvalue()


@dataclass(frozen=True)
class Stand:
    """A service with a table of ``EVERYTHING``.

    :param url: what the front is put before.
    :param source: the settings of the source, given the URL of the front.
    """

    table: str
    url: str
    source: Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsEmulator]:
    with aws_emulator(tmp_path_factory.mktemp("aws")) as server:
        store = server.filesystem()
        store.mkdir(BUCKET)
        for n in range(FILES):
            store.pipe(f"{BUCKET}/files/t/{n}.parquet", parquet(piece(n)))
            store.pipe(f"{BUCKET}/texts/t/{n}.csv", csv(piece(n)))
        yield server


def by_way_of(aws: AwsEmulator, url: str) -> dict[str, str]:
    """What reads from the store through a front."""
    return aws.storage_options | {"AWS_ENDPOINT_URL": url}


def folder_of_files(aws: AwsEmulator, name: str) -> Stand:
    def source(url: str) -> dict[str, Any]:
        path = f"s3://{BUCKET}/{name}"
        return {"kind": "files", "path": path, "storage_options": by_way_of(aws, url)}

    return Stand("t", aws.emulator.url, source)


@pytest.fixture
def files(aws: AwsEmulator) -> Stand:
    return folder_of_files(aws, "files")


@pytest.fixture
def texts(aws: AwsEmulator) -> Stand:
    """CSV: of a text that ends early, no format tells."""
    return folder_of_files(aws, "texts")


@pytest.fixture
def delta(aws: AwsEmulator) -> Stand:
    place = f"s3://{BUCKET}/delta/t"
    options = aws.storage_options | {"AWS_S3_ALLOW_UNSAFE_RENAME": "true"}
    if not aws.filesystem().exists(f"{BUCKET}/delta/t"):
        for n in range(FILES):
            deltalake.write_deltalake(place, piece(n), mode="append", storage_options=options)

    def source(url: str) -> dict[str, Any]:
        return {"kind": "delta", "tables": {"t": place}, "storage_options": by_way_of(aws, url)}

    return Stand("t", aws.emulator.url, source)


@pytest.fixture
def glue(aws: AwsEmulator) -> Stand:
    return in_glue(aws, "parquet")


@pytest.fixture
def glue_texts(aws: AwsEmulator) -> Stand:
    return in_glue(aws, "text")


def in_glue(aws: AwsEmulator, form: str) -> Stand:
    catalog = GlueCatalog(aws)
    catalog.database(form)
    serde = {"field.delim": ","} if form == "text" else None
    columns = [("id", "bigint"), ("word", "string")]
    place = catalog.table(form, "t", columns, form=form, serde=serde)
    for n in range(FILES):
        text = csv(piece(n)).partition(b"\n")[2].replace(b'"', b"")
        catalog.put(f"{place}/{n}", parquet(piece(n)) if form == "parquet" else text)

    def source(url: str) -> dict[str, Any]:
        return {**catalog.settings, "database": form, "endpoint": url}

    return Stand("t", aws.emulator.url, source)


@pytest.fixture
def iceberg_files(aws: AwsEmulator, tmp_path: Path) -> Iterator[Stand]:
    """The catalog answers; what fails is the store of its files."""

    def access(endpoint: str) -> dict[str, str]:
        return {
            "s3.endpoint": endpoint,
            "s3.access-key-id": KEY,
            "s3.secret-access-key": SECRET,
            "s3.region": REGION,
        }

    warehouse = f"s3://{BUCKET}/{tmp_path.name}"
    with rest_catalog(tmp_path, warehouse=warehouse, **access(aws.emulator.url)) as rest:
        rest.catalog.create_namespace("n")
        table = rest.catalog.create_table("n.t", EVERYTHING.schema)
        for n in range(FILES):
            table.append(piece(n))

        def source(url: str) -> dict[str, Any]:
            catalog = {"type": "rest", "uri": rest.uri, **access(url)}
            return {"kind": "iceberg", "catalog": catalog}

        yield Stand("n.t", aws.emulator.url, source)


@pytest.fixture
def iceberg_rest(tmp_path: Path) -> Iterator[Stand]:
    with rest_catalog(tmp_path) as rest:
        rest.catalog.create_namespace("n")
        table = rest.catalog.create_table("n.t", EVERYTHING.schema)
        for n in range(FILES):
            table.append(piece(n))

        def source(url: str) -> dict[str, Any]:
            return {"kind": "iceberg", "catalog": {"type": "rest", "uri": url}}

        yield Stand("n.t", rest.uri, source)


@pytest.fixture
def huggingface(tmp_path: Path) -> Iterator[Stand]:
    with hub_emulator(tmp_path) as hub:
        hub.repo("lab/t")
        names = [f"data/train-{n:05}-of-{FILES:05}.parquet" for n in range(FILES)]
        hub.commit("lab/t", "1" * 40, {name: piece(n) for n, name in enumerate(names)})

        def source(url: str) -> dict[str, Any]:
            return {"kind": "huggingface", "repo": "lab/t", "endpoint": url}

        yield Stand("train", hub.emulator.url, source)


@pytest.fixture
def unity(databricks: Workspace, tmp_path: Path) -> Iterator[Stand]:
    databricks.reset()
    schema = databricks.new_schema()
    databricks.run(f"CREATE TABLE lab.{schema}.t (id BIGINT, word VARCHAR)")
    for n in range(FILES):
        deltalake.write_deltalake(str(tmp_path / "lake"), piece(n), mode="append")
    record = {
        "table_type": "EXTERNAL",
        "data_source_format": "DELTA",
        "storage_location": f"file://{tmp_path / 'lake'}",
    }
    databricks.set(tables={f"lab.{schema}.t": record})

    def source(url: str) -> dict[str, Any]:
        return databricks.settings(kind="unity", host=url, warehouse_id=None)

    yield Stand(f"{schema}.t", databricks.url, source)
    databricks.reset()


@pytest.fixture
def snowflake(tmp_path: Path) -> Iterator[Stand]:
    with snowflake_emulator(tmp_path) as server:
        server.run("CREATE TABLE t (id NUMBER(38,0), word VARCHAR)")
        pq.write_table(EVERYTHING, tmp_path / "t.parquet")
        server.run_behind(
            f"INSERT INTO shop.public.t SELECT id, word FROM read_parquet('{tmp_path}/t.parquet')"
        )

        def source(url: str) -> dict[str, Any]:
            return server.settings(port=int(url.rpartition(":")[2]))

        yield Stand("t", server.emulator.url, source)


@pytest.fixture
def bigquery(tmp_path: Path) -> Iterator[Stand]:
    with bigquery_front(tmp_path) as server:
        server.dataset("shop")
        fields = [{"name": "id", "type": "INTEGER"}, {"name": "word", "type": "STRING"}]
        server.table("shop", "t", fields)
        server.insert_all("shop", "t", EVERYTHING.to_pylist())
        server.page_rows = ROWS

        def source(url: str) -> dict[str, Any]:
            return server.settings(endpoint=url)

        yield Stand("shop.t", server.url, source)


@pytest.fixture
def databricks_sql(databricks: Workspace, tmp_path: Path) -> Iterator[Stand]:
    databricks.reset()
    schema = databricks.new_schema()
    pq.write_table(EVERYTHING, tmp_path / "t.parquet")
    databricks.run(
        f"CREATE TABLE lab.{schema}.t AS SELECT * FROM read_parquet('{tmp_path}/t.parquet')"
    )
    databricks.set(options={"part_rows": ROWS})

    def source(url: str) -> dict[str, Any]:
        return databricks.settings(host=url)

    yield Stand(f"{schema}.t", databricks.url, source)
    databricks.reset()


@pytest.fixture(
    params=[
        "files",
        "texts",
        "delta",
        "glue",
        "glue_texts",
        "iceberg_files",
        "iceberg_rest",
        "huggingface",
        "unity",
        "snowflake",
        "bigquery",
        "databricks_sql",
    ]
)
def stand(request: pytest.FixtureRequest) -> Stand:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def test_copies_from_a_service_that_fails(stand: Stand, tmp_path: Path) -> None:
    with ExitStack() as stack:
        front = stack.enter_context(http_front(stand.url))
        front.chance = random.Random(23)
        config = {
            "sources": {"s": stand.source(front.url) | PATIENCE},
            "cost": {"on_unknown": "allow", "history": False},
        }
        connection = stack.enter_context(batuta_sql.connect(config))
        front.left = FAULTS
        runs = 0
        # Where a copy needs few requests, more copies meet the faults.
        while front.left > 0 and runs < 2 * FAULTS:
            runs += 1
            place = tmp_path / f"copy{runs}"
            until_done(
                lambda place=place: connection.sync(f"s.{stand.table}", place, split_bytes=1)
            )
            assert rows_of(place, "parquet") == Rows(EVERYTHING), dict(front.came)
    assert sum(front.came.values()) >= FAULTS / 2
