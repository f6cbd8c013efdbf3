"""SQLite files, through adbc-driver-sqlite.

SQLite checks no types, so a table's declared types are honoured here: INTEGER is read as BIGINT,
REAL as DOUBLE, and a value that does not fit its column's declared type is an error that names
column and value. Only what SQLite compares as DuckDB does is pushed: integers, floats and text.
"""

from __future__ import annotations

import contextlib
import json
import re
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlglot import exp

from batuta_sql.errors import DataError, Error, OperationalError
from batuta_sql.plan.pushdown import PushTranslator
from batuta_sql.plan.relational import Expr
from batuta_sql.plan.site import BaseTable
from batuta_sql.plan.translate import (
    Environment,
    NotPushable,
    Typed,
    WireColumn,
    quoted_text,
)
from batuta_sql.source_settings import SQLiteSettings
from batuta_sql.sources.adbc import (
    AdbcPool,
    AdbcReader,
    AdbcSnapshot,
    driver_error,
    fetch_rows,
    quietly,
    translated,
)
from batuta_sql.sources.base import (
    Capabilities,
    Collation,
    ColumnInfo,
    FragmentQuery,
    SourceEstimate,
    Statistics,
    TableInfo,
    TableName,
)
from batuta_sql.sources.sizes import delivered_bytes, known_rows, parsed, stored_bytes
from batuta_sql.sources.view_bases import bases_of_view, tables_are_labelled

_COMPARABLE = frozenset({"BIGINT", "DOUBLE", "VARCHAR"})
_STORED_AS_INTEGER = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "BOOLEAN"})
_SAMPLED_ROWS = 1000
_REFUSED_VALUE = "json('a value of another type')"
"""Fails when it is evaluated."""
_REFUSED_BLOB = "json('a blob is no text')"
"""Fails when it is evaluated: the driver would deliver a blob in a text column as text."""
_STORAGE = {"integer": "BIGINT", "real": "DOUBLE", "text": "VARCHAR", "blob": "BLOB"}


