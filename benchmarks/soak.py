"""``batuta-sql serve`` under many clients for a long time: no wrong answer, no growth, p99.

``python -m benchmarks.soak --minutes 30 --clients 50`` serves TPC-H tables of a small scale in a
PostgreSQL database, a Delta table, Parquet files and a DuckDB file. Each client asks a random
query of the mix, compares the answer with DuckDB's, and thinks a while; now and then one leaves in
the middle of a result, asks for what it may not have, or mistypes. The figures go to
``benchmarks/results/soak.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi
import adbc_driver_postgresql.dbapi
import deltalake
import duckdb
import pyarrow.parquet as pq

from batuta_sql.demo.postgres_server import PostgresServer
from benchmarks import tpch
from tests.flight.conftest import served

RESULTS = Path(__file__).parent / "results" / "soak.json"
SCALE = 0.1
USERS = 5

HOMES = {
    "customer": "crm",
    "orders": "crm",
    "nation": "crm",
    "lineitem": "lake",
    "part": "files",
    "partsupp": "files",
    "supplier": "store",
}

MIX: dict[str, str] = {
    "one row": "SELECT c_name, c_acctbal FROM crm.customer WHERE c_custkey = {key}",
    "a join of two sources": (
        "SELECT o_orderkey, sum(l_quantity) FROM crm.orders JOIN lake.lineitem"
        " ON l_orderkey = o_orderkey WHERE o_custkey = {key} GROUP BY 1 ORDER BY 1"
    ),
    "a join of three": (
        "SELECT n_name, count(*) AS n, sum(ps_availqty) AS q FROM files.partsupp"
        " JOIN store.supplier ON s_suppkey = ps_suppkey JOIN crm.nation"
        " ON n_nationkey = s_nationkey WHERE ps_partkey < {key} GROUP BY 1 ORDER BY 1"
    ),
    "a large group": (
        "SELECT l_returnflag, l_linestatus, count(*), sum(l_extendedprice) FROM lake.lineitem"
        " WHERE l_suppkey <> {key} GROUP BY 1, 2 ORDER BY 1, 2"
    ),
    "many rows": (
        "SELECT l_orderkey, l_partkey, l_comment FROM lake.lineitem"
        " WHERE l_suppkey < {few} ORDER BY 1, 2, 3"
    ),
    "windows": (
        "SELECT * FROM (SELECT o_custkey, o_orderkey, row_number() OVER (PARTITION BY o_custkey"
        " ORDER BY o_totalprice DESC, o_orderkey) AS place FROM crm.orders WHERE o_custkey < {key})"
        " WHERE place = 1 ORDER BY 1"
    ),
}
"""By name; half of what is asked is the first."""

LEAVES = "SELECT * FROM lake.lineitem"
FORBIDDEN = "SELECT c_phone FROM crm.customer LIMIT 1"
MISTYPED = "SELECT c_nme FROM crm.customer"


@dataclass
class Tally:
    """What one client, or all, have seen."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        for name, found in other.seconds.items():
            self.seconds.setdefault(name, []).extend(found)
        self.told += other.told
        self.wrong += other.wrong


# --- the sources -------------------------------------------------------------------------------


