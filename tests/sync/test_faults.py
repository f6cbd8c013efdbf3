"""Copies over networks that misbehave again and again: in the end each row is there once.

``BATUTA_SYNC_FAULTS`` says how many faults each copy meets.
"""

from __future__ import annotations

import io
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batuta_sql
from batuta_sql.errors import OperationalError
from tests.emulators.aws_process import aws_emulator
from tests.emulators.bigquery_front import Fault, bigquery_front
from tests.emulators.databricks import Workspace
from tests.emulators.snowflake_process import snowflake_emulator
from tests.faults.proxy import Proxy
from tests.sync.conftest import config_of, rows_of, run, truth

FAULTS = int(os.environ.get("BATUTA_SYNC_FAULTS", "12"))
SPLIT = 1 << 20
TARGETS = {"parquet": "orders", "delta": "orders", "duckdb": "copy.duckdb", "ald": "orders.ald"}


class Weather:
    """Faults at random moments, for as long as a copy lasts."""

    def __init__(self, proxy: Proxy, chance: random.Random, most: int) -> None:
        self._proxy = proxy
        self._chance = chance
        self._most = most
        self.came: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Weather:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._proxy.heal()

    def _run(self) -> None:
        while len(self.came) < self._most and not self._over.wait(self._chance.uniform(0.02, 0.3)):
            kind = self._chance.choice(["reset", "cut", "end", "stall"])
            limit = self._chance.randrange(100_000)
            match kind:
                case "reset":
                    self._proxy.reset_all()
                case "cut":
                    self._proxy.cut_after = limit
                case "end":
                    self._proxy.end_after = limit
                case "stall":
                    self._proxy.stall_after = limit
            self._over.wait(self._chance.uniform(0.05, 0.4))
            self._proxy.heal()
            if kind == "stall":
                # Silence has no end by itself.
                self._proxy.reset_all()
            self.came.append(kind)


def until_done(sync: Callable[[], Any]) -> tuple[Any, int]:
    """The result, and how many runs it took."""
    for attempt in range(1, 60):
        try:
            return sync(), attempt
        except OperationalError as error:
            assert error.source is not None
    raise AssertionError("no run has finished")


@pytest.mark.parametrize("form", TARGETS)
def test_connections_that_break_at_random(
    uri: str, connect: Callable[..., Any], tmp_path: Path, form: Any
) -> None:
    chance = random.Random(f"{form} 3")
    target = tmp_path / TARGETS[form]
    with (
        Proxy(uri) as proxy,
        batuta_sql.connect(config_of(proxy.uri)) as connection,
        Weather(proxy, chance, FAULTS) as weather,
    ):
        slow = lambda progress: time.sleep(0.05)  # noqa: E731
        result, _ = until_done(
            lambda: connection.sync(
                "crm.orders", target, format=form, split_bytes=SPLIT, progress=slow
            )
        )
    assert len(weather.came) > FAULTS / 3
    assert result.outcome == "copied"
    assert rows_of(target, form) == truth(connect())


POST = "POST /api/2.0/sql/statements$"
POLL = r"GET /api/2.0/sql/statements/[^/]+$"
LINK = "GET .*/result/chunks/"
STORAGE = "GET /storage/"
TABLE = "GET /api/2.1/unity-catalog/tables"
BUSY = {"kind": "status", "headers": {"Retry-After": "0"}}
KINDS: list[dict[str, Any]] = [
    {"kind": "status", "status": 401},
    {**BUSY, "status": 429},
    {**BUSY, "status": 503},
    {"kind": "status", "status": 500},
    {"kind": "cut"},
    {"kind": "short"},
]


