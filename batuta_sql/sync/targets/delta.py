"""A Delta table: each copy is one commit, with a transaction identifier that is taken once.

The format is that of https://github.com/delta-io/delta/blob/master/PROTOCOL.md; the files that
splits were written to become the table's files as they are.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import deltalake
import pyarrow as pa
from deltalake.exceptions import DeltaError
from deltalake.transaction import (
    AddAction,
    RemoveAction,
    Transaction,
    create_table_with_add_actions,
)

from batuta_sql.errors import NotSupportedError, OperationalError
from batuta_sql.sync.checkpoint import CopyRecord, SplitRecord
from batuta_sql.sync.targets.base import Publication, occupied
from batuta_sql.sync.targets.files import FilesTarget, move_files


class DeltaTarget(FilesTarget):
    """A table in a local folder. A file goes into the folder before the commit that names it."""

    def check_free(self) -> None:
        if self._path.exists() and any(self._path.iterdir()):
            raise occupied(self._path)

    def check_schema(self, schema: pa.Schema) -> None:
        for field in schema:
            try:
                deltalake.Schema.from_arrow(pa.schema([field]))
            except Exception as error:
                raise NotSupportedError(
                    f'Delta has no type for the column "{field.name}" ({field.type}):'
                    f" {str(error).splitlines()[0]}",
                    hint="cast it in a query, or copy to another format",
                ) from None

    def publish(self, publication: Publication) -> None:
        copy = publication.copy
        self._path.mkdir(parents=True, exist_ok=True)
        move_files(publication, self._path)
        schema = deltalake.Schema.from_arrow(publication.schema)
        taken = Transaction(_identifier(copy), copy.number)
        properties = deltalake.CommitProperties(
            custom_metadata={"batuta-sql.copy": str(copy.number)}, app_transactions=[taken]
        )
        try:
            if not deltalake.DeltaTable.is_deltatable(str(self._path)):
                added = [_added(self._path, s) for s in publication.splits]
                create_table_with_add_actions(
                    str(self._path), schema, added, commit_properties=properties
                )
                return
            table = deltalake.DeltaTable(str(self._path))
            if (table.transaction_version(taken.app_id) or 0) >= copy.number:
                return
            self._replace(table, schema, publication, properties)
        except DeltaError as error:
            raise OperationalError(f"the Delta table {self._path}: {error}") from None

    def _replace(
        self,
        table: deltalake.DeltaTable,
        schema: deltalake.Schema,
        publication: Publication,
        properties: deltalake.CommitProperties,
    ) -> None:
        """One commit that leaves out what is obsolete and adds what is new."""
        obsolete = set(publication.copy.obsolete)
        there = {Path(p).name for p in table.file_uris()}
        added: list[AddAction | RemoveAction] = [
            _added(self._path, s) for s in publication.splits if s.file not in there
        ]
        if there <= obsolete:
            table.create_write_transaction(
                added, mode="overwrite", schema=schema, commit_properties=properties
            )
            return
        removed = [_removed(name) for name in sorted(obsolete & there)]
        table.create_write_transaction(
            [*removed, *added], mode="append", schema=schema, commit_properties=properties
        )


def _identifier(copy: CopyRecord) -> str:
    """Of what is copied: a table may have copies of several origins only one after the other."""
    return "batuta-sql/" + hashlib.sha256(copy.origin.encode()).hexdigest()[:32]


def _added(folder: Path, split: SplitRecord) -> AddAction:
    modified = int((folder / split.file).stat().st_mtime * 1000)
    statistics = json.dumps({"numRecords": split.rows})
    return AddAction(split.file, split.bytes, {}, modified, True, statistics)


def _removed(name: str) -> RemoveAction:
    return RemoveAction(name, True, int(time.time() * 1000))
