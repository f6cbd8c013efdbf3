"""HTML elements, and the colours of sources and labels.

Every text is escaped: data must not command the browser.
"""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

from pygments import lex
from pygments.lexers.sql import SqlLexer
from pygments.token import Comment, Keyword, Name, Number, String

from batuta_sql.labels import ColumnLabels

_GOLDEN = 137.5
"""Degrees of a circle between one colour and the next: many stay apart."""


class Colours:
    """A hue for each source and each label, the same on the whole page."""

    def __init__(self, sites: Iterable[str], labels: Iterable[str]) -> None:
        self.sites = {s: n for n, s in enumerate(dict.fromkeys(sites))}
        self.labels = {one: n for n, one in enumerate(sorted(set(labels)))}

    def of_site(self, site: str) -> str:
        return _hue(210 + _GOLDEN * self.sites.get(site, len(self.sites)))

    def of_label(self, label: str) -> str:
        return _hue(350 + _GOLDEN * self.number(label))

    def number(self, label: str) -> int:
        return self.labels.get(label, len(self.labels))


def _hue(degrees: float) -> str:
    return f"--hue:{degrees % 360:.0f}"


def text(value: str) -> str:
    """A text's own characters; control characters as escapes."""
    shown = "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in value
    )
    return html.escape(shown)


def element(name: str, inner: str, classes: str = "", **attributes: str | None) -> str:
    """:param inner: HTML. :param attributes: their values are escaped here."""
    given = {"class": classes or None} | {k.replace("_", "-"): v for k, v in attributes.items()}
    told = "".join(f' {k}="{html.escape(v)}"' for k, v in given.items() if v is not None)
    return f"<{name}{told}>{inner}</{name}>"


def labels_of(labels: ColumnLabels, colours: Colours) -> str:
    """Labels as chips: filled where values carry them, dashed where they chose the rows."""
    kinds = ((labels.direct, "direct"), (labels.indirect - labels.direct, "indirect"))
    return "".join(
        element(
            "span",
            text(label),
            f"chip label {kind}",
            style=colours.of_label(label),
            title=f"{label} ({kind})",
        )
        for held, kind in kinds
        for label in sorted(held)
    )


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: frozenset[str] = frozenset()
) -> str:
    """:param rows: HTML. :param numbers: which heads are of numbers."""
    kinds = ["number" if h in numbers else "" for h in heads]
    head = "".join(element("th", text(h), k) for h, k in zip(heads, kinds, strict=True))
    body = "".join(
        element("tr", "".join(element("td", v, k) for v, k in zip(row, kinds, strict=True)))
        for row in rows
    )
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return element("div", whole, "wide")


_KINDS: tuple[tuple[Any, str], ...] = (
    (Keyword, "k"),
    (Name.Builtin, "k"),
    (String.Symbol, ""),
    (String, "s"),
    (Number, "m"),
    (Comment, "c"),
)


def sql(statement: str) -> str:
    """A statement with its words in colours."""
    out = io.StringIO()
    for token, value in lex(statement.strip(), SqlLexer()):
        kind = next((k for t, k in _KINDS if token in t), "")
        out.write(element("span", text(value), kind) if kind else text(value))
    return element("pre", out.getvalue().rstrip("\n"))
