"""One ``.ald`` file, its labels permanent tags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batuta_sql.sources.ald_format import write_ald
from batuta_sql.sync.checkpoint import SplitRecord
from batuta_sql.sync.merge import Merge, Merger
from batuta_sql.sync.staging import sync_file
from batuta_sql.sync.targets.base import Publication, occupied


class AldTarget:
    """The file appears whole, by its renaming. All rows are in memory once, as the format asks."""

    keeps_files = False

    def __init__(self, path: Path) -> None:
        self._path = path

    def check_free(self) -> None:
        if self._path.exists() or self._path.is_symlink():
            raise occupied(self._path)

    def check_schema(self, schema: pa.Schema) -> None:
        """The format holds what Arrow holds."""

    def has(self, split: SplitRecord) -> bool:
        return self._path.exists()

    def highest(self, splits: Sequence[SplitRecord], column: str) -> tuple[str, str] | None:
        raise NotImplementedError("written whole")

    def merge(
        self, merger: Merger, splits: Sequence[SplitRecord], staging: Path, number: int
    ) -> Merge:
        raise NotImplementedError("written whole")

    def publish(self, publication: Publication) -> None:
        staged = [publication.staging / s.file for s in publication.splits]
        if all(p.exists() for p in staged):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            table = pa.concat_tables([pq.read_table(p) for p in staged])
            table = table.cast(publication.schema)
            write_ald(self._path, table, name=publication.table)
            sync_file(self._path)
        # Else a crash came after the file was written and while these were removed.
        for path in staged:
            path.unlink(missing_ok=True)
