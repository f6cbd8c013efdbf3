"""The relational operators: frozen values that form a tree.

Every column has one symbol from binding to delivery, unique in the whole query, so no rule ever
has to think about names. Scalar expressions are sqlglot expressions whose columns are symbols:
``exp.Column`` without a table part. A subquery in an expression is an ``Apply`` below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from typing import Any, Literal

from sqlglot import exp

from batuta_sql.plan.site import ColumnInfo, TableInfo

Expr = exp.Expr
Assignment = tuple[str, Expr]
"""A new symbol and the expression that computes it."""

JoinKind = Literal["INNER", "LEFT", "RIGHT", "FULL", "CROSS", "SEMI", "ANTI", "ASOF", "ASOF LEFT"]
SetKind = Literal["UNION", "INTERSECT", "EXCEPT"]


@dataclass(frozen=True, eq=False)
class Relation:
    """An operator. ``symbols`` are its output columns, in order."""

    @property
    def inputs(self) -> tuple[Relation, ...]:
        return tuple([getattr(self, name) for name in self._input_names])

    @property
    def _input_names(self) -> tuple[str, ...]:
        # mypy takes the class for its values, which have a __hash__ of their own.
        return _input_names(type(self))  # type: ignore[arg-type]

    def with_inputs(self, *new: Relation) -> Relation:
        """The same operator over other inputs."""
        names = self._input_names
        if all(getattr(self, n) is r for n, r in zip(names, new, strict=True)):
            return self
        return replace(self, **dict(zip(names, new, strict=True)))

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return self.inputs[0].symbols

    @property
    def expressions(self) -> tuple[Expr, ...]:
        """The scalar expressions that this operator evaluates."""
        return ()

    def walk(self) -> Iterator[Relation]:
        """This operator and all below it, depth first."""
        waiting: list[Relation] = [self]
        while waiting:
            relation = waiting.pop()
            yield relation
            waiting.extend(reversed(relation.inputs))


@cache
def _input_names(operator: type[Any]) -> tuple[str, ...]:
    """The fields that hold an operator's inputs, in order."""
    return tuple(f.name for f in fields(operator) if f.type == "Relation")


@dataclass(frozen=True, eq=False)
class Scan(Relation):
    """Reads columns of a source's table."""

    table: TableInfo
    columns: tuple[tuple[str, ColumnInfo], ...]

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return tuple(s for s, _ in self.columns)


@dataclass(frozen=True, eq=False)
class LocalScan(Relation):
    """Reads a relation that lives in the residual engine.

    A registered frame, a temporary table, a table function, VALUES, or a block of SQL that the
    planner does not model; ``reason`` says why in the last case.

    :param rows: how many it has; None where that is not known.
    """

    relation: Expr
    columns: tuple[tuple[str, str], ...]
    reason: str | None = None
    tables: tuple[TableInfo, ...] = ()
    rows: float | None = None

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return tuple(s for s, _ in self.columns)

    @property
    def is_repeatable(self) -> bool:
        """Whether it gives the same rows each time it is read."""
        if self.reason is not None:
            return False
        match self.relation:
            case exp.Subquery(this=exp.Values()):
                return is_stable(self.relation)
            case exp.Table(this=exp.Identifier()):
                return True
        return False


@dataclass(frozen=True, eq=False)
class OneRow(Relation):
    """A single row without columns: a SELECT without FROM."""

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class Filter(Relation):
    """Keeps the rows for which ``condition`` is true."""

    input: Relation
    condition: Expr

    @property
    def expressions(self) -> tuple[Expr, ...]:
        return (self.condition,)


@dataclass(frozen=True, eq=False)
class Project(Relation):
    """Computes the output columns from each input row."""

    input: Relation
    assignments: tuple[Assignment, ...]

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return tuple(s for s, _ in self.assignments)

    @property
    def expressions(self) -> tuple[Expr, ...]:
        return tuple(e for _, e in self.assignments)


@dataclass(frozen=True, eq=False)
class Join(Relation):
    """Joins two relations. SEMI and ANTI deliver the left columns only."""

    left: Relation
    right: Relation
    kind: JoinKind
    on: Expr | None = None

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        if self.kind in ("SEMI", "ANTI"):
            return self.left.symbols
        return self.left.symbols + self.right.symbols

    @property
    def expressions(self) -> tuple[Expr, ...]:
        return (self.on,) if self.on is not None else ()


