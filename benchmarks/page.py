"""The figures of a run as the page ``docs/performance.md``."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.tpch import HOMES

SLOW = "a link of 200 Mbit/s, 10 ms each way"

_DUCKDB = "DuckDB"
_WHO = {
    _DUCKDB: "version 1.5.5 with its own postgres extension.",
    "ConnectorX": "version 0.4.6 reads the columns that the query needs of each table as they are,"
    " with the filters on that table, all tables at once and large ones in as many partitions as"
    " there are cores; DuckDB 2 joins them. (Its own federated queries need a Java library that"
    " its wheel does not have.)",
    "by hand": "splits written by a person who knows the data (`benchmarks/splits.py`): subtrees,"
    " aggregates and keys go to the databases, the rest is joined in DuckDB 2, by Batuta's driver."
    " The yardstick, not a product.",
}
"""Who the peers are, in their order."""


def peers_of(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each peer's figures of one query; older results have only DuckDB's."""
    if "peers" in row:
        peers: dict[str, dict[str, Any]] = row["peers"]
        return peers
    return {_DUCKDB: {"seconds": row["peer_seconds"], "wire": row["peer_wire"]}}


def text(result: dict[str, Any], picture: str) -> str:
    """The page as Markdown.

    :param result: as ``benchmarks/results`` holds it.
    """
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    homes = "; ".join(f"`{home}`: {', '.join(tables)}" for home, tables in HOMES.items())
    names = peers_of(next(iter(result["links"].values()))[0])
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
        "- Seconds: median of the runs, from the call of execute to the last row. Batuta and the"
        " splits by hand run once before to warm up; over the slow link the others, which keep"
        " nothing between queries, do not. ConnectorX runs once. Each peer runs all queries, then"
        " Batuta does. Batuta plans each run anew; without that, it remembers its plans.",
        "- Batuta's sources were measured before, as by `batuta-sql tune`, over each link.",
        "- Bytes: what went over the link in one run, both ways, counted by a forwarder.",
        *(f"- {_capital(name)}: {_WHO[name]}" for name in names),
        "- Floor: DuckDB 1.5.5 with all tables in its memory: nothing is moved.",
        "- Memory: the most that the process held during the query, its libraries included.",
        "",
    ]
    for name, rows in result["links"].items():
        parts += [f"### {_capital(name)}", "", *_head(rows), "", *_summary(rows), ""]
        parts += [*_table(rows), "", "Batuta's own figures:", "", *_details(rows), ""]
    parts += _overhead(result["planning"], result["point_query"])
    parts += _imports(result["imports"])
    return "\n".join(parts)


def _capital(name: str) -> str:
    return name[0].upper() + name[1:]


def _head(rows: list[dict[str, Any]]) -> list[str]:
    """All queries together."""
    lines = [
        "| | seconds, all queries | geometric mean | Batuta is times as fast | MB |",
        "| --- | ---: | ---: | ---: | ---: |",
        _of_all("**Batuta**", rows, rows),
    ]
    for name in peers_of(rows[0]):
        lines.append(_of_all(_capital(name), [peers_of(r)[name] for r in rows], rows))
    return [*lines, _of_all("Floor", [{"seconds": r["floor_seconds"]} for r in rows], rows)]


def _of_all(name: str, rows: list[dict[str, Any]], ours: list[dict[str, Any]]) -> str:
    seconds = [r["seconds"] for r in rows]
    mean = statistics.geometric_mean(seconds)
    faster = mean / statistics.geometric_mean([r["seconds"] for r in ours])
    times = "" if rows is ours else f"{faster:.2f}"
    wire = f"{sum(r['wire'] for r in rows) / 1e6:,.0f}" if "wire" in rows[0] else "0"
    return f"| {name} | {sum(seconds):.1f} | {mean:.3f} | {times} | {wire} |"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    names = ["Batuta", *peers_of(rows[0])]
    head = ["query", *(f"{n}, s" for n in names), "floor, s", *(f"{n}, MB" for n in names)]
    cells = []
    for r in rows:
        all_of = [r, *peers_of(r).values()]
        seconds = [*(one["seconds"] for one in all_of), r["floor_seconds"]]
        wire = [f"{one['wire'] / 1e6:,.2f}" for one in all_of]
        cells.append([str(r["query"]), *(f"{s:.3f}" for s in seconds), *wire])
    return _markdown(head, cells)


def _details(rows: list[dict[str, Any]]) -> list[str]:
    """What Batuta says of its own work."""
    head = ["query", "rows moved", "fragments", "planning, ms", "memory, MB"]
    cells = [
        [
            str(r["query"]),
            f"{r['rows']:,}",
            str(r["fragments"]),
            f"{r['planning_seconds'] * 1000:.1f}",
            f"{r['memory'] / 1e6:,.0f}",
        ]
        for r in rows
    ]
    return _markdown(head, cells)


def _markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table of numbers."""
    return [
        f"| {' | '.join(head)} |",
        "| " + " | ".join(["---:"] * len(head)) + " |",
        *(f"| {' | '.join(cells)} |" for cells in rows),
    ]


def _summary(rows: list[dict[str, Any]]) -> list[str]:
    theirs = [peers_of(r)[_DUCKDB] for r in rows]
    faster = [t["seconds"] / r["seconds"] for t, r in zip(theirs, rows, strict=True)]
    fewer = sum(t["wire"] for t in theirs) / sum(r["wire"] for r in rows)
    moved, read = sum(r["rows"] for r in rows), sum(r["rows_of_tables"] for r in rows)
    planning = [1000 * r["planning_seconds"] for r in rows]
    back = "; ".join(f"{r['query']}: {', '.join(r['fallbacks'])}" for r in rows if r["fallbacks"])
    return [
        f"- **{statistics.geometric_mean(faster):.2f} times as fast as DuckDB** in the geometric"
        f" mean, with **1/{fewer:.0f} of the bytes**. Of the rows of the tables,"
        f" {100 * moved / read:.1f} % moved.",
        *(f"- Slower than {n} (times as long): {_slower(rows, n)}." for n in peers_of(rows[0])),
        *_answers(rows),
        f"- Planning with a warm catalog: median {statistics.median(planning):.1f} ms, most"
        f" {max(planning):.1f} ms.",
        f"- Through the fallback scan: {back or 'none'}.",
    ]


def _slower(rows: list[dict[str, Any]], name: str) -> str:
    longer = {r["query"]: r["seconds"] / peers_of(r)[name]["seconds"] for r in rows}
    return ", ".join(f"Q{q} ({f:.2f})" for q, f in longer.items() if f > 1) or "none"


def _answers(rows: list[dict[str, Any]]) -> list[str]:
    """Whether the peers say what Batuta says, where that was compared."""
    peers = [(r["query"], name, p) for r in rows for name, p in peers_of(r).items()]
    if not all("differs" in p for _, _, p in peers):
        return []
    wrong = [f"Q{query}, {name}" for query, name, p in peers if p["differs"] is not None]
    return [f"- Answers that are not Batuta's: {'; '.join(wrong) or 'none'}."]


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
