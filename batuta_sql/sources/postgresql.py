"""PostgreSQL, through adbc-driver-postgresql (libpq and COPY in binary).

Every query runs in a read-only, repeatable-read transaction; when it reads several fragments, its
snapshot is exported to the other connections, so that all of them see one state.
"""

from __future__ import annotations

import csv
import decimal
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import Any

from sqlglot import exp

from batuta_sql.errors import Error
from batuta_sql.plan.site import BEYOND_ALL_BLOCKS, BaseTable, Usual
from batuta_sql.plan.text_codes import MOST
from batuta_sql.secrets import redact
from batuta_sql.source_settings import PostgreSQLSettings
from batuta_sql.sources.adbc import AdbcSnapshot, driver_error
from batuta_sql.sources.base import (
    Capabilities,
    Collation,
    ColumnInfo,
    ColumnStatistics,
    FragmentQuery,
    Load,
    SourceEstimate,
    Statistics,
    TableInfo,
    TableName,
)
from batuta_sql.sources.postgresql_connections import (
    PostgreSQLConnections,
    SharedState,
    small_result,
)
from batuta_sql.sources.postgresql_load import ServerLoad
from batuta_sql.sources.postgresql_plans import (
    delivered_bytes,
    least_seconds,
    relations,
    scanned_bytes,
)
from batuta_sql.sources.postgresql_sql import PostgreSQLTranslator
from batuta_sql.sources.view_bases import tables_are_labelled

_PLAIN = {
    "bool": "BOOLEAN",
    "int2": "SMALLINT",
    "int4": "INTEGER",
    "int8": "BIGINT",
    "float4": "FLOAT",
    "float8": "DOUBLE",
    "text": "VARCHAR",
    "varchar": "VARCHAR",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "time": "TIME",
    "interval": "INTERVAL",
    "uuid": "UUID",
    "bytea": "BLOB",
}
"""Types that the driver delivers in DuckDB's own form."""

_ARRAY_ELEMENTS = frozenset(_PLAIN) - {"bytea", "date", "timestamp", "interval"}
_UNORDERED = frozenset({"BLOB", "INTERVAL"})
_TEXT_AS_IT_IS = frozenset({"text", "varchar"})
_BINARY_COLLATIONS = frozenset({"C", "POSIX", "ucs_basic", "pg_c_utf8"})

_KINDS = {
    "r": "table",
    "p": "partitioned table",
    "v": "view",
    "m": "materialized view",
    "f": "foreign table",
}

_TABLES = """
SELECT n.nspname, c.relname, c.relkind::text, c.oid::int8, c.reltuples::float8,
       CASE WHEN c.relkind IN ('r', 'm') THEN pg_relation_size(c.oid) END::int8,
       d.datlocprovider::text, d.datcollate,
       CASE WHEN c.relkind IN ('r', 'm') AND a.amname = 'heap' THEN
         pg_relation_size(c.oid) / current_setting('block_size')::int8
       END,
       EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_database d ON d.datname = current_database()
LEFT JOIN pg_am a ON a.oid = c.relam
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {filter}
"""

_COLUMNS = """
SELECT a.attname, a.attnotnull, format_type(a.atttypid, a.atttypmod),
       coalesce(base.typname, t.typname), coalesce(base.typtype, t.typtype)::text,
       CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END,
       element.typname, co.collname, co.collisdeterministic, t.typtype::text,
       s.null_frac, s.n_distinct, s.avg_width,
       format_type(t.typbasetype, t.typtypmod),
       CASE WHEN coalesce(base.typcategory, t.typcategory) IN ('N', 'D')
            THEN s.histogram_bounds::text END,
       s.correlation,
       CASE WHEN length(s.most_common_vals::text) < 10000 THEN s.most_common_vals::text END,
       array_to_string(s.most_common_freqs, ',')
FROM pg_attribute a
JOIN pg_class r ON r.oid = a.attrelid
JOIN pg_namespace n ON n.oid = r.relnamespace
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_type base ON t.typtype = 'd' AND base.oid = t.typbasetype
LEFT JOIN pg_type element ON element.oid = coalesce(base.typelem, t.typelem)
     AND coalesce(base.typcategory, t.typcategory) = 'A'
LEFT JOIN pg_collation co ON co.oid = a.attcollation
LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = r.relname
     AND s.attname = a.attname AND s.inherited = {inherited}
WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

_KEYS = """
SELECT i.indisprimary, array_to_string(ARRAY(
    SELECT a.attname FROM unnest(i.indkey) WITH ORDINALITY k(attnum, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    ORDER BY k.place), chr(31)),
  (SELECT bool_and(a.attnotnull) FROM pg_attribute a
   WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey))