class SQLite:
    """A SQLite database file."""

    kind = "sqlite"
    remembers_catalog = True
    query_timeout: float | None = None

    def __init__(self, name: str, settings: SQLiteSettings) -> None:
        self.name = name
        self._settings = settings
        self._pool = AdbcPool(self._connect, settings.max_connections)

    @cached_property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            dialect="sqlite",
            translator=SQLiteTranslator(),
            joins=frozenset({"INNER", "LEFT", "CROSS", "SEMI", "ANTI"}),
            set_operations=frozenset(),
            quantified=False,
            checks_scalar=False,
        )

    # --- the catalog ---------------------------------------------------------------------------

    def list_tables(self) -> Sequence[TableName]:
        rows = self._rows(
            "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')"
            " AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY name"
        )
        return [TableName((name,), kind) for name, kind in rows]

    def resolve(self, path: tuple[str, ...]) -> Sequence[TableInfo]:
        if len(path) > 2 or (len(path) == 2 and path[0].lower() != "main"):
            return []
        with self._connection() as connection:
            rows = fetch_rows(
                connection,
                "SELECT name, type, sql FROM sqlite_master WHERE type IN ('table', 'view')"
                f" AND lower(name) = lower({_literal(path[-1])})",
            )
            return [self._describe(connection, *row) for row in rows]

    def _describe(self, connection: Any, name: str, kind: str, sql: str | None) -> TableInfo:
        rows = fetch_rows(
            connection,
            'SELECT name, type, "notnull", pk, hidden FROM'
            f" pragma_table_xinfo({_literal(name)}) ORDER BY cid",
        )
        columns: list[ColumnInfo] = []
        for column, declared, not_null, key, hidden in rows:
            if hidden == 1:
                continue
            type_ = duckdb_type_of(declared) or self._sampled_type(connection, name, column)
            columns.append(
                ColumnInfo(
                    name=column,
                    type=type_,
                    native=declared or "(none)",
                    nullable=not (not_null or (key and type_ == "BIGINT")),
                    collation=_collation(sql, kind),
                    comparable=type_ in _COMPARABLE and bool(declared),
                    note=None if declared else "no declared type: taken from the first rows",
                )
            )
        key_columns = tuple(r[0] for r in sorted((r for r in rows if r[3]), key=lambda r: r[3]))
        count = self._estimated_rows(connection, name)
        return TableInfo(
            source=self.name,
            path=(name,),
            bases=self._bases(connection, name) if kind == "view" else (),
            columns=tuple(columns),
            kind=kind,
            keys=(key_columns,) if key_columns and kind == "table" else (),
            statistics=Statistics(rows=count),
        )

    def _bases(self, connection: Any, view: str) -> tuple[BaseTable, ...]:
        if not tables_are_labelled(self._settings):
            return ()
        rows = fetch_rows(
            connection, "SELECT lower(name), sql FROM sqlite_master WHERE type = 'view'"
        )
        return bases_of_view(view, dict(rows), ["main"])

    def _sampled_type(self, connection: Any, table: str, column: str) -> str:
        """A type for a column that declares none, from what its first rows hold."""
        quoted = _identifier(column)
        rows = fetch_rows(
            connection,
            f"SELECT DISTINCT typeof({quoted}) FROM"
            f" (SELECT {quoted} FROM {_identifier(table)} LIMIT {_SAMPLED_ROWS})",
        )
        kinds = {r[0] for r in rows} - {"null"}
        if kinds == {"integer", "real"}:
            return "DOUBLE"
        return _STORAGE[kinds.pop()] if len(kinds) == 1 else "VARCHAR"

    @staticmethod
    def _estimated_rows(connection: Any, table: str) -> float | None:
        """The largest rowid: no scan, and right for tables without holes."""
        try:
            rows = fetch_rows(connection, f"SELECT max(rowid) FROM {_identifier(table)}")
        except Exception:
            return None
        return float(rows[0][0]) if rows and isinstance(rows[0][0], int) else 0.0

    def estimate(self, query: FragmentQuery) -> SourceEstimate:
        """SQLite tells how it will read a table, not how much: rows are the planner's.

        A table that is scanned is read whole, in all its columns; of one that is searched by a key
        or an index, about the rows that come back.
        """
        steps = self._rows(f"EXPLAIN QUERY PLAN {query.sql}")
        scans = [s for s in steps if str(s[-1]).startswith("SCAN")]
        tree = parsed(query, "sqlite")
        rows, rows_confidence = known_rows(query, tree)
        sizes = [stored_bytes(t) for t in query.tables]
        known = [s for s in sizes if s is not None]
        scanned: float | None = sum(known) if len(known) == len(sizes) else None
        if scanned is not None and not scans and rows is not None:
            # As if each row that comes back had one of each table.
            each = [
                s / max(t.statistics.rows or 1, 1) for s, t in zip(known, query.tables, strict=True)
            ]
            scanned = min(scanned, rows * sum(each))
        with contextlib.suppress(OSError):
            if scanned is not None:
                scanned = min(scanned, float(Path(self._settings.path).stat().st_size))
        return SourceEstimate(
            rows=rows,
            bytes_scanned=scanned,
            confidence="estimated" if scanned is not None else "unknown",
            basis="EXPLAIN QUERY PLAN, rowids and types of the columns",
            bytes_delivered=delivered_bytes(query, rows, tree),
            rows_confidence=rows_confidence,
        )

    # --- connections ---------------------------------------------------------------------------

    def open(self, readers: int | None = 1) -> SQLiteSnapshot:
        return SQLiteSnapshot(self)

    def close(self) -> None:
        self._pool.close()

    def _connect(self) -> Any:
        from adbc_driver_sqlite import dbapi as driver

        path = Path(self._settings.path)
        if not path.is_file():
            raise OperationalError(
                f"there is no file {path}", source=self.name, hint="check this source's path"
            )
        uri = f"file:{urllib.parse.quote(str(path.absolute()))}?mode=ro"
        with translated(self.error):
            return driver.connect(uri, autocommit=True)

    @contextlib.contextmanager
    def _connection(self) -> Any:
        connection = self._pool.take()
        fit = False
        try:
            with translated(self.error):
                yield connection
            fit = True
        finally:
            self.give_back(connection, fit)

    def give_back(self, connection: Any, fit: bool) -> None:
        if fit:
            self._pool.give_back(connection)
        else:
            quietly(connection.close)

    def take(self) -> Any:
        return self._pool.take()

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        with self._connection() as connection:
            return fetch_rows(connection, sql)

    def error(self, error: BaseException) -> Error:
        return driver_error(self.name, error, _clean)


