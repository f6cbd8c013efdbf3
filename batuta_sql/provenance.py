"""What a planned query's columns come from, and the labels that this gives them."""

from __future__ import annotations

import datetime
import glob
import hashlib
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sqlglot import exp, tokenize
from sqlglot.tokenizer_core import TokenType

from batuta_sql.errors import LabelWarning
from batuta_sql.guards.audit import AuditLog
from batuta_sql.guards.labels import (
    LabelledTable,
    ResultLabels,
    Statement,
    crossings,
    labelled_table,
    labels_of_source,
    refusal,
    result_labels,
    rules_of,
)
from batuta_sql.labels import NO_LABELS, REST, ColumnLabels, Labels, TableLabels
from batuta_sql.plan.lineage import Flow, Lineage, Origins, everything_of, flows_of, lineage_of
from batuta_sql.plan.relational import LocalScan, Relation, Scan
from batuta_sql.plan.site import TableInfo
from batuta_sql.plan.transformations import Transformations, transformations_of
from batuta_sql.sources.file_labels import labels_of_files, may_carry_labels

if TYPE_CHECKING:
    from batuta_sql.config import Settings
    from batuta_sql.source_settings import SourceSettings

_BY_NAME = frozenset({"query", "query_table"})
"""Table functions that read a local table by a name in a text."""


@dataclass(frozen=True)
class ColumnLineage:
    """The columns of sources (``source.schema.table.column``) behind one column of a result.

    A table's name alone stands for which rows it has.

    :param direct: those that its values were computed from.
    :param indirect: those that chose, joined, grouped or ordered its rows.
    """

    direct: frozenset[str] = frozenset()
    indirect: frozenset[str] = frozenset()

    def __or__(self, other: ColumnLineage) -> ColumnLineage:
        return ColumnLineage(self.direct | other.direct, self.indirect | other.indirect)


_NO_LINEAGE = ColumnLineage()


def column_lineage(flow: Flow) -> ColumnLineage:
    """A column's flow with its origins as people write them."""
    return ColumnLineage(
        frozenset(str(o) for o in flow.direct), frozenset(str(o) for o in flow.indirect)
    )


class LabelOrigin(NamedTuple):
    """One label of one result column: how it came there and who says so.

    :param kind: ``direct`` or ``indirect``.
    :param origin: the source's column, or table, that carries it.
    :param where: the key of the configuration, or the data, that says so.
    """

    column: str
    label: str
    kind: str
    origin: str
    where: str


def fingerprint(sql: str) -> str:
    """SHA-256 of a text: names a query without telling what values it holds."""
    return hashlib.sha256(sql.encode()).hexdigest()


@dataclass(frozen=True)
class BoundColumns:
    """A bound plan and the names and symbols of its outputs."""

    plan: Relation
    outputs: tuple[tuple[str, str], ...]


