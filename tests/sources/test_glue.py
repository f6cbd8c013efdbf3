"""The Glue Data Catalog: tables as they are now, and files read where they lie."""

from __future__ import annotations

import datetime
import gzip
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

import batuta_sql
from batuta_sql import ConfigError, NotSupportedError, OperationalError, ProgrammingError
from batuta_sql.labels import ColumnLabels, labelled_schema
from tests.emulators.aws_process import KEY, REGION, SECRET, aws_emulator
from tests.emulators.glue import BUCKET, GlueCatalog
from tests.emulators.glue_front import GlueFront, glue_front
from tests.faults.proxy import Proxy
from tests.sources.conftest import rows_of, types_of

ROWS = 100_000


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlueCatalog]:
    with aws_emulator(tmp_path_factory.mktemp("glue")) as aws:
        catalog = GlueCatalog(aws)
        catalog.files.mkdir(BUCKET)
        catalog.database("lab")
        catalog.database("other")
        place = catalog.table("lab", "words", [("id", "bigint"), ("word", "string")])
        catalog.put(f"{place}/a.parquet", pa.table({"id": [1, 2], "word": ["a", None]}))
        yield catalog


@pytest.fixture(scope="module")
def s(glue: GlueCatalog) -> Iterator[Any]:
    """A connection over the catalog, as the source ``s``; it keeps nothing from test to test."""
    with closing(batuta_sql.connect({"sources": {"s": glue.settings}})) as connection:
        yield connection


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for a table of this test's own."""
    return "".join(c if c.isalnum() else "_" for c in request.node.name.lower())[:80]


def sales(glue: GlueCatalog, name: str, keys: list[tuple[str, str]], values: list[str]) -> str:
    """A table with one partition for each of ``values``, of one row that tells which it is."""
    place = glue.table("lab", name, [("n", "bigint")], keys=keys)
    for number, value in enumerate(values):
        folder = f"{place}/part-{number}"
        glue.partition("lab", name, [value], [("n", "bigint")], folder)
        glue.put(f"{folder}/a.parquet", pa.table({"n": [number]}))
    return place


def text_table(
    glue: GlueCatalog, name: str, columns: list[tuple[str, str]], content: bytes, **more: Any
) -> None:
    suffix = more.pop("suffix", ".txt")
    place = glue.table("lab", name, columns, **more)
    glue.put(f"{place}/part-0{suffix}", content)


# --- the catalog -------------------------------------------------------------------------------


def test_names_match_without_case_and_with_or_without_the_database(s: Any) -> None:
    for name in ("s.words", "s.lab.words", 's."LAB"."Words"', "s.Lab.WORDS"):
        assert rows_of(s, f"SELECT ID, Word FROM {name}") == [(1, "a"), (2, None)]


def test_a_name_that_two_databases_have_is_ambiguous(glue: GlueCatalog, s: Any, name: str) -> None:
    for database in ("lab", "other"):
        glue.table(database, name, [("id", "int")])
    with pytest.raises(ProgrammingError, match=rf"ambiguous(?s:.*)s.lab.{name} or s.other.{name}"):
        s.execute(f"SELECT * FROM s.{name}")


def test_a_database_of_the_settings_is_the_only_one(
    glue: GlueCatalog, opened: Callable[..., Any], name: str
) -> None:
    glue.table("other", name, [("id", "int")])
    connection = opened(**glue.settings, database="Lab")
    listed = {path for _, path, _ in connection.tables("s")}
    assert {d for d, _ in listed} == {"lab"}
    assert ("lab", "words") in listed
    with pytest.raises(ProgrammingError, match="no table"):
        connection.execute(f"SELECT * FROM s.other.{name}")


def test_a_misspelt_database_is_no_table(s: Any) -> None:
    with pytest.raises(ProgrammingError, match="no table"):
        s.execute("SELECT * FROM s.nowhere.words")


def test_a_table_that_changes_is_read_as_it_is_now(glue: GlueCatalog, s: Any, name: str) -> None:
    place = glue.table("lab", name, [("a", "int")])
    glue.put(f"{place}/1.parquet", pa.table({"a": pa.array([1], pa.int32()), "b": ["x"]}))
    assert rows_of(s, f"SELECT * FROM s.{name}") == [(1,)]
    glue.client.update_table(
        DatabaseName="lab",
        TableInput={
            "Name": name,
            "TableType": "EXTERNAL_TABLE",
            "StorageDescriptor": glue.storage([("a", "int"), ("b", "string")], place),
        },
    )
    glue.put(f"{place}/2.parquet", pa.table({"a": pa.array([2], pa.int32()), "b": ["y"]}))
    assert rows_of(s, f"SELECT * FROM s.{name}") == [(1, "x"), (2, "y")]


def test_statistics_are_those_of_the_crawler_and_estimated(
    glue: GlueCatalog, s: Any, name: str
) -> None:
    told = {"recordCount": "7", "sizeKey": "1234"}
    glue.table("lab", name, [("a", "int")], parameters=told)
    (table,) = s._session.sources["s"].resolve(("lab", name))
    found = table.statistics
    assert (found.rows, found.bytes, found.exact) == (7, 1234, False)


# --- types -------------------------------------------------------------------------------------


def test_types_of_the_catalog(glue: GlueCatalog, s: Any, name: str) -> None:
    columns = [
        ("d", "decimal(12,2)"),
        ("c", "char(4)"),
        ("v", "varchar(9)"),
        ("ts", "timestamp"),
        ("l", "array<map<string,int>>"),
        ("st", "struct<x:int,y:array<string>>"),
        ("u", "uniontype<int,string>"),
    ]
    glue.table("lab", name, columns)
    assert types_of(s, f"s.{name}") == {
        "d": "DECIMAL(12,2)",
        "c": "VARCHAR",
        "v": "VARCHAR",
        "ts": "TIMESTAMP",
        "l": "MAP(VARCHAR, INTEGER)[]",
        "st": 'STRUCT("x" INTEGER, "y" VARCHAR[])',
        "u": "VARCHAR",
    }


