"""Writes a result batch by batch: a table for people, CSV, JSON, Arrow and Parquet for programs.

Text is DuckDB's own text of each value, made by a small engine of its own, so that every type
reads as it does in DuckDB.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import duckdb
import pyarrow as pa

from batuta_sql.parquet_types import check_parquet_types

if TYPE_CHECKING:
    from batuta_sql.cursor import Cursor

_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)


def is_number(type_: pa.DataType) -> bool:
    """Whether values of a type stand on the right of a column."""
    return any(test(type_) for test in _NUMBERS)


class _Writer(Protocol):
    def __call__(self, reader: pa.RecordBatchReader, sink: Sink, *, to_file: bool) -> None: ...


class Sink:
    """A binary stream that only moves forward, which tells Arrow where it stands.

    Arrow asks a pipe for its position, and a pipe has none.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._position = 0
        self.closed = False

    def write(self, data: Any) -> int:
        size = len(memoryview(data).cast("B"))
        self._stream.write(data)
        self._position += size
        return size

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        """The stream belongs to whoever opened it."""
        self.flush()

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


def write(cursor: Cursor, form: str, target: str | None, max_rows: int) -> int:
    """Writes what is left of a cursor's result; gives how many rows were read for it.

    :param form: ``table``, ``csv``, ``json``, ``arrow`` or ``parquet``.
    :param target: a file, or None for stdout.
    :param max_rows: of a table; 0 for all.
    :raises OSError: where it cannot be written.
    """
    source, rows = cursor.fetch_record_batch(), 0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal rows
        for batch in source:
            rows += batch.num_rows
            yield batch

    reader = pa.RecordBatchReader.from_batches(source.schema, counted())
    with opened(target) as stream:
        if form == "table":
            text = _table(reader, max_rows, width=None if target is None else _UNLIMITED)
            stream.write(text.encode("utf-8", "backslashreplace"))
            return rows
        writer: _Writer = {"csv": _csv, "json": _json, "arrow": _arrow, "parquet": _parquet}[form]
        writer(reader, Sink(stream), to_file=target is not None)
    return rows


def print_table(table: pa.Table) -> None:
    """Prints a small table whole."""
    text = _table(table.to_reader(), 0, width=None)
    sys.stdout.write(text)


@contextlib.contextmanager
def opened(target: str | None) -> Iterator[BinaryIO]:
    """Stdout, or a file that gets its name only when all has been written."""
    if target is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(target)
    if path.exists() and not path.is_file():
        # A named pipe or a device.
        with path.open("wb") as stream:
            yield stream
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            yield stream
        partial.replace(path)
    except OSError as error:
        if error.filename == str(partial):
            # People know the name that they gave.
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


# --- for programs ------------------------------------------------------------------------------


def _csv(reader: pa.RecordBatchReader, sink: Sink, *, to_file: bool) -> None:
    sink.write((",".join(_csv_field(n) for n in reader.schema.names) + "\n").encode())
    fields = [_csv_expression(f"c{i}", f.type) for i, f in enumerate(reader.schema)]
    _write_lines(reader, sink, " || ',' || ".join(fields) or "''", "\n", last="\n")


def _csv_field(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in '",\r\n') else text


def _csv_expression(column: str, type_: pa.DataType) -> str:
    """An empty text is quoted, a NULL is not: they stay apart."""
    text = f"CAST({column} AS VARCHAR)"
    if is_number(type_) or pa.types.is_boolean(type_):
        return f"coalesce({text}, '')"
    return (
        f"CASE WHEN {column} IS NULL THEN '' WHEN {text} = ''"
        f" OR regexp_matches({text}, '[\",\\r\\n]')"
        f" THEN '\"' || replace({text}, '\"', '\"\"') || '\"' ELSE {text} END"
    )


def _json(reader: pa.RecordBatchReader, sink: Sink, *, to_file: bool) -> None:
    pairs = ", ".join(f"{_literal(n)}, c{i}" for i, n in enumerate(_unlike(reader.schema.names)))
    sink.write(b"[")
    _write_lines(reader, sink, f"CAST(json_object({pairs}) AS VARCHAR)", ",\n", first="\n")
    sink.write(b"\n]\n")


