"""BigQuery when the network, the service or the credentials fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

import batuta_sql
from tests.emulators.bigquery_front import BigQueryFront, Fault, Request, bigquery_front
from tests.faults.conftest import eventually

ROWS = 5000
SQL = "SELECT id, text FROM s.shop.big"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigQueryFront]:
    with bigquery_front(tmp_path_factory.mktemp("bigquery_faults")) as made:
        made.dataset("shop")
        fields = [{"name": "id", "type": "INTEGER"}, {"name": "text", "type": "STRING"}]
        made.table("shop", "big", fields)
        made.insert_all(
            "shop", "big", [{"id": str(i), "text": f"row number {i}"} for i in range(ROWS)]
        )
        yield made


@pytest.fixture
def connect(front: BigQueryFront) -> Iterator[Callable[..., Any]]:
    """A connection to a source ``s``; pages of 500 rows."""
    front.reset()
    front.page_rows = 500
    with ExitStack() as stack:

        def make(**settings: Any) -> Any:
            sources = {"s": front.settings(**{"query_timeout": 60, **settings})}
            made = batuta_sql.connect({"cost": {"on_unknown": "allow"}, "sources": sources})
            return stack.enter_context(closing(made))

        yield make
    front.reset()


def page(number: int) -> Callable[[Request], bool]:
    """Chooses the requests for one page of rows."""
    token = str(500 * number) if number else None
    return lambda r: "/queries/" in r.path and r.query.get("pageToken") == token


def whole(connection: Any) -> bool:
    rows = connection.execute(SQL).fetchall()
    return sorted(rows) == [(i, f"row number {i}") for i in range(ROWS)]


# --- what heals --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["reset", "half", "status"])
@pytest.mark.parametrize("number", [0, 4])
def test_a_page_that_fails_once_is_asked_for_again(
    front: BigQueryFront, connect: Callable[..., Any], how: str, number: int
) -> None:
    front.faults.append(Fault(how, page(number)))
    assert whole(connect())
    assert len(front.inserted) == 1
    assert front.faults[0].times == 0


@pytest.mark.parametrize(
    ("status", "reason"), [(429, "rateLimitExceeded"), (403, "rateLimitExceeded"), (500, "")]
)
def test_a_transient_refusal_is_tried_again(
    front: BigQueryFront, connect: Callable[..., Any], status: int, reason: str
) -> None:
    front.faults.append(Fault("status", page(2), 2, status, reason))
    assert whole(connect())


def test_the_server_says_how_long_to_wait(
    front: BigQueryFront, connect: Callable[..., Any]
) -> None:
    """Longer than the query may take: the refusal is told at once."""
    fault = Fault("status", page(2), 1, 429, "rateLimitExceeded", "slow down")
    fault.headers = {"Retry-After": "3600"}
    front.faults.append(fault)
    with pytest.raises(batuta_sql.OperationalError, match="^s: slow down"):
        connect().execute(SQL).fetchall()


def test_an_insert_whose_answer_is_lost_runs_once(
    front: BigQueryFront, connect: Callable[..., Any]
) -> None:
    front.faults.append(Fault("lost", lambda r: r.inserts))
    assert whole(connect())
    first, second = front.inserted
    assert first.body == second.body
    assert first.body["jobReference"]["jobId"]


# --- what does not -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["reset", "half"])
def test_pages_that_never_come_are_an_error_and_not_fewer_rows(
    front: BigQueryFront, connect: Callable[..., Any], how: str
) -> None:
    front.faults.append(Fault(how, page(5), 99))
    with pytest.raises(batuta_sql.OperationalError, match="^s: the connection failed"):
        connect().execute(SQL).fetchall()


def test_an_answer_that_ends_early_is_an_error(
    front: BigQueryFront, connect: Callable[..., Any]
) -> None:
    def last(answer: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in answer.items() if k != "pageToken"}

    front.faults.append(Fault("edit", page(3), edit=last))
    with pytest.raises(
        batuta_sql.OperationalError, match="^s: the answer ended after 2000 of 5000"
    ):
        connect().execute(SQL).fetchall()


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"f": [{"v": "1"}]}], "another number of columns"),
        ([{"g": []}], "documented form"),
        ([{"f": [{"v": "one"}, {"v": "x"}]}], "column \"id_\\d+\" holds 'one'"),
        ([{"f": [{"v": {"f": []}}, {"v": "x"}]}], "holds dict"),
    ],
)
def test_a_page_that_is_not_one_is_an_error(
    front: BigQueryFront, connect: Callable[..., Any], rows: Any, told: str
) -> None:
    front.faults.append(Fault("edit", page(3), edit=lambda answer: {**answer, "rows": rows}))
    with pytest.raises(batuta_sql.DataError, match=f"^s: .*{told}"):
        connect().execute(SQL).fetchall()


def test_something_else_that_answers_is_told(
    front: BigQueryFront, connect: Callable[..., Any]
) -> None:
    front.faults.append(Fault("garbage", lambda r: "/tables/" in r.path, 99))
    with pytest.raises(batuta_sql.OperationalError, match=r"(?s)not a JSON object.*endpoint"):
        connect().execute(SQL)


@pytest.mark.parametrize(
    ("status", "reason", "message"),
    [
        (403, "accessDenied", "Access Denied: Project p: User does not have bigquery.jobs.create"),
        (403, "quotaExceeded", "Quota exceeded: Your project exceeded quota for free query bytes"),
    ],
)
def test_a_refusal_is_quoted_and_not_tried_again(
    front: BigQueryFront, connect: Callable[..., Any], status: int, reason: str, message: str
) -> None:
    front.faults.append(Fault("status", lambda r: r.inserts, 99, status, reason, message))
    with pytest.raises(batuta_sql.OperationalError, match=f"^s: {message}"):
        connect().execute(SQL).fetchall()
    assert len(front.inserted) == 1


def test_a_job_that_fails_after_it_started_tells_its_own_error(
    front: BigQueryFront, connect: Callable[..., Any]
) -> None:
    told = {"reason": "resourcesExceeded", "message": "Resources exceeded during query execution"}

    def failed(answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "status": {"state": "DONE", "errorResult": told}}

    of_job = r"/jobs/batuta_"
    front.faults.append(Fault("status", page(0), 99, 400, "invalid", "no rows"))
    front.faults.append(
        Fault("edit", lambda r: r.method == "GET" and of_job in r.path, 99, edit=failed)
    )
    with pytest.raises(batuta_sql.OperationalError, match="^s: Resources exceeded during query"):
        connect().execute(SQL).fetchall()


def test_a_server_that_falls_silent_is_given_up_in_time(
    front: BigQueryFront, connect: Callable[..., Any]
) -> None:
    front.faults.append(Fault("stall", page(2), 99))
    with pytest.raises(batuta_sql.OperationalError, match="^s: no (answer|end)"):
        connect(query_timeout=2).execute(SQL).fetchall()


def test_a_job_that_does_not_end_in_time_is_cancelled(
    front: BigQueryFront, connect: Callable[..., Any]
) -> None:
    connection = connect(query_timeout=2)
    front.hold.set()
    with pytest.raises(batuta_sql.OperationalError, match="^s: "):
        connection.execute(SQL).fetchall()
    (job,) = front.inserted
    assert job.body["configuration"]["jobTimeoutMs"] == "2000"
    assert eventually(lambda: job.body["jobReference"]["jobId"] in front.cancelled)


def test_a_job_that_the_service_ends_for_its_time_is_no_cancellation(
    front: BigQueryFront, connect: Callable[..., Any]
) -> None:
    told = "Job execution was cancelled: Job timed out after 2s"
    front.faults.append(Fault("status", page(0), 99, 400, "stopped", told))
    with pytest.raises(batuta_sql.OperationalError, match="timed out") as caught:
        connect().execute(SQL).fetchall()
    assert not isinstance(caught.value, batuta_sql.QueryCancelled)
    assert "raise query_timeout" in str(caught.value)


def test_nobody_listens(connect: Callable[..., Any]) -> None:
    with pytest.raises(
        batuta_sql.OperationalError, match=r"(?s)^s: the connection failed.*endpoint"
    ):
        connect(endpoint="http://127.0.0.1:9").execute(SQL)


def test_a_cancelled_query_cancels_its_job(
    front: BigQueryFront, connect: Callable[..., Any]
) -> None:
    connection = connect(query_timeout=None)
    front.hold.set()
    ended: list[BaseException] = []

    def run() -> None:
        try:
            connection.execute(SQL).fetchall()
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert eventually(lambda: bool(front.inserted))
    connection.cancel()
    thread.join(20)
    assert [type(e) for e in ended] == [batuta_sql.QueryCancelled]
    (job,) = front.inserted
    assert job.body["jobReference"]["jobId"] in front.cancelled
    front.reset()
    assert connection.execute("SELECT count(*) FROM s.shop.big").fetchone() == (ROWS,)


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
            "project_id": "my-project",
            "private_key_id": "key-4711",
            "private_key": key.decode(),
            "client_email": "ann@my-project.iam.gserviceaccount.com",
            "token_uri": "https://oauth2.googleapis.com/token",
        }
    )


def authorisation(request: Request) -> str | None:
    return request.headers.get("Authorization")


def test_an_emulator_is_asked_without_credentials(
    front: BigQueryFront, connect: Callable[..., Any]
) -> None:
    assert whole(connect())
    assert {authorisation(r) for r in front.requests} == {None}


def test_a_service_account_signs_its_own_token(
    front: BigQueryFront, connect: Callable[..., Any], account: str, tmp_path: Any
) -> None:
    file = tmp_path / "account.json"
    file.write_text(account)
    for credentials in (account, {"file": str(file)}, str(file)):
        front.requests.clear()
        assert whole(connect(credentials=credentials))
        assert all((authorisation(r) or "").startswith("Bearer ey") for r in front.requests)


def test_a_token_that_is_refused_is_renewed_once(
    front: BigQueryFront, connect: Callable[..., Any], account: str
) -> None:
    front.faults.append(Fault("status", page(3), 1, 401, "authError", "Invalid Credentials"))
    assert whole(connect(credentials=account))


def test_credentials_that_stay_refused_are_an_error_without_a_secret(
    front: BigQueryFront, connect: Callable[..., Any], account: str
) -> None:
    connection = connect(credentials=account)
    assert whole(connection)
    token = (authorisation(front.requests[-1]) or "").removeprefix("Bearer ")
    front.requests.clear()
    told = f"Request had invalid credentials: {token}"
    front.faults.append(Fault("status", page(3), 99, 401, "authError", told))
    with pytest.raises(batuta_sql.OperationalError) as caught:
        connection.execute(SQL).fetchall()
    assert str(caught.value).startswith("s: Request had invalid credentials: ****")
    assert token not in str(caught.value)
    assert len([r for r in front.requests if page(3)(r)]) == 2


@pytest.mark.parametrize("text", ['{"type": "service_account", "private_key": "s3cret"}', "/none"])
def test_credentials_that_cannot_be_read_are_told_and_not_shown(
    connect: Callable[..., Any], text: str
) -> None:
    with pytest.raises(
        batuta_sql.Error, match=r"(?s)^s: the credentials.*service account"
    ) as caught:
        connect(credentials=text).execute(SQL)
    assert "s3cret" not in str(caught.value)


def test_credentials_do_not_go_over_http_to_another_machine(
    connect: Callable[..., Any], account: str
) -> None:
    with pytest.raises(batuta_sql.Error, match="not sent over http"):
        connect(credentials=account, endpoint="http://192.0.2.1:1").execute(SQL)


def test_a_job_is_found_where_it_runs(front: BigQueryFront, connect: Callable[..., Any]) -> None:
    """Outside of the US and EU, the service does not find it by its id alone."""

    def elsewhere(answer: dict[str, Any]) -> dict[str, Any]:
        answer["jobReference"]["location"] = "asia-northeast1"
        return answer

    front.faults.append(Fault("edit", lambda r: r.inserts, edit=elsewhere))
    assert whole(connect())
    asked = [r for r in front.requests if "/queries/" in r.path or "/jobs/batuta_" in r.path]
    assert len(asked) > ROWS // 500
    assert {r.query["location"] for r in asked} == {"asia-northeast1"}