class Provenance:
    """Lineage and labels of one query; worked out when they are first asked for.

    :param tables: the sources' tables that the query reads.
    :param local: the labels of registered frames and local tables, by lower-cased name.
    :param bound: the bound plan; None where the whole text runs here as it is.
    :param sql: the query's text.
    """

    def __init__(
        self,
        tables: Iterable[TableInfo],
        local: Mapping[str, TableLabels],
        bound: BoundColumns | None,
        sql: str,
        settings: Settings,
    ) -> None:
        self._infos = {t.qualified_parts: t for t in tables}
        self._local = local
        self._bound = bound
        self._sql = sql
        self._settings = settings

    # --- lineage -------------------------------------------------------------------------------

    @cached_property
    def lineage(self) -> Lineage:
        """The query's lineage. For a whole text there is one column, ``REST``, for them all."""
        if self._bound is not None:
            return lineage_of(self._bound.plan, self._bound.outputs, self._local_reads)
        local = [(n, (REST,)) for n in self._local_names(words_of(self._sql))]
        found: Origins = everything_of(self._infos.values(), local)
        return Lineage(((REST, Flow(found, found)),), found)

    @cached_property
    def transformations(self) -> Transformations:
        """How the columns are made; for a whole text nothing is known of it."""
        if self._bound is None:
            return Transformations()
        return transformations_of(self._bound.plan, self._bound.outputs, self._local_reads)

    def columns(self, names: Iterable[str]) -> dict[str, ColumnLineage]:
        """The lineage of the result's columns, called ``names``."""
        found: dict[str, ColumnLineage] = {}
        for name, (_, flow) in _paired(names, self.lineage.columns):
            found[name] = found.get(name, _NO_LINEAGE) | column_lineage(flow)
        return found

    def _local_reads(self, relation: exp.Expr) -> Iterator[tuple[str, ...]]:
        """Local tables, and files read by path, that a local relation reads."""
        names = [t.name for t in relation.find_all(exp.Table) if t.name]
        texts = [t.name for t in relation.find_all(exp.Literal) if t.is_string]
        called = {f.name.lower() for f in relation.find_all(exp.Anonymous)}
        yield from self._local_names([*names, *texts])
        if called & _BY_NAME:
            yield from self._local_names(w for t in texts for w in words_of(t))

    def _local_names(self, words: Iterable[str]) -> Iterator[tuple[str, ...]]:
        """Those of ``words`` that are local tables, or paths of files that carry labels."""
        for word in dict.fromkeys(words):
            if word.lower() in self._local:
                yield (word.lower(),)
            elif self._may_be_labelled(word) and self._of_path(word):
                yield (word,)

    # --- labels --------------------------------------------------------------------------------

    @cached_property
    def tables(self) -> Mapping[tuple[str, ...], LabelledTable]:
        """The labels of every table that the query reads.

        :raises ConfigError: for labels of a column that is not there.
        """
        today = datetime.datetime.now(datetime.UTC).date()
        found = {p: labelled_table(t, self._settings, today) for p, t in self._infos.items()}
        for origin in {o.table for o in self.lineage.origins} - found.keys():
            labels = self._local.get(origin[0].lower())
            if labels is None:
                labels = self._of_path(origin[0])
            found[origin] = LabelledTable(labels)
        return found

    @cached_property
    def labels(self) -> ResultLabels:
        """The labels of the result."""
        return result_labels(self.lineage, {p: t.labels for p, t in self.tables.items()})

    def labels_of(self, count: int) -> list[ColumnLabels]:
        """The labels of the result's ``count`` columns, by place."""
        found = [c for _, c in self.labels.columns]
        return found if self._bound is not None else found * count

    def labels_by_name(self, names: Iterable[str]) -> dict[str, ColumnLabels]:
        """The labels of the result's columns, called ``names``."""
        found: dict[str, ColumnLabels] = {}
        for name, (_, labels) in _paired(names, self.labels.columns):
            found[name] = found.get(name, ColumnLabels()) | labels
        return found

    def labels_on_the_way(self, plan: Relation) -> list[tuple[Relation, ColumnLabels]]:
        """The labels of what each operator of a plan of this query gives."""
        flows = flows_of(plan, self._local_reads)
        columns = tuple((str(number), flow) for number, (_, flow) in enumerate(flows))
        tables = {p: t.labels for p, t in self.tables.items()}
        labels = result_labels(Lineage(columns), tables).columns
        return [(node, held) for (node, _), (_, held) in zip(flows, labels, strict=True)]

    def labels_of_tables(self, tables: Iterable[TableInfo]) -> Labels:
        """All labels of tables that the query reads, whatever of them it uses."""
        return frozenset().union(*(self.tables[t.qualified_parts].labels.all for t in tables))

    def labels_of_relation(self, relation: Relation) -> Labels:
        """All labels of whatever a relation of the query's plan reads."""
        found = self.labels_of_tables(n.table for n in relation.walk() if isinstance(n, Scan))
        for node in relation.walk():
            if isinstance(node, LocalScan):
                for name in self._local_reads(node.relation):
                    labels = self._local.get(name[0].lower())
                    found |= (labels if labels is not None else self._of_path(name[0])).all
        return found

    def _of_path(self, path: str) -> TableLabels:
        """The labels of a file that is read by its path, and of a source that it belongs to."""
        found = TableLabels()
        for one in sorted(glob.glob(path, recursive=True)) or [path]:
            found |= labels_of_files([one])
            place = Path(one).resolve()
            for folder, labels in self._labelled_folders:
                if place.is_relative_to(folder):
                    found |= TableLabels.throughout(ColumnLabels(labels))
        return TableLabels.throughout(ColumnLabels(found.all)) if found else found

    @cached_property
    def _labelled_folders(self) -> list[tuple[Path, Labels]]:
        return [
            (folder, labels)
            for source in self._settings.sources.values()
            if (labels := labels_of_source(source))
            for folder in _folders_of(source)
        ]

    def _may_be_labelled(self, path: str) -> bool:
        return may_carry_labels(path) or bool(self._labelled_folders)

    @cached_property
    def is_labelled(self) -> bool:
        """Whether anything that the query reads may carry a label; cheaper than the labels."""
        return (
            bool(self._local)
            or any(t.labels or any(c.labels for c in t.columns) for t in self._infos.values())
            or any(labels_of_source(self._settings.sources[p[0]]) for p in self._infos)
            or any(self._may_be_labelled(t) for t in _texts(self._sql))
        )

    # --- authorisation -------------------------------------------------------------------------

    def _labels_of_place(self, place: Path) -> Labels:
        """What the data in a place carries, by the sources that read it."""
        whole = place.resolve()
        inside = [labels for f, labels in self._labelled_folders if whole.is_relative_to(f)]
        return NO_LABELS.union(*inside)

    def authorise(self, into: Path | None = None) -> None:
        """Lets the query pass, warns, or refuses it; what must be on record is written first.

        :param into: where the result will lie: it meets the data that is there.
        :raises LabelRefused: where labels meet that must not.
        :raises OperationalError: where the audit log cannot be written.
        """
        if not self.is_labelled:
            return
        events = [
            {"event": "declassify", **event, "query": fingerprint(self._sql)}
            for event in self._declassified()
        ]
        there = self._labels_of_place(into) if into is not None else NO_LABELS
        broken = crossings(self.labels.all | there, rules_of(self._settings))
        for crossing in broken:
            if crossing.rule.action == "stop":
                read = sorted({o.table[0] for o in self.lineage.origins})
                raise refusal(crossing, read, into if there else None)
            events.append(
                {
                    "event": "mixed",
                    "when": list(crossing.rule.when),
                    "into": sorted(crossing.into),
                    "query": fingerprint(self._sql),
                }
            )
        if events:
            AuditLog.usual(self._settings.labels.audit_log).append(events)
        for crossing in broken:
            warnings.warn(str(crossing), LabelWarning, stacklevel=2)

    def _declassified(self) -> Iterator[dict[str, object]]:
        """The declassifications that this query makes use of."""
        origins = self.lineage.origins
        for path, table in self.tables.items():
            touched = {o.column for o in origins if o.table == path}
            for column, decision in table.declassified:
                if column in touched or REST in touched:
                    yield {
                        "column": ".".join(path if column is None else (*path, column)),
                        "labels": list(decision.labels),
                        "who": decision.who,
                        "why": decision.why,
                        "until": decision.until.isoformat(),
                    }

    # --- for people ----------------------------------------------------------------------------

    def explained(self) -> Iterator[LabelOrigin]:
        """Where each label of each column comes from."""
        for name, flow in self.lineage.columns:
            for kind, origins in (("direct", flow.direct), ("indirect", flow.indirect)):
                for origin in sorted(origins, key=str):
                    for label, carried, where in self._said_of(origin.table, origin.column):
                        shown = carried if kind == "direct" else "indirect"
                        yield LabelOrigin(name, label, shown, str(origin), where)

    def _said_of(self, path: tuple[str, ...], column: str | None) -> Iterator[tuple[str, str, str]]:
        table = self.tables[path]
        kept = table.labels.rows if column is None else table.labels.of(column).all
        statements = table.statements or (_local_statement(path, table, column),)
        for statement in statements:
            if not statement.is_about(column):
                continue
            for label in sorted(statement.labels.all & kept):
                carried = "direct" if label in statement.labels.direct else "indirect"
                yield label, carried, statement.where


