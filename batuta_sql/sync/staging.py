"""Writes the rows of a split to a Parquet file that is either whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batuta_sql.parquet_types import check_parquet_types

_ROW_GROUP_ROWS = 122_880
"""DuckDB's own: a reader's unit of work."""
_ROW_GROUP_BYTES = 64 << 20


@dataclass(frozen=True)
class Written:
    """A file that is on the disk, whole and under its name."""

    rows: int
    bytes: int
    digest: str


class SplitWriter:
    """Writes a Parquet file (zstd), which has its name once it is whole and on the disk.

    As a context manager: an error in it leaves no file.

    :raises OSError: where there is no room, or no right to write.
    """

    written: Written
    """What was written, after the end."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._held: list[pa.RecordBatch] = []
        self._held_rows = self._held_bytes = 0
        self._rows = 0

    def __enter__(self) -> SplitWriter:
        check_parquet_types(self._schema)
        self._file = self._partial.open("wb")
        try:
            self._sink = _Digested(self._file)
            self._writer = pq.ParquetWriter(self._sink, self._schema, compression="zstd")
        except BaseException:
            self._give_up()
            raise
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        """Takes a batch; row groups are of many."""
        self._rows += batch.num_rows
        self._held.append(batch)
        self._held_rows += batch.num_rows
        self._held_bytes += batch.nbytes
        if self._held_rows >= _ROW_GROUP_ROWS or self._held_bytes >= _ROW_GROUP_BYTES:
            self._write_held()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._give_up()
            return
        try:
            if self._held or not self._rows:
                self._write_held()
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._partial.replace(self._path)
        except BaseException:
            self._give_up()
            raise
        sync_folder(self._path.parent)
        self.written = Written(self._rows, self._sink.size, self._sink.hexdigest())

    def _write_held(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._held, self._schema))
        self._held.clear()
        self._held_rows = self._held_bytes = 0

    def _give_up(self) -> None:
        # What cannot be written to the end is no other error than the one that came first.
        with contextlib.suppress(Exception):
            self._writer.close()
        with contextlib.suppress(OSError):
            self._file.close()
        self._partial.unlink(missing_ok=True)


def write_split(
    path: Path,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    arrived: Callable[[pa.RecordBatch], None],
) -> Written:
    """Writes a Parquet file (zstd) and waits until the disk has it.

    :param arrived: told of each batch before it is written; what it raises ends the writing.
    :raises OSError: where there is no room, or no right to write.
    """
    with SplitWriter(path, schema) as writer:
        for batch in batches:
            arrived(batch)
            writer.write(batch)
    return writer.written


def in_utc(schema: pa.Schema) -> pa.Schema:
    """A schema whose instants are written in UTC, wherever the session is."""
    fields = [f.with_type(_in_utc(f.type)) for f in schema]
    return pa.schema(fields, metadata=schema.metadata)


def _in_utc(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(type_) and type_.tz is not None:
        return pa.timestamp(type_.unit, "UTC")
    if pa.types.is_struct(type_):
        return pa.struct([f.with_type(_in_utc(f.type)) for f in type_])
    if pa.types.is_map(type_):
        return pa.map_(_in_utc(type_.key_type), _in_utc(type_.item_type))
    if pa.types.is_list(type_):
        return pa.list_(type_.value_field.with_type(_in_utc(type_.value_type)))
    return type_


def sync_folder(folder: Path) -> None:
    """Waits until the disk has a folder's names."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Waits until the disk has a file that was written without that, and its name."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    sync_folder(path.parent)


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Digested:
    """A file that is only written onwards, and its digest."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._file.write(view)
        self._hash.update(view)
        self.size += len(view)
        return len(view)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        pass

    def close(self) -> None:
        """The file belongs to whoever opened it."""

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False
