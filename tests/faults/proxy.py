"""A TCP proxy that can break in the ways in which networks break."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """Forwards loopback connections to a server until told to misbehave.

    A context manager; ``uri`` is the server's URI by way of the proxy.

    ``cut_after``: bytes from the server after which each connection is reset (None: never).
    ``end_after``: likewise, but closed in order, as if the stream had ended there.
    ``stall_after``: likewise, but kept open in silence.
    ``received``: bytes that the server sent so far and that were passed on.
    """

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self._target = (parts.hostname or "127.0.0.1", int(parts.port or 5432))
        self.cut_after: int | None = None
        self.end_after: int | None = None
        self.stall_after: int | None = None
        self.connections = 0
        self.received = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        login = parts.netloc.rpartition("@")[0]
        self.uri = urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{port}"))
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._listener.close()
        self.reset_all()

    def heal(self) -> None:
        """Misbehaves no more; connections that are broken already stay so."""
        self.cut_after = self.end_after = self.stall_after = None

    def reset_all(self) -> None:
        """Resets every connection that is open now."""
        with self._lock:
            sockets, self._open = self._open, set()
        for one in sockets:
            _reset(one)

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                _reset(client)
                continue
            with self._lock:
                self.connections += 1
                self._open |= {client, server}
            for function in (self._up, self._down):
                threading.Thread(target=function, args=(client, server), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        """From the client to the server, always faithful."""
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
        self._finish(client, server)

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        """From the server to the client, with all the ways to fail."""
        passed = 0
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                for limit, act in (
                    (self.cut_after, _reset),
                    (self.end_after, _end),
                    (self.stall_after, self._stall),
                ):
                    if limit is not None and passed + len(data) > limit:
                        client.sendall(data[: max(0, limit - passed)])
                        act(client)
                        return self._finish(client, server)
                client.sendall(data)
                passed += len(data)
                with self._lock:
                    self.received += len(data)
        return self._finish(client, server)

    def _stall(self, client: socket.socket) -> None:
        """Holds the connection open and says nothing, until the test is over or it is healed."""
        while not self._closed.wait(0.05) and self.stall_after is not None:
            pass
        _reset(client)

    def _finish(self, *sockets: socket.socket) -> None:
        with self._lock:
            self._open -= set(sockets)
        for one in sockets:
            _end(one)


def _reset(one: socket.socket) -> None:
    """Closes with RST: what a dead peer or a firewall looks like."""
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    _end(one)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        one.close()