@pytest.mark.parametrize("form", TARGETS)
def test_a_service_that_refuses_breaks_off_and_cuts_short(
    databricks: Workspace, tmp_path: Path, form: Any
) -> None:
    """401, 429, 500, 503, half an answer, an answer of the wrong length, at any of its requests."""
    databricks.reset()
    rows, chance = 20_000, random.Random(f"{form} 5")
    schema = databricks.new_schema()
    databricks.run(
        f"CREATE TABLE lab.{schema}.orders AS SELECT i AS id, 'w' || i AS word,"
        f" (i / 4)::DECIMAL(12,2) AS price FROM range({rows}) r(i)"
    )
    faults = []
    for _ in range(FAULTS):
        on = chance.choice([POST, POLL, LINK, STORAGE, TABLE])
        fault = dict(chance.choice(KINDS))
        if fault["kind"] == "short" and on != STORAGE:
            fault = {"kind": "cut"}
        faults.append({"on": on, "times": 1, "after": chance.randrange(4), **fault})
    databricks.set(options={"part_rows": rows // 10}, faults=faults)
    config = {
        "sources": {"dbx": databricks.settings()},
        "cost": {"on_unknown": "allow", "history": False},
    }
    target = tmp_path / TARGETS[form]
    with batuta_sql.connect(config) as connection:
        until_done(lambda: connection.sync(f"dbx.{schema}.orders", target, format=form))
        databricks.reset()
        expected = truth(connection, f"SELECT * FROM dbx.{schema}.orders")
    assert len(expected) == rows
    assert rows_of(target, form) == expected


def test_a_clock_that_jumps(
    uri: str, connect: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Days forth and back, at each look: no copy is thought to be older or newer for it."""
    chance, true = random.Random(11), time.time
    monkeypatch.setattr(time, "time", lambda: true() + chance.uniform(-3e6, 3e6))
    target, options = tmp_path / "orders", {"key": "id", "watermark": "at", "split_bytes": SPLIT}
    with batuta_sql.connect(config_of(uri)) as connection:
        for statement in (
            "UPDATE orders SET note = 'later', at = at + INTERVAL '1 year' WHERE id % 1000 = 3",
            "INSERT INTO orders (id, at) VALUES (-1, '2099-01-01')",
            "SELECT 1",
        ):
            outcome = connection.sync("crm.orders", target, **options).outcome
            assert outcome == "copied"
            assert rows_of(target, "parquet") == truth(connect())
            run(uri, statement)
        assert connection.sync("crm.orders", target, **options).outcome == "unchanged"


# --- other services ------------------------------------------------------------------------------


def test_objects_over_connections_that_break(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chance, target = random.Random(13), tmp_path / "t"
    with aws_emulator(tmp_path_factory.mktemp("aws")) as aws:
        store = aws.filesystem()
        store.mkdir("faulty")
        for n in range(6):
            buffer = io.BytesIO()
            ids = range(n * 20_000, n * 20_000 + 20_000)
            pq.write_table(pa.table({"id": ids, "word": [f"{i:x}" for i in ids]}), buffer)
            store.pipe(f"faulty/t/{n}.parquet", buffer.getvalue())

        def source(endpoint: str) -> dict[str, Any]:
            options = aws.storage_options | {"AWS_ENDPOINT_URL": endpoint}
            more = {"connect_timeout": 2, "query_timeout": 5}
            return {"kind": "files", "path": "s3://faulty", "storage_options": options, **more}

        slow = lambda progress: time.sleep(0.3)  # noqa: E731
        with Proxy(aws.emulator.url) as proxy:
            endpoint = proxy.uri.replace("http://@", "http://").rstrip("/")
            with (
                batuta_sql.connect({"sources": {"lake": source(endpoint)}}) as connection,
                Weather(proxy, chance, FAULTS) as weather,
            ):
                until_done(lambda: connection.sync("lake.t", target, split_bytes=1, progress=slow))
        assert len(weather.came) > FAULTS / 4
        with batuta_sql.connect({"sources": {"lake": source(aws.emulator.url)}}) as connection:
            assert rows_of(target, "parquet") == truth(connection, "SELECT * FROM lake.t")


def test_bigquery_under_faults(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    rows, chance, target = 3000, random.Random(17), tmp_path / "big"
    kinds = [
        *({"how": how} for how in ("reset", "half", "garbage", "lost")),
        *({"how": "status", "status": s, "reason": r} for s, r in STATUSES),
    ]
    with bigquery_front(tmp_path_factory.mktemp("bigquery")) as front:
        front.dataset("shop")
        fields = [{"name": "id", "type": "INTEGER"}, {"name": "text", "type": "STRING"}]
        front.table("shop", "big", fields)
        front.insert_all("shop", "big", [{"id": str(i), "text": f"row {i}"} for i in range(rows)])
        front.page_rows = 200
        left = [FAULTS]

        def fails(request: Any) -> bool:
            if left[0] <= 0 or chance.random() > 0.25:
                return False
            left[0] -= 1
            return True

        front.faults += [
            Fault(when=fails, times=FAULTS, **chance.choice(kinds)) for _ in range(FAULTS)
        ]
        config = {
            "sources": {"s": front.settings(query_timeout=30)},
            "cost": {"on_unknown": "allow", "history": False},
        }
        with batuta_sql.connect(config) as connection:
            until_done(lambda: connection.sync("s.shop.big", target))
        assert left[0] < FAULTS
    assert rows_of(target, "parquet") == [(i, f"row {i}") for i in range(rows)]


STATUSES = [(429, "rateLimitExceeded"), (500, "backendError"), (503, "backendError"), (401, "")]


def test_snowflake_under_faults(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    chance, over = random.Random(19), threading.Event()
    with snowflake_emulator(tmp_path_factory.mktemp("snowflake")) as server:
        server.run("CREATE TABLE customer (id NUMBER(38,0), name VARCHAR)")
        server.run_behind(
            "INSERT INTO shop.public.customer SELECT i, 'n' || i FROM range(30000) r(i)"
        )
        came = []

        def weather() -> None:
            while not over.wait(chance.uniform(0, 0.3)) and len(came) < FAULTS:
                came.append(chance.choice([429, 500, 503]))
                server.fail(status=came[-1], times=chance.choice([1, 2]))
                over.wait(chance.uniform(0, 0.5))
                server.heal()

        config = {
            "sources": {"sf": server.settings(connect_timeout=5, query_timeout=10)},
            "cost": {"on_unknown": "allow", "history": False},
        }
        thread = threading.Thread(target=weather)
        thread.start()
        try:
            with batuta_sql.connect(config) as connection:
                for n in range(4):
                    until_done(
                        lambda n=n: connection.sync("sf.customer", tmp_path / f"customer{n}")
                    )
        finally:
            over.set()
            thread.join()
        assert came
        for n in range(4):
            target = tmp_path / f"customer{n}"
            assert rows_of(target, "parquet") == [(i, f"n{i}") for i in range(30_000)]
