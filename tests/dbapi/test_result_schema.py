"""The schema of a result before anything is run, and the parameters of a statement."""

from __future__ import annotations

import decimal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

import batuta_sql
from batuta_sql.labels import labels_of_schema


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Any]:
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as shop:
        shop.execute(
            "CREATE TABLE sale AS SELECT 1 AS id, 'a' AS name, 1.50::DECIMAL(9,2) AS price,"
            " [1, 2] AS many, {'x': 1, 'y': ['z']} AS nested, INTERVAL 1 DAY AS pause,"
            " 'b'::ENUM('a', 'b') AS kind, uuid() AS key,"
            " TIMESTAMPTZ '2026-01-02 03:04:05+00' AS at, 12::HUGEINT AS large"
        )
    config: dict[str, Any] = {
        "sources": {
            "shop": {
                "kind": "duckdb",
                "path": str(tmp_path / "shop.duckdb"),
                "tables": {"sale": {"columns": {"name": {"labels": ["pii"]}}}},
            }
        }
    }
    with closing(batuta_sql.connect(config)) as made:
        yield made


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("FROM shop.sale", None),
        ("SELECT count(*), sum(id), avg(price) FROM shop.sale", None),
        ("SELECT id AS a, price AS a FROM shop.sale", None),
        ("SELECT name FROM shop.sale WHERE false", None),
        ("SELECT id, ? AS x FROM shop.sale WHERE name = ?", ["v", "a"]),
        ("SELECT ?, ?, ?, ?", [2**40, 1.5, None, decimal.Decimal("1.25")]),
        ("SELECT $a AS a, $b AS b", {"a": 1, "b": b"\x00"}),
        ("SELECT unnest(many) FROM shop.sale", None),
        ("EXPLAIN SELECT id FROM shop.sale", None),
        ("SUMMARIZE shop.sale", None),
    ],
)
def test_it_is_that_of_the_result(connection: Any, sql: str, parameters: Any) -> None:
    told = connection.result_schema(sql, parameters)
    got = connection.execute(sql, parameters).fetch_arrow_table().schema
    assert told.equals(got, check_metadata=True)


def test_it_carries_the_labels(connection: Any) -> None:
    schema = connection.result_schema("SELECT name, id FROM shop.sale")
    assert labels_of_schema(schema).of("name").direct == {"pii"}
    assert not labels_of_schema(schema).of("id")


@pytest.mark.parametrize("sql", ["SHOW TABLES", "DESCRIBE shop.sale", "PIVOT shop.sale ON name"])
def test_what_only_running_tells_is_not_told(connection: Any, sql: str) -> None:
    assert connection.result_schema(sql) is None


def test_nothing_is_run(connection: Any) -> None:
    assert connection.result_schema("SELECT error('it ran') AS x, id FROM shop.sale").names == [
        "x",
        "id",
    ]


def test_wrong_sql_is_an_error(connection: Any) -> None:
    with pytest.raises(batuta_sql.ProgrammingError, match="did you mean"):
        connection.result_schema("SELECT nme FROM shop.sale")
    with pytest.raises(batuta_sql.ProgrammingError, match="DROP is not a query"):
        connection.result_schema("DROP TABLE t")


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT 1", ()),
        ("SELECT ?, id FROM shop.sale WHERE name = ?", ("1", "2")),
        ("SELECT $2, $1, '?'", ("1", "2")),
        ("SELECT $b, $a, $b", ("a", "b")),
        ("SELECT " + ", ".join("?" * 11), tuple(str(n) for n in range(1, 12))),
    ],
)
def test_the_parameters_of_a_statement(connection: Any, sql: str, names: tuple[str, ...]) -> None:
    assert connection.parameter_names(sql) == names