@dataclass(frozen=True, eq=False)
class Apply(Relation):
    """Adds one column: the value of a subquery for each input row.

    :param kind: ``scalar`` (NULL for no row, an error for two), ``exists``, ``in`` (three-valued
        membership of ``operands``), ``compare`` (``operands[0] OP ANY|ALL (subquery)``).
    :param comparison: for ``compare``: the operator class and ``ANY`` or ``ALL``.
    """

    input: Relation
    subquery: Relation
    kind: Literal["scalar", "exists", "in", "compare"]
    symbol: str
    operands: tuple[Expr, ...] = ()
    comparison: tuple[type[exp.Expr], Literal["ANY", "ALL"]] | None = None

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return (*self.input.symbols, self.symbol)

    @property
    def expressions(self) -> tuple[Expr, ...]:
        return self.operands


@dataclass(frozen=True, eq=False)
class Aggregate(Relation):
    """Groups by ``keys`` and computes ``aggregates``.

    ``grouping_sets`` holds sets of indexes into ``keys``; None is one set of them all. Without
    keys there is exactly one output row, even over no input.
    """

    input: Relation
    keys: tuple[Assignment, ...]
    aggregates: tuple[Assignment, ...]
    grouping_sets: tuple[tuple[int, ...], ...] | None = None

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return tuple(s for s, _ in self.keys + self.aggregates)

    @property
    def expressions(self) -> tuple[Expr, ...]:
        return tuple(e for _, e in self.keys + self.aggregates)


@dataclass(frozen=True, eq=False)
class Window(Relation):
    """Adds columns computed by window functions over the whole input."""

    input: Relation
    functions: tuple[Assignment, ...]

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return self.input.symbols + tuple(s for s, _ in self.functions)

    @property
    def expressions(self) -> tuple[Expr, ...]:
        return tuple(e for _, e in self.functions)


@dataclass(frozen=True, eq=False)
class Distinct(Relation):
    """Drops repeated rows; with ``on``, keeps the first row for each value of these expressions.

    ``order`` decides which row is the first of DISTINCT ON.
    """

    input: Relation
    on: tuple[Expr, ...] = ()
    order: tuple[exp.Ordered, ...] = ()

    @property
    def expressions(self) -> tuple[Expr, ...]:
        return self.on + self.order


@dataclass(frozen=True, eq=False)
class Sort(Relation):
    """Orders the rows; each key says explicitly where NULLs go."""

    input: Relation
    keys: tuple[exp.Ordered, ...]

    @property
    def expressions(self) -> tuple[Expr, ...]:
        return self.keys


@dataclass(frozen=True, eq=False)
class Limit(Relation):
    """Keeps ``count`` rows (None: all; a percentage where ``percent``) after ``offset``."""

    input: Relation
    count: Expr | None
    offset: Expr | None = None
    percent: bool = False

    @property
    def rows(self) -> int | None:
        """``count`` plus ``offset`` where both are plain numbers: what is needed from below."""
        total = 0
        for part in (self.count, self.offset):
            if part is None:
                continue
            if not (isinstance(part, exp.Literal) and not part.is_string and part.name.isdigit()):
                return None
            total += int(part.name)
        return None if self.count is None or self.percent else total


@dataclass(frozen=True, eq=False)
class SetOperation(Relation):
    """UNION, INTERSECT or EXCEPT; ``columns`` pairs each output symbol with one of each side."""

    left: Relation
    right: Relation
    kind: SetKind
    all: bool
    columns: tuple[tuple[str, str, str], ...]

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return tuple(s for s, _, _ in self.columns)


@dataclass(frozen=True, eq=False)
class With(Relation):
    """Evaluates ``definition`` once; ``CommonScan`` of the same name reads it inside ``body``."""

    name: str
    definition: Relation
    body: Relation

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return self.body.symbols


