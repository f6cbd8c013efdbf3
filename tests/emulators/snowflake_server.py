"""fakesnow's server, and in front of it what it lacks.

EXPLAIN USING JSON, the column DATETIME_PRECISION of INFORMATION_SCHEMA.COLUMNS (always 6), tags,
faults, and a record of what arrived.

Runs in fakesnow's own environment: ``python snowflake_server.py PORT CONTROL``. ``CONTROL`` is a
JSON file that is read for each request; it may ask for faults:
``{"status": 429, "path": "query-request", "times": 2}``, or tell tags: ``{"tags": [[table, key,
value, level, column], ...]}``. Each statement is appended to
``CONTROL.log``, a JSON line each. ``POST /_test/duckdb`` runs a statement in the DuckDB behind
fakesnow, which is how tests load many rows.

EXPLAIN is answered in Snowflake's shape (https://docs.snowflake.com/en/sql-reference/sql/explain)
from the emulator's own tables: 16 MB a partition, bytes of all tables that the statement names.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import fakesnow.server
import uvicorn

PORT, CONTROL = int(sys.argv[1]), Path(sys.argv[2])
LOG = CONTROL.with_name(CONTROL.name + ".log")
PARTITION = 16 << 20


class Front:
    """An ASGI application around fakesnow's."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._faults: dict[str, int] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await _body(receive)
        if scope["path"] == "/_test/duckdb":
            fakesnow.server.shared_fs.duck_conn.cursor().execute(body.decode())
            await _answer(send, 200, {})
            return
        statement = _statement(scope, body)
        with LOG.open("a") as log:
            log.write(json.dumps({"path": scope["path"], "sql": statement}) + "\n")
        fault = self._fault(scope["path"])
        if fault is not None:
            if fault.get("stall"):
                time.sleep(float(fault["stall"]))
            await _answer(send, int(fault.get("status", 500)), {"message": "told to fail"})
            return
        if statement is not None:
            explained = re.fullmatch(r"\s*EXPLAIN USING JSON\s+(.*)", statement, re.DOTALL)
            if explained:
                body = _with_statement(body, _explain(explained[1]))
            elif tagged := re.search(r"TAG_REFERENCES_ALL_COLUMNS\('(.*?)', 'TABLE'\)", statement):
                body = _with_statement(body, _tags(tagged[1]))
            elif "c.datetime_precision" in statement:
                # A column that Snowflake's view has and the emulator's has not.
                body = _with_statement(body, statement.replace("c.datetime_precision", "6"))
        await self._app(scope, _receiver(body), send)

    def _fault(self, path: str) -> dict[str, Any] | None:
        try:
            wanted: dict[str, Any] = json.loads(CONTROL.read_text())
        except (OSError, ValueError):
            return None
        if "tags" in wanted or not wanted or wanted.get("path", "") not in path:
            return None
        key = json.dumps(wanted)
        done = self._faults.get(key, 0)
        if done >= int(wanted.get("times", 1_000_000)):
            return None
        self._faults[key] = done + 1
        return wanted


def _explain(sql: str) -> str:
    """A statement whose one value is what Snowflake would answer."""
    names = {n.upper() for n in re.findall(r'"?(\w+)"?', sql)}
    size = 0
    for database in fakesnow.server.shared_fs.duck_conn.execute(
        "SELECT table_name, estimated_size FROM duckdb_tables()"
    ).fetchall():
        if database[0].upper() in names:
            size += int(database[1] or 0) * 100
    partitions = -(-size // PARTITION)
    told = {
        "GlobalStats": {
            "partitionsTotal": partitions,
            "partitionsAssigned": partitions,
            "bytesAssigned": size,
        },
        "Operations": [],
    }
    return "SELECT '" + json.dumps(told) + "' AS content"


def _tags(table: str) -> str:
    """A statement that answers as TAG_REFERENCES_ALL_COLUMNS does, from what CONTROL tells."""
    told = json.loads(CONTROL.read_text()).get("tags")
    if told is None:
        return "SELECT * FROM no_such_function"
    rows = [[v if v is None else f"'{v}'" for v in row[1:]] for row in told if row[0] == table]
    values = ", ".join("(" + ", ".join(v or "NULL" for v in row) + ")" for row in rows)
    none = "" if rows else " WHERE false"
    values = values or "('', '', '', '')"
    names = "tag_name, tag_value, level, column_name"
    return f"SELECT * FROM (VALUES {values}) AS t({names}){none}"


async def _body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body


def _statement(scope: Any, body: bytes) -> str | None:
    if "query-request" not in scope["path"]:
        return None
    try:
        return str(json.loads(body)["sqlText"])
    except (ValueError, KeyError):
        return None


def _with_statement(body: bytes, sql: str) -> bytes:
    return json.dumps({**json.loads(body), "sqlText": sql}).encode()


def _receiver(body: bytes) -> Any:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _answer(send: Any, status: int, value: Any) -> None:
    content = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


class Plain:
    """Takes the compression header away from what has been decompressed."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            kept = [
                h for h in scope["headers"] if h[0] not in (b"content-encoding", b"content-length")
            ]
            scope = {**scope, "headers": kept}
        await self._app(scope, receive, send)


if __name__ == "__main__":
    uvicorn.run(
        Front(Plain(fakesnow.server.app)),
        host="127.0.0.1",
        port=PORT,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
