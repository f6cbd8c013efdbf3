"""Asking one source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pyarrow as pa
import pytest

import batuta_sql

Ask = Callable[..., pa.Table]
Rows = list[tuple[Any, ...]]


@pytest.fixture
def opened() -> Iterator[Callable[..., Any]]:
    """Opens a connection to one source called ``s``, and closes it after the test.

    Its positional argument are the settings of cost.
    """
    with ExitStack() as stack:

        def connect(cost: dict[str, Any] | None = None, /, **settings: Any) -> Any:
            config = {"cost": cost or {}, "sources": {"s": settings}}
            connection = batuta_sql.connect(config)
            return stack.enter_context(closing(connection))

        yield connect


def rows_of(connection: Any, sql: str) -> Rows:
    """All rows, in some fixed order."""
    table = connection.execute(sql).fetch_arrow_table()
    columns = [c.to_pylist() for c in table.columns]
    return sorted(zip(*columns, strict=True), key=repr)


def types_of(connection: Any, table: str) -> dict[str, str]:
    """Names and types of a table's columns, as DESCRIBE says."""
    described = connection.execute(f"DESCRIBE {table}").fetchall()
    return {row[0]: row[1] for row in described}
