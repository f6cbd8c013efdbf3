"""Text files as lines: every one of them, or an error; never the part that could be read."""

from __future__ import annotations

import bz2
import gzip
import io
from collections.abc import Callable

import pyarrow as pa
import pytest

from batuta_sql.errors import NotSupportedError, OperationalError
from batuta_sql.sources.glue_lines import TextFile, codec_of, lines_of

ROWS = 200_000
CONTENT = "".join(f"{i},{i * 7919 % 1_000_003}\n" for i in range(ROWS)).encode()


def zstd(content: bytes) -> bytes:
    found: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return found


CODECS: list[tuple[str, Callable[[bytes], bytes]]] = [
    (".gz", gzip.compress),
    (".zst", zstd),
    (".bz2", bz2.compress),
]


def file_of(content: bytes, name: str = "x", skipped: int = 0) -> TextFile:
    return TextFile(name, lambda: pa.PythonFile(io.BytesIO(content), mode="r"), skipped)


def lines(content: bytes, name: str = "x", skipped: int = 0) -> list[str]:
    reader = lines_of("s", [file_of(content, name, skipped)])
    found: list[str] = reader.read_all().column(0).to_pylist()
    return found


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"a\r\n\r\nb\r\n", ["a", "", "b"]),
        (b' a"b\\c,\x01 \n', [' a"b\\c,\x01 ']),
        ("naïve\n".encode(), ["naïve"]),
    ],
)
def test_every_line_is_a_row(content: bytes, expected: list[str]) -> None:
    assert lines(content) == expected
    assert lines(gzip.compress(content), "x.csv.gz") == expected


@pytest.mark.parametrize("skipped", [0, 1, 3, 9])
def test_lines_at_the_head_of_each_file_are_left_out(skipped: int) -> None:
    reader = lines_of(
        "s", [file_of(b"a\n\nc\n", skipped=skipped), file_of(b"d\n", skipped=skipped)]
    )
    found = reader.read_all().to_pydict()
    expected = [(line, 0) for line in ["a", "", "c"][skipped:]] + [("d", 1)][skipped:]
    assert list(zip(found["line"], found["file_index"], strict=True)) == expected


@pytest.mark.parametrize(("suffix", "compress"), CODECS)
def test_compressed_files(suffix: str, compress: Callable[[bytes], bytes]) -> None:
    assert len(lines(compress(CONTENT), "x" + suffix)) == ROWS


@pytest.mark.parametrize(("suffix", "compress"), [CODECS[0], CODECS[2]])
def test_members_of_a_compressed_file_are_all_read(
    suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    assert lines(compress(b"a\n") + compress(b"b\n"), "x" + suffix) == ["a", "b"]


@pytest.mark.parametrize("left", [0.5, 0.999])
@pytest.mark.parametrize(("suffix", "compress"), CODECS)
def test_a_compressed_file_that_breaks_off_is_an_error(
    suffix: str, compress: Callable[[bytes], bytes], left: float
) -> None:
    content = compress(CONTENT)
    with pytest.raises(OperationalError, match=f"s: x{suffix}: Truncated"):
        lines(content[: int(len(content) * left)], "x" + suffix)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"a\xff\n", "UTF8"), (b"a\x1eb\n", "CSV parse error"), (b"\x1f\x8b\x08", "UTF8")],
)
def test_what_is_no_text_is_an_error(content: bytes, reason: str) -> None:
    with pytest.raises(OperationalError, match=f"s: x: .*{reason}"):
        lines(content)


@pytest.mark.parametrize("name", ["x.snappy", "x.csv.LZO", "x.xz", "x.zip"])
def test_a_codec_that_is_not_read_is_named(name: str) -> None:
    with pytest.raises(NotSupportedError, match="are not read"):
        codec_of(name)
