"""Folders of files: formats, partitions, globs, unions of schemas."""

from __future__ import annotations

import datetime
import gzip
import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batuta_sql
from batuta_sql.source_settings import FilesSettings
from batuta_sql.sources.files import Files
from tests.sources.conftest import rows_of, types_of

Opened = Callable[..., Any]


def write(path: Path, sql: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    duckdb.sql(sql).write_parquet(str(path))


def test_every_format_is_a_table_named_by_its_stem(tmp_path: Path, opened: Opened) -> None:
    write(tmp_path / "p.parquet", "SELECT 1 AS id, 'a' AS t")
    (tmp_path / "c.csv").write_text("id,t\n1,a\n")
    (tmp_path / "tabs.tsv").write_text("id\tt\n1\ta\n")
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(b"id,t\n1,a\n"))
    (tmp_path / "j.jsonl").write_text('{"id": 1, "t": "a"}\n')
    (tmp_path / "n.ndjson").write_text('{"id": 1, "t": "a"}\n')
    (tmp_path / "notes.txt").write_text("no table")
    (tmp_path / ".hidden.csv").write_text("id,t\n1,a\n")
    table = pa.table({"id": [1], "t": ["a"]})
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    connection = opened(kind="files", path=str(tmp_path))
    shown = {row[0] for row in connection.execute("SHOW TABLES").fetchall()}
    for name in ("p", "c", "tabs", "packed", "j", "n", "a"):
        assert rows_of(connection, f"SELECT id, t FROM s.{name}") == [(1, "a")], name
    assert shown == {f"s.{name}" for name in ("p", "c", "tabs", "packed", "j", "n", "a")}


def test_a_folder_is_one_table_with_the_union_of_its_columns(
    tmp_path: Path, opened: Opened
) -> None:
    write(tmp_path / "t" / "1.parquet", "SELECT 1 AS id, 'old' AS name")
    write(tmp_path / "t" / "2.parquet", "SELECT 'new' AS name, 2::BIGINT AS id, 9.5 AS price")
    connection = opened(kind="files", path=str(tmp_path))
    found = rows_of(connection, "SELECT id, name, price::DOUBLE AS price FROM s.t")
    assert found == [(1, "old", None), (2, "new", 9.5)]
    assert types_of(connection, "s.t")["id"] == "BIGINT"


def test_a_new_file_is_seen_at_once(tmp_path: Path, opened: Opened) -> None:
    write(tmp_path / "t" / "1.parquet", "SELECT 1 AS id")
    connection = opened(kind="files", path=str(tmp_path))
    assert rows_of(connection, "SELECT id FROM s.t") == [(1,)]
    write(tmp_path / "t" / "2.parquet", "SELECT 2 AS id, true AS extra")
    assert rows_of(connection, "SELECT id, extra FROM s.t") == [(1, None), (2, True)]


def test_hive_partitions_are_columns_and_prune(tmp_path: Path, opened: Opened) -> None:
    for year in (2023, 2024):
        for city in ("Oslo", "São Paulo"):
            write(
                tmp_path / "t" / f"year={year}" / f"city={city}" / "0.parquet",
                f"SELECT {year}0 + range AS id FROM range(3)",
            )
    connection = opened(kind="files", path=str(tmp_path))
    assert rows_of(connection, "SELECT count(*) AS n FROM s.t") == [(12,)]
    found = rows_of(connection, "SELECT DISTINCT year, city FROM s.t WHERE year = 2024")
    assert found == [(2024, "Oslo"), (2024, "São Paulo")]
    # What is pruned is not even opened.
    (tmp_path / "t" / "year=2023" / "city=Oslo" / "0.parquet").write_bytes(b"PAR1 broken PAR1")
    with pytest.raises(batuta_sql.Error):
        rows_of(connection, "SELECT sum(id) AS n FROM s.t")


