"""What is seen of a query while it runs: its fragments, how far they are, what was expected."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from batuta_sql.progress import FragmentProgress
from batuta_sql.units import size

_PATIENCE = 0.6
"""Seconds: of what is over sooner nothing is shown."""

_STYLES = {"waiting": "dim", "running": "cyan", "done": "green"}


class LiveView:
    """Shown on stderr, below the statement, and gone when it has ended.

    :param progress: what there is to show now.
    """

    def __init__(
        self, console: Console, progress: Callable[[], Sequence[FragmentProgress]]
    ) -> None:
        self._console = console
        self._progress = progress
        self._live: Live | None = None

    def look(self, seconds: float) -> None:
        """Shows what is so, this many seconds after the statement was sent."""
        if seconds < _PATIENCE:
            return
        found = self._progress()
        if not found:
            return
        shown = fragment_table(found, seconds)
        if self._live is None:
            self._live = Live(shown, console=self._console, transient=True, auto_refresh=False)
            self._live.start()
        self._live.update(shown, refresh=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


HEADS = ("source", "tables", "state", "rows", "expected", "moved", "per second")
NUMBERS = frozenset(HEADS[3:])


def fragment_row(one: FragmentProgress) -> tuple[str, ...]:
    """A fragment under ``HEADS``."""
    rate = one.bytes / one.seconds if one.seconds > 0 else 0.0
    return (
        one.source,
        ", ".join(one.tables),
        one.state,
        f"{one.rows:,}" if one.state != "waiting" else "",
        f"{one.expected_rows:,.0f}" if one.expected_rows is not None else "",
        size(one.bytes) if one.state != "waiting" else "",
        size(rate) if one.state == "running" else "",
    )


def fragment_table(found: Sequence[FragmentProgress], seconds: float) -> Table:
    """A line for each fragment."""
    table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
    for name in HEADS:
        table.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=True)
    for one in found:
        source, tables, state, *numbers = fragment_row(one)
        table.add_row(
            source,
            Text(tables, overflow="ellipsis"),
            Text(state, _STYLES[one.state]),
            *numbers,
        )
    for why in dict.fromkeys(one.slowed for one in found if one.slowed):
        table.add_row("", Text(why, "yellow"))
    table.caption = f"{seconds:.0f} s; Ctrl-C cancels the query"
    table.caption_justify = "left"
    return table
