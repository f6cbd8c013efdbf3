"""Where rows lie between the sources and another engine: Parquet files in a folder that both see,
or in an object store.

In a folder, what a killed process left is removed by the next one. In an object store nothing tells
whether a process lives: there a lifecycle rule of the bucket is for it.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from batuta_sql.engines.held_folder import STAGE, HeldFolder
from batuta_sql.errors import Error, OperationalError, QueryCancelled
from batuta_sql.exchange.fetch import Stop
from batuta_sql.secrets import Secret, redact
from batuta_sql.sources.object_store import ObjectStore, is_url

_GROUP_BYTES = 64 << 20
"""Of a row group, in memory."""

_GROUP_ROWS = 1 << 20
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 60.0
_PART_BYTES = 16 << 20
"""Of one upload of an object in parts; a store takes 10,000 of them."""


class StagedFolder(Protocol):
    """One query's files."""

    def place(self, name: str) -> str:
        """The path or URL that the engine reads."""
        ...

    def open(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]: ...

    def dataset(self, name: str) -> ds.Dataset:
        """A file, read here."""
        ...

    def remove(self) -> None:
        """All of it; may be called twice."""
        ...


class Stage:
    """Where an engine finds what is staged for it.

    :param place: a folder, or the URL of one in an object store.
    :param options: of the object store, as ``storage_options`` of a source.
    :param encryption: ``AES256``, ``aws:kms``: what the store encrypts with; None: its own default.
    :param kms_key: the store's key, for ``aws:kms``.
    """

    def __init__(
        self,
        owner: str,
        place: str,
        options: Mapping[str, Secret],
        encryption: str | None = None,
        kms_key: str | None = None,
    ) -> None:
        self._owner = owner
        self._place = place.rstrip("/") or "/"
        self._options = options
        self._extra = {
            k: v
            for k, v in {"ServerSideEncryption": encryption, "SSEKMSKeyId": kms_key}.items()
            if v is not None
        }
        self._store = ObjectStore(owner, options, _CONNECT_SECONDS, _READ_SECONDS, self._secrets)

    @property
    def is_remote(self) -> bool:
        return is_url(self._place)

    def _secrets(self) -> list[str]:
        return [s.reveal() for s in self._options.values()]

    def folder(self) -> StagedFolder:
        """A new one.

        :raises OperationalError: where it cannot be made.
        """
        with self.told():
            if not self.is_remote:
                return _LocalFolder(self._place)
            url = f"{self._place}/{STAGE}{uuid.uuid4().hex}"
            return _ObjectFolder(url, self._store.system(url), self._extra)

    def check(self) -> None:
        """
        :raises OperationalError: where nothing can be written.
        """
        folder = self.folder()
        try:
            with self.told(), folder.open("check") as file:
                file.write(b"x")
        finally:
            folder.remove()

    @contextmanager
    def told(self) -> Iterator[None]:
        """Errors in the words of this project."""
        try:
            yield
        except Error:
            raise
        except Exception as error:
            words = redact(" ".join(str(error).split()) or type(error).__name__, self._secrets())
            raise OperationalError(
                f"what is to be joined cannot be staged: {words}",
                source=self._owner,
                hint="engine.stage is a place that the engine reads too",
            ) from None


class _LocalFolder:
    def __init__(self, parent: str) -> None:
        self._held = HeldFolder(STAGE, parent, private=False)

    def place(self, name: str) -> str:
        return str(Path(self._held.path) / f"{name}.parquet")

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        with Path(self.place(name)).open("wb") as file:
            yield file

    def dataset(self, name: str) -> ds.Dataset:
        return ds.dataset(self.place(name), format="parquet")

    def remove(self) -> None:
        self._held.remove()


class _ObjectFolder:
    def __init__(self, url: str, system: Any, extra: Mapping[str, str]) -> None:
        self._url = url
        self._system = system
        self._extra = extra
        self._lock = threading.Lock()
        self._written: set[str] = set()

    def place(self, name: str) -> str:
        return f"{self._url}/{name}.parquet"

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        url = self.place(name)
        with self._lock:
            self._written.add(url)
        file = self._system.open(url, "wb", block_size=_PART_BYTES, **self._extra)
        try:
            yield cast("BinaryIO", file)
        except BaseException:
            # Closing would make an object of the half that was written.
            with contextlib.suppress(Exception):
                file.discard()
            file.closed = True
            raise
        file.close()

    def dataset(self, name: str) -> ds.Dataset:
        path = self.place(name).partition("://")[2]
        return ds.dataset(path, format="parquet", filesystem=self._system)

    def remove(self) -> None:
        with self._lock:
            urls, self._written = list(self._written), set()
        for url in urls:
            with contextlib.suppress(Exception):
                self._system.rm_file(url)


def write_parquet(
    file: BinaryIO, schema: pa.Schema, batches: Iterator[pa.RecordBatch], stop: Stop
) -> int:
    """Writes rows as Parquet, and gives the file's bytes.

    :raises QueryCancelled: where the query is stopped; a part of its rows must never be joined.
    """
    held: list[pa.RecordBatch] = []
    rows = bytes_ = 0
    # NaN would be left out of them, and so be left out by readers that go by them.
    told = [f.name for f in schema if not pa.types.is_floating(f.type)]
    with pq.ParquetWriter(
        file, schema, compression="zstd", compression_level=1, write_statistics=told
    ) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_batches(held, schema))
            held.clear()

        for batch in batches:
            if stop:
                raise stop.error or QueryCancelled("the query was cancelled")
            held.append(batch)
            rows, bytes_ = rows + batch.num_rows, bytes_ + batch.nbytes
            if rows >= _GROUP_ROWS or bytes_ >= _GROUP_BYTES:
                flush()
                rows = bytes_ = 0
        if held:
            flush()
        if stop:
            raise stop.error or QueryCancelled("the query was cancelled")
    return file.tell()