class SQLiteSnapshot(AdbcSnapshot):
    """One query's view; each fragment reads in SQLite's own implicit read transaction."""

    def __init__(self, source: SQLite) -> None:
        super().__init__(source.name, source.take, source.give_back, source.error)
        self._sqlite = source

    def read(self, query: FragmentQuery) -> AdbcReader:
        types = [t or "VARCHAR" for _, t in query.columns]
        if not types:
            return self.run(query.sql)
        # The driver infers types from the first rows: a first row of our own fixes them.
        first = ", ".join(
            f"{_sample(t)} AS {_identifier(n)}"
            for (n, _), t in zip(query.columns, types, strict=True)
        )
        sql = f"SELECT {first} UNION ALL SELECT * FROM ({query.sql})"
        try:
            reader = self.run(sql)
        except Error as error:
            raise self._explained(error, query) from None
        return _CheckedReader(reader, query, types, self._misfit)

    def _explained(self, error: Error, query: FragmentQuery) -> Error:
        return self._misfit(query) if _says_misfit(error) else error

    def _misfit(self, query: FragmentQuery) -> Error:
        """Names the column and the value that do not fit the declared type.

        Asked only after a failure: it reads the fragment's tables.
        """
        with self._sqlite._connection() as connection:
            for table in query.tables:
                for column in table.columns:
                    found = _first_misfit(connection, table.name, column)
                    if found is not None:
                        return DataError(
                            f"column {_identifier(column.name)} is declared {column.type}"
                            f" but holds the {found[0]} value {found[1]}",
                            source=self._source,
                            hint="correct the value, or declare the column as TEXT",
                        )
        return DataError("a column holds values of several types", source=self._source)


def _first_misfit(connection: Any, table: str, column: ColumnInfo) -> tuple[str, str] | None:
    """Storage class and value of the first row whose value is not of the column's type."""
    quoted = _identifier(column.name)
    rows = fetch_rows(
        connection,
        f"SELECT typeof({quoted}), quote({quoted}) FROM {_identifier(table)}"
        f" WHERE typeof({quoted}) NOT IN ({_allowed_storage(column.type)}, 'null') LIMIT 1",
    )
    return rows[0] if rows else None


class _CheckedReader(AdbcReader):
    """Drops the row that fixed the types, and refuses a column that arrives as another type."""

    def __init__(
        self,
        reader: AdbcReader,
        query: FragmentQuery,
        types: Sequence[str],
        misfit: Callable[[FragmentQuery], Error],
    ) -> None:
        self._inner = reader
        self._query = query
        self._misfit = misfit
        self._first = True
        for field, type_ in zip(reader.schema, types, strict=True):
            if field.type != _arrow_type(type_):
                reader.close()
                raise misfit(query)

    @property
    def schema(self) -> pa.Schema:
        return self._inner.schema

    def __next__(self) -> pa.RecordBatch:
        try:
            batch = next(self._inner)
        except Error as error:
            if _says_misfit(error):
                raise self._misfit(self._query) from None
            raise
        if self._first:
            self._first = False
            return batch.slice(1)
        return batch

    def cancel(self) -> None:
        self._inner.cancel()

    def close(self) -> None:
        self._inner.close()


def duckdb_type_of(declared: str) -> str | None:
    """The DuckDB type of a declared SQLite type; None where nothing is declared."""
    text = declared.strip().upper()
    if not text:
        return None
    base = re.sub(r"\s*\(.*\)", "", text)
    arguments = re.search(r"\((\d+)\s*(?:,\s*(\d+))?\s*\)", text)
    if base in ("DECIMAL", "NUMERIC", "DEC") and arguments:
        width, scale = int(arguments[1]), int(arguments[2] or 0)
        return f"DECIMAL({width},{scale})" if scale <= width <= 38 else "DOUBLE"
    if base in ("DATE", "TIME", "BLOB", "JSON", "UUID"):
        return base
    if base in ("BOOLEAN", "BOOL"):
        return "BOOLEAN"
    if base in ("DATETIME", "TIMESTAMP"):
        return "TIMESTAMP"
    if base in ("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"):
        return "TIMESTAMP WITH TIME ZONE"
    # SQLite's own rules of affinity: https://www.sqlite.org/datatype3.html, section 3.1
    if "INT" in text:
        return "BIGINT"
    if any(word in text for word in ("CHAR", "CLOB", "TEXT", "STRING")):
        return "VARCHAR"
    if "BLOB" in text:
        return "BLOB"
    if any(word in text for word in ("REAL", "FLOA", "DOUB", "NUMERIC", "DECIMAL")):
        return "DOUBLE"
    return "VARCHAR"


def _collation(sql: str | None, kind: str) -> Collation:
    """Binary unless the table's text mentions COLLATE: then the comparison says BINARY itself."""
    return "other" if kind == "view" or "COLLATE" in (sql or "").upper() else "binary"


