"""What PostgreSQL can be asked with DuckDB's answer, and how it is written there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlglot import exp

from batuta_sql.plan.date_parts import DatePartMethods
from batuta_sql.plan.pushdown import PushTranslator
from batuta_sql.plan.relational import Expr
from batuta_sql.plan.site import Collation
from batuta_sql.plan.translate import (
    Environment,
    NotPushable,
    Typed,
    WireColumn,
    in_unnested,
    quoted_text,
)
from batuta_sql.plan.types import decimal_parts, is_exact

_PARTS = {
    "YEAR": "(CAST(EXTRACT(YEAR FROM {0}) AS int8) + CAST({0} < DATE '0001-01-01' AS int))",
    "MONTH": "CAST(EXTRACT(MONTH FROM {0}) AS int8)",
    "DAY": "CAST(EXTRACT(DAY FROM {0}) AS int8)",
    "QUARTER": "CAST(EXTRACT(QUARTER FROM {0}) AS int8)",
    "DOY": "CAST(EXTRACT(DOY FROM {0}) AS int8)",
    "DOW": "CAST(EXTRACT(DOW FROM {0}) AS int8)",
}
_PARTS |= {"DAYOFYEAR": _PARTS["DOY"], "DAYOFWEEK": _PARTS["DOW"], "WEEKDAY": _PARTS["DOW"]}

_HASHES_ARRAYS = 140_000
"""From PostgreSQL 14 on ``= ANY`` of a constant array is a look-up in a hash table; before, each
row is compared with every item."""


class PostgreSQLTranslator(DatePartMethods, PushTranslator):
    """DuckDB's meaning in PostgreSQL's words."""

    dialect = "postgres"
    name = "postgresql"
    most_keys = 500_000

    def __init__(self, version: Callable[[], int | None] = lambda: None) -> None:
        """:param version: gives ``server_version_num``; None where it is not known."""
        super().__init__()
        self._version = version

    def among_keys(self, subject: Expr, type_: str, marker: Expr) -> Expr:
        # One literal: a list is parsed item by item.
        keys = exp.cast(marker, f"{type_}[]", dialect="duckdb")
        version = self._version()
        if version is not None and version < _HASHES_ARRAYS:
            return in_unnested(subject, keys)
        # Estimated by its values, looked up in a hash table, and no hindrance to parallel workers.
        return exp.EQ(this=subject, expression=exp.Any(this=exp.Paren(this=keys)))

    def key_text(self, type_: str, values: Sequence[str]) -> str:
        if type_ == "VARCHAR":
            values = [_array_item(v) for v in values]
        return quoted_text("{" + ",".join(values) + "}")

    def binary(self, value: Typed) -> Typed:
        if value.collation == "binary" or isinstance(value.sql, exp.Literal):
            return value
        collated = exp.Collate(
            this=exp.Paren(this=value.sql), expression=exp.to_identifier("C", quoted=True)
        )
        return Typed(exp.Paren(this=collated), value.type, "binary")

    def dates_with_timestamps(self, left: Typed, right: Typed) -> tuple[Typed, Typed]:
        # PostgreSQL compares them as they are, dates beyond the range of timestamps included.
        # DuckDB does so with a literal; a column it casts, which fails for such a date.
        if any(isinstance(v.sql, exp.Cast) and not v.sql.find(exp.Column) for v in (left, right)):
            return left, right
        return super().dates_with_timestamps(left, right)

    def _like(self, node: Expr, environment: Environment) -> Typed:
        return self._pattern(node, environment, "")

    def _escape(self, node: Expr, environment: Environment) -> Typed:
        inner, mark = node.this, node.expression
        if not isinstance(inner, exp.Like) or not isinstance(mark, exp.Literal):
            raise NotPushable("ESCAPE of this form")
        return self._pattern(inner, environment, mark.name)

    def _pattern(self, node: Expr, environment: Environment, escape: str) -> Typed:
        """LIKE: PostgreSQL takes a backslash as escape unless told otherwise, DuckDB takes none."""
        subject = self._value(node.this, environment)
        pattern = self._value(node.expression, environment)
        if subject.type not in ("VARCHAR", "STRING_LITERAL") or not isinstance(
            pattern.sql, exp.Literal
        ):
            raise NotPushable("LIKE with a pattern that is not a literal")
        if escape and pattern.sql.name.endswith(escape):
            raise NotPushable("a pattern that ends with its escape")
        like = exp.Like(this=self.equal_text(subject).sql, expression=pattern.sql)
        test: Expr = exp.Escape(this=like, expression=exp.Literal.string(escape))
        if node.args.get("negate"):
            test = exp.Not(this=exp.Paren(this=test))
        return Typed(test, "BOOLEAN")

    def _dpipe(self, node: Expr, environment: Environment) -> Typed:
        left = self._value(node.this, environment)
        right = self._value(node.expression, environment)
        if not {left.type, right.type} <= {"VARCHAR", "STRING_LITERAL"}:
            raise NotPushable("|| of other types than text")
        parts = [v for v in (left, right) if not isinstance(v.sql, exp.Literal)]
        collation: Collation = parts[0].collation if len(parts) == 1 else "other"
        sql = exp.DPipe(this=exp.Paren(this=left.sql), expression=exp.Paren(this=right.sql))
        return Typed(sql, "VARCHAR", collation if parts else "binary")

    def _substring(self, node: Expr, environment: Environment) -> Typed:
        value = self._value(node.this, environment)
        start, length = node.args.get("start"), node.args.get("length")
        for part in (start, length):
            if part is not None and not (isinstance(part, exp.Literal) and part.is_int):
                raise NotPushable("substring with a computed position")
        if start is None or int(start.name) < 1 or value.type != "VARCHAR":
            raise NotPushable("substring that counts from the end")
        if length is not None and int(length.name) < 0:
            raise NotPushable("substring of negative length")
        sql = exp.Substring(
            this=value.sql, start=start.copy(), length=length.copy() if length is not None else None
        )
        return Typed(sql, "VARCHAR", value.collation)

    def _length(self, node: Expr, environment: Environment) -> Typed:
        value = self._value(node.this, environment)
        if value.type != "VARCHAR":
            raise NotPushable("length of something other than text")
        call = exp.Anonymous(this="char_length", expressions=[value.sql])
        return Typed(exp.Cast(this=call, to=exp.DataType.build("BIGINT")), "BIGINT")

    def _startswith(self, node: Expr, environment: Environment) -> Typed:
        return self._text_test(node, environment, "starts_with")

    def _text_test(self, node: Expr, environment: Environment, function: str) -> Typed:
        subject = self._value(node.this, environment)
        part = self._value(node.expression, environment)
        if subject.type != "VARCHAR" or part.type not in ("VARCHAR", "STRING_LITERAL"):
            raise NotPushable(f"`{function}` of other types than text")
        call = exp.Anonymous(this=function, expressions=[self.binary(subject).sql, part.sql])
        return Typed(call, "BOOLEAN")

    def _contains(self, node: Expr, environment: Environment) -> Typed:
        found = self._text_test(node, environment, "strpos")
        test = exp.GT(this=found.sql, expression=exp.Literal.number(0))
        return Typed(test, "BOOLEAN")

    def _abs(self, node: Expr, environment: Environment) -> Typed:
        value = self._value(node.this, environment)
        if not is_exact(value.type):
            raise NotPushable(f"abs of {value.type}")
        return Typed(exp.Abs(this=value.sql), value.type)

    def _date_part(self, part: str, subject: Expr, environment: Environment) -> Typed:
        value = self._value(subject, environment)
        if part not in _PARTS or value.type not in ("DATE", "TIMESTAMP"):
            raise NotPushable(f"the {part} of {value.type}")
        text = value.sql.sql("postgres")
        # DuckDB gives NULL for an infinite date, and counts the year before 1 as 0.
        written = f"CASE WHEN isfinite({text}) THEN {_PARTS[part].format(text)} END"
        return Typed(exp.Var(this=f"({written})"), "BIGINT")

    def wire(self, value: Typed) -> WireColumn:
        type_ = (value.type or "").lstrip("?")
        parts = decimal_parts(type_)
        match type_:
            case "NULL" | "":
                raise NotPushable("a column of NULLs without a type")
            case "STRING_LITERAL" | "VARCHAR":
                return WireColumn(value.sql, type="VARCHAR")
            case "HUGEINT":
                return WireColumn(_text(value.sql), decode="CAST({} AS HUGEINT)", type=type_)
            case "JSON":
                return WireColumn(value.sql, decode="CAST({} AS JSON)", type=type_)
            case "DATE" | "TIMESTAMP" | "TIMESTAMP WITH TIME ZONE":
                return WireColumn(value.sql, arrow="postgresql-epoch", type=type_)
        if parts is not None:
            width, scale = parts
            if width <= 18:
                factor = exp.Literal.number("1" + "0" * scale)
                scaled = exp.Mul(this=exp.Paren(this=value.sql), expression=factor)
                sql = exp.Cast(this=scaled if scale else value.sql, to=exp.DataType.build("BIGINT"))
                return WireColumn(sql, arrow=f"decimal64:{width},{scale}", type=type_)
            return WireColumn(_text(value.sql), decode=f"CAST({{}} AS {type_})", type=type_)
        return WireColumn(value.sql, type=type_)


def _array_item(text: str) -> str:
    """https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO"""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _text(sql: Expr) -> Expr:
    return exp.Cast(this=sql, to=exp.DataType.build("TEXT"))
