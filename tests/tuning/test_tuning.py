"""Rates are measured, kept, and decide where a query over one source groups and joins."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi
import duckdb
import pytest

import batuta_sql
from batuta_sql import profile, tuning
from batuta_sql.costing import place_of
from batuta_sql.demo.postgres_server import PostgresServer
from batuta_sql.plan.rates import Rates

ROWS = 200_000
NEAR = Rates(0.0002, 1e9, 1e7, 1e5, 1e8)
"""A source whose rows are here at once, and which groups slowly."""
FAR = Rates(0.05, 1e5, 1e5, 1e7, 1e7)

GROUPED = "SELECT g, count(DISTINCT n) FROM crm.orders GROUP BY g ORDER BY g"


@pytest.fixture(scope="module")
def uri(postgres: PostgresServer) -> Iterator[str]:
    with (
        postgres.database("tuning") as uri,
        adbc_driver_postgresql.dbapi.connect(uri, autocommit=True) as server,
        server.cursor() as cursor,
    ):
        cursor.execute(
            "CREATE TABLE orders AS SELECT i AS id, i % 20000 AS g, (i % 7)::int AS n"
            f" FROM generate_series(1, {ROWS}) i"
        )
        cursor.execute("CREATE TABLE customer AS SELECT g AS id FROM generate_series(0, 19999) g")
        cursor.execute(
            "CREATE TABLE line AS SELECT nullif(i % 1000, 7) AS part, i % 2000 AS supplier"
            " FROM generate_series(1, 400000) i"
        )
        cursor.execute("CREATE TABLE part AS SELECT g AS id FROM generate_series(0, 19) g")
        cursor.execute(
            "CREATE TABLE bad AS SELECT nullif(g, 3) AS part, g AS id FROM generate_series(2, 9) g"
        )
        cursor.execute("ANALYZE")
        yield uri


@pytest.fixture
def connect(uri: str, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """A connection with a profile; ``rates``: what it says of the source."""
    opened: list[Any] = []

    def make(rates: Rates | None = None, **sources: Any) -> Any:
        crm = {"kind": "postgresql", "uri": uri, "locality": "local"}
        file = tmp_path / "profile.json"
        config = {"profile_file": str(file), "sources": {"crm": crm, **sources}}
        if rates is not None:
            from batuta_sql.config import load_settings

            place = place_of(load_settings(config).sources["crm"])
            known = profile.Measured.of("crm", place, datetime.now(UTC), rates)
            profile.write(file, {("crm", place): known})
        opened.append(batuta_sql.connect(config))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_what_is_measured_is_kept_for_the_next_connection(
    connect: Callable[..., Any], tmp_path: Path
) -> None:
    first = connect()
    (tuned,) = first.tune()
    assert tuned.before is None
    rates = tuned.now.rates
    # Loopback, in any machine's terms: wrong by a hundred times would still be seen.
    assert 1e-5 < rates.latency < 0.5
    assert 1e6 < rates.bytes_per_second < 1e11
    assert 1e4 < rates.values_per_second < 1e9
    assert 1e4 < rates.grouped_per_second < rates.grouped_here_per_second * 10
    assert tuned.now.degree is not None
    assert 1 <= tuned.now.degree <= (os.cpu_count() or 1)
    (again,) = connect().tune(["crm"])
    assert again.before == tuned.now
    assert again.now.measured > tuned.now.measured
    (kept,) = json.loads((tmp_path / "profile.json").read_text())["rates"]
    assert kept["source"] == "crm"


def test_measuring_reads_no_table_and_says_what_it_takes(
    connect: Callable[..., Any], uri: str
) -> None:
    connection = connect()
    (proposal,) = connection.proposals()
    assert proposal.usd == 0
    assert proposal.bytes < 200e6
    crm = {"kind": "postgresql", "uri": uri, "pricing": {"usd_per_gb_egress": 1.0}}
    (priced,) = connect(crm=crm).proposals()
    assert priced.usd == pytest.approx(priced.bytes / 1e9)
    with adbc_driver_postgresql.dbapi.connect(uri) as server, server.cursor() as cursor:
        scans = "SELECT sum(seq_scan + coalesce(idx_scan, 0))::int8 FROM pg_stat_user_tables"
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute(scans)
        before = cursor.fetchone()
        connection.tune()
        server.commit()
        cursor.execute(scans)
        assert cursor.fetchone() == before


@pytest.mark.parametrize(
    ("rates", "moved"), [(NEAR, ROWS), (FAR, 20_000), (None, 20_000)], ids=["near", "far", "none"]
)
def test_rows_are_grouped_where_that_is_quicker(
    connect: Callable[..., Any], rates: Rates | None, moved: int
) -> None:
    connection = connect(rates)
    cursor = connection.execute(GROUPED)
    rows = cursor.fetchall()
    assert rows == [(g, 7) for g in range(20_000)]
    (fragment,) = cursor.metrics["fragments"]
    assert fragment["rows"] == moved
    told = "by its profile" in connection.explain(GROUPED)
    assert told is (rates is NEAR)


def test_joins_too(connect: Callable[..., Any]) -> None:
    sql = (
        "SELECT k, count(*) FROM (SELECT c.id, count(o.id) AS k FROM crm.customer c"
        " LEFT JOIN crm.orders o ON o.g = c.id GROUP BY c.id) GROUP BY k"
    )
    near, far = (connect(rates).execute(sql) for rates in (NEAR, FAR))
    assert near.fetchall() == far.fetchall() == [(ROWS // 20_000, 20_000)]
    assert [f["rows"] for f in near.metrics["fragments"]] == [20_000, ROWS]
    assert [f["rows"] for f in far.metrics["fragments"]] == [1]


@pytest.mark.parametrize(
    ("members", "bad"),
    [
        ("SELECT id FROM crm.bad", range(2, 10)),
        ("SELECT id FROM crm.bad WHERE id > 100", ()),
        # A NULL among them: it might be any.
        ("SELECT part FROM crm.bad", range(20)),
    ],
    ids=["some", "none", "a NULL"],
)
def test_what_a_join_leaves_few_of_is_checked_after_the_join(
    connect: Callable[..., Any], members: str, bad: Sequence[int]
) -> None:
    """NOT IN, which a server would ask of each row of the table before it joins."""
    sql = (
        "SELECT part, count(DISTINCT supplier) FROM crm.line JOIN crm.part ON id = part"
        f" WHERE part NOT IN ({members}) GROUP BY part ORDER BY part"
    )
    untold = connect()
    assert "NOT IN: checked" not in untold.explain(sql)
    near = connect(NEAR)
    # Of part 7 there are no rows: its lines have NULL.
    expected = [(p, 2) for p in range(20) if p not in bad and p != 7]
    assert near.execute(sql).fetchall() == untold.execute(sql).fetchall() == expected
    assert "NOT IN: checked over about" in near.explain(sql)


def test_queries_over_several_sources_are_placed_as_before(
    connect: Callable[..., Any], tmp_path: Path
) -> None:
    with duckdb.connect() as con:
        con.execute(f"COPY (SELECT 5 AS g) TO '{tmp_path}/wanted.parquet'")
    sql = f"SELECT * FROM ({GROUPED}) x JOIN files.wanted w ON w.g = x.g"
    files = {"kind": "files", "path": str(tmp_path)}
    with_rates, without = (connect(rates, files=files).explain(sql) for rates in (NEAR, None))
    assert with_rates == without


def test_a_place_of_the_same_name_is_another(connect: Callable[..., Any], uri: str) -> None:
    connect(NEAR)
    elsewhere = {"kind": "postgresql", "uri": uri.replace("127.0.0.1", "localhost")}
    assert "by its profile" not in connect(crm=elsewhere).explain(GROUPED)


def test_a_file_that_is_none_is_a_warning(connect: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text('{"version": 1, "rates": [{"source": 7}]}')
    with pytest.warns(profile.ProfileWarning, match="run batuta-sql tune"):
        connection = connect()
    assert connection.execute("SELECT count(*) FROM crm.orders").fetchone() == (ROWS,)
    connection.tune()
    assert "warnings" not in connect().explain(GROUPED)


def test_what_cannot_be_measured_is_said(connect: Callable[..., Any], tmp_path: Path) -> None:
    connection = connect(files={"kind": "files", "path": str(tmp_path)})
    assert [p.source for p in connection.proposals()] == ["crm"]
    with pytest.raises(batuta_sql.NotSupportedError, match="files: there is no probe"):
        connection.tune(["files"])
    with pytest.raises(batuta_sql.ProgrammingError, match='no source "crn"'):
        connection.tune(["crn"])


def test_a_source_that_the_tier_refuses_is_not_asked(
    connect: Callable[..., Any], tmp_path: Path
) -> None:
    crm = {"kind": "postgresql", "uri": "postgresql://h.example.com/d", "locality": "public"}
    config = {"profile_file": str(tmp_path / "p.json"), "sources": {"crm": crm}}
    with (
        batuta_sql.connect(config, tier="private_cloud") as connection,
        pytest.raises(batuta_sql.TierRefused),
    ):
        connection.tune()


def test_a_large_table_is_read_by_as_many_as_was_best(connect: Callable[..., Any]) -> None:
    """The table is too small to be read by several; what would be read is decided all the same."""
    con = connect(replace(FAR, degree=1))
    cursor = con.execute("SELECT id FROM crm.orders")
    cursor.fetchall()
    fragment = cursor.plan.fragments[0]._run.fragment
    assert cursor.plan._query.execution.degree(fragment) == 1
    other = connect(replace(FAR, degree=3)).execute("SELECT id FROM crm.orders")
    other.fetchall()
    assert other.plan._query.execution.degree(fragment) == 3


@pytest.mark.parametrize(
    ("taken", "best"),
    [
        ({1: 1.0}, 1),
        ({1: 1.0, 2: 0.5, 4: 0.49}, 2),
        ({1: 1.0, 2: 0.98, 4: 0.96}, 1),
        ({1: 1.0, 2: 1.5, 4: 0.3}, 4),
    ],
)
def test_of_two_that_are_as_quick_the_smaller_degree_is_best(
    taken: dict[int, float], best: int
) -> None:
    assert tuning._best(taken) == best
