"""What the processes of the peers have in common: requests in on stdin, seconds out on stdout.

Needs nothing but the standard library and pyarrow: it runs in the environments of all peers.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa


def settings() -> Any:
    """What the peer is started with: the first line."""
    return json.loads(sys.stdin.readline())


def serve(answer: Callable[[Any], pa.Table]) -> None:
    """Answers one request a line until there are no more.

    A request is ``[question, file]``: the answer is read to its last row, which is timed, and then
    written to the file, unless that is null.
    """
    print("ready", flush=True)
    for line in sys.stdin:
        question, file = json.loads(line)
        started = time.perf_counter()
        table = answer(question)
        taken = time.perf_counter() - started
        if file is not None:
            with pa.OSFile(file, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
        print(taken, flush=True)
