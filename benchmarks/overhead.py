"""What Batuta itself takes: planning of TPC-DS, and a point query beside the driver alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi

import batuta_sql
from benchmarks.labels import qualified
from tests.tpc.placements import query_text

DATA = Path(__file__).parents[1] / ".cache" / "tpc" / "tpcds"
REPEATS = 5
POINTS = 300


def planning() -> dict[str, float]:
    """Milliseconds of planning each TPC-DS query over Parquet files, by query, median of some."""
    tables = frozenset(p.stem for p in DATA.glob("*.parquet"))
    config = {
        "cost": {"history": False},
        "sources": {"t": {"kind": "files", "path": str(DATA)}},
    }
    found: dict[str, float] = {}
    with batuta_sql.connect(config) as connection:
        for number in range(1, 100):
            sql = qualified(query_text("tpcds", number), tables)
            connection.plan(sql)
            taken = [_planned(connection, sql) for _ in range(REPEATS)]
            found[str(number)] = 1000 * statistics.median(taken)
    return found


def _planned(connection: Any, sql: str) -> float:
    """Seconds of planning a text, without the plan that is remembered of it."""
    connection._session.prepared.clear()
    seconds: float = connection.plan(sql).planning_seconds
    return seconds


def point_query(uris: Mapping[str, str]) -> dict[str, float]:
    """Milliseconds of one row by its key, warm: Batuta's, and the driver's alone."""
    sql = "SELECT c_name, c_acctbal::float8 FROM {}customer WHERE c_custkey = {}"
    by_key = sql.format("sales.", "?")
    crm = {"kind": "postgresql", "uri": uris["sales"], "locality": "local"}
    config = {"catalog_ttl": 3600, "cost": {"history": False}, "sources": {"sales": crm}}
    with (
        batuta_sql.connect(config) as connection,
        adbc_driver_postgresql.dbapi.connect(uris["sales"], autocommit=True) as driver,
    ):
        ours = _milliseconds(connection, lambda key: (by_key, (key,)))
        theirs = _milliseconds(driver, lambda key: (sql.format("", key),))
    return {"batuta": ours, "driver": theirs}


def _milliseconds(connection: Any, statement: Callable[[int], tuple[Any, ...]]) -> float:
    taken: list[float] = []
    for key in range(1, POINTS):
        started = time.perf_counter()
        with closing(connection.cursor()) as cursor:
            cursor.execute(*statement(key))
            assert len(cursor.fetchall()) == 1
        taken.append(time.perf_counter() - started)
    return 1000 * statistics.median(taken)
