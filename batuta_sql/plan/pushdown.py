"""What may be pushed to a system other than DuckDB: a list of what is proved, not of what is not.

``PushTranslator`` holds DuckDB's side of each rule: the types that an expression needs to have one
meaning everywhere, and the type that DuckDB gives the result. A source's subclass writes the parts
that its dialect needs written differently, and takes away what it cannot do. What has no method
here stays local; ``tests/capability`` runs every method on edge values at every source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlglot import exp

from batuta_sql.plan.relational import Expr, parenthesized
from batuta_sql.plan.site import Collation, ColumnInfo, TableInfo
from batuta_sql.plan.translate import (
    CORRELATED,
    KEYS,
    Environment,
    NotPushable,
    Typed,
    WireColumn,
    quoted_column,
    quoted_table,
)
from batuta_sql.plan.types import (
    decimal_parts,
    integer_fits,
    is_exact,
    is_float,
    is_integer,
    literal_type,
    product_of,
    sum_of,
    wider_exact,
)

_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_ISO_TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d{1,6})?")
_ISO_ZONED = re.compile(r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d{1,6})?[+-]\d{2}(:?\d{2})?")
_TIME = re.compile(r"\d{2}:\d{2}:\d{2}(\.\d{1,6})?")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_SAMPLES = {"VARCHAR": "x", "DATE": "2000-01-01", "UUID": "00000000-0000-0000-0000-000000000000"}

STRING_LITERAL = "STRING_LITERAL"
"""A quoted literal before it meets the type it takes on."""

NULL = "NULL"

ORDERED_TYPES = frozenset({"DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIME"})


_TWO_ARGUMENTS = frozenset({"this", "expression"})
_ARGUMENTS = {
    "Literal": frozenset({"this", "is_string"}),
    "Cast": frozenset({"this", "to"}),
    "Anonymous": frozenset({"this", "expressions"}),
    "Between": frozenset({"this", "low", "high", "symmetric"}),
    "In": frozenset({"this", "expressions", "query", "unnest"}),
    "Case": frozenset({"this", "ifs", "default"}),
    "Coalesce": frozenset({"this", "expressions"}),
    "Substring": frozenset({"this", "start", "length"}),
    "Like": frozenset({"this", "expression", "negate"}),
    "DPipe": frozenset({"this", "expression", "safe"}),
    "Div": frozenset({"this", "expression", "typed", "safe"}),
}
"""The arguments of each node that its method takes into account."""


class PushTranslator:
    """Base of the translators of systems that are not DuckDB."""

    dialect = ""
    name = "the source"
    most_keys = 5_000

    # --- leaves --------------------------------------------------------------------------------

    def table(self, table: TableInfo) -> exp.Table:
        return quoted_table(table.path)

    def scanned(self, column: ColumnInfo, qualifier: str) -> Typed:
        reference = quoted_column(column.name, qualifier)
        if column.value_sql == "{}":
            sql: Expr = reference
        else:
            text = column.value_sql.replace("{}", reference.sql(self.dialect))
            # Text from the source's own module, written as it is.
            sql = exp.Var(this=text)
        type_ = column.type if column.comparable else f"?{column.type}"
        return Typed(sql, type_, column.collation, column.usual)

    # --- the walk ------------------------------------------------------------------------------

    def scalar(self, expression: Expr, environment: Environment) -> Typed:
        """The expression in this dialect, with its DuckDB type.

        :raises NotPushable: naming the first part that is not proved equal.
        """
        value = self._translate(expression, environment)
        if value.type == STRING_LITERAL:
            return replace(value, type="VARCHAR")
        return value

    def _translate(self, node: Expr, environment: Environment) -> Typed:
        if isinstance(node, exp.Column):
            found = environment.get(node.name)
            if found is None:
                raise NotPushable(CORRELATED)
            return replace(found, sql=found.sql.copy())
        method: Callable[[Expr, Environment], Typed] | None = getattr(
            self, f"_{type(node).__name__.lower()}", None
        )
        if method is None:
            raise NotPushable(f"`{_spelling(node)}` is not proved equal on {self.name}")
        known = _ARGUMENTS.get(type(node).__name__, _TWO_ARGUMENTS)
        for name, value in node.args.items():
            if value and name not in known:
                # A modifier that is not understood may change the meaning (NOT LIKE is a flag).
                raise NotPushable(f"`{_spelling(node)}` with `{name}`")
        return method(node, environment)

    def _value(self, node: Expr, environment: Environment) -> Typed:
        """A part whose value is computed with: columns that are only delivered do not qualify."""
        value = self._translate(node, environment)
        if value.type is None or value.type.startswith("?"):
            raise NotPushable("a column of a type that is only delivered")
        return value

    def predicate(self, expression: Expr, environment: Environment) -> Expr:
        value = self._value(expression, environment)
        if value.type not in ("BOOLEAN", NULL):
            raise NotPushable("a condition that is not boolean")
        return value.sql

    # --- literals ------------------------------------------------------------------------------

    def _literal(self, node: Expr, _: Environment) -> Typed:
        if node.args["is_string"]:
            if "\0" in node.name:
                raise NotPushable("a NUL character in a literal")
            return Typed(node.copy(), STRING_LITERAL)
        type_ = literal_type(node.name)
        if type_ is None:
            raise NotPushable(f"the literal {node.name}")
        return Typed(node.copy(), type_)

    def _neg(self, node: Expr, environment: Environment) -> Typed:
        value = self._value(node.this, environment)
        if not is_exact(value.type):
            raise NotPushable("the negative of an inexact number")
        return Typed(exp.Neg(this=_wrapped(value.sql)), value.type)

    def _null(self, node: Expr, _: Environment) -> Typed:
        return Typed(node.copy(), NULL)

    def _boolean(self, node: Expr, _: Environment) -> Typed:
        return Typed(node.copy(), "BOOLEAN")

    def _paren(self, node: Expr, environment: Environment) -> Typed:
        value = self._translate(node.this, environment)
        return replace(value, sql=_wrapped(value.sql))

    def _cast(self, node: Expr, environment: Environment) -> Typed:
        target = duckdb_type(node.args["to"])
        value = self._value(node.this, environment)
        if value.type == STRING_LITERAL:
            return self.literal_of(value.sql.name, target)
        if value.type == target:
            return value
        if value.type == NULL:
            return Typed(value.sql, target)
        return self.cast(value, target)

    def cast(self, value: Typed, target: str) -> Typed:
        """A cast that loses nothing and cannot fail."""
        source = value.type or ""
        order = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
        if source in order and target in order and order.index(source) <= order.index(target):
            return Typed(self.typed(value.sql, target), target)
        parts, width = decimal_parts(target), _exact_digits(source)
        if parts is not None and width is not None:
            digits, scale = width
            if parts[1] >= scale and parts[0] - parts[1] >= digits - scale:
                return Typed(self.typed(value.sql, target), target)
        if source == "DATE" and target == "TIMESTAMP":
            return Typed(self.typed(value.sql, target), target)
        raise NotPushable(f"a cast from {source} to {target} is not proved equal on {self.name}")

    def literal_of(self, text: str, target: str) -> Typed:
        """A quoted literal as a value of ``target``, where both systems read it the same way."""
        form = {
            "DATE": _ISO_DATE,
            "TIMESTAMP": _ISO_TIMESTAMP,
            "TIMESTAMP WITH TIME ZONE": _ISO_ZONED,
            "TIME": _TIME,
            "UUID": _UUID,
        }.get(target)
        if target == "VARCHAR":
            return Typed(exp.Literal.string(text), "VARCHAR")
        if form is None:
            return self.number_of(text, target)
        if target == "TIMESTAMP" and _ISO_DATE.fullmatch(text):
            text += " 00:00:00"
        elif not form.fullmatch(text):
            raise NotPushable(f"the literal '{text}' as {target}")
        return Typed(self.typed(exp.Literal.string(text), target), target)

    def number_of(self, text: str, target: str) -> Typed:
        """A quoted number as a value of an exact type."""
        if is_integer(target) and re.fullmatch(r"-?\d{1,18}", text):
            if not integer_fits(int(text), target):
                raise NotPushable(f"the literal '{text}' as {target}")
            return Typed(self.typed(_number(text), target), target)
        parts = decimal_parts(target)
        if parts is not None and re.fullmatch(r"-?\d+(\.\d+)?", text):
            whole, _, fraction = text.lstrip("-").partition(".")
            if len(fraction) <= parts[1] and len(whole.lstrip("0")) <= parts[0] - parts[1]:
                return Typed(self.typed(_number(text), target), target)
        raise NotPushable(f"the literal '{text}' as {target}")

    def typed(self, sql: Expr, type_: str) -> Expr:
        """``sql`` cast to the dialect's type for ``type_``."""
        return exp.Cast(this=sql, to=exp.DataType.build(type_, dialect="duckdb"))

    # --- logic ---------------------------------------------------------------------------------

    def _and(self, node: Expr, environment: Environment) -> Typed:
        return self._logic(exp.And, node, environment)

    def _or(self, node: Expr, environment: Environment) -> Typed:
        return self._logic(exp.Or, node, environment)

    def _logic(self, kind: type[exp.Binary], node: Expr, environment: Environment) -> Typed:
        left = self.predicate(node.this, environment)
        right = self.predicate(node.expression, environment)
        return Typed(kind(this=_connective(left), expression=_connective(right)), "BOOLEAN")

    def _not(self, node: Expr, environment: Environment) -> Typed:
        return Typed(exp.Not(this=_wrapped(self.predicate(node.this, environment))), "BOOLEAN")

    def _is(self, node: Expr, environment: Environment) -> Typed:
        if isinstance(node.expression, exp.Null):
            value = self._translate(node.this, environment)
            return Typed(exp.Is(this=_wrapped(value.sql), expression=exp.Null()), "BOOLEAN")
        if isinstance(node.expression, exp.Boolean):
            value_sql = self.predicate(node.this, environment)
            test = exp.Is(this=_wrapped(value_sql), expression=node.expression.copy())
            return Typed(test, "BOOLEAN")
        raise NotPushable("IS of something other than NULL, TRUE or FALSE")

    # --- comparison ----------------------------------------------------------------------------

    def _eq(self, node: Expr, environment: Environment) -> Typed:
        return self._compare(node, environment, ordering=False)

    _neq = _eq

    def _gt(self, node: Expr, environment: Environment) -> Typed:
        return self._compare(node, environment, ordering=True)

    _gte = _gt
    _lt = _gt
    _lte = _gt

    def _nullsafeeq(self, node: Expr, environment: Environment) -> Typed:
        return self._compare(node, environment, ordering=False)

    _nullsafeneq = _nullsafeeq

    def _compare(self, node: Expr, environment: Environment, *, ordering: bool) -> Typed:
        left = self._value(node.this, environment)
        right = self._value(node.expression, environment)
        left, right = self.unify(left, right, ordering=ordering)
        test = type(node)(this=_wrapped(left.sql), expression=_wrapped(right.sql))
        return Typed(test, "BOOLEAN")

    def _between(self, node: Expr, environment: Environment) -> Typed:
        if node.args.get("symmetric"):
            raise NotPushable("BETWEEN SYMMETRIC")
        low = exp.GTE(this=node.this, expression=node.args["low"])
        high = exp.LTE(this=node.this, expression=node.args["high"])
        return self._logic(exp.And, exp.And(this=low, expression=high), environment)

    def _in(self, node: Expr, environment: Environment) -> Typed:
        if node.args.get("query") or node.args.get("unnest") or not node.expressions:
            raise NotPushable("IN over something other than a list")
        subject = self._value(node.this, environment)
        items: list[Expr] = []
        shown: Typed = subject
        for item in node.expressions:
            value = self._value(item, environment)
            left, right = self.unify(subject, value, ordering=False)
            if shown.type != STRING_LITERAL and left.sql != subject.sql:
                shown = left
            items.append(right.sql)
        return Typed(exp.In(this=_wrapped(shown.sql), expressions=items), "BOOLEAN")

    def _anonymous(self, node: Expr, environment: Environment) -> Typed:
        if node.name != KEYS:
            raise NotPushable(f"`{_spelling(node)}` is not proved equal on {self.name}")
        subject, type_, marker = node.expressions
        # What holds for one of them holds for all.
        equal = self._translate(exp.EQ(this=subject, expression=_one_of(type_.name)), environment)
        if not isinstance(equal.sql, exp.EQ):
            raise NotPushable(f"{type_.name} compares in a way of its own on {self.name}")
        return Typed(self.among_keys(equal.sql.this, type_.name, marker), "BOOLEAN")

    def among_keys(self, subject: Expr, type_: str, marker: Expr) -> Expr:
        """Whether ``subject`` is among the keys that will stand where the marker is.

        :raises NotPushable: for types whose keys cannot be written.
        """
        if type_ not in ("VARCHAR", "DATE") and not is_integer(type_):
            raise NotPushable(f"keys of type {type_}")
        return exp.In(this=subject, expressions=[marker])

    def key_text(self, type_: str, values: Sequence[str]) -> str:
        if not values:
            return "NULL"
        if type_ == "VARCHAR":
            return ", ".join(exp.Literal.string(v).sql(self.dialect) for v in values)
        if type_ == "DATE":
            return ", ".join(f"DATE '{v}'" for v in values)
        return ", ".join(values)

    def unify(self, left: Typed, right: Typed, *, ordering: bool) -> tuple[Typed, Typed]:
        """Both sides of a comparison so that the source compares as DuckDB does.

        :raises NotPushable: where it would not.
        """
        if left.type == STRING_LITERAL and right.type != STRING_LITERAL:
            new_right, new_left = self.unify(right, left, ordering=ordering)
            return new_left, new_right
        a, b = left.type or "", right.type or ""
        if NULL in (a, b):
            return left, right
        if b == STRING_LITERAL:
            if a in ("VARCHAR", STRING_LITERAL):
                return self.text_comparison(left, right, ordering=ordering)
            return self.unify(left, self.literal_of(right.sql.name, a), ordering=ordering)
        if a == "VARCHAR" and b == "VARCHAR":
            return self.text_comparison(left, right, ordering=ordering)
        if is_exact(a) and is_exact(b):
            return left, right
        if is_float(a) or is_float(b):
            return self.float_comparison(left, right)
        if a == b and (a in ORDERED_TYPES or a in ("BOOLEAN", "UUID")):
            if ordering and a in ("BOOLEAN", "UUID"):
                raise NotPushable(f"the order of {a}")
            return left, right
        if {a, b} == {"DATE", "TIMESTAMP"}:
            for mine, other in ((left, right), (right, left)):
                midnight = _midnight(mine)
                if midnight is not None and other.type == "DATE":
                    literal = self.literal_of(midnight, "DATE")
                    return (literal, other) if mine is left else (other, literal)
            return self.dates_with_timestamps(left, right)
        raise NotPushable(f"a comparison of {a} with {b} is not proved equal on {self.name}")

    def dates_with_timestamps(self, left: Typed, right: Typed) -> tuple[Typed, Typed]:
        """A date beside a timestamp is its midnight."""
        return (
            left if left.type == "TIMESTAMP" else self.cast(left, "TIMESTAMP"),
            right if right.type == "TIMESTAMP" else self.cast(right, "TIMESTAMP"),
        )

    def text_comparison(self, left: Typed, right: Typed, *, ordering: bool) -> tuple[Typed, Typed]:
        """Text compared byte by byte: the weakest collation of both sides decides what it takes."""
        worst = _worst(left.collation, right.collation)
        if worst == "binary" or (worst == "deterministic" and not ordering):
            return left, right
        return self.binary(left), self.binary(right)

    def binary(self, value: Typed) -> Typed:
        """Text that compares byte by byte."""
        if value.collation == "binary" or isinstance(value.sql, exp.Literal):
            return value
        raise NotPushable(f"text under another collation on {self.name}")

    def equal_text(self, value: Typed) -> Typed:
        """Text whose equality is equality of bytes: for grouping, DISTINCT and set operations."""
        return value if value.collation in ("binary", "deterministic") else self.binary(value)

    def float_comparison(self, left: Typed, right: Typed) -> tuple[Typed, Typed]:
        """FLOAT and DOUBLE: NaN equals itself and is greater than all else in DuckDB."""
        if left.type == right.type:
            return left, right
        for a, b in ((left, right), (right, left)):
            if is_float(a.type) and isinstance(b.sql, exp.Literal | exp.Neg) and is_exact(b.type):
                literal = Typed(self.typed(b.sql, a.type or ""), a.type)
                return (a, literal) if a is left else (literal, a)
        raise NotPushable(f"a comparison of {left.type} with {right.type}")

    # --- arithmetic ----------------------------------------------------------------------------

    def _add(self, node: Expr, environment: Environment) -> Typed:
        return self._arithmetic(node, environment, sum_of)

    _sub = _add

    def _mul(self, node: Expr, environment: Environment) -> Typed:
        return self._arithmetic(node, environment, product_of)

    def _arithmetic(
        self, node: Expr, environment: Environment, rule: Callable[[str, str], str | None]
    ) -> Typed:
        left = self._value(node.this, environment)
        right = self._value(node.expression, environment)
        if not (is_exact(left.type) and is_exact(right.type)):
            raise NotPushable(f"arithmetic on {left.type} and {right.type}")
        a, b = adapted(left, right)
        type_ = rule(a, b)
        if type_ is None:
            raise NotPushable(f"arithmetic on {a} and {b}")
        if is_integer(type_):
            self.check_integer_arithmetic(type_)
        sql = type(node)(this=_wrapped(left.sql), expression=_wrapped(right.sql))
        return Typed(sql, type_)

    def check_integer_arithmetic(self, type_: str) -> None:
        """Integers that overflow must be an error at the source too."""
        if type_ not in ("INTEGER", "BIGINT"):
            raise NotPushable(f"arithmetic on {type_}")

    # --- choice --------------------------------------------------------------------------------

    def _case(self, node: Expr, environment: Environment) -> Typed:
        if node.this is not None and not isinstance(node.this, exp.Null):
            tests = [exp.EQ(this=node.this, expression=i.this) for i in node.args["ifs"]]
        else:
            tests = [i.this for i in node.args["ifs"]]
        branches = [self._value(i.args["true"], environment) for i in node.args["ifs"]]
        default = node.args.get("default")
        if default is not None:
            branches.append(self._value(default, environment))
        type_, collation = self._common_type(branches)
        written = [self._as_branch(b, type_) for b in branches]
        ifs = [
            exp.If(this=self.predicate(t, environment), true=w)
            for t, w in zip(tests, written, strict=False)
        ]
        end = written[len(ifs)] if default is not None else None
        return Typed(exp.Case(ifs=ifs, default=end), type_, collation)

    def _coalesce(self, node: Expr, environment: Environment) -> Typed:
        parts = [self._value(p, environment) for p in (node.this, *node.expressions)]
        type_, collation = self._common_type(parts)
        written = [self._as_branch(p, type_) for p in parts]
        return Typed(exp.Coalesce(this=written[0], expressions=written[1:]), type_, collation)

    def _nullif(self, node: Expr, environment: Environment) -> Typed:
        left = self._value(node.this, environment)
        right = self._value(node.expression, environment)
        if left.type == STRING_LITERAL:
            raise NotPushable("NULLIF of a literal")
        a, b = self.unify(left, right, ordering=False)
        if a.sql != left.sql:
            # Compared in another form than it is delivered in.
            same = exp.EQ(this=_wrapped(a.sql), expression=_wrapped(b.sql))
            choice = exp.Case(ifs=[exp.If(this=same, true=exp.Null())], default=left.sql.copy())
            return Typed(choice, left.type, left.collation)
        return Typed(exp.Nullif(this=a.sql, expression=b.sql), left.type, left.collation)

    def _common_type(self, parts: list[Typed]) -> tuple[str, Collation]:
        types = [p.type for p in parts if p.type not in (NULL, None)]
        if not types:
            raise NotPushable("an expression of NULLs alone")
        collation: Collation = "binary"
        for part in parts:
            collation = _worst(collation, part.collation)
        if all(t in ("VARCHAR", STRING_LITERAL) for t in types):
            return "VARCHAR", collation
        known = [t for t in types if t != STRING_LITERAL]
        if len(set(known)) == 1 and len(known) == len(types):
            return str(known[0]), "binary"
        if all(is_exact(t) for t in types):
            columns = [p for p in parts if p.type != NULL]
            result = str(columns[0].type)
            for part in columns[1:]:
                a, b = adapted(Typed(columns[0].sql, result), part)
                wider = wider_exact(a, b)
                if wider is None:
                    raise NotPushable("branches of different types")
                result = wider
            return result, "binary"
        raise NotPushable("branches of different types")

    def _as_branch(self, part: Typed, type_: str) -> Expr:
        if part.type == type_ or part.type == NULL or type_ == "VARCHAR":
            return part.sql
        return self.typed(part.sql, type_)

    # --- aggregates ----------------------------------------------------------------------------

    def aggregate(self, expression: Expr, environment: Environment) -> Typed:
        node = expression
        condition: Expr | None = None
        if isinstance(node, exp.Filter):
            condition = self.predicate(node.expression.this, environment)
            node = node.this
        if not isinstance(node, exp.Count | exp.Sum | exp.Min | exp.Max):
            raise NotPushable(f"`{_spelling(node)}` is not proved equal on {self.name}")
        value = self._call(node, environment)
        if condition is not None:
            value = replace(value, sql=self.filtered_aggregate(value.sql, condition))
        return value

    def filtered_aggregate(self, call: Expr, condition: Expr) -> Expr:
        return exp.Filter(this=call, expression=exp.Where(this=condition))

    def _call(self, node: Expr, environment: Environment) -> Typed:
        argument = node.this
        distinct = isinstance(argument, exp.Distinct)
        if distinct:
            if len(argument.expressions) != 1:
                raise NotPushable("DISTINCT over several columns")
            argument = argument.expressions[0]
        if isinstance(node, exp.Count):
            if node.expressions:
                raise NotPushable("count of several columns")
            if isinstance(argument, exp.Star):
                return Typed(exp.Count(this=exp.Star()), "BIGINT")
            value = self._translate(argument, environment)
            if distinct:
                value = self.distinct_value(self._value(argument, environment))
            return Typed(exp.Count(this=_maybe_distinct(value.sql, distinct)), "BIGINT")
        if node.expressions or node.args.get("this") is None:
            raise NotPushable(f"`{_spelling(node)}` of several arguments")
        value = self._value(argument, environment)
        if isinstance(node, exp.Sum):
            return self.sum(value, distinct)
        return self.extreme(type(node), value)

    def sum(self, value: Typed, distinct: bool) -> Typed:
        """Exact sums only: the order of a floating-point sum changes its last digits."""
        parts = decimal_parts(value.type or "")
        if is_integer(value.type) and value.type != "HUGEINT":
            type_ = "HUGEINT"
        elif parts is not None:
            type_ = f"DECIMAL(38,{parts[1]})"
        else:
            raise NotPushable(f"the sum of {value.type}")
        return Typed(exp.Sum(this=_maybe_distinct(value.sql, distinct)), type_)

    def extreme(self, kind: type[exp.Expr], value: Typed) -> Typed:
        """min and max."""
        if value.type == "VARCHAR":
            value = self.binary(value)
        elif not (is_exact(value.type) or value.type in ORDERED_TYPES or is_float(value.type)):
            raise NotPushable(f"min or max of {value.type}")
        return Typed(kind(this=value.sql), value.type, value.collation)

    def group_key(self, expression: Expr, environment: Environment) -> Typed:
        value = self._value(expression, environment)
        if isinstance(value.sql, exp.Literal | exp.Null | exp.Boolean):
            raise NotPushable("a constant in GROUP BY")
        return self.distinct_value(value)

    def distinct_value(self, value: Typed) -> Typed:
        """A value whose equality at the source is DuckDB's: for GROUP BY, DISTINCT, UNION."""
        if value.type == STRING_LITERAL:
            return replace(value, type="VARCHAR")
        if value.type == "VARCHAR":
            return self.equal_text(value)
        if is_exact(value.type) or value.type in ORDERED_TYPES or value.type in ("BOOLEAN", "UUID"):
            return value
        raise NotPushable(f"the equality of {value.type}")

    def set_column(self, left: Typed, right: Typed) -> Typed:
        a, b = left.type, right.type
        if a in (STRING_LITERAL,):
            a = "VARCHAR"
        if b in (STRING_LITERAL,):
            b = "VARCHAR"
        if a != b or a is None or a.startswith("?") or a == NULL:
            raise NotPushable("a set operation over different types")
        return Typed(left.sql, a, _worst(left.collation, right.collation))

    def window(self, expression: Expr, environment: Environment) -> Typed:
        raise NotPushable("window functions")

    def sort_key(self, key: exp.Ordered, environment: Environment) -> exp.Ordered:
        value = self._value(key.this, environment)
        if value.type == "VARCHAR":
            value = self.binary(value)
        elif not (is_exact(value.type) or value.type in ORDERED_TYPES or is_float(value.type)):
            raise NotPushable(f"the order of {value.type}")
        if isinstance(value.sql, exp.Literal):
            raise NotPushable("a constant in ORDER BY")
        return exp.Ordered(
            this=value.sql, desc=key.args.get("desc"), nulls_first=key.args.get("nulls_first")
        )

    def wire(self, value: Typed) -> WireColumn:
        raise NotImplementedError


