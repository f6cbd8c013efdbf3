"""Who hears of a connection's queries, by its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batuta_sql.guards.tiers import TierGate
from batuta_sql.watching import NOBODY, Watcher, Watchers

if TYPE_CHECKING:
    from batuta_sql.config import Settings


def watchers_of(settings: Settings, gate: TierGate) -> Watchers:
    """Those that are configured; their libraries are imported for them alone.

    :raises ConfigError: for one whose library is not installed.
    :raises TierRefused: for one that would tell of queries farther away than the tier allows.
    """
    found: list[Watcher] = []
    if settings.telemetry.traces:
        from batuta_sql.traces import Traces

        found.append(Traces(settings))
    if settings.openlineage.is_on:
        from batuta_sql.openlineage_events import OpenLineageEvents

        found.append(OpenLineageEvents(settings, gate))
    return Watchers(found) if found else NOBODY
