"""A server that OpenLineage events are sent to, and sources that events tell of."""

from __future__ import annotations

import importlib
import json
import pkgutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi
import attr
import openlineage.client.generated as generated
import pytest

import batuta_sql

Event = dict[str, Any]


@cache
def _classes() -> dict[str, Any]:
    """The classes that OpenLineage's client makes of its specification, by their schema."""
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules(generated.__path__):
        for one in vars(importlib.import_module(f"{generated.__name__}.{module.name}")).values():
            if isinstance(one, type) and hasattr(one, "_get_schema") and attr.has(one):
                found[one._get_schema()] = one
    return found


def _check(value: Event, schema: str) -> None:
    """Only keys that there are, and all that have to be."""
    fields = {f.name: f for f in attr.fields(_classes()[schema])}
    assert value.keys() <= fields.keys(), (schema, value.keys() - fields.keys())
    missing = [n for n, f in fields.items() if f.default is attr.NOTHING and n not in value]
    assert not missing, (schema, missing)


def facets_of(value: Any) -> Iterator[Any]:
    """Every facet in an event: what names the schema that it is of."""
    if isinstance(value, dict):
        if "_schemaURL" in value:
            yield value
        for inner in value.values():
            yield from facets_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from facets_of(inner)


def check_event(event: Event) -> None:
    """An event and all of its facets have the keys that OpenLineage's client knows."""
    _check(event, event["schemaURL"])
    found = list(facets_of(event))
    assert found
    for facet in found:
        _check(facet, facet["_schemaURL"])


@dataclass
class Receiver:
    """A server on loopback and what came to it; ``status`` is what it answers, ``location`` where
    it sends whoever asks.

    ``open`` lets it answer at all.
    """

    url: str = ""
    status: int = 201
    location: str | None = None
    open: threading.Event = field(default_factory=threading.Event)
    events: list[Event] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)

    def states(self) -> list[str]:
        return [e["eventType"] for e in self.events]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    found.open.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.open.wait(30)
            found.paths.append(self.path)
            found.authorizations.append(self.headers["Authorization"])
            found.events.append(json.loads(body))
            self.send_response(found.status)
            self.send_header("Content-Length", "0")
            if found.location is not None:
                self.send_header("Location", found.location)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield found
    found.open.set()
    server.shutdown()
    server.server_close()


TABLES = """
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, city TEXT);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER, total INTEGER, day TEXT);
INSERT INTO customer VALUES (1, 'Ann', 'Bonn'), (2, 'Bob', 'Rome'), (3, 'Cid', 'Bonn');
INSERT INTO orders VALUES
  (1, 1, 10, '2024-01-01'), (2, 1, 20, '2024-01-02'), (3, 2, 30, '2024-01-03');
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A SQLite file with customers and orders."""
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as database:
        database.executescript(TABLES)
    database.close()
    return path


@pytest.fixture
def crm(postgres_uri: str) -> str:
    """The URI of a PostgreSQL database with the same tables; its user has a password in it."""
    with (
        adbc_driver_postgresql.dbapi.connect(postgres_uri, autocommit=True) as server,
        server.cursor() as cursor,
    ):
        for statement in TABLES.split(";"):
            if statement.strip():
                cursor.execute(statement)
    return postgres_uri


Opened = Callable[..., batuta_sql.Connection]


@pytest.fixture
def opened(shop: Path, tmp_path: Path) -> Iterator[Opened]:
    """Opens connections over the shop; they are closed with the test."""
    with ExitStack() as stack:

        def open_(**settings: Any) -> batuta_sql.Connection:
            sources = {"shop": {"kind": "sqlite", "path": str(shop)}, **settings.pop("sources", {})}
            cost = {"history_file": str(tmp_path / "history.sqlite")}
            return stack.enter_context(
                batuta_sql.connect({"cost": cost, "sources": sources, **settings})
            )

        yield open_
