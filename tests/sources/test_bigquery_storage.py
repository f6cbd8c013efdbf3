"""Results of BigQuery through the Storage Read API, against bqemulator's own."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pyarrow as pa
import pytest

import batuta_sql
from batuta_sql.source_settings import BigQuerySettings
from batuta_sql.sources.bigquery_storage import _converts_exactly
from batuta_sql.sources.bigquery_types import shape_of
from tests.emulators.bigquery_front import PROJECT, RESULTS, BigQueryFront, Fault, bigquery_front
from tests.emulators.bigquery_storage_relay import StorageRelay, StreamFault, storage_relay
from tests.emulators.process import free_port
from tests.faults.conftest import eventually

FREE = {"on_unknown": "allow"}
ROWS = 40_000
PAGE = 1000
BIG = "SELECT id, text FROM s.big WHERE id >= 0"

TYPES = {
    "i": "INTEGER",
    "f": "FLOAT",
    "b": "BOOLEAN",
    "s": "STRING",
    "raw": "BYTES",
    "d": "DATE",
    "t": "TIME",
    "dt": "DATETIME",
    "ts": "TIMESTAMP",
    "n": "NUMERIC",
    "j": "JSON",
}
VALUES: list[dict[str, Any]] = [
    {
        "i": str(2**63 - 1),
        "f": "0.1",
        "b": True,
        "s": "ñ'\"\\\n",
        "raw": "AP8=",
        "d": "0001-01-01",
        "t": "23:59:59.999999",
        "dt": "0001-01-01T00:00:00",
        "ts": "9999-12-31T23:59:59.999999Z",
        "n": "99999999999999999999999999999.999999999",
        "j": '{"a":[1,null,"x"]}',
        "m": "-9999999999.99",
    },
    {
        "i": str(-(2**63)),
        "f": "-Infinity",
        "b": False,
        "s": "",
        "raw": "",
        "d": "9999-12-31",
        "t": "00:00:00",
        "dt": "9999-12-31T23:59:59.999999",
        "ts": "0001-01-01T00:00:00Z",
        "n": "-0.000000001",
        "j": "null",
        "m": "0.01",
    },
    {"i": "0", "f": "NaN", "s": "nan"},
    {"f": "1e-300", "ts": "1969-12-31T23:59:59.999999Z"},
]


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigQueryFront]:
    with bigquery_front(tmp_path_factory.mktemp("bigquery_storage")) as made:
        made.dataset("shop")
        fields = [{"name": n, "type": t} for n, t in TYPES.items()]
        made.table(
            "shop",
            "types",
            [*fields, {"name": "m", "type": "NUMERIC", "precision": "12", "scale": "2"}],
        )
        made.insert_all("shop", "types", VALUES * 50)
        made.table(
            "shop", "big", [{"name": "id", "type": "INTEGER"}, {"name": "text", "type": "STRING"}]
        )
        made.run(
            "INSERT INTO shop.big SELECT n, CONCAT('row number ', CAST(n AS STRING), ' of many')"
            f" FROM UNNEST(GENERATE_ARRAY(0, {ROWS - 1})) AS n"
        )
        made.table(
            "shop",
            "nested",
            [
                {"name": "id", "type": "INTEGER"},
                {"name": "tags", "type": "STRING", "mode": "REPEATED"},
                {"name": "place", "type": "GEOGRAPHY"},
            ],
        )
        made.run(
            "INSERT INTO shop.nested SELECT n, ['a', 'b'], ST_GEOGFROMTEXT('POINT(1 2)')"
            " FROM UNNEST(GENERATE_ARRAY(1, 2500)) AS n"
        )
        yield made


@pytest.fixture(scope="module")
def relays(front: BigQueryFront) -> Iterator[StorageRelay]:
    with storage_relay(front.grpc_port) as made:
        yield made


@pytest.fixture
def relay(front: BigQueryFront, relays: StorageRelay) -> Iterator[StorageRelay]:
    """Pages of 1,000 rows, and messages of as many."""
    front.reset()
    front.page_rows, front.keeps_results = PAGE, True
    relays.reset()
    yield relays
    front.reset()
    front.keeps_results = False
    relays.reset()


@pytest.fixture
def shop(front: BigQueryFront, relay: StorageRelay, opened: Callable[..., Any]) -> Any:
    return opened(FREE, **front.settings(dataset="shop", storage_endpoint=relay.address))


def pages(front: BigQueryFront) -> int:
    return len([r for r in front.requests if "/queries/" in r.path])


def whole(connection: Any) -> bool:
    return sorted(connection.execute(BIG).fetchall()) == [
        (i, f"row number {i} of many") for i in range(ROWS)
    ]


# --- what is delivered -------------------------------------------------------------------------


def test_values_of_all_types_are_those_of_the_pages(
    front: BigQueryFront, relay: StorageRelay, shop: Any, opened: Callable[..., Any]
) -> None:
    front.page_rows, relay.rows = 60, 7
    sql = "SELECT * FROM s.types WHERE i IS NULL OR i IS NOT NULL"
    paged = opened(FREE, **front.settings(dataset="shop", storage_api=False)).execute(sql)
    expected = paged.fetch_arrow_table()
    assert pages(front) == 4
    front.requests.clear()
    found = shop.execute(sql).fetch_arrow_table()
    assert (pages(front), len(relay.sessions)) == (1, 1)
    assert found.schema == expected.schema
    assert found.num_rows == len(VALUES) * 50
    assert ordered(found) == ordered(expected)


def ordered(table: pa.Table) -> list[str]:
    return sorted(map(repr, table.to_pylist()))


def test_a_result_of_one_page_is_not_asked_for_again(
    front: BigQueryFront, relay: StorageRelay, shop: Any
) -> None:
    assert len(shop.execute("SELECT id FROM s.big WHERE id < 900").fetchall()) == 900
    assert relay.sessions == []


def test_streams_are_read_side_by_side(
    front: BigQueryFront, relay: StorageRelay, opened: Callable[..., Any]
) -> None:
    """Each stream waits for the others: one after the other would never end."""
    relay.together = threading.Barrier(3)
    settings = front.settings(dataset="shop", storage_endpoint=relay.address, max_connections=3)
    assert whole(opened(FREE, **settings))
    (session,) = relay.sessions
    assert session.max_stream_count == 3
    assert len({stream for stream, _ in relay.reads}) == len(relay.reads) == 3
    assert pages(front) == 1


def test_the_table_of_the_result_is_read_as_the_job_tells_it(
    front: BigQueryFront, relay: StorageRelay, shop: Any
) -> None:
    assert whole(shop)
    (job,) = front.inserted
    name = job.body["jobReference"]["jobId"]
    (session,) = relay.sessions
    table = f"projects/{PROJECT}/datasets/{RESULTS}/tables/anon{name}"
    assert (session.read_session.table, session.parent) == (table, f"projects/{PROJECT}")


def test_a_result_with_other_columns_comes_in_pages(
    front: BigQueryFront, relay: StorageRelay, shop: Any
) -> None:
    rows = shop.execute("SELECT id, tags FROM s.nested WHERE id > 0").fetchall()
    assert sorted(rows) == [(i, ["a", "b"]) for i in range(1, 2501)]
    assert relay.sessions == []


def test_a_session_of_other_types_than_documented_is_not_read(
    front: BigQueryFront, relay: StorageRelay, shop: Any
) -> None:
    """The emulator's GEOGRAPHY is binary in Arrow, and BYTES in the schema of a result."""

    def typed(answer: dict[str, Any]) -> dict[str, Any]:
        answer["schema"]["fields"][1]["type"] = "GEOGRAPHY"
        return answer

    front.faults.append(Fault("edit", lambda r: "/queries/" in r.path, edit=typed))
    rows = shop.execute("SELECT id, place FROM s.nested WHERE id > 0").fetchall()
    assert sorted(rows) == [(i, "POINT (1 2)") for i in range(1, 2501)]
    assert (len(relay.sessions), relay.reads) == (1, [])


