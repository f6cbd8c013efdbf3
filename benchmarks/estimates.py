"""How far off estimates are: TPC-H over two PostgreSQL databases, fragment by fragment.

``python -m benchmarks.estimates`` prints a table of estimated and actual rows and bytes of every
fragment and the q-error of each (how many times too high or too low: 1 is right). A second pass
shows what the first one has taught. Nothing is written to the user's own history.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import batuta_sql
from batuta_sql.cli.costs import off_by
from benchmarks import tpch


@dataclass(frozen=True)
class Fragment:
    """One fragment's figures; ``number`` is the query's."""

    number: int
    name: str
    rows: int
    bytes: int
    estimated_rows: float | None
    estimated_bytes: float | None

    @property
    def rows_error(self) -> float | None:
        return off_by(self.rows, self.estimated_rows)

    @property
    def bytes_error(self) -> float | None:
        return off_by(self.bytes, self.estimated_bytes)


def measured(connection: Any) -> list[Fragment]:
    """Every fragment of the 22 queries, run once."""
    found: list[Fragment] = []
    for number in tpch.QUERIES:
        with closing(connection.cursor()) as cursor:
            cursor.execute(tpch.placed(number)[0])
            cursor.fetch_arrow_table()
            for one in cursor.metrics["fragments"]:
                estimate = one["estimate"]
                found.append(
                    Fragment(
                        number,
                        f"{one['name']} {one['source']}",
                        one["rows"],
                        one["bytes"],
                        estimate.rows,
                        estimate.bytes_delivered,
                    )
                )
    return found


def page(fragments: Sequence[Fragment]) -> list[str]:
    """A table as Markdown."""
    lines = [
        "| query | fragment | rows | estimated | off by | bytes | estimated | off by |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {f.number} | {f.name} | {f.rows:,} | {f.estimated_rows or 0:,.0f}"
        f" | {f.rows_error or 0:,.1f} | {f.bytes:,} | {f.estimated_bytes or 0:,.0f}"
        f" | {f.bytes_error or 0:,.1f} |"
        for f in fragments
    ]
    return lines


def summary(title: str, fragments: Sequence[Fragment]) -> str:
    told = []
    for what in ("rows", "bytes"):
        errors = sorted(e for f in fragments if (e := getattr(f, f"{what}_error")) is not None)
        told.append(
            f"{what}: median {statistics.median(errors):.2f},"
            f" nine of ten within {errors[int(0.9 * (len(errors) - 1))]:,.1f},"
            f" worst {errors[-1]:,.1f}"
        )
    return f"- {title}: {len(fragments)} fragments; " + "; ".join(told)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.estimates", description=__doc__)
    parser.add_argument("--scale", type=float, default=0.1, help="TPC-H scale factor")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, tpch.servers(tpch.data(wanted.scale)) as uris:
        history = str(Path(folder) / "history.sqlite")
        config = {
            "cost": {"history_file": history},
            "sources": {n: {"kind": "postgresql", "uri": uri} for n, uri in uris.items()},
        }
        with batuta_sql.connect(config) as connection:
            first = measured(connection)
        # Factors are learnt once a minute: a new connection asks at once. Three runs are enough.
        for _ in range(2):
            with batuta_sql.connect(config) as connection:
                measured(connection)
        with batuta_sql.connect(config) as connection:
            last = measured(connection)
    print("\n".join(page(first)), end="\n\n")
    print(summary("As PostgreSQL estimates", first))
    print(summary("After three runs of each query", last))


if __name__ == "__main__":
    main()