def test_timestamps_that_spark_writes_are_wall_clocks_of_utc(
    glue: GlueCatalog, s: Any, name: str
) -> None:
    moment = datetime.datetime(2024, 7, 1, 12, 30, tzinfo=datetime.UTC)
    place = glue.table("lab", name, [("zoned", "timestamp"), ("old", "timestamp")])
    rows = pa.table(
        {
            "zoned": pa.array([moment], pa.timestamp("us", "UTC")),
            "old": pa.array([moment.replace(tzinfo=None)], pa.timestamp("ns")),
        }
    )
    path = f"{place}/a.parquet"
    glue.put(path, rows, use_deprecated_int96_timestamps=False)
    s.execute("SET TimeZone = 'America/New_York'")
    wall = datetime.datetime(2024, 7, 1, 12, 30)
    assert rows_of(s, f"SELECT zoned, old FROM s.{name}") == [(wall, wall)]
    glue.put(path, rows.select(["old"]), use_deprecated_int96_timestamps=True)
    assert rows_of(s, f"SELECT zoned, old FROM s.{name}") == [(None, wall)]
    s.execute("SET TimeZone = 'UTC'")


def test_names_inside_structs_match_without_case(glue: GlueCatalog, s: Any, name: str) -> None:
    place = glue.table("lab", name, [("who", "array<struct<userid:bigint,tags:array<string>>>")])
    inner = pa.struct([("tags", pa.list_(pa.string())), ("userId", pa.int32())])
    rows = pa.array([[{"tags": ["a"], "userId": 7}, None], None], pa.list_(inner))
    glue.put(f"{place}/a.parquet", pa.table({"Who": rows}))
    found = s.execute(f"SELECT who FROM s.{name}").fetchall()
    assert found == [([{"userid": 7, "tags": ["a"]}, None],), (None,)]


@pytest.mark.parametrize(
    ("told", "held", "value", "expected"),
    [
        ("bigint", pa.int32(), 7, 7),
        ("int", pa.int64(), 7, 7),
        ("int", pa.int64(), 2**40, None),
        ("int", pa.float64(), 3.0, 3),
        ("int", pa.float64(), 3.5, None),
        ("double", pa.int64(), 2**53, float(2**53)),
        ("double", pa.int64(), 2**53 + 1, None),
        ("float", pa.float64(), 0.1, None),
        ("decimal(10,2)", pa.decimal128(10, 4), Decimal("1.2500"), Decimal("1.25")),
        ("decimal(10,2)", pa.decimal128(10, 4), Decimal("1.2550"), None),
        ("string", pa.int64(), 7, "7"),
        ("string", pa.binary(), b"caf\xc3\xa9", "café"),
        ("int", pa.string(), "7", 7),
        ("int", pa.string(), "007", None),
        ("date", pa.timestamp("us"), datetime.datetime(2024, 1, 2), datetime.date(2024, 1, 2)),
        ("date", pa.timestamp("us"), datetime.datetime(2024, 1, 2, 3), None),
        ("timestamp", pa.timestamp("ns"), 1_000_000_001, None),
    ],
)
def test_a_value_of_another_type_is_kept_whole_or_is_an_error(
    glue: GlueCatalog, s: Any, name: str, told: str, held: pa.DataType, value: Any, expected: Any
) -> None:
    place = glue.table("lab", name, [("v", told)])
    glue.put(f"{place}/a.parquet", pa.table({"v": pa.array([value, None], held)}))
    if expected is None:
        with pytest.raises(
            batuta_sql.Error, match=r'^s: column "v" of "lab\..* as the catalog says'
        ):
            s.execute(f"SELECT v FROM s.{name}").fetchall()
    else:
        assert s.execute(f"SELECT v FROM s.{name}").fetchall() == [(expected,), (None,)]


def test_a_column_that_a_file_has_twice_but_for_case_is_refused(
    glue: GlueCatalog, s: Any, name: str
) -> None:
    place = glue.table("lab", name, [("id", "bigint")])
    glue.put(f"{place}/a.parquet", pa.table({"ID": [1], "other": [2]}))
    assert rows_of(s, f"SELECT id FROM s.{name}") == [(1,)]
    glue.put(f"{place}/b.parquet", pa.table([pa.array([1]), pa.array([2])], ["ID", "Id"]))
    with pytest.raises(batuta_sql.Error, match=r'"id".*may be any of'):
        s.execute(f"SELECT id FROM s.{name}").fetchall()


# --- partitions --------------------------------------------------------------------------------


def test_partition_values_are_the_catalogs_and_typed(glue: GlueCatalog, s: Any, name: str) -> None:
    sales(glue, name, [("day", "date")], ["2024-01-31", "2024-02-01"])
    sql = f"SELECT n, day FROM s.{name}"
    assert rows_of(s, sql) == [
        (0, datetime.date(2024, 1, 31)),
        (1, datetime.date(2024, 2, 1)),
    ]
    assert rows_of(s, f"{sql} WHERE day > DATE '2024-01-31'") == [(1, datetime.date(2024, 2, 1))]


def test_values_in_paths_do_not_count(glue: GlueCatalog, s: Any, name: str) -> None:
    place = glue.table("lab", name, [("n", "bigint")], keys=[("year", "int")])
    folder = f"{place}/year=1999"
    glue.partition("lab", name, ["2024"], [("n", "bigint")], folder)
    glue.put(f"{folder}/a.parquet", pa.table({"n": [1]}))
    assert rows_of(s, f"SELECT * FROM s.{name}") == [(1, 2024)]


def test_a_null_partition(glue: GlueCatalog, s: Any, name: str) -> None:
    sales(glue, name, [("k", "int")], ["1", "__HIVE_DEFAULT_PARTITION__", "10"])
    assert rows_of(s, f"SELECT n, k FROM s.{name}") == [(0, 1), (1, None), (2, 10)]
    assert rows_of(s, f"SELECT n FROM s.{name} WHERE k IS NULL") == [(1,)]
    assert rows_of(s, f"SELECT n FROM s.{name} WHERE k > 1") == [(2,)]
    assert rows_of(s, f"SELECT n FROM s.{name} WHERE k <> 1") == [(2,)]


