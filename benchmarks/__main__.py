"""``make bench``: TPC-H over two PostgreSQL databases, written to ``docs/performance.md``.

On loopback and over a slow link, beside the peers of ``benchmarks/peers.py``, whose answers are
compared with Batuta's. The figures go to ``benchmarks/results`` as JSON, the page and its picture
are made of them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import overhead, page, peers, plot, tpch
from benchmarks.link import link

RESULTS = Path(__file__).parent / "results"
DOCS = tpch.ROOT / "docs"
PACKAGES = ("duckdb", "pyarrow", "sqlglot", "adbc-driver-postgresql")
SLOW_RATE, SLOW_DELAY = 200e6, 0.01


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--scale", type=float, default=1, help="TPC-H scale factor")
    parser.add_argument("--runs", type=int, default=3, help="runs that count, after one that warms")
    parser.add_argument("--slow-runs", type=int, default=1, help="the same, over the slow link")
    parser.add_argument("--only", choices=("loopback", "slow"), help="one link; the other stays")
    parser.add_argument("--page-only", action="store_true", help="measure nothing: write again")
    wanted = parser.parse_args()
    file = RESULTS / f"tpch-sf{wanted.scale:g}.json"
    if not wanted.page_only:
        file.parent.mkdir(exist_ok=True)
        before = json.loads(file.read_text()) if wanted.only is not None else None
        file.write_text(json.dumps(measured(wanted, before), indent=1) + "\n")
    result = json.loads(file.read_text())
    picture = DOCS / "performance.svg"
    plot.draw(result, picture)
    (DOCS / "performance.md").write_text(page.text(result, picture.name))
    return 0


def measured(wanted: argparse.Namespace, before: dict[str, Any] | None) -> dict[str, Any]:
    """A run's figures.

    :param before: those of an earlier run, whose other link stays as it was.
    """
    folder = tpch.data(wanted.scale)
    floor = peers.floor(folder, tpch.HOMES, wanted.runs)
    command = (
        f"python -m benchmarks --scale {wanted.scale:g} --runs {wanted.runs}"
        f" --slow-runs {wanted.slow_runs}"
    )
    if before is not None:
        command = f"{before['command']}`, then `{command} --only {wanted.only}"
    result: dict[str, Any] = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores; {platform.system()}, {platform.machine()};"
        f" Python {platform.python_version()}",
        "versions": {p: version(p) for p in PACKAGES},
        "scale": wanted.scale,
        "links": dict(before["links"]) if before is not None else {},
    }
    rows = tpch.table_rows(folder)
    with tpch.servers(folder) as uris:
        port = urlsplit(next(iter(uris.values()))).port
        assert port is not None
        for choice, name, rate, delay, runs in (
            ("loopback", "loopback", None, 0.0, wanted.runs),
            ("slow", page.SLOW, SLOW_RATE, SLOW_DELAY, wanted.slow_runs),
        ):
            if wanted.only not in (None, choice):
                continue
            print(name, flush=True)
            result["links"][name] = over(uris, port, rate, delay, runs, rows, floor)
        result["point_query"] = overhead.point_query(uris)
    result["planning"] = overhead.planning()
    names = ("import batuta_sql", "import batuta_sql; batuta_sql.connect")
    names += ("import duckdb, pyarrow, sqlglot",)
    result["imports"] = {n: tpch.import_seconds(n) for n in names}
    return result


def over(
    uris: Mapping[str, str],
    port: int,
    rate: float | None,
    delay: float,
    runs: int,
    rows: dict[str, int],
    floor: Mapping[int, float],
) -> list[dict[str, Any]]:
    """All queries over one link; without a rate they are timed beside it and counted through it."""
    found: list[dict[str, Any]] = []
    with ExitStack() as cleanup:
        way = cleanup.enter_context(link("127.0.0.1", port, rate, delay))
        counted = {n: way.uri(u) for n, u in uris.items()}
        timed = dict(uris) if rate is None else counted
        answers = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        theirs = {
            kind.name: peers.measured(kind, timed, counted, way, runs, answers)
            for kind in peers.KINDS
        }
        through = cleanup.enter_context(tpch.connect(counted))
        ours = through if rate is not None else cleanup.enter_context(tpch.connect(timed))
        for number in tpch.QUERIES:
            one = tpch.measure(ours, number, rows, runs, way, through)
            beside = {name: of[number] for name, of in theirs.items()}
            found.append(
                {
                    "query": number,
                    "seconds": one.seconds,
                    "floor_seconds": floor[number],
                    "wire": one.wire,
                    "peers": {
                        name: {
                            "seconds": peer.seconds,
                            "wire": peer.wire,
                            "differs": peers.differs(number, one.answer, peer.answer),
                        }
                        for name, peer in beside.items()
                    },
                    "rows": one.rows,
                    "rows_of_tables": one.read,
                    "planning_seconds": one.planning,
                    "fragments": one.fragments,
                    "memory": one.memory,
                    "fallbacks": list(one.fallbacks),
                }
            )
            told = "".join(f", {n} {p.seconds:.3f} ({p.wire:,})" for n, p in beside.items())
            print(f"q{number:02} {one.seconds:.3f} s ({one.wire:,} bytes){told}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
