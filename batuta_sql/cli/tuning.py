"""What ``tune`` shows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from batuta_sql.units import dollars, size

if TYPE_CHECKING:
    from batuta_sql.tuning import Proposal, Tuned


def print_proposals(proposals: Sequence[Proposal]) -> None:
    """What measuring will take at the most; to stderr, before anything is sent."""
    for one in proposals:
        price = f"at most {dollars(one.usd)}" if one.usd else "free"
        print(f"{one.source}: at most {size(one.bytes)}, {price}", file=sys.stderr)
    sys.stderr.flush()


def values(tuned: Tuned) -> dict[str, Any]:
    """For programs; ``before`` is null where nothing was known."""
    now = tuned.now.model_dump(mode="json")
    before = tuned.before.model_dump(mode="json") if tuned.before is not None else None
    return {"source": tuned.now.source, "now": now, "before": before}


def print_tuned(tuned: Sequence[Tuned]) -> None:
    """Each figure, and what it was before."""
    for one in tuned:
        print(one.now.source)
        before = dict(_figures(one.before)) if one.before is not None else {}
        for name, shown in _figures(one.now):
            was = f"   before: {before[name]}" if name in before else ""
            print(f"  {name:28} {shown}{was}")


def _figures(measured: Any) -> list[tuple[str, str]]:
    times = f"{measured.degree}, {measured.parallel:.1f} times as fast as one"
    degree = [] if measured.degree is None else [("connections at once", times)]
    return [
        ("latency", f"{measured.latency * 1000:,.1f} ms"),
        ("wide rows", f"{size(measured.bytes_per_second)} a second"),
        ("values of narrow rows", f"{measured.values_per_second:,.0f} a second"),
        ("grouped at the source", f"{measured.grouped_per_second:,.0f} rows a second"),
        ("grouped here", f"{measured.grouped_here_per_second:,.0f} rows a second"),
        *degree,
    ]
