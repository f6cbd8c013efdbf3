"""``batuta-sql serve``: says where it listens, writes a line for each query, ends on a signal."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from batuta_sql.cli.launch import DONE, INTERRUPTED, UsageError
from batuta_sql.errors import ConfigError
from batuta_sql.guards.egress import enforced

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batuta_sql.config import ServeSettings, Settings
    from batuta_sql.flight.users import User

_END_SECONDS = 5.0
"""How long calls have to end after a signal."""


_LOOK_SECONDS = 0.1


def with_options(settings: Settings, options: Mapping[str, Any]) -> Settings:
    """Settings with what the command line says beside them.

    :raises UsageError: for a value that cannot be.
    """
    told = {**dict(settings.serve), **options}
    try:
        return settings.model_copy(update={"serve": type(settings.serve).model_validate(told)})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        key = ".".join(str(p) for p in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{key}: {said}" if key else said) from None


def serve(settings: Settings, allow_labels: Sequence[str], max_cost_usd: float | None) -> int:
    """Serves until a signal comes; must be called in the main thread.

    :raises ConfigError: for settings that cannot be served by, or a port that is taken.
    """
    try:
        import google.protobuf  # noqa: F401
    except ImportError:
        raise ConfigError(
            "the server needs the package protobuf", hint="pip install 'batuta-sql[serve]'"
        ) from None
    from batuta_sql.flight.authentication import Authenticator
    from batuta_sql.flight.connections import Connections
    from batuta_sql.flight.places import endpoint_of, places_of
    from batuta_sql.flight.server import FlightSqlServer
    from batuta_sql.flight.users import users_of

    told = settings.serve
    if told.users and allow_labels:
        raise ConfigError(
            "there are users, and --allow-label names none",
            hint="give it to a user: serve.users.NAME.allow_labels",
        )
    endpoint, places = endpoint_of(told, settings.tier), places_of(told)
    authenticator = Authenticator(told.users, told.token_hours * 3600)
    users = users_of(told.users, allow_labels, max_cost_usd)
    ended = _Signals()
    connections = Connections(settings, places.most)
    # A Unix socket is this user's alone.
    mask = os.umask(0o177) if told.socket is not None else None
    try:
        server = FlightSqlServer(
            endpoint,
            connections,
            authenticator,
            users,
            places,
            told.ticket_seconds,
            told.idle_seconds,
            _log,
        )
    except Exception as error:
        connections.close()
        raise ConfigError(
            f"nothing can be served at {endpoint.location}: {_first_line(error)}",
            hint="the port may be in use, or the certificate and the key do not go together",
        ) from None
    finally:
        if mask is not None:
            os.umask(mask)
    print(f"listening at {_address(endpoint.location, server.port)}", flush=True)
    _say_who_may_ask(told)
    number = ended.wait()
    server.stop_queries()
    _shut_down(server, DONE if number == signal.SIGTERM else INTERRUPTED)
    connections.close()
    return DONE if number == signal.SIGTERM else INTERRUPTED


def _address(location: str, port: int) -> str:
    """What clients dial: the location, with the port that was taken."""
    if location.startswith("grpc+unix:"):
        return location
    return f"{location.rpartition(':')[0]}:{port}"


def _say_who_may_ask(told: ServeSettings) -> None:
    if not told.users:
        who = "you" if told.socket is not None else "everybody on this machine"
        print(f"no users are configured: {who} may ask", flush=True)
    if enforced() is not None and told.socket is None:
        print(
            "sealed: only programs under the same seal reach this address; --socket PATH is"
            " reached from outside",
            flush=True,
        )


class _Signals:
    """The first of SIGINT and SIGTERM that comes; a second one ends the process at once."""

    def __init__(self) -> None:
        self._number: int | None = None
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, self._come)

    def wait(self) -> int:
        while self._number is None:
            time.sleep(_LOOK_SECONDS)
        return self._number

    def _come(self, number: int, frame: Any) -> None:
        if self._number is not None:
            os._exit(INTERRUPTED)
        self._number = number


def _shut_down(server: Any, status: int) -> None:
    """Ends the transport; a call that does not end is cut off with the process."""
    ending = threading.Thread(target=server.shutdown, name="batuta-shutdown", daemon=True)
    ending.start()
    ending.join(_END_SECONDS)
    if ending.is_alive():
        sys.stderr.flush()
        os._exit(status)


def _log(user: User, status: str, seconds: float, rows: int) -> None:
    """One line for a query; no SQL: it may quote what a label protects."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = f"{now} user={user.name} status={status!r} seconds={seconds:.3f} rows={rows}"
    print(line, file=sys.stderr, flush=True)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
