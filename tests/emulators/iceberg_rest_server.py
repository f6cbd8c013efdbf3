"""A catalog in SQLite behind the read half of the Iceberg REST interface; a program of its own.

Run with a folder and a port. The folder has ``catalog.db``, which the tests fill through pyiceberg,
and ``control.json``, read anew for each request: what clients must present, what is vended, and
what goes wrong. https://github.com/apache/iceberg/blob/main/open-api/rest-catalog-open-api.yaml
"""

from __future__ import annotations

import json
import sys
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pyiceberg.catalog.rest.response import ErrorResponse, ErrorResponseMessage
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    folder = Path()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        print(f"{self.command} {self.path}", flush=True)

    def do_GET(self) -> None:
        self._answer(self._get)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, how: Any) -> None:
        control = json.loads((self.folder / "control.json").read_text())
        parts = urllib.parse.urlsplit(self.path)
        path = parts.path.strip("/").split("/")
        asked = dict(urllib.parse.parse_qsl(parts.query))
        length = int(self.headers.get("content-length") or 0)
        form = dict(urllib.parse.parse_qsl(self.rfile.read(length).decode()))
        fault = control.get("faults", {}).get("/".join(path[1:2]))
        if fault is not None:
            time.sleep(fault.get("seconds", 0))
            if "status" in fault:
                message = fault["message"].replace("{token}", self._token())
                self._send(fault["status"], _error(message, fault["type"], fault["status"]))
                return
        try:
            self._send(*how(control, path, asked, form))
        except NoSuchTableError as error:
            self._send(404, _error(str(error), "NoSuchTableException", 404))
        except NoSuchNamespaceError as error:
            self._send(404, _error(str(error), "NoSuchNamespaceException", 404))

    def _token(self) -> str:
        return (self.headers.get("authorization") or "").removeprefix("Bearer ")

    def _post(self, control: Any, path: list[str], asked: Any, form: Any) -> tuple[int, Any]:
        if path != ["v1", "oauth", "tokens"]:
            return 404, _error("no such place", "NotFound", 404)
        given = f"{form.get('client_id')}:{form.get('client_secret')}"
        if given != control.get("credential"):
            return 401, {"error": "invalid_client", "error_description": "unknown client"}
        return 200, {"access_token": control["token"], "token_type": "bearer", "expires_in": 3600}

    def _get(self, control: Any, path: list[str], asked: Any, form: Any) -> tuple[int, Any]:
        if control.get("token") is not None and self._token() != control["token"]:
            return 401, _error("not authorized", "NotAuthorizedException", 401)
        catalog = SqlCatalog("default", **control["catalog"])
        match path:
            case ["v1", "config"]:
                return 200, {
                    "defaults": control.get("defaults", {}),
                    "overrides": control.get("overrides", {}),
                }
            case ["v1", "namespaces"]:
                parent = tuple(asked["parent"].split("\x1f")) if "parent" in asked else ()
                return 200, {"namespaces": catalog.list_namespaces(parent)}
            case ["v1", "namespaces", space]:
                properties = catalog.load_namespace_properties(_namespace(space))
                return 200, {"namespace": _namespace(space), "properties": properties}
            case ["v1", "namespaces", space, "tables"]:
                found = catalog.list_tables(_namespace(space))
                named = [{"namespace": t[:-1], "name": t[-1]} for t in found]
                return 200, {"identifiers": named}
            case ["v1", "namespaces", space, "tables", name]:
                name = urllib.parse.unquote(name)
                table = catalog.load_table((*_namespace(space), name))
                return 200, {
                    "metadata-location": table.metadata_location,
                    "metadata": json.loads(table.metadata.model_dump_json()),
                    "config": control.get("config", {}),
                    "storage-credentials": control.get("storage-credentials", []),
                }
        return 404, _error("no such place", "NotFound", 404)

    def _send(self, status: int, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _namespace(text: str) -> tuple[str, ...]:
    return tuple(urllib.parse.unquote(text).split("\x1f"))


def _error(message: str, type_: str, code: int) -> bytes:
    told = ErrorResponseMessage(message=message, type=type_, code=code)
    return ErrorResponse(error=told).model_dump_json().encode()


if __name__ == "__main__":
    Handler.folder = Path(sys.argv[1])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
