"""Noninterference over generated queries.

The data under one label is changed; what does not carry the label stays as it was, to the last
value and row. ``BATUTA_FLOW_QUERIES`` (600) says how many queries, ``BATUTA_FLOW_SEED`` which.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.comparison import without_limit
from tests.differential.generator import random_query
from tests.noninterference.check import Tally
from tests.noninterference.conftest import World

QUERIES = int(os.environ.get("BATUTA_FLOW_QUERIES", "600"))
SEED = os.environ.get("BATUTA_FLOW_SEED", "20261125")
CHUNK = 20

IDLE_SHARES = (0.40, 0.46)
"""How many of the labels that columns carry no variation here showed to matter: of those held
directly, and of the rest. May only fall; never to 0, since a label says what may change, and a
few variations of a few rows do not try everything."""


def flow_query(seed: str) -> str:
    """A generated query, its LIMIT after an order that is total: ties would be cut anyhow."""
    sql = random_query(seed)
    unlimited = without_limit(sql)
    if unlimited is None:
        return sql
    return f"SELECT * FROM ({unlimited}) AS q ORDER BY ALL LIMIT 3"


@pytest.mark.parametrize(
    "first", range(0, QUERIES, CHUNK), ids=lambda first: f"{SEED}/{first}-{first + CHUNK - 1}"
)
def test_what_does_not_carry_a_label_does_not_change_with_its_data(
    first: int, world: World, record_property: Callable[[str, object], None]
) -> None:
    tally = Tally()
    for number in range(first, min(first + CHUNK, QUERIES)):
        before = len(tally.failures)
        world.check(flow_query(f"{SEED}/{number}"), tally)
        if len(tally.failures) > before:
            tally.failures.insert(before, f"seed {SEED}/{number}:")
    record_property("tally", str(tally))
    assert tally.failures == [], "\n".join(tally.failures[:6])
    assert tally.queries > CHUNK / 2
    assert tally.checks > 100


def test_labels_are_not_far_wider_than_what_matters(world: World) -> None:
    tally = Tally()
    for number in range(60):
        world.check(flow_query(f"precision/{number}"), tally)
    shares = [idle / carried for idle, carried in zip(tally.idle, tally.carried, strict=True)]
    assert shares[0] <= IDLE_SHARES[0], tally
    assert shares[1] <= IDLE_SHARES[1], tally
