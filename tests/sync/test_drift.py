"""Which changes of a schema keep every value, and how they are told."""

from __future__ import annotations

import pytest

from batuta_sql.sync.drift import changes, described
from batuta_sql.sync.schema import Column, fingerprint, from_json, to_json

SAFE_TYPES = [
    ("SMALLINT", "INTEGER"),
    ("INTEGER", "BIGINT"),
    ("BIGINT", "HUGEINT"),
    ("UTINYINT", "SMALLINT"),
    ("UINTEGER", "UBIGINT"),
    ("FLOAT", "DOUBLE"),
    ("DECIMAL(10,2)", "DECIMAL(12,2)"),
    ("INTEGER", "DECIMAL(12,2)"),
    ("INTEGER[]", "BIGINT[]"),
    ("STRUCT(a INTEGER)", "STRUCT(a BIGINT)"),
    ("STRUCT(a INTEGER)", "STRUCT(a INTEGER, b VARCHAR)"),
    ("MAP(VARCHAR, INTEGER)", "MAP(VARCHAR, BIGINT)"),
]
UNSAFE_TYPES = [
    ("BIGINT", "INTEGER"),
    ("INTEGER", "UBIGINT"),
    ("UBIGINT", "BIGINT"),
    ("DOUBLE", "FLOAT"),
    ("BIGINT", "DOUBLE"),
    ("DECIMAL(10,2)", "DECIMAL(12,4)"),
    ("DECIMAL(10,2)", "DECIMAL(9,2)"),
    ("BIGINT", "DECIMAL(20,2)"),
    ("DECIMAL(10,2)", "JSON"),
    ("DECIMAL(38,0)", "VARIANT"),
    ("INTEGER", "VARCHAR"),
    ("DATE", "TIMESTAMP"),
    ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE"),
    ("BOOLEAN", "INTEGER"),
    ("BIGINT[]", "INTEGER[]"),
    ("STRUCT(a INTEGER, b VARCHAR)", "STRUCT(a INTEGER)"),
    ("STRUCT(a INTEGER, b VARCHAR)", "STRUCT(b VARCHAR, a INTEGER)"),
    ("INTEGER", "INTEGER[]"),
]
SAFE_NATIVE = [
    ("character varying(10)", "character varying(20)"),
    ("character varying(10)", "text"),
    ("character varying(10)", "character varying"),
    ("VARCHAR(10)", "VARCHAR(16777216)"),
    ("character(3)", "character(5)"),
    ("timestamp(3) without time zone", "timestamp(6) without time zone"),
]
UNSAFE_NATIVE = [
    ("character varying(20)", "character varying(10)"),
    ("text", "character varying(10)"),
    ("character varying", "character varying(10)"),
    ("character varying(10)", "mood"),
    ("mood", "text"),
    ("timestamp(6) without time zone", "timestamp(3) without time zone"),
]


@pytest.mark.parametrize(
    ("before", "now", "is_safe"),
    [(*pair, True) for pair in SAFE_TYPES] + [(*pair, False) for pair in UNSAFE_TYPES],
)
def test_types(before: str, now: str, is_safe: bool) -> None:
    (change,) = changes((Column("c", before),), (Column("c", now),))
    assert (change.kind, change.before, change.now) == ("type", before, now)
    assert change.is_safe == is_safe


@pytest.mark.parametrize(
    ("before", "now", "is_safe"),
    [(*pair, True) for pair in SAFE_NATIVE] + [(*pair, False) for pair in UNSAFE_NATIVE],
)
def test_types_of_the_source(before: str, now: str, is_safe: bool) -> None:
    old, new = Column("c", "VARCHAR", before), Column("c", "VARCHAR", now)
    (change,) = changes((old,), (new,))
    assert (change.before, change.now, change.is_safe) == (before, now, is_safe)


def test_columns_that_come_and_go() -> None:
    before = (Column("a", "INTEGER"), Column("gone", "DATE"))
    now = (Column("a", "INTEGER"), Column("new", "DATE"), Column("full", "DATE", nullable=False))
    assert [(c.column, c.kind, c.is_safe) for c in changes(before, now)] == [
        ("new", "added", True),
        ("full", "added", False),
        ("gone", "removed", False),
    ]


def test_nulls_and_order() -> None:
    before = (Column("a", "INTEGER", nullable=False), Column("b", "DATE"))
    now = (Column("b", "DATE"), Column("a", "INTEGER"))
    assert [(c.column, c.kind, c.is_safe) for c in changes(before, now)] == [
        ("a", "nullable", True),
        ("*", "order", True),
    ]


def test_the_same_schema_has_no_changes_and_one_fingerprint() -> None:
    schema = (Column("a", "INTEGER", "int4", False), Column("b", "DECIMAL(10,2)", "numeric(10,2)"))
    assert changes(schema, schema) == ()
    assert from_json(to_json(schema)) == schema
    assert fingerprint(from_json(to_json(schema))) == fingerprint(schema)
    assert fingerprint(schema) != fingerprint(schema[::-1])


def test_a_change_is_told_in_a_line() -> None:
    found = changes(
        (Column("amount", "INTEGER", "integer"),), (Column("amount", "VARCHAR", "text"),)
    )
    (line,) = described(found)
    assert line.split("  ")[0] == "amount"
    assert "integer" in line
    assert "text" in line
    assert "NOT SAFE" in line