@dataclass(frozen=True, eq=False)
class CommonScan(Relation):
    """Reads a common table expression: pairs of a new symbol and one of the definition."""

    name: str
    columns: tuple[tuple[str, str], ...]

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return tuple(s for s, _ in self.columns)


@dataclass(frozen=True, eq=False)
class Exchange(Relation):
    """Runs ``input`` at ``site`` and brings its rows here, under ``name``.

    Two of one name read the same delivery: ``delivered`` then has the columns of both.
    """

    input: Relation
    site: str
    name: str
    delivered: tuple[str, ...] | None = None

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return self.input.symbols if self.delivered is None else self.delivered


def column(symbol: str) -> exp.Column:
    """The expression that reads ``symbol``."""
    return exp.Column(this=exp.Identifier(this=symbol, quoted=True))


def references(*expressions: Expr | None) -> frozenset[str]:
    """The symbols that the expressions read."""
    return frozenset(
        node.name for e in expressions if e is not None for node in e.find_all(exp.Column)
    )


def conjuncts(condition: Expr | None) -> list[Expr]:
    """The parts of a condition that are joined by AND."""
    if condition is None:
        return []
    if isinstance(condition, exp.Paren):
        return conjuncts(condition.this)
    if isinstance(condition, exp.And):
        return conjuncts(condition.this) + conjuncts(condition.expression)
    return [condition]


def conjunction(parts: Iterable[Expr]) -> Expr | None:
    """The parts joined by AND, or None where there are none."""
    result: Expr | None = None
    for part in parts:
        operand = exp.Paren(this=part) if isinstance(part, exp.Or) else part
        result = operand if result is None else exp.And(this=result, expression=operand)
    return result


def filtered(relation: Relation, parts: Iterable[Expr]) -> Relation:
    """``relation`` under a Filter of the parts, or bare where there are none."""
    condition = conjunction(parts)
    return relation if condition is None else Filter(relation, condition)


def substitute(expression: Expr, values: Callable[[str], Expr | None]) -> Expr:
    """A copy in which each symbol is replaced by what ``values`` gives for it (None: kept).

    Compound replacements get parentheses, so that the text stays right.
    """

    def visit(node: Expr) -> Expr:
        if isinstance(node, exp.Column):
            value = values(node.name)
            if value is None:
                return node
            return parenthesized(value.copy())
        return node

    if isinstance(expression, exp.Column):
        value = values(expression.name)
        return expression.copy() if value is None else parenthesized(value.copy())
    return expression.copy().transform(visit, copy=False)


def parenthesized(expression: Expr) -> Expr:
    """The expression, in parentheses where an operator beside it could take it apart."""
    if isinstance(
        expression, exp.Binary | exp.Unary | exp.Between | exp.In | exp.Interval | exp.Lambda
    ) and not isinstance(expression, exp.Paren | exp.Dot):
        return exp.Paren(this=expression)
    return expression


_VOLATILE_NODES = (exp.Rand, exp.Randn, exp.Uuid, exp.Explode, exp.Unnest, exp.Inline)
_VOLATILE_NAMES = frozenset(
    [
        "random",
        "uuid",
        "gen_random_uuid",
        "uuidv4",
        "uuidv7",
        "nextval",
        "currval",
        "setseed",
        "unnest",
        "generate_subscripts",
        "txid_current",
        "error",
        "getvariable",
    ]
)


def is_stable(expression: Expr) -> bool:
    """Whether the expression gives the same one value each time for the same row."""
    for node in expression.find_all(exp.Anonymous, *_VOLATILE_NODES):
        if not isinstance(node, exp.Anonymous) or node.name.lower() in _VOLATILE_NAMES:
            return False
    return True


def bound_symbols(relation: Relation) -> frozenset[str]:
    """All symbols that are made inside ``relation``."""
    made: set[str] = set()
    for node in relation.walk():
        made.update(node.symbols)
        if isinstance(node, Aggregate | Project | Window):
            made.update(node.symbols)
    return frozenset(made)


def free_symbols(relation: Relation) -> frozenset[str]:
    """The symbols that ``relation`` reads from a query around it: its correlation."""
    used: set[str] = set()
    for node in relation.walk():
        used.update(references(*node.expressions))
    return frozenset(used) - bound_symbols(relation)
