"""OpenLineage events as they come to a server: valid, true, in order, and never in the way."""

from __future__ import annotations

import json
import logging
import socket
import sqlite3
import threading
import urllib.parse
import uuid
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import batuta_sql
from batuta_sql import ConfigError, TierRefused
from batuta_sql.event_sender import EventWarning
from tests.events.conftest import Event, Opened, Receiver, check_event

QUERY = "SELECT c.city, count(*) AS n, sum(o.total) AS total FROM shop.customer c"


def told(receiver: Receiver, connection: batuta_sql.Connection) -> list[Event]:
    """All events of a connection, which is closed for it; each is valid."""
    connection.close()
    for event in receiver.events:
        check_event(event)
    return receiver.events


def output(event: Event) -> Event:
    (found,) = event["outputs"]
    assert isinstance(found, dict)
    return found


# --- a query's run -----------------------------------------------------------------------------


def test_a_query_starts_and_completes(opened: Opened, receiver: Receiver, shop: Path) -> None:
    connection = opened(openlineage={"url": receiver.url})
    sql = f"{QUERY} JOIN shop.orders o ON o.customer = c.id WHERE c.id < 77 GROUP BY c.city"
    assert sorted(connection.execute(sql).fetchall()) == [("Bonn", 2, 30), ("Rome", 1, 30)]
    start, complete = told(receiver, connection)
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"]
    uuid.UUID(start["run"]["runId"])
    assert start["eventTime"] <= complete["eventTime"]
    assert start["job"]["namespace"] == "batuta-sql"
    assert start["job"]["name"] == complete["job"]["name"]
    assert {(d["namespace"], d["name"]) for d in complete["inputs"]} == {
        (f"sqlite://{shop}", "customer"),
        (f"sqlite://{shop}", "orders"),
    }
    (customer,) = [d for d in complete["inputs"] if d["name"] == "customer"]
    assert [f["name"] for f in customer["facets"]["schema"]["fields"]] == ["id", "name", "city"]
    engine = complete["run"]["facets"]["processing_engine"]
    assert (engine["name"], engine["version"]) == ("Batuta-SQL", batuta_sql.__version__)
    result = output(complete)
    assert result["namespace"] == "batuta://query"
    assert complete["job"]["name"] == f"query.{result['name']}"
    assert [(f["name"], f["type"]) for f in result["facets"]["schema"]["fields"]] == [
        ("city", "VARCHAR"),
        ("n", "BIGINT"),
        ("total", "HUGEINT"),
    ]
    assert set(receiver.paths) == {"/api/v1/lineage"}


def test_a_job_is_named_by_its_text(opened: Opened, receiver: Receiver) -> None:
    connection = opened(openlineage={"url": receiver.url, "namespace": "ours"})
    for sql in ("SELECT id FROM shop.orders", "SELECT id FROM shop.orders", "FROM shop.customer"):
        connection.execute(sql).fetchall()
    events = [e for e in told(receiver, connection) if e["eventType"] == "START"]
    one, same, other = [e["job"]["name"] for e in events]
    assert one == same != other
    assert len({e["run"]["runId"] for e in events}) == 3
    assert {e["job"]["namespace"] for e in events} == {"ours"}


def test_rows_and_bytes_of_tables_that_were_read_alone(
    opened: Opened, receiver: Receiver, crm: str
) -> None:
    connection = opened(
        openlineage={"url": receiver.url},
        sources={"crm": {"kind": "postgresql", "uri": crm}},
        semi_joins="off",
    )
    sql = "SELECT c.name, o.total FROM crm.customer c JOIN shop.orders o ON o.customer = c.id"
    cursor = connection.execute(sql)
    cursor.fetchall()
    metrics = cursor.metrics
    assert metrics is not None
    taken = {f["source"]: (f["rows"], f["bytes"]) for f in metrics["fragments"]}
    _, complete = told(receiver, connection)
    found = {d["name"]: d["inputFacets"]["inputStatistics"] for d in complete["inputs"]}
    database = crm.rsplit("/", 1)[1]
    for table, source in ((f"{database}.public.customer", "crm"), ("orders", "shop")):
        assert (found[table]["rowCount"], found[table]["size"]) == taken[source]
    assert taken["crm"][0] == 3


