"""What is sent to a source: one statement, and what is known of it beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot import exp

from batuta_sql.plan.cardinality import Cardinality
from batuta_sql.plan.rates import (
    ASSUMED,
    FIELD_BYTES,
    PARALLEL_ROWS,
    Rates,
    SecondsOf,
    moving_seconds,
    row_bytes,
    scans_large_table,
)
from batuta_sql.plan.relational import (
    Exchange,
    Expr,
    Filter,
    Project,
    Relation,
    Scan,
    column,
    filtered,
)
from batuta_sql.plan.rules.order_for_groups import ordered_for_groups
from batuta_sql.plan.site import BEYOND_ALL_BLOCKS, Capabilities, TableInfo
from batuta_sql.plan.translate import NotPushable, WireColumn
from batuta_sql.plan.unparse import Refused, Unparser


@dataclass(frozen=True)
class Fragment:
    """One statement for one source.

    :param name: the Exchange's name.
    :param sql: the statement in the source's dialect.
    :param columns: each delivered symbol and how it travels.
    :param tables: the tables that it reads.
    :param rows: rows that it is expected to deliver, from the tables' statistics; None where one
        of them has none.
    :param bytes: what these rows are expected to take on the way; None as for ``rows``.
    :param seconds: from the statement to its last row, by the source's profile; None where it has
        none. Of what is not in the profile, reading the tables, nothing is in it.
    :param patience: seconds after which joining and grouping at the source has taken far longer
        than bringing the rows here would; None where there is nothing else to do.
    :param ranged: the statement for a range of the table's blocks, ``LOW`` and ``HIGH`` in place
        of its ends; None where it does not read one large table row by row.
    :param files: the only files of the table that are read; empty: all.
    """

    name: str
    source: str
    sql: str
    columns: tuple[tuple[str, WireColumn], ...]
    tables: tuple[TableInfo, ...]
    rows: float | None = None
    bytes: float | None = None
    seconds: float | None = None
    patience: float | None = None
    ranged: str | None = None
    files: tuple[str, ...] = ()

    def parts(self, degree: int) -> tuple[str, ...]:
        """Statements that give the rows together, each row once, read in one state; at most
        ``degree``, and none where it is one.
        """
        is_long = self.rows is not None and self.rows >= PARALLEL_ROWS
        begins = self.begins(degree) if self.ranged is not None and is_long else [0]
        if len(begins) < 2:
            return ()
        # The table may have grown: the last range has no end.
        ends = [*begins[1:], None]
        return tuple(self.range(low, high) for low, high in zip(begins, ends, strict=True))

    def begins(self, degree: int) -> list[int]:
        """The blocks with which ``degree`` ranges of about as many rows begin; fewer in a table
        that has fewer blocks.
        """
        (blocks,) = [t.blocks for t in self.tables] if len(self.tables) == 1 else [()]
        degree = min(degree, max(blocks, default=1))
        return [_end_of_share(blocks, i / degree) for i in range(degree)]

    def range(self, low: int, high: int | None) -> str:
        """The statement for the rows from one block on and before another; None: to the end."""
        assert self.ranged is not None
        end = BEYOND_ALL_BLOCKS if high is None else high
        return self.ranged.replace(LOW, str(low)).replace(HIGH, str(end))


def _end_of_share(blocks: Sequence[int], share: float) -> int:
    """The block before which a share of the blocks of all files lies.

    A test on blocks means the block of that number in each of the files, long and short.
    """
    wanted, before = sum(blocks) * share, 0
    rising = sorted(blocks)
    for shorter, size in enumerate(rising):
        files = len(rising) - shorter
        if wanted <= (size - before) * files:
            return before + round(wanted / files)
        wanted -= (size - before) * files
        before = size
    return before


LOW, HIGH = "<low block>", "<high block>"


Rendered = tuple[exp.Query, tuple[tuple[str, WireColumn], ...]]
"""A statement of a source, and how its columns travel."""


def is_row_wise(node: Relation) -> bool:
    """Whether ``node`` does nothing but read rows, choose some and compute their values."""
    while isinstance(node, Project | Filter):
        node = node.input
    return isinstance(node, Scan)


def statement(
    node: Relation, capabilities: Capabilities, refused: Refused | None = None
) -> Rendered:
    """``node`` as one statement of a source, and how its columns travel.

    :param refused: what the source is known not to do.
    :raises NotPushable: naming what the source is not proved to do.
    """
    if capabilities.groups_in_order:
        node = ordered_for_groups(node)
    unparser = Unparser(capabilities.translator, capabilities, refused=refused)
    return unparser.remote_statement(node)


def _exchanged(node: Exchange, capabilities: Capabilities) -> Fragment:
    """The statement of an Exchange."""
    query, columns = statement(node.input, capabilities)
    return fragment(node, query, columns, capabilities)


def fragment(
    node: Exchange,
    query: exp.Query,
    columns: tuple[tuple[str, WireColumn], ...],
    capabilities: Capabilities,
    rates: Rates | None = None,
) -> Fragment:
    """What an Exchange sends.

    :param query: the statement; it is used up.
    :param rates: of the source, where it was measured.
    """
    tables = tuple(n.table for n in node.walk() if isinstance(n, Scan))
    known = all(t.statistics.rows is not None for t in tables)
    cardinality = Cardinality()
    rows = cardinality.rows(node.input) if known else None
    symbols = [s for s, _ in columns]
    size = rows * _row_bytes(node.input, columns) if rows is not None else None
    seconds = patience = None
    if known and not is_row_wise(node.input) and capabilities.dialect != "duckdb":
        patience = moving_seconds(node.input, rates or ASSUMED, cardinality)
    if rows is not None and rates is not None:
        seconds = SecondsOf(rates, cardinality).pushed(node.input, frozenset(symbols))
    ranged = _ranged(node.input, query, capabilities)
    # Nobody needs the tree any more.
    text = query.sql(dialect=capabilities.dialect, copy=False)
    return Fragment(
        node.name, node.site, text, columns, tables, rows, size, seconds, patience, ranged
    )


def _row_bytes(node: Relation, columns: Sequence[tuple[str, WireColumn]]) -> float:
    known = [FIELD_BYTES + w.width for _, w in columns if w.width is not None]
    return sum(known) + row_bytes(node, [s for s, w in columns if w.width is None])


def _ranged(node: Relation, query: exp.Query, capabilities: Capabilities) -> str | None:
    """The statement for a range of blocks, of a scan of one large table."""
    if capabilities.block_range is None or not scans_large_table(node):
        return None
    source = query.args.get("from_")
    if not isinstance(query, exp.Select) or source is None:
        return None
    if not isinstance(source.this, exp.Table) or LOW in (text := query.sql()) or HIGH in text:
        return None
    alias = exp.to_identifier(source.this.alias_or_name, quoted=True).sql(capabilities.dialect)
    test = capabilities.block_range.format(table=alias, low=LOW, high=HIGH)
    return query.where(test, dialect=capabilities.dialect).sql(dialect=capabilities.dialect)


def scan_fragment(
    node: Scan,
    tests: Sequence[tuple[str, type[Expr], Expr]],
    name: str,
    capabilities: Capabilities,
) -> Fragment:
    """The statement that reads a table's columns alone: what the fallback scan sends.

    :param tests: column name, comparison and constant of the rows that are needed; those that the
        source is not proved to make are left out.
    """
    symbols = {c.name: s for s, c in node.columns}
    whole: Relation = node
    for column_name, comparison, constant in tests:
        test = comparison(this=column(symbols[column_name]), expression=constant)
        narrower = filtered(whole, [test])
        try:
            statement(narrower, capabilities)
        except NotPushable:
            continue
        whole = narrower
    return _exchanged(Exchange(whole, node.table.source, name), capabilities)
