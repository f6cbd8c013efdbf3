"""What is asked of a copy, how far it is, and what it did."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from batuta_sql.engines.duckdb import quote
from batuta_sql.plan.cost import Estimate
from batuta_sql.sync.drift import Change

Form = Literal["parquet", "delta", "duckdb", "ald"]
OnDrift = Literal["stop", "apply", "skip", "force"]
Outcome = Literal["copied", "unchanged", "planned"]

SPLIT_BYTES = 128 << 20


@dataclass(frozen=True)
class Request:
    """What is to be copied, and how.

    :param origin: a table's name, or a query.
    :param checkpoint: the file that remembers; None: beside the target.
    :param split_bytes: of the table, for each split.
    :param key: the columns that say which row is which; with ``watermark``.
    :param watermark: a column that grows: the next copy reads only rows from its greatest value on.
    :param full_compare: whether it also finds the rows that the source has no more.
    :param changes: with ``force``: the columns whose changes are taken though they are not safe,
        and the DuckDB types to which their values are cast; None: that of the copy.
    :param max_rejects: rows that may not fit; with more, nothing is published. None: any number.
    """

    origin: str
    target: Path
    form: Form
    checkpoint: Path | None = None
    on_drift: OnDrift = "stop"
    dry_run: bool = False
    split_bytes: float = SPLIT_BYTES
    key: tuple[str, ...] = ()
    watermark: str | None = None
    full_compare: bool = False
    changes: Mapping[str, str | None] = field(default_factory=dict)
    max_rejects: int | None = None

    @property
    def place(self) -> Path:
        """The target, whatever the working directory will be."""
        return self.target.expanduser().absolute()

    @property
    def folder(self) -> Path:
        """What a copy keeps beside its target: the checkpoint, and what is not published yet."""
        return self.place.parent / f".{self.place.name}.batuta-sync"

    @property
    def checkpoint_file(self) -> Path:
        return self.checkpoint or self.folder / "checkpoint.sqlite"

    @property
    def table(self) -> str:
        """What the target calls it, where it has several tables."""
        return "result" if is_query(self.origin) else self.origin.rsplit(".", 1)[-1].strip('"')


@dataclass(frozen=True)
class Progress:
    """How far a copy is.

    :param splits: how many there are.
    :param done: how many of them are on the disk, ``kept`` ones included.
    :param kept: that were there before.
    :param rows: that have arrived in this attempt.
    :param bytes: of Arrow memory, likewise.
    :param seconds: since the first was asked for.
    :param again: what the source said when it failed, where this is another attempt.
    :param slowed: the sources that are read less than they could be, and why.
    :param credential: seconds until the first credential of a source ends; None: not known.
    """

    splits: int
    done: int
    kept: int
    rows: int
    bytes: int
    seconds: float
    again: str = ""
    slowed: tuple[str, ...] = ()
    credential: float | None = None


@dataclass(frozen=True)
class SyncResult:
    """What a call did.

    :param outcome: ``planned`` for a dry run.
    :param rows: of the whole copy, as it is now.
    :param bytes: of its files.
    :param splits: how many it has.
    :param copied: how many of them were read in this run.
    :param changes: of the schema since the last copy, that were accepted.
    :param estimate: what a dry run would have taken.
    :param note: what a person should know.
    :param rejected: how many rows are not in the copy, since a value did not fit.
    :param rejects: the folder with these rows and the reasons; None: there are none.
    """

    outcome: Outcome
    target: Path
    rows: int = 0
    bytes: int = 0
    splits: int = 0
    copied: int = 0
    seconds: float = 0.0
    changes: tuple[Change, ...] = ()
    estimate: Estimate | None = None
    note: str = ""
    rejected: int = 0
    rejects: Path | None = None


_SELECT = re.compile(r"\s*(SELECT|WITH|FROM|VALUES|\()\b", re.IGNORECASE)


def is_query(origin: str) -> bool:
    """Whether it is a query rather than a table's name."""
    return _SELECT.match(origin) is not None


def statement_of(origin: str, columns: Sequence[str] = ()) -> str:
    """The query that is copied.

    :param columns: those to take; none: all.
    """
    wanted = ", ".join(map(quote, columns)) or "*"
    if not is_query(origin):
        return f"SELECT {wanted} FROM {origin}"
    text = origin.strip().rstrip(";")
    return f"SELECT {wanted} FROM ({text})" if columns else text