def test_texts_with_quotes_and_of_other_case(glue: GlueCatalog, s: Any, name: str) -> None:
    values = ["it's", "A", "a", "a ", 'say "x"', "x%", "grün"]
    sales(glue, name, [("k", "string")], values)
    for number, value in enumerate(values):
        found = s.execute(f"SELECT n FROM s.{name} WHERE k = ?", [value]).fetchall()
        assert found == [(number,)], value
    ordered = [
        n for (n,) in s.execute(f"SELECT n FROM s.{name} WHERE k < 'a' ORDER BY k").fetchall()
    ]
    assert ordered == [1]
    assert rows_of(s, f"SELECT n FROM s.{name} WHERE k LIKE 'a%' OR k IN ('A')") == [
        (1,),
        (2,),
        (3,),
    ]


def test_only_files_of_needed_partitions_are_read(glue: GlueCatalog, s: Any, name: str) -> None:
    place = sales(glue, name, [("k", "int")], ["1", "2"])
    glue.put(f"{place}/part-0/a.parquet", b"this is no Parquet file")
    assert rows_of(s, f"SELECT n FROM s.{name} WHERE k = 2") == [(1,)]
    with pytest.raises(OperationalError, match="Parquet|parquet"):
        s.execute(f"SELECT n FROM s.{name}").fetchall()


