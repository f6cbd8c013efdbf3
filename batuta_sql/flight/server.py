"""The server: calls of Flight, as Flight SQL uses them.

GetFlightInfo plans a query and keeps it under a ticket; DoGet with the ticket runs it. A prepared
statement is its text and the parameters that were bound last.

https://arrow.apache.org/docs/format/FlightSql.html
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl
from cachetools import TTLCache

from batuta_sql.errors import (
    Error,
    NotSupportedError,
    ProgrammingError,
    QueryCancelled,
)
from batuta_sql.flight import messages, metadata
from batuta_sql.flight.admission import Admission, DailyBudgets, Places
from batuta_sql.flight.authentication import (
    MIDDLEWARE,
    Authentication,
    Authenticator,
    Handshake,
)
from batuta_sql.flight.connections import Connections
from batuta_sql.flight.handles import Handles
from batuta_sql.flight.running import (
    IsGone,
    Parameters,
    Request,
    ResultStream,
    RunningQuery,
    status_of,
)
from batuta_sql.flight.statuses import streamed_by_flight, told_by_flight
from batuta_sql.flight.users import User

_CANCEL_SECONDS = 5.0
"""How long a cancel waits for a query to end, before it says that it is being cancelled."""

_TOLD_SECONDS = 2.0
"""How long the schema of a query holds that was told when it was prepared, and is asked for again
when it is run.
"""

_PARAMETER = pa.dense_union(
    [
        pa.field("string", pa.string()),
        pa.field("bytes", pa.binary()),
        pa.field("bigint", pa.int64()),
        pa.field("double", pa.float64()),
        pa.field("bool", pa.bool_()),
    ]
)
"""Of any type: types of parameters are those of the values that are bound."""

_ACTIONS = {
    "CreatePreparedStatement": "Prepares a query.",
    "ClosePreparedStatement": "Forgets a prepared query.",
    "CancelFlightInfo": "Ends a query, at its sources too.",
    "CancelQuery": "The same, for older clients.",
    "CloseSession": "Sessions keep nothing here.",
}


@dataclass(frozen=True)
class Endpoint:
    """Where the server listens.

    :param location: Flight's URI.
    :param certificate: of TLS, with its key, both PEM; None: without TLS.
    """

    location: str
    certificate: tuple[bytes, bytes] | None = None


@dataclass(frozen=True)
class _Prepared:
    sql: str
    names: tuple[str, ...]
    parameters: Parameters = None


class FlightSqlServer(fl.FlightServerBase):  # type: ignore[misc]
    """A read-only Flight SQL server over the sources of a configuration.

    :param users: by name; see ``users_of``.
    :param ticket_seconds: the life of a ticket that is not used.
    :param idle_seconds: how long a client may take nothing of a result.
    :param log: told of each query's end: user, status, seconds, rows.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        connections: Connections,
        authenticator: Authenticator,
        users: dict[str, User],
        places: Places,
        ticket_seconds: float,
        idle_seconds: float,
        log: Callable[[User, str, float, int], None],
    ) -> None:
        self._connections = connections
        self._users = users
        self._admission = Admission(places)
        self._budgets = DailyBudgets()
        self._idle_seconds = idle_seconds
        self._log = log
        self._tickets = Handles[Request](
            ticket_seconds,
            "this ticket is not yours, was used already, or has ended",
            "ask for the query's flight info again",
        )
        self._prepared = Handles[_Prepared](
            metadata.STATEMENT_SECONDS,
            "this prepared statement is not yours, was closed, or has ended",
            "prepare it again",
        )
        self._told: TTLCache[str, pa.Schema] = TTLCache(256, _TOLD_SECONDS)
        """Schemas of queries without parameters, by their texts."""
        self._running: dict[bytes, RunningQuery] = {}
        self._lock = threading.Lock()
        self._is_closing = False
        super().__init__(
            endpoint.location,
            auth_handler=Handshake(),
            tls_certificates=[endpoint.certificate] if endpoint.certificate else None,
            middleware={MIDDLEWARE: Authentication(authenticator)},
        )

    # --- calls of Flight -----------------------------------------------------------------------

    @told_by_flight
    def get_flight_info(self, context: Any, descriptor: Any) -> fl.FlightInfo:
        """A query is planned, a metadata command is only looked at."""
        user = self._user(context)
        command = messages.unpacked(_command_of(descriptor))
        schema = metadata.schema_of(command)
        if schema is not None:
            return _info(schema, descriptor, messages.packed(command))
        request = self._request(user, command)
        schema = self._planned(request)
        if schema is not None and any(_has_enum(f.type) for f in schema):
            # One that a source computes may come as text: clients refuse what was not promised.
            schema = None
        handle = self._tickets.add(user.name, request)
        ticket = messages.message("TicketStatementQuery", statement_handle=handle)
        return _info(schema, descriptor, messages.packed(ticket))

    @told_by_flight
    def get_schema(self, context: Any, descriptor: Any) -> fl.SchemaResult:
        """The schema of a query's result or of a metadata command's answer."""
        user = self._user(context)
        command = messages.unpacked(_command_of(descriptor))
        schema = metadata.schema_of(command)
        if schema is None:
            schema = self._planned(self._request(user, command))
        if schema is None:
            raise NotSupportedError(
                "only running it tells the columns of this statement", hint="run it"
            )
        return fl.SchemaResult(schema)

    @told_by_flight
    def do_get(self, context: Any, ticket: Any) -> fl.FlightDataStream:
        """Runs a query, or answers a metadata command."""
        user = self._user(context)
        command = messages.unpacked(ticket.ticket)
        if metadata.schema_of(command) is not None:
            return fl.RecordBatchStream(metadata.answer(command, self._connections.shared))
        if messages.name_of(command) != "TicketStatementQuery":
            raise ProgrammingError(
                "this is no ticket of this server", hint="ask for the query's flight info first"
            )
        return self._run(user, command.statement_handle, context.is_cancelled)

    @told_by_flight
    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Binds the parameters of a prepared statement."""
        user = self._user(context)
        command = messages.unpacked(_command_of(descriptor))
        if messages.name_of(command) != "CommandPreparedStatementQuery":
            raise NotSupportedError("this server takes no data but parameters")
        handle = command.prepared_statement_handle
        prepared = self._prepared.get(user.name, handle)
        bound = replace(prepared, parameters=_bound(reader, prepared.names))
        self._prepared.replace(user.name, handle, bound)

    @told_by_flight
    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Nothing in Flight SQL uses it."""
        raise NotSupportedError("this server does not exchange data")

    @told_by_flight
    def do_action(self, context: Any, action: Any) -> Iterator[bytes]:
        """Prepares, closes, cancels."""
        user = self._user(context)
        data = bytes(action.body)
        match action.type:
            case "CreatePreparedStatement":
                return iter([self._prepare(user, messages.unpacked(data))])
            case "ClosePreparedStatement":
                self._prepared.take(user.name, messages.unpacked(data).prepared_statement_handle)
                return iter([])
            case "CancelQuery":
                result = self._cancel(user, messages.unpacked(data).info)
                answer = messages.message("ActionCancelQueryResult", result=result)
                return iter([messages.packed(answer)])
            case "CancelFlightInfo":
                request = messages.parsed("CancelFlightInfoRequest", data)
                status = self._cancel(user, request.info)
                answer = messages.message("CancelFlightInfoResult", status=status)
                return iter([answer.SerializeToString()])
            case "CloseSession":
                answer = messages.message("CloseSessionResult", status=messages.SESSION_CLOSED)
                return iter([answer.SerializeToString()])
            case "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint":
                raise NotSupportedError(
                    "this server is read-only and has no transactions", hint="switch autocommit on"
                )
        raise NotSupportedError(f'this server has no action "{action.type}"')

    @told_by_flight
    def list_actions(self, context: Any) -> list[tuple[str, str]]:
        """What ``do_action`` takes."""
        return list(_ACTIONS.items())

    @told_by_flight
    def list_flights(self, context: Any, criteria: Any) -> Iterator[Any]:
        """None: a flight is made for each query."""
        return iter([])

    # --- the end -------------------------------------------------------------------------------

    def stop_queries(self) -> None:
        """Ends all queries, at their sources too, and takes no more."""
        with self._lock:
            self._is_closing = True
            running = list(self._running.values())
        self._admission.close()
        for query in running:
            query.stop()
        for query in running:
            query.wait(_CANCEL_SECONDS)

    # --- queries -------------------------------------------------------------------------------

    def _user(self, context: Any) -> User:
        return self._users[context.get_middleware(MIDDLEWARE).user]

    def _request(self, user: User, command: Any) -> Request:
        match messages.name_of(command):
            case "CommandStatementQuery":
                _refuse_transaction(command)
                return Request(user, command.query)
            case "CommandPreparedStatementQuery":
                prepared = self._prepared.get(user.name, command.prepared_statement_handle)
                return Request(user, prepared.sql, prepared.parameters)
        raise NotSupportedError(f"{messages.name_of(command)} is no query")

    def _planned(self, request: Request) -> pa.Schema | None:
        """The schema of a query that its user may run; None where only running it tells."""
        shared = self._connections.shared
        try:
            request.user.labels.check_query(shared, request.sql, request.parameters)
            return self._schema(request)
        except Error as error:
            self._log(request.user, status_of(error), 0.0, 0)
            raise

    def _schema(self, request: Request) -> pa.Schema | None:
        shared, sql = self._connections.shared, request.sql
        if request.parameters:
            return shared.result_schema(sql, request.parameters)
        with self._lock:
            # Asked for at once: what is there may have ended a moment later.
            told = self._told.get(sql)
        if told is not None:
            return told
        schema = shared.result_schema(sql, request.parameters)
        if schema is not None:
            with self._lock:
                self._told[sql] = schema
        return schema

    def _run(self, user: User, handle: bytes, is_gone: IsGone) -> fl.FlightDataStream:
        request = self._tickets.take(user.name, handle)
        query = RunningQuery(
            request,
            self._connections,
            self._admission,
            self._budgets,
            self._idle_seconds,
            self._ended(handle),
        )
        with self._lock:
            if self._is_closing:
                raise QueryCancelled("the server is stopping")
            self._running[handle] = query
        schema = query.begin(is_gone)
        pieces = streamed_by_flight(query.pieces(is_gone))
        return fl.GeneratorStream(schema, ResultStream(query, schema, pieces))

    def _ended(self, handle: bytes) -> Callable[[User, str, float, int], None]:
        def ended(user: User, status: str, seconds: float, rows: int) -> None:
            with self._lock:
                self._running.pop(handle, None)
            self._log(user, status, seconds, rows)

        return ended

    def _prepare(self, user: User, request: Any) -> bytes:
        if messages.name_of(request) != "ActionCreatePreparedStatementRequest":
            raise ProgrammingError("the request is no ActionCreatePreparedStatementRequest")
        _refuse_transaction(request)
        shared = self._connections.shared
        names = shared.parameter_names(request.query)
        # What depends on a parameter has another type, perhaps, when its value is known.
        nothing = _parameters([None] * len(names), names)
        schema = self._planned(Request(user, request.query, nothing))
        handle = self._prepared.add(user.name, _Prepared(request.query, names))
        parameters = pa.schema([pa.field(n, _PARAMETER) for n in names])
        answer = messages.message(
            "ActionCreatePreparedStatementResult",
            prepared_statement_handle=handle,
            dataset_schema=bytes(schema.serialize()) if schema is not None else b"",
            parameter_schema=bytes(parameters.serialize()) if names else b"",
        )
        return messages.packed(answer)

    def _cancel(self, user: User, info: bytes) -> int:
        try:
            endpoints = fl.FlightInfo.deserialize(info).endpoints
        except (pa.ArrowException, ValueError, TypeError):
            raise ProgrammingError("the request has no flight info") from None
        tickets = [messages.unpacked(e.ticket.ticket) for e in endpoints]
        found = [
            self._cancel_one(user, t.statement_handle)
            for t in tickets
            if messages.name_of(t) == "TicketStatementQuery"
        ]
        return max(found, default=messages.NOT_CANCELLABLE)

    def _cancel_one(self, user: User, handle: bytes) -> int:
        with self._lock:
            query = self._running.get(handle)
        if query is None:
            return self._forget_ticket(user, handle)
        if query.request.user.name != user.name:
            return messages.NOT_CANCELLABLE
        query.stop()
        return messages.CANCELLED if query.wait(_CANCEL_SECONDS) else messages.CANCELLING

    def _forget_ticket(self, user: User, handle: bytes) -> int:
        try:
            self._tickets.take(user.name, handle)
        except ProgrammingError:
            # It has ended, or is another user's.
            return messages.NOT_CANCELLABLE
        return messages.CANCELLED


