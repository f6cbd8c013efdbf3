"""The reader of the case files itself."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest

from tests.field_cases.format import FormatError, read_case_file, render
from tests.field_cases.sources import fit_to_server

GOOD = """# about
source a sqlite
CREATE TABLE t(i INTEGER);

query rowsort
SELECT i
FROM a.t
----
2\tx
1\tNULL

query error
SELECT nope
----
nope|other

query
SELECT 1 WHERE false
----
"""


def test_blocks_are_read(tmp_path: Path) -> None:
    path = tmp_path / "good.test"
    path.write_text(GOOD)
    case = read_case_file(path)
    assert [(s.name, s.kind, s.line) for s in case.sources] == [("a", "sqlite", 2)]
    assert case.truth == {"a": "CREATE TABLE t(i INTEGER);"}
    first, second, third = case.queries
    assert first.sql == "SELECT i\nFROM a.t"
    assert first.line == 5
    assert first.mismatch([(1, None), (2, "x")]) is None
    assert first.mismatch([(1, None)]) is not None
    assert second.error_mismatch("no column nope") is None
    assert second.error_mismatch("fine") is not None
    assert third.expected == ()
    assert third.mismatch([]) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense\n", r"bad.test:1: a block starts with"),
        ("\nsource a mysql\nX\n", r"bad.test:2: unknown kind 'mysql'"),
        ("source a sqlite\n", r"bad.test:1: source a has no SQL"),
        ("query fast\nSELECT 1\n----\n1\n", r"unknown flag 'fast'"),
        ("query\nSELECT 1\n", r"without ----"),
        ("query\n----\n1\n", r"without SQL"),
        ("query error\nSELECT 1\n----\n(\n", r"not a pattern"),
        ("truth a\nSELECT 1\n\nquery\nSELECT 1\n----\n1\n", r"truth of unknown source a"),
        ("source a sqlite\nX\n", r"no query"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.test"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        read_case_file(path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "NULL"),
        (True, "true"),
        (math.nan, "NaN"),
        (3.0, "3.0"),
        (3.3333333333333335e-05, "3.3333333333333335e-05"),
        (Decimal("-1E-10"), "-0.0000000001"),
        (Decimal("0.0000"), "0.0000"),
        (b"\x00\xff", "\\x00ff"),
        (b"", "\\x"),
        ([1, None, 3], "[1, None, 3]"),
        (datetime(2024, 1, 1), "2024-01-01 00:00:00"),
        (datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01 00:00:00"),
        (datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-5))), "2024-01-01 05:00:00"),
    ],
)
def test_values_are_written_as_the_cases_do(value: object, text: str) -> None:
    assert render(value) == text


def test_a_server_without_icu_or_libxml_gets_what_it_can_hold() -> None:
    sql = (
        "CREATE COLLATION nocase (provider = icu, locale = 'und');\n"
        'CREATE TABLE t(a text COLLATE "en-x-icu", b text COLLATE nocase, x xml);\n'
        "INSERT INTO t VALUES ('<', 'b', '<a/>');"
    )
    fitted, lost = fit_to_server(sql, icu=False, xml=False)
    assert fitted == (
        "\nCREATE TABLE t(a text, b text, x xml);\nINSERT INTO t VALUES ('<', 'b', NULL);"
    )
    assert len(lost) == 2
    assert fit_to_server(sql, icu=True, xml=True) == (sql, [])