def _of_its_type(value: Typed) -> Typed:
    """A number that is compared in order: one of another storage class is refused, not ranked.

    SQLite puts every text above every number; equality cannot go wrong and keeps its index.
    """
    if value.type not in ("BIGINT", "DOUBLE") or not isinstance(value.sql, exp.Column):
        return value
    name = value.sql.sql("sqlite")
    fits = f"typeof({name}) IN ({_allowed_storage(value.type)}, 'null')"
    return replace(
        value, sql=exp.Var(this=f"CASE WHEN {fits} THEN {name} ELSE {_REFUSED_VALUE} END")
    )


def _says_misfit(error: Error) -> bool:
    return "Type mismatch" in error.message or "malformed JSON" in error.message


def _arrow_type(type_: str) -> pa.DataType:
    match type_:
        case "DOUBLE":
            return pa.float64()
        case "BLOB":
            return pa.binary()
    return pa.int64() if type_ in _STORED_AS_INTEGER else pa.string()


def _sample(type_: str) -> str:
    match type_:
        case "DOUBLE":
            return "0.0"
        case "BLOB":
            return "x''"
    return "0" if type_ in _STORED_AS_INTEGER else "''"


def _allowed_storage(type_: str) -> str:
    match type_:
        case "DOUBLE":
            return "'real', 'integer'"
        case "BLOB":
            return "'blob'"
        case _ if type_ in _STORED_AS_INTEGER:
            return "'integer'"
    # What is delivered as text may be stored as a number; only a blob is no text.
    return "'text', 'integer', 'real'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _clean(message: str) -> str:
    return re.sub(r"^[A-Z_]+: |\[SQLite\] ", "", message).strip()


