"""HTML of results, plans and estimates, for light and dark themes. Every value is escaped: data
must not command the browser.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from batuta_sql.cli.output import visible
from batuta_sql.shell.live import HEADS, NUMBERS, fragment_row
from batuta_sql.shell.rendering import COLOURS, Mark, Marks, Rows

if TYPE_CHECKING:
    from batuta_sql.progress import FragmentProgress

_LIGHT = ("#b3261e", "#8a6100", "#a3218e", "#00707a", "#2e7d32", "#1f5fbf")
_DARK = ("#ff8a80", "#ffd54f", "#f48fe0", "#4dd0e1", "#81c784", "#82b1ff")
assert len(_LIGHT) == len(_DARK) == COLOURS


def _colours(values: Sequence[str]) -> str:
    return "".join(f"--batuta-{n}:{value};" for n, value in enumerate(values))


_STYLE = (
    "<style>"
    f".batuta{{{_colours(_LIGHT)}}}"
    f"@media(prefers-color-scheme:dark){{.batuta{{{_colours(_DARK)}}}}}"
    # What the notebook says of its theme counts more than what the system says.
    f'[data-jp-theme-light="true"] .batuta,.vscode-light .batuta{{{_colours(_LIGHT)}}}'
    f'[data-jp-theme-light="false"] .batuta,.vscode-dark .batuta{{{_colours(_DARK)}}}'
    ".batuta table{border-collapse:collapse}"
    ".batuta th,.batuta td{text-align:left;padding:.2em .7em;vertical-align:top;"
    "border-bottom:1px solid rgba(128,128,128,.3)}"
    ".batuta .number{text-align:right;font-variant-numeric:tabular-nums}"
    ".batuta .null,.batuta .indirect,.batuta .footer{opacity:.55}"
    ".batuta pre{white-space:pre;overflow-x:auto}"
    ".batuta sup{font-weight:bold;margin-left:.1em;cursor:help}"
    ".batuta .note{font-weight:bold}"
    "</style>"
)


def result(found: Rows, footer: str) -> str:
    """The first rows of a result, marks of labels on the heads, the legend, a line below."""
    marks = Marks(found.labels)
    heads = [
        _text(name) + "".join(map(_mark, marks.held(found.labels.get(name))))
        for name in found.names
    ]
    rows = [[_value(v) for v in row] for row in found.rows]
    legend = " ".join(f"<span>{_mark(mark)} {html.escape(mark.label)}</span>" for mark in marks.all)
    return _whole(
        _table(heads, found.numeric, rows),
        f'<div class="legend">{legend}</div>' if legend else "",
        f'<div class="footer">{html.escape(footer)}</div>',
    )


def plan(text: str, page: str | None = None) -> str:
    """A plan's tree, as a picture too.

    :param page: a whole document; what it does stays within its own frame.
    """
    told = f"<pre>{html.escape(text)}</pre>"
    if page is None:
        return _whole(told)
    # Without allow-same-origin it can reach neither the notebook nor its cookies.
    frame = (
        f'<iframe sandbox="allow-scripts" srcdoc="{html.escape(page)}"'
        ' style="width:100%;height:40rem;border:1px solid rgba(128,128,128,.3)"></iframe>'
    )
    return _whole(frame, f"<details><summary>as text</summary>{told}</details>")


def progress(found: Sequence[FragmentProgress], seconds: float) -> str:
    """The fragments of a running query."""
    rows = [[_text(value) for value in fragment_row(one)] for one in found]
    why = dict.fromkeys(one.slowed for one in found if one.slowed)
    told = "".join(f"<div>{_text(line)}</div>" for line in why)
    foot = f'<div class="footer">{seconds:.0f} s; interrupting the kernel cancels the query</div>'
    return _whole(_table(HEADS, [h in NUMBERS for h in HEADS], rows), told, foot)


def estimate(
    note: str,
    lines: Iterable[tuple[str, str]],
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Sequence[str],
) -> str:
    """An estimate: what is to be done, its lines, and a table of its fragments.

    :param numbers: which of the heads are of numbers.
    """
    told = "".join(
        f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in lines
    )
    parts = [[_text(value) for value in row] for row in rows]
    return _whole(
        f'<div class="note">{_text(note)}</div>' if note else "",
        f"<table><tbody>{told}</tbody></table>",
        _table([_text(h) for h in heads], [h in numbers for h in heads], parts) if parts else "",
    )


def _whole(*parts: str) -> str:
    return f'<div class="batuta">{_STYLE}{"".join(parts)}</div>'


def _table(heads: Sequence[str], numeric: Sequence[bool], rows: Iterable[Sequence[str]]) -> str:
    """:param heads, rows: HTML."""
    kinds = [' class="number"' if is_number else "" for is_number in numeric]
    head = "".join(f"<th{k}>{h}</th>" for k, h in zip(kinds, heads, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{k}>{v}</td>" for k, v in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _mark(mark: Mark) -> str:
    label = html.escape(mark.label)
    if mark.is_direct:
        return f'<sup title="{label}" style="color:var(--batuta-{mark.colour})">{mark.number}</sup>'
    return f'<sup title="{label} (choice of rows)" class="indirect">{mark.number}</sup>'


def _value(value: str | None) -> str:
    return '<span class="null">NULL</span>' if value is None else _text(value)


def _text(text: str) -> str:
    return html.escape(visible(text))
