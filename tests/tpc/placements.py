"""Which table of a query lives where: seeded and random, so that every run of a seed is the same.

Every table is loaded once into every kind of source; a placement only chooses the names that a
query uses.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import sqlglot
from sqlglot import exp


@dataclass(frozen=True)
class Home:
    """A source that has all tables of a benchmark.

    :param prefix: what stands before a table's name in a query.
    :param truth: the schema of the truth with the types that the source delivers.
    """

    prefix: tuple[str, ...]
    truth: str = "main"


HOMES: dict[str, Home] = {
    "pg_a": Home(("pg_a", "public")),
    "pg_b": Home(("pg_b", "public")),
    # SQLite has one integer type, BIGINT to DuckDB: its truth is a view with integers widened.
    "lite": Home(("lite",), "wide"),
    "duck": Home(("duck", "main")),
    "lake": Home(("lake",)),
    "delta": Home(("delta",)),
}
"""The homes that every run has."""

SEED = int(os.environ.get("BATUTA_TPC_SEED", "20260101"))
PLACEMENTS = int(os.environ.get("BATUTA_TPC_PLACEMENTS", "3"))


@dataclass(frozen=True)
class Placed:
    """A query with its tables placed.

    :param sql: what Batuta is asked.
    :param truth: the same over local DuckDB tables, with the types that the homes deliver.
    """

    sql: str
    truth: str
    homes: Mapping[str, str]

    @property
    def label(self) -> str:
        return ", ".join(f"{table} on {home}" for table, home in sorted(self.homes.items()))


def query_numbers(benchmark: str) -> list[int]:
    return sorted(int(path.stem) for path in (Path(__file__).parent / benchmark).glob("*.sql"))


def query_text(benchmark: str, number: int) -> str:
    return (Path(__file__).parent / benchmark / f"{number:02}.sql").read_text()


def place(benchmark: str, number: int, attempt: int, homes: Mapping[str, Home] = HOMES) -> Placed:
    """A query under its ``attempt``-th placement.

    The first is over two homes only, so that large parts of the query can be pushed whole; the
    others are over all of them.
    """
    draw = random.Random(f"{SEED}/{benchmark}/{number}/{attempt}")
    text = query_text(benchmark, number)
    tables = sorted({table.name.lower() for table in _base_tables(text)})
    choice = draw.sample(sorted(homes), 2) if attempt == 0 else sorted(homes)
    chosen = {table: draw.choice(choice) for table in tables}
    if len(tables) > 1 and len(set(chosen.values())) == 1:
        # One home is no federation.
        other = draw.choice([home for home in choice if home not in chosen.values()])
        chosen[draw.choice(tables)] = other
    return place_at(text, {table: homes[home] for table, home in chosen.items()})


def place_at(text: str, homes: Mapping[str, Home]) -> Placed:
    """A query with each table at the home given."""
    sql = _renamed(text, {table: home.prefix for table, home in homes.items()})
    truth = _renamed(text, {table: (home.truth,) for table, home in homes.items()})
    return Placed(sql, truth, {table: home.prefix[0] for table, home in homes.items()})


def _base_tables(text: str) -> list[exp.Table]:
    return _tables_of(sqlglot.parse_one(text, dialect="duckdb"))


def _tables_of(tree: exp.Expression) -> list[exp.Table]:
    """The tables that are not names of a WITH. (No TPC query hides a table behind such a name.)"""
    common = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    return [t for t in tree.find_all(exp.Table) if t.name and t.name.lower() not in common]


def _renamed(text: str, prefixes: Mapping[str, tuple[str, ...]]) -> str:
    """The query with each table qualified; it keeps its short name as alias.

    Only the names are changed in the text, so that the rest is what the user would have written
    and not what sqlglot would write.
    """
    edits: list[tuple[int, int, str]] = []
    for table in _base_tables(text):
        name = table.this
        assert isinstance(name, exp.Identifier)
        start, end = name.meta["start"], name.meta["end"]
        full = ".".join((*prefixes[name.name.lower()], name.name.lower()))
        edits.append((start, end + 1, full if table.alias else f"{full} AS {name.name}"))
    for start, end, replacement in sorted(edits, reverse=True):
        text = text[:start] + replacement + text[end:]
    return text
