"""DuckDB's meaning in GoogleSQL's words: what is pushed to BigQuery, and what it rests on.

Each rule rests on https://cloud.google.com/bigquery/docs/reference/standard-sql: text is compared
by code point unless a column has a collation; integers that overflow are an error; NUMERIC is exact
to 29 digits before and 9 after the point, BIGNUMERIC to 38 and 38. What that reference leaves open
is not pushed.
"""

from __future__ import annotations

import re

from sqlglot import exp

from batuta_sql.plan.date_parts import DatePartMethods
from batuta_sql.plan.pushdown import NULL, STRING_LITERAL, PushTranslator
from batuta_sql.plan.relational import Expr
from batuta_sql.plan.site import TableInfo
from batuta_sql.plan.translate import Environment, NotPushable, Typed, WireColumn
from batuta_sql.plan.types import as_decimal, decimal_parts, is_exact, is_float, is_integer

_TYPES = {
    "TINYINT": "INT64",
    "SMALLINT": "INT64",
    "INTEGER": "INT64",
    "BIGINT": "INT64",
    "HUGEINT": "BIGNUMERIC",
    "DOUBLE": "FLOAT64",
    "VARCHAR": "STRING",
    "BOOLEAN": "BOOL",
    "DATE": "DATE",
    "TIME": "TIME",
    "TIMESTAMP": "DATETIME",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
}
_TEXT = ("VARCHAR", STRING_LITERAL)
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?")
_CONSTANT = re.compile(r"(?:BIG)?NUMERIC '(-?[\d.]+)'")
_PARTS = {"YEAR": "YEAR", "MONTH": "MONTH", "DAY": "DAY", "QUARTER": "QUARTER"}
_PARTS |= {"DOY": "DAYOFYEAR", "DAYOFYEAR": "DAYOFYEAR"}


def decimal_home(type_: str) -> str | None:
    """The BigQuery type that holds every value of an exact DuckDB type."""
    if is_integer(type_) and type_ != "HUGEINT":
        return "INT64"
    parts = decimal_parts(type_)
    if parts is None:
        return "BIGNUMERIC" if type_ == "HUGEINT" else None
    whole, scale = parts[0] - parts[1], parts[1]
    return "NUMERIC" if whole <= 29 and scale <= 9 else "BIGNUMERIC"


