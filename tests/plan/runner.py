"""Plans as text: a catalog, a query, and the fragments and the tree that must come of them.

A ``.test`` file starts with its catalog, one table a line:

    table crm.public.customer(id INTEGER key, name VARCHAR ling, city VARCHAR)
    table lake.orders(id BIGINT, customer_id INTEGER)

followed by cases: a line ``# title``, the query, ``----`` and the expected text (the tree of
EXPLAIN, in which each Exchange shows its statement). The kinds of the sources are fixed: ``crm``
and ``erp`` speak PostgreSQL, ``pub`` SQLite, ``lake`` DuckDB. After a type, ``ling`` and ``blind``
give a text column's collation, ``key`` marks the primary key, ``in order`` that the rows lie so;
``rows N`` after a table says how many it has, if not 1000. No server runs: these are plans.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batuta_sql.config import Settings
from batuta_sql.dbapi import Connection
from batuta_sql.plan.site import (
    Capabilities,
    Collation,
    ColumnInfo,
    ColumnStatistics,
    Statistics,
    TableInfo,
)
from batuta_sql.plan.translate import DuckDBTranslator
from batuta_sql.source_settings import SourceSettings, SQLiteSettings
from batuta_sql.sources.base import FragmentQuery, SourceEstimate, TableName
from batuta_sql.sources.postgresql_sql import PostgreSQLTranslator
from batuta_sql.sources.sqlite import SQLite

COLLATIONS: Mapping[str, Collation] = {"ling": "deterministic", "blind": "other"}


@dataclass
class Case:
    """A query and its plan."""

    title: str
    sql: str
    expected: str


@dataclass
class PlanFile:
    path: Path
    catalog: list[str]
    cases: list[Case]

    @classmethod
    def read(cls, path: Path) -> PlanFile:
        head, *blocks = re.split(r"^# ", path.read_text("utf-8"), flags=re.MULTILINE)
        cases: list[Case] = []
        for block in blocks:
            title, _, rest = block.partition("\n")
            sql, _, expected = rest.partition("\n----\n")
            cases.append(Case(title.strip(), sql.strip(), expected.strip("\n")))
        return cls(path, [line for line in head.splitlines() if line.strip()], cases)

    def write(self) -> None:
        blocks = [f"# {c.title}\n{c.sql}\n----\n{c.expected}\n" for c in self.cases]
        self.path.write_text("\n".join(["\n".join(self.catalog) + "\n", *blocks]), "utf-8")

    def tables(self) -> list[TableInfo]:
        return [_table(line) for line in self.catalog]


def _table(line: str) -> TableInfo:
    match = re.fullmatch(r"table ([\w.]+)\((.*)\)(?: rows (\d+))?", line.strip())
    assert match, f"not a table: {line}"
    source, *path = match[1].split(".")
    columns: list[ColumnInfo] = []
    keys: list[str] = []
    known: dict[str, ColumnStatistics] = {}
    for item in re.split(r",\s+(?![^(]*\))", match[2]):
        name, *words = item.split()
        collation: Collation = "binary"
        while words[-1] in (*COLLATIONS, "key", "order"):
            word = words.pop()
            if word == "key":
                keys.append(name)
            elif word == "order":
                words.pop()
                known[name] = ColumnStatistics(correlation=1.0)
            else:
                collation = COLLATIONS[word]
        nullable = name not in keys
        columns.append(ColumnInfo(name, " ".join(words), nullable=nullable, collation=collation))
    return TableInfo(
        source,
        tuple(path),
        tuple(columns),
        keys=(tuple(keys),) if keys else (),
        statistics=Statistics(rows=float(match[3] or 1000), columns=known),
    )


class PaperSource:
    """A source that has tables and capabilities, and nothing that could run."""

    kind = "paper"
    remembers_catalog = True

    def __init__(self, name: str, capabilities: Capabilities, tables: Sequence[TableInfo]) -> None:
        self.name = name
        self.capabilities = capabilities
        self._tables = [t for t in tables if t.source == name]

    def list_tables(self) -> list[TableName]:
        return [TableName(t.path) for t in self._tables]

    def resolve(self, path: tuple[str, ...]) -> list[TableInfo]:
        return [t for t in self._tables if t.path[-len(path) :] == path]

    def estimate(self, query: FragmentQuery) -> SourceEstimate:
        return SourceEstimate()

    def open(self, readers: int | None = 1) -> Any:
        raise AssertionError("a plan was run")

    def close(self) -> None: ...


def _capabilities() -> dict[str, Capabilities]:
    postgres = Capabilities(
        dialect="postgres", translator=PostgreSQLTranslator(), groups_in_order=True
    )
    return {
        "crm": postgres,
        "erp": postgres,
        "pub": SQLite("pub", SQLiteSettings(kind="sqlite", path="none")).capabilities,
        "lake": Capabilities(dialect="duckdb", translator=DuckDBTranslator(), windows=True),
    }


class Planner:
    """Plans the queries of a file."""

    def __init__(self, tables: Sequence[TableInfo]) -> None:
        self._connection = Connection(Settings())
        sources = self._connection._session.catalog.sources
        settings = self._connection._session.settings.sources
        assert isinstance(sources, dict)
        for name, capabilities in _capabilities().items():
            settings[name] = SourceSettings()
            sources[name] = PaperSource(name, capabilities, tables)

    def close(self) -> None:
        self._connection.close()

    def lineage(self, sql: str) -> str:
        """A line for each column: what its values are made of | what else chose its rows."""
        lines = []
        for name, lineage in self._connection.plan(sql).column_lineage:
            direct, indirect = (", ".join(sorted(o)) for o in (lineage.direct, lineage.indirect))
            lines.append(f"{name}: {direct or '-'} | {indirect or '-'}")
        return "\n".join(lines)

    def plan(self, sql: str) -> str:
        """The tree of a query, its symbols numbered anew so that they do not depend on history."""
        return with_small_numbers(self._connection.explain(sql))


def with_small_numbers(text: str) -> str:
    numbers: dict[str, str] = {}
    counter = itertools.count(1)

    def renumber(match: re.Match[str]) -> str:
        if match[0] not in numbers:
            numbers[match[0]] = f"{match[1]}_{next(counter)}"
        return numbers[match[0]]

    return "\n".join(
        line.rstrip() for line in re.sub(r"\b([a-z]\w*?)_(\d+)\b", renumber, text).splitlines()
    )


def planned(file: PlanFile) -> dict[str, str]:
    with closing(Planner(file.tables())) as planner:
        return {case.title: planner.plan(case.sql) for case in file.cases}