def _local_statement(path: tuple[str, ...], table: LabelledTable, column: str | None) -> Statement:
    labels = ColumnLabels(table.labels.rows) if column is None else table.labels.of(column)
    return Statement(labels, f"the local table or file {path[0]}", column)


_T = TypeVar("_T")


def _paired(
    names: Iterable[str], columns: tuple[tuple[str, _T], ...]
) -> Iterator[tuple[str, tuple[str, _T]]]:
    """Each delivered name with its column; the one of a whole text is that of every name."""
    listed = list(names)
    if len(columns) == 1 and columns[0][0] == REST:
        yield from ((n, columns[0]) for n in listed)
    else:
        yield from zip(listed, columns, strict=True)


def _folders_of(source: SourceSettings) -> Iterator[Path]:
    """The folders and files that a source's tables lie in."""
    paths = [getattr(source, "path", None), *(t.path for t in source.tables.values())]
    for path in paths:
        if path is not None and "://" not in path:
            yield Path(re.split(r"[*?\[]", path, maxsplit=1)[0]).resolve()


def words_of(sql: str) -> list[str]:
    """The names and texts of a statement, those too that are spelt in lower case."""
    kinds = (TokenType.STRING, TokenType.IDENTIFIER, TokenType.VAR)
    found = [
        t.text
        for t in tokenize(sql, read="duckdb")
        if t.token_type in kinds or t.text.isidentifier()
    ]
    return list(dict.fromkeys([*found, *(w.lower() for w in found)]))


def _texts(sql: str) -> list[str]:
    """The texts of a statement, and its quoted names: what may be a file's path."""
    kinds = (TokenType.STRING, TokenType.IDENTIFIER)
    return [t.text for t in tokenize(sql, read="duckdb") if t.token_type in kinds]