FROM pg_index i
WHERE i.indrelid = {oid} AND i.indisunique AND i.indisvalid
  AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY i.indisprimary DESC
"""


_BLOCK_RANGE = (
    "{table}.ctid >= CAST('({low},0)' AS tid) AND {table}.ctid < CAST('({high},0)' AS tid)"
)
"""A row's ctid is its block and its place in that."""

_SIZES = """
SELECT relname, max(relpages::float8 * current_setting('block_size')::float8)
FROM pg_class WHERE relname IN ({names}) AND relkind IN ('r', 'm') GROUP BY 1
"""

_FILES = """
WITH RECURSIVE tree(oid) AS (
  SELECT {oid}::oid
  UNION
  SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid
)
SELECT c.reltuples::float8, pg_relation_size(c.oid)::int8,
       CASE WHEN c.relkind = 'r' AND a.amname = 'heap' THEN
         pg_relation_size(c.oid) / current_setting('block_size')::int8
       END
FROM tree JOIN pg_class c ON c.oid = tree.oid LEFT JOIN pg_am a ON a.oid = c.relam
WHERE c.relkind <> 'p'
"""
"""The files of a table and of its partitions or children."""

_BASES = """
WITH RECURSIVE reached(oid, way, same) AS (
  SELECT {oid}::oid, 'both', true
  UNION
  SELECT step.oid, step.way, reached.same AND step.same FROM reached CROSS JOIN LATERAL (
    SELECT d.refobjid, 'both', false FROM pg_rewrite w JOIN pg_depend d
      ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
      AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> w.ev_class
    WHERE w.ev_class = reached.oid
    UNION ALL
    SELECT i.inhparent, 'up', true FROM pg_inherits i
    WHERE i.inhrelid = reached.oid AND reached.way IN ('both', 'up')
    UNION ALL
    SELECT i.inhrelid, 'down', true FROM pg_inherits i
    WHERE i.inhparent = reached.oid AND reached.way IN ('both', 'down')
  ) AS step(oid, way, same)
)
SELECT n.nspname, c.relname, bool_and(reached.same) FROM reached
JOIN pg_class c ON c.oid = reached.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid <> {oid} GROUP BY 1, 2
"""
"""The tables that a view reads, a partition's parents and a parent's partitions."""


_BATCH_BYTES = 1 << 20
"""What the driver makes a batch of, 16 MB if not told otherwise: from half a megabyte on, the size
makes no difference to the time (1.5 million rows of four columns: 0.52 s of processor time), but
every connection holds several batches."""


def _with_small_batches(cursor: Any) -> None:
    cursor.adbc_statement.set_options(
        **{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)}
    )


