"""Labels: from the configuration and the data, through queries, into files and back."""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batuta_sql
from batuta_sql import ColumnLabels, ConfigError, Connection, LabelRefused, LabelWarning
from batuta_sql.labels import KEY

INTERNAL, SOVEREIGN, PII, PUBLIC = "origin:internal", "tier:sovereign", "pii", "origin:public"
OF_TABLE = frozenset({INTERNAL, SOVEREIGN})


def direct(*labels: str) -> ColumnLabels:
    return ColumnLabels(frozenset(labels))


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """A CRM (SQLite) with labels, public files, and files without any."""
    with closing(sqlite3.connect(tmp_path / "crm.sqlite")) as lite:
        lite.execute("CREATE TABLE customer (id INTEGER, name TEXT, email TEXT, country TEXT)")
        rows = [(1, "Ann", "ann@x", "de"), (2, "Bob", "bob@x", "fr"), (3, "Cyd", "cyd@x", "de")]
        lite.executemany("INSERT INTO customer VALUES (?, ?, ?, ?)", rows)
        lite.execute("CREATE VIEW known AS SELECT name AS n, email AS e FROM customer")
        lite.execute("CREATE VIEW better_known AS SELECT n FROM known")
        lite.execute("CREATE TABLE product (id INTEGER, title TEXT)")
        lite.commit()
    for folder in ("open", "plain"):
        (tmp_path / folder).mkdir()
    countries = pa.table({"code": ["de", "fr"], "people": [84, 68]})
    pq.write_table(countries, tmp_path / "open" / "countries.parquet")
    pq.write_table(pa.table({"id": [1, 2]}), tmp_path / "plain" / "t.parquet")
    return {
        "labels": {"audit_log": str(tmp_path / "audit.jsonl")},
        "sources": {
            "crm": {
                "kind": "sqlite",
                "path": str(tmp_path / "crm.sqlite"),
                "labels": [INTERNAL],
                "tables": {
                    "customer": {"labels": [SOVEREIGN], "columns": {"EMAIL": {"labels": [PII]}}}
                },
            },
            "open": {"kind": "files", "path": str(tmp_path / "open"), "labels": [PUBLIC]},
            "plain": {"kind": "files", "path": str(tmp_path / "plain")},
        },
    }


@pytest.fixture
def connection(settings: dict[str, Any]) -> Iterator[Connection]:
    with batuta_sql.connect(settings) as connection:
        yield connection


def labels_of(connection: Connection, sql: str) -> dict[str, ColumnLabels]:
    cursor = connection.execute(sql)
    cursor.fetchall()
    return cursor.labels


# --- where labels come from --------------------------------------------------------------------


def test_labels_of_source_table_and_column_are_united(connection: Connection) -> None:
    assert labels_of(connection, "SELECT name, email FROM crm.customer") == {
        "name": direct(INTERNAL, SOVEREIGN),
        "email": direct(INTERNAL, SOVEREIGN, PII),
    }
    assert labels_of(connection, "SELECT title FROM crm.product") == {"title": direct(INTERNAL)}
    assert labels_of(connection, "SELECT id FROM plain.t") == {"id": ColumnLabels()}


