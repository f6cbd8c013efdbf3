"""Files and values that are not what they claim: one clear error, naming source and column."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import pyarrow as pa
import pytest

import batuta_sql


def ask(config: dict[str, Any], sql: str) -> pa.Table:
    with closing(batuta_sql.connect({"sources": {"s": config}})) as connection:
        return connection.execute(sql).fetch_arrow_table()


def answer_or_error(config: dict[str, Any], sql: str) -> pa.Table | batuta_sql.Error:
    try:
        return ask(config, sql)
    except batuta_sql.Error as error:
        return error


def refuses(config: dict[str, Any], sql: str, pattern: str = "") -> batuta_sql.Error:
    """The query's error, which must name the source; a query afterwards must work."""
    with closing(batuta_sql.connect({"sources": {"s": config}})) as connection:
        with pytest.raises(batuta_sql.Error, match=pattern or None) as caught:
            connection.execute(sql).fetch_arrow_table()
        assert caught.value.source == "s", str(caught.value)
        assert not isinstance(caught.value, batuta_sql.InternalError)
        assert connection.execute("SELECT 1 AS one").fetch_arrow_table().num_rows == 1
    return caught.value


def parquet(path: Path, rows: int = 100_000) -> None:
    duckdb.sql(f"SELECT range AS id, md5(range::VARCHAR) AS t FROM range({rows})").write_parquet(
        str(path)
    )


