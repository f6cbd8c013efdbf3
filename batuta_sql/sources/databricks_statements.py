"""The SQL Statement Execution API: a statement's life.

A statement is sent without waiting, so that its id, by which it is cancelled, is known at once; it
is asked after with growing pauses. Its result: ``databricks_results``.
https://docs.databricks.com/api/workspace/statementexecution
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import tenacity

from batuta_sql.errors import (
    DatabaseError,
    DataError,
    Error,
    OperationalError,
    ProgrammingError,
    QueryCancelled,
)
from batuta_sql.sources.adbc import quietly
from batuta_sql.sources.databricks_rest import Workspace, refuse_if

STATEMENTS = "/api/2.0/sql/statements"
CANCEL_SECONDS = 2.0
"""How long a cancellation may take on its way: the network may be silent."""

_LINK_MARGIN = timedelta(seconds=30)
_RUNNING = frozenset({"PENDING", "RUNNING"})


@dataclass(frozen=True)
class Link:
    """Where a part of a result lies.

    :param url: a secret, and all that is needed: nothing else may be sent with it.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    expires: datetime | None
    rows: int | None
    bytes: int | None

    @property
    def is_good(self) -> bool:
        return self.expires is None or datetime.now(UTC) < self.expires - _LINK_MARGIN


@dataclass
class Statement:
    """One statement at a warehouse.

    :param body: the request's other keys: ``catalog``, ``schema``, ``disposition`` and so on.
    :param timeout: seconds that it may take to its end.
    """

    workspace: Workspace
    sql: str
    body: Mapping[str, Any]
    timeout: float | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    id: str | None = None
    ended: bool = False
    answer: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def source(self) -> str:
        return self.workspace.source

    def run(self) -> dict[str, Any]:
        """Sends the statement, waits for its end, and gives the whole answer.

        :raises Error: in the statement's own words where it failed.
        """
        refuse_if(self.stop, self.source)
        started = time.monotonic()
        sent = {"statement": self.sql, "warehouse_id": self.workspace.warehouse_id, **self.body}
        try:
            self.answer = self.workspace.call("POST", STATEMENTS, body=sent, stop=self.stop)
        except OperationalError as error:
            refuse_if(self.stop, self.source)
            # A statement that is wrong may be refused at once.
            raise _worded(error, self.source, getattr(error, "code", "")) from None
        self.id = self.answer.get("statement_id")
        if self.stop.is_set():
            self._send_cancel()
        left = None if self.timeout is None else self.timeout - (time.monotonic() - started)
        waiting = tenacity.Retrying(
            wait=tenacity.wait_exponential_jitter(
                multiplier=0.05, max=5, exp_base=1.6, jitter=0.05
            ),
            stop=_after(left) | tenacity.stop_when_event_set(self.stop),
            retry=tenacity.retry_if_result(lambda a: _state(a) in _RUNNING),
            sleep=tenacity.sleep_using_event(self.stop),
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
        )
        if _state(self.answer) in _RUNNING:
            self.answer = waiting(self._asked) or {}
        return self._checked()

    def reopen(self) -> dict[str, Any]:
        """The answer of a statement that has ended, known by its id alone.

        :raises OperationalError: where the warehouse has forgotten it.
        """
        self.answer = self._asked()
        if _state(self.answer) != "SUCCEEDED":
            raise OperationalError(
                f"the warehouse has no result of statement {self.id} any more",
                source=self.source,
                hint="run it again",
            )
        self.ended = True
        return self.answer

    def _asked(self) -> dict[str, Any]:
        return self.workspace.get(f"{STATEMENTS}/{self.id}", stop=self.stop)

    def _checked(self) -> dict[str, Any]:
        state = _state(self.answer)
        if self.stop.is_set():
            self.cancel()
            raise QueryCancelled("the query was cancelled", source=self.source)
        if state in _RUNNING:
            self.cancel()
            raise OperationalError(
                f"no end of the statement within {self.timeout:g} s",
                source=self.source,
                hint="raise query_timeout, or look at the warehouse",
            )
        self.ended = True
        if state == "SUCCEEDED":
            return self.answer
        told = (self.answer.get("status") or {}).get("error") or {}
        message = self.workspace.clean(str(told.get("message") or f"the statement is {state}"))
        if state == "CANCELED":
            # Not by us: an administrator, or a limit of the warehouse.
            message = "the statement was cancelled at the warehouse"
        error = OperationalError(message, source=self.source)
        raise _worded(error, self.source, str(told.get("error_code") or ""), told.get("sql_state"))

    def cancel(self) -> None:
        """Ends the statement at the warehouse, whatever thread waits for it."""
        self.stop.set()
        if self.id is not None and not self.ended:
            thread = threading.Thread(target=self._send_cancel, daemon=True)
            thread.start()
            thread.join(CANCEL_SECONDS)

    def _send_cancel(self) -> None:
        path = f"{STATEMENTS}/{self.id}/cancel"
        quietly(lambda: self.workspace.call("POST", path, body={}))

    def links(self, index: int, stop: threading.Event) -> dict[int, Link]:
        """New links to part ``index`` of the result, and to what else the answer names."""
        path = f"{STATEMENTS}/{self.id}/result/chunks/{index}"
        return links_of(self.workspace.get(path, stop=stop))


def _after(seconds: float | None) -> Any:
    return tenacity.stop_never if seconds is None else tenacity.stop_after_delay(max(seconds, 0))


def _state(answer: Mapping[str, Any]) -> str:
    return str((answer.get("status") or {}).get("state") or "")


def _worded(error: Error, source: str, code: str, sql_state: str | None = None) -> Error:
    """The error in the class that its SQLSTATE, or the code that begins its message, means."""
    message = error.message
    state = sql_state or message.rpartition("SQLSTATE: ")[2][:5]
    kind: type[Error] = type(error)
    if state.startswith("22"):
        kind = DataError
    elif state.startswith("42"):
        kind = ProgrammingError
    elif code in ("BAD_REQUEST", "INVALID_REQUEST"):
        kind = DatabaseError
    else:
        return error
    return kind(message, source=source, hint=error.hint)


def links_of(result: Mapping[str, Any]) -> dict[int, Link]:
    """The links of a ``result``, by the number of the part."""
    return {
        int(told["chunk_index"]): Link(
            str(told["external_link"]),
            {str(k): str(v) for k, v in (told.get("http_headers") or {}).items()},
            _moment(told.get("expiration")),
            told.get("row_count"),
            told.get("byte_count"),
        )
        for told in result.get("external_links") or ()
    }


def _moment(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found
