"""Field cases and moved bytes beside DuckDB and Ibis, for ``docs/comparison.md``.

``python -m benchmarks.compared --ibis PYTHON`` prints the two tables of the page; PYTHON
is that of an environment with ``ibis-framework[duckdb,postgres]``. Nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer
from benchmarks import tpch
from benchmarks.link import Link, link
from benchmarks.reads import READS
from tests.field_cases.format import CaseFile, QueryBlock, read_case_file, render_row
from tests.field_cases.sources import build

CASES = [
    read_case_file(file)
    for file in sorted((tpch.ROOT / "tests" / "field_cases" / "cases").glob("*.test"))
]
COUNTED = (3, 5, 6, 10, 12, 18)
"""TPC-H queries whose bytes are counted: joins of both databases, and one over a single table."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.compared", description=__doc__)
    parser.add_argument("--ibis", type=Path, required=True, help="a Python with Ibis")
    parser.add_argument("--scale", type=float, default=1, help="TPC-H scale factor")
    parser.add_argument("--data", type=Path, help="a folder of TPC-H Parquet files, else made")
    wanted = parser.parse_args()
    print("\n".join(_field_cases()))
    print()
    print("\n".join(_bytes(wanted.ibis, wanted.data or tpch.data(wanted.scale))))


# --- field cases -------------------------------------------------------------------------------


def _field_cases() -> Iterable[str]:
    right: Counter[tuple[str, str]] = Counter()
    asked: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    with PostgresServer() as server, tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            place = Path(folder) / case.name
            place.mkdir()
            with ExitStack() as cleanup:
                config = build(case, place, lambda: server, cleanup)
                for peer, answers in _answers(config["sources"], case).items():
                    for query, told in answers:
                        asked[case.name, peer] += 1
                        if _is_right(query, told):
                            right[case.name, peer] += 1
                        else:
                            wrong.append(f"{peer}: {case.name}:{query.line}: {_seen(told)}")
    yield "| field cases | Batuta | DuckDB |"
    yield "| --- | ---: | ---: |"
    for name in [*(c.name for c in CASES), "all"]:
        names = [c.name for c in CASES] if name == "all" else [name]
        cells = [
            f"{sum(right[n, peer] for n in names)} of {sum(asked[n, peer] for n in names)}"
            for peer in ("Batuta", "DuckDB")
        ]
        yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""
    yield from wrong


def _answers(sources: Any, case: CaseFile) -> dict[str, list[tuple[QueryBlock, Any]]]:
    """What each peer says. DuckDB is not asked about Delta tables: their extension is not here."""
    delta = [name for name, settings in sources.items() if settings["kind"] == "delta"]
    others = {name: settings for name, settings in sources.items() if name not in delta}
    queries = [q for q in case.queries if not any(f"{name}." in q.sql for name in delta)]
    with closing(batuta_sql.connect({"sources": sources})) as connection:
        ours = [(q, _ours(connection, q.sql)) for q in case.queries]
    told = _asked(tpch.TPC_PYTHON, [others, [q.sql for q in queries]])
    return {"Batuta": ours, "DuckDB": list(zip(queries, told, strict=True))}


def _ours(connection: Any, sql: str) -> Any:
    try:
        return {"rows": [render_row(row) for row in connection.execute(sql).fetchall()]}
    except batuta_sql.Error as error:
        return {"error": str(error)}


def _asked(python: Path, question: Any) -> Any:
    done = subprocess.run(
        [str(python), "-m", "benchmarks.serve_field_cases"],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        cwd=tpch.ROOT,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def _is_right(query: QueryBlock, told: Mapping[str, Any]) -> bool:
    if "error" in told:
        return query.error and query.error_mismatch(told["error"]) is None
    if query.error:
        return False
    rows, expected = list(told["rows"]), list(query.expected)
    return (sorted(rows) == sorted(expected)) if query.rowsort else rows == expected


def _seen(told: Mapping[str, Any]) -> str:
    return str(told.get("error") or told.get("rows"))[:150].replace("\n", " ")


# --- bytes -------------------------------------------------------------------------------------

_IBIS = """
import json, sys, ibis, duckdb
uris, sql, reads = json.loads(sys.stdin.read())
backends = {n: ibis.connect(u.replace("postgresql://", "postgres://")) for n, u in uris.items()}
con = duckdb.connect()
for table, (home, text) in reads.items():
    con.register(table, backends[home].sql(text).to_pyarrow())
print(len(con.execute(sql).fetchall()))
"""


def _bytes(ibis: Path, data: Path) -> Iterable[str]:
    yield "| TPC-H | Batuta, MB | DuckDB, MB | Ibis, MB |"
    yield "| ---: | ---: | ---: | ---: |"
    homes = {table: home for home, tables in tpch.HOMES.items() for table in tables}
    with tpch.servers(data) as uris:
        port = urlsplit(next(iter(uris.values()))).port
        assert port is not None
        with link("127.0.0.1", port, None, 0.0) as counter:
            through = {name: counter.uri(uri) for name, uri in uris.items()}
            with tpch.connect(through) as connection:
                for number in COUNTED:
                    sql, _ = tpch.placed(number)
                    plain = tpch.query_text("tpch", number)
                    reads = {r.table: (homes[r.table], r.sql) for r in READS[number]}
                    connection.execute(sql).fetchall()
                    duckdb_settings = [[{}, through], [sql, None]]
                    moved = [
                        _moved(counter, lambda s=sql: connection.execute(s).fetchall()),
                        _moved(
                            counter,
                            lambda d=duckdb_settings: _told(
                                [str(tpch.TPC_PYTHON), "-m", "benchmarks.serve_duckdb"],
                                "\n".join(json.dumps(line) for line in d) + "\n",
                            ),
                        ),
                        _moved(
                            counter,
                            lambda p=plain, r=reads: _told(
                                [str(ibis), "-c", _IBIS], json.dumps([through, p, r])
                            ),
                        ),
                    ]
                    yield f"| {number} | " + " | ".join(f"{m / 1e6:.2f}" for m in moved) + " |"


def _moved(counter: Link, work: Callable[[], object]) -> int:
    before = counter.carried().both
    work()
    return counter.carried().both - before


def _told(command: Sequence[str], text: str) -> str:
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, cwd=tpch.ROOT, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


if __name__ == "__main__":
    main()
