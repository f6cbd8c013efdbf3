"""Files and Delta tables on S3: by range, with their labels, and failures that say what failed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

import batuta_sql
from batuta_sql import NotSupportedError, OperationalError
from batuta_sql.labels import ColumnLabels, labelled_schema
from tests.emulators.aws_process import SECRET, AwsEmulator, aws_emulator
from tests.faults.proxy import Proxy

ROWS = 100_000


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsEmulator]:
    with aws_emulator(tmp_path_factory.mktemp("aws")) as server:
        store = server.filesystem()
        store.mkdir("lake")
        wide = pa.table(
            {"id": range(ROWS), **{f"c{i}": [f"{i} {n}" for n in range(ROWS)] for i in range(6)}}
        )
        put(store, "lake/raw/wide.parquet", wide)
        for year in (2023, 2024):
            put(store, f"lake/raw/sales/year={year}/p.parquet", pa.table({"n": [year, 1]}))
        put(store, "lake/raw/sales/_SUCCESS.parquet", pa.table({"n": [0]}))
        store.pipe("lake/raw/rates.csv", b"code,rate\nEUR,1.1\nUSD,1\n")
        labelled = pa.table({"email": ["a@x"]})
        schema = labelled_schema(
            labelled.schema, [ColumnLabels(frozenset({"pii"}))], frozenset({"pii"})
        )
        put(store, "lake/raw/people.parquet", labelled.cast(schema))
        yield server


def put(store: Any, path: str, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=10_000)
    store.pipe(path, buffer.getvalue())


@pytest.fixture
def connect(aws: AwsEmulator) -> Iterator[Callable[..., Any]]:
    opened: list[Any] = []

    def make(endpoint: str | None = None, **settings: Any) -> Any:
        options = dict(aws.storage_options)
        if endpoint is not None:
            options["AWS_ENDPOINT_URL"] = endpoint
        source = {"kind": "files", "path": "s3://lake/raw", "storage_options": options, **settings}
        opened.append(batuta_sql.connect({"sources": {"lake": source}}))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the ranges that are read from objects."""
    found: list[int] = []
    fetch = s3fs.core.S3File._fetch_range

    def counted(self: Any, start: int, end: int) -> bytes:
        found.append(end - start)
        return bytes(fetch(self, start, end))

    monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", counted)
    return found


def test_a_folder_of_a_bucket_is_a_source(connect: Callable[..., Any]) -> None:
    connection = connect()
    assert [t[1] for t in connection.tables("lake")] == [
        ("people",),
        ("rates",),
        ("sales",),
        ("wide",),
    ]
    assert connection.execute("SELECT sum(rate) FROM lake.rates").fetchone() == (2.1,)


def test_a_column_is_not_the_whole_object(
    aws: AwsEmulator, connect: Callable[..., Any], ranges: list[int]
) -> None:
    size = aws.filesystem().info("lake/raw/wide.parquet")["size"]
    assert connect().execute("SELECT sum(id) FROM lake.wide").fetchone() == (
        ROWS * (ROWS - 1) // 2,
    )
    assert 0 < sum(ranges) < size / 3


def test_row_groups_that_cannot_match_are_not_read(
    connect: Callable[..., Any], ranges: list[int]
) -> None:
    connection = connect()
    connection.execute("SELECT c0 FROM lake.wide").fetchall()
    everything = sum(ranges)
    ranges.clear()
    connection.execute("SELECT c0 FROM lake.wide WHERE id < 10").fetchall()
    assert sum(ranges) < everything / 3


def test_folders_of_partitions_and_what_engines_leave(connect: Callable[..., Any]) -> None:
    sql = "SELECT year, count(*), max(n) FROM lake.sales GROUP BY year ORDER BY year"
    assert connect().execute(sql).fetchall() == [(2023, 2, 2023), (2024, 2, 2024)]


def test_a_glob(connect: Callable[..., Any]) -> None:
    connection = connect(path=None, tables={"sales": "s3://lake/raw/sales/*/p.parquet"})
    assert connection.execute("SELECT count(*) FROM lake.sales").fetchone() == (4,)


