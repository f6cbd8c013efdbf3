"""A hub of datasets (Hugging Face) over HTTP: what a dataset holds, and ranges of its files.

https://huggingface.co/docs/hub/api and https://huggingface.co/docs/hub/datasets-download. The hub's
own client is not used: its timeouts are the process's, it keeps a tree of the repository before it
opens a file, and believes an answer that is of another range than it asked for.
"""

from __future__ import annotations

import threading
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tenacity

from batuta_sql.errors import Error, OperationalError
from batuta_sql.secrets import redact
from batuta_sql.source_settings import HuggingFaceSettings
from batuta_sql.sources.http_package import http_package
from batuta_sql.sources.refusals import Refusals

ENDPOINT = "https://huggingface.co"
CONVERTED = "refs/convert/parquet"
"""The branch in which the hub keeps a dataset as Parquet files, whatever its own are.

https://huggingface.co/docs/dataset-viewer/parquet
"""

_ATTEMPTS = 4
_READ_SECONDS = 60.0
_LONGEST_WAIT = 20.0
_AGAIN = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Dataset:
    """A dataset at one commit.

    :param files: path -> size in bytes.
    :param configurations: of the dataset's card, as they are written there.
    """

    repo: str
    commit: str
    private: bool
    files: Mapping[str, int]
    configurations: tuple[Mapping[str, Any], ...] = ()

    def url(self, path: str) -> str:
        return f"hf://datasets/{self.repo}@{self.commit}/{path}"


class HubError(OperationalError):
    """What the hub said instead of an answer.

    :param code: its ``X-Error-Code`` (``RepoNotFound``, ``GatedRepo`` ...), where it has one.
    """

    def __init__(
        self, message: str, *, status: int, code: str, wait: float | None, **more: Any
    ) -> None:
        super().__init__(message, **more)
        self.status, self.code, self.wait = status, code, wait


class _Broken(OperationalError):
    """A connection that broke, or was never made: may be tried again."""


