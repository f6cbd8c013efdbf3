"""What encloses a Python program that asks for the tier ``fully_sovereign``.

A process that the kernel already encloses goes on. Another one is locked, if all its sources can be
reached without an IP socket: embedded files, and databases behind Unix sockets. The lock cannot be
taken away again. Else the program has to be started inside a seal; it never runs open.
"""

from __future__ import annotations

from batuta_sql.config import Settings
from batuta_sql.errors import SealError
from batuta_sql.guards.egress import enforced, lock
from batuta_sql.guards.locality import endpoints, events_endpoint
from batuta_sql.guards.tiers import TierGate

_LAUNCH = "start the program by: batuta-sql seal -- COMMAND ..."


def confine(settings: Settings) -> None:
    """Makes sure that the kernel encloses this process, where the tier asks for that.

    :raises SealError: where it does not, and a lock would not do or cannot be made.
    """
    if settings.tier != "fully_sovereign" or enforced() is not None:
        return
    dialled = needing_ip_sockets(settings)
    if dialled:
        raise SealError(
            f"the tier {settings.tier} needs the seal: {', '.join(dialled)} can only be reached"
            " through an IP socket, which a lock of this process would refuse",
            hint=f"{_LAUNCH}; or reach the database through a Unix socket",
        )
    try:
        lock()
    except SealError as error:
        raise SealError(
            f"the tier {settings.tier} cannot be enforced on this process: {error.message}",
            hint=f"connect before anything opens a socket, or {_LAUNCH}",
        ) from None


def needing_ip_sockets(settings: Settings) -> list[str]:
    """What the tier allows and is dialled by an address: sources, and where events go."""
    gate = TierGate(settings.tier, settings.systems)
    found = [
        name
        for name, source in gate.sources.items()
        if gate.allows(name) and any(e.socket is None for e in endpoints(source))
    ]
    return found if events_endpoint(settings.openlineage) is None else [*found, "openlineage.url"]
