"""Deleted rows of an Iceberg snapshot: by position, by deletion vector, by equality.

Each becomes an Arrow table that the reader's SQL takes away by an anti-join.
https://iceberg.apache.org/spec/#delete-formats
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from batuta_sql.engines.duckdb import quote
from batuta_sql.errors import OperationalError
from batuta_sql.sources.iceberg_metadata import FILE, IcebergFile, IcebergSnapshot, first_line
from batuta_sql.sources.iceberg_schema import FileLayout, IcebergColumn
from batuta_sql.sources.parquet_layout import Node, entry, layouts_of, reader_of

if TYPE_CHECKING:
    from pyiceberg.io import FileIO

_PATH_ID, _POSITION_ID = 2147483546, 2147483545
"""https://iceberg.apache.org/spec/#reserved-field-ids"""

_POSITIONS = pa.schema([("file", pa.int64()), ("pos", pa.int64())])


@dataclass(frozen=True)
class Equality:
    """Rows that are gone where they equal one of ``keys`` in ``columns``.

    :param keys: columns ``k0``, ``k1`` ... in the order of ``columns``, ``seq``: of the newest
        delete, and ``part``: of its partition (NULL: every partition).
    :param everywhere: whether the deletes are of no partition.
    :param files: the numbers of the data files that it is for.
    """

    columns: tuple[IcebergColumn, ...]
    keys: pa.Table
    everywhere: bool
    files: frozenset[int]


# --- by position -------------------------------------------------------------------------------


def position_files(snapshot: IcebergSnapshot, files: Sequence[int]) -> list[IcebergFile]:
    """The position deletes and deletion vectors that are for some of ``files``."""
    locations = {snapshot.files[i].location for i in files}
    oldest: dict[Any, int] = {}
    for i in files:
        file = snapshot.files[i]
        oldest[file.where] = min(oldest.get(file.where, file.sequence), file.sequence)
    found: list[IcebergFile] = []
    for delete in snapshot.positions:
        only = _only_file(delete)
        if only is not None:
            wanted = only in locations
        else:
            wanted = delete.where in oldest and delete.sequence >= oldest[delete.where]
        if wanted:
            found.append(delete)
    return found


def file_version(snapshot: IcebergSnapshot, number: int) -> str:
    """What names the rows of a data file: itself, and all deletes that may be for it.

    Files never change, and neither do deletion vectors at their place in one.
    """
    file = snapshot.files[number]
    later = [e for e in snapshot.equalities if e.sequence > file.sequence]
    deletes = [
        f"{d.location} {d.offset if d.format == 'PUFFIN' else ''}"
        for d in (*position_files(snapshot, [number]), *later)
    ]
    if not deletes:
        return file.location
    return f"{file.location} without {sha256(' '.join(sorted(deletes)).encode()).hexdigest()}"


def _only_file(delete: IcebergFile) -> str | None:
    """The one data file that a delete file is for, where it tells."""
    if delete.referenced is not None:
        return delete.referenced
    ends = [(b or {}).get(_PATH_ID) for b in (delete.entry.lower_bounds, delete.entry.upper_bounds)]
    if ends[0] is None or ends[0] != ends[1]:
        return None
    return bytes(ends[0]).decode("utf-8", "replace")


def deleted_positions(
    cursor: duckdb.DuckDBPyConnection,
    snapshot: IcebergSnapshot,
    files: Sequence[int],
    io: FileIO,
    source: str,
) -> pa.Table:
    """Number of a data file, and position of a row in it, for every row deleted by position.

    :raises duckdb.Error: for a delete file that cannot be read.
    """
    found = [_POSITIONS.empty_table()]
    deletes = position_files(snapshot, files)
    tables = [d for d in deletes if d.format != "PUFFIN"]
    if tables:
        found.append(_positions_of_tables(cursor, snapshot, tables))
    vectors = [d for d in deletes if d.format == "PUFFIN"]
    if vectors:
        found.append(_positions_of_vectors(snapshot, files, vectors, io, source))
    return pa.concat_tables(found).combine_chunks()


def _positions_of_tables(
    cursor: duckdb.DuckDBPyConnection, snapshot: IcebergSnapshot, deletes: Sequence[IcebergFile]
) -> pa.Table:
    numbered = {d.path: d for d in deletes}
    branches: list[str] = []
    for paths, by_id in _by_ids(layouts_of(cursor, list(numbered))):
        keys: tuple[int | str, int | str] = (
            (_PATH_ID, _POSITION_ID) if by_id else ("file_path", "pos")
        )
        entries = [entry(keys[0], "path", "VARCHAR"), entry(keys[1], "pos", "BIGINT")]
        sequences = ", ".join(f"({i}, {numbered[p].sequence})" for i, p in enumerate(paths))
        branches.append(
            f'SELECT f."{FILE}" AS file, r.pos AS pos FROM {reader_of(paths, entries)} AS r'
            f" JOIN (VALUES {sequences}) AS n(here, seq) ON r.file_index = n.here"
            ' JOIN "data files" AS f ON f.location = r.path AND f.seq <= n.seq'
        )
    cursor.register("data files", snapshot.register)
    try:
        rows: Any = cursor.sql(" UNION ".join(branches)).to_arrow_table()
        return rows.cast(_POSITIONS)
    finally:
        cursor.unregister("data files")


def _by_ids(layouts: Mapping[str, tuple[Node, ...]]) -> Iterable[tuple[list[str], bool]]:
    for wanted in (True, False):
        paths = [p for p, nodes in layouts.items() if any(n.has_ids for n in nodes) is wanted]
        if paths:
            yield paths, wanted


