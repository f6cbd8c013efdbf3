"""Rows that go with a statement, and texts in it: what a server could take for something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulators.process import Emulator
from tests.engines.conftest import compare

TEXTS = [
    *("'", "''", "\\", "\\'", "\\n", "\\u0041", "a\nb", "\t", "\r", "\x01", "", " ", "%", "_", "?"),
    *('"', "`", "--", "/*", ":name", "$1", "{{x}}", "${x}", "${env:PATH}", "${spark.app.name}"),
    *("$\\{env:PATH}", "${system:user.name}", "${hiveconf:x}", "$ {", "\u2028", "\U0001f600", "é"),
    *("e\u0301", "NULL", "null", "x'00'", "r'a'", "rows_0"),
]


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def compare_texts(server: Emulator, tmp_path: Path) -> None:
    listed = ", ".join(f"({n}, {quoted(t)})" for n, t in enumerate(TEXTS))
    found = compare(
        server,
        tmp_path,
        f"FROM (VALUES {listed}, (-1, NULL)) v(i, t)",
        "SELECT a.i, a.t, count(b.t) AS n FROM crm.v a LEFT JOIN lake.v b ON a.t = b.t"
        " GROUP BY a.i, a.t ORDER BY a.i",
    )
    assert found["with_statement"]
    assert found["bytes_staged"] == 0


def compare_literals(server: Emulator, tmp_path: Path) -> None:
    listed = ", ".join(f"({n}, {quoted(t)})" for n, t in enumerate(TEXTS))
    cases = " ".join(f"WHEN b.t = {quoted(t)} THEN {n}" for n, t in enumerate(TEXTS))
    found = compare(
        server,
        tmp_path,
        f"FROM (VALUES {listed}) v(i, t)",
        f"SELECT a.i, CASE {cases} END AS n, count(*) FROM crm.v a JOIN lake.v b ON a.t = b.t"
        " GROUP BY ALL ORDER BY ALL",
        local_rows=0,
    )
    assert found["bytes_staged"] > 0


def test_texts(spark_connect: Emulator, tmp_path: Path) -> None:
    compare_texts(spark_connect, tmp_path)


@pytest.mark.xdist_group("apache spark")
def test_texts_on_apache_spark(apache_spark: Emulator, tmp_path: Path) -> None:
    compare_texts(apache_spark, tmp_path)


def test_literals(spark_connect: Emulator, tmp_path: Path) -> None:
    compare_literals(spark_connect, tmp_path)


@pytest.mark.xdist_group("apache spark")
def test_literals_on_apache_spark(apache_spark: Emulator, tmp_path: Path) -> None:
    """Spark puts values of variables where ``${...}`` stands, in texts too."""
    compare_literals(apache_spark, tmp_path)


@pytest.mark.parametrize(
    "value",
    [
        "chr(0) || 'a' AS v",
        "DATE '4713-01-01 (BC)' AS v",
        "DATE '12000-01-01' AS v",
        "DATE 'infinity' AS v",
        "TIMESTAMP '-infinity' AS v",
        "TIMESTAMPTZ 'infinity' AS v",
        "TIMESTAMP '290000-01-01' AS v",
        "repeat('x', 100_000) AS v",
        "1 AS v WHERE false",
    ],
)
def test_what_cannot_be_written_is_staged(
    spark_connect: Emulator, tmp_path: Path, value: str
) -> None:
    sql = (
        "SELECT a.i, a.v IS NULL AS no, count(*) FROM crm.v a JOIN lake.v b USING (i) GROUP BY ALL"
    )
    found = compare(spark_connect, tmp_path, f"SELECT 1 AS i, {value}", sql)
    assert found["bytes_staged"] > 0


def test_many_rows_are_staged(spark_connect: Emulator, tmp_path: Path) -> None:
    sql = "SELECT b.i AS r, count(*) FROM crm.v a JOIN lake.v b USING (i) GROUP BY 1 ORDER BY 1"
    for rows, staged in ((1000, False), (1001, True)):
        folder = tmp_path / str(rows)
        folder.mkdir()
        found = compare(spark_connect, folder, f"SELECT i FROM range({rows}) r(i)", sql)
        assert (found["bytes_staged"] > 0) == staged


def test_the_statement_is_kept_without_the_rows(spark_connect: Emulator, tmp_path: Path) -> None:
    sql = "SELECT a.t, count(*) FROM crm.v a JOIN lake.v b USING (i) GROUP BY a.t"
    values = "SELECT i, 'person ' || i AS t FROM range(9) r(i)"
    found = compare(spark_connect, tmp_path, values, sql)
    assert len(found["with_statement"]) == 2
    assert "person" not in str(found)
