"""Labels of columns: what they are, and how Arrow schemas and files carry them.

A label is a word or ``key:value`` (``pii``, ``origin:public``, ``tier:sovereign``). In an Arrow
schema, and so in Parquet and Arrow IPC files, labels are metadata under ``batuta.labels``: on a
field ``{"direct": [...], "indirect": [...]}``, on the schema ``{"rows": [...], "columns": {name:
{"direct": [...], "indirect": [...]}}}``, both JSON. A Delta table has the field form in the
metadata of its columns, an Iceberg table the schema form in its properties, a DuckDB table in its
comment.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

KEY = "batuta.labels"
"""The metadata key of labels in Arrow, Parquet and Delta schemas."""

LABELS_COMMENT = f"{KEY}="
"""What a comment on a DuckDB table begins with that holds the schema form."""

REST = "*"

_LABEL = re.compile(r"[^\s,;\"']+")

Labels = frozenset[str]
NO_LABELS: Labels = frozenset()


@dataclass(frozen=True)
class ColumnLabels:
    """The labels of one column.

    :param direct: of the data that its values were computed from.
    :param indirect: of the data that chose, joined, grouped or ordered its rows.
    """

    direct: Labels = NO_LABELS
    indirect: Labels = NO_LABELS

    @property
    def all(self) -> Labels:
        """Both."""
        return self.direct | self.indirect

    def __or__(self, other: ColumnLabels) -> ColumnLabels:
        return ColumnLabels(self.direct | other.direct, self.indirect | other.indirect)

    def __bool__(self) -> bool:
        return bool(self.direct or self.indirect)


UNLABELLED = ColumnLabels()


@dataclass(frozen=True)
class TableLabels:
    """The labels of a table: of its columns, by name, and of its rows as such.

    ``rows`` are the labels of what decides which rows there are: what ``count(*)`` tells. The
    column ``REST`` stands for those that are not named.
    """

    columns: Mapping[str, ColumnLabels] = field(default_factory=dict)
    rows: Labels = NO_LABELS

    @property
    def all(self) -> Labels:
        return self.rows.union(*(c.all for c in self.columns.values()))

    @classmethod
    def throughout(cls, labels: ColumnLabels) -> TableLabels:
        """The same labels for every column, and for the rows."""
        return cls({REST: labels}, labels.all)

    def of(self, column: str) -> ColumnLabels:
        """A column's labels; its name matches without case."""
        found = self.columns.get(column)
        if found is None:
            lower = column.lower()
            found = next((v for k, v in self.columns.items() if k.lower() == lower), None)
        return found or self.columns.get(REST, ColumnLabels())

    def __or__(self, other: TableLabels) -> TableLabels:
        names = [*self.columns, *(n for n in other.columns if n not in self.columns)]
        return TableLabels({n: self.of(n) | other.of(n) for n in names}, self.rows | other.rows)

    def __bool__(self) -> bool:
        return bool(self.all)


def not_covered(labels: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The labels that none of the patterns (``origin:*``) matches, sorted."""
    allowed = tuple(patterns)
    return sorted(n for n in labels if not any(fnmatch.fnmatchcase(n, p) for p in allowed))


def check_label(label: str) -> str:
    """``label`` as it is.

    :raises ValueError: for one that is empty or has white space, quotes, commas or semicolons.
    """
    if not _LABEL.fullmatch(label):
        raise ValueError(f'"{label}" is no label: a label is a word, or key:value')
    return label


def labelled_schema(schema: pa.Schema, columns: Sequence[ColumnLabels], rows: Labels) -> pa.Schema:
    """``schema`` with labels in its metadata; other metadata stays.

    :param columns: in the order of the schema.
    """
    if not rows and not any(columns):
        return schema
    import pyarrow as pa

    pairs = list(zip(schema, columns, strict=True))
    fields = [
        f.with_metadata({**(f.metadata or {}), KEY: _column_text(c)}) if c else f for f, c in pairs
    ]
    described = {
        "rows": sorted(rows),
        "columns": {n: _column_value(c) for n, c in _united(pairs).items()},
    }
    whole = {**(schema.metadata or {}), KEY: json.dumps(described)}
    return pa.schema(fields, metadata=whole)


def _united(pairs: Iterable[tuple[pa.Field, ColumnLabels]]) -> dict[str, ColumnLabels]:
    """Labels by name: a schema may have two columns of one name."""
    found: dict[str, ColumnLabels] = {}
    for one, labels in pairs:
        if labels:
            found[one.name] = found.get(one.name, ColumnLabels()) | labels
    return found


def labels_of_schema(schema: pa.Schema) -> TableLabels:
    """The labels that a schema carries, on its fields and as a whole.

    :raises ValueError: for metadata under our key that is not of our form.
    """
    columns = {
        f.name: _column_labels(text)
        for f in schema
        if (text := (f.metadata or {}).get(KEY.encode())) is not None
    }
    found = TableLabels(columns)
    text = (schema.metadata or {}).get(KEY.encode())
    if text is None:
        return found
    return _around(found | _table_labels(text), schema.names)


def labels_of_table_text(text: str | bytes, names: Sequence[str]) -> TableLabels:
    """A table's labels from the JSON of its metadata: the form of a schema's.

    :param names: of all its columns.
    :raises ValueError: for another form.
    """
    return _around(_table_labels(text), names)


def _around(found: TableLabels, names: Sequence[str]) -> TableLabels:
    """What chose the rows chose those of every column."""
    around = {n: (c := found.of(n)) | ColumnLabels(indirect=found.rows - c.all) for n in names}
    return TableLabels({**found.columns, **around}, found.rows)


def labels_of_text(text: str | bytes) -> ColumnLabels:
    """A column's labels from the JSON of its metadata: an object, or a list for direct ones.

    :raises ValueError: for another form.
    """
    return _column_labels(text)


def _column_value(labels: ColumnLabels) -> dict[str, list[str]]:
    return {"direct": sorted(labels.direct), "indirect": sorted(labels.indirect)}


def _column_text(labels: ColumnLabels) -> str:
    return json.dumps(_column_value(labels))


def _column_labels(text: str | bytes) -> ColumnLabels:
    return _column_of(_parsed(text))


def _column_of(value: Any) -> ColumnLabels:
    match value:
        case list():
            return ColumnLabels(_set_of(value))
        case dict():
            return ColumnLabels(
                _set_of(value.get("direct", [])), _set_of(value.get("indirect", []))
            )
    raise ValueError(f"metadata {KEY} is not a list or an object: {value!r}")


def _table_labels(text: str | bytes) -> TableLabels:
    value = _parsed(text)
    if not isinstance(value, dict) or not isinstance(value.get("columns", {}), dict):
        raise ValueError(f"metadata {KEY} of a schema is not an object: {value!r}")
    columns = {str(n): _column_of(v) for n, v in value.get("columns", {}).items()}
    return TableLabels(columns, _set_of(value.get("rows", [])))


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError(f"metadata {KEY} is not JSON") from None


def _set_of(values: Any) -> Labels:
    if not isinstance(values, Iterable) or not all(isinstance(v, str) for v in values):
        raise ValueError(f"metadata {KEY}: labels are texts, not {values!r}")
    return frozenset(values)