def _positions_of_vectors(
    snapshot: IcebergSnapshot,
    files: Sequence[int],
    vectors: Sequence[IcebergFile],
    io: FileIO,
    source: str,
) -> pa.Table:
    from pyiceberg.table.deletion_vector import deletion_vectors_from_puffin_file
    from pyiceberg.table.puffin import PuffinFile

    numbers = {snapshot.files[i].location: i for i in files}
    found = [_POSITIONS.empty_table()]
    opened: dict[str, dict[int, Any]] = {}
    for vector in vectors:
        number = numbers.get(vector.referenced or "")
        if number is None or snapshot.files[number].sequence > vector.sequence:
            continue
        try:
            if vector.location not in opened:
                puffin = PuffinFile(io.new_input(vector.location).open().read())
                blobs = zip(
                    puffin.footer.blobs, deletion_vectors_from_puffin_file(puffin), strict=True
                )
                opened[vector.location] = {b.offset: v for b, v in blobs}
            positions: Any = opened[vector.location][vector.offset or 0].to_vector()
        except Exception as error:
            raise OperationalError(
                f"the deletion vector of {vector.referenced} in {vector.location} cannot be read:"
                f" {first_line(error)}",
                source=source,
            ) from None
        if len(positions) != vector.rows:
            raise OperationalError(
                f"the deletion vector of {vector.referenced} in {vector.location} has"
                f" {len(positions)} rows, and its manifest says {vector.rows}",
                source=source,
            )
        columns = [pa.repeat(pa.scalar(number, pa.int64()), len(positions))]
        found.append(pa.table([*columns, positions.cast(pa.int64())], schema=_POSITIONS))
    return pa.concat_tables(found)


# --- by equality -------------------------------------------------------------------------------


def equality_deletes(
    cursor: duckdb.DuckDBPyConnection,
    snapshot: IcebergSnapshot,
    files: Sequence[int],
    source: str,
) -> list[Equality]:
    """The equality deletes that are for some of ``files``, those of the same columns together.

    :raises duckdb.Error: for a delete file that cannot be read.
    """
    groups: dict[tuple[tuple[int, ...], bool], list[IcebergFile]] = {}
    reach: dict[tuple[tuple[int, ...], bool], set[int]] = {}
    for delete in snapshot.equalities:
        everywhere = not snapshot.metadata.specs()[delete.spec_id].fields
        hit = {
            i
            for i in files
            if snapshot.files[i].sequence < delete.sequence
            and (everywhere or snapshot.files[i].where == delete.where)
        }
        if hit:
            key = (tuple(sorted(delete.entry.equality_ids or ())), everywhere)
            groups.setdefault(key, []).append(delete)
            reach.setdefault(key, set()).update(hit)
    found: list[Equality] = []
    for (ids, everywhere), deletes in groups.items():
        columns = tuple(_column(snapshot, i) for i in ids)
        keys = _keys(cursor, snapshot, deletes, columns, everywhere, source)
        found.append(Equality(columns, keys, everywhere, frozenset(reach[ids, everywhere])))
    return found


def _column(snapshot: IcebergSnapshot, field_id: int) -> IcebergColumn:
    now = next((c for c in snapshot.columns if c.field_id == field_id), None)
    return now or snapshot.older[field_id]


def _keys(
    cursor: duckdb.DuckDBPyConnection,
    snapshot: IcebergSnapshot,
    deletes: Sequence[IcebergFile],
    columns: Sequence[IcebergColumn],
    everywhere: bool,
    source: str,
) -> pa.Table:
    """The deleted values, each with the newest sequence number that deletes it."""
    layouts = layouts_of(cursor, [d.path for d in deletes])
    branches: list[str] = []
    for delete in deletes:
        layout = FileLayout(delete.path, layouts[delete.path], snapshot.mapping, source)
        readings = [layout.reading(c) for c in columns]
        entries = [
            entry(r.key, f"c{i}", r.type) for i, r in enumerate(readings) if r.key is not None
        ]
        shown = ", ".join(
            f"CAST({r.of(f'f.c{i}')} AS {c.type}) AS k{i}"
            for i, (r, c) in enumerate(zip(readings, columns, strict=True))
        )
        part = "NULL" if everywhere else str(snapshot.places[delete.where])
        branches.append(
            f"SELECT {shown}, CAST({delete.sequence} AS BIGINT) AS seq,"
            f" CAST({part} AS BIGINT) AS part FROM {reader_of([delete.path], entries)} AS f"
        )
    names = ", ".join(f"k{i}" for i in range(len(columns)))
    return cursor.sql(
        f"SELECT {names}, part, max(seq) AS seq FROM ({' UNION ALL '.join(branches)})"
        f" GROUP BY {names}, part"
    ).to_arrow_table()


def equality_condition(equality: Equality, values: Mapping[int, str], deletes: str) -> str:
    """What a row that is gone meets.

    :param values: SQL of the row's columns, by field id; its sequence and partition are ``p``'s.
    :param deletes: the name of ``equality.keys``.
    """
    same = [
        f"{values[c.field_id]} IS NOT DISTINCT FROM {quote(deletes)}.k{i}"
        for i, c in enumerate(equality.columns)
    ]
    if not equality.everywhere:
        same.append(f"p.part = {quote(deletes)}.part")
    return " AND ".join([*same, f"p.seq < {quote(deletes)}.seq"])
