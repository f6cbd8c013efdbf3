"""The file of measured rates: what ``tune`` writes and the planner reads.

JSON: ``{"version": 1, "rates": [{"source", "place", "measured", "latency", ...}, ...]}``. ``place``
is a hash of where the source is, so that two configurations may use one name.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from batuta_sql.plan.rates import Rates


class ProfileWarning(UserWarning):
    """The profile cannot be read: plans are made as if nothing had been measured."""


class Measured(BaseModel):
    """The rates of one source; see ``Rates`` for their units."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    source: str
    place: str
    measured: datetime
    latency: float = Field(gt=0)
    bytes_per_second: float = Field(gt=0)
    values_per_second: float = Field(gt=0)
    grouped_per_second: float = Field(gt=0)
    grouped_here_per_second: float = Field(gt=0)
    degree: int | None = Field(default=None, ge=1)
    parallel: float = Field(default=1.0, ge=1)

    @classmethod
    def of(cls, source: str, place: str, measured: datetime, rates: Rates) -> Measured:
        return cls(source=source, place=place, measured=measured, **asdict(rates))

    @property
    def rates(self) -> Rates:
        return Rates(
            self.latency,
            self.bytes_per_second,
            self.values_per_second,
            self.grouped_per_second,
            self.grouped_here_per_second,
            self.degree,
            self.parallel,
        )


class _File(BaseModel):
    version: Literal[1] = 1
    rates: tuple[Measured, ...] = ()


def default_file() -> Path:
    """``profile.json`` in the user's data folder."""
    return Path(platformdirs.user_data_dir("batuta-sql", appauthor=False)) / "profile.json"


def read(file: Path) -> dict[tuple[str, str], Measured]:
    """What was measured, by source and place; nothing where there is no file.

    A file that cannot be read is a ``ProfileWarning``.
    """
    try:
        content = _File.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        warnings.warn(f"{file}: {reason}; run batuta-sql tune", ProfileWarning, stacklevel=2)
        return {}
    return {(m.source, m.place): m for m in content.rates}


def write(file: Path, measured: Mapping[tuple[str, str], Measured]) -> None:
    """Adds to the file, or replaces, what was measured.

    :raises OSError: where it cannot be written.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProfileWarning)
        everything = {**read(file), **measured}
    file.parent.mkdir(parents=True, exist_ok=True)
    text = _File(rates=tuple(everything.values())).model_dump_json(indent=1)
    handle, partial = tempfile.mkstemp(dir=file.parent, prefix=file.name)
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text + "\n")
        # Whole or not at all: another process may be reading it.
        Path(partial).replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(partial).unlink()
        raise
