"""Lineage, operator by operator: see ``runner.py`` for the format of ``lineage/*.test``.

Each line of what is expected is a column: ``name: what its values are made of | what else chose
its rows``. ``BATUTA_UPDATE_PLANS=1`` writes what the engine finds now, for a person to read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest

from batuta_sql.plan import relational
from batuta_sql.plan.lineage import Flow, Origin, delivered
from tests.plan.runner import PlanFile, Planner

FILES = sorted((Path(__file__).parent / "lineage").glob("*.test"))
UPDATE = os.environ.get("BATUTA_UPDATE_PLANS") == "1"


@cache
def lineages_of(path: Path) -> dict[str, str]:
    file = PlanFile.read(path)
    with closing(Planner(file.tables())) as planner:
        return {case.title: planner.lineage(case.sql) for case in file.cases}


@pytest.mark.parametrize(
    ("path", "title"),
    [pytest.param(p, c.title, id=c.title) for p in FILES for c in PlanFile.read(p).cases],
)
def test_lineage(path: Path, title: str) -> None:
    file = PlanFile.read(path)
    case = next(c for c in file.cases if c.title == title)
    got = lineages_of(path)[title]
    if UPDATE:
        case.expected = got
        file.write()
        return
    assert got == case.expected, case.sql


def test_the_rows_of_a_table_need_no_mention_beside_its_columns() -> None:
    table, other = ("crm", "customer"), ("erp", "person")
    flow = Flow(frozenset({Origin(table, "name")}))
    rows = frozenset({Origin(table), Origin(other), Origin(table, "id")})
    assert delivered(flow, rows).indirect == {Origin(other), Origin(table, "id")}


def operators(kind: type = relational.Relation) -> Iterator[type]:
    for inner in kind.__subclasses__():
        yield inner
        yield from operators(inner)


def test_every_operator_is_known_to_the_analysis() -> None:
    source = (Path(relational.__file__).parent / "lineage.py").read_text("utf-8")
    for operator in operators():
        assert f"case {operator.__name__}(" in source, operator