def test_the_service_is_asked_for_the_partitions_that_are_needed(
    glue: GlueCatalog, s: Any, name: str, asked: list[dict[str, Any]]
) -> None:
    sales(glue, name, [("day", "date")], ["2024-01-31", "2024-02-01"])
    s.execute(f"SELECT n FROM s.{name} WHERE day = DATE '2024-02-01' AND n > 0").fetchall()
    assert {a.get("Expression") for a in asked} == {"day = '2024-02-01'"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the service is asked for partitions."""
    from batuta_sql.sources import glue_catalog

    found: list[dict[str, Any]] = []
    pages = glue_catalog.GlueCatalog._pages

    def counted(self: Any, call: str, what: str, permission: str, **named: Any) -> Any:
        if call == "get_partitions":
            found.append(named)
        return pages(self, call, what, permission, **named)

    monkeypatch.setattr(glue_catalog.GlueCatalog, "_pages", counted)
    return found


def test_a_value_that_is_none_of_its_keys_type_is_an_error(
    glue: GlueCatalog, s: Any, name: str
) -> None:
    sales(glue, name, [("k", "int")], ["1", "many"])
    for where in ("", " WHERE k = 1"):
        with pytest.raises(batuta_sql.Error, match='partition key.*"k".*many.*INTEGER'):
            s.execute(f"SELECT n, k FROM s.{name}{where}").fetchall()


def test_a_key_that_is_a_column_too_is_refused(glue: GlueCatalog, s: Any, name: str) -> None:
    glue.table("lab", name, [("n", "int"), ("Day", "string")], keys=[("day", "string")])
    with pytest.raises(NotSupportedError, match='two columns "day"'):
        s.execute(f"SELECT n FROM s.{name}")


def test_a_condition_that_fails_for_a_partition_fails_as_it_would_for_a_row(
    glue: GlueCatalog, s: Any, name: str
) -> None:
    sales(glue, name, [("k", "string")], ["1", "x"])
    with pytest.raises(batuta_sql.DataError, match="x"):
        s.execute(f"SELECT n FROM s.{name} WHERE CAST(k AS INTEGER) > 0").fetchall()
    sql = f"SELECT n FROM s.{name} WHERE TRY_CAST(k AS INTEGER) > 0"
    assert rows_of(s, sql) == [(0,)]


def test_what_is_no_data_is_not_read(glue: GlueCatalog, s: Any, name: str) -> None:
    place = glue.table("lab", name, [("n", "bigint")])
    glue.put(f"{place}/a.parquet", pa.table({"n": [1]}))
    glue.put(f"{place}/deep/er/b.parquet", pa.table({"n": [2]}))
    for hidden in ("_SUCCESS", ".a.crc", "_temporary/0/c.parquet", "x/.hidden/d.parquet"):
        glue.put(f"{place}/{hidden}", b"not data")
    glue.put(f"{place}/empty.parquet", b"")
    glue.put(f"{place}-other/e.parquet", pa.table({"n": [3]}))
    assert rows_of(s, f"SELECT n FROM s.{name}") == [(1,), (2,)]


def test_a_partition_without_files_has_no_rows(glue: GlueCatalog, s: Any, name: str) -> None:
    place = sales(glue, name, [("k", "int")], ["1"])
    glue.partition("lab", name, ["2"], [("n", "bigint")], f"{place}/k=2")
    assert rows_of(s, f"SELECT n, k FROM s.{name}") == [(0, 1)]
    assert rows_of(s, f"SELECT n, k FROM s.{name} WHERE k = 2") == []


def test_many_partitions_are_listed_together(glue: GlueCatalog, s: Any, name: str) -> None:
    sales(glue, name, [("k", "int")], [str(k) for k in range(40)])
    assert s.execute(f"SELECT count(*), sum(k), sum(n) FROM s.{name}").fetchone() == (40, 780, 780)


# --- partitions with another schema than the table's -------------------------------------------


def test_a_partition_from_before_a_column(glue: GlueCatalog, s: Any, name: str) -> None:
    now = [("id", "bigint"), ("word", "string")]
    place = glue.table("lab", name, now, keys=[("k", "int")])
    glue.partition("lab", name, ["1"], [("id", "int")], f"{place}/1")
    glue.put(f"{place}/1/a.parquet", pa.table({"ID": pa.array([1], pa.int32())}))
    glue.partition("lab", name, ["2"], now[::-1], f"{place}/2")
    glue.put(f"{place}/2/a.parquet", pa.table({"word": ["x"], "id": [2**40]}))
    assert rows_of(s, f"SELECT id, word, k FROM s.{name}") == [(1, None, 1), (2**40, "x", 2)]


def test_a_partition_of_another_format(glue: GlueCatalog, s: Any, name: str) -> None:
    columns = [("id", "bigint"), ("word", "string")]
    place = glue.table("lab", name, columns, keys=[("k", "int")])
    glue.partition("lab", name, ["1"], columns, f"{place}/1")
    glue.put(f"{place}/1/a.parquet", pa.table({"id": [1], "word": ["a"]}))
    comma = {"field.delim": ","}
    glue.partition(
        "lab", name, ["2"], [("id", "int"), ("word", "string")], f"{place}/2", "text", comma
    )
    glue.put(f"{place}/2/a.csv", b"2,b\n3,\\N\n")
    glue.partition("lab", name, ["3"], columns, f"{place}/3", "json")
    glue.put(f"{place}/3/a.json", b'{"Word": "c", "id": 4}\n')
    assert rows_of(s, f"SELECT id, word, k FROM s.{name}") == [
        (1, "a", 1),
        (2, "b", 2),
        (3, None, 2),
        (4, "c", 3),
    ]


def test_columns_of_text_are_found_by_their_place_in_the_partition(
    glue: GlueCatalog, s: Any, name: str
) -> None:
    place = glue.table(
        "lab",
        name,
        [("id", "int"), ("b", "string"), ("c", "string")],
        keys=[("k", "int")],
        form="text",
        serde={"field.delim": ","},
    )
    glue.partition(
        "lab",
        name,
        ["1"],
        [("id", "int"), ("c", "string")],
        f"{place}/1",
        "text",
        {"field.delim": ","},
    )
    glue.put(f"{place}/1/a.csv", b"1,see\n")
    assert rows_of(s, f"SELECT id, b, c FROM s.{name}") == [(1, None, "see")]


def test_a_column_that_may_be_a_renamed_one_is_refused(
    glue: GlueCatalog, s: Any, name: str
) -> None:
    place = glue.table(
        "lab",
        name,
        [("id", "int"), ("name", "string")],
        keys=[("k", "int")],
        form="text",
        serde={"field.delim": ","},
    )
    glue.partition(
        "lab",
        name,
        ["1"],
        [("id", "int"), ("nm", "string")],
        f"{place}/1",
        "text",
        {"field.delim": ","},
    )
    glue.put(f"{place}/1/a.csv", b"1,x\n")
    with pytest.raises(NotSupportedError, match=r'partition k=1 .*"nm".*"name"'):
        s.execute(f"SELECT * FROM s.{name}").fetchall()


# --- text --------------------------------------------------------------------------------------


def test_text_as_hive_reads_it(glue: GlueCatalog, s: Any, name: str) -> None:
    columns = [("id", "int"), ("word", "string"), ("d", "date"), ("x", "double")]
    content = (
        b'1\x01"quoted, text"\x012024-01-02\x011.5\n'
        b"2\x01\x01\x01\n"
        b"3\x01\\N\x01\\N\x01NaN\r\n"
        b"4\n"
        b"5\x01e\x012024-01-03\x012\x01too much\n"
        b"\n"
    )
    text_table(glue, name, columns, content, form="text")
    found = s.execute(f"SELECT id, word, d, x::VARCHAR FROM s.{name}").fetchall()
    assert found == [
        (1, '"quoted, text"', datetime.date(2024, 1, 2), "1.5"),
        (2, "", None, None),
        (3, None, None, "nan"),
        (4, None, None, None),
        (5, "e", datetime.date(2024, 1, 3), "2.0"),
        (None, None, None, None),
    ]


def test_options_of_text(glue: GlueCatalog, s: Any, name: str) -> None:
    serde = {"field.delim": "9", "escape.delim": "\\", "serialization.null.format": "none"}
    content = b"id\tword\nheader\t2\n1\ta\\\tb\\\\\n2\tnone\n"
    text_table(
        glue,
        name,
        [("id", "int"), ("word", "string")],
        content,
        form="text",
        serde=serde,
        parameters={"skip.header.line.count": "2"},
    )
    assert rows_of(s, f"SELECT * FROM s.{name}") == [(1, "a\tb\\"), (2, None)]


def test_an_escape_that_is_not_certain_is_an_error(glue: GlueCatalog, s: Any, name: str) -> None:
    serde = {"field.delim": ",", "escape.delim": "\\"}
    text_table(glue, name, [("w", "string")], b"a\\nb\n", form="text", serde=serde)
    with pytest.raises(batuta_sql.Error, match="escape that is not read"):
        s.execute(f"SELECT * FROM s.{name}").fetchall()


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ("int", "1.5"),
        ("int", "1e3"),
        ("int", "12345678901"),
        ("decimal(6,2)", "1.005"),
        ("decimal(6,0)", ".5"),
        ("date", "02/01/2024"),
        ("boolean", "yes"),
        ("double", "many"),
        ("timestamp", "2024-01-02 03:04:05.1234567"),
    ],
)
def test_a_text_that_is_none_of_its_type_is_an_error(
    glue: GlueCatalog, s: Any, name: str, told: str, text: str
) -> None:
    text_table(glue, name, [("v", told)], f"{text}\n".encode(), form="text")
    with pytest.raises(batuta_sql.Error, match=rf'column "v" .*\'{text}\' is no '):
        s.execute(f"SELECT v FROM s.{name}").fetchall()


def test_opencsv(glue: GlueCatalog, s: Any, name: str) -> None:
    columns = [("id", "int"), ("a", "string"), ("b", "string")]
    content = b'id,a,b\n1,"x, ""y""","say \\"z\\" \\\\"\n2,,""\n3,plain\n"4","two words",c,more\n'
    text_table(
        glue,
        name,
        columns,
        gzip.compress(content),
        form="opencsv",
        suffix=".csv.gz",
        parameters={"skip.header.line.count": "1"},
    )
    assert rows_of(s, f"SELECT * FROM s.{name}") == [
        (1, 'x, "y"', 'say "z" \\'),
        (2, "", ""),
        (3, "plain", None),
        (4, "two words", "c"),
    ]


@pytest.mark.parametrize("line", ['1,"a"b', "1,a\\,b", '1,"open', '1,x"y"'])
def test_a_line_that_opencsv_does_not_tell_for_certain_is_an_error(
    glue: GlueCatalog, s: Any, name: str, line: str
) -> None:
    text_table(glue, name, [("id", "int"), ("w", "string")], f"{line}\n".encode(), form="opencsv")
    with pytest.raises(batuta_sql.Error, match="not of the form of OpenCSV"):
        s.execute(f"SELECT w FROM s.{name}").fetchall()


def test_other_characters_of_opencsv(glue: GlueCatalog, s: Any, name: str) -> None:
    serde = {"separatorChar": "|", "quoteChar": "'", "escapeChar": "'"}
    text_table(
        glue,
        name,
        [("a", "string"), ("b", "string")],
        b"'it''s|'|\"x\"\n",
        form="opencsv",
        serde=serde,
    )
    assert rows_of(s, f"SELECT * FROM s.{name}") == [("it's|", '"x"')]


def test_json_lines(glue: GlueCatalog, s: Any, name: str) -> None:
    columns = [
        ("id", "bigint"),
        ("word", "string"),
        ("price", "decimal(10,2)"),
        ("who", "struct<userid:int,tags:array<string>>"),
        ("m", "map<string,int>"),
        ("at", "timestamp"),
        ("renamed", "string"),
    ]
    lines = [
        '{"id": 1, "Word": "a", "price": 1.50, "who": {"userId": 7, "tags": ["x", null]},'
        ' "m": {"k": 1}, "at": "2024-01-02 03:04:05", "old name": "r"}',
        '{"ID": "2", "word": {"deep": [1]}, "price": "12345678.25", "who": null, "m": null}',
        "",
        "{}",
    ]
    text_table(
        glue,
        name,
        columns,
        "\n".join(lines).encode(),
        form="json",
        suffix=".json",
        serde={"mapping.renamed": "old name"},
    )
    found = s.execute(f"SELECT * FROM s.{name}").fetchall()
    assert found == [
        (
            1,
            "a",
            Decimal("1.50"),
            {"userid": 7, "tags": ["x", None]},
            {"k": 1},
            datetime.datetime(2024, 1, 2, 3, 4, 5),
            "r",
        ),
        (2, '{"deep":[1]}', Decimal("12345678.25"), None, None, None, None),
        (None, None, None, None, None, None, None),
    ]


@pytest.mark.parametrize(
    ("told", "line", "reason"),
    [
        ("int", '{"v": 1.5}', "no INTEGER"),
        ("int", '{"v": 1', "(?i)json"),
        ("array<int>", '{"v": {"a": 1}}', "no JSON array"),
        ("decimal(38,20)", '{"v": 0.12345678901234567890}', "more digits than JSON keeps"),
    ],
)
def test_json_that_is_not_what_the_catalog_says_is_an_error(
    glue: GlueCatalog, s: Any, name: str, told: str, line: str, reason: str
) -> None:
    text_table(glue, name, [("v", told)], f"{line}\n".encode(), form="json")
    with pytest.raises(batuta_sql.Error, match=reason):
        s.execute(f"SELECT v FROM s.{name}").fetchall()


# --- projected partitions ----------------------------------------------------------------------


def projection(glue: GlueCatalog, name: str, keys: list[tuple[str, str]], **told: str) -> str:
    parameters = {"projection.enabled": "true"}
    parameters |= {k.replace("__", "."): v for k, v in told.items()}
    return glue.table("lab", name, [("n", "bigint")], keys=keys, parameters=parameters)


def test_projected_enums_integers_and_dates(glue: GlueCatalog, s: Any, name: str) -> None:
    place = projection(
        glue,
        name,
        [("region", "string"), ("hour", "int"), ("day", "string")],
        projection__region__type="enum",
        projection__region__values="eu,us",
        projection__hour__type="integer",
        projection__hour__range="0,23",
        projection__hour__digits="2",
        projection__day__type="date",
        projection__day__format="yyyy/MM/dd",
        projection__day__range="2024/02/28,2024/03/01",
    )
    for number, folder in enumerate(
        (
            "region=eu/hour=07/day=2024/02/29",
            "region=us/hour=23/day=2024/03/01",
            "region=xx/hour=07/day=2024/03/01",
        )
    ):
        glue.put(f"{place}/{folder}/a.parquet", pa.table({"n": [number]}))
    assert rows_of(s, f"SELECT * FROM s.{name}") == [
        (0, "eu", 7, "2024/02/29"),
        (1, "us", 23, "2024/03/01"),
    ]
    assert rows_of(s, f"SELECT n FROM s.{name} WHERE hour > 7") == [(1,)]


def test_a_template_and_injected_values(glue: GlueCatalog, s: Any, name: str) -> None:
    place = projection(
        glue,
        name,
        [("device", "string")],
        projection__device__type="injected",
        storage__location__template="s3://lake/lab/injected/d-${device}/",
    )
    assert place
    for device in ("a1", "b2"):
        glue.put(f"s3://lake/lab/injected/d-{device}/x.parquet", pa.table({"n": [len(device)]}))
    sql = f"SELECT device FROM s.{name}"
    assert rows_of(s, f"{sql} WHERE device IN ('a1', 'zz') AND n > 0") == [("a1",)]
    with pytest.raises(ProgrammingError, match='needs a value for "device"'):
        s.execute(sql).fetchall()


def test_a_projection_that_is_not_understood_is_refused(
    glue: GlueCatalog, s: Any, name: str
) -> None:
    projection(glue, name, [("k", "string")], projection__k__type="guessed")
    with pytest.raises(NotSupportedError, match='projection of "k" is not understood'):
        s.execute(f"SELECT * FROM s.{name}").fetchall()


# --- other readers, and none -------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters", [{"spark.sql.sources.provider": "delta"}, {"table_type": "DELTA"}]
)
def test_a_delta_table_is_read_by_its_log(
    glue: GlueCatalog, s: Any, name: str, parameters: dict[str, str]
) -> None:
    url = f"s3://{BUCKET}/delta/{name}"
    options = {**glue.aws.storage_options, "AWS_S3_ALLOW_UNSAFE_RENAME": "true"}
    for part in (1, 2):
        deltalake.write_deltalake(
            url, pa.table({"Id": [part]}), storage_options=options, mode="append"
        )
    glue.table(
        "lab",
        name,
        [("col", "array<string>")],
        location=f"{url}-__PLACEHOLDER__",
        serde={"path": url},
        parameters=parameters,
    )
    assert rows_of(s, f"SELECT Id FROM s.lab.{name}") == [(1,), (2,)]
    assert rows_of(s, f'SELECT Id FROM s.lab."{name}@v0"') == [(1,)]
    assert s.estimate(f"SELECT Id FROM s.lab.{name}").rows == 2
    both = f"SELECT w.word FROM s.lab.{name} d JOIN s.lab.words w ON d.id = w.id WHERE d.id = 1"
    assert rows_of(s, both) == [("a",)]


