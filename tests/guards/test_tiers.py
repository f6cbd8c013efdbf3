"""Sovereignty tiers: a source that is too far is refused before anything reaches for it."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batuta_sql
from batuta_sql import TierRefused
from batuta_sql.config import load_settings

QUERIES = [
    "SELECT * FROM far.public.t",
    "SELECT * FROM far.t",
    "SELECT n.a FROM near.t n JOIN far.public.t f ON n.a = f.a",
    "SELECT (SELECT max(a) FROM far.t) FROM near.t",
    "WITH x AS (SELECT * FROM far.t) SELECT 1",
    "PIVOT far.t ON a USING count(*)",
    "FROM far.t",
    "DESCRIBE far.t",
    "DESCRIBE SELECT * FROM far.t",
    "EXPLAIN SELECT * FROM far.t",
    "EXPLAIN ANALYZE SELECT * FROM far.t",
    "CREATE TABLE mine AS SELECT * FROM far.t",
    "CREATE VIEW v AS SELECT * FROM far.t",
    "SELECT * FROM near.t SEMI JOIN far.t USING (a)",
]


@pytest.fixture
def listener() -> Iterator[tuple[int, list[Any]]]:
    """A port of this machine, and who came to it."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.1)
    callers: list[Any] = []
    ended = threading.Event()

    def accept() -> None:
        while not ended.is_set():
            try:
                connection, address = server.accept()
            except TimeoutError:
                continue
            callers.append(address)
            connection.close()

    thread = threading.Thread(target=accept)
    thread.start()
    yield server.getsockname()[1], callers
    ended.set()
    thread.join()
    server.close()


@pytest.fixture
def config(tmp_path: Path, listener: tuple[int, list[Any]]) -> dict[str, Any]:
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "t.parquet")
    uri = f"postgresql://u@127.0.0.1:{listener[0]}/d"
    return {
        "sources": {
            "near": {"kind": "files", "path": str(tmp_path)},
            "far": {"kind": "postgresql", "uri": uri, "locality": "public"},
        }
    }


@pytest.mark.parametrize("sql", QUERIES)
@pytest.mark.parametrize("tier", ["hybrid_sovereign", "private_cloud"])
def test_a_source_that_is_too_far_is_refused_and_not_contacted(
    config: dict[str, Any], listener: tuple[int, list[Any]], tier: str, sql: str
) -> None:
    with (
        batuta_sql.connect(config, tier=tier) as connection,
        pytest.raises(TierRefused, match=f"far: the tier {tier} does not allow") as refusal,
    ):
        connection.execute(sql)
    assert refusal.value.exit_status == 4
    assert listener[1] == []


def test_the_same_source_is_contacted_under_the_standard_tier(
    config: dict[str, Any], listener: tuple[int, list[Any]]
) -> None:
    """Else the tests above could not fail."""
    with (
        batuta_sql.connect(config) as connection,
        pytest.raises(batuta_sql.OperationalError, match="far"),
    ):
        connection.execute(QUERIES[0])
    assert listener[1] != []


@pytest.mark.parametrize(
    ("tier", "allowed"),
    [
        ("hybrid_sovereign", {"local", "private"}),
        ("private_cloud", {"local", "private", "vpc"}),
        ("standard", {"local", "private", "vpc", "public"}),
    ],
)
@pytest.mark.parametrize("locality", ["local", "private", "vpc", "public"])
def test_what_each_tier_allows(tmp_path: Path, tier: str, allowed: set[str], locality: str) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "t.parquet")
    source = {"kind": "files", "path": str(tmp_path), "locality": locality}
    with batuta_sql.connect({"sources": {"s": source}}, tier=tier) as connection:
        if locality in allowed:
            assert connection.execute("SELECT a FROM s.t").fetchall() == [(1,)]
        else:
            with pytest.raises(TierRefused):
                connection.execute("SELECT a FROM s.t")


