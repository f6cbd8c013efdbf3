"""What the cursor offers beside PEP 249: Arrow, data frames, the plan; and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import batuta_sql
from tests.dbapi.conftest import BEERS

NAMES = "SELECT id, name FROM pub.beer ORDER BY id"
JOIN = (
    "SELECT b.name, count(*) AS n FROM pub.beer b JOIN crm.public.guest g ON g.beer = b.id "
    "GROUP BY b.name ORDER BY b.name"
)


def test_fetch_arrow_table(cursor: Any) -> None:
    cursor.execute(NAMES)
    table = cursor.fetch_arrow_table()
    assert isinstance(table, pa.Table)
    assert table.column_names == ["id", "name"]
    assert table.column("name").to_pylist() == list(BEERS)


def test_fetch_record_batch_streams(cursor: Any) -> None:
    cursor.execute(NAMES)
    reader = cursor.fetch_record_batch()
    assert isinstance(reader, pa.RecordBatchReader)
    assert reader.read_all().num_rows == len(BEERS)


def test_fetch_df(cursor: Any) -> None:
    pandas = pytest.importorskip("pandas")
    cursor.execute(NAMES)
    frame = cursor.fetch_df()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["name"]) == list(BEERS)


def test_fetch_polars(cursor: Any) -> None:
    polars = pytest.importorskip("polars")
    cursor.execute(NAMES)
    frame = cursor.fetch_polars()
    assert isinstance(frame, polars.DataFrame)
    assert frame["name"].to_list() == list(BEERS)


def test_the_plan_names_its_fragments(cursor: Any) -> None:
    cursor.execute(JOIN)
    assert cursor.fetchall() == [(BEERS[0], 1), (BEERS[4], 1)]
    assert str(cursor.plan)
    assert {fragment.source for fragment in cursor.plan.fragments} == {"pub", "crm"}
    assert all(fragment.sql for fragment in cursor.plan.fragments)
    assert cursor.metrics is not None


def test_explain_and_estimate_run_nothing(connection: Any) -> None:
    assert "crm" in connection.explain(JOIN)
    assert connection.estimate(JOIN) is not None


def test_a_registered_table_joins(connection: Any) -> None:
    connection.register("marks", pa.table({"id": [1, 5], "stars": [3, 4]}))
    with connection.cursor() as cursor:
        cursor.execute("SELECT b.name, m.stars FROM marks m JOIN pub.beer b USING (id) ORDER BY 2")
        assert cursor.fetchall() == [(BEERS[0], 3), (BEERS[4], 4)]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO pub.beer VALUES (9, 'x', 1, NULL)",
        "UPDATE pub.beer SET name = 'x'",
        "DELETE FROM crm.public.guest",
        "DROP TABLE pub.beer",
        "CREATE TABLE crm.public.fresh AS SELECT 1 AS a",
        "ALTER TABLE pub.beer ADD COLUMN z INTEGER",
        "TRUNCATE crm.public.guest",
    ],
)
def test_writes_are_refused_and_change_nothing(cursor: Any, sql: str) -> None:
    with pytest.raises(batuta_sql.Error):
        cursor.execute(sql)
    cursor.execute("SELECT count(*), min(name) FROM pub.beer")
    assert cursor.fetchall() == [(len(BEERS), BEERS[0])]
    cursor.execute("SELECT count(*) FROM crm.public.guest")
    assert cursor.fetchone() == (3,)


def test_local_temporary_tables_and_views_are_allowed(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE mine AS SELECT id FROM pub.beer WHERE id < 3")
        cursor.execute("CREATE TEMP VIEW seen AS SELECT name FROM crm.public.guest")
        cursor.execute("SELECT (SELECT count(*) FROM mine), (SELECT count(*) FROM seen)")
        assert cursor.fetchall() == [(2, 3)]


def test_the_time_zone_of_the_session_holds_at_embedded_sources_too(tmp_path: Path) -> None:
    """The cast is pushed into the source's own engine, which must read the zone alike."""
    duckdb.sql(
        f"COPY (SELECT TIMESTAMPTZ '2024-06-01 12:00:00+00' AS moment) TO '{tmp_path}/t.parquet'"
    )
    with batuta_sql.connect({"sources": {"f": {"kind": "files", "path": str(tmp_path)}}}) as con:
        con.execute("SET TimeZone = 'America/New_York'")
        shown = con.execute("SELECT CAST(moment AS VARCHAR) FROM f.t").fetchall()
        assert shown == [("2024-06-01 08:00:00-04",)]
        con.execute("SET TimeZone = 'Asia/Tokyo'")
        shown = con.execute("SELECT CAST(moment AS VARCHAR) FROM f.t").fetchall()
        assert shown == [("2024-06-01 21:00:00+09",)]


def test_the_limits_hold_at_embedded_engines_too(tmp_path: Path) -> None:
    """A join pushed to a folder of files runs in that source's own engine."""
    duckdb.sql(f"COPY (SELECT 1 AS id) TO '{tmp_path}/t.parquet'")
    config = {
        "sources": {"f": {"kind": "files", "path": str(tmp_path)}},
        "memory_limit": "300MB",
        "threads": 1,
    }
    asked = "SELECT current_setting('memory_limit'), current_setting('threads')"
    with batuta_sql.connect(config) as con:
        engine = con._session.sources["f"].cursor
        assert engine().execute(asked).fetchall() == [("286.1 MiB", 1)]
        con.execute("SET memory_limit = '400MB'")
        assert engine().execute(asked).fetchall() == [("381.4 MiB", 1)]
