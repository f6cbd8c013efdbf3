"""The keys that sign requests to S3: renewed before they end, and after a store has refused them.

An s3fs file system keeps the keys that it was made with, and DuckDB keeps the file system. So the
session beneath asks for the keys of now each time that it signs a request.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Sequence
from typing import Any

from batuta_sql.secrets import Secret

_REFUSALS = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "TokenRefresh"}
    | {"SignatureDoesNotMatch", "AccessDenied", "RequestExpired"}
)
"""https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html"""
_REFUSAL = re.compile(
    rf"\b({'|'.join(sorted(_REFUSALS))}|ACCESS_DENIED|(?:Un|Not)[aA]uthorized\w*|Forbidden\w*|OAuthError|401|403"
    r"|status 400\) during HeadObject)\b"
)
_TURN = "batuta_turn"


def tells_refusal(error: BaseException) -> bool:
    """Whether a store or a catalog has refused a credential, as far as an error's words tell."""
    return _REFUSAL.search(f"{type(error).__name__}: {error}") is not None


class StoreKeys:
    """Access key, secret key and, where there is one, session token; for many threads."""

    def __init__(self, secrets: Sequence[Secret]) -> None:
        self._secrets = secrets
        self._values: list[str] = []
        self._turn = 0
        self._lock = threading.Lock()

    @property
    def turn(self) -> int:
        """How often there have been others."""
        return self._turn

    def now(self) -> tuple[str, str, str | None]:
        """Those that are good now. What does not tell its end is looked up once, and again after a
        refusal.

        :raises ConfigError: where one is not to be had.
        """
        with self._lock:
            if not self._values or any(s.seconds_left() is not None for s in self._secrets):
                self._look_up()
            key, secret, *token = self._values
        return key, secret, token[0] if token else None

    def renewed(self, turn: int) -> bool:
        """Whether there are others than those of a turn, which were refused."""
        with self._lock:
            if self._turn == turn:
                for one, value in zip(self._secrets, self._values, strict=True):
                    one.refused(value)
                self._look_up()
            return self._turn != turn

    def _look_up(self) -> None:
        values = [s.reveal() for s in self._secrets]
        if values != self._values:
            self._values = values
            self._turn += 1


def keyed_session(keys: StoreKeys) -> Any:
    """An aiobotocore session whose clients sign each request with the keys of then.

    A request that is refused is sent once more, if there are others.

    :raises ImportError: where the package is missing.
    """
    from aiobotocore.credentials import AioCredentials
    from aiobotocore.session import AioSession
    from botocore.credentials import ReadOnlyCredentials

    class Now(AioCredentials):  # type: ignore[misc]
        async def get_frozen_credentials(self) -> ReadOnlyCredentials:
            return ReadOnlyCredentials(*await asyncio.to_thread(keys.now))

    class Resolver:
        async def load_credentials(self) -> Now:
            return Now(*await asyncio.to_thread(keys.now))

    def note_turn(request: Any, **_: Any) -> None:
        request.context[_TURN] = keys.turn

    async def judge(
        response: tuple[Any, dict[str, Any]] | None, request_dict: dict[str, Any], **_: Any
    ) -> int | None:
        """Seconds until another try; None: no more of them for this."""
        turn = request_dict["context"].pop(_TURN, None)
        asked = request_dict["context"].setdefault("batuta_renewed", False)
        if response is None or turn is None or asked or not _is_refusal(*response):
            return None
        request_dict["context"]["batuta_renewed"] = True
        return 0 if await asyncio.to_thread(keys.renewed, turn) else None

    session = AioSession()
    session.register_component("credential_provider", Resolver())
    session.register("before-sign.s3", note_turn)
    session.register("needs-retry.s3", judge)
    return session


def _is_refusal(answer: Any, told: dict[str, Any]) -> bool:
    # The answer to HEAD has no body that would say more: an expired token is a bare 400.
    code = told.get("Error", {}).get("Code")
    return answer.status_code in (401, 403) or code in _REFUSALS or code == "400"
