"""A front before moto's Glue that supplies what it lacks: pages, refusals, Lake Formation's marks.

It hands every other request on as it is, to S3 too.
"""

from __future__ import annotations

import http.client
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_LISTS = {"GetTables": "TableList", "GetPartitions": "Partitions", "GetDatabases": "DatabaseList"}


@dataclass
class GlueFront:
    """What the front was told to do, and what it saw.

    :param page: how many things a page has.
    :param refusals: operation -> code and message of errors that it is still to give.
    :param marks: what is added to each table's description.
    :param answers: operation -> what it answers, where moto has not got the operation; a list: one
        answer after the other. Bytes are sent as they are.
    """

    url: str = ""
    page: int | None = None
    refusals: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    marks: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def operations(self) -> list[str]:
        return [operation for operation, _ in self.seen]


@contextmanager
def glue_front(behind: str) -> Iterator[GlueFront]:
    """Starts a front before the emulator at the URL ``behind``."""
    front = GlueFront()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(front, behind))
    front.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield front
    finally:
        server.shutdown()
        server.server_close()


def _handler(front: GlueFront, behind: str) -> type[BaseHTTPRequestHandler]:
    parts = urllib.parse.urlsplit(behind)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            operation = (self.headers.get("X-Amz-Target") or "").rpartition(".")[2]
            operation = operation or self.path.strip("/")
            asked = json.loads(body or b"{}") if body.startswith(b"{") else {}
            front.seen.append((operation, asked))
            if front.refusals.get(operation):
                code, message = front.refusals[operation].pop(0)
                return self._say(400, {"__type": code, "message": message})
            if operation in front.answers:
                told = front.answers[operation]
                return self._say(200, told.pop(0) if isinstance(told, list) else told)
            if operation not in _LISTS and operation != "GetTable":
                return self._hand_on(body)
            token = int(asked.pop("NextToken", "0"))
            status, told = self._ask(json.dumps(asked).encode())
            if status != 200:
                return self._say(status, told)
            for table in [told.get("Table"), *told.get("TableList", [])]:
                if table is not None:
                    table |= front.marks
            key = _LISTS.get(operation)
            if front.page is not None and key is not None:
                every = told[key]
                told[key] = every[token : token + front.page]
                if token + front.page < len(every):
                    told["NextToken"] = str(token + front.page)
            return self._say(200, told)

        def do_GET(self) -> None:
            self._hand_on(b"")

        do_HEAD = do_GET

        def _hand_on(self, body: bytes) -> None:
            response, content = self._request(body)
            self.send_response_only(response.status)
            for name, value in response.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = response.getheader("Content-Length") or str(len(content))
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(content)

        def _ask(self, body: bytes) -> tuple[int, dict[str, Any]]:
            response, content = self._request(body)
            return response.status, json.loads(content)

        def _request(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "content-length"}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            content = response.read()
            connection.close()
            return response, content

        def _say(self, status: int, told: dict[str, Any] | bytes) -> None:
            content = told if isinstance(told, bytes) else json.dumps(told).encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            return

    return Handler
