"""Aggregates over joins of sources, made in part at one of them: DuckDB's answer all the same."""

from __future__ import annotations

import itertools
import os
import random

import pytest

from tests.differential.conftest import BothSides
from tests.differential.tables import HOMES, TABLES, for_batuta

SEEDS = range(int(os.environ.get("BATUTA_PARTIAL_QUERIES", "200")))
EXACT = ("small", "dec")


def query(seed: int) -> str:
    """An aggregate over two or three tables of random homes."""
    rng = random.Random(f"partial/{seed}")
    aliases = ["a", "b", "c"][: rng.choice([2, 2, 3])]
    tables = {alias: rng.choice(["t1", "t2", "t3"]) for alias in aliases}
    homes = {alias: rng.choice(["pg", "pg", "lite", "lite", *HOMES]) for alias in aliases}
    source = f"{homes['a']}__{tables['a']} AS a"
    for before, alias in itertools.pairwise(aliases):
        kind = rng.choice(["JOIN", "JOIN", "JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN"])
        on = [f"{before}.{rng.choice(['k', 'id'])} = {alias}.{rng.choice(['k', 'id'])}"]
        if rng.random() < 0.3:
            on.append(
                rng.choice([f"{before}.s = {alias}.s", f"{alias}.id > 3", f"a.k < {alias}.k"])
            )
        source += f" {kind} {homes[alias]}__{tables[alias]} AS {alias} ON {' AND '.join(on)}"
    chosen = rng.choice(aliases)
    calls = [call(rng, chosen, tables[chosen]) for _ in range(rng.randint(1, 4))]
    keys = [key(rng, alias, tables[alias]) for alias in aliases if rng.random() < 0.6]
    listed = [f"{k} AS g{i}" for i, k in enumerate(keys)]
    listed += [f"{c} AS v{i}" for i, c in enumerate(calls)]
    where = f" WHERE {rng.choice(aliases)}.k > 1" if rng.random() < 0.4 else ""
    grouped = f" GROUP BY {', '.join(keys)}" if keys else ""
    having = " HAVING count(*) > 1" if rng.random() < 0.2 else ""
    return f"SELECT {', '.join(listed)} FROM {source}{where}{grouped}{having}"


def call(rng: random.Random, alias: str, table: str) -> str:
    column = rng.choice(TABLES[table])
    name = f"{alias}.{column.name}"
    made = ["count(*)", f"count({name})"]
    if column.family in ("small", "dec", "text", "date"):
        made += [f"min({name})", f"max({name})"]
    if column.family in EXACT:
        made += [f"sum({name})", f"avg({name})", f"sum({name} * 2 + 1)"] * 2
    text = rng.choice(made)
    return f"{text} FILTER (WHERE {alias}.k <> 2)" if rng.random() < 0.2 else text


def key(rng: random.Random, alias: str, table: str) -> str:
    columns = [c for c in TABLES[table] if c.family in ("small", "text", "date", "bool")]
    column = rng.choice(columns)
    name = f"{alias}.{column.name}"
    if column.family == "date" and rng.random() < 0.5:
        return f"year({name})"
    return f"{name} % 3" if column.family == "small" and rng.random() < 0.3 else name


@pytest.mark.parametrize("seed", SEEDS)
def test_the_answer_is_the_same(seed: int, both: BothSides) -> None:
    sql = query(seed)
    outcome = both.compare(sql)
    assert outcome is None, f"{outcome}\n{for_batuta(sql)}"


def test_the_queries_reach_the_rule(both: BothSides) -> None:
    if both.connection._session.settings.partial_aggregation != "always":
        pytest.skip("nothing is forced")
    plans = [both.connection.explain(for_batuta(query(seed))) for seed in SEEDS]
    assert sum("part_e" in plan for plan in plans) > len(SEEDS) / 8
