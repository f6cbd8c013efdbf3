"""Hive's types, filter expressions and projected values: what is known without a server."""

from __future__ import annotations

import datetime
import itertools
from typing import Any

import duckdb
import pytest

from batuta_sql.errors import NotSupportedError
from batuta_sql.sources.glue_expression import MOST_CHARACTERS, filter_expression
from batuta_sql.sources.glue_projection import projected
from batuta_sql.sources.glue_tables import Column, HiveTable, Storage
from batuta_sql.sources.glue_types import hive_type
from tests.emulators.process import python_of


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("int", "INTEGER"),
        ("INTEGER", "INTEGER"),
        ("long", "BIGINT"),
        ("double precision", "DOUBLE"),
        ("decimal", "DECIMAL(10,0)"),
        ("decimal(38, 10)", "DECIMAL(38,10)"),
        ("decimal(7)", "DECIMAL(7,0)"),
        ("varchar(65535)", "VARCHAR"),
        ("char(3)", "VARCHAR"),
        ("timestamp", "TIMESTAMP"),
        ("timestamp with local time zone", "TIMESTAMP WITH TIME ZONE"),
        ("binary", "BLOB"),
        ("array<array<tinyint>>", "TINYINT[][]"),
        (
            "map<string,struct<a:decimal(4,2),b:date>>",
            'MAP(VARCHAR, STRUCT("a" DECIMAL(4,2), "b" DATE))',
        ),
        ("struct<a b:int, `c`:string>", 'STRUCT("a b" INTEGER, "c" VARCHAR)'),
        ("uniontype<int,string>", None),
        ("array<interval>", None),
        ("decimal(39,0)", None),
        ("decimal(4,5)", None),
        ("array<int", None),
        ("struct<a>", None),
        ("int>", None),
        ("", None),
        ("geometry", None),
    ],
)
def test_a_type_of_the_catalog_in_duckdbs_words(told: str, expected: str | None) -> None:
    assert hive_type(told).duckdb == expected


KEYS = {"s": "string", "i": "int", "d": "date", "x": "decimal(10,2)", "t": "timestamp"}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('"i" = 5', "i = 5"),
        ('5 < "i"', "i > 5"),
        ('"i" BETWEEN -1 AND 3', "i >= -1 AND i <= 3"),
        ('"i" IN (1, 2)', "i IN (1, 2)"),
        ('"i" = 1.5', None),
        ("\"i\" = '5'", None),
        ('"i" <> 5', None),
        ('NOT "i" = 5', None),
        ('"i" IS NULL', None),
        ('"i" + 1 = 5', None),
        ("\"s\" = 'a b-c'", "s = 'a b-c'"),
        ("\"s\" = 'it''s'", None),
        ("\"s\" = 'grün'", None),
        ("\"s\" > 'a'", None),
        ("\"s\" LIKE 'a%'", None),
        ("\"d\" >= CAST('2024-01-02' AS DATE)", "d >= '2024-01-02'"),
        ("\"d\" = '2024-01-02'", None),
        ("\"d\" = CAST('2024-1-2' AS DATE)", None),
        ('"x" > 1.5', "x >= 1.5"),
        ('"x" = 1.5', "x >= 1.5 AND x <= 1.5"),
        ("\"t\" > CAST('2024-01-02' AS TIMESTAMP)", None),
        ('"i" = 1 AND "s" > \'a\'', "i = 1"),
        ('"i" = 1 OR "s" > \'a\'', None),
        ('("i" = 1 AND "s" = \'a\') OR "i" = 2', "((i = 1 AND s = 'a') OR (i = 2))"),
        ('"i" IN (1, NULL)', None),
        (None, None),
    ],
)
def test_what_the_service_is_asked_to_test(condition: str | None, expected: str | None) -> None:
    keys = {n: hive_type(t) for n, t in KEYS.items()}
    assert filter_expression(condition, keys) == expected


def test_an_expression_that_is_too_long_is_not_sent() -> None:
    many = ", ".join(map(str, range(1_000_000, 1_000_000 + MOST_CHARACTERS)))
    assert filter_expression(f'"i" IN ({many})', {"i": hive_type("int")}) is None


VALUES: dict[str, list[str]] = {
    "string": ["", "a", "A", "a ", "b", "10", "9", "a-b", "2024-01-01"],
    "int": ["-2147483648", "-1", "0", "1", "9", "10", "007", "2147483647"],
    "bigint": ["-9223372036854775808", "5", "9223372036854775807"],
    "date": ["0001-01-01", "1999-12-31", "2024-02-29", "9999-12-31"],
    "decimal": ["-1.50", "0", "1.5", "1.50", "99999999.99", "100000000.01"],
}
LITERALS: dict[str, list[str]] = {
    "string": ["'a'", "'A'", "'b'", "'10'", "'a-b'"],
    "int": ["0", "7", "-1", "9"],
    "bigint": ["5", "9223372036854775807", "-9223372036854775808"],
    "date": ["CAST('2024-02-29' AS DATE)", "CAST('1999-12-31' AS DATE)"],
    "decimal": ["1.5", "0", "99999999.99", "100000000.01"],
}


