"""BigQuery's REST API, v2, over httpx: who asks, what is tried again, and what an error says.

https://cloud.google.com/bigquery/docs/reference/rest
"""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batuta_sql.errors import (
    ConfigError,
    DatabaseError,
    DataError,
    Error,
    OperationalError,
    ProgrammingError,
    QueryCancelled,
)
from batuta_sql.secrets import redact
from batuta_sql.source_settings import BigQuerySettings
from batuta_sql.sources.refusals import Refusals

if TYPE_CHECKING:
    import httpx

ENDPOINT = "https://bigquery.googleapis.com"
SCOPES = ("https://www.googleapis.com/auth/bigquery",)

ATTEMPTS = 5
"""How often one request is sent at the most, the first time included."""

REQUEST_SECONDS = 60.0
"""The longest silence of the server in one request, where no ``query_timeout`` is shorter."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
_RETRIED = frozenset({429, 500, 502, 503, 504})
_RETRIED_REASONS = frozenset({"rateLimitExceeded", "jobRateLimitExceeded", "backendError"})
"""https://cloud.google.com/bigquery/docs/error-messages: what may be sent again as it is."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""The hosts to which credentials may be sent without TLS."""

_MISSING = "pip install 'batuta-sql[bigquery]'"


class RemoteError(Exception):
    """What the service answered instead of a result, in its own words.

    :param status: of HTTP; 0 for the error of a job.
    :param reason: BigQuery's own word, such as ``notFound``.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


class Client:
    """Requests to one project's BigQuery; usable from several threads.

    Nothing is dialled, and no credential is read, before the first request.
    """

    def __init__(self, source: str, settings: BigQuerySettings) -> None:
        self._source = source
        self._settings = settings
        self._lock = threading.Lock()
        self._root = (settings.endpoint or ENDPOINT).rstrip("/") + "/bigquery/v2/projects"
        self.refusals = Refusals()
        self._secrets: list[str] = []
        self._audiences: dict[str, Any] = {}

    @cached_property
    def _http(self) -> httpx.Client:
        try:
            import httpx
        except ImportError:
            raise OperationalError(
                "httpx is not installed", source=self._source, hint=_MISSING
            ) from None
        return httpx.Client(
            timeout=self._timeout(None),
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=self._settings.max_connections
            ),
            follow_redirects=False,
        )

    def _timeout(self, deadline: float | None) -> httpx.Timeout:
        import httpx

        silence = REQUEST_SECONDS
        if deadline is not None:
            silence = max(0.05, min(silence, deadline - time.monotonic()))
        return httpx.Timeout(silence, connect=min(self._settings.connect_timeout, silence))

    # --- who asks ------------------------------------------------------------------------------

    @cached_property
    def _credentials(self) -> Any | None:
        """The caller's credentials; None for an endpoint without TLS: an emulator."""
        settings = self._settings
        endpoint = urllib.parse.urlsplit(settings.endpoint or ENDPOINT)
        if settings.credentials is None and endpoint.scheme == "http":
            return None
        if endpoint.scheme == "http" and endpoint.hostname not in LOOPBACK:
            raise ConfigError(
                "credentials are not sent over http to another machine",
                source=self._source,
                hint="give the endpoint as https://",
            )
        try:
            import google.auth
            from google.auth.exceptions import GoogleAuthError
        except ImportError:
            raise OperationalError(
                "google-auth is not installed", source=self._source, hint=_MISSING
            ) from None
        if settings.credentials is None:
            try:
                found, _ = google.auth.default(scopes=SCOPES)
            except GoogleAuthError as error:
                raise OperationalError(
                    f"no credentials: {error}",
                    source=self._source,
                    hint="set credentials, or run gcloud auth application-default login",
                ) from None
            return found
        return self._given(settings.credentials.reveal())

    def _given(self, text: str) -> Any:
        """Credentials from a JSON text, or from the path of a file of it."""
        hint = "credentials is a service account's JSON, or the path of its file"
        if not text.lstrip().startswith("{"):
            try:
                text = Path(text.strip()).expanduser().read_text("utf-8")
            except (OSError, UnicodeDecodeError, ValueError):
                raise ConfigError(
                    "the credentials are neither JSON nor a file that can be read",
                    source=self._source,
                    hint=hint,
                ) from None
        import google.auth
        from google.auth import jwt

        try:
            info = json.loads(text)
            private = ("private_key", "secret", "token")
            self._secrets += [str(v) for k, v in info.items() if any(p in k for p in private)]
            if info.get("type") == "service_account":
                # A token that the account signs itself: no other host has to be asked for one.
                # https://google.aip.dev/auth/4111
                signed: Any = jwt.Credentials
                return signed.from_service_account_info(info, audience=f"{ENDPOINT}/")
            load: Any = google.auth.load_credentials_from_dict
            return load(info, scopes=SCOPES)[0]
        except Exception as error:
            # Its message may quote what it could not read.
            raise ConfigError(
                f"the credentials cannot be used: {type(error).__name__}",
                source=self._source,
                hint=hint,
            ) from None

    def _authorised(self, *, anew: bool) -> dict[str, str]:
        """The headers that say who asks.

        :param anew: whether the token that was sent has been refused.
        """
        credentials = self._credentials
        if credentials is None:
            return {}
        return {"Authorization": f"Bearer {self._bearer(credentials, anew=anew)}"}

    def token(self, audience: str) -> str | None:
        """A token for another of the service's hosts; None where none is sent."""
        credentials = self._credentials
        if credentials is None:
            return None
        from google.auth import jwt

        signed: Any = jwt.Credentials
        if isinstance(credentials, signed):
            # Such a token is for one host.
            with self._lock:
                if audience not in self._audiences:
                    self._audiences[audience] = credentials.with_claims(audience=audience)
                credentials = self._audiences[audience]
        return self._bearer(credentials, anew=False)

    def _bearer(self, credentials: Any, *, anew: bool) -> str:
        from google.auth.exceptions import GoogleAuthError

        with self._lock:
            if anew or not credentials.valid:
                try:
                    credentials.refresh(self._token_request)
                except GoogleAuthError as error:
                    raise OperationalError(
                        self.clean(f"no token: {error}"),
                        source=self._source,
                        hint="check the credentials of this source",
                    ) from None
            token = credentials.token
            text = token.decode() if isinstance(token, bytes) else str(token)
            if text not in self._secrets:
                self._secrets.append(text)
            return text

    def _token_request(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> Any:
        """google-auth's transport (``google.auth.transport.Request``) over the same httpx."""
        import httpx
        from google.auth.exceptions import TransportError

        try:
            answer = self._http.request(method, url, content=body, headers=headers)
        except httpx.HTTPError as error:
            broken: Any = TransportError
            raise broken(str(error)) from None
        return _TokenAnswer(answer.status_code, answer.headers, answer.content)

    # --- asking --------------------------------------------------------------------------------

    def call(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        *,
        deadline: float | None = None,
        stopped: Callable[[], bool] = lambda: False,
        attempts: int = ATTEMPTS,
    ) -> dict[str, Any]:
        """The answer to a request, which may safely be sent again.

        :param path: below ``projects/``.
        :param deadline: of ``time.monotonic``; None: that of a request for metadata.
        :param stopped: whether the query was cancelled meanwhile.
        :raises RemoteError: what the service said instead; transient errors are tried again.
        :raises OperationalError: where the network, or what came over it, is broken.
        """
        import httpx

        if deadline is None:
            deadline = time.monotonic() + (self._settings.query_timeout or REQUEST_SECONDS)
        pause = _FIRST_PAUSE
        refused_once = False
        anew = False
        attempt = 0
        while True:
            attempt += 1
            if stopped():
                raise QueryCancelled("the query was cancelled", source=self._source)
            headers = self._authorised(anew=anew)
            anew = False
            wait: float | None = None
            failure: Exception
            try:
                answer = self._http.request(
                    method,
                    f"{self._root}/{path}",
                    params=parameters,
                    json=body,
                    headers=headers,
                    timeout=self._timeout(deadline),
                )
            except httpx.HTTPError as error:
                failure = self._broken(error)
            else:
                if answer.is_success:
                    return self._content(answer)
                refusal = _refusal(answer)
                self.refusals.note(answer.status_code, _retry_after(answer))
                if answer.status_code == 401 and headers and not refused_once:
                    refused_once = anew = True
                    attempt -= 1
                    continue
                if answer.status_code not in _RETRIED and refusal.reason not in _RETRIED_REASONS:
                    raise refusal
                failure = refusal
                wait = _retry_after(answer)
            wait = wait if wait is not None else pause * (0.5 + random.random())
            if attempt >= attempts or time.monotonic() + wait >= deadline:
                raise failure
            _sleep(wait, stopped)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def pages(
        self, path: str, parameters: Mapping[str, str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """The pages of a list."""
        token: str | None = None
        while True:
            more = {"pageToken": token} if token else {}
            page = self.call("GET", path, {**(parameters or {}), **more})
            yield page
            following = page.get("nextPageToken")
            if not following or following == token:
                return
            token = following

    def _content(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            content = answer.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise OperationalError(
                "the server's answer is not a JSON object",
                source=self._source,
                hint="check endpoint: something else may answer there",
            )
        return content

    def _broken(self, error: httpx.HTTPError) -> OperationalError:
        import httpx

        said = self.clean(str(error)) or type(error).__name__
        match error:
            case httpx.ConnectTimeout() | httpx.ConnectError():
                hint = "check endpoint, and that this machine reaches it"
            case httpx.TimeoutException():
                return OperationalError(
                    "no answer within the time allowed",
                    source=self._source,
                    hint="raise query_timeout, or look at the network",
                )
            case _:
                hint = "look at the network; the query may be run again"
        return OperationalError(f"the connection failed: {said}", source=self._source, hint=hint)

    # --- errors --------------------------------------------------------------------------------

    def clean(self, text: str) -> str:
        return redact(text, [*self._settings.secrets(), *self._secrets])

    def error(self, error: BaseException) -> Error:
        """Any failure as ours: the source's name and BigQuery's own words."""
        if isinstance(error, Error):
            return error
        if not isinstance(error, RemoteError):
            text = self.clean(f"{type(error).__name__}: {error}")
            return DatabaseError(text, source=self._source)
        message = self.clean(error.message)
        name = self._source
        match error.reason, error.status:
            case (("stopped" | "timeout"), _) if "timed out" in message.lower():
                # jobTimeoutMs
                return OperationalError(message, source=name, hint="raise query_timeout")
            case "stopped", _:
                return QueryCancelled(message, source=name)
            case "bytesBilledLimitExceeded", _:
                hint = "the tables have grown since the estimate: run the query again"
                return OperationalError(message, source=name, hint=hint)
            case "quotaExceeded" | "rateLimitExceeded" | "jobRateLimitExceeded", _:
                return OperationalError(message, source=name, hint="wait, or raise the quota")
            case "timeout", _:
                return OperationalError(message, source=name, hint="raise query_timeout")
            case _, 401:
                hint = "check the credentials of this source"
                return OperationalError(message, source=name, hint=hint)
            case "accessDenied" | "billingNotEnabled", _:
                hint = "the caller needs bigquery.jobUser on the project and dataViewer on the data"
                return OperationalError(message, source=name, hint=hint)
            case "invalidQuery", _:
                # The words of an error in evaluation; else the SQL itself is wrong.
                about_a_value = any(
                    w in message.lower() for w in ("overflow", "division by zero", "out of range")
                )
                kind = DataError if about_a_value else ProgrammingError
                return kind(message, source=name)
            case "notFound", _:
                return ProgrammingError(message, source=name)
        return OperationalError(message, source=name)

    def close(self) -> None:
        if "_http" in self.__dict__:
            self._http.close()


class _TokenAnswer:
    """google-auth's ``transport.Response``."""

    def __init__(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.status = status
        self.headers = headers
        self.data = data


def _refusal(answer: httpx.Response) -> RemoteError:
    """The error in an answer: https://cloud.google.com/bigquery/docs/error-messages."""
    reason, message = "", f"HTTP status {answer.status_code}"
    try:
        told = answer.json()["error"]
        message = str(told.get("message") or message)
        first = (told.get("errors") or [{}])[0]
        reason = str(first.get("reason") or "")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        pass
    return RemoteError(answer.status_code, reason, message)


def job_error(job: Mapping[str, Any]) -> RemoteError | None:
    """The error with which a job has ended: ``status.errorResult``."""
    told = (job.get("status") or {}).get("errorResult")
    if not told:
        return None
    return RemoteError(0, str(told.get("reason", "")), str(told.get("message") or "the job failed"))


def _retry_after(answer: httpx.Response) -> float | None:
    told = answer.headers.get("Retry-After", "")
    return float(told) if told.isdigit() else None


def _sleep(seconds: float, stopped: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not stopped():
        time.sleep(min(left, 0.05))