class SQLiteTranslator(PushTranslator):
    """DuckDB's meaning in SQLite's words."""

    dialect = "sqlite"
    name = "sqlite"
    most_keys = 500_000

    def among_keys(self, subject: Expr, type_: str, marker: Expr) -> Expr:
        super().among_keys(subject, type_, marker)
        if type_ == "DATE":
            raise NotPushable("dates: their stored forms differ")
        values = exp.Table(this=exp.Anonymous(this="json_each", expressions=[marker]))
        query = exp.select(exp.column("value")).from_(values)
        return exp.In(this=subject, query=exp.Subquery(this=query))

    def key_text(self, type_: str, values: Sequence[str]) -> str:
        items = [json.dumps(v, ensure_ascii=False) for v in values]
        return quoted_text(f"[{','.join(items if type_ == 'VARCHAR' else values)}]")

    def binary(self, value: Typed) -> Typed:
        if value.collation == "binary" or isinstance(value.sql, exp.Literal):
            return value
        collated = exp.Collate(this=exp.Paren(this=value.sql), expression=exp.Var(this="BINARY"))
        return Typed(exp.Paren(this=collated), value.type, "binary")

    def check_integer_arithmetic(self, type_: str) -> None:
        raise NotPushable("SQLite turns an integer that overflows into a float")

    def _arithmetic(self, node: Expr, environment: Environment, rule: Any) -> Typed:
        raise NotPushable("arithmetic: SQLite has no exact decimals and no overflow")

    def sum(self, value: Typed, distinct: bool) -> Typed:
        raise NotPushable("`sum` overflows earlier than in DuckDB")

    def _neg(self, node: Expr, environment: Environment) -> Typed:
        if not isinstance(node.this, exp.Literal):
            raise NotPushable("arithmetic in SQLite")
        return super()._neg(node, environment)

    def _literal(self, node: Expr, environment: Environment) -> Typed:
        value = super()._literal(node, environment)
        if value.type in ("HUGEINT",) or (value.type or "").startswith("DECIMAL"):
            # SQLite reads such a number as a float: only as good as a DOUBLE beside it.
            return Typed(value.sql, f"?{value.type}") if value.type == "HUGEINT" else value
        return value

    def unify(self, left: Typed, right: Typed, *, ordering: bool) -> tuple[Typed, Typed]:
        for a, b in ((left, right), (right, left)):
            if a.type == "BIGINT" and (b.type or "").startswith(("DECIMAL", "?")):
                raise NotPushable("integers beside decimals in SQLite")
        if ordering:
            left, right = _of_its_type(left), _of_its_type(right)
        return super().unify(left, right, ordering=ordering)

    def extreme(self, kind: type[exp.Expr], value: Typed) -> Typed:
        return super().extreme(kind, _of_its_type(value))

    def distinct_value(self, value: Typed) -> Typed:
        return super().distinct_value(_of_its_type(value))

    def sort_key(self, key: exp.Ordered, environment: Environment) -> exp.Ordered:
        written = super().sort_key(key, environment)
        value = self._value(key.this, environment)
        if isinstance(value.sql, exp.Column):
            written.set("this", _of_its_type(replace(value, sql=written.this)).sql)
        return written

    def literal_of(self, text: str, target: str) -> Typed:
        if target != "VARCHAR" and not target.endswith("INT") and target != "INTEGER":
            raise NotPushable(f"SQLite has no {target}")
        return super().literal_of(text, target)

    def typed(self, sql: Expr, type_: str) -> Expr:
        if type_ not in ("DOUBLE", "BIGINT", "INTEGER", "SMALLINT", "TINYINT"):
            raise NotPushable(f"SQLite has no {type_}")
        return super().typed(sql, type_)

    def _like(self, node: Expr, environment: Environment) -> Typed:
        """LIKE is blind to case in SQLite; GLOB is not."""
        subject = self._value(node.this, environment)
        pattern = node.expression
        if subject.type != "VARCHAR" or not isinstance(pattern, exp.Literal):
            raise NotPushable("LIKE with a pattern that is not a literal")
        glob = "".join(
            {"%": "*", "_": "?"}.get(c, f"[{c}]" if c in "*?[" else c) for c in pattern.name
        )
        test: Expr = exp.Glob(this=self.binary(subject).sql, expression=exp.Literal.string(glob))
        if node.args.get("negate"):
            test = exp.Not(this=exp.Paren(this=test))
        return Typed(test, "BOOLEAN")

    def cast(self, value: Typed, target: str) -> Typed:
        if value.type in ("INTEGER", "BIGINT") and target == "BIGINT":
            return Typed(value.sql, target)
        raise NotPushable(f"a cast to {target} in SQLite")

    def wire(self, value: Typed) -> WireColumn:
        type_ = (value.type or "").lstrip("?")
        match type_:
            case "NULL" | "" | "HUGEINT":
                raise NotPushable("a column whose type SQLite does not keep")
            case "STRING_LITERAL":
                return WireColumn(value.sql, type="VARCHAR")
            case "VARCHAR" if isinstance(value.sql, exp.Column):
                name = value.sql.sql("sqlite")
                guarded = f"CASE typeof({name}) WHEN 'blob' THEN {_REFUSED_BLOB} ELSE {name} END"
                return WireColumn(exp.Var(this=guarded), type=type_)
            case "VARCHAR" | "BIGINT" | "DOUBLE" | "BLOB":
                return WireColumn(value.sql, type=type_)
            case "BOOLEAN":
                test = "CASE {} WHEN 0 THEN FALSE WHEN 1 THEN TRUE"
                return WireColumn(value.sql, decode=_refusing(value, test, type_), type=type_)
            case "INTEGER" | "SMALLINT" | "TINYINT":
                return WireColumn(value.sql, decode=f"CAST({{}} AS {type_})", type=type_)
        text = exp.Cast(this=value.sql, to=exp.DataType.build("TEXT"))
        if type_.startswith("DECIMAL"):
            if not isinstance(value.sql, exp.Column):
                raise NotPushable("a computed decimal: SQLite has floats only")
            return WireColumn(text, decode=_decimal(value, type_), type=type_)
        test = f"CASE WHEN TRY_CAST({{}} AS {type_}) IS NOT NULL THEN TRY_CAST({{}} AS {type_})"
        return WireColumn(text, decode=_refusing(value, test, type_), type=type_)


def _decimal(value: Typed, type_: str) -> str:
    """A decimal from its text; digits beyond the declared scale are refused, not rounded."""
    exact = f"TRY_CAST({{}} AS {type_})"
    test = (
        f"CASE WHEN {exact} IS NOT NULL AND abs(CAST({exact} AS DOUBLE) - TRY_CAST({{}} AS DOUBLE))"
        f" <= 1e-13 * greatest(1, abs(CAST({exact} AS DOUBLE))) THEN {exact}"
    )
    return _refusing(value, test, type_)


def _refusing(value: Typed, test: str, type_: str) -> str:
    name = value.sql.name if isinstance(value.sql, exp.Column) else "of the result"
    label = name.replace("'", "''").replace("{", "(").replace("}", ")")
    return (
        f'{test} WHEN {{}} IS NULL THEN NULL ELSE error(\'column "{label}" is declared {type_}'
        f" but holds the value ' || CAST({{}} AS VARCHAR)) END"
        if test.startswith("CASE WHEN")
        else f"CASE WHEN {{}} IS NULL THEN NULL WHEN {{}} = 0 THEN FALSE WHEN {{}} = 1 THEN TRUE"
        f" ELSE error('column \"{label}\" is declared {type_} but holds the value '"
        f" || CAST({{}} AS VARCHAR)) END"
    )
