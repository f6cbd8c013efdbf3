"""Every type of DuckDB keeps its type, its values and their order on the way from a DuckDB file.

However it arrives: read while it comes, gathered for a join, kept on disk, asked for by the
fallback, or with another table's keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

import batuta_sql
from batuta_sql.catalog.local_objects import SPILLED

# 'b' before 'a', and names that have to be quoted.
MOOD = "ENUM('b', 'a', 'it''s', 'say \"no\"')"
MOODS = f"""
CREATE TABLE moods AS SELECT i AS id, v::{MOOD} AS m, [v::{MOOD}] AS ms, {{'m': v::{MOOD}}} AS s,
  v::VARCHAR AS t FROM (VALUES (1, 'a'), (2, 'b'), (3, NULL), (4, 'it''s'), (5, 'say "no"'),
  (6, 'b')) x(i, v)
"""


def _columns() -> list[str]:
    with duckdb.connect() as con:
        return [r[0] for r in con.execute("DESCRIBE FROM test_all_types()").fetchall()]


def _make(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(
        "CREATE TABLE everything AS SELECT row_number() OVER () AS id, * FROM test_all_types()"
    )
    con.execute("CREATE TABLE ids AS SELECT range AS id FROM range(1, 6)")
    con.execute(MOODS)
    con.execute(
        f"CREATE TABLE many AS SELECT range AS id, (CASE range % 3 WHEN 0 THEN 'b' WHEN 1"
        f" THEN 'a' ELSE 'it''s' END)::{MOOD} AS m FROM range(2_000_000)"
    )


@pytest.fixture(scope="module")
def truth() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        _make(con)
        yield con


@pytest.fixture(scope="module")
def federated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two files with the same tables, and a connection to both that always sends keys."""
    folder = tmp_path_factory.mktemp("types")
    config = 'semi_joins = "always"\nmemory_limit = "160MB"\n'
    for name in ("d", "e"):
        with duckdb.connect(folder / f"{name}.duckdb") as con:
            _make(con)
        config += f'[sources.{name}]\nkind = "duckdb"\npath = "{folder / name}.duckdb"\n'
    path = folder / "batuta.toml"
    path.write_text(config)
    with batuta_sql.connect(config=path) as con:
        yield con


def _same(federated: Any, truth: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Rows, their order and their types; ``d.`` and ``e.`` name the two files."""
    relation = truth.sql(sql.replace("d.", "").replace("e.", ""))
    with federated.cursor() as cursor:
        cursor.execute(sql)
        assert [str(c[1]) for c in cursor.description] == [str(t) for t in relation.types]
        assert cursor.fetchall() == relation.fetchall()


@pytest.mark.parametrize("how", ["stream", "join", "fallback"])
@pytest.mark.parametrize("wrapped", ["{}", "[{}]", "struct_pack(q := {})", "map([1], [{}])"])
@pytest.mark.parametrize("column", _columns())
def test_every_type_keeps_its_type_and_values(
    federated: Any, truth: duckdb.DuckDBPyConnection, column: str, wrapped: str, how: str
) -> None:
    value = wrapped.format(f'a."{column}"')
    rows = {
        # random() is never sent: what follows it is computed here.
        "stream": "FROM d.everything a WHERE random() >= 0",
        "join": "FROM d.everything a JOIN e.ids i ON a.id = i.id",
        "fallback": "FROM d.everything a POSITIONAL JOIN d.everything b",
    }[how]
    _same(
        federated,
        truth,
        f"SELECT typeof(v) AS t, CAST(v AS VARCHAR) AS v FROM (SELECT a.id, {value} AS v {rows})"
        " ORDER BY id",
    )


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT m, ms, s FROM d.moods ORDER BY m, id",
        "SELECT m FROM d.moods WHERE random() >= 0 ORDER BY m DESC NULLS LAST",
        "SELECT a.m, b.m FROM d.moods a JOIN e.moods b ON a.m = b.m ORDER BY a.m, a.id, b.id",
        "SELECT a.m FROM d.moods a JOIN e.moods b ON a.t = b.m ORDER BY a.m, a.id, b.id",
        "SELECT a.m FROM d.moods a WHERE a.m IN (SELECT b.m FROM e.moods b WHERE b.id < 3)"
        " ORDER BY 1",
        "SELECT max(a.m), min(a.m), max(a.t) FROM d.moods a JOIN e.ids i ON a.id = i.id",
        "SELECT i.id % 2 AS k, max(a.m) FROM d.moods a JOIN e.ids i ON a.id = i.id GROUP BY k"
        " ORDER BY k",
        "SELECT m, count(*) FROM (SELECT m FROM d.moods UNION ALL SELECT m FROM e.moods)"
        " GROUP BY m ORDER BY m",
        "SELECT a.id FROM d.moods a JOIN e.ids i ON a.id = i.id WHERE a.m < 'it''s' ORDER BY 1",
        "SELECT a.m FROM d.moods a JOIN e.moods b ON a.id = b.id AND a.m < b.m ORDER BY a.m",
        "SELECT max(a.s), max(a.ms) FROM d.moods a JOIN e.ids i ON a.id = i.id",
        f"SELECT CAST(a.t AS {MOOD}) AS c FROM d.moods a JOIN e.ids i ON a.id = i.id"
        " ORDER BY c, a.id",
        f"SELECT max(c) FROM (SELECT CAST(t AS {MOOD}) AS c FROM d.moods UNION ALL"
        " SELECT m FROM e.moods)",
        "SELECT a.m FROM d.moods a JOIN e.ids i ON a.id = i.id WHERE a.id > 99",
        "SELECT max(m) FROM d.moods WHERE id > 99",
        "SELECT a.m, b.m FROM d.moods a LEFT JOIN e.moods b ON a.id = b.id + 5 ORDER BY 1, 2",
        "SELECT enum_code(a.m) AS c FROM d.moods a JOIN e.ids i ON a.id = i.id ORDER BY a.id",
        "WITH RECURSIVE r AS (SELECT m, 1 AS n FROM d.moods UNION ALL SELECT m, n + 1 FROM r"
        " WHERE n < 2) SELECT max(m), min(m) FROM r",
        "SELECT * FROM (SELECT m, id FROM d.moods) PIVOT (count(*) FOR id IN (1, 2)) ORDER BY m",
        "SELECT max(a.m), count(*) FROM d.many a JOIN e.many b ON a.id = b.id WHERE b.m = 'a'",
        "SELECT a.m, count(*) FROM d.many a JOIN e.many b ON a.id = b.id AND a.m <= b.m"
        " GROUP BY a.m ORDER BY a.m",
    ],
)
def test_an_enum_is_ordered_as_it_was_declared(
    federated: Any, truth: duckdb.DuckDBPyConnection, sql: str
) -> None:
    _same(federated, truth, sql)


def test_an_enum_survives_the_disk(federated: Any, truth: duckdb.DuckDBPyConnection) -> None:
    sql = "SELECT max(a.m), min(b.m) FROM d.many a JOIN e.many b ON a.id = b.id + 1"
    with federated.cursor() as cursor:
        cursor.execute(sql)
        with federated._session.engine.cursor() as look:
            tables = look.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        assert any(t.startswith(SPILLED) for (t,) in tables), "the table is too small to be kept"
        assert cursor.fetchall() == truth.sql(sql.replace("d.", "").replace("e.", "")).fetchall()
