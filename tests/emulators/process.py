"""Emulators of remote systems: each a real process on loopback, from an environment of its own.

``make test`` makes the environments (``.cache/venv-NAME``, from ``NAME.txt`` here): their pins are
not ours. A test session starts one process of each kind that it needs and ends it.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[2] / ".cache"
START_SECONDS = 60


@dataclass(frozen=True)
class Emulator:
    """A running emulator.

    :param port: of 127.0.0.1.
    :param log: the file that its output goes to.
    """

    name: str
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def python_of(name: str) -> Path:
    """The interpreter of an emulator's environment."""
    python = CACHE / f"venv-{name}" / "bin" / "python"
    if not python.exists():
        pytest.fail(f"{python.parent.parent.name} is not there: run `make test`, which makes it")
    return python


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def running(
    name: str,
    command: Callable[[int], Sequence[str]],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    ready: Callable[[int], bool] | None = None,
    python: Path | None = None,
) -> Iterator[Emulator]:
    """Starts an emulator and ends it, with all that it started.

    :param command: the arguments after the interpreter, for a port.
    :param python: its interpreter, where it has no environment of its own.
    :param ready: says whether it answers; by default whether the port takes a connection.
    :param python: the interpreter, where the emulator needs no environment of its own.
    """
    port = free_port()
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(python or python_of(name)), *command(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "HOME": str(folder), **(environment or {})},
            cwd=folder,
            start_new_session=True,
        )
        try:
            _wait(process, port, log, ready or _listens)
            yield Emulator(name, port, log)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(
    process: subprocess.Popen[bytes], port: int, log: Path, ready: Callable[[int], bool]
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if ready(port):
            return
        time.sleep(0.1)
    said = log.read_text("utf-8", "replace")[-2000:]
    print(said, file=sys.stderr)
    raise RuntimeError(f"the emulator does not answer (status {process.poll()}): {said}")


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
