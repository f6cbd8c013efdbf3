"""Random queries: any seed gives the same query for ever, and almost all of them run in DuckDB.

What a query returns is fixed by its text (but for the order of rows where ORDER BY leaves it open,
and the rows at the cut of the outermost LIMIT): window functions that depend on the order of rows
have a total one, and an inner LIMIT sorts by every column.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.differential.tables import DATES, HOMES, TABLES, TEXTS, TIMES

Fields = list[tuple[str, str]]
"""Columns in reach: (how to write it, its family)."""

COMPARISONS = ("=", "<>", "<>", "<", "<=", ">", ">=")
FAMILIES = ("small", "dec", "dbl", "text", "date", "time", "bool", "big")
JOINS = (
    *("JOIN", "JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"),
    *("SEMI JOIN", "ANTI JOIN"),
)
# Types that compare with each other: an integer beside a decimal beside a double.
MIXES = {"small": ("small", "dec", "dbl", "big"), "dec": ("dec", "small"), "dbl": ("dbl", "small")}


@dataclass
class Relation:
    """Something to select from: its SQL with alias, its columns, and whether ``id`` is unique."""

    sql: str
    alias: str
    columns: Fields
    has_unique_id: bool


@dataclass
class Query:
    """A SELECT without ORDER BY: its SQL and the families of its output columns c0, c1 ..."""

    sql: str
    families: list[str]


@dataclass
class Generator:
    """Draws queries. ``random_query`` is what callers use."""

    draw: random.Random
    _aliases: int = 0
    _common: list[tuple[str, Query]] = field(default_factory=list)

    def alias(self) -> str:
        self._aliases += 1
        return f"r{self._aliases}"

    def chance(self, share: float) -> bool:
        return self.draw.random() < share

    # -- queries ---------------------------------------------------------------------------------

    def statement(self) -> str:
        """A whole query."""
        heads = []
        if self.chance(0.25):
            self._common.append(("w", self.block(1)))
            heads.append(f"WITH w AS ({self._common[0][1].sql}) ")
        query = self.set_operation(2) if self.chance(0.2) else self.block(2)
        sql = query.sql
        if self.chance(0.6):
            count = self.draw.randint(1, len(query.families))
            keys = self.draw.sample(range(len(query.families)), count)
            sql += " ORDER BY " + ", ".join(f"c{key}{self.direction()}" for key in keys)
            if self.chance(0.6):
                sql += f" LIMIT {0 if self.chance(0.03) else self.draw.choice((1, 3, 10))}"
                if self.chance(0.3):
                    sql += f" OFFSET {self.draw.choice((1, 2, 5))}"
        return heads[0] + sql if heads else sql

    def direction(self) -> str:
        order = self.draw.choice(("", "", " ASC", " DESC"))
        return order + self.draw.choice(("", "", " NULLS FIRST", " NULLS LAST"))

    def set_operation(self, depth: int) -> Query:
        operator = self.draw.choice(
            (
                "UNION",
                "UNION ALL",
                "UNION ALL",
                "INTERSECT",
                "EXCEPT",
                "EXCEPT ALL",
                "INTERSECT ALL",
            )
        )
        families = [self.draw.choice(("small", "text", "dec", "date")) for _ in range(2)]
        left, right = self.plain(depth - 1, families), self.plain(depth - 1, families)
        return Query(f"{left.sql} {operator} {right.sql}", families)

    def block(self, depth: int) -> Query:
        return self.draw.choice(
            (self.plain, self.plain, self.aggregate, self.aggregate, self.window)
        )(depth)

    def plain(self, depth: int, families: Sequence[str] | None = None) -> Query:
        """SELECT, with the output families given or free ones."""
        relations, tail = self.from_where(depth)
        columns = [column for relation in relations for column in relation.columns]
        wanted = families or [
            self.draw.choice(columns)[1] if self.chance(0.8) else self.draw.choice(FAMILIES)
            for _ in range(self.draw.randint(1, 4))
        ]
        shown = [self.value(family, columns, 2) for family in wanted]
        distinct = "DISTINCT " if self.chance(0.15) else ""
        return Query(f"SELECT {distinct}{_named(shown)}{tail}", list(wanted))

    def aggregate(self, depth: int) -> Query:
        """SELECT with aggregates, grouped by up to two expressions."""
        relations, tail = self.from_where(depth)
        columns = [column for relation in relations for column in relation.columns]
        keys: Fields = []
        for _ in range(self.draw.choice((0, 1, 1, 2))):
            family = self.draw.choice(columns)[1]
            keys.append((self.value(family, columns, 1, literals=False), family))
        aggregates = [self.aggregated(columns) for _ in range(self.draw.randint(1, 3))]
        sql = f"SELECT {_named([text for text, _ in [*keys, *aggregates]])}{tail}"
        if keys:
            sql += " GROUP BY " + ", ".join(text for text, _ in keys)
            if self.chance(0.2):
                text, family = self.aggregated(columns)
                sql += f" HAVING {self.compared(text, family, [])}"
        return Query(sql, [family for _, family in [*keys, *aggregates]])

    def window(self, depth: int) -> Query:
        """SELECT with window functions; sometimes with QUALIFY."""
        relations, tail = self.from_where(depth)
        columns = [column for relation in relations for column in relation.columns]
        family = self.draw.choice(columns)[1]
        shown: Fields = [(self.value(family, columns, 1), family)]
        shown += [self.windowed(relations, columns) for _ in range(self.draw.randint(1, 2))]
        sql = f"SELECT {_named([text for text, _ in shown])}{tail}"
        if self.chance(0.2):
            sql += f" QUALIFY rank() OVER (ORDER BY {self.draw.choice(columns)[0]}) <= 3"
        return Query(sql, [family for _, family in shown])

    # -- FROM and WHERE --------------------------------------------------------------------------

    def from_where(self, depth: int) -> tuple[list[Relation], str]:
        """The relations whose columns are in reach, and the text from FROM to WHERE."""
        first = self.relation(depth)
        visible = [first]
        sql = f" FROM {first.sql}"
        for _ in range(self.draw.choice((0, 0, 1, 1, 2))):
            joined = self.relation(depth)
            kind = self.draw.choice(JOINS)
            if self.chance(0.05):
                sql += f" CROSS JOIN {joined.sql}"
                visible.append(joined)
                continue
            sql += f" {kind} {joined.sql} ON {self.join_condition(kind, visible, joined)}"
            if kind not in ("SEMI JOIN", "ANTI JOIN"):
                visible.append(joined)
        if self.chance(0.5 if depth > 1 else 0.35):
            columns = [column for relation in visible for column in relation.columns]
            sql += f" WHERE {self.predicate(columns, 2, subqueries=depth > 0)}"
        return visible, sql

    def relation(self, depth: int) -> Relation:
        alias = self.alias()
        if self._common and self.chance(0.4):
            name, query = self._common[0]
            return Relation(f"{name} AS {alias}", alias, _outputs(alias, query.families), False)
        if depth > 0 and self.chance(0.2):
            query = self.block(depth - 1)
            sql = query.sql
            if self.chance(0.3):
                keys = ", ".join(
                    f"c{index}{self.direction()}" for index in range(len(query.families))
                )
                sql += f" ORDER BY {keys} LIMIT {self.draw.choice((2, 5, 9))}"
            return Relation(f"({sql}) AS {alias}", alias, _outputs(alias, query.families), False)
        table = "none" if self.chance(0.015) else self.draw.choice(("t1", "t2", "t3"))
        home = self.draw.choice(sorted(HOMES))
        columns = [(f"{alias}.{column.name}", column.family) for column in TABLES[table]]
        return Relation(f"{home}__{table} AS {alias}", alias, columns, True)

    def join_condition(self, kind: str, left: Sequence[Relation], right: Relation) -> str:
        """An equality of columns that compare, and sometimes more."""
        pairs = [
            (mine, theirs)
            for relation in left
            for mine, family in relation.columns
            for theirs, other in right.columns
            if other in MIXES.get(family, (family,))
        ]
        # Joins by id and k are what people write; others must work too.
        likely = [pair for pair in pairs if all(side.endswith((".id", ".k")) for side in pair)]
        pool = likely if likely and self.chance(0.85) else pairs
        if not pool:
            return "true" if kind != "FULL JOIN" else "1 = 1"
        mine, theirs = self.draw.choice(pool)
        condition = f"{mine} = {theirs}"
        if kind != "FULL JOIN" and self.chance(0.25):
            columns = [column for relation in (*left, right) for column in relation.columns]
            condition += f" AND {self.predicate(columns, 1, subqueries=False)}"
        return condition

    # -- predicates ------------------------------------------------------------------------------

    def predicate(self, columns: Fields, depth: int, *, subqueries: bool) -> str:
        if depth > 0 and self.chance(0.35):
            left = self.predicate(columns, depth - 1, subqueries=subqueries)
            right = self.predicate(columns, depth - 1, subqueries=subqueries)
            return f"({left} {self.draw.choice(('AND', 'OR', 'OR'))} {right})"
        if depth > 0 and self.chance(0.1):
            return f"NOT ({self.predicate(columns, depth - 1, subqueries=subqueries)})"
        if subqueries and self.chance(0.25):
            return self.subquery_predicate(columns)
        text, family = self.draw.choice(columns)
        roll = self.draw.random()
        if roll < 0.12:
            return f"{text} IS {self.draw.choice(('', 'NOT '))}NULL"
        if roll < 0.24:
            values = [self.literal(family) for _ in range(self.draw.randint(1, 4))]
            if self.chance(0.15):
                values.append("NULL")
            return f"{text} {self.draw.choice(('', 'NOT '))}IN ({', '.join(values)})"
        if roll < 0.32 and family != "bool":
            return f"{text} BETWEEN {self.literal(family)} AND {self.literal(family)}"
        if roll < 0.42 and family == "text":
            pattern = self.draw.choice(("a%", "%b", "_", "%\\%", "a\\_b", "", "%ë%", "A%"))
            operator = self.draw.choice(("LIKE", "LIKE", "NOT LIKE", "ILIKE"))
            return f"{text} {operator} '{pattern}'"
        if roll < 0.48:
            other = self.value(family, columns, 1)
            return f"{text} IS {self.draw.choice(('', 'NOT '))}DISTINCT FROM {other}"
        return self.compared(self.value(family, columns, 1, literals=False), family, columns)

    def compared(self, text: str, family: str, columns: Fields) -> str:
        other = self.draw.choice(MIXES.get(family, (family,)))
        right = self.value(other, columns, 1) if columns else self.literal(other)
        return f"{text} {self.draw.choice(COMPARISONS)} {right}"

    def subquery_predicate(self, columns: Fields) -> str:
        """EXISTS, IN or a scalar subquery, correlated or not."""
        inner = self.relation(0)
        pairs = [
            (mine, theirs)
            for mine, family in columns
            for theirs, other in inner.columns
            if family == other
        ]
        where = ""
        if pairs and self.chance(0.7):
            mine, theirs = self.draw.choice(pairs)
            where = f" WHERE {theirs} = {mine}"
            if self.chance(0.4):
                where += f" AND {self.predicate(inner.columns, 1, subqueries=False)}"
        elif self.chance(0.5):
            where = f" WHERE {self.predicate(inner.columns, 1, subqueries=False)}"
        negated = self.draw.choice(("", "", "NOT "))
        roll = self.draw.random()
        if roll < 0.4 or not pairs:
            return f"{negated}EXISTS (SELECT 1 FROM {inner.sql}{where})"
        mine, theirs = self.draw.choice(pairs)
        if roll < 0.7:
            return f"{mine} {negated}IN (SELECT {theirs} FROM {inner.sql}{where})"
        function = self.draw.choice(("min", "max"))
        operator = self.draw.choice(COMPARISONS)
        return f"{mine} {operator} (SELECT {function}({theirs}) FROM {inner.sql}{where})"

    # -- values ----------------------------------------------------------------------------------

    def value(self, family: str, columns: Fields, depth: int, *, literals: bool = True) -> str:
        """An expression of a family; ``literals=False`` makes sure that a column is in it."""
        own = [text for text, other in columns if other == family]
        if depth > 0 and self.chance(0.35):
            computed = self.computed(family, columns, depth - 1, literals=literals)
            if computed is not None:
                return computed
        if own and (not literals or self.chance(0.85)):
            return self.draw.choice(own)
        if not literals and columns:
            return f"CASE WHEN {columns[0][0]} IS NULL THEN {self.literal(family)} END"
        return self.literal(family)

    def computed(
        self, family: str, columns: Fields, depth: int, *, literals: bool = True
    ) -> str | None:
        """An operator or function over values; None where the family has none."""

        def one(of: str) -> str:
            return self.value(of, columns, depth, literals=literals)

        choice = self.draw.choice
        if self.chance(0.2):
            return f"coalesce({one(family)}, {self.literal(family)})"
        if columns and self.chance(0.2):
            when = self.predicate(columns, 0, subqueries=False)
            return f"CASE WHEN {when} THEN {one(family)} ELSE {one(family)} END"
        if family == "small":
            return choice(
                (
                    f"({one('small')} {choice(('+', '-', '*'))} {one('small')})",
                    f"({one('small')} {choice(('%', '//'))} {self.divisor(one('small'))})",
                    f"abs({one('small')})",
                    f"length({one('text')})",
                    f"year({one('date')})",
                )
            )
        if family == "dec":
            return choice(
                (f"({one('dec')} {choice(('+', '-'))} {one('dec')})", f"round({one('dec')}, 1)")
            )
        if family == "dbl":
            return choice(
                (
                    f"({one('dbl')} {choice(('+', '-', '*'))} {one('dbl')})",
                    f"({one('small')} / {self.divisor(one('small'))})",
                    f"({one('dbl')} / {self.divisor(one('small'))})",
                    f"CAST({one('dec')} AS DOUBLE)",
                    f"round({one('dbl')})",
                )
            )
        if family == "text":
            return choice(
                (
                    f"{choice(('upper', 'lower', 'trim', 'reverse'))}({one('text')})",
                    f"({one('text')} || {one('text')})",
                    f"concat({one('text')}, '-', {one('text')})",
                    f"substr({one('text')}, {choice((-2, 0, 1, 2))}, {choice((0, 1, 2))})",
                    f"replace({one('text')}, 'a', 'é')",
                    f"CAST({one('small')} AS VARCHAR)",
                    f"{choice(('left', 'right'))}({one('text')}, {choice((-1, 1, 2))})",
                )
            )
        if family == "date":
            return f"CAST(date_trunc('month', {one('date')}) AS DATE)"
        if family == "time":
            return f"date_trunc('{choice(('day', 'hour', 'year'))}', {one('time')})"
        if family == "bool" and columns:
            return f"({self.predicate(columns, 0, subqueries=False)})"
        return None

    def divisor(self, text: str) -> str:
        """Mostly guarded: an error is an answer too, but says little about all the rest."""
        return text if self.chance(0.05) else f"nullif({text}, 0)"

    def literal(self, family: str) -> str:
        choice = self.draw.choice
        if self.chance(0.04):
            types = {"small": "INTEGER", "big": "BIGINT", "dec": "DECIMAL(12,4)", "dbl": "DOUBLE"}
            types |= {"text": "VARCHAR", "date": "DATE", "time": "TIMESTAMP", "bool": "BOOLEAN"}
            return f"CAST(NULL AS {types[family]})"
        if family == "small":
            return str(choice((-3, -1, 0, 1, 2, 3, 7, 12, 20)))
        if family == "big":
            return choice(("0", "1", "4294967296", "9223372036854775807"))
        if family == "dec":
            return choice(("0.0", "0.50", "1.25", "-7.5", "99999999.99", "2.5"))
        if family == "dbl":
            return choice(("0.0::DOUBLE", "1.5::DOUBLE", "'NaN'::DOUBLE", "-2.25::DOUBLE", "1e6"))
        if family == "text":
            return "'" + choice(TEXTS).replace("'", "''") + "'"
        if family == "date":
            return f"DATE '{choice(DATES)}'"
        if family == "time":
            return f"TIMESTAMP '{choice(TIMES)}'"
        return choice(("true", "false"))

    # -- aggregates and windows ------------------------------------------------------------------

    def aggregated(self, columns: Fields) -> tuple[str, str]:
        """An aggregate and its family ("other" for what no expression here takes)."""
        text, family = self.draw.choice(columns)
        options = [
            ("count(*)", "small"),
            (f"count({text})", "small"),
            (f"count(DISTINCT {text})", "small"),
            (f"min({text})", family),
            (f"max({text})", family),
        ]
        if family in ("small", "big", "dec", "dbl"):
            options += [(f"sum({text})", "big" if family in ("small", "big") else family)] * 2
            options += [(f"avg({text})", "dbl")]
        if family == "bool":
            options += [(f"bool_or({text})", "bool"), (f"bool_and({text})", "bool")]
        if family == "text":
            options += [(f"string_agg({text}, ',' ORDER BY {text})", "text")]
        sql, result = self.draw.choice(options)
        if self.chance(0.15):
            sql += f" FILTER (WHERE {self.predicate(columns, 0, subqueries=False)})"
        return sql, result

    def windowed(self, relations: Sequence[Relation], columns: Fields) -> tuple[str, str]:
        """A window function whose value does not depend on how ties are ordered."""
        text, family = self.draw.choice(columns)
        partition = f"PARTITION BY {self.draw.choice(columns)[0]} " if self.chance(0.6) else ""
        order = f"ORDER BY {self.draw.choice(columns)[0]}{self.direction()}"
        options = [
            (f"rank() OVER ({partition}{order})", "small"),
            (f"dense_rank() OVER ({partition}{order})", "small"),
            (f"count({text}) OVER ({partition}{order})", "small"),
            (f"max({text}) OVER ({partition}{order})", family),
            (f"min({text}) OVER ({partition.strip()})", family),
        ]
        if family in ("small", "dec"):
            result = "big" if family == "small" else "dec"
            options.append((f"sum({text}) OVER ({partition}{order})", result))
        if all(relation.has_unique_id for relation in relations):
            total = "ORDER BY " + ", ".join(f"{relation.alias}.id" for relation in relations)
            rows = "ROWS BETWEEN 2 PRECEDING AND CURRENT ROW"
            options += [
                (f"row_number() OVER ({partition}{total})", "small"),
                (f"lag({text}) OVER ({partition}{total})", family),
                (f"lead({text}, 2) OVER ({partition}{total})", family),
                (f"first_value({text}) OVER ({partition}{total} {rows})", family),
                (f"count(*) OVER ({partition}{total} {rows})", "small"),
            ]
        return self.draw.choice(options)


def _named(expressions: Sequence[str]) -> str:
    return ", ".join(f"{text} AS c{index}" for index, text in enumerate(expressions))


def _outputs(alias: str, families: Sequence[str]) -> Fields:
    return [(f"{alias}.c{index}", family) for index, family in enumerate(families)]


def random_query(seed: object) -> str:
    """The query of a seed, with tables named ``HOME__TABLE``."""
    return Generator(random.Random(f"batuta/{seed}")).statement()
