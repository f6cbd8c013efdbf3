"""Files that the engine reads where they lie: the same answers, and nothing fetched of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batuta_sql
from batuta_sql.dbapi import Connection
from batuta_sql.engines import staging
from batuta_sql.errors import ConfigError, OperationalError
from tests.comparison import answer_of, difference
from tests.emulators.process import Emulator
from tests.engines.conftest import engine
from tests.sources.iceberg_writer import settings_of, sql_catalog

VALUES = """
SELECT i::INTEGER AS i, (i * 1000000007)::BIGINT AS big, (i % 5)::BIGINT AS small,
  CASE WHEN i % 4 = 0 THEN NULL ELSE (i * 1.005)::DECIMAL(18, 3) END AS amount,
  (i * 7.5)::DECIMAL(30, 2) AS wide,
  CASE i % 6 WHEN 0 THEN 'NaN'::DOUBLE WHEN 1 THEN '-inf'::DOUBLE WHEN 2 THEN -0.0
    ELSE i / 7 END AS d, CASE i % 7 WHEN 0 THEN 'NaN'::FLOAT ELSE (i / 8)::FLOAT END AS f,
  CASE i % 5 WHEN 0 THEN '' WHEN 1 THEN NULL WHEN 2 THEN 'ä' WHEN 3 THEN 'Z '
    ELSE 'a' || i END AS t,
  DATE '1400-01-01' + (i * 2000)::INTEGER AS day, i % 3 = 0 AS flag
FROM range({low}, {high}) r(i)
"""
HOMES = ["delta", "iceberg", "files", "delta_parts", "files_parts"]
PARTS = ["small", "flag"]
"""Columns of partitions, where there are any."""

QUERIES = [
    "SELECT a.t, count(*), sum(a.amount), min(a.day), max(a.wide) FROM {home}.v a"
    " JOIN crm.v b ON a.i = b.i GROUP BY ALL ORDER BY ALL",
    "SELECT a.i, a.d, b.d FROM {home}.v a JOIN crm.v b ON a.d = b.d AND b.i < 20 WHERE a.big > 9"
    " ORDER BY ALL",
    # Statistics of a file leave NaN out, which is above all else.
    "SELECT a.i, a.d, b.i FROM {home}.v a JOIN crm.v b ON a.i = b.i WHERE a.d > 1000 ORDER BY ALL",
    "SELECT a.i, a.f FROM {home}.v a JOIN crm.v b ON a.f = b.f AND b.i IN (0, 7) ORDER BY ALL",
    "SELECT a.i, a.d FROM {home}.v a JOIN crm.v b ON a.d = b.d AND b.i IN (0, 6) ORDER BY ALL",
    "SELECT a.small, count(b.t), min(a.i) FROM {home}.v a LEFT JOIN crm.v b ON a.t = b.t"
    " WHERE a.day < DATE '2200-05-05' AND a.flag GROUP BY a.small ORDER BY ALL",
    "SELECT count(*), count(a.amount) FROM {home}.v a JOIN {home}.w b ON a.i = b.i"
    " JOIN crm.v c ON c.i = b.i WHERE a.t LIKE 'a%' OR a.t IS NULL",
    "SELECT i, small FROM {home}.v EXCEPT SELECT i, small FROM crm.v WHERE small = 3 ORDER BY ALL",
]


def written(home: str, folder: Path, name: str, parts: list[pa.Table]) -> None:
    """A table of several files in one of the forms that are read in place."""
    match home:
        case "delta":
            for part in parts:
                deltalake.write_deltalake(str(folder / name), part, mode="append")
        case "delta_parts":
            for part in parts:
                deltalake.write_deltalake(
                    str(folder / name), part, mode="append", partition_by=PARTS
                )
        case "files_parts":
            folder.mkdir(exist_ok=True)
            for part in parts:
                with duckdb.connect() as con:
                    con.register("part", part)
                    con.execute(
                        f"COPY (FROM part) TO '{folder / name}' (FORMAT parquet, APPEND,"
                        f" PARTITION_BY (small), FILENAME_PATTERN '{{uuid}}')"
                    )
        case "files":
            (folder / name).mkdir(parents=True)
            for number, part in enumerate(parts):
                pq.write_table(part, folder / name / f"{number}.parquet")
        case "iceberg":
            folder.mkdir(exist_ok=True)
            catalog = sql_catalog(folder)
            catalog.create_namespace_if_not_exists("s")
            table = catalog.create_table(("s", name), parts[0].schema)
            for part in parts:
                table.append(part)


def source(home: str, folder: Path) -> dict[str, Any]:
    if home == "iceberg":
        return settings_of(folder)
    return {"kind": home.removesuffix("_parts"), "path": str(folder)}


@pytest.fixture(scope="module")
def truth() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as made:
        for name in ("v", "w"):
            made.execute(f"CREATE TABLE {name} AS {VALUES.format(low=0, high=300)}")
        yield made


@pytest.fixture(scope="module")
def lakes(truth: duckdb.DuckDBPyConnection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each form, and a DuckDB file beside them."""
    folder = tmp_path_factory.mktemp("lakes")
    for name in ("v", "w"):
        parts = [
            truth.sql(f"SELECT * FROM {name} WHERE i >= {low} AND i < {low + 100}").to_arrow_table()
            for low in (0, 100, 200)
        ]
        for home in HOMES:
            written(home, folder / home, name, parts)
    with duckdb.connect(str(folder / "crm.duckdb")) as made:
        made.execute(f"CREATE TABLE v AS {VALUES.format(low=0, high=300)}")
    settle()
    return folder


