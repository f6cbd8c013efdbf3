"""Where the engine spills: a folder that goes with its process, or with the next one.

A process that is killed leaves its folder, with all that it had spilled. Each folder has a file
that its process holds a lock on, and locks end with processes: one that nobody holds is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

PREFIX = "batuta-spill-"
_HELD = ".held"
_NEW_SECONDS = 60.0
"""A folder that is newer may be about to be locked."""


class SpillFolder:
    """A folder of this process, made and held."""

    def __init__(self) -> None:
        remove_left()
        self.path = tempfile.mkdtemp(prefix=PREFIX)
        self._lock: int | None = os.open(Path(self.path) / _HELD, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """With all that is in it; may be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def remove_left() -> None:
    """Removes the folders of this user's processes that are no more."""
    oldest = time.time() - _NEW_SECONDS
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as found:
        for entry in found:
            with contextlib.suppress(OSError):
                if not entry.name.startswith(PREFIX) or not entry.is_dir(follow_symlinks=False):
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
