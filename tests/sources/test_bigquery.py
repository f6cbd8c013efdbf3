"""BigQuery, against bqemulator and the front that supplies what it lacks."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest

import batuta_sql
from tests.emulators.bigquery_front import (
    MIB,
    PROJECT,
    BigQueryFront,
    Fault,
    Request,
    bigquery_front,
)
from tests.sources.conftest import rows_of

FREE = {"on_unknown": "allow"}
ROWS = 2000

TYPES: list[dict[str, Any]] = [
    {"name": "id", "type": "INTEGER"},
    {"name": "money", "type": "NUMERIC", "precision": "12", "scale": "2"},
    {"name": "exact", "type": "NUMERIC"},
    {"name": "place", "type": "GEOGRAPHY"},
    {"name": "span", "type": "INTERVAL"},
    {"name": "period", "type": "RANGE", "rangeElementType": {"type": "DATE"}},
    {"name": "moment", "type": "TIMESTAMP"},
    {"name": "tags", "type": "STRING", "mode": "REPEATED"},
    {
        "name": "lines",
        "type": "RECORD",
        "mode": "REPEATED",
        "fields": [
            {"name": "sku", "type": "STRING"},
            {"name": "price", "type": "NUMERIC"},
            {
                "name": "box",
                "type": "RECORD",
                "fields": [
                    {"name": "codes", "type": "INTEGER", "mode": "REPEATED"},
                    {"name": "raw", "type": "BYTES"},
                ],
            },
        ],
    },
]


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigQueryFront]:
    with bigquery_front(tmp_path_factory.mktemp("bigquery")) as made:
        _fill(made)
        yield made


def _fill(front: BigQueryFront) -> None:
    front.dataset("shop")
    front.dataset("Shop2")
    front.table(
        "shop",
        "orders",
        [
            {"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
            {"name": "customer", "type": "INTEGER"},
            {"name": "state", "type": "STRING"},
            {"name": "price", "type": "NUMERIC", "precision": "12", "scale": "2"},
            {"name": "day", "type": "DATE"},
            {"name": "weight", "type": "FLOAT"},
        ],
    )
    front.insert_all(
        "shop",
        "orders",
        [
            {
                "id": str(i),
                "customer": str(i % 40) if i % 9 else None,
                "state": ["new", "paid", "Paid", None][i % 4],
                "price": f"{i}.25",
                "day": f"202{i % 4}-0{1 + i % 9}-15",
                "weight": "NaN" if i % 50 == 7 else str(i / 8),
            }
            for i in range(ROWS)
        ],
    )
    front.table(
        "shop",
        "customer",
        [{"name": "id", "type": "INTEGER"}, {"name": "tags", "type": "STRING", "mode": "REPEATED"}],
    )
    front.insert_all(
        "shop", "customer", [{"id": str(i), "tags": ["x"] * (i % 3)} for i in range(20)]
    )
    front.table("Shop2", "Stock", [{"name": "ID", "type": "INTEGER"}])
    front.table("Shop2", "stock", [{"name": "ID", "type": "INTEGER"}])
    front.table("shop", "types", TYPES)
    front.run(
        "INSERT INTO shop.types (id, money, exact, place, span, period, moment, tags, lines) VALUES"
        " (1, NUMERIC '1234567890.12', NUMERIC '-0.125', ST_GEOGFROMTEXT('POINT(1 2)'),"
        " INTERVAL '1-2 3 4:5:6.789' YEAR TO SECOND, RANGE<DATE> '[2020-01-01, UNBOUNDED)',"
        " TIMESTAMP '9999-12-31 23:59:59.999999+00:00', ['a', 'b'],"
        " [STRUCT('s' AS sku, NUMERIC '2.5' AS price,"
        " STRUCT([1, 2] AS codes, FROM_BASE64('AP8=') AS raw) AS box)])"
    )
    front.run("INSERT INTO shop.types (id, tags, lines) VALUES (2, [], [])")
    for year in (2022, 2023):
        front.table("shop", f"events_{year}", [{"name": "n", "type": "INTEGER"}])
        front.insert_all("shop", f"events_{year}", [{"n": str(year + i)} for i in range(3)])
    front.run("CREATE VIEW shop.paid AS SELECT id, price FROM shop.orders WHERE state = 'paid'")


@pytest.fixture
def shop(front: BigQueryFront, opened: Callable[..., Any]) -> Iterator[Any]:
    front.reset()
    yield opened(FREE, **front.settings(dataset="shop"))
    front.reset()


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "s.orders",
        "s.shop.orders",
        f's."{PROJECT}".shop.orders',
        "s.SHOP.Orders",
        f's."{PROJECT}".Shop.ORDERS',
    ],
)
def test_a_table_is_named_with_or_without_dataset_and_project(shop: Any, name: str) -> None:
    assert shop.execute(f"SELECT count(*) FROM {name}").fetchone() == (ROWS,)


def test_names_that_differ_in_case_are_told_apart(shop: Any) -> None:
    assert shop.execute("SELECT count(*) FROM s.Shop2.Stock").fetchone() == (0,)
    assert shop.execute("SELECT count(*) FROM s.shop2.stock").fetchone() == (0,)
    with pytest.raises(batuta_sql.ProgrammingError, match=r"ambiguous"):
        shop.execute("SELECT count(*) FROM s.Shop2.STOCK")


def test_nothing_is_asked_before_a_query_names_the_source(
    front: BigQueryFront, opened: Callable[..., Any]
) -> None:
    front.reset()
    connection = opened(FREE, **front.settings())
    connection.execute("SELECT 1").fetchall()
    assert front.requests == []


def test_sharded_tables_are_one_with_a_suffix(shop: Any, front: BigQueryFront) -> None:
    sql = "SELECT n, _TABLE_SUFFIX FROM s.\"events_*\" WHERE _TABLE_SUFFIX >= '2023'"
    assert rows_of(shop, sql) == [(2023, "2023"), (2024, "2023"), (2025, "2023")]
    (job,) = front.inserted
    assert "WHERE `t1`.`_TABLE_SUFFIX` >= '2023'" in job.job["query"]


# --- values ------------------------------------------------------------------------------------


def test_types_of_columns(shop: Any) -> None:
    described = shop.describe("s.types").to_pylist()
    assert {r["column_name"]: r["column_type"].replace('"', "") for r in described} == {
        "id": "BIGINT",
        "money": "DECIMAL(12,2)",
        "exact": "DECIMAL(38,9)",
        "place": "VARCHAR",
        "span": "VARCHAR",
        "period": "VARCHAR",
        "moment": "TIMESTAMP WITH TIME ZONE",
        "tags": "VARCHAR[]",
        "lines": "STRUCT(sku VARCHAR, price DECIMAL(38,9), box STRUCT(codes BIGINT[], raw BLOB))[]",
    }


def test_nested_and_repeated_values_arrive_as_they_are(shop: Any) -> None:
    first, second = (
        shop.execute("SELECT * FROM s.types ORDER BY id").fetch_arrow_table().to_pylist()
    )
    assert first == {
        "id": 1,
        "money": Decimal("1234567890.12"),
        "exact": Decimal("-0.125"),
        "place": "POINT (1 2)",
        "span": "1-2 3 4:5:6.789",
        "period": "[2020-01-01, UNBOUNDED)",
        "moment": datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, datetime.UTC),
        "tags": ["a", "b"],
        "lines": [
            {"sku": "s", "price": Decimal("2.5"), "box": {"codes": [1, 2], "raw": b"\x00\xff"}}
        ],
    }
    assert second["tags"] == [] == second["lines"]
    assert second["money"] is None


def test_an_array_of_no_row_is_null_and_not_empty(shop: Any, front: BigQueryFront) -> None:
    """A result has no NULL array: of an outer join's missing row there is one all the same."""
    sql = (
        "SELECT o.id, c.id AS c, c.tags FROM s.orders o LEFT JOIN s.customer c ON o.customer = c.id"
        " WHERE o.id IN (1, 3, 39, 9)"
    )
    assert rows_of(shop, sql) == [(1, 1, ["x"]), (3, 3, []), (39, None, None), (9, None, None)]
    assert len(front.inserted) == 1


