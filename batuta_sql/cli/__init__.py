"""The command line: ``batuta-sql shell | query | explain | estimate | history | tree | ...``, and
``batuta-sql seal -- COMMAND``.

Exit status: 0 done, 1 error, 2 usage, 3 refused for cost, 4 refused for labels or tier, 78 the
seal cannot be enforced, 130 interrupted; of ``seal``, else the command's own.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line; ``arguments`` are those of the process where none are given."""
    from batuta_sql.cli.launch import launch

    return launch(arguments)


__all__ = ["main"]
