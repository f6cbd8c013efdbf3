"""Seals a command as its only argument says: the real seal, or one with a part left out.

    python drive.py '{"command": [...], "forwards": [...], "keep": [...], "without": {...}}'

``without`` names steps, a rule, a namespace or a masked folder. The product has no such switch:
this program builds another recipe. Exit status: that of the command; 78 with the error on stderr.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from batuta_sql.errors import SealError
from batuta_sql.guards.egress import Forward, mounts, syscalls
from batuta_sql.guards.egress.construction import NAMESPACES, STEPS
from batuta_sql.guards.egress.launcher import Recipe, seal_by
from batuta_sql.guards.egress.rules import SEALED

FLAGS = {
    "user": syscalls.CLONE_NEWUSER,
    "net": syscalls.CLONE_NEWNET,
    "mnt": syscalls.CLONE_NEWNS,
}


def recipe(without: dict[str, Any], masked: list[str]) -> Recipe:
    return Recipe(
        steps=[s for s in STEPS if s.__name__ not in without.get("steps", ())],
        rules=[r for r in SEALED if r.name != without.get("rule")],
        flags=NAMESPACES & ~FLAGS.get(without.get("namespace", ""), 0),
        masked=[m for m in (*mounts.MASKED, *masked) if m not in without.get("masked", ())],
    )


def target(given: Any) -> tuple[str, int] | str:
    return given if isinstance(given, str) else (given[0], given[1])


def leave_the_machines_tree() -> None:
    """For root's mutants: what one mounts by mistake ends with it."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)


def main() -> int:
    job = json.loads(sys.argv[1])
    if job.get("without") and os.geteuid() == 0:
        leave_the_machines_tree()
    prepare = job.get("prepare")
    if prepare:
        exec(prepare, {})
    forwards = [Forward(name, port, target(to)) for name, port, to in job.get("forwards", ())]
    try:
        return seal_by(
            recipe(job.get("without", {}), job.get("masked", [])),
            job["command"],
            forwards,
            job.get("keep", ()),
        )
    except SealError as error:
        print(error, file=sys.stderr)
        return error.exit_status


if __name__ == "__main__":
    sys.stdout.flush()
    status = main()
    os._exit(status)