def test_an_iceberg_table_that_pyiceberg_has_written(glue: GlueCatalog, s: Any, name: str) -> None:
    from pyiceberg.catalog.glue import GlueCatalog as Writer

    url = glue.aws.emulator.url
    keys = {"access-key-id": KEY, "secret-access-key": SECRET, "region": REGION}
    properties = {f"{p}.{k}": v for p in ("glue", "s3") for k, v in keys.items()}
    writer = Writer("lab", **properties, **{"glue.endpoint": url, "s3.endpoint": url})
    rows = pa.table({"id": [1, 2], "Word": ["a", "b"]})
    location = f"s3://{BUCKET}/iceberg/{name}"
    table = writer.create_table(("lab", name), schema=rows.schema, location=location)
    table.append(rows)
    first = table.current_snapshot().snapshot_id
    table.append(pa.table({"id": [3], "Word": ["c"]}))
    sql = f"SELECT id, word FROM s.lab.{name}"
    assert rows_of(s, sql) == [(1, "a"), (2, "b"), (3, "c")]
    assert rows_of(s, f"{sql} WHERE id > 2") == [(3, "c")]
    assert rows_of(s, f'SELECT id FROM s.lab."{name}@v{first}"') == [(1,), (2,)]
    found = s.estimate(sql)
    assert (found.rows, found.confidence) == (3, "exact")
    both = f"SELECT w.word FROM s.lab.{name} i JOIN s.lab.words w ON i.id = w.id WHERE i.id = 1"
    assert rows_of(s, both) == [("a",)]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"kind": "VIRTUAL_VIEW"}, "it is a view"),
        ({"parameters": {"table_type": "ICEBERG"}}, "Iceberg table without metadata_location"),
        (
            {
                "parameters": {
                    "table_type": "ICEBERG",
                    "metadata_location": "gs://b/1.metadata.json",
                }
            },
            "gs:// is not read yet",
        ),
        (
            {"parameters": {"table_type": "DELTA"}, "location": "gs://b/delta"},
            "gs:// is not read yet",
        ),
        ({"parameters": {"spark.sql.sources.provider": "hudi"}}, "Hudi"),
        ({"parameters": {"transactional": "true"}}, "transactional"),
        ({"form": "orc"}, "OrcSerde"),
        ({"form": "avro"}, "AvroSerDe"),
        ({"form": "ion"}, "IonHiveSerDe"),
        ({"form": "text", "parameters": {"skip.footer.line.count": "1"}}, "skip.footer.line.count"),
        ({"form": "text", "serde": {"serialization.encoding": "latin1"}}, "serialization.encoding"),
        ({"serde": {"parquet.column.index.access": "true"}}, "parquet.column.index.access"),
        ({"TargetTable": {"DatabaseName": "far", "Name": "away"}}, "a link to far.away"),
    ],
)
def test_what_cannot_be_read_right_is_refused_by_name(
    glue: GlueCatalog, s: Any, name: str, made: dict[str, Any], reason: str
) -> None:
    glue.table("lab", name, [("a", "int")], **made)
    with pytest.raises(NotSupportedError, match=rf"s: .*({name}.*|gs:.*){reason}"):
        s.execute(f"SELECT * FROM s.{name}")
    listed = {t.path for t in s._session.sources["s"].list_tables()}
    assert ("lab", name) in listed


