"""What a copy has done so far, in a SQLite file that outlives a crash at any moment.

A row for each split, written in the transaction that changes its state, and each row with a digest
of its own: a file that was damaged, or edited, is found out. One process at a time holds the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO, Literal
from urllib.parse import quote

from batuta_sql.errors import OperationalError

_FORMAT = 2
_READABLE = (1, 2)
"""Of format 1 nothing is missing but what was forced and rejected: there was none."""
_APPLICATION = 0x42534E43
"""``BSNC``, in the header of the file (https://www.sqlite.org/pragma.html#pragma_application_id)."""

State = Literal["copying", "publishing", "finished"]
SplitState = Literal["planned", "committed"]


class CheckpointError(OperationalError):
    """The checkpoint cannot be used: damaged, of something else, or another process has it."""


@dataclass(frozen=True)
class SplitRecord:
    """One split of a copy.

    :param number: its place among the splits.
    :param low: where it begins, in the terms of its source (a block); None: at the beginning.
    :param high: before what it ends; None: at the end.
    :param file: the name of the file with its rows; empty while it is only planned.
    :param rows: how many there are.
    :param bytes: the size of the file.
    :param digest: the SHA-256 of the file.
    :param version: what the source said of the rows when they were read: where it says the same
        again, they are the same rows. None: it does not tell.
    :param files: the files of its source that it is, where it is files.
    :param rejects: the name of the file with the rows that did not fit; empty: all did.
    :param rejected: how many these are.
    :param rejects_digest: the SHA-256 of that file.
    """

    number: int
    low: int | None = None
    high: int | None = None
    state: SplitState = "planned"
    file: str = ""
    rows: int = 0
    bytes: int = 0
    digest: str = ""
    version: str | None = None
    files: tuple[str, ...] = ()
    rejects: str = ""
    rejected: int = 0
    rejects_digest: str = ""


@dataclass(frozen=True)
class Forced:
    """A column of which an unsafe change was taken.

    :param type: the DuckDB type to which its values are cast; empty: they are taken as they come,
        or the column is gone.
    """

    column: str
    type: str = ""


@dataclass(frozen=True)
class CopyRecord:
    """What is copied, and how far.

    :param origin: the table's name or the query, as the user gave it.
    :param target: the absolute path of the copy.
    :param form: ``parquet``, ``delta``, ``duckdb`` or ``ald``.
    :param number: of this copy: 1 for the first, one more for each that followed.
    :param schema: ``sync.schema.to_json`` of what is being copied.
    :param labels: of its columns and rows, as they are written into its files.
    :param obsolete: files of earlier copies that go when this one is published.
    :param merge: files of rows, and of keys, with which the last copy becomes this one, where its
        target is a table.
    :param key: the columns by which that is done.
    :param published: the number of the last copy that readers could see; 0: none.
    :param forced: the columns whose unsafe changes were taken, in this copy or an earlier one.
    :param withdrawn: a file of the keys of rows that go since they do not fit any more; see
        ``merge``.
    """

    origin: str
    target: str
    form: str
    number: int = 1
    state: State = "copying"
    schema: str = "[]"
    labels: str = ""
    obsolete: tuple[str, ...] = ()
    merge: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    published: int = 0
    forced: tuple[Forced, ...] = ()
    withdrawn: str = ""

    @property
    def casts(self) -> dict[str, str]:
        """The DuckDB types to which the values of some columns are cast."""
        return {f.column: f.type for f in self.forced if f.type}


class Checkpoint:
    """The open file. Everything that is written is on the disk when a method returns.

    :param path: of the file; its folder is made where there is none.
    :raises CheckpointError: where another process has it, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = lock(path)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._database = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=10
        )
        with self._damage():
            (application,) = self._database.execute("PRAGMA application_id").fetchone()
            (tables,) = self._database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if application != _APPLICATION and tables:
                raise CheckpointError(f"{self.path} is a SQLite file of something else")
            self._database.execute("PRAGMA journal_mode = WAL")
            # A commit is on the disk when it returns, whatever becomes of the machine.
            self._database.execute("PRAGMA synchronous = FULL")
            self._format = _FORMAT
            if not tables:
                self._make()
            self.copy, self.splits = self._read()

    def _make(self) -> None:
        with self._transaction():
            self._database.execute(f"PRAGMA application_id = {_APPLICATION}")
            self._database.execute(f"PRAGMA user_version = {_FORMAT}")
            self._database.execute("CREATE TABLE copy (content TEXT NOT NULL, seal TEXT NOT NULL)")
            self._database.execute(
                "CREATE TABLE split (number INTEGER PRIMARY KEY, content TEXT NOT NULL,"
                " seal TEXT NOT NULL)"
            )

    def close(self) -> None:
        if (database := getattr(self, "_database", None)) is not None:
            database.close()
        self._lock.close()

    # --- reading -------------------------------------------------------------------------------

    def _read(self) -> tuple[CopyRecord | None, dict[int, SplitRecord]]:
        (self._format,) = self._database.execute("PRAGMA user_version").fetchone()
        if self._format not in _READABLE:
            raise CheckpointError(
                f"{self.path} is of another version ({self._format}) of Batuta-SQL",
                hint="finish it with that version, or name another --checkpoint",
            )
        if self._database.execute("PRAGMA quick_check").fetchall() != [("ok",)]:
            raise self._damaged("SQLite finds it inconsistent")
        copies = self._database.execute("SELECT content, seal FROM copy").fetchall()
        if not copies:
            return None, {}
        (content, seal) = copies[0]
        splits: dict[int, SplitRecord] = {}
        seals: list[str] = []
        for number, text, own in self._database.execute(
            "SELECT number, content, seal FROM split ORDER BY number"
        ):
            if own != _seal(text):
                raise self._damaged(f"split {number} is not what was written")
            splits[number] = _made(SplitRecord, text)
            seals.append(own)
        if seal != _seal(content):
            raise self._damaged("what it says of the copy is not what was written")
        copy, count = _copy_of(content)
        if count != len(splits) or list(splits) != list(range(count)):
            raise self._damaged("splits are missing")
        return copy, splits

    # --- writing -------------------------------------------------------------------------------

    def begin(self, copy: CopyRecord, splits: Sequence[SplitRecord]) -> None:
        """Writes what is to be done, in place of what was there."""
        with self._transaction():
            self._database.execute("DELETE FROM split")
            for split in splits:
                self._put(split)
            self._put_copy(copy, len(splits))
        self.copy, self.splits = copy, {s.number: s for s in splits}

    def commit(self, split: SplitRecord) -> None:
        """Writes that a split's file is whole and has its name."""
        with self._transaction():
            self._put(split)
        self.splits[split.number] = split

    def go_on(self, state: State, **changes: object) -> None:
        """Writes that the copy is in another state.

        :param changes: of other fields.
        """
        assert self.copy is not None
        copy = replace(self.copy, state=state, **changes)  # type: ignore[arg-type]
        with self._transaction():
            self._put_copy(copy, len(self.splits))
        self.copy = copy

    def _put(self, split: SplitRecord) -> None:
        text = json.dumps(asdict(split), sort_keys=True)
        self._database.execute(
            "INSERT OR REPLACE INTO split VALUES (?, ?, ?)", (split.number, text, _seal(text))
        )

    def _put_copy(self, copy: CopyRecord, splits: int) -> None:
        text = json.dumps(asdict(copy) | {"splits": splits}, sort_keys=True)
        self._database.execute("DELETE FROM copy")
        self._database.execute("INSERT INTO copy VALUES (?, ?)", (text, _seal(text)))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._damage():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                if self._format != _FORMAT:
                    # From here on it has what an earlier version would not understand.
                    self._database.execute(f"PRAGMA user_version = {_FORMAT}")
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
            self._format = _FORMAT

    # --- what is wrong with it -----------------------------------------------------------------

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            # Of the disk or the rights, not of what is in the file.
            raise CheckpointError(f"the checkpoint {self.path}: {error}") from None
        except (sqlite3.DatabaseError, ValueError, TypeError, KeyError) as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"the checkpoint {self.path} is damaged: {why}",
            hint="delete it, and what was copied so far, to copy from the beginning",
        )


