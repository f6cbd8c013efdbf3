"""Whether the configured sources answer: what ``batuta-sql doctor`` shows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from batuta_sql.errors import Error
from batuta_sql.guards.labels import is_called, labelled_tables
from batuta_sql.guards.locality import Whereabouts
from batuta_sql.guards.tiers import TierGate
from batuta_sql.secrets import without_passwords
from batuta_sql.setting_types import Locality
from batuta_sql.source_settings import SourceSettings
from batuta_sql.sources.base import Source


@dataclass(frozen=True)
class SourceCheck:
    """One source's answer.

    :param locality: as declared, else as told from the address; None where that cannot be read.
    :param reason: what the locality was told from.
    :param allowed: whether the tier allows the source; one that is not is not asked.
    :param seconds: to connect and list the tables, or until it failed.
    :param tables: how many the user may see; None where the source did not answer.
    :param error: what it said instead, without secrets.
    :param unmatched: tables that the configuration labels and the source does not have.
    """

    name: str
    kind: str
    locality: Locality | None
    reason: str
    allowed: bool = True
    seconds: float = 0.0
    tables: int | None = None
    error: str | None = None
    unmatched: tuple[str, ...] = ()


def check_sources(sources: Mapping[str, Source], gate: TierGate) -> list[SourceCheck]:
    """Asks all allowed sources at once, past the catalog's memory, in the configuration's order."""
    if not sources:
        return []
    with ThreadPoolExecutor(min(8, len(sources))) as pool:
        return list(pool.map(lambda source: _check(source, gate), sources.values()))


def _check(source: Source, gate: TierGate) -> SourceCheck:
    try:
        place = gate.whereabouts_of(source.name)
        if not gate.allows(source.name):
            return SourceCheck(source.name, source.kind, place.locality, place.reason, False)
    except Error as error:
        return SourceCheck(source.name, source.kind, None, "not known", error=error.message)
    return _asked(source, gate.sources[source.name], place)


def _asked(source: Source, settings: SourceSettings, place: Whereabouts) -> SourceCheck:
    started = time.perf_counter()
    tables: int | None = None
    said: str | None = None
    unmatched: tuple[str, ...] = ()
    try:
        names = source.list_tables()
        tables = len(names)
        unmatched = tuple(
            key
            for key in labelled_tables(settings)
            if not any(is_called(n.path, key) for n in names)
        )
    except Error as error:
        said = error.message
    except Exception as error:
        # A driver's own exception: doctor still has to report on the other sources.
        said = f"{type(error).__name__}: {without_passwords(str(error))}"
    return SourceCheck(
        name=source.name,
        kind=source.kind,
        locality=place.locality,
        reason=place.reason,
        seconds=time.perf_counter() - started,
        tables=tables,
        error=said,
        unmatched=unmatched,
    )
