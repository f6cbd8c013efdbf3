"""`make demo`: what a newcomer sees first must not break."""

from __future__ import annotations

import subprocess
import sys


def test_the_demo_shows_plan_fragments_and_answer() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "batuta_sql.demo"], capture_output=True, check=False, timeout=120
    )
    said = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode()
    for part in ("the plan", "sent to crm", "sent to shop", "the answer"):
        assert part in said
    # The same by hand, over local tables: 662 customers of the first region.
    assert "Oceania" in said
    assert "662" in said
    assert "203803.12" in said
