"""What is outside of a seal: listeners of every kind that write down all that reaches them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any


class Outside:
    """TCP and UDP on all addresses of this machine, over IPv4 and IPv6, and two Unix sockets.

    ``contacts`` are the bytes that came, one entry for a connection or datagram.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._contacts: list[bytes] = []
        self._sockets: list[socket.socket] = []
        self.tcp = self._listen(socket.AF_INET, ("0.0.0.0", 0))
        self.tcp6 = self._listen(socket.AF_INET6, ("::1", 0))
        self.udp = self._receive(socket.AF_INET, ("0.0.0.0", 0))
        self.udp6 = self._receive(socket.AF_INET6, ("::1", 0))
        self.path = str(folder / "outside.sock")
        self._listen(socket.AF_UNIX, self.path)
        os.chmod(self.path, 0o777)
        self.abstract = f"batuta-outside-{os.getpid()}-{id(self)}"
        self._listen(socket.AF_UNIX, "\0" + self.abstract)

    def targets(self) -> dict[str, Any]:
        """What attacks aim at."""
        return {
            "tcp4": ["127.0.0.1", self.tcp],
            "lan": [machine_address(), self.tcp],
            "tcp6": ["::1", self.tcp6],
            "udp4": ["127.0.0.1", self.udp],
            "udp6": ["::1", self.udp6],
            "path": self.path,
            "abstract": self.abstract,
        }

    def contacts(self) -> list[bytes]:
        """All that has come; returns when nothing that was sent before can still be under way."""
        self._flush()
        with self._lock:
            return [c for c in self._contacts if not c.startswith(b"flush-")]

    def came(self, name: str) -> bool:
        return any(name.encode() in contact for contact in self.contacts())

    def close(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _flush(self) -> None:
        """Sends to every listener and waits until that has come: queues are first in, first out."""
        token = f"flush-{time.monotonic_ns()}".encode()
        for one in self._sockets:
            here = one.getsockname()
            if one.type == socket.SOCK_DGRAM:
                with socket.socket(one.family, socket.SOCK_DGRAM) as sender:
                    sender.sendto(token, here)
            else:
                with socket.socket(one.family, socket.SOCK_STREAM) as sender:
                    sender.connect(here)
                    sender.sendall(token)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with self._lock:
                if self._contacts.count(token) == len(self._sockets):
                    return
            time.sleep(0.01)
        raise AssertionError("a listener of the test does not answer")

    def _listen(self, family: int, address: Any) -> int:
        one = socket.socket(family, socket.SOCK_STREAM)
        one.bind(address)
        one.listen(64)
        self._sockets.append(one)
        threading.Thread(target=self._accept, args=(one,), daemon=True).start()
        return one.getsockname()[1] if family != socket.AF_UNIX else 0

    def _receive(self, family: int, address: Any) -> int:
        one = socket.socket(family, socket.SOCK_DGRAM)
        one.bind(address)
        self._sockets.append(one)
        threading.Thread(target=self._datagrams, args=(one,), daemon=True).start()
        return int(one.getsockname()[1])

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = listener.accept()
                threading.Thread(target=self._read, args=(one,), daemon=True).start()

    def _read(self, one: socket.socket) -> None:
        """Notes what a connection brought; a connection without bytes is a contact too."""
        said = b""
        with one, contextlib.suppress(OSError):
            one.settimeout(5)
            while b"\r\n\r\n" not in said and (more := one.recv(4096)):
                said += more
        with self._lock:
            self._contacts.append(said)

    def _datagrams(self, receiver: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                said = receiver.recv(4096)
                with self._lock:
                    self._contacts.append(said)


def machine_address() -> str:
    """An address of this machine that is not loopback, if it has one. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("203.0.113.1", 9))
            return str(one.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def bystander(identity: dict[str, Any]) -> subprocess.Popen[bytes]:
    """A process outside, of the same user, with an open socket as its standard input."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        program = "import time; time.sleep(600)"
        return subprocess.Popen(
            [identity["python"], "-I", "-c", program], stdin=one, **identity["as"]
        )
