"""What targets share that are a folder of Parquet files, one a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from batuta_sql.sync.checkpoint import SplitRecord
from batuta_sql.sync.merge import Merge, Merger, files_relation, highest, merged_files
from batuta_sql.sync.staging import sync_folder
from batuta_sql.sync.targets.base import Publication


class FilesTarget:
    """A folder in which each split has a file of its own."""

    keeps_files = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def has(self, split: SplitRecord) -> bool:
        return is_file_of(self._path / split.file, split)

    def highest(self, splits: Sequence[SplitRecord], column: str) -> tuple[str, str] | None:
        return highest(files_relation(self._path, splits), column)

    def merge(
        self, merger: Merger, splits: Sequence[SplitRecord], staging: Path, number: int
    ) -> Merge:
        with merger.opened(files_relation(self._path, splits)) as opened:
            return merged_files(opened, splits, self._path, staging, number)


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
