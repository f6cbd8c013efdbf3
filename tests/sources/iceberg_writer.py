"""Iceberg tables as other engines write them: delete files, deletion vectors, odd layouts.

pyiceberg appends and rewrites only. Here the Parquet files are written by pyarrow, the manifests
with pyiceberg's own Avro writers, and the metadata is JSON that is changed by hand.
"""

from __future__ import annotations

import json
import struct
import uuid
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.avro.file import AvroOutputFile
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestWriterV2,
    write_manifest_list,
)
from pyiceberg.table.metadata import TableMetadataUtil
from pyiceberg.typedef import Record
from pyroaring import BitMap

PATH_ID, POSITION_ID = 2147483546, 2147483545


def sql_catalog(folder: Path) -> SqlCatalog:
    """A catalog in a folder, with the namespace ``n``."""
    found = SqlCatalog(
        "default", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse"
    )
    found.create_namespace_if_not_exists("n")
    return found


def settings_of(folder: Path) -> dict[str, Any]:
    """The source over ``sql_catalog(folder)``."""
    uri = f"sqlite:///{folder}/catalog.db"
    return {"kind": "iceberg", "catalog": {"type": "sql", "uri": uri}}


def with_id(name: str, kind: pa.DataType, number: int, **options: Any) -> pa.Field:
    """A field of a Parquet file with its field id."""
    return pa.field(name, kind, metadata={"PARQUET:field_id": str(number)}, **options)


class _Writer(ManifestWriterV2):
    """Writes manifests of deletes, and the fields of format version 3."""

    def __init__(self, content: ManifestContent, format_version: int, *args: Any) -> None:
        super().__init__(*args)
        self._content = content
        self._format_version = format_version

    def content(self) -> ManifestContent:
        return self._content

    @property
    def version(self) -> Any:
        return self._format_version

    @property
    def _meta(self) -> dict[str, str]:
        name = "deletes" if self._content == ManifestContent.DELETES else "data"
        return {**super()._meta, "content": name}

    def new_writer(self) -> AvroOutputFile[ManifestEntry]:
        return AvroOutputFile[ManifestEntry](
            output_file=self._output_file,
            file_schema=self._with_partition(self.version),
            record_schema=self._with_partition(3),
            schema_name="manifest_entry",
            metadata=self._meta,
        )


