"""PostgreSQL beyond the field cases: names, statistics, privileges, sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer
from tests.sources.conftest import rows_of, types_of

Opened = Callable[..., Any]


@pytest.fixture
def shop(postgres: PostgresServer, postgres_uri: str, opened: Opened) -> Callable[[str], Any]:
    """Runs a script in an empty database and opens a connection to it."""

    def build(script: str, **settings: Any) -> Any:
        postgres.run(script, postgres_uri.rsplit("/", 1)[1])
        return opened(kind="postgresql", uri=postgres_uri, **settings)

    return build


def test_names_of_one_two_and_three_parts(shop: Callable[..., Any], postgres_uri: str) -> None:
    connection = shop(
        "CREATE TABLE t(id int); INSERT INTO t VALUES (1);"
        "CREATE SCHEMA other; CREATE TABLE other.t(id int); INSERT INTO other.t VALUES (2);"
        "CREATE TABLE other.only(id int); INSERT INTO other.only VALUES (3)"
    )
    database = postgres_uri.rsplit("/", 1)[1]
    assert rows_of(connection, "SELECT id FROM s.t") == [(1,)]
    assert rows_of(connection, "SELECT id FROM s.public.t") == [(1,)]
    assert rows_of(connection, "SELECT id FROM s.other.t") == [(2,)]
    assert rows_of(connection, "SELECT id FROM s.only") == [(3,)]
    assert rows_of(connection, f'SELECT id FROM s."{database}".other.t') == [(2,)]


def test_an_ambiguous_name_says_between_what(shop: Callable[..., Any]) -> None:
    connection = shop("CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t(); CREATE TABLE b.t()")
    with pytest.raises(batuta_sql.ProgrammingError, match=r"s\.a\.t or s\.b\.t"):
        connection.execute("SELECT * FROM s.t")


def test_names_that_differ_in_case(shop: Callable[..., Any]) -> None:
    connection = shop(
        'CREATE TABLE "T"(id int); CREATE TABLE t(id int); CREATE TABLE "Other"("Id" int);'
        'INSERT INTO "T" VALUES (1); INSERT INTO t VALUES (2); INSERT INTO "Other" VALUES (3)'
    )
    assert rows_of(connection, 'SELECT id FROM s."T"') == [(1,)]
    assert rows_of(connection, "SELECT id FROM s.t") == [(2,)]
    assert rows_of(connection, "SELECT ID FROM s.OTHER") == [(3,)]


def test_names_that_need_quotes(shop: Callable[..., Any]) -> None:
    connection = shop(
        """CREATE TABLE "it's ""odd"" ; --"("a b" int, "select" text, "ü" int, "x.y" int);"""
        """INSERT INTO "it's ""odd"" ; --" VALUES (1, 'two', 3, 4)"""
    )
    sql = """SELECT "a b", "select", ü, "x.y" FROM s.public."it's ""odd"" ; --" WHERE "a b" = 1"""
    assert rows_of(connection, sql) == [(1, "two", 3, 4)]


def test_only_the_named_table_is_looked_at(shop: Callable[..., Any]) -> None:
    """A view that cannot be read does no harm to the tables beside it."""
    connection = shop(
        "CREATE TABLE t(id int); INSERT INTO t VALUES (1);"
        "CREATE VIEW broken AS SELECT 1 / (SELECT 0) AS x"
    )
    assert rows_of(connection, "SELECT id FROM s.t") == [(1,)]
    with pytest.raises(batuta_sql.Error, match="division by zero") as caught:
        rows_of(connection, "SELECT x FROM s.broken")
    assert caught.value.source == "s"


def test_statistics_and_keys(shop: Callable[..., Any]) -> None:
    connection = shop(
        "CREATE TABLE t(id int PRIMARY KEY, k int, u text NOT NULL UNIQUE, n text UNIQUE);"
        "INSERT INTO t SELECT i, i % 10, i::text, NULL FROM generate_series(1, 1000) i; ANALYZE t"
    )
    (table,) = connection._session.sources["s"].resolve(("t",))
    assert table.statistics.rows == 1000
    assert table.statistics.columns["k"].distinct == 10
    assert table.statistics.columns["n"].null_fraction == 1
    assert table.keys == (("id",), ("u",))
    assert [c.nullable for c in table.columns] == [False, True, False, True]


INHERITED = """
CREATE TABLE base(id int, k int);
CREATE TABLE heir() INHERITS (base);
ALTER TABLE ONLY base ALTER id SET NOT NULL;
ALTER TABLE ONLY base ADD PRIMARY KEY (id);
INSERT INTO base VALUES (1, 1), (2, 1);
INSERT INTO heir VALUES (1, 1), (NULL, 1);
CREATE TABLE one(k int PRIMARY KEY);
INSERT INTO one VALUES (1), (2);
"""


def test_a_parents_constraints_do_not_bind_its_children(shop: Callable[..., Any]) -> None:
    connection = shop(INHERITED)
    (table,) = connection._session.sources["s"].resolve(("base",))
    assert table.keys == ()
    assert [c.nullable for c in table.columns] == [True, True]
    sql = "SELECT one.k, count(base.id) FROM s.one LEFT JOIN s.base ON base.k = one.k GROUP BY 1"
    assert sorted(rows_of(connection, sql)) == [(1, 3), (2, 0)]


@pytest.mark.parametrize(
    ("analyse", "distinct"),
    # The first is what autovacuum leaves: partitions are analysed, the table never is.
    [("ANALYZE t_1; ANALYZE t_2_1", {}), ("ANALYZE t", {"id": 1000, "k": 10})],
)
def test_statistics_of_partitions(
    shop: Callable[..., Any], analyse: str, distinct: dict[str, int]
) -> None:
    connection = shop(
        "CREATE TABLE t(id int PRIMARY KEY, k int) PARTITION BY RANGE (id);"
        "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (501);"
        "CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (501) TO (1001)"
        " PARTITION BY RANGE (id);"
        "CREATE TABLE t_2_1 PARTITION OF t_2 FOR VALUES FROM (501) TO (1001);"
        "CREATE TABLE t_3 PARTITION OF t DEFAULT;"
        "INSERT INTO t SELECT i, i % 10 FROM generate_series(1, 1000) i;" + analyse
    )
    (table,) = connection._session.sources["s"].resolve(("t",))
    assert table.statistics.rows == 1000
    assert table.statistics.bytes == 2 * 8192 * 3
    assert table.keys == (("id",),)
    assert not table.columns[0].nullable
    assert {n: c.distinct for n, c in table.statistics.columns.items()} == distinct


SKEWED = """
CREATE TABLE t AS SELECT i AS id, i % 4 AS few,
  CASE WHEN i % 100 = 0 THEN 'a "rare", one' ELSE 'usual' END AS state,
  i * i / 1000 AS n, DATE '2024-01-01' + i * i / 100000 AS day,
  (i * i / 1000.0)::numeric(12, 2) AS price
