"""Sovereignty tiers: which sources a connection may touch at all.

Decided when a name is bound, from the configuration alone: a source that the tier does not allow
is never contacted, nor is its name looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from batuta_sql.config import Tier
from batuta_sql.errors import TierRefused
from batuta_sql.guards.locality import RANKS, Endpoint, Whereabouts, of_endpoint, whereabouts
from batuta_sql.setting_types import Locality
from batuta_sql.source_settings import SourceSettings

FARTHEST: Mapping[Tier, Locality] = {
    "fully_sovereign": "local",
    "hybrid_sovereign": "private",
    "private_cloud": "vpc",
    "standard": "public",
}
"""The farthest locality that each tier allows."""


@dataclass(frozen=True)
class TierGate:
    """The tier of a connection and what it says of each source."""

    tier: Tier
    sources: Mapping[str, SourceSettings]

    def whereabouts_of(self, source: str) -> Whereabouts:
        """A source's place. Reads the secret that an address is in, and nothing else.

        :raises ConfigError: for such a secret that cannot be read.
        """
        return whereabouts(self.sources[source])

    def allows(self, source: str) -> bool:
        """Whether the tier allows the source called ``source``, spelt as configured."""
        if self.tier == "standard":
            return True
        return RANKS[self.whereabouts_of(source).locality] <= RANKS[FARTHEST[self.tier]]

    def check_forward(self, text: str, target: tuple[str, int] | None) -> None:
        """Lets a forward of the configuration pass, if its target is no farther than the tier.

        :param target: host and port; None for a Unix socket.
        :raises TierRefused: naming the forward.
        """
        if target is None:
            return
        self._check_place(
            f"the forward {text}",
            Endpoint(*target),
            "remove it from seal.forwards, or choose another tier",
        )

    def check_events(self, endpoint: Endpoint) -> None:
        """Lets the place pass that events about queries go to, if it is no farther than the tier.

        :raises TierRefused: naming it.
        """
        self._check_place(
            f"events to {endpoint.host or 'where OpenLineage is configured to send them'}",
            endpoint,
            "write them to a file of this machine (openlineage.file), or choose another tier",
        )

    def _check_place(self, what: str, endpoint: Endpoint, hint: str) -> None:
        found = of_endpoint(endpoint)
        if RANKS[found.locality] > RANKS[FARTHEST[self.tier]]:
            raise TierRefused(
                f"the tier {self.tier} does not allow {what}, which is"
                f" {found.locality} ({found.reason})",
                hint=hint,
            )

    def check(self, source: str) -> None:
        """Lets an allowed source pass.

        :raises TierRefused: saying what the source is and what the tier allows.
        """
        if self.allows(source):
            return
        found = self.whereabouts_of(source)
        allowed = [n for n, r in RANKS.items() if r <= RANKS[FARTHEST[self.tier]]]
        raise TierRefused(
            f"the tier {self.tier} does not allow a source that is {found.locality}"
            f" ({found.reason})",
            source=source,
            hint=f"the tier allows sources that are {' or '.join(allowed)};"
            + (
                " the locality is declared in the configuration"
                if found.declared
                else f' if this one is, say so: locality = "{allowed[-1]}"'
            ),
        )
