"""docs/sources/conformance.md has what each kind cannot pass: made of what the stands declare.

``BATUTA_UPDATE_DOCS=1`` writes a kind's lines anew.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.conformance.conftest import Filled
from tests.conformance.stand import declared

PAGE = Path(__file__).parents[2] / "docs" / "sources" / "conformance.md"
BEGIN, END = (
    "| kind | check or type | declared |\n| --- | --- | --- |\n",
    "\n<!-- end of the table -->",
)


def test_what_a_kind_declares_is_in_the_documentation(filled: Filled) -> None:
    page = PAGE.read_text("utf-8")
    head, _, rest = page.partition(BEGIN)
    table, _, tail = rest.partition(END)
    mark = f"| `{filled.stand.kind}` |"
    mine = [line for line in table.splitlines() if line.startswith(mark)]
    if os.environ.get("BATUTA_UPDATE_DOCS") == "1":
        others = [line for line in table.splitlines() if line and not line.startswith(mark)]
        lines = sorted([*others, *declared(filled.stand)], key=lambda line: line.split("|")[1])
        PAGE.write_text(head + BEGIN + "\n".join(lines) + END + tail, "utf-8")
        return
    assert mine == declared(filled.stand)