@pytest.mark.parametrize(
    ("field", "wanted", "exact"),
    [
        ({"type": "INTEGER"}, "BIGINT", True),
        ({"type": "INTEGER"}, "HUGEINT", True),
        ({"type": "INTEGER"}, "DECIMAL(18,0)", False),
        ({"type": "INTEGER"}, "VARCHAR", False),
        ({"type": "NUMERIC"}, "DECIMAL(12,2)", True),
        ({"type": "NUMERIC"}, "VARCHAR", False),
        ({"type": "BIGNUMERIC"}, "DECIMAL(38,0)", False),
        ({"type": "FLOAT"}, "DOUBLE", True),
        ({"type": "FLOAT"}, "VARCHAR", False),
        ({"type": "STRING"}, "VARCHAR", True),
        ({"type": "STRING", "mode": "REPEATED"}, "VARCHAR[]", False),
        ({"type": "GEOGRAPHY"}, "VARCHAR", True),
        ({"type": "JSON"}, "JSON", True),
        ({"type": "TIMESTAMP"}, "TIMESTAMP WITH TIME ZONE", True),
        ({"type": "TIMESTAMP", "timestampPrecision": "12"}, "VARCHAR", False),
        ({"type": "INTERVAL"}, "VARCHAR", False),
        ({"type": "RANGE"}, "VARCHAR", False),
        ({"type": "RECORD", "fields": []}, "STRUCT()", False),
    ],
)
def test_which_columns_convert_exactly(field: dict[str, Any], wanted: str, exact: bool) -> None:
    named = {"name": "x", **field}
    assert _converts_exactly(named, shape_of(named, wanted)) is exact