def test_files_of_an_unknown_compression_are_refused(glue: GlueCatalog, s: Any, name: str) -> None:
    text_table(glue, name, [("a", "string")], b"x", form="text", suffix=".snappy")
    with pytest.raises(batuta_sql.Error, match="snappy"):
        s.execute(f"SELECT * FROM s.{name}").fetchall()


def test_files_of_this_machine(glue: GlueCatalog, s: Any, name: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x y.parquet")
    glue.table("lab", name, [("a", "bigint")], location=f"file://{tmp_path}")
    assert rows_of(s, f"SELECT a FROM s.{name}") == [(1,)]


# --- how much is read --------------------------------------------------------------------------


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the ranges that are read from objects."""
    found: list[int] = []
    fetch = s3fs.core.S3File._fetch_range

    def counted(self: Any, start: int, end: int) -> bytes:
        found.append(end - start)
        return bytes(fetch(self, start, end))

    monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", counted)
    return found


def wide(glue: GlueCatalog, name: str) -> int:
    names = [f"c{i}" for i in range(6)]
    place = glue.table("lab", name, [("id", "bigint"), *((n, "string") for n in names)])
    rows = pa.table({"id": range(ROWS), **{n: [f"{n} {r}" for r in range(ROWS)] for n in names}})
    glue.put(f"{place}/a.parquet", rows, row_group_size=10_000)
    return int(glue.files.info(f"{place}/a.parquet")["size"])


def test_a_column_is_not_the_whole_object(
    glue: GlueCatalog, s: Any, name: str, ranges: list[int]
) -> None:
    size = wide(glue, name)
    sql = f"SELECT sum(id) FROM s.{name}"
    estimate = s.estimate(sql)
    assert (estimate.confidence, estimate.basis) == ("exact", "Parquet footers")
    assert 0 < estimate.bytes_scanned < size / 5
    ranges.clear()
    assert s.execute(sql).fetchone() == (ROWS * (ROWS - 1) // 2,)
    assert 0 < sum(ranges) < size / 3


def test_row_groups_that_cannot_match_are_not_read(
    glue: GlueCatalog, s: Any, name: str, ranges: list[int]
) -> None:
    wide(glue, name)
    s.execute(f"SELECT c0 FROM s.{name}").fetchall()
    everything = sum(ranges)
    ranges.clear()
    s.execute(f"SELECT c0 FROM s.{name} WHERE id < 10").fetchall()
    assert sum(ranges) < everything / 2


def test_an_estimate_is_that_of_the_needed_partitions(glue: GlueCatalog, s: Any, name: str) -> None:
    place = glue.table("lab", name, [("w", "string")], keys=[("k", "int")], form="text")
    for k, content in ((1, b"a\n" * 10), (2, b"b\n" * 1000)):
        glue.partition("lab", name, [str(k)], [("w", "string")], f"{place}/{k}", "text")
        glue.put(f"{place}/{k}/x.txt", content)
    found = s.estimate(f"SELECT w FROM s.{name} WHERE k = 1")
    assert (found.bytes_scanned, found.confidence, found.basis) == (20, "exact", "file sizes")
    assert s.estimate(f"SELECT w FROM s.{name}").bytes_scanned == 2020


# --- labels ------------------------------------------------------------------------------------


def test_labels_in_the_parameters_of_a_table_and_its_columns(
    glue: GlueCatalog, s: Any, name: str
) -> None:
    glue.table(
        "lab",
        name,
        [("email", "string"), ("n", "int")],
        parameters={"batuta.labels": '["tier:sovereign"]'},
        labels={"email": '["pii"]'},
    )
    cursor = s.execute(f"SELECT email, n, count(*) OVER () AS c FROM s.{name}")
    assert cursor.labels["email"].direct == {"pii", "tier:sovereign"}
    assert cursor.labels["n"].direct == {"tier:sovereign"}
    assert "tier:sovereign" in cursor.labels["c"].all


def test_lf_tags_as_labels(glue: GlueCatalog, opened: Callable[..., Any], name: str) -> None:
    glue.table("lab", name, [("email", "string"), ("n", "int")])
    formation = glue.service("lakeformation")
    for key, values in (("sensitivity", ["high"]), ("pii", ["yes"]), ("origin", ["us"])):
        formation.create_lf_tag(TagKey=key, TagValues=values)
    here = {"DatabaseName": "lab", "Name": name}
    formation.add_lf_tags_to_resource(
        Resource={"Database": {"Name": "lab"}}, LFTags=[{"TagKey": "origin", "TagValues": ["us"]}]
    )
    formation.add_lf_tags_to_resource(
        Resource={"Table": here}, LFTags=[{"TagKey": "sensitivity", "TagValues": ["high"]}]
    )
    formation.add_lf_tags_to_resource(
        Resource={"TableWithColumns": {**here, "ColumnNames": ["email"]}},
        LFTags=[{"TagKey": "pii", "TagValues": ["yes"]}],
    )
    cursor = opened(**glue.settings, tags=True).execute(f"SELECT email, n FROM s.{name}")
    assert cursor.labels["email"].direct == {"sensitivity:high", "pii:yes", "origin:us"}
    assert cursor.labels["n"].direct == {"sensitivity:high", "origin:us"}


def test_labels_that_only_the_files_know_stop_the_query(
    glue: GlueCatalog, s: Any, opened: Callable[..., Any], name: str
) -> None:
    place = glue.table("lab", name, [("email", "string")])
    rows = pa.table({"email": ["a@x"]})
    schema = labelled_schema(rows.schema, [ColumnLabels(frozenset({"pii"}))], frozenset())
    glue.put(f"{place}/a.parquet", rows.cast(schema))
    with pytest.raises(OperationalError, match='"email".*carry the labels pii'):
        s.execute(f"SELECT email FROM s.{name}").fetchall()


# --- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [b'{"LFTagsOnTable": [{"TagKey"', b""])
def test_half_an_answer_is_not_taken_for_one_that_says_nothing(
    glue: GlueCatalog, opened: Callable[..., Any], front: GlueFront, broken: bytes
) -> None:
    """botocore makes an empty answer of what is no JSON: here, a table without its labels."""
    tags = {"LFTagsOnTable": [{"TagKey": "pii", "TagValues": ["yes"]}]}
    settings = {**glue.settings, "endpoint": front.url, "tags": True}
    sql = "SELECT word FROM s.lab.words"
    front.answers["GetResourceLFTags"] = [broken, tags, broken, tags, broken, tags]
    assert opened(**settings).execute(sql).labels["word"].direct == {"pii:yes"}
    front.answers["GetResourceLFTags"] = broken
    with pytest.raises(OperationalError, match="^s: .*the answer is no whole JSON"):
        opened(**settings).execute(sql)


def test_an_answer_that_breaks_off_is_an_error(
    glue: GlueCatalog, opened: Callable[..., Any], name: str
) -> None:
    wide(glue, name)
    for fault in ("cut_after", "end_after"):
        with Proxy(glue.aws.emulator.url) as proxy:
            endpoint = proxy.uri.replace("http://@", "http://").rstrip("/")
            settings = {**glue.settings, "endpoint": endpoint, "connect_timeout": 3}
            connection = opened(**settings, query_timeout=20)
            assert connection.execute(f"SELECT count(*) FROM s.{name}").fetchone() == (ROWS,)
            proxy.reset_all()
            setattr(proxy, fault, 400_000)
            with pytest.raises(OperationalError, match="^s: ") as failure:
                connection.execute(f"SELECT * FROM s.{name}").fetchall()
            assert SECRET not in str(failure.value)


@pytest.fixture
def front(glue: GlueCatalog) -> Iterator[GlueFront]:
    with glue_front(glue.aws.emulator.url) as found:
        yield found


def test_pages_are_followed_to_their_end(
    glue: GlueCatalog, opened: Callable[..., Any], front: GlueFront, name: str
) -> None:
    sales(glue, name, [("k", "int")], [str(k) for k in range(7)])
    front.page = 2
    connection = opened(**{**glue.settings, "endpoint": front.url})
    assert connection.execute(f"SELECT count(*), sum(k) FROM s.lab.{name}").fetchone() == (7, 21)
    listed = {path for _, path, _ in connection.tables("s")}
    assert {("lab", name), ("lab", "words")} <= listed
    assert front.operations().count("GetTables") > 1


@pytest.mark.parametrize("code", ["InvalidInputException", "InvalidStateException"])
def test_a_filter_that_the_service_does_not_take_is_applied_here(
    glue: GlueCatalog, opened: Callable[..., Any], front: GlueFront, name: str, code: str
) -> None:
    sales(glue, name, [("k", "int")], ["1", "2"])
    front.refusals["GetPartitions"] = [(code, "Unsupported expression")]
    connection = opened(**{**glue.settings, "endpoint": front.url})
    assert rows_of(connection, f"SELECT n FROM s.lab.{name} WHERE k = 2") == [(1,)]


@pytest.mark.parametrize(
    ("operation", "code", "hint"),
    [
        ("GetTable", "AccessDeniedException", "it needs glue:GetTable in IAM"),
        ("GetPartitions", "AccessDeniedException", "it needs glue:GetPartitions in IAM"),
        ("GetTable", "UnrecognizedClientException", "check profile, or access_key_id"),
        ("GetTable", "ExpiredTokenException", "the credentials have ended"),
        ("GetPartitions", "InvalidInputException", ""),
    ],
)
def test_a_refusal_says_what_is_missing(
    glue: GlueCatalog,
    opened: Callable[..., Any],
    front: GlueFront,
    name: str,
    operation: str,
    code: str,
    hint: str,
) -> None:
    sales(glue, name, [("k", "int")], ["1"])
    front.refusals[operation] = [(code, f"no, says the service of {SECRET}")] * 9
    connection = opened(**{**glue.settings, "endpoint": front.url})
    with pytest.raises(OperationalError, match="no, says the service") as failure:
        connection.execute(f"SELECT * FROM s.lab.{name}").fetchall()
    assert failure.value.source == "s"
    assert hint in (failure.value.hint or "")
    assert SECRET not in str(failure.value)


def test_credentials_that_have_ended_are_looked_up_anew(
    glue: GlueCatalog, opened: Callable[..., Any], front: GlueFront
) -> None:
    front.refusals["GetTable"] = [("ExpiredTokenException", "expired")]
    revealed: list[str] = []

    def secret() -> str:
        revealed.append(SECRET)
        return SECRET

    connection = opened(**{**glue.settings, "endpoint": front.url, "secret_access_key": secret})
    assert connection.execute("SELECT count(*) FROM s.lab.words").fetchone() == (2,)
    assert len(revealed) > 1


def test_a_table_with_data_filters_is_refused(
    glue: GlueCatalog, opened: Callable[..., Any], front: GlueFront
) -> None:
    front.marks["IsRegisteredWithLakeFormation"] = True
    settings = {**glue.settings, "endpoint": front.url}
    front.answers["ListDataCellsFilter"] = {"DataCellsFilters": []}
    sql = "SELECT count(*) FROM s.lab.words"
    assert opened(**settings).execute(sql).fetchone() == (2,)
    front.answers["ListDataCellsFilter"] = {"DataCellsFilters": [{"Name": "only_eu"}]}
    with pytest.raises(NotSupportedError, match="data filters in Lake Formation"):
        opened(**settings).execute(sql)
    empty_page = {"DataCellsFilters": [], "NextToken": "2"}
    front.answers["ListDataCellsFilter"] = [empty_page, {"DataCellsFilters": [{"Name": "only_eu"}]}]
    with pytest.raises(NotSupportedError, match="data filters in Lake Formation"):
        opened(**settings).execute(sql)
    assert opened(**settings, lake_formation="ignore").execute(sql).fetchone() == (2,)


def test_a_text_file_that_breaks_off_is_an_error(
    glue: GlueCatalog, opened: Callable[..., Any], name: str
) -> None:
    content = b"".join(b"row number %d\n" % i for i in range(ROWS))
    text_table(glue, name, [("w", "string")], content, form="text")
    for fault in ("cut_after", "end_after"):
        with Proxy(glue.aws.emulator.url) as proxy:
            endpoint = proxy.uri.replace("http://@", "http://").rstrip("/")
            settings = {**glue.settings, "endpoint": endpoint, "connect_timeout": 3}
            connection = opened(**settings, query_timeout=20)
            sql = f"SELECT count(*), max(w) FROM s.lab.{name}"
            assert connection.execute(sql).fetchone() == (ROWS, f"row number {ROWS - 1}")
            proxy.reset_all()
            setattr(proxy, fault, 400_000)
            with pytest.raises(OperationalError, match="^s: "):
                connection.execute(sql).fetchall()


def test_a_service_that_is_not_there(glue: GlueCatalog, opened: Callable[..., Any]) -> None:
    settings = {**glue.settings, "endpoint": "http://127.0.0.1:9"}
    with pytest.raises(OperationalError, match=r"s: the table lab.words cannot be read") as failure:
        opened(**settings, connect_timeout=1).execute("SELECT * FROM s.lab.words")
    assert SECRET not in str(failure.value)


def test_a_bucket_that_is_not_there_is_an_error(glue: GlueCatalog, s: Any, name: str) -> None:
    glue.table("lab", name, [("a", "int")], location="s3://no-such-bucket/x")
    with pytest.raises(OperationalError, match="no-such-bucket"):
        s.execute(f"SELECT * FROM s.{name}").fetchall()


def test_another_store_is_refused_by_name(glue: GlueCatalog, s: Any, name: str) -> None:
    glue.table("lab", name, [("a", "int")], location="hdfs://name/x")
    with pytest.raises(NotSupportedError, match="hdfs:// is not read yet"):
        s.execute(f"SELECT * FROM s.{name}").fetchall()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"secret_access_key": None}, "give access_key_id and secret_access_key, both"),
        ({"profile": "x"}, "give profile or access_key_id"),
    ],
)
def test_a_login_that_is_none(
    glue: GlueCatalog, opened: Callable[..., Any], settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        opened(**{**glue.settings, **settings})


def test_no_secret_in_logs_at_any_level(
    glue: GlueCatalog, opened: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    token = "session-token-4711/+"
    with caplog.at_level(logging.DEBUG):
        connection = opened(**glue.settings, session_token=token)
        assert connection.execute("SELECT count(*) FROM s.lab.words").fetchone() == (2,)
        connection.estimate("SELECT id FROM s.lab.words")
    assert caplog.text
    for secret in (SECRET, token):
        assert secret not in caplog.text
        assert secret not in repr(connection)