def test_a_sum_may_be_larger_than_an_integer(shop: Any, front: BigQueryFront) -> None:
    found = shop.execute("SELECT sum(id), sum(price) FROM s.orders").fetchone()
    assert found == (ROWS * (ROWS - 1) // 2, Decimal(ROWS * (ROWS - 1) // 2 + ROWS / 4))
    (job,) = front.inserted
    assert "SUM(CAST(`t1`.`id` AS BIGNUMERIC))" in job.job["query"]
    assert "SUM(`t1`.`price`)" in job.job["query"]


def test_a_value_that_does_not_fit_names_its_column(shop: Any, front: BigQueryFront) -> None:
    def wrong(answer: dict[str, Any]) -> dict[str, Any]:
        answer["rows"][0]["f"][0]["v"] = "12.345"
        return answer

    front.faults.append(Fault("edit", lambda r: "/queries/" in r.path, edit=wrong))
    with pytest.raises(batuta_sql.DataError, match=r"^s: column \"price_\d+\" holds '12.345'"):
        shop.execute("SELECT price FROM s.orders WHERE id = 1").fetchall()


@pytest.mark.parametrize(
    ("parameters", "text", "type_", "value"),
    [
        ({}, "9" * 38 + "." + "1" * 38, "VARCHAR", "9" * 38 + "." + "1" * 38),
        ({"precision": "38", "scale": "0"}, "9" * 38, "DECIMAL(38,0)", Decimal("9" * 38)),
        (
            {"precision": "38", "scale": "38"},
            "0." + "1" * 38,
            "DECIMAL(38,38)",
            Decimal("0." + "1" * 38),
        ),
    ],
)
def test_bignumeric_arrives_exactly(
    shop: Any, front: BigQueryFront, parameters: Any, text: str, type_: str, value: Any
) -> None:
    """The emulator has no such column: its answers are edited into the service's form."""

    def table(answer: dict[str, Any]) -> dict[str, Any]:
        answer["schema"]["fields"][2] |= {"type": "BIGNUMERIC", **parameters}
        return answer

    def rows(answer: dict[str, Any]) -> dict[str, Any]:
        answer["schema"]["fields"][0]["type"] = "BIGNUMERIC"
        answer["rows"][0]["f"][0]["v"] = text
        return answer

    front.faults.append(Fault("edit", lambda r: r.path.endswith("/tables/types"), 9, edit=table))
    front.faults.append(Fault("edit", lambda r: "/queries/" in r.path, edit=rows))
    assert shop.describe("s.types").to_pylist()[2]["column_type"] == type_
    sql = "SELECT exact FROM s.types WHERE id = 1"
    assert shop.execute(sql).fetchone() == (value,)


# --- pushdown ----------------------------------------------------------------------------------

PUSHED = [
    ("price > 20.5", "`t1`.`price` > NUMERIC '20.5'"),
    ("weight <= 3", "`t1`.`weight` <= CAST('3' AS FLOAT64)"),
    ("weight > 3", "NOT (`t1`.`weight` <= CAST('3' AS FLOAT64))"),
    ("state = 'it''s \\'", r"'it\'s \\'"),
    ("state LIKE 'p%'", "`t1`.`state` LIKE 'p%'"),
    ("day >= DATE '2022-01-01'", "CAST('2022-01-01' AS DATE)"),
    ("price * 2 > 10", "`t1`.`price` * 2"),
    ("length(state) = 4", "CHAR_LENGTH(`t1`.`state`)"),
    ("substring(state, 1, 2) = 'pa'", "SUBSTR(`t1`.`state`, 1, 2)"),
    ("contains(state, 'ai')", "STRPOS(`t1`.`state`, 'ai') > 0"),
    ("extract(year FROM day) = 2022", "EXTRACT(YEAR FROM `t1`.`day`)"),
]


@pytest.mark.parametrize(("condition", "written"), PUSHED)
def test_what_is_pushed(shop: Any, front: BigQueryFront, condition: str, written: str) -> None:
    here = shop.execute("SELECT * FROM s.orders").fetch_arrow_table()
    front.reset()
    found = rows_of(shop, f"SELECT id FROM s.orders WHERE {condition}")
    (job,) = front.inserted
    assert written in job.job["query"]
    shop.register("here", here)
    assert found == rows_of(shop, f"SELECT id FROM here WHERE {condition}")


KEPT = [
    "price / 2 > 10",
    "id // 7 = 3",
    "state LIKE 'a\\%'",
    "upper(state) = 'PAID'",
    "weight * 2 < 5",
    "weight = customer",
    "price * 1.123456789 > 10",
    "CAST(price AS BIGINT) = 3",
    "substring(state, -1, 1) = 'd'",
    "contains(state, '')",
    "day + 1 > DATE '2022-01-01'",
]


@pytest.mark.parametrize("condition", KEPT)
def test_what_is_not_pushed_is_answered_here(
    shop: Any, front: BigQueryFront, condition: str
) -> None:
    here = shop.execute("SELECT * FROM s.orders").fetch_arrow_table()
    front.reset()
    found = rows_of(shop, f"SELECT id FROM s.orders WHERE {condition}")
    (job,) = front.inserted
    assert "WHERE" not in job.job["query"]
    shop.register("here", here)
    assert found == rows_of(shop, f"SELECT id FROM here WHERE {condition}")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT min(weight) FROM s.orders",
        "SELECT weight FROM s.orders ORDER BY weight LIMIT 3",
        "SELECT sum(weight) FROM s.orders WHERE weight < 3",
        "SELECT o.id FROM s.orders o LEFT JOIN s.customer c ON o.customer < c.id WHERE o.id < 30",
        "SELECT o.id FROM s.orders o SEMI JOIN s.customer c ON o.customer < c.id WHERE o.id < 30",
        "SELECT customer FROM s.orders EXCEPT ALL SELECT id FROM s.customer",
    ],
)
def test_what_bigquery_refuses_or_answers_otherwise_runs_here(
    shop: Any, front: BigQueryFront, sql: str
) -> None:
    orders = shop.execute("SELECT * FROM s.orders").fetch_arrow_table()
    customers = shop.execute("SELECT * FROM s.customer").fetch_arrow_table()
    front.reset()
    found = rows_of(shop, sql)
    written = " ".join(r.job["query"] for r in front.inserted)
    for word in ("MIN(", "SUM(", "ORDER BY", "LEFT JOIN", "EXISTS", "EXCEPT"):
        assert word not in written
    shop.register("orders_", orders)
    shop.register("customer_", customers)
    local = sql.replace("s.orders", "orders_").replace("s.customer", "customer_")
    assert repr(found) == repr(rows_of(shop, local))


