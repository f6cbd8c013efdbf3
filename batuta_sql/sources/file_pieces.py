"""Parquet files in pieces: ranges of rows that end where row groups end.

A piece is called after what names the file's content, with its rows behind: another content has
other pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import duckdb

PIECE_BYTES = 16 << 20
"""Of the file, at least."""

_BETWEEN = "\n"
"""No version has one."""

ROW_NUMBER = "file_row_number"
"""DuckDB's virtual column; a filter on it leaves row groups out."""

Range = tuple[int, int]
"""The first row, and the one behind the last."""


def pieces_of(
    cursor: duckdb.DuckDBPyConnection, path: str, version: str, size: float
) -> list[tuple[str, float]]:
    """The pieces of a file, and their sizes in bytes; the file itself where it is one.

    :param path: as DuckDB's readers take it, quoted.
    :raises duckdb.Error: where its footer cannot be read.
    """
    if size < 2 * PIECE_BYTES:
        return [(version, size)]
    groups = cursor.execute(
        "SELECT any_value(row_group_num_rows), sum(total_compressed_size)"
        f" FROM parquet_metadata({path}) GROUP BY row_group_id"
        " ORDER BY row_group_id"
    ).fetchall()
    found: list[tuple[str, float]] = []
    begin = end = 0
    held = 0.0
    for number, (rows, bytes_) in enumerate(groups, 1):
        end += int(rows)
        held += float(bytes_)
        if held >= PIECE_BYTES or number == len(groups):
            found.append((f"{version}{_BETWEEN}{begin}:{end}", held))
            begin, held = end, 0.0
    return found if len(found) > 1 else [(version, size)]


def ranges_of(pieces: Iterable[str]) -> dict[str, list[Range] | None]:
    """The rows that pieces name, by the version of their file; None: all of them."""
    found: dict[str, list[Range] | None] = {}
    for piece in pieces:
        version, between, rows = piece.partition(_BETWEEN)
        if not between:
            found[version] = None
            continue
        begin, _, end = rows.partition(":")
        known = found.setdefault(version, [])
        assert known is not None
        known.append((int(begin), int(end)))
    return found


def rows_condition(ranges: Sequence[Range]) -> str:
    """What is true of the rows in some ranges; those that follow one another are one."""
    joined: list[Range] = []
    for begin, end in sorted(ranges):
        if joined and joined[-1][1] == begin:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    return " OR ".join(f"{ROW_NUMBER} BETWEEN {b} AND {e - 1}" for b, e in joined)
