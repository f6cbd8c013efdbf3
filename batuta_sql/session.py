"""What all queries of a Connection share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from batuta_sql.catalog.catalog import Catalog
from batuta_sql.costing import Costing
from batuta_sql.engines.duckdb import DuckDBEngine
from batuta_sql.engines.in_process import InProcess
from batuta_sql.exchange.result_cache import ResultCache
from batuta_sql.exchange.throttle import Governor, Throttled
from batuta_sql.labels import TableLabels
from batuta_sql.plan.placement import ANY_REDUCTION, Reduction
from batuta_sql.plan.rates import RatesOf
from batuta_sql.plan.rules.key_filters import ALWAYS, Worth
from batuta_sql.plan.site import Capabilities
from batuta_sql.plan.text_codes import least_width
from batuta_sql.prepared import PreparedPlans
from batuta_sql.sources.base import LogsIn, Source, TellsLoad
from batuta_sql.watching import NOBODY, Watchers

if TYPE_CHECKING:
    from batuta_sql.config import Settings
    from batuta_sql.engines.base import ResidualEngine

_REDUCTION: Mapping[str, Reduction | None] = {
    "auto": Reduction(),
    "always": ANY_REDUCTION,
    "off": None,
}
_WORTH: Mapping[str, Worth | None] = {"auto": Worth(), "always": ALWAYS, "off": None}


@dataclass
class Session:
    """What all queries of a Connection share."""

    engine: DuckDBEngine
    catalog: Catalog
    settings: Settings
    costing: Costing
    registered: dict[str, Any] = field(default_factory=dict)
    views: dict[str, exp.Expr] = field(default_factory=dict)
    labels: dict[str, TableLabels] = field(default_factory=dict)
    """The labels of registered frames and local tables, by lower-cased name."""
    rates: RatesOf = field(default_factory=dict)
    """Of the sources that were measured."""
    prepared: PreparedPlans = field(default_factory=PreparedPlans)
    results: ResultCache = field(default_factory=lambda: ResultCache(0, {}))
    watchers: Watchers = NOBODY

    governors: dict[str, Governor] = field(default_factory=dict)
    """By source, made when something is first read there."""
    residuals: ResidualEngine = field(default_factory=InProcess)
    """What joins and groups what has arrived."""

    def governor(self, source: str) -> Governor:
        """What says how much of a source may be read at once."""
        found = self.governors.get(source)
        if found is None:
            one, settings = self.sources[source], self.settings.sources[source]
            load = one.load if settings.throttle and isinstance(one, TellsLoad) else None
            made = Governor(source, load, settings.max_connections)
            found = self.governors.setdefault(source, made)
        return found

    def slowed(self) -> list[Throttled]:
        """The sources that are read less than they could be, since others need them."""
        states = [g.state() for g in list(self.governors.values())]
        return [s for s in states if s.is_slowed]

    def seconds_left(self) -> float | None:
        """Until the first credential of a source ends; None where no end is known."""
        told = [one.seconds_left() for one in self.settings.sources.values()]
        told += [s.seconds_left() for s in self.sources.values() if isinstance(s, LogsIn)]
        return min((s for s in told if s is not None), default=None)

    def close(self) -> None:
        """Ends what looks after the sources."""
        for governor in list(self.governors.values()):
            governor.close()

    @property
    def sources(self) -> Mapping[str, Source]:
        return self.catalog.sources

    @property
    def capabilities(self) -> Mapping[str, Capabilities]:
        """By source, made when they are first asked for."""
        return _CapabilitiesOf(self.sources, self.rates)

    @property
    def worth(self) -> Worth | None:
        """When fragments wait for keys of others; None: never."""
        return _WORTH[self.settings.semi_joins]

    @property
    def reduction(self) -> Reduction | None:
        """From where on a partial aggregate is worth making; None: never."""
        return _REDUCTION[self.settings.partial_aggregation]


class _CapabilitiesOf(Mapping[str, Capabilities]):
    """Of each source, with what its rates say of them."""

    def __init__(self, sources: Mapping[str, Source], rates: RatesOf) -> None:
        self._sources = sources
        self._rates = rates

    def __getitem__(self, name: str) -> Capabilities:
        capabilities = self._sources[name].capabilities
        rates = self._rates.get(name)
        if rates is None:
            return capabilities
        return replace(capabilities, codes_from=least_width(rates.bytes_per_second))

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)