@pytest.mark.parametrize("type_", VALUES)
def test_the_service_never_leaves_out_a_partition_that_duckdb_would_take(type_: str) -> None:
    """moto's evaluation of the expression against DuckDB's of the condition, value by value."""
    told = "decimal(18,2)" if type_ == "decimal" else type_
    type_of_key = hive_type(told)
    conditions = [
        *(
            f'"k" {o} {v}'
            for o, v in itertools.product(("=", "<", "<=", ">", ">="), LITERALS[type_])
        ),
        *(f'"k" IN ({a}, {b})' for a, b in itertools.combinations(LITERALS[type_], 2)),
        *(f'"k" BETWEEN {a} AND {b}' for a, b in itertools.permutations(LITERALS[type_], 2)),
        *(f'"k" < {a} OR "k" = {b}' for a, b in itertools.combinations(LITERALS[type_], 2)),
    ]
    asked = [(c, filter_expression(c, {"k": type_of_key})) for c in conditions]
    sure = [(c, e) for c, e in asked if e is not None]
    assert len(sure) >= len(LITERALS[type_])
    kept = _kept_by_moto(type_, VALUES[type_], [e for _, e in sure])
    with duckdb.connect() as engine:
        for (condition, expression), there in zip(sure, kept, strict=True):
            for value in VALUES[type_]:
                row = engine.execute(
                    f'SELECT {condition} FROM (SELECT CAST(? AS {type_of_key.duckdb}) AS "k")',
                    [value],
                ).fetchone()
                assert row is not None
                assert not row[0] or value in there, (condition, expression, value)


def _kept_by_moto(type_: str, values: list[str], expressions: list[str]) -> list[list[str]]:
    import json
    import subprocess

    code = (
        "import json, sys\n"
        "from moto.glue.utils import _PARTITION_FILTER_EXPRESSION_CACHE as c\n"
        "type_, values, expressions = json.load(sys.stdin)\n"
        "keys = [{'Name': 'k', 'Type': type_}]\n"
        "print(json.dumps([[v for v in values if c.get(e).eval(keys, {'Values': [v]})]"
        " for e in expressions]))\n"
    )
    done = subprocess.run(
        [str(python_of("aws")), "-c", code],
        input=json.dumps([type_, values, expressions]),
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[list[str]] = json.loads(done.stdout)
    return found


NOW = datetime.datetime(2024, 3, 31, 12, 30, tzinfo=datetime.UTC)


def table(**told: str) -> HiveTable:
    parameters = {f"projection.k.{n.replace('_', '.')}": v for n, v in told.items()}
    key = Column("k", hive_type("string"), "string")
    return HiveTable("db", "t", "s3://b/t/", Storage("parquet", ()), (key,), parameters)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"type": "Enum", "values": "a, b"}, ["a", " b"]),
        ({"type": "integer", "range": "1,10", "interval": "4"}, ["1", "5", "9"]),
        ({"type": "integer", "range": "-1,1", "digits": "2"}, ["-1", "00", "01"]),
        (
            {"type": "date", "format": "yyyy-MM", "range": "NOW-2MONTHS,NOW"},
            ["2024-01", "2024-02", "2024-03"],
        ),
        (
            {"type": "date", "format": "yyyy-MM-dd", "range": "2024-02-28,2024-03-01"},
            ["2024-02-28", "2024-02-29", "2024-03-01"],
        ),
        (
            {
                "type": "date",
                "format": "yyyyMMdd'T'HH",
                "range": "20240301T22,20240302T01",
                "interval": "1",
                "interval_unit": "HOURS",
            },
            ["20240301T22", "20240301T23", "20240302T00", "20240302T01"],
        ),
        (
            {"type": "date", "format": "yyyy", "range": "2022,NOW", "interval_unit": "YEARS"},
            ["2022", "2023", "2024"],
        ),
    ],
)
def test_projected_values(told: dict[str, Any], expected: list[str]) -> None:
    found = projected(table(**told), None, NOW)
    assert [v for (v,), _ in found] == expected
    assert found[0][1] == f"s3://b/t/k={expected[0]}"


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"type": "integer", "range": "a,b"},
        {"type": "integer", "range": "1,99999999999"},
        {"type": "date", "format": "EEE", "range": "NOW,NOW"},
        {"type": "date", "format": "yyyy-MM-dd", "range": "soon,NOW"},
        {"type": "date", "format": "yyyy", "range": "2020,NOW", "interval_unit": "eons"},
    ],
)
def test_a_projection_that_is_not_understood(told: dict[str, Any]) -> None:
    with pytest.raises(NotSupportedError, match='"db.t": the projection of "k"'):
        projected(table(**told), None, NOW)
