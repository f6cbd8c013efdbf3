"""What each kind of statement does: queries run, local tables are made, sources stay as is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from batuta_sql.catalog import information_schema
from batuta_sql.catalog.local_objects import LocalObject, local_objects, local_tables
from batuta_sql.engines.duckdb import PendingResult, changed_rows, engine_error, quote
from batuta_sql.errors import Error, NotSupportedError, ProgrammingError
from batuta_sql.frontend.expressions import ParameterValues
from batuta_sql.frontend.parser import Statement, parse
from batuta_sql.labels import ColumnLabels, TableLabels
from batuta_sql.plan.site import TableInfo
from batuta_sql.provenance import words_of
from batuta_sql.query import Query
from batuta_sql.sources.embedded import EmbeddedSource
from batuta_sql.typecodes import type_code
from batuta_sql.watching import Destination

if TYPE_CHECKING:
    from batuta_sql.dbapi import Connection

_READ_NOTHING = frozenset({"generate_series", "range", "repeat", "unnest"})
"""Table functions whose rows are made of their arguments alone."""

_SETTINGS = frozenset({"timezone", "threads", "memory_limit"})


@dataclass
class Outcome:
    """A statement's result.

    :param relation: the rows, still to be read; None for a statement without any.
    :param affected: PEP 249's rowcount.
    """

    relation: Any = None
    affected: int = -1
    _description: list[tuple[Any, ...]] | None = None

    @property
    def description(self) -> list[tuple[Any, ...]] | None:
        if self._description is None and self.relation is not None:
            self._description = [
                (name, type_code(str(kind)), None, None, None, None, None)
                for name, kind in zip(self.relation.columns, self.relation.types, strict=True)
            ]
        return self._description

    def keep_description(self) -> None:
        """Reads the description while the relation still knows it."""
        _ = self.description


def run_statement(
    connection: Connection,
    sql: str,
    parameters: ParameterValues | None,
    into: Destination | None = None,
) -> tuple[Outcome, Query | None]:
    """Runs one statement; gives the Query where one is still running.

    :param into: where the rows of a query will lie, if that is known.
    """
    special = _show_or_describe(connection, sql)
    if special is not None:
        return special, None
    statement = connection._single(sql)
    match statement.kind:
        case "query":
            return _run_query(connection, statement, parameters, into)
        case "EXPLAIN":
            return _explain(connection, statement.sql, parameters), None
        case "CREATE":
            return _create(connection, statement, parameters), None
        case "INSERT" | "DELETE" | "UPDATE" | "DROP" | "ALTER":
            return _local_change(connection, statement, parameters), None
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


# --- SHOW, DESCRIBE, EXPLAIN -------------------------------------------------------------------

_SHOW = re.compile(r"\s*show\s+(all\s+)?(tables|databases|schemas)\s*;?\s*", re.IGNORECASE)
_SHOW_FROM = re.compile(r"\s*show\s+tables\s+from\s+(.+?)\s*;?\s*", re.IGNORECASE)
_DESCRIBE = re.compile(
    r"\s*(?:describe|desc|show)\s+(?:table\s+)?([^\s;(][^;]*?)\s*;?\s*", re.IGNORECASE
)


def is_show_or_describe(sql: str) -> bool:
    """Whether a statement may be answered from the catalog alone."""
    return any(form.fullmatch(sql) for form in (_SHOW_FROM, _SHOW, _DESCRIBE))


def _show_or_describe(connection: Connection, sql: str) -> Outcome | None:
    if match := _SHOW_FROM.fullmatch(sql):
        return _show_tables(connection, match[1].strip('"'))
    if match := _SHOW.fullmatch(sql):
        return _show(connection, match[2].lower(), all_=bool(match[1]))
    if match := _DESCRIBE.fullmatch(sql):
        return _describe(connection, match[1])
    return None


def _show(connection: Connection, what: str, *, all_: bool) -> Outcome:
    catalog = connection._session.catalog
    if what == "tables":
        return _show_tables(connection, None)
    name = "database_name" if what == "databases" else "schema_name"
    values = (
        list(catalog.sources)
        if what == "databases"
        else sorted(
            {f"{s}.{p[-2]}" if len(p) > 1 else s for s, p, _ in information_schema.listing(catalog)}
        )
    )
    return _table(connection, pa.table({name: pa.array(values, pa.string())}))


def _show_tables(connection: Connection, source: str | None) -> Outcome:
    rows = [
        r
        for r in information_schema.listing(connection._session.catalog)
        if source is None or r[0].lower() == source.lower()
    ]
    shown: list[tuple[str, str | None, str]] = [
        (".".join((s, *path)), s, kind) for s, path, kind in rows
    ]
    if source is None:
        shown += [(one.name, None, one.kind) for one in _local_objects(connection)]
    return _table(
        connection,
        pa.table(
            {
                name: pa.array([row[place] for row in shown], pa.string())
                for place, name in enumerate(("name", "source", "kind"))
            }
        ),
    )


def _local_objects(connection: Connection) -> list[LocalObject]:
    session = connection._session
    with session.engine.cursor() as cursor:
        return local_objects(cursor, session.registered, session.views)


def _describe(connection: Connection, target: str) -> Outcome | None:
    if re.match(r"(select|with|from|values|pivot|\()\b", target, re.IGNORECASE):
        return _describe_query(connection, target)
    session = connection._session
    try:
        table = exp.to_table(target, dialect="duckdb")
    except SqlglotError:
        return None
    from batuta_sql.catalog.names import table_parts

    parts = table_parts(table)
    if parts is not None and len(parts) == 1 and _is_local_table(connection, parts[0]):
        with session.engine.cursor() as cursor:
            found = cursor.sql(f"DESCRIBE {quote(parts[0])}").to_arrow_table()
        return _table(connection, found)
    if parts is None or len(parts) < 2 or session.catalog.source(parts[0]) is None:
        return _describe_query(connection, f"SELECT * FROM {target}")
    source = session.catalog.source(parts[0])
    assert source is not None
    return _table(connection, described(session.catalog.resolve(source, parts[1:])))


def _is_local_table(connection: Connection, name: str) -> bool:
    """Whether a bare name means a table that was made here."""
    session = connection._session
    if name.lower() in session.views or name.lower() in session.registered:
        return False
    with session.engine.cursor() as cursor:
        return name.lower() in {t.name.lower() for t in local_tables(cursor)}


def described(table: TableInfo) -> pa.Table:
    """DESCRIBE's rows: DuckDB's columns, and what the source calls the type."""
    keys = {c for key in table.keys[:1] for c in key}
    return pa.table(
        {
            "column_name": pa.array([c.name for c in table.columns], pa.string()),
            "column_type": pa.array([c.type for c in table.columns], pa.string()),
            "null": pa.array(["YES" if c.nullable else "NO" for c in table.columns], pa.string()),
            "key": pa.array(
                ["PRI" if c.name in keys else None for c in table.columns], pa.string()
            ),
            "default": pa.nulls(len(table.columns), pa.string()),
            "extra": pa.nulls(len(table.columns), pa.string()),
            "native_type": pa.array([c.native for c in table.columns], pa.string()),
            "note": pa.array([c.note for c in table.columns], pa.string()),
        }
    )


def _describe_query(connection: Connection, sql: str) -> Outcome:
    query = connection._query(sql, None)
    try:
        types = query.result_columns()
    except BaseException as error:
        raise query.failure(error) from None
    finally:
        query.close()
    return _table(
        connection,
        pa.table(
            {
                "column_name": pa.array([n for n, _ in types], pa.string()),
                "column_type": pa.array([t for _, t in types], pa.string()),
                "null": pa.array(["YES"] * len(types), pa.string()),
                **{n: pa.nulls(len(types), pa.string()) for n in ("key", "default", "extra")},
            }
        ),
    )


def _explain(connection: Connection, sql: str, parameters: ParameterValues | None) -> Outcome:
    if re.match(r"\s*explain\s+analyze\b", sql, re.IGNORECASE):
        text = str(connection.analyze(sql, parameters))
    else:
        text = connection.explain(sql, parameters)
    return _table(connection, pa.table({"plan": pa.array(text.splitlines(), pa.string())}))


# --- local tables, views, settings -------------------------------------------------------------


def _create(
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
        return _run_local(connection, statement.sql, parameters)
    if kind != "TABLE":
        raise NotSupportedError(f"CREATE {kind} is not supported")
    if query_tree is None:
        return _run_local(
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


def _local_change(
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
    outcome = _run_local(connection, statement.sql, parameters, returns=returns)
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
    outcome = _run_local(connection, sql, None)
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


def _run_local(
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


def _set(connection: Connection, statement: Statement) -> Outcome:
    match = re.match(r"\s*set\s+(?:session\s+|global\s+)?(\w+)", statement.sql, re.IGNORECASE)
    name = match[1].lower() if match else ""
    if name not in _SETTINGS:
        raise NotSupportedError(
            f"SET {name} is not supported", hint="settable: " + ", ".join(sorted(_SETTINGS))
        )
    value = re.sub(r"^\s*set\s+(?:session\s+|global\s+)?", "", statement.sql, flags=re.IGNORECASE)
    text = f"SET GLOBAL {value}"
    outcome = _run_local(connection, text, None)
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


def _tree_of(sql: str) -> exp.Expr | None:
    try:
        return sqlglot.parse_one(sql, read="duckdb")
    except SqlglotError:
        return None


def _table(connection: Connection, table: pa.Table) -> Outcome:
    engine = connection._session.engine.cursor()
    engine.register("answer", table)
    return Outcome(PendingResult(engine, "SELECT * FROM answer"))


__all__ = ["Error", "Outcome", "described", "is_show_or_describe", "run_statement"]
