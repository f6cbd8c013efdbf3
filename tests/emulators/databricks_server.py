"""minilake's server, with what it lacks supplied in the shapes that Databricks documents.

Runs in the emulator's own environment: ``python databricks_server.py PORT``. From minilake itself
are the Unity Catalog, warehouses, query history, and the DuckDB that holds the tables. Supplied:

- statements that run beside the request (minilake answers only when they have ended, and no cancel
  can reach it), read as Databricks SQL (by sqlglot; minilake reads DuckDB's), with results as
  Arrow of the right types (minilake's go through Python values, decimals and dates as text), in
  parts behind links that expire;
- logins: a personal token, OAuth from machine to machine; minilake takes any;
- DESCRIBE TABLE ... AS JSON, DESCRIBE DETAIL, tags, table summaries, credentials for S3;
- variables, which Spark substitutes in the text of a statement;
- ``/_test/...``: what was asked, and faults to come.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

os.environ |= {
    "MINILAKE_DATA_DIR": os.path.abspath("data"),
    # An empty folder: minilake would download an extension of DuckDB otherwise.
    "MINILAKE_DUCKDB_EXTENSION_DIR": os.path.abspath("extensions"),
    "MINILAKE_NOTEBOOK": "0",
    "MINILAKE_SPARK_PREWARM": "0",
}

import pyarrow as pa
import sqlglot
import uvicorn
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from minilake.app import create_app, get_duckdb_pool
from minilake.errors import DatabricksError
from minilake.services import sql_statements, sql_warehouses, unity_catalog

TOKEN = "dapi-0123456789abcdef"
CLIENT = ("principal", "m2m-secret")
ZONE = "Asia/Tokyo"
"""The session's time zone: not UTC, so that a test sees where it matters."""

PROPER = {"TIMESTAMP": "TIMESTAMP_NTZ", "TIMESTAMP WITH TIME ZONE": "TIMESTAMP"}
"""DuckDB's timestamps in Databricks' words; minilake calls both TIMESTAMP."""


