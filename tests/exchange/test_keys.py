"""Semi-joins: what is sent where, what is not, and that the answer is the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi
import duckdb
import pyarrow as pa
import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer

ROWS = 60_000
SQL = """
SELECT s.name, sum(o.total) FROM shops.shop s JOIN crm.orders o ON o.shop = s.id
WHERE s.city = 'Oslo' GROUP BY 1 ORDER BY 1
"""


@pytest.fixture(scope="module")
def uri(postgres: PostgresServer) -> Iterator[str]:
    with (
        postgres.database("keys") as uri,
        adbc_driver_postgresql.dbapi.connect(uri, autocommit=True) as server,
        server.cursor() as cursor,
    ):
        cursor.execute(
            "CREATE TABLE orders AS SELECT i AS id, i % 1000 AS shop, (i % 7)::int AS total,"
            " DATE '2024-01-01' + i % 1000 AS day, (i % 1000) - 500 AS delta,"
            " ((i % 1000 - 500) / 4.0)::numeric(8, 2) AS price"
            f" FROM generate_series(1, {ROWS}) i"
        )
        cursor.execute("ANALYZE orders")
        yield uri


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shops")
    with duckdb.connect() as con:
        con.execute(
            "COPY (SELECT i AS id, 'shop ' || i AS name, CASE WHEN i % 100 = 3 THEN 'Oslo'"
            " ELSE 'Roma' END AS city, DATE '2024-01-01' + i::INTEGER AS day, i - 500 AS delta,"
            " CAST((i - 500) / 4.0 AS DECIMAL(8, 2)) AS price"
            f" FROM range(1000) r(i)) TO '{folder}/shop.parquet'"
        )
    return folder


@pytest.fixture
def connect(uri: str, folder: Path) -> Iterator[Callable[..., Any]]:
    opened: list[Any] = []

    def make(
        crm: dict[str, Any] | None = None, shops: dict[str, Any] | None = None, **top: Any
    ) -> Any:
        crm = {"kind": "postgresql", "uri": uri, "locality": "public", **(crm or {})}
        shops = {"kind": "files", "path": str(folder), **(shops or {})}
        # Rows are counted here: they are not to be grouped at their source.
        config = {"partial_aggregation": "off", "sources": {"crm": crm, "shops": shops}}
        opened.append(batuta_sql.connect({**config, **top}))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def moved(cursor: Any) -> dict[str, int]:
    return {f["source"]: f["rows"] for f in cursor.metrics["fragments"]}


def keys(cursor: Any) -> int | None:
    return next(f["keys"] for f in cursor.metrics["fragments"] if f["source"] == "crm")


def test_only_what_matches_is_moved_and_the_answer_is_the_same(connect: Callable[..., Any]) -> None:
    plain, reduced = (connect(semi_joins=how).execute(SQL) for how in ("off", "auto"))
    assert plain.fetchall() == reduced.fetchall()
    assert moved(plain)["crm"] == ROWS
    assert moved(reduced)["crm"] == ROWS // 100
    assert (keys(plain), keys(reduced)) == (None, 10)


def test_the_plan_says_what_waits_for_what(connect: Callable[..., Any]) -> None:
    connection = connect()
    text = connection.explain(SQL)
    assert "= ANY(CAST(<keys of x" in text
    assert "for shop" in text
    cursor = connection.execute(SQL)
    cursor.fetchall()
    assert re.search(r"about \d+ of [\d,]+ rows, [\d,]+ bytes", str(cursor.plan))
    assert re.search(r"took .* s, sent with 10 keys", str(cursor.plan))
    # What a fragment's sql says is a statement that runs, without the data of another source.
    (fragment,) = [f for f in cursor.plan.fragments if f.source == "crm"]
    assert "ANY" not in fragment.sql


def test_no_keys_are_no_rows(connect: Callable[..., Any]) -> None:
    cursor = connect(semi_joins="always").execute(SQL.replace("Oslo", "Nowhere"))
    assert cursor.fetchall() == []
    assert moved(cursor)["crm"] == 0


def test_keys_that_are_no_selection_are_not_sent(connect: Callable[..., Any]) -> None:
    """The estimate said that they would be few."""
    sql = SQL.replace("s.city = 'Oslo'", "s.city || s.name LIKE '%shop%'")
    cursor = connect().execute(sql)
    assert len(cursor.fetchall()) == 1000
    assert moved(cursor)["crm"] == ROWS


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("s.id BETWEEN 100 AND 199", ROWS // 10),
        ("s.id IN (3, 4, 6, 7, 8, 9, 10, 11, 12, 999)", ROWS),
    ],
    ids=["beside each other", "all over"],
)
def test_of_too_many_keys_the_ends_are_sent(
    connect: Callable[..., Any], where: str, rows: int
) -> None:
    sql = SQL.replace("s.city = 'Oslo'", where)
    expected = connect(semi_joins="off").execute(sql).fetchall()
    connection = connect()
    connection.plan(sql)
    connection._session.sources["crm"].capabilities.translator.most_keys = 5
    cursor = connection.execute(sql)
    assert cursor.fetchall() == expected
    assert keys(cursor) == (2 if rows < ROWS else None)
    assert moved(cursor)["crm"] == rows


@pytest.mark.parametrize("column", ["day", "delta", "price"])
def test_ends_are_of_any_kind_that_has_an_order(connect: Callable[..., Any], column: str) -> None:
    sql = SQL.replace("o.shop = s.id", f"o.{column} = s.{column}")
    sql = sql.replace("s.city = 'Oslo'", "s.id BETWEEN 300 AND 699")
    expected = connect(semi_joins="off").execute(sql).fetchall()
    connection = connect()
    connection.plan(sql)
    connection._session.sources["crm"].capabilities.translator.most_keys = 5
    cursor = connection.execute(sql)
    assert cursor.fetchall() == expected
    assert (keys(cursor), moved(cursor)["crm"]) == (2, 400 * ROWS // 1000)


def test_texts_have_no_ends_that_mean_the_same_everywhere(connect: Callable[..., Any]) -> None:
    connection = connect()
    sql = SQL.replace("o.shop = s.id", "'shop ' || o.shop = s.name")
    connection.plan(sql)
    connection._session.sources["crm"].capabilities.translator.most_keys = 5
    cursor = connection.execute(sql)
    assert len(cursor.fetchall()) == 10
    assert keys(cursor) is None


ODD = ROWS // 2
TWO = """
SELECT count(*) FROM crm.orders o JOIN shops.shop s ON o.shop = s.id JOIN wanted w ON w.id = o.id
WHERE s.city = 'Oslo'
"""


@pytest.mark.parametrize(("type_", "sent"), [(pa.int64(), ODD + 10), (pa.float64(), 10)])
def test_of_several_filters_those_are_sent_that_can_be(
    connect: Callable[..., Any], type_: pa.DataType, sent: int
) -> None:
    """Half of the orders and ten shops; numbers of another kind than the column are no keys."""
    connection = connect()
    connection.register("wanted", pa.table({"id": pa.array(range(1, ROWS, 2), type_)}))
    cursor = connection.execute(TWO)
    assert cursor.fetchone() == (ROWS // 100,)
    assert keys(cursor) == sent
    assert moved(cursor)["crm"] == ROWS // 100


SHARED = """
SELECT s.name, sum(o.total) FROM crm.orders o JOIN shops.shop s ON o.shop = s.id
WHERE s.city = 'Oslo' GROUP BY 1
HAVING sum(o.total) > (
  SELECT sum(o.total) / 1000 FROM crm.orders o JOIN shops.shop s ON o.shop = s.id WHERE {}
) ORDER BY 1
"""


@pytest.mark.parametrize(
    ("second", "rows"), [("s.city = 'Oslo'", ROWS // 100), ("s.city <> 'Bonn'", ROWS)]
)
def test_a_delivery_with_two_readers_holds_the_rows_of_both(
    connect: Callable[..., Any], second: str, rows: int
) -> None:
    sql = SHARED.format(second)
    plain, reduced = (connect(semi_joins=how).execute(sql) for how in ("off", "auto"))
    assert plain.fetchall() == reduced.fetchall() != []
    assert moved(reduced)["crm"] == rows


def test_keys_reach_every_column_that_equals_theirs(connect: Callable[..., Any]) -> None:
    """The total of a shop is grouped by a column of another name, in a subquery."""
    sql = """
        SELECT o.id FROM crm.orders o JOIN shops.shop s ON o.shop = s.id
        WHERE s.city = 'Oslo'
          AND o.total >= (SELECT max(i.total) FROM crm.orders i WHERE i.shop = o.shop)
    """
    assert connect().explain(sql).count("<keys of") == 2
    plain, reduced = (connect(semi_joins=how).execute(sql) for how in ("off", "auto"))
    assert sorted(plain.fetchall()) == sorted(reduced.fetchall()) != []


def test_a_frame_of_this_session_asks_for_its_own_rows(connect: Callable[..., Any]) -> None:
    connection = connect()
    connection.register("wanted", pa.table({"shop": [3, 5, 5, None]}))
    cursor = connection.execute(
        "SELECT count(*) FROM wanted w JOIN crm.orders o ON o.shop = w.shop"
    )
    assert cursor.fetchone() == (3 * ROWS // 1000,)
    assert moved(cursor) == {"crm": 2 * ROWS // 1000}


def test_a_local_table_too(connect: Callable[..., Any]) -> None:
    connection = connect()
    connection.execute("CREATE TABLE wanted AS SELECT 3 AS shop")
    sql = "SELECT count(*) FROM crm.orders o WHERE o.shop IN (SELECT shop FROM wanted)"
    cursor = connection.execute(sql)
    assert cursor.fetchone() == (ROWS // 1000,)
    assert moved(cursor) == {"crm": ROWS // 1000}


# --- where keys may go -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crm", "shops", "sent"),
    [
        ({}, {"labels": ["pii"]}, False),
        ({"labels": ["pii"]}, {"labels": ["pii"]}, True),
        ({"labels": ["pii"]}, {}, True),
        ({"locality": "local"}, {"labels": ["pii"]}, True),
        ({}, {"tables": {"shop": {"columns": {"city": {"labels": ["pii"]}}}}}, False),
        ({"receives_keys": False}, {}, False),
    ],
)
def test_labelled_keys_go_only_where_their_labels_are(
    connect: Callable[..., Any], crm: dict[str, Any], shops: dict[str, Any], sent: bool
) -> None:
    """The column that chose the keys is told by them too."""
    connection = connect(crm, shops)
    cursor = connection.execute(SQL)
    assert len(cursor.fetchall()) == 10
    assert (keys(cursor) is not None) is sent
    assert ("Keys for crm" in connection.explain(SQL)) is not sent


def test_labels_of_a_frame_are_kept_here(connect: Callable[..., Any]) -> None:
    connection = connect()
    connection.register("wanted", pa.table({"shop": [3]}), labels=["pii"])
    sql = "SELECT count(*) FROM wanted w JOIN crm.orders o ON o.shop = w.shop"
    cursor = connection.execute(sql)
    assert cursor.fetchone() == (ROWS // 1000,)
    assert keys(cursor) is None
    assert "they would carry pii there" in connection.explain(sql)


def test_one_labelled_filter_does_not_hold_back_the_other(connect: Callable[..., Any]) -> None:
    connection = connect(shops={"labels": ["pii"]})
    connection.register("wanted", pa.table({"id": [*range(1, ROWS, 2)]}))
    cursor = connection.execute(TWO)
    assert cursor.fetchone() == (ROWS // 100,)
    assert keys(cursor) == ODD
    assert "they would carry pii there" in connection.explain(TWO)


CHAIN = """
SELECT count(x.id) FROM shops.shop s JOIN (
  SELECT o.shop, f.id FROM crm.orders o LEFT JOIN far.orders f ON f.id = o.id
) x ON x.shop = s.id WHERE s.city = 'Oslo'
"""


@pytest.mark.parametrize(("labels", "sent"), [(["pii"], False), ([], True)])
def test_rows_that_labelled_keys_have_chosen_give_no_keys_to_others(
    uri: str, folder: Path, labels: list[str], sent: bool
) -> None:
    """Which of its rows crm delivers tells what shops holds: it may know, being local."""
    sources = {
        "shops": {"kind": "files", "path": str(folder), "labels": labels},
        "crm": {"kind": "postgresql", "uri": uri, "locality": "local"},
        "far": {"kind": "postgresql", "uri": uri, "locality": "public"},
    }
    with closing(
        batuta_sql.connect(
            {"sources": sources, "semi_joins": "always", "partial_aggregation": "off"}
        )
    ) as connection:
        cursor = connection.execute(CHAIN)
        assert cursor.fetchone() == (ROWS // 100,)
        found = {f["source"]: f["keys"] for f in cursor.metrics["fragments"]}
    assert found["crm"] == 10
    assert (found["far"] is not None) is sent


# --- what goes wrong ---------------------------------------------------------------------------


def test_an_error_of_the_source_that_is_waited_for_is_the_querys(
    connect: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "shop.parquet").write_bytes((folder / "shop.parquet").read_bytes())
    connection = connect(shops={"path": str(tmp_path)})
    connection.execute(SQL).fetchall()
    sql = SQL.replace("s.city = 'Oslo'", "s.city = 'Oslo' AND s.name::INTEGER > 0")
    with pytest.raises(batuta_sql.Error, match="shop 3"):
        connection.execute(sql).fetchall()


def test_the_history_does_not_take_a_reduced_fragment_for_the_whole(
    connect: Callable[..., Any], tmp_path: Path
) -> None:
    # A history of its own: of other statements, too, something would be learned.
    cost = {"history_file": str(tmp_path / "history.sqlite")}
    connection = connect(cost=cost)
    for _ in range(4):
        connection.execute(SQL).fetchall()
    connection.close()
    with closing(connect(semi_joins="off", cost=cost)) as other:
        cursor = other.execute(SQL)
        cursor.fetchall()
        (fragment,) = [f for f in cursor.plan.fragments if f.source == "crm"]
        assert fragment.estimate.factor is None
        assert fragment.estimate.rows == pytest.approx(ROWS, rel=0.5)