class HandMade:
    """A table without a catalog, at its newest metadata file."""

    def __init__(self, table: Any) -> None:
        self.folder = Path(table.location().removeprefix("file://"))
        location = table.metadata_location.removeprefix("file://")
        self.metadata: dict[str, Any] = json.loads(Path(location).read_text())
        self._io = PyArrowFileIO()
        self._number = 100
        self.save()

    @property
    def settings(self) -> dict[str, Any]:
        return {"kind": "iceberg", "tables": {"t": str(self.folder)}}

    def save(self) -> Path:
        """Writes the metadata as the newest."""
        self._number += 1
        path = self.folder / "metadata" / f"{self._number:05}-{uuid.uuid4()}.metadata.json"
        path.write_text(json.dumps(self.metadata))
        return path

    def file(
        self,
        name: str,
        rows: pa.Table,
        *,
        content: DataFileContent = DataFileContent.DATA,
        partition: Sequence[Any] = (),
        spec_id: int = 0,
        **more: Any,
    ) -> DataFile:
        """A Parquet file of the table, as it stands in a manifest."""
        path = self.folder / "data" / name
        path.parent.mkdir(exist_ok=True)
        pq.write_table(rows, str(path), row_group_size=2)
        return self.entry(path, rows.num_rows, content, partition, spec_id, **more)

    def entry(
        self,
        path: Path,
        rows: int,
        content: DataFileContent = DataFileContent.DATA,
        partition: Sequence[Any] = (),
        spec_id: int = 0,
        **more: Any,
    ) -> DataFile:
        facts: dict[str, Any] = {
            "content": content,
            "file_path": f"file://{path}",
            "file_format": FileFormat.PARQUET,
            "partition": Record(*partition),
            "record_count": rows,
            "file_size_in_bytes": path.stat().st_size,
        }
        made = DataFile.from_args(_table_format_version=3, **{**facts, **more})
        made.spec_id = spec_id
        return made

    def position_deletes(self, name: str, where: Mapping[str, Sequence[int]], **more: Any) -> Any:
        """A position delete file: rows of data files by their names."""
        pairs = [(f"file://{self.folder}/data/{f}", p) for f, ps in where.items() for p in ps]
        schema = pa.schema(
            [
                with_id("file_path", pa.string(), PATH_ID),
                with_id("pos", pa.int64(), POSITION_ID),
            ]
        )
        rows = pa.table([[f for f, _ in pairs], [p for _, p in pairs]], schema=schema)
        return self.file(name, rows, content=DataFileContent.POSITION_DELETES, **more)

    def equality_deletes(self, name: str, rows: pa.Table, ids: Sequence[int], **more: Any) -> Any:
        content = DataFileContent.EQUALITY_DELETES
        return self.file(name, rows, content=content, equality_ids=list(ids), **more)

    def deletion_vector(self, name: str, file: str, positions: Sequence[int], **more: Any) -> Any:
        """A Puffin file with one deletion vector: https://iceberg.apache.org/puffin-spec/"""
        referenced = f"file://{self.folder}/data/{file}"
        vector = struct.pack("<q", 1) + struct.pack("<i", 0) + BitMap(positions).serialize()
        body = b"\xd1\xd3\x39\x64" + vector
        blob = struct.pack(">i", len(body)) + body + struct.pack(">I", zlib.crc32(body))
        footer = json.dumps(
            {
                "blobs": [
                    {
                        "type": "deletion-vector-v1",
                        "fields": [],
                        "snapshot-id": -1,
                        "sequence-number": -1,
                        "offset": 4,
                        "length": len(blob),
                        "properties": {
                            "referenced-data-file": referenced,
                            "cardinality": str(len(positions)),
                        },
                    }
                ]
            }
        ).encode()
        path = self.folder / "data" / name
        path.write_bytes(
            b"PFA1" + blob + b"PFA1" + footer + struct.pack("<i", len(footer)) + b"\0\0\0\0PFA1"
        )
        return self.entry(
            path,
            len(positions),
            DataFileContent.POSITION_DELETES,
            file_format=FileFormat.PUFFIN,
            referenced_data_file=referenced,
            content_offset=4,
            content_size_in_bytes=len(blob),
            **more,
        )

    def commit(self, *files: DataFile, keep: bool = True) -> int:
        """A snapshot with these files beside those that are there (or instead of them)."""
        known = TableMetadataUtil.parse_obj(self.metadata)
        number = int(self.metadata.get("last-sequence-number", 0)) + 1
        snapshot_id = 1_000_000 + number
        before = known.current_snapshot()
        manifests = list(before.manifests(self._io)) if before is not None and keep else []
        groups: dict[tuple[bool, int], list[DataFile]] = {}
        for file in files:
            groups.setdefault((file.content != DataFileContent.DATA, file.spec_id), []).append(file)
        for (deletes, spec_id), members in groups.items():
            path = f"file://{self.folder}/metadata/{uuid.uuid4()}.avro"
            content = ManifestContent.DELETES if deletes else ManifestContent.DATA
            writer = _Writer(
                content,
                known.format_version,
                known.specs()[spec_id],
                known.schema(),
                self._io.new_output(path),
                snapshot_id,
                "null",
            )
            with writer:
                for file in members:
                    entry = ManifestEntry.from_args(
                        status=ManifestEntryStatus.ADDED, snapshot_id=snapshot_id, data_file=file
                    )
                    writer.add_entry(entry)
            manifests.append(writer.to_manifest_file())
        listed = f"file://{self.folder}/metadata/snap-{snapshot_id}.avro"
        parent = before.snapshot_id if before is not None else None
        with write_manifest_list(
            2, self._io.new_output(listed), snapshot_id, parent, number, "null"
        ) as writer:
            writer.add_manifests(manifests)
        snapshot = {
            "snapshot-id": snapshot_id,
            "sequence-number": number,
            "timestamp-ms": 1_700_000_000_000 + number,
            "manifest-list": listed,
            "summary": {"operation": "append"},
            "schema-id": self.metadata["current-schema-id"],
        }
        if known.format_version == 3:
            snapshot |= {"first-row-id": 0, "added-rows": 0}
        self.metadata.setdefault("snapshots", []).append(snapshot)
        self.metadata["last-sequence-number"] = number
        self.metadata["current-snapshot-id"] = snapshot_id
        self.metadata.setdefault("refs", {})["main"] = {
            "snapshot-id": snapshot_id,
            "type": "branch",
        }
        self.save()
        return snapshot_id

    def upgrade(self) -> None:
        """To format version 3."""
        self.metadata |= {"format-version": 3, "next-row-id": 0}
        for snapshot in self.metadata.get("snapshots", []):
            snapshot |= {"first-row-id": 0, "added-rows": 0}
        self.save()