def test_what_chose_the_rows_is_indirect(connection: Connection) -> None:
    found = labels_of(connection, "SELECT name FROM crm.customer WHERE email LIKE 'a%'")
    assert found["name"] == ColumnLabels(OF_TABLE, OF_TABLE | {PII})


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM crm.customer",
        "SELECT count(*) AS x FROM crm.customer WHERE id > 1",
        "SELECT 1 FROM crm.customer",
        "SELECT EXISTS (FROM crm.customer)",
        "SELECT id FROM plain.t WHERE EXISTS (FROM crm.customer WHERE id > 2)",
        "SELECT p.id FROM plain.t p, crm.customer",
        "SELECT p.id FROM plain.t p LEFT JOIN crm.customer c ON p.id = c.id",
        "SELECT p.id FROM plain.t p ANTI JOIN crm.customer c ON p.id = c.id",
        "SELECT id FROM plain.t UNION ALL SELECT id FROM crm.customer",
        "SELECT id FROM plain.t EXCEPT SELECT id FROM crm.customer",
        "PIVOT crm.customer ON country USING count(*) GROUP BY name",
        "SELECT id FROM plain.t WHERE id = ANY (SELECT id FROM crm.customer)",
        "WITH RECURSIVE r AS (SELECT id FROM crm.customer UNION SELECT id FROM r) SELECT id FROM r",
        "SELECT unnest([c.name]) FROM crm.customer c",
        "SELECT n.x FROM crm.customer c, unnest([c.id]) n(x)",
        "SELECT c FROM crm.customer c",
        "SELECT COLUMNS('na.*') FROM crm.customer",
    ],
)
def test_nothing_is_exempt(connection: Connection, sql: str) -> None:
    found = labels_of(connection, sql)
    assert found
    assert all(column.all >= OF_TABLE for column in found.values())


def test_a_view_in_a_source_has_the_labels_of_what_it_reads(connection: Connection) -> None:
    everything = direct(INTERNAL, SOVEREIGN, PII)
    assert labels_of(connection, "SELECT n FROM crm.known") == {"n": everything}
    assert labels_of(connection, "SELECT n FROM crm.better_known") == {"n": everything}


def test_a_view_of_the_session_is_its_query(connection: Connection) -> None:
    connection.execute("CREATE VIEW v AS SELECT name, length(email) AS l FROM crm.customer")
    assert labels_of(connection, "SELECT l FROM v") == {"l": direct(INTERNAL, SOVEREIGN, PII)}
    assert labels_of(connection, "SELECT name FROM v") == {"name": direct(INTERNAL, SOVEREIGN)}


def test_labels_of_a_column_that_is_not_there_are_an_error(settings: dict[str, Any]) -> None:
    settings["sources"]["crm"]["tables"]["customer"]["columns"] = {"emial": {"labels": [PII]}}
    with (
        batuta_sql.connect(settings) as connection,
        pytest.raises(ConfigError, match=r'has no column "emial"\nHint: did you mean "email"'),
    ):
        connection.execute("SELECT name FROM crm.customer")


@pytest.mark.parametrize("label", ["", "two words", "a,b", 'x"y'])
def test_what_is_no_label_is_an_error(label: str, tmp_path: Path) -> None:
    source = {"kind": "files", "path": str(tmp_path), "labels": [label]}
    with pytest.raises(ConfigError, match="is no label"):
        batuta_sql.connect({"sources": {"s": source}})


def test_a_pinned_version_has_the_labels_of_its_table(tmp_path: Path) -> None:
    deltalake.write_deltalake(str(tmp_path / "t"), pa.table({"a": [1]}))
    tables = {"t": {"labels": [SOVEREIGN]}}
    source = {"kind": "delta", "path": str(tmp_path), "tables": tables}
    with batuta_sql.connect({"sources": {"lake": source}}) as connection:
        assert labels_of(connection, 'SELECT a FROM lake."t@v0"') == {"a": direct(SOVEREIGN)}


def test_labels_of_a_table_in_another_schema_are_not_its_own(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "d.duckdb")) as db:
        db.execute("CREATE SCHEMA s; CREATE TABLE s.t AS SELECT 1 AS a")
        db.execute("CREATE TABLE t AS SELECT 1 AS a; CREATE VIEW s.v AS SELECT a FROM s.t")
    source = {
        "kind": "duckdb",
        "path": str(tmp_path / "d.duckdb"),
        "tables": {"s.t": {"labels": [PII]}},
    }
    with batuta_sql.connect({"sources": {"d": source}}) as connection:
        assert labels_of(connection, "SELECT a FROM d.s.t") == {"a": direct(PII)}
        assert labels_of(connection, "SELECT a FROM d.main.t") == {"a": ColumnLabels()}
        assert labels_of(connection, "SELECT a FROM d.s.v") == {"a": direct(PII)}


# --- local data --------------------------------------------------------------------------------


