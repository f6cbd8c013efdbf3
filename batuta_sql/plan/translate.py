"""How a site's expressions are written, and which of them it may be given at all.

A ``Translator`` turns a scalar expression over symbols into one in the site's own terms, or raises
``NotPushable`` with the reason. The residual engine and embedded DuckDB engines take everything;
other systems take what ``plan/pushdown.py`` and their own source module prove equal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlglot import exp

from batuta_sql.plan.relational import Expr, is_stable, substitute
from batuta_sql.plan.site import Collation, ColumnInfo, TableInfo, Usual

CORRELATED = "it reads a column from elsewhere"

KEYS = "\x01keys"
"""Called as a function of a column, its type and a marker: whether the column's value is among the
keys that will stand where the marker is. No query can write it."""


class NotPushable(Exception):
    """This part of a plan cannot run at the site with DuckDB's answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Typed:
    """An expression in a site's terms.

    :param sql: the expression, ready to be rendered in the site's dialect.
    :param type: its DuckDB type; None where it is not known (embedded engines deliver their own).
    :param collation: for text, how the site would compare it if nothing were added.
    :param usual: as in ``ColumnInfo``, of a column as it is.
    """

    sql: Expr
    type: str | None = None
    collation: Collation = "binary"
    usual: Usual = ()


Environment = Mapping[str, Typed]


@dataclass(frozen=True)
class WireColumn:
    """How one output column of a fragment travels and how it is restored.

    :param sql: the expression that is selected at the site.
    :param arrow: what to make of the arriving array, a name that ``exchange.wire`` knows; None
        takes it as it comes.
    :param decode: a DuckDB expression that restores the value, ``{}`` standing for the arrived
        column; None where it arrives as it should be.
    :param type: the DuckDB type it has in the end; None where an embedded engine decides.
    :param width: bytes that a value takes on the way; None: what values of the column take.
    """

    sql: Expr
    arrow: str | None = None
    decode: str | None = None
    type: str | None = None
    width: float | None = None


class Translator(Protocol):
    """Writes expressions for one site."""

    def table(self, table: TableInfo) -> exp.Table: ...

    def scanned(self, column: ColumnInfo, qualifier: str) -> Typed: ...

    def scalar(self, expression: Expr, environment: Environment) -> Typed: ...

    def predicate(self, expression: Expr, environment: Environment) -> Expr: ...

    def aggregate(self, expression: Expr, environment: Environment) -> Typed: ...

    def group_key(self, expression: Expr, environment: Environment) -> Typed: ...

    def window(self, expression: Expr, environment: Environment) -> Typed: ...

    def sort_key(self, key: exp.Ordered, environment: Environment) -> exp.Ordered: ...

    def distinct_value(self, value: Typed) -> Typed: ...

    def set_column(self, left: Typed, right: Typed) -> Typed: ...

    def wire(self, value: Typed) -> WireColumn: ...

    @property
    def most_keys(self) -> int:
        """How many keys a statement may have."""
        ...

    def key_text(self, type_: str, values: Sequence[str]) -> str:
        """What stands in a statement where the marker stood, quotes included.

        :param values: the keys, as DuckDB writes them.
        """
        ...


class DuckDBTranslator:
    """Everything is equal here, because it is the same engine.

    What depends on the session or the moment (random(), now(), a user's variable) still stays in
    the residual: two engines would give two answers.
    """

    most_keys = 1_000_000

    def table(self, table: TableInfo) -> exp.Table:
        return quoted_table(table.path)

    def scanned(self, column: ColumnInfo, qualifier: str) -> Typed:
        return Typed(quoted_column(column.name, qualifier))

    def key_text(self, type_: str, values: Sequence[str]) -> str:
        if type_ == "VARCHAR":
            return quoted_text(json.dumps(values, ensure_ascii=False))
        return f"'[{', '.join(values)}]'"

    def scalar(self, expression: Expr, environment: Environment) -> Typed:
        self.check(expression)

        def value(symbol: str) -> Expr:
            found = environment.get(symbol)
            if found is None:
                raise NotPushable(CORRELATED)
            return found.sql

        written = substitute(expression, value)
        if written.find(exp.Anonymous) is not None:
            written = written.transform(_key_list, copy=False)
        return Typed(written)

    def check(self, expression: Expr) -> None:
        if not is_stable(expression):
            raise NotPushable("it is volatile or multiplies rows")
        for node in expression.find_all(
            exp.CurrentTimestamp, exp.CurrentDate, exp.CurrentTime, exp.Anonymous
        ):
            if not isinstance(node, exp.Anonymous) or node.name.lower() in _MOMENT:
                raise NotPushable("it depends on the session or the moment")

    def predicate(self, expression: Expr, environment: Environment) -> Expr:
        return self.scalar(expression, environment).sql

    aggregate = scalar
    group_key = scalar
    window = scalar

    def sort_key(self, key: exp.Ordered, environment: Environment) -> exp.Ordered:
        new = key.copy()
        new.set("this", self.scalar(key.this, environment).sql)
        assert isinstance(new, exp.Ordered)
        return new

    def distinct_value(self, value: Typed) -> Typed:
        return value

    def set_column(self, left: Typed, right: Typed) -> Typed:
        return left

    def wire(self, value: Typed) -> WireColumn:
        return WireColumn(value.sql)


class LocalTranslator(DuckDBTranslator):
    """The residual engine itself: takes everything as it is."""

    def check(self, expression: Expr) -> None:
        return


def is_key_test(node: Expr) -> bool:
    """Whether ``node`` stands for a test of keys."""
    return isinstance(node, exp.Anonymous) and node.name == KEYS


def _key_list(node: Expr) -> Expr:
    """A test of keys, as DuckDB reads them."""
    if not is_key_test(node):
        return node
    subject, type_, marker = node.expressions
    if type_.name == "VARCHAR":
        values = exp.func("from_json", marker, exp.Literal.string('["VARCHAR"]'))
    else:
        values = exp.cast(marker, f"{type_.name}[]", dialect="duckdb")
    return in_unnested(subject, values)


def in_unnested(subject: Expr, values: Expr) -> exp.In:
    """``subject IN (SELECT UNNEST(values))``."""
    unnested = exp.Anonymous(this="UNNEST", expressions=[values])
    return exp.In(this=subject, query=exp.Subquery(this=exp.select(unnested)))


def quoted_text(text: str) -> str:
    """A string literal where quotes are doubled and nothing else is special."""
    return "'" + text.replace("'", "''") + "'"


_MOMENT = frozenset(
    {
        "now",
        "today",
        "get_current_timestamp",
        "get_current_time",
        "current_localtime",
        "current_localtimestamp",
        "transaction_timestamp",
        "current_setting",
        "current_user",
        "current_schema",
        "current_schemas",
        "current_database",
        "current_catalog",
        "current_query",
        "getenv",
        "version",
        "pg_typeof",
        "current_connection_id",
        "current_query_id",
        "current_transaction_id",
    }
)


def quoted_table(path: tuple[str, ...]) -> exp.Table:
    """A table by its path, every part quoted."""
    parts = [exp.to_identifier(p, quoted=True) for p in path]
    return exp.Table(
        this=parts[-1],
        db=parts[-2] if len(parts) > 1 else None,
        catalog=parts[-3] if len(parts) > 2 else None,
    )


def quoted_column(name: str, qualifier: str | None) -> exp.Column:
    """A column, quoted, under the alias of its table."""
    return exp.Column(
        this=exp.Identifier(this=name, quoted=True),
        table=exp.Identifier(this=qualifier, quoted=True) if qualifier else None,
    )
