"""Snowflake's types and what of its SQL means the same as DuckDB's.

What is pushed rests on the documentation (https://docs.snowflake.com/en/sql-reference), since no
emulator proves anything about the real system:

- text is compared byte by byte where a column has no collation of its own;
- NUMBER is exact; sums keep the scale with 38 digits. Products are not pushed: beyond 12 digits of
  scale they are rounded. Division rounds, so it is not pushed either;
- timestamps have nanoseconds: they are cut to microseconds first, as they are delivered;
- a TIMESTAMP_TZ keeps its offset, which makes equal moments two values to GROUP BY: not compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlglot import exp

from batuta_sql.plan.date_parts import DatePartMethods
from batuta_sql.plan.pushdown import PushTranslator
from batuta_sql.plan.relational import Expr
from batuta_sql.plan.site import ColumnInfo
from batuta_sql.plan.translate import Environment, NotPushable, Typed, WireColumn
from batuta_sql.plan.types import is_integer

_MICROSECONDS = 6
_TIMESTAMPS = {
    "TIMESTAMP_NTZ": "TIMESTAMP",
    "TIMESTAMP_LTZ": "TIMESTAMP WITH TIME ZONE",
    "TIMESTAMP_TZ": "TIMESTAMP WITH TIME ZONE",
}
_PLAIN: Mapping[str, str] = {
    "FLOAT": "DOUBLE",
    "REAL": "DOUBLE",
    "DOUBLE": "DOUBLE",
    "TEXT": "VARCHAR",
    "VARCHAR": "VARCHAR",
    "STRING": "VARCHAR",
    "BOOLEAN": "BOOLEAN",
    "DATE": "DATE",
    "BINARY": "BLOB",
}
_JSON = frozenset({"VARIANT", "OBJECT", "ARRAY", "MAP"})
_SHAPES = frozenset({"GEOGRAPHY", "GEOMETRY"})


def column_info(
    name: str,
    native: str,
    nullable: str,
    precision: Any,
    scale: Any,
    fraction: Any,
    collation: str | None,
) -> ColumnInfo:
    """A column as INFORMATION_SCHEMA.COLUMNS describes it."""
    can_be_null = nullable != "NO"
    if native in ("NUMBER", "DECIMAL", "NUMERIC"):
        width, digits = int(precision or 38), int(scale or 0)
        shown = f"NUMBER({width},{digits})"
        return ColumnInfo(name, f"DECIMAL({width},{digits})", shown, can_be_null)
    if native in _PLAIN:
        # A collation of its own may ignore case or accents.
        order = "binary" if not collation else "other"
        return ColumnInfo(
            name,
            _PLAIN[native],
            native,
            can_be_null,
            collation=order,  # type: ignore[arg-type]
        )
    if native in _TIMESTAMPS or native == "TIME":
        return _time(name, native, can_be_null, 9 if fraction is None else int(fraction))
    if native in _JSON:
        return ColumnInfo(name, "JSON", native, can_be_null, comparable=False)
    if native in _SHAPES:
        return ColumnInfo(
            name,
            "VARCHAR",
            native,
            can_be_null,
            value_sql="ST_ASWKT({})",
            comparable=False,
            note="as well-known text",
        )
    return ColumnInfo(
        name,
        "VARCHAR",
        native,
        can_be_null,
        value_sql="TO_VARCHAR({})",
        comparable=False,
        note="read as text: no DuckDB type matches",
    )


def _time(name: str, native: str, nullable: bool, fraction: int) -> ColumnInfo:
    type_ = _TIMESTAMPS.get(native, "TIME")
    finer = fraction > _MICROSECONDS
    whole = finer and native != "TIME"
    return ColumnInfo(
        name,
        type_,
        f"{native}({fraction})",
        nullable,
        value_sql="DATE_TRUNC('MICROSECOND', {})" if whole else "{}",
        comparable=native != "TIMESTAMP_TZ" and not (finer and native == "TIME"),
        note="nanoseconds are cut to microseconds" if finer else None,
    )


class SnowflakeTranslator(DatePartMethods, PushTranslator):
    """DuckDB's meaning in Snowflake's words."""

    dialect = "snowflake"
    name = "snowflake"

    def _mul(self, node: Expr, environment: Environment) -> Typed:
        raise NotPushable("`*`: Snowflake rounds products beyond 12 digits of scale")

    def check_integer_arithmetic(self, type_: str) -> None:
        # NUMBER does not overflow where DuckDB's integers do; no column is an integer here.
        if is_integer(type_):
            raise NotPushable("arithmetic of integers of a fixed width")

    def _like(self, node: Expr, environment: Environment) -> Typed:
        """LIKE has no escape unless one is given, as in DuckDB; a backslash is left alone."""
        subject = self._value(node.this, environment)
        pattern = self._value(node.expression, environment)
        if subject.type not in ("VARCHAR", "STRING_LITERAL") or not isinstance(
            pattern.sql, exp.Literal
        ):
            raise NotPushable("LIKE with a pattern that is not a literal")
        if "\\" in pattern.sql.name:
            raise NotPushable("LIKE with a backslash in its pattern")
        test: Expr = exp.Like(this=self.equal_text(subject).sql, expression=pattern.sql)
        if node.args.get("negate"):
            test = exp.Not(this=exp.Paren(this=test))
        return Typed(test, "BOOLEAN")

    def _date_part(self, part: str, subject: Expr, environment: Environment) -> Typed:
        value = self._value(subject, environment)
        if part not in ("YEAR", "MONTH", "DAY") or value.type not in ("DATE", "TIMESTAMP"):
            raise NotPushable(f"the {part} of {value.type}")
        return Typed(exp.Anonymous(this=part, expressions=[value.sql]), "BIGINT")

    def wire(self, value: Typed) -> WireColumn:
        type_ = (value.type or "").lstrip("?")
        match type_:
            case "NULL" | "":
                raise NotPushable("a column of NULLs without a type")
            case "STRING_LITERAL" | "VARCHAR":
                return WireColumn(value.sql, type="VARCHAR")
            case "TIMESTAMP":
                moment = "make_timestamp(CAST({} AS BIGINT))"
                return WireColumn(_microseconds(value.sql), decode=moment, type=type_)
            case "TIMESTAMP WITH TIME ZONE":
                moment = "timezone('UTC', make_timestamp(CAST({} AS BIGINT)))"
                return WireColumn(_microseconds(value.sql), decode=moment, type=type_)
        return WireColumn(value.sql, decode=f"CAST({{}} AS {type_})", type=type_)


def _microseconds(sql: Expr) -> Expr:
    """Microseconds since 1970, in UTC: an integer that no driver has to understand.

    https://docs.snowflake.com/en/sql-reference/functions-date-time
    """
    return exp.Anonymous(this="DATE_PART", expressions=[exp.Var(this="EPOCH_MICROSECOND"), sql])