def read_copy(path: Path) -> CopyRecord | None:
    """What a checkpoint says of its copy, whoever is at work with it; None: there is nothing yet.

    :raises CheckpointError: where it cannot be read.
    """
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=10)
        ) as database:
            found = database.execute("SELECT content, seal FROM copy").fetchone()
    except sqlite3.DatabaseError as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read: {error}") from None
    if found is None:
        return None
    if _seal(found[0]) != found[1]:
        raise CheckpointError(f"the checkpoint {path} is damaged")
    return _copy_of(found[0])[0]


def _copy_of(text: str) -> tuple[CopyRecord, int]:
    """The copy, and how many splits it has."""
    content = json.loads(text)
    splits = content.pop("splits")
    content["obsolete"] = tuple(content["obsolete"])
    content["merge"] = tuple(content["merge"])
    content["key"] = tuple(content["key"])
    content["forced"] = tuple(Forced(**f) for f in content.get("forced", ()))
    return CopyRecord(**content), splits


_SINCE_FORMAT_2 = {"rejects", "rejected", "rejects_digest"}


def _seal(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _made(kind: type[SplitRecord], text: str) -> SplitRecord:
    content = json.loads(text)
    names = {f.name for f in fields(kind)}
    if not names - _SINCE_FORMAT_2 <= set(content) <= names:
        raise ValueError("a split has other fields")
    content["files"] = tuple(content["files"])
    return kind(**content)


def lock(path: Path) -> IO[str]:
    """A lock on a file, which need not be there; it ends when it is closed, or with the process.

    :raises CheckpointError: where another copy has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    held = path.with_name(path.name + ".lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        held.seek(0)
        holder = held.read().strip() or "unknown"
        held.close()
        raise CheckpointError(
            f"another process (id {holder}) is at work with {path}",
            hint="wait until it has ended",
        ) from None
    held.seek(0)
    held.truncate()
    held.write(str(os.getpid()))
    held.flush()
    return held