def test_grouping_by_an_expression_is_grouping_by_a_column(shop: Any, front: BigQueryFront) -> None:
    found = rows_of(shop, "SELECT year(day) AS y, count(*) FROM s.orders GROUP BY 1")
    assert found == [(y, ROWS // 4) for y in (2020, 2021, 2022, 2023)]
    (job,) = front.inserted
    tail = job.job["query"].partition("GROUP BY")[2]
    assert tail
    assert "EXTRACT" not in tail


def test_a_filtered_aggregate_has_no_filter_clause(shop: Any, front: BigQueryFront) -> None:
    sql = "SELECT count(*) FILTER (WHERE id < 10), sum(id) FILTER (WHERE id < 4) FROM s.orders"
    assert shop.execute(sql).fetchone() == (10, 6)
    (job,) = front.inserted
    assert "COUNT(IF(`t1`.`id` < 10, 1, NULL))" in job.job["query"]


# --- cost --------------------------------------------------------------------------------------


def test_the_estimate_is_a_dry_run_and_bills_nothing(shop: Any, front: BigQueryFront) -> None:
    found = shop.estimate("SELECT id, customer FROM s.orders WHERE id > 5")
    assert (found.confidence, found.bytes_scanned) == ("unknown", ROWS * 16)
    (fragment,) = found.fragments
    assert "dry run" in fragment.basis
    assert front.inserted == []


def test_a_price_is_exact_and_of_ten_megabytes_at_the_least(
    front: BigQueryFront, opened: Callable[..., Any]
) -> None:
    price = {"usd_per_tib_scanned": 6.25}
    connection = opened({}, **front.settings(dataset="shop", pricing=price))
    found = connection.estimate("SELECT id FROM s.orders WHERE id > 5")
    assert found.confidence == "exact"
    assert found.usd == pytest.approx(10 * MIB / 2**40 * 6.25)


def test_a_job_may_bill_what_was_authorised_and_no_more(shop: Any, front: BigQueryFront) -> None:
    shop.execute("SELECT id FROM s.orders WHERE id > 5").fetchall()
    shop.execute(
        "SELECT o.id FROM s.orders o JOIN s.customer c ON o.customer = c.id WHERE o.id > 5"
    ).fetchall()
    limits = [int(r.job["maximumBytesBilled"]) for r in front.inserted]
    assert limits == [10 * MIB, 20 * MIB]


def test_a_job_that_would_bill_more_than_its_estimate_is_refused(
    shop: Any, front: BigQueryFront
) -> None:
    """The table grows between the estimate and the run."""

    def less(answer: dict[str, Any]) -> dict[str, Any]:
        answer["statistics"]["query"]["referencedTables"] = [{}]
        return answer

    front.faults.append(Fault("edit", lambda r: r.is_dry_run, edit=less))
    sql = "SELECT o.id FROM s.orders o JOIN s.customer c ON o.customer = c.id WHERE o.id > 5"
    with pytest.raises(
        batuta_sql.OperationalError,
        match=r"(?s)^s: Query exceeded limit for bytes billed: 10485760\. 20971520.*run the query",
    ):
        shop.execute(sql).fetchall()


def test_what_was_billed_is_told_afterwards(
    front: BigQueryFront, opened: Callable[..., Any]
) -> None:
    price = {"usd_per_tib_scanned": 1024.0 * 1024}
    connection = opened(
        {"warn_usd": 1000, "stop_usd": 1000}, **front.settings(dataset="shop", pricing=price)
    )
    cursor = connection.execute("SELECT id FROM s.orders WHERE id > 5")
    cursor.fetchall()
    (fragment,) = cursor.metrics["fragments"]
    assert fragment["billed"].bytes == 10 * MIB


def test_a_dry_run_that_cannot_tell_is_unknown_and_never_zero(
    shop: Any, front: BigQueryFront
) -> None:
    def vague(answer: dict[str, Any]) -> dict[str, Any]:
        told = {"totalBytesProcessed": "0", "totalBytesProcessedAccuracy": "LOWER_BOUND"}
        answer["statistics"]["query"] |= told
        return answer

    front.faults.append(Fault("edit", lambda r: r.is_dry_run, edit=vague))
    found = shop.estimate("SELECT id FROM s.orders WHERE id > 5")
    assert (found.confidence, found.bytes_scanned) == ("unknown", None)


# --- the preview -------------------------------------------------------------------------------


def test_a_plain_scan_with_a_limit_reads_the_preview_and_bills_nothing(
    shop: Any, front: BigQueryFront
) -> None:
    rows = shop.execute("SELECT state, id FROM s.orders LIMIT 7").fetchall()
    assert len(rows) == 7
    assert all(state == ["new", "paid", "Paid", None][id_ % 4] for state, id_ in rows)
    assert front.inserted == []
    assert shop.estimate("SELECT * FROM s.orders LIMIT 10").bytes_scanned == 0


def test_a_preview_has_nested_values_too(shop: Any, front: BigQueryFront) -> None:
    rows = shop.execute("SELECT tags, id FROM s.customer LIMIT 100").fetchall()
    assert sorted(rows, key=lambda r: r[1]) == [(["x"] * (i % 3), i) for i in range(20)]
    assert front.inserted == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM s.orders WHERE id > 3 LIMIT 5",
        "SELECT id FROM s.orders ORDER BY id LIMIT 5",
        "SELECT DISTINCT state FROM s.orders LIMIT 5",
        "SELECT id FROM s.paid LIMIT 5",
        'SELECT n FROM s."events_*" LIMIT 5',
    ],
)
def test_anything_more_than_a_plain_scan_is_a_job(
    shop: Any, front: BigQueryFront, sql: str
) -> None:
    shop.execute(sql).fetchall()
    assert len(front.inserted) == 1


