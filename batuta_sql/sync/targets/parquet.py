"""A folder of Parquet files, one a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from batuta_sql.sync.checkpoint import SplitRecord
from batuta_sql.sync.merge import Merge, Merger, files_relation, highest, merged_files
from batuta_sql.sync.staging import sync_folder
from batuta_sql.sync.targets.base import Publication, occupied


class ParquetTarget:
    """The first copy appears at once, by the renaming of its folder. A later one replaces file by
    file those whose rows have changed: a reader in between may see some of both.
    """

    keeps_files = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def check_free(self) -> None:
        if self._path.is_dir() and not any(self._path.iterdir()):
            return
        if self._path.exists() or self._path.is_symlink():
            raise occupied(self._path)

    def check_schema(self, schema: pa.Schema) -> None:
        """Parquet has a type for all that a copy has."""

    def has(self, split: SplitRecord) -> bool:
        return is_file_of(self._path / split.file, split)

    def highest(self, splits: Sequence[SplitRecord], column: str) -> tuple[str, str] | None:
        return highest(files_relation(self._path, splits), column)

    def merge(
        self, merger: Merger, splits: Sequence[SplitRecord], staging: Path, number: int
    ) -> Merge:
        with merger.opened(files_relation(self._path, splits)) as opened:
            return merged_files(opened, splits, self._path, staging, number)

    def publish(self, publication: Publication) -> None:
        staging = publication.staging
        if self._path.is_dir() and not any(self._path.iterdir()):
            self._path.rmdir()
        if not self._path.exists():
            staging.rename(self._path)
            sync_folder(self._path.parent)
        move_files(publication, self._path)
        for name in publication.copy.obsolete:
            (self._path / name).unlink(missing_ok=True)
        sync_folder(self._path)


def is_file_of(path: Path, split: SplitRecord) -> bool:
    """Whether a file has the size that a split's file had."""
    try:
        return path.stat().st_size == split.bytes
    except FileNotFoundError:
        return False


def move_files(publication: Publication, folder: Path) -> None:
    """Moves the files of a copy that are still staged to where they are read."""
    for split in publication.splits:
        staged = publication.staging / split.file
        if staged.exists():
            staged.replace(folder / split.file)
    sync_folder(folder)
