"""Users, passwords and tokens: a log-in by HTTP Basic gives a bearer token, as Flight clients do.

Of passwords and tokens only hashes are kept. They are compared in constant time, whoever is named,
and a refusal does not tell what of it was wrong.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.flight as fl

from batuta_sql.config import ServedUserSettings
from batuta_sql.errors import ConfigError
from batuta_sql.flight.users import EVERYBODY

MIDDLEWARE = "authentication"

_MOST_TOKENS = 1000
"""Of one user; the oldest goes."""

_NOBODY = hashlib.sha256(secrets.token_bytes()).digest()
"""What is compared where there is nothing to compare with."""


@dataclass(frozen=True)
class _Issued:
    user: str
    ends: float
    """On the monotonic clock."""


class Authenticator:
    """Knows the users of a server.

    :param token_seconds: the life of a token that a log-in gives.
    :raises ConfigError: for a secret that cannot be read, or is empty.
    """

    def __init__(self, users: Mapping[str, ServedUserSettings], token_seconds: float) -> None:
        self._passwords: dict[str, bytes] = {}
        self._tokens: dict[str, bytes] = {}
        self._token_seconds = token_seconds
        self._issued: dict[bytes, _Issued] = {}
        self._lock = threading.Lock()
        self.is_open = not users
        for name, told in users.items():
            for key, secret, kept in (
                ("password", told.password, self._passwords),
                ("token", told.token, self._tokens),
            ):
                if secret is None:
                    continue
                value = secret.reveal()
                if not value:
                    raise ConfigError(f"serve.users.{name}.{key} is empty")
                kept[name] = _hash(value)

    def user_of(self, authorization: str | None) -> tuple[str | None, bool]:
        """The user of an ``authorization`` header (None: refused), and whether it was a log-in."""
        kind, _, value = (authorization or "").partition(" ")
        is_login = kind.lower() == "basic"
        if self.is_open:
            return EVERYBODY, is_login
        if is_login:
            return self._by_password(value.strip()), True
        if kind.lower() == "bearer":
            return self._by_token(value.strip()), False
        return None, False

    def issue(self, user: str) -> str:
        """A new token of a user."""
        token = secrets.token_urlsafe(32)
        now = time.monotonic()
        with self._lock:
            for old in [h for h, i in self._issued.items() if i.ends < now]:
                del self._issued[old]
            own = [h for h, i in self._issued.items() if i.user == user]
            for oldest in own[: max(0, len(own) + 1 - _MOST_TOKENS)]:
                del self._issued[oldest]
            self._issued[_hash(token)] = _Issued(user, now + self._token_seconds)
        return token

    def _by_password(self, encoded: str) -> str | None:
        try:
            # Clients written in Go leave the padding out.
            padded = encoded.rstrip("=") + "=" * (-len(encoded.rstrip("=")) % 4)
            decoded = base64.b64decode(padded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            decoded = ""
        name, _, password = decoded.partition(":")
        is_right = hmac.compare_digest(self._passwords.get(name, _NOBODY), _hash(password))
        return name if is_right else None

    def _by_token(self, token: str) -> str | None:
        given = _hash(token)
        found: str | None = None
        for name, known in self._tokens.items():
            # All of them, so that the time does not tell which it was.
            if hmac.compare_digest(known, given):
                found = name
        with self._lock:
            # Looked up by a hash of what was given: its time tells nothing of the tokens.
            issued = self._issued.get(given)
        if issued is not None and issued.ends >= time.monotonic():
            found = issued.user
        return found


def _hash(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()


class Authenticated(fl.ServerMiddleware):  # type: ignore[misc]
    """Of one call: its user, and the token that its answer carries after a log-in."""

    def __init__(self, user: str, token: str | None) -> None:
        self.user = user
        self._token = token

    def sending_headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token}"} if self._token is not None else {}


class Authentication(fl.ServerMiddlewareFactory):  # type: ignore[misc]
    """Lets calls of known users pass."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def start_call(self, info: Any, headers: Mapping[str, list[Any]]) -> Authenticated:
        """
        :raises FlightUnauthenticatedError: for everybody else.
        """
        given = next((v[0] for k, v in headers.items() if k.lower() == "authorization" and v), None)
        text = given.decode(errors="replace") if isinstance(given, bytes) else given
        user, is_login = self._authenticator.user_of(text)
        if user is None:
            raise fl.FlightUnauthenticatedError(
                "the user, the password or the token is wrong, has ended or is missing\n"
                "Hint: log in with the name and password of a user of this server, or a token"
            )
        return Authenticated(user, self._authenticator.issue(user) if is_login else None)


class Handshake(fl.ServerAuthHandler):  # type: ignore[misc]
    """The call that clients log in with: the middleware has looked at its header already."""

    def authenticate(self, outgoing: Any, incoming: Any) -> None:
        """Nothing is left to do."""

    def is_valid(self, token: Any) -> bytes:
        """Of calls without a header of ours the middleware has the last word."""
        return b""