class PostgreSQL:
    """A PostgreSQL database."""

    kind = "postgresql"
    remembers_catalog = True

    @property
    def query_timeout(self) -> float | None:
        return self._settings.query_timeout

    def __init__(self, name: str, settings: PostgreSQLSettings) -> None:
        self.name = name
        self._settings = settings
        self._connections = PostgreSQLConnections(name, settings, self._error)
        self._load = ServerLoad(self._connections.rows, lambda: sorted(self._connections.pids))

    @cached_property
    def capabilities(self) -> Capabilities:
        translator = PostgreSQLTranslator(lambda: self._connections.server_version)
        return Capabilities("postgres", translator, block_range=_BLOCK_RANGE, groups_in_order=True)

    # --- the catalog ---------------------------------------------------------------------------

    def list_tables(self) -> Sequence[TableName]:
        where = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_'"
        where += " AND has_table_privilege(c.oid, 'SELECT')"
        rows = self._connections.rows(_TABLES.format(filter=where) + " ORDER BY 1, 2")
        return [TableName((r[0], r[1]), _KINDS[r[2]]) for r in rows]

    def resolve(self, path: tuple[str, ...]) -> Sequence[TableInfo]:
        if len(path) > 3:
            return []
        name = _quote(path[-1])
        where = ""
        if len(path) > 1:
            where += f" AND lower(n.nspname) = lower({_quote(path[-2])})"
        else:
            where += " AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
            where += " AND n.nspname !~ '^pg_'"
        if len(path) > 2:
            where += f" AND lower(current_database()) = lower({_quote(path[-3])})"
        return self._connections.run(lambda connection: self._find(connection, path, name, where))

    def _find(
        self, connection: Any, path: tuple[str, ...], name: str, where: str
    ) -> list[TableInfo]:
        # The name as written or folded is in an index; only another spelling needs a scan of the
        # catalog.
        likely = f"c.relname IN ({name}, lower({name}))"
        found = small_result(connection, _TABLES.format(filter=likely + where))
        if not found:
            anyhow = f"lower(c.relname) = lower({name})"
            found = small_result(connection, _TABLES.format(filter=anyhow + where))
        return [self._describe(connection, row) for row in _best_match(found, path)]

    def _describe(self, connection: Any, row: tuple[Any, ...]) -> TableInfo:
        schema, table, kind, oid, rows, size, provider, collate, blocks, has_children = row
        default = _default_collation(provider, collate)
        columns: list[ColumnInfo] = []
        statistics: dict[str, ColumnStatistics] = {}
        files = _Files.of((rows, size, blocks))
        if has_children:
            files = _Files.of(*small_result(connection, _FILES.format(oid=oid)))
        count = files.rows
        # What is said of a parent's own rows does not bind its children; of partitions it does.
        is_loose = has_children and kind == "r"
        for r in small_result(connection, _COLUMNS.format(oid=oid, inherited=has_children)):
            column = _column(r, default)
            if is_loose:
                column = replace(column, nullable=True)
            if r[10] is not None:
                statistics[column.name] = _statistics(r, column.type, count)
                column = replace(column, usual=_usual(r[3], count, statistics[column.name]))
            columns.append(column)
        if not columns:
            # A table may have rows without columns; elsewhere a row needs one to be counted by.
            note = "the table has no columns: one stands in for its rows"
            columns.append(ColumnInfo("row", "INTEGER", value_sql="1", note=note))
        keys = [
            tuple(k[1].split("\x1f"))
            for k in small_result(connection, _KEYS.format(oid=oid))
            if k[2] and not is_loose
        ]
        bases: list[BaseTable] = []
        if tables_are_labelled(self._settings):
            found = small_result(connection, _BASES.format(oid=oid))
            bases = [BaseTable((s, n), same) for s, n, same in found]
        return TableInfo(
            source=self.name,
            path=(schema, table),
            bases=tuple(bases),
            columns=tuple(columns),
            kind=_KINDS[kind],
            keys=tuple(keys),
            blocks=files.blocks if self._connections.reads_by_block else (),
            statistics=Statistics(count, files.bytes, columns=statistics),
        )

    def estimate(self, query: FragmentQuery) -> SourceEstimate:
        """The server's own plan; see ``postgresql_plans`` for what is read from it."""
        plan, sizes = self._connections.run(lambda connection: self._plan(connection, query))
        return SourceEstimate(
            rows=float(plan["Plan Rows"]),
            bytes_scanned=scanned_bytes(plan, sizes),
            confidence="estimated",
            basis="EXPLAIN (FORMAT JSON)",
            bytes_delivered=delivered_bytes(plan, [t for _, t in query.columns]),
            least_seconds=least_seconds(plan),
        )

    def _plan(
        self, connection: Any, query: FragmentQuery
    ) -> tuple[dict[str, Any], dict[str, float | None]]:
        """The server's plan, and the bytes of the tables that it reads."""
        found = small_result(connection, f"EXPLAIN (FORMAT JSON) {query.sql}")
        plan = json.loads(found[0][0])[0]["Plan"]
        sizes = {t.name: t.statistics.bytes for t in query.tables}
        unknown = relations(plan) - {n for n, size in sizes.items() if size is not None}
        if unknown:
            # Partitions, and what is behind a view: EXPLAIN names them, the query does not.
            names = ", ".join(_quote(n) for n in sorted(unknown))
            sizes |= dict(small_result(connection, _SIZES.format(names=names)))
        return plan, sizes

    def rows_version(self, table: TableInfo, low: int, high: int | None) -> str:
        """How many rows there are, and a sum over where each lies and which transaction wrote it.

        A row that is written has another place or another writer than before, and keeps both until
        it is written again; only a table that is written anew as a whole (VACUUM FULL, CLUSTER)
        shows other places for the same rows.
        https://www.postgresql.org/docs/current/ddl-system-columns.html
        """
        name = ".".join(exp.to_identifier(p, quoted=True).sql("postgres") for p in table.path)
        place = "concat_ws(' ', t.tableoid, t.ctid, t.xmin)"
        end = BEYOND_ALL_BLOCKS if high is None else high
        test = _BLOCK_RANGE.format(table="t", low=low, high=end)
        return (
            f"SELECT concat(count(*), ' ', sum(hashtextextended({place}, 0))) AS version"
            f" FROM {name} AS t WHERE {test}"
        )

    # --- connections ---------------------------------------------------------------------------

    def open(self, readers: int | None = 1) -> AdbcSnapshot:
        state = SharedState(self._connections, self._error, readers)
        return AdbcSnapshot(
            self.name,
            state.take,
            state.release,
            self._error,
            on_close=state.close,
            prepare=_with_small_batches,
            renew=state.renewed,
        )

    def load(self) -> Load | None:
        return self._load.look() if self._connections.is_postgresql else None

    def close(self) -> None:
        self._connections.close()

    def _error(self, error: BaseException) -> Error:
        return driver_error(self.name, error, self._clean)

    def _clean(self, message: str) -> str:
        """The server's own words, without the driver's decoration and without secrets."""
        text = re.sub(r"^[A-Z_]+: ", "", message)
        text = re.sub(r"\[libpq\] ", "", text)
        text = re.sub(r"Execution error \[PGRES_FATAL_ERROR\]: ", "", text)
        text = re.sub(r"\s*Query was: .*", "", text, flags=re.DOTALL)
        text = re.sub(r"\.? ?SQLSTATE: \w+$", "", text.strip())
        return redact(" ".join(text.split()), self._settings.secrets())


