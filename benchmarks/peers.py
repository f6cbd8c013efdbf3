"""What Batuta is measured against, each in a process of its own.

DuckDB 1.5.5 with its postgres extension runs the same queries on the same servers. ConnectorX reads
what each query needs of each table, and DuckDB joins that. By hand: splits that a person has found
(``benchmarks/splits.py``), the yardstick of what servers and transport allow. The floor is DuckDB
1.5.5 with all tables in memory here: what is left when nothing is moved at all.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.link import Link
from benchmarks.reads import READS
from benchmarks.tpch import HOMES, QUERIES, ROOT, TPC_PYTHON, placed
from tests.comparison import answer_of, difference
from tests.tpc.placements import query_text

CONNECTORX_PYTHON = ROOT / ".cache" / "venv-connectorx" / "bin" / "python"


@dataclass(frozen=True)
class PeerMeasured:
    """One query of a peer.

    :param seconds: the median of its runs.
    :param wire: bytes of one run over the link.
    :param answer: the file with its answer.
    """

    seconds: float
    wire: int
    answer: Path


class PeerFailed(Exception):
    """What the peer said last."""


@dataclass(frozen=True)
class Peer:
    """A running peer (``benchmarks/serving.py``)."""

    _process: subprocess.Popen[str]

    def seconds(self, question: Any, into: Path | None = None) -> float:
        """Runs a query to its last row; the answer is written to a file where one is given."""
        return float(self._ask([question, None if into is None else str(into)]))

    def _ask(self, message: Any) -> str:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            assert process.stderr is not None
            raise PeerFailed((process.stderr.read().strip().splitlines() or ["it ended"])[-1])
        return answer


@contextmanager
def _running(python: Path, module: str, settings: Any) -> Iterator[Peer]:
    pipe = subprocess.PIPE
    command = [str(python), "-m", f"benchmarks.{module}"]
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT
    ) as process:
        try:
            peer = Peer(process)
            peer._ask(settings)
            yield peer
        finally:
            process.kill()


@dataclass(frozen=True)
class Kind:
    """A peer that reads from the servers.

    :param settings: what its process is told, of the URIs and whether they are of loopback.
    :param question: what it is asked for a query.
    :param warm: it keeps connections, so a first run is not like the next.
    :param most_runs: of a peer so slow that more would take too long.
    """

    name: str
    python: Path
    module: str
    settings: Callable[[Mapping[str, str], bool], Any]
    question: Callable[[int], Any]
    warm: bool
    most_runs: int | None = None


def _reads(number: int) -> Any:
    homes = {table: home for home, tables in HOMES.items() for table in tables}
    reads = {r.table: (homes[r.table], r.sql, r.partition_on) for r in READS[number]}
    return [query_text("tpch", number), reads]


KINDS = (
    Kind(
        "DuckDB",
        TPC_PYTHON,
        "serve_duckdb",
        lambda uris, _: [{}, dict(uris)],
        lambda number: placed(number)[0],
        warm=False,
    ),
    Kind(
        "ConnectorX",
        CONNECTORX_PYTHON,
        "serve_connectorx",
        lambda uris, _: dict(uris),
        _reads,
        warm=False,
        most_runs=1,
    ),
    Kind(
        "by hand",
        Path(sys.executable),
        "ideal",
        lambda uris, near: [dict(uris), near],
        lambda number: number,
        warm=True,
    ),
)


def measured(
    kind: Kind,
    uris: Mapping[str, str],
    counted: Mapping[str, str],
    link: Link,
    runs: int,
    folder: Path,
) -> dict[int, PeerMeasured]:
    """A peer on each query.

    :param counted: the same databases through ``link``, for one run whose bytes are counted; with
        one run over a slow link that is the run.
    :param folder: where its answers go.
    """
    near = counted != uris
    through_only = not near and runs == 1
    found: dict[int, PeerMeasured] = {}

    def started(to: Mapping[str, str]) -> Any:
        return _running(kind.python, kind.module, kind.settings(to, near))

    with started(counted) as through, started(uris) as direct:
        for number in QUERIES:
            question = kind.question(number)
            answer = folder / f"{kind.module}-{number:02}.arrow"
            if kind.warm:
                through.seconds(question)
            before = link.carried().both
            taken = through.seconds(question, answer)
            wire = link.carried().both - before
            if not through_only:
                direct.seconds(question)
                wanted = min(runs, kind.most_runs or runs)
                taken = statistics.median(direct.seconds(question) for _ in range(wanted))
            found[number] = PeerMeasured(taken, wire, answer)
    return found


def differs(number: int, ours: pa.Table, theirs: Path) -> str | None:
    """None where a peer's answer is Batuta's."""
    with pa.OSFile(str(theirs)) as source, pa.ipc.open_file(source) as reader:
        told = answer_of(reader.read_all())
    return difference(told, answer_of(ours), query_text("tpch", number))


def floor(folder: Path, homes: Mapping[str, tuple[str, ...]], runs: int) -> dict[int, float]:
    """Seconds of each query with every table here already."""
    tables = {h: {n: str(folder / f"{n}.parquet") for n in names} for h, names in homes.items()}
    found: dict[int, float] = {}
    with _running(TPC_PYTHON, "serve_duckdb", [tables, {}]) as here:
        for number in QUERIES:
            sql = placed(number)[0]
            here.seconds(sql)
            found[number] = statistics.median(here.seconds(sql) for _ in range(runs))
    return found
