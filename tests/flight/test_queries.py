"""What an ADBC client asks, and gets."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import batuta_sql
from tests.flight.conftest import Server, client, fetched, served


def test_a_join_over_two_sources(ann: Any) -> None:
    sql = (
        "SELECT b.id, b.name, sum(v.minutes) AS minutes FROM pub.beer b"
        " JOIN delta.visits v ON v.beer = b.id GROUP BY ALL ORDER BY b.id"
    )
    assert fetched(ann, sql) == [(1, "Ann's", 5), (2, 'a "b", c', 13)]


def test_parameters_are_values(ann: Any) -> None:
    sql = "SELECT id, ? AS given FROM pub.beer WHERE name = ? OR id = ?"
    assert fetched(ann, sql, ("'; DROP TABLE x; --", "Ann's", 3)) == [
        (1, "'; DROP TABLE x; --"),
        (3, "'; DROP TABLE x; --"),
    ]


@pytest.mark.parametrize(
    "value",
    [
        True,
        -(2**62),
        1.5,
        "a 'quoted' \\ text",
        b"\x00\xff",
        decimal.Decimal("12345.678"),
        datetime.date(2026, 1, 2),
        datetime.datetime(2026, 1, 2, 3, 4, 5, 678),
        None,
    ],
)
def test_parameters_of_all_kinds_come_back(ann: Any, value: Any) -> None:
    assert fetched(ann, "SELECT ? AS v", (value,)) == [(value,)]


def test_a_statement_is_run_with_other_values(ann: Any) -> None:
    with ann.cursor() as cursor:
        sql = "SELECT name FROM pub.beer WHERE id = ?"
        for number, name in ((1, "Ann's"), (2, 'a "b", c'), (3, "")):
            cursor.execute(sql, (number,))
            assert cursor.fetchall() == [(name,)]


def test_a_large_result_comes_in_messages_that_clients_take(ann: Any) -> None:
    with ann.cursor() as cursor:
        cursor.execute("SELECT n, repeat('x', 300) AS filler FROM duck.numbers")
        batches = list(cursor.fetch_record_batch())
    assert sum(b.num_rows for b in batches) == 250_000
    assert max(b.nbytes for b in batches) <= 4_000_000


def test_one_row_of_many_megabytes(server: Server) -> None:
    options = {"adbc.flight.sql.client_option.with_max_msg_size": str(64_000_000)}
    with client(server, **options) as connection:
        sql = "SELECT length(x) AS long FROM (SELECT repeat('x', 20000000) AS x)"
        assert fetched(connection, sql) == [(20_000_000,)]
        ((text,),) = fetched(connection, "SELECT repeat('x', 20000000) AS x")
        assert len(text) == 20_000_000


# --- types ---------------------------------------------------------------------------------------

VALUES = {
    "integers": "SELECT 1::TINYINT a, 2::UBIGINT b, (2::HUGEINT ** 100)::HUGEINT c, NULL::INT d",
    "decimals": "SELECT 1.5::DECIMAL(4,1) a, -12345678901234567890.123::DECIMAL(38,3) b",
    "floats": "SELECT 'nan'::DOUBLE a, '-inf'::FLOAT b, -0.0::DOUBLE c",
    "lists": "SELECT [1, NULL] a, []::INT[] b, [[1.5], NULL] c, [1, 2]::INT[2] d",
    "structs": "SELECT {'x': 1, 'y': {'z': ['a']}} a, NULL::STRUCT(p INT) b",
    "maps": "SELECT MAP {'a': 1, 'b': NULL} a, MAP {}::MAP(INT, INT) b",
    "times": "SELECT DATE '2026-01-02' a, TIME '03:04:05.678' b, TIMESTAMP '1999-12-31 23:59:59' c,"
    " TIMESTAMP_NS '2026-01-02 03:04:05.123456789' d, TIMESTAMP_S '2026-01-02 03:04:05' e",
    "zones": "SELECT TIMESTAMPTZ '2026-01-02 03:04:05+05' a, '03:04:05+02'::TIMETZ b",
    "intervals": "SELECT INTERVAL '1 month 2 days 3.5 seconds' a, NULL::INTERVAL b",
    "uuids": "SELECT '5f0c2d54-0000-4000-8000-00000000abcd'::UUID a, NULL::UUID b",
    "enums": "SELECT 'b'::ENUM('a', 'b') a, NULL::ENUM('x') b",
    "enums in many batches": "SELECT n, ['lo', 'hi'][1 + n % 2]::ENUM('lo', 'hi') AS e,"
    " [{'e': 'lo'::ENUM('lo')}] AS f FROM duck.numbers ORDER BY n",
    "no enums": "SELECT 'b'::ENUM('a', 'b') a WHERE false",
    "bytes and bits": "SELECT '\\x00\\xFF'::BLOB a, '0101'::BIT b",
    "unions": "SELECT union_value(num := 2) a",
    "texts": "SELECT '' a, 'naïve ☕ 🍺' b, NULL::VARCHAR c, repeat('x', 100000) d",
    "nulls": "SELECT NULL a, NULL::INT[] b",
    "one name twice": "SELECT 1 AS a, 2 AS a",
    "no rows": "SELECT id, name, price, since FROM pub.beer WHERE id > 99",
    "rows of a source": "SELECT * FROM pub.beer ORDER BY id",
    "an explanation": "EXPLAIN SELECT id FROM pub.beer",
    "tables": "SELECT table_catalog, table_name FROM information_schema.tables ORDER BY ALL",
    "a list of tables": "SHOW TABLES",
    "a description": "DESCRIBE pub.beer",
    "a pivot": "PIVOT pub.beer ON id USING count(*) GROUP BY name ORDER BY name",
}


@pytest.mark.parametrize("sql", VALUES.values(), ids=VALUES)
def test_a_result_is_what_the_library_gives(ann: Any, config: Path, sql: str) -> None:
    with batuta_sql.connect(config) as library:
        expected = library.execute(sql).fetch_arrow_table()
    with ann.cursor() as cursor:
        cursor.execute(sql)
        found = cursor.fetch_arrow_table()
    assert found.schema.equals(expected.schema)
    assert _comparable(found).equals(_comparable(expected))


def _comparable(table: pa.Table) -> pa.Table:
    """With NaN as a text: it does not equal itself."""
    for at, one in enumerate(table.schema):
        if pa.types.is_floating(one.type):
            table = table.set_column(at, one.name, table[at].cast(pa.string()))
    return table.combine_chunks()


# --- metadata ------------------------------------------------------------------------------------


def test_sources_schemas_tables_and_columns(ann: Any) -> None:
    objects = ann.adbc_get_objects(depth="all").read_all().to_pylist()
    catalogs = {c["catalog_name"]: c["catalog_db_schemas"] for c in objects}
    assert catalogs.keys() == {"pub", "lake", "delta", "duck"}
    (schema,) = catalogs["pub"]
    assert schema["db_schema_name"] == "main"
    (table,) = schema["db_schema_tables"]
    assert (table["table_name"], table["table_type"]) == ("beer", "TABLE")
    assert [c["column_name"] for c in table["table_columns"]] == ["id", "name", "price", "since"]


def test_names_that_metadata_tells_stand_in_queries(ann: Any) -> None:
    for catalog in ann.adbc_get_objects(depth="tables").read_all().to_pylist():
        for schema in catalog["catalog_db_schemas"]:
            for table in schema["db_schema_tables"]:
                names = catalog["catalog_name"], schema["db_schema_name"], table["table_name"]
                quoted = ".".join(f'"{n}"' for n in names)
                assert fetched(ann, f"SELECT count(*) FROM {quoted}")[0][0] > 0


def test_objects_are_filtered(ann: Any) -> None:
    def tables(**filters: Any) -> list[str]:
        objects = ann.adbc_get_objects(depth="tables", **filters).read_all().to_pylist()
        return [
            t["table_name"]
            for c in objects
            for s in c["catalog_db_schemas"] or []
            for t in s["db_schema_tables"] or []
        ]

    assert tables(catalog_filter="lake") == ["shares"]
    assert sorted(tables(table_name_filter="%r%")) == ["beer", "numbers", "shares"]
    assert tables(table_name_filter="_eer") == ["beer"]
    assert tables(table_types_filter=["VIEW"]) == []
    assert tables(db_schema_filter="nowhere") == []


def test_the_schema_of_a_table(ann: Any) -> None:
    schema = ann.adbc_get_table_schema("beer", catalog_filter="pub")
    assert schema.names == ["id", "name", "price", "since"]
    assert schema.field("price").type == pa.decimal128(6, 2)


def test_what_the_server_says_of_itself(ann: Any) -> None:
    told = ann.adbc_get_info()
    assert told["vendor_name"] == "Batuta-SQL"
    assert told["vendor_version"] == batuta_sql.__version__


def test_types_of_tables(ann: Any) -> None:
    assert ann.adbc_get_table_types() == ["TABLE", "VIEW"]


def test_a_source_that_does_not_answer_is_named(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "batuta.toml"
    gone = f'[sources.gone]\nkind = "sqlite"\npath = "{tmp_path}/gone.sqlite"\n'
    path.write_text(config.read_text() + gone)
    with served(path, tmp_path) as server, client(server, None) as connection:
        with pytest.raises(connection.Error, match="gone: "):
            connection.adbc_get_objects(depth="tables").read_all()
        objects = connection.adbc_get_objects(depth="catalogs").read_all().to_pylist()
        assert "gone" in {o["catalog_name"] for o in objects}
        assert connection.adbc_get_table_schema("beer", catalog_filter="pub").names[0] == "id"
        assert fetched(connection, "SELECT count(*) FROM pub.beer") == [(4,)]


# --- errors --------------------------------------------------------------------------------------


def test_wrong_sql_is_explained(ann: Any) -> None:
    with pytest.raises(ann.Error, match='did you mean "name"') as caught:
        fetched(ann, "SELECT nme FROM pub.beer")
    assert "LINE 1: SELECT nme" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_an_error_in_mid_stream_is_an_error(ann: Any) -> None:
    sql = (
        "SELECT CASE WHEN n = 240000 THEN error('boom at ' || n) ELSE n END AS x FROM duck.numbers"
    )
    with ann.cursor() as cursor, pytest.raises(ann.Error, match="boom at 240000"):
        cursor.execute(sql)
        cursor.fetch_arrow_table()


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t AS SELECT 1",
        "SET memory_limit = '1GB'",
        "DELETE FROM pub.beer",
        "COPY (SELECT 1) TO '/tmp/out.csv'",
        "ATTACH '/tmp/x.db' AS other",
        "SELECT 1; SELECT 2",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM '/etc/passwd'",
    ],
)
def test_nothing_but_queries_of_the_sources(ann: Any, sql: str) -> None:
    with pytest.raises(ann.Error):
        fetched(ann, sql)


def test_writing_by_adbc_is_refused(ann: Any) -> None:
    with ann.cursor() as cursor, pytest.raises(ann.Error, match="read-only"):
        cursor.adbc_ingest("beer", pa.table({"id": [1]}), mode="append")
    with ann.cursor() as cursor, pytest.raises(ann.Error, match="not a query"):
        cursor.executemany("INSERT INTO pub.beer VALUES (?)", [(1,)])


def test_a_client_that_wants_transactions_is_told(server: Server) -> None:
    import adbc_driver_flightsql.dbapi as dbapi

    log_in = {"username": "ann", "password": "ann's secret"}
    with pytest.warns(Warning, match="autocommit"):
        connection = dbapi.connect(server.uri, db_kwargs=log_in)
    with connection:
        assert fetched(connection, "SELECT 42 AS answer") == [(42,)]
