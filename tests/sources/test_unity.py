"""The Unity Catalog: which tables are read from their files, and which through the warehouse."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

import batuta_sql
from batuta_sql.sources.unity_access import storage_options
from tests.emulators.databricks import Workspace
from tests.emulators.process import running

IN_FILES = {"id": [1, 2, 3], "word": ["a", "b", "c"]}
SHOWN_BY_THE_WAREHOUSE = "SELECT 2::BIGINT AS id, 'b' AS word"


@pytest.fixture
def lake(databricks: Workspace) -> Iterator[Workspace]:
    databricks.reset()
    yield databricks
    databricks.reset()


@pytest.fixture
def schema(lake: Workspace, tmp_path: Path) -> str:
    """``orders``: a Delta table of three rows, of which the warehouse shows another picture."""
    name = lake.new_schema()
    deltalake.write_deltalake(str(tmp_path / "orders"), pa.table(IN_FILES))
    lake.run(f"CREATE TABLE lab.{name}.orders AS {SHOWN_BY_THE_WAREHOUSE}")
    describe(lake, name, tmp_path)
    return name


def describe(lake: Workspace, schema: str, folder: Path, **more: Any) -> None:
    record = {
        "table_type": "EXTERNAL",
        "data_source_format": "DELTA",
        "storage_location": f"file://{folder / 'orders'}",
    }
    lake.set(tables={f"lab.{schema}.orders": record | more})


def connect(lake: Workspace, *, warehouse: bool = True, **more: Any) -> Any:
    settings = lake.settings(kind="unity", **more)
    if not warehouse:
        settings["warehouse_id"] = None
    config = {"sources": {"uc": settings}, "cost": {"on_unknown": "allow"}}
    return closing(batuta_sql.connect(config))


def ids(connection: Any, schema: str) -> list[int]:
    return sorted(i for (i,) in connection.execute(f"SELECT id FROM uc.{schema}.orders").fetchall())


def statements(lake: Workspace) -> list[str]:
    return [line for line in lake.lines() if line.startswith("POST /api/2.0/sql")]


# --- in place ----------------------------------------------------------------------------------


def test_a_delta_table_is_read_from_its_files_and_no_warehouse_runs(
    lake: Workspace, schema: str
) -> None:
    before = len(statements(lake))
    with connect(lake) as connection:
        assert ids(connection, schema) == [1, 2, 3]
    assert len(statements(lake)) == before


def test_what_is_committed_meanwhile_is_seen_by_the_next_query(
    lake: Workspace, schema: str, tmp_path: Path
) -> None:
    with connect(lake, warehouse=False) as connection:
        assert ids(connection, schema) == [1, 2, 3]
        more = pa.table({"id": [4], "word": ["d"]})
        deltalake.write_deltalake(str(tmp_path / "orders"), more, mode="append")
        assert ids(connection, schema) == [1, 2, 3, 4]
        old = f'SELECT count(*) FROM uc.lab.{schema}."orders@v0"'
        assert connection.execute(old).fetchall() == [(3,)]


def test_reading_files_costs_no_dbus(lake: Workspace, schema: str) -> None:
    with connect(lake, pricing={"usd_per_dbu": 0.7}) as connection:
        found = connection.estimate(f"SELECT id FROM uc.{schema}.orders")
    assert (found.usd, found.confidence, found.rows) == (0.0, "exact", 3)


def test_a_column_that_was_renamed_is_found_by_its_mapping(
    lake: Workspace, schema: str, tmp_path: Path
) -> None:
    rewrite_log(
        tmp_path / "orders",
        {"minReaderVersion": 2, "minWriterVersion": 5},
        {"delta.columnMapping.mode": "name"},
        {"word": "label"},
    )
    with connect(lake, warehouse=False) as connection:
        sql = f"SELECT label FROM uc.{schema}.orders WHERE id = 2"
        assert connection.execute(sql).fetchall() == [("b",)]


# --- through the warehouse ---------------------------------------------------------------------


def rewrite_log(
    table: Path,
    protocol: dict[str, Any],
    configuration: dict[str, str] | None = None,
    renamed: dict[str, str] | None = None,
) -> None:
    """Gives the table's first version another protocol, and columns other names by mapping."""
    (log,) = (table / "_delta_log").glob("*.json")
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        if "protocol" in action:
            action["protocol"] = protocol
        if "metaData" in action and configuration:
            action["metaData"]["configuration"] |= configuration
            told = json.loads(action["metaData"]["schemaString"])
            for number, field in enumerate(told["fields"], 1):
                field["metadata"] = {
                    "delta.columnMapping.id": number,
                    "delta.columnMapping.physicalName": field["name"],
                }
                field["name"] = (renamed or {}).get(field["name"], field["name"])
            action["metaData"]["schemaString"] = json.dumps(told)
    log.write_text("\n".join(map(json.dumps, actions)))