FROM generate_series(1, 10000) i;
ANALYZE t
"""


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("state = 'a \"rare\", one'", 100),
        ("state = 'usual'", 9_900),
        ("state IN ('a \"rare\", one', 'unheard of')", 100),
        ("n < 1000", 1_000),
        ("n BETWEEN 1000 AND 4000", 1_000),
        ("day < DATE '2024-01-11'", 1_000),
        ("price >= 40000.00", 3_675),
        ("few = 3 AND n < 1000", 250),
        ("few < 2", 5_000),
        ("id > 9000", 1_000),
    ],
)
def test_rows_are_expected_as_the_values_are_spread(
    shop: Callable[..., Any], where: str, rows: int
) -> None:
    connection = shop(SKEWED)
    cursor = connection.execute(f"SELECT id FROM s.t WHERE {where}")
    assert len(cursor.fetchall()) == pytest.approx(rows, abs=15)
    (fragment,) = cursor.plan.fragments
    assert fragment._run.fragment.rows == pytest.approx(rows, rel=0.25, abs=5)


def test_an_estimate_comes_from_explain(shop: Callable[..., Any]) -> None:
    connection = shop("CREATE TABLE t AS SELECT i AS id FROM generate_series(1, 1000) i; ANALYZE t")
    estimate = connection.estimate("SELECT id FROM s.t")
    assert estimate.rows == 1000
    assert estimate.confidence == "estimated"
    assert "EXPLAIN" in estimate.basis


def test_a_changed_table_is_noticed(
    shop: Callable[..., Any], postgres: PostgresServer, postgres_uri: str
) -> None:
    connection = shop("CREATE TABLE t(id int); INSERT INTO t VALUES (1)")
    assert rows_of(connection, "SELECT * FROM s.t") == [(1,)]
    postgres.run("ALTER TABLE t ADD name text DEFAULT 'a'", postgres_uri.rsplit("/", 1)[1])
    connection.refresh()
    assert rows_of(connection, "SELECT * FROM s.t") == [(1, "a")]


def test_what_may_not_be_read_says_so(
    shop: Callable[..., Any], postgres: PostgresServer, postgres_uri: str, opened: Opened
) -> None:
    shop("CREATE TABLE secret(id int); CREATE ROLE outsider LOGIN PASSWORD 'outside'")
    try:
        connection = opened(
            kind="postgresql",
            host=postgres.host,
            port=postgres.port,
            database=postgres_uri.rsplit("/", 1)[1],
            user="outsider",
            password="outside",
        )
        assert connection.execute("SHOW TABLES").fetchall() == []
        with pytest.raises(batuta_sql.Error, match="permission denied") as caught:
            rows_of(connection, "SELECT id FROM s.secret")
        assert caught.value.source == "s"
    finally:
        postgres.run("DROP ROLE outsider")


def test_nothing_can_be_written(shop: Callable[..., Any], postgres: PostgresServer) -> None:
    """Not even by a function that a view calls."""
    connection = shop(
        "CREATE TABLE t(id int);"
        "CREATE FUNCTION sneak() RETURNS int LANGUAGE sql AS"
        " $$INSERT INTO public.t VALUES (1) RETURNING 1$$;"
        "CREATE VIEW v AS SELECT public.sneak() AS x"
    )
    with pytest.raises(batuta_sql.Error, match="read-only"):
        rows_of(connection, "SELECT x FROM s.v")
    assert rows_of(connection, "SELECT count(*) AS n FROM s.t") == [(0,)]


def test_a_search_path_trap_is_not_fallen_into(shop: Callable[..., Any]) -> None:
    """Objects of the database that are called like built-in ones are not used."""
    connection = shop(
        "CREATE FUNCTION public.starts_with(text, text) RETURNS bool LANGUAGE sql"
        " AS 'SELECT false';"
        "CREATE TABLE t AS SELECT 'abc'::text AS x"
    )
    assert rows_of(connection, "SELECT x FROM s.t WHERE starts_with(x, 'a')") == [("abc",)]


def test_connections_are_reused(
    shop: Callable[..., Any], postgres: PostgresServer, postgres_uri: str
) -> None:
    connection = shop("CREATE TABLE t(id int)")
    pids: set[str] = set()
    for _ in range(10):
        rows_of(connection, "SELECT id FROM s.t")
        pids |= set(
            postgres.run(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'batuta-sql'"
                f" AND datname = '{postgres_uri.rsplit('/', 1)[1]}'"
            ).split()
        )
    # Estimates are asked for beside the queries, the one before included: but never more than
    # `max_connections` are kept, however many queries there are.
    assert len(pids) <= 4


def test_numeric_without_width_is_text_and_says_so(shop: Callable[..., Any]) -> None:
    connection = shop("CREATE TABLE t(n numeric); INSERT INTO t VALUES ('NaN'), (1e-50), (12.50)")
    assert types_of(connection, "s.t") == {"n": "VARCHAR"}
    assert ("12.50",) in rows_of(connection, "SELECT n FROM s.t")


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_a_decimal_that_duckdb_cannot_hold_is_an_error(
    shop: Callable[..., Any], value: str, postgres: PostgresServer
) -> None:
    if value == "Infinity" and int(postgres.version.split(".")[0]) < 14:
        pytest.skip("numeric has no infinity before PostgreSQL 14")
    column = "numeric(9,2)" if value == "NaN" else "numeric"
    connection = shop(f"CREATE TABLE t(n {column}); INSERT INTO t VALUES (1), ('{value}')")
    if column == "numeric":
        assert (value,) in rows_of(connection, "SELECT n FROM s.t")
        return
    with pytest.raises(batuta_sql.Error) as caught:
        rows_of(connection, "SELECT n FROM s.t")
    assert caught.value.source == "s"


def test_labels_reach_views_partitions_and_parents(
    shop: Callable[..., Any],
) -> None:
    connection = shop(
        """
        CREATE TABLE event (id int, who text) PARTITION BY RANGE (id);
        CREATE TABLE event_1 PARTITION OF event FOR VALUES FROM (0) TO (10);
        CREATE TABLE event_2 PARTITION OF event FOR VALUES FROM (10) TO (20);
        CREATE TABLE secret (id int, who text);
        CREATE VIEW v AS SELECT e.id, upper(e.who) AS w FROM event e;
        CREATE MATERIALIZED VIEW m AS SELECT w FROM v;
        CREATE VIEW other AS SELECT id FROM secret;
        """,
        tables={
            "public.event": {"columns": {"who": {"labels": ["pii"]}}},
            "event_2": {"labels": ["region:eu"]},
        },
    )

    def labels_of(column: str, table: str) -> set[str]:
        cursor = connection.execute(f"SELECT {column} FROM s.{table}")
        return set(cursor.labels[column].all)

    # A partition's column is its parent's, and a parent shows the rows of its partitions.
    assert labels_of("who", "event_1") == {"pii"}
    assert labels_of("id", "event_1") == set()
    assert labels_of("id", "event_2") == {"region:eu"}
    assert labels_of("who", "event") == {"pii", "region:eu"}
    assert labels_of("id", "event") == {"region:eu"}
    # Which column of a view comes from which is not asked.
    assert labels_of("id", "v") == {"pii", "region:eu"}
    assert labels_of("w", "m") == {"pii", "region:eu"}
    assert labels_of("id", "other") == set()
