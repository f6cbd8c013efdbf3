"""What every source must do, whatever its kind: the same tests over all of them.

A check that a kind cannot pass is declared in its stand, with a reason, and shows as skipped.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

import batuta_sql
from tests.comparison import answer_of, difference, without_limit
from tests.conformance import tables
from tests.conformance.conftest import Filled
from tests.conformance.tables import EDGES, EMPTY, FACTS, KINDS, UNICODE, type_table
from tests.faults.proxy import Proxy

FREE = {"cost": {"on_unknown": "allow"}}
"""Nobody is asked what a warehouse without a price costs."""

ODD_TEXTS = ["NULL", "{}", "a,b", '"', "'", "\\", "''", "[1]", "'keys_x1_1'", "keys_x1_1", "%", "x"]

# --- metadata ----------------------------------------------------------------------------------


def test_its_tables_are_listed(filled: Filled) -> None:
    listed = {path[-1].lower() for _, path, _ in filled.connection.tables("s")}
    assert {FACTS.name, KINDS.name, EMPTY.name, UNICODE.name.lower()} <= listed


@pytest.mark.parametrize("type_", EDGES)
def test_a_column_is_described_as_what_it_delivers(filled: Filled, type_: str) -> None:
    delivered = filled.stand.type_of(type_)
    if delivered is None:
        pytest.skip(f"{filled.stand.kind} has no type for {type_}")
    rows = filled.connection.describe(filled.stand.name(type_table(type_).name)).to_pylist()
    found = rows[1]["column_type"].replace('"', "")
    assert (rows[1]["column_name"].lower(), found) == ("v", delivered)


def test_names_match_without_case(filled: Filled) -> None:
    name = filled.stand.name("FACTS")
    assert filled.connection.execute(f"SELECT count(ID) FROM {name}").fetchone() == (
        tables.FACT_ROWS,
    )


def test_names_with_letters_of_any_language(filled: Filled) -> None:
    filled.requires("unicode names")
    name = filled.stand.name('"Größe"')
    sql = f'SELECT "naïve" || \'!\' AS x, "with space" + 1 AS y FROM {name} WHERE "naïve" = \'ï\''
    assert filled.connection.execute(sql).fetchall() == [("ï!", 3)]


def test_a_misspelt_table_names_the_nearest(filled: Filled) -> None:
    with pytest.raises(batuta_sql.ProgrammingError, match=r"(?is)s.*facts"):
        filled.connection.execute(f"SELECT * FROM {filled.stand.name('fakts')}")


def test_statistics_tell_the_number_of_rows(filled: Filled) -> None:
    filled.requires("statistics")
    source = filled.connection._session.sources["s"]
    (table,) = source.resolve((*filled.stand.prefix, "facts"))
    assert table.statistics.rows == tables.FACT_ROWS


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", EDGES)
def test_values_arrive_as_they_are(filled: Filled, type_: str) -> None:
    if filled.stand.type_of(type_) is None:
        pytest.skip(f"{filled.stand.kind} has no type for {type_}")
    table = type_table(type_).name
    found = filled.connection.execute(
        f"SELECT id, v FROM {filled.stand.name(table)} ORDER BY id"
    ).fetch_arrow_table()
    known = filled.truth.sql(f"SELECT id, v FROM here.{table} ORDER BY id").to_arrow_table()
    assert found.schema.field("v").type == known.schema.field("v").type
    assert repr(found.column("v").to_pylist()) == repr(known.column("v").to_pylist())


@pytest.mark.parametrize("type_", EDGES)
def test_a_value_found_by_itself_is_found(filled: Filled, type_: str) -> None:
    """A condition on a column gives the rows that it gives in DuckDB, pushed or not."""
    if filled.stand.type_of(type_) is None:
        pytest.skip(f"{filled.stand.kind} has no type for {type_}")
    table = type_table(type_).name
    for number, literal in enumerate(EDGES[type_], 1):
        condition = f"v = CAST({literal} AS {filled.stand.type_of(type_)})"
        found = filled.connection.execute(
            f"SELECT id FROM {filled.stand.name(table)} WHERE {condition} ORDER BY id"
        ).fetchall()
        known = filled.truth.sql(
            f"SELECT id FROM here.{table} WHERE {condition} ORDER BY id"
        ).fetchall()
        assert found == known, (number, literal)


# --- pushdown ----------------------------------------------------------------------------------

QUERIES = [
    "SELECT * FROM {facts}",
    "SELECT id, word FROM {facts} WHERE word = 'red'",
    "SELECT id FROM {facts} WHERE word < 'b' OR word IS NULL",
    "SELECT id FROM {facts} WHERE word LIKE 'r%' AND k IN (1, 2, 3)",
    "SELECT id FROM {facts} WHERE word IN ('', 'grün') AND NOT k = 4",
    "SELECT id FROM {facts} WHERE price BETWEEN 10 AND 20.5",
    "SELECT id FROM {facts} WHERE day >= DATE '2024-01-01' AND k IS NOT NULL",
    "SELECT id, price * 2, k + 1 FROM {facts} WHERE id < 20",
    "SELECT count(*), count(k), count(DISTINCT word), sum(k), min(word), max(day) FROM {facts}",
    "SELECT sum(price), avg(price) FROM {facts}",
    "SELECT word, count(*), sum(price) FROM {facts} GROUP BY word",
    "SELECT word FROM {facts} GROUP BY word HAVING count(*) > 60",
    "SELECT DISTINCT word, k FROM {facts} WHERE k < 4",
    "SELECT f.id, x.label FROM {facts} f JOIN {kinds} x ON f.k = x.k",
    "SELECT f.id, x.label FROM {facts} f LEFT JOIN {kinds} x ON f.k = x.k WHERE f.id < 50",
    "SELECT x.label, count(*) FROM {kinds} x LEFT JOIN {facts} f ON f.k = x.k GROUP BY x.label",
    "SELECT id FROM {facts} f SEMI JOIN {kinds} x ON f.k = x.k",
    "SELECT id FROM {facts} f ANTI JOIN {kinds} x ON f.k = x.k",
    "SELECT id FROM {facts} f WHERE EXISTS (SELECT 1 FROM {kinds} x WHERE x.k = f.k AND x.k > 3)",
    "SELECT id FROM {facts} WHERE k NOT IN (SELECT k FROM {kinds} WHERE k > 3)",
    "SELECT id, (SELECT max(label) FROM {kinds} x WHERE x.k = f.k) AS l"
    " FROM {facts} f WHERE id < 30",
    "SELECT k FROM {facts} UNION SELECT k FROM {kinds}",
    "SELECT k FROM {facts} EXCEPT SELECT k FROM {kinds}",
    "SELECT k FROM {kinds} INTERSECT SELECT k FROM {facts}",
    "SELECT word, id FROM {facts} ORDER BY word DESC NULLS FIRST, id LIMIT 7",
    "SELECT word, id FROM {facts} ORDER BY word, id LIMIT 5 OFFSET 10",
    "SELECT id, row_number() OVER (PARTITION BY word ORDER BY id) FROM {facts}",
    "SELECT upper(word), length(word), substring(word, 2, 2) FROM {facts}",
    "SELECT extract(year FROM day), count(*) FROM {facts} GROUP BY 1",
    "SELECT CASE WHEN k > 5 THEN word ELSE 'small' END, coalesce(word, '?') FROM {facts}",
    "WITH w AS (SELECT k, count(*) AS n FROM {facts} GROUP BY k) SELECT a.k FROM w a, w b"
    " WHERE a.n = b.n AND a.k < b.k",
    "SELECT id // 7, id % 7, id / 7 FROM {facts} WHERE id BETWEEN 1 AND 30",
    "SELECT * FROM {nothing}",
    "SELECT count(*), sum(a), max(b) FROM {nothing}",
    "SELECT f.id FROM {facts} f JOIN {nothing} n ON f.k = n.a",
    "SELECT id FROM {facts} WHERE 1 = 0",
    "PIVOT {facts} ON word USING count(*) GROUP BY k",
]


@pytest.mark.parametrize("sql", QUERIES)
def test_an_answer_is_duckdbs(filled: Filled, sql: str) -> None:
    got, want = answer_of(filled.ask(sql)), answer_of(filled.know(sql))
    if filled.stand.folds_names:
        got, want = (replace(a, names=tuple(n.lower() for n in a.names)) for a in (got, want))
    unlimited = without_limit(sql.replace("{", "").replace("}", "")) if "LIMIT" in sql else None
    everything = answer_of(filled.know(unlimited)) if unlimited else None
    shown = sql.replace("{", "").replace("}", "")
    assert difference(got, want, shown, everything) is None, filled.connection.explain(
        filled._for_batuta(sql)
    )


@pytest.mark.parametrize("type_", EDGES)
def test_keys_of_rows_here_find_the_rows_that_match(filled: Filled, type_: str) -> None:
    """A semi-join with values of every kind, those among them that mean something in SQL."""
    delivered = filled.stand.type_of(type_)
    if delivered is None:
        pytest.skip(f"{filled.stand.kind} has no type for {type_}")
    table = type_table(type_).name
    odd = ", ".join("('" + t.replace("'", "''") + "')" for t in ODD_TEXTS)
    others = f"UNION ALL VALUES {odd}" if delivered == "VARCHAR" else ""
    keys = f"SELECT v FROM here.{table} WHERE id <> 1 {others}"
    filled.keyed.register("mine", filled.truth.sql(keys).to_arrow_table())
    cursor = filled.keyed.execute(
        f"SELECT s.id FROM mine JOIN {filled.stand.name(table)} s ON s.v = mine.v ORDER BY s.id"
    )
    known = filled.truth.sql(
        f"SELECT s.id FROM ({keys}) mine JOIN here.{table} s ON s.v = mine.v ORDER BY s.id"
    )
    rows = known.fetchall()
    assert cursor.fetchall() == rows
    (fragment,) = cursor.metrics["fragments"]
    if fragment["keys"] is not None:
        assert fragment["rows"] == len(set(rows))
    elif delivered in ("INTEGER", "BIGINT", "VARCHAR"):
        pytest.fail(f"no keys of type {delivered} were sent")


# --- moving data -------------------------------------------------------------------------------


def test_a_large_result_arrives_whole(filled: Filled) -> None:
    reader = filled.connection.execute(
        f"SELECT id, text FROM {filled.stand.name('big')}"
    ).fetch_record_batch()
    rows, total = 0, 0
    for batch in reader:
        rows += batch.num_rows
        total += sum(batch.column(0).to_pylist())
    assert (rows, total) == (tables.BIG_ROWS, tables.BIG_ROWS * (tables.BIG_ROWS - 1) // 2)


def test_a_result_may_be_left_in_the_middle(filled: Filled) -> None:
    cursor = filled.connection.execute(f"SELECT id, text FROM {filled.stand.name('big')}")
    assert cursor.fetchone() is not None
    cursor.close()
    count = f"SELECT count(*) FROM {filled.stand.name('facts')}"
    assert filled.connection.execute(count).fetchone() == (tables.FACT_ROWS,)


@pytest.mark.parametrize("fault", ["reset", "ended"])
def test_an_answer_that_breaks_off_is_an_error(filled: Filled, fault: str) -> None:
    """Never a part of the rows as if they were all."""
    filled.requires("mid-stream error")
    assert filled.stand.address is not None
    assert filled.stand.settings_at is not None
    name = filled.stand.name("big")
    with Proxy(filled.stand.address) as proxy:
        settings = {**filled.stand.settings_at(proxy.uri), "query_timeout": 20}
        with batuta_sql.connect({"sources": {"s": settings}, **FREE}) as connection:
            assert connection.execute(f"SELECT count(*) FROM {name}").fetchone() == (
                tables.BIG_ROWS,
            )
            proxy.reset_all()
            if fault == "reset":
                proxy.cut_after = tables.BIG_ROWS
            else:
                proxy.end_after = tables.BIG_ROWS
            with pytest.raises(batuta_sql.OperationalError, match="^s: "):
                connection.execute(f"SELECT id, text, n FROM {name}").fetchall()


def test_a_query_can_be_cancelled(filled: Filled) -> None:
    filled.requires("cancellation")
    name = filled.stand.name("big")
    sql = f"SELECT count(*) FROM {name} a JOIN {name} b ON a.n < b.n JOIN {name} c ON b.n < c.n"
    ended: list[BaseException] = []

    def run() -> None:
        try:
            filled.connection.execute(sql).fetchall()
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 60
    while thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.3)
        filled.connection.cancel()
    thread.join(1)
    assert not thread.is_alive()
    assert [type(e) for e in ended] == [batuta_sql.QueryCancelled]


def test_several_queries_at_once(filled: Filled) -> None:
    answers: list[object] = []

    def run(k: int) -> None:
        sql = f"SELECT count(*) FROM {filled.stand.name('facts')} WHERE k = {k}"
        answers.append((k, filled.connection.execute(sql).fetchone()))

    threads = [threading.Thread(target=run, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    known = [(k, filled.truth.execute("SELECT count(*) FROM facts WHERE k = ?", [k]).fetchone())
             for k in range(6)]  # fmt: skip
    assert sorted(answers, key=str) == known


# --- guards ------------------------------------------------------------------------------------


def test_an_estimate_is_made_and_is_never_zero_for_not_known(filled: Filled) -> None:
    found = filled.connection.estimate(f"SELECT id, text FROM {filled.stand.name('big')}")
    assert found.basis
    assert found.bytes_scanned is None or found.bytes_scanned > 0
    assert found.rows is None or found.rows > 0
    if found.bytes_scanned is None and found.rows is None:
        assert found.confidence == "unknown"


def test_labels_of_the_configuration_are_carried(filled: Filled) -> None:
    settings = {**filled.stand.settings, "labels": ["origin:test"]}
    with batuta_sql.connect({"sources": {"s": settings}, **FREE}) as connection:
        cursor = connection.execute(f"SELECT id FROM {filled.stand.name('facts')} WHERE id = 1")
        assert cursor.labels["id"].direct == {"origin:test"}


def test_a_tier_can_refuse_it(filled: Filled) -> None:
    settings = {**filled.stand.settings, "locality": "public"}
    with (
        batuta_sql.connect(
            {"sources": {"s": settings}, **FREE}, tier="private_cloud"
        ) as connection,
        pytest.raises(batuta_sql.TierRefused),
    ):
        connection.execute(f"SELECT id FROM {filled.stand.name('facts')}")
