"""What Batuta is measured against, each in a process and an environment of its own.

DuckDB 1.5.5 with its postgres extension runs the same queries on the same servers. The floor is the
same DuckDB with all tables in memory here: what is left when nothing is moved at all.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.link import Link
from benchmarks.tpch import QUERIES, TPC_PYTHON, placed

_SERVE = """
import importlib, json, sys, time
from pathlib import Path
import duckdb
tables, uris = json.loads(sys.stdin.readline())
con = duckdb.connect()
con.execute("SET enable_progress_bar = false")
for schema, files in tables.items():
    con.execute(f"ATTACH ':memory:' AS {schema}")
    con.execute(f"CREATE SCHEMA {schema}.public")
    for name, file in files.items():
        con.execute(f"CREATE TABLE {schema}.public.{name} AS FROM '{file}'")
if uris:
    package = importlib.import_module("duckdb_extension_postgres_scanner")
    (binary,) = (Path(package.__file__).parent / "extensions").rglob("*.duckdb_extension")
    con.execute(f"LOAD '{binary}'")
for name, uri in uris.items():
    con.execute(f"ATTACH '{uri}' AS {name} (TYPE postgres, READ_ONLY)")
print("ready", flush=True)
for line in sys.stdin:
    started = time.perf_counter()
    con.sql(json.loads(line)).arrow()
    print(time.perf_counter() - started, flush=True)
"""


@dataclass(frozen=True)
class PeerMeasured:
    """One query of a peer: the median of its runs in seconds; bytes of one over the link."""

    seconds: float
    wire: int | None = None


class PeerFailed(Exception):
    """What the peer said last."""


@dataclass(frozen=True)
class Peer:
    """A running DuckDB of another version."""

    _process: subprocess.Popen[str]

    def seconds(self, sql: str) -> float:
        """Runs a query to its last row."""
        return float(self._ask(json.dumps(sql)))

    def _ask(self, line: str) -> str:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            assert process.stderr is not None
            raise PeerFailed((process.stderr.read().strip().splitlines() or ["it ended"])[-1])
        return answer


@contextmanager
def peer(tables: Mapping[str, Mapping[str, Path]], uris: Mapping[str, str]) -> Iterator[Peer]:
    """A DuckDB with tables in memory, by schema, and PostgreSQL databases attached."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [str(TPC_PYTHON), "-c", _SERVE], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            running = Peer(process)
            files = {s: {n: str(f) for n, f in found.items()} for s, found in tables.items()}
            running._ask(json.dumps([files, dict(uris)]))
            yield running
        finally:
            process.kill()


def extension(
    uris: Mapping[str, str], counted: Mapping[str, str], link: Link, runs: int
) -> dict[int, PeerMeasured]:
    """DuckDB's extension on each query.

    :param counted: the same databases through ``link``, for one run whose bytes are counted; with
        one run over a slow link that is the run. (It does not warm up: nothing is cached there.)
    """
    found: dict[int, PeerMeasured] = {}
    with peer({}, counted) as through, peer({}, uris) as direct:
        for number in QUERIES:
            sql = placed(number)[0]
            before = link.carried().both
            first = through.seconds(sql)
            wire = link.carried().both - before
            if counted == uris and runs == 1:
                found[number] = PeerMeasured(first, wire)
                continue
            direct.seconds(sql)
            taken = statistics.median(direct.seconds(sql) for _ in range(runs))
            found[number] = PeerMeasured(taken, wire)
    return found


def floor(folder: Path, homes: Mapping[str, tuple[str, ...]], runs: int) -> dict[int, float]:
    """Seconds of each query with every table here already."""
    tables = {h: {n: folder / f"{n}.parquet" for n in names} for h, names in homes.items()}
    found: dict[int, float] = {}
    with peer(tables, {}) as here:
        for number in QUERIES:
            sql = placed(number)[0]
            here.seconds(sql)
            found[number] = statistics.median(here.seconds(sql) for _ in range(runs))
    return found
