"""Whether the configured sources answer: what ``batuta-sql doctor`` shows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batuta_sql.errors import Error
from batuta_sql.secrets import without_passwords
from batuta_sql.sources.base import Source

if TYPE_CHECKING:
    from batuta_sql.config import SourceSettings


@dataclass(frozen=True)
class SourceCheck:
    """One source's answer.

    :param locality: as configured; None where nothing is said.
    :param seconds: to connect and list the tables, or until it failed.
    :param tables: how many the user may see; None where the source did not answer.
    :param error: what it said instead, without secrets.
    """

    name: str
    kind: str
    locality: str | None
    seconds: float
    tables: int | None = None
    error: str | None = None


def check_sources(
    sources: Mapping[str, Source], settings: Mapping[str, SourceSettings]
) -> list[SourceCheck]:
    """Asks all sources at once, past the catalog's memory, in the order of the configuration."""
    if not sources:
        return []

    def check(name: str) -> SourceCheck:
        source, locality = sources[name], settings[name].locality
        started = time.perf_counter()
        try:
            count = len(source.list_tables())
        except Error as error:
            seconds = time.perf_counter() - started
            return SourceCheck(name, source.kind, locality, seconds, error=error.message)
        except Exception as error:
            # A driver's own exception: doctor still has to report on the other sources.
            seconds = time.perf_counter() - started
            said = f"{type(error).__name__}: {without_passwords(str(error))}"
            return SourceCheck(name, source.kind, locality, seconds, error=said)
        return SourceCheck(name, source.kind, locality, time.perf_counter() - started, count)

    with ThreadPoolExecutor(min(8, len(sources))) as pool:
        return list(pool.map(check, sources))