def settle() -> None:
    """Files that were changed a moment ago have no version yet."""
    time.sleep(2.1)


Connect = Callable[..., Connection]


@pytest.fixture
def connect(lakes: Path, stage: Path) -> Iterator[Connect]:
    with ExitStack() as cleanup:

        def opened(server: Emulator, semi_joins: str = "auto", **settings: Any) -> Connection:
            sources: dict[str, Any] = {h: source(h, lakes / h) for h in HOMES}
            sources["crm"] = {"kind": "duckdb", "path": str(lakes / "crm.duckdb")}
            own = engine(server, stage) | {"in_place": HOMES} | settings
            config = {"sources": sources, "semi_joins": semi_joins, "engine": own}
            return cleanup.enter_context(batuta_sql.connect(config))

        yield opened


def compare(connection: Connection, truth: duckdb.DuckDBPyConnection, home: str, sql: str) -> None:
    plain = sql.format(home="x").replace("x.", "").replace("crm.", "")
    wanted = answer_of(truth.sql(plain).to_arrow_table())
    cursor = connection.execute(sql.format(home="iceberg.s" if home == "iceberg" else home))
    got = answer_of(cursor.fetch_arrow_table())
    assert difference(got, wanted, plain) is None
    engine = cursor.metrics["engine"]
    assert engine is not None, cursor.plan
    read = {f["source"]: f["rows"] for f in cursor.metrics["fragments"]}
    assert read[home] is None, "its rows were fetched"
    assert engine["in_place"]


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("sql", QUERIES)
def test_answers(
    spark_connect: Emulator,
    connect: Connect,
    truth: duckdb.DuckDBPyConnection,
    home: str,
    sql: str,
) -> None:
    compare(connect(spark_connect), truth, home, sql)


@pytest.mark.xdist_group("apache spark")
@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("sql", QUERIES)
def test_answers_of_apache_spark(
    apache_spark: Emulator,
    connect: Connect,
    truth: duckdb.DuckDBPyConnection,
    home: str,
    sql: str,
) -> None:
    compare(connect(apache_spark), truth, home, sql)


def test_the_plan_says_so_beforehand(spark_connect: Emulator, connect: Connect) -> None:
    told = connect(spark_connect).explain(QUERIES[0].format(home="delta"))
    assert "; it reads the files of x1 where they lie" in told


def test_only_what_is_named_is_read_in_place(spark_connect: Emulator, connect: Connect) -> None:
    connection = connect(spark_connect, in_place=["iceberg"])
    cursor = connection.execute(QUERIES[0].format(home="delta"))
    cursor.fetchall()
    assert cursor.metrics["engine"]["in_place"] == []
    assert all(f["rows"] == 300 for f in cursor.metrics["fragments"])
    with pytest.raises(ConfigError, match='there is no source "lake"'):
        connect(spark_connect, in_place=["lake"])


