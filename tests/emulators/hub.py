"""A running stand-in for the Hugging Face hub, and what fills it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.emulators.process import Emulator, running

SERVER = Path(__file__).with_name("hub_server.py")


@dataclass(frozen=True)
class HubEmulator:
    """A hub and the folder that it serves; ``hub_server`` says what may be in it."""

    emulator: Emulator
    root: Path

    def settings(self, repo: str, **more: Any) -> dict[str, Any]:
        return {"kind": "huggingface", "repo": repo, "endpoint": self.emulator.url, **more}

    def repo(self, name: str, **facts: Any) -> None:
        """Makes a dataset, or changes what is said of it."""
        file = self.root / name / "repo.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        told = json.loads(file.read_text()) if file.exists() else {"refs": {}}
        file.write_text(json.dumps({**told, **facts}))

    def commit(
        self, repo: str, commit: str, files: Mapping[str, pa.Table | bytes], ref: str = "main"
    ) -> None:
        """Puts files under a commit, which becomes that of a branch."""
        for path, content in files.items():
            target = self.root / repo / commit / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                target.write_bytes(content)
            else:
                pq.write_table(content, target, row_group_size=10_000)
        told = json.loads((self.root / repo / "repo.json").read_text())
        self.repo(repo, refs={**told["refs"], ref: commit})

    def fail(self, *faults: Mapping[str, Any]) -> None:
        (self.root / "faults.json").write_text(json.dumps(faults))

    def requests(self) -> list[dict[str, Any]]:
        file = self.root / "requests.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def forget(self) -> None:
        (self.root / "requests.jsonl").unlink(missing_ok=True)
        (self.root / "faults.json").unlink(missing_ok=True)


@contextmanager
def hub_emulator(folder: Path) -> Iterator[HubEmulator]:
    root = folder / "hub"
    root.mkdir()
    with running(
        "hub", lambda port: [str(SERVER), str(root), str(port)], folder, python=Path(sys.executable)
    ) as emulator:
        yield HubEmulator(emulator, root)
