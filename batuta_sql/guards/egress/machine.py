"""What this machine can enforce, found out by doing it in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from batuta_sql.errors import SealError
from batuta_sql.guards.egress.launcher import seal
from batuta_sql.guards.egress.locking import lock
from batuta_sql.guards.egress.verify import enforced

_SECONDS = 30.0
_ROOT = str(Path(__file__).parents[3])


@dataclass(frozen=True)
class Ability:
    """One thing that the kernel can be asked for.

    :param detail: what was done, or what the kernel said.
    :param remedy: what to change where it cannot.
    """

    name: str
    ok: bool
    detail: str
    remedy: str | None = None


def abilities() -> list[Ability]:
    """Seals and locks a process that does nothing, and says how that went.

    A process that is sealed itself cannot make a seal, and needs none: that is what it says then.
    """
    now = enforced()
    if now is not None:
        return [Ability("egress seal", True, f"in force: this process is {now}")]
    # A fresh interpreter: this one may have threads, which a seal cannot start from.
    program = f"from {__name__} import report; report()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([_ROOT, *_python_path()])}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", program],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=_SECONDS,
            env=environment,
        )
        return [Ability(**one) for one in json.loads(done.stdout)]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return [Ability("egress seal", False, f"the test did not run: {error}")]


def report() -> None:
    """Writes the abilities of a single-threaded process as JSON to stdout."""
    found = [_tried("egress seal", _sealed), _tried("in-process lock", lock)]
    print(json.dumps([asdict(one) for one in found]))


def _sealed() -> None:
    status = seal([sys.executable, "-I", "-S", "-c", "pass"])
    if status:
        raise SealError(f"a sealed process ended with {status}")


def _tried(name: str, work: Callable[[], None]) -> Ability:
    try:
        work()
    except SealError as error:
        return Ability(name, False, error.message, error.hint)
    return Ability(name, True, "tried and verified")


def _python_path() -> list[str]:
    return [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