def test_a_registered_frame_has_the_labels_it_is_given(connection: Connection) -> None:
    connection.register("mine", pa.table({"a": [1], "b": [2]}), labels=[PII])
    assert labels_of(connection, "SELECT a FROM mine") == {"a": direct(PII)}
    assert labels_of(connection, "SELECT count(*) AS n FROM mine")["n"].all == {PII}
    connection.register("mine", pa.table({"a": [1]}))
    assert labels_of(connection, "SELECT a FROM mine") == {"a": ColumnLabels()}


def test_a_registered_result_keeps_its_labels(connection: Connection) -> None:
    sql = "SELECT name, email, 1 AS one FROM crm.customer WHERE country = 'de'"
    cursor = connection.execute(sql)
    connection.register("result", cursor.fetch_arrow_table())
    assert labels_of(connection, "SELECT * FROM result") == cursor.labels
    assert labels_of(connection, "SELECT count(*) AS n FROM result")["n"].all >= OF_TABLE


def test_a_streamed_result_carries_its_labels(connection: Connection) -> None:
    reader = connection.execute("SELECT email FROM crm.customer").fetch_record_batch()
    metadata = reader.schema.field("email").metadata
    assert json.loads(metadata[KEY.encode()])["direct"] == sorted([INTERNAL, SOVEREIGN, PII])
    assert reader.read_all().num_rows == 3


def test_a_local_table_keeps_the_labels_of_its_query(connection: Connection) -> None:
    connection.execute("CREATE TABLE mine AS SELECT id, email AS e FROM crm.customer")
    assert labels_of(connection, "SELECT e FROM mine") == {"e": direct(INTERNAL, SOVEREIGN, PII)}
    assert labels_of(connection, "SELECT id FROM mine") == {"id": direct(INTERNAL, SOVEREIGN)}
    connection.execute("DROP TABLE mine")
    connection.execute("CREATE TABLE mine AS SELECT 1 AS e")
    assert labels_of(connection, "SELECT e FROM mine") == {"e": ColumnLabels()}


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO other SELECT e FROM mine",
        "UPDATE other SET a = (SELECT max(e) FROM mine)",
        "DELETE FROM other WHERE a IN (SELECT e FROM mine)",
        "CREATE TABLE t3 AS FROM mine; CREATE OR REPLACE TABLE other AS SELECT e AS a FROM t3",
    ],
)
def test_what_is_put_into_a_local_table_brings_its_labels(
    connection: Connection, change: str
) -> None:
    connection.execute("CREATE TABLE mine AS SELECT email AS e FROM crm.customer")
    connection.execute("CREATE TABLE other AS SELECT 'x' AS a")
    for one in change.split(";"):
        connection.execute(one)
    assert labels_of(connection, "SELECT a FROM other")["a"].all >= {PII}


def test_a_renamed_table_or_column_keeps_its_labels(connection: Connection) -> None:
    connection.execute("CREATE TABLE mine AS SELECT email AS e FROM crm.customer")
    connection.execute("ALTER TABLE mine RENAME COLUMN e TO f")
    assert labels_of(connection, "SELECT f FROM mine")["f"].all >= {PII}
    connection.execute("ALTER TABLE mine RENAME TO yours")
    assert labels_of(connection, "SELECT f FROM yours")["f"].all >= {PII}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM query_table('mine')",
        "SELECT * FROM query('SELECT e AS id FROM mine')",
        "SELECT * FROM memory.main.mine",
        "SELECT * FROM main.mine",
        "SELECT * FROM MINE",
        'SELECT * FROM "Mine"',
        "FROM mine SELECT e",
        "PIVOT mine ON e USING count(*)",
        "WITH m AS (FROM mine) SELECT * FROM m",
        "SELECT (SELECT max(e) FROM mine) AS x",
        "SUMMARIZE mine",
    ],
)
def test_every_way_to_read_a_local_table_gives_its_labels(connection: Connection, sql: str) -> None:
    connection.execute("CREATE TABLE mine AS SELECT email AS e FROM crm.customer")
    try:
        found = labels_of(connection, sql)
    except batuta_sql.Error:
        return  # a way that is closed leaks nothing
    assert all(column.all >= {PII} for column in found.values()), found


