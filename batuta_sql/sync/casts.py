"""Casts of the columns whose changed type was forced: each value is checked, row by row.

A value fits where it is the same value in the other type. What DuckDB cannot cast, and what it
would round, cut or read as something else, does not: its row goes to the rejects with the reason.
All of it is done in DuckDB, batch by batch over Arrow, and in UTC wherever the session is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from batuta_sql.engines.duckdb import ISOLATION
from batuta_sql.errors import ProgrammingError
from batuta_sql.labels import KEY, ColumnLabels, labelled_schema, labels_of_schema
from batuta_sql.plan.types import decimal_parts
from batuta_sql.sync.staging import SplitWriter, Written

REJECTED_COLUMN, REJECTED_REASON = "rejected_column", "rejected_reason"
"""What rejects have besides the columns of the source."""


# --- batches -------------------------------------------------------------------------------------


class Caster:
    """Casts columns of batches, and tells apart the rows that do not fit.

    :param arrived: the schema of the batches, with labels.
    :param casts: the DuckDB types to which columns are cast.
    """

    schema: pa.Schema
    """Of the rows that fit."""
    rejects_schema: pa.Schema
    """Of the rows that do not: as they arrived, with the column and the reason."""

    def __init__(self, arrived: pa.Schema, casts: Mapping[str, str]) -> None:
        self.arrived = arrived
        """Of the batches."""
        self._places = [i for i, f in enumerate(arrived) if f.name in casts]
        self.schema = arrived
        self.rejects_schema = _with_reasons(arrived, self._places)
        self._database: duckdb.DuckDBPyConnection | None = None
        if not self._places:
            return
        self._database = _opened()
        nothing = pa.RecordBatch.from_pylist([], arrived)
        found = map(str, self._registered(nothing).table("arrived").types)
        names = [arrived.field(i).name for i in self._places]
        self._sql = _statement([(n, t, casts[n]) for n, t in zip(names, found, strict=True)])
        made = self._registered(nothing).sql(self._sql).to_arrow_table().schema
        for n, place in enumerate(self._places):
            self.schema = self.schema.set(place, arrived.field(place).with_type(made.types[n]))

    def close(self) -> None:
        if self._database is not None:
            self._database.close()

    def divided(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
        """The rows that fit, cast, and the others as they arrived; None: all fit."""
        if not self._places:
            return batch, None
        judged = self._registered(batch).sql(self._sql).to_arrow_table()
        *values, column, reason = (c.combine_chunks() for c in judged.columns)
        columns = list(batch.columns)
        for place, cast in zip(self._places, values, strict=True):
            columns[place] = cast
        fitting = pa.RecordBatch.from_arrays(columns, schema=self.schema)
        if reason.null_count == len(reason):
            return fitting, None
        fits = pc.is_null(reason)
        told = pa.RecordBatch.from_arrays(
            [*batch.columns, column, reason], schema=self.rejects_schema
        )
        return fitting.filter(fits), told.filter(pc.invert(fits))

    def _registered(self, batch: pa.RecordBatch) -> duckdb.DuckDBPyConnection:
        """The engine, in which the columns to cast are ``arrived``."""
        assert self._database is not None
        columns = [batch.column(i) for i in self._places]
        table = pa.Table.from_arrays(columns, [f"c{n}" for n in range(len(columns))])
        return self._database.register("arrived", table)


def write_cast(
    path: Path,
    rejects: Path,
    caster: Caster,
    batches: Iterable[pa.RecordBatch],
    arrived: Callable[[pa.RecordBatch], None],
    rejected_rows: Callable[[int], None] = lambda rows: None,
) -> tuple[Written, Written | None]:
    """Writes the rows that fit to a file, and the others to another, which there is only where
    there are any; see ``write_split``.

    :param rejected_rows: told how many others there are more; what it raises ends the writing.
    """
    with ExitStack() as files:
        fitting = files.enter_context(SplitWriter(path, caster.schema))
        rejected: SplitWriter | None = None
        for batch in batches:
            arrived(batch)
            fits, others = caster.divided(batch)
            fitting.write(fits)
            if others is not None:
                if rejected is None:
                    rejected = files.enter_context(SplitWriter(rejects, caster.rejects_schema))
                rejected.write(others)
                rejected_rows(others.num_rows)
    return fitting.written, rejected.written if rejected is not None else None


def _opened() -> duckdb.DuckDBPyConnection:
    # One thread keeps the rows in order; splits are read by several threads already.
    database = duckdb.connect(":memory:", config=dict(ISOLATION, threads=1))
    database.execute("SET TimeZone = 'UTC'")
    return database


def _with_reasons(arrived: pa.Schema, cast: Sequence[int]) -> pa.Schema:
    """The reasons tell of the values of all columns that are cast, and have their labels."""
    labels = labels_of_schema(arrived)
    columns = [labels.of(f.name) for f in arrived]
    told = ColumnLabels()
    for place in cast:
        told |= columns[place]
    fields = [
        *(f.with_metadata(_without_labels(f.metadata)) for f in arrived),
        *(
            pa.field(_free(name, arrived.names), pa.string())
            for name in (REJECTED_COLUMN, REJECTED_REASON)
        ),
    ]
    bare = pa.schema(fields, metadata=_without_labels(arrived.metadata))
    return labelled_schema(bare, [*columns, told, told], labels.rows)


def _without_labels(metadata: Mapping[bytes, bytes] | None) -> dict[bytes, bytes]:
    return {k: v for k, v in (metadata or {}).items() if k != KEY.encode()}


def _free(name: str, taken: Sequence[str]) -> str:
    """A name that no column has, case aside."""
    while name in {t.lower() for t in taken}:
        name += "_"
    return name


# --- which casts there are -----------------------------------------------------------------------


def canonical_type(text: str) -> str:
    """A type as DuckDB writes it: ``int`` is ``INTEGER``. A text keeps its length: ``VARCHAR(20)``.

    :raises ProgrammingError: where DuckDB has none such.
    """
    if limited := _LIMITED_TEXT.fullmatch(text):
        return f"VARCHAR({int(limited[1])})"
    with _engine() as database:
        try:
            return str(database.type(text))
        except duckdb.Error as error:
            said = str(error).splitlines()[0]
            raise ProgrammingError(
                f"{text} is no type of DuckDB: {said}", hint="give a type such as DECIMAL(12,2)"
            ) from None


def can_be_checked(of: str, to: str) -> bool:
    """Whether DuckDB casts between two types at all, there and, to compare, back."""
    with _engine() as database:
        ways = [(of, to)] if of in _ARRIVE_AS_TEXT else [(of, to), (to, of)]
        return all(_is_implemented(database, a, b) for a, b in ways)


_LIMITED_TEXT = re.compile(
    r"\s*(?:(?:N?VAR)?CHAR|CHARACTER(?:\s+VARYING)?|BPCHAR|TEXT|STRING)\s*\(\s*(\d+)\s*\)\s*",
    re.IGNORECASE,
)
"""DuckDB reads the length of a text, and does not mind it."""

_ARRIVE_AS_TEXT = ("VARCHAR", "JSON", "UUID")
_SAMPLES = ("1", "2024-05-01", "10:00:00", "1 day", "[1]", "{}", "a")


def _is_implemented(database: duckdb.DuckDBPyConnection, of: str, to: str) -> bool:
    """DuckDB says so only of a value. Of a type of which there is no sample it is believed."""
    for sample in _SAMPLES:
        value = f"TRY_CAST('{sample}' AS {of})"
        try:
            if database.execute(f"SELECT {value}").fetchall() == [(None,)]:
                continue
            database.execute(f"SELECT CAST({value} AS {to})").fetchall()
        except duckdb.BinderException:
            return False
        except duckdb.Error as error:
            return "Unimplemented" not in str(error)
        return True
    return True


@contextmanager
def _engine() -> Iterator[duckdb.DuckDBPyConnection]:
    database = _opened()
    try:
        yield database
    finally:
        database.close()


# --- what fits -----------------------------------------------------------------------------------

_Rule = tuple[str, str]
"""A condition in SQL under which a value does not fit, and the reason as an expression."""

_NUMBER = r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*"
_NOT_FINITE = r"(?i)\s*[+-]?(nan|inf|infinity)\s*"
_ZONE = r":\d\d(\.\d+)?\s*[^\s\d.:]"
"""What follows a time of day and belongs to it is a time zone."""
_TIME_OF_DAY = r"\s*\d{1,2}:\d\d(:\d\d(\.\d+)?)?\s*"

_INTEGERS = frozenset(
    f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")
) | {"INTEGER", "UINTEGER"}
_FLOATS = frozenset({"FLOAT", "DOUBLE"})
_PRECISIONS = {
    "TIMESTAMP_S": 0,
    "TIMESTAMP_MS": 3,
    "TIMESTAMP": 6,
    "TIMESTAMP_NS": 9,
    "TIMESTAMP WITH TIME ZONE": 6,
    "TIME": 6,
}
"""Digits of a second."""

_SHOWN_LETTERS = 60


def _statement(columns: Sequence[tuple[str, str, str]]) -> str:
    """The cast values of ``arrived``, whose columns are ``c0``, ``c1``, ..., and after them the
    columns that do not fit and the reasons, NULL where all do.

    :param columns: the name of each, the type it arrives with, and that to which it is cast.
    """
    numbers = range(len(columns))
    values = ", ".join(f"TRY_CAST(c{n} AS {to}) AS r{n}" for n, (_, _, to) in enumerate(columns))
    reasons = ", ".join(
        f"{_reason(f'c{n}', f'r{n}', of, to)} AS why{n}" for n, (_, of, to) in enumerate(columns)
    )
    wrong = ", ".join(
        f"CASE WHEN why{n} IS NOT NULL THEN {_text(name)} END"
        for n, (name, _, _) in enumerate(columns)
    )
    return (
        f"SELECT {', '.join(f'r{n}' for n in numbers)},"
        f" nullif(concat_ws(', ', {wrong}), '') AS wrong,"
        f" nullif(concat_ws('; ', {', '.join(f'why{n}' for n in numbers)}), '') AS reason"
        f" FROM (SELECT *, {reasons} FROM (SELECT *, {values} FROM arrived))"
    )


def _reason(value: str, result: str, of: str, to: str) -> str:
    """Why a value does not fit, as an expression; NULL where it does."""
    limited = _LIMITED_TEXT.fullmatch(to)
    to = "VARCHAR" if limited else to
    rules = _rules_of_text(value, result, to) if of == "VARCHAR" else _rules(value, result, of, to)
    if limited:
        longer = _words(
            f"'\"' || {_shown(value)} || '\"'", f"is longer than {limited[1]} characters"
        )
        rules = [(f"length({result}) > {limited[1]}", longer), *rules]
    branches = " ".join(f"WHEN {test} THEN {words}" for test, words in rules)
    return f"CASE WHEN {value} IS NULL THEN NULL {branches} END"


def _rules(value: str, result: str, of: str, to: str) -> list[_Rule]:
    """A value fits where casting it back gives it again."""
    shown = _shown(value)
    return [
        (f"{result} IS NULL", _words(shown, f"does not fit in {to}")),
        (
            f"TRY_CAST({result} AS {of}) IS DISTINCT FROM {value}",
            f"{_words(shown, 'would become ')} || {_shown(result)}",
        ),
    ]


def _rules_of_text(value: str, result: str, to: str) -> list[_Rule]:
    """A text fits where it is another way to write the value; of types that have several ways."""
    shown = f"'\"' || {_shown(value)} || '\"'"
    unreadable = (f"{result} IS NULL", _words(shown, f"cannot be read as {to}"))
    becomes = f"{_words(shown, 'would become ')} || {_shown(result)}"
    if to in _INTEGERS or to in _FLOATS or decimal_parts(to) is not None:
        is_number = _matches(value, _NUMBER)
        if to in _FLOATS:
            is_number = f"({is_number} OR {_matches(value, _NOT_FINITE)})"
        return [
            (f"NOT {is_number}", _words(shown, "is not a number")),
            (f"{result} IS NULL", _words(shown, f"does not fit in {to}")),
            (f"{_digits(value)} <> {_digits(f'CAST({result} AS VARCHAR)')}", becomes),
        ]
    if to in ("BOOLEAN", "UUID"):
        return [unreadable]
    has_zone = f"regexp_matches({value}, {_text(_ZONE)})"
    zoned = (has_zone, _words(shown, f"has a time zone, and {to} has none"))
    if to == "DATE":
        midnight = f"TRY_CAST({result} AS TIMESTAMP)"
        other = f"TRY_CAST({value} AS TIMESTAMP) IS DISTINCT FROM {midnight}"
        return [unreadable, zoned, (other, becomes)]
    if to in _PRECISIONS:
        finer = f"\\.\\d{{{_PRECISIONS[to]}}}\\d*[1-9]"
        rounded = (f"regexp_matches({value}, {_text(finer)})", becomes)
        if to == "TIME":
            alone = f"NOT {_matches(value, _TIME_OF_DAY)}"
            return [unreadable, (alone, _words(shown, "is not a time of day alone")), rounded]
        if to == "TIMESTAMP WITH TIME ZONE":
            # "infinity" needs none.
            unzoned = f"NOT {has_zone} AND regexp_matches({value}, '[0-9]')"
            return [unreadable, (unzoned, _words(shown, "does not say its time zone")), rounded]
        return [unreadable, zoned, rounded]
    return [unreadable, (f"CAST({result} AS VARCHAR) <> {value}", becomes)]


def _digits(text: str) -> str:
    """The digits of a number that count: a number that was rounded has others."""
    mantissa = f"regexp_replace({text}, '[eE].*', '')"
    return f"trim(regexp_replace({mantissa}, '[^0-9]', '', 'g'), '0')"


def _matches(value: str, pattern: str) -> str:
    return f"regexp_full_match({value}, {_text(pattern)})"


def _shown(value: str) -> str:
    """A value as a person is told of it, long ones in part."""
    text = f"CAST({value} AS VARCHAR)"
    long = f"length({text}) > {_SHOWN_LETTERS}"
    return f"(CASE WHEN {long} THEN left({text}, {_SHOWN_LETTERS}) || '...' ELSE {text} END)"


def _words(shown: str, said: str) -> str:
    return f"{shown} || {_text(' ' + said)}"


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
