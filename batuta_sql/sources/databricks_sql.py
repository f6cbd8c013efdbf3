"""What Databricks SQL computes with DuckDB's answer, and in which words.

It rests on the SQL language manual, not on an emulator:
https://docs.databricks.com/sql/language-manual/. What ANSI_MODE decides (a workspace may turn it
off, and then integers wrap around and bad casts are NULL) is not pushed, or pushed so that it
cannot matter. The session's time zone is not ours to set: nothing that reads it is pushed.
"""

from __future__ import annotations

import re
from dataclasses import replace

from sqlglot import exp

from batuta_sql.plan.date_parts import DatePartMethods
from batuta_sql.plan.pushdown import PushTranslator, adapted
from batuta_sql.plan.relational import Expr, parenthesized
from batuta_sql.plan.site import Capabilities
from batuta_sql.plan.translate import Environment, NotPushable, Typed, WireColumn
from batuta_sql.plan.types import (
    as_decimal,
    decimal_parts,
    is_exact,
    is_float,
    is_integer,
    product_of,
    wider_exact,
)

_SUMMED = 28
"""Digits of a decimal that is summed: the sum has ten more, 38 in all."""

_WIDEST_SUM = 36
_EXACT_DIGITS = 15
_PARTS = frozenset({"YEAR", "QUARTER", "MONTH", "DAY"})
_OFFSET = re.compile(r"([+-]\d{2}):?(\d{2})?$")


def capabilities() -> Capabilities:
    """Without subqueries in expressions: which correlated ones run depends on the version."""
    return Capabilities(
        dialect="databricks",
        translator=DatabricksTranslator(),
        correlated=False,
        quantified=False,
    )


def without_variables(sql: str) -> str:
    """A statement in which nothing is taken for a variable.

    Spark puts values of its configuration and of its environment where ``${...}`` stands, in texts
    too, before it reads a statement (``spark.sql.variable.substitute``). Outside of texts there is
    no such thing but in names, and those are not found then.
    """
    return sql.replace("${", "$\\u007b")