def with_deletion_vectors(table: Path) -> None:
    rewrite_log(
        table,
        {
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": ["deletionVectors"],
            "writerFeatures": ["deletionVectors"],
        },
    )


HIDDEN = [
    {"row_filter": {"function_name": "lab.default.mine", "input_column_names": ["id"]}},
    {"columns": [{"name": "id", "type_text": "bigint", "position": 0},
                 {"name": "word", "type_text": "string", "position": 1,
                  "mask": {"function_name": "lab.default.hide"}}]},
    {"table_type": "VIEW"},
    {"data_source_format": "ICEBERG"},
    {"storage_location": "s3://bucket/orders"},
    {"storage_location": None},
]  # fmt: skip


@pytest.mark.parametrize("record", HIDDEN, ids=lambda r: next(iter(r)))
def test_what_must_not_or_cannot_be_read_in_place_goes_through_the_warehouse(
    lake: Workspace, schema: str, tmp_path: Path, record: dict[str, Any]
) -> None:
    describe(lake, schema, tmp_path, **record)
    with connect(lake) as connection:
        assert ids(connection, schema) == [2]


@pytest.mark.parametrize("record", HIDDEN, ids=lambda r: next(iter(r)))
def test_and_without_a_warehouse_is_refused_with_the_reason(
    lake: Workspace, schema: str, tmp_path: Path, record: dict[str, Any]
) -> None:
    describe(lake, schema, tmp_path, **record)
    reason = "row filter|masked|view|ICEBERG|s3://|where it lies"
    with (
        connect(lake, warehouse=False) as connection,
        pytest.raises(batuta_sql.NotSupportedError, match=f"^uc: .*({reason})(.|\n)*warehouse_id"),
    ):
        ids(connection, schema)


def test_a_table_with_deletion_vectors_goes_through_the_warehouse(
    lake: Workspace, schema: str, tmp_path: Path
) -> None:
    with_deletion_vectors(tmp_path / "orders")
    with connect(lake) as connection:
        assert ids(connection, schema) == [2]
    with (
        connect(lake, warehouse=False) as connection,
        pytest.raises(batuta_sql.NotSupportedError, match="deletionVectors"),
    ):
        ids(connection, schema)


def test_tables_of_both_kinds_in_one_query(lake: Workspace, schema: str, tmp_path: Path) -> None:
    lake.run(
        f"CREATE TABLE lab.{schema}.facts AS SELECT (i % 4) AS id, i AS n,"
        " CASE WHEN i % 2 = 0 THEN i / 4 END::DECIMAL(10,2) AS price FROM range(1000) r(i)"
    )
    sql = (
        f"SELECT o.word, count(*), sum(f.price) FROM uc.{schema}.facts f JOIN uc.{schema}.orders o"
        " ON f.id = o.id WHERE f.n >= 100 GROUP BY o.word ORDER BY 1"
    )
    with connect(lake) as connection:
        found = connection.execute(sql).fetchall()
    assert [(w, n) for w, n, _ in found] == [("a", 225), ("b", 225), ("c", 225)]
    assert [str(p) if p is not None else None for _, _, p in found] == [None, "30937.50", None]


def test_the_warehouse_is_asked_for_needed_columns_and_rows_alone(
    lake: Workspace, schema: str, tmp_path: Path
) -> None:
    describe(lake, schema, tmp_path, table_type="VIEW")
    with connect(lake) as connection:
        connection.execute(f"SELECT word FROM uc.{schema}.orders WHERE id > 1").fetchall()
    told = lake.ask("GET", "/api/2.0/sql/history/queries?max_results=1")
    sent = told["res"][0]["query_text"]
    assert "`word`" in sent
    assert "WHERE" in sent


def test_what_the_warehouse_says_comes_in_its_own_words(
    lake: Workspace, schema: str, tmp_path: Path
) -> None:
    describe(lake, schema, tmp_path, table_type="VIEW")
    lake.set(faults=[{"on": "POST /api/2.0/sql/statements", "kind": "status", "times": 99,
                      "status": 400, "code": "BAD_REQUEST",
                      "message": "[INSUFFICIENT_PERMISSIONS] SQLSTATE: 42501"}])  # fmt: skip
    with (
        connect(lake) as connection,
        pytest.raises(batuta_sql.ProgrammingError, match=r"^uc: \[INSUFFICIENT_PERM"),
    ):
        ids(connection, schema)


def test_a_cancellation_reaches_the_warehouse(lake: Workspace, schema: str, tmp_path: Path) -> None:
    describe(lake, schema, tmp_path, table_type="VIEW")
    ended: list[BaseException] = []
    with connect(lake) as connection:
        connection.describe(f"uc.{schema}.orders")
        lake.set(options={"slow": 60})

        def run() -> None:
            try:
                ids(connection, schema)
            except BaseException as error:
                ended.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and "GET /api/2.0/sql/statements/" not in str(
            lake.lines()
        ):
            time.sleep(0.05)
        connection.cancel()
        thread.join(20)
    assert [type(e) for e in ended] == [batuta_sql.QueryCancelled]
    assert [line for line in lake.lines() if line.endswith("/cancel")]


