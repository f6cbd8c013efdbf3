"""What ``estimate``, ``query --dry-run`` and ``history`` show."""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from batuta_sql.units import dollars, duration, size

if TYPE_CHECKING:
    from batuta_sql import Estimate
    from batuta_sql.guards.history import Run

_WIDE = 200


def estimate_values(estimate: Estimate) -> dict[str, Any]:
    """An estimate for programs; null is what is not known."""
    return {
        "source": estimate.source or None,
        "bytes_scanned": estimate.bytes_scanned,
        "rows": estimate.rows,
        "bytes_delivered": estimate.bytes_delivered,
        "seconds": estimate.seconds,
        "usd": estimate.usd,
        "usd_is_at_least": estimate.at_least,
        "missing": list(estimate.missing),
        "credits": estimate.credits,
        "dbus": estimate.dbus,
        "priced": estimate.priced,
        "confidence": estimate.confidence,
        "rows_confidence": estimate.rows_confidence,
        "factor": estimate.factor,
        "basis": estimate.basis,
        "limits_reached": list(estimate.reasons),
        "fragments": [estimate_values(f) for f in estimate.fragments],
    }


FRAGMENT_HEADS = ("source", "rows", "delivered", "scanned", "cost", "confidence", "basis")
FRAGMENT_NUMBERS = ("rows", "delivered", "scanned", "cost")


def estimate_lines(estimate: Estimate) -> list[tuple[str, str]]:
    """An estimate for people, name and value; what is not known is never shown as 0."""
    from batuta_sql.guards.cost import amount

    lines = [
        ("rows delivered", _rows(estimate.rows)),
        ("bytes delivered", _size(estimate.bytes_delivered)),
        ("bytes scanned", _size(estimate.bytes_scanned)),
        ("cost", amount(estimate)),
        ("confidence", estimate.confidence),
        ("basis", estimate.basis or "none"),
        ("fragments", str(len(estimate.fragments))),
    ]
    if estimate.credits is not None:
        lines.insert(4, ("credits", f"{estimate.credits:,.4g}"))
    if estimate.dbus is not None:
        lines.insert(4, ("DBUs", f"{estimate.dbus:,.4g}"))
    if estimate.missing:
        lines.insert(5, ("not known", ", ".join(estimate.missing)))
    return lines + [("limit", reason) for reason in estimate.reasons]


def fragment_rows(estimate: Estimate) -> list[tuple[str, ...]]:
    """The estimates of the fragments for people, a value for each of ``FRAGMENT_HEADS``."""
    from batuta_sql.guards.cost import amount

    return [
        (
            f.source,
            _rows(f.rows),
            _size(f.bytes_delivered),
            _size(f.bytes_scanned),
            amount(f) if f.priced else "free",
            f.confidence,
            f.basis,
        )
        for f in estimate.fragments
    ]


def print_estimate(estimate: Estimate) -> None:
    """Prints an estimate for people."""
    for name, value in estimate_lines(estimate):
        print(f"{name + ':':17}{value}")
    if estimate.fragments:
        print()
        _print_table(FRAGMENT_HEADS, fragment_rows(estimate), numbers=FRAGMENT_NUMBERS)


# --- history -----------------------------------------------------------------------------------


def run_values(run: Run) -> dict[str, Any]:
    """A run for programs; null is what is not known."""
    return {
        "query": run.query,
        "fragment": run.fragment,
        "started": datetime.fromtimestamp(run.started, UTC).isoformat(timespec="seconds"),
        "source": run.source,
        "status": run.status,
        "estimated": {
            "rows": run.estimated_rows,
            "bytes": run.estimated_bytes,
            "bytes_scanned": run.estimated_scanned,
            "usd": run.estimated_usd,
            "confidence": run.confidence,
            "rows_factor": run.rows_factor,
            "bytes_factor": run.bytes_factor,
            "billed_factor": run.billed_factor,
            "basis": run.basis,
        },
        "actual": {
            "rows": _whole(run.rows),
            "bytes": _whole(run.bytes),
            "seconds": run.seconds,
            "billed_bytes": run.billed_bytes,
            "billed_credits": run.billed_credits,
            "billed_dbus": run.billed_dbus,
            "usd": run.usd,
        },
        "rows_off_by": off_by(run.rows, run.estimated_rows),
        "bytes_off_by": off_by(run.bytes, run.estimated_bytes),
        "sql": run.sql,
        "sql_hash": run.sql_hash,
    }


