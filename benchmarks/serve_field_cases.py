"""The field cases under DuckDB's own scanners, in a process of its own.

Reads ``[sources, queries]`` as JSON from stdin; writes for each query its rows as in the case
files, or its error. Needs nothing but the standard library and DuckDB with its extensions.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from tests.field_cases.format import render_row


def main() -> None:
    sources, queries = json.loads(sys.stdin.read())
    answer = _duckdb(sources)
    told: list[Any] = []
    for sql in queries:
        try:
            told.append({"rows": [render_row(row) for row in answer(sql)]})
        except Exception as error:
            told.append({"error": str(error)})
    print(json.dumps(told))


def _duckdb(sources: Any) -> Any:
    """DuckDB with each source attached; files as views over its own readers."""
    duckdb = importlib.import_module("duckdb")
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    for kind in ("postgres", "sqlite"):
        package = importlib.import_module(f"duckdb_extension_{kind}_scanner")
        folder = Path(str(package.__file__)).parent / "extensions"
        (binary,) = folder.rglob("*.duckdb_extension")
        con.execute(f"LOAD '{binary}'")
    for name, settings in sources.items():
        match settings["kind"]:
            case "postgresql":
                con.execute(f"ATTACH '{settings['uri']}' AS {name} (TYPE postgres, READ_ONLY)")
            case "sqlite":
                con.execute(f"ATTACH '{settings['path']}' AS {name} (TYPE sqlite, READ_ONLY)")
            case "duckdb":
                con.execute(f"ATTACH '{settings['path']}' AS {name} (READ_ONLY)")
            case "files":
                con.execute(f"CREATE SCHEMA {name}")
                for file in sorted(Path(settings["path"]).iterdir()):
                    con.execute(f"CREATE VIEW {name}.\"{file.stem}\" AS FROM '{file}'")
            case kind:
                raise SystemExit(f"a source of the kind {kind} cannot be attached here")
    return lambda sql: con.execute(sql).fetchall()


if __name__ == "__main__":
    main()
