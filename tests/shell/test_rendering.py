"""Tables that fit, marks of labels, lines for values, charts."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest

from batuta_sql.errors import NotSupportedError
from batuta_sql.labels import ColumnLabels
from batuta_sql.shell.plot import MOST_BARS, chart
from batuta_sql.shell.preferences import Preferences
from batuta_sql.shell.rendering import Rows, counted, rendered

PII, SOVEREIGN = "pii", "tier:sovereign"


def rows(table: pa.Table, most: int = 0, **labels: ColumnLabels) -> Rows:
    return Rows.read(table.to_reader(), labels, most)


def shown(found: Rows, width: int = 80, **chosen: object) -> str:
    return rendered(found, Preferences(**chosen), width, colour=False)


TABLE = pa.table(
    {"id": [1, 22], "name": ["Ann\tB", None], "price": pa.array([Decimal("1.50"), None])}
)


def test_a_table() -> None:
    assert shown(rows(TABLE)).splitlines() == [
        "┌────┬────────┬───────┐",
        "│ id │ name   │ price │",
        "├────┼────────┼───────┤",
        "│  1 │ Ann\\tB │  1.50 │",
        "│ 22 │ NULL   │  NULL │",
        "└────┴────────┴───────┘",
    ]


def test_labels_are_marked_on_the_heads() -> None:
    labels = {
        "id": ColumnLabels(),
        "name": ColumnLabels(frozenset({PII, SOVEREIGN})),
        "price": ColumnLabels(frozenset(), frozenset({SOVEREIGN})),
    }
    text = shown(rows(TABLE, **labels))
    assert "│ id │ name¹² │ price² │" in text
    assert text.endswith(f"¹ {PII}  ² {SOVEREIGN}\n")
    assert "¹" not in shown(rows(TABLE, **labels), labels=False)


def test_what_does_not_fit_is_a_line_for_each_value() -> None:
    wide = pa.table({f"column_{i}": ["x" * 30] for i in range(9)})
    lines = shown(rows(wide)).splitlines()
    assert lines[0].startswith("─ row 1 ")
    assert lines[1:] == [f"column_{i} │ {'x' * 30}" for i in range(9)]
    assert shown(rows(TABLE), expanded="on").splitlines()[1:4] == [
        "id    │ 1",
        "name  │ Ann\\tB",
        "price │ 1.50",
    ]
    assert shown(rows(wide), expanded="off").startswith("┌")


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    table = pa.table({"a": ["long " * 20], "b": [2], "c": ["日本語" * 12]})
    from rich.cells import cell_len

    assert max(map(cell_len, shown(rows(table), width, expanded="off").splitlines())) <= width


def test_of_many_rows_the_first_are_shown() -> None:
    found = rows(pa.table({"n": range(10)}), most=3)
    assert len(found.rows) == 3
    assert counted(found).startswith("the first 3 rows; there are more")
    assert counted(rows(pa.table({"n": range(3)}), most=3)) == "3 rows"
    assert counted(rows(pa.table({"n": [1]}))) == "1 row"


def test_a_chart_of_bars_and_one_of_lines() -> None:
    bars = chart(rows(pa.table({"who": ["ann", "bob"], "n": [1, 4]})), 60, 20, colour=False)
    assert "ann" in bars
    assert "█" in bars
    line = chart(rows(pa.table({"x": [1, 2, 3], "y": [1.5, 0.5, 2.5]})), 60, 20, colour=False)
    assert "\x1b" not in bars + line
    assert max(map(len, (bars + line).splitlines())) <= 60


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"a": ["x"], "b": ["y"]}),
        pa.table({"a": pa.array([], pa.string()), "n": pa.array([], pa.int64())}),
        pa.table({"a": [str(i) for i in range(MOST_BARS + 1)], "n": range(MOST_BARS + 1)}),
    ],
)
def test_what_makes_no_chart_says_so(table: pa.Table) -> None:
    with pytest.raises(NotSupportedError):
        chart(rows(table), 60, 20, colour=False)