def duckdb_type(to: exp.DataType) -> str:
    """DuckDB's spelling of a parsed type."""
    text = to.sql("duckdb").upper().replace(", ", ",")
    return {
        "INT": "INTEGER",
        "TEXT": "VARCHAR",
        "REAL": "FLOAT",
        "TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE",
        "DECIMAL": "DECIMAL(18,3)",
    }.get(text, text)


def _exact_digits(type_: str) -> tuple[int, int] | None:
    from batuta_sql.plan.types import as_decimal

    return as_decimal(type_)


def adapted(left: Typed, right: Typed) -> tuple[str, str]:
    """The types of two numbers, after an integer literal took on the type beside it."""
    a, b = left.type or "", right.type or ""
    if is_integer(a) and is_integer(b):
        for mine, other in ((left, right), (right, left)):
            value = _integer_value(mine.sql)
            if value is not None and _integer_value(other.sql) is None:
                kind = other.type or ""
                if integer_fits(value, kind):
                    return kind, kind
    return a, b


def _integer_value(sql: Expr) -> int | None:
    if isinstance(sql, exp.Paren):
        return _integer_value(sql.this)
    if isinstance(sql, exp.Neg):
        inner = _integer_value(sql.this)
        return -inner if inner is not None else None
    if isinstance(sql, exp.Literal) and sql.is_int:
        return int(sql.name)
    return None