def test_a_refusal_points_at_the_name_and_says_what_to_do(config: dict[str, Any]) -> None:
    with (
        batuta_sql.connect(config, tier="hybrid_sovereign") as connection,
        pytest.raises(TierRefused) as refusal,
    ):
        connection.execute("SELECT *\nFROM far.public.t")
    assert str(refusal.value) == (
        "far: the tier hybrid_sovereign does not allow a source that is public (declared)\n"
        "LINE 2: FROM far.public.t\n"
        "                        ^\n"
        "Hint: the tier allows sources that are local or private; the locality is declared in the"
        " configuration"
    )


def test_no_driver_is_even_loaded_for_a_refused_source() -> None:
    """A name that is looked up has already left the machine."""
    program = """
import sys, batuta_sql
source = {"kind": "postgresql", "uri": "postgresql://u@db.example.com/d"}
connection = batuta_sql.connect({"sources": {"far": source}}, tier="hybrid_sovereign")
try:
    connection.execute("SELECT * FROM far.t")
except batuta_sql.TierRefused as error:
    print(error.message)
print([m for m in sys.modules if m.startswith("adbc_driver_postgresql")])
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.splitlines() == [
        "the tier hybrid_sovereign does not allow a source that is public"
        " (db.example.com may be anywhere)",
        "[]",
    ], run.stderr


def test_listings_leave_out_what_the_tier_does_not_allow(
    config: dict[str, Any], listener: tuple[int, list[Any]]
) -> None:
    with batuta_sql.connect(config, tier="hybrid_sovereign") as connection:
        assert [r[0] for r in connection.execute("SHOW TABLES").fetchall()] == ["near.t"]
        tables = connection.execute("SELECT table_name FROM information_schema.tables")
        assert tables.fetchall() == [("t",)]
        with pytest.raises(TierRefused):
            connection.tables("far")
        checks = {c.name: c for c in connection.check()}
        assert checks["near"].allowed
        assert checks["near"].tables == 1
        assert not checks["far"].allowed
        assert (checks["far"].locality, checks["far"].error) == ("public", None)
    assert listener[1] == []


@pytest.mark.parametrize(
    ("forward", "passes"),
    [
        ("store.example.com:443", False),
        ("store.example.com:443=10.0.0.9:443", True),
        ("store.example.com:443=/run/store.sock", True),
        ("10.0.0.9:443", True),
    ],
)
def test_a_forward_is_no_way_around_the_tier(forward: str, passes: bool) -> None:
    from batuta_sql.cli.seal import ways_of

    settings = load_settings({"tier": "hybrid_sovereign", "seal": {"forwards": [forward]}})
    if passes:
        assert [f.name for f in ways_of(settings)[0]] == [forward.partition(":")[0]]
    else:
        with pytest.raises(TierRefused, match="does not allow the forward"):
            ways_of(settings)


@pytest.mark.parametrize(
    ("url", "passes"), [("http://10.0.0.9:5000", True), ("http://lineage.example.com", False)]
)
def test_the_seal_lets_events_out_where_the_tier_does(url: str, passes: bool) -> None:
    from batuta_sql.cli.seal import ways_of

    settings = load_settings({"tier": "hybrid_sovereign", "openlineage": {"url": url}})
    if passes:
        assert [(f.name, f.port) for f in ways_of(settings)[0]] == [("10.0.0.9", 5000)]
        off = load_settings(
            {"tier": "hybrid_sovereign", "openlineage": {"url": url, "enabled": False}}
        )
        assert ways_of(off)[0] == []
    else:
        with pytest.raises(TierRefused, match="does not allow events to lineage.example.com"):
            ways_of(settings)


def test_a_forward_that_is_none_is_an_error_of_the_configuration() -> None:
    with pytest.raises(batuta_sql.ConfigError, match="forwards"):
        load_settings({"seal": {"forwards": ["store.example.com"]}})
