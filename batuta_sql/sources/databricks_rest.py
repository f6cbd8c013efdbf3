"""The REST face of a Databricks workspace: login, retries, errors in the workspace's own words.

Errors: https://docs.databricks.com/api/workspace/introduction ``{"error_code", "message"}``. OAuth,
machine to machine: https://docs.databricks.com/dev-tools/auth/oauth-m2m.html.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import tenacity

from batuta_sql.credentials import Credential, Renewing
from batuta_sql.databrickscfg import WorkspaceLogin, workspace_of
from batuta_sql.errors import ConfigError, OperationalError, QueryCancelled
from batuta_sql.secrets import HIDDEN, redact
from batuta_sql.sources.http_package import http_package
from batuta_sql.sources.refusals import Refusals

if TYPE_CHECKING:
    import httpx

    from batuta_sql.source_settings import WorkspaceSettings

ATTEMPTS = 4
"""Requests that are sent for one, at most."""

SILENCE_SECONDS = 60.0
"""For how long an answer may stop in the middle, where ``query_timeout`` says nothing."""

_LONGEST_WAIT_SECONDS = 30.0
_BUSY = frozenset({429, 502, 503, 504})


class RestError(OperationalError):
    """A request that the workspace refused.

    :param status: the HTTP status; 0 where there was no answer.
    :param code: the workspace's ``error_code``.
    :param after: seconds that the workspace asks to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        source: str,
        status: int = 0,
        code: str = "",
        after: float | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, source=source, hint=hint)
        self.status = status
        self.code = code
        self.after = after

    @property
    def is_missing(self) -> bool:
        """Whether what was asked for is not there, as against a path that nobody serves."""
        return self.status == 404 and self.code != "ENDPOINT_NOT_FOUND"

    @property
    def is_unserved(self) -> bool:
        return self.status == 501 or self.code in ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED")


class _Hidden(set[str]):
    """Secret values that were used, to be taken out of messages."""

    def __repr__(self) -> str:
        return HIDDEN


