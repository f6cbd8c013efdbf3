"""What ``sync`` and ``drift`` show."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from batuta_sql.cli.launch import UsageError
from batuta_sql.units import duration, size

if TYPE_CHECKING:
    from batuta_sql.sync.drift import Change
    from batuta_sql.sync.request import Progress, SyncResult

_LINE_SECONDS = 5.0

Watch = Callable[["Progress"], None]


@contextlib.contextmanager
def watching(*, as_json: bool) -> Iterator[Watch]:
    """What is told of the progress: a bar on a terminal, a line now and then in a pipe, to stderr;
    for programs a line of JSON to stdout.
    """
    if as_json:
        yield _Lines(lambda p: print(json.dumps({"event": "progress", **asdict(p)}), flush=True))
    elif sys.stderr.isatty():
        with _bar() as watch:
            yield watch
    else:
        yield _Lines(lambda p: print(_line(p), file=sys.stderr, flush=True))


class _Lines:
    """Passes the first, the last and one in a few seconds on."""

    def __init__(self, write: Watch) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        with self._lock:
            now = time.monotonic()
            if progress.done < progress.splits and now - self._last < _LINE_SECONDS:
                return
            self._last = now
            self._write(progress)


def _line(progress: Progress) -> str:
    return "; ".join([_counts(progress), *_remarks(progress)])


def _counts(progress: Progress) -> str:
    """How far it is."""
    rate = progress.rows / progress.seconds if progress.seconds > 0 else 0.0
    kept = f", {progress.kept:,} were there" if progress.kept else ""
    left = f", {_left(progress)} left" if _left(progress) else ""
    return (
        f"{progress.done:,} of {progress.splits:,} splits{kept}; {progress.rows:,} rows,"
        f" {size(progress.bytes)}, {rate:,.0f} rows a second{left}"
    )


def _remarks(progress: Progress) -> list[str]:
    """What else there is to know: why it goes slowly, or began again."""
    found = [f"again, after {progress.again}"] if progress.again else []
    found += progress.slowed
    if progress.credential is not None:
        found.append(f"the credential is good for {duration(progress.credential)}")
    return found


def _left(progress: Progress) -> str:
    """How long what remains will take, by what is done; empty where nobody knows."""
    done = progress.done - progress.kept
    if not done or progress.done >= progress.splits:
        return ""
    return duration(progress.seconds / done * (progress.splits - progress.done))


@contextlib.contextmanager
def _bar() -> Iterator[Watch]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    console = Console(stderr=True)
    bar = Bar(BarColumn(20), TextColumn("{task.description}"), TimeElapsedColumn(), console=console)
    remarks = Text(style="dim")
    with Live(Group(bar, remarks), console=console, transient=True):
        task = bar.add_task("", total=None)

        def watch(progress: Progress) -> None:
            # Of a single split nobody knows how much there is.
            total = progress.splits if progress.splits > 1 else None
            shown = _counts(progress)
            bar.update(task, total=total, completed=progress.done, description=shown)
            remarks.plain = "\n".join(_remarks(progress))

        yield watch


def changes_of(texts: Sequence[str]) -> dict[str, str | None]:
    """The columns, and the types to which they are cast, of ``COLUMN`` and ``COLUMN=TYPE``.

    :raises UsageError: where one is named twice, or no name or type stands before or after ``=``.
    """
    found: dict[str, str | None] = {}
    for text in texts:
        column, equals, type_ = (part.strip() for part in text.partition("="))
        if not column or (equals and not type_):
            raise UsageError(f"--change {text}: it is COLUMN or COLUMN=TYPE")
        if column in found:
            raise UsageError(f"--change names {column} twice")
        found[column] = type_ or None
    return found


def print_result(result: SyncResult) -> None:
    """What was done."""
    if result.outcome == "planned":
        _print_planned(result)
        return
    if result.outcome == "unchanged":
        print(f"{result.target}: {result.note}: {result.rows:,} rows")
    else:
        _print_copied(result)
    if result.rejects is not None:
        rows = "row" if result.rejected == 1 else "rows"
        print(f"{result.rejected:,} {rows} did not fit: {result.rejects}")


def _print_copied(result: SyncResult) -> None:
    note = f" ({result.note})" if result.note else ""
    print(
        f"{result.target}: {result.rows:,} rows, {size(result.bytes)} in {result.splits:,}"
        f" split{'' if result.splits == 1 else 's'}, {result.copied:,} read in"
        f" {duration(result.seconds)}{note}"
    )
    print_changes(result.changes)


def _print_planned(result: SyncResult) -> None:
    from batuta_sql.cli import costs

    print(f"{result.splits:,} split{'' if result.splits == 1 else 's'} to {result.target}")
    if result.estimate is not None:
        costs.print_estimate(result.estimate)


def print_changes(changes: Sequence[Change]) -> None:
    """A line for each."""
    from batuta_sql.sync.drift import described

    for line in described(tuple(changes)):
        print(line)


def result_values(result: SyncResult) -> dict[str, Any]:
    """For programs."""
    from batuta_sql.cli import costs

    values = asdict(result) | {"event": "result", "target": str(result.target)}
    values["rejects"] = str(result.rejects) if result.rejects is not None else None
    values["changes"] = change_values(result.changes)
    values["estimate"] = (
        costs.estimate_values(result.estimate) if result.estimate is not None else None
    )
    return values


def change_values(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """For programs."""
    return [asdict(c) for c in changes]
