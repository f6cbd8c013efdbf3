"""A network that fails: an error that names the source, never fewer rows, and life goes on."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer
from batuta_sql.source_settings import PostgreSQLSettings
from batuta_sql.sources.base import FragmentQuery
from batuta_sql.sources.postgresql import PostgreSQL
from tests.faults.conftest import ROWS, connect, usable
from tests.faults.proxy import Proxy

EVERYTHING = "SELECT id, filler FROM shop.public.big"
# An expression, so that the keys are not sent and the whole table has to come.
JOINED = "SELECT count(*) AS n FROM shop.public.big b JOIN local_keys k ON b.id = k.id + 0"


def test_a_whole_result_passes_the_proxy(connection: Any) -> None:
    assert connection.execute(EVERYTHING).fetch_arrow_table().num_rows == ROWS


def test_connection_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with connect(f"postgresql://app:secret@127.0.0.1:{port}/crm") as connection:
        with pytest.raises(batuta_sql.OperationalError, match=r"(?i)refused") as caught:
            connection.execute("SELECT * FROM shop.public.small")
        assert caught.value.source == "shop"
        assert connection.execute("SELECT 1 AS one").fetch_arrow_table().num_rows == 1


def test_wrong_password(postgres: PostgresServer, big_uri: str) -> None:
    uri = postgres.uri(big_uri.rsplit("/", 1)[1], password="not the password")
    with connect(uri) as connection:
        with pytest.raises(batuta_sql.OperationalError, match="password authentication") as caught:
            connection.execute("SELECT * FROM shop.public.small")
        assert caught.value.source == "shop"
        assert "not the password" not in str(caught.value)


@pytest.mark.parametrize("way", ["cut_after", "end_after"])
@pytest.mark.parametrize("passed", [20_000, 1_000_000, 10_000_000])
@pytest.mark.parametrize("fetch", ["table", "stream", "rows"])
def test_a_result_that_breaks_off_is_an_error(
    proxy: Proxy, connection: Any, way: str, passed: int, fetch: str
) -> None:
    assert usable(connection)
    proxy.reset_all()
    setattr(proxy, way, passed)
    read = {
        "table": lambda cursor: cursor.fetch_arrow_table(),
        "stream": lambda cursor: list(cursor.fetch_record_batch()),
        "rows": lambda cursor: cursor.fetchall(),
    }[fetch]
    with pytest.raises(batuta_sql.Error) as caught:
        read(connection.execute(EVERYTHING))
    assert caught.value.source == "shop"
    assert not isinstance(caught.value, batuta_sql.ProgrammingError | batuta_sql.InternalError)
    proxy.heal()
    assert usable(connection)


@pytest.mark.parametrize("passed", [50_000, 1_500_000])
def test_a_join_over_a_result_that_breaks_off_is_an_error(
    proxy: Proxy, connection: Any, passed: int
) -> None:
    connection.register("local_keys", {"id": list(range(1, 1000))})
    assert usable(connection)
    proxy.reset_all()
    proxy.cut_after = passed
    with pytest.raises(batuta_sql.Error) as caught:
        connection.execute(JOINED).fetch_arrow_table()
    assert caught.value.source == "shop"
    proxy.heal()
    assert connection.execute(JOINED).fetch_arrow_table().to_pylist() == [{"n": 999}]


def test_the_fallback_scan_does_not_swallow_it_either(proxy: Proxy, connection: Any) -> None:
    """A block that DuckDB runs by itself: its error comes through another engine."""
    sql = "SELECT * FROM (PIVOT shop.public.big ON id % 3 USING count(filler))"
    assert connection.execute(sql).fetch_arrow_table().num_rows >= 1
    proxy.reset_all()
    proxy.cut_after = 1_000_000
    with pytest.raises(batuta_sql.Error) as caught:
        connection.execute(sql).fetch_arrow_table()
    assert caught.value.source == "shop"
    proxy.heal()
    assert usable(connection)


def test_a_silent_server_fails_within_the_query_timeout(proxy: Proxy) -> None:
    with connect(proxy.uri, query_timeout=2) as connection:
        assert usable(connection)
        proxy.reset_all()
        proxy.stall_after = 1_000_000
        error = failure_of(lambda: connection.execute(EVERYTHING).fetch_arrow_table())
        proxy.heal()
        assert isinstance(error, batuta_sql.OperationalError)
        assert error.source == "shop"
        assert usable(connection)


def failure_of(work: Callable[[], object], seconds: float = 15) -> BaseException | None:
    """What ``work`` raises; None where it neither raises nor ends in time (it is left behind)."""
    caught: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return caught[0] if caught else None


def test_a_statement_over_its_timeout_fails(big_uri: str) -> None:
    with connect(big_uri, query_timeout=1) as connection:
        with pytest.raises(batuta_sql.OperationalError, match=r"(?i)time") as caught:
            connection.execute("SELECT * FROM shop.public.slow").fetch_arrow_table()
        assert caught.value.source == "shop"
        assert usable(connection)


def test_a_server_that_never_answers_fails_within_the_connect_timeout() -> None:
    """It accepts the connection (the kernel does) and then says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        uri = f"postgresql://app:secret@127.0.0.1:{port}/crm"
        with connect(uri, connect_timeout=2) as connection:
            error = failure_of(lambda: connection.execute("SELECT * FROM shop.public.small"))
            assert isinstance(error, batuta_sql.OperationalError)
            assert error.source == "shop"


def test_idle_connections_that_died_are_replaced(proxy: Proxy, connection: Any) -> None:
    assert usable(connection)
    before = proxy.connections
    proxy.reset_all()
    assert usable(connection)
    assert proxy.connections > before


def test_a_server_that_was_restarted_between_two_queries() -> None:
    with PostgresServer() as server:
        server.run("CREATE TABLE small AS SELECT generate_series(1, 10) AS id")
        with connect(server.uri()) as connection:
            assert usable(connection)
            restart(server)
            assert usable(connection)


def restart(server: PostgresServer) -> None:
    """Ends the server, its sessions too, and starts it again on the same data and port."""
    process = server._process
    assert process is not None
    process.send_signal(signal.SIGINT)
    process.wait(20)
    assert server._launch(), server.log()


@pytest.mark.parametrize("readers", [None, 3])
@pytest.mark.parametrize("first", ["nothing", "one that is read", "one that is over"])
def test_a_state_of_the_database_whose_keeper_has_gone(
    postgres: PostgresServer, big_uri: str, readers: int | None, first: str
) -> None:
    """No later fragment of the query is read in another state, nor takes it for its own fault."""
    settings = PostgreSQLSettings(kind="postgresql", uri=big_uri)
    with closing(PostgreSQL("shop", settings)) as source, closing(source.open(readers)) as state:
        reader = state.read(FragmentQuery("SELECT id FROM public.small"))
        if first == "one that is over":
            list(reader)
        elif first == "nothing":
            reader.close()
        postgres.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{big_uri.rsplit('/', 1)[1]}' AND application_name = 'batuta-sql'"
        )
        with pytest.raises(batuta_sql.OperationalError) as caught:
            # What has been sent is still read; the next one joins a state that is gone.
            for _ in range(3):
                list(state.read(FragmentQuery("SELECT id FROM public.small")))
        assert caught.value.source == "shop"
    with connect(big_uri) as connection:
        assert usable(connection)
