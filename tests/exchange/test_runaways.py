"""A join that a source does not finish is ended there and made here, with the same answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer
from batuta_sql.exchange.fetch import Fetch, Stop
from batuta_sql.exchange.result_cache import Kept, KeptSnapshot
from batuta_sql.plan.fragments import Fragment

ROWS = 60_000
# No index helps, and no hash: PostgreSQL compares each row with each, for minutes.
LONG = "SELECT count(*) AS n FROM crm.low l JOIN crm.high h ON l.a < h.b AND l.a + 3 > h.b"
ANSWER = [(2 * ROWS - 3,)]

Connect = Callable[..., Any]


@pytest.fixture
def uri(postgres: PostgresServer, postgres_uri: str) -> str:
    postgres.run(
        f"CREATE TABLE low AS SELECT i AS a FROM generate_series(1, {ROWS}) i;"
        f"CREATE TABLE high AS SELECT i AS b FROM generate_series(1, {ROWS}) i;"
        "CREATE TABLE small AS SELECT i AS id, 'name ' || i AS name FROM generate_series(1, 9) i;"
        "ANALYZE",
        postgres_uri.rsplit("/", 1)[1],
    )
    return postgres_uri


@pytest.fixture
def connect(uri: str) -> Iterator[Connect]:
    with ExitStack() as stack:

        def made(**settings: Any) -> Any:
            crm = {"kind": "postgresql", "uri": uri, **settings.pop("crm", {})}
            config = {
                "runaway_seconds": 1.0,
                **settings,
                "sources": {"crm": crm, "other": {"kind": "postgresql", "uri": uri}},
            }
            return stack.enter_context(closing(batuta_sql.connect(config)))

        yield made


def running(postgres: PostgresServer, uri: str) -> int:
    """How many statements over these tables the server is still running."""
    name = uri.rsplit("/", 1)[1]
    sql = (
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
        f" AND datname = '{name}' AND query LIKE '%low%' AND pid <> pg_backend_pid()"
    )
    return int(postgres.run(sql, name).strip())


@pytest.mark.parametrize("how", ["fetchall", "fetch_arrow_table", "CREATE TABLE"])
def test_it_is_ended_there_and_made_here(
    connect: Connect, postgres: PostgresServer, uri: str, how: str
) -> None:
    con = connect()
    assert len(con.plan(LONG).fragments) == 1
    if how == "CREATE TABLE":
        con.execute(f"CREATE TABLE t AS {LONG}")
        assert con.execute("SELECT * FROM t").fetchall() == ANSWER
        return
    cursor = con.execute(LONG)
    rows = cursor.fetchall() if how == "fetchall" else cursor.fetch_arrow_table().to_pylist()
    assert rows in (ANSWER, [{"n": ANSWER[0][0]}])
    assert len(cursor.plan.fragments) == 2
    assert "took far longer than bringing the rows here" in str(cursor.plan)
    assert running(postgres, uri) == 0


def test_estimates_are_those_of_what_was_sent_at_last(connect: Connect, tmp_path: Path) -> None:
    con = connect(cost={"history_file": str(tmp_path / "history.sqlite")})
    cursor = con.execute(LONG)
    assert cursor.fetchall() == ANSWER
    told = [f["estimate"].rows for f in cursor.metrics["fragments"]]
    assert told == [pytest.approx(ROWS, rel=0.2)] * 2
    cursor.close()
    runs = con.history()
    assert [(r.rows, r.status) for r in runs] == [(ROWS, "finished")] * 2
    assert [r.estimated_rows for r in runs] == [pytest.approx(ROWS, rel=0.2)] * 2


def test_what_the_source_itself_calls_hopeless_is_not_waited_for(connect: Connect) -> None:
    con = connect(runaway_seconds=20)
    con.plan(LONG)
    started = time.monotonic()
    assert con.execute(LONG).fetchall() == ANSWER
    assert time.monotonic() - started < 20
    told = connect(runaway_seconds=5, cost={"estimate": "priced"})
    started = time.monotonic()
    assert told.execute(LONG).fetchall() == ANSWER
    assert time.monotonic() - started >= 5


def test_what_is_sent_with_keys_is_not_judged_without(connect: Connect) -> None:
    """With two keys it is done in no time; the source is asked about the whole of it."""
    con = connect(runaway_seconds=0.3, semi_joins="always")
    con.register("wanted", pa.table({"a": [7, 8]}))
    sql = (
        "SELECT w.a, x.n FROM wanted w JOIN (SELECT l.a, count(*) AS n FROM crm.low l"
        " JOIN crm.high h ON l.a < h.b AND l.a + 3 > h.b GROUP BY l.a) x ON x.a = w.a ORDER BY 1"
    )
    cursor = con.execute(sql)
    assert cursor.fetchall() == [(7, 2), (8, 2)]
    (fragment,) = cursor.plan.fragments
    assert fragment.keys == 2


def test_among_other_fragments(connect: Connect) -> None:
    sql = (
        f"SELECT s.name, x.n FROM other.small s JOIN ({LONG}) x ON x.n = s.id + {ANSWER[0][0] - 4}"
    )
    cursor = connect().execute(sql)
    assert cursor.fetchall() == [("name 4", ANSWER[0][0])]
    assert len(cursor.plan.fragments) == 3
    assert all(f.rows is not None for f in cursor.plan.fragments)


def test_the_next_query_of_the_text_is_not_held_to_it(connect: Connect) -> None:
    con = connect()
    assert con.execute(LONG).fetchall() == ANSWER
    assert len(con.plan(LONG).fragments) == 1


@pytest.mark.parametrize(
    "settings",
    [{"runaway_seconds": 0}, {"crm": {"pricing": {"usd_per_gb_egress": 1}}}],
    ids=["turned off", "it would be billed twice"],
)
def test_where_it_is_left_alone(
    connect: Connect, postgres: PostgresServer, uri: str, settings: dict[str, Any]
) -> None:
    con = connect(**{"crm": {"query_timeout": 4}, **settings})
    if "pricing" in settings.get("crm", {}):
        con = connect(crm={"query_timeout": 4, **settings["crm"]}, cost={"history": False})
    with pytest.raises(batuta_sql.OperationalError):
        con.execute(LONG).fetchall()


def test_it_can_still_be_cancelled(connect: Connect, postgres: PostgresServer, uri: str) -> None:
    con = connect(runaway_seconds=0)
    threading.Timer(1.5, con.cancel).start()
    started = time.monotonic()
    with pytest.raises(batuta_sql.QueryCancelled):
        con.execute(LONG).fetchall()
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("rows", "finished", "away"),
    [(0, False, True), (4, False, True), (5, False, False), (0, True, False)],
)
def test_what_delivers_as_expected_is_waited_for(rows: int, finished: bool, away: bool) -> None:
    fragment = Fragment("x1", "crm", "SELECT 1", (), (), rows=10)
    fetch = Fetch(fragment, KeptSnapshot(Kept(pa.schema([]), (), 0.0)), Stop(), patience=0.0)
    fetch.metrics.rows, fetch.metrics.finished = rows, finished
    assert fetch.runs_away() is away