def test_an_equals_sign_in_the_path_above_is_no_partition(tmp_path: Path, opened: Opened) -> None:
    write(tmp_path / "env=prod" / "t" / "0.parquet", "SELECT 1 AS id")
    write(tmp_path / "env=prod" / "u.parquet", "SELECT 2 AS id")
    write(tmp_path / "env=prod" / "h" / "year=2024" / "0.parquet", "SELECT 3 AS id")
    connection = opened(kind="files", path=str(tmp_path / "env=prod"))
    assert rows_of(connection, "SELECT * FROM s.h") == [(3, 2024)]
    globbed = opened(kind="files", tables={"g": str(tmp_path / "env=prod" / "h" / "*" / "*")})
    assert rows_of(globbed, "SELECT * FROM s.g") == [(3, 2024)]
    for table, value in (("t", 1), ("u", 2)):
        assert types_of(connection, f"s.{table}") == {"id": "INTEGER"}
        assert rows_of(connection, f"SELECT * FROM s.{table}") == [(value,)]


def test_a_glob_is_a_table(tmp_path: Path, opened: Opened) -> None:
    write(tmp_path / "a" / "x1.parquet", "SELECT 1 AS id")
    write(tmp_path / "b" / "x2.parquet", "SELECT 2 AS id")
    write(tmp_path / "b" / "y.parquet", "SELECT 3 AS id")
    connection = opened(
        kind="files",
        tables={
            "xs": str(tmp_path / "*" / "x*.parquet"),
            "all": str(tmp_path / "**" / "*.parquet"),
        },
    )
    assert rows_of(connection, "SELECT id FROM s.xs") == [(1,), (2,)]
    assert rows_of(connection, 'SELECT id FROM s."all"') == [(1,), (2,), (3,)]


def test_names_that_look_like_globs_are_names(tmp_path: Path, opened: Opened) -> None:
    write(tmp_path / "a[1].parquet", "SELECT 1 AS id")
    write(tmp_path / "a1.parquet", "SELECT 2 AS id")
    write(tmp_path / "it's 100% ?.parquet", "SELECT 3 AS id")
    connection = opened(kind="files", path=str(tmp_path))
    assert rows_of(connection, 'SELECT id FROM s."a[1]"') == [(1,)]
    assert rows_of(connection, "SELECT id FROM s.a1") == [(2,)]
    assert rows_of(connection, 'SELECT id FROM s."it\'s 100% ?"') == [(3,)]


def test_csv_with_all_its_quoting(tmp_path: Path, opened: Opened) -> None:
    (tmp_path / "t.csv").write_text(
        'id,text,amount\n1,"two\nlines",1.50\n2,"a ""quoted"" word",\n3,"",-2.25\n4,,0\n5,"a,b",1\n'
    )
    connection = opened(kind="files", path=str(tmp_path))
    assert rows_of(connection, "SELECT id, text FROM s.t") == [
        (1, "two\nlines"),
        (2, 'a "quoted" word'),
        (3, ""),
        (4, None),
        (5, "a,b"),
    ]
    assert rows_of(connection, "SELECT id FROM s.t WHERE text IS NULL") == [(4,)]
    assert rows_of(connection, "SELECT id FROM s.t WHERE text = ''") == [(3,)]
    assert rows_of(connection, "SELECT id FROM s.t WHERE amount IS NULL") == [(2,)]