def _midnight(value: Typed) -> str | None:
    """The date of a timestamp literal at midnight: comparing with it is comparing dates."""
    literal = value.sql.this if isinstance(value.sql, exp.Cast) else None
    if value.type != "TIMESTAMP" or not isinstance(literal, exp.Literal):
        return None
    date, _, clock = literal.name.replace("T", " ").partition(" ")
    return date if not clock.strip("0:.") else None


def _number(text: str) -> Expr:
    literal: Expr = exp.Literal.number(text.lstrip("-"))
    return exp.Neg(this=literal) if text.startswith("-") else literal


def _maybe_distinct(sql: Expr, distinct: bool) -> Expr:
    return exp.Distinct(expressions=[sql]) if distinct else sql


def _worst(a: Collation, b: Collation) -> Collation:
    rank: tuple[Collation, ...] = ("binary", "deterministic", "other")
    return max(a, b, key=rank.index)


def _one_of(type_: str) -> Expr:
    """A literal of a type."""
    sample = _SAMPLES.get(type_)
    return exp.Literal.string(sample) if sample is not None else exp.Literal.number(0)


def _wrapped(sql: Expr) -> Expr:
    return exp.Paren(this=sql) if isinstance(sql, exp.Case) else parenthesized(sql)


def _connective(sql: Expr) -> Expr:
    return exp.Paren(this=sql) if isinstance(sql, exp.Connector) else sql


def _spelling(node: Expr) -> str:
    if isinstance(node, exp.Anonymous):
        return node.name.lower()
    if isinstance(node, exp.Func):
        return node.sql_name().lower()
    return type(node).__name__.lower()
