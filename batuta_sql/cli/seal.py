"""``batuta-sql seal``, and the seal that a tier puts around every command that connects.

All of it happens in the main thread, before any other is started.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batuta_sql.cli.launch import UsageError
from batuta_sql.errors import ConfigError
from batuta_sql.guards.egress import Forward, enforced, seal

if TYPE_CHECKING:
    from batuta_sql.config import Settings
    from batuta_sql.guards.locality import Endpoint

_ROOT = str(Path(__file__).parents[2])
_AGAIN = f"""
import sys
sys.path.insert(0, {_ROOT!r})
import batuta_sql
del sys.path[0]
from batuta_sql.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""Starts this very package again, wherever it lies, with the path of modules as it is."""

_SYNTAX = "NAME:PORT, NAME:PORT=HOST:PORT or NAME:PORT=/path/of/socket"


def split(tokens: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """The command line of ``seal`` before and after its ``--``; another's is left whole.

    What comes after belongs to COMMAND, however much it looks like an option of ours.
    """
    if "--" not in tokens:
        return list(tokens), None
    at = tokens.index("--")
    words = iter(tokens[:at])
    for word in words:
        if word == "--config":
            next(words, None)
        elif not word.startswith("-"):
            if word == "seal":
                return list(tokens[:at]), list(tokens[at + 1 :])
            break
    return list(tokens), None


def run(
    command: Sequence[str] | None, given: Sequence[str], kept: Sequence[str], config: Path | None
) -> int:
    """Runs ``command`` sealed, with the forwards ``given`` and those of the configured tier.

    :param kept: paths that are not hidden.

    :raises UsageError: without a command, or for a forward that cannot be read.
    :raises SealError: where the seal cannot be enforced; the command has not run.
    """
    if not command:
        raise UsageError("no command: batuta-sql seal [--forward ...] -- COMMAND ...")
    forwards = [parse_forward(text) for text in given]
    settings = _settings(config)
    keep = list(kept)
    if settings is not None and settings.tier != "standard":
        by_tier, by_tier_kept = ways_of(settings)
        keep += by_tier_kept
        named = {(f.name, f.port) for f in forwards}
        forwards += [f for f in by_tier if (f.name, f.port) not in named]
    try:
        return seal(command, forwards, keep=keep)
    except ValueError as error:
        raise UsageError(str(error)) from None


def reexecuted(arguments: Sequence[str], config: Path | None) -> int | None:
    """The status of this command line, run again under the seal of its tier.

    None where it is to run here: the tier asks for no seal, or one is in force. A configuration
    that is wrong is the command's own to tell.

    :raises SealError: where the seal cannot be enforced; nothing has run.
    """
    try:
        settings = _settings(config)
    except ConfigError:
        return None
    if settings is None or settings.tier == "standard":
        return None
    forwards, keep = ways_of(settings)
    return reexecute_sealed(arguments, forwards, keep)


def reexecute_sealed(
    arguments: Sequence[str], forwards: Sequence[Forward], keep: Sequence[str]
) -> int | None:
    """Runs ``batuta-sql ARGUMENTS`` sealed; its status, or None where this process is sealed.

    :raises SealError: where the seal cannot be enforced; nothing has run.
    """
    if enforced() is not None:
        return None
    # -P: the working folder, which anybody may have written to, gives no modules.
    return seal([sys.executable, "-P", "-c", _AGAIN, *arguments], forwards, keep=keep)


def ways_of(settings: Settings) -> tuple[list[Forward], list[str]]:
    """The addresses and the Unix sockets of all sources that the tier allows.

    An address that the configuration does not tell gets no way out.

    :raises TierRefused: for a forward of the configuration that is farther than the tier allows.
    """
    from batuta_sql.guards.locality import endpoints, events_endpoint
    from batuta_sql.guards.tiers import TierGate

    gate = TierGate(settings.tier, settings.systems)
    forwards: dict[tuple[str, int], Forward] = {}
    keep: list[str] = []
    for name, source in gate.sources.items():
        if not gate.allows(name):
            continue
        for endpoint in endpoints(source):
            if endpoint.socket is not None:
                keep.append(_socket_of(endpoint))
            elif endpoint.host is not None and endpoint.port is not None:
                way = _own(endpoint.host, endpoint.port)
                if way is not None:
                    forwards.setdefault((way.name, way.port), way)
    events = events_endpoint(settings.openlineage)
    if events is not None and events.host is not None and events.port is not None:
        gate.check_events(events)
        own = _own(events.host, events.port)
        if own is not None:
            forwards.setdefault((own.name, own.port), own)
    for text in settings.seal.forwards:
        way = parse_forward(text)
        gate.check_forward(text, way.target if isinstance(way.target, tuple) else None)
        forwards.setdefault((way.name, way.port), way)
    return list(forwards.values()), [*keep, *settings.seal.keep]


def parse_forward(text: str) -> Forward:
    """A forward of the command line; without a target, its own name is dialled outside.

    :raises UsageError: for a text that is none.
    """
    inside, arrow, outside = text.partition("=")
    try:
        name, port = _host_and_port(inside)
        if not arrow:
            return Forward(name, port, (name, port))
        if outside.startswith("/"):
            return Forward(name, port, outside)
        return Forward(name, port, _host_and_port(outside))
    except ValueError as error:
        raise UsageError(f"--forward {text}: {error}; give {_SYNTAX}") from None


def _host_and_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal():
        raise ValueError(f"{text!r} has no port")
    bracketed = host.startswith("[") and host.endswith("]")
    return (host[1:-1] if bracketed else host), int(port)


def _socket_of(endpoint: Endpoint) -> str:
    """The path of the socket itself: what else its folder has stays hidden.

    PostgreSQL names a socket by its port:
    https://www.postgresql.org/docs/current/runtime-config-connection.html
    """
    path = endpoint.socket or ""
    if endpoint.port is not None and os.path.isdir(path):
        return os.path.join(path, f".s.PGSQL.{endpoint.port}")
    return path


def _own(host: str, port: int) -> Forward | None:
    """The forward of a configured address; None for what is no address at all."""
    try:
        return Forward(host, port, (host, port))
    except ValueError:
        return None


def _settings(config: Path | None) -> Settings | None:
    """:raises ConfigError: for a configuration that is wrong."""
    from batuta_sql.config import load_settings, usual_place

    place = config or usual_place()
    return load_settings(place) if place is not None else None
