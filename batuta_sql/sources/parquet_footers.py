"""What a statement reads of Parquet files, from their footers: the column chunks that it needs of
the row groups whose statistics allow a match. Nothing but footers is read for it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import duckdb
from sqlglot import exp

from batuta_sql.plan.site import TableInfo
from batuta_sql.sources.files import path_literal
from batuta_sql.sources.partition_pruning import conjuncts, only_inner

MOST_FILES = 1000
"""Footers beyond this number are not opened: the files' sizes must do."""

_FLIPPED: dict[type[exp.Expr], type[exp.Expr]] = {
    exp.GT: exp.LT,
    exp.GTE: exp.LTE,
    exp.LT: exp.GT,
    exp.LTE: exp.GTE,
    exp.EQ: exp.EQ,
}
_BOUNDS: dict[type[exp.Expr], str] = {
    exp.EQ: "{low} <= {value} AND {high} >= {value}",
    exp.GT: "{high} > {value}",
    exp.GTE: "{high} >= {value}",
    exp.LT: "{low} < {value}",
    exp.LTE: "{low} <= {value}",
}


@dataclass(frozen=True)
class Test:
    """``column operator value``, for one of ``values``, which are DuckDB's SQL."""

    column: str
    operator: type[exp.Expr]
    values: tuple[str, ...]


@dataclass(frozen=True)
class Use:
    """One place of a statement that reads a table.

    :param columns: in lower case.
    :param tests: what every row must pass.
    :param bounded: whether nothing else can leave row groups out.
    """

    columns: frozenset[str]
    tests: tuple[Test, ...]
    bounded: bool


def uses_of(tree: exp.Expr, view: str) -> list[Use]:
    """Where a statement reads the table called ``view``."""
    found: list[Use] = []
    for table in tree.find_all(exp.Table):
        if table.name != view or table.db:
            continue
        select = table.find_ancestor(exp.Select)
        if select is None:
            continue
        alias = table.alias_or_name
        columns = frozenset(c.name.lower() for c in select.find_all(exp.Column) if c.table == alias)
        joined = bool(select.args.get("joins"))
        tests: list[Test] = []
        other = joined or bool(select.args.get("limit"))
        if only_inner(select):
            for condition in conjuncts(select.args.get("where")):
                mine = tests_of(condition, alias)
                tests += mine
                other = other or not mine
        else:
            other = True
        found.append(Use(columns, tuple(tests), not other))
    return found


def tests_of(condition: exp.Expr, alias: str) -> list[Test]:
    """What a condition demands of single columns; nothing where it is of another form."""
    match condition:
        case exp.Between():
            low, high = condition.args["low"], condition.args["high"]
            return [
                *_comparison(exp.GTE, condition.this, low, alias),
                *_comparison(exp.LTE, condition.this, high, alias),
            ]
        case exp.In() if not condition.args.get("query") and not condition.args.get("unnest"):
            each = [_comparison(exp.EQ, condition.this, v, alias) for v in condition.expressions]
            if not all(each):
                return []
            return [Test(each[0][0].column, exp.EQ, tuple(t.values[0] for (t,) in each))]
        case exp.EQ() | exp.GT() | exp.GTE() | exp.LT() | exp.LTE():
            return _comparison(type(condition), condition.this, condition.expression, alias)
    return []


def _comparison(
    operator: type[exp.Expr], left: exp.Expr, right: exp.Expr, alias: str
) -> list[Test]:
    if not isinstance(left, exp.Column):
        left, right, operator = right, left, _FLIPPED[operator]
    if not isinstance(left, exp.Column) or left.table != alias:
        return []
    if right.find(exp.Column, exp.Query, exp.Parameter, exp.Placeholder):
        return []
    return [Test(left.name, operator, (right.sql("duckdb"),))]


def scanned_bytes(
    cursor: duckdb.DuckDBPyConnection,
    paths: Sequence[str],
    table: TableInfo,
    use: Use,
    physical: Mapping[str, str] | None = None,
) -> float:
    """Compressed bytes of the column chunks that one use of a table reads.

    :param physical: names of columns in the files, where they differ from the table's.
    :raises duckdb.Error: for a file that cannot be read, and a value that does not compare.
    """
    if not paths or not use.columns:
        return 0.0
    renamed = physical or {}
    types = {c.name: c.type for c in table.columns}
    stored = [renamed.get(n, n) for n in types if n.lower() in use.columns]
    tests = [t for t in use.tests if t.column in types and _tells(types[t.column], t.operator)]
    kept = " AND ".join(
        f"coalesce(bool_and(CASE WHEN path_in_schema = {_text(renamed.get(t.column, t.column))}"
        f" THEN coalesce({_possible(t, types[t.column])}, true) ELSE true END), true)"
        for t in tests
    )
    listed = ", ".join(path_literal(p) for p in paths)
    wanted = ", ".join(_text(n) for n in stored)
    row = cursor.execute(
        "SELECT coalesce(sum(bytes), 0) FROM (SELECT sum(total_compressed_size)"
        f" FILTER (split_part(path_in_schema, ', ', 1) IN ({wanted})) AS bytes,"
        f" {kept or 'true'} AS kept"
        f" FROM parquet_metadata([{listed}]) GROUP BY file_name, row_group_id) WHERE kept"
    ).fetchone()
    return float(row[0]) if row is not None else 0.0


def is_exact(table: TableInfo, use: Use) -> bool:
    """Whether DuckDB leaves out no more than ``scanned_bytes`` does."""
    types = {c.name: c.type for c in table.columns}
    return use.bounded and all(_tells(types.get(t.column, ""), t.operator) for t in use.tests)


def _possible(test: Test, type_: str) -> str:
    """Whether the range of a column chunk's values has any that passes; NULL: not known."""
    low, high = (f"TRY_CAST(stats_{end}_value AS {type_})" for end in ("min", "max"))
    each = (f"CAST({value} AS {type_})" for value in test.values)
    bounds = _BOUNDS[test.operator]
    return " OR ".join(f"({bounds.format(low=low, high=high, value=value)})" for value in each)


def _tells(type_: str, operator: type[exp.Expr]) -> bool:
    """Whether a Parquet range can leave a row group out.

    Of floats it leaves NaN out, which DuckDB takes for larger than all: it passes no ``<``.
    """
    if type_ in ("FLOAT", "DOUBLE"):
        return operator in (exp.LT, exp.LTE, exp.EQ)
    exact: Collection[str] = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "DATE", "VARCHAR")
    return type_ in exact or type_.startswith(("DECIMAL", "TIMESTAMP"))


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
