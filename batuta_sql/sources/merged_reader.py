"""Several readers of one fragment as one: its rows in no order, as they come."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

import pyarrow as pa

from batuta_sql.sources.base import FragmentReader

_END_SECONDS = 5.0

Item: TypeAlias = pa.RecordBatch | BaseException | None
"""A batch, the error that ended a part, or None at the end of one."""


class MergedReader:
    """A running fragment of several parts; see ``FragmentReader``.

    The first part is opened at once, so that a statement that is wrong fails at once; each part
    is then read in a thread of its own, one batch ahead of the consumer.

    :param parts: open the readers of the parts, all of one schema.
    """

    def __init__(self, parts: Sequence[Callable[[], FragmentReader]]) -> None:
        first, *others = parts
        opened = first()
        self.schema: pa.Schema = opened.schema
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._readers: list[FragmentReader] = [opened]
        self._queue: queue.Queue[Item] = queue.Queue(len(parts))
        self._running = len(parts)
        self._threads = [
            threading.Thread(target=self._run, args=(part,), name="batuta-part", daemon=True)
            for part in ((lambda: opened), *others)
        ]
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> MergedReader:
        return self

    def __next__(self) -> pa.RecordBatch:
        while self._running:
            item = self._queue.get()
            if isinstance(item, BaseException):
                self.close()
                raise item
            if item is not None:
                return item
            self._running -= 1
        raise StopIteration

    def close(self) -> None:
        """Ends the parts that still run, and waits for them."""
        self._stop.set()
        self._running = 0
        with self._lock:
            readers = list(self._readers)
        for reader in readers:
            reader.close()
        for thread in self._threads:
            thread.join(_END_SECONDS)

    def _run(self, part: Callable[[], FragmentReader]) -> None:
        end: Item = None
        try:
            reader = part()
            with self._lock:
                self._readers.append(reader)
            for batch in reader:
                if not self._put(batch):
                    reader.close()
                    return
        except BaseException as error:
            end = error
        self._put(end)

    def _put(self, item: Item) -> bool:
        """False where nobody reads any more."""
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