def _quote(text: str) -> str:
    return exp.Literal.string(text).sql("postgres")


def _best_match(rows: list[tuple[Any, ...]], path: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Where several names differ only in case, those that match exactly win."""
    exact = [r for r in rows if r[1] == path[-1] and (len(path) < 2 or r[0] == path[-2])]
    rows = exact or rows
    if len(path) == 1 and len(rows) > 1:
        public = [r for r in rows if r[0] == "public"]
        return public or rows
    return rows


@dataclass(frozen=True)
class _Files:
    """What a table is stored in; several files where it has partitions or children.

    :param blocks: of each file; empty where one of them is no heap.
    """

    rows: float | None
    bytes: float | None
    blocks: tuple[int, ...]

    @staticmethod
    def of(*files: tuple[float | None, int | None, int | None]) -> _Files:
        """Of the rows (less than 0: never counted), bytes and blocks of each file."""
        sizes = [size for _, size, _ in files if size is not None]
        blocks = [b for _, _, b in files if b is not None]
        complete = len(sizes) == len(files)
        return _Files(
            _counted([(rows, size) for rows, size, _ in files]),
            float(sum(sizes)) if complete else None,
            tuple(blocks) if len(blocks) == len(files) else (),
        )


def _counted(files: Sequence[tuple[float | None, int | None]]) -> float | None:
    """The rows of some files; one that was never counted is as dense as the others."""
    known = [(rows, size) for rows, size in files if rows is not None and rows >= 0]
    if not known:
        return None
    total = sum(rows for rows, _ in known)
    unknown = [size for rows, size in files if (rows is None or rows < 0) and size != 0]
    if not unknown:
        return total
    counted = sum(size or 0 for _, size in known)
    if not counted or None in unknown:
        return None
    return total * (1 + sum(size or 0 for size in unknown) / counted)


def _default_collation(provider: str, collate: str) -> Collation:
    if collate in ("C", "POSIX") and provider == "c":
        return "binary"
    return "binary" if provider == "b" else "deterministic"


def _column(row: tuple[Any, ...], default: Collation) -> ColumnInfo:
    name, not_null, shown, base, base_kind, modifier, element = row[:7]
    collation_name, deterministic = row[7], row[8]
    type_, value_sql, comparable, note = _delivery(base, base_kind, modifier, element, shown)
    collation: Collation = default
    if collation_name in _BINARY_COLLATIONS:
        collation = "binary"
    elif collation_name not in (None, "default") or deterministic is False:
        collation = "other"
    if row[9] == "d" and value_sql == "{}" and base not in _TEXT_AS_IT_IS:
        value_sql = f"CAST({{}} AS {row[13]})"
    return ColumnInfo(
        name=name,
        type=type_,
        native=shown,
        nullable=not not_null,
        collation=collation,
        value_sql=value_sql,
        comparable=comparable,
        note=note,
    )


def _delivery(
    base: str, kind: str, modifier: int, element: str | None, shown: str
) -> tuple[str, str, bool, str | None]:
    """DuckDB type, reading SQL, whether it may be computed with, and a note."""
    if element is not None and base.startswith("_"):
        return _array_delivery(element)
    if kind == "b" and base in _PLAIN:
        type_ = _PLAIN[base]
        return type_, "{}", type_ not in _UNORDERED, None
    match base:
        case "numeric":
            width, scale = ((modifier - 4) >> 16) & 0xFFFF, (modifier - 4) & 0x7FF
            if modifier >= 4 and scale <= width <= 38 and not scale & 0x400:
                return f"DECIMAL({width},{scale})", "{}", True, None
            note = "numeric without a width that DECIMAL can hold: read as text"
            return "VARCHAR", "CAST({} AS text)", False, note
        case "bpchar" | "name" | "char":
            return "VARCHAR", "CAST({} AS text)", True, None
        case "oid" | "xid" | "cid":
            return "BIGINT", "CAST(CAST({} AS text) AS int8)", True, None
        case "json" | "jsonb":
            return "JSON", "CAST({} AS text)", False, None
    if kind == "e":
        return "VARCHAR", "CAST({} AS text)", True, "enum: read as text"
    return "VARCHAR", "CAST({} AS text)", False, f"{shown}: no DuckDB type matches, read as text"


def _array_delivery(element: str) -> tuple[str, str, bool, str | None]:
    if element not in _ARRAY_ELEMENTS:
        return "VARCHAR", "CAST({} AS text)", False, f"array of {element}: read as text"
    # PostgreSQL does not fix an array's dimensions and the driver flattens them: such a value is
    # refused (by a cast that fails with these words) rather than delivered as another one.
    refusal = "'an array of ' || array_ndims({}) || ' dimensions is not a list'"
    sql = f"CASE WHEN array_ndims({{}}) > 1 THEN CAST({refusal} AS {element}[]) ELSE {{}} END"
    return f"{_PLAIN[element]}[]", sql, False, None


def _statistics(row: Sequence[Any], type_: str, rows: float | None) -> ColumnStatistics:
    """What the last ANALYZE found in a column (pg_stats)."""
    distinct = float(row[11])
    bounds = _values(row[14], type_)
    shares = [float(s) for s in row[17].split(",")] if row[17] else []
    common = tuple(zip(_values(row[16], type_), shares, strict=False))
    # Common values are not in the histogram. Text has an order of its own there.
    known: list[Any] = [*bounds, *(v for v, _ in common)] if type_ != "VARCHAR" else []
    return ColumnStatistics(
        distinct=distinct if distinct >= 0 else -distinct * (rows or 0.0),
        null_fraction=float(row[10]),
        width=float(row[12]),
        minimum=min(known) if known else None,
        maximum=max(known) if known else None,
        correlation=float(row[15]) if row[15] is not None else None,
        common=common,
        bounds=bounds,
    )


_MANY_ROWS = 100_000
_NEARLY_ALL = 0.999


def _usual(base: str, rows: float | None, statistics: ColumnStatistics) -> Usual:
    """The texts that nearly all of many rows have."""
    shares = sum(share for _, share in statistics.common)
    known = shares + (statistics.null_fraction or 0.0)
    if base not in ("text", "varchar", "bpchar") or (rows or 0.0) < _MANY_ROWS:
        return ()
    if known < _NEARLY_ALL or len(statistics.common) > MOST:
        return ()
    # A char(n) is read without the blanks that fill it up.
    is_filled = base == "bpchar"
    common = [(str(v), share) for v, share in statistics.common]
    return tuple((v.rstrip(" ") if is_filled else v, share) for v, share in common)


def _values(array: str | None, type_: str) -> tuple[object, ...]:
    """The items of an array of statistics, ``{1,"a b",9}``; none of a type that is not compared."""
    if not array:
        return ()
    (items,) = csv.reader([array[1:-1]], quotechar='"', escapechar="\\", doublequote=False)
    try:
        match type_:
            case "SMALLINT" | "INTEGER" | "BIGINT":
                return tuple(map(int, items))
            case "DATE":
                return tuple(map(date.fromisoformat, items))
            case "VARCHAR":
                return tuple(items)
            case "BOOLEAN":
                return tuple(i == "t" for i in items)
            case _ if type_.startswith("DECIMAL"):
                return tuple(map(decimal.Decimal, items))
    except (ValueError, ArithmeticError):
        # 'infinity' is a date there.
        return ()
    return ()