def _write_lines(
    reader: pa.RecordBatchReader,
    sink: Sink,
    expression: str,
    between: str,
    first: str = "",
    last: str = "",
) -> None:
    """Writes one line a row, a batch at a time, so that a reader at the other end has it soon."""
    before = first
    with _engine() as engine:
        for batch in reader:
            if not batch.num_rows:
                continue
            lines = _evaluated(engine, batch, [expression])[0]
            if between != "\n":
                lines = [_strict(line) for line in lines]
            sink.write((before + between.join(lines) + last).encode())
            before = between if not last else ""
            sink.flush()


def _strict(line: str) -> str:
    """JSON has no NaN and no Infinity: they become texts."""
    if "NaN" not in line and "Infinity" not in line:
        return line
    return json.dumps(json.loads(line, parse_constant=str), ensure_ascii=False)


def _arrow(reader: pa.RecordBatchReader, sink: Sink, *, to_file: bool) -> None:
    """The stream format to a pipe, the file format to a file."""
    make = pa.ipc.new_file if to_file else pa.ipc.new_stream
    with make(sink, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            sink.flush()


def _parquet(reader: pa.RecordBatchReader, sink: Sink, *, to_file: bool) -> None:
    import pyarrow.parquet as pq

    check_parquet_types(reader.schema)
    with pq.ParquetWriter(sink, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)


# --- for people --------------------------------------------------------------------------------

_UNLIMITED = 1_000_000


def _table(reader: pa.RecordBatchReader, max_rows: int, width: int | None) -> str:
    """The first rows as a table, and how many they are.

    :param width: in characters; None: the terminal's, and without a terminal no limit.
    """
    import io

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows, more = first_rows(reader, max_rows)
    on_terminal = width is None and sys.stdout.isatty()
    columns = shutil.get_terminal_size().columns if on_terminal else width or _UNLIMITED
    table = Table(box=box.SQUARE if on_terminal else box.ASCII2, show_lines=False)
    for field in reader.schema:
        numeric = is_number(field.type)
        table.add_column(
            Text(visible(field.name)),
            justify="right" if numeric else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text("NULL", "dim") if v is None else Text(visible(v)) for v in row))
    buffer = io.StringIO()
    console = Console(file=buffer, width=columns, force_terminal=on_terminal, highlight=False)
    console.print(table)
    count = f"{len(rows):,} row{'' if len(rows) == 1 else 's'}"
    note = f"the first {count}; there are more: --max-rows N, or --format csv" if more else count
    return f"{buffer.getvalue()}({note})\n"


def first_rows(
    reader: pa.RecordBatchReader, max_rows: int
) -> tuple[list[tuple[str | None, ...]], bool]:
    """The first rows as DuckDB's texts, and whether there are more; 0 rows: all of them."""
    rows: list[tuple[str | None, ...]] = []
    width = len(reader.schema)
    with _engine() as engine:
        for batch in reader:
            if not batch.num_rows:
                continue
            room = max_rows - len(rows) if max_rows else batch.num_rows
            expressions = [f"CAST(c{i} AS VARCHAR)" for i in range(width)]
            rows += zip(*_evaluated(engine, batch.slice(0, room), expressions), strict=True)
            if batch.num_rows > room:
                return rows, True
    return rows, False


def visible(text: str) -> str:
    """Control characters as escapes: data must not command the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# --- the text engine ---------------------------------------------------------------------------


@contextlib.contextmanager
def _engine() -> Iterator[duckdb.DuckDBPyConnection]:
    settings: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    with duckdb.connect(":memory:", config=settings) as engine:
        yield engine


def _evaluated(
    engine: duckdb.DuckDBPyConnection, batch: pa.RecordBatch, expressions: Sequence[str]
) -> list[list[Any]]:
    """Each expression over the columns ``c0``, ``c1``, ... of a batch, row by row."""
    table = pa.Table.from_batches([batch]).rename_columns(
        [f"c{i}" for i in range(batch.num_columns)]
    )
    engine.register("batch", table)
    items = ", ".join(f"{e} AS r{i}" for i, e in enumerate(expressions))
    result = engine.sql(f"SELECT {items} FROM batch").to_arrow_table()
    return [column.to_pylist() for column in result.columns]


def _unlike(names: Sequence[str]) -> list[str]:
    """Names made different from each other, as DuckDB does: ``a``, ``a_1``."""
    taken: set[str] = set()
    found = []
    for name in names:
        unlike, number = name, 0
        while unlike in taken:
            number += 1
            unlike = f"{name}_{number}"
        taken.add(unlike)
        found.append(unlike)
    return found


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
