"""Every expression that is pushed: DuckDB's answer on the edge values, and really pushed.

``expressions.txt`` is the table: a line there is a test at each kind of source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.capability.conftest import KINDS, Bench

PAIRS = {
    # Columns whose every pair of values is compared, and the sources that compare them.
    "pg lite": (
        "small i",
        "small big",
        "i big",
        "f f",
        "d d",
        "t t",
        "t u",
        "t ling",
        "ling ling",
        "ling blind",
        "blind blind",
        "t blind",
        "t ch",
        "ch ch",
        "ch ling",
    ),
    "pg": (
        "i dec",
        "big dec18",
        "dec dec18",
        "dec wide",
        "whole dec",
        "big wide",
        "day day",
        "ts ts",
        "tz tz",
        "tm tm",
    ),
    "lite": ("f d", "d f"),
    "": ("small f", "i d", "dec d", "ts tz", "ok i", "i t", "t day", "day ts"),
}
OPERATORS = ("=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM")
EQUALITY_ONLY = ("ok ok", "id128 id128")


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    where: frozenset[str]
    expression: str
    rows: str
    refused: bool

    def query(self, source: str, *, as_filter: bool = False) -> str:
        both = re.search(r"\bb\.", self.expression) is not None
        relation = f"{source}.edge a" + (f" CROSS JOIN {source}.edge b" if both else "")
        key = "a.id AS i" + (", b.id AS j" if both else "")
        conditions = [f"({c})" for c in (self.rows, self.expression if as_filter else "") if c]
        condition = " WHERE " + " AND ".join(conditions) if conditions else ""
        value = "" if as_filter else f", {self.expression} AS v"
        return f"SELECT {key}{value} FROM {relation}{condition}"


def _cases() -> list[Case]:
    found: list[Case] = []
    for line in (Path(__file__).parent / "expressions.txt").read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        where, _, text = line.partition("|")
        expression, _, rows = text.strip().partition(" WHERE ")
        words = frozenset(where.split()) - {"-"}
        found.append(Case(words - {"refused"}, expression, rows, "refused" in words))
    return found


CASES = _cases()


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.expression + (" ..." if c.rows else ""))
def test_expression(bench: Bench, source: str, case: Case) -> None:
    run = bench.check(case.query(source))
    if case.refused:
        assert run.refused or source == "lite", f"DuckDB answers {case.expression}"
        return
    if run.refused:
        pytest.fail(f"{case.expression} is refused by DuckDB: {run.refused}")
    runs = [run]
    kind = bench.truth.sql(case.query(source)).types[-1]
    if str(kind) == "BOOLEAN":
        runs.append(bench.check(case.query(source, as_filter=True)))
    for one in runs:
        if source == "duck":
            assert one.whole or "random" in case.expression or "Fallback" in one.tree, one.tree
        else:
            assert one.whole == (source in case.where), one.tree


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize(
    ("pair", "where"), [(p, w) for w, pairs in PAIRS.items() for p in pairs], ids=str
)
def test_comparison_of_every_pair(bench: Bench, source: str, pair: str, where: str) -> None:
    left, right = pair.split()
    for operator in OPERATORS:
        case = Case(frozenset(where.split()), f"a.{left} {operator} b.{right}", "", False)
        run = bench.check(case.query(source))
        if not run.refused:
            assert run.whole == (source == "duck" or source in case.where), run.tree


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("pair", EQUALITY_ONLY)
def test_types_that_have_equality_but_no_common_order(bench: Bench, source: str, pair: str) -> None:
    left, right = pair.split()
    for operator in OPERATORS:
        case = Case(frozenset(), f"a.{left} {operator} b.{right}", "", False)
        run = bench.check(case.query(source))
        equality = operator in ("=", "<>") or "DISTINCT" in operator
        assert run.whole == (source == "duck" or (source == "pg" and equality)), run.tree


def test_each_column_is_read_as_it_is(bench: Bench) -> None:
    for source in KINDS:
        assert bench.check(f"SELECT * FROM {source}.edge").whole


def test_the_collations_are_what_they_claim(bench: Bench) -> None:
    """The server would answer otherwise if nothing were done about it: the premise of it all."""
    if not bench.icu:
        pytest.skip("this PostgreSQL was built without ICU")
    from adbc_driver_postgresql import dbapi

    uri = bench.uri
    with dbapi.connect(uri, autocommit=True) as con, con.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM edge WHERE blind = 'a'),"
            " (SELECT bool_or(ling < 'B') FROM edge WHERE ling = 'b'),"
            " (SELECT count(*) FROM edge WHERE ch = 'a  ')"
        )
        assert cursor.fetchone() == (2, True, 4)
