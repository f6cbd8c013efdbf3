"""Local tables and views: what makes, changes and drops them. Sources stay as they are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from batuta_sql.catalog.local_objects import local_tables
from batuta_sql.engines.duckdb import PendingResult, changed_rows, engine_error
from batuta_sql.errors import NotSupportedError, ProgrammingError
from batuta_sql.frontend.expressions import ParameterValues
from batuta_sql.frontend.parser import Statement, parse
from batuta_sql.labels import ColumnLabels, TableLabels
from batuta_sql.outcome import Outcome
from batuta_sql.provenance import words_of
from batuta_sql.query import Query
from batuta_sql.watching import Destination

if TYPE_CHECKING:
    from batuta_sql.dbapi import Connection

_READ_NOTHING = frozenset({"generate_series", "range", "repeat", "unnest"})
"""Table functions whose rows are made of their arguments alone."""


def create(
    connection: Connection, statement: Statement, parameters: ParameterValues | None
) -> Outcome:
    tree = _tree_of(statement.sql)
    target = tree.find(exp.Table) if tree is not None else None
    if not isinstance(tree, exp.Create) or target is None:
        raise NotSupportedError(
            "this CREATE is not supported", hint="tables and views may be created locally"
        )
    _refuse_source_target(connection, target, "CREATE")
    session = connection._session
    name = target.name.lower()
    kind = (tree.args.get("kind") or "").upper()
    query_tree = tree.args.get("expression")
    if kind == "VIEW" and isinstance(query_tree, exp.Query):
        if name in session.views and not tree.args.get("replace"):
            raise ProgrammingError(
                f'there is a view "{name}" already', hint="CREATE OR REPLACE VIEW"
            )
        # Bound now, so that a wrong name is found when the view is made.
        Query(
            session, Statement(query_tree.sql("duckdb"), "query", query_tree.copy()), None
        ).close()
        session.views[name] = query_tree
        return Outcome()
    if kind in ("INDEX", "SEQUENCE"):
        return run_here(connection, statement.sql, parameters)
    if kind != "TABLE":
        raise NotSupportedError(f"CREATE {kind} is not supported")
    if query_tree is None:
        return run_here(
            connection,
            re.sub(r"\b(temp|temporary)\s+(?=table)", "", statement.sql, flags=re.IGNORECASE),
            parameters,
        )
    text = query_tree.sql("duckdb")
    with session.engine.cursor() as engine:
        inner = parse(text, engine)[0]
    query = Query(session, inner, parameters)
    query.into = Destination("table", name)
    kept = session.labels.get(name, TableLabels()) if tree.args.get("exists") else TableLabels()
    words = "CREATE OR REPLACE TABLE" if tree.args.get("replace") else "CREATE TABLE"
    if tree.args.get("exists"):
        words += " IF NOT EXISTS"
    try:
        query.run_into(f"{words} {target.sql('duckdb')} AS")
        labels = kept | _labels_of_table(connection, target, query)
    finally:
        query.close()
    if labels:
        session.labels[name] = labels
    else:
        session.labels.pop(name, None)
    return Outcome()


def _labels_of_table(connection: Connection, target: exp.Table, query: Query) -> TableLabels:
    """The labels of a local table that a query has filled."""
    if not query.provenance.is_labelled:
        return TableLabels()
    with connection._session.engine.cursor() as cursor:
        rows = cursor.execute(f"DESCRIBE {target.sql('duckdb')}").fetchall()
    labels = query.provenance.labels_of(len(rows))
    if len(labels) != len(rows):
        # IF NOT EXISTS of a table that is there with other columns.
        return TableLabels.throughout(ColumnLabels(query.provenance.labels.all))
    columns = {r[0]: c for r, c in zip(rows, labels, strict=True)}
    return TableLabels(columns, query.provenance.labels.rows)


def change(
    connection: Connection, statement: Statement, parameters: ParameterValues | None
) -> Outcome:
    """INSERT, DELETE, UPDATE, DROP and ALTER of a local table or view."""
    tree = _tree_of(statement.sql)
    target = tree.find(exp.Table) if tree is not None else None
    if tree is None or target is None:
        raise NotSupportedError(f"this {statement.kind} is not supported")
    _refuse_source_target(connection, target, statement.kind)
    if isinstance(tree, exp.Drop):
        return _drop(connection, tree, statement.sql)
    if isinstance(tree, exp.Insert) and _is_plain_query(tree):
        return _insert_query(connection, tree, target, parameters)
    if not isinstance(tree, exp.Alter):
        _refuse_reading_elsewhere(connection, tree, target)
    labels = _labels_named(connection, statement.sql)
    returns = tree.args.get("returning") is not None
    if returns and labels:
        raise NotSupportedError(
            f"RETURNING of what is labelled {', '.join(sorted(labels.all))} is not supported",
            hint="SELECT it: the result then carries its labels",
        )
    outcome = run_here(connection, statement.sql, parameters, returns=returns)
    # Whatever the statement read may be in any column now; of a new name, too.
    renamed = [n.name.lower() for a in tree.find_all(exp.AlterRename) for n in [a.this] if n]
    for changed in (target.name.lower(), *renamed):
        _add_labels(connection, changed, labels)
    return outcome


def _drop(connection: Connection, tree: exp.Drop, sql: str) -> Outcome:
    session = connection._session
    names = [t.name.lower() for t in tree.find_all(exp.Table)]
    kind = (tree.args.get("kind") or "").upper()
    if kind in ("TABLE", "VIEW") and all(name in session.views for name in names):
        for name in names:
            del session.views[name]
        return Outcome()
    outcome = run_here(connection, sql, None)
    for name in names if kind == "TABLE" else ():
        session.labels.pop(name, None)
    return outcome


def _is_plain_query(tree: exp.Insert) -> bool:
    """Whether an INSERT is no more than a query whose rows are put into a table."""
    beside = ("conflict", "returning", "alternative", "by_name", "overwrite", "with", "with_")
    return isinstance(tree.expression, exp.Query) and not any(tree.args.get(k) for k in beside)


def _insert_query(
    connection: Connection,
    tree: exp.Insert,
    target: exp.Table,
    parameters: ParameterValues | None,
) -> Outcome:
    """Rows of any query, of sources too, with its labels."""
    with connection._session.engine.cursor() as engine:
        inner = parse(tree.expression.sql("duckdb"), engine)[0]
    query = Query(connection._session, inner, parameters)
    query.into = Destination("table", target.name.lower())
    connection._started(query)
    try:
        words = tree.copy()
        words.expression.pop()
        affected = query.run_into(words.sql("duckdb"))
        if query.provenance.is_labelled:
            # Which of its columns stands where is not told apart.
            found = TableLabels.throughout(ColumnLabels(query.provenance.labels.all))
            _add_labels(connection, target.name.lower(), found)
    finally:
        connection._ended(query)
    return Outcome(affected=affected)


def _refuse_reading_elsewhere(connection: Connection, tree: exp.Expr, target: exp.Table) -> None:
    """A change reads local tables alone: what it read elsewhere would come without its labels.

    :param target: what is changed; where it is not there, the engine says so.
    """
    with connection._session.engine.cursor() as cursor:
        known = {t.name.lower() for t in local_tables(cursor)}
    known |= {c.alias.lower() for c in tree.find_all(exp.CTE)}
    for table in tree.find_all(exp.Table):
        if table is target or table.sql("duckdb").partition("(")[0].lower() in _READ_NOTHING:
            continue
        if not isinstance(table.this, exp.Identifier) or table.name.lower() not in known:
            raise NotSupportedError(
                f"a change of a local table reads only local tables, not {table.sql('duckdb')}",
                hint="CREATE TABLE name AS SELECT ... makes a local table of it",
            )


def _add_labels(connection: Connection, name: str, labels: TableLabels) -> None:
    held = connection._session.labels
    if labels:
        held[name] = held.get(name, TableLabels()) | labels


def _labels_named(connection: Connection, sql: str) -> TableLabels:
    """The labels of all local tables whose names stand in a statement."""
    held = connection._session.labels
    found = frozenset[str]().union(*(held[w].all for w in words_of(sql) if w in held))
    return TableLabels.throughout(ColumnLabels(found)) if found else TableLabels()


def run_here(
    connection: Connection,
    sql: str,
    parameters: ParameterValues | None,
    *,
    returns: bool = False,
) -> Outcome:
    """:param returns: whether its rows are wanted, and not how many it has changed."""
    if returns:
        return _returned(connection._session.engine.cursor(), sql, parameters)
    with connection._session.engine.cursor() as engine:
        try:
            engine.execute(sql, parameters) if parameters else engine.execute(sql)
            return Outcome(affected=changed_rows(engine))
        except duckdb.Error as error:
            raise engine_error(error) from None


def _returned(
    engine: duckdb.DuckDBPyConnection, sql: str, parameters: ParameterValues | None
) -> Outcome:
    """The rows of a RETURNING, which is done whether they are fetched or not."""
    try:
        engine.register("answer", engine.sql(sql, params=parameters or None).materialize())
    except duckdb.Error as error:
        raise engine_error(error) from None
    return Outcome(PendingResult(engine, "SELECT * FROM answer"))


def _refuse_source_target(connection: Connection, target: exp.Table, kind: str) -> None:
    first = target.parts[0].name if target.parts else ""
    if len(target.parts) > 1 and connection._session.catalog.source(first) is not None:
        raise NotSupportedError(
            f"{kind} is refused: Batuta-SQL never changes a source",
            source=first,
            hint="create a local table: CREATE TABLE name AS SELECT ...",
        )


def _tree_of(sql: str) -> exp.Expr | None:
    try:
        return sqlglot.parse_one(sql, read="duckdb")
    except SqlglotError:
        return None