class Hub:
    """A hub as one user, or nobody; may be used by many threads."""

    def __init__(self, source: str, settings: HuggingFaceSettings) -> None:
        self._source = source
        self._settings = settings
        self._lock = threading.Lock()
        self._client: Any = None
        self.refusals = Refusals()
        endpoint = settings.endpoint or ENDPOINT
        self._endpoint = (endpoint if "://" in endpoint else f"https://{endpoint}").rstrip("/")

    def dataset(self, revision: str | None) -> Dataset:
        """The dataset at a revision as it is now.

        :raises OperationalError: where it is not there, or may not be read.
        """
        repo = self._settings.repo
        where = urllib.parse.quote(revision or "main", safe="")
        answer = self._answer(f"/api/datasets/{repo}/revision/{where}?blobs=true", {})
        try:
            told = answer.json()
            files = {str(f["rfilename"]): int(f.get("size") or 0) for f in told["siblings"]}
            card = told.get("cardData") or {}
            return Dataset(
                repo=repo,
                commit=str(told["sha"]),
                private=bool(told.get("private")),
                files=files,
                configurations=_configurations(card.get("configs")),
            )
        except (KeyError, TypeError, ValueError):
            raise OperationalError(
                f'the hub\'s answer about the dataset "{repo}" is not understood',
                source=self._source,
            ) from None

    def converted(self) -> Dataset | None:
        """The dataset as the hub has converted it to Parquet; None where it has not."""
        try:
            return self.dataset(CONVERTED)
        except HubError as error:
            if error.status == 404:
                return None
            raise

    def read(self, repo: str, commit: str, path: str, start: int, end: int) -> bytes:
        """The bytes of a file from ``start`` up to ``end``.

        :raises OperationalError: for an answer that is anything else.
        """
        where = f"/datasets/{repo}/resolve/{commit}/{urllib.parse.quote(path)}"
        answer = self._answer(where, {"Range": f"bytes={start}-{end - 1}"})
        content: bytes = answer.content
        told = str(answer.headers.get("Content-Range", ""))
        fits = answer.status_code == 206 and told.startswith(f"bytes {start}-{end - 1}/")
        if not fits or len(content) != end - start:
            raise OperationalError(
                f"{path}: asked for the bytes {start} to {end}, the hub sent"
                f" {len(content)} others (status {answer.status_code})",
                source=self._source,
            )
        return content

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    # --- requests ------------------------------------------------------------------------------

    def _answer(self, path: str, headers: Mapping[str, str]) -> Any:
        again = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            retry=tenacity.retry_if_exception(_may_pass),
            wait=_pause,
            reraise=True,
        )
        return again(self._ask, path, headers)

    def _ask(self, path: str, headers: Mapping[str, str]) -> Any:
        secret = self._settings.token
        token = secret.reveal() if secret is not None else None
        answer = self._asked_with(token, path, headers)
        if answer.status_code == 401 and secret is not None and secret.refused(token or ""):
            answer = self._asked_with(secret.reveal(), path, headers)
        self.refusals.note(answer.status_code, _seconds(answer.headers.get("Retry-After")))
        if answer.status_code >= 400:
            raise self._refusal(answer)
        return answer

    def _asked_with(self, token: str | None, path: str, headers: Mapping[str, str]) -> Any:
        httpx = http_package(self._source, "huggingface")
        sent = dict(headers)
        if token is not None:
            # httpx takes it off again where the hub sends to another host.
            sent["Authorization"] = f"Bearer {token}"
        try:
            return self._opened().get(self._endpoint + path, headers=sent)
        except httpx.HTTPError as error:
            words = redact(str(error) or type(error).__name__, self._settings.secrets())
            raise _Broken(
                f"{self._endpoint} cannot be read: {words}", source=self._source
            ) from None

    def _opened(self) -> Any:
        httpx = http_package(self._source, "huggingface")
        settings = self._settings
        with self._lock:
            if self._client is None:
                timeout = settings.query_timeout or _READ_SECONDS
                self._client = httpx.Client(
                    timeout=httpx.Timeout(timeout, connect=settings.connect_timeout),
                    follow_redirects=True,
                    headers={"User-Agent": "batuta-sql", "Accept-Encoding": "identity"},
                )
            return self._client

    def _refusal(self, answer: Any) -> Error:
        repo, status = self._settings.repo, answer.status_code
        code = str(answer.headers.get("X-Error-Code") or "")
        said = redact(_said(answer), self._settings.secrets())
        hint: str | None = None
        match (status, code):
            case (_, "GatedRepo"):
                hint = "accept the dataset's conditions on its page, and give a token of that user"
            case (404, "RevisionNotFound"):
                hint = "check revision"
            case (404, "EntryNotFound"):
                hint = "the file is not there at this commit"
            case (401, _) if self._settings.token is None:
                hint = "check repo; for a private or gated dataset give token"
            case (401, _):
                hint = "check token: the hub does not know it, or there is no such dataset for it"
            case (403, _):
                hint = "the token may not read this dataset"
            case (404, _):
                hint = "check repo"
            case (429, _):
                hint = "the hub is asked too often: try again later, or give a token"
        return HubError(
            f'the dataset "{repo}" cannot be read: {said} (status {status})',
            status=status,
            code=code,
            wait=_seconds(answer.headers.get("Retry-After")),
            source=self._source,
            hint=hint,
        )


def _said(answer: Any) -> str:
    told = answer.headers.get("X-Error-Message")
    if not told:
        try:
            told = answer.json().get("error")
        except (ValueError, AttributeError):
            told = None
    return " ".join(str(told or answer.reason_phrase or "refused").split())[:500]


def _seconds(told: str | None) -> float | None:
    try:
        return float(told) if told is not None else None
    except ValueError:
        return None


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, HubError):
        patient = error.wait is None or error.wait <= _LONGEST_WAIT
        return error.status in _AGAIN and patient
    return isinstance(error, _Broken)


_backing_off = tenacity.wait_exponential_jitter(multiplier=0.2, max=5.0, jitter=0.3)


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    told = error.wait if isinstance(error, HubError) else None
    return told if told is not None else _backing_off(state)


def _configurations(told: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(told, list):
        return ()
    return tuple(c for c in told if isinstance(c, dict))
