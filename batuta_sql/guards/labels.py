"""Labels of tables and results, the rules of which may meet, and declassification.

A table's labels are the union of what the configuration says of its source, of it and of its
columns, and of what the data itself carries. A result's follow from its lineage. The rules look
at the result as a whole, since a result is one set of rows: every column of it, and what chose
its rows.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from batuta_sql.config import Declassification, FlowRule, Settings
from batuta_sql.errors import ConfigError, LabelRefused, did_you_mean
from batuta_sql.labels import NO_LABELS, ColumnLabels, Labels, TableLabels
from batuta_sql.plan.lineage import Lineage, Origin
from batuta_sql.plan.site import TableInfo
from batuta_sql.source_settings import SourceSettings, TableSettings

PUBLIC, SOVEREIGN = "origin:public", "tier:sovereign"


@dataclass(frozen=True)
class Statement:
    """One place that gives labels to a column (or, without ``column``, to all and the rows).

    :param where: the place, as a person finds it: a key of the configuration, a metadata key.
    """

    labels: ColumnLabels
    where: str
    column: str | None = None

    def is_about(self, column: str | None) -> bool:
        """Whether it labels ``column``, whose name matches without case; None: the rows as such."""
        if self.column is None:
            return True
        if column is None:
            return self.column == _ROWS
        return self.column.lower() == column.lower()


@dataclass(frozen=True)
class LabelledTable:
    """A table's labels, the statements they come from, and what was taken away."""

    labels: TableLabels
    statements: tuple[Statement, ...] = ()
    declassified: tuple[tuple[str | None, Declassification], ...] = ()
    """Column (None: the rows as such) and the decision that took labels from it."""


@dataclass(frozen=True)
class ResultLabels:
    """A result's labels: of its columns in their order, and of which rows there are."""

    columns: tuple[tuple[str, ColumnLabels], ...]
    rows: Labels = NO_LABELS

    @property
    def all(self) -> Labels:
        return self.rows.union(*(c.all for _, c in self.columns))

    def by_name(self) -> dict[str, ColumnLabels]:
        """Labels by column name; those of columns of one name are united."""
        found: dict[str, ColumnLabels] = {}
        for name, labels in self.columns:
            found[name] = found.get(name, ColumnLabels()) | labels
        return found

    def table(self) -> TableLabels:
        return TableLabels(self.by_name(), self.rows)


@dataclass(frozen=True)
class Crossing:
    """A result in which labels meet that must not; ``rule`` says so."""

    rule: FlowRule
    into: Labels

    def __str__(self) -> str:
        why = f" ({self.rule.why})" if self.rule.why else ""
        return (
            f"data labelled {_listed(self.rule.when)} would be mixed with data labelled"
            f" {_listed(sorted(self.into))}{why}"
        )


# --- tables ------------------------------------------------------------------------------------


def labelled_table(table: TableInfo, settings: Settings, today: datetime.date) -> LabelledTable:
    """The labels of a source's table.

    :raises ConfigError: for labels of a column that the table does not have.
    """
    source = settings.sources[table.source]
    statements = [
        *_of_configuration(table, source),
        *_of_bases(table, source),
        *_of_data(table),
    ]
    names = [c.name for c in table.columns]
    columns = {n: _united(statements, n) for n in names}
    rows = NO_LABELS.union(*(s.labels.all for s in statements if s.column is None))
    labels = TableLabels(columns, rows)
    return _declassified(table, labels, tuple(statements), settings.labels.declassify, today)


def labels_of_source(source: SourceSettings) -> Labels:
    """All labels that the configuration gives to anything of a source."""
    found = set(source.labels)
    for table in source.tables.values():
        found.update(table.labels)
        found.update(label for c in table.columns.values() for label in c.labels)
    return frozenset(found)


def labelled_tables(source: SourceSettings) -> list[str]:
    """The names under which the configuration labels tables of a source."""
    return [
        key
        for key, told in source.tables.items()
        if told.labels or any(c.labels for c in told.columns.values())
    ]


def _united(statements: Iterable[Statement], column: str) -> ColumnLabels:
    found = ColumnLabels()
    for statement in statements:
        if statement.is_about(column):
            found |= statement.labels
    return found


def _of_configuration(table: TableInfo, source: SourceSettings) -> Iterable[Statement]:
    place = f"sources.{table.source}"
    if source.labels:
        yield Statement(ColumnLabels(frozenset(source.labels)), f"{place}.labels")
    for key, told in source.tables.items():
        if is_called(table.path, key, versioned=table.version is not None):
            yield from _of_table_settings(f'{place}.tables."{key}"', told)
            _check_columns(table, told, f'{place}.tables."{key}"')


def _of_table_settings(place: str, told: TableSettings) -> Iterable[Statement]:
    if told.labels:
        yield Statement(ColumnLabels(frozenset(told.labels)), f"{place}.labels")
    for column, one in told.columns.items():
        if one.labels:
            where = f"{place}.columns.{column}"
            yield Statement(ColumnLabels(frozenset(one.labels)), where, column)


def _check_columns(table: TableInfo, told: TableSettings, place: str) -> None:
    have = {c.name.lower() for c in table.columns}
    for column in told.columns:
        if column.lower() not in have:
            raise ConfigError(
                f'{place}.columns: {table.qualified} has no column "{column}"',
                hint=did_you_mean(column, [c.name for c in table.columns])
                or "labels that reach nothing would protect nothing",
            )