def test_what_gives_keys_to_another_source_is_fetched(
    spark_connect: Emulator, connect: Connect
) -> None:
    sql = "SELECT count(*), max(b.wide) FROM delta.v a JOIN crm.v b ON a.i = b.i WHERE a.t = 'a4'"
    for semi_joins, read, rows in (("always", [], 1), ("off", ["x1"], 300)):
        cursor = connect(spark_connect, semi_joins).execute(sql)
        assert cursor.fetchone()[0] == 1
        assert cursor.metrics["engine"]["in_place"] == read
        taken = {f["source"]: f["rows"] for f in cursor.metrics["fragments"]}
        assert taken["crm"] == rows


def test_little_is_fetched(spark_connect: Emulator, connect: Connect) -> None:
    connection = connect(spark_connect, from_bytes="1GB")
    cursor = connection.execute(QUERIES[0].format(home="delta"))
    cursor.fetchall()
    assert cursor.metrics["engine"] is None


def test_what_is_not_proved_there_is_fetched_after_all(
    spark_connect: Emulator, connect: Connect, truth: duckdb.DuckDBPyConnection
) -> None:
    sql = "SELECT count(*) FROM {}v a JOIN {}v b ON regexp_matches(a.t, b.t) WHERE b.t = 'a4'"
    cursor = connect(spark_connect).execute(sql.format("delta.", "crm."))
    assert cursor.fetchall() == truth.sql(sql.format("", "")).fetchall()
    assert cursor.metrics["engine"] is None


UNLIKE: dict[str, Callable[[Path], None]] = {
    "a partition whose folder is written in another way": lambda folder: deltalake.write_deltalake(
        str(folder / "v"), pa.table({"i": [1, 2], "p": ["a", "b c"]}), partition_by=["p"]
    ),
    "partitions of numbers with several texts": lambda folder: deltalake.write_deltalake(
        str(folder / "v"), pa.table({"i": [1, 2], "p": [0.5, 1e10]}), partition_by=["p"]
    ),
    "a column that an older file does not have": lambda folder: [
        deltalake.write_deltalake(str(folder / "v"), pa.table({"i": [1]})),
        deltalake.write_deltalake(
            str(folder / "v"),
            pa.table({"i": [2], "p": ["b"]}),
            mode="append",
            schema_mode="merge",
        ),
    ],
    "a name that a reader could take for a pattern": lambda folder: deltalake.write_deltalake(
        str(folder / "v"), pa.table({"i": [1, 2], "p": ["a", "b"]})
    ),
}


@pytest.mark.parametrize("what", UNLIKE)
def test_other_tables_are_fetched(
    spark_connect: Emulator, tmp_path: Path, stage: Path, what: str
) -> None:
    lake = tmp_path / ("lake {a,b}" if "pattern" in what else "lake")
    lake.mkdir()
    UNLIKE[what](lake)
    with duckdb.connect(str(tmp_path / "crm.duckdb")) as made:
        made.execute("CREATE TABLE v AS SELECT i::BIGINT AS i FROM range(3) r(i)")
    sources = {
        "lake": {"kind": "delta", "path": str(lake)},
        "crm": {"kind": "duckdb", "path": str(tmp_path / "crm.duckdb")},
    }
    own = engine(spark_connect, stage) | {"in_place": ["lake"], "local_rows": 0}
    config = {"sources": sources, "engine": own}
    with batuta_sql.connect(config) as connection:
        sql = "SELECT p, count(*) FROM lake.v JOIN crm.v USING (i) GROUP BY p ORDER BY p"
        cursor = connection.execute(sql)
        rows = cursor.fetchall()
        assert cursor.metrics["engine"]["in_place"] == []
    files = deltalake.DeltaTable(str(lake / "v")).to_pyarrow_table().num_rows
    assert sum(n for _, n in rows) == files


