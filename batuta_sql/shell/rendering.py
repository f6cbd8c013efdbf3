"""How results look in a terminal: tables that fit, heads with their labels' marks, or a line for
each value.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from batuta_sql.cli.output import first_rows, is_number, visible
from batuta_sql.labels import ColumnLabels
from batuta_sql.shell.preferences import Preferences
from batuta_sql.units import size

if TYPE_CHECKING:
    from batuta_sql.cursor import Cursor

_COLOURS = ("red", "yellow", "magenta", "cyan", "green", "blue")
COLOURS = len(_COLOURS)
"""How many colours marks have; then they begin again."""

_DIGITS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_LEAST_COLUMN = 12
"""Characters to which a column of texts may be folded before a line for each value reads better."""


@dataclass(frozen=True)
class Rows:
    """The first rows of a result as texts; None is NULL.

    :param numeric: which columns are numbers.
    :param more: whether there are more rows than these.
    """

    names: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str | None, ...], ...]
    labels: Mapping[str, ColumnLabels]
    more: bool

    @classmethod
    def read(
        cls, reader: pa.RecordBatchReader, labels: Mapping[str, ColumnLabels], most: int
    ) -> Rows:
        """:param most: rows; 0: all."""
        rows, more = first_rows(reader, most)
        schema = reader.schema
        return cls(
            tuple(schema.names),
            tuple(is_number(f.type) for f in schema),
            tuple(rows),
            labels,
            more,
        )


@dataclass(frozen=True)
class Mark:
    """A label's mark.

    :param number: from 1.
    :param is_direct: whether values are labelled, and not only the choice of rows.
    """

    label: str
    number: int
    is_direct: bool = True

    @property
    def digits(self) -> str:
        """The number in raised digits."""
        return "".join(_DIGITS[int(d)] for d in str(self.number))

    @property
    def colour(self) -> int:
        """Which of the ``COLOURS``, from 0."""
        return (self.number - 1) % COLOURS


class Marks:
    """A mark for each label of a result: a raised digit in a colour of its own."""

    def __init__(self, labels: Mapping[str, ColumnLabels]) -> None:
        found = sorted({one for column in labels.values() for one in column.all})
        self.all = tuple(Mark(label, n) for n, label in enumerate(found, 1))

    def held(self, labels: ColumnLabels | None) -> tuple[Mark, ...]:
        """Those of a column."""
        if labels is None:
            return ()
        return tuple(
            replace(mark, is_direct=mark.label in labels.direct)
            for mark in self.all
            if mark.label in labels.all
        )

    def of(self, labels: ColumnLabels | None) -> Text:
        """Of a column; dim where only its rows tell of what is labelled."""
        shown = Text()
        for mark in self.held(labels):
            shown.append(mark.digits, _style(mark) if mark.is_direct else "dim")
        return shown

    def legend(self) -> Text:
        """Which mark is which label; empty where there are none."""
        shown = Text()
        for mark in self.all:
            shown.append("  " if shown else "")
            shown.append(f"{mark.digits} {mark.label}", _style(mark))
        return shown


def _style(mark: Mark) -> str:
    return f"bold {_COLOURS[mark.colour]}"


def rendered(
    found: Rows,
    preferences: Preferences,
    width: int,
    *,
    colour: bool,
    paged: bool = False,
    framed: bool = True,
) -> str:
    """A result as it is shown, without the count of its rows.

    :param width: of the terminal in characters.
    :param paged: whether what is wider than the terminal can be scrolled to.
    :param framed: whether there are letters for lines; else they are of ``-``, ``|`` and ``+``.
    """
    marks = Marks(found.labels if preferences.labels else {})
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=width,
        force_terminal=colour,
        # Rich would write to the notebook itself, not to the buffer.
        force_jupyter=False,
        color_system="auto" if colour else None,
        highlight=False,
        legacy_windows=False,
    )
    if _is_expanded(found, preferences, width) and found.rows:
        for line in _expanded(found, marks, preferences):
            console.print(line, soft_wrap=True)
    else:
        table = _table(found, marks, preferences, box.SQUARE if framed else box.ASCII2)
        console.print(table, width=max(width, _natural(found)) if paged else width)
    if legend := marks.legend():
        console.print(legend, soft_wrap=True)
    return buffer.getvalue()


def counted(found: Rows) -> str:
    """How many rows there are."""
    count = f"{len(found.rows):,} row{'' if len(found.rows) == 1 else 's'}"
    if found.more:
        return f"the first {count}; there are more: .set max_rows N, or .output FILE"
    return count


def moved(cursor: Cursor) -> str:
    """What a query has moved; empty where that is nothing."""
    fragments = cursor.plan.fragments if cursor.plan is not None else ()
    bytes_ = sum(f.bytes or 0 for f in fragments)
    if not bytes_:
        return ""
    sources = len({f.source for f in fragments})
    return f"; {size(bytes_)} from {sources} source{'' if sources == 1 else 's'}"


def _is_expanded(found: Rows, preferences: Preferences, width: int) -> bool:
    match preferences.expanded:
        case "on":
            return True
        case "off":
            return False
    least = [
        w if numeric else min(w, _LEAST_COLUMN)
        for w, numeric in zip(_widths(found), found.numeric, strict=True)
    ]
    return sum(least) + 3 * len(least) + 1 > width


def _widths(found: Rows) -> list[int]:
    heads = [cell_len(visible(n)) + 2 for n in found.names]
    for row in found.rows:
        heads = [
            max(w, cell_len(visible(v)) if v is not None else 4)
            for w, v in zip(heads, row, strict=True)
        ]
    return heads


def _natural(found: Rows) -> int:
    return sum(_widths(found)) + 3 * len(found.names) + 1


def _table(found: Rows, marks: Marks, preferences: Preferences, lines: box.Box) -> Table:
    table = Table(box=lines, show_lines=False)
    for name, numeric in zip(found.names, found.numeric, strict=True):
        head = Text(visible(name), "bold").append(marks.of(found.labels.get(name)))
        table.add_column(head, justify="right" if numeric else "left", overflow="fold")
    for row in found.rows:
        table.add_row(*(_value(v, preferences) for v in row))
    return table


def _expanded(found: Rows, marks: Marks, preferences: Preferences) -> list[Text]:
    heads = [Text(visible(n), "bold").append(marks.of(found.labels.get(n))) for n in found.names]
    wide = max((h.cell_len for h in heads), default=0)
    lines: list[Text] = []
    for number, row in enumerate(found.rows, 1):
        lines.append(Text(f"─ row {number:,} ".ljust(wide + 3, "─"), "dim"))
        for head, value in zip(heads, row, strict=True):
            line = head.copy()
            line.pad_right(wide - head.cell_len)
            lines.append(line.append(" │ ", "dim").append(_value(value, preferences)))
    return lines


def _value(value: str | None, preferences: Preferences) -> Text:
    return Text(preferences.null, "dim") if value is None else Text(visible(value))


def plain_lines(values: Sequence[tuple[str, str]]) -> str:
    """Names and values, one a line, the values below one another."""
    wide = max((len(n) for n, _ in values), default=0)
    return "".join(f"{n:{wide}}  {v}\n" for n, v in values)
