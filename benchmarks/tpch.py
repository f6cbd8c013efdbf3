"""TPC-H split over two PostgreSQL databases: the data, the servers, one measured query."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import sqlglot
from sqlglot import exp

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer
from benchmarks.link import Link
from tests.tpc.keys import PRIMARY_KEYS
from tests.tpc.placements import query_text

ROOT = Path(__file__).parent.parent
TPC_PYTHON = ROOT / ".cache" / "venv-tpc" / "bin" / "python"

HOMES = {
    "sales": ("customer", "orders", "nation", "region"),
    "supply": ("lineitem", "part", "partsupp", "supplier"),
}
"""Source -> its tables: nearly every query needs both."""

QUERIES = range(1, 23)


@dataclass(frozen=True)
class Measured:
    """One query over one link.

    :param seconds: median of the runs, from execute to the last row.
    :param planning: seconds, median, with a warm catalog.
    :param rows: moved from the sources.
    :param wire: bytes that went over the link, both ways, in one run.
    :param read: rows of all tables that the query names, each table counted once.
    :param memory: the most that this process held in one run: resident bytes.
    :param fallbacks: why parts ran through the fallback scan.
    :param answer: of the run whose bytes were counted.
    """

    number: int
    seconds: float
    planning: float
    rows: int
    wire: int
    fragments: int
    read: int
    memory: int
    fallbacks: tuple[str, ...]
    answer: pa.Table


def data(scale: float) -> Path:
    """The folder with the generated Parquet files, made where it is missing."""
    folder = ROOT / ".cache" / "bench" / f"sf{scale:g}"
    if not (folder / "tpch" / "supplier.parquet").exists():
        make = (
            "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
            "import generate;"
            "generate.generate('tpch', 'dbgen', Path(sys.argv[2]), float(sys.argv[3]))"
        )
        subprocess.run(
            [str(TPC_PYTHON), "-c", make, str(ROOT / "tests" / "tpc"), str(folder), str(scale)],
            check=True,
        )
    return folder / "tpch"


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """Both databases, filled and analysed; gives each one's URI."""
    with ExitStack() as cleanup:
        server = cleanup.enter_context(PostgresServer())
        uris: dict[str, str] = {}
        for database, tables in HOMES.items():
            uri = cleanup.enter_context(server.database(database))
            uris[database] = uri
            name = uri.rsplit("/", 1)[1]
            server.run("".join(ddl(folder, t) for t in tables), name)
            with adbc_driver_postgresql.dbapi.connect(uri) as con, con.cursor() as cursor:
                for table in tables:
                    file = pq.ParquetFile(folder / f"{table}.parquet")
                    for batch in file.iter_batches(200_000):
                        cursor.adbc_ingest(table, batch, mode="append")
                con.commit()
            for table in tables:
                key = ", ".join(PRIMARY_KEYS["tpch"][table])
                server.run(f"ALTER TABLE {table} ADD PRIMARY KEY ({key})", name)
            server.run("VACUUM ANALYZE", name)
        yield uris


def ddl(folder: Path, table: str) -> str:
    with duckdb.connect() as con:
        described = con.execute(f"DESCRIBE FROM '{folder / table}.parquet'").fetchall()
    columns = ", ".join(f"{name} {kind} NOT NULL" for name, kind, *_ in described)
    return f"CREATE TABLE {table} ({columns});\n"


def table_rows(folder: Path) -> dict[str, int]:
    return {p.stem: pq.read_metadata(p).num_rows for p in folder.glob("*.parquet")}


def placed(number: int) -> tuple[str, set[str]]:
    """A query's text with each table at its home, and the tables."""
    text = query_text("tpch", number)
    tree = sqlglot.parse_one(text, dialect="duckdb")
    common = {c.alias.lower() for c in tree.find_all(exp.CTE)}
    edits: list[tuple[int, int, str]] = []
    tables: set[str] = set()
    for table in tree.find_all(exp.Table):
        name = table.name.lower()
        if not name or name in common:
            continue
        tables.add(name)
        home = next(h for h, names in HOMES.items() if name in names)
        full = f"{home}.public.{name}" + ("" if table.alias else f" AS {name}")
        edits.append((table.this.meta["start"], table.this.meta["end"] + 1, full))
    for start, end, full in sorted(edits, reverse=True):
        text = text[:start] + full + text[end:]
    return text, tables


@contextmanager
def connect(uris: Mapping[str, str]) -> Iterator[Any]:
    """A connection whose sources have been measured, as ``batuta-sql tune`` does."""
    sources = {
        name: {"kind": "postgresql", "uri": uri, "locality": "local"} for name, uri in uris.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        # No TTL: planning is measured with a catalog that is known.
        config = {
            "catalog_ttl": 3600,
            "cost": {"history": False},
            "profile_file": str(Path(folder) / "profile.json"),
            "sources": sources,
        }
        with batuta_sql.connect(config) as connection:
            connection.tune()
            yield connection


def measure(
    connection: Any, number: int, rows: dict[str, int], runs: int, link: Link, counted: Any
) -> Measured:
    """Runs a query once to warm up and ``runs`` times to measure, planned anew each time.

    :param counted: a connection through ``link``, by which the bytes of one run are counted.
    """
    sql, tables = placed(number)
    _run(counted, sql)
    before = link.carried().both
    answer = _run(counted, sql)
    wire = link.carried().both - before
    seconds: list[float] = []
    planning: list[float] = []
    memory: list[int] = []
    metrics: dict[str, Any] = {}
    fallbacks: tuple[str, ...] = ()
    for attempt in range(runs + 1):
        with closing(connection.cursor()) as cursor:
            forget_peak_memory()
            # The plan of the run before is forgotten: peers plan each time, too.
            connection._session.prepared.clear()
            started = time.perf_counter()
            cursor.execute(sql)
            cursor.fetch_arrow_table()
            taken = time.perf_counter() - started
            metrics = cursor.metrics
            fallbacks = cursor.plan.fallbacks
        if attempt:
            seconds.append(taken)
            planning.append(metrics["planning_seconds"])
            memory.append(peak_memory())
    return Measured(
        number,
        statistics.median(seconds),
        statistics.median(planning),
        metrics["rows"],
        wire,
        len(metrics["fragments"]),
        sum(rows[t] for t in tables),
        max(memory),
        fallbacks,
        answer,
    )


def _run(connection: Any, sql: str) -> pa.Table:
    with closing(connection.cursor()) as cursor:
        cursor.execute(sql)
        return cursor.fetch_arrow_table()


def forget_peak_memory() -> None:
    """The peak of resident memory starts again (Linux: proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Bytes: the most that this process has held since ``forget_peak_memory``."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def import_seconds(statement: str, runs: int = 10) -> float:
    """Median wall time of a fresh Python that runs ``statement``, in seconds."""
    taken = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True, cwd=ROOT)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])
