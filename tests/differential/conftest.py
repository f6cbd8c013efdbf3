"""The tables of the differential test in every home, one connection to them, and the truth."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import duckdb
import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer
from batuta_sql.plan.rates import Rates
from tests.comparison import answer_of, difference, without_limit
from tests.differential.generator import random_query
from tests.differential.shrink import shrink
from tests.differential.tables import for_batuta, for_truth, make_truth, sources


@dataclass(frozen=True)
class Outcome:
    """What is wrong with Batuta's answer. Shrinking keeps the kind, so that it stays on one bug.

    :param kind: ``wrong`` (another answer), ``refused`` (an error where DuckDB answers) or
        ``accepted`` (an answer where DuckDB refuses).
    """

    kind: str
    message: str


@dataclass(frozen=True)
class BothSides:
    """Asks the same query of Batuta and of DuckDB."""

    connection: Any
    truth: duckdb.DuckDBPyConnection

    def compare(self, sql: str) -> Outcome | None:
        """None where both agree, an error on both sides included."""
        asked, known = for_batuta(sql), for_truth(sql)
        refusal: str | None = None
        try:
            relation = self.truth.sql(known)
            want = answer_of(relation.to_arrow_table())
        except duckdb.Error as error:
            refusal = str(error)
        try:
            with closing(self.connection.cursor()) as cursor:
                cursor.execute(asked)
                got = answer_of(cursor.fetch_arrow_table())
        except batuta_sql.Error as error:
            if refusal is not None:
                return None
            return Outcome("refused", f"{type(error).__name__}: {error}")
        if refusal is not None:
            return Outcome("accepted", f"an answer of {len(got.rows)} rows, DuckDB: {refusal}")
        problem = difference(got, want, known)
        if problem is not None and (unlimited := without_limit(known)) is not None:
            everything = answer_of(self.truth.sql(unlimited).to_arrow_table())
            problem = difference(got, want, known, everything)
        return None if problem is None else Outcome("wrong", problem)


def check_generated(seed: str, both: BothSides) -> None:
    """Compares the query of a seed; a failure is shrunk before it is shown."""
    sql = random_query(seed)
    outcome = both.compare(sql)
    if outcome is None:
        return

    def fails_alike(smaller: str) -> bool:
        found = both.compare(smaller)
        return found is not None and found.kind == outcome.kind

    small = shrink(sql, fails_alike)
    final = both.compare(small) or outcome
    used = sorted({home for home, _ in re.findall(r"\b([a-z]+)__(\w+)", small)})
    pytest.fail(
        f"seed {seed}: {final.kind}, tables on {', '.join(used) or 'nothing'}\n"
        f"{final.message}\n\nsmall: {for_batuta(small)}\n\nwhole: {for_batuta(sql)}",
        pytrace=False,
    )


@pytest.fixture(scope="session")
def truth() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        make_truth(con)
        yield con


GROUPS_SLOWLY = Rates(1e-6, 1e12, 1e12, 1.0, 1e12)
"""A row a second: queries over one source are grouped and joined here wherever they can be."""


@pytest.fixture(scope="session", params=["auto", "always"])
def both(
    request: pytest.FixtureRequest,
    truth: duckdb.DuckDBPyConnection,
    postgres: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[BothSides]:
    """With what has to pay where it pays, which is nearly never here, and wherever it is legal."""
    folder = tmp_path_factory.mktemp("differential")
    how = {"semi_joins": request.param, "partial_aggregation": request.param}
    with (
        sources(truth, folder, postgres) as config,
        closing(batuta_sql.connect(config | how)) as connection,
    ):
        if request.param == "always":
            connection._session.rates = dict.fromkeys(config["sources"], GROUPS_SLOWLY)
        yield BothSides(connection, truth)
