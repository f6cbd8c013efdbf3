"""Text files as lines, for DuckDB to take apart: every line is a row, empty ones too, as in Hive.

DuckDB's own reader of CSV leaves empty lines out, and has no dialect that is Hive's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from batuta_sql.errors import Error, NotSupportedError, OperationalError
from batuta_sql.sources.glue_tables import Column, Storage
from batuta_sql.sources.glue_values import literal

LINE, FILE = "line", "file_index"
LINES = pa.schema([(LINE, pa.string()), (FILE, pa.int64())])
_CODECS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_UNREADABLE = (".snappy", ".lzo", ".lzo_deflate", ".deflate", ".lz4", ".xz", ".zip", ".z", ".br")
_NEVER = "\x1e"
"""What separates the columns of a file that has one: a line that holds it is an error."""

_BLOCK_BYTES = 4 << 20
_ESCAPED, _ESCAPED_DELIMITER = "\x02\x1c", "\x02\x1d"


@dataclass(frozen=True)
class TextFile:
    """A file: what opens it, its name for errors, how many lines at its head are no rows."""

    path: str
    open: Callable[[], Any]
    skipped: int = 0


def lines_of(source: str, files: Sequence[TextFile]) -> pa.RecordBatchReader:
    """The lines of files, each with the number of its file; read as they are asked for.

    :raises OperationalError: for a file that cannot be read, while it is.
    """
    return pa.RecordBatchReader.from_batches(LINES, _batches(source, files))


def _batches(source: str, files: Sequence[TextFile]) -> Iterator[pa.RecordBatch]:
    for number, file in enumerate(files):
        try:
            for column in _lines(file):
                numbers = pa.repeat(pa.scalar(number, pa.int64()), len(column))
                yield pa.RecordBatch.from_arrays([column, numbers], schema=LINES)
        except Error:
            raise
        except Exception as error:
            words = " ".join(str(error).split())
            raise OperationalError(f"{file.path}: {words}", source=source) from None


def _lines(file: TextFile) -> Iterator[pa.Array]:
    import pyarrow.csv as pc

    with _stream(file) as stream:
        try:
            reader = pc.open_csv(
                stream,
                read_options=pc.ReadOptions(column_names=[LINE], block_size=_BLOCK_BYTES),
                parse_options=pc.ParseOptions(
                    delimiter=_NEVER,
                    quote_char=False,
                    escape_char=False,
                    ignore_empty_lines=False,
                ),
                convert_options=pc.ConvertOptions(
                    column_types={LINE: pa.string()}, null_values=[], strings_can_be_null=False
                ),
            )
        except pa.ArrowInvalid as error:
            if str(error).startswith("Empty CSV file"):
                return
            raise
        skip = file.skipped
        for batch in reader:
            skipped = min(skip, batch.num_rows)
            skip -= skipped
            yield batch.column(0).slice(skipped)


def _stream(file: TextFile) -> Any:
    opened = file.open()
    codec = codec_of(file.path)
    return pa.CompressedInputStream(opened, codec) if codec else opened


def codec_of(path: str) -> str | None:
    """How a file is compressed, by its name; None: not at all.

    :raises NotSupportedError: for a codec that cannot be read.
    """
    lower = path.lower()
    for suffix in _UNREADABLE:
        if lower.endswith(suffix):
            raise NotSupportedError(
                f"{path}: files compressed as {suffix} are not read",
                hint="gzip, zstd and bzip2 are",
            )
    return next((c for s, c in _CODECS.items() if lower.endswith(s)), None)


# --- taking lines apart ------------------------------------------------------------------------


def fields_of(storage: Storage, place: str) -> str:
    """SQL that makes the list of a line's fields; those that are NULL are in it as such."""
    if storage.format == "opencsv":
        return _opencsv(storage, place)
    delimiter = _character(storage.option("field.delim") or storage.option("serialization.format"))
    null = literal(storage.option("serialization.null.format", "\\N"))
    escape = storage.option("escape.delim")
    if not escape:
        fields = f"string_split({LINE}, {literal(delimiter)})"
        return f"list_transform({fields}, lambda x: nullif(x, {null}))"
    return _escaped(delimiter, _character(escape), null, place)