# --- where it is not reachable -----------------------------------------------------------------


@pytest.mark.parametrize("status", ["PERMISSION_DENIED", "UNIMPLEMENTED", "UNAVAILABLE"])
def test_a_source_without_sessions_asks_once(
    front: BigQueryFront, relay: StorageRelay, shop: Any, status: str
) -> None:
    relay.refusal = grpc.StatusCode[status], "bigquery.readsessions.create is missing"
    assert whole(shop)
    assert whole(shop)
    assert len(relay.sessions) == 1
    assert pages(front) == 2 * ROWS // PAGE


def test_a_refusal_of_one_result_is_not_one_of_all(
    front: BigQueryFront, relay: StorageRelay, shop: Any
) -> None:
    relay.refusal = grpc.StatusCode.NOT_FOUND, "the table is gone"
    assert whole(shop)
    relay.refusal = None
    assert whole(shop)
    assert len(relay.sessions) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_nobody_listens_there(
    front: BigQueryFront, relay: StorageRelay, opened: Callable[..., Any], host: str
) -> None:
    settings = front.settings(dataset="shop", storage_endpoint=f"{host}:{free_port()}")
    assert whole(opened(FREE, **settings))
    assert pages(front) == ROWS // PAGE


def test_without_the_package_pages_are_read(
    front: BigQueryFront, relay: StorageRelay, shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "google.cloud.bigquery_storage_v1", None)
    monkeypatch.delattr("google.cloud.bigquery_storage_v1", raising=False)
    assert whole(shop)
    assert (relay.sessions, pages(front)) == ([], ROWS // PAGE)


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, "bigquerystorage.googleapis.com"),
        ({"storage_api": False}, None),
        ({"endpoint": "http://127.0.0.1:9050"}, None),
        ({"endpoint": "https://bigquery.example.internal"}, None),
        (
            {"endpoint": "http://127.0.0.1:9050", "storage_endpoint": "127.0.0.1:9060"},
            "127.0.0.1:9060",
        ),
        ({"storage_endpoint": "storage.example.internal", "storage_api": False}, None),
    ],
)
def test_where_the_api_is_asked(settings: dict[str, Any], address: str | None) -> None:
    made = BigQuerySettings.model_validate({"kind": "bigquery", "project": "p", **settings})
    assert made.storage_address == address


# --- what fails --------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 3])
def test_a_stream_that_breaks_goes_on_where_it_was(
    relay: StorageRelay, shop: Any, after: int
) -> None:
    """No row is lost, none comes twice."""
    relay.faults.append(StreamFault(after, times=2))
    assert whole(shop)
    resumed = [offset for _, offset in relay.reads if offset]
    assert resumed
    assert all(offset % (after * relay.rows) == 0 for offset in resumed)


@pytest.mark.parametrize("status", ["PERMISSION_DENIED", "ABORTED", "INTERNAL"])
def test_after_the_first_row_an_error_is_an_error(
    front: BigQueryFront, relay: StorageRelay, shop: Any, status: str
) -> None:
    told = "session expired, said the service"
    relay.faults.append(StreamFault(2, grpc.StatusCode[status], told, times=99))
    with pytest.raises(batuta_sql.OperationalError, match=f"^s: {told}"):
        shop.execute(BIG).fetchall()
    assert pages(front) == 1
    assert eventually(lambda: relay.open == 0)


def test_a_service_that_stays_away_is_given_up_in_time(
    front: BigQueryFront, relay: StorageRelay, opened: Callable[..., Any]
) -> None:
    relay.faults.append(StreamFault(0, times=999))
    settings = front.settings(dataset="shop", storage_endpoint=relay.address, query_timeout=2)
    with pytest.raises(batuta_sql.OperationalError, match="^s: .*Connection reset by peer"):
        opened(FREE, **settings).execute(BIG).fetchall()


def test_a_stream_that_falls_silent_is_given_up_in_time(
    front: BigQueryFront, relay: StorageRelay, opened: Callable[..., Any]
) -> None:
    relay.hold.set()
    settings = front.settings(dataset="shop", storage_endpoint=relay.address, query_timeout=2)
    with pytest.raises(batuta_sql.OperationalError, match=r"(?s)^s: .*raise query_timeout"):
        opened(FREE, **settings).execute(BIG).fetchall()
    assert eventually(lambda: relay.open == 0)


