"""Names in reach at one place of a query, and what each of them means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from sqlglot import exp

from batuta_sql.plan.relational import Relation


class Unmodelled(Exception):
    """The planner has no operator for this construct; the block runs through the fallback scan."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class OutputColumn:
    """A column of a query or relation: the name a user knows it by, and its symbol."""

    name: str
    symbol: str


@dataclass(frozen=True)
class Bound:
    """A bound query: its plan and its output columns, in order."""

    plan: Relation
    columns: tuple[OutputColumn, ...]


@dataclass
class Range:
    """One relation of a FROM clause under its alias.

    :param qualifiers: every name by which its columns may be qualified, outermost part first:
        ``("crm", "public", "customer")`` allows ``customer.id`` and ``public.customer.id``.
    :param merged: lower-cased names of columns that a USING made one with a column to the left.
    """

    qualifiers: tuple[str, ...]
    columns: tuple[OutputColumn, ...]
    merged: set[str] = field(default_factory=set)

    def answers_to(self, parts: tuple[str, ...]) -> bool:
        """Whether ``parts`` (as written before a column's name) mean this relation."""
        if not parts or len(parts) > len(self.qualifiers):
            return False
        mine = self.qualifiers[len(self.qualifiers) - len(parts) :]
        return all(a.lower() == b.lower() for a, b in zip(parts, mine, strict=True))

    def find(self, name: str) -> list[OutputColumn]:
        return pick(name, self._by_name.get(name.lower(), []))

    @cached_property
    def _by_name(self) -> dict[str, list[OutputColumn]]:
        found: dict[str, list[OutputColumn]] = {}
        for column in self.columns:
            found.setdefault(column.name.lower(), []).append(column)
        return found


def pick(name: str, columns: tuple[OutputColumn, ...] | list[OutputColumn]) -> list[OutputColumn]:
    """The columns called ``name`` without case; one that matches exactly wins over the others."""
    lower = name.lower()
    matches = [c for c in columns if c.name.lower() == lower]
    if len(matches) > 1:
        exact = [c for c in matches if c.name == name]
        if len(exact) == 1:
            return exact
    return matches


@dataclass
class CommonTable:
    """A WITH entry. ``bound`` is set once it has been bound as a shared definition."""

    name: str
    query: exp.Expr
    column_names: tuple[str, ...]
    scope: Scope
    shared: bool
    bound: Bound | None = None
    plan_name: str = ""


@dataclass
class Scope:
    """The names in reach: relations of this query block, WITH entries, and those around it.

    :param aliases: SELECT items by lower-cased alias, for DuckDB's reuse of aliases.
    :param siblings: relations to the left in the same FROM: reading them makes a lateral join.
    :param using: merged USING columns by lower-cased name.
    """

    parent: Scope | None = None
    ranges: list[Range] = field(default_factory=list)
    common_tables: dict[str, CommonTable] = field(default_factory=dict)
    aliases: dict[str, exp.Expr] = field(default_factory=dict)
    using: dict[str, str] = field(default_factory=dict)
    siblings: list[Range] = field(default_factory=list)
    alias_stack: list[str] = field(default_factory=list)

    def common_table(self, name: str) -> CommonTable | None:
        scope: Scope | None = self
        while scope is not None:
            found = scope.common_tables.get(name.lower())
            if found is not None:
                return found
            scope = scope.parent
        return None

    def visible_common_tables(self) -> dict[str, CommonTable]:
        """All WITH entries in reach, inner ones hiding outer ones."""
        outer = self.parent.visible_common_tables() if self.parent else {}
        return outer | self.common_tables

    def unqualified(self, name: str) -> list[OutputColumn]:
        """The columns of this block that ``name`` alone may mean."""
        lower = name.lower()
        if lower in self.using:
            return [OutputColumn(name, self.using[lower])]
        found: list[OutputColumn] = []
        for item in self.ranges:
            if lower not in item.merged:
                found.extend(item.find(name))
        return found

    def all_names(self) -> Iterator[str]:
        """Every column name in reach, for hints."""
        scope: Scope | None = self
        while scope is not None:
            for item in scope.ranges:
                yield from (c.name for c in item.columns)
            yield from scope.aliases
            scope = scope.parent
