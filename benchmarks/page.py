"""The figures of a run as the page ``docs/performance.md``."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.tpch import HOMES

SLOW = "a link of 200 Mbit/s, 10 ms each way"


def text(result: dict[str, Any], picture: str) -> str:
    """The page as Markdown.

    :param result: as ``benchmarks/results`` holds it.
    """
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    homes = "; ".join(f"`{home}`: {', '.join(tables)}" for home, tables in HOMES.items())
    parts = [
        "# Performance",
        "",
        "Made by `make bench`; do not edit.",
        "",
        "## TPC-H over two PostgreSQL databases",
        "",
        f"![Seconds of each query]({picture})",
        "",
        f"- Command: `{result['command']}`; {result['date']}; {result['machine']}; {versions}",
        f"- Tables: {homes}. Primary keys, analysed; one server on the same machine.",
        "- Seconds: median of the runs, from the call of execute to the last row, after one run to"
        " warm up. DuckDB: version 1.5.5 with its own postgres extension, same servers, right"
        " before.",
        "- Batuta's sources were measured before, as by `batuta-sql tune`, over each link.",
        "- Bytes: what went over the link in one run, both ways, counted by a forwarder.",
        "- Floor: DuckDB 1.5.5 with all tables in its memory: nothing is moved.",
        "- Memory: the most that the process held during the query, its libraries included.",
        "",
    ]
    for name, rows in result["links"].items():
        parts += [f"### {_capital(name)}", "", *_table(rows), "", *_summary(rows), ""]
    parts += _overhead(result["planning"], result["point_query"])
    parts += _imports(result["imports"])
    return "\n".join(parts)


def _capital(name: str) -> str:
    return name[0].upper() + name[1:]


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| query | seconds | DuckDB | times as fast | floor | MB | DuckDB, MB | rows moved"
        " | fragments | planning, ms | memory, MB |",
        "| ---: |" + " ---: |" * 10,
    ]
    for r in rows:
        lines.append(
            f"| {r['query']} | {r['seconds']:.3f} | {r['peer_seconds']:.3f}"
            f" | {r['peer_seconds'] / r['seconds']:.2f} | {r['floor_seconds']:.3f}"
            f" | {r['wire'] / 1e6:,.2f} | {r['peer_wire'] / 1e6:,.1f} | {r['rows']:,}"
            f" | {r['fragments']} | {r['planning_seconds'] * 1000:.1f}"
            f" | {r['memory'] / 1e6:,.0f} |"
        )
    return lines


def _summary(rows: list[dict[str, Any]]) -> list[str]:
    faster = {r["query"]: r["peer_seconds"] / r["seconds"] for r in rows}
    wire, theirs = sum(r["wire"] for r in rows), sum(r["peer_wire"] for r in rows)
    slower = [f"Q{q} ({1 / f:.2f})" for q, f in faster.items() if f < 1]
    moved, read = sum(r["rows"] for r in rows), sum(r["rows_of_tables"] for r in rows)
    planning = [1000 * r["planning_seconds"] for r in rows]
    back = "; ".join(f"{r['query']}: {', '.join(r['fallbacks'])}" for r in rows if r["fallbacks"])
    return [
        f"- **{statistics.geometric_mean(faster.values()):.2f} times as fast** in the geometric"
        f" mean; {sum(r['seconds'] for r in rows):.1f} s for all queries, DuckDB"
        f" {sum(r['peer_seconds'] for r in rows):.1f} s.",
        f"- **1/{theirs / wire:.0f} of the bytes**: {wire / 1e6:,.0f} MB, DuckDB"
        f" {theirs / 1e6:,.0f} MB. Of the rows of the tables, {100 * moved / read:.1f} % moved.",
        f"- Slower than DuckDB (times as long): {', '.join(slower) or 'none'}.",
        f"- Planning with a warm catalog: median {statistics.median(planning):.1f} ms, most"
        f" {max(planning):.1f} ms.",
        f"- Through the fallback scan: {back or 'none'}.",
    ]


def _overhead(planning: dict[str, float], point: dict[str, float]) -> list[str]:
    slowest = sorted(planning.items(), key=lambda item: -item[1])[:5]
    named = ", ".join(f"Q{query} {taken:.0f}" for query, taken in slowest)
    return [
        "## What Batuta itself takes",
        "",
        f"- Planning the {len(planning)} queries of TPC-DS over Parquet files, milliseconds: median"
        f" {statistics.median(planning.values()):.1f}; slowest: {named}.",
        f"- One row by its key from PostgreSQL, warm, milliseconds: {point['batuta']:.1f};"
        f" the driver alone {point['driver']:.1f}.",
        "",
    ]


def _imports(seconds: dict[str, float]) -> list[str]:
    *_, theirs = seconds.values()
    lines = [
        "## Import",
        "",
        "Median wall time of ten fresh processes, the start of Python included. The engine is",
        "imported when `connect` is first used, not with the package.",
        "",
        "| statement | seconds | to the last |",
        "| --- | ---: | ---: |",
    ]
    lines += [f"| `{n}` | {s:.3f} | {s / theirs:.2f} |" for n, s in seconds.items()]
    return [*lines, ""]
