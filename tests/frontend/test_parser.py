"""Texts that are no SQL."""

from __future__ import annotations

import pytest

import batuta_sql
from batuta_sql import ProgrammingError


@pytest.mark.parametrize("sql", ["SELECT '\udcff'", 'SELECT 1 AS "a\ud800"', "\udcfe"])
def test_bytes_that_are_no_text_are_named_with_their_line(sql: str) -> None:
    with (
        batuta_sql.connect({}) as connection,
        pytest.raises(ProgrammingError, match="no UTF-8, in line 2(.|\n)*save the text as UTF-8"),
    ):
        connection.execute(f"-- first\n{sql}")


def test_characters_beyond_the_basic_plane_are_text() -> None:
    with batuta_sql.connect({}) as connection:
        assert connection.execute("SELECT '🦆' AS duck").fetchall() == [("🦆",)]