def test_a_stream_that_ends_early_is_an_error_and_not_fewer_rows(
    relay: StorageRelay, shop: Any
) -> None:
    relay.faults.append(StreamFault(2, None))
    with pytest.raises(
        batuta_sql.OperationalError, match=rf"^s: the answer ended after \d+ of {ROWS} rows"
    ):
        shop.execute(BIG).fetchall()


def test_more_rows_than_were_told_are_an_error(
    front: BigQueryFront, relay: StorageRelay, shop: Any
) -> None:
    def less(answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "totalRows": str(ROWS - 1)}

    front.faults.append(Fault("edit", lambda r: "/queries/" in r.path, edit=less))
    with pytest.raises(batuta_sql.OperationalError, match=f"^s: .* {ROWS} of {ROWS - 1} rows"):
        shop.execute(BIG).fetchall()


def test_a_cancelled_query_ends_its_streams(relay: StorageRelay, shop: Any) -> None:
    relay.hold.set()
    ended: list[BaseException] = []

    def run() -> None:
        try:
            shop.execute(BIG).fetchall()
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert eventually(lambda: relay.open > 0)
    shop.cancel()
    thread.join(20)
    assert [type(e) for e in ended] == [batuta_sql.QueryCancelled]
    assert eventually(lambda: relay.open == 0)
    relay.hold.clear()
    assert whole(shop)


def test_a_cursor_that_is_closed_ends_its_streams(relay: StorageRelay, shop: Any) -> None:
    relay.rows = 100
    cursor = shop.execute(BIG)
    assert cursor.fetchone() is not None
    cursor.close()
    assert eventually(lambda: relay.open == 0)
    assert not [t for t in threading.enumerate() if t.name == "batuta-bigquery-pages"]


# --- who asks ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def account() -> str:
    """A service account's JSON, with a key of its own."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return json.dumps(
        {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "key-4711",
            "private_key": key.decode(),
            "client_email": "ann@my-project.iam.gserviceaccount.com",
            "token_uri": "https://oauth2.googleapis.com/token",
        }
    )


def test_an_emulator_is_asked_without_a_token(relay: StorageRelay, shop: Any) -> None:
    assert whole(shop)
    assert set(relay.tokens) == {None}


def test_another_machine_is_asked_over_tls_alone(
    front: BigQueryFront, relay: StorageRelay, opened: Callable[..., Any], account: str
) -> None:
    """The server there has no TLS: nothing arrives, a token least of all."""
    address = relay.address.replace("127.0.0.1", "127.0.0.2")
    settings = front.settings(dataset="shop", storage_endpoint=address, credentials=account)
    assert whole(opened(FREE, **settings))
    assert (relay.tokens, pages(front)) == ([], ROWS // PAGE)


def test_a_token_is_for_this_host_and_is_shown_nowhere(
    front: BigQueryFront,
    relay: StorageRelay,
    opened: Callable[..., Any],
    account: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from google.auth import jwt

    caplog.set_level(logging.DEBUG)
    for name in ("google", "grpc", "batuta_sql"):
        caplog.set_level(logging.DEBUG, logger=name)
    settings = front.settings(dataset="shop", storage_endpoint=relay.address, credentials=account)
    connection = opened(FREE, **settings)
    assert whole(connection)
    (token,) = {(t or "").removeprefix("Bearer ") for t in relay.tokens}
    told: Any = jwt.decode(token, verify=False)
    assert told["aud"] == "https://bigquerystorage.googleapis.com/"
    relay.faults.append(
        StreamFault(1, grpc.StatusCode.PERMISSION_DENIED, f"not with {token}", times=99)
    )
    with pytest.raises(batuta_sql.OperationalError, match="^s: not with ") as caught:
        connection.execute(BIG).fetchall()
    relay.refusal = grpc.StatusCode.PERMISSION_DENIED, f"not with {token}"
    assert whole(connection)
    assert "results are read as JSON: not with ****" in caplog.text
    shown = [str(caught.value), repr(caught.value), caplog.text]
    shown += [repr(vars(r)) for r in caplog.records]
    assert not [text for text in shown if token in text]


def test_the_host_is_one_of_the_source(front: BigQueryFront) -> None:
    from batuta_sql.guards.locality import endpoints, whereabouts

    def hosts(**more: Any) -> list[str | None]:
        given = {"kind": "bigquery", "project": "p", **more}
        return [e.host for e in endpoints(BigQuerySettings.model_validate(given))]

    both = ["bigquery.googleapis.com", "bigquerystorage.googleapis.com"]
    assert hosts() == both
    assert hosts(storage_api=False) == both[:1]
    local = {"endpoint": "http://127.0.0.1:9050"}
    assert hosts(**local) == ["127.0.0.1"]
    far = {"kind": "bigquery", "project": "p", **local, "storage_endpoint": "storage.example.com"}
    assert whereabouts(BigQuerySettings.model_validate(far)).locality == "public"
