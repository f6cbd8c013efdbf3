"""SQLAlchemy's way to a connection: ``create_engine("batuta:////etc/batuta.toml")``.

Three slashes before a path that is relative, four before an absolute one, as of SQLite; none of it:
the configuration that is found anyway. ``?tier=`` and ``&max_cost_usd=`` are ``connect``'s own.

https://docs.sqlalchemy.org/en/20/dialects/
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
from sqlalchemy import exc, types
from sqlalchemy.engine import default, reflection
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql import base, compiler

from batuta_sql.errors import ProgrammingError

if TYPE_CHECKING:
    from types import ModuleType

    from sqlalchemy.engine import URL
    from sqlalchemy.engine.interfaces import ConnectArgsType

    from batuta_sql.dbapi import Connection

_OWN_DATABASE, _OWN_SCHEMA = "memory", "main"
"""Of local tables."""

_TYPES: dict[str, Any] = {
    "BOOLEAN": types.BOOLEAN,
    "TINYINT": types.SMALLINT,
    "SMALLINT": types.SMALLINT,
    "INTEGER": types.INTEGER,
    "BIGINT": types.BIGINT,
    "UTINYINT": types.SMALLINT,
    "USMALLINT": types.INTEGER,
    "UINTEGER": types.BIGINT,
    "UBIGINT": lambda: types.NUMERIC(20, 0),
    "HUGEINT": lambda: types.NUMERIC(38, 0),
    "UHUGEINT": lambda: types.NUMERIC(38, 0),
    "FLOAT": types.REAL,
    "DOUBLE": types.DOUBLE,
    "VARCHAR": types.VARCHAR,
    "BLOB": types.LargeBinary,
    "UUID": types.UUID,
    "DATE": types.DATE,
    "TIME": types.TIME,
    "TIMESTAMP": types.TIMESTAMP,
    "TIMESTAMP_S": types.TIMESTAMP,
    "TIMESTAMP_MS": types.TIMESTAMP,
    "TIMESTAMP_NS": types.TIMESTAMP,
    "TIMESTAMP WITH TIME ZONE": lambda: types.TIMESTAMP(timezone=True),
}
"""Of what is not here, values come as they are."""

_INDEXED = re.compile(r"""(?:^|, )(?:'"((?:[^"]|"")*)"'|([^,]+))""")

_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")


def type_of(text: str) -> types.TypeEngine[Any]:
    """SQLAlchemy's type for one of DuckDB's."""
    if decimal := _DECIMAL.fullmatch(text):
        return types.NUMERIC(int(decimal[1]), int(decimal[2]))
    made = _TYPES.get(text)
    found: types.TypeEngine[Any] = made() if made is not None else types.NullType()
    return found


class BatutaCompiler(compiler.SQLCompiler):
    """DuckDB's words where they are others than the standard's."""

    def limit_clause(self, select: Any, **kw: Any) -> str:
        text = ""
        if select._limit_clause is not None:
            text += "\n LIMIT " + self.process(select._limit_clause, **kw)
        if select._offset_clause is not None:
            text += "\n OFFSET " + self.process(select._offset_clause, **kw)
        return text

    def visit_sequence(self, sequence: Any, **kw: Any) -> str:
        name = self.preparer.format_sequence(sequence)
        return f"nextval({self.render_literal_value(name, types.STRINGTYPE)})"

    def returning_clause(self, stmt: Any, returning_cols: Any, **kw: Any) -> str:
        label: Any = self._label_returning_column
        columns = base._select_iterables(returning_cols)
        return "RETURNING " + ", ".join(label(stmt, c, **kw) for c in columns)

    def get_select_precolumns(self, select: Any, **kw: Any) -> str:
        if select._distinct_on:
            columns = ", ".join(self.process(c, **kw) for c in select._distinct_on)
            return f"DISTINCT ON ({columns}) "
        return super().get_select_precolumns(select, **kw)

    def visit_ilike_op_binary(self, binary: Any, operator: Any, **kw: Any) -> str:
        return self._like(binary, "ILIKE", **kw)

    def visit_not_ilike_op_binary(self, binary: Any, operator: Any, **kw: Any) -> str:
        return self._like(binary, "NOT ILIKE", **kw)

    def _like(self, binary: Any, words: str, **kw: Any) -> str:
        left, right = self.process(binary.left, **kw), self.process(binary.right, **kw)
        escape = binary.modifiers.get("escape")
        told = f" ESCAPE {self.render_literal_value(escape, types.STRINGTYPE)}" if escape else ""
        return f"{left} {words} {right}{told}"

    # "~" would have to match the whole text.

    def visit_regexp_match_op_binary(self, binary: Any, operator: Any, **kw: Any) -> str:
        return self._of_pattern("regexp_matches", binary, [binary.left, binary.right], **kw)

    def visit_not_regexp_match_op_binary(self, binary: Any, operator: Any, **kw: Any) -> str:
        return f"NOT {self.visit_regexp_match_op_binary(binary, operator, **kw)}"

    def visit_regexp_replace_op_binary(self, binary: Any, operator: Any, **kw: Any) -> str:
        parts = [binary.left, *binary.right.clauses]
        return self._of_pattern("regexp_replace", binary, parts, **kw)

    def _of_pattern(self, name: str, binary: Any, parts: Sequence[Any], **kw: Any) -> str:
        values = [self.process(p, **kw) for p in parts]
        if flags := binary.modifiers.get("flags"):
            values.append(self.render_literal_value(flags, types.STRINGTYPE))
        return f"{name}({', '.join(values)})"


class BatutaContext(default.DefaultExecutionContext):
    """Sequences of local tables."""

    def fire_sequence(self, seq: Any, type_: Any) -> Any:
        name = self.identifier_preparer.format_sequence(seq)
        literal = self.dialect.statement_compiler(self.dialect, None)
        quoted = literal.render_literal_value(name, types.STRINGTYPE)
        return self._execute_scalar(f"SELECT nextval({quoted})", type_)


class BatutaTypes(compiler.GenericTypeCompiler):
    """DuckDB's names of types that mean what SQLAlchemy's mean."""

    def visit_FLOAT(self, type_: Any, **kw: Any) -> str:
        # DuckDB's FLOAT has four bytes.
        return "DOUBLE"

    def visit_DOUBLE_PRECISION(self, type_: Any, **kw: Any) -> str:
        return "DOUBLE"

    def visit_large_binary(self, type_: Any, **kw: Any) -> str:
        return "BLOB"

    def visit_TIMESTAMP(self, type_: Any, **kw: Any) -> str:
        return "TIMESTAMPTZ" if type_.timezone else "TIMESTAMP"

    def visit_DATETIME(self, type_: Any, **kw: Any) -> str:
        return self.visit_TIMESTAMP(type_, **kw)

    def visit_CLOB(self, type_: Any, **kw: Any) -> str:
        return "VARCHAR"

    def visit_JSON(self, type_: Any, **kw: Any) -> str:
        return "JSON"

    def visit_UUID(self, type_: Any, **kw: Any) -> str:
        return "UUID"


def _reserved() -> set[str]:
    with duckdb.connect(":memory:") as engine:
        rows = engine.execute(
            "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'"
        ).fetchall()
    return {name for (name,) in rows}


class BatutaNames(compiler.IdentifierPreparer):
    """Names, and schemas of several parts: ``crm.public``."""

    reserved_words = _reserved()

    def quote_schema(self, schema: str, force: Any = None) -> str:
        return ".".join(self.quote(part) for part in _parts(schema))


class BatutaDialect(default.DefaultDialect):
    """Tables are found as ``Table("customer", schema="crm.public")``."""

    name = "batuta"
    driver = "batuta"
    default_paramstyle = "qmark"
    statement_compiler = BatutaCompiler
    type_compiler_cls = BatutaTypes
    preparer = BatutaNames
    execution_ctx_cls = BatutaContext

    supports_statement_cache = True
    supports_alter = False
    supports_comments = False
    supports_default_values = True
    supports_multivalues_insert = True
    supports_native_boolean = True
    supports_native_decimal = True
    supports_native_uuid = True
    supports_sane_rowcount_returning = False
    supports_sequences = True
    sequences_optional = False
    postfetch_lastrowid = False
    insert_returning = True
    update_returning = True
    delete_returning = True
    div_is_floordiv = False
    max_identifier_length = 9999

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        import batuta_sql

        return batuta_sql

    @classmethod
    def get_pool_class(cls, url: URL) -> type[StaticPool]:
        # One connection serves all threads, and has the local tables.
        return StaticPool

    def create_connect_args(self, url: URL) -> ConnectArgsType:
        if url.host or url.username or url.port:
            raise exc.ArgumentError(
                "batuta:///FOLDER/batuta.toml has no host: sources are in the configuration"
            )
        options: dict[str, Any] = {"config": url.database or None}
        for key, value in url.query.items():
            match key:
                case "tier":
                    options["tier"] = value
                case "max_cost_usd":
                    options["max_cost_usd"] = float(str(value))
                case _:
                    raise exc.ArgumentError(f"there is no option {key}: tier, max_cost_usd are")
        return [], options

    def do_ping(self, dbapi_connection: Any) -> bool:
        dbapi_connection.execute("SELECT 1").fetchall()
        return True

    def _get_default_schema_name(self, connection: Any) -> str:
        return _OWN_SCHEMA

    def _get_server_version_info(self, connection: Any) -> tuple[int, ...]:
        from batuta_sql import __version__

        return tuple(int(n) for n in re.findall(r"\d+", __version__)[:3])

    # --- reflection ----------------------------------------------------------------------------

    @reflection.cache
    def get_schema_names(self, connection: Any, **kw: Any) -> list[str]:
        paths = _of(connection).tables()
        return sorted({".".join((source, *path[:-1])) for source, path, _ in paths})

    @reflection.cache
    def get_table_names(self, connection: Any, schema: str | None = None, **kw: Any) -> list[str]:
        return [name for name, kind in _names(connection, schema) if "view" not in kind]

    @reflection.cache
    def get_view_names(self, connection: Any, schema: str | None = None, **kw: Any) -> list[str]:
        return [name for name, kind in _names(connection, schema) if "view" in kind]

    @reflection.cache
    def has_table(
        self, connection: Any, table_name: str, schema: str | None = None, **kw: Any
    ) -> bool:
        if schema in (None, _OWN_SCHEMA):
            # A view is there whatever has become of its tables.
            listed = {name.lower() for name, _ in _names(connection, schema)}
            return table_name.lower() in listed
        try:
            self._described(connection, table_name, schema)
        except exc.NoSuchTableError:
            return False
        return True

    @reflection.cache
    def get_columns(
        self, connection: Any, table_name: str, schema: str | None = None, **kw: Any
    ) -> list[Any]:
        return [
            {
                "name": column["column_name"],
                "type": type_of(column["column_type"]),
                "nullable": column["null"] == "YES",
                "default": None,
            }
            for column in self._described(connection, table_name, schema)
        ]

    @reflection.cache
    def get_pk_constraint(
        self, connection: Any, table_name: str, schema: str | None = None, **kw: Any
    ) -> Any:
        found = self._described(connection, table_name, schema)
        keys = [c["column_name"] for c in found if c["key"] == "PRI"]
        for one in self._constraints(connection, table_name, schema, "PRIMARY KEY"):
            return {"constrained_columns": one["columns"], "name": one["name"]}
        return {"constrained_columns": keys, "name": None}

    @reflection.cache
    def get_foreign_keys(
        self, connection: Any, table_name: str, schema: str | None = None, **kw: Any
    ) -> list[Any]:
        return [
            {
                "name": one["name"],
                "constrained_columns": one["columns"],
                "referred_schema": None,
                "referred_table": one["other"],
                "referred_columns": one["others"],
                "options": {},
            }
            for one in self._constraints(connection, table_name, schema, "FOREIGN KEY")
        ]

    @reflection.cache
    def get_indexes(
        self, connection: Any, table_name: str, schema: str | None = None, **kw: Any
    ) -> list[Any]:
        columns = {c["column_name"] for c in self._described(connection, table_name, schema)}
        sql = "SELECT index_name, is_unique, expressions FROM duckdb_indexes()"
        found = self._of_local(connection, table_name, schema, sql)
        return [_index(name, unique, texts, columns) for name, unique, texts in found]

    @reflection.cache
    def get_unique_constraints(
        self, connection: Any, table_name: str, schema: str | None = None, **kw: Any
    ) -> list[Any]:
        return [
            {"name": one["name"], "column_names": one["columns"]}
            for one in self._constraints(connection, table_name, schema, "UNIQUE")
        ]

    @reflection.cache
    def get_check_constraints(
        self, connection: Any, table_name: str, schema: str | None = None, **kw: Any
    ) -> list[Any]:
        return [
            {"name": one["name"], "sqltext": one["expression"]}
            for one in self._constraints(connection, table_name, schema, "CHECK")
        ]

    @reflection.cache
    def get_sequence_names(
        self, connection: Any, schema: str | None = None, **kw: Any
    ) -> list[str]:
        if schema not in (None, _OWN_SCHEMA):
            return []
        sql = "SELECT sequence_name FROM duckdb_sequences() ORDER BY ALL"
        return [name for (name,) in _of(connection).execute(sql).fetchall()]

    @reflection.cache
    def has_sequence(
        self, connection: Any, sequence_name: str, schema: str | None = None, **kw: Any
    ) -> bool:
        return sequence_name in self.get_sequence_names(connection, schema)

    def get_temp_table_names(
        self, connection: Any, schema: str | None = None, **kw: Any
    ) -> list[str]:
        return []

    def get_temp_view_names(
        self, connection: Any, schema: str | None = None, **kw: Any
    ) -> list[str]:
        return []

    def get_table_comment(
        self, connection: Any, table_name: str, schema: str | None = None, **kw: Any
    ) -> Any:
        return {"text": None}

    def get_view_definition(
        self, connection: Any, view_name: str, schema: str | None = None, **kw: Any
    ) -> str:
        raise NotImplementedError("sources do not tell how their views are made")

    def _described(self, connection: Any, name: str, schema: str | None) -> list[dict[str, Any]]:
        """
        :raises NoSuchTableError: where there is none.
        """
        parts = [*_parts(schema or ""), name] if schema not in (None, _OWN_SCHEMA) else [name]
        written = ".".join('"' + p.replace('"', '""') + '"' for p in parts)
        try:
            found: list[dict[str, Any]] = _of(connection).describe(written).to_pylist()
        except ProgrammingError:
            raise exc.NoSuchTableError(f"{schema}.{name}" if schema else name) from None
        return found

    def _constraints(
        self, connection: Any, name: str, schema: str | None, kind: str
    ) -> list[dict[str, Any]]:
        """Those of a local table; sources tell none but primary keys."""
        sql = (
            "SELECT constraint_name, constraint_column_names, referenced_table,"
            " referenced_column_names, expression, constraint_type FROM duckdb_constraints()"
        )
        names = ("name", "columns", "other", "others", "expression")
        return [
            dict(zip(names, row[:-1], strict=True))
            for row in self._of_local(connection, name, schema, sql)
            if row[-1] == kind
        ]

    def _of_local(
        self, connection: Any, name: str, schema: str | None, sql: str
    ) -> list[tuple[Any, ...]]:
        """What the residual engine says of a local table.

        :raises NoSuchTableError: where there is no such table.
        """
        self._described(connection, name, schema)
        if schema not in (None, _OWN_SCHEMA):
            return []
        place = f" WHERE database_name = '{_OWN_DATABASE}' AND lower(table_name) = lower(?)"
        return _of(connection).execute(f"{sql}{place} ORDER BY ALL", [name]).fetchall()


def _index(name: str, is_unique: bool, texts: str, columns: Collection[str]) -> dict[str, Any]:
    """:param texts: ``[a, '"b c"', (a + 1)]``, as DuckDB lists what an index is of."""
    parts = [p[0].replace('""', '"') or p[1] for p in _INDEXED.findall(texts[1:-1])]
    named = [part if part in columns else None for part in parts]
    found = {"name": name, "unique": is_unique, "column_names": named, "dialect_options": {}}
    return found if None not in named else {**found, "expressions": parts}


def _of(connection: Any) -> Connection:
    """The connection beneath SQLAlchemy's."""
    found: Connection = connection.connection.dbapi_connection
    return found


def _names(connection: Any, schema: str | None) -> list[tuple[str, str]]:
    """Names and kinds of the tables of a schema; of a source's name alone, all of its own."""
    if schema is None or schema == _OWN_SCHEMA:
        shown = _of(connection).execute("SHOW TABLES").fetchall()
        return [(name, kind) for name, source, kind in shown if source is None]
    source, *inner = _parts(schema)
    try:
        tables = _of(connection).tables(source)
    except ProgrammingError:
        return []
    wanted = [p.lower() for p in inner]
    return [
        (path[-1], kind)
        for _, path, kind in tables
        if not inner or [p.lower() for p in path[:-1]] == wanted
    ]


def _parts(schema: str) -> list[str]:
    """``crm.public`` in its parts; one with a dot is in quotes."""
    found = re.findall(r'"(?:[^"]|"")*"|[^.]+', schema)
    return [p[1:-1].replace('""', '"') if p.startswith('"') else p for p in found]


__all__ = ["BatutaDialect", "type_of"]
