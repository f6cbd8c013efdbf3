"""Unions that are grouped branch by branch, DISTINCT and Top-N at the sources: DuckDB's answer.

``BATUTA_EARLY_QUERIES`` (96) says how many queries of each run.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from tests.differential.conftest import BothSides
from tests.differential.tables import HOMES, TABLES, for_batuta

SEEDS = range(int(os.environ.get("BATUTA_EARLY_QUERIES", "96")))
TABLE_NAMES = ("t1", "t1", "t2", "t2", "t3", "t3", "none")
FAMILIES = ("small", "small", "text", "dec", "date", "dbl", "big", "bool")
"""Of columns of unions: families of which most tables have one."""


def query(seed: int) -> str:
    """A query of one of the kinds that these rules are for."""
    rng = random.Random(f"early/{seed}")
    made = (union_aggregate, union_aggregate, distinct, semi_join, top_n, top_n)
    return made[seed % len(made)](rng)


def table(rng: random.Random) -> tuple[str, str]:
    """A table, and the name of its home with it."""
    name = rng.choice(TABLE_NAMES)
    return name, f"{rng.choice(['pg', 'pg', 'pg', 'lite', *HOMES])}__{name}"


def columns_of(name: str, alias: str, families: Sequence[str]) -> list[str]:
    return [f"{alias}.{c.name}" for c in TABLES[name] if c.family in families]


# --- unions ------------------------------------------------------------------------------------


def union(rng: random.Random, families: Sequence[str], word: str | None = None) -> str:
    """Two or three branches with columns c0, c1 ... of the families, and a constant."""
    tags = rng.choice(["abc", "abc", "aaa"])
    branches = [branch(rng, families, tag) for tag in tags[: rng.choice([2, 2, 3])]]
    text = branches[0]
    for more in branches[1:]:
        text += f" {word or rng.choice(['UNION ALL', 'UNION ALL', 'UNION ALL', 'UNION'])} {more}"
    return text


def branch(rng: random.Random, families: Sequence[str], tag: str) -> str:
    name, source = table(rng)
    chosen = [value(rng, name, "x", family) for family in families]
    shown = [f"{text} AS c{n}" for n, text in enumerate(chosen)]
    shown.append(f"'{tag}' AS tag")
    joined = ""
    if rng.random() < 0.2:
        joined = f" JOIN {table(rng)[1]} AS y ON y.k = x.k"
    where = (
        rng.choice([" WHERE x.k > 0", " WHERE x.id > 100", " WHERE x.id > 100"])
        if rng.random() < 0.3
        else ""
    )
    return f"SELECT {', '.join(shown)} FROM {source} AS x{joined}{where}"


def value(rng: random.Random, name: str, alias: str, family: str) -> str:
    """A column of a family, or something that has its type."""
    found = columns_of(name, alias, [family])
    if found and family == "small" and rng.random() < 0.2:
        return f"{rng.choice(found)} + 1"
    if found:
        return rng.choice(found)
    typed = {
        "small": f"{alias}.id",
        "text": f"{alias}.s",
        "dec": "CAST(1.5 AS DECIMAL(12,4))",
        "date": "CAST('2024-02-29' AS DATE)",
        "dbl": "CAST(0.5 AS DOUBLE)",
        "big": f"CAST({alias}.id AS BIGINT)",
        "bool": f"{alias}.k > 1",
    }
    return typed[family]


def union_aggregate(rng: random.Random) -> str:
    families = [rng.choice(FAMILIES) for _ in range(rng.randint(1, 4))]
    source = f"({union(rng, families)}) AS u"
    if rng.random() < 0.4:
        at = next((n for n, f in enumerate(families) if f == "small"), None)
        on = f" ON u.c{at} = j.k" if at is not None else " ON u.tag < j.s"
        kind = rng.choice(["JOIN", "LEFT JOIN", "RIGHT JOIN", "CROSS JOIN", "SEMI JOIN"])
        sides = [source, f"{table(rng)[1]} AS j"]
        if kind != "SEMI JOIN":
            rng.shuffle(sides)
        source = f" {kind} ".join(sides) + ("" if kind == "CROSS JOIN" else on)
    calls = [call(rng, "u", families) for _ in range(rng.randint(1, 4))]
    keys = [key(rng, "u", families) for _ in range(rng.choice([0, 1, 1, 2]))]
    listed = [f"{text} AS g{n}" for n, text in enumerate(keys)]
    listed += [f"{text} AS v{n}" for n, text in enumerate(calls)]
    where = " WHERE u.tag <> 'b'" if rng.random() < 0.15 else ""
    grouped = f" GROUP BY {', '.join(keys)}" if keys else ""
    having = " HAVING count(*) > 1" if rng.random() < 0.2 else ""
    return f"SELECT {', '.join(listed)} FROM {source}{where}{grouped}{having}"


def call(rng: random.Random, alias: str, families: Sequence[str]) -> str:
    at = rng.randrange(len(families))
    name = f"{alias}.c{at}"
    made = ["count(*)", f"count({name})"]
    if families[at] in ("small", "dec", "text", "date", "big"):
        made += [f"min({name})", f"max({name})"] * 2
    if families[at] in ("small", "dec"):
        made += [f"sum({name})", f"avg({name})", f"sum({name} * 2 + 1)"] * 2
    if families[at] == "big":
        made += [f"sum({name})"]
    text = rng.choice(made)
    test = rng.choice([f"{alias}.tag = 'a'", f"{name} IS NOT NULL"])
    return f"{text} FILTER (WHERE {test})" if rng.random() < 0.2 else text


def key(rng: random.Random, alias: str, families: Sequence[str]) -> str:
    at = rng.randrange(len(families))
    name = f"{alias}.c{at}"
    if rng.random() < 0.4:
        return f"{alias}.tag"
    if families[at] == "date" and rng.random() < 0.5:
        return f"year({name})"
    return f"{name} % 3" if families[at] == "small" and rng.random() < 0.3 else name


# --- sets of rows ------------------------------------------------------------------------------


def joined(rng: random.Random) -> tuple[str, list[tuple[str, str]]]:
    """Two or three tables, joined; each with its alias."""
    first, source = table(rng)
    text, aliases = f"{source} AS a", [("a", first)]
    for alias in ["b", "c"][: rng.choice([1, 1, 2])]:
        name, source = table(rng)
        kind = rng.choice(["JOIN", "JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
        before = rng.choice(aliases)[0]
        on = f"{before}.{rng.choice(['k', 'id', 'k'])} = {alias}.{rng.choice(['k', 'k', 'id'])}"
        if kind != "FULL JOIN" and rng.random() < 0.2:
            on += f" AND {alias}.s <> 'a'"
        text += f" {kind} {source} AS {alias} ON {on}"
        aliases.append((alias, name))
    return text, aliases


def distinct(rng: random.Random) -> str:
    kind = rng.choice(["distinct", "distinct", "count", "count", "set"])
    if kind == "set":
        families = [rng.choice(FAMILIES) for _ in range(rng.randint(1, 2))]
        word = rng.choice(["UNION", "UNION", "INTERSECT", "EXCEPT", "EXCEPT ALL"])
        return union(rng, families, word)
    text, aliases = joined(rng)
    everything = [c for a, n in aliases for c in columns_of(n, a, FAMILIES)]
    where = f" WHERE {rng.choice(aliases)[0]}.k < 3" if rng.random() < 0.3 else ""
    chosen = rng.sample(everything, rng.randint(1, 3))
    if kind == "distinct":
        shown = [f"{c} AS c{n}" for n, c in enumerate(chosen)]
        if rng.random() < 0.3:
            shown.append(f"{rng.choice(aliases)[0]}.k * 2 AS d")
        return f"SELECT DISTINCT {', '.join(shown)} FROM {text}{where}"
    calls = [
        rng.choice([f"count(DISTINCT {c})", f"count(DISTINCT {c})", f"min({c})", f"max({c})"])
        for c in chosen
    ]
    small = [c for a, n in aliases for c in columns_of(n, a, ["small", "dec"])]
    calls.append(rng.choice([f"sum(DISTINCT {rng.choice(small)})", "count(DISTINCT a.s)"]))
    if rng.random() < 0.2:
        calls.append("count(*)")
    keys = rng.sample(everything, rng.choice([0, 1, 1]))
    listed = [f"{t} AS v{n}" for n, t in enumerate([*keys, *calls])]
    grouped = f" GROUP BY {', '.join(keys)}" if keys else ""
    return f"SELECT {', '.join(listed)} FROM {text}{where}{grouped}"


def semi_join(rng: random.Random) -> str:
    text, aliases = joined(rng)
    outer, outer_name = aliases[0]
    name, source = table(rng)
    test = rng.choice([" AND z.k > 0", " AND z.s <> ''", ""])
    column = rng.choice(["k", "id", "s"])
    subquery = rng.choice(
        [
            f"EXISTS (SELECT 1 FROM {source} z WHERE z.{column} = {outer}.{column}{test})",
            f"NOT EXISTS (SELECT 1 FROM {source} z WHERE z.{column} = {outer}.{column}{test})",
            f"{outer}.{column} IN (SELECT z.{column} FROM {source} z WHERE true{test})",
            f"{outer}.{column} NOT IN (SELECT z.{column} FROM {source} z WHERE true{test})",
            f"{outer}.k > ANY (SELECT z.k FROM {source} z WHERE true{test})",
            f"{outer}.k <= ALL (SELECT z.k FROM {source} z WHERE z.k > 1)",
            f"{outer}.k IN (SELECT z.k FROM {source} z JOIN {table(rng)[1]} w ON w.id = z.id)",
            f"EXISTS (SELECT 1 FROM {source} z WHERE z.k < {outer}.k AND z.s = {outer}.s)",
        ]
    )
    shown = [f"{c} AS c{n}" for n, c in enumerate(columns_of(outer_name, outer, FAMILIES)[:3])]
    if rng.random() < 0.3:
        return f"SELECT count(*) AS n, sum({outer}.k) AS k FROM {text} WHERE {subquery}"
    return f"SELECT {', '.join(shown)} FROM {text} WHERE {subquery}"


# --- first rows --------------------------------------------------------------------------------


def top_n(rng: random.Random) -> str:
    kind = rng.choice(["join", "join", "join", "union", "union", "distinct", "subquery"])
    if kind == "join":
        return _top_of_join(rng)
    if kind == "subquery":
        return _top_with_subquery(rng)
    families = [rng.choice(FAMILIES) for _ in range(rng.randint(1, 2))]
    if kind == "distinct":
        kept = [f"c{n}" for n in range(len(families)) if rng.random() < 0.8] or ["tag"]
        inner = f"({union(rng, families, 'UNION ALL')}) AS u"
        return f"SELECT DISTINCT {', '.join(kept)} FROM {inner}{_cut(rng, kept)}"
    word = rng.choice(["UNION", "UNION", "UNION ALL", "INTERSECT", "EXCEPT"])
    if rng.random() < 0.4:
        families = ["text"]
    names = [f"c{n}" for n in range(len(families))]
    return f"SELECT * FROM ({union(rng, families, word)}) AS u{_cut(rng, names)}"


def _top_of_join(rng: random.Random) -> str:
    (first, left), (second, right) = table(rng), table(rng)
    kind = rng.choice(["LEFT", "RIGHT", "CROSS", "FULL", "FULL", "INNER", "SEMI", "ANTI"])
    on = "" if kind == "CROSS" else f" ON a.k = b.{rng.choice(['k', 'id'])}"
    sides = [("a", first)] if kind in ("SEMI", "ANTI") else [("a", first), ("b", second)]
    columns = [c for a, n in sides for c in columns_of(n, a, ["small", "text", "date", "dec"])]
    chosen = rng.sample(columns, min(len(columns), rng.randint(1, 3)))
    names = [f"c{n}" for n in range(len(chosen))]
    if len(sides) > 1 and rng.random() < 0.4:
        # By one side, of which the rows that pad the other come first.
        chosen, names = rng.sample(["a.id", "b.id"], 2), ["c0"]
    shown = ", ".join(f"{c} AS c{n}" for n, c in enumerate(chosen))
    cut = _cut(rng, names)
    return f"SELECT {shown} FROM {left} AS a {kind} JOIN {right} AS b{on}{cut}"


def _top_with_subquery(rng: random.Random) -> str:
    (first, outer), (_, inner) = table(rng), table(rng)
    columns = columns_of(first, "a", ["small", "text", "date"])
    subquery = rng.choice(
        [
            f"(SELECT max(z.s) FROM {inner} z)",
            f"a.k IN (SELECT z.k FROM {inner} z)",
            f"(SELECT count(*) FROM {inner} z WHERE z.k = a.k)",
            f"(SELECT min(z.k) FROM {inner} z WHERE z.k > a.k)",
            f"(SELECT z.k FROM {inner} z WHERE z.k = a.k)",
        ]
    )
    chosen = rng.choice(columns)
    cut = _cut(rng, ["c0", "c1"] if rng.random() < 0.3 else ["c0"])
    return f"SELECT {chosen} AS c0, {subquery} AS c1 FROM {outer} AS a{cut}"


def _cut(rng: random.Random, names: Sequence[str]) -> str:
    order = ""
    if rng.random() < 0.8:
        keys = rng.sample(list(names), rng.randint(1, len(names)))
        words = ["", " DESC", " NULLS FIRST", " DESC NULLS FIRST"]
        order = " ORDER BY " + ", ".join(f"{k}{rng.choice(words)}" for k in keys)
    offset = f" OFFSET {rng.choice([1, 3])}" if rng.random() < 0.2 else ""
    return f"{order} LIMIT {rng.choice([1, 2, 5, 5, 30])}{offset}"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_answer_is_the_same(seed: int, both: BothSides) -> None:
    sql = query(seed)
    outcome = both.compare(sql)
    assert outcome is None, f"{outcome}\n{for_batuta(sql)}"


def test_the_queries_reach_the_rules(both: BothSides) -> None:
    if both.connection._session.settings.partial_aggregation != "always":
        pytest.skip("nothing is forced")
    reached: Counter[str] = Counter()
    for seed in range(120):
        plan = both.connection.explain(for_batuta(query(seed)))
        reached["parts"] += "part_e" in plan
        reached["a row is a part"] += "CASE WHEN" in plan and "part_e" in plan
        reached["distinct"] += "SELECT DISTINCT" in plan
        reached["limits"] += plan.count("Limit ") > 1
    assert min(reached.values()) >= 4, reached
    assert len(reached) == 4
