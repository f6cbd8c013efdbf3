"""Connections to the engine that several threads share."""

from __future__ import annotations

import threading
import time

import duckdb
import pytest

from batuta_sql.engines.duckdb import close_when_free, when_free

LONG = "SELECT count(*) FROM range(100000000) a, range(1000) b"


def started(connection: duckdb.DuckDBPyConnection, *, closes: bool) -> threading.Thread:
    """A thread in which a long query runs; whether it closes the connection after that."""
    begun = threading.Event()

    def run() -> None:
        begun.set()
        with pytest.raises(duckdb.InterruptException):
            connection.execute(LONG).fetchall()
        if closes:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    time.sleep(0.02)
    return thread


@pytest.mark.parametrize("closes", [False, True])
def test_a_connection_in_use_is_closed_and_its_query_ended(closes: bool) -> None:
    for _ in range(30):
        connection = duckdb.connect()
        thread = started(connection, closes=closes)
        close_when_free(connection)
        thread.join(20)
        assert not thread.is_alive()
        with pytest.raises(duckdb.ConnectionException):
            connection.execute("SELECT 1")


def test_a_connection_that_was_closed_by_another_while_it_was_waited_for() -> None:
    connection = duckdb.connect()

    def busy_once() -> None:
        connection.close()
        raise duckdb.ResourceInUseException("busy")

    when_free(connection, busy_once)
