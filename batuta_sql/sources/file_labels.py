"""Labels that Parquet files, Arrow files and Delta tables carry in their schemas."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from batuta_sql.errors import OperationalError
from batuta_sql.labels import (
    KEY,
    UNLABELLED,
    ColumnLabels,
    TableLabels,
    labels_of_schema,
    labels_of_text,
)

_PARQUET = (".parquet", ".parq")
ALD = ".ald"
_ARROW = (".arrow", ".feather", ".ipc")


def may_carry_labels(path: str) -> bool:
    """Whether a file of this name is of a format that carries labels."""
    return path.lower().endswith(_PARQUET + _ARROW)


def labels_of_files(paths: Iterable[str]) -> TableLabels:
    """The union of the labels of the files that are there.

    :raises OperationalError: for a file whose labels cannot be understood.
    """
    found = TableLabels()
    for path in paths:
        if not may_carry_labels(path):
            continue
        try:
            state = Path(path).stat()
        except OSError:
            continue  # whoever reads the file will say so
        found |= _labels_of_file(path, state.st_mtime_ns, state.st_size, state.st_ino)
    return found


def read_labels(path: str | Path) -> TableLabels:
    """The labels that a file, a folder of files or a Delta table carries; nothing else is read.

    :raises OperationalError: where there is no such thing, or labels cannot be understood.
    """
    place = Path(path)
    if (place / "_delta_log").is_dir():
        return _labels_of_delta(place)
    if any(place.glob("metadata/*.metadata.json")):
        raise OperationalError(
            f"{place}: labels of an Iceberg table are in its catalog's metadata too",
            hint="make it a source of kind iceberg: batuta-sql explain --labels SQL",
        )
    if place.suffix.lower() == ALD and place.is_file():
        return _labels_of_ald(place)
    if place.is_dir():
        found = sorted(str(p) for p in place.rglob("*") if p.is_file() and may_carry_labels(p.name))
    else:
        found = [str(place)]
    if not found or not place.exists():
        raise OperationalError(
            f"{place}: there is no Parquet or Arrow file and no Delta table",
            hint="give the path of one",
        )
    if not may_carry_labels(found[0]):
        raise OperationalError(
            f"{place}: a file of this kind carries no labels",
            hint="Parquet (.parquet), Arrow (.arrow, .feather, .ipc), .ald and Delta do",
        )
    return labels_of_files(found)


def _labels_of_ald(place: Path) -> TableLabels:
    from batuta_sql.sources.ald_format import read_ald

    return read_ald(place).labels


def _labels_of_delta(place: Path) -> TableLabels:
    from deltalake import DeltaTable

    try:
        fields = json.loads(DeltaTable(str(place)).schema().to_json())["fields"]
    except Exception as error:
        raise OperationalError(f"{place}: {str(error).splitlines()[0]}") from None
    columns = {
        f["name"]: delta_column_labels(f.get("metadata") or {}, f'column "{f["name"]}"', str(place))
        for f in fields
    }
    return TableLabels({n: labels for n, labels in columns.items() if labels})


def delta_column_labels(metadata: Mapping[str, Any], place: str, source: str) -> ColumnLabels:
    """A Delta column's labels: in its metadata, as JSON text or as the value itself.

    :raises OperationalError: for labels that cannot be understood.
    """
    value = metadata.get(KEY)
    if value is None:
        return UNLABELLED
    try:
        return labels_of_text(value if isinstance(value, str) else json.dumps(value))
    except ValueError as error:
        raise OperationalError(
            f"the labels of {place} cannot be read: {error}",
            source=source,
            hint="the table may not be used before it is known what it holds",
        ) from None


@lru_cache(maxsize=4096)
def _labels_of_file(path: str, modified: int, size: int, inode: int) -> TableLabels:
    """A file's labels; remembered while its time, size and number stay."""
    try:
        return labels_of_schema(_schema(path))
    except ValueError as error:
        if isinstance(error, pa.ArrowException):
            return TableLabels()  # not of its format: whoever reads it will say so
        raise OperationalError(
            f"{path}: its labels cannot be read: {error}",
            hint="the file may not be used before it is known what it holds",
        ) from None
    except OSError:
        return TableLabels()


def _schema(path: str) -> pa.Schema:
    if path.lower().endswith(_PARQUET):
        import pyarrow.parquet as pq

        return pq.read_schema(path)
    with pa.memory_map(path) as file:
        if bytes(file.read(6)) == b"ARROW1":
            file.seek(0)
            with pa.ipc.open_file(file) as reader:
                return reader.schema
        file.seek(0)
        with pa.ipc.open_stream(file) as stream:
            return stream.schema