class DatabricksTranslator(DatePartMethods, PushTranslator):
    """DuckDB's meaning in Databricks' words."""

    dialect = "databricks"
    name = "databricks"

    # --- values --------------------------------------------------------------------------------

    def binary(self, value: Typed) -> Typed:
        """A column under a collation exists only where COLLATE does."""
        if value.collation == "binary" or isinstance(value.sql, exp.Literal):
            return value
        collated = exp.Var(this=f"({value.sql.sql(self.dialect)} COLLATE UTF8_BINARY)")
        return Typed(collated, value.type, "binary")

    def typed(self, sql: Expr, type_: str) -> Expr:
        if type_ in ("UUID", "TIME", "HUGEINT"):
            raise NotPushable(f"Databricks has no {type_}")
        return super().typed(sql, type_)

    def literal_of(self, text: str, target: str) -> Typed:
        if target == "TIMESTAMP WITH TIME ZONE":
            # Of the spellings of an offset, the one that the manual has.
            text = _OFFSET.sub(lambda m: f"{m[1]}:{m[2] or '00'}", text)
        return super().literal_of(text, target)

    def _literal(self, node: Expr, environment: Environment) -> Typed:
        value = super()._literal(node, environment)
        if value.type == "HUGEINT":
            raise NotPushable("an integer beyond BIGINT")
        return value

    # --- comparison ----------------------------------------------------------------------------

    def unify(self, left: Typed, right: Typed, *, ordering: bool) -> tuple[Typed, Typed]:
        a, b = left.type or "", right.type or ""
        if is_exact(a) and is_exact(b):
            # Both are made the narrowest decimal that holds both, of 38 digits at most.
            wide = [_as_decimal(t) for t in (a, b)]
            if wider_exact(*wide) is None:
                raise NotPushable(f"a comparison of {a} with {b}, wider than 38 digits")
        return super().unify(left, right, ordering=ordering)

    def _in(self, node: Expr, environment: Environment) -> Typed:
        """All items are made one type together with the value that is looked for."""
        found = super()._in(node, environment)
        values = [self._value(n, environment) for n in (node.this, *node.expressions)]
        widest: str | None = None
        for type_ in (_as_decimal(v.type or "") for v in values if is_exact(v.type)):
            widest = type_ if widest is None else wider_exact(widest, type_)
            if widest is None:
                raise NotPushable("a list of numbers wider than 38 digits together")
        return found

    def float_comparison(self, left: Typed, right: Typed) -> tuple[Typed, Typed]:
        """NaN equals itself and is above all else, as in DuckDB ("NaN semantics")."""
        for one in (left, right):
            if is_exact(one.type) and len(re.sub(r"\D", "", one.sql.sql())) > _EXACT_DIGITS:
                raise NotPushable("a literal of more digits than a DOUBLE keeps")
        return super().float_comparison(left, right)

    def _like(self, node: Expr, environment: Environment) -> Typed:
        """LIKE has a backslash as its escape there and none in DuckDB."""
        subject = self._value(node.this, environment)
        pattern = node.expression
        if subject.type != "VARCHAR" or not isinstance(pattern, exp.Literal):
            raise NotPushable("LIKE with a pattern that is not a literal")
        if "\\" in pattern.name:
            raise NotPushable("LIKE with a backslash in its pattern")
        test: Expr = exp.Like(this=self.binary(subject).sql, expression=pattern.copy())
        if node.args.get("negate"):
            test = exp.Not(this=exp.Paren(this=test))
        return Typed(test, "BOOLEAN")

    # --- arithmetic ----------------------------------------------------------------------------

    def check_integer_arithmetic(self, type_: str) -> None:
        raise NotPushable("integer arithmetic: without ANSI_MODE it wraps around in silence")

    def _mul(self, node: Expr, environment: Environment) -> Typed:
        """Operands of w and v digits give w + v + 1 digits there, all of them where that is 38 at
        most. DuckDB gives 18 where both have at most that, and an error for what is larger.

        https://docs.databricks.com/sql/language-manual/functions/asterisksign.html
        """
        left = self._value(node.this, environment)
        right = self._value(node.expression, environment)
        value = super()._arithmetic(node, environment, product_of)
        parts = decimal_parts(value.type or "")
        sides = [as_decimal(t) for t in adapted(left, right)]
        known = [s for s in sides if s is not None]
        digits = sum(width for width, _ in known)
        if parts is None or len(known) < 2 or digits >= 38:
            raise NotPushable("a product of decimals that may lose digits in Databricks")
        first, second = (
            self.typed(parenthesized(side.sql), f"DECIMAL({width},{scale})")
            for side, (width, scale) in zip((left, right), known, strict=True)
        )
        product = exp.Mul(this=first, expression=second)
        width, scale = parts
        if width >= digits:
            return Typed(self.typed(product, value.type or ""), value.type)
        return Typed(self._at_most(product, width, scale), value.type)

    def _at_most(self, value: Expr, width: int, scale: int) -> Expr:
        """``value`` as a decimal of ``width`` digits; more of them are an error in any mode."""
        type_ = f"DECIMAL({width},{scale})"
        limit = self.typed(exp.Literal.string("1" + "0" * (width - scale)), "DECIMAL(38,0)")
        fits = exp.Or(
            this=exp.Is(this=exp.Paren(this=value.copy()), expression=exp.Null()),
            expression=exp.LT(this=exp.Abs(this=value.copy()), expression=limit),
        )
        said = f"a product does not fit {type_}"
        error = exp.Anonymous(this="raise_error", expressions=[exp.Literal.string(said)])
        return exp.Case(
            ifs=[exp.If(this=fits, true=self.typed(value, type_))],
            default=self.typed(error, type_),
        )

    def _arithmetic(self, node: Expr, environment: Environment, rule: object) -> Typed:
        value = super()._arithmetic(node, environment, rule)  # type: ignore[arg-type]
        parts = decimal_parts(value.type or "")
        if parts is None or parts[0] > _WIDEST_SUM:
            raise NotPushable("a decimal sum that could lose digits in Databricks")
        return value

    def _neg(self, node: Expr, environment: Environment) -> Typed:
        if not isinstance(node.this, exp.Literal):
            value = self._value(node.this, environment)
            if is_integer(value.type):
                self.check_integer_arithmetic(value.type or "")
        return super()._neg(node, environment)

    # --- aggregates ----------------------------------------------------------------------------

    def sum(self, value: Typed, distinct: bool) -> Typed:
        """Summed as decimals of 38 digits, which cannot overflow below 10^10 rows of the widest."""
        found = super().sum(value, distinct)
        parts = decimal_parts(_as_decimal(value.type or ""))
        if parts is None or parts[0] > _SUMMED:
            raise NotPushable("a sum whose overflow would be NULL without ANSI_MODE")
        summed = replace(value, sql=self.typed(value.sql, f"DECIMAL({_SUMMED},{parts[1]})"))
        call = exp.Distinct(expressions=[summed.sql]) if distinct else summed.sql
        return Typed(exp.Sum(this=call), found.type)

    def extreme(self, kind: type[exp.Expr], value: Typed) -> Typed:
        if is_float(value.type):
            raise NotPushable("min or max of floats: 0 and -0 are one")
        return super().extreme(kind, value)

    # --- text and dates ------------------------------------------------------------------------

    def _dpipe(self, node: Expr, environment: Environment) -> Typed:
        left, right = (self._value(n, environment) for n in (node.this, node.expression))
        if not {left.type, right.type} <= {"VARCHAR", "STRING_LITERAL"}:
            raise NotPushable("|| of other types than text")
        left, right = self.binary(left), self.binary(right)
        sql = exp.DPipe(this=exp.Paren(this=left.sql), expression=exp.Paren(this=right.sql))
        return Typed(exp.Paren(this=sql), "VARCHAR")

    def _substring(self, node: Expr, environment: Environment) -> Typed:
        value = self._value(node.this, environment)
        start, length = node.args.get("start"), node.args.get("length")
        for part in (start, length):
            if part is not None and not (isinstance(part, exp.Literal) and part.is_int):
                raise NotPushable("substring with a computed position")
        if start is None or int(start.name) < 1 or value.type != "VARCHAR":
            raise NotPushable("substring that counts from the end")
        sql = exp.Substring(
            this=value.sql, start=start.copy(), length=length.copy() if length is not None else None
        )
        return Typed(sql, "VARCHAR", value.collation)

    def _length(self, node: Expr, environment: Environment) -> Typed:
        value = self._value(node.this, environment)
        if value.type != "VARCHAR":
            raise NotPushable("length of something other than text")
        call = exp.Anonymous(this="char_length", expressions=[value.sql])
        return Typed(self.typed(call, "BIGINT"), "BIGINT")

    def _startswith(self, node: Expr, environment: Environment) -> Typed:
        return self._text_test(node, environment, "startswith")

    def _contains(self, node: Expr, environment: Environment) -> Typed:
        return self._text_test(node, environment, "contains")

    def _text_test(self, node: Expr, environment: Environment, function: str) -> Typed:
        subject = self._value(node.this, environment)
        part = self._value(node.expression, environment)
        if subject.type != "VARCHAR" or part.type not in ("VARCHAR", "STRING_LITERAL"):
            raise NotPushable(f"`{function}` of other types than text")
        arguments = [self.binary(subject).sql, self.binary(part).sql]
        return Typed(exp.Anonymous(this=function, expressions=arguments), "BOOLEAN")

    def _date_part(self, part: str, subject: Expr, environment: Environment) -> Typed:
        value = self._value(subject, environment)
        if part not in _PARTS or value.type not in ("DATE", "TIMESTAMP"):
            raise NotPushable(f"the {part} of {value.type}")
        text = f"CAST(EXTRACT({part} FROM {value.sql.sql(self.dialect)}) AS BIGINT)"
        return Typed(exp.Var(this=text), "BIGINT")

    # --- delivery ------------------------------------------------------------------------------

    def wire(self, value: Typed) -> WireColumn:
        """As it is: ``databricks_types.fitted`` holds what arrives against the type."""
        type_ = (value.type or "").lstrip("?")
        match type_:
            case "NULL" | "":
                raise NotPushable("a column of NULLs without a type")
            case "STRING_LITERAL":
                return WireColumn(value.sql, type="VARCHAR")
            case "HUGEINT" | "JSON":
                return WireColumn(value.sql, decode=f"CAST({{}} AS {type_})", type=type_)
        return WireColumn(value.sql, type=type_)


def _as_decimal(type_: str) -> str:
    """An exact type as the decimal that Databricks makes of it beside another one."""
    digits = {"TINYINT": 3, "SMALLINT": 5, "INTEGER": 10, "BIGINT": 20, "HUGEINT": 38}.get(type_)
    return type_ if digits is None else f"DECIMAL({digits},0)"
