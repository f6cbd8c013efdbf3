"""What went wrong for people who use systems of this kind: each query has one right answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer
from tests.field_cases.format import CaseFile, QueryBlock, read_case_file
from tests.field_cases.sources import build

FILES = [read_case_file(path) for path in sorted((Path(__file__).parent / "cases").glob("*.test"))]
QUERIES = [
    pytest.param(
        case,
        query,
        id=f"{case.name}:{query.line}",
        # The sources of a file are built once: keep its queries in one worker.
        marks=pytest.mark.xdist_group(f"field-{case.name}"),
    )
    for case in FILES
    for query in case.queries
]


class Federations:
    """One connection for each case file, its sources built when first asked for."""

    def __init__(self, folder: Path, request: pytest.FixtureRequest) -> None:
        self._folder = folder
        self._request = request
        self._open: dict[str, Any] = {}
        self._cleanup = ExitStack()

    def __getitem__(self, case: CaseFile) -> Any:
        if case.name not in self._open:
            folder = self._folder / case.name
            folder.mkdir()
            config = build(case, folder, self._postgres, self._cleanup)
            connection = batuta_sql.connect(config)
            self._cleanup.callback(connection.close)
            self._open[case.name] = connection
        return self._open[case.name]

    def _postgres(self) -> PostgresServer:
        server = self._request.getfixturevalue("postgres")
        assert isinstance(server, PostgresServer)
        return server

    def close(self) -> None:
        self._cleanup.close()


@pytest.fixture(scope="session")
def federations(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, postgres: object
) -> Iterator[Federations]:
    # `postgres` is asked for here so that the server outlives the databases in it.
    made = Federations(tmp_path_factory.mktemp("field_cases"), request)
    yield made
    made.close()


def answer(connection: Any, sql: str) -> list[Any]:
    cursor = connection.cursor()
    cursor.execute(sql)
    return list(cursor.fetchall())


@pytest.mark.parametrize(("case", "query"), QUERIES)
def test_batuta_gives_the_right_answer(
    case: CaseFile, query: QueryBlock, federations: Federations
) -> None:
    connection = federations[case]
    if query.error:
        with pytest.raises(batuta_sql.Error) as raised:
            answer(connection, query.sql)
        problem = query.error_mismatch(str(raised.value))
    else:
        problem = query.mismatch(answer(connection, query.sql))
    if problem:
        pytest.fail(f"{case.path.name}:{query.line}\n{query.sql}\n{problem}", pytrace=False)


@pytest.fixture(scope="module")
def truths() -> Iterator[dict[str, duckdb.DuckDBPyConnection]]:
    made: dict[str, duckdb.DuckDBPyConnection] = {}
    yield made
    for con in made.values():
        con.close()


def truth_of(case: CaseFile) -> duckdb.DuckDBPyConnection:
    """The sources of a case as local DuckDB tables under the names that its queries use."""
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    for source in case.sources:
        con.execute(f"ATTACH ':memory:' AS {source.name}")
        schema = "public" if source.kind == "postgresql" else "main"
        con.execute(f"CREATE SCHEMA IF NOT EXISTS {source.name}.{schema}")
        con.execute(f"USE {source.name}.{schema}")
        con.execute(case.truth[source.name])
    con.execute("USE memory")
    return con


@pytest.mark.parametrize(("case", "query"), QUERIES)
def test_the_answer_in_the_file_is_that_of_duckdb(
    case: CaseFile, query: QueryBlock, truths: dict[str, duckdb.DuckDBPyConnection]
) -> None:
    if case.name not in truths:
        truths[case.name] = truth_of(case)
    con = truths[case.name]
    if query.error:
        with pytest.raises(duckdb.Error) as raised:
            con.execute(query.sql).fetchall()
        problem = query.error_mismatch(str(raised.value))
    else:
        problem = query.mismatch(con.execute(query.sql).fetchall())
    assert problem is None, problem