# --- files -------------------------------------------------------------------------------------


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _scribble(path: Path) -> None:
    """Overwrites the middle: the footer stays right, the pages do not."""
    data = bytearray(path.read_bytes())
    data[1000 : len(data) // 2] = b"\xa5" * (len(data) // 2 - 1000)
    path.write_bytes(bytes(data))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("this is no Parquet file")


@pytest.mark.parametrize("damage", [_truncate, _scribble, _empty, _text])
def test_a_corrupt_parquet_file(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    parquet(tmp_path / "t.parquet")
    damage(tmp_path / "t.parquet")
    refuses({"kind": "files", "path": str(tmp_path)}, "SELECT count(DISTINCT t) AS n FROM s.t")


def test_one_corrupt_file_among_good_ones(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    for name in ("a", "b", "c"):
        parquet(tmp_path / "t" / f"{name}.parquet")
    _scribble(tmp_path / "t" / "b.parquet")
    refuses({"kind": "files", "path": str(tmp_path)}, "SELECT count(DISTINCT t) AS n FROM s.t")


@pytest.mark.parametrize("kind", ["files", "delta"])
def test_a_missing_folder(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "nowhere")
    error = refuses({"kind": kind, "path": path}, "SELECT * FROM s.t", "no folder")
    assert path in str(error)


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_a_missing_database(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "nowhere.db"
    error = refuses({"kind": kind, "path": str(path)}, "SELECT * FROM s.t", "no file")
    assert str(path) in str(error)
    assert not path.exists()


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_a_file_that_is_no_database(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "letter.db"
    path.write_text("Dear Sir or Madam, " * 1000)
    refuses({"kind": kind, "path": str(path)}, "SELECT * FROM s.t")


def test_a_file_that_goes_between_two_queries(tmp_path: Path) -> None:
    parquet(tmp_path / "t.parquet", 10)
    with closing(
        batuta_sql.connect({"sources": {"s": {"kind": "files", "path": str(tmp_path)}}})
    ) as connection:
        connection.execute("SELECT * FROM s.t").fetch_arrow_table()
        (tmp_path / "t.parquet").unlink()
        with pytest.raises(batuta_sql.Error, match=r'no table "s\.t"'):
            connection.execute("SELECT * FROM s.t")


@pytest.mark.parametrize(
    "text",
    ['id,name\n1,"half a fie', "id,name\n1,a\n2,b,c,d\n" + "3,c\n" * 30_000],
    ids=["unterminated quote", "too many fields"],
)
def test_a_damaged_csv_is_never_fewer_rows(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    found = answer_or_error({"kind": "files", "path": str(tmp_path)}, "SELECT * FROM s.t")
    if isinstance(found, batuta_sql.Error):
        assert found.source == "s"
    else:
        assert found.num_rows >= text.count("\n") - 1


def test_a_csv_value_that_does_not_fit_late_in_the_file(tmp_path: Path) -> None:
    rows = "".join(f"{n},{n}\n" for n in range(60_000))
    (tmp_path / "t.csv").write_text("id,amount\n" + rows + "60000,twelve\n")
    found = answer_or_error(
        {"kind": "files", "path": str(tmp_path)}, "SELECT max(id) AS m, count(*) AS n FROM s.t"
    )
    if isinstance(found, batuta_sql.Error):
        assert found.source == "s"
        assert "amount" in str(found)
    else:
        assert found.to_pylist() == [{"m": 60000, "n": 60001}]


# --- Delta -------------------------------------------------------------------------------------


def delta(folder: Path, versions: int = 4) -> Path:
    path = folder / "t"
    for version in range(versions):
        deltalake.write_deltalake(str(path), pa.table({"id": [version]}), mode="append")
    return path


def test_a_delta_log_with_a_hole(tmp_path: Path) -> None:
    (delta(tmp_path) / "_delta_log" / f"{1:020}.json").unlink()
    refuses({"kind": "delta", "path": str(tmp_path)}, "SELECT * FROM s.t")


def test_a_delta_log_that_breaks_off(tmp_path: Path) -> None:
    commit = delta(tmp_path) / "_delta_log" / f"{3:020}.json"
    commit.write_text(commit.read_text()[:40])
    refuses({"kind": "delta", "path": str(tmp_path)}, "SELECT * FROM s.t")


def test_a_delta_table_whose_file_is_gone(tmp_path: Path) -> None:
    file = next(delta(tmp_path).glob("*.parquet"))
    file.unlink()
    error = refuses({"kind": "delta", "path": str(tmp_path)}, "SELECT * FROM s.t")
    assert file.name in str(error)


def test_a_delta_file_with_a_column_of_another_type(tmp_path: Path) -> None:
    file = next(delta(tmp_path).glob("*.parquet"))
    duckdb.sql("SELECT 'not a number' AS id").write_parquet(str(file))
    refuses({"kind": "delta", "path": str(tmp_path)}, "SELECT * FROM s.t")


def test_a_version_that_does_not_exist(tmp_path: Path) -> None:
    delta(tmp_path)
    refuses({"kind": "delta", "path": str(tmp_path)}, 'SELECT * FROM s."t@v99"')


def test_an_empty_delta_log(tmp_path: Path) -> None:
    (tmp_path / "t" / "_delta_log").mkdir(parents=True)
    refuses({"kind": "delta", "path": str(tmp_path)}, "SELECT * FROM s.t")


@pytest.mark.parametrize("feature", ["deletionVectors", "typeWidening", "somethingNew"])
def test_a_table_with_a_feature_that_is_not_read(tmp_path: Path, feature: str) -> None:
    """Deletion vectors above all: reading past them would bring deleted rows back."""
    log = delta(tmp_path, 1) / "_delta_log" / f"{0:020}.json"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        if "protocol" in line:
            line["protocol"] = {
                "minReaderVersion": 3,
                "minWriterVersion": 7,
                "readerFeatures": [feature],
                "writerFeatures": [feature],
            }
    log.write_text("\n".join(map(json.dumps, lines)))
    refuses({"kind": "delta", "path": str(tmp_path)}, "SELECT * FROM s.t", feature)


# --- SQLite: values that do not fit their column -----------------------------------------------


@pytest.mark.parametrize(
    ("declared", "good", "bad"),
    [
        ("INTEGER", 1, "twelve"),
        ("INTEGER", 1, 1.5),
        ("INTEGER", 1, b"\x01"),
        ("REAL", 1.5, "twelve"),
        ("TEXT", "a", b"\x01"),
        ("DATE", "2024-02-29", "2023-02-29"),
        ("DATE", "2024-02-29", "yesterday"),
        ("DATE", "2024-02-29", 19_000),
        ("TIMESTAMP", "2024-02-29 01:02:03", "29.02.2024"),
        ("TIME", "01:02:03", "25:00:00"),
        ("BOOLEAN", 1, 2),
        ("BOOLEAN", 0, "yes"),
        ("DECIMAL(6,2)", "1.25", "1.255"),
        ("DECIMAL(6,2)", "1.25", "10000"),
        ("DECIMAL(6,2)", "1.25", "a lot"),
        ("DECIMAL(18,2)", "1.25", "1234567890.255"),
        ("UUID", "00000000-0000-0000-0000-000000000001", "none"),
    ],
    ids=str,
)
@pytest.mark.parametrize("before", [0, 5000])
def test_a_value_that_does_not_fit_its_declared_type(
    tmp_path: Path, declared: str, good: object, bad: object, before: int
) -> None:
    """Whether it is among the first rows, from which the driver guesses types, or far behind."""
    path = tmp_path / "t.sqlite"
    with closing(sqlite3.connect(path)) as con:
        con.execute(f"CREATE TABLE t(id INTEGER, amount {declared})")
        con.executemany("INSERT INTO t VALUES (?, ?)", [(n, good) for n in range(before + 1)])
        con.commit()
        config = {"kind": "sqlite", "path": str(path)}
        assert ask(config, "SELECT amount FROM s.t").num_rows == before + 1
        con.execute("INSERT INTO t VALUES (?, ?)", (-1, bad))
        con.commit()
    error = refuses(config, "SELECT amount FROM s.t")
    assert isinstance(error, batuta_sql.DataError)
    assert '"amount"' in str(error)
    assert declared.split("(")[0] in str(error) or "BIGINT" in str(error) or "DOUBLE" in str(error)


def test_a_wrong_value_that_is_not_read_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    with closing(sqlite3.connect(path)) as con:
        con.execute("CREATE TABLE t(id INTEGER, amount INTEGER)")
        con.execute("INSERT INTO t VALUES (1, 'twelve')")
        con.commit()
    config = {"kind": "sqlite", "path": str(path)}
    assert ask(config, "SELECT id FROM s.t").to_pylist() == [{"id": 1}]
