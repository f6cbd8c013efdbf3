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
from batuta_sql.provenance import Provenance


def permitted_keys(placed: Placed, provenance: Provenance, settings: Settings) -> Placed:
    """``placed`` without the key filters that would take labelled data where it is not yet."""
    if not placed.keyed:
        return placed
    search = _Search(placed, provenance, settings)
    found = {name: search.obstacle(name) for name in placed.keyed}
    sources = {f.name: f.source for f in placed.fragments}
    reasons = [f"Keys for {sources[n]}: {r}" for n, r in found.items() if r is not None]
    return replace(
        placed,
        keyed={n: k for n, k in placed.keyed.items() if found[n] is None},
        kept=tuple(dict.fromkeys([*placed.kept, *reasons])),
    )


@dataclass
class _Search:
    placed: Placed
    provenance: Provenance
    settings: Settings
    known: dict[str, str | None] = field(default_factory=dict)

    def obstacle(self, name: str) -> str | None:
        """Why a fragment may not have its keys; None where it may."""
        if name not in self.known:
            self.known[name] = self._obstacle(name)
        return self.known[name]

    def _obstacle(self, name: str) -> str | None:
        fragment = next(f for f in self.placed.fragments if f.name == name)
        source = self.settings.sources[fragment.source]
        if not source.receives_keys:
            return "it receives none (receives_keys = false)"
        if not self.provenance.is_labelled or whereabouts(source).locality == "local":
            return None
        there = self.provenance.labels_of_tables(fragment.tables)
        for one in self.placed.keyed[name].filters:
            carried = self._labels(one.producer) - there
            if carried:
                return f"they would carry {', '.join(sorted(carried))} there"
        return None

    def _labels(self, relation: Relation) -> Labels:
        """The labels of a relation's rows, and of whatever keys will have chosen them.

        It ends: no fragment waits for itself, not even through others.
        """
        found = self.provenance.labels_of_relation(relation)
        for node in relation.walk():
            if isinstance(node, Exchange) and node.name in self.placed.keyed:
                if self.obstacle(node.name) is not None:
                    continue
                for one in self.placed.keyed[node.name].filters:
                    found |= self._labels(one.producer)
        return found
