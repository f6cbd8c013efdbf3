"""What stands before bqemulator in tests: the parts of the REST API that it lacks.

The emulator runs each job to its end inside ``jobs.insert``, tells 0 bytes for every query, keeps
no parameters of types, and runs an id again. This server forwards to it, and adds these in the
service's documented shapes (https://cloud.google.com/bigquery/docs/reference/rest/v2): jobs that
run while they are asked for, ``duplicate``, ``jobs.cancel``, bytes processed and billed,
``maximumBytesBilled``, row counts of tables, types' parameters, names beyond ASCII
and in both cases; where ``keeps_results`` is set, the anonymous table of each result, written
into a dataset of the emulator's. It records every request, and fails where it is told to.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import sqlglot
from sqlglot import exp

from tests.emulators.process import Emulator, free_port, running

START = Path(__file__).with_name("bigquery_start.py")
PROJECT = "my-project"
MIB = 1 << 20
RESULTS = "_results"
"""The hidden dataset of anonymous tables: https://cloud.google.com/bigquery/docs/cached-results."""
_WIDTHS = {"NUMERIC": 16, "BOOL": 1, "BOOLEAN": 1}
_ADDED = ("precision", "scale", "collation", "policyTags", "maxLength", "timestampPrecision")


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    """Below ``/bigquery/v2/projects/``."""
    query: Mapping[str, str]
    body: Any
    headers: Mapping[str, str]

    @property
    def job(self) -> dict[str, Any]:
        """The query's configuration, of a request that inserts a job."""
        found: dict[str, Any] = self.body["configuration"]["query"]
        return found

    @property
    def is_dry_run(self) -> bool:
        return bool(self.body and self.body.get("configuration", {}).get("dryRun"))

    @property
    def inserts(self) -> bool:
        return self.method == "POST" and self.path.endswith("/jobs") and not self.is_dry_run


@dataclass
class Fault:
    """One way to fail, for the requests that ``when`` chooses.

    :param how: ``status``, ``reset``, ``half``, ``stall``, ``garbage``, ``lost`` (done, then reset)
        or ``edit`` (the answer passed through ``edit``).
    :param times: how often.
    """

    how: str
    when: Callable[[Request], bool]
    times: int = 1
    status: int = 503
    reason: str = "backendError"
    message: str = "Error encountered during execution. Retrying may solve the problem."
    headers: Mapping[str, str] = field(default_factory=dict)
    edit: Callable[[dict[str, Any]], Any] = lambda answer: answer


@dataclass
class _Job:
    body: dict[str, Any]
    done: threading.Event = field(default_factory=threading.Event)
    error: dict[str, Any] | None = None
    billed: int = 0
    answer: dict[str, Any] = field(default_factory=dict)
    table: str | None = None


Answer = tuple[int, dict[str, Any]]