class World:
    """What the tests set and look at."""

    def __init__(self) -> None:
        self.reset()
        self.tokens = {TOKEN: float("inf")}
        self.statements: dict[str, Run] = {}

    def reset(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.faults: list[dict[str, Any]] = []
        self.options: dict[str, Any] = {
            "part_rows": 30_000,
            "link_seconds": 900,
            "credential_seconds": 3600,
            "token_seconds": 3600,
            "nested_as_json": False,
            "truncated": False,
            "summaries": False,
            "slow": 0.0,
            "part_pause": 0.0,
            "queued": 0,
        }
        self.tables: dict[str, dict[str, Any]] = {}
        self.tags: dict[str, dict[str, str]] = {}


class Run:
    """One statement."""

    def __init__(self, told: dict[str, Any], cursor: Any, engine: str) -> None:
        self.id = str(uuid.uuid4())
        self.told = told
        self.cursor = cursor
        self.engine = engine
        self.state = "PENDING"
        self.error: dict[str, str] | None = None
        self.parts: list[pa.Table] = []
        self.schema: list[tuple[str, str]] = []
        self.rows = 0
        self.signature = secrets.token_hex(8)
        self.expires = 0.0
        self.done = threading.Event()

    def run(self) -> None:
        started = int(time.time() * 1000)
        self.state = "RUNNING"
        try:
            if WORLD.options["slow"]:
                self.done.wait(WORLD.options["slow"])
            if self.state != "CANCELED":
                self.keep(self.answer(self.told["statement"]))
                self.state = "SUCCEEDED" if self.state == "RUNNING" else self.state
        except Exception as error:
            if self.state != "CANCELED":
                self.state = "FAILED"
                self.error = failure(str(error))
        finally:
            self.done.set()
            self.cursor.close()
        sql_statements._record_statement(
            {
                "id": self.id,
                "sql": self.told["statement"],
                "warehouse_id": self.told["warehouse_id"],
                "status": self.state,
                "row_count": self.rows,
                "created_at": started,
                "started_at": started,
                "ended_at": int(time.time() * 1000),
                "error_message": (self.error or {}).get("message"),
            }
        )

    def answer(self, sql: str) -> pa.Table:
        self.cursor.execute(f"SET TimeZone = '{ZONE}'")
        if found := re.fullmatch(r"DESCRIBE TABLE EXTENDED (.+) AS JSON", sql):
            return described(self.cursor, found[1])
        if found := re.fullmatch(r"DESCRIBE DETAIL (.+)", sql):
            return detailed(self.cursor, found[1])
        if self.engine != "duckdb":
            self.cursor.execute(
                "CREATE OR REPLACE TEMP MACRO raise_error(message) AS error(message)"
            )
            sql = sqlglot.transpile(substituted(sql), read="databricks", write="duckdb")[0]
        result = self.cursor.execute(sql)
        return result.to_arrow_table() if result.description else pa.table({})

    def keep(self, table: pa.Table) -> None:
        self.rows = table.num_rows
        self.schema = [(f.name, str(f.type)) for f in table.schema]
        if WORLD.options["nested_as_json"]:
            for i, field in enumerate(table.schema):
                if pa.types.is_nested(field.type):
                    told = [as_json(v, field.type) for v in table.column(i).to_pylist()]
                    table = table.set_column(i, field.name, pa.array(told, pa.string()))
        size = WORLD.options["part_rows"]
        self.parts = [table.slice(i, size) for i in range(0, table.num_rows, size)]

    def response(self, base: str) -> dict[str, Any]:
        status: dict[str, Any] = {"state": self.state}
        if self.error is not None:
            status["error"] = self.error
        if self.state != "SUCCEEDED":
            return {"statement_id": self.id, "status": status}
        chunks = [
            {
                "chunk_index": i,
                "row_count": p.num_rows,
                "row_offset": i * WORLD.options["part_rows"],
                "byte_count": p.nbytes,
            }
            for i, p in enumerate(self.parts)
        ]
        manifest = {
            "format": self.told.get("format", "JSON_ARRAY"),
            "schema": {
                "column_count": len(self.schema),
                "columns": [
                    {"name": n, "type_text": t, "position": i}
                    for i, (n, t) in enumerate(self.schema)
                ],
            },
            "total_chunk_count": len(self.parts),
            "total_row_count": self.rows,
            "truncated": WORLD.options["truncated"],
            "chunks": chunks,
        }
        result: dict[str, Any] = {}
        if self.told.get("disposition") == "EXTERNAL_LINKS":
            if self.parts:
                result = {"external_links": [self.link(base, 0)]}
        else:
            rows = [list(r.values()) for p in self.parts for r in p.to_pylist()]
            result = {"data_array": [[None if v is None else str(v) for v in r] for r in rows]}
        return {
            "statement_id": self.id,
            "status": status,
            "manifest": manifest,
            "result": result,
        }

    def link(self, base: str, index: int) -> dict[str, Any]:
        """A link that is good for a while; an older one to the same part is no longer."""
        expires = datetime.now(UTC) + timedelta(seconds=WORLD.options["link_seconds"])
        self.expires = time.time() + WORLD.options["link_seconds"]
        part = self.parts[index]
        return {
            "chunk_index": index,
            "row_offset": index * WORLD.options["part_rows"],
            "row_count": part.num_rows,
            "byte_count": part.nbytes,
            "external_link": f"{base}/storage/{self.id}/{index}?signature={self.signature}",
            "expiration": expires.isoformat().replace("+00:00", "Z"),
            "http_headers": {"x-test-needed": "yes"},
        }


def failure(message: str) -> dict[str, str]:
    """A failed statement as Databricks words it: with a condition and an SQLSTATE."""
    told = {
        "Catalog Error": ("TABLE_OR_VIEW_NOT_FOUND", "42P01"),
        "Binder Error": ("UNRESOLVED_COLUMN", "42703"),
        "Parser Error": ("PARSE_SYNTAX_ERROR", "42601"),
        "Conversion Error": ("CAST_INVALID_INPUT", "22018"),
        "Out of Range Error": ("ARITHMETIC_OVERFLOW", "22003"),
    }
    for words, (condition, state) in told.items():
        if message.startswith(words):
            return {
                "error_code": "BAD_REQUEST",
                "message": f"[{condition}] {message} SQLSTATE: {state}",
                "sql_state": state,
            }
    return {"error_code": "INTERNAL_ERROR", "message": message}


def as_json(value: Any, type_: pa.DataType) -> str | None:
    return None if value is None else json.dumps(plain(value, type_), default=str)


def plain(value: Any, type_: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_map(type_):
        return [
            {"key": plain(k, type_.key_type), "value": plain(v, type_.item_type)} for k, v in value
        ]
    if pa.types.is_struct(type_):
        return {f.name: plain(value[f.name], f.type) for f in type_}
    if pa.types.is_list(type_):
        return [plain(v, type_.value_type) for v in value]
    return value


def substituted(sql: str) -> str:
    """With variables' values, as Spark puts them there before it parses."""
    return re.sub(r"\$\{env:(\w+)\}", lambda found: os.environ.get(found[1], ""), sql)


def in_duckdb(name: str) -> str:
    return sqlglot.parse_one(name, into=sqlglot.exp.Table, read="databricks").sql("duckdb")


def described(cursor: Any, name: str) -> pa.Table:
    (rows,) = cursor.execute(f"SELECT count(*) FROM {in_duckdb(name)}").fetchone()
    told = {"table_name": name, "statistics": {"num_rows": rows, "size_in_bytes": rows * 40}}
    if name.lower().endswith("unanalysed`"):
        del told["statistics"]
    return pa.table({"json_metadata": [json.dumps(told)]})


def detailed(cursor: Any, name: str) -> pa.Table:
    (rows,) = cursor.execute(f"SELECT count(*) FROM {in_duckdb(name)}").fetchone()
    return pa.table({"format": ["delta"], "numFiles": [1], "sizeInBytes": [rows * 50]})


WORLD = World()
POOL = ThreadPoolExecutor(16)
router = APIRouter()

_duckdb_columns = unity_catalog._duckdb_columns


async def columns_in_databricks_words(*name: str) -> list[dict[str, Any]]:
    found = await _duckdb_columns(*name)
    return [{**c, "type_text": PROPER.get(c["type_text"], c["type_text"])} for c in found]


unity_catalog._duckdb_columns = columns_in_databricks_words
# The Unity Catalog takes names with letters of any language; minilake only those of English.
unity_catalog.validate_identifier = lambda name, kind: name
for alias, kind in (("TIMESTAMP", "TIMESTAMPTZ"), ("TIMESTAMP_NTZ", "TIMESTAMP")):
    scalars = sys.modules["minilake.uc_types"]._SCALARS
    scalars[alias] = (kind, *scalars[alias][1:])


# --- statements --------------------------------------------------------------------------------


def base_of(request: Request) -> str:
    return str(request.base_url).rstrip("/")


@router.post("/api/2.0/sql/statements")
async def execute(request: Request) -> Any:
    told = await request.json()
    if told["warehouse_id"] not in sql_warehouses._state["warehouses"]:
        message = f"Warehouse '{told['warehouse_id']}' not found"
        raise DatabricksError("NOT_FOUND", message, 404)
    arrow = told.get("format") == "ARROW_STREAM"
    if arrow != (told.get("disposition") == "EXTERNAL_LINKS"):
        raise DatabricksError("INVALID_PARAMETER_VALUE", "format and disposition do not fit", 400)
    connection = await get_duckdb_pool().get_uc_connection()
    cursor = connection.cursor()
    if told.get("catalog"):
        cursor.execute(f'USE "{told["catalog"]}"."{told.get("schema") or "default"}"')
    one = Run(told, cursor, request.headers.get("x-test-engine", ""))
    WORLD.statements[one.id] = one
    POOL.submit(one.run)
    await asyncio.to_thread(one.done.wait, float(told.get("wait_timeout", "10s").rstrip("s")))
    return one.response(base_of(request))


def known(statement_id: str) -> Run:
    found = WORLD.statements.get(statement_id)
    if found is None:
        raise DatabricksError("NOT_FOUND", f"The statement {statement_id} was not found.", 404)
    return found


@router.get("/api/2.0/sql/statements/{statement_id}")
async def status(statement_id: str, request: Request) -> Any:
    return known(statement_id).response(base_of(request))


@router.post("/api/2.0/sql/statements/{statement_id}/cancel")
async def cancel(statement_id: str) -> Any:
    one = known(statement_id)
    if not one.done.is_set():
        one.state = "CANCELED"
        one.done.set()
        one.cursor.interrupt()
    return {}


@router.get("/api/2.0/sql/statements/{statement_id}/result/chunks/{index}")
async def chunk(statement_id: str, index: int, request: Request) -> Any:
    await asyncio.sleep(WORLD.options["part_pause"])
    return {"external_links": [known(statement_id).link(base_of(request), index)]}


@router.get("/storage/{statement_id}/{index}")
async def storage(statement_id: str, index: int, signature: str, request: Request) -> Any:
    one = known(statement_id)
    if request.headers.get("authorization"):
        return Response("<Code>InvalidArgument</Code>", 400)
    if request.headers.get("x-test-needed") != "yes":
        return Response("<Code>MissingSecurityHeader</Code>", 400)
    if signature != one.signature or time.time() >= one.expires:
        return Response(f"<Code>AccessDenied</Code> expired {request.url}", 403)
    table = one.parts[index]
    if getattr(request.state, "short", False):
        table = table.slice(0, table.num_rows // 2)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10_000)
    return Response(sink.getvalue().to_pybytes(), media_type="application/octet-stream")


# --- the catalog -------------------------------------------------------------------------------


@router.get("/api/2.1/unity-catalog/table-summaries")
async def summaries(catalog_name: str, table_name_pattern: str = "%") -> Any:
    if not WORLD.options["summaries"]:
        raise DatabricksError("ENDPOINT_NOT_FOUND", "No API found", 404)
    connection = await get_duckdb_pool().get_uc_connection()
    sql = (
        "SELECT table_schema || '.' || table_name FROM information_schema.tables"
        " WHERE table_catalog = ? AND table_name LIKE ?"
    )
    rows = connection.cursor().execute(sql, [catalog_name, table_name_pattern]).fetchall()
    return {
        "tables": [{"full_name": f"{catalog_name}.{r[0]}", "table_type": "MANAGED"} for r in rows]
    }


@router.get("/api/2.1/unity-catalog/tables/{full_name}")
async def table(full_name: str) -> Any:
    found = await unity_catalog.get_table(full_name)
    return {**found.model_dump(mode="json"), **WORLD.tables.get(full_name, {})}


@router.post("/api/2.1/unity-catalog/temporary-table-credentials")
async def credentials(request: Request) -> Any:
    """Credentials for S3; minilake vends empty ones."""
    told = await request.json()
    until = time.time() + WORLD.options["credential_seconds"]
    return {
        "aws_temp_credentials": {
            "access_key_id": f"key-of-{told['table_id']}",
            "secret_access_key": "vended-secret",
            "session_token": "vended-session",
        },
        "expiration_time": int(until * 1000),
    }


@router.get("/api/2.1/unity-catalog/entity-tag-assignments/{kind}/{name}/tags")
async def tags(kind: str, name: str) -> Any:
    found = WORLD.tags.get(f"{kind}/{name}", {})
    return {"tag_assignments": [{"tag_key": k, "tag_value": v} for k, v in found.items()]}


# --- logins, faults, records -------------------------------------------------------------------


@router.post("/oidc/v1/token")
async def token(request: Request) -> Any:
    import base64

    login = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
    if login != ":".join(CLIENT):
        told = {"error": "invalid_client", "error_description": "Client authentication failed"}
        return JSONResponse(told, 401)
    value = f"oauth-{secrets.token_hex(8)}"
    WORLD.tokens[value] = time.time() + WORLD.options["token_seconds"]
    return {
        "access_token": value,
        "token_type": "Bearer",
        "expires_in": WORLD.options["token_seconds"],
    }


@router.post("/_test/reset")
async def reset() -> Any:
    WORLD.reset()
    return {}


@router.post("/_test/set")
async def set_(request: Request) -> Any:
    told = await request.json()
    WORLD.options |= told.get("options", {})
    WORLD.tables |= told.get("tables", {})
    WORLD.tags |= told.get("tags", {})
    WORLD.faults += told.get("faults", [])
    if told.get("forget_tokens"):
        WORLD.tokens = {TOKEN: float("inf")}
    if told.get("forget_statements"):
        WORLD.statements.clear()
    if told.get("expire_links"):
        for one in WORLD.statements.values():
            one.signature, one.expires = secrets.token_hex(8), 0.0
    if "warehouse" in told:
        for one in sql_warehouses._state["warehouses"].values():
            one |= told["warehouse"]
    return {}


@router.get("/_test/requests")
async def requests() -> Any:
    return WORLD.requests


class Misbehaving:
    """Checks logins, keeps a record, and does the faults that a test has ordered."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/_test"):
            return await self.app(scope, receive, send)
        headers = {k.decode().lower(): v.decode() for k, v in scope["headers"]}
        path, line = scope["path"], f"{scope['method']} {scope['path']}"
        record = {"line": line, "query": scope["query_string"].decode(), "headers": headers}
        WORLD.requests.append(record)
        fault = next((f for f in WORLD.faults if re.search(f["on"], line) and f["times"] > 0), None)
        if fault is not None and fault.get("after", 0) > 0:
            fault["after"] -= 1
            fault = None
        if fault is not None:
            fault["times"] -= 1
            scope.setdefault("state", {})["short"] = fault["kind"] == "short"
            if fault["kind"] == "status":
                told = {"error_code": fault.get("code", ""), "message": fault.get("message", "")}
                answer = JSONResponse(told, fault["status"], headers=fault.get("headers"))
                return await answer(scope, receive, send)
            if fault["kind"] in ("cut", "stall"):
                send = self.halved(send, fault)
        if path.startswith("/api/"):
            known = WORLD.tokens.get(headers.get("authorization", "").removeprefix("Bearer "), 0.0)
            if known <= time.time():
                record["status"] = 401
                told = {"error_code": "401", "message": "Credential was not sent or is wrong"}
                return await JSONResponse(told, 401)(scope, receive, send)
        if line.endswith("/sql/history/queries") and "QUEUED" in record["query"]:
            many = WORLD.options["queued"]
            waiting = [{"query_id": f"q{i}", "status": "QUEUED"} for i in range(many)]
            return await JSONResponse({"res": waiting})(scope, receive, send)
        return await self.app(scope, receive, send)

    @staticmethod
    def halved(send: Any, fault: dict[str, Any]) -> Any:
        async def half(message: Any) -> None:
            if message["type"] != "http.response.body":
                return await send(message)
            body = message.get("body", b"")
            await send({**message, "body": body[: len(body) // 2], "more_body": True})
            if fault["kind"] == "stall":
                await asyncio.sleep(fault.get("seconds", 60))
            raise ConnectionResetError("ordered by a test")

        return half


app = create_app()
# Before minilake's own: the first route that fits answers.
app.router.routes[:0] = router.routes

if __name__ == "__main__":
    os.makedirs("extensions", exist_ok=True)
    uvicorn.run(Misbehaving(app), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
