"""One connection over the edge values in every kind of source, and DuckDB's own copy of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer
from tests.capability import edges
from tests.comparison import answer_of, difference, without_limit

KINDS = {"pg": "postgresql", "lite": "sqlite", "duck": "duckdb"}
"""Source names in the queries, and their kinds."""


@dataclass(frozen=True)
class Bench:
    """Both sides: a query names its source ``pg``, ``lite`` or ``duck`` on either."""

    connection: Any
    truth: duckdb.DuckDBPyConnection
    icu: bool
    uri: str

    def check(self, sql: str) -> Run:
        """Runs the query here and there; fails where the answers differ.

        A query that DuckDB refuses (an overflow) must be an error here too.
        """
        try:
            known = self.truth.sql(sql).to_arrow_table()
        except duckdb.Error as refusal:
            with closing(self.connection.cursor()) as cursor:
                with pytest.raises(batuta_sql.Error):
                    cursor.execute(sql).fetch_arrow_table()
                return Run.of(cursor, str(refusal))
        with closing(self.connection.cursor()) as cursor:
            found = cursor.execute(sql).fetch_arrow_table()
            run = Run.of(cursor)
        if _bits(found) == _bits(known) and "ORDER BY" not in sql:
            return run
        got, want = answer_of(found), answer_of(known)
        unlimited = without_limit(sql)
        everything = answer_of(self.truth.sql(unlimited).to_arrow_table()) if unlimited else None
        problem = difference(got, want, sql, everything)
        assert problem is None, f"{sql}\n{problem}\n{run.tree}"
        if unlimited is None:
            assert _bits(found) == _bits(known), f"{sql}: floats differ in their bits\n{run.tree}"
        return run


def _bits(table: pa.Table) -> tuple[list[str], list[str]]:
    """A table whose floats are equal only in every bit: -0.0 is not 0.0 (but NaN has no sign)."""
    whole = {pa.date32(): pa.int32(), pa.time64("us"): pa.int64()}
    columns = [
        c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c.cast(whole.get(c.type, c.type))
        for c in table.columns
    ]
    names = [f"{f.name} {f.type}" for f in table.schema]
    return names, sorted(map(repr, zip(*(c.to_pylist() for c in columns), strict=True)))


@dataclass(frozen=True)
class Run:
    """How a query was split: the statements that were sent, and the tree of all of it."""

    sent: str
    tree: str
    refused: str | None = None

    @classmethod
    def of(cls, cursor: Any, refused: str | None = None) -> Run:
        plan = cursor.plan
        if plan is None:
            return cls("", "", refused)
        return cls("\n".join(f.sql for f in plan.fragments), str(plan), refused)

    @property
    def whole(self) -> bool:
        """Whether the source ran everything: nothing but the Exchange is left here."""
        return self.tree.startswith("Exchange ") and "Runs here:" not in self.tree


@pytest.fixture(scope="session")
def bench(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("capability")
    edges.fill_sqlite(folder / "edge.sqlite")
    edges.fill_duckdb(folder / "edge.duckdb")
    with duckdb.connect() as truth, postgres.database("capability") as uri:
        for name, kind in KINDS.items():
            edges.make_truth(truth, name, kind)
        edges.fill_postgres(postgres, uri.rsplit("/", 1)[1], icu=postgres.has_icu)
        config = {
            "sources": {
                "pg": {"kind": "postgresql", "uri": uri},
                "lite": {"kind": "sqlite", "path": str(folder / "edge.sqlite")},
                "duck": {"kind": "duckdb", "path": str(folder / "edge.duckdb")},
            }
        }
        with closing(batuta_sql.connect(config)) as connection:
            yield Bench(connection, truth, postgres.has_icu, uri)