# --- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_labels_are_in_the_file_and_are_honoured_when_it_is_read(
    connection: Connection, settings: dict[str, Any], tmp_path: Path, format_: str
) -> None:
    table = connection.execute("SELECT name, email, 1 AS one FROM crm.customer").fetch_arrow_table()
    path = tmp_path / "plain" / f"copy.{format_}"
    if format_ == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    found = labels_of(connection, "SELECT * FROM plain.copy")
    assert found["email"].direct == {INTERNAL, SOVEREIGN, PII}
    assert found["one"] == ColumnLabels(indirect=OF_TABLE)
    assert labels_of(connection, "SELECT count(*) AS n FROM plain.copy")["n"].all == OF_TABLE
    assert batuta_sql.read_labels(path).of("email").direct == {INTERNAL, SOVEREIGN, PII}


def test_a_file_that_is_read_by_its_path_brings_its_labels(
    connection: Connection, tmp_path: Path
) -> None:
    table = connection.execute("SELECT email FROM crm.customer").fetch_arrow_table()
    pq.write_table(table, tmp_path / "elsewhere.parquet")
    for sql in ("SELECT * FROM '{}'", "SELECT * FROM read_parquet('{}')", 'FROM "{}"'):
        found = labels_of(connection, sql.format(tmp_path / "elsewhere.parquet"))
        assert all(column.all >= {PII} for column in found.values()), sql
    # And one that lies in a labelled source is that source's.
    countries = tmp_path / "open" / "countries.parquet"
    assert labels_of(connection, f"SELECT people FROM '{countries}'")["people"].all == {PUBLIC}


def test_one_labelled_file_of_several_labels_the_table(
    connection: Connection, tmp_path: Path
) -> None:
    labelled = connection.execute("SELECT email FROM crm.customer").fetch_arrow_table()
    (tmp_path / "plain" / "many").mkdir()
    pq.write_table(pa.table({"email": ["x"]}), tmp_path / "plain" / "many" / "a.parquet")
    pq.write_table(labelled, tmp_path / "plain" / "many" / "b.parquet")
    assert labels_of(connection, "SELECT email FROM plain.many")["email"].all >= {PII}


def test_labels_that_cannot_be_read_stop_the_query(connection: Connection, tmp_path: Path) -> None:
    field = pa.field("a", pa.int64(), metadata={KEY: "not json"})
    pq.write_table(pa.table([[1]], schema=pa.schema([field])), tmp_path / "plain" / "odd.parquet")
    with pytest.raises(batuta_sql.OperationalError, match="its labels cannot be read"):
        connection.execute("SELECT a FROM plain.odd")


@pytest.mark.parametrize("value", ['["pii"]', '{"direct": ["pii"]}', ["pii"]])
def test_the_metadata_of_a_delta_column_is_honoured(tmp_path: Path, value: object) -> None:
    deltalake.write_deltalake(str(tmp_path / "t"), pa.table({"a": [1], "b": [2]}))
    log = next((tmp_path / "t" / "_delta_log").glob("*.json"))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        if "metaData" in line:
            schema = json.loads(line["metaData"]["schemaString"])
            schema["fields"][0]["metadata"] = {KEY: value}
            line["metaData"]["schemaString"] = json.dumps(schema)
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = {"kind": "delta", "path": str(tmp_path)}
    with batuta_sql.connect({"sources": {"lake": source}}) as connection:
        found = labels_of(connection, "SELECT a, b FROM lake.t")
    assert found == {"a": direct(PII), "b": ColumnLabels()}
    assert batuta_sql.read_labels(tmp_path / "t").of("a") == direct(PII)


def test_a_data_frame_carries_its_labels_too(connection: Connection) -> None:
    frame = connection.execute("SELECT email FROM crm.customer").fetch_df()
    assert frame.attrs[KEY] == {"email": sorted([INTERNAL, SOVEREIGN, PII])}


# --- rules -------------------------------------------------------------------------------------

