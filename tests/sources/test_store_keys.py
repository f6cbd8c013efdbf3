"""Keys of object stores that end, and that others take the place of, while they are in use."""

from __future__ import annotations

import io
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog

import batuta_sql
from batuta_sql import Credential, OperationalError
from batuta_sql.secrets import Secret
from batuta_sql.sources.store_keys import StoreKeys, tells_refusal
from tests.emulators.aws_process import KEY, REGION, SECRET, AwsEmulator, aws_emulator
from tests.emulators.glue import BUCKET, GlueCatalog
from tests.emulators.iceberg_rest import rest_catalog
from tests.faults.http_front import HttpFront, http_front
from tests.sync.conftest import Rows, rows_of

FILES, ROWS = 6, 2000
LIVES = 1.5


class Keys:
    """Access keys of which only the newest is good, and what a store says to the others.

    :param lives: seconds.
    :param tells_end: whether they say how long they are good.
    """

    def __init__(self, lives: float = 600.0, *, tells_end: bool = False) -> None:
        self._lives = lives
        self._tells_end = tells_end
        self._good = ""
        self._ends = 0.0
        self._lock = threading.Lock()
        self.given = self.refused = 0
        self.code = "ExpiredToken"

    def get(self) -> Credential:
        """The access key; one that is good is given again."""
        with self._lock:
            if time.monotonic() > self._ends:
                self._good = f"AKIA{secrets.token_hex(4).upper()}"
                self._ends = time.monotonic() + self._lives
                self.given += 1
            left = timedelta(seconds=self._ends - time.monotonic())
            ends = datetime.now(UTC) + left if self._tells_end else None
            return Credential(self._good, ends)

    def end(self) -> None:
        """Ends the key at hand now."""
        with self._lock:
            self._ends = 0.0

    def judge(self, headers: Mapping[str, str]) -> tuple[int, bytes] | None:
        used = re.search(r"Credential=([^/]+)/", headers.get("Authorization") or "")
        with self._lock:
            if used is not None and used[1] == self._good and time.monotonic() <= self._ends:
                return None
            self.refused += 1
        if headers.get("X-Amz-Target"):
            return 400, b'{"__type": "ExpiredTokenException", "message": "it has expired"}'
        status = 400 if self.code == "ExpiredToken" else 403
        said = f"<Error><Code>{self.code}</Code><Message>The key is no good.</Message></Error>"
        return status, said.encode()


def piece(n: int) -> pa.Table:
    return pa.table({"id": range(n * ROWS, (n + 1) * ROWS), "word": [f"w{n}"] * ROWS})


