"""What a cell gives: a result, a plan, an estimate; each shows itself as HTML and as text."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batuta_sql.cli import costs
from batuta_sql.labels import KEY, ColumnLabels
from batuta_sql.notebook import display
from batuta_sql.shell import rendering
from batuta_sql.shell.preferences import Preferences
from batuta_sql.shell.rendering import Rows

if TYPE_CHECKING:
    from batuta_sql import Estimate


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """A query's whole result, as one Arrow table that all other forms are made of.

    :param labels: of each column.
    :param plan: as it was placed; None where nothing was planned (``SHOW``, ``DESCRIBE``).
    :param max_rows: that are shown; 0: all.
    :param took: what is told below it: seconds, and what was moved.
    """

    table: pa.Table
    labels: Mapping[str, ColumnLabels]
    plan: Any
    max_rows: int
    took: str = ""

    def arrow(self) -> pa.Table:
        """The Arrow table itself, with the labels in its schema."""
        return self.table

    def pandas(self) -> Any:
        """A pandas DataFrame of its own: a copy, so that it may be written to. Labels are in its
        ``attrs``.
        """
        frame = self.table.to_pandas()
        if labels := {n: sorted(found.all) for n, found in self.labels.items() if found}:
            frame.attrs[KEY] = labels
        return frame

    def polars(self) -> Any:
        """A Polars DataFrame over the same memory, where Polars has the type."""
        import polars

        return polars.from_arrow(self.table)

    @property
    def metrics(self) -> dict[str, Any] | None:
        """Rows, bytes and seconds per fragment, the estimate beside the actual."""
        found: dict[str, Any] | None = self.plan.metrics() if self.plan is not None else None
        return found

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """For whoever reads Arrow without a copy: Polars, DuckDB, ``Connection.register``."""
        return self.table.__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def _first(self) -> Rows:
        return Rows.read(self.table.to_reader(), self.labels, self.max_rows)

    @property
    def _footer(self) -> str:
        shown, all_ = len(self._first.rows), len(self)
        count = f"{all_:,} row{'' if all_ == 1 else 's'}"
        words = count if shown == all_ else f"the first {shown:,} of {count}"
        return f"({words}{self.took})"

    def __repr__(self) -> str:
        width = shutil.get_terminal_size((100, 24)).columns
        text = rendering.rendered(self._first, Preferences(), width, colour=False)
        return text + self._footer

    def _repr_html_(self) -> str:
        return display.result(self._first, self._footer)


@dataclass(frozen=True)
class PlanText:
    """The tree of a plan that was not run, or of one that EXPLAIN ANALYZE has run.

    :param page: the same as a picture; None: there is none.
    """

    text: str
    page: str | None = None

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return display.plan(self.text, self.page)


@dataclass(frozen=True, repr=False)
class EstimateView:
    """What a query will take.

    :param note: what is to be done about it.
    """

    estimate: Estimate
    note: str = ""

    def __repr__(self) -> str:
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            costs.print_estimate(self.estimate)
        return "\n\n".join(filter(None, (self.note, told.getvalue().rstrip())))

    def _repr_html_(self) -> str:
        return display.estimate(
            self.note,
            costs.estimate_lines(self.estimate),
            costs.FRAGMENT_HEADS,
            costs.fragment_rows(self.estimate),
            costs.FRAGMENT_NUMBERS,
        )


def formatters() -> Iterator[tuple[str, str, str, Callable[..., Any]]]:
    """How ``cur.plan`` and ``con.estimate()`` are shown: MIME type, module, class and what shows
    it, as IPython takes them.
    """

    def tell(text: Callable[[Any], str]) -> Callable[..., None]:
        return lambda value, printer, is_cycle: printer.text(text(value))

    plan, estimate = ("batuta_sql.planview", "Plan"), ("batuta_sql.plan.cost", "Estimate")
    yield "text/html", *plan, lambda value: PlanText(str(value))._repr_html_()
    yield "text/plain", *plan, tell(str)
    yield "text/html", *estimate, lambda value: EstimateView(value)._repr_html_()
    yield "text/plain", *estimate, tell(lambda value: repr(EstimateView(value)))
