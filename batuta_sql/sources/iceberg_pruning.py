"""Which files of an Iceberg table a fragment can need, by partition values and column bounds.

Only what is certain counts. Conditions are taken from the fragment, their values computed by DuckDB
and compared in the column's own type; pyiceberg projects them through the partition transforms and
holds them against each file's bounds.
"""

from __future__ import annotations

import decimal
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import sqlglot
from sqlglot import exp

from batuta_sql.sources.iceberg_metadata import IcebergFile, IcebergSnapshot
from batuta_sql.sources.iceberg_schema import IcebergColumn
from batuta_sql.sources.parquet_footers import Test, tests_of
from batuta_sql.sources.partition_pruning import uses_of_view

if TYPE_CHECKING:
    from pyiceberg.expressions import BooleanExpression

_CONSTANT = (
    exp.Literal,
    exp.Cast,
    exp.DataType,
    exp.DataTypeParam,
    exp.Neg,
    exp.Paren,
    exp.Boolean,
    exp.Add,
    exp.Sub,
    exp.Mul,
    exp.Interval,
    exp.Var,
)
"""What a value may be made of: nothing of another moment, or of chance."""

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_TIMES = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")
_MOST_VALUES = 200
_FLOAT_OPERATORS = (exp.LT, exp.LTE, exp.EQ)
"""Bounds leave NaN out, which DuckDB takes for larger than all: it passes no ``<``."""


@dataclass(frozen=True)
class _Pruning:
    """A condition as pyiceberg has it: for bounds, and for partition values."""

    bounds: BooleanExpression
    partitions: BooleanExpression


def needed_files(
    cursor: duckdb.DuckDBPyConnection, snapshot: IcebergSnapshot, sql: str, view: str
) -> list[int]:
    """The numbers of the files that can hold rows of ``view`` that ``sql`` needs."""
    every = list(range(len(snapshot.files)))
    pruning = _pruning(cursor, snapshot, sql, view)
    if pruning is None:
        return every
    from pyiceberg.expressions.visitors import _InclusiveMetricsEvaluator

    try:
        metrics = _InclusiveMetricsEvaluator(snapshot.schema, pruning.bounds)
    except Exception:
        return every  # a condition that pyiceberg does not take
    partitions = {n: _of_spec(snapshot, n, pruning.partitions) for n in snapshot.identities}
    return [
        i
        for i in every
        if _may(partitions[snapshot.files[i].spec_id], snapshot.files[i])
        and _may(lambda f: metrics.eval(f.entry), snapshot.files[i])
    ]


def _may(test: Callable[[IcebergFile], bool], file: IcebergFile) -> bool:
    try:
        return test(file)
    except Exception:
        return True  # bounds or values of a form that is not understood exclude nothing


def _of_spec(
    snapshot: IcebergSnapshot, spec_id: int, condition: BooleanExpression
) -> Callable[[IcebergFile], bool]:
    """Whether a file's partition may hold rows, under one of the table's partition specs."""
    from pyiceberg.expressions.visitors import expression_evaluator, inclusive_projection
    from pyiceberg.schema import Schema

    spec = snapshot.metadata.specs()[spec_id]
    try:
        projected = inclusive_projection(snapshot.schema, spec)(condition)
        shape = Schema(*spec.partition_type(snapshot.schema).fields)
        evaluate = expression_evaluator(shape, projected, case_sensitive=True)
    except Exception:
        return lambda file: True  # a spec over columns that are not there any more
    return lambda file: evaluate(file.entry.partition)


def _pruning(
    cursor: duckdb.DuckDBPyConnection, snapshot: IcebergSnapshot, sql: str, view: str
) -> _Pruning | None:
    from pyiceberg.expressions import AlwaysTrue, And, Or

    columns = {c.name: c for c in snapshot.columns}
    found: _Pruning | None = None
    for alias, conditions in uses_of_view(sql, view):
        bounds: BooleanExpression = AlwaysTrue()
        partitions: BooleanExpression = AlwaysTrue()
        told = False
        for condition in conditions:
            for expression, also in _expressions(cursor, columns, condition, alias):
                told = True
                bounds = And(bounds, expression)
                partitions = And(partitions, expression) if also else partitions
        if not told:
            return None
        found = (
            _Pruning(bounds, partitions)
            if found is None
            else _Pruning(Or(found.bounds, bounds), Or(found.partitions, partitions))
        )
    return found


