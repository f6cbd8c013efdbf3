"""An assistant's client, the real server as a process, and what it may not be told."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from batuta_sql.demo.postgres_server import PostgresServer
from tests.cli.conftest import config  # noqa: F401 - a fixture
from tests.faults.conftest import eventually

Talk = Callable[[ClientSession], Awaitable[Any]]


def talked(path: Path, talk: Talk, *options: str) -> Any:
    """What a conversation with the server comes to."""

    async def run() -> Any:
        arguments = ["-m", "batuta_sql", "--config", str(path), "mcp", *options]
        process = StdioServerParameters(command=sys.executable, args=arguments)
        async with (
            stdio_client(process) as (read, write),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            return await talk(session)

    return asyncio.run(asyncio.wait_for(run(), 240))


def told(path: Path, tool: str, *options: str, **arguments: Any) -> Any:
    """The structured answer of one call; of one that failed, its words."""

    async def talk(session: ClientSession) -> Any:
        answer: Any = await session.call_tool(tool, arguments)
        return answer.content[0].text if answer.is_error else answer.structured_content

    return talked(path, talk, *options)


@pytest.fixture
def labelled(config: Path, tmp_path: Path) -> Path:  # noqa: F811
    path = tmp_path / "labelled.toml"
    labels = (
        '[sources.pub.tables."beer".columns]\nname = { labels = ["pii"] }\n'
        'price = { labels = ["origin:internal"] }\n'
    )
    path.write_text(config.read_text() + labels)
    return path


# --- what it may ask -----------------------------------------------------------------------------


def test_its_tools(config: Path) -> None:  # noqa: F811
    async def talk(session: ClientSession) -> Any:
        return (await session.list_tools()).tools

    tools = {t.name: t for t in talked(config, talk)}
    assert tools.keys() == {"list_tables", "describe", "estimate", "query"}
    assert all(t.annotations.read_only_hint and t.description for t in tools.values())


def test_tables_and_columns(config: Path) -> None:  # noqa: F811
    found = told(config, "list_tables")
    assert {"name": "pub.beer", "kind": "table"} in found["tables"]
    assert found["errors"] == {}
    assert [t["name"] for t in told(config, "list_tables", source="lake")["tables"]] == [
        "lake.shares"
    ]
    columns = told(config, "describe", table="pub.beer")["columns"]
    assert columns[2]["column_type"] == "DECIMAL(6,2)"


def test_a_source_that_does_not_answer_is_named(config: Path, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "batuta.toml"
    gone = f'[sources.gone]\nkind = "sqlite"\npath = "{tmp_path}/gone.sqlite"\n'
    path.write_text(config.read_text() + gone)
    found = told(path, "list_tables")
    assert "gone" in found["errors"]
    assert {"name": "pub.beer", "kind": "table"} in found["tables"]


def test_a_query_and_its_estimate(config: Path) -> None:  # noqa: F811
    sql = (
        "SELECT b.id, b.name, sum(v.minutes) AS minutes FROM pub.beer b"
        " LEFT JOIN delta.visits v ON v.beer = b.id GROUP BY ALL ORDER BY b.id"
    )
    answer = told(config, "query", sql=sql, max_rows=3)
    assert [c["name"] for c in answer["columns"]] == ["id", "name", "minutes"]
    assert answer["rows"] == [["1", "Ann's", "5"], ["2", 'a "b", c', "13"], ["3", "", None]]
    assert answer["more_rows"] is True
    assert len(told(config, "estimate", sql=sql)["fragments"]) == 2


def test_errors_are_words_that_help(config: Path) -> None:  # noqa: F811
    said = told(config, "query", sql="SELECT nme FROM pub.beer")
    assert 'did you mean "name"?' in said
    assert "LINE 1" in said


# --- what it may not -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM pub.beer",
        "SELECT upper(name) || '!' AS shout FROM pub.beer",
        "SELECT count(*) FROM pub.beer WHERE name LIKE 'A%'",
        "SELECT id FROM pub.beer ORDER BY name LIMIT 1",
        "SELECT max(name) FROM pub.beer",
        "SELECT * FROM pub.beer",
        "SUMMARIZE SELECT * FROM pub.beer",
        "SELECT v.beer FROM delta.visits v WHERE EXISTS"
        " (SELECT 1 FROM pub.beer b WHERE b.id = v.beer AND b.name = 'x')",
        "EXPLAIN ANALYZE SELECT name FROM pub.beer",
    ],
)
def test_labelled_data_is_told_to_nobody_who_may_not_know(labelled: Path, sql: str) -> None:
    said = told(labelled, "query", sql=sql)
    assert "may not go to an assistant" in said
    assert "pii" in said
    assert "may not go to an assistant" in told(labelled, "estimate", sql=sql)


def test_what_is_not_labelled_or_allowed_is_told(labelled: Path) -> None:
    assert told(labelled, "query", sql="SELECT count(*) FROM pub.beer")["rows"] == [["4"]]
    sql = "SELECT sum(price) AS total FROM pub.beer"
    assert "origin:internal" in told(labelled, "query", sql=sql)
    allowed = told(labelled, "query", "--allow-label", "origin:*", sql=sql)
    assert allowed["rows"] == [["7.25"]]
    assert allowed["columns"][0]["labels"] == ["origin:internal"]
    assert "pii" in told(labelled, "query", "--allow-label", "origin:*", sql="FROM pub.beer")


def test_what_a_person_would_be_asked_about_is_refused(config: Path, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "priced.toml"
    history = f'[cost]\nhistory_file = "{tmp_path}/history.sqlite"\n'
    price = "pricing = { usd_per_tb_scanned = 5000000.0 }\n"
    path.write_text(history + config.read_text() + price)
    sql = "SELECT count(DISTINCT n) FROM duck.numbers"
    assert "the estimated cost on duck is $10" in told(path, "query", sql=sql)
    assert told(path, "estimate", sql=sql)["usd"] > 10


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_csv('/etc/passwd', delim=':')",
        "SELECT * FROM '{file}'",
        "CREATE TABLE t AS SELECT 1",
        "SET memory_limit = '1GB'",
        "DELETE FROM pub.beer",
        "COPY (SELECT 1) TO '/tmp/out.csv'",
        "ATTACH '{file}' AS other",
        "SELECT 1; SELECT 2",
    ],
)
def test_nothing_but_queries_of_the_sources(config: Path, sql: str) -> None:  # noqa: F811
    file = config.parent / "lake" / "shares.parquet"
    answer = told(config, "query", sql=sql.replace("{file}", str(file)))
    assert isinstance(answer, str), answer


def test_a_query_that_the_client_gives_up_is_ended(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with postgres.database("mcp") as uri:
        postgres.run(
            "CREATE VIEW nap AS SELECT id, pg_sleep(0.2)::text AS nap"
            " FROM generate_series(1, 10000) s(id)",
            uri.rsplit("/", 1)[1],
        )
        path = tmp_path / "batuta.toml"
        path.write_text(f'[sources.crm]\nkind = "postgresql"\nuri = "{uri}"\nlocality = "local"\n')
        running = (
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
            " AND query LIKE '%nap%' AND pid <> pg_backend_pid()"
        )

        def is_running() -> bool:
            return postgres.run(running).strip() != "0"

        async def talk(session: ClientSession) -> Any:
            sql = "SELECT count(nap) FROM crm.nap"
            call = asyncio.create_task(session.call_tool("query", {"sql": sql}))
            assert await asyncio.to_thread(eventually, is_running)
            call.cancel()
            assert await asyncio.to_thread(eventually, lambda: not is_running())
            answer: Any = await session.call_tool("query", {"sql": "SELECT 42 AS answer"})
            return answer.structured_content["rows"]

        assert talked(path, talk) == [["42"]]
