"""What the plan knows of a place where work can be done: its tables and its capabilities.

A site is a configured source, or ``LOCAL``: the residual engine itself. The plan never sees the
source behind it, only these values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from batuta_sql.labels import UNLABELLED, ColumnLabels

if TYPE_CHECKING:
    from batuta_sql.plan.translate import Translator

LOCAL = "local"
"""The name of the residual engine as a site; no source may be called so."""

Collation = Literal["binary", "deterministic", "other"]
"""How the remote system compares text of a column.

``binary``: byte by byte, as DuckDB. ``deterministic``: equal only when byte-equal, but another
order. ``other``: neither (case-blind, nondeterministic).
"""


@dataclass(frozen=True)
class ColumnStatistics:
    """What a source knows of one column, without reading it.

    :param distinct: estimated count of distinct values, NULL excluded.
    :param null_fraction: share of NULLs, 0 to 1.
    :param minimum: smallest value, in the column's DuckDB type, or None.
    :param maximum: largest value, likewise.
    :param width: average bytes of a value.
    :param common: values that many rows have, and the share of the rows that has each.
    :param bounds: values that divide the rows with other values into parts of one size, in order.
    :param correlation: how nearly the rows lie in the order of the column, -1 to 1.
    """

    distinct: float | None = None
    null_fraction: float | None = None
    minimum: object | None = None
    maximum: object | None = None
    width: float | None = None
    correlation: float | None = None
    common: tuple[tuple[object, float], ...] = ()
    bounds: tuple[object, ...] = ()


@dataclass(frozen=True)
class Statistics:
    """What a source knows of one table; ``exact``: ``rows`` is a count, not an estimate."""

    rows: float | None = None
    bytes: float | None = None
    exact: bool = False
    columns: Mapping[str, ColumnStatistics] = field(default_factory=dict)


BEYOND_ALL_BLOCKS = 4_294_967_295
"""PostgreSQL's InvalidBlockNumber: every block's number is less."""

Usual = tuple[tuple[str, float], ...]
"""Texts, and the share of the rows that has each."""


@dataclass(frozen=True)
class ColumnInfo:
    """One column of a remote table.

    :param name: the name as the source spells it.
    :param type: the DuckDB type in which the column is delivered, DuckDB's spelling
        (``DECIMAL(12,2)``, ``INTEGER[]``, ``TIMESTAMP WITH TIME ZONE``).
    :param native: the source's own type, for people.
    :param nullable: False only where the source guarantees it.
    :param collation: how the source compares the column, for text.
    :param value_sql: SQL in the source's dialect that reads the column as ``type``; ``{}`` stands
        for the quoted column. The default reads it as it is.
    :param comparable: whether expressions over the column may be pushed at all. A column that is
        delivered only as a text of itself (a range, a composite) is not.
    :param note: what a person should know ("read as text: no DuckDB type matches").
    :param labels: what the data itself says of the column (file or column metadata).
    :param usual: texts that nearly all of very many rows have, and the share of the rows that has
        each; empty where there is no such thing.
    """

    name: str
    type: str
    native: str = ""
    nullable: bool = True
    collation: Collation = "binary"
    value_sql: str = "{}"
    comparable: bool = True
    note: str | None = None
    labels: ColumnLabels = UNLABELLED
    usual: Usual = ()


@dataclass(frozen=True)
class BaseTable:
    """A table that another one shows rows of.

    :param same_columns: whether columns of the same name are the same (a partition's are).
    """

    path: tuple[str, ...]
    same_columns: bool = False


@dataclass(frozen=True)
class TableInfo:
    """One table, view or file set of a source, as it is now.

    :param source: the source's configured name.
    :param path: the remote identifiers from the outermost inwards, as the source spells them:
        ``("public", "customer")``.
    :param kind: ``table``, ``view``, ``materialized view``, ``partitioned table``, ``files`` ...
    :param columns: in the table's own order.
    :param keys: column sets known to be unique and not null, the primary key first.
    :param version: the pinned version of a versioned table (Delta), or None.
    :param content: what no other content of any table is called: of a versioned table its own
        identity and the version; None where the source does not tell.
    :param labels: what the data itself says of the table's rows as such.
    :param bases: the tables whose rows this one may show: a view's, a partition's parents.
    :param blocks: how many blocks each of its files had, where its rows can be read by ranges of
        blocks: several for a table with partitions. A block's number is one within its file.
    """

    source: str
    path: tuple[str, ...]
    columns: tuple[ColumnInfo, ...]
    kind: str = "table"
    keys: tuple[tuple[str, ...], ...] = ()
    statistics: Statistics = Statistics()
    version: str | None = None
    content: str | None = None
    labels: frozenset[str] = frozenset()
    bases: tuple[BaseTable, ...] = ()
    blocks: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def qualified_parts(self) -> tuple[str, ...]:
        """The source's name and the path: what may stand before a column's name."""
        return (self.source, *self.path)

    @property
    def qualified(self) -> str:
        """The name as a user may write it, dots between the parts."""
        return ".".join((self.source, *self.path))


@dataclass(frozen=True)
class Capabilities:
    """What a site can be asked to run with DuckDB's answer; each entry is backed by a test.

    :param dialect: sqlglot's name of the dialect in which fragments are rendered.
    :param translator: renders expressions, and refuses what is not proved equal.
    :param joins: the join kinds that may be pushed (``INNER LEFT RIGHT FULL CROSS SEMI ANTI``).
    :param set_operations: of ``UNION INTERSECT EXCEPT``, with ``ALL`` after a space.
    :param correlated: whether EXISTS, IN and scalar subqueries may be pushed.
    :param common_tables: whether WITH may be pushed.
    :param windows: whether window functions may be pushed.
    :param checks_scalar: whether a scalar subquery of several rows is an error there, as in DuckDB.
    :param quantified: whether ``= ANY`` and ``> ALL`` of a subquery may be pushed.
    :param joins_need_equality: whether outer, semi- and anti-joins are pushed only where a part of
        their condition (of a FULL JOIN every part) equates something of both sides.
    :param groups_by_columns: whether GROUP BY is written over columns alone, expressions below it.
    :param groups_in_order: whether many groups by what an index begins with are found sooner over
        rows in its order.
    :param block_range: the test, in the source's dialect, that a row of ``{table}`` lies in a block
        from ``{low}`` on and before ``{high}``; None where rows are not known by their blocks.
    :param codes_from: bytes that usual texts (see ``ColumnInfo``) must have on average to travel as
        codes; None: never.
    """

    dialect: str
    translator: Translator
    joins: frozenset[str] = frozenset({"INNER", "LEFT", "RIGHT", "FULL", "CROSS", "SEMI", "ANTI"})
    set_operations: frozenset[str] = frozenset(
        {"UNION", "UNION ALL", "INTERSECT", "INTERSECT ALL", "EXCEPT", "EXCEPT ALL"}
    )
    correlated: bool = True
    common_tables: bool = True
    windows: bool = False
    quantified: bool = True
    checks_scalar: bool = True
    joins_need_equality: bool = False
    groups_by_columns: bool = False
    groups_in_order: bool = False
    block_range: str | None = None
    codes_from: float | None = None
