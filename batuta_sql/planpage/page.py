"""A plan, its cost, its labels and, after a run, its times as one page of HTML.

The page reads nothing from anywhere, and its own policy forbids it to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from batuta_sql.guards.cost import amount
from batuta_sql.guards.labels import ResultLabels
from batuta_sql.labels import ColumnLabels
from batuta_sql.plan.cost import Estimate
from batuta_sql.plan.explain import pretty
from batuta_sql.plan.fragments import Fragment
from batuta_sql.plan.relational import Relation
from batuta_sql.planpage.markup import Colours, element, labels_of, sql, table, text
from batuta_sql.planpage.tree import Delivered, Tree
from batuta_sql.provenance import LabelOrigin
from batuta_sql.units import duration, size

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True)
class Shown:
    """A fragment, what it was to take and, after a run, what it took.

    :param began: seconds after the first fragment. :param first: until its first rows.
    """

    delivered: Delivered
    estimate: Estimate
    seconds: float | None = None
    began: float | None = None
    first: float | None = None
    remarks: tuple[str, ...] = ()

    @property
    def fragment(self) -> Fragment:
        return self.delivered.fragment


@dataclass(frozen=True)
class Picture:
    """What is drawn.

    :param tree: the placed plan; None where the whole text runs here as it is.
    :param text: the plan as EXPLAIN writes it.
    :param held: the labels of what each operator gives.
    :param origins: where each label of each result column comes from.
    :param kept: why parts run here.
    """

    sql: str
    tree: Relation | None
    text: str
    residual: str
    estimate: Estimate
    fragments: Sequence[Shown]
    held: Sequence[tuple[Relation, ColumnLabels]]
    labels: ResultLabels
    origins: Sequence[LabelOrigin]
    kept: Sequence[str]

    @property
    def has_run(self) -> bool:
        return any(f.delivered.rows is not None for f in self.fragments)


def page(picture: Picture) -> str:
    """One document, complete in itself."""
    colours = Colours(
        [f.fragment.source for f in picture.fragments],
        picture.labels.all.union(*(h.all for _, h in picture.held)),
    )
    body = "\n".join(
        part
        for part in (
            element("h1", "Query plan"),
            sql(picture.sql),
            _legend(picture, colours),
            _tree(picture, colours),
            _times(picture, colours) if picture.has_run else "",
            _cost(picture),
            _labels(picture, colours) if picture.labels.all else "",
            _statements(picture, colours),
            _as_text(picture),
        )
        if part
    )
    here = files("batuta_sql.planpage")
    style, script = (here.joinpath(f"page.{k}").read_text("utf-8") for k in ("css", "js"))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Query plan</title><style>\n{style}</style></head>\n"
        f"<body>\n{body}\n<script>\n{script}</script></body></html>\n"
    )


def _legend(picture: Picture, colours: Colours) -> str:
    chips = [
        element("span", text(site), "chip site", style=colours.of_site(site))
        for site in colours.sites
    ]
    chips.append(element("span", "runs here", "chip here"))
    for label, number in colours.labels.items():
        chips.append(
            element(
                "button",
                text(label),
                "chip label",
                style=colours.of_label(label),
                data_label=str(number),
                aria_pressed="false",
                title="show where it goes",
            )
        )
    if colours.labels:
        told = "filled: in the values; dashed: chose the rows"
        chips.append(element("span", told, "faint"))
    return element("div", "".join(chips), "legend")


def _tree(picture: Picture, colours: Colours) -> str:
    head = element("h2", "Plan")
    if picture.tree is None:
        return head + element("p", text(picture.text))
    deliveries = {f.fragment.name: f.delivered for f in picture.fragments}
    held = {id(node): labels for node, labels in picture.held}
    told = "" if not picture.kept else _listed("Runs here, and why", picture.kept)
    return head + Tree(deliveries, held, colours).html(picture.tree) + told


def _listed(title: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    return f"<details open><summary>{text(title)}</summary><ul>{items}</ul></details>"


# --- times -------------------------------------------------------------------------------------


def _times(picture: Picture, colours: Colours) -> str:
    ran = [f for f in picture.fragments if f.seconds is not None]
    whole = max(((f.began or 0.0) + (f.seconds or 0.0) for f in ran), default=0.0) or 1e-3
    cells = []
    for one in ran:
        cells.append(element("div", text(f"{one.fragment.name} at {one.fragment.source}")))
        cells.append(_track(one, whole, colours))
        rows = f"{one.delivered.rows or 0:,} rows"
        told = f"{duration(one.seconds or 0.0)}, {rows}, {size(one.delivered.bytes or 0)}"
        cells.append(element("div", text(told), "faint"))
    ticks = "".join(
        element("span", text(duration(whole * part / 4)), style=f"left:{25 * part}%")
        for part in range(5)
    )
    cells += ["<div></div>", element("div", ticks, "axis"), "<div></div>"]
    note = element("p", "Pale: until the first rows came. Solid: while they came.", "faint")
    return element("h2", "Fetches over time") + element("div", "".join(cells), "times") + note


def _track(one: Shown, whole: float, colours: Colours) -> str:
    began, seconds = one.began or 0.0, one.seconds or 0.0
    first = seconds if one.first is None else min(one.first, seconds)
    title = f"sent after {duration(began)}, first rows {duration(first)} later"
    bars = _bar(began, first, whole, "bar") + _bar(began + first, seconds - first, whole)
    hue = colours.of_site(one.fragment.source)
    return element("div", bars, "track", style=hue, title=title)


def _bar(begin: float, length: float, whole: float, classes: str = "bar flows") -> str:
    place = f"left:{begin / whole * 100:.3f}%;width:{length / whole * 100:.3f}%"
    return element("div", "", classes, style=place)


# --- tables ------------------------------------------------------------------------------------


def _cost(picture: Picture) -> str:
    heads = ("fragment", "source", "scans", "delivers", "rows", "cost", "sure", "by")
    rows = [
        _cost_line(one.fragment.name, one.fragment.source, one.estimate)
        for one in picture.fragments
    ]
    if len(rows) > 1:
        rows.append(_cost_line("all", "", picture.estimate))
    numbers = frozenset({"scans", "delivers", "rows"})
    if not rows:
        return element("h2", "Estimate") + element("p", text(picture.estimate.basis))
    return element("h2", "Estimate") + table(heads, rows, numbers)


def _cost_line(name: str, source: str, estimate: Estimate) -> list[str]:
    rows = "not known" if estimate.rows is None else f"{estimate.rows:,.0f}"
    return [
        text(value)
        for value in (
            name,
            source,
            _size(estimate.bytes_scanned),
            _size(estimate.bytes_delivered),
            rows,
            amount(estimate),
            estimate.confidence,
            estimate.basis,
        )
    ]


def _size(value: float | None) -> str:
    return "not known" if value is None else size(value)


def _labels(picture: Picture, colours: Colours) -> str:
    rows = []
    for name, labels in picture.labels.columns:
        of_it = [o for o in picture.origins if o.column == name]
        came = "<br>".join(
            f"{text(o.label)} <span class=faint>({text(o.kind)})</span> from {text(o.origin)}"
            f" <span class=faint>{text(o.where)}</span>"
            for o in of_it
        )
        if of_it:
            places = len({o.origin for o in of_it})
            came = f"<details><summary>{places} columns and tables</summary>{came}</details>"
        shown = "all columns" if name == "*" else name
        held = element("div", labels_of(labels, colours), "legend") if labels else "none"
        rows.append([text(shown), held, came])
    return element("h2", "Labels of the result") + table(("column", "labels", "from"), rows)


def _statements(picture: Picture, colours: Colours) -> str:
    parts = [element("h2", "Statements")]
    for one in picture.fragments:
        source = one.fragment.source
        chip = element("span", text(source), "chip site", style=colours.of_site(source))
        said = "".join(f"<div class=faint>{text(r)}</div>" for r in one.remarks)
        head = f"<summary>{text(one.fragment.name)} {chip}</summary>"
        parts.append(f"<details open>{head}{sql(pretty(one.fragment))}{said}</details>")
    head = "<summary>here, over what arrives</summary>"
    parts.append(f"<details>{head}{sql(picture.residual)}</details>")
    return "".join(parts)


def _as_text(picture: Picture) -> str:
    return f"<details><summary>The plan as text</summary><pre>{text(picture.text)}</pre></details>"
