"""Estimates tell a join that follows a key from one that multiplies."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from sqlglot import parse_one

from batuta_sql.plan.cardinality import Cardinality, equi_pairs
from batuta_sql.plan.relational import Distinct, Filter, Join, Scan
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


def test_distinct_rows_are_as_many_as_groups() -> None:
    node = join(scan("a", 1_000_000, 50_000), scan("b", 1_000, 20), "a_k < b_k")
    assert Cardinality().rows(Distinct(scan("a", 1_000_000, 50_000))) == 50_000
    assert Cardinality().rows(Distinct(node)) == 50_000 * 20
    assert Cardinality().rows(Distinct(scan("b", 1_000))) < 1_000


def test_nothing_known_is_a_guess_not_an_error() -> None:
    table = TableInfo("s", ("t",), (ColumnInfo("k", "BIGINT"),))
    assert Cardinality().rows(Scan(table, (("t_k", table.columns[0]),))) >= 1


@pytest.mark.parametrize(("told", "expected"), [(1e5, 6e6 / 7), (1.5e6, 1.5e6), (9e9, 6e6)])
def test_a_column_of_a_key_has_as_many_values_as_its_rows_need(
    told: float, expected: float
) -> None:
    """A sample counts too few of values that lie together."""
    columns = (ColumnInfo("order", "BIGINT"), ColumnInfo("number", "INTEGER"))
    known = {"order": ColumnStatistics(told), "number": ColumnStatistics(7)}
    table = TableInfo(
        "s",
        ("line",),
        columns,
        keys=(("order", "number"),),
        statistics=Statistics(6e6, None, False, known),
    )
    lines = Scan(table, (("o", columns[0]), ("n", columns[1])))
    assert Cardinality().distinct("o", lines) == pytest.approx(expected)


# --- ranges ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "share"),
    [
        ("d >= DATE '2020-01-01' AND d < DATE '2021-01-01'", 0.1),
        ("d BETWEEN DATE '2020-01-01' AND DATE '2020-12-31'", 0.1),
        ("d < '2020-01-01'", 0.5),
        ("d < '2020-01-01' AND n > 90", 0.05),
        ("n >= -10", 1.0),
        ("n BETWEEN 20 AND 29.9", 0.1),
        ("n > 1000", 1e-4),
        ("n > 60 AND n < 40", 1e-4),
        ("n > m", 0.3),
        ("m > 5", 0.3),
    ],
)
def test_bounds_leave_their_part_of_the_range(condition: str, share: float) -> None:
    columns = (ColumnInfo("d", "DATE"), ColumnInfo("n", "INTEGER"), ColumnInfo("m", "INTEGER"))
    known = {
        "d": ColumnStatistics(minimum=date(2015, 1, 1), maximum=date(2025, 1, 1)),
        "n": ColumnStatistics(minimum=0, maximum=100),
    }
    table = TableInfo("s", ("t",), columns, statistics=Statistics(1e6, columns=known))
    node = Filter(
        Scan(table, tuple((c.name, c) for c in columns)), parse_one(condition, read="duckdb")
    )
    assert Cardinality().rows(node) == pytest.approx(1e6 * share, rel=0.02)


# --- common values and histograms --------------------------------------------------------------


def known_scan(**known: Any) -> Scan:
    column = ColumnInfo("k", "INTEGER")
    statistics = Statistics(1000.0, columns={"k": ColumnStatistics(**known)})
    return Scan(TableInfo("s", ("t",), (column,), statistics=statistics), (("k", column),))


@pytest.mark.parametrize(
    ("predicate", "rows"),
    [
        ("k = 7", 500),
        ("k = 9", 100),
        ("k = 5", 400 / 8),
        ("k IN (7, 9)", 600),
        ("k < 8", 500 + 400 * 0.5),
        ("k BETWEEN 0 AND 10", 500 + 100 + 400 * 0.6),
        ("k > 1000", 0.1),
        ("k = -3", 400 / 8),
    ],
)
def test_common_values_are_counted_and_the_others_lie_as_the_histogram_says(
    predicate: str, rows: float
) -> None:
    table = known_scan(
        distinct=10, minimum=0, maximum=100, common=((7, 0.5), (9, 0.1)), bounds=(0, 8, 28)
    )
    node = Filter(table, parse_one(predicate, read="duckdb"))
    assert Cardinality().rows(node) == pytest.approx(max(rows, 1.0), rel=0.1)


@pytest.mark.parametrize(
    ("value", "predicate"),
    [
        ("a", "k = 'a'"),
        ("a", "k = CAST('a' AS VARCHAR)"),
        (True, "k = TRUE"),
        (Decimal("1.50"), "k = 1.5"),
        (date(2024, 1, 2), "k = DATE '2024-01-02'"),
        (-4, "k = -4"),
    ],
)
def test_a_constant_is_known_again_however_it_is_written(value: object, predicate: str) -> None:
    node = Filter(
        known_scan(distinct=100, common=((value, 0.7),)), parse_one(predicate, read="duckdb")
    )
    assert Cardinality().rows(node) == pytest.approx(700)