def test_a_table_without_a_preview_for_the_caller_is_read_by_a_job(
    shop: Any, front: BigQueryFront
) -> None:
    told = "Access Denied: row level access policies"
    front.faults.append(
        Fault("status", lambda r: r.path.endswith("/data"), 9, 403, "accessDenied", told)
    )
    assert len(shop.execute("SELECT id FROM s.orders LIMIT 5").fetchall()) == 5
    (job,) = front.inserted
    assert job.job["maximumBytesBilled"] == str(10 * MIB)


def test_what_was_authorised_as_free_bills_nothing(shop: Any, front: BigQueryFront) -> None:
    """The preview is there for the estimate, and refused when its rows are read."""

    def second(request: Request) -> bool:
        asked = [r for r in front.requests if r.path.endswith("/data")]
        return request.path.endswith("/data") and len(asked) > 1

    front.faults.append(Fault("status", second, 9, 403, "accessDenied", "Access Denied"))
    with pytest.raises(batuta_sql.OperationalError, match="^s: Query exceeded limit.*: 1\\. "):
        shop.execute("SELECT id FROM s.orders LIMIT 5").fetchall()
    assert len(shop.execute("SELECT id FROM s.orders LIMIT 5").fetchall()) == 5


def test_a_count_of_all_rows_is_free(shop: Any, front: BigQueryFront) -> None:
    assert shop.execute("SELECT count(*) FROM s.orders").fetchone() == (ROWS,)
    assert [r.job["maximumBytesBilled"] for r in front.inserted] == ["1"]