EVERYTHING = pa.concat_tables(map(piece, range(FILES)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("aws")


@pytest.fixture(scope="module")
def aws(folder: Path) -> Iterator[AwsEmulator]:
    with aws_emulator(folder) as server:
        store = server.filesystem()
        store.mkdir(BUCKET)
        glue = GlueCatalog(server)
        glue.database("lab")
        place = glue.table("lab", "t", [("id", "bigint"), ("word", "string")])
        catalog = SqlCatalog("default", **iceberg_access(folder, server.emulator.url))
        catalog.create_namespace("n")
        table = catalog.create_table("n.t", EVERYTHING.schema)
        options = server.storage_options | {"AWS_S3_ALLOW_UNSAFE_RENAME": "true"}
        for n in range(FILES):
            buffer = io.BytesIO()
            pq.write_table(piece(n), buffer)
            store.pipe(f"{BUCKET}/files/t/{n}.parquet", buffer.getvalue())
            glue.put(f"{place}/{n}.parquet", piece(n))
            deltalake.write_deltalake(
                f"s3://{BUCKET}/delta/t", piece(n), mode="append", storage_options=options
            )
            table.append(piece(n))
        yield server


def iceberg_access(folder: Path, endpoint: str) -> dict[str, str]:
    return {
        "type": "sql",
        "uri": f"sqlite:///{folder}/catalog.db",
        "warehouse": f"s3://{BUCKET}/warehouse",
        "s3.endpoint": endpoint,
        "s3.access-key-id": KEY,
        "s3.secret-access-key": SECRET,
        "s3.region": REGION,
    }


@pytest.fixture
def front(aws: AwsEmulator) -> Iterator[HttpFront]:
    with http_front(aws.emulator.url) as made:
        yield made


@pytest.fixture(params=["files", "delta", "glue", "iceberg"])
def source(
    request: pytest.FixtureRequest,
    aws: AwsEmulator,
    front: HttpFront,
    folder: Path,
) -> dict[str, Any]:
    """Settings of a source with the table ``t``; where its access key is to go, there is none."""
    options = aws.storage_options | {"AWS_ENDPOINT_URL": front.url}
    match request.param:
        case "files":
            path = f"s3://{BUCKET}/files"
            return {"kind": "files", "path": path, "storage_options": options}
        case "delta":
            path = f"s3://{BUCKET}/delta"
            return {"kind": "delta", "path": path, "storage_options": options}
        case "glue":
            return GlueCatalog(aws).settings | {"endpoint": front.url, "database": "lab"}
    return {"kind": "iceberg", "catalog": iceberg_access(folder, front.url)}


def with_key(source: dict[str, Any], key: Any) -> dict[str, Any]:
    match source["kind"]:
        case "glue":
            return source | {"access_key_id": key}
        case "iceberg":
            return source | {"catalog": source["catalog"] | {"s3.access-key-id": key}}
    return source | {"storage_options": source["storage_options"] | {"AWS_ACCESS_KEY_ID": key}}


def opened(source: dict[str, Any]) -> Any:
    return closing(batuta_sql.connect({"sources": {"s": source}, "cost": {"on_unknown": "allow"}}))


def test_keys_that_end_in_the_middle_of_a_copy(
    source: dict[str, Any], front: HttpFront, tmp_path: Path
) -> None:
    """They are renewed before their end, and what comes too late is sent again."""
    keys = Keys(LIVES, tells_end=True)
    front.guard = keys.judge
    slow = lambda progress: time.sleep(LIVES / 4)  # noqa: E731
    with opened(with_key(source, keys)) as connection:
        copies = 0
        while keys.given < 4:
            target, copies = tmp_path / f"t{copies}", copies + 1
            connection.sync("s.t", target, split_bytes=1, progress=slow)
            assert rows_of(target, "parquet") == Rows(EVERYTHING)
    assert copies < 10


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId"])
def test_keys_that_end_without_a_word_are_looked_up_again_when_they_are_refused(
    source: dict[str, Any], front: HttpFront, code: str
) -> None:
    keys = Keys()
    keys.code = code
    front.guard = keys.judge
    with opened(with_key(source, keys)) as connection:
        for n in range(3):
            found = connection.execute(f"SELECT count(*), sum(id + {n}) FROM s.t").fetchone()
            ids = range(FILES * ROWS)
            assert found == (len(ids), sum(ids) + n * len(ids))
            keys.end()
        assert keys.refused
        assert connection.tables("s")


def test_a_file_with_another_key_is_read_again(
    source: dict[str, Any], front: HttpFront, tmp_path: Path
) -> None:
    keys = Keys()
    front.guard = keys.judge
    file = tmp_path / "key"
    file.write_text(keys.get().value)
    with opened(with_key(source, {"file": str(file)})) as connection:
        assert connection.execute("SELECT count(*) FROM s.t").fetchone() == (FILES * ROWS,)
        keys.end()
        file.write_text(keys.get().value)
        assert connection.execute("SELECT max(id) FROM s.t").fetchone() == (FILES * ROWS - 1,)


def test_keys_that_are_wrong_are_not_tried_for_ever(
    source: dict[str, Any], front: HttpFront
) -> None:
    asked: list[str] = []

    def another() -> str:
        asked.append(f"AKIA{len(asked):08}")
        return asked[-1]

    keys = Keys()
    front.guard = keys.judge
    with (
        opened(with_key(source, another)) as connection,
        pytest.raises(OperationalError, match="^s: ") as failure,
    ):
        connection.execute("SELECT * FROM s.t").fetchall()
    assert SECRET not in str(failure.value)
    assert len(asked) < 25
    assert keys.refused < 25


def test_a_token_of_a_catalog_that_has_ended_is_looked_up_again(tmp_path: Path) -> None:
    with rest_catalog(tmp_path) as rest:
        rest.catalog.create_namespace("n")
        rest.catalog.create_table("n.t", EVERYTHING.schema).append(EVERYTHING)
        file = tmp_path / "token"
        for tells_end in (False, True):

            def token(tells_end: bool = tells_end) -> Credential:
                ends = datetime.now(UTC) + timedelta(seconds=0.3) if tells_end else None
                return Credential(file.read_text(), ends)

            catalog = {"type": "rest", "uri": rest.uri, "token": token}
            file.write_text("first-token")
            rest.control(token="first-token")
            with opened({"kind": "iceberg", "catalog": catalog}) as connection:
                for n in range(3):
                    found = connection.execute(f"SELECT count(*) + {n} FROM s.n.t").fetchone()
                    assert found == (FILES * ROWS + n,)
                    file.write_text(f"token-{n}")
                    rest.control(token=f"token-{n}")
                    time.sleep(0.4 if tells_end else 0)
                assert ("s", ("n", "t"), "table") in connection.tables("s") or connection.tables(
                    "s"
                )


# --- keys by themselves --------------------------------------------------------------------------


def test_a_refusal_of_keys_that_are_no_more_asks_nobody() -> None:
    values = iter("abcdef")
    keys = StoreKeys([Secret.of(lambda: next(values)), Secret.of("secret")])
    assert keys.now() == ("a", "secret", None)
    assert keys.now() == ("a", "secret", None)
    turn = keys.turn
    assert keys.renewed(turn)
    known = keys.now()
    assert known != ("a", "secret", None)
    assert keys.renewed(turn)
    assert keys.now() == known


def test_keys_that_do_not_change_are_not_sent_again() -> None:
    keys = StoreKeys([Secret.of("key"), Secret.of("secret"), Secret.of("token")])
    assert keys.now() == ("key", "secret", "token")
    assert not keys.renewed(keys.turn)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("An error occurred (ExpiredToken) when calling GetObject", True),
        ("AWS Error ACCESS_DENIED during HeadObject operation", True),
        ("Client error with status 403 Forbidden: ", True),
        ("NotAuthorizedException: not authorized", True),
        ("404 Not Found", False),
        ("the table has 4030 rows", False),
    ],
)
def test_what_tells_a_refusal(said: str, expected: bool) -> None:
    assert tells_refusal(OSError(said)) == expected
