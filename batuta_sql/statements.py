"""What is done with each kind of statement."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa

from batuta_sql import local_statements
from batuta_sql.errors import NotSupportedError, ProgrammingError
from batuta_sql.frontend.expressions import ParameterValues
from batuta_sql.frontend.parser import Statement
from batuta_sql.outcome import Outcome, of_table
from batuta_sql.query import Query
from batuta_sql.show_and_describe import show_or_describe
from batuta_sql.sources.embedded import EmbeddedSource
from batuta_sql.watching import Destination

if TYPE_CHECKING:
    from batuta_sql.dbapi import Connection

_SETTINGS = frozenset({"timezone", "threads", "memory_limit"})


def run_statement(
    connection: Connection,
    sql: str,
    parameters: ParameterValues | None,
    into: Destination | None = None,
) -> tuple[Outcome, Query | None]:
    """Runs one statement; gives the Query where one is still running.

    :param into: where the rows of a query will lie, if that is known.
    """
    special = show_or_describe(connection, sql)
    if special is not None:
        return special, None
    statement = connection._single(sql)
    match statement.kind:
        case "query":
            return _run_query(connection, statement, parameters, into)
        case "EXPLAIN":
            return _explain(connection, statement.sql, parameters), None
        case "CREATE":
            return local_statements.create(connection, statement, parameters), None
        case "INSERT" | "DELETE" | "UPDATE" | "DROP" | "ALTER":
            return local_statements.change(connection, statement, parameters), None
        case "SET" | "VARIABLE_SET":
            return _set(connection, statement), None
    raise NotSupportedError(
        f"{statement.kind} is not supported: Batuta-SQL reads its sources and changes nothing",
        hint="local temporary tables and views may be created",
        sql=sql,
    )


def _run_query(
    connection: Connection,
    statement: Statement,
    parameters: ParameterValues | None,
    into: Destination | None,
) -> tuple[Outcome, Query | None]:
    try:
        return _started(connection, statement, parameters, into)
    except ProgrammingError:
        # What is remembered of a catalog may be older than the table: look again before refusing.
        if not connection._session.catalog.forget():
            raise
        return _started(connection, statement, parameters, into)


def _started(
    connection: Connection,
    statement: Statement,
    parameters: ParameterValues | None,
    into: Destination | None,
) -> tuple[Outcome, Query]:
    query = Query(connection._session, statement, parameters)
    query.into = into
    connection._started(query)
    try:
        outcome = Outcome(query.run())
        outcome.keep_description()
        return outcome, query
    except BaseException:
        connection._ended(query)
        raise


def _explain(connection: Connection, sql: str, parameters: ParameterValues | None) -> Outcome:
    if re.match(r"\s*explain\s+analyze\b", sql, re.IGNORECASE):
        text = str(connection.analyze(sql, parameters))
    else:
        text = connection.explain(sql, parameters)
    return of_table(connection, pa.table({"plan": pa.array(text.splitlines(), pa.string())}))


def _set(connection: Connection, statement: Statement) -> Outcome:
    match = re.match(r"\s*set\s+(?:session\s+|global\s+)?(\w+)", statement.sql, re.IGNORECASE)
    name = match[1].lower() if match else ""
    if name not in _SETTINGS:
        raise NotSupportedError(
            f"SET {name} is not supported", hint="settable: " + ", ".join(sorted(_SETTINGS))
        )
    value = re.sub(r"^\s*set\s+(?:session\s+|global\s+)?", "", statement.sql, flags=re.IGNORECASE)
    text = f"SET GLOBAL {value}"
    outcome = local_statements.run_here(connection, text, None)
    # What was computed before may mean something else now.
    connection._session.engine.forget_constants()
    connection._session.prepared.clear()
    connection._session.results.clear()
    for source in connection._session.sources.values():
        if isinstance(source, EmbeddedSource):
            source.apply_setting(text)
    if name == "timezone":
        with connection._session.engine.lossless_cursor() as cursor:
            cursor.execute(text)
    return outcome