@contextmanager
def sources(folder: Path, data: Path) -> Iterator[str]:
    """The configuration of the sources, filled."""
    with ExitStack() as cleanup:
        server = cleanup.enter_context(PostgresServer())
        uri = cleanup.enter_context(server.database("crm"))
        mine = [t for t, home in HOMES.items() if home == "crm"]
        server.run("".join(tpch.ddl(data, t) for t in mine), uri.rsplit("/", 1)[1])
        with adbc_driver_postgresql.dbapi.connect(uri) as con, con.cursor() as cursor:
            for table in mine:
                rows = pq.read_table(data / f"{table}.parquet")
                cursor.adbc_ingest(table, rows, mode="append")
            for table, key in (("customer", "c_custkey"), ("orders", "o_orderkey")):
                cursor.execute(f"ALTER TABLE {table} ADD PRIMARY KEY ({key})")
            cursor.execute("CREATE INDEX ON orders (o_custkey)")
            con.commit()
        server.run("VACUUM ANALYZE", uri.rsplit("/", 1)[1])
        deltalake.write_deltalake(
            str(folder / "lake" / "lineitem"), pq.read_table(data / "lineitem.parquet")
        )
        (folder / "files").mkdir()
        for table in ("part", "partsupp"):
            pq.write_table(
                pq.read_table(data / f"{table}.parquet"), folder / "files" / f"{table}.parquet"
            )
        with duckdb.connect(str(folder / "store.duckdb")) as store:
            store.execute(f"CREATE TABLE supplier AS FROM '{data}/supplier.parquet'")
        yield "\n".join(
            [
                'memory_limit = "2GB"',
                f'[sources.crm]\nkind = "postgresql"\nuri = "{uri}"',
                '[sources.crm.tables.customer.columns.c_phone]\nlabels = ["pii"]',
                f'[sources.lake]\nkind = "delta"\npath = "{folder}/lake"',
                f'[sources.files]\nkind = "files"\npath = "{folder}/files"',
                f'[sources.store]\nkind = "duckdb"\npath = "{folder}/store.duckdb"',
                *(f'[serve.users.u{n}]\npassword = "p{n}"' for n in range(USERS)),
            ]
        )


# --- the clients -------------------------------------------------------------------------------


def answers(data: Path) -> dict[tuple[str, int], Any]:
    """DuckDB's answer to each query of the mix, for each key that is asked for."""
    found: dict[tuple[str, int], Any] = {}
    with duckdb.connect() as con:
        for table in HOMES:
            con.execute(f"CREATE TABLE {table} AS FROM '{data}/{table}.parquet'")
        for name, text in MIX.items():
            for key in KEYS:
                plain = text
                for home in set(HOMES.values()):
                    plain = plain.replace(f"{home}.", "")
                found[name, key] = con.execute(_filled(plain, key)).fetchall()
    return found


KEYS = range(100, 1100, 100)


