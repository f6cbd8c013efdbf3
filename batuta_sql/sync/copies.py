"""Which checkpoint belongs to what was copied: a small file in the user's data folder."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import platformdirs

_MOST = 1000


def last_checkpoint(origin: str) -> Path | None:
    """The checkpoint of the last copy of ``origin``; None where none is known."""
    found = _read().get(origin)
    return Path(found) if found is not None else None


def remember(origin: str, checkpoint: Path) -> None:
    """Writes it down. A folder that cannot be written is no reason not to copy."""
    known = _read()
    known.pop(origin, None)
    known[origin] = str(checkpoint.absolute())
    with contextlib.suppress(OSError):
        file = _file()
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f".{file.name}.{os.getpid()}")
        new.write_text(json.dumps(dict(list(known.items())[-_MOST:]), indent=1), "utf-8")
        new.replace(file)


def _file() -> Path:
    return Path(platformdirs.user_data_dir("batuta-sql", appauthor=False)) / "copies.json"


def _read() -> dict[str, str]:
    try:
        found = json.loads(_file().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}
