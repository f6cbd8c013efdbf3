"""The result of a statement of any kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batuta_sql.engines.duckdb import PendingResult
from batuta_sql.typecodes import type_code

if TYPE_CHECKING:
    from batuta_sql.dbapi import Connection


@dataclass
class Outcome:
    """A statement's result.

    :param relation: the rows, still to be read; None for a statement without any.
    :param affected: PEP 249's rowcount.
    """

    relation: Any = None
    affected: int = -1
    _description: list[tuple[Any, ...]] | None = None

    @property
    def description(self) -> list[tuple[Any, ...]] | None:
        if self._description is None and self.relation is not None:
            self._description = [
                (name, type_code(str(kind)), None, None, None, None, None)
                for name, kind in zip(self.relation.columns, self.relation.types, strict=True)
            ]
        return self._description

    def keep_description(self) -> None:
        """Reads the description while the relation still knows it."""
        _ = self.description


def of_table(connection: Connection, table: pa.Table) -> Outcome:
    """Rows that are here."""
    engine = connection._session.engine.cursor()
    engine.register("answer", table)
    return Outcome(PendingResult(engine, "SELECT * FROM answer"))
