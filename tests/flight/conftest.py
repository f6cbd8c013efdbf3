"""The real server as a process, and real clients of it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi
import pyarrow.flight as fl
import pytest

from batuta_sql.demo.postgres_server import PostgresServer
from batuta_sql.flight import messages
from tests.cli.conftest import config  # noqa: F401 - a fixture

ANN, BO = ("ann", "ann's secret"), ("bo", "bo's secret")

USERS = """
[serve.users.ann]
password = "ann's secret"
token = "ann's token"

[serve.users.bo]
password = "bo's secret"
"""


@dataclass
class Server:
    """A running ``batuta-sql serve``."""

    uri: str
    process: subprocess.Popen[str]
    log: Path

    def lines(self) -> list[str]:
        """What it has written for its queries."""
        return [s for s in self.log.read_text().splitlines() if "user=" in s]


@contextmanager
def served(path: Path, folder: Path, *options: str) -> Iterator[Server]:
    """Serves a configuration at a free port."""
    log = folder / "serve.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "batuta_sql", "--config", str(path), "serve", "--port", "0"]
            + list(options),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.fullmatch(r"listening at (\S+)\n", said)
        assert found is not None, said + log.read_text()
        yield Server(found[1], process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def client(server: Server, user: tuple[str, str] | None = ANN, **options: str) -> Iterator[Any]:
    """An ADBC connection."""
    log_in = {"username": user[0], "password": user[1]} if user else {}
    with closing(
        adbc_driver_flightsql.dbapi.connect(
            server.uri, db_kwargs={**log_in, **options}, autocommit=True
        )
    ) as connection:
        yield connection


def fetched(connection: Any, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    """All rows of a query."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found


class Raw:
    """A client that sends what it is told to."""

    def __init__(self, server: Server, user: tuple[str, str] | None = ANN) -> None:
        self.client = fl.connect(server.uri)
        header = [self.client.authenticate_basic_token(*user)] if user else []
        self.options = fl.FlightCallOptions(headers=header)

    def info(self, name: str, **values: Any) -> Any:
        """The flight info of a command."""
        return self.info_of(messages.packed(messages.message(name, **values)))

    def info_of(self, command: bytes) -> Any:
        descriptor = fl.FlightDescriptor.for_command(command)
        return self.client.get_flight_info(descriptor, self.options)

    def query(self, sql: str) -> Any:
        return self.info("CommandStatementQuery", query=sql)

    def get(self, info: Any) -> Any:
        """The reader of what a flight info promises."""
        return self.client.do_get(info.endpoints[0].ticket, self.options)

    def act(self, name: str, body: bytes) -> list[bytes]:
        answers = self.client.do_action(fl.Action(name, body), self.options)
        return [bytes(a.body.to_pybytes()) for a in answers]

    def prepare(self, sql: str) -> Any:
        request = messages.message("ActionCreatePreparedStatementRequest", query=sql)
        (answer,) = self.act("CreatePreparedStatement", messages.packed(request))
        return messages.unpacked(answer)

    def bind(self, handle: bytes, batch: Any) -> None:
        command = messages.message(
            "CommandPreparedStatementQuery", prepared_statement_handle=handle
        )
        descriptor = fl.FlightDescriptor.for_command(messages.packed(command))
        writer, _ = self.client.do_put(descriptor, batch.schema, self.options)
        writer.write_batch(batch)
        writer.close()

    def executed(self, handle: bytes) -> Any:
        info = self.info("CommandPreparedStatementQuery", prepared_statement_handle=handle)
        return self.get(info).read_all()

    def close(self) -> None:
        self.client.close()


@pytest.fixture(scope="session")
def with_users(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    path = tmp_path_factory.mktemp("users") / "batuta.toml"
    path.write_text(config.read_text() + USERS)
    return path


@pytest.fixture(scope="module")
def server(with_users: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(with_users, tmp_path_factory.mktemp("serve")) as found:
        yield found


@pytest.fixture
def ann(server: Server) -> Iterator[Any]:
    with client(server) as connection:
        yield connection


@pytest.fixture
def raw(server: Server) -> Iterator[Raw]:
    with closing(Raw(server)) as found:
        yield found


NAP = (
    "CREATE VIEW nap AS SELECT id, pg_sleep(0.2)::text AS nap FROM generate_series(1, 10000) s(id);"
    "CREATE VIEW broken AS SELECT id, 100 / (id - 150000) AS part"
    " FROM generate_series(1, 200000) s(id);"
    "CREATE TABLE keyed (id INT PRIMARY KEY, note TEXT);"
    "CREATE TABLE pair (a INT, b INT, PRIMARY KEY (b, a));"
    "CREATE VIEW many AS SELECT g, repeat('x', 200) AS filler FROM generate_series(1, 3000000) s(g)"
)


@pytest.fixture(scope="session")
def nap_uri(postgres: PostgresServer) -> Iterator[str]:
    """A database whose view ``nap`` takes half an hour, and whose view ``broken`` breaks off."""
    with postgres.database("flight") as uri:
        postgres.run(NAP, uri.rsplit("/", 1)[1])
        yield uri


@pytest.fixture
def is_napping(postgres: PostgresServer) -> Callable[[], bool]:
    """Whether PostgreSQL is running a statement over ``nap``."""
    return lambda: naps(postgres) > 0


def naps(postgres: PostgresServer) -> int:
    """How many statements over ``nap`` are running; its catalog has the name in other quotes."""
    running = (
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
        " AND query LIKE '%\"nap\"%' AND pid <> pg_backend_pid()"
    )
    return int(postgres.run(running))


def of_postgres(uri: str, rest: str = "") -> str:
    """A configuration with the source ``crm``."""
    return f'[sources.crm]\nkind = "postgresql"\nuri = "{uri}"\nlocality = "local"\n{rest}'
