"""A Databricks workspace on loopback: minilake, as ``databricks_server.py`` completes it."""

from __future__ import annotations

import itertools
import json
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.emulators.process import Emulator, running

SERVER = Path(__file__).with_name("databricks_server.py")
TOKEN = "dapi-0123456789abcdef"
CLIENT_ID, CLIENT_SECRET = "principal", "m2m-secret"
CATALOG = "lab"

_numbers = itertools.count()


@dataclass(frozen=True)
class Workspace:
    """A running workspace with a warehouse and the catalog ``lab``."""

    emulator: Emulator
    warehouse: str

    @property
    def url(self) -> str:
        return self.emulator.url

    def settings(self, **more: Any) -> dict[str, Any]:
        """A source that logs in with a personal token."""
        return {
            "kind": "databricks",
            "host": self.url,
            "warehouse_id": self.warehouse,
            "catalog": CATALOG,
            "token": TOKEN,
            **more,
        }

    def new_schema(self) -> str:
        """A schema of its own, in the catalog ``lab``."""
        name = f"s{next(_numbers)}"
        self.ask("POST", "/api/2.1/unity-catalog/schemas", {"name": name, "catalog_name": CATALOG})
        return name

    def register(
        self,
        schema: str,
        name: str,
        location: Path | str,
        columns: Mapping[str, str] = {},
        **more: Any,
    ) -> None:
        """Registers the Delta table at ``location`` in the catalog ``lab``."""
        told = [
            {"name": n, "type_text": t, "position": i} for i, (n, t) in enumerate(columns.items())
        ]
        body = {
            "name": name,
            "catalog_name": CATALOG,
            "schema_name": schema,
            "table_type": "EXTERNAL",
            "data_source_format": "DELTA",
            "storage_location": str(location),
            "columns": told,
        }
        self.ask("POST", "/api/2.1/unity-catalog/tables", body | more)

    def run(self, sql: str) -> Any:
        """Runs a statement of the DuckDB behind minilake."""
        body = {"statement": sql, "warehouse_id": self.warehouse, "wait_timeout": "50s"}
        told = self.ask("POST", "/api/2.0/sql/statements", body, {"x-test-engine": "duckdb"})
        if told["status"]["state"] != "SUCCEEDED":
            raise RuntimeError(told["status"])
        return told

    def set(self, **told: Any) -> None:
        """Orders faults (``faults``), sets ``options``, details of ``tables``, ``tags``."""
        self.ask("POST", "/_test/set", told)

    def reset(self) -> None:
        self.ask("POST", "/_test/reset", {})
        self.set(warehouse={"state": "RUNNING", "cluster_size": "Small"})

    def requests(self) -> list[dict[str, Any]]:
        """What was asked since ``reset``: ``line`` ("GET /path"), ``query``, ``headers``."""
        found: list[dict[str, Any]] = self.ask("GET", "/_test/requests")
        return found

    def lines(self) -> list[str]:
        return [r["line"] for r in self.requests()]

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Any:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={
                "Authorization": f"Bearer {TOKEN}",
                "Content-Type": "application/json",
                **(headers or {}),
            },
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            return json.load(answer)


@contextmanager
def workspace(folder: Path) -> Iterator[Workspace]:
    """Starts a workspace in an empty folder, and ends it."""
    with running("databricks", lambda port: [str(SERVER), str(port)], folder) as emulator:
        made = Workspace(emulator, "")
        body = {"name": "tests", "cluster_size": "Small"}
        warehouse = made.ask("POST", "/api/2.0/sql/warehouses", body)["id"]
        made = Workspace(emulator, warehouse)
        made.ask("POST", "/api/2.1/unity-catalog/catalogs", {"name": CATALOG})
        yield made