def _expressions(
    cursor: duckdb.DuckDBPyConnection,
    columns: dict[str, IcebergColumn],
    condition: exp.Expr,
    alias: str,
) -> Iterable[tuple[BooleanExpression, bool]]:
    """What a condition says to pyiceberg, and whether partition transforms may be applied to it."""
    from pyiceberg import expressions

    made: Any = expressions

    null = _null_test(condition, alias)
    if null is not None:
        name, is_null = null
        if name in columns and "." not in name:
            yield (made.IsNull if is_null else made.NotNull)(name), True
        return
    keys = _key_list(condition, alias)
    if keys is not None:
        column = columns.get(keys[0])
        found = _of_keys(cursor, column, keys[1]) if column is not None else None
        if found is not None:
            yield found
        return
    for test in tests_of(condition, alias):
        column = columns.get(test.column)
        # pyiceberg takes a dot for a step into a struct.
        if column is None or "." in column.name or len(test.values) > _MOST_VALUES:
            continue
        values = [_value(cursor, column, test.operator, v) for v in test.values]
        if any(v is None for v in values):
            continue
        also = column.type not in _TIMES or all(v.value > 0 for v in values)
        if len(values) == 1:
            yield _predicate(test, values[0]), also
        else:
            yield made.In(column.name, values), also


def _key_list(condition: exp.Expr, alias: str) -> tuple[str, exp.Expr] | None:
    """The column and the list of ``column IN (SELECT UNNEST(list))``, which keys are sent as."""
    match condition:
        case exp.In(this=exp.Column() as column) if column.table == alias:
            query = condition.args.get("query")
            select = query.this if isinstance(query, exp.Subquery) else query
            if not isinstance(select, exp.Select) or len(select.expressions) != 1:
                return None
            if any(v for k, v in select.args.items() if k != "expressions"):
                return None
            (item,) = select.expressions
            if isinstance(item, exp.Explode | exp.Unnest) or (
                isinstance(item, exp.Anonymous) and item.name.upper() == "UNNEST"
            ):
                values = item.expressions or [item.this]
                return (column.name, values[0]) if len(values) == 1 else None
    return None


def _of_keys(
    cursor: duckdb.DuckDBPyConnection, column: IcebergColumn, values: exp.Expr
) -> tuple[BooleanExpression, bool] | None:
    """The condition that a column's value is among keys: these, or of many the range."""
    from pyiceberg import expressions

    made: Any = expressions
    known = all(isinstance(n, (*_CONSTANT, exp.FromJson)) for n in values.walk())
    if "." in column.name or not known:
        return None
    raw = _raw("v", column.type)
    source = f"(SELECT DISTINCT UNNEST({values.sql('duckdb')}) AS v) WHERE v IS NOT NULL"
    try:
        ((count, whole, low, high, type_),) = cursor.execute(
            f"SELECT count(*), count({raw}), min({raw}), max({raw}), min(typeof(v)) FROM {source}"
        ).fetchall()
        if not count or count != whole or not _comparable(column.type, type_, exp.EQ):
            return None
        rows = [(low,), (high,)]
        if count <= _MOST_VALUES:
            rows = cursor.execute(f"SELECT {raw} FROM {source}").fetchall()
    except duckdb.Error:
        return None
    literals = [_literal(column.type, r) for (r,) in rows]
    also = column.type not in _TIMES or all(v.value > 0 for v in literals)
    if count <= _MOST_VALUES:
        return made.In(column.name, literals), also
    least = made.GreaterThanOrEqual(column.name, literals[0])
    return made.And(least, made.LessThanOrEqual(column.name, literals[1])), also


def _predicate(test: Test, value: Any) -> BooleanExpression:
    from pyiceberg import expressions

    operators: dict[type[exp.Expr], Any] = {
        exp.EQ: expressions.EqualTo,
        exp.LT: expressions.LessThan,
        exp.LTE: expressions.LessThanOrEqual,
        exp.GT: expressions.GreaterThan,
        exp.GTE: expressions.GreaterThanOrEqual,
    }
    found: BooleanExpression = operators[test.operator](test.column, value)
    return found


