"""Results of fragments that are kept, for fragments that come again.

A result is used again where that is the same as asking again: the statement and all versions of
the tables that it reads are the same. Of a source without versions it is kept only where the
configuration says how old an answer may be (``result_ttl``); how old it is, is told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
from cachetools import LRUCache

from batuta_sql.plan.fragments import Fragment
from batuta_sql.sources.base import FragmentQuery, FragmentReader, Metered, Snapshot, Usage

_LARGEST_PART = 4
"""A result larger than this part of the whole would leave room for few others."""

Key = tuple[object, ...]


@dataclass(frozen=True)
class Kept:
    """What a source delivered, as it came.

    :param moment: when it was asked, on the monotonic clock.
    """

    schema: pa.Schema
    batches: tuple[pa.RecordBatch, ...]
    moment: float

    @property
    def bytes(self) -> int:
        return sum(b.nbytes for b in self.batches)

    @property
    def age(self) -> float:
        """Seconds since it was asked."""
        return time.monotonic() - self.moment


class ResultCache:
    """The results used last, up to a number of bytes; may be shared between threads.

    :param most: bytes of all results together; 0 keeps nothing.
    :param ttl: by source, for how many seconds an answer without a version is believed.
    """

    def __init__(self, most: int, ttl: Mapping[str, float | None]) -> None:
        self._most = most
        self._ttl = ttl
        self._lock = threading.Lock()
        self._kept: LRUCache[Key, Kept] = LRUCache(most, getsizeof=lambda k: k.bytes + 1)

    @property
    def largest(self) -> int:
        """Bytes up to which one result is kept."""
        return self._most // _LARGEST_PART

    def get(self, fragment: Fragment) -> Kept | None:
        """What is known of a fragment, and is not too old."""
        key = self._key(fragment)
        if key is None:
            return None
        with self._lock:
            found = self._kept.get(key)
        ttl = None if _is_versioned(fragment) else self._ttl.get(fragment.source) or 0.0
        return found if found is not None and (ttl is None or found.age <= ttl) else None

    def keeping(self, fragment: Fragment, snapshot: Snapshot) -> Snapshot:
        """``snapshot``, whose answer to this fragment is kept when it is whole."""
        key = self._key(fragment)
        if key is None:
            return snapshot

        def keep(found: Kept) -> None:
            with self._lock:
                self._kept[key] = found

        return _KeepingSnapshot(snapshot, keep, self.largest)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()

    def _key(self, fragment: Fragment) -> Key | None:
        """What makes two fragments ask the same; None where the answer may not be kept."""
        if not self._most or not fragment.tables or fragment.files:
            return None
        if not _is_versioned(fragment) and not self._ttl.get(fragment.source):
            return None
        tables = tuple((t.path, t.content) for t in fragment.tables)
        return (fragment.source, fragment.sql, tables)


def _is_versioned(fragment: Fragment) -> bool:
    return all(t.content is not None for t in fragment.tables)


class KeptSnapshot:
    """Gives a result that was kept; nothing is asked of its source."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def read(self, query: FragmentQuery) -> FragmentReader:
        reader: FragmentReader = pa.RecordBatchReader.from_batches(
            self._kept.schema, self._kept.batches
        )
        return reader

    def cancel(self) -> None: ...

    def close(self) -> None: ...


class _KeepingSnapshot:
    def __init__(self, snapshot: Snapshot, keep: Callable[[Kept], None], largest: int) -> None:
        self._snapshot = snapshot
        self._keep = keep
        self._largest = largest

    def read(self, query: FragmentQuery) -> FragmentReader:
        moment = time.monotonic()
        return _KeepingReader(self._snapshot.read(query), self._keep, self._largest, moment)

    def cancel(self) -> None:
        self._snapshot.cancel()

    def close(self) -> None:
        self._snapshot.close()


class _KeepingReader:
    """Passes batches on and holds them, until they are too many."""

    def __init__(
        self, reader: FragmentReader, keep: Callable[[Kept], None], largest: int, moment: float
    ) -> None:
        self._reader = reader
        self._keep = keep
        self._room = largest
        self._moment = moment
        self._held: list[pa.RecordBatch] | None = []

    @property
    def schema(self) -> pa.Schema:
        return self._reader.schema

    def __iter__(self) -> FragmentReader:
        return self

    def __next__(self) -> pa.RecordBatch:
        try:
            batch = next(self._reader)
        except StopIteration:
            # The end of iteration means that every row arrived.
            if self._held is not None:
                self._keep(Kept(self.schema, tuple(self._held), self._moment))
                self._held = None
            raise
        if self._held is not None:
            self._room -= batch.nbytes
            if self._room < 0:
                self._held = None
            else:
                self._held.append(batch)
        return batch

    def usage(self) -> Usage | None:
        return self._reader.usage() if isinstance(self._reader, Metered) else None

    def close(self) -> None:
        self._held = None
        self._reader.close()
