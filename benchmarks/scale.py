"""Residuals larger than memory: DuckDB that spills beside a Spark Connect server, at some scales.

``python -m benchmarks.scale --scales 1 3 10`` writes ``benchmarks/results/scale.json`` and prints
the tables of ``docs/scale.md``, with the model that the smaller scales give and how far off it is
at the largest. Each run is a process of its own, so that its peak is its own.

Two sources: ``lake``, Parquet files (lineitem, partsupp, part), and ``crm``, a DuckDB file (orders,
customer, supplier, nation). Semi-joins and partial aggregation are off: what is measured is the
residual, and with them little of these queries would be left.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

import batuta_sql
from benchmarks import tpch
from tests.emulators.process import Emulator, running
from tests.tpc.placements import query_text

RESULTS = Path(__file__).parent / "results" / "scale.json"
LAKE = ("lineitem", "partsupp", "part")
QUERIES: dict[str, str] = {
    "distinct": (
        "SELECT o_orderpriority, count(*) AS n, count(DISTINCT l_suppkey) AS suppliers,"
        " sum(l_extendedprice * (1 - l_discount)) AS revenue"
        " FROM lineitem JOIN orders ON l_orderkey = o_orderkey"
        " GROUP BY o_orderpriority ORDER BY o_orderpriority"
    ),
    "customers": (
        "SELECT o_custkey, count(DISTINCT l_partkey) AS parts, sum(l_quantity) AS q"
        " FROM lineitem JOIN orders ON l_orderkey = o_orderkey GROUP BY o_custkey"
        " ORDER BY parts DESC, q DESC, o_custkey LIMIT 10"
    ),
    "q09": query_text("tpch", 9),
    "q18": query_text("tpch", 18),
}
WAYS = ("memory", "spilling", "staged", "in place")
SMALL = "500MB"


@dataclass(frozen=True)
class Run:
    """One query in one way.

    :param seconds: from execute to the last row.
    :param peak: bytes, the most that this process held.
    :param arrived: bytes of Arrow data that the fragments brought here.
    :param spilled: bytes, the most that lay in the engine's folder at once.
    :param staged: bytes of Parquet that were written for the server.
    :param server_peak: bytes that the server's processes held at once.
    :param rows: of the answer, as a text that another run's must equal.
    """

    query: str
    way: str
    scale: float
    seconds: float
    peak: int
    arrived: int
    spilled: int
    staged: int
    server_peak: int
    rows: str


# --- one run, in a process of its own ----------------------------------------------------------


def one(query: str, way: str, scale: float, port: int) -> Run:
    folder = tpch.data(scale)
    text = QUERIES[query]
    for table in (*LAKE, "orders", "customer", "supplier", "nation"):
        home = "lake" if table in LAKE else "crm"
        text = _placed(text, table, f"{home}.{table}")
    with tempfile.TemporaryDirectory(dir=tpch.ROOT / ".cache") as own:
        config: dict[str, Any] = {
            "semi_joins": "off",
            "partial_aggregation": "off",
            "result_cache": 0,
            "temp_directory": f"{own}/spill",
            "sources": {
                "lake": {
                    "kind": "files",
                    "tables": {t: {"path": str(folder / f"{t}.parquet")} for t in LAKE},
                },
                "crm": {"kind": "duckdb", "path": str(folder / "crm.duckdb")},
            },
        }
        if way != "memory":
            config["memory_limit"] = SMALL
        if way in ("staged", "in place"):
            config["engine"] = {
                "kind": "spark",
                "url": f"sc://127.0.0.1:{port}",
                "stage": f"{own}/stage",
                "from_bytes": 0,
                "in_place": ["lake"] if way == "in place" else [],
            }
        with _watched(Path(own) / "spill") as spilled, batuta_sql.connect(config) as connection:
            started = time.perf_counter()
            cursor = connection.execute(text)
            rows = cursor.fetchall()
            seconds = time.perf_counter() - started
            metrics = cursor.metrics
        engine = metrics["engine"] or {}
        if way in ("staged", "in place") and not engine:
            raise SystemExit(f"{query} did not go to the server: {cursor.plan}")
        return Run(
            query,
            way,
            scale,
            round(seconds, 2),
            _peak(),
            metrics["bytes"],
            max(spilled),
            engine.get("bytes_staged", 0),
            0,
            str(rows),
        )


def _peak() -> int:
    """Bytes; ``ru_maxrss`` would begin with what the parent held."""
    told = Path("/proc/self/status").read_text().splitlines()
    (line,) = [row for row in told if row.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def _placed(text: str, table: str, name: str) -> str:
    import sqlglot
    from sqlglot import exp

    tree = sqlglot.parse_one(text, read="duckdb")
    for node in tree.find_all(exp.Table):
        if node.name == table and not node.db:
            node.replace(exp.alias_(exp.to_table(name), node.alias or table, table=True))
    return tree.sql("duckdb")


@contextmanager
def _watched(folder: Path) -> Iterator[list[int]]:
    """The sizes of a folder over time."""
    sizes, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            total = 0
            for below, _, files in os.walk(folder):
                for file in files:
                    try:
                        total += os.stat(os.path.join(below, file)).st_size
                    except OSError:
                        continue
            sizes.append(total)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield sizes
    finally:
        ended.set()
        thread.join()


# --- the server --------------------------------------------------------------------------------


@contextmanager
def server(kind: str, folder: Path) -> Iterator[Emulator]:
    """Two workers: Sail's own processes, or Apache Spark's threads."""
    if kind == "sail":
        environment = {
            "SAIL_MODE": "local-cluster",
            "SAIL_CLUSTER__WORKER_INITIAL_COUNT": "2",
            "SAIL_CLUSTER__WORKER_MAX_COUNT": "2",
        }
        command = ["-m", "pysail", "spark", "server", "--port"]
        with running("spark", lambda p: [*command, str(p)], folder, environment=environment) as it:
            yield it
    else:
        script = str(tpch.ROOT / "tests" / "emulators" / "apache_spark_process.py")
        environment = {"BATUTA_SPARK_MEMORY": "6g"}
        with running(
            "pyspark", lambda p: [script, str(p), str(folder)], folder, environment=environment
        ) as it:
            yield it


def _memory_of(port: int) -> int:
    """Bytes that the processes of a server, found by their port, hold now."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            command = (status.parent / "cmdline").read_bytes()
            if str(port).encode() not in command:
                continue
            held = [r for r in status.read_text().splitlines() if r.startswith("VmRSS")]
        except OSError:
            continue
        total += sum(int(r.split()[1]) * 1024 for r in held)
    return total