def test_json_lines_with_nesting_and_gaps(tmp_path: Path, opened: Opened) -> None:
    lines = [
        {"id": 1, "who": {"name": "Ann"}, "tags": ["a", "b"]},
        {"id": 2, "who": {"name": None}, "extra": "ü\n"},
        {"id": 3},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    connection = opened(kind="files", path=str(tmp_path))
    found = rows_of(connection, "SELECT id, who.name, len(tags) AS n, extra FROM s.t")
    assert found == [(1, "Ann", 2, None), (2, None, None, "ü\n"), (3, None, None, None)]


def test_types_of_parquet_arrive_as_they_are(tmp_path: Path, opened: Opened) -> None:
    sql = (
        "SELECT 1::TINYINT AS a, 2::UBIGINT AS b, 1.5::DECIMAL(38,10) AS c, 'x'::BLOB AS d,"
        " DATE '2024-02-29' AS e, TIMESTAMP_NS '2024-01-01 00:00:00.123456789' AS f,"
        " [1, NULL] AS g, {'k': 'v'} AS h, MAP {'k': 1} AS i, TIME '01:02:03' AS j,"
        " TIMESTAMPTZ '2024-01-01 00:00:00+00' AS k, uuid() AS l, 1e-45::FLOAT AS m"
    )
    write(tmp_path / "t.parquet", sql)
    connection = opened(kind="files", path=str(tmp_path))
    local = {r[0]: r[1] for r in duckdb.sql(f"DESCRIBE {sql}").fetchall()}
    assert types_of(connection, "s.t") == local
    table = connection.execute("SELECT e, g, h FROM s.t").fetch_arrow_table()
    assert table.to_pylist() == [{"e": datetime.date(2024, 2, 29), "g": [1, None], "h": {"k": "v"}}]


def test_mixed_formats_are_refused(tmp_path: Path, opened: Opened) -> None:
    write(tmp_path / "t" / "1.parquet", "SELECT 1 AS id")
    (tmp_path / "t" / "2.csv").write_text("id\n2\n")
    with pytest.raises(batuta_sql.OperationalError, match="csv, parquet"):
        rows_of(opened(kind="files", path=str(tmp_path)), "SELECT * FROM s.t")


def test_a_misspelt_table_names_the_nearest(tmp_path: Path, opened: Opened) -> None:
    write(tmp_path / "orders.parquet", "SELECT 1 AS id")
    with pytest.raises(batuta_sql.ProgrammingError, match=r"s\.orders"):
        rows_of(opened(kind="files", path=str(tmp_path)), "SELECT * FROM s.order")


def test_names_match_without_case_and_exactly_where_both_exist(
    tmp_path: Path, opened: Opened
) -> None:
    write(tmp_path / "Orders.parquet", "SELECT 1 AS id")
    connection = opened(kind="files", path=str(tmp_path))
    assert rows_of(connection, "SELECT ID FROM S.oRDERS") == [(1,)]


def test_the_row_count_of_parquet_is_exact(tmp_path: Path, opened: Opened) -> None:
    write(tmp_path / "t.parquet", "SELECT range AS id FROM range(1234)")
    estimate = opened(kind="files", path=str(tmp_path)).estimate("SELECT * FROM s.t")
    assert estimate.rows == 1234
    assert estimate.rows_confidence == "exact"


def arrow_file(path: Path, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize(
    "test", ["x > 1e308", "x < 2", "x = 'nan'", "x <> 1", "x IN (1, 'nan')", "NOT x < 5", "s.x > 5"]
)
def test_nan_that_statistics_leave_out_is_found(tmp_path: Path, opened: Opened, test: str) -> None:
    """Other writers' minimum and maximum are those of the numbers alone."""
    nan = float("nan")
    columns = {"id": [1, 2, 3], "x": [nan, 1.0, None], "s": [{"x": nan}, {"x": 1.0}, None]}
    pq.write_table(pa.table(columns), str(tmp_path / "t.parquet"))
    arrow_file(tmp_path / "a.arrow", **columns)
    with duckdb.connect() as local:
        local.execute(
            "CREATE TABLE t AS SELECT * FROM (VALUES (1, 'nan'::DOUBLE, {'x': 'nan'::DOUBLE}),"
            " (2, 1, {'x': 1}), (3, NULL, NULL)) v(id, x, s)"
        )
        want = local.execute(f"SELECT id FROM t WHERE {test} ORDER BY id").fetchall()
    connection = opened(kind="files", path=str(tmp_path))
    for name in ("t", "a"):
        assert rows_of(connection, f"SELECT id FROM s.{name} WHERE {test}") == want
        assert repr(rows_of(connection, f"SELECT max(x) AS m FROM s.{name}")) == "[(nan,)]"


def test_arrow_files_are_one_table_with_all_their_columns(tmp_path: Path, opened: Opened) -> None:
    arrow_file(tmp_path / "t" / "1.arrow", id=pa.array([1], pa.int32()))
    arrow_file(tmp_path / "t" / "2.arrow", id=pa.array([2**40]), extra=["e"])
    arrow_file(tmp_path / "k=0" / "h" / "year=2023" / "1.arrow", id=[1])
    arrow_file(tmp_path / "k=0" / "h" / "year=2024" / "2.arrow", id=[2])
    connection = opened(
        kind="files", path=str(tmp_path), tables={"h": str(tmp_path / "k=0" / "h" / "**" / "*")}
    )
    assert rows_of(connection, "SELECT id, extra FROM s.t") == [(1, None), (2**40, "e")]
    assert rows_of(connection, "SELECT * FROM s.h WHERE year = 2024") == [(2, 2024)]


def test_arrow_streams_and_what_is_neither(tmp_path: Path, opened: Opened) -> None:
    table = pa.table({"id": [1]})
    with pa.ipc.new_stream(str(tmp_path / "t.arrow"), table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "bad.arrow").write_bytes(b"ARROW1 and nothing more")
    connection = opened(kind="files", path=str(tmp_path))
    assert rows_of(connection, "SELECT * FROM s.t") == [(1,)]
    with pytest.raises(batuta_sql.OperationalError, match=r"s: .*bad\.arrow"):
        rows_of(connection, "SELECT * FROM s.bad")
    assert rows_of(connection, "SELECT * FROM s.t") == [(1,)]


def test_names_that_differ_in_case_alone_are_two_tables(tmp_path: Path, opened: Opened) -> None:
    write(tmp_path / "Orders.parquet", "SELECT 1 AS id")
    write(tmp_path / "orders.parquet", "SELECT 2 AS id")
    connection = opened(kind="files", path=str(tmp_path))
    both = 'SELECT a.id AS a, b.id AS b FROM s."Orders" a, s."orders" b'
    assert rows_of(connection, both) == [(1, 2)]


def test_a_stem_of_two_files_is_refused(tmp_path: Path, opened: Opened) -> None:
    write(tmp_path / "t.parquet", "SELECT 1 AS id")
    (tmp_path / "t.csv").write_text("id\n2\n")
    with pytest.raises(batuta_sql.OperationalError, match=r"t\.csv, t\.parquet"):
        rows_of(opened(kind="files", path=str(tmp_path)), "SELECT * FROM s.t")


def test_a_url_is_refused_as_such(opened: Opened) -> None:
    connection = opened(kind="files", tables={"t": "gs://bucket/x.parquet"})
    with pytest.raises(batuta_sql.NotSupportedError, match="gs://"):
        rows_of(connection, "SELECT * FROM s.t")


def test_a_quote_after_the_lines_that_are_sniffed(tmp_path: Path, opened: Opened) -> None:
    plain = "".join(f"{i},w{i}\n" for i in range(30_000))
    (tmp_path / "t.csv").write_text(f'id,text\n{plain}30000,"a, ""b""\nc"\n')
    connection = opened(kind="files", path=str(tmp_path))
    assert rows_of(connection, "SELECT text FROM s.t WHERE id >= 29999") == [
        ('a, "b"\nc',),
        ("w29999",),
    ]


@pytest.mark.parametrize("name", ["t.parquet", "t.csv.gz", "t.jsonl"])
def test_a_corrupt_file_is_one_error_naming_it(tmp_path: Path, opened: Opened, name: str) -> None:
    (tmp_path / name).write_bytes(b"{PAR1 not at all PAR1")
    with pytest.raises(batuta_sql.OperationalError) as caught:
        rows_of(opened(kind="files", path=str(tmp_path)), "SELECT * FROM s.t")
    assert str(caught.value).startswith("s: ")
    assert name in str(caught.value)
    assert "read_" not in str(caught.value)


def test_bounds_are_told_of_whole_numbers_alone(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", "SELECT 1.50::DECIMAL(9,2) AS price, 7 AS n")
    source = Files("s", FilesSettings(kind="files", path=str(tmp_path)))
    (table,) = source.resolve(("t",))
    assert table.statistics.columns["price"].minimum is None
    assert table.statistics.columns["n"].minimum == 7
    source.close()


def test_a_description_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    """Under one name and with one size; in the moment after a change nothing is remembered."""
    write(tmp_path / "t.parquet", "SELECT 1 AS a")
    config = {"sources": {"f": {"kind": "files", "path": str(tmp_path)}}}
    with closing(batuta_sql.connect(config)) as connection:
        time.sleep(2.1)
        for _ in range(3):
            assert connection.execute("SELECT * FROM f.t").fetchall() == [(1,)]
        for value, name in ((2, "b"), (3, "c"), (4, "d")):
            write(tmp_path / "t.parquet", f"SELECT {value} AS {name}")
            assert connection.execute(f"SELECT {name} FROM f.t").fetchall() == [(value,)]
        (tmp_path / "t.parquet").unlink()
        with pytest.raises(batuta_sql.Error):
            connection.execute("SELECT d FROM f.t")
