"""docs/pushed.md shows what each kind is sent for one query: made of what is planned.

``BATUTA_UPDATE_DOCS=1`` writes a kind's section anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.conformance.conftest import Filled
from tests.plan.runner import with_small_numbers

PAGE = Path(__file__).parents[2] / "docs" / "pushed.md"
SQL = """
SELECT x.label, count(*) AS n, sum(f.price) AS total
FROM {facts} f JOIN {kinds} x ON f.k = x.k
WHERE f.day >= DATE '2024-01-01' AND f.word IN ('red', 'rot')
GROUP BY x.label ORDER BY total DESC LIMIT 3
"""


def test_the_documentation_shows_what_is_sent(filled: Filled) -> None:
    page = PAGE.read_text("utf-8")
    kind = filled.stand.kind
    found = section(filled)
    head, *sections = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    known = {s.partition("\n")[0].removeprefix("## "): s.strip() for s in sections}
    if os.environ.get("BATUTA_UPDATE_DOCS") == "1":
        known[kind] = found
        blocks = [head.strip(), *(known[k] for k in sorted(known))]
        PAGE.write_text("\n\n".join(blocks) + "\n", "utf-8")
        return
    assert known.get(kind) == found


def section(filled: Filled) -> str:
    sql = filled._for_batuta(SQL)
    estimate = filled.connection.estimate(sql)
    plan = with_small_numbers(filled.connection.explain(sql))
    # What a source knows of tables that have just been made depends on when it looked.
    plan = "\n".join(line for line in plan.splitlines() if "-- about" not in line)
    plan = _without_runs(plan, filled.stand.prefix)
    # Nor what other tests have taught about estimates.
    taught = (
        r", (rows|bytes|cost) corrected by [\d.e+-]+ from \d+ (statements|runs of this statement)"
    )
    basis = _without_runs(re.sub(taught, "", estimate.basis), filled.stand.prefix)
    told = f"Estimate: {estimate.confidence}, from {basis}."
    return f"## {filled.stand.kind}\n\n```text\n{plan}\n```\n\n{told}"


def _without_runs(text: str, prefix: tuple[str, ...]) -> str:
    """What is another in each run of the suite: schemas, versions, commits."""
    for part in prefix:
        if re.fullmatch(r"s\d+", part):
            text = re.sub(rf"\b{part}\b", "suite", text)
    text = re.sub(r"@v\d+\.(\d+)", r"@v1.\1", text)
    return re.sub(r"\b[0-9a-f]{40}\b", "0123abcd", text)
