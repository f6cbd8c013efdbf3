"""Spark Connect: what is cancelled ends at the server too, in its connection's session alone."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest
from adbc_driver_spark import dbapi

from batuta_sql.sources.spark_session import SessionConnection, options_of, session_of
from tests.emulators.process import Emulator
from tests.faults.conftest import eventually

ENDLESS = (
    "SELECT count(*) FROM range(0, 300000) a JOIN range(0, 300000) b ON a.id <> b.id + 1"
    " WHERE a.id * b.id % 7 <> 3"
)


def test_a_connection_string_tells_how_the_server_is_reached() -> None:
    session = session_of("sc://127.0.0.1", {})
    assert session is not None
    assert session.target == "127.0.0.1:15002"
    assert (session.is_encrypted, session.metadata, session.user) == (False, (), "batuta-sql")
    cluster = "sc://host:443/;token=to%2Fken;user_id=ann;x-databricks-cluster-id=c-1"
    session = session_of(cluster, {})
    assert session is not None
    assert (session.target, session.user, session.is_encrypted) == ("host:443", "ann", True)
    assert dict(session.metadata) == {
        "authorization": "Bearer to/ken",
        "x-databricks-cluster-id": "c-1",
    }
    assert "ken" not in repr(session)


def test_the_drivers_options_come_first() -> None:
    options = {
        "adbc.spark.token": "other",
        "adbc.spark.user_id": "bo",
        "adbc.spark.tls.enabled": "false",
        "adbc.spark.headers.X-Source": "s",
    }
    session = session_of("sc://host:1/;token=t;user_id=ann;use_ssl=true", options)
    assert session is not None
    assert (session.user, session.is_encrypted) == ("bo", False)
    assert dict(session.metadata) == {"authorization": "Bearer other", "x-source": "s"}
    assert options_of(session)["adbc.spark.user_id"] == "bo"


@pytest.mark.parametrize(
    ("uri", "options"),
    [("sc://host/;session_id=1", {}), ("sc://host", {"adbc.spark.session_id": "1"})],
)
def test_a_session_that_others_may_use_is_left_alone(uri: str, options: dict[str, str]) -> None:
    assert session_of(uri, options) is None


def seconds_of(server: Emulator) -> float:
    """The processor's time that a server has taken, with all that it has started."""
    port, leader = str(server.port).encode(), None
    every: dict[int, tuple[int, int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, told = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
            session = int(told[3])
            every[pid] = session, int(told[11]) + int(told[12])
            if session == pid and port in (stat.parent / "cmdline").read_bytes():
                leader = pid
    assert leader is not None
    ticks = sum(took for session, took in every.values() if session == leader)
    return ticks / os.sysconf("SC_CLK_TCK")


@pytest.mark.xdist_group("apache spark")
def test_what_is_cancelled_ends_at_the_server(apache_spark: Emulator) -> None:
    uri = f"sc://127.0.0.1:{apache_spark.port}"
    session = session_of(uri, {})
    assert session is not None
    made = dbapi.connect(uri, db_kwargs=options_of(session), autocommit=True)
    failed: list[Exception] = []
    with contextlib.closing(SessionConnection(made, session)) as connection:
        cursor = connection.cursor()

        def run() -> None:
            try:
                cursor.execute(ENDLESS)
                cursor.fetchall()
            except Exception as error:
                failed.append(error)

        def works() -> bool:
            before = seconds_of(apache_spark)
            time.sleep(1)
            return seconds_of(apache_spark) - before > 0.5

        thread = threading.Thread(target=run)
        thread.start()
        # It has begun when the server works on for some seconds.
        assert eventually(lambda: works() and works() and works(), 60)
        cursor.adbc_cancel()
        thread.join(30)
        assert failed
        assert eventually(lambda: not works(), 60)
        with contextlib.closing(connection.cursor()) as another:
            another.execute("SELECT 1")
            assert another.fetchall() == [(1,)]


def test_a_server_that_is_gone_cannot_be_asked() -> None:
    session = session_of("sc://127.0.0.1:1", {})
    assert session is not None
    session.interrupt()
