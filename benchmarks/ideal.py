"""Runs a hand-written split of a query: the yardstick of what servers and transport allow.

The splits are data (``benchmarks/splits.py``). Steps that wait for nothing run at the same time,
each on a connection of its own that is open already; results come by the driver that Batuta uses.
``python -m benchmarks.ideal`` serves them in a process of its own (``benchmarks/serving.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import adbc_driver_postgresql.dbapi
import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.serving import serve, settings
from benchmarks.splits import HERE, Split, Step, split_of

_ARRAYS = {pa.int16(): "int2[]", pa.int32(): "int4[]", pa.int64(): "int8[]"}
_KEYS = re.compile(r"\$(\w+)\.(\w+)")


@dataclass(frozen=True)
class Pool:
    """Connections by site and settings; one that is free is taken again."""

    uris: Mapping[str, str]
    _free: dict[tuple[str, str], list[Any]] = field(default_factory=dict)

    @contextmanager
    def connection(self, site: str, options: str) -> Iterator[Any]:
        free = self._free.setdefault((site, options), [])
        try:
            taken = free.pop()
        except IndexError:
            asked = f"?options={quote(options)}" if options else ""
            taken = adbc_driver_postgresql.dbapi.connect(self.uris[site] + asked, autocommit=True)
        yield taken
        free.append(taken)

    def close(self) -> None:
        for connections in self._free.values():
            for connection in connections:
                connection.close()


def run(split: Split, pool: Pool) -> pa.Table:
    """The answer of a query."""
    done: dict[str, pa.Table] = {}
    with ThreadPoolExecutor(len(split.steps)) as threads:
        waiting = list(split.steps)
        running: dict[Future[pa.Table], Step] = {}
        while waiting or running:
            for step in [s for s in waiting if _needs(s) <= done.keys()]:
                waiting.remove(step)
                running[threads.submit(_result, step, dict(done), pool)] = step
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                done[running.pop(future).name] = future.result()
    return _here(split.answer, done)


def _needs(step: Step) -> set[str]:
    return {name for name, _ in _KEYS.findall(step.sql)} | set(step.after)


def _result(step: Step, done: Mapping[str, pa.Table], pool: Pool) -> pa.Table:
    if step.site == HERE:
        return _here(step.sql, done)
    sql = _KEYS.sub(lambda found: _array(done[found[1]].column(found[2])), step.sql)
    with pool.connection(step.site, step.options) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return _restored(cursor.fetch_arrow_table(), step.decimals)


def _array(keys: pa.ChunkedArray) -> str:
    """The keys as a literal of PostgreSQL."""
    texts = pa.concat_arrays(pc.cast(keys, pa.string()).chunks or [pa.array([], pa.string())])
    (joined,) = pc.binary_join(pa.ListArray.from_arrays([0, len(texts)], texts), ",").to_pylist()
    return f"'{{{joined}}}'::{_ARRAYS[keys.type]}"


def _restored(table: pa.Table, decimals: Mapping[str, int]) -> pa.Table:
    """The table with scaled integers as the decimals that they are: the same memory."""
    for name, scale in decimals.items():
        at = table.schema.get_field_index(name)
        chunks = [
            pa.Array.from_buffers(
                pa.decimal64(18, scale), len(c), c.buffers(), c.null_count, c.offset
            )
            for c in table.column(at).chunks
        ]
        table = table.set_column(at, name, pa.chunked_array(chunks, pa.decimal64(18, scale)))
    return table


def _here(sql: str, done: Mapping[str, pa.Table]) -> pa.Table:
    with duckdb.connect() as con:
        for name, table in done.items():
            con.register(name, table)
        return con.sql(sql).to_arrow_table()


def main() -> None:
    uris, near = settings()
    with closing(Pool(uris)) as pool:
        serve(lambda number: run(split_of(number, near), pool))


if __name__ == "__main__":
    main()
