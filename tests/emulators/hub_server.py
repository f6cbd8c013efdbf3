"""A stand-in for the Hugging Face hub: a program of its own that serves a folder.

``ROOT/owner/name/repo.json`` is a dataset: ``{"refs": {"main": commit}, "private": ..., "gated":
..., "token": ..., "cardData": {...}}``; the files of a commit lie in ``ROOT/owner/name/COMMIT/``.
Shapes are those of https://huggingface.co/docs/hub/api: ``/api/datasets/REPO/revision/REV``, and
``/datasets/REPO/resolve/COMMIT/PATH``, which sends to another host (here: ``localhost``), as the
hub does to its storage. ``ROOT/faults.json`` says what is to fail: ``{"path": text, "status": 429,
"times": 2, "headers": {}}``, ``{"path": text, "cut": bytes}``, ``{"path": text, "whole": true}``.
Each request is a line of ``ROOT/requests.jsonl``.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(sys.argv[1])
LOCK = threading.Lock()


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urllib.parse.urlsplit(self.path).path
        fault = self._fault(path)
        if fault is not None and "status" in fault:
            return self._say(fault["status"], {"error": "told to fail"}, fault.get("headers"))
        if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/revision/([^/]+)", path):
            return self._describe(match[1], urllib.parse.unquote(match[2]))
        if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(match[1], match[2], match[3])
        if match := re.fullmatch(r"/storage/(.+)", path):
            return self._send(ROOT / urllib.parse.unquote(match[1]), fault or {})
        return self._say(404, {"error": "no such page"})

    def _fault(self, path: str) -> dict[str, Any] | None:
        file = ROOT / "faults.json"
        with LOCK:
            faults = json.loads(file.read_text()) if file.exists() else []
            for fault in faults:
                if fault["path"] in path and fault.get("times", 1) > 0:
                    fault["times"] = fault.get("times", 1) - 1
                    file.write_text(json.dumps(faults))
                    return dict(fault)
        return None

    def _repo(self, name: str) -> dict[str, Any] | None:
        """The dataset, where the caller may see it; else the answer is given."""
        file = ROOT / name / "repo.json"
        repo: dict[str, Any] | None = json.loads(file.read_text()) if file.exists() else None
        sent = self.headers.get("Authorization")
        known = repo is not None and sent == f"Bearer {repo.get('token')}"
        hidden = repo is None or (repo.get("private") and not known)
        if sent is not None and not known:
            self._say(401, {"error": "Invalid credentials in Authorization header"})
        elif hidden and sent is None:
            self._say(
                401, {"error": "Invalid username or password."}, {"X-Error-Code": "RepoNotFound"}
            )
        elif hidden:
            self._say(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        else:
            return repo
        return None

    def _describe(self, name: str, revision: str) -> None:
        repo = self._repo(name)
        if repo is None:
            return
        commit = repo["refs"].get(revision, revision)
        folder = ROOT / name / commit
        if not folder.is_dir():
            return self._say(
                404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"}
            )
        paths = sorted(p for p in folder.rglob("*") if p.is_file())
        siblings = [
            {"rfilename": p.relative_to(folder).as_posix(), "size": p.stat().st_size} for p in paths
        ]
        told = {k: repo.get(k, False) for k in ("private", "gated")}
        told |= {"id": name, "sha": commit, "siblings": siblings, "cardData": repo.get("cardData")}
        return self._say(200, told)

    def _resolve(self, name: str, commit: str, path: str) -> None:
        repo = self._repo(name)
        if repo is None:
            return
        if repo.get("gated") and self.headers.get("Authorization") is None:
            return self._say(
                401,
                {"error": f"Access to dataset {name} is restricted"},
                {"X-Error-Code": "GatedRepo"},
            )
        if not (ROOT / name / commit / urllib.parse.unquote(path)).is_file():
            return self._say(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        port = self.server.server_address[1]
        where = f"http://localhost:{port}/storage/{name}/{commit}/{path}?Signature=signed-0815"
        return self._say(302, {}, {"Location": where})

    def _send(self, file: Path, fault: dict[str, Any]) -> None:
        content = file.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if asked is None or fault.get("whole"):
            return self._write(200, content, {}, None)
        start, end = int(asked[1]), min(int(asked[2]), len(content) - 1)
        told = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
        return self._write(206, content[start : end + 1], told, fault.get("cut"))

    def _say(self, status: int, told: Any, headers: dict[str, str] | None = None) -> None:
        self._write(status, json.dumps(told).encode(), headers or {}, None)

    def _write(self, status: int, content: bytes, headers: dict[str, str], cut: int | None) -> None:
        line = {
            "path": self.path,
            "status": status,
            "bytes": len(content),
            "authorized": "Authorization" in self.headers,
        }
        with LOCK, (ROOT / "requests.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        self.send_response_only(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content if cut is None else content[:cut])
        self.close_connection = cut is not None

    def log_message(self, *_: Any) -> None:
        return


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Hub).serve_forever()
