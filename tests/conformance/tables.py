"""The tables of the suite, and the edge values of each type, as DuckDB writes them."""

from __future__ import annotations

import duckdb

from tests.conformance.stand import Table

EDGES: dict[str, tuple[str, ...]] = {
    "BOOLEAN": ("true", "false"),
    "TINYINT": ("-128", "0", "127"),
    "SMALLINT": ("-32768", "0", "32767"),
    "INTEGER": ("-2147483648", "0", "2147483647"),
    "BIGINT": ("-9223372036854775808", "0", "9223372036854775807"),
    "FLOAT": ("0", "-0.5", "16777216", "3.4e38", "1e-30"),
    "DOUBLE": ("0", "-2.5", "1e308", "5e-324", "0.1", "'inf'", "'-inf'", "'nan'"),
    "DECIMAL(9,2)": ("0", "-0.01", "9999999.99", "-9999999.99"),
    "DECIMAL(18,4)": ("0.0001", "-99999999999999.9999", "99999999999999.9999"),
    "DECIMAL(38,0)": ("0", "99999999999999999999999999999999999999", "-1"),
    "VARCHAR": ("''", "'a'", "'it''s'", "'Zoë'", "'日本'", "'😀'", "' pad '", "'\\'", "'%_'"),
    "BLOB": ("''::BLOB", "'\\x00\\xFF'::BLOB", "'abc'::BLOB"),
    "DATE": ("'0001-01-01'", "'1969-12-31'", "'2024-02-29'", "'9999-12-31'"),
    "TIME": ("'00:00:00'", "'23:59:59.999999'", "'12:30:00.5'"),
    "TIMESTAMP": (
        "'0001-01-01 00:00:00'",
        "'1969-12-31 23:59:59.999999'",
        "'2024-02-29 12:00:00'",
        "'9999-12-31 23:59:59.999999'",
    ),
    "TIMESTAMP WITH TIME ZONE": (
        "'1970-01-01 00:00:00+00'",
        "'2024-02-29 12:00:00.123456+05:30'",
        "'9999-12-31 23:59:59.999999+00'",
    ),
    "UUID": ("'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"),
    "JSON": ('\'{"a": [1, null, "x"]}\'', "'[]'", "'1'"),
    "INTEGER[]": ("[1, NULL, 3]", "[]"),
    "STRUCT(a INTEGER, b VARCHAR)": ("{'a': 1, 'b': 'x'}", "{'a': NULL, 'b': NULL}"),
}
"""DuckDB type -> values. Every table of them has a row with NULL, too."""

FACTS = Table(
    "facts",
    (
        ("id", "BIGINT"),
        ("k", "INTEGER"),
        ("word", "VARCHAR"),
        ("price", "DECIMAL(12,2)"),
        ("day", "DATE"),
    ),
)
KINDS = Table("kinds", (("k", "INTEGER"), ("label", "VARCHAR")))
EMPTY = Table("nothing", (("a", "INTEGER"), ("b", "VARCHAR")))
UNICODE = Table("Größe", (("id", "INTEGER"), ("naïve", "VARCHAR"), ("with space", "INTEGER")))
BIG = Table("big", (("id", "BIGINT"), ("text", "VARCHAR"), ("n", "DOUBLE")))
FACT_ROWS, BIG_ROWS = 400, 100_000


def type_table(type_: str) -> Table:
    """The table of a type's edge values."""
    word = "".join(c if c.isalnum() else "_" for c in type_.lower().replace("[]", " list"))
    return Table(f"t_{word}", (("id", "INTEGER"), ("v", type_)))


def make_truth(con: duckdb.DuckDBPyConnection) -> None:
    """All tables of the suite, in the schema ``truth``; ``here`` is for them as they arrive."""
    con.execute("SET TimeZone = 'UTC'")
    con.execute("CREATE SCHEMA truth")
    con.execute("CREATE SCHEMA here")
    con.execute("USE truth")
    for type_, values in EDGES.items():
        table = type_table(type_)
        rows = ", ".join(f"({i}, CAST({v} AS {type_}))" for i, v in enumerate(("NULL", *values)))
        con.execute(f"CREATE TABLE {table.name} AS SELECT * FROM (VALUES {rows}) t(id, v)")
        con.execute(f"ALTER TABLE {table.name} ALTER id TYPE INTEGER")
    con.execute(
        f"""
        CREATE TABLE facts AS SELECT i::BIGINT AS id,
          CASE WHEN i % 11 <> 0 THEN (i * 7 % 13)::INTEGER END AS k,
          CASE WHEN i % 7 <> 0 THEN ['red', 'Red', 'rot', 'grün', '', 'a b'][1 + i % 6] END AS word,
          ((i * 37 % 1000) / 4)::DECIMAL(12,2) AS price,
          DATE '2023-12-25' + (i % 40)::INTEGER AS day
        FROM range({FACT_ROWS}) r(i)
        """
    )
    con.execute(
        "CREATE TABLE kinds AS SELECT i::INTEGER AS k, 'kind ' || i AS label FROM range(10) r(i)"
    )
    con.execute("CREATE TABLE nothing (a INTEGER, b VARCHAR)")
    con.execute('CREATE TABLE "Größe" AS SELECT 1 AS id, \'ï\' AS "naïve", 2 AS "with space"')
    con.execute(
        f"""
        CREATE TABLE big AS SELECT i AS id, 'row number ' || i AS text, i / 8 AS n
        FROM range({BIG_ROWS}) r(i)
        """
    )
