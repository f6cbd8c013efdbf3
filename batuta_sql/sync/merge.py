"""Rows that are new or changed since the last copy, put into it by their key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from batuta_sql.engines.duckdb import ISOLATION, quote
from batuta_sql.errors import DataError, ProgrammingError
from batuta_sql.sync.checkpoint import SplitRecord
from batuta_sql.sync.rejects import Rejects, with_rejects
from batuta_sql.sync.staging import Written, write_split

_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Merge:
    """What becomes of a copy.

    :param splits: of the copy as it will be.
    :param obsolete: files of the copy as it was that are none of it any more.
    :param tables: files of rows and keys with which a table is changed, where the target is one.
    :param changed: rows that are new or not what they were, those that do not fit included.
    :param gone: rows that the source has no more, likewise.
    :param withdrawn: a file of the keys of rows that go since they do not fit any more, where the
        target is a table.
    """

    splits: tuple[SplitRecord, ...]
    obsolete: tuple[str, ...]
    changed: int
    gone: int
    tables: tuple[str, ...] = ()
    withdrawn: str = ""


@dataclass(frozen=True)
class Rejected:
    """What a merge knows of rows that do not fit.

    :param arrived: a file with those of this run.
    :param published: the files with those of the copy.
    :param folders: where these files are.
    """

    arrived: Path
    published: tuple[Path, ...]
    folders: Rejects


class Merger:
    """Works out a merge over Parquet files; nothing that is published is touched.

    :param schema: of the files, with labels.
    :param key: the columns that say which row is which.
    :param arrived: a file with the rows that may be new.
    :param keys: a file with the keys of all rows that the source has; None: nothing is gone.
    :param rejected: None: all rows fit.
    """

    def __init__(
        self,
        schema: pa.Schema,
        key: Sequence[str],
        arrived: Path,
        keys: Path | None,
        rejected: Rejected | None = None,
    ) -> None:
        self._schema = schema
        self._key = tuple(key)
        self._arrived = arrived
        self.keys = keys
        self._rejected = rejected

    @contextmanager
    def opened(self, published: str, attach: Path | None = None) -> Iterator[_Open]:
        """The merge over what is published.

        :param published: the relation in DuckDB's words.
        :param attach: a DuckDB file that it lies in, called ``copy``.
        :raises DataError: where the key is none: NULL, or of several rows.
        """
        with duckdb.connect(":memory:", config=dict(ISOLATION)) as database:
            if attach is not None:
                database.execute(f"ATTACH {_text(attach)} AS copy (READ_ONLY)")
            database.execute(f"CREATE VIEW arrived AS FROM read_parquet({_text(self._arrived)})")
            database.execute(f"CREATE VIEW published AS FROM {published}")
            if self.keys is not None:
                database.execute(f"CREATE TABLE source AS FROM read_parquet({_text(self.keys)})")
            if self._rejected is not None:
                _view_rejected(database, self._rejected)
            merge = _Open(database, self._schema, self._key, self.keys is not None, self._rejected)
            merge.check()
            yield merge


def _view_rejected(database: duckdb.DuckDBPyConnection, rejected: Rejected) -> None:
    files = [_text(p) for p in rejected.published]
    published = f"read_parquet([{', '.join(files)}])" if files else "(FROM misfits LIMIT 0)"
    database.execute(f"CREATE VIEW misfits AS FROM read_parquet({_text(rejected.arrived)})")
    database.execute(f"CREATE VIEW published_misfits AS FROM {published}")


class _Open:
    """
    ``arrived`` and ``misfits`` are the rows of this run that fit and that do not; ``published`` and
    ``published_misfits`` those of the copy; ``source`` has the keys of all rows.
    """

    def __init__(
        self,
        database: duckdb.DuckDBPyConnection,
        schema: pa.Schema,
        key: tuple[str, ...],
        finds_gone: bool,
        rejected: Rejected | None,
    ) -> None:
        self._database = database
        self._schema = schema
        self._keys = [quote(k) for k in key]
        self._key = ", ".join(self._keys)
        self._columns = ", ".join(map(quote, schema.names))
        self._finds_gone = finds_gone
        self.rejected = rejected
        if rejected is not None:
            self._misfit_schema = pq.read_schema(rejected.arrived)
            self._misfit_columns = ", ".join(map(quote, self._misfit_schema.names))
        self.key_schema = pa.schema([schema.field(k) for k in key])

    def check(self) -> None:
        nulls = " OR ".join(f"{k} IS NULL" for k in self._keys)
        several = f"SELECT {self._key} FROM {{}} GROUP BY ALL HAVING count(*) > 1 OR {nulls}"
        arrived = "arrived"
        if self.rejected is not None:
            arrived = f"(SELECT {self._key} FROM arrived UNION ALL SELECT {self._key} FROM misfits)"
        for relation in (arrived, *(["source"] if self._finds_gone else [])):
            found = self._database.execute(several.format(relation) + " LIMIT 1").fetchall()
            if found:
                shown = ", ".join(map(str, found[0]))
                raise DataError(
                    f"({self._key}) is no key: {shown} is NULL, or of several rows",
                    hint="name the columns that say which row is which with --key",
                )

    def changed(self, path: Path) -> Written:
        """Writes what has arrived and is not in the copy as it is; begins the merge."""
        self._database.execute(
            f"CREATE TABLE changed AS SELECT {self._columns} FROM arrived EXCEPT"
            f" SELECT {self._columns} FROM published SEMI JOIN arrived USING ({self._key})"
        )
        if self.rejected is None:
            self._database.execute(
                f"CREATE TABLE withdrawn AS SELECT {self._key} FROM changed LIMIT 0"
            )
        else:
            columns = self._misfit_columns
            self._database.execute(
                f"CREATE TABLE withdrawn AS SELECT {columns} FROM misfits EXCEPT"
                f" SELECT {columns} FROM published_misfits"
            )
        self._database.execute(
            f"CREATE VIEW replaced AS SELECT {self._key} FROM changed"
            f" UNION ALL SELECT {self._key} FROM withdrawn"
        )
        return self._write(path, f"SELECT {self._columns} FROM changed")

    def withdrawn(self) -> int:
        """How many rows have arrived that do not fit, and are not among the rejects as they are."""
        return self._count("SELECT count(*) FROM withdrawn")

    def gone(self) -> int:
        """How many rows of the copy the source has no more."""
        return self._gone_of("published")

    def gone_misfits(self) -> int:
        """How many rows that did not fit the source has no more."""
        return self._gone_of("published_misfits") if self.rejected is not None else 0

    def _gone_of(self, relation: str) -> int:
        if not self._finds_gone:
            return 0
        return self._count(f"SELECT count(*) FROM {relation} ANTI JOIN source USING ({self._key})")

    def replaced(self) -> int:
        """How many rows of the copy have other values now, or do not fit any more."""
        return self._count(f"SELECT count(*) FROM published SEMI JOIN replaced USING ({self._key})")

    def count(self) -> int:
        """How many rows the copy has."""
        return self._count("SELECT count(*) FROM published")

    def without(self, file: Path, path: Path) -> Written | None:
        """Writes the rows of one file that stay as they are; None where all of them do."""
        return self._without(f"read_parquet({_text(file)})", self._columns, path, self._schema)

    def misfits_without(self, file: Path, path: Path) -> Written | None:
        """The same of a file of rows that did not fit."""
        relation = f"read_parquet({_text(file)})"
        return self._without(relation, self._misfit_columns, path, self._misfit_schema)

    def _without(
        self, relation: str, columns: str, path: Path, schema: pa.Schema
    ) -> Written | None:
        kept = self._kept(relation, columns)
        before = self._count(f"SELECT count(*) FROM {relation}")
        if self._count(f"SELECT count(*) FROM {kept}") == before:
            return None
        return self._write(path, f"SELECT {columns} FROM {kept}", schema)

    def _kept(self, relation: str, columns: str) -> str:
        kept = f"{relation} ANTI JOIN replaced USING ({self._key})"
        if self._finds_gone:
            kept = f"(SELECT {columns} FROM {kept}) SEMI JOIN source USING ({self._key})"
        return kept

    def new_misfits(self, path: Path) -> Written:
        """Writes the rows that have come to be among the rejects."""
        sql = f"SELECT {self._misfit_columns} FROM withdrawn"
        return self._write(path, sql, self._misfit_schema)

    def all_misfits(self, path: Path) -> Written:
        """Writes all rows that do not fit now."""
        columns = self._misfit_columns
        kept = self._kept("published_misfits", columns)
        sql = f"SELECT {columns} FROM {kept} UNION ALL SELECT {columns} FROM withdrawn"
        return self._write(path, sql, self._misfit_schema)

    def withdrawn_keys(self, path: Path) -> Written:
        """Writes the keys of rows that do not fit any more."""
        return self._write(path, f"SELECT {self._key} FROM withdrawn", self.key_schema)

    def _write(self, path: Path, sql: str, schema: pa.Schema | None = None) -> Written:
        wanted = schema if schema is not None else self._schema
        reader = self._database.sql(sql).to_arrow_reader(_BATCH_ROWS)
        batches = (
            pa.RecordBatch.from_arrays(b.cast(wanted).columns, schema=wanted) for b in reader
        )
        return write_split(path, wanted, batches, lambda batch: None)

    def _count(self, sql: str) -> int:
        ((count,),) = self._database.execute(sql).fetchall()
        return int(count)


def merged_files(
    merge: _Open, splits: Sequence[SplitRecord], published: Path, staging: Path, number: int
) -> Merge:
    """The merge of a copy that is a file for each split."""
    path = staging / _name(len(splits), number)
    new = merge.changed(path)
    withdrawn = merge.withdrawn()
    gone = merge.gone() + merge.gone_misfits()
    if not new.rows and not withdrawn and not gone:
        path.unlink()
        return Merge(tuple(splits), (), 0, 0)
    result: list[SplitRecord] = []
    obsolete: list[str] = []
    for split in splits:
        name = _name(split.number, number)
        kept = merge.without(published / split.file, staging / name)
        if kept is not None:
            obsolete.append(split.file)
            split = with_file(split, name, kept)
        result.append(_with_misfits_left(merge, split, name))
    added = with_file(SplitRecord(len(splits)), path.name, new)
    if withdrawn and merge.rejected is not None:
        misfits = merge.new_misfits(merge.rejected.folders.staged / path.name)
        added = with_rejects(added, path.name, misfits)
    result.append(added)
    return Merge(tuple(result), tuple(obsolete), new.rows + withdrawn, gone)


def _with_misfits_left(merge: _Open, split: SplitRecord, name: str) -> SplitRecord:
    """A split without the rejects that fit now, are rejected anew, or gone."""
    if merge.rejected is None or not split.rejects:
        return split
    folders = merge.rejected.folders
    left = merge.misfits_without(folders.path(split), folders.staged / name)
    # What it was read as is no more: without a version it is read again when that matters.
    return replace(with_rejects(split, name, left), version=None) if left is not None else split


def merged_table(merge: _Open, merger: Merger, staging: Path, number: int) -> Merge:
    """The merge of a copy that is one table: the files with which it is changed."""
    path = staging / _name(0, number)
    new = merge.changed(path)
    gone, gone_misfits, withdrawn = merge.gone(), merge.gone_misfits(), merge.withdrawn()
    rows = merge.count() - merge.replaced() - gone + new.rows
    tables = (path.name, *([merger.keys.name] if merger.keys is not None else []))
    split = replace(with_file(SplitRecord(0), path.name, new), rows=rows)
    keys = ""
    if merge.rejected is not None:
        misfits = merge.all_misfits(merge.rejected.folders.staged / path.name)
        split = with_rejects(split, path.name, misfits)
        keys = _WITHDRAWN
        merge.withdrawn_keys(staging / keys)
    return Merge((split,), (), new.rows + withdrawn, gone + gone_misfits, tables, keys)


def files_relation(folder: Path, splits: Sequence[SplitRecord]) -> str:
    """The files of some splits, as DuckDB reads them."""
    return f"read_parquet([{', '.join(_text(folder / s.file) for s in splits)}])"


def highest(published: str, column: str, attach: Path | None = None) -> tuple[str, str] | None:
    """The greatest value of a column, as DuckDB writes it, and its type; None where there is none.

    :raises ProgrammingError: where there is no such column.
    """
    with duckdb.connect(":memory:", config=dict(ISOLATION)) as database:
        database.execute("SET TimeZone = 'UTC'")
        if attach is not None:
            database.execute(f"ATTACH {_text(attach)} AS copy (READ_ONLY)")
        try:
            name = quote(column)
            ((text, type_),) = database.execute(
                f"SELECT CAST(max({name}) AS VARCHAR), typeof(max({name})) FROM {published}"
            ).fetchall()
        except duckdb.BinderException:
            raise ProgrammingError(
                f'the copy has no column "{column}"', hint="name the --watermark column"
            ) from None
    return (text, type_) if text is not None else None


def with_file(split: SplitRecord, name: str, written: Written) -> SplitRecord:
    """A split whose rows are in a file that was written."""
    return replace(
        split,
        state="committed",
        file=name,
        rows=written.rows,
        bytes=written.bytes,
        digest=written.digest,
        version=None,
    )


_WITHDRAWN = "withdrawn.parquet"


def _name(split: int, copy: int) -> str:
    return f"part-{split:05}-{copy:04}.parquet"


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
