"""Keys do not tell a source what it may not know: noninterference of what is sent.

Some columns carry labels, in every home. The data under one label is changed: a source none of
whose tables in a statement carry that label is sent the same statement, to the last key. Plans
follow statistics, so only runs with the same plan are compared; labels of what statistics tell are
not claimed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest

import batuta_sql
from batuta_sql import Connection
from tests.differential.generator import random_query
from tests.differential.tables import HOMES, TABLES
from tests.noninterference.world import Variation, for_sources, make_world, tables_in

QUERIES = int(os.environ.get("BATUTA_KEY_QUERIES", "100"))
CHUNK = 25
LABELS: dict[tuple[str, str], str] = {
    ("t1", "s"): "red",
    ("t1", "d"): "red",
    ("t2", "k"): "blue",
    ("t2", "s"): "blue",
    ("t3", "k"): "red",
}
"""Columns that carry a label; the others, and the rows, carry none."""

RED_HOMES, BLUE_HOMES = ("pg", "lite", "delta"), ("pg", "duck")
"""Where columns carry the labels: in the other homes nobody has said so."""


def label_of(home: str, table: str, column: str) -> str | None:
    label = LABELS.get((table, column))
    homes = {"red": RED_HOMES, "blue": BLUE_HOMES}.get(label or "", ())
    return label if home in homes else None


def labels_at(home: str, tables: Sequence[str]) -> set[str]:
    found = {label_of(home, t, c.name) for t in tables for c in TABLES[t]}
    return {label for label in found if label is not None}


@dataclass
class Watched:
    """A snapshot that writes down what it is asked."""

    snapshot: Any
    home: str
    sent: list[tuple[str, str]]

    def read(self, query: Any) -> Any:
        self.sent.append((self.home, query.sql))
        return self.snapshot.read(query)

    def cancel(self) -> None:
        self.snapshot.cancel()

    def close(self) -> None:
        self.snapshot.close()


@dataclass
class Observed:
    """A run: its plan without keys, which fragments had some, and every statement that was sent."""

    plan: list[tuple[str, str, bool]]
    sent: list[tuple[str, str]]


@dataclass
class Sources:
    """All homes as DuckDB files that are said to be public, each with every variation."""

    connection: Connection
    variations: list[Variation]
    sent: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for home, source in self.connection._session.sources.items():
            self._watch(home, source)

    def _watch(self, home: str, source: Any) -> None:
        opened = source.open
        source.open = lambda readers=1: Watched(opened(readers), home, self.sent)

    def run(self, sql: str, variation: Variation | None) -> Observed | None:
        """None where DuckDB refuses the query, or fails on the data."""
        text = for_sources(sql)
        if variation is not None:
            table = rf"\b{variation.home}\.{variation.table}\b"
            text = re.sub(table, f"{variation.home}.{variation.name}", text)
        self.sent.clear()
        try:
            with closing(self.connection.cursor()) as cursor:
                cursor.execute(text)
                cursor.fetchall()
                fragments = [(f.source, f.sql, f.keys is not None) for f in cursor.plan.fragments]
        except batuta_sql.Error:
            return None

        def named(statement: str) -> str:
            if variation is None:
                return statement
            return statement.replace(f'"{variation.name}"', f'"{variation.table}"')

        return Observed(
            sorted((s, named(sql), keyed) for s, sql, keyed in fragments),
            sorted((home, named(statement)) for home, statement in self.sent),
        )


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    folder: Path = tmp_path_factory.mktemp("keys")
    with duckdb.connect() as con:
        variations = make_world(con)
        sources: dict[str, Any] = {}
        for home in HOMES:
            path = folder / f"{home}.duckdb"
            con.execute(f"ATTACH '{path}' AS file")
            mine = [v.name for v in variations if v.home == home]
            for name in [*TABLES, *mine]:
                con.execute(f"CREATE TABLE file.{name} AS FROM {home}.{name}")
            con.execute("DETACH file")
            sources[home] = {
                "kind": "duckdb",
                "path": str(path),
                "locality": "public",
                "tables": labelled(home, variations),
            }
    config = {"sources": sources, "semi_joins": "always", "cost": {"history": False}}
    with closing(batuta_sql.connect(config)) as connection:
        yield Sources(connection, [v for v in variations if v.label.startswith("value:")])


def labelled(home: str, variations: Sequence[Variation]) -> dict[str, Any]:
    """The configuration's labels: of a variation those of its table."""
    names = {t: t for t in TABLES} | {v.name: v.table for v in variations if v.home == home}
    found: dict[str, Any] = {}
    for name, table in names.items():
        columns = {
            c.name: {"labels": [label]}
            for c in TABLES[table]
            if (label := label_of(home, table, c.name)) is not None
        }
        if columns:
            found[name] = {"columns": columns}
    return found


def changed_label(variation: Variation) -> str | None:
    """The label of the column whose values a variation changes."""
    _, _, column = variation.label.rpartition(".")
    return label_of(variation.home, variation.table, column)


def leaks(sql: str, public: Sources) -> tuple[list[str], int, int]:
    """What was sent differently and should not have been; runs compared; statements with keys."""
    first = public.run(sql, None)
    if first is None or not any(keyed for _, _, keyed in first.plan):
        return [], 0, 0
    found: list[str] = []
    compared = 0
    named = tables_in(sql)
    for variation in public.variations:
        label = changed_label(variation)
        if label is None or (variation.home, variation.table) not in named:
            continue
        second = public.run(sql, variation)
        if second is None or second.plan != first.plan:
            continue
        compared += 1
        for (home, before), (_, after) in zip(first.sent, second.sent, strict=True):
            tables = [t for t in re.findall(r'"main"\."(\w+)"', before) if t in TABLES]
            if before != after and label not in labels_at(home, tables):
                found.append(f"{label} ({variation.name}) reaches {home}:\n{before}\n{after}")
    return found, compared, sum(keyed for _, _, keyed in first.plan)


@pytest.mark.parametrize("first", range(0, QUERIES, CHUNK))
def test_labelled_data_chooses_no_statement_for_who_may_not_know_it(
    first: int, public: Sources
) -> None:
    compared = keyed = 0
    for number in range(first, first + CHUNK):
        sql = random_query(f"keys/{number}")
        found, runs, sent = leaks(sql, public)
        assert found == [], f"{for_sources(sql)}\n" + "\n".join(found[:3])
        compared, keyed = compared + runs, keyed + sent
    assert keyed > 0
    assert compared > 0


def test_the_check_sees_keys_that_should_not_have_gone(
    public: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test that cannot fail is none: with every key allowed, some leak."""
    monkeypatch.setattr("batuta_sql.query.permitted_keys", lambda placed, *_: placed)
    assert any(leaks(random_query(f"keys/{n}"), public)[0] for n in range(100))
