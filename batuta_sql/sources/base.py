"""The Source protocol: everything the engine asks of a system it reads from.

A source is one file in this package and one entry in ``batuta_sql.sources.registry``. It says
which tables it has, what it can compute with DuckDB's answer (``capabilities``), and reads a
fragment as Arrow. It never plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import pyarrow as pa

from batuta_sql.plan.site import (
    LOCAL,
    Capabilities,
    Collation,
    ColumnInfo,
    ColumnStatistics,
    Statistics,
    TableInfo,
)

__all__ = [
    "LOCAL",
    "Capabilities",
    "ChecksFiles",
    "Collation",
    "ColumnInfo",
    "ColumnStatistics",
    "FragmentQuery",
    "FragmentReader",
    "HasFiles",
    "Metered",
    "Snapshot",
    "Source",
    "SourceEstimate",
    "Statistics",
    "TableInfo",
    "TableName",
    "TellsRows",
    "Usage",
]


@dataclass(frozen=True)
class TableName:
    """A table in a listing: its path inside the source and its kind, nothing more."""

    path: tuple[str, ...]
    kind: str = "table"


@dataclass(frozen=True)
class SourceEstimate:
    """What running a fragment will take, in the source's own opinion. Sources never price: what a
    figure costs is for ``guards.pricing``.

    :param rows: rows that come back.
    :param bytes_scanned: bytes the source will read; None where it cannot tell.
    :param seconds: time at the source; None where it cannot tell.
    :param least_seconds: time at the source that it will hardly do with less of, by its own plan.
    :param confidence: ``exact``, ``estimated`` or ``unknown``: of ``bytes_scanned`` and of what
        else is billed; where no bytes are known, of ``rows``.
    :param basis: what it rests on, for people ("EXPLAIN (FORMAT JSON)", "file statistics").
    :param bytes_delivered: bytes that come back, as Arrow data.
    :param rows_confidence: of ``rows`` and ``bytes_delivered``; None: as ``confidence``.
    :param bytes_billed: where more is billed than is read (BigQuery: at least 10 MB a table).
    :param credits: where the source itself tells them.
    :param dbus: likewise, Databricks units.
    :param warehouse_size: the size of the warehouse that will run it, where the source tells.
    :param resumes: whether a suspended warehouse has to start for it; None: not known.
    """

    rows: float | None = None
    bytes_scanned: float | None = None
    seconds: float | None = None
    confidence: str = "unknown"
    basis: str = ""
    bytes_delivered: float | None = None
    rows_confidence: str | None = None
    bytes_billed: float | None = None
    credits: float | None = None
    dbus: float | None = None
    warehouse_size: str | None = None
    resumes: bool | None = None
    least_seconds: float | None = None


@dataclass(frozen=True)
class Usage:
    """What a source says afterwards that it billed for a fragment; None where it does not say.

    :param bytes: bytes billed.
    :param seconds: of warehouse time.
    """

    bytes: float | None = None
    seconds: float | None = None
    credits: float | None = None
    dbus: float | None = None


@runtime_checkable
class Metered(Protocol):
    """A ``FragmentReader`` that knows, once it has come to its end, what was billed."""

    def usage(self) -> Usage | None: ...


@dataclass(frozen=True)
class FragmentQuery:
    """A statement for a source.

    :param sql: its text, in the source's dialect.
    :param columns: name and DuckDB type (None: not known) of each column of the result.
    :param tables: the tables that it reads.
    :param rows: rows that the planner expects from it, from the tables' statistics.
    :param max_bytes: bytes that it may bill, where its exact estimate was authorised; a source that
        bills by bytes has the remote system hold it to them.
    :param parts: statements that give the same rows together, for several connections at once; a
        source may run ``sql`` instead.
    :param files: the only files of the table that are read, of a source that ``HasFiles``, or the
        only parts of a result, of one that ``KeepsResults``; empty: all.
    """

    sql: str
    columns: tuple[tuple[str, str | None], ...] = ()
    tables: tuple[TableInfo, ...] = ()
    rows: float | None = None
    max_bytes: float | None = None
    parts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


@runtime_checkable
class TellsRows(Protocol):
    """A source that can tell whether the rows of a part of a table are what they were."""

    def rows_version(self, table: TableInfo, low: int, high: int | None) -> str:
        """A statement that gives one text for the rows from block ``low`` on and before ``high``
        (None: to the end). The same text at another time means the same rows, with the same values.
        """
        ...


NO_FILE = ""
"""The name of no file: a fragment of none has no rows."""


@runtime_checkable
class HasFiles(Protocol):
    """A source whose tables are files; a version of a table is a set of them."""

    def files_of_table(self, table: TableInfo) -> Sequence[tuple[str, float]]:
        """Names of what the files of a table hold at its version, and their sizes in bytes, about.

        Another content has another name. Empty where a table cannot be read by its files.
        """
        ...


@runtime_checkable
class ChecksFiles(HasFiles, Protocol):
    """A source whose files may be written over while they are read."""

    def check_files(self, table: TableInfo, names: Sequence[str]) -> None:
        """
        :raises OperationalError: where a file is not any more what it was named for.
        """
        ...


@dataclass(frozen=True)
class ParquetFile:
    """A file of a table.

    :param path: or URL.
    :param constants: of the columns that it need not hold, since they are its partition's: the
        value that all its rows have, as DuckDB writes it; None: NULL.
    """

    path: str
    constants: tuple[tuple[str, str | None], ...] = ()


@runtime_checkable
class TellsParquet(Protocol):
    """A source some of whose tables are plain Parquet files."""

    def parquet_files(self, table: TableInfo, sql: str, most: int) -> Sequence[ParquetFile] | None:
        """The files whose rows together are those that a statement needs of a table.

        Each holds all other columns than its ``constants`` as columns of their own, under their
        names and with their types.

        :param sql: a fragment over the table; files that it cannot need may be left out.
        :param most: files.
        :returns: None where a table is not like that, or there are more.
        :raises Error: where the files cannot be told.
        """
        ...


@runtime_checkable
class KeepsResults(Protocol):
    """A source that keeps the result of a statement for some hours, in parts that never change."""

    @property
    def keeps_results(self) -> bool:
        """Whether it does so in the way that it is reached."""
        ...

    def parts_of_result(self, query: FragmentQuery) -> Sequence[tuple[str, float]]:
        """Runs a statement, and names the parts of its result, with their sizes in bytes, about.

        At least one. A ``FragmentQuery`` whose ``files`` are such names reads these parts, and
        runs nothing.

        :raises Error: in the statement's own words where it failed.
        """
        ...

    def has_result(self, part: str) -> bool:
        """Whether the result that a part is of is still there.

        :raises Error: where that cannot be asked.
        """
        ...


Health = Literal["healthy", "busy", "overloaded"]


@dataclass(frozen=True)
class Load:
    """How a source is.

    :param reason: what says so, in words; empty where it is healthy.
    """

    health: Health = "healthy"
    reason: str = ""


@runtime_checkable
class TellsLoad(Protocol):
    """A source that can tell whether it has more to do than it can."""

    def load(self) -> Load | None:
        """How it is now; None: not known. Asked a few times a second while something is read.

        :raises Error: where it cannot be asked.
        """
        ...


@runtime_checkable
class LogsIn(Protocol):
    """A source that asks for tokens itself."""

    def seconds_left(self) -> float | None:
        """Of the life of its token; None where that is not known."""
        ...


class FragmentReader(Protocol):
    """A running fragment: a schema and an iterator of record batches.

    An error in mid-stream is raised from ``__next__``; the end of iteration means that every row
    arrived. ``close`` ends the remote statement if it still runs and may be called twice.
    """

    @property
    def schema(self) -> pa.Schema: ...

    def __iter__(self) -> FragmentReader: ...

    def __next__(self) -> pa.RecordBatch: ...

    def close(self) -> None: ...


class Snapshot(Protocol):
    """One query's view of one source. All reads see the same data where the source can do that.

    ``read`` may be called from several threads at once. ``cancel`` may come from any thread: it
    ends the remote statements; the readers then raise. ``close`` releases the connections.
    """

    def read(self, query: FragmentQuery) -> FragmentReader: ...

    def cancel(self) -> None: ...

    def close(self) -> None: ...


class Source(Protocol):
    """A system that holds tables."""

    name: str
    kind: str
    remembers_catalog: bool
    """Whether the catalog may believe an answer for its TTL; False where files change unseen."""

    @property
    def query_timeout(self) -> float | None:
        """Seconds after which a fragment counts as failed, silence included; None: never."""
        ...

    @property
    def capabilities(self) -> Capabilities: ...

    def list_tables(self) -> Sequence[TableName]:
        """All tables that the user may see, for SHOW TABLES and completion."""
        ...

    def resolve(self, path: tuple[str, ...]) -> Sequence[TableInfo]:
        """The tables that ``path`` may mean, described fully.

        ``path`` is what the user wrote after the source's name: ``("customer",)`` or
        ``("public", "customer")``. Names match without case; when several differ only in case, one
        that matches exactly wins. Several results mean that the name is ambiguous; none that there
        is no such table. Only the tables that match are looked at.
        """
        ...

    def open(self, readers: int | None = 1) -> Snapshot:
        """A view for one query that will read ``readers`` fragments, perhaps at once.

        None: nobody knows how many, and some may be ended before the others begin. Connecting may
        wait until the first ``read``.
        """
        ...

    def estimate(self, query: FragmentQuery) -> SourceEstimate:
        """What a fragment will take; runs nothing that bills."""
        ...

    def close(self) -> None: ...
