"""The stand of Hugging Face datasets: Parquet files behind a stand-in of the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from tests.conformance.stand import Stand, Table
from tests.emulators.hub import hub_emulator

COMMIT, TOKEN = "c" * 40, "hub-token-0815"


@contextmanager
def huggingface(folder: Path, fixture: Any) -> Iterator[Stand]:
    with hub_emulator(folder) as hub:
        # A private one: a public dataset's columns have a label of their own.
        hub.repo("lab/data", private=True, token=TOKEN)
        hub.commit("lab/data", COMMIT, {"README.md": b"# data"})
        target = hub.root / "lab/data" / COMMIT / "data"
        target.mkdir()

        def load(truth: duckdb.DuckDBPyConnection, table: Table) -> None:
            truth.execute(
                f"COPY \"{table.name}\" TO '{target / table.name}.parquet' (FORMAT parquet)"
            )

        yield Stand(
            kind="huggingface",
            settings=hub.settings("lab/data", token=TOKEN),
            prefix=(),
            load=load,
            limits={"mid-stream error": "tests/sources/test_huggingface.py has its own"},
        )
