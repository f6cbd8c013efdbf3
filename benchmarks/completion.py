"""How long the shell takes to say what may follow.

``python -m benchmarks.completion``: a catalog of 20 sources with 500 tables of 50 columns each, all
of them known; the milliseconds of each place in a statement, median and worst of a hundred.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import pyarrow as pa
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from batuta_sql.shell.completion import CommandNames, SqlCompleter
from batuta_sql.shell.names import KnownNames

SOURCES, TABLES, COLUMNS, TIMES = 20, 500, 50, 100
PLACES = (
    "SELECT * FROM |",
    "SELECT * FROM source_7.|",
    "SELECT * FROM source_7.public.table_4|",
    "SELECT t.| FROM source_7.public.table_41 t",
    "SELECT | FROM source_7.table_41 t JOIN source_9.table_3 u ON t.column_1 = u.column_2",
    "SEL|",
)


class Catalog:
    """A connection as far as it is asked for names."""

    sources = tuple(f"source_{n}" for n in range(SOURCES))

    def tables(self, source: str | None = None) -> list[tuple[str, tuple[str, ...], str]]:
        return [(str(source), ("public", f"table_{n}"), "table") for n in range(TABLES)]

    def describe(self, name: str) -> Any:
        return pa.table({"column_name": [f"column_{n}" for n in range(COLUMNS)]})


def main() -> int:
    names = KnownNames(Catalog())
    names.refresh()
    while len(names.tables()) < SOURCES * TABLES or not names.functions:
        time.sleep(0.01)
    for table in (("source_7", "public", "table_41"), ("source_9", "public", "table_3")):
        while not names.columns(table):
            time.sleep(0.01)
    completer = SqlCompleter(names, CommandNames({}, lambda name: ()))
    event = CompleteEvent(completion_requested=True)
    for place in PLACES:
        before, _, after = place.partition("|")
        document = Document(before + after, len(before))
        found, took = [], []
        for _ in range(TIMES):
            started = time.perf_counter()
            found = list(completer.get_completions(document, event))
            took.append((time.perf_counter() - started) * 1000)
        median, worst = statistics.median(took), max(took)
        print(f"{median:6.1f} ms, {worst:6.1f} at most, {len(found):6,} offered: {place}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
