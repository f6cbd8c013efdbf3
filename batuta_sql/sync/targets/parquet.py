"""A folder of Parquet files, one a split."""

from __future__ import annotations

import pyarrow as pa

from batuta_sql.sync.staging import sync_folder
from batuta_sql.sync.targets.base import Publication, occupied
from batuta_sql.sync.targets.files import FilesTarget, move_files


class ParquetTarget(FilesTarget):
    """The first copy appears at once, by the renaming of its folder. A later one replaces file by
    file those whose rows have changed: a reader in between may see some of both.
    """

    def check_free(self) -> None:
        if self._path.is_dir() and not any(self._path.iterdir()):
            return
        if self._path.exists() or self._path.is_symlink():
            raise occupied(self._path)

    def check_schema(self, schema: pa.Schema) -> None:
        """Parquet has a type for all that a copy has."""

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
