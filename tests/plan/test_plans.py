"""The rules, each by example: see ``runner.py`` for the format of ``rules/*.test``.

``BATUTA_UPDATE_PLANS=1`` writes what the engine plans now into the files, for a person to read.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import pytest

from tests.plan.runner import PlanFile, planned, with_small_numbers

FILES = sorted((Path(__file__).parent / "rules").glob("*.test"))
UPDATE = os.environ.get("BATUTA_UPDATE_PLANS") == "1"


@lru_cache
def plans_of(path: Path) -> dict[str, str]:
    return planned(PlanFile.read(path))


@pytest.mark.parametrize(
    ("path", "title"),
    [
        pytest.param(p, c.title, id=f"{p.stem}: {c.title}")
        for p in FILES
        for c in PlanFile.read(p).cases
    ],
)
def test_plan(path: Path, title: str) -> None:
    file = PlanFile.read(path)
    case = next(c for c in file.cases if c.title == title)
    got = plans_of(path)[title]
    if UPDATE:
        case.expected = got
        file.write()
        return
    assert got == case.expected, case.sql


def test_every_rule_has_its_cases() -> None:
    import batuta_sql.plan.rules as rules

    names = {p.stem for p in Path(rules.__file__).parent.glob("*.py")} - {"__init__"}
    assert names == {p.stem for p in FILES}


def test_titles_are_unique() -> None:
    for path in FILES:
        titles = [c.title for c in PlanFile.read(path).cases]
        assert len(set(titles)) == len(titles)


def test_symbols_are_numbered_by_appearance() -> None:
    assert with_small_numbers("a_17 b_9 a_17") == "a_1 b_2 a_1"