def test_rows_that_stream_in_are_not_missed(shop: Any, front: BigQueryFront) -> None:
    def streaming(answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "streamingBuffer": {"estimatedRows": "3"}}

    front.faults.append(
        Fault("edit", lambda r: r.path.endswith("/tables/orders"), 9, edit=streaming)
    )
    shop.execute("SELECT id FROM s.orders LIMIT 5").fetchall()
    assert len(front.inserted) == 1


# --- tags --------------------------------------------------------------------------------------


def test_labels_and_policy_tags_are_labels(front: BigQueryFront) -> None:
    policy = "projects/p/locations/us/taxonomies/1/policyTags/2"
    secret = {"name": "mail", "type": "STRING", "policyTags": {"names": [policy]}}
    fields = [{"name": "id", "type": "INTEGER"}, secret]
    front.table("shop", "people", fields, labels={"tier": "sovereign", "checked": ""})
    wanted = {"tier:sovereign", "checked"}
    for tags, found in ((True, wanted), (False, set())):
        settings = front.settings(dataset="shop", tags=tags)
        config = {"sources": {"s": settings}, "cost": {"on_unknown": "allow"}}
        with closing(batuta_sql.connect(config)) as con:
            labels = con.execute("SELECT id, mail FROM s.people").labels
        assert set(labels["id"].all) == found
        assert set(labels["mail"].all) == (found | {f"policy_tag:{policy}"} if tags else set())


def test_a_wildcard_has_the_labels_of_every_table_that_it_reads(front: BigQueryFront) -> None:
    for name, label in (("tagged_1", "old"), ("tagged_2", "new")):
        front.table("shop", name, [{"name": "n", "type": "INTEGER"}], labels={"from": label})
    settings = front.settings(dataset="shop", tags=True)
    config = {"sources": {"s": settings}, "cost": {"on_unknown": "allow"}}
    with closing(batuta_sql.connect(config)) as con:
        labels = con.execute('SELECT n FROM s."tagged_*"').labels
    assert set(labels["n"].all) == {"from:old", "from:new"}
