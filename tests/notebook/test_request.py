"""What may follow %batuta and %%batuta."""

from __future__ import annotations

from pathlib import Path

import pytest

from batuta_sql.errors import ProgrammingError
from batuta_sql.notebook.request import OPTIONS, SHOWN_ROWS, Opening, Request


@pytest.mark.parametrize(
    ("line", "request_", "rest"),
    [
        ("", Request(), ""),
        ("SELECT 1 << 2", Request(), "SELECT 1 << 2"),
        ("n << SELECT 1", Request("n"), "SELECT 1"),
        ("  n<< --yes  --max-rows 7 ", Request("n", True, 7), ""),
        ("--max-rows=0 SELECT 1 --yes", Request(max_rows=0), "SELECT 1 --yes"),
        ("--pandas n <<", Request("n", form="pandas"), ""),
        ("--explain SELECT 1", Request(action="explain"), "SELECT 1"),
        ("-- a comment", Request(), "-- a comment"),
    ],
)
def test_what_is_read(line: str, request_: Request, rest: str) -> None:
    assert Request.read(line) == (request_, rest)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--polrs", 'did you mean "--polars"'),
        ("--max-rows many", "takes a number of rows"),
        ("--max-rows", "takes a number of rows"),
        ("--max-rows -1", "takes a number of rows"),
        ("--yes=no", "--yes takes no value"),
        ("--pandas --polars", "--polars does not go with"),
        ("--explain --estimate", "--estimate does not go with"),
        ("--explain --arrow", "gives no rows"),
        ("class <<", "no name of a variable"),
        ("1a <<", "no name of a variable"),
    ],
)
def test_what_is_wrong_is_said(line: str, words: str) -> None:
    with pytest.raises(ProgrammingError, match=words):
        Request.read(line)


def test_what_follows_connect() -> None:
    assert Opening.read("") == Opening()
    assert Opening.read("'my file.toml' --tier sovereign --max-cost=2.5") == Opening(
        "my file.toml", "sovereign", 2.5
    )
    for text in ("a b", "a --teir x", "a --tier", "a --max-cost much", "'a"):
        with pytest.raises(ProgrammingError):
            Opening.read(text)


def test_the_options_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "notebooks.md").read_text(encoding="utf-8")
    assert [o for o in (*OPTIONS, "--tier", "--max-cost") if f"`{o}" not in page] == []
    assert f"first {SHOWN_ROWS} rows" in page