def test_labels_of_an_object_are_honoured(connect: Callable[..., Any]) -> None:
    cursor = connect().execute("SELECT email FROM lake.people")
    assert cursor.labels["email"].all == {"pii"}


def test_an_object_that_changes_is_read_anew(aws: AwsEmulator, connect: Callable[..., Any]) -> None:
    store = aws.filesystem()
    put(store, "lake/raw/moving.parquet", pa.table({"a": [1]}))
    connection = connect()
    assert connection.execute("SELECT a FROM lake.moving").fetchall() == [(1,)]
    put(store, "lake/raw/moving.parquet", pa.table({"a": [2, 3]}))
    assert connection.execute("SELECT a FROM lake.moving").fetchall() == [(2,), (3,)]
    store.rm("lake/raw/moving.parquet")


def test_a_delta_table_in_a_bucket(aws: AwsEmulator) -> None:
    options = {**aws.storage_options, "AWS_S3_ALLOW_UNSAFE_RENAME": "true"}
    for part in (1, 2):
        table = pa.table({"id": [part], "day": [f"2024-01-0{part}"]})
        deltalake.write_deltalake(
            "s3://lake/delta/sales/visits",
            table,
            storage_options=options,
            mode="append",
            partition_by=["day"],
        )
    source = {
        "kind": "delta",
        "path": "s3://lake/delta",
        "storage_options": aws.storage_options,
    }
    with batuta_sql.connect({"sources": {"lake": source}}) as connection:
        assert [t[1] for t in connection.tables("lake")] == [("sales", "visits")]
        sql = "SELECT id, day FROM lake.visits ORDER BY id"
        assert connection.execute(sql).fetchall() == [(1, "2024-01-01"), (2, "2024-01-02")]
        old = 'SELECT count(*) FROM lake.sales."visits@v0"'
        assert connection.execute(old).fetchone() == (1,)


# --- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["s3://lake/nowhere", "s3://no-bucket/raw"])
def test_what_is_not_there_is_named(connect: Callable[..., Any], path: str) -> None:
    with pytest.raises(batuta_sql.Error, match="lake"):
        connect(path=path).execute("SELECT * FROM lake.t")


@pytest.mark.parametrize("fault", ["cut_after", "end_after"])
def test_an_answer_that_breaks_off_is_an_error(
    aws: AwsEmulator, connect: Callable[..., Any], fault: str
) -> None:
    with Proxy(aws.emulator.url) as proxy:
        endpoint = proxy.uri.replace("http://@", "http://").rstrip("/")
        connection = connect(endpoint, connect_timeout=3, query_timeout=20)
        assert connection.execute("SELECT count(*) FROM lake.wide").fetchone() == (ROWS,)
        proxy.reset_all()
        setattr(proxy, fault, 400_000)
        with pytest.raises(OperationalError, match="lake") as failure:
            connection.execute("SELECT * FROM lake.wide").fetchall()
        assert SECRET not in str(failure.value)


def test_a_server_that_is_not_there_is_an_error_without_secrets(
    connect: Callable[..., Any],
) -> None:
    connection = connect("http://127.0.0.1:9", connect_timeout=1, query_timeout=5)
    with pytest.raises(OperationalError, match="lake") as failure:
        connection.execute("SELECT * FROM lake.wide")
    assert SECRET not in str(failure.value)
    assert SECRET not in repr(connection)


def test_other_stores_are_refused_by_name(connect: Callable[..., Any]) -> None:
    with pytest.raises(NotSupportedError, match="gs:// is not read yet"):
        connect(path="gs://bucket/raw").execute("SELECT * FROM lake.t")


def test_the_locality_is_that_of_the_store(aws: AwsEmulator, tmp_path: Path) -> None:
    public = {"kind": "files", "path": "s3://lake/raw"}
    with (
        batuta_sql.connect({"sources": {"lake": public}}, tier="private_cloud") as connection,
        pytest.raises(batuta_sql.TierRefused),
    ):
        connection.execute("SELECT * FROM lake.wide")
