"""Ends what a Spark Connect server runs: the ADBC driver's cancel only stops to listen.

A connection has a session of its own on the server; ``Interrupt`` ends all that runs in it.
https://github.com/apache/spark/blob/master/sql/connect/common/src/main/protobuf/spark/connect/base.proto
"""

from __future__ import annotations

import contextlib
import urllib.parse
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_INTERRUPT = "/spark.connect.SparkConnectService/Interrupt"
_INTERRUPT_SECONDS = 1.5
_PORT = 15002
_USER = "batuta-sql"

_SESSION, _USER_ID = "adbc.spark.session_id", "adbc.spark.user_id"
_TOKEN, _TLS, _HEADER = "adbc.spark.token", "adbc.spark.tls.enabled", "adbc.spark.headers."


@dataclass(frozen=True)
class SparkSession:
    """A session of one connection, and how its server is reached.

    :param metadata: headers of every call; they hold the token.
    """

    id: str
    user: str
    target: str
    is_encrypted: bool
    metadata: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f"<SparkSession {self.id}>"

    def interrupt(self) -> None:
        """Asks the server to end what runs in the session; in vain where it cannot be asked."""
        import grpc

        # session_id = 1, user_context = 2 {user_id = 1, user_name = 2}, client_type = 3,
        # interrupt_type = 4: INTERRUPT_TYPE_ALL = 1
        user = _text(1, self.user) + _text(2, self.user)
        request = _text(1, self.id) + _bytes(2, user) + _text(3, _USER) + bytes([4 << 3, 1])
        channel = (
            grpc.secure_channel(self.target, grpc.ssl_channel_credentials())
            if self.is_encrypted
            else grpc.insecure_channel(self.target)
        )
        with channel, contextlib.suppress(grpc.RpcError):
            call = channel.unary_unary(_INTERRUPT)
            call(request, timeout=_INTERRUPT_SECONDS, metadata=self.metadata)


def session_of(uri: str, options: Mapping[str, str]) -> SparkSession | None:
    """A new session on the server of a connection string; None where the user has named one, in
    which others may run something too.

    https://github.com/apache/spark/blob/master/sql/connect/docs/client-connection-string.md

    :param options: of the ADBC driver.
    """
    parts = urllib.parse.urlsplit(uri)
    told = dict(p.partition("=")[::2] for p in parts.path.strip("/").split(";") if "=" in p)
    given = {k: urllib.parse.unquote(v) for k, v in told.items()}
    if _SESSION in options or "session_id" in given:
        return None
    token = options.get(_TOKEN, given.pop("token", None))
    user = options.get(_USER_ID, given.pop("user_id", _USER))
    encrypted = given.pop("use_ssl", None) == "true" or token is not None
    given.pop("user_agent", None)
    if _TLS in options:
        encrypted = options[_TLS] == "true"
    headers = {k.lower(): v for k, v in given.items()}
    headers |= {
        k.removeprefix(_HEADER).lower(): v for k, v in options.items() if k.startswith(_HEADER)
    }
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    target = f"{parts.hostname}:{parts.port or _PORT}"
    return SparkSession(str(uuid.uuid4()), user, target, encrypted, tuple(headers.items()))


def options_of(session: SparkSession) -> dict[str, str]:
    """The ADBC driver's, for a connection in this session."""
    return {_SESSION: session.id, _USER_ID: session.user}


class SessionConnection:
    """An ADBC connection whose cursors end what they run on the server too."""

    def __init__(self, inner: Any, session: SparkSession) -> None:
        self._inner = inner
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def cursor(self) -> SessionCursor:
        return SessionCursor(self._inner.cursor(), self._session)


class SessionCursor:
    """See ``SessionConnection``."""

    def __init__(self, inner: Any, session: SparkSession) -> None:
        self._inner = inner
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def adbc_cancel(self) -> None:
        # The driver first: some servers end the stream of what is interrupted as if it were whole.
        try:
            self._inner.adbc_cancel()
        finally:
            self._session.interrupt()


def _bytes(field: int, value: bytes) -> bytes:
    """A field of protobuf with a length: https://protobuf.dev/programming-guides/encoding/"""
    length, prefix = len(value), bytearray([field << 3 | 2])
    while length > 127:
        prefix.append(length & 127 | 128)
        length >>= 7
    return bytes(prefix) + bytes([length]) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())
