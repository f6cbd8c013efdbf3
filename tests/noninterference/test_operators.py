"""Noninterference, construct by construct: those that the generator does not make, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.noninterference.check import Tally
from tests.noninterference.conftest import World

QUERIES = (Path(__file__).parent / "operators.sql").read_text("utf-8").splitlines()


@pytest.mark.parametrize("sql", QUERIES)
def test_what_does_not_carry_a_label_does_not_change_with_its_data(sql: str, world: World) -> None:
    tally = Tally()
    world.check(sql, tally)
    assert tally.failures == [], "\n".join(tally.failures)
    assert (tally.queries, tally.refused) == (1, 0)


def test_the_check_sees_a_label_that_is_missing(world: World) -> None:
    """A test that cannot fail is none: without the labels every change is a failure."""
    tally = Tally()
    stripped = World(_Unlabelled(), world.con, world.variations)  # type: ignore[arg-type]
    stripped.check(QUERIES[0], tally)
    assert tally.failures != []


class _Unlabelled:
    """A connection that has forgotten its labels."""

    class result_labels:
        columns = (("s", type("Labels", (), {"all": frozenset(), "direct": frozenset()})()),)

    def plan(self, sql: str) -> _Unlabelled:
        return self