class Workspace:
    """One workspace as one user; may be used by many threads.

    Nothing is read or contacted before the first call.
    """

    def __init__(self, source: str, settings: WorkspaceSettings) -> None:
        self.source = source
        self._settings = settings
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._login: WorkspaceLogin | None = None
        self.refusals = Refusals()
        self._bearer = Renewing(self._asked_for)
        self._seen = _Hidden()

    @property
    def login(self) -> WorkspaceLogin:
        """Host and login.

        :raises ConfigError: where they are not to be had.
        """
        if self._login is None:
            self._login = workspace_of(self._settings)
        return self._login

    @property
    def warehouse_id(self) -> str:
        found = self.login.warehouse_id
        if found is None:
            raise ConfigError(
                f"sources.{self.source} names no SQL warehouse",
                hint="give warehouse_id, or http_path",
            )
        return found

    @property
    def client(self) -> httpx.Client:
        """The client of the workspace and of the storage behind it: it carries no login itself."""
        with self._lock:
            if self._client is None:
                httpx = http_package(self.source, "databricks")
                silence = self._settings.query_timeout or SILENCE_SECONDS
                self._client = httpx.Client(
                    timeout=httpx.Timeout(
                        min(silence, SILENCE_SECONDS), connect=self._settings.connect_timeout
                    ),
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
                    follow_redirects=False,
                )
            return self._client

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def clean(self, text: str) -> str:
        """A message of the workspace without secrets, on one line."""
        secrets = [*self._settings.secrets(), *self._seen]
        return redact(" ".join(text.split()), secrets)

    # --- requests ------------------------------------------------------------------------------

    def get(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        stop: threading.Event | None = None,
    ) -> dict[str, Any]:
        return self.call("GET", path, params=params, stop=stop)

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        stop: threading.Event | None = None,
        attempts: int = ATTEMPTS,
    ) -> dict[str, Any]:
        """The answer to a request, as JSON.

        A GET is sent again after any failure that may pass; another request only where the
        workspace has certainly not carried it out.

        :param stop: ends the waiting between two tries.
        :raises RestError: what the workspace said in the end.
        :raises OperationalError: where it could not be reached.
        """
        stop = stop or threading.Event()
        again = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(attempts) | tenacity.stop_when_event_set(stop),
            wait=_pause,
            retry=tenacity.retry_if_exception(lambda e: _may_pass(e, method)),
            sleep=tenacity.sleep_using_event(stop),
            reraise=True,
        )
        result: dict[str, Any] = again(self._once, method, path, params, body)
        return result

    def _once(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        body: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        token = self._token()
        answer = self._sent(method, path, params, body, token)
        if answer.status_code == 401 and self._renewed(token):
            # It may have been revoked, or a clock be wrong: once more, with a new one.
            answer = self._sent(method, path, params, body, self._token())
        return self._read(answer)

    def _sent(self, method: str, path: str, params: Any, body: Any, token: str) -> httpx.Response:
        httpx = http_package(self.source, "databricks")
        try:
            return self.client.request(
                method,
                self.login.host + path,
                params=params,
                json=body,
                headers={"Authorization": f"Bearer {token}", "User-Agent": "batuta-sql"},
            )
        except httpx.HTTPError as error:
            raise self.unreachable(error) from None

    def unreachable(self, error: Exception) -> OperationalError:
        """The error of a request without a whole answer."""
        httpx = http_package(self.source, "databricks")
        host = self.login.host
        certainly_not_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        words = self.clean(str(error)) or type(error).__name__
        hint = "check host and network" if certainly_not_sent else None
        return RestError(
            f"{host} does not answer: {words}",
            source=self.source,
            status=0,
            code="NOT_SENT" if certainly_not_sent else "BROKEN",
            hint=hint,
        )

    def _read(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            # What changes something may be answered with nothing.
            is_empty = not answer.content and answer.request.method != "GET"
            told = {} if is_empty else answer.json()
        except ValueError:
            told = None
        if answer.is_success and isinstance(told, dict):
            return told
        if not isinstance(told, dict):
            told = {"message": f"an answer that is no JSON (status {answer.status_code})"}
        after = _seconds(answer.headers.get("Retry-After"))
        self.refusals.note(answer.status_code, after)
        code = str(told.get("error_code") or told.get("error") or "")
        message = str(
            told.get("message") or told.get("error_description") or code
            or f"status {answer.status_code}"
        )  # fmt: skip
        hint = None
        if answer.status_code == 401:
            hint = "check token, or client_id and client_secret, of this source"
        elif answer.status_code == 403:
            hint = "the user or service principal lacks a permission in the workspace"
        raise RestError(
            self.clean(message),
            source=self.source,
            status=answer.status_code,
            code=code,
            after=after,
            hint=hint,
        )

    # --- login ---------------------------------------------------------------------------------

    def _token(self) -> str:
        login = self.login
        if login.token is not None:
            found = login.token.reveal()
            self._seen.add(found)
            return found
        if login.client_id is None:
            raise ConfigError(
                f"sources.{self.source} has no login",
                hint="give token, client_id and client_secret, or a profile that has them",
            )
        return self._bearer.value()

    def _asked_for(self) -> Credential:
        login = self.login
        httpx = http_package(self.source, "databricks")
        assert login.client_id is not None
        assert login.client_secret is not None
        secret = login.client_secret.reveal()
        self._seen.add(secret)
        asked = datetime.now(UTC)
        try:
            answer = self.client.post(
                f"{login.host}/oidc/v1/token",
                data={"grant_type": "client_credentials", "scope": "all-apis"},
                auth=(login.client_id, secret),
            )
        except httpx.HTTPError as error:
            raise self.unreachable(error) from None
        told = self._read(answer)
        value = told.get("access_token")
        if not isinstance(value, str):
            raise OperationalError("the workspace gave no access token", source=self.source)
        self._seen.add(value)
        return Credential(value, asked + timedelta(seconds=float(told.get("expires_in") or 3600)))

    def _renewed(self, refused: str) -> bool:
        """Whether another try may have another token than the one that was refused."""
        given = self.login.token
        return given.refused(refused) if given is not None else self._bearer.refused(refused)

    def seconds_left(self) -> float | None:
        """Of the token's life; None where that is not known."""
        given = self.login.token if self._login is not None else None
        return given.seconds_left() if given is not None else self._bearer.seconds_left()


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text is not None else None
    except ValueError:
        return None


_backing_off = tenacity.wait_exponential_jitter(multiplier=0.2, max=5.0, jitter=0.3)


def _pause(state: tenacity.RetryCallState) -> float:
    """What the workspace asks for, else a growing time with jitter."""
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, RestError) and error.after is not None:
        return min(error.after, _LONGEST_WAIT_SECONDS)
    return float(_backing_off(state))


def _may_pass(error: BaseException, method: str) -> bool:
    if not isinstance(error, RestError):
        return False
    if error.status in (429, 503) or error.code == "NOT_SENT":
        return True
    passing = error.status in _BUSY or error.status in (0, 500)
    return method == "GET" and passing


def refuse_if(stop: threading.Event, source: str) -> None:
    """:raises QueryCancelled: once ``stop`` is set."""
    if stop.is_set():
        raise QueryCancelled("the query was cancelled", source=source)
