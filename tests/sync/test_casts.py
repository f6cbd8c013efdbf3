"""Which values fit in another type, which do not, and why; all held against DuckDB's own values."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batuta_sql.errors import ProgrammingError
from batuta_sql.labels import ColumnLabels, labelled_schema, labels_of_schema
from batuta_sql.sync.casts import Caster, can_be_checked, canonical_type, write_cast


def arrow(sql: str) -> pa.Table:
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        return con.sql(sql).to_arrow_table()


def texts(batch: pa.RecordBatch) -> list[tuple[Any, ...]]:
    """As DuckDB writes them: Python has no infinite dates."""
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("batch", pa.Table.from_batches([batch]))
        return con.execute("SELECT typeof(c), CAST(c AS VARCHAR) FROM batch").fetchall()


def divided(value: str, to: str) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
    (batch,) = arrow(f"SELECT {value} AS c").to_batches()
    with closing(Caster(batch.schema, {"c": to})) as caster:
        return caster.divided(batch)


FITS = [
    # Numbers written in another way are the same numbers.
    ("'7'", "INTEGER", "7"),
    ("'01'", "INTEGER", "1"),
    ("' 7 '", "INTEGER", "7"),
    ("'+7'", "INTEGER", "7"),
    ("'-7.000'", "INTEGER", "-7"),
    ("'12e1'", "INTEGER", "120"),
    ("'0'", "INTEGER", "0"),
    ("'-0.0'", "INTEGER", "0"),
    ("'100'", "DECIMAL(5,2)", "100.00"),
    ("'.5'", "DECIMAL(5,2)", "0.50"),
    ("'1.50'", "DECIMAL(5,1)", "1.5"),
    ("'0.1'", "DOUBLE", "0.1"),
    ("'1e300'", "DOUBLE", "1e300"),
    ("'0.1'", "FLOAT", "0.1"),
    ("'NaN'", "DOUBLE", "'nan'"),
    ("'-Infinity'", "DOUBLE", "'-inf'"),
    ("7.0::DOUBLE", "INTEGER", "7"),
    ("0.1::DOUBLE", "DECIMAL(10,2)", "0.10"),
    ("0.1::DECIMAL(10,2)", "DOUBLE", "0.1"),
    ("(2::BIGINT ** 53)::BIGINT", "DOUBLE", "9007199254740992"),
    ("0.5::DOUBLE", "FLOAT", "0.5"),
    ("'nan'::DOUBLE", "FLOAT", "'nan'"),
    ("300::INTEGER", "SMALLINT", "300"),
    ("1.50::DECIMAL(10,2)", "DECIMAL(3,1)", "1.5"),
    ("9.5::DECIMAL(10,2)", "VARCHAR", "'9.50'"),
    ("TRUE", "INTEGER", "1"),
    ("1", "BOOLEAN", "TRUE"),
    ("'t'", "BOOLEAN", "TRUE"),
    ("'FALSE'", "BOOLEAN", "FALSE"),
    ("'2024-05-01'", "DATE", "'2024-05-01'"),
    ("'2024-5-1'", "DATE", "'2024-05-01'"),
    ("'2024-05-01 00:00:00'", "DATE", "'2024-05-01'"),
    ("'infinity'", "DATE", "'infinity'"),
    ("TIMESTAMP '2024-05-01 00:00:00'", "DATE", "'2024-05-01'"),
    ("DATE '2024-05-01'", "TIMESTAMP", "'2024-05-01 00:00:00'"),
    ("'2024-05-01T12:00:00.5'", "TIMESTAMP", "'2024-05-01 12:00:00.5'"),
    ("'2024-05-01 12:00:00.123456000'", "TIMESTAMP", "'2024-05-01 12:00:00.123456'"),
    ("'2024-05-01 12:00:00+02'", "TIMESTAMP WITH TIME ZONE", "'2024-05-01 10:00:00+00'"),
    ("'2024-05-01 12:00:00 UTC'", "TIMESTAMP WITH TIME ZONE", "'2024-05-01 12:00:00+00'"),
    ("'infinity'", "TIMESTAMP WITH TIME ZONE", "'infinity'"),
    ("TIMESTAMPTZ '2024-05-01 12:00:00+02'", "VARCHAR", "'2024-05-01 10:00:00+00'"),
    ("TIMESTAMPTZ '2024-05-01 12:00:00+02'", "TIMESTAMP", "'2024-05-01 10:00:00'"),
    ("'10:30'", "TIME", "'10:30:00'"),
    ("[1, NULL]::BIGINT[]", "INTEGER[]", "[1, NULL]"),
    ("{'a': 1::BIGINT}", "STRUCT(a INTEGER)", "{'a': 1}"),
    ("{'a': 1}", "STRUCT(a INTEGER, b VARCHAR)", "{'a': 1, 'b': NULL}"),
    ("MAP {'k': 1::BIGINT}", "MAP(VARCHAR, INTEGER)", "MAP {'k': 1}"),
    ("'[1, 2]'", "INTEGER[]", "[1, 2]"),
    ("'a'", "ENUM('a', 'b')", "'a'"),
    ("'x'::BLOB", "VARCHAR", "'x'"),
    ("'äöü'", "VARCHAR(3)", "'äöü'"),
    ("12.5::DECIMAL(4,1)", "VARCHAR(4)", "'12.5'"),
]


@pytest.mark.parametrize(("value", "to", "expected"), FITS)
def test_a_value_that_is_the_same_fits(value: str, to: str, expected: str) -> None:
    fits, others = divided(value, to)
    assert others is None
    (wanted,) = arrow(f"SELECT CAST({expected} AS {to}) AS c").to_batches()
    assert fits.schema.types == wanted.schema.types
    assert texts(fits) == texts(wanted)


DOES_NOT_FIT = [
    ("'x'", "INTEGER", '"x" is not a number'),
    ("''", "INTEGER", '"" is not a number'),
    ("'0x1F'", "INTEGER", '"0x1F" is not a number'),
    ("'1_000'", "INTEGER", '"1_000" is not a number'),
    ("'nan'", "INTEGER", '"nan" is not a number'),
    ("'1.5'", "INTEGER", '"1.5" would become 2'),
    ("'0.4'", "INTEGER", '"0.4" would become 0'),
    ("'9.99'", "INTEGER", '"9.99" would become 10'),
    ("'3000000000'", "INTEGER", '"3000000000" does not fit in INTEGER'),
    ("'-1'", "UTINYINT", '"-1" does not fit in UTINYINT'),
    ("'1.005'", "DECIMAL(5,2)", '"1.005" would become 1.01'),
    ("'12345'", "DECIMAL(5,2)", '"12345" does not fit in DECIMAL(5,2)'),
    ("'nan'", "DECIMAL(5,2)", '"nan" is not a number'),
    ("'12345678901234567890.5'", "DOUBLE", '"12345678901234567890.5" would become 1.'),
    ("'1e400'", "DOUBLE", '"1e400" would become inf'),
    ("'1e-400'", "DOUBLE", '"1e-400" would become 0.0'),
    ("'16777217'", "FLOAT", '"16777217" would become 16777216.0'),
    ("1.5::DOUBLE", "INTEGER", "1.5 would become 2"),
    ("1.5::DECIMAL(4,1)", "INTEGER", "1.5 would become 2"),
    ("'nan'::DOUBLE", "INTEGER", "nan does not fit in INTEGER"),
    ("'inf'::DOUBLE", "DECIMAL(10,2)", "inf does not fit in DECIMAL(10,2)"),
    ("0.125::DOUBLE", "DECIMAL(10,2)", "0.125 would become 0.13"),
    ("0.1::DOUBLE", "FLOAT", "0.1 would become 0.1"),
    ("9007199254740993::BIGINT", "DOUBLE", "9007199254740993 would become 9007199254740992.0"),
    ("9223372036854775807::BIGINT", "DOUBLE", "9223372036854775807 would become"),
    ("3000000000::BIGINT", "INTEGER", "3000000000 does not fit in INTEGER"),
    ("1.234::DECIMAL(10,3)", "DECIMAL(10,2)", "1.234 would become 1.23"),
    ("2", "BOOLEAN", "2 would become true"),
    ("'maybe'", "BOOLEAN", '"maybe" cannot be read as BOOLEAN'),
    ("'yesterday'", "DATE", '"yesterday" cannot be read as DATE'),
    ("'2024-02-30'", "DATE", '"2024-02-30" cannot be read as DATE'),
    ("'2024-05-01 12:00:00'", "DATE", '"2024-05-01 12:00:00" would become 2024-05-01'),
    ("'2024-05-01 00:00:00+02'", "DATE", "has a time zone, and DATE has none"),
    (
        "TIMESTAMP '2024-05-01 00:00:00.000001'",
        "DATE",
        "2024-05-01 00:00:00.000001 would become 2024-05-01",
    ),
    ("TIMESTAMPTZ '2024-05-01 00:00:00+02'", "DATE", "would become 2024-04-30"),
    ("'2024-05-01 12:00:00+02'", "TIMESTAMP", "has a time zone, and TIMESTAMP has none"),
    ("'2024-05-01T12:00:00Z'", "TIMESTAMP", "has a time zone, and TIMESTAMP has none"),
    ("'2024-05-01 12:00:00.1234567'", "TIMESTAMP", "would become 2024-05-01 12:00:00.123456"),
    ("'2024-05-01 12:00:00.5'", "TIMESTAMP_S", "would become 2024-05-01 12:00:0"),
    ("'2024-05-01 12:00:00'", "TIMESTAMP WITH TIME ZONE", "does not say its time zone"),
    ("'2024-05-01'", "TIMESTAMP WITH TIME ZONE", "does not say its time zone"),
    ("'2024-05-01 12:00:00'", "TIME", "is not a time of day alone"),
    ("'12:00:00+02'", "TIME", "is not a time of day alone"),
    ("[1, 3000000000]::BIGINT[]", "INTEGER[]", "[1, 3000000000] "),
    ("['1', 'x']", "INTEGER[]", "would become [1, NULL]"),
    ("{'a': 1, 'b': 'x'}", "STRUCT(a INTEGER)", "would become {'a': 1}"),
    ("'[1,2]'", "INTEGER[]", '"[1,2]" would become [1, 2]'),
    ("'c'", "ENUM('a', 'b')", "cannot be read as ENUM('a', 'b')"),
    ("'{'", "JSON", '"{" cannot be read as JSON'),
    ("'7'", "UUID", '"7" cannot be read as UUID'),
    ("'äöü!'", "VARCHAR(3)", '"äöü!" is longer than 3 characters'),
    ("1234::INTEGER", "VARCHAR(3)", '"1234" is longer than 3 characters'),
]


@pytest.mark.parametrize(("value", "to", "reason"), DOES_NOT_FIT)
def test_a_value_that_would_be_another_does_not_fit(value: str, to: str, reason: str) -> None:
    fits, others = divided(value, to)
    assert fits.num_rows == 0
    assert others is not None
    ((arrived, column, told),) = [tuple(r.values()) for r in others.to_pylist()]
    assert column == "c"
    assert reason in told
    assert repr(arrived) == repr(arrow(f"SELECT {value} AS c").to_pylist()[0]["c"])


@pytest.mark.parametrize("of", ["VARCHAR", "DOUBLE", "TIMESTAMP", "INTEGER[]", "STRUCT(a BIGINT)"])
@pytest.mark.parametrize("to", ["INTEGER", "DATE", "VARCHAR", "BIGINT[]", "STRUCT(a INTEGER)"])
def test_null_fits_everywhere(of: str, to: str) -> None:
    fits, others = divided(f"NULL::{of}", to)
    assert fits.to_pylist() == [{"c": None}]
    assert others is None


def test_rows_are_told_apart_in_their_order_and_other_columns_stay() -> None:
    rows = arrow(
        "SELECT i AS id, CASE WHEN i % 7 = 0 THEN 'x' || i ELSE i::VARCHAR END AS n,"
        " {'deep': [i]} AS other FROM range(10000) t(i)"
    )
    (batch,) = rows.combine_chunks().to_batches()
    with closing(Caster(batch.schema, {"n": "BIGINT"})) as caster:
        fits, others = caster.divided(batch)
    assert others is not None
    assert fits.to_pylist() == [
        {"id": i, "n": i, "other": {"deep": [i]}} for i in range(10000) if i % 7
    ]
    assert [(r["id"], r["n"], r["other"]) for r in others.to_pylist()] == [
        (i, f"x{i}", {"deep": [i]}) for i in range(0, 10000, 7)
    ]


def test_several_columns_that_do_not_fit_are_one_row_of_the_rejects() -> None:
    (batch,) = arrow("SELECT 'x' AS a, 1.5 AS b, '7' AS c").to_batches()
    with closing(Caster(batch.schema, dict.fromkeys("abc", "INTEGER"))) as caster:
        _, others = caster.divided(batch)
    assert others is not None
    (row,) = others.to_pylist()
    assert row["rejected_column"] == "a, b"
    assert row["rejected_reason"] == '"x" is not a number; 1.5 would become 2'


def test_a_long_value_is_shown_in_part() -> None:
    _, others = divided("repeat('y', 1000)", "INTEGER")
    assert others is not None
    (row,) = others.to_pylist()
    assert len(row["rejected_reason"]) < 100
    assert row["c"] == "y" * 1000


def test_names_of_the_source_are_not_taken() -> None:
    (batch,) = arrow("SELECT 'x' AS a, 'mine' AS \"Rejected_Reason\"").to_batches()
    with closing(Caster(batch.schema, {"a": "INTEGER"})) as caster:
        _, others = caster.divided(batch)
    assert others is not None
    assert others.schema.names == ["a", "Rejected_Reason", "rejected_column", "rejected_reason_"]
    assert others.to_pylist()[0]["Rejected_Reason"] == "mine"


def test_rejects_have_the_labels_of_their_columns_and_reasons_those_of_what_they_tell() -> None:
    bare = pa.schema([("secret", pa.string()), ("open", pa.int64())])
    pii = ColumnLabels(frozenset({"pii"}))
    schema = labelled_schema(bare, [pii, ColumnLabels()], frozenset({"origin:crm"}))
    with closing(Caster(schema, {"secret": "INTEGER"})) as caster:
        found = labels_of_schema(caster.rejects_schema)
        assert labels_of_schema(caster.schema).of("secret").direct == {"pii"}
    assert found.of("secret").direct == {"pii"}
    assert found.of("rejected_reason").direct == {"pii"}
    assert found.of("rejected_column").direct == {"pii"}
    assert found.of("open").direct == frozenset()
    assert found.rows == {"origin:crm"}


def test_casts_mean_the_same_in_every_time_zone() -> None:
    code = (
        "from tests.sync.test_casts import divided\n"
        "print(divided(\"TIMESTAMPTZ '2024-05-01 12:00:00+02'\", 'VARCHAR')[0].to_pylist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"TZ": "Asia/Tokyo", "PYTHONPATH": ":".join(sys.path)},
    )
    assert "2024-05-01 10:00:00+00" in done.stdout, done.stderr


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    batches = arrow("SELECT unnest(['1', 'x', '2']) AS c").to_batches()
    places = tmp_path / "fits.parquet", tmp_path / "rejects.parquet"

    def breaks(batch: Any) -> None:
        raise KeyboardInterrupt

    with closing(Caster(batches[0].schema, {"c": "INTEGER"})) as caster:
        with pytest.raises(KeyboardInterrupt):
            write_cast(*places, caster, [*batches, *batches], breaks)
        assert list(tmp_path.iterdir()) == []
        written, rejected = write_cast(*places, caster, [*batches, *batches], lambda b: None)
        assert rejected is not None
        assert (written.rows, rejected.rows) == (4, 2)
        assert pq.read_table(places[0]).column("c").to_pylist() == [1, 2, 1, 2]
        assert pq.read_table(places[1]).column("c").to_pylist() == ["x", "x"]
        good = [b.filter(pa.array([True, False, True])) for b in batches]
        places = tmp_path / "b.parquet", tmp_path / "none.parquet"
        assert write_cast(*places, caster, good, lambda b: None)[1] is None
        assert not places[1].exists()


def test_types_are_those_of_duckdb() -> None:
    assert canonical_type("int") == "INTEGER"
    assert canonical_type("numeric(12, 2)") == "DECIMAL(12,2)"
    assert canonical_type("struct(a int)") == "STRUCT(a INTEGER)"
    for wrong in ("nothing", "DECIMAL(50,2)", "INTEGER); DROP TABLE x", ""):
        with pytest.raises(ProgrammingError, match="is no type of DuckDB"):
            canonical_type(wrong)


@pytest.mark.parametrize(
    ("of", "to", "can"),
    [
        ("VARCHAR", "INTEGER", True),
        ("DATE", "TIMESTAMP", True),
        ("DOUBLE", "DECIMAL(12,2)", True),
        ("BIGINT[]", "INTEGER[]", True),
        ("UUID", "VARCHAR", True),
        ("DATE", "INTEGER", False),
        ("INTEGER", "DATE", False),
        ("BOOLEAN", "DATE", False),
        # The day would be lost, and there is no way back that would tell.
        ("TIMESTAMP", "TIME", False),
    ],
)
def test_casts_that_there_are_not_are_known_beforehand(of: str, to: str, can: bool) -> None:
    assert can_be_checked(of, to) == can
