"""Whether the keys of one source's rows may be sent to another.

A key in a statement is data that leaves one system for another, which may log it. It may go where
all labels of the rows it comes from are already, and to sources on this machine.
"""

from __future__ import annotations

from dataclasses import replace

from batuta_sql.config import Settings
from batuta_sql.guards.locality import whereabouts
from batuta_sql.plan.placement import Fragment, Placed
from batuta_sql.plan.rules.key_filters import Keyed
from batuta_sql.provenance import Provenance


def permitted_keys(placed: Placed, provenance: Provenance, settings: Settings) -> Placed:
    """``placed`` without the key filters that would take labelled data where it is not yet."""
    if not placed.keyed:
        return placed
    fragments = {f.name: f for f in placed.fragments}
    kept: dict[str, Keyed] = {}
    reasons = dict.fromkeys(placed.kept)
    for name, keyed in placed.keyed.items():
        reason = _obstacle(fragments[name], keyed, provenance, settings)
        if reason is None:
            kept[name] = keyed
        else:
            reasons[f"Keys for {fragments[name].source}: {reason}"] = None
    return replace(placed, keyed=kept, kept=tuple(reasons))


def _obstacle(
    fragment: Fragment, keyed: Keyed, provenance: Provenance, settings: Settings
) -> str | None:
    source = settings.sources[fragment.source]
    if not source.receives_keys:
        return "it receives none (receives_keys = false)"
    if not provenance.is_labelled or whereabouts(source).locality == "local":
        return None
    there = provenance.labels_of_tables(fragment.tables)
    for one in keyed.filters:
        carried = provenance.labels_of_relation(one.producer) - there
        if carried:
            return f"they would carry {', '.join(sorted(carried))} there"
    return None
