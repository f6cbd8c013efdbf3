"""One stand of each kind, filled once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import duckdb
import pytest

import batuta_sql
from tests.conformance import tables
from tests.conformance.kinds import OPENERS
from tests.conformance.stand import Stand


@dataclass(frozen=True)
class Filled:
    """A stand with the suite's tables in it, a connection over it, and the truth."""

    stand: Stand
    connection: Any
    keyed: Any
    """A connection with semi-joins wherever they are legal."""
    truth: duckdb.DuckDBPyConnection

    def ask(self, sql: str) -> Any:
        """Batuta's answer to a query that names tables as ``{table}``."""
        return self.connection.execute(self._for_batuta(sql)).fetch_arrow_table()

    def know(self, sql: str) -> Any:
        """DuckDB's answer to the same query, over the values as the source delivers them."""
        return self.truth.sql(sql.replace("{", "here.").replace("}", "")).to_arrow_table()

    def _for_batuta(self, sql: str) -> str:
        for table in (tables.FACTS, tables.KINDS, tables.EMPTY, tables.BIG):
            sql = sql.replace("{" + table.name + "}", self.stand.name(table.name))
        return sql

    def requires(self, check: str) -> None:
        """Ends a test that this kind has declared it cannot pass, with the declared reason."""
        reason = self.stand.limits.get(check)
        if reason is not None:
            pytest.skip(f"{self.stand.kind}: {reason}")


def _quoted(name: str) -> str:
    return f'"{name}"'


@pytest.fixture(scope="session", params=list(OPENERS))
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Filled]:
    kind = request.param
    folder = tmp_path_factory.mktemp(f"conformance_{kind}")
    with duckdb.connect() as truth, OPENERS[kind](folder, request.getfixturevalue) as stand:
        tables.make_truth(truth)
        made = [tables.type_table(t) for t in tables.EDGES if stand.type_of(t) is not None]
        for table in (*made, tables.FACTS, tables.KINDS, tables.EMPTY, tables.UNICODE, tables.BIG):
            stand.load(truth, table)
            shown = ", ".join(f'{stand.value_of(_quoted(n), t)} AS "{n}"' for n, t in table.columns)
            truth.execute(f'CREATE TABLE here."{table.name}" AS SELECT {shown} FROM "{table.name}"')
        config = {"sources": {"s": stand.settings}, "cost": {"on_unknown": "allow"}}
        with (
            closing(batuta_sql.connect(config)) as connection,
            closing(batuta_sql.connect(config | {"semi_joins": "always"})) as keyed,
        ):
            connection.execute("SET TimeZone = 'UTC'")
            yield Filled(stand, connection, keyed, truth)