def _of_bases(table: TableInfo, source: SourceSettings) -> Iterable[Statement]:
    """What is said of the tables behind a view or partition holds for it too."""
    names = {c.name.lower() for c in table.columns}
    for base in table.bases:
        for key, told in source.tables.items():
            if not is_called(base.path, key):
                continue
            for found in _of_table_settings(f'sources.{table.source}.tables."{key}"', told):
                same = base.same_columns and found.column and found.column.lower() in names
                yield found if same else Statement(found.labels, found.where)


def _of_data(table: TableInfo) -> Iterable[Statement]:
    place = f"the data of {table.qualified}"
    if table.labels:
        yield Statement(ColumnLabels(indirect=table.labels), place, _ROWS)
    for column in table.columns:
        if column.labels:
            yield Statement(column.labels, place, column.name)


_ROWS = "\0rows"
"""Stands for the rows as such, which are no column, in a Statement of what the data says."""


def is_called(path: Sequence[str], name: str, *, versioned: bool = False) -> bool:
    """Whether a table with this path is what ``name`` (dotted, inner parts enough) means.

    A pinned version of a table (``customer@v3``, ``customer@branch``) is called as the table is.
    """
    wanted = name.lower()
    known = {".".join(path).lower()}
    if versioned and "@" in path[-1]:
        known.add(".".join((*path[:-1], path[-1].rpartition("@")[0])).lower())
    return any(shown == wanted or shown.endswith("." + wanted) for shown in known)


# --- declassification --------------------------------------------------------------------------


def _declassified(
    table: TableInfo,
    labels: TableLabels,
    statements: tuple[Statement, ...],
    decisions: Sequence[Declassification],
    today: datetime.date,
) -> LabelledTable:
    rows = labels.rows | NO_LABELS.union(*(s.labels.all for s in statements if s.column == _ROWS))
    columns = dict(labels.columns)
    used: list[tuple[str | None, Declassification]] = []
    for decision in decisions:
        if decision.until < today:
            continue
        taken = frozenset(decision.labels)
        whole = any(_names_table(table, n) for n in decision.columns)
        if whole and rows & taken:
            rows -= taken
            used.append((None, decision))
        for column, held in columns.items():
            named = whole or any(_names_column(table, column, n) for n in decision.columns)
            if named and held.all & taken:
                columns[column] = ColumnLabels(held.direct - taken, held.indirect - taken)
                used.append((column, decision))
    return LabelledTable(TableLabels(columns, rows), statements, tuple(used))


def _names_table(table: TableInfo, name: str) -> bool:
    """Whether ``name``, dotted and with the source first, is the table or its source."""
    source, _, rest = name.partition(".")
    if source.lower() != table.source.lower():
        return False
    return not rest or is_called(table.path, rest, versioned=table.version is not None)


def _names_column(table: TableInfo, column: str, name: str) -> bool:
    outer, _, last = name.rpartition(".")
    return last.lower() == column.lower() and "." in name and _names_table(table, outer)


# --- results -----------------------------------------------------------------------------------


def result_labels(lineage: Lineage, tables: Mapping[tuple[str, ...], TableLabels]) -> ResultLabels:
    """The labels of a result.

    :param tables: the labels of each table that the lineage names.
    """
    columns: list[tuple[str, ColumnLabels]] = []
    for name, flow in lineage.columns:
        own = [labels_at(o, tables) for o in flow.direct]
        around = [labels_at(o, tables) for o in flow.indirect]
        direct = NO_LABELS.union(*(c.direct for c in own))
        indirect = NO_LABELS.union(*(c.indirect for c in own), *(c.all for c in around))
        columns.append((name, ColumnLabels(direct, indirect)))
    rows = NO_LABELS.union(*(labels_at(o, tables).all for o in lineage.rows))
    return ResultLabels(tuple(columns), rows)


def labels_at(origin: Origin, tables: Mapping[tuple[str, ...], TableLabels]) -> ColumnLabels:
    """The labels of one origin."""
    table = tables.get(origin.table)
    if table is None:
        return ColumnLabels()
    match origin.column:
        case None:
            return ColumnLabels(table.rows)
        case "*":
            return ColumnLabels(table.all)
    return table.of(origin.column)


# --- rules -------------------------------------------------------------------------------------


def rules_of(settings: Settings) -> tuple[FlowRule, ...]:
    """The configured rules, and that of public data and sovereign data."""
    return (
        FlowRule(
            when=(PUBLIC,), not_into=(SOVEREIGN,), action=settings.labels.on_public_into_sovereign
        ),
        *settings.labels.rules,
    )


def crossings(labels: Labels, rules: Iterable[FlowRule]) -> list[Crossing]:
    """The rules that a result with these labels breaks."""
    return [
        Crossing(rule, frozenset(rule.not_into) & labels)
        for rule in rules
        if labels.issuperset(rule.when) and not labels.isdisjoint(rule.not_into)
    ]


def refusal(crossing: Crossing, sources: Iterable[str], into: Path | None = None) -> LabelRefused:
    """The error of a rule whose action is to stop.

    :param into: a place with labels that the result was meant for.
    """
    place = f" and would go to {into}" if into is not None else ""
    return LabelRefused(
        f"{crossing}; the query reads {', '.join(sources)}{place}",
        hint="see where each label comes from: batuta-sql explain --labels; a decision to allow"
        " it is a [[labels.declassify]] entry in the configuration",
    )


def _listed(labels: Iterable[str]) -> str:
    return " and ".join(labels)
