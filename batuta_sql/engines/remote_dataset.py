"""The fallback scan: a source's table as DuckDB's own scan of a pyarrow dataset.

Apart from the engine because ``pyarrow.dataset`` takes as long to import as all the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from sqlglot import exp

Test = tuple[str, type[exp.Expr], exp.Expr]
"""A column's name, a comparison, a constant."""

Scan = Callable[[Sequence[str], Sequence[Test]], pa.RecordBatchReader]
"""Reads the named columns of the rows that may pass the tests."""

_OPERATORS: dict[str, type[exp.Expr]] = {
    "==": exp.EQ,
    ">": exp.GT,
    ">=": exp.GTE,
    "<": exp.LT,
    "<=": exp.LTE,
}
_TEST = re.compile(
    r"\((?P<name>[A-Za-z_]\w*) (?P<operator>==|>=|<=|>|<) "
    r"(?P<value>-?\d+|\d{4}-\d{2}-\d{2}|\"[^\"\\]*\")\)"
)


class RemoteDataset(ds.Dataset):  # type: ignore[misc]
    """A table of a source, asked anew for each use.

    :param schema: all its columns in DuckDB's Arrow types.
    :param scan: asks the source.
    """

    def __init__(self, schema: pa.Schema, scan: Scan) -> None:
        self._columns = schema
        self._scan = scan

    @property
    def schema(self) -> pa.Schema:
        return self._columns

    def scanner(
        self,
        columns: Sequence[str] | None = None,
        filter: Any = None,  # noqa: A002 - DuckDB passes it by this name
        **_: Any,
    ) -> ds.Scanner:
        """A scan of the needed columns.

        What the source can test of DuckDB's filter is tested there; the whole filter is applied
        to what arrives, so what cannot be read from it costs rows, never the answer.
        """
        shown = list(columns) if columns is not None else self._columns.names
        needed = shown
        tests: list[Test] = []
        if filter is not None:
            text = str(filter)
            needed = shown + [n for n in self._columns.names if n not in shown and n in text]
            tests = [t for t in tests_of(text) if t[0] in self._columns.names]
        reader = self._scan(needed or self._columns.names[:1], tests)
        return ds.Scanner.from_batches(reader, columns=shown, filter=filter)


def tests_of(text: str) -> list[Test]:
    """The comparisons with a constant that a pyarrow filter requires, from its printed form.

    Only whole conjuncts of the form ``(name > 1)`` are taken; an unknown form is left out.
    """
    found: list[Test] = []
    for part in _conjuncts(text):
        match = _TEST.fullmatch(part)
        if match is None:
            continue
        value = match["value"]
        literal: exp.Expr
        if value.startswith('"'):
            literal = exp.Literal.string(value[1:-1])
        elif re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
            literal = exp.Cast(this=exp.Literal.string(value), to=exp.DataType.build("DATE"))
        else:
            literal = exp.Literal.number(value.lstrip("-"))
            literal = exp.Neg(this=literal) if value.startswith("-") else literal
        found.append((match["name"], _OPERATORS[match["operator"]], literal))
    return found


def _conjuncts(text: str) -> list[str]:
    """The parts of ``(a and b)``, each with its parentheses; the text itself where it has none."""
    text = text.strip()
    if not text.startswith("("):
        return [text]
    depth = 0
    quoted = False
    split: int | None = None
    for index, character in enumerate(text):
        if character == '"' and text[index - 1] != "\\":
            quoted = not quoted
        elif quoted:
            continue
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if depth == 0 and index != len(text) - 1:
                return [text]
        elif depth == 1 and split is None and text.startswith(" and ", index):
            split = index
    if split is not None:
        return _conjuncts(text[1:split]) + _conjuncts(text[split + 5 : -1])
    return _conjuncts(text[1:-1]) if text.startswith("((") else [text]
