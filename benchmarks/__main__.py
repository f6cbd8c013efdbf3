"""``make bench``: TPC-H over two PostgreSQL databases, written to ``docs/performance.md``."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import sys
from importlib.metadata import version
from pathlib import Path

from benchmarks import tpch
from benchmarks.tpch import Measured

PAGE = tpch.ROOT / "docs" / "performance.md"
PACKAGES = ("duckdb", "pyarrow", "sqlglot", "adbc-driver-postgresql")


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--scale", type=float, default=0.1, help="TPC-H scale factor")
    parser.add_argument("--runs", type=int, default=3, help="runs that count, after one that warms")
    parser.add_argument("--output", type=Path, default=PAGE)
    wanted = parser.parse_args()
    folder = tpch.data(wanted.scale)
    rows = tpch.table_rows(folder)
    measured: list[Measured] = []
    failed: dict[int, str] = {}
    with tpch.servers(folder) as uris:
        with tpch.connect(uris) as connection:
            for number in tpch.QUERIES:
                try:
                    found = tpch.measure(connection, number, rows, wanted.runs)
                except Exception as error:
                    failed[number] = f"{type(error).__name__}: {error}".splitlines()[0]
                    print(f"q{number:02} {failed[number]}", file=sys.stderr)
                    continue
                measured.append(found)
                print(f"q{number:02} {found.seconds:.3f} s, {found.rows:,} rows", flush=True)
        peer = tpch.peer_seconds(uris, wanted.runs)
    ours = tpch.import_seconds("import batuta_sql")
    used = tpch.import_seconds("import batuta_sql; batuta_sql.connect")
    theirs = tpch.import_seconds("import duckdb, pyarrow, sqlglot")
    wanted.output.write_text(page(wanted, measured, failed, peer, (ours, used, theirs)))
    print(f"written: {wanted.output.name}")
    return 1 if failed else 0


def page(
    wanted: argparse.Namespace,
    measured: list[Measured],
    failed: dict[int, str],
    peer: dict[int, float] | str,
    imports: tuple[float, float, float],
) -> str:
    """The page as Markdown."""
    versions = ", ".join(f"{p} {version(p)}" for p in PACKAGES)
    parts = [
        "# Performance",
        "",
        "Made by `make bench`; do not edit.",
        "",
        "## TPC-H over two PostgreSQL databases",
        "",
        f"- Command: `python -m benchmarks --scale {wanted.scale:g} --runs {wanted.runs}`",
        f"- Date: {datetime.date.today().isoformat()}; cores: {os.cpu_count()};"
        f" {platform.system()}, {platform.machine()}; Python {platform.python_version()}",
        f"- Versions: {versions}",
        "- Tables: "
        + "; ".join(f"`{home}`: {', '.join(tables)}" for home, tables in tpch.HOMES.items())
        + ". Primary keys, analysed. One server on the same machine, no network between:"
        " rows that travel cost less here than anywhere else.",
        "- Seconds: median, from the call of execute to the last row, one run before to warm up.",
        "- Rows and bytes moved: what the fragments delivered, bytes in Arrow memory.",
        "- Rows of its tables: of every table that the query names, counted once. Without any"
        " push-down this many rows (or more, where a table is read twice) would move.",
        "- DuckDB: version 1.5.5 with its own postgres extension on the same server, right after"
        " in a process of its own. What it moves is not known: it does not say.",
        "",
        *_table(measured, failed, peer),
        "",
        *_summary(measured, peer),
    ]
    ours, used, theirs = imports
    parts += [
        "",
        "## Import",
        "",
        "Median wall time of ten fresh processes, the start of Python included. The engine is",
        "imported when `connect` is first used, not with the package.",
        "",
        "| statement | seconds |",
        "| --- | ---: |",
        f"| `import batuta_sql` | {ours:.3f} |",
        f"| `import batuta_sql; batuta_sql.connect` | {used:.3f} |",
        f"| `import duckdb, pyarrow, sqlglot` | {theirs:.3f} |",
        f"| first to third | {ours / theirs:.2f} |",
        f"| second to third | {used / theirs:.2f} |",
        "",
    ]
    return "\n".join(parts)


def _table(
    measured: list[Measured], failed: dict[int, str], peer: dict[int, float] | str
) -> list[str]:
    lines = [
        "| query | seconds | DuckDB, seconds | planning, ms | fragments | rows moved"
        " | bytes moved | rows of its tables | moved |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    by_number = {m.number: m for m in measured}
    for number in tpch.QUERIES:
        beside = peer.get(number) if isinstance(peer, dict) else None
        shown = f"{beside:.3f}" if beside is not None else "-"
        m = by_number.get(number)
        if m is None:
            lines.append(f"| {number} | failed: {failed.get(number, '')} | {shown} |" + " |" * 6)
            continue
        lines.append(
            f"| {number} | {m.seconds:.3f} | {shown} | {m.planning * 1000:.1f} | {m.fragments}"
            f" | {m.rows:,} | {m.bytes:,} | {m.read:,} | {100 * m.rows / m.read:.2f} % |"
        )
    return lines


def _summary(measured: list[Measured], peer: dict[int, float] | str) -> list[str]:
    if not measured:
        return []
    rows, read = sum(m.rows for m in measured), sum(m.read for m in measured)
    lines = [
        f"- Queries: {len(measured)} of {len(tpch.QUERIES)}.",
        f"- Seconds, geometric mean: {statistics.geometric_mean(m.seconds for m in measured):.3f}.",
        f"- Planning with a warm catalog: median"
        f" {1000 * statistics.median(m.planning for m in measured):.1f} ms, most"
        f" {1000 * max(m.planning for m in measured):.1f} ms.",
        f"- Rows moved in all: {rows:,} of {read:,} ({100 * rows / read:.1f} %);"
        f" bytes: {sum(m.bytes for m in measured):,}.",
    ]
    if isinstance(peer, str):
        lines.append(f"- DuckDB was not measured: {peer}.")
    elif peer:
        both = [m for m in measured if m.number in peer]
        ratio = statistics.geometric_mean(m.seconds / peer[m.number] for m in both)
        mean = statistics.geometric_mean(peer[m.number] for m in both)
        lines.append(
            f"- DuckDB, seconds, geometric mean: {mean:.3f}; Batuta takes {ratio:.2f} times as"
            f" long, in the geometric mean over {len(both)} queries."
        )
    back = {m.number: m.fallbacks for m in measured if m.fallbacks}
    shown = "; ".join(f"{n}: {', '.join(f)}" for n, f in back.items())
    lines.append(f"- Through the fallback scan: {shown or 'none'}.")
    return lines


if __name__ == "__main__":
    sys.exit(main())