MIXING = [
    "SELECT c.name, o.people FROM crm.customer c JOIN open.countries o ON c.country = o.code",
    "SELECT count(*) FROM crm.customer c SEMI JOIN open.countries o ON c.country = o.code",
    "SELECT name FROM crm.customer UNION ALL SELECT code FROM open.countries",
    "SELECT (SELECT max(people) FROM open.countries), (SELECT max(name) FROM crm.customer)",
    "SELECT name FROM crm.customer WHERE country IN (SELECT code FROM open.countries)",
    "SELECT * FROM crm.customer c POSITIONAL JOIN open.countries o",
    "CREATE TABLE mixed AS SELECT c.name FROM crm.customer c, open.countries",
    "EXPLAIN ANALYZE SELECT c.name FROM crm.customer c, open.countries",
    "DESCRIBE PIVOT (SELECT c.name, o.code FROM crm.customer c, open.countries o) ON code"
    " USING count(*)",
]


@pytest.mark.parametrize("sql", MIXING)
def test_public_data_is_not_mixed_into_sovereign_data(connection: Connection, sql: str) -> None:
    with pytest.raises(LabelRefused, match="origin:public would be mixed with .*sovereign") as told:
        connection.execute(sql)
    assert told.value.exit_status == 4
    assert "crm, open" in told.value.message


def test_a_label_says_where_it_comes_from_however_its_column_is_spelt(
    connection: Connection,
) -> None:
    """The configuration has EMAIL, the table email."""
    found = connection.plan("SELECT email FROM crm.customer").label_origins
    assert {(o.label, o.where) for o in found} == {
        (INTERNAL, "sources.crm.labels"),
        (SOVEREIGN, 'sources.crm.tables."customer".labels'),
        (PII, 'sources.crm.tables."customer".columns.EMAIL'),
    }


def test_a_query_that_mixes_nothing_passes(connection: Connection) -> None:
    assert connection.execute("SELECT count(*) FROM crm.customer").fetchone() == (3,)
    assert connection.execute("SELECT count(*) FROM open.countries").fetchone() == (2,)
    mixed = "SELECT count(*) FROM crm.product, open.countries"
    assert connection.execute(mixed).fetchone() == (0,)


def test_a_plan_may_be_looked_at(connection: Connection) -> None:
    """EXPLAIN reads nothing, and shows what would be mixed."""
    assert "Exchange" in connection.explain(MIXING[0])
    assert {o.label for o in connection.plan(MIXING[0]).label_origins} >= {PUBLIC, SOVEREIGN}


def test_mixing_may_only_warn_and_is_then_on_record(settings: dict[str, Any]) -> None:
    settings["labels"]["on_public_into_sovereign"] = "warn"
    with batuta_sql.connect(settings) as connection:
        with pytest.warns(LabelWarning, match="origin:public would be mixed"):
            assert len(connection.execute(MIXING[0]).fetchall()) == 3
        events, fault = connection.audit()
    assert fault is None
    assert [(e["event"], e["when"], e["into"]) for e in events] == [
        ("mixed", [PUBLIC], [SOVEREIGN])
    ]


def test_a_rule_of_ones_own(settings: dict[str, Any]) -> None:
    settings["labels"]["rules"] = [
        {"when": [PII, INTERNAL], "not_into": ["use:marketing"], "why": "GDPR art. 5"}
    ]
    settings["sources"]["plain"]["labels"] = ["use:marketing"]
    with batuta_sql.connect(settings) as connection:
        connection.execute("SELECT c.name FROM crm.customer c JOIN plain.t t ON c.id = t.id")
        with pytest.raises(LabelRefused, match=r"pii and origin:internal .*marketing \(GDPR art"):
            connection.execute("SELECT c.email FROM crm.customer c JOIN plain.t t ON c.id = t.id")


def test_registered_data_is_under_the_rules_too(connection: Connection) -> None:
    connection.register("web", pa.table({"code": ["de"]}), labels=[PUBLIC])
    with pytest.raises(LabelRefused):
        connection.execute("SELECT name FROM crm.customer SEMI JOIN web ON country = code")