@pytest.mark.parametrize("home", ["delta_parts", "iceberg"])
def test_files_that_cannot_be_needed_are_not_named(
    spark_connect: Emulator, connect: Connect, truth: duckdb.DuckDBPyConnection, home: str
) -> None:
    test = "a.small = 3" if home == "delta_parts" else "a.i < 50"
    sql = f"SELECT a.t, count(*) FROM {{home}}.v a JOIN crm.v b USING (i) WHERE {test} GROUP BY 1"
    connection = connect(spark_connect)
    compare(connection, truth, home, f"{sql} ORDER BY 1")
    name = "iceberg.s" if home == "iceberg" else home
    (read,) = connection.analyze(sql.format(home=name)).metrics()["engine"]["fragments"]
    files = read["sql"].count("parquet.`")
    # Delta: three appends with two flags in each; Iceberg: the first of three files.
    assert files == (6 if home == "delta_parts" else 1)
    assert "small=2" not in read["sql"]


@pytest.mark.parametrize("home", ["delta_parts", "iceberg"])
def test_where_no_file_is_needed(
    spark_connect: Emulator, connect: Connect, truth: duckdb.DuckDBPyConnection, home: str
) -> None:
    test = "a.small = 99" if home == "delta_parts" else "a.i > 5000"
    sql = (
        f"SELECT b.flag, count(a.i), sum(a.i), max(a.day) FROM crm.v b LEFT JOIN"
        f" (SELECT * FROM {{home}}.v a WHERE {test}) a ON a.i = b.i GROUP BY 1 ORDER BY 1"
    )
    compare(connect(spark_connect), truth, home, sql)


PARTITIONS = {
    "VARCHAR": ["'a'", "'it''s'", "'Z-1'", "NULL"],
    "DATE": ["DATE '2024-02-29'", "DATE '1582-10-15'", "NULL"],
    "BIGINT": ["9223372036854775807", "-1", "NULL"],
    "TINYINT": ["-128", "0"],
    "BOOLEAN": ["true", "false", "NULL"],
    "DECIMAL(9,2)": ["1.50", "7.01"],
    "TIMESTAMP": ["TIMESTAMP '2024-02-29 01:02:03.456789'", "NULL"],
}


def compare_partitions(server: Emulator, tmp_path: Path, stage: Path, type_: str) -> None:
    """Whether it is read in place or, for its name or type, fetched: the answer is the same."""
    values = ", ".join(f"({n}::BIGINT, ({v})::{type_})" for n, v in enumerate(PARTITIONS[type_]))
    sources = {"lake": {"kind": "delta", "path": str(tmp_path / "lake")}}
    sources["crm"] = {"kind": "duckdb", "path": str(tmp_path / "crm.duckdb")}
    with duckdb.connect(sources["crm"]["path"]) as made:
        made.execute(f"CREATE TABLE v AS FROM (VALUES {values}) v(i, p)")
        rows = made.sql("FROM v").to_arrow_table()
        deltalake.write_deltalake(str(tmp_path / "lake" / "v"), rows, partition_by=["p"])
    config = {"sources": sources, "engine": engine(server, stage) | {"in_place": ["lake"]}}
    sql = (
        "SELECT a.i, a.p, b.p, a.p = b.p AS same, count(*) FROM lake.v a JOIN crm.v b USING (i)"
        " GROUP BY ALL ORDER BY 1"
    )
    with batuta_sql.connect(config) as connection, duckdb.connect() as truth:
        truth.execute(f"ATTACH '{sources['crm']['path']}' AS crm (READ_ONLY)")
        wanted = answer_of(truth.sql(sql.replace("lake.", "crm.")).to_arrow_table())
        cursor = connection.execute(sql)
        assert difference(answer_of(cursor.fetch_arrow_table()), wanted, sql) is None
        if type_ in ("BIGINT", "TINYINT", "DATE", "BOOLEAN"):
            assert cursor.metrics["engine"]["in_place"]


@pytest.mark.parametrize("type_", PARTITIONS)
def test_partitions(spark_connect: Emulator, tmp_path: Path, stage: Path, type_: str) -> None:
    compare_partitions(spark_connect, tmp_path, stage, type_)