def _null_test(condition: exp.Expr, alias: str) -> tuple[str, bool] | None:
    """The column of ``IS NULL`` or ``IS NOT NULL``, and which of them it is."""
    wanted = True
    while isinstance(condition, exp.Not | exp.Paren):
        wanted = wanted if isinstance(condition, exp.Paren) else not wanted
        condition = condition.this
    match condition:
        case exp.Is(this=exp.Column() as column) if (
            isinstance(condition.expression, exp.Null) and column.table == alias
        ):
            return column.name, wanted
    return None


def _value(
    cursor: duckdb.DuckDBPyConnection,
    column: IcebergColumn,
    operator: type[exp.Expr],
    sql: str,
) -> Any:
    """A literal of pyiceberg's, equal to the value that DuckDB compares with; None: not certain."""
    try:
        tree = sqlglot.parse_one(sql, read="duckdb")
    except sqlglot.errors.SqlglotError:
        return None
    if not all(isinstance(n, _CONSTANT) for n in tree.walk()):
        return None
    shown = sql
    if isinstance(tree, exp.Literal) and tree.is_string:
        # DuckDB gives a text without a type the type of the column.
        shown = f"TRY_CAST({sql} AS {column.type})"
    try:
        (row,) = cursor.execute(
            f"SELECT typeof(v), TRY_CAST(v AS {column.type}) = v, {_raw('v', column.type)}"
            f" FROM (SELECT {shown} AS v)"
        ).fetchall()
    except duckdb.Error:
        return None
    if row[1] is not True or row[2] is None:
        return None
    if not _comparable(column.type, row[0], operator):
        return None
    return _literal(column.type, row[2])


def _raw(value: str, type_: str) -> str:
    """SQL of a value in Iceberg's own representation."""
    cast = f"TRY_CAST({value} AS {type_})"
    match type_:
        case "DATE":
            return f"CASE WHEN isfinite({cast}) THEN {cast} - DATE '1970-01-01' END"
        case "TIMESTAMP" | "TIMESTAMP WITH TIME ZONE":
            return f"CASE WHEN isfinite({cast}) THEN epoch_us({cast}) END"
        case "DOUBLE":
            return f"CASE WHEN NOT isnan({cast}) THEN {cast} END"
    return cast


def _comparable(column: str, value: str, operator: type[exp.Expr]) -> bool:
    """Whether DuckDB's comparison of the two types is the one in the column's type.

    The value is known to be equal to itself in that type.
    """
    if column in ("INTEGER", "BIGINT"):
        return value in _WHOLE or value.startswith("DECIMAL")
    if column.startswith("DECIMAL"):
        return value in _WHOLE[:4] or (value.startswith("DECIMAL") and _fits(column, value))
    match column:
        case "VARCHAR" | "BOOLEAN":
            return value == column
        case "DATE" | "TIMESTAMP":
            return value in ("DATE", "TIMESTAMP")
        case "TIMESTAMP WITH TIME ZONE":
            return value == column
        case "DOUBLE":
            numbers = (*_WHOLE[:4], "DOUBLE", "FLOAT")
            return operator in _FLOAT_OPERATORS and (
                value in numbers or value.startswith("DECIMAL")
            )
    return False


def _fits(*types: str) -> bool:
    """Whether a DECIMAL holds all values of both."""
    found: Sequence[tuple[int, int]] = [
        (int(p), int(s)) for p, s in (re.findall(r"\d+", t) for t in types)
    ]
    return max(p - s for p, s in found) + max(s for _, s in found) <= 38


def _literal(type_: str, raw: Any) -> Any:
    from pyiceberg.expressions import literals

    match type_:
        case "DATE":
            return literals.DateLiteral(raw)
        case "TIMESTAMP" | "TIMESTAMP WITH TIME ZONE":
            return literals.TimestampLiteral(raw)
        case "VARCHAR":
            return literals.StringLiteral(raw)
        case "BOOLEAN":
            return literals.BooleanLiteral(raw)
        case "DOUBLE":
            return literals.DoubleLiteral(raw)
    if isinstance(raw, decimal.Decimal):
        return literals.DecimalLiteral(raw)
    return literals.LongLiteral(int(raw))
