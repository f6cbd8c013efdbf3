"""``.ald`` datasets: read whole or refused, and their permanent tags are labels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import batuta_sql
from batuta_sql import NotSupportedError, OperationalError
from batuta_sql.sources.ald_format import read_ald, write_ald

SAMPLE = Path(__file__).parent / "data" / "orders.ald"
"""Written by another program: zstd, two tags, labels of an earlier form in its schema."""

ROWS = pa.table({"id": [1, 2, None], "name": ["a", "ü", None]})
FLAGS_AT = 21


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_ald(tmp_path / "t.ald", ROWS, name="t", tags=["origin:public"])
    return tmp_path / "t.ald"


def test_what_another_program_wrote(opened: Callable[..., Any]) -> None:
    connection = opened(kind="ald", path=str(SAMPLE))
    cursor = connection.execute("SELECT * FROM s.orders")
    assert cursor.fetchall() == [(1, "a"), (2, "b"), (3, None)]
    assert all(
        c.direct >= {"origin:public", "tier:standard", "origin:huggingface.co"}
        for c in cursor.labels.values()
    )


def test_a_folder_is_a_source_and_tags_are_labels(
    dataset: Path, opened: Callable[..., Any]
) -> None:
    connection = opened(kind="ald", path=str(dataset.parent))
    cursor = connection.execute("SELECT name, count(*) AS n FROM s.t WHERE id > 0 GROUP BY name")
    assert sorted(cursor.fetchall()) == [("a", 1), ("ü", 1)]
    assert cursor.labels["n"].all == {"origin:public"}
    assert batuta_sql.read_labels(dataset).of("id").direct == {"origin:public"}


def test_tags_meet_the_rules(dataset: Path, tmp_path: Path) -> None:
    sources = {
        "open": {"kind": "ald", "path": str(dataset)},
        "own": {"kind": "ald", "path": str(dataset), "labels": ["tier:sovereign"]},
    }
    with (
        batuta_sql.connect({"sources": sources}) as connection,
        pytest.raises(batuta_sql.LabelRefused),
    ):
        connection.execute("SELECT * FROM own.t")


def test_labels_of_a_result_become_permanent(dataset: Path, opened: Callable[..., Any]) -> None:
    connection = opened(kind="ald", path=str(dataset), labels=["pii"])
    result = connection.execute("SELECT id FROM s.t").fetch_arrow_table()
    write_ald(dataset.parent / "copy.ald", result, name="copy", tags=["use:test"])
    assert read_ald(dataset.parent / "copy.ald").tags == {"origin:public", "pii", "use:test"}


def test_what_is_written_is_read(dataset: Path) -> None:
    file = read_ald(dataset)
    assert (file.rows, file.metadata["name"]) == (3, "t")
    assert file.table().equals(ROWS)


def test_a_signature_is_checked(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    path = tmp_path / "s.ald"
    write_ald(path, ROWS, name="s", signing_key=key)
    assert read_ald(path).signer == key.public_key().public_bytes_raw()
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    content[-4:] = struct.pack("<I", zlib.crc32(content[:-4]))
    path.write_bytes(content)
    with pytest.raises(OperationalError, match="signature is wrong"):
        read_ald(path)


@pytest.mark.parametrize("place", [0, 33, 80, -40, -1])
def test_a_damaged_file_is_refused(dataset: Path, place: int) -> None:
    content = bytearray(dataset.read_bytes())
    content[place] ^= 0xFF
    dataset.write_bytes(content)
    with pytest.raises(batuta_sql.Error, match=r"t\.ald"):
        read_ald(dataset).table()


@pytest.mark.parametrize("length", [0, 10, 60, 200])
def test_half_a_file_is_refused(dataset: Path, length: int) -> None:
    dataset.write_bytes(dataset.read_bytes()[:length])
    with pytest.raises(OperationalError, match=r"t\.ald"):
        read_ald(dataset)


@pytest.mark.parametrize(("flag", "words"), [(1, "encrypted"), (4, "streaming layout")])
def test_what_cannot_be_read_says_why(dataset: Path, flag: int, words: str) -> None:
    content = bytearray(dataset.read_bytes())
    content[FLAGS_AT] |= flag
    dataset.write_bytes(content)
    with pytest.raises(NotSupportedError, match=words):
        read_ald(dataset)


def test_a_source_that_is_not_there_says_so(tmp_path: Path, opened: Callable[..., Any]) -> None:
    with pytest.raises(OperationalError, match="no file or folder"):
        opened(kind="ald", path=str(tmp_path / "none")).execute("SELECT * FROM s.t")