def _command_of(descriptor: Any) -> bytes:
    if descriptor.command is None:
        raise ProgrammingError("the request names a path: this server takes commands of Flight SQL")
    return bytes(descriptor.command)


def _has_enum(kind: pa.DataType) -> bool:
    inner = (kind.field(i).type for i in range(kind.num_fields))
    return pa.types.is_dictionary(kind) or any(_has_enum(one) for one in inner)


def _info(schema: pa.Schema | None, descriptor: Any, ticket: bytes) -> fl.FlightInfo:
    return fl.FlightInfo(schema, descriptor, [fl.FlightEndpoint(ticket, [])], -1, -1)


def _refuse_transaction(command: Any) -> None:
    if command.transaction_id:
        raise NotSupportedError(
            "this server is read-only and has no transactions", hint="switch autocommit on"
        )


def _bound(reader: Any, names: tuple[str, ...]) -> Parameters:
    """The one set of parameters that a client sends.

    :raises NotSupportedError: for several sets.
    """
    rows: list[list[Any]] = []
    columns: list[str] = reader.schema.names
    for chunk in reader:
        batch = chunk.data
        if len(rows) + batch.num_rows > 1:
            raise NotSupportedError(
                "a query takes one set of parameters at a time", hint="run it once for each"
            )
        rows += [[c[0].as_py() for c in batch.columns] for _ in range(batch.num_rows)]
    if not rows:
        return None
    by_name = dict(zip(columns, rows[0], strict=True))
    if names and not names[0].isdigit() and set(names) == set(by_name):
        return by_name
    return _parameters(rows[0], names)


def _parameters(values: list[Any], names: tuple[str, ...]) -> Parameters:
    """Values in the order of the parameters' names."""
    if not names and not values:
        return None
    if names and not names[0].isdigit() and len(names) == len(values):
        return dict(zip(names, values, strict=True))
    return values