def _character(told: str) -> str:
    """A character of Hive's: itself, or its number. https://hive.apache.org (LazyUtils.getByte)"""
    if not told:
        return "\x01"
    return chr(int(told) % 256) if told.isdigit() else told[0]


def _escaped(delimiter: str, escape: str, null: str, place: str) -> str:
    """Fields in which a character takes the next one's meaning away.

    Of what else may follow it writers and readers do not agree: such a line is an error.
    """
    kept = f"replace(replace({LINE}, {literal(escape * 2)}, {literal(_ESCAPED)})"
    kept += f", {literal(escape + delimiter)}, {literal(_ESCAPED_DELIMITER)})"
    plain = f"replace(replace(x, {literal(_ESCAPED)}, {literal(escape)})"
    plain += f", {literal(_ESCAPED_DELIMITER)}, {literal(delimiter)})"
    message = literal(f"{place}: a field has an escape that is not read: ")
    each = (
        f"CASE WHEN x = {null} THEN NULL"
        f" WHEN contains(x, {literal(escape)}) THEN error({message} || x) ELSE {plain} END"
    )
    fields = f"list_transform(string_split({kept}, {literal(delimiter)}), lambda x: {each})"
    clash = literal(f"{place}: a line holds control characters: ")
    return f"CASE WHEN contains({LINE}, chr(2)) THEN error({clash} || {LINE}) ELSE {fields} END"


def _opencsv(storage: Storage, place: str) -> str:
    """Fields that may stand in quotes, with the quote doubled or escaped inside.

    https://docs.aws.amazon.com/athena/latest/ug/csv-serde.html. A line that is not of this form
    (text beside the quotes, an escape outside) is an error.
    """
    separator = _pattern(storage.option("separatorchar", ","))
    mark = storage.option("quotechar", '"')
    quote, escape = _pattern(mark), _pattern(storage.option("escapechar", "\\"))
    inside = f"{quote}{quote}"
    others = f"[^{quote}]"
    if escape != quote:
        inside += f"|{escape}{quote}|{escape}{escape}"
        others = f"[^{quote}{escape}]"
    outside = others[:-1] + separator + "]"
    pattern = f"{separator}(?:{quote}(?:{others}|{inside})*{quote}|{outside}*)"
    whole = f"{literal(storage.option('separatorchar', ','))} || {LINE}"
    found = f"regexp_extract_all({whole}, {literal(pattern)})"
    unescaped = f"{escape}({quote}|{escape})|{quote}({quote})"
    text = (
        f"CASE WHEN substr(x, 2, 1) = {literal(mark)} THEN regexp_replace("
        f"substr(x, 3, length(x) - 3), {literal(unescaped)}, '\\1\\2', 'g') ELSE substr(x, 2) END"
    )
    message = literal(f"{place}: a line is not of the form of OpenCSV: ")
    return (
        f"CASE WHEN list_aggregate({found}, 'string_agg', '') = {whole}"
        f" THEN list_transform({found}, lambda x: {text}) ELSE error({message} || {LINE}) END"
    )


def _pattern(character: str) -> str:
    """A character as a regular expression, inside brackets and out."""
    return f"\\x{{{ord(character):x}}}"


def field(fields: str, position: int) -> str:
    """SQL for a field; NULL where the line has fewer."""
    return f"{fields}[{position + 1}]"


def positions(partition: Sequence[Column], table: Sequence[Column]) -> dict[str, int]:
    """Where the table's columns are in lines that hold a partition's.

    :raises NotSupportedError: where a column might be a renamed one: by name it would be NULL, by
        position it has a value.
    """
    mine = {c.name.lower(): i for i, c in enumerate(partition)}
    theirs = {c.name.lower() for c in table}
    for index, column in enumerate(table[: len(partition)]):
        other = partition[index].name.lower()
        if column.name.lower() not in mine and other not in theirs:
            raise NotSupportedError(
                f'its column {index + 1} is "{partition[index].name}", and the table\'s is'
                f' "{column.name}": a new name or a new column',
                hint="give the partition the table's columns, or the table the partition's name",
            )
    return {c.name: mine[c.name.lower()] for c in table if c.name.lower() in mine}
