"""The stand of the source that docs/writing-a-source.md writes, installed from the page."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from tests.conformance.stand import Stand, Table

PAGE = Path(__file__).parents[3] / "docs" / "writing-a-source.md"
MODULE = "batuta_zipped"


def blocks(language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )


def install(folder: Path) -> None:
    """What ``pip install`` leaves of the page's two files: the module, and its entry points."""
    source, *_ = blocks("python")
    project = tomllib.loads(blocks("toml")[0])["project"]
    (folder / f"{MODULE}.py").write_text(source)
    about = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines: list[str] = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")


@contextmanager
def zipped(folder: Path, fixture: Any) -> Iterator[Stand]:
    """Arrow files in an archive, of a kind that is not Batuta's."""
    packages, archive = folder / "packages", folder / "s.zip"
    packages.mkdir()
    install(packages)

    def load(truth: duckdb.DuckDBPyConnection, table: Table) -> None:
        rows = truth.sql(f'FROM "{table.name}"').to_arrow_table()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, rows.schema) as file:
            file.write_table(rows)
        with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as target:
            target.writestr(f"{table.name}.arrow", sink.getvalue().to_pybytes())

    sys.path.insert(0, str(packages))
    importlib.invalidate_caches()
    try:
        yield Stand(
            kind="zipped",
            settings={"kind": "zipped", "path": str(archive), "locality": "local"},
            prefix=(),
            load=load,
            # Arrow's own types: what DuckDB writes of these is text.
            types={"UUID": "VARCHAR", "JSON": "VARCHAR"},
            limits={"mid-stream error": "there is no connection that could break"},
        )
    finally:
        sys.path.remove(str(packages))
        sys.modules.pop(MODULE, None)