def _filled(text: str, key: int) -> str:
    return text.format(key=key, few=key // 20)


def client(uri: str, number: int, until: float, think: float, right: Mapping[Any, Any]) -> Tally:
    chance = random.Random(number)
    tally = Tally()
    log_in = {"username": f"u{number % USERS}", "password": f"p{number % USERS}"}
    with closing(
        adbc_driver_flightsql.dbapi.connect(uri, db_kwargs=log_in, autocommit=True)
    ) as connection:
        while time.time() < until:
            time.sleep(chance.uniform(0, 2 * think))
            draw = chance.random()
            if draw < 0.02:
                _leave(connection, tally)
            elif draw < 0.05:
                _refused(connection, chance.choice((FORBIDDEN, MISTYPED)), tally)
            else:
                _ask(connection, chance, tally, right)
    return tally


def _ask(connection: Any, chance: random.Random, tally: Tally, right: Mapping[Any, Any]) -> None:
    names = list(MIX)
    name = names[0] if chance.random() < 0.5 else chance.choice(names[1:])
    key = chance.choice(KEYS)
    started = time.perf_counter()
    try:
        with connection.cursor() as cursor:
            cursor.execute(_filled(MIX[name], key))
            rows = cursor.fetchall()
    except Exception as error:
        if "UNAVAILABLE" in str(error).upper():
            tally.told["told to try again"] += 1
        else:
            tally.wrong.append(f"{name}: {' '.join(str(error).split())[:300]}")
        return
    tally.seconds.setdefault(name, []).append(time.perf_counter() - started)
    if rows != right[name, key]:
        tally.wrong.append(f"{name} for {key}: another answer")


def _leave(connection: Any, tally: Tally) -> None:
    with connection.cursor() as cursor:
        try:
            cursor.execute(LEAVES)
            cursor.fetchone()
        except Exception as error:
            if "UNAVAILABLE" not in str(error).upper():
                tally.wrong.append(f"leaving: {' '.join(str(error).split())[:300]}")
            return
    tally.told["left in the middle"] += 1


def _refused(connection: Any, sql: str, tally: Tally) -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            cursor.fetchall()
    except Exception:
        tally.told["refused, as it should be"] += 1
    else:
        tally.wrong.append(f"not refused: {sql}")


def clients(uri: str, first: int, count: int, until: float, think: float, data: Path) -> Tally:
    """Some clients of one process."""
    right, all_ = answers(data), Tally()
    lock = threading.Lock()

    def work(number: int) -> None:
        mine = client(uri, number, until, think, right)
        with lock:
            all_.add(mine)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(first, first + count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return all_


# --- the whole ---------------------------------------------------------------------------------


def run(minutes: float, count: int, think: float) -> dict[str, Any]:
    data = tpch.data(SCALE)
    with tempfile.TemporaryDirectory() as own, ExitStack() as cleanup:
        folder = Path(own)
        file = folder / "batuta.toml"
        file.write_text(cleanup.enter_context(sources(folder, data)))
        os.environ["XDG_DATA_HOME"] = str(folder / "history")
        it = cleanup.enter_context(served(file, folder))
        until = time.time() + minutes * 60
        command = [sys.executable, "-m", "benchmarks.soak", "--clients-of", it.uri]
        # To files: what they have to say is more than a pipe holds.
        files = [(folder / f"clients{first}.json").open("w+") for first in (0, count // 2)]
        others = [
            subprocess.Popen(
                [*command, str(first), str(count // 2), str(until), str(think), str(data)],
                stdout=file,
                text=True,
                cwd=tpch.ROOT,
            )
            for first, file in zip((0, count // 2), files, strict=True)
        ]
        held: list[tuple[float, int, int]] = []
        started = time.time()
        while any(p.poll() is None for p in others):
            held.append((round(time.time() - started), *_held(it.process.pid)))
            time.sleep(10)
        tally = Tally()
        for output in files:
            output.seek(0)
            found = json.loads(output.read())
            output.close()
            tally.add(Tally(found["seconds"], Counter(found["told"]), found["wrong"]))
        time.sleep(5)
        held.append((round(time.time() - started), *_held(it.process.pid)))
    return _figures(minutes, count, think, tally, held)


def _held(pid: int) -> tuple[int, int]:
    """Resident megabytes and threads of a process."""
    told = Path(f"/proc/{pid}/status").read_text()
    facts = dict(line.split(":", 1) for line in told.splitlines())
    return int(facts["VmRSS"].split()[0]) // 1024, int(facts["Threads"])


def _figures(
    minutes: float, count: int, think: float, tally: Tally, held: list[tuple[float, int, int]]
) -> dict[str, Any]:
    every = [s for found in tally.seconds.values() for s in found]
    third = max(len(held) // 3, 1)
    return {
        "minutes": minutes,
        "clients": count,
        "think": think,
        "queries": len(every),
        "wrong": tally.wrong[:20],
        "told": dict(tally.told),
        "all": _quantiles(every),
        "by query": {name: _quantiles(found) for name, found in tally.seconds.items()},
        "megabytes": {
            "first third": round(statistics.median(m for _, m, _ in held[:third])),
            "second": round(statistics.median(m for _, m, _ in held[third : 2 * third])),
            "last": round(statistics.median(m for _, m, _ in held[2 * third :])),
            "most": max(m for _, m, _ in held),
        },
        "threads": {"most": max(t for _, _, t in held), "at the end": held[-1][2]},
        "held": held,
    }


def _quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 3)

    return {"n": len(ordered), "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "most": at(1.0)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--think", type=float, default=5, help="seconds between, on average")
    parser.add_argument("--clients-of", nargs=6, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.clients_of:
        uri, first, count, until, think, data = wanted.clients_of
        found = clients(uri, int(first), int(count), float(until), float(think), Path(data))
        print(json.dumps({"seconds": found.seconds, "told": found.told, "wrong": found.wrong}))
        return
    figures = run(wanted.minutes, wanted.clients, wanted.think)
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps({k: v for k, v in figures.items() if k != "held"}, indent=1))


if __name__ == "__main__":
    main()
