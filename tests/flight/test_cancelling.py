"""A query whose client gives up, dies or is told to stop leaves nothing running at its source."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.flight as fl
import pytest

from batuta_sql.flight import messages
from tests.faults.conftest import eventually, running  # noqa: F401 - a fixture
from tests.flight.conftest import ANN, BO, USERS, Raw, Server, client, fetched, of_postgres, served

NAP = "SELECT count(nap) FROM crm.nap"
ROWS = "SELECT id, nap FROM crm.nap"


@pytest.fixture
def server(nap_uri: str, tmp_path: Path) -> Iterator[Server]:
    path = tmp_path / "batuta.toml"
    path.write_text(of_postgres(nap_uri, USERS))
    with served(path, tmp_path) as found:
        yield found


class Waiting:
    """A query that a client waits for in another thread."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self.error: BaseException | None = None
        self._ask = ask
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._ask()
        except BaseException as error:
            self.error = error

    def end(self) -> BaseException | None:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.error


def is_usable(server: Server) -> bool:
    with client(server) as connection:
        return fetched(connection, "SELECT 42 AS answer") == [(42,)]


def test_cancelled_by_adbc(server: Server, is_napping: Callable[[], bool]) -> None:
    with client(server) as connection, connection.cursor() as cursor:
        waiting = Waiting(lambda: cursor.execute(NAP).fetchall())
        assert eventually(is_napping)
        cursor.adbc_cancel()
        assert eventually(lambda: not is_napping())
        assert waiting.end() is not None
    assert is_usable(server)
    assert eventually(lambda: "status='cancelled'" in "".join(server.lines()))


def test_cancelled_by_its_flight_info(server: Server, is_napping: Callable[[], bool]) -> None:
    with closing(Raw(server)) as raw, closing(Raw(server)) as other:
        info = raw.query(NAP)
        waiting = Waiting(lambda: raw.get(info).read_all())
        assert eventually(is_napping)
        request = messages.message("CancelFlightInfoRequest", info=info.serialize())
        (answer,) = other.act("CancelFlightInfo", request.SerializeToString())
        status = messages.parsed("CancelFlightInfoResult", answer).status
        assert status == messages.CANCELLED
        assert not is_napping()
        assert isinstance(waiting.end(), fl.FlightCancelledError)


def test_cancelled_in_the_way_of_older_clients(
    server: Server, is_napping: Callable[[], bool]
) -> None:
    with closing(Raw(server)) as raw, closing(Raw(server)) as other:
        info = raw.query(NAP)
        waiting = Waiting(lambda: raw.get(info).read_all())
        assert eventually(is_napping)
        request = messages.message("ActionCancelQueryRequest", info=info.serialize())
        (answer,) = other.act("CancelQuery", messages.packed(request))
        assert messages.unpacked(answer).result == messages.CANCELLED
        assert not is_napping()
        assert waiting.end() is not None


def test_explain_analyze_is_cancelled_too(server: Server, is_napping: Callable[[], bool]) -> None:
    with client(server) as connection, connection.cursor() as cursor:
        waiting = Waiting(lambda: cursor.execute(f"EXPLAIN ANALYZE {NAP}").fetchall())
        assert eventually(is_napping)
        cursor.adbc_cancel()
        assert eventually(lambda: not is_napping())
        assert waiting.end() is not None


@pytest.mark.parametrize("sql", [NAP, ROWS])
def test_a_client_that_is_killed(server: Server, is_napping: Callable[[], bool], sql: str) -> None:
    program = (
        "import sys, adbc_driver_flightsql.dbapi as dbapi\n"
        "uri, user, password, sql = sys.argv[1:]\n"
        "log_in = {'username': user, 'password': password}\n"
        "connection = dbapi.connect(uri, db_kwargs=log_in, autocommit=True)\n"
        "connection.cursor().execute(sql).fetchall()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, server.uri, *ANN, sql])
    assert eventually(is_napping)
    process.kill()
    process.wait()
    assert eventually(lambda: not is_napping())
    assert is_usable(server)


def test_a_reader_that_is_left(nap_uri: str, tmp_path: Path, running: Any) -> None:  # noqa: F811
    """One that took some rows of many, and closes."""
    path = tmp_path / "batuta.toml"
    path.write_text(of_postgres(nap_uri, USERS))
    with served(path, tmp_path) as server, closing(Raw(server)) as raw:
        sql = "SELECT g, filler FROM crm.public.many"
        reader = raw.get(raw.query(sql))
        assert reader.read_chunk().data.num_rows > 0
        reader.cancel()
        assert eventually(lambda: running("many") == 0)
        assert eventually(lambda: "status='cancelled'" in "".join(server.lines()))


def test_nobody_ends_the_query_of_another(server: Server, is_napping: Callable[[], bool]) -> None:
    with closing(Raw(server)) as raw, closing(Raw(server, BO)) as other:
        info = raw.query(NAP)
        waiting = Waiting(lambda: raw.get(info).read_all())
        assert eventually(is_napping)
        request = messages.message("CancelFlightInfoRequest", info=info.serialize())
        (answer,) = other.act("CancelFlightInfo", request.SerializeToString())
        status = messages.parsed("CancelFlightInfoResult", answer).status
        assert status == messages.NOT_CANCELLABLE
        assert is_napping()
        raw.act("CancelFlightInfo", request.SerializeToString())
        assert waiting.end() is not None


def test_a_client_that_reads_nothing_loses_its_place(
    nap_uri: str,
    tmp_path: Path,
    running: Any,  # noqa: F811
) -> None:
    path = tmp_path / "batuta.toml"
    path.write_text(of_postgres(nap_uri, "[serve]\nidle_seconds = 0.5\n" + USERS))
    with served(path, tmp_path) as server, closing(Raw(server)) as raw:
        reader = raw.get(raw.query("SELECT g, filler FROM crm.public.many"))
        assert eventually(lambda: "status=" in "".join(server.lines()))
        assert running("many") == 0
        with pytest.raises(fl.FlightError, match=r"nothing of its result was taken for 0\.5 s"):
            reader.read_all()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_server_that_is_stopped(
    server: Server, is_napping: Callable[[], bool], number: signal.Signals, status: int
) -> None:
    with closing(Raw(server)) as raw:
        info = raw.query(NAP)
        waiting = Waiting(lambda: raw.get(info).read_all())
        assert eventually(is_napping)
        server.process.send_signal(number)
        assert server.process.wait(30) == status
        assert not is_napping()
        assert waiting.end() is not None
    assert "Traceback" not in server.log.read_text()


def test_a_source_that_fails_in_mid_stream(server: Server) -> None:
    with client(server) as connection, pytest.raises(connection.Error) as caught:
        fetched(connection, "SELECT id, part FROM crm.broken")
    assert "crm: " in str(caught.value)
    assert "division by zero" in str(caught.value)