# --- all of them -------------------------------------------------------------------------------


def measure(kind: str, scales: Sequence[float], queries: Sequence[str]) -> list[Run]:
    runs: list[Run] = []
    for scale in scales:
        folder = tpch.data(scale)
        _crm(folder)
        answers: dict[str, str] = {}
        with tempfile.TemporaryDirectory() as own, server(kind, Path(own)) as it:
            _child("q18", "staged", min(scales), it.port)  # warms the server
            for query in queries:
                for way in WAYS:
                    run = _child(query, way, scale, it.port)
                    print(json.dumps({k: v for k, v in asdict(run).items() if k != "rows"}))
                    sys.stdout.flush()
                    if answers.setdefault(query, run.rows) != run.rows:
                        raise SystemExit(f"{query} {way} {scale}: another answer")
                    runs.append(run)
    return runs


def _child(query: str, way: str, scale: float, port: int) -> Run:
    command = [sys.executable, "-m", "benchmarks.scale", "--one", query, way, str(scale), str(port)]
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tpch.ROOT) as process:
        while process.poll() is None:
            peak = max(peak, _memory_of(port) if way in ("staged", "in place") else 0)
            time.sleep(0.2)
        assert process.stdout is not None
        output = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{query} {way} {scale} failed")
    found = json.loads(output.splitlines()[-1])
    return Run(**found | {"server_peak": peak})


