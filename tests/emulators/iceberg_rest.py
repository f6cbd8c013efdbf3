"""A running REST catalog of Iceberg tables, and what the tests make it do.

No server of the package index serves the interface without a Java or container runtime: this one is
``iceberg_rest_server``, over pyiceberg's SQL catalog, in the tests' own environment.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyiceberg.catalog.sql import SqlCatalog

from tests.emulators.process import Emulator, running


@dataclass(frozen=True)
class RestCatalog:
    """The server, and the catalog behind it for the one who fills it."""

    emulator: Emulator
    folder: Path
    catalog: SqlCatalog

    @property
    def uri(self) -> str:
        return self.emulator.url

    def control(self, **changes: Any) -> None:
        """Sets what the server demands, vends and fails at; None takes a thing away."""
        path = self.folder / "control.json"
        known = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in known.items() if v is not None}))

    def requests(self) -> list[str]:
        """The requests so far."""
        lines = self.emulator.log.read_text().splitlines()
        return [line for line in lines if line.startswith(("GET", "HEAD", "POST"))]


@contextmanager
def rest_catalog(folder: Path, **properties: str) -> Iterator[RestCatalog]:
    """:param properties: of the catalog behind, such as ``warehouse``."""
    given = {
        "uri": f"sqlite:///{folder}/catalog.db",
        "warehouse": f"file://{folder}/warehouse",
        **properties,
    }
    catalog = SqlCatalog("default", **given)
    (folder / "control.json").write_text(json.dumps({"catalog": given}))
    server = Path(__file__).with_name("iceberg_rest_server.py")
    with running(
        "iceberg-rest",
        lambda port: [str(server), str(folder), str(port)],
        folder,
        python=Path(sys.executable),
    ) as emulator:
        yield RestCatalog(emulator, folder, catalog)
