"""What every kind of target does: it makes a finished copy visible, once, whatever happens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from batuta_sql.errors import OperationalError
from batuta_sql.sync.checkpoint import CopyRecord, SplitRecord
from batuta_sql.sync.merge import Merge, Merger


@dataclass(frozen=True)
class Publication:
    """A copy of which all splits are committed.

    :param staging: the folder of the files that are not published yet.
    :param schema: the Arrow schema of the files, with labels.
    :param table: a name for it, where the target has several tables.
    """

    copy: CopyRecord
    splits: Sequence[SplitRecord]
    staging: Path
    schema: pa.Schema
    table: str


class Target(Protocol):
    """Where a copy goes.

    ``publish`` may be called again after a crash at any moment in it, and has then the same effect
    as if it had been called once.
    """

    keeps_files: bool
    """Whether files of an earlier copy stay readable by themselves, so that a split whose rows have
    not changed need not be copied again."""

    def check_free(self) -> None:
        """
        :raises OperationalError: where something else is at the target's place.
        """
        ...

    def check_schema(self, schema: pa.Schema) -> None:
        """
        :raises NotSupportedError: where the format has no type for a column, which is named.
        """
        ...

    def has(self, split: SplitRecord) -> bool:
        """Whether the file of a split that was published is still as it was written; of a target
        that is one file, whether that is there.
        """
        ...

    def highest(self, splits: Sequence[SplitRecord], column: str) -> tuple[str, str] | None:
        """The greatest value of a column in what is published, as DuckDB writes it, and its type;
        None where there is none.

        :raises ProgrammingError: where it has no such column.
        """
        ...

    def merge(
        self, merger: Merger, splits: Sequence[SplitRecord], staging: Path, number: int
    ) -> Merge:
        """What becomes of the published copy; nothing of it is touched.

        :param number: of the copy that will be.
        """
        ...

    def publish(self, publication: Publication) -> None:
        """Makes the copy what readers see, in place of the last one.

        :raises Error: where that cannot be done.
        """
        ...


def occupied(path: Path) -> OperationalError:
    """The error of a target that is there already, and no copy of ours."""
    return OperationalError(
        f"{path} is there already, and its checkpoint knows of no copy there",
        hint="name another place, or remove it; nothing that is there is ever written over",
    )
