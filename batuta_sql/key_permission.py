"""Whether the keys of one source's rows may be sent to another.

A key in a statement is data that leaves one system for another, which may log it. It may go where
all labels of the rows it comes from are already, and to sources on this machine. Rows that keys
have chosen tell of what gave the keys: its labels go with theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from batuta_sql.config import Settings
from batuta_sql.guards.locality import whereabouts
from batuta_sql.labels import Labels
from batuta_sql.plan.placement import Placed
from batuta_sql.plan.relational import Exchange, Relation
from batuta_sql.plan.rules.key_filters import Keyed, KeyFilter
from batuta_sql.provenance import Provenance


def permitted_keys(placed: Placed, provenance: Provenance, settings: Settings) -> Placed:
    """``placed`` without the key filters that would take labelled data where it is not yet."""
    if not placed.keyed:
        return placed
    search = _Search(placed, provenance, settings)
    sources = {f.name: f.source for f in placed.fragments}
    kept = list(placed.kept)
    keyed: dict[str, Keyed] = {}
    for name, one in placed.keyed.items():
        allowed = [f for f in one.filters if search.obstacle(name, f) is None]
        refused = [r for f in one.filters if (r := search.obstacle(name, f)) is not None]
        kept += [f"Keys for {sources[name]}: {reason}" for reason in refused]
        fewer = one.only(allowed)
        if fewer is not None:
            keyed[name] = fewer
    return replace(placed, keyed=keyed, kept=tuple(dict.fromkeys(kept)))


@dataclass
class _Search:
    placed: Placed
    provenance: Provenance
    settings: Settings
    known: dict[tuple[str, str], str | None] = field(default_factory=dict)

    def obstacle(self, name: str, wanted: KeyFilter) -> str | None:
        """Why a fragment may not have the keys of one filter; None where it may."""
        key = (name, wanted.marker)
        if key not in self.known:
            self.known[key] = self._obstacle(name, wanted)
        return self.known[key]

    def _obstacle(self, name: str, wanted: KeyFilter) -> str | None:
        fragment = next(f for f in self.placed.fragments if f.name == name)
        source = self.settings.sources[fragment.source]
        if not source.receives_keys:
            return "it receives none (receives_keys = false)"
        if not self.provenance.is_labelled or whereabouts(source).locality == "local":
            return None
        there = self.provenance.labels_of_tables(fragment.tables)
        carried = self._labels(wanted.producer) - there
        return f"they would carry {', '.join(sorted(carried))} there" if carried else None

    def _labels(self, relation: Relation) -> Labels:
        """The labels of a relation's rows, and of whatever keys will have chosen them.

        It ends: no fragment waits for itself, not even through others.
        """
        found = self.provenance.labels_of_relation(relation)
        for node in relation.walk():
            if isinstance(node, Exchange) and node.name in self.placed.keyed:
                for one in self.placed.keyed[node.name].filters:
                    if self.obstacle(node.name, one) is None:
                        found |= self._labels(one.producer)
        return found
