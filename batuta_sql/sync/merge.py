"""Rows that are new or changed since the last copy, put into it by their key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa

from batuta_sql.engines.duckdb import ISOLATION, quote
from batuta_sql.errors import DataError, ProgrammingError
from batuta_sql.sync.checkpoint import SplitRecord
from batuta_sql.sync.staging import Written, write_split

_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Merge:
    """What becomes of a copy.

    :param splits: of the copy as it will be.
    :param obsolete: files of the copy as it was that are none of it any more.
    :param tables: files of rows and keys with which a table is changed, where the target is one.
    :param changed: rows that are new or not what they were.
    :param gone: rows that the source has no more.
    """

    splits: tuple[SplitRecord, ...]
    obsolete: tuple[str, ...]
    changed: int
    gone: int
    tables: tuple[str, ...] = ()


class Merger:
    """Works out a merge over Parquet files; nothing that is published is touched.

    :param schema: of the files, with labels.
    :param key: the columns that say which row is which.
    :param arrived: a file with the rows that may be new.
    :param keys: a file with the keys of all rows that the source has; None: nothing is gone.
    """

    def __init__(
        self, schema: pa.Schema, key: Sequence[str], arrived: Path, keys: Path | None
    ) -> None:
        self._schema = schema
        self._key = tuple(key)
        self._arrived = arrived
        self.keys = keys

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
            merge = _Open(database, self._schema, self._key, self.keys is not None)
            merge.check()
            yield merge


class _Open:
    def __init__(
        self,
        database: duckdb.DuckDBPyConnection,
        schema: pa.Schema,
        key: tuple[str, ...],
        finds_gone: bool,
    ) -> None:
        self._database = database
        self._schema = schema
        self._keys = [quote(k) for k in key]
        self._key = ", ".join(self._keys)
        self._columns = ", ".join(map(quote, schema.names))
        self._finds_gone = finds_gone

    def check(self) -> None:
        nulls = " OR ".join(f"{k} IS NULL" for k in self._keys)
        several = f"SELECT {self._key} FROM {{}} GROUP BY ALL HAVING count(*) > 1 OR {nulls}"
        for relation in ("arrived", *(["source"] if self._finds_gone else [])):
            found = self._database.execute(several.format(relation) + " LIMIT 1").fetchall()
            if found:
                shown = ", ".join(map(str, found[0]))
                raise DataError(
                    f"({self._key}) is no key: {shown} is NULL, or of several rows",
                    hint="name the columns that say which row is which with --key",
                )

    def changed(self, path: Path) -> Written:
        """Writes what has arrived and is not in the copy as it is."""
        self._database.execute(
            f"CREATE TABLE changed AS SELECT {self._columns} FROM arrived EXCEPT"
            f" SELECT {self._columns} FROM published SEMI JOIN arrived USING ({self._key})"
        )
        return self._write(path, f"SELECT {self._columns} FROM changed")

    def gone(self) -> int:
        """How many rows of the copy the source has no more."""
        if not self._finds_gone:
            return 0
        return self._count(f"SELECT count(*) FROM published ANTI JOIN source USING ({self._key})")

    def replaced(self) -> int:
        """How many rows of the copy have other values now."""
        return self._count(f"SELECT count(*) FROM published SEMI JOIN changed USING ({self._key})")

    def count(self) -> int:
        """How many rows the copy has."""
        return self._count("SELECT count(*) FROM published")

    def without(self, file: Path, path: Path) -> Written | None:
        """Writes the rows of one file that stay as they are; None where all of them do."""
        kept = f"read_parquet({_text(file)}) ANTI JOIN changed USING ({self._key})"
        if self._finds_gone:
            kept = f"(SELECT {self._columns} FROM {kept}) SEMI JOIN source USING ({self._key})"
        before = self._count(f"SELECT count(*) FROM read_parquet({_text(file)})")
        if self._count(f"SELECT count(*) FROM {kept}") == before:
            return None
        return self._write(path, f"SELECT {self._columns} FROM {kept}")

    def _write(self, path: Path, sql: str) -> Written:
        reader = self._database.sql(sql).to_arrow_reader(_BATCH_ROWS)
        batches = (
            pa.RecordBatch.from_arrays(b.cast(self._schema).columns, schema=self._schema)
            for b in reader
        )
        return write_split(path, self._schema, batches, lambda batch: None)

    def _count(self, sql: str) -> int:
        ((count,),) = self._database.execute(sql).fetchall()
        return int(count)


def merged_files(
    merge: _Open, splits: Sequence[SplitRecord], published: Path, staging: Path, number: int
) -> Merge:
    """The merge of a copy that is a file for each split."""
    path = staging / _name(len(splits), number)
    new = merge.changed(path)
    gone = merge.gone()
    if not new.rows and not gone:
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
        result.append(split)
    result.append(with_file(SplitRecord(len(splits)), path.name, new))
    return Merge(tuple(result), tuple(obsolete), new.rows, gone)


def merged_table(merge: _Open, merger: Merger, staging: Path, number: int) -> Merge:
    """The merge of a copy that is one table: the files with which it is changed."""
    path = staging / _name(0, number)
    new = merge.changed(path)
    gone = merge.gone()
    rows = merge.count() - merge.replaced() - gone + new.rows
    tables = (path.name, *([merger.keys.name] if merger.keys is not None else []))
    split = replace(with_file(SplitRecord(0), path.name, new), rows=rows)
    return Merge((split,), (), new.rows, gone, tables)


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


def _name(split: int, copy: int) -> str:
    return f"part-{split:05}-{copy:04}.parquet"


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