# --- tags and credentials ----------------------------------------------------------------------


def test_tags_are_labels(lake: Workspace, schema: str, tmp_path: Path) -> None:
    columns = [{"name": n, "type_text": "string", "position": i} for i, n in enumerate(IN_FILES)]
    describe(lake, schema, tmp_path, columns=columns)
    table = f"lab.{schema}.orders"
    lake.set(tags={f"schemas/lab.{schema}": {"tier": "sovereign"},
                   f"columns/{table}.word": {"pii": "name"}})  # fmt: skip
    with connect(lake) as connection:
        cursor = connection.execute(f"SELECT id, word FROM uc.{schema}.orders")
        assert cursor.labels["word"].direct == {"tier:sovereign", "pii:name"}
        assert cursor.labels["id"].direct == {"tier:sovereign"}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An object store (moto), as storage options without a login; it has the bucket ``lake``."""

    def command(port: int) -> list[str]:
        return ["-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]

    with running("aws", command, tmp_path_factory.mktemp("s3")) as emulator:
        request = urllib.request.Request(f"{emulator.url}/lake", method="PUT")
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).close()
        yield {
            "AWS_ENDPOINT_URL": emulator.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
        }


@pytest.fixture
def in_s3(lake: Workspace, schema: str, tmp_path: Path, s3: dict[str, str]) -> dict[str, Any]:
    """Settings under which ``orders`` is read where it lies: in S3, in two partitions."""
    login = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    options = {**s3, **login, "AWS_S3_ALLOW_UNSAFE_RENAME": "true"}
    place = f"s3://lake/{schema}"
    rows = pa.table({"id": [1, 2, 3], "word": ["a", "b", None]})
    deltalake.write_deltalake(place, rows, partition_by=["word"], storage_options=options)
    describe(lake, schema, tmp_path, storage_location=place, table_id="17")
    return {"object_stores": True, "storage_options": s3}


def test_a_table_in_an_object_store_is_read_with_vended_credentials(
    lake: Workspace, schema: str, in_s3: dict[str, Any]
) -> None:
    with connect(lake, warehouse=False, **in_s3) as connection:
        sql = f"SELECT id, word FROM uc.{schema}.orders WHERE id >= 2 ORDER BY id"
        assert connection.execute(sql).fetchall() == [(2, "b"), (3, None)]
        found = connection.estimate(sql)
        told = str(vars(connection._session.sources["uc"]))
    asked = [line for line in lake.lines() if line.endswith("/temporary-table-credentials")]
    assert len(asked) == 1
    assert (found.confidence, bool(found.bytes_scanned)) == ("estimated", True)
    assert "vended-s" not in told


def test_vended_credentials_are_asked_for_again_before_they_end(
    lake: Workspace, schema: str, in_s3: dict[str, Any]
) -> None:
    lake.set(options={"credential_seconds": 60})
    with connect(lake, warehouse=False, **in_s3) as connection:
        assert ids(connection, schema) == [1, 2, 3]
        before = lake.lines().count("POST /api/2.1/unity-catalog/temporary-table-credentials")
        assert ids(connection, schema) == [1, 2, 3]
        after = lake.lines().count("POST /api/2.1/unity-catalog/temporary-table-credentials")
    assert after > before


def test_a_catalog_that_names_the_store_makes_a_source_as_far_as_any(lake: Workspace) -> None:
    from batuta_sql.guards.locality import whereabouts
    from batuta_sql.source_settings import UnitySettings

    near = {"kind": "unity", "host": "https://10.0.0.1"}
    assert whereabouts(UnitySettings(**near)).locality == "private"
    assert whereabouts(UnitySettings(**near, object_stores=True)).locality == "public"
    here = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"}
    settings = UnitySettings(**near, object_stores=True, storage_options=here)
    assert whereabouts(settings).locality == "private"


@pytest.mark.parametrize(
    ("told", "options"),
    [
        (
            {"aws_temp_credentials": {"access_key_id": "k", "secret_access_key": "s",
                                      "session_token": "t"}},
            {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"},
        ),
        ({"azure_user_delegation_sas": {"sas_token": "t"}}, {"AZURE_STORAGE_SAS_TOKEN": "t"}),
        ({"gcp_oauth_token": {"oauth_token": "t"}}, {"GOOGLE_BEARER_TOKEN": "t"}),
        ({}, {}),
    ],
)  # fmt: skip
def test_vended_credentials_as_storage_options(
    told: dict[str, Any], options: dict[str, str]
) -> None:
    assert storage_options(told) == options
