"""A Spark Connect server as the engine of residuals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.emulators.process import Emulator


def engine(server: Emulator, stage: Path | str) -> dict[str, Any]:
    """The configuration of an engine to which every residual goes that may."""
    return {
        "kind": "spark",
        "url": f"sc://127.0.0.1:{server.port}",
        "stage": str(stage),
        "from_bytes": 0,
    }


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    return tmp_path / "stage"
