"""The rows that did not fit: a Parquet file for each split that had such, beside the target.

Files become visible in ``rejects`` when the copy that they belong to is published, and those of
earlier copies go then; until that they are in ``rejects.staged``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from batuta_sql.sync.checkpoint import SplitRecord
from batuta_sql.sync.staging import Written, digest_of, sync_folder


class Rejects:
    """
    :param folder: what the copy keeps beside its target.
    """

    def __init__(self, folder: Path) -> None:
        self.published = folder / "rejects"
        self.staged = folder / "rejects.staged"

    def prepare(self) -> None:
        """Makes the folder into which files are written."""
        self.staged.mkdir(parents=True, exist_ok=True)
        sync_folder(self.staged.parent)

    def has(self, split: SplitRecord) -> bool:
        """Whether what a split rejected is still as it was written."""
        if not split.rejects:
            return True
        try:
            return digest_of(self.path(split)) == split.rejects_digest
        except FileNotFoundError:
            return False

    def path(self, split: SplitRecord) -> Path:
        """Where the file of a split is."""
        staged = self.staged / split.rejects
        return staged if staged.exists() else self.published / split.rejects

    def tidy(self, splits: Iterable[SplitRecord]) -> None:
        """Removes what a run that ended has left of splits that are not committed."""
        mine = {s.rejects for s in splits}
        for left in self.staged.iterdir() if self.staged.exists() else ():
            if left.name not in mine:
                left.unlink(missing_ok=True)

    def publish(self, splits: Iterable[SplitRecord]) -> None:
        """Makes the files of these splits visible, and no others; may be repeated."""
        names = {s.rejects for s in splits if s.rejects}
        if names:
            self.published.mkdir(parents=True, exist_ok=True)
            sync_folder(self.published.parent)
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                (self.staged / name).replace(self.published / name)
        if self.published.exists():
            for other in self.published.iterdir():
                if other.name not in names:
                    other.unlink(missing_ok=True)
            sync_folder(self.published)
        for folder in (self.staged, self.published):
            # Only an empty one goes.
            with contextlib.suppress(OSError):
                folder.rmdir()


def with_rejects(split: SplitRecord, name: str, written: Written | None) -> SplitRecord:
    """A split that rejected what was written; None: nothing."""
    if written is None or not written.rows:
        return replace(split, rejects="", rejected=0, rejects_digest="")
    return replace(split, rejects=name, rejected=written.rows, rejects_digest=written.digest)
