"""One TPC query under one placement, against DuckDB."""

from __future__ import annotations

import pytest

from tests.comparison import difference, without_limit
from tests.tpc.federation import Federation
from tests.tpc.placements import PLACEMENTS, SEED, place, query_numbers


def parameters(benchmark: str, placements: int = PLACEMENTS) -> list[object]:
    """Every query with every placement."""
    return [
        pytest.param(number, attempt, id=f"q{number:02}-{attempt}")
        for number in query_numbers(benchmark)
        for attempt in range(placements)
    ]


def check(benchmark: str, number: int, attempt: int, federation: Federation) -> None:
    """Fails with the placement and the difference where Batuta's answer is not DuckDB's."""
    placed = place(benchmark, number, attempt, federation.homes)
    want = federation.know(placed.truth)
    where = f"{benchmark} q{number} placement {attempt} of seed {SEED}: {placed.label}"
    try:
        got = federation.ask(placed.sql, always=attempt % 2 == 1)
    except Exception as error:
        pytest.fail(f"{where}\n{type(error).__name__}: {error}\n{placed.sql}")
    problem = difference(got, want, placed.truth)
    if problem is not None and (unlimited := without_limit(placed.truth)) is not None:
        problem = difference(got, want, placed.truth, federation.know(unlimited))
    if problem is not None:
        pytest.fail(f"{where}\n{problem}\n{placed.sql}", pytrace=False)