def test_the_text_is_told_only_where_that_is_wanted(opened: Opened, receiver: Receiver) -> None:
    sql = "SELECT id FROM shop.customer WHERE name = 'Ann-17'"
    silent = opened(openlineage={"url": receiver.url})
    silent.execute(sql).fetchall()
    silent.close()
    assert len(receiver.events) == 2
    assert "Ann-17" not in json.dumps(receiver.events)
    open_ = opened(openlineage={"url": receiver.url, "sql": True})
    open_.execute(sql).fetchall()
    for event in told(receiver, open_)[2:]:
        assert event["job"]["facets"]["sql"]["query"] == sql
        assert event["job"]["facets"]["sql"]["dialect"] == "duckdb"


def test_what_is_only_planned_or_refused_is_no_run(opened: Opened, receiver: Receiver) -> None:
    connection = opened(openlineage={"url": receiver.url})
    connection.explain("SELECT id FROM shop.orders")
    connection.estimate("SELECT id FROM shop.orders")
    with pytest.raises(batuta_sql.ProgrammingError):
        connection.execute("SELECT no_such_column FROM shop.orders")
    assert told(receiver, connection) == []


def test_without_configuration_nothing_is_made(opened: Opened, receiver: Receiver) -> None:
    for settings in ({}, {"url": receiver.url, "enabled": False}):
        connection = opened(openlineage=settings)
        connection.execute("SELECT id FROM shop.orders").fetchall()
        assert told(receiver, connection) == []


def test_names_of_columns_tell_no_values(opened: Opened, receiver: Receiver) -> None:
    """A column that nobody has named is called like its expression, constants included."""
    connection = opened(openlineage={"url": receiver.url})
    sql = "SELECT name || 'Ann-17', 4711, max(id) OVER (), id AS n1 FROM shop.customer"
    connection.execute(sql).fetchall()
    _, complete = told(receiver, connection)
    assert "Ann-17" not in json.dumps(receiver.events)
    assert "4711" not in json.dumps(receiver.events)
    fields = output(complete)["facets"]["columnLineage"]["fields"]
    assert [f["name"] for f in output(complete)["facets"]["schema"]["fields"]] == list(fields)
    assert list(fields)[1] == "?"
    assert list(fields)[3] == "n1"


# --- column lineage ----------------------------------------------------------------------------

QUERIES = {
    "a join": "SELECT c.name, o.total FROM shop.customer c JOIN shop.orders o ON o.customer = c.id",
    "an outer join": "SELECT c.name, o.day FROM shop.customer c LEFT JOIN shop.orders o"
    " ON o.customer = c.id AND o.total > 10",
    "an aggregate": "SELECT city, count(name) AS n, max(id) AS m FROM shop.customer GROUP BY city",
    "count(*)": "SELECT count(*) AS n FROM shop.orders WHERE total > 10",
    "CASE": "SELECT CASE WHEN total > 10 THEN day ELSE 'x' END AS d FROM shop.orders",
    "a window": "SELECT id, sum(total) OVER (PARTITION BY customer ORDER BY day) AS s"
    " FROM shop.orders",
    "a filter": "SELECT name FROM shop.customer WHERE city = 'Bonn' AND id > 0",
    "HAVING": "SELECT customer FROM shop.orders GROUP BY customer HAVING sum(total) > 10",
    "a subquery": "SELECT name, (SELECT max(total) FROM shop.orders o WHERE o.customer = c.id) AS m"
    " FROM shop.customer c",
    "IN": "SELECT name FROM shop.customer WHERE id IN (SELECT customer FROM shop.orders)",
    "a union": "SELECT name FROM shop.customer UNION SELECT day FROM shop.orders",
    "WITH": "WITH t AS (SELECT customer, sum(total) AS s FROM shop.orders GROUP BY customer)"
    " SELECT c.name, t.s FROM t JOIN shop.customer c ON c.id = t.customer ORDER BY t.s LIMIT 1",
    "DISTINCT": "SELECT DISTINCT city FROM shop.customer",
    "a block that is not modelled": "SELECT * FROM shop.customer POSITIONAL JOIN shop.orders",
    "a text that only DuckDB reads": "PIVOT shop.customer ON city USING sum(id) GROUP BY name",
}