class BigQueryFront:
    """A running front; ``url`` is the endpoint of a source.

    ``hold``: while it is set, jobs are inserted and do not end.
    ``page_rows``: the rows of a page; None: as the emulator cuts them.
    ``keeps_results``: whether each result is written into an anonymous table.
    ``token``: where it is set, requests need it: a function from a request to whether it may.
    """

    def __init__(self, emulator: Emulator, grpc_port: int) -> None:
        self.emulator = emulator
        self.grpc_port = grpc_port
        self.keeps_results = False
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.hold = threading.Event()
        self.page_rows: int | None = None
        self._jobs: dict[str, _Job] = {}
        self._fields: dict[str, list[dict[str, Any]]] = {}
        self._tables: dict[str, dict[str, Any]] = {}
        self._aliases: dict[str, str] = {}
        self._sizes: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._http = httpx.Client(timeout=120)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def settings(self, **more: Any) -> dict[str, Any]:
        return {"kind": "bigquery", "project": PROJECT, "endpoint": self.url, **more}

    def close(self) -> None:
        self._closed.set()
        self.hold.clear()
        self._server.shutdown()
        self._server.server_close()
        self._http.close()

    # --- for tests -----------------------------------------------------------------------------

    def reset(self) -> None:
        """Forgets requests and faults."""
        self.requests.clear()
        self.faults.clear()
        self.hold.clear()
        self.page_rows = None

    @property
    def inserted(self) -> list[Request]:
        return [r for r in self.requests if r.inserts]

    @property
    def cancelled(self) -> list[str]:
        return [r.path.split("/")[-2] for r in self.requests if r.path.endswith("/cancel")]

    def dataset(self, name: str) -> None:
        body = {"datasetReference": {"projectId": PROJECT, "datasetId": name}}
        self._must("POST", f"{PROJECT}/datasets", body)

    def table(self, dataset: str, name: str, fields: list[dict[str, Any]], **more: Any) -> None:
        lower = [k.lower() for k in self._fields]
        if not name.isascii() or f"{dataset}.{name}".lower() in lower:
            self._aliases[name] = "alias_" + name.encode().hex()
        reference = {"projectId": PROJECT, "datasetId": dataset, "tableId": name}
        body = {"tableReference": reference, "schema": {"fields": fields}, **more}
        self._must("POST", f"{PROJECT}/datasets/{dataset}/tables", body)
        self._fields[f"{dataset}.{name}"] = fields

    def insert_all(self, dataset: str, table: str, rows: list[dict[str, Any]]) -> None:
        """Streams rows in, as JSON."""
        path = f"{PROJECT}/datasets/{dataset}/tables/{_quoted(table)}/insertAll"
        for first in range(0, len(rows), 20_000):
            page = rows[first : first + 20_000]
            self._must("POST", path, {"rows": [{"json": r} for r in page]})
        self._forget()

    def run(self, sql: str) -> list[list[Any]]:
        """Runs a statement at the emulator itself, and gives its rows."""
        answer = self._must("POST", f"{PROJECT}/queries", {"query": sql, "useLegacySql": False})
        if answer.get("errors"):
            raise AssertionError(answer["errors"])
        if not re.match(r"\s*(SELECT|WITH)\b", sql):
            self._forget()
        return [[c["v"] for c in r["f"]] for r in answer.get("rows", [])]

    def _forget(self) -> None:
        self._sizes.clear()

    def _must(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        status, answer = self._forward(method, path, {}, body)
        assert status == 200, answer
        return answer

    # --- serving -------------------------------------------------------------------------------

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                return

            def _any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                raw = self.rfile.read(length) if length else b""
                url = urllib.parse.urlsplit(self.path)
                path = url.path.removeprefix("/bigquery/v2/projects/")
                query = dict(urllib.parse.parse_qsl(url.query))
                body = json.loads(raw) if raw else None
                front._serve(self, Request(self.command, path, query, body, dict(self.headers)))

            do_GET = do_POST = _any

        return Handler

    def _serve(self, handler: BaseHTTPRequestHandler, request: Request) -> None:
        with self._lock:
            self.requests.append(request)
            fault = next((f for f in self.faults if f.times > 0 and f.when(request)), None)
            if fault is not None:
                fault.times -= 1
        match fault.how if fault is not None else "":
            case "reset":
                return _reset(handler)
            case "stall":
                self._closed.wait(30)
                return _reset(handler)
            case "status":
                assert fault is not None
                answer = _refusal(fault.status, fault.reason, fault.message)
                return _send(handler, answer, fault.headers)
            case "garbage":
                return _send(handler, (200, b"<html>Sign in</html>"))
        status, content = self._answer(request)
        if fault is not None and fault.how == "lost":
            return _reset(handler)
        if fault is not None and fault.how == "edit":
            content = fault.edit(content)
        if fault is not None and fault.how == "half":
            return _half(handler, content)
        return _send(handler, (status, content))

    def _answer(self, request: Request) -> Answer:
        parts = request.path.split("/")
        match request.method, parts[1:]:
            case "POST", ["jobs"] if request.is_dry_run:
                return self._dry_run(request)
            case "POST", ["jobs"]:
                return self._insert(request)
            case "POST", ["jobs", job, "cancel"]:
                return self._cancel(job)
            case "GET", ["jobs", job] if job in self._jobs:
                return 200, self._shown(job)
            case "GET", ["queries", job] if job in self._jobs:
                return self._results(job, request)
            case "GET", ["datasets", _, "tables", _]:
                return self._described(request)
        return self._forward(request.method, request.path, request.query, request.body)

    def _forward(self, method: str, path: str, query: Mapping[str, str], body: Any) -> Answer:
        text = json.dumps(body, ensure_ascii=False) if body is not None else ""
        # The emulator knows a wildcard table by its text, and no quoted name after it.
        text = re.sub(r"\*` AS `(\w+)`", r"*` AS \1", text)
        path = urllib.parse.unquote(path)
        for name, alias in self._aliases.items():
            path, text = path.replace(name, alias), text.replace(name, alias)
        url = f"{self.emulator.url}/bigquery/v2/projects/{path}"
        answer = self._http.request(method, url, params=dict(query), content=text.encode())
        told = answer.text
        for name, alias in self._aliases.items():
            told = told.replace(alias, name)
        return answer.status_code, json.loads(told)

    # --- jobs ----------------------------------------------------------------------------------

    def _insert(self, request: Request) -> Answer:
        name = request.body["jobReference"]["jobId"]
        with self._lock:
            if name in self._jobs:
                return _refusal(409, "duplicate", f"Already Exists: Job {PROJECT}:US.{name}")
            job = self._jobs[name] = _Job(request.body)
        threading.Thread(target=self._run, args=(name, job), daemon=True).start()
        return 200, self._shown(name)

    def _run(self, name: str, job: _Job) -> None:
        while self.hold.is_set() and not job.done.is_set():
            time.sleep(0.01)
        if job.done.is_set():
            return
        query = job.body["configuration"]["query"]
        scanned, tables = self._bytes(query["query"])
        billed = _billed(scanned)
        most = query.get("maximumBytesBilled")
        if most is not None and billed > int(most):
            told = f"Query exceeded limit for bytes billed: {most}. {billed} or higher required."
            job.error = {"reason": "bytesBilledLimitExceeded", "message": told}
        else:
            status, answer = self._forward("POST", f"{PROJECT}/jobs", {}, job.body)
            if status != 200:
                job.error = answer["error"]["errors"][0]
            else:
                job.error = answer["status"].get("errorResult")
                job.billed = billed
                if job.error is None and self.keeps_results:
                    job.table = self._keep(name, query["query"])
        job.done.set()

    def _keep(self, name: str, sql: str) -> str:
        """Runs the query again, into a table: the emulator ignores destinationTable."""
        self.run(f"CREATE SCHEMA IF NOT EXISTS {RESULTS}")
        table = f"anon{name}"
        self.run(f"CREATE TABLE {RESULTS}.{table} AS {sql}")
        return table

    def _shown(self, name: str) -> dict[str, Any]:
        job = self._jobs[name]
        done = job.done.is_set()
        status: dict[str, Any] = {"state": "DONE" if done else "RUNNING"}
        if done and job.error is not None:
            status |= {"errorResult": job.error, "errors": [job.error]}
        statistics = {"totalBytesBilled": str(job.billed)} if done else {}
        query = dict(job.body["configuration"]["query"])
        if job.table is not None:
            place = {"projectId": PROJECT, "datasetId": RESULTS, "tableId": job.table}
            query["destinationTable"] = place
        return {
            "kind": "bigquery#job",
            "jobReference": {"projectId": PROJECT, "jobId": name, "location": "US"},
            "configuration": {**job.body["configuration"], "query": query},
            "status": status,
            "statistics": {"query": statistics},
        }

    def _cancel(self, name: str) -> Answer:
        job = self._jobs.get(name)
        if job is None:
            return _refusal(404, "notFound", f"Not found: Job {PROJECT}:{name}")
        if not job.done.is_set():
            job.error = {
                "reason": "stopped",
                "message": "Job execution was cancelled: User requested cancellation",
            }
            job.done.set()
        return 200, {"kind": "bigquery#jobCancelResponse", "job": self._shown(name)}

    def _results(self, name: str, request: Request) -> Answer:
        job = self._jobs[name]
        if not job.done.wait(min(int(request.query.get("timeoutMs", "10000")), 10_000) / 1000):
            reference = {"projectId": PROJECT, "jobId": name}
            return 200, {"jobReference": reference, "jobComplete": False}
        if job.error is not None:
            return _refusal(400, job.error["reason"], job.error["message"])
        rows = {"maxResults": str(self.page_rows)} if self.page_rows is not None else {}
        return self._forward("GET", request.path, {**request.query, **rows}, None)

    # --- bytes ---------------------------------------------------------------------------------

    def _dry_run(self, request: Request) -> Answer:
        status, answer = self._forward("POST", request.path, {}, request.body)
        if status != 200:
            return status, answer
        scanned, tables = self._bytes(request.job["query"])
        answer["statistics"]["query"] |= {
            "totalBytesProcessed": str(sum(scanned)),
            "totalBytesBilled": "0",
            "totalBytesProcessedAccuracy": "PRECISE",
            "referencedTables": [{"projectId": PROJECT, "tableId": t} for t in tables],
        }
        return 200, answer

    def _bytes(self, sql: str) -> tuple[list[int], list[str]]:
        """The bytes that a query reads of each of its tables: of the columns that it names."""
        tree = sqlglot.parse_one(sql, read="bigquery")
        named = {c.name for c in tree.find_all(exp.Column)}
        star = any(tree.find_all(exp.Star)) and not any(tree.find_all(exp.Count))
        scanned, names = [], []
        for table in tree.find_all(exp.Table):
            if not table.db:
                continue
            pattern = re.escape(f"{table.db}.{table.name}").replace(r"\*", ".*")
            for key in [k for k in self._fields if re.fullmatch(pattern, k)]:
                names.append(key)
                scanned.append(
                    sum(self._size(key, f) for f in self._fields[key] if star or f["name"] in named)
                )
        return scanned, names

    def _size(self, table: str, column: Mapping[str, Any]) -> int:
        """https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#data_type_sizes"""
        key = (table, column["name"])
        if key not in self._sizes:
            text = f"2 + BYTE_LENGTH(`{column['name']}`)" if column["type"] == "STRING" else "0"
            ((rows, letters),) = self.run(f"SELECT COUNT(*), SUM({text}) FROM `{PROJECT}.{table}`")
            fixed = _WIDTHS.get(column["type"], 8) if column["type"] != "STRING" else 0
            self._sizes[key] = int(rows) * fixed + int(float(letters or 0))
        return self._sizes[key]

    # --- tables --------------------------------------------------------------------------------

    def _described(self, request: Request) -> Answer:
        status, answer = self._forward("GET", request.path, request.query, None)
        if status != 200:
            return status, answer
        reference = answer["tableReference"]
        key = f"{reference['datasetId']}.{reference['tableId']}"
        if answer["type"] == "TABLE":
            ((rows,),) = self.run(f"SELECT COUNT(*) FROM `{PROJECT}.{key}`")
            answer["numRows"] = rows
        for mine, made in zip(
            answer.get("schema", {}).get("fields", ()), self._fields.get(key, ()), strict=False
        ):
            mine |= {k: made[k] for k in _ADDED if k in made}
        return 200, answer


def _billed(scanned: list[int]) -> int:
    """https://cloud.google.com/bigquery/pricing: 10 MB of each table at the least, whole MB."""
    if sum(scanned) == 0:
        return 0
    return -(-sum(max(s, 10 * MIB) for s in scanned) // MIB) * MIB


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def _refusal(status: int, reason: str, message: str) -> Answer:
    told = {"domain": "global", "reason": reason, "message": message}
    return status, {"error": {"code": status, "message": message, "errors": [told]}}


def _send(
    handler: BaseHTTPRequestHandler, answer: tuple[int, Any], headers: Mapping[str, str] = {}
) -> None:
    status, content = answer
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Type", "application/json; charset=UTF-8")
    handler.send_header("Content-Length", str(len(raw)))
    handler.end_headers()
    handler.wfile.write(raw)


def _half(handler: BaseHTTPRequestHandler, content: dict[str, Any]) -> None:
    raw = json.dumps(content).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(raw)))
    handler.end_headers()
    handler.wfile.write(raw[: len(raw) // 2])
    _reset(handler)


def _reset(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.flush()
    handler.close_connection = True
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()


@contextmanager
def bigquery_front(folder: Path) -> Iterator[BigQueryFront]:
    """The emulator with the front before it."""

    grpc_port = free_port()

    def command(port: int) -> list[str]:
        ports = ["--rest-port", str(port), "--grpc-port", str(grpc_port)]
        return [str(START), "start", *ports, "--log-level", "error"]

    with running("bigquery", command, folder) as emulator:
        front = BigQueryFront(emulator, grpc_port)
        try:
            yield front
        finally:
            front.close()