def off_by(actual: float | None, estimated: float | None) -> float | None:
    """How many times too high or too low an estimate was: 1 is right (the q-error)."""
    if actual is None or estimated is None:
        return None
    ratio = (actual + 1) / (estimated + 1)
    return max(ratio, 1 / ratio)


def print_history(runs: Sequence[Run]) -> None:
    """Runs for people, the newest first, and each source's error."""
    if not runs:
        print("no query has been written down yet")
        return
    _print_table(
        ("started (UTC)", "source", "status", "rows", "estimated", "off", "bytes", "estimated",
         "off", "seconds", "cost", "sql"),
        [
            (
                datetime.fromtimestamp(r.started, UTC).strftime("%Y-%m-%d %H:%M:%S"),
                r.source,
                r.status,
                _rows(r.rows),
                _rows(r.estimated_rows),
                _off(r, off_by(r.rows, r.estimated_rows)),
                _size(r.bytes),
                _size(r.estimated_bytes),
                _off(r, off_by(r.bytes, r.estimated_bytes)),
                duration(r.seconds) if r.seconds is not None else "",
                _cost(r),
                " ".join(r.sql.split())[:60],
            )
            for r in runs
        ],
        numbers=("rows", "estimated", "off", "bytes", "seconds", "cost"),
    )  # fmt: skip
    print()
    for source in dict.fromkeys(r.source for r in runs):
        print(_summary(source, [r for r in runs if r.source == source]))


def _summary(source: str, runs: Sequence[Run]) -> str:
    done = [r for r in runs if r.status == "finished"]
    parts = [f"{len(runs)} fragment{'' if len(runs) == 1 else 's'}"]
    for what, errors in (
        ("rows", [off_by(r.rows, r.estimated_rows) for r in done]),
        ("bytes", [off_by(r.bytes, r.estimated_bytes) for r in done]),
    ):
        known = [e for e in errors if e is not None]
        if known:
            middle, most = statistics.median(known), max(known)
            parts.append(f"{what} off by {middle:,.1f} in the median, {most:,.1f} at most")
    costs = [usd for r in runs if (usd := r.usd if r.usd is not None else r.estimated_usd)]
    if costs:
        parts.append(f"{dollars(sum(costs))} in all")
    return f"{source}: " + "; ".join(parts)


def _off(run: Run, value: float | None) -> str:
    return f"{value:,.1f}x" if value is not None and run.status == "finished" else ""


def _cost(run: Run) -> str:
    if run.usd is not None:
        return f"{dollars(run.usd)} billed"
    return f"{dollars(run.estimated_usd)} estimated" if run.estimated_usd is not None else ""


# --- tables ------------------------------------------------------------------------------------


def _rows(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.0f}"


def _size(value: float | None) -> str:
    return "unknown" if value is None else size(value)


def _whole(value: float | None) -> int | None:
    return int(value) if value is not None else None


def _print_table(
    names: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str]
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    on_terminal = sys.stdout.isatty()
    width = max(shutil.get_terminal_size().columns, 80) if on_terminal else _WIDE
    table = Table(box=box.SIMPLE_HEAD if on_terminal else box.ASCII2)
    for name in names:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        # A source's own words must not command the terminal.
        table.add_row(*(Text("".join(c if c.isprintable() else " " for c in v)) for v in row))
    console = Console(file=sys.stdout, width=width, highlight=False, force_jupyter=False)
    console.print(table)