# --- declassification --------------------------------------------------------------------------


def decision(**keys: Any) -> dict[str, Any]:
    return {
        "columns": ["crm.customer"],
        "labels": [SOVEREIGN],
        "who": "DPO",
        "why": "aggregate report",
        "until": "2999-12-31",
        **keys,
    }


def test_a_declassified_label_is_gone_and_its_use_is_on_record(settings: dict[str, Any]) -> None:
    settings["labels"]["declassify"] = [decision()]
    with batuta_sql.connect(settings) as connection:
        assert len(connection.execute(MIXING[0]).fetchall()) == 3
        assert labels_of(connection, "SELECT email FROM crm.customer")["email"].direct == {
            INTERNAL,
            PII,
        }
        events, fault = connection.audit()
    assert fault is None
    assert {e["column"] for e in events} >= {"crm.customer.name", "crm.customer.email"}
    assert {(e["event"], e["who"], e["why"], e["until"]) for e in events} == {
        ("declassify", "DPO", "aggregate report", "2999-12-31")
    }
    assert all(len(e["query"]) == 64 for e in events)


def test_a_column_can_be_declassified_alone(settings: dict[str, Any]) -> None:
    settings["labels"]["declassify"] = [decision(columns=["crm.customer.email"], labels=[PII])]
    with batuta_sql.connect(settings) as connection:
        found = labels_of(connection, "SELECT email, name FROM crm.customer")
        assert found["email"] == direct(INTERNAL, SOVEREIGN)
        connection.execute("SELECT name FROM crm.customer").fetchall()
        events, _ = connection.audit()
    assert [e["column"] for e in events] == ["crm.customer.email"]


def test_a_decision_ends_on_its_day(settings: dict[str, Any]) -> None:
    settings["labels"]["declassify"] = [decision(until="2020-01-01")]
    with batuta_sql.connect(settings) as connection, pytest.raises(LabelRefused):
        connection.execute(MIXING[0])


@pytest.mark.parametrize("missing", ["who", "why", "until", "columns", "labels"])
def test_a_decision_without_its_reasons_is_none(settings: dict[str, Any], missing: str) -> None:
    entry = decision()
    del entry[missing]
    settings["labels"]["declassify"] = [entry]
    with pytest.raises(ConfigError, match=f"{missing}: this key is missing"):
        batuta_sql.connect(settings)


def test_what_cannot_be_put_on_record_is_not_done(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings["labels"] |= {"declassify": [decision()], "audit_log": str(tmp_path / "file" / "log")}
    with (
        batuta_sql.connect(settings) as connection,
        pytest.raises(batuta_sql.OperationalError, match="cannot be written"),
    ):
        connection.execute("SELECT name FROM crm.customer")


# --- lineage -----------------------------------------------------------------------------------


def test_lineage_names_the_columns_of_the_sources(connection: Connection) -> None:
    cursor = connection.execute("SELECT upper(name) AS u FROM crm.customer WHERE id = 1")
    assert cursor.lineage["u"].direct == {"crm.customer.name"}
    assert cursor.lineage["u"].indirect == {"crm.customer.id"}


def test_a_cursor_without_a_query_has_neither(connection: Connection) -> None:
    cursor = connection.cursor()
    assert (cursor.labels, cursor.lineage) == ({}, {})
    cursor.execute("SHOW TABLES")
    assert (cursor.labels, cursor.lineage) == ({}, {})


def test_no_labels_no_trace(tmp_path: Path) -> None:
    """Without labels results are plain Arrow and nothing is written."""
    pq.write_table(pa.table({"a": [1]}), tmp_path / "t.parquet")
    source = {"kind": "files", "path": str(tmp_path)}
    log = tmp_path / "audit.jsonl"
    config = {"sources": {"s": source}, "labels": {"audit_log": str(log)}}
    with warnings.catch_warnings(action="error"), batuta_sql.connect(config) as connection:
        table = connection.execute("SELECT a FROM s.t").fetch_arrow_table()
    assert table.schema.metadata is None
    assert table.schema.field("a").metadata is None
    assert not log.exists()
