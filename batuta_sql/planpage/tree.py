"""A placed plan's operators as nested lists, the region of each source around what it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from batuta_sql.labels import ColumnLabels
from batuta_sql.plan.cardinality import Cardinality
from batuta_sql.plan.explain import describe
from batuta_sql.plan.fragments import Fragment
from batuta_sql.plan.relational import Exchange, LocalScan, Relation, Scan
from batuta_sql.planpage.markup import Colours, element, labels_of, text
from batuta_sql.units import size


@dataclass(frozen=True)
class Delivered:
    """What a fragment brings: rows and bytes of Arrow memory; None: not known, or not run."""

    fragment: Fragment
    expected_rows: float | None
    expected_bytes: float | None
    rows: int | None
    bytes: int | None


@dataclass
class Tree:
    """:param held: the labels of what each operator gives, by its id."""

    deliveries: Mapping[str, Delivered]
    held: Mapping[int, ColumnLabels]
    colours: Colours
    _cardinality: Cardinality = field(default_factory=Cardinality)
    _shown: set[str] = field(default_factory=set)

    def html(self, plan: Relation) -> str:
        return element("div", f"<ul>{self._item(plan, '')}</ul>", "plan", role="figure")

    def _item(self, node: Relation, site: str) -> str:
        """One operator, the edge to the one above it, and all below it."""
        edge = self._edge(node)
        card = self._card(node)
        match node:
            case Exchange() if node.name in self._shown:
                return f"<li>{edge}{card}</li>"
            case Exchange():
                self._shown.add(node.name)
                title = element("div", text(f"runs at {node.site}"), "title")
                inner = f"{title}<ul>{self._item(node.input, node.site)}</ul>"
                style = self.colours.of_site(node.site)
                return f"<li>{edge}{card}{element('div', inner, 'region', style=style)}</li>"
        below = "".join(self._item(child, site) for child in node.inputs)
        return f"<li>{edge}{card}{f'<ul>{below}</ul>' if below else ''}</li>"

    def _card(self, node: Relation) -> str:
        name, _, rest = describe(node).partition(" ")
        classes, style = "operator", None
        if isinstance(node, Exchange):
            classes, style = "operator exchange", self.colours.of_site(node.site)
            rest = f"{node.name}: {'the same rows' if node.name in self._shown else node.site}"
        labels = self.held.get(id(node), ColumnLabels())
        shown = f"<strong>{text(name)}</strong>"
        if rest:
            shown += element("div", text(rest), "detail")
        if labels:
            shown += element("div", labels_of(labels, self.colours), "held")
        numbers = " ".join(str(self.colours.number(label)) for label in sorted(labels.all))
        return element("div", shown, classes, style=style, tabindex="0", data_labels=numbers)

    def _edge(self, node: Relation) -> str:
        """Rows, and bytes where they travel: what came in bold, what was thought below it."""
        if isinstance(node, Exchange):
            return self._edge_of_exchange(node)
        if not _has_statistics(node):
            return ""
        return element("span", text(_about(self._cardinality.rows(node), None)), "edge")

    def _edge_of_exchange(self, node: Exchange) -> str:
        delivered = self.deliveries.get(node.name)
        if delivered is None:
            return ""
        told = ""
        if delivered.rows is not None:
            told = f"<b>{text(f'{delivered.rows:,} rows, {size(delivered.bytes or 0)}')}</b>"
        if delivered.expected_rows is not None:
            told += text(_about(delivered.expected_rows, delivered.expected_bytes))
        return element("span", told, "edge") if told else ""


def _about(rows: float, size_of: float | None) -> str:
    noun = "row" if f"{rows:.0f}" == "1" else "rows"
    return f"about {rows:,.0f} {noun}" + (f", {size(size_of)}" if size_of is not None else "")


def _has_statistics(node: Relation) -> bool:
    """Whether all that an operator reads has a known number of rows."""
    for leaf in node.walk():
        match leaf:
            case Scan() if leaf.table.statistics.rows is None:
                return False
            case LocalScan() if leaf.rows is None:
                return False
    return True