@pytest.mark.xdist_group("apache spark")
@pytest.mark.parametrize("type_", PARTITIONS)
def test_partitions_on_apache_spark(
    apache_spark: Emulator, tmp_path: Path, stage: Path, type_: str
) -> None:
    compare_partitions(apache_spark, tmp_path, stage, type_)


@pytest.mark.parametrize("value", ["sum(n)", "sum(DISTINCT n)", "max(n)", "count(n)"])
def test_constants_of_no_rows(
    spark_connect: Emulator, tmp_path: Path, stage: Path, value: str
) -> None:
    """Sail gives 0 for the sum of a constant where it knows that there are no rows."""
    sources = {}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"i": pa.array([], pa.int64())}), tmp_path / name / "v.parquet")
        sources[name] = {"kind": "files", "path": str(tmp_path / name)}
    settle()
    config = {"sources": sources, "partial_aggregation": "off"}
    config["engine"] = engine(spark_connect, stage) | {"in_place": ["a", "b"]}
    with batuta_sql.connect(config) as connection:
        cursor = connection.execute(
            f"SELECT {value} FROM (SELECT 7::DECIMAL(28, 2) AS n FROM a.v"
            " UNION ALL SELECT 8::DECIMAL(28, 2) FROM b.v)"
        )
        assert cursor.fetchall() == [(0 if value == "count(n)" else None,)]
        assert len(cursor.metrics["engine"]["in_place"]) == 2


def test_a_file_that_is_written_over_meanwhile_ends_the_query(
    spark_connect: Emulator, tmp_path: Path, stage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the engine's rows could be of one content, half of the other."""
    (tmp_path / "lake").mkdir()
    pq.write_table(pa.table({"i": [1, 2, 3]}), tmp_path / "lake" / "v.parquet")
    with duckdb.connect(str(tmp_path / "crm.duckdb")) as made:
        made.execute("CREATE TABLE v AS SELECT i::BIGINT AS i FROM range(3) r(i)")
    settle()
    sources = {
        "lake": {"kind": "files", "path": str(tmp_path / "lake")},
        "crm": {"kind": "duckdb", "path": str(tmp_path / "crm.duckdb")},
    }
    own = engine(spark_connect, stage) | {"in_place": ["lake"], "local_rows": 0}
    config = {"sources": sources, "engine": own}
    sql = "SELECT count(*) FROM lake.v JOIN crm.v USING (i)"
    with batuta_sql.connect(config) as connection:
        assert connection.execute(sql).fetchall() == [(2,)]
        write = staging.write_parquet

        def write_over(*given: Any) -> int:
            pq.write_table(pa.table({"i": [1, 1, 1, 1]}), tmp_path / "lake" / "v.parquet")
            return write(*given)

        # Between the plan and the engine's reading.
        monkeypatch.setattr("batuta_sql.engines.spark.write_parquet", write_over)
        with pytest.raises(OperationalError, match="have changed while they were read"):
            connection.execute(sql)


def test_deleted_rows_stay_deleted(spark_connect: Emulator, tmp_path: Path, stage: Path) -> None:
    """What is no longer of the table still lies in its folder."""
    deltalake.write_deltalake(str(tmp_path / "lake" / "v"), pa.table({"i": list(range(100))}))
    deltalake.DeltaTable(str(tmp_path / "lake" / "v")).delete("i % 2 = 0")
    with duckdb.connect(str(tmp_path / "crm.duckdb")) as made:
        made.execute("CREATE TABLE v AS SELECT i::BIGINT AS i FROM range(100) r(i)")
    sources = {
        "lake": {"kind": "delta", "path": str(tmp_path / "lake")},
        "crm": {"kind": "duckdb", "path": str(tmp_path / "crm.duckdb")},
    }
    own = engine(spark_connect, stage) | {"in_place": ["lake"], "local_rows": 0}
    config = {"sources": sources, "engine": own}
    with batuta_sql.connect(config) as connection:
        for table, wanted in (("v", 50), ('"v@v0"', 100)):
            cursor = connection.execute(f"SELECT count(*) FROM lake.{table} JOIN crm.v USING (i)")
            assert cursor.fetchall() == [(wanted,)]
            assert cursor.metrics["engine"]["in_place"] == ["x1"]
