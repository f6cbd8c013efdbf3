"""What the conformance suite asks of a kind of source: a real system, and a way to fill it.

A ``Stand`` is one running system with a source over it. The suite makes its tables in DuckDB (the
truth) and the stand copies them into its system by that system's own means. What a system, or what
stands in for it in tests, cannot do is declared in ``limits`` with its reason; the table in
docs/sources/conformance.md is made of these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import duckdb


@dataclass(frozen=True)
class Table:
    """A table of the truth: its name and the DuckDB types of its columns, in order."""

    name: str
    columns: tuple[tuple[str, str], ...]


class Load(Protocol):
    """Copies a table of the truth into the system, with its rows."""

    def __call__(self, truth: duckdb.DuckDBPyConnection, table: Table) -> None: ...


@dataclass(frozen=True)
class Stand:
    """One kind of source, running.

    :param settings: the source's configuration.
    :param prefix: what stands between the source's name and a table's: ``("public",)``.
    :param load: makes a table.
    :param run: runs a statement in the system, for what ``load`` does not make; None where the
        system has no statements.
    :param types: DuckDB type of the truth -> the type under which the source delivers it, where it
        is another one; None where the system has no such type.
    :param untested: types that the system has and what stands in for it has not, and why.
    :param expressions: DuckDB type -> SQL over ``{}`` that gives the truth's value as it arrives.
    :param address: the server's URI, as a proxy between takes it; None where nothing is dialled.
    :param settings_at: the source's configuration for another URI of the same server.
    :param folds_names: whether the system spells names that were not quoted in its own way.
    :param limits: check -> why this system or its stand-in cannot pass it.
    """

    kind: str
    settings: Mapping[str, Any]
    prefix: tuple[str, ...]
    load: Load
    run: Callable[[str], None] | None = None
    types: Mapping[str, str | None] = field(default_factory=dict)
    untested: Mapping[str, str] = field(default_factory=dict)
    expressions: Mapping[str, str] = field(default_factory=dict)
    address: str | None = None
    settings_at: Callable[[str], Mapping[str, Any]] | None = None
    folds_names: bool = False
    limits: Mapping[str, str] = field(default_factory=dict)

    def name(self, table: str) -> str:
        """A table's name in a query to Batuta, where the source is called ``s``."""
        return ".".join(("s", *self.prefix, table))

    def type_of(self, type_: str) -> str | None:
        """The DuckDB type in which a column made as ``type_`` arrives; None: cannot be made."""
        if type_ in self.untested:
            return None
        return self.types.get(type_, type_)

    def value_of(self, column: str, type_: str) -> str:
        """SQL that gives a column of the truth as it should arrive."""
        value = self.expressions.get(type_, "{}").format(column)
        return f"CAST({value} AS {self.type_of(type_)})"


Opener = Callable[[Path, Any], AbstractContextManager[Stand]]
"""Starts a system in an empty folder; the second argument gives pytest fixtures by name."""


def declared(stand: Stand) -> list[str]:
    """What a stand declares, as lines of the table in docs/sources/conformance.md."""
    lines = [f"| `{stand.kind}` | {check} | {reason} |" for check, reason in stand.limits.items()]
    for type_, delivered in stand.types.items():
        told = "no such type" if delivered is None else f"arrives as {delivered}"
        lines.append(f"| `{stand.kind}` | {type_} | {told} |")
    lines += [
        f"| `{stand.kind}` | {type_} | not tested: {reason} |"
        for type_, reason in stand.untested.items()
    ]
    return lines
