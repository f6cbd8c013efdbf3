"""What all queries of a Connection share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from batuta_sql.catalog.catalog import Catalog
from batuta_sql.costing import Costing
from batuta_sql.engines.duckdb import DuckDBEngine
from batuta_sql.exchange.result_cache import ResultCache
from batuta_sql.labels import TableLabels
from batuta_sql.plan.placement import ANY_REDUCTION, Reduction
from batuta_sql.plan.rates import RatesOf
from batuta_sql.plan.rules.key_filters import ALWAYS, Worth
from batuta_sql.plan.site import Capabilities
from batuta_sql.plan.text_codes import least_width
from batuta_sql.prepared import PreparedPlans
from batuta_sql.sources.base import Source

if TYPE_CHECKING:
    from batuta_sql.config import Settings

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
