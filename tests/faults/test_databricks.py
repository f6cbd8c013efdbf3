"""Databricks when the workspace, its storage or the network fails: never a part of the answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

import batuta_sql
from tests.emulators.databricks import CLIENT_ID, CLIENT_SECRET, TOKEN, Workspace
from tests.faults.test_secrets_stay_secret import everything_about

ROWS = 100_000
POST = r"^POST /api/2.0/sql/statements$"
POLL = r"^GET /api/2.0/sql/statements/[^/]+$"
LINK = r"^GET .*/result/chunks/"
STORAGE = r"^GET /storage/"


@pytest.fixture(scope="module")
def schema(databricks: Workspace) -> str:
    name = databricks.new_schema()
    databricks.run(
        f"CREATE TABLE lab.{name}.big AS SELECT i AS id, 'row ' || i AS text"
        f" FROM range({ROWS}) r(i)"
    )
    return name


@pytest.fixture
def lake(databricks: Workspace) -> Iterator[Workspace]:
    databricks.reset()
    # Ten parts.
    databricks.set(options={"part_rows": ROWS // 10})
    yield databricks
    databricks.reset()


def connect(lake: Workspace, **more: Any) -> Any:
    config = {"sources": {"dbx": lake.settings(**more)}, "cost": {"on_unknown": "allow"}}
    return closing(batuta_sql.connect(config))


def order(lake: Workspace, on: str, kind: str, times: int = 1, **more: Any) -> None:
    lake.set(faults=[{"on": on, "kind": kind, "times": times, **more}])


def count(lake: Workspace, schema: str, **more: Any) -> tuple[int, int]:
    """Rows and the sum of ids, of all rows as they arrive here."""
    with connect(lake, **more) as connection:
        table = connection.execute(f"SELECT id, text FROM dbx.{schema}.big").fetch_arrow_table()
    ids = table.column("id").to_pylist()
    return len(ids), sum(ids)


WHOLE = (ROWS, ROWS * (ROWS - 1) // 2)


def test_parts_come_in_order_and_each_once(lake: Workspace, schema: str) -> None:
    with connect(lake) as connection:
        reader = connection.execute(f"SELECT id FROM dbx.{schema}.big").fetch_record_batch()
        ids = [i for batch in reader for i in batch.column(0).to_pylist()]
    assert ids == list(range(ROWS))
    assert len([line for line in lake.lines() if line.startswith("GET /storage/")]) == 10


def test_the_login_is_not_sent_to_the_storage(lake: Workspace, schema: str) -> None:
    assert count(lake, schema) == WHOLE
    asked = [r for r in lake.requests() if r["line"].startswith("GET /storage/")]
    assert [r for r in asked if "authorization" in r["headers"]] == []


# --- links -------------------------------------------------------------------------------------


def test_a_link_that_has_expired_is_asked_for_again(lake: Workspace, schema: str) -> None:
    for part in (0, 3, 4):
        order(lake, f"{STORAGE}.*/{part}$", "status", status=403, message="Request has expired")
    assert count(lake, schema) == WHOLE
    refused = 3
    links = [line for line in lake.lines() if "/result/chunks/" in line]
    # Parts 2 to 10, and those that were refused again; the first link comes with the statement.
    assert len(links) == 9 + refused


def test_a_reader_that_rests_for_longer_than_its_links_are_good(
    lake: Workspace, schema: str
) -> None:
    with connect(lake, max_connections=1) as connection:
        reader = connection.execute(f"SELECT id FROM dbx.{schema}.big").fetch_record_batch()
        ids = reader.read_next_batch().column(0).to_pylist()
        lake.set(expire_links=True)
        ids += [i for batch in reader for i in batch.column(0).to_pylist()]
    assert ids == list(range(ROWS))


def test_a_link_that_is_known_to_have_expired_is_not_tried(lake: Workspace, schema: str) -> None:
    lake.set(options={"link_seconds": 20})
    assert count(lake, schema) == WHOLE
    statuses = [line for line in lake.lines() if "/result/chunks/0" in line]
    assert len(statuses) == 1


def test_a_new_link_that_is_refused_too_is_an_error(lake: Workspace, schema: str) -> None:
    order(lake, STORAGE, "status", times=999, status=403)
    with pytest.raises(batuta_sql.OperationalError, match="dbx: the storage refuses a new link"):
        count(lake, schema)


# --- failures that pass, and those that do not -------------------------------------------------


@pytest.mark.parametrize(
    ("on", "kind", "more"),
    [
        (POST, "status", {"status": 429, "headers": {"Retry-After": "0"}}),
        (POST, "status", {"status": 503}),
        (POLL, "status", {"status": 500}),
        (POLL, "cut", {}),
        (LINK, "status", {"status": 429, "headers": {"Retry-After": "0"}}),
        (LINK, "cut", {}),
        (STORAGE, "status", {"status": 500}),
        (STORAGE, "cut", {}),
        (STORAGE, "short", {}),
    ],
)
def test_a_failure_that_passes_is_not_seen(
    lake: Workspace, schema: str, on: str, kind: str, more: dict[str, Any]
) -> None:
    lake.set(options={"slow": 0.2})
    order(lake, on, kind, **more)
    assert count(lake, schema) == WHOLE
    assert lake.lines().count("POST /api/2.0/sql/statements") == 1 + (on == POST) + 1


@pytest.mark.parametrize(
    ("on", "kind", "more", "message"),
    [
        (POST, "status", {"status": 429, "message": "too many"}, "too many"),
        (POST, "status", {"status": 400, "message": "malformed"}, "malformed"),
        (POST, "status", {"status": 500, "message": "a bug"}, "a bug"),
        (POST, "cut", {}, "does not answer"),
        (POLL, "status", {"status": 500, "message": "a bug"}, "a bug"),
        (LINK, "status", {"status": 404, "message": "closed"}, "closed"),
        (STORAGE, "status", {"status": 500, "after": 4}, "part .* of 10 .* status 500"),
        (STORAGE, "cut", {"after": 4}, "the connection to the storage broke"),
        (STORAGE, "short", {"after": 4}, "5000 rows came of 10000"),
    ],
)
def test_a_failure_that_stays_is_an_error_in_the_remotes_words(
    lake: Workspace, schema: str, on: str, kind: str, more: dict[str, Any], message: str
) -> None:
    with connect(lake) as connection:
        connection.describe(f"dbx.{schema}.big")
        lake.set(options={"slow": 0.2})
        more = {"headers": {"Retry-After": "0"}, **more} if kind == "status" else more
        order(lake, on, kind, times=999, **more)
        with pytest.raises(batuta_sql.Error, match=f"^dbx: .*{message}"):
            connection.execute(f"SELECT id, text FROM dbx.{schema}.big").fetchall()


def test_a_statement_is_never_sent_twice_where_the_first_may_be_running(
    lake: Workspace, schema: str
) -> None:
    with connect(lake) as connection:
        connection.describe(f"dbx.{schema}.big")
        before = lake.lines().count("POST /api/2.0/sql/statements")
        order(lake, POST, "cut")
        with pytest.raises(batuta_sql.OperationalError):
            connection.execute(f"SELECT id FROM dbx.{schema}.big").fetchall()
        assert lake.lines().count("POST /api/2.0/sql/statements") == before + 1


def test_an_answer_that_was_cut_off_at_a_limit_is_an_error(lake: Workspace, schema: str) -> None:
    lake.set(options={"truncated": True})
    with pytest.raises(batuta_sql.DatabaseError, match="cut the answer off"):
        count(lake, schema)


def test_a_statement_that_fails_says_why(lake: Workspace, schema: str) -> None:
    lake.run(f"CREATE OR REPLACE TABLE lab.{schema}.gone AS SELECT 1 AS x")
    with connect(lake) as connection:
        connection.describe(f"dbx.{schema}.gone")
        lake.run(f"DROP TABLE lab.{schema}.gone")
        with pytest.raises(batuta_sql.ProgrammingError, match=r"dbx: \[TABLE_OR_VIEW_NOT_FOUND\]"):
            connection.execute(f"SELECT x FROM dbx.{schema}.gone").fetchall()


# --- logins ------------------------------------------------------------------------------------


def test_a_wrong_token_is_refused_with_a_hint(lake: Workspace, schema: str) -> None:
    with pytest.raises(batuta_sql.OperationalError, match=r"dbx: Credential.*\n.*check token"):
        count(lake, schema, token="dapi-wrong")


def test_a_wrong_client_secret_is_refused(lake: Workspace, schema: str) -> None:
    login = {"token": None, "client_id": CLIENT_ID, "client_secret": "wrong"}
    with pytest.raises(batuta_sql.OperationalError, match="dbx: Client authentication failed"):
        count(lake, schema, **login)


def test_a_token_that_is_revoked_in_the_middle_is_renewed(lake: Workspace, schema: str) -> None:
    login = {"token": None, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    with connect(lake, max_connections=1, **login) as connection:
        reader = connection.execute(f"SELECT id FROM dbx.{schema}.big").fetch_record_batch()
        rows = reader.read_next_batch().num_rows
        lake.set(forget_tokens=True)
        rows += sum(batch.num_rows for batch in reader)
    assert rows == ROWS


def test_a_personal_token_that_is_revoked_in_the_middle_is_an_error(
    lake: Workspace, schema: str
) -> None:
    order(lake, LINK, "status", times=999, status=401, message="token revoked", after=3)
    with pytest.raises(batuta_sql.OperationalError, match="dbx: token revoked"):
        count(lake, schema)


# --- silence and cancellation ------------------------------------------------------------------


@pytest.mark.parametrize("on", [POST, LINK, STORAGE])
def test_silence_ends_with_the_timeout(lake: Workspace, schema: str, on: str) -> None:
    order(lake, on, "stall", times=999, seconds=15, after=0 if on == POST else 2)
    with pytest.raises(batuta_sql.OperationalError, match="^dbx: "):
        count(lake, schema, query_timeout=1)


def test_a_statement_that_runs_too_long_is_cancelled(lake: Workspace, schema: str) -> None:
    with connect(lake, query_timeout=1) as connection:
        connection.describe(f"dbx.{schema}.big")
        lake.set(options={"slow": 20})
        with pytest.raises(batuta_sql.OperationalError, match="^dbx: no end"):
            connection.execute(f"SELECT id FROM dbx.{schema}.big").fetchall()
    assert eventually(lambda: any(line.endswith("/cancel") for line in lake.lines()))


def test_a_cancellation_reaches_the_warehouse(lake: Workspace, schema: str) -> None:
    with connect(lake) as connection:
        connection.describe(f"dbx.{schema}.big")
        lake.set(options={"slow": 60})
        ended: list[BaseException] = []

        def run() -> None:
            try:
                connection.execute(f"SELECT id FROM dbx.{schema}.big").fetchall()
            except BaseException as error:
                ended.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        assert eventually(lambda: any(POLLED in line for line in lake.lines()))
        connection.cancel()
        thread.join(20)
        assert [type(e) for e in ended] == [batuta_sql.QueryCancelled]
    assert eventually(lambda: any(line.endswith("/cancel") for line in lake.lines()))


POLLED = "GET /api/2.0/sql/statements/"


def test_a_statement_that_others_cancel_is_an_error(lake: Workspace, schema: str) -> None:
    with connect(lake) as connection:
        connection.describe(f"dbx.{schema}.big")
        lake.set(options={"slow": 60})

        def cancel() -> None:
            eventually(lambda: any(POLLED in line for line in lake.lines()))
            line = next(line for line in lake.lines() if POLLED in line)
            lake.ask("POST", line.removeprefix("GET ") + "/cancel", {})

        threading.Thread(target=cancel).start()
        with pytest.raises(batuta_sql.OperationalError, match="cancelled at the warehouse"):
            connection.execute(f"SELECT id FROM dbx.{schema}.big").fetchall()


def eventually(holds: Any) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return False


# --- secrets -----------------------------------------------------------------------------------


def test_no_token_and_no_link_is_shown_or_logged(
    lake: Workspace, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = [TOKEN, CLIENT_SECRET, "signature=", "oauth-"]
    login = {"token": None, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    with caplog.at_level(logging.DEBUG):
        assert count(lake, schema) == WHOLE
        assert count(lake, schema, **login) == WHOLE
        order(lake, STORAGE, "cut", times=999)
        with connect(lake, **login) as connection:
            cursor_sql = f"SELECT id, text FROM dbx.{schema}.big"
            with pytest.raises(batuta_sql.OperationalError) as caught:
                connection.execute(cursor_sql).fetchall()
            source = connection._session.sources["dbx"]
            shown = [repr(source), str(vars(source)), str(vars(source._workspace))]
            shown += [repr(connection._settings), connection.explain(cursor_sql)]
    shown += [everything_about(caught.value), caplog.text]
    assert "HTTP Request: GET" in caplog.text
    assert [s for s in secrets if any(s in text for text in shown)] == []


def test_an_error_of_the_workspace_that_repeats_the_token_is_cleaned(
    lake: Workspace, schema: str
) -> None:
    order(lake, "unity-catalog", "status", times=9, status=403, message=f"no {TOKEN} here")
    with pytest.raises(batuta_sql.OperationalError) as caught:
        count(lake, schema)
    assert TOKEN not in everything_about(caught.value)
    assert "no ******** here" in str(caught.value)