def lineage_in(event: Event) -> dict[str, tuple[set[str], set[str]]]:
    """What an event says of each column: direct origins, indirect origins."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for name, told in output(event)["facets"]["columnLineage"]["fields"].items():
        direct, indirect = found[name] = set[str](), set[str]()
        for one in told["inputFields"]:
            rows = one["field"] == "*"
            origin = f"shop.{one['name']}" + ("" if rows else f".{one['field']}")
            types = {t["type"] for t in one["transformations"]}
            assert types <= {"DIRECT", "INDIRECT"}
            assert types
            direct |= {origin} if "DIRECT" in types else set()
            indirect |= {origin} if "INDIRECT" in types else set()
    return found


@pytest.mark.parametrize("sql", QUERIES.values(), ids=QUERIES.keys())
def test_column_lineage_is_that_of_the_cursor(sql: str, opened: Opened, receiver: Receiver) -> None:
    connection = opened(openlineage={"url": receiver.url})
    cursor = connection.execute(sql)
    cursor.fetchall()
    expected = {n: (set(c.direct), set(c.indirect)) for n, c in cursor.lineage.items()}
    assert expected
    assert any(direct or indirect for direct, indirect in expected.values())
    _, complete = told(receiver, connection)
    assert lineage_in(complete) == expected


def test_the_transformations_say_how(opened: Opened, receiver: Receiver) -> None:
    connection = opened(openlineage={"url": receiver.url})
    connection.execute(
        f"{QUERY} JOIN shop.orders o ON o.customer = c.id WHERE o.day > '2' GROUP BY c.city"
    ).fetchall()
    _, complete = told(receiver, connection)
    fields = output(complete)["facets"]["columnLineage"]["fields"]
    found = {
        (column, one["name"], one["field"]): sorted(
            (t["type"], t.get("subtype")) for t in one["transformations"]
        )
        for column, said in fields.items()
        for one in said["inputFields"]
    }
    assert found["city", "customer", "city"] == [("DIRECT", "IDENTITY"), ("INDIRECT", "GROUP_BY")]
    assert found["n", "orders", "*"] == [("DIRECT", "AGGREGATION")]
    assert found["total", "orders", "total"] == [("DIRECT", "AGGREGATION")]
    assert found["total", "orders", "day"] == [("INDIRECT", "FILTER")]
    assert found["total", "customer", "id"] == [("INDIRECT", "JOIN")]


def test_columns_of_one_name_are_one(opened: Opened, receiver: Receiver) -> None:
    connection = opened(openlineage={"url": receiver.url})
    cursor = connection.execute("SELECT name AS x, city AS x FROM shop.customer")
    cursor.fetchall()
    assert list(cursor.lineage) == ["x"]
    expected = {n: (set(c.direct), set(c.indirect)) for n, c in cursor.lineage.items()}
    _, complete = told(receiver, connection)
    assert lineage_in(complete) == expected


def test_labels_are_tags(opened: Opened, receiver: Receiver, shop: Path) -> None:
    columns = {"name": {"labels": ["pii"]}, "city": {"labels": ["origin:internal"]}}
    tables = {"customer": {"columns": columns}}
    connection = opened(
        openlineage={"url": receiver.url},
        sources={"shop": {"kind": "sqlite", "path": str(shop), "tables": tables}},
    )
    connection.execute("SELECT upper(name) AS u, id FROM shop.customer WHERE city > ''").fetchall()
    _, complete = told(receiver, connection)

    def tags(dataset: Event) -> set[tuple[Any, ...]]:
        return {(t.get("field"), t["key"], t["value"]) for t in dataset["facets"]["tags"]["tags"]}

    (customer,) = complete["inputs"]
    assert tags(customer) == {("name", "pii", "true"), ("city", "origin", "internal")}
    assert tags(output(complete)) == {
        ("u", "pii", "true"),
        ("u", "origin", "internal"),
        ("id", "origin", "internal"),
    }


# --- how it ended ------------------------------------------------------------------------------


def test_a_query_that_fails(opened: Opened, receiver: Receiver) -> None:
    connection = opened(openlineage={"url": receiver.url})
    with pytest.raises(batuta_sql.DataError) as refused:
        connection.execute("SELECT CAST(name AS INTEGER) FROM shop.customer").fetchall()
    start, fail = told(receiver, connection)
    assert (start["eventType"], fail["eventType"]) == ("START", "FAIL")
    facet = fail["run"]["facets"]["errorMessage"]
    assert facet["message"].startswith("DataError: ")
    assert refused.value.message in facet["message"]
    assert "errorMessage" not in start["run"]["facets"]


def test_a_query_that_is_cancelled(opened: Opened, receiver: Receiver) -> None:
    connection = opened(openlineage={"url": receiver.url})
    running = connection.execute("SELECT c.id FROM shop.customer c, range(1000000000) ORDER BY 1")
    threading.Timer(0.2, connection.cancel).start()
    with pytest.raises(batuta_sql.QueryCancelled):
        running.fetchall()
    told(receiver, connection)
    assert receiver.states() == ["START", "ABORT"]


def test_a_query_that_runs_when_the_connection_is_closed(
    opened: Opened, receiver: Receiver
) -> None:
    connection = opened(openlineage={"url": receiver.url})
    connection.execute("SELECT c.id FROM shop.customer c, range(1000000)").fetchone()
    told(receiver, connection)
    assert receiver.states() == ["START", "ABORT"]


def test_a_query_of_which_nobody_wants_the_rest(opened: Opened, receiver: Receiver) -> None:
    connection = opened(openlineage={"url": receiver.url})
    cursor = connection.execute("SELECT c.id FROM shop.customer c, range(1000000)")
    cursor.fetchone()
    cursor.close()
    told(receiver, connection)
    assert receiver.states() == ["START", "COMPLETE"]


def test_two_connections_at_once(opened: Opened, receiver: Receiver) -> None:
    connections = [opened(openlineage={"url": receiver.url}) for _ in range(2)]
    failures: list[BaseException] = []

    def work(connection: batuta_sql.Connection, name: str) -> None:
        try:
            for _ in range(5):
                connection.execute(f"SELECT {name} FROM shop.customer").fetchall()
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=work, args=pair)
        for pair in zip(connections, ("name", "city"), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for connection in connections:
        connection.close()
    assert failures == []
    runs: dict[str, list[Event]] = {}
    for event in receiver.events:
        check_event(event)
        runs.setdefault(event["run"]["runId"], []).append(event)
    assert len(runs) == 10
    for start, complete in runs.values():
        assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
        assert start["job"]["name"] == complete["job"]["name"]


# --- where the rows go -------------------------------------------------------------------------


def test_a_local_table_is_the_output(opened: Opened, receiver: Receiver) -> None:
    connection = opened(openlineage={"url": receiver.url})
    connection.execute("CREATE TABLE mine AS SELECT name, city FROM shop.customer")
    connection.execute("INSERT INTO mine SELECT day, day FROM shop.orders")
    _, created, _, inserted = told(receiver, connection)
    for event, column in ((created, "shop.customer.name"), (inserted, "shop.orders.day")):
        assert (output(event)["namespace"], output(event)["name"]) == ("batuta://local", "mine")
        assert column in set.union(*(d for d, _ in lineage_in(event).values()))
    assert output(inserted)["outputFacets"]["outputStatistics"]["rowCount"] == 3


@pytest.mark.parametrize("form", ["parquet", "duckdb"])
def test_a_copy_is_a_run(form: Any, opened: Opened, receiver: Receiver, tmp_path: Path) -> None:
    connection = opened(openlineage={"url": receiver.url})
    target = tmp_path / "copied"
    result = connection.sync("shop.customer", target, format=form)
    again = connection.sync("shop.customer", target, format=form)
    events = told(receiver, connection)
    start, complete = events[:2]
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["job"]["name"].startswith("copy.")
    assert start["job"]["facets"]["jobType"]["jobType"] == "COPY"
    place = (output(complete)["namespace"], output(complete)["name"])
    expected = {
        "parquet": ("file", str(target)),
        "duckdb": (f"duckdb://{target}", "main.customer"),
    }
    assert place == expected[form]
    statistics = output(complete)["outputFacets"]["outputStatistics"]
    assert (statistics["rowCount"], statistics["size"]) == (result.rows, result.bytes)
    assert lineage_in(complete)["name"][0] == {"shop.customer.name"}
    assert {e["job"]["name"] for e in events} == {start["job"]["name"]}
    assert len(events) == (2 if again.outcome == "unchanged" else 4)


def test_a_copy_that_fails(opened: Opened, receiver: Receiver, tmp_path: Path) -> None:
    connection = opened(openlineage={"url": receiver.url})
    with pytest.raises(batuta_sql.Error):
        connection.sync("SELECT CAST(name AS INTEGER) AS n FROM shop.customer", tmp_path / "to")
    start, fail = told(receiver, connection)
    assert (start["eventType"], fail["eventType"]) == ("START", "FAIL")
    assert fail["job"]["name"].startswith("copy.")
    assert "errorMessage" in fail["run"]["facets"]
    assert "outputStatistics" not in output(fail)["outputFacets"]


def test_copies_of_what_is_new_are_one_job(
    opened: Opened, receiver: Receiver, shop: Path, tmp_path: Path
) -> None:
    connection = opened(openlineage={"url": receiver.url})
    for number in (4, 5):
        result = connection.sync("shop.orders", tmp_path / "to", key="id", watermark="id")
        assert result.outcome == "copied"
        with sqlite3.connect(shop) as database:
            database.execute(f"INSERT INTO orders VALUES ({number}, 1, 1, '2024-02-01')")
        database.close()
    first, _, second, complete = told(receiver, connection)
    assert [first["eventType"], complete["eventType"]] == ["START", "COMPLETE"]
    assert first["job"]["name"] == second["job"]["name"] == complete["job"]["name"]
    assert first["run"]["runId"] != second["run"]["runId"]
    assert output(complete)["outputFacets"]["outputStatistics"]["rowCount"] == 4


def test_the_file_of_the_command_line_is_the_output(
    receiver: Receiver, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from batuta_sql.cli import main

    config = tmp_path / "batuta.toml"
    config.write_text(
        f'[openlineage]\nurl = "{receiver.url}"\n[sources.shop]\nkind = "sqlite"\npath = "{shop}"\n'
    )
    target = tmp_path / "out.csv"
    words = ["query", "SELECT name FROM shop.customer", "-o", str(target), "--config", str(config)]
    assert main(words) == 0
    assert target.read_text().count("\n") == 4
    assert receiver.states() == ["START", "COMPLETE"]
    for event in receiver.events:
        check_event(event)
        assert (output(event)["namespace"], output(event)["name"]) == ("file", str(target))


# --- never in the way --------------------------------------------------------------------------


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_a_place_that_is_down_costs_one_warning(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        connection = opened(openlineage={"url": f"http://127.0.0.1:{_closed_port()}"})
        for _ in range(3):
            assert len(connection.execute("SELECT id FROM shop.orders").fetchall()) == 3
        connection.close()
    assert [w.category for w in warned].count(EventWarning) == 1
    told = [r for r in caplog.records if r.name == "batuta_sql.event_sender"]
    assert any("cannot be sent" in r.getMessage() for r in told)


@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_place_that_refuses_costs_one_warning(
    status: int, opened: Opened, receiver: Receiver
) -> None:
    receiver.status = status
    connection = opened(openlineage={"url": receiver.url})
    with pytest.warns(EventWarning, match="queries go on"):  # noqa: PT031 - as long as it is sent
        assert len(connection.execute("SELECT id FROM shop.orders").fetchall()) == 3
        connection.close()


def test_events_go_to_no_other_place(opened: Opened, receiver: Receiver) -> None:
    receiver.status, receiver.location = 307, f"{receiver.url}/other"
    connection = opened(openlineage={"url": receiver.url})
    with pytest.warns(EventWarning, match="TooManyRedirects"):  # noqa: PT031 - as long as it is sent
        connection.execute("SELECT id FROM shop.orders").fetchall()
        connection.close()
    assert set(receiver.paths) == {"/api/v1/lineage"}


def test_below_the_standard_tier_no_proxy_is_asked(
    opened: Opened, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{_closed_port()}")
    connection = opened(tier="private_cloud", openlineage={"url": receiver.url})
    connection.execute("SELECT id FROM shop.orders").fetchall()
    told(receiver, connection)
    assert receiver.states() == ["START", "COMPLETE"]


def test_a_place_that_does_not_answer_delays_no_query(
    opened: Opened, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All queries are done before the place has answered a single time."""
    monkeypatch.setattr("batuta_sql.openlineage_events._CLOSE_SECONDS", 0.2)
    receiver.open.clear()
    connection = opened(openlineage={"url": receiver.url})
    for _ in range(20):
        assert len(connection.execute("SELECT id FROM shop.orders").fetchall()) == 3
    assert receiver.events == []
    with pytest.warns(EventWarning, match="not sent in time"):
        connection.close()
    assert receiver.events == []