class BigQueryTranslator(DatePartMethods, PushTranslator):
    """Writes expressions in GoogleSQL.

    :param project: of the source; tables of others have theirs in the path.
    """

    dialect = "bigquery"
    name = "bigquery"

    def __init__(self, project: str) -> None:
        self._project = project

    def table(self, table: TableInfo) -> exp.Table:
        # One pair of backticks around the whole path: the form that wildcard tables need.
        path = table.path if len(table.path) > 2 else (self._project, *table.path)
        return exp.Table(this=exp.to_identifier(".".join(path), quoted=True))

    # --- literals and types --------------------------------------------------------------------

    def typed(self, sql: Expr, type_: str) -> Expr:
        native = _TYPES.get(type_) or decimal_home(type_)
        if native is None:
            raise NotPushable(f"a value of {type_}")
        return exp.Cast(this=sql, to=exp.DataType.build(native, dialect="bigquery"))

    def _literal(self, node: Expr, environment: Environment) -> Typed:
        found = super()._literal(node, environment)
        if found.type == "HUGEINT":
            raise NotPushable(f"the literal {node.name}, which is no INT64")
        if decimal_parts(found.type or "") is not None:
            # 0.1 is a FLOAT64 there, NUMERIC '0.1' is what DuckDB means.
            return Typed(_decimal(node.name, found.type or ""), found.type)
        return found

    def literal_of(self, text: str, target: str) -> Typed:
        clock = re.search(r"\d{2}:\d{2}:\d{2}(\.\d+)?", text)
        timed = target in ("TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")
        if timed and clock is not None and not _CLOCK.fullmatch(clock[0]):
            raise NotPushable(f"the literal '{text}' as {target}")
        if text.startswith("0000") and target != "VARCHAR" and not is_exact(target):
            raise NotPushable(f"the literal '{text}': the first year there is 1")
        if target == "TIMESTAMP WITH TIME ZONE":
            zone = re.search(r"[+-]\d{2}(:?\d{2})?$", text)
            if zone is not None and zone[0].strip("+-0:") and text[:4] in ("0001", "9999"):
                raise NotPushable(f"the literal '{text}' may be out of range")
            text = re.sub(r"([+-]\d{2})(\d{2})$", r"\1:\2", text)
            text = re.sub(r"([+-]\d{2})$", r"\1:00", text)
        return super().literal_of(text, target)

    def number_of(self, text: str, target: str) -> Typed:
        found = super().number_of(text, target)
        if decimal_parts(target) is not None:
            return Typed(_decimal(text, target), target)
        return found

    def cast(self, value: Typed, target: str) -> Typed:
        if value.type == "HUGEINT":
            raise NotPushable(f"a cast from HUGEINT to {target}")
        found = super().cast(value, target)
        return Typed(self._as_branch(value, target), target) if is_exact(target) else found

    def _as_branch(self, part: Typed, type_: str) -> Expr:
        same = is_exact(type_) and decimal_home(part.type or "") == decimal_home(type_)
        return part.sql if same else super()._as_branch(part, type_)

    # --- comparison ----------------------------------------------------------------------------

    def _eq(self, node: Expr, environment: Environment) -> Typed:
        return self._compared(node, environment, ordering=False)

    _neq = _eq
    _nullsafeeq = _eq
    _nullsafeneq = _eq

    def _gt(self, node: Expr, environment: Environment) -> Typed:
        return self._compared(node, environment, ordering=True)

    _gte = _gt
    _lt = _gt
    _lte = _gt

    def _compared(self, node: Expr, environment: Environment, *, ordering: bool) -> Typed:
        """A comparison; NaN, which DuckDB holds greater than all, passes none there but ``<>``."""
        sides = [self._value(s, environment) for s in (node.this, node.expression)]
        if not any(is_float(s.type) for s in sides):
            return self._compare(node, environment, ordering=ordering)
        match node:
            case exp.EQ() | exp.NEQ():
                return self._compare(node, environment, ordering=False)
            case exp.LT() | exp.LTE() | exp.GT() | exp.GTE():
                pass
            case _:
                raise NotPushable("IS DISTINCT FROM of floating-point numbers")
        left, right = self.unify(sides[0], sides[1], ordering=True)
        above = isinstance(node, exp.GT | exp.GTE)
        if isinstance(left.sql, exp.Cast):
            above = not above
        if not above:
            kind: type[exp.Binary] = type(node)
            return Typed(kind(this=left.sql, expression=right.sql), "BOOLEAN")
        # The column on the side where NaN makes it true: the opposite, denied.
        opposite = {exp.GT: exp.LTE, exp.GTE: exp.LT, exp.LT: exp.GTE, exp.LTE: exp.GT}
        test = opposite[type(node)](this=left.sql, expression=right.sql)
        return Typed(exp.Not(this=exp.Paren(this=test)), "BOOLEAN")

    def float_comparison(self, left: Typed, right: Typed) -> tuple[Typed, Typed]:
        """Of a column with a constant alone: two NaN are equal in DuckDB."""
        for a, b in ((left, right), (right, left)):
            text = _number_text(b.sql)
            if is_float(a.type) and isinstance(a.sql, exp.Column) and text is not None:
                literal = Typed(self.typed(exp.Literal.string(text), "DOUBLE"), "DOUBLE")
                return (a, literal) if a is left else (literal, a)
        raise NotPushable(f"a comparison of {left.type} with {right.type}")

    # --- arithmetic ----------------------------------------------------------------------------

    def check_integer_arithmetic(self, type_: str) -> None:
        if type_ != "BIGINT":
            raise NotPushable(f"arithmetic on {type_}, which is INT64 there")

    def _add(self, node: Expr, environment: Environment) -> Typed:
        return self._fits(super()._add(node, environment))

    _sub = _add

    def _mul(self, node: Expr, environment: Environment) -> Typed:
        found = self._fits(super()._mul(node, environment))
        if not is_integer(found.type):
            for side in (node.this, node.expression):
                if decimal_home(self._value(side, environment).type or "") == "BIGNUMERIC":
                    raise NotPushable("a product of BIGNUMERIC, which may be rounded")
        return found

    def _fits(self, value: Typed) -> Typed:
        """An exact result: NUMERIC rounds to 9 digits, and is an error beyond 29 whole ones."""
        parts = decimal_parts(value.type or "")
        if parts is not None and (parts[0] >= 38 or parts[1] > 9 or parts[0] - parts[1] > 29):
            raise NotPushable(f"arithmetic that gives {value.type}")
        return value

    def _abs(self, node: Expr, environment: Environment) -> Typed:
        value = self._value(node.this, environment)
        if not is_exact(value.type):
            raise NotPushable(f"abs of {value.type}")
        return Typed(exp.Abs(this=value.sql), value.type)

    # --- text and dates ------------------------------------------------------------------------

    def _text(self, value: Typed, what: str) -> Typed:
        if value.type not in _TEXT:
            raise NotPushable(f"{what} of {value.type}")
        return self.binary(value)

    def _like(self, node: Expr, environment: Environment) -> Typed:
        subject = self._text(self._value(node.this, environment), "LIKE")
        pattern = self._value(node.expression, environment)
        if not isinstance(pattern.sql, exp.Literal) or "\\" in pattern.sql.name:
            # A backslash is an escape there and a character in DuckDB.
            raise NotPushable("LIKE with a pattern that is not a literal, or has a backslash")
        test: Expr = exp.Like(this=subject.sql, expression=pattern.sql)
        if node.args.get("negate"):
            test = exp.Not(this=exp.Paren(this=test))
        return Typed(test, "BOOLEAN")

    def _dpipe(self, node: Expr, environment: Environment) -> Typed:
        left = self._text(self._value(node.this, environment), "||")
        right = self._text(self._value(node.expression, environment), "||")
        sql = exp.DPipe(this=exp.Paren(this=left.sql), expression=exp.Paren(this=right.sql))
        return Typed(sql, "VARCHAR")

    def _substring(self, node: Expr, environment: Environment) -> Typed:
        value = self._text(self._value(node.this, environment), "substring")
        start, length = node.args.get("start"), node.args.get("length")
        for part in (start, length):
            if part is not None and not (isinstance(part, exp.Literal) and part.is_int):
                raise NotPushable("substring with a computed position")
        if start is None or int(start.name) < 1:
            raise NotPushable("substring that counts from the end")
        arguments = [value.sql, start.copy(), *([length.copy()] if length is not None else [])]
        return Typed(exp.Anonymous(this="SUBSTR", expressions=arguments), "VARCHAR")

    def _length(self, node: Expr, environment: Environment) -> Typed:
        value = self._text(self._value(node.this, environment), "length")
        return Typed(exp.Anonymous(this="CHAR_LENGTH", expressions=[value.sql]), "BIGINT")

    def _startswith(self, node: Expr, environment: Environment) -> Typed:
        subject = self._text(self._value(node.this, environment), "starts_with")
        part = self._text(self._value(node.expression, environment), "starts_with")
        call = exp.Anonymous(this="STARTS_WITH", expressions=[subject.sql, part.sql])
        return Typed(call, "BOOLEAN")

    def _contains(self, node: Expr, environment: Environment) -> Typed:
        subject = self._text(self._value(node.this, environment), "contains")
        part = self._text(self._value(node.expression, environment), "contains")
        if not isinstance(part.sql, exp.Literal) or not part.sql.name:
            raise NotPushable("contains of something that is not a literal, or empty")
        found = exp.Anonymous(this="STRPOS", expressions=[subject.sql, part.sql])
        return Typed(exp.GT(this=found, expression=exp.Literal.number(0)), "BOOLEAN")

    def _date_part(self, part: str, subject: Expr, environment: Environment) -> Typed:
        value = self._value(subject, environment)
        if part not in _PARTS or value.type not in ("DATE", "TIMESTAMP"):
            raise NotPushable(f"the {part} of {value.type}")
        return Typed(exp.Extract(this=exp.Var(this=_PARTS[part]), expression=value.sql), "BIGINT")

    # --- aggregates, order ---------------------------------------------------------------------

    def filtered_aggregate(self, call: Expr, condition: Expr) -> Expr:
        """There is no FILTER: what does not pass becomes NULL, which no aggregate here counts."""
        argument = call.this
        distinct = isinstance(argument, exp.Distinct)
        inner = argument.expressions[0] if distinct else argument
        if isinstance(inner, exp.Star):
            inner = exp.Literal.number(1)
        chosen: Expr = exp.If(this=condition, true=inner.copy(), false=exp.Null())
        call = call.copy()
        call.set("this", exp.Distinct(expressions=[chosen]) if distinct else chosen)
        return call

    def sum(self, value: Typed, distinct: bool) -> Typed:
        # DuckDB's sum is wider than INT64 or NUMERIC, whose overflow is an error there. Ten whole
        # digits leave room for 10^19 rows in NUMERIC.
        found = super().sum(value, distinct)
        parts = as_decimal(value.type or "")
        narrow = decimal_parts(value.type or "") is not None and parts is not None
        if narrow and parts is not None and parts[0] - parts[1] <= 10 and parts[1] <= 9:
            return found
        wide = exp.Cast(this=value.sql, to=exp.DataType.build("BIGNUMERIC", dialect="bigquery"))
        argument: Expr = exp.Distinct(expressions=[wide]) if distinct else wide
        return Typed(exp.Sum(this=argument), found.type)

    def extreme(self, kind: type[exp.Expr], value: Typed) -> Typed:
        if is_float(value.type):
            raise NotPushable("min or max of floating-point numbers, which may be NaN")
        return super().extreme(kind, value)

    def group_key(self, expression: Expr, environment: Environment) -> Typed:
        found = super().group_key(expression, environment)
        if _number_text(found.sql) is not None:
            raise NotPushable("a constant in GROUP BY")
        return found

    def sort_key(self, key: exp.Ordered, environment: Environment) -> exp.Ordered:
        if _number_text(self._value(key.this, environment).sql) is not None:
            raise NotPushable("a constant in ORDER BY")
        if is_float(self._value(key.this, environment).type):
            raise NotPushable("the order of floating-point numbers: NaN comes first there")
        return super().sort_key(key, environment)

    def wire(self, value: Typed) -> WireColumn:
        type_ = (value.type or "").lstrip("?")
        if type_ in (NULL, ""):
            raise NotPushable("a column of NULLs without a type")
        if type_.endswith("[]"):
            # A result has no NULL array: an empty one would stand for that of an outer join.
            boxed = exp.Var(this=BOXED.format(value.sql.sql("bigquery")))
            return WireColumn(boxed, decode=f"CAST(struct_extract({{}}, 'v') AS {type_})")
        return WireColumn(value.sql, type="VARCHAR" if type_ == STRING_LITERAL else type_)


BOXED = "IF({0} IS NULL, NULL, STRUCT({0} AS v))"
"""How an array travels: NULL, or alone in a struct."""


def _decimal(text: str, type_: str) -> Expr:
    """A decimal constant: https://cloud.google.com/bigquery/docs/reference/standard-sql/lexical"""
    return exp.Var(this=f"{decimal_home(type_)} '{text}'")


def _number_text(sql: Expr) -> str | None:
    """The text of a constant number, however it is written."""
    match sql:
        case exp.Paren():
            return _number_text(sql.this)
        case exp.Neg():
            inner = _number_text(sql.this)
            return None if inner is None or inner.startswith("-") else f"-{inner}"
        case exp.Var() if constant := _CONSTANT.fullmatch(sql.name):
            return constant[1]
        case exp.Literal() if not sql.is_string:
            return sql.name
    return None
