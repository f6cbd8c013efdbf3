"""What PostgreSQL's EXPLAIN (FORMAT JSON) says of bytes: read from tables, and coming back.

*Scanned* are the pages of tables (8 kB each) that the plan's scans touch, a page of a table counted
once for each scan of it; whether it comes from disk or from the cache makes no difference.

- Seq Scan, Sample Scan: all pages of the table. Under a LIMIT this is too much.
- Index Scan, Bitmap Heap Scan: one page a row, and never more than the table has: the most for rows
  in no order. Rows that the index finds and a filter drops are not known.
- Index Only Scan: the rows' own width.

A scan on the inner side of a nested loop runs once for each row of the outer side. Pages of the
index itself are not counted; they are few beside those of the table.

*Delivered* is the planner's rows times its width, with what Arrow adds: an offset for each value of
any length, a bit for each NULL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batuta_sql.sources.sizes import fixed_width

PAGE = 8192.0
_COST_PER_SECOND = 1e6
"""Units of the planner's cost, far more than a server does: of scans, hash joins, hash aggregates
and nested loops, 40,000 to 90,000 were measured on a busy machine of two cores."""
_TUPLE_HEADER = 24.0

Node = Mapping[str, Any]


def relations(plan: Node) -> set[str]:
    """The names of the tables that a plan scans."""
    found = {plan["Relation Name"]} if "Relation Name" in plan else set()
    return found.union(*(relations(p) for p in plan.get("Plans", ())))


def scanned_bytes(plan: Node, sizes: Mapping[str, float | None]) -> float:
    """Bytes of the pages that the scans of a plan touch.

    :param sizes: bytes of tables by name, where they are known.
    """
    return _scanned(plan, sizes, 1.0, 1.0)


def _scanned(plan: Node, sizes: Mapping[str, float | None], loops: float, workers: float) -> float:
    own = 0.0
    if "Relation Name" in plan:
        parallel = workers if plan.get("Parallel Aware") else 1.0
        own = _touched(plan, sizes.get(plan["Relation Name"]), loops, parallel)
    if plan["Node Type"] in ("Gather", "Gather Merge"):
        workers = _parallel_divisor(int(plan.get("Workers Planned", 0)))
    children = list(plan.get("Plans", ()))
    below = 0.0
    for child in children:
        inner = plan["Node Type"] == "Nested Loop" and child.get("Parent Relationship") == "Inner"
        times = loops * max(float(children[0]["Plan Rows"]), 1.0) if inner else loops
        # What is materialised is scanned once, however often it is read.
        kept = child["Node Type"] in ("Materialize", "Hash", "Sort")
        below += _scanned(child, sizes, loops if kept else times, workers)
    return own + below


def _touched(plan: Node, size: float | None, loops: float, parallel: float) -> float:
    rows = max(float(plan["Plan Rows"]) * parallel, 1.0) * loops
    width = float(plan["Plan Width"]) + _TUPLE_HEADER
    match plan["Node Type"]:
        case "Seq Scan" | "Sample Scan" if size is not None:
            return size
        case "Index Scan" | "Bitmap Heap Scan":
            return min(rows * PAGE, size) if size is not None else rows * PAGE
        case "Index Only Scan" if size is not None:
            return min(rows * width, size)
    return rows * width


def least_seconds(plan: Node) -> float:
    """What a plan will hardly take less than, if the planner is right about its rows."""
    return float(plan["Total Cost"]) / _COST_PER_SECOND


def _parallel_divisor(workers: int) -> float:
    """Among how many processes the planner shares out rows: the leader helps, less so the more
    workers it looks after.
    """
    return workers + max(0.0, 1.0 - 0.3 * workers)


def delivered_bytes(plan: Node, types: Sequence[str | None]) -> float:
    """Bytes of the result as Arrow data.

    :param types: DuckDB types of the result's columns.
    """
    # PostgreSQL counts one byte of header for a short value of any length, Arrow four of offset.
    extra = sum(0.125 if fixed_width(t) is not None else 3.125 for t in types)
    return float(plan["Plan Rows"]) * (float(plan["Plan Width"]) + extra)