def _crm(folder: Path) -> None:
    file = folder / "crm.duckdb"
    if file.exists():
        return
    with duckdb.connect(str(file)) as con:
        for table in ("orders", "customer", "supplier", "nation"):
            con.execute(f"CREATE TABLE {table} AS FROM '{folder / table}.parquet'")


# --- the model ---------------------------------------------------------------------------------


def model(runs: Sequence[Run], query: str, way: str) -> tuple[float, float]:
    """Seconds of the start, and per scale factor: a line through the two smaller scales."""
    mine = sorted((r.scale, r.seconds) for r in runs if (r.query, r.way) == (query, way))
    (low, first), (high, second) = mine[0], mine[-2]
    slope = (second - first) / (high - low)
    return first - slope * low, slope


def table(runs: Sequence[Run]) -> str:
    scale = max(r.scale for r in runs)
    lines = [
        "| query | way | seconds | model | off | here, at its peak | spilled | staged | server |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for run in runs:
        if run.scale != scale:
            continue
        start, slope = model(runs, run.query, run.way)
        thought = start + slope * scale
        lines.append(
            f"| {run.query} | {run.way} | {run.seconds:.1f} | {thought:.1f}"
            f" | {(thought - run.seconds) / run.seconds:+.0%} | {_gb(run.peak)}"
            f" | {_gb(run.spilled)} | {_gb(run.staged)} | {_gb(run.server_peak)} |"
        )
    return "\n".join(lines)


WORKERS = 2
PAPER_BYTES, PAPER_WORKERS = 10e12, 50


def paper(runs: Sequence[Run], query: str) -> str:
    """What the same query would take over 10 TB and 50 workers, by the slopes that were measured.

    In place: the server's rate, a worker's times the workers. Staged: the bytes also pass through
    one process, which stages them at its own rate, whatever the workers.
    """
    largest = max(r.scale for r in runs)
    (bytes_,) = [r.arrived for r in runs if (r.query, r.way, r.scale) == (query, "memory", largest)]
    per_scale = bytes_ / largest
    _, in_place = model(runs, query, "in place")
    _, staged = model(runs, query, "staged")
    worker = per_scale / in_place / WORKERS
    stage = per_scale / max(staged - in_place, 1e-9)
    there = PAPER_BYTES / (worker * PAPER_WORKERS)
    return (
        f"{query}: a worker {worker / 1e6:,.0f} MB/s, staging {stage / 1e6:,.0f} MB/s; 10 TB over"
        f" {PAPER_WORKERS} workers: in place {there / 3600:.1f} h, staged by one process"
        f" {(there + PAPER_BYTES / stage) / 3600:.1f} h"
    )


def _gb(bytes_: int) -> str:
    return f"{bytes_ / 1e9:.2f} GB" if bytes_ else ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description=__doc__)
    parser.add_argument("--scales", type=float, nargs="+", default=[1, 3, 10])
    parser.add_argument("--server", choices=("sail", "spark"), default="sail")
    parser.add_argument("--queries", nargs="+", choices=QUERIES, default=list(QUERIES))
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--table", action="store_true", help="measure nothing: print again")
    wanted = parser.parse_args()
    if wanted.one:
        query, way, scale, port = wanted.one
        print(json.dumps(asdict(one(query, way, float(scale), int(port)))))
        return
    known: Mapping[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not wanted.table:
        runs = measure(wanted.server, wanted.scales, wanted.queries)
        kept = [{**asdict(r), "rows": ""} for r in runs]
        known = {**known, wanted.server: kept}
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    for name, each in known.items():
        runs = [Run(**r) for r in each]
        print(f"\n{name}\n{table(runs)}")
        for query in dict.fromkeys(r.query for r in runs):
            print(paper(runs, query))


if __name__ == "__main__":
    main()
