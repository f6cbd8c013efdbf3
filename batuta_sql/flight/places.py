"""Where a server may listen, and how many queries it runs."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from batuta_sql.config import ServeSettings, Tier
from batuta_sql.errors import ConfigError, TierRefused
from batuta_sql.flight.admission import Places
from batuta_sql.flight.server import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own. A name is not looked up: only ``localhost`` is."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def endpoint_of(settings: ServeSettings, tier: Tier) -> Endpoint:
    """Where to listen by these settings.

    :raises ConfigError: for an address that others reach, without TLS or without users; for a
        certificate that cannot be read; for a socket that cannot be made.
    :raises TierRefused: for such an address under ``fully_sovereign``.
    """
    if settings.socket is not None:
        return Endpoint(_location_of_socket(settings.socket))
    certificate = _certificate(settings)
    if not is_loopback(settings.host):
        if tier == "fully_sovereign":
            raise TierRefused(
                f"the tier {tier} serves this machine alone, and {settings.host} is not loopback",
                hint="--host 127.0.0.1, or choose another tier",
            )
        missing = [
            words
            for words, is_there in (
                ("TLS (--tls-certificate, --tls-key)", certificate is not None),
                ("users (serve.users.NAME)", bool(settings.users)),
            )
            if not is_there
        ]
        if missing:
            raise ConfigError(
                f"{settings.host} can be reached from elsewhere, and there is no"
                f" {' and no '.join(missing)}",
                hint="configure it, or listen on 127.0.0.1",
            )
    host = f"[{settings.host.strip('[]')}]" if ":" in settings.host else settings.host
    scheme = "grpc+tls" if certificate is not None else "grpc"
    return Endpoint(f"{scheme}://{host}:{settings.port}", certificate)


def _location_of_socket(path: str) -> str:
    """
    :raises ConfigError: where something else is, or listens, at this path.
    """
    place = Path(path).expanduser().absolute()
    if place.exists() and not place.is_socket():
        raise ConfigError(f"serve.socket: {path} is there, and no socket", hint="choose another")
    if place.is_socket():
        with socket.socket(socket.AF_UNIX) as trial:
            # The transport would take the place of another server without a word.
            if trial.connect_ex(str(place)) == 0:
                raise ConfigError(
                    f"serve.socket: another server listens at {path}", hint="stop it first"
                )
    return f"grpc+unix://{place}"


def places_of(settings: ServeSettings) -> Places:
    """How many queries run and wait, with what is not set told by this machine."""
    most = settings.max_queries or max(2, os.cpu_count() or 1)
    of_a_user = settings.max_queries_per_user or max(1, most - 1)
    if not settings.users:
        # Nobody else is waiting for a place.
        of_a_user = settings.max_queries_per_user or most
    return Places(most, min(of_a_user, most), settings.queue_length, settings.queue_seconds)


def _certificate(settings: ServeSettings) -> tuple[bytes, bytes] | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    named = {"tls_certificate": settings.tls_certificate, "tls_key": settings.tls_key}
    return (
        _read("tls_certificate", named),
        _read("tls_key", named),
    )


def _read(key: str, named: Mapping[str, str]) -> bytes:
    try:
        return Path(named[key]).expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(
            f"serve.{key}: {named[key]} cannot be read: {error.strerror}",
            hint="give the path of a PEM file",
        ) from None
