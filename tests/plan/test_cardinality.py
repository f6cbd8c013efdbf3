"""Estimates tell a join that follows a key from one that multiplies."""

from __future__ import annotations

import pytest
from sqlglot import parse_one

from batuta_sql.plan.cardinality import Cardinality, equi_pairs
from batuta_sql.plan.relational import Join, Scan
from batuta_sql.plan.site import ColumnInfo, ColumnStatistics, Statistics, TableInfo


def scan(name: str, rows: float, distinct: float | None = None, key: bool = False) -> Scan:
    """A table with one column ``NAME_k`` of so many distinct values."""
    column = ColumnInfo("k", "BIGINT")
    statistics = Statistics(rows, columns={"k": ColumnStatistics(distinct)} if distinct else {})
    table = TableInfo("s", (name,), (column,), keys=(("k",),) if key else (), statistics=statistics)
    return Scan(table, ((f"{name}_k", column),))


def join(left: Scan, right: Scan, on: str) -> Join:
    return Join(left, right, "INNER", parse_one(on, read="duckdb"))


def test_a_join_over_a_key_has_the_rows_of_the_other_side() -> None:
    node = join(scan("a", 1_000_000, 50_000), scan("b", 50_000, key=True), "a_k = b_k")
    assert Cardinality().rows(node) == pytest.approx(1_000_000)
    assert not Cardinality().multiplies(node)


def test_a_join_of_many_to_many_multiplies() -> None:
    node = join(scan("a", 1_000_000, 100), scan("b", 1_000_000, 100), "a_k = b_k")
    assert Cardinality().multiplies(node)


@pytest.mark.parametrize("on", ["a_k < b_k", "a_k <> b_k", "TRUE"])
def test_a_join_without_an_equality_multiplies(on: str) -> None:
    assert Cardinality().multiplies(join(scan("a", 10), scan("b", 10), on))


def test_further_conditions_make_fewer_rows() -> None:
    plain = join(scan("a", 1000, 100), scan("b", 1000, 100), "a_k = b_k")
    strict = join(scan("a", 1000, 100), scan("b", 1000, 100), "a_k = b_k AND a_k > 5")
    assert Cardinality().rows(strict) < Cardinality().rows(plain)


def test_pairs_are_found_in_either_order() -> None:
    node = join(scan("a", 10), scan("b", 10), "b_k = a_k AND a_k > 1")
    assert equi_pairs(node) == [("a_k", "b_k")]


def test_nothing_known_is_a_guess_not_an_error() -> None:
    table = TableInfo("s", ("t",), (ColumnInfo("k", "BIGINT"),))
    assert Cardinality().rows(Scan(table, (("t_k", table.columns[0]),))) >= 1
