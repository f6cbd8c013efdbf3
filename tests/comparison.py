"""Compares the answer of Batuta with that of DuckDB: names, types, values, and order where fixed.

Floats are equal to 1e-9 relative: the order in which a sum was taken is nobody's promise. Strings
are equal byte by byte, decimals with their scale, NaN equals NaN.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp

RELATIVE = 1e-9
# A sum of values that cancel has no digits left to agree on.
ABSOLUTE = 1e-9
SHOWN_ROWS = 10

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Answer:
    """A result as values that can be compared; dates and times as text, which keeps infinity."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[Row, ...]


def answer_of(table: pa.Table) -> Answer:
    """Reads an Arrow table. Text is text, whatever Arrow's layout of it is."""
    types = tuple(_type_name(field.type) for field in table.schema)
    columns = [f"c{index}" for index in range(table.num_columns)]
    if not columns:
        return Answer((), (), ())
    shown = ", ".join(
        f"CAST({column} AS VARCHAR)" if _reads_better_as_text(field.type) else column
        for column, field in zip(columns, table.schema, strict=True)
    )
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("answer", table.rename_columns(columns))
        rows = con.execute(f"SELECT {shown} FROM answer").fetchall()
    return Answer(tuple(table.column_names), types, tuple(rows))


def _type_name(of: pa.DataType) -> str:
    if pa.types.is_large_string(of) or pa.types.is_string_view(of):
        return "string"
    if pa.types.is_large_binary(of) or pa.types.is_binary_view(of):
        return "binary"
    if pa.types.is_dictionary(of):
        return _type_name(of.value_type)
    if pa.types.is_list(of) or pa.types.is_large_list(of) or pa.types.is_list_view(of):
        return f"list<{_type_name(of.value_type)}>"
    return str(of)


def _reads_better_as_text(of: pa.DataType) -> bool:
    return pa.types.is_temporal(of)


def difference(got: Answer, want: Answer, sql: str, unlimited: Answer | None = None) -> str | None:
    """None where ``got`` is the right answer to ``sql``, else what differs, for people.

    :param unlimited: DuckDB's answer without the outermost LIMIT and OFFSET. With ORDER BY and
        LIMIT the rows that tie at the cut are free: any of them is right.
    """
    if got.names != want.names:
        return f"columns: expected {want.names}, got {got.names}"
    if got.types != want.types:
        pairs = zip(want.names, want.types, got.types, strict=True)
        wrong = [f"{name}: expected {a}, got {b}" for name, a, b in pairs if a != b]
        return "types: " + "; ".join(wrong)
    if len(got.rows) != len(want.rows):
        return f"expected {len(want.rows)} rows, got {len(got.rows)}\n" + _beside(got, want)
    if _same_rows(got.rows, want.rows):
        return None
    if not _same_rows(_sorted(got.rows), _sorted(want.rows)) and (
        unlimited is None or not _contained(got.rows, unlimited.rows)
    ):
        return "rows differ\n" + _beside(got, want)
    keys = sort_keys(sql, want.names)
    wanted_keys = [tuple(row[key] for key in keys) for row in want.rows]
    got_keys = [tuple(row[key] for key in keys) for row in got.rows]
    if not _same_rows(got_keys, wanted_keys):
        return f"order differs (by columns {[want.names[k] for k in keys]})\n" + _beside(got, want)
    return None


def without_limit(sql: str) -> str | None:
    """The query without its outermost LIMIT and OFFSET; None where it has none (or no ORDER BY)."""
    tree = sqlglot.parse_one(sql, dialect="duckdb")
    if not tree.args.get("limit") and not tree.args.get("offset"):
        return None
    tree.set("limit", None)
    tree.set("offset", None)
    return tree.sql(dialect="duckdb")


def sort_keys(sql: str, names: Sequence[str]) -> list[int]:
    """The output columns that ORDER BY fixes, the most significant first.

    It ends at the first key that is not an output column: what comes after cannot be seen.
    """
    tree = sqlglot.parse_one(sql, dialect="duckdb")
    order = tree.args.get("order")
    if order is None:
        return []
    projections = tree.selects if isinstance(tree, exp.Select) else []
    keys: list[int] = []
    for ordered in order.expressions:
        index = _output_column(ordered.this, projections, [name.lower() for name in names])
        if index is None:
            break
        keys.append(index)
    return keys


def _output_column(
    key: exp.Expression, projections: Sequence[exp.Expression], names: Sequence[str]
) -> int | None:
    if isinstance(key, exp.Literal) and not key.is_string:
        return int(key.this) - 1
    if len(projections) == len(names):
        for index, projection in enumerate(projections):
            if projection.unalias() == key:
                return index
    if isinstance(key, exp.Column) and names.count(key.name.lower()) == 1:
        index = names.index(key.name.lower())
        # A qualified key names a column of the tables, not the output column called the same.
        projected = projections[index] if len(projections) == len(names) else None
        if not key.table or isinstance(projected, exp.Column):
            return index
    return None


def _same_rows(left: Sequence[Row], right: Sequence[Row]) -> bool:
    return len(left) == len(right) and all(
        len(a) == len(b) and all(map(_same, a, b)) for a, b in zip(left, right, strict=True)
    )


def _same(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        return left == right or math.isclose(left, right, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    if isinstance(left, Decimal) and isinstance(right, Decimal):
        return left.as_tuple() == right.as_tuple()
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
    return type(left) is type(right) and left == right


def _rounded(value: object) -> str:
    """A text that is the same for values that are the same, and sorts in some fixed way."""
    if isinstance(value, float):
        if abs(value) < ABSOLUTE:
            return "0"
        return f"{value:.7g}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_rounded, value)) + "]"
    return f"{type(value).__name__}:{value}"


def _sorted(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: [_rounded(value) for value in row])


def _contained(rows: Sequence[Row], within: Sequence[Row]) -> bool:
    """Whether the rows are some of the others, counted."""
    mine = Counter(tuple(map(_rounded, row)) for row in rows)
    theirs = Counter(tuple(map(_rounded, row)) for row in within)
    return mine <= theirs


def _beside(got: Answer, want: Answer) -> str:
    """The rows that only one side has, as far as they fit a screen."""
    mine = Counter(tuple(map(_rounded, row)) for row in got.rows)
    theirs = Counter(tuple(map(_rounded, row)) for row in want.rows)
    missing, extra = list((theirs - mine).elements()), list((mine - theirs).elements())
    lines = [f"missing {len(missing)}, unexpected {len(extra)} of {len(want.rows)} rows"]
    lines += [f"  - {' | '.join(row)}" for row in sorted(missing)[:SHOWN_ROWS]]
    lines += [f"  + {' | '.join(row)}" for row in sorted(extra)[:SHOWN_ROWS]]
    if not missing and not extra:
        lines += [f"  expected {row}" for row in want.rows[:SHOWN_ROWS]]
        lines += [f"  got      {row}" for row in got.rows[:SHOWN_ROWS]]
    return "\n".join(lines)
