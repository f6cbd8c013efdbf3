"""The fallback scan: a source's table as DuckDB's own scan of a pyarrow dataset.

Apart from the engine because ``pyarrow.dataset`` takes as long to import as all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds


class RemoteDataset(ds.Dataset):  # type: ignore[misc]
    """A table of a source as DuckDB's fallback scan sees it: asked anew for each use.

    :param schema: all its columns in DuckDB's Arrow types.
    :param scan: reads the named columns, giving a stream.
    """

    def __init__(
        self, schema: pa.Schema, scan: Callable[[Sequence[str]], pa.RecordBatchReader]
    ) -> None:
        self._columns = schema
        self._scan = scan

    @property
    def schema(self) -> pa.Schema:
        return self._columns

    def scanner(
        self,
        columns: Sequence[str] | None = None,
        filter: Any = None,  # noqa: A002 - DuckDB passes it by this name
        **_: Any,
    ) -> ds.Scanner:
        """A scan of the needed columns; DuckDB's own filter is applied to what arrives."""
        shown = list(columns) if columns is not None else self._columns.names
        needed = shown
        if filter is not None:
            mentioned = str(filter)
            needed = shown + [n for n in self._columns.names if n not in shown and n in mentioned]
        reader = self._scan(needed or self._columns.names[:1])
        return ds.Scanner.from_batches(reader, columns=shown, filter=filter)
