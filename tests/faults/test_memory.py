"""Memory stays within its bound: joins spill, streams stream. Each runs in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer
from tests.conftest import ROOT

ROWS = 1_500_000
"""Rows of about 200 bytes: 300 MB of Arrow."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="getrusage counts in KiB on Linux")


@pytest.fixture(scope="module")
def wide_uri(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database("memory") as uri:
        postgres.run(
            "CREATE UNLOGGED TABLE wide AS SELECT id, repeat(md5(id::text), 6) AS filler"
            f" FROM generate_series(1, {ROWS}) s(id)",
            uri.rsplit("/", 1)[1],
        )
        yield uri


def peak_of(work: str, uri: str, folder: Path) -> tuple[dict[str, int], int]:
    """What ``work`` puts into ``result``, and how many MB the process grew by at its peak."""
    program = textwrap.dedent(
        """
        import json, resource, sys
        import duckdb, pyarrow, sqlglot
        import batuta_sql

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

        def connect(limit):
            source = {"kind": "postgresql", "uri": sys.argv[1]}
            return batuta_sql.connect(
                {
                    "sources": {"a": source, "b": source},
                    "memory_limit": limit,
                    "temp_directory": sys.argv[2],
                    "threads": 2,
                }
            )

        with connect("200MB") as warm:
            warm.execute("SELECT max(id) AS m FROM a.public.wide").fetch_arrow_table()
        before, result = peak(), {}
        """
    )
    program += textwrap.dedent(work)
    program += "\nprint(json.dumps([result, peak() - before]))\n"
    done = subprocess.run(
        [sys.executable, "-c", program, uri, str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result, grown = json.loads(done.stdout.splitlines()[-1])
    return result, grown


def test_a_join_of_two_results_larger_than_memory_spills(wide_uri: str, tmp_path: Path) -> None:
    result, grown = peak_of(
        """
        with connect("200MB") as connection:
            cursor = connection.execute(
                "SELECT count(*) AS n, count(DISTINCT x.id) AS d, sum(length(x.filler || y.filler))"
                " AS s FROM a.public.wide x JOIN b.public.wide y ON x.filler = y.filler"
            )
            result = {k: int(v) for k, v in cursor.fetch_arrow_table().to_pylist()[0].items()}
        """,
        wide_uri,
        tmp_path,
    )
    assert result == {"n": ROWS, "d": ROWS, "s": ROWS * 2 * 192}
    # The two results alone are 600 MB; the bound is the limit and the buffers around it.
    assert grown < 450, f"the process grew by {grown} MB"
    assert not list(tmp_path.iterdir()), "what was spilled is left behind"


def test_a_stream_is_never_held_as_a_whole(wide_uri: str, tmp_path: Path) -> None:
    result, grown = peak_of(
        """
        with connect("200MB") as connection:
            cursor = connection.execute("SELECT id, filler FROM a.public.wide")
            rows = 0
            for batch in cursor.fetch_record_batch():
                rows += batch.num_rows
            result = {"rows": rows}
        """,
        wide_uri,
        tmp_path,
    )
    assert result == {"rows": ROWS}
    # Whatever the engine may use and the prefetch, but not the 300 MB of the result.
    assert grown < 240, f"the process grew by {grown} MB"


def test_a_slow_reader_holds_the_source_back(wide_uri: str, tmp_path: Path) -> None:
    """Rows wait at the server, not here, while nobody takes them."""
    result, grown = peak_of(
        """
        import time
        with connect("200MB") as connection:
            cursor = connection.execute("SELECT id, filler FROM a.public.wide")
            reader = cursor.fetch_record_batch()
            reader.read_next_batch()
            time.sleep(3)
            result = {"waiting": 1}
            cursor.close()
        """,
        wide_uri,
        tmp_path,
    )
    assert result == {"waiting": 1}
    # Whatever the engine may use and the prefetch, but not the 300 MB of the result.
    assert grown < 240, f"the process grew by {grown} MB"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_one_clear_error(wide_uri: str, small_disk: Path) -> None:
    source = {"kind": "postgresql", "uri": wide_uri}
    with batuta_sql.connect(
        {
            "sources": {"a": source, "b": source},
            "memory_limit": "100MB",
            "temp_directory": str(small_disk / "spill"),
        }
    ) as connection:
        with pytest.raises(batuta_sql.OperationalError, match="offload|disk|space|temp_directory"):
            connection.execute(
                "SELECT count(*) FROM a.public.wide x JOIN b.public.wide y"
                " ON x.id = y.id AND x.filler || '' = y.filler || reverse('')"
            ).fetchall()
        count = "SELECT count(*) FROM a.public.wide WHERE id < 5"
        assert connection.execute(count).fetchall() == [(4,)]