def test_a_warning_that_is_an_error_fails_no_query(opened: Opened) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", EventWarning)
        connection = opened(openlineage={"url": f"http://127.0.0.1:{_closed_port()}"})
        assert len(connection.execute("SELECT id FROM shop.orders").fetchall()) == 3
        connection.close()


# --- a file, and the client's own configuration --------------------------------------------------


def test_events_in_a_file(opened: Opened, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    for _ in range(2):
        connection = opened(openlineage={"file": str(file)})
        connection.execute("SELECT id FROM shop.orders").fetchall()
        connection.close()
    events = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert [e["eventType"] for e in events] == ["START", "COMPLETE"] * 2
    for event in events:
        check_event(event)


def test_the_clients_own_configuration(
    opened: Opened, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", receiver.url)
    monkeypatch.setenv("OPENLINEAGE_ENDPOINT", "elsewhere")
    connection = opened(openlineage={"enabled": True})
    connection.execute("SELECT id FROM shop.orders").fetchall()
    told(receiver, connection)
    assert receiver.states() == ["START", "COMPLETE"]
    assert set(receiver.paths) == {"/elsewhere"}


def test_the_repository_of_the_working_folder_is_not_told(
    opened: Opened, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = tmp_path / "here" / ".git"
    git.mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "config").write_text('[remote "origin"]\n\turl = https://u:hush@code.example/x.git\n')
    monkeypatch.chdir(git.parent)
    connection = opened(openlineage={"url": receiver.url})
    connection.execute("SELECT id FROM shop.orders").fetchall()
    for event in told(receiver, connection):
        assert "code.example" not in json.dumps(event)


# --- secrets -----------------------------------------------------------------------------------


def test_the_key_is_sent_and_never_told(
    opened: Opened, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINEAGE_KEY", "hush-4711")
    connection = opened(openlineage={"url": receiver.url, "api_key": {"env": "LINEAGE_KEY"}})
    connection.execute("SELECT id FROM shop.orders").fetchall()
    assert connection._session.watchers._watchers[0]._sender.flush(30)  # type: ignore[attr-defined]
    monkeypatch.setenv("LINEAGE_KEY", "hush-4712")
    connection.execute("SELECT id FROM shop.orders").fetchall()
    events = told(receiver, connection)
    assert receiver.authorizations == ["Bearer hush-4711"] * 2 + ["Bearer hush-4712"] * 2
    assert "hush-" not in json.dumps(events)
    assert "hush-4711" not in repr(connection._settings)


def test_a_password_of_a_source_is_in_no_event(
    opened: Opened, receiver: Receiver, crm: str
) -> None:
    password = urllib.parse.urlsplit(crm).password
    assert password
    connection = opened(
        openlineage={"url": receiver.url, "sql": True},
        sources={"crm": {"kind": "postgresql", "uri": crm}},
    )
    connection.execute("SELECT name FROM crm.customer").fetchall()
    with pytest.raises(batuta_sql.Error):
        connection.execute(
            f"SELECT CAST('postgresql://app:{password}@db/' || name AS INTEGER) FROM crm.customer"
        ).fetchall()
    events = told(receiver, connection)
    assert [e["eventType"] for e in events] == ["START", "COMPLETE", "START", "FAIL"]
    text = json.dumps(events)
    assert password not in text
    assert "********" in text
    (customer,) = events[0]["inputs"]
    assert customer["namespace"].startswith("postgres://")
    assert "@" not in customer["namespace"]


def test_a_key_that_is_not_to_be_had_costs_a_warning(opened: Opened, receiver: Receiver) -> None:
    key = {"env": "BATUTA_TEST_NOT_SET"}
    connection = opened(openlineage={"url": receiver.url, "api_key": key})
    with pytest.warns(EventWarning, match="ConfigError"):  # noqa: PT031 - as long as it is sent
        assert len(connection.execute("SELECT id FROM shop.orders").fetchall()) == 3
        connection.close()
    assert receiver.events == []


# --- tiers and mistakes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tier", "url"),
    [
        ("fully_sovereign", "https://lineage.example.com"),
        ("fully_sovereign", "http://10.1.2.3:5000"),
        ("hybrid_sovereign", "https://lineage.example.com"),
        ("private_cloud", "https://lineage.example.com"),
    ],
)
def test_a_place_that_the_tier_does_not_allow(tier: str, url: str, opened: Opened) -> None:
    with pytest.raises(TierRefused, match="does not allow events to"):
        opened(tier=tier, openlineage={"url": url})


@pytest.mark.parametrize(
    ("tier", "url"),
    [("hybrid_sovereign", "http://10.1.2.3:5000"), ("standard", "https://lineage.example.com")],
)
def test_a_place_that_the_tier_allows(tier: str, url: str, opened: Opened) -> None:
    opened(tier=tier, openlineage={"url": url})


@pytest.mark.parametrize("kind", ["http", "kafka-like"])
def test_the_clients_own_place_is_under_the_tier_too(
    kind: str, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = {
        "http": "type: http\n  url: https://lineage.example.com",
        "kafka-like": "type: file\n  log_file_path: s3://bucket/events",
    }[kind]
    file = tmp_path / "openlineage.yml"
    file.write_text(f"transport:\n  {transport}\n")
    monkeypatch.setenv("OPENLINEAGE_CONFIG", str(file))
    with pytest.raises(TierRefused, match="does not allow events to"):
        opened(tier="hybrid_sovereign", openlineage={"enabled": True})


def test_under_the_strictest_tier_events_lie_in_a_file(tmp_path: Path, shop: Path) -> None:
    """In a process of its own: the tier locks it."""
    import subprocess
    import sys

    file = tmp_path / "events.jsonl"
    program = f"""
import batuta_sql
with batuta_sql.connect({{
    "tier": "fully_sovereign",
    "openlineage": {{"file": {str(file)!r}}},
    "cost": {{"history": False}},
    "sources": {{"shop": {{"kind": "sqlite", "path": {str(shop)!r}}}}},
}}) as connection:
    print(connection.execute("SELECT count(*) FROM shop.orders").fetchall())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path.cwd(), timeout=60
    )
    if "SealError" in done.stderr:
        pytest.skip("this system cannot lock a process")
    assert done.stdout.strip() == "[(3,)]", done.stderr
    assert [json.loads(s)["eventType"] for s in file.read_text().splitlines()] == [
        "START",
        "COMPLETE",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://a", "file": "b"}, "url or file"),
        ({"url": "ftp://a"}, "url"),
        ({"url": "https://user:hush@a/"}, "api_key"),
        ({"api_key": "hush"}, "needs a url"),
        ({"file": "s3://bucket/x"}, "path of this machine"),
        ({"spacename": "x"}, "namespace"),
    ],
)
def test_wrong_settings(settings: Any, message: str, opened: Opened) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        opened(openlineage=settings)
    assert "openlineage" in str(refused.value)
    assert "hush" not in str(refused.value)


def test_a_frame_that_carries_labels_is_an_input(opened: Opened, receiver: Receiver) -> None:
    connection = opened(openlineage={"url": receiver.url})
    connection.register("people", pa.table({"id": [1, 2]}), labels=["pii"])
    connection.execute("SELECT p.id FROM people p JOIN shop.customer c ON c.id = p.id").fetchall()
    _, complete = told(receiver, connection)
    assert ("batuta://local", "people") in {(d["namespace"], d["name"]) for d in complete["inputs"]}
