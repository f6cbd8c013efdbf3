"""A reverse proxy before any HTTP service, which fails now and then in each way that HTTP knows."""

from __future__ import annotations

import contextlib
import http.client
import random
import re
import socket
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STATUSES = (401, 429, 500, 503)
KINDS = (*map(str, STATUSES), "reset", "half", "short", "stall", "slow")
STALL_SECONDS = 3.0
"""After which a connection in which nothing was said is reset."""

_HOP_BY_HOP = {"transfer-encoding", "connection", "content-length", "keep-alive"}


@dataclass
class HttpFront:
    """What the front is to do, and what it did.

    ``half``: the length that was announced, half of the body, and the end of the connection.
    ``short``: half of the body, announced as all of it. ``slow``: all of it, little by little.

    :param left: faults that are still to come.
    :param share: of the requests that fail, while there are some left.
    :param kinds: one is chosen for each fault.
    :param guard: what is answered to a request instead, by its headers; None: it is handed on.
    """

    port: int = 0
    left: int = 0
    share: float = 0.25
    kinds: tuple[str, ...] = KINDS
    guard: Callable[[Mapping[str, str]], tuple[int, bytes] | None] = lambda headers: None
    came: Counter[str] = field(default_factory=Counter)
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def next_fault(self) -> str | None:
        with self._lock:
            if self.left <= 0 or self.chance.random() > self.share:
                return None
            self.left -= 1
            kind = self.chance.choice(self.kinds)
            self.came[kind] += 1
            return kind


@contextmanager
def http_front(behind: str) -> Iterator[HttpFront]:
    """Starts a front before the service at the URL ``behind``."""
    front = HttpFront()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(front, behind))
    front.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield front
    finally:
        server.shutdown()
        server.server_close()


def _handler(front: HttpFront, behind: str) -> type[BaseHTTPRequestHandler]:
    parts = urllib.parse.urlsplit(behind)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if (refusal := front.guard(self.headers)) is not None:
                return self._answer(refusal[0], {}, refusal[1])
            fault = front.next_fault()
            if fault == "reset":
                return self._reset()
            if fault == "stall":
                time.sleep(STALL_SECONDS)
                return self._reset()
            if fault in map(str, STATUSES):
                return self._answer(int(fault or 0), {"Retry-After": "0"}, b"told to fail")
            status, headers, content = self._asked(body)
            with contextlib.suppress(OSError):
                self._answer(status, headers, content, fault)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

        def _asked(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
            with contextlib.closing(connection):
                connection.request(self.command, self.path, body, dict(self.headers))
                response = connection.getresponse()
                content = response.read()
            headers = {
                name: value
                for name, value in response.getheaders()
                if name.lower() not in _HOP_BY_HOP
            }
            if self.command == "HEAD":
                headers["Content-Length"] = response.getheader("Content-Length") or "0"
            for name, value in headers.items():
                if name.lower() == "location":
                    # What is sent elsewhere comes by here too.
                    headers[name] = re.sub(rf":{parts.port}\b", f":{front.port}", value)
            return response.status, headers, content

        def _answer(
            self, status: int, headers: dict[str, str], content: bytes, fault: str | None = None
        ) -> None:
            length = len(content)
            if fault in ("half", "short"):
                content = content[: length // 2]
            if fault == "short":
                length = len(content)
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command == "HEAD":
                return
            if fault == "slow":
                step = max(1, len(content) // 5)
                for begin in range(0, len(content), step):
                    self.wfile.write(content[begin : begin + step])
                    time.sleep(0.05)
                return
            self.wfile.write(content)
            self.close_connection = fault == "half"

        def _reset(self) -> None:
            no_wait = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_wait)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

    return Handler
