"""Arrow IPC files, of the random-access and of the streaming kind, as one pyarrow dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import fs

from batuta_sql.errors import OperationalError

_MAGIC = b"ARROW1"


def arrow_dataset(source: str, paths: Sequence[str], root: str) -> ds.Dataset:
    """A dataset with the union of the files' columns, and the partition keys below ``root``.

    :raises OperationalError: for a file that cannot be read, naming it.
    """
    streams = [p for p in paths if not _is_random_access(source, p)]
    if not streams:
        return _of_files(source, paths, root)
    if len(streams) < len(paths):
        raise OperationalError(
            f"{streams[0]} is an Arrow stream and other files of its table are not", source=source
        )
    tables = [_stream(source, p) for p in paths]
    try:
        return ds.dataset(pa.concat_tables(tables, promote_options="permissive"))
    except pa.ArrowException as error:
        raise OperationalError(f"{root}: {error}", source=source) from None


def _is_random_access(source: str, path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError as error:
        raise OperationalError(f"{path}: {error.strerror}", source=source) from None


def _stream(source: str, path: str) -> pa.Table:
    """The rows of a stream; memory-mapped, so that they are read when they are used."""
    try:
        with pa.memory_map(path) as file, pa.ipc.open_stream(file) as reader:
            return reader.read_all()
    except (pa.ArrowException, OSError) as error:
        raise OperationalError(f"{path}: {error}", source=source) from None


def _schema(source: str, path: str) -> pa.Schema:
    try:
        with pa.memory_map(path) as file, pa.ipc.open_file(file) as reader:
            return reader.schema
    except (pa.ArrowException, OSError) as error:
        raise OperationalError(f"{path}: {error}", source=source) from None


def _of_files(source: str, paths: Sequence[str], root: str) -> ds.Dataset:
    schemas = [_schema(source, p) for p in paths]
    below = str(Path(root).absolute())
    options: dict[str, Any] = {"partition_base_dir": below}
    options["partitioning"] = ds.HivePartitioning.discover(infer_dictionary=False)
    try:
        factory = ds.FileSystemDatasetFactory(
            fs.LocalFileSystem(),
            [str(Path(p).absolute()) for p in paths],
            ds.IpcFileFormat(),
            ds.FileSystemFactoryOptions(**options),
        )
        known = pa.unify_schemas(schemas, promote_options="permissive")
        keys = [
            f
            for f in factory.inspect(promote_options="permissive")
            if known.get_field_index(f.name) < 0
        ]
        # What a folder's name says of every file: DuckDB's readers put it last, too.
        inner = {k for p in paths for k in _keys(str(Path(p).absolute())[len(below) :])}
        wanted = [f for f in keys if f.name in inner]
        return factory.finish(pa.schema([*known, *wanted]))
    except pa.ArrowException as error:
        raise OperationalError(f"{root}: {error}", source=source) from None


def _keys(path: str) -> list[str]:
    return [part.partition("=")[0] for part in Path(path).parent.parts if "=" in part]
