"""What a query holds at once is bounded: ``memory_limit`` and 300 MB, whatever it moves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from batuta_sql.demo.postgres_server import PostgresServer

BEYOND = 300
"""Megabytes beside ``memory_limit``: the interpreter, its libraries, batches on their way."""

RUN = '''
import json, sys

class NoFrames:
    """Libraries of data frames come on top, where they are installed: the driver imports them."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pandas", "polars"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoFrames())

import batuta_sql

config, sql, how = json.loads(sys.argv[1])
moved = 0
with batuta_sql.connect(config) as con:
    cursor = con.execute(sql)
    if how == "stream":
        rows = [[sum(batch.num_rows for batch in cursor.fetch_record_batch())]]
    else:
        rows = cursor.fetchall()
    moved = cursor.metrics["bytes"]
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([rows, moved, int(peak.split()[1]) * 1024]))
'''

ROWS = 1_500_000


@pytest.fixture(scope="module")
def uri(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database("memory") as made:
        for name in ("a", "b"):
            postgres.run(
                f"CREATE TABLE {name} AS SELECT i AS id, repeat(md5(i::text), 4) AS pad"
                f" FROM generate_series(1, {ROWS}) i; ANALYZE {name}",
                made.rsplit("/", 1)[1],
            )
        yield made


def run(uri: str, limit: int, sql: str, how: str = "rows") -> tuple[Any, int, int]:
    """Rows, bytes that were moved, and the most that the process held, both in megabytes."""
    source = {"kind": "postgresql", "uri": uri}
    config = {
        "memory_limit": f"{limit}MB",
        "semi_joins": "off",
        "cost": {"history": False},
        "sources": {"s1": source, "s2": source},
    }
    arguments = [sys.executable, "-c", RUN, json.dumps([config, sql, how])]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows, moved, peak = json.loads(done.stdout)
    return rows, moved // 10**6, peak // 10**6


def test_a_join_of_more_than_fits(uri: str) -> None:
    sql = (
        "SELECT count(*) AS n, sum(length(a.pad || b.pad)) AS s"
        " FROM s1.a JOIN s2.b ON a.id = b.id AND a.pad = b.pad"
    )
    rows, moved, peak = run(uri, 150, sql)
    assert rows == [[ROWS, ROWS * 256]]
    assert moved > 2 * 150
    assert peak <= 150 + BEYOND


def test_a_result_that_is_read_as_a_stream(uri: str) -> None:
    rows, moved, peak = run(uri, 100, "SELECT id, pad FROM s1.a WHERE id > 0", "stream")
    assert rows == [[ROWS]]
    assert moved > 100
    assert peak <= 100 + BEYOND


def test_an_order_of_more_than_fits(uri: str) -> None:
    sql = "SELECT id, pad FROM s1.a ORDER BY reverse(pad) LIMIT 1000000 OFFSET 10"
    rows, _, peak = run(uri, 150, sql, "stream")
    assert rows == [[1_000_000]]
    assert peak <= 150 + BEYOND
