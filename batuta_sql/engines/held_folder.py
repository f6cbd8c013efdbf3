"""Folders that go with their process, or with the next one: what is spilled, what is staged.

A process that is killed leaves its folders, with all that is in them. Each has a file that its
process holds a lock on, and locks end with processes: one that nobody holds is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
import uuid
from pathlib import Path

SPILL = "batuta-spill-"
STAGE = "batuta-stage-"
_HELD = ".held"
_NEW_SECONDS = 60.0
"""A folder that is newer may be about to be locked."""


class HeldFolder:
    """A folder of this process, made and held.

    :param prefix: of its name; folders of the same prefix that nobody holds are removed.
    :param parent: made where it is not there; None: where temporary files are.
    :param private: whether nobody else may look into it.
    """

    def __init__(self, prefix: str, parent: str | None = None, *, private: bool = True) -> None:
        above = Path(parent or tempfile.gettempdir())
        above.mkdir(parents=True, exist_ok=True)
        remove_left(prefix, above)
        self.path = str(above / f"{prefix}{uuid.uuid4().hex}")
        os.mkdir(self.path, 0o700 if private else 0o777)
        self._lock: int | None = os.open(Path(self.path) / _HELD, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """With all that is in it; may be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def remove_left(prefix: str, parent: Path) -> None:
    """Removes the folders of this user's processes that are no more."""
    oldest = time.time() - _NEW_SECONDS
    with contextlib.suppress(OSError), os.scandir(parent) as found:
        for entry in found:
            with contextlib.suppress(OSError):
                if not entry.name.startswith(prefix) or not entry.is_dir(follow_symlinks=False):
                    continue
                told = entry.stat(follow_symlinks=False)
                if told.st_uid == os.getuid() and told.st_mtime < oldest:
                    _remove_unheld(Path(entry.path))


def _remove_unheld(folder: Path) -> None:
    """
    :raises OSError: where somebody holds it.
    """
    lock = os.open(folder / _HELD, os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
