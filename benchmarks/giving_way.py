"""What a copy takes from another user of the same server, with and without giving way.

``python -m benchmarks.giving_way``: a second client, in a process of its own, sends a small query
over and over; its seconds alone, beside a copy that takes what it can get, and beside one that
gives way. Written to ``benchmarks/results/giving-way.json``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi

import batuta_sql
from benchmarks import tpch

RESULTS = Path(__file__).parent / "results"
QUERY = "SELECT count(*), sum(l_quantity) FROM (SELECT * FROM lineitem LIMIT 60000) AS first_rows"
PAUSE = 0.1
WARMS, ALONE = 3.0, 15.0
PHASES = ("alone", "beside a copy", "beside one that gives way")
NONE = -1


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.giving_way", description=__doc__)
    parser.add_argument("--scale", type=float, default=1, help="TPC-H scale factor")
    wanted = parser.parse_args()
    folder = tpch.data(wanted.scale)
    with tpch.servers(folder) as uris:
        result = measured(uris["supply"])
    (RESULTS / "giving-way.json").write_text(json.dumps(result, indent=1) + "\n")
    for name, told in result.items():
        copy = f"; the copy took {told['copy']:.1f} s" if told["copy"] else ""
        print(
            f"{name}: {told['queries']} queries, {told['median'] * 1000:.1f} ms in the median,"
            f" {told['mean'] * 1000:.1f} on average, nine of ten within"
            f" {told['ninth'] * 1000:.1f}{copy}"
        )
    return 0


def measured(uri: str) -> dict[str, dict[str, Any]]:
    """The second client's seconds in each phase."""
    spawn = multiprocessing.get_context("spawn")
    phase, stop, answers = spawn.Value("i", NONE), spawn.Event(), spawn.Queue()
    client = spawn.Process(target=second_client, args=(uri, phase, stop, answers))
    client.start()
    copies = [0.0]
    time.sleep(WARMS)
    phase.value = 0
    time.sleep(ALONE)
    for number, throttle in ((1, False), (2, True)):
        phase.value = NONE
        copies.append(copied(uri, throttle, phase, number))
    phase.value = NONE
    stop.set()
    seconds = answers.get(timeout=60)
    client.join()
    return {
        name: {
            "queries": len(seconds[n]),
            "median": statistics.median(seconds[n]),
            "mean": statistics.mean(seconds[n]),
            "ninth": statistics.quantiles(seconds[n], n=10)[-1],
            "copy": copies[n],
        }
        for n, name in enumerate(PHASES)
    }


def copied(uri: str, throttle: bool, phase: Any, number: int) -> float:
    """Copies the largest table; the phase is the copy, but for its first second."""
    source = {"kind": "postgresql", "uri": uri, "locality": "local", "throttle": throttle}
    config = {"cost": {"history": False}, "sources": {"supply": source}}
    with (
        tempfile.TemporaryDirectory() as folder,
        batuta_sql.connect(config) as connection,
    ):

        def watch(progress: Any) -> None:
            if progress.seconds > 1:
                phase.value = number

        started = time.monotonic()
        connection.sync("supply.lineitem", Path(folder) / "lineitem", progress=watch)
        return time.monotonic() - started


def second_client(uri: str, phase: Any, stop: Any, answers: Any) -> None:
    """Asks over and over; gives the seconds of each answer by phase."""
    seconds: dict[int, list[float]] = {}
    with adbc_driver_postgresql.dbapi.connect(uri, autocommit=True) as server:
        for setting in ("max_parallel_workers_per_gather = 0", "jit = off"):
            with server.cursor() as cursor:
                cursor.execute(f"SET {setting}")
        while not stop.is_set():
            now, started = phase.value, time.perf_counter()
            with server.cursor() as cursor:
                cursor.execute(QUERY)
                cursor.fetchall()
            seconds.setdefault(now, []).append(time.perf_counter() - started)
            time.sleep(PAUSE)
    answers.put(seconds)


if __name__ == "__main__":
    raise SystemExit(main())
