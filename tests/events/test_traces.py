"""Queries as spans of a real OpenTelemetry SDK, kept in memory."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import batuta_sql
from batuta_sql.sources.base import FragmentReader
from batuta_sql.watching import NOT_WATCHED
from tests.events.conftest import Opened

ON = {"traces": True}
STEPS = ["batuta bind", "batuta optimise", "batuta place", "batuta authorise", "batuta run"]


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What the spans of a test come to; an SDK's provider stands for the process's for so long."""
    found = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(found))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(
        trace, "get_tracer", lambda name, version=None: provider.get_tracer(name, version)
    )
    yield found
    provider.shutdown()


def named(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    spans = exporter.get_finished_spans()
    found = {s.name: s for s in spans}
    assert len(found) == len(spans)
    return found


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parent(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent is not None else None


def id_of(span: ReadableSpan) -> int:
    return span.get_span_context().span_id


def test_a_query_and_what_is_below_it(
    opened: Opened, exporter: InMemorySpanExporter, crm: str
) -> None:
    connection = opened(
        telemetry=ON, sources={"crm": {"kind": "postgresql", "uri": crm}}, semi_joins="off"
    )
    sql = "SELECT c.name, o.total FROM crm.customer c JOIN shop.orders o ON o.customer = c.id"
    cursor = connection.execute(sql)
    cursor.fetchall()
    metrics = cursor.metrics
    assert metrics is not None
    spans = named(exporter)
    query = spans.pop("batuta query")
    assert set(spans) == {
        *STEPS,
        "batuta fragment crm",
        "batuta fragment shop",
        "batuta deliver",
    }
    assert {parent(s) for s in spans.values()} == {id_of(query)}
    assert parent(query) is None
    assert query.status.status_code == StatusCode.UNSET
    told = attributes(query)
    assert (told["db.system.name"], told["batuta.ending"]) == ("batuta_sql", "finished")
    assert (told["batuta.fragments"], told["batuta.rows"]) == (2, metrics["rows"])
    assert told["batuta.bytes"] == metrics["bytes"]
    assert told["batuta.planning_seconds"] > 0
    for one in metrics["fragments"]:
        span = spans[f"batuta fragment {one['source']}"]
        found = attributes(span)
        assert span.kind == SpanKind.CLIENT
        assert found["db.response.returned_rows"] == one["rows"]
        assert found["batuta.bytes"] == one["bytes"]
        assert found["batuta.seconds"] == one["seconds"]
        assert found["batuta.connections"] == one["connections"]
        assert "db.query.text" not in found
    at_crm = attributes(spans["batuta fragment crm"])
    assert at_crm["db.system.name"] == "postgresql"
    assert at_crm["db.namespace"] == crm.rsplit("/", 1)[1]
    assert at_crm["db.collection.name"] == "public.customer"
    assert at_crm["server.address"] == "127.0.0.1"
    assert f":{at_crm['server.port']}/" in crm
    assert attributes(spans["batuta fragment shop"])["db.system.name"] == "sqlite"


def test_the_estimate_stands_beside_the_actual(
    opened: Opened, exporter: InMemorySpanExporter
) -> None:
    connection = opened(telemetry=ON)
    connection.execute("SELECT name FROM shop.customer").fetchall()
    connection.close()
    found = attributes(named(exporter)["batuta fragment shop"])
    assert found["db.response.returned_rows"] == 3
    assert found["batuta.estimate.rows"] > 0


def test_keys_of_another_source_are_counted_and_not_told(
    opened: Opened, exporter: InMemorySpanExporter, crm: str
) -> None:
    connection = opened(
        telemetry={**ON, "sql": True},
        sources={"crm": {"kind": "postgresql", "uri": crm}},
        semi_joins="always",
    )
    connection.execute(
        "SELECT c.name FROM crm.customer c JOIN shop.orders o ON o.customer = c.id"
        " WHERE o.total > 25"
    ).fetchall()
    fragments = [s for s in exporter.get_finished_spans() if "fragment" in s.name]
    keyed = [attributes(s) for s in fragments if "batuta.keys" in attributes(s)]
    others = [attributes(s) for s in fragments if "batuta.keys" not in attributes(s)]
    assert (len(keyed), len(others)) == (1, 1)
    assert keyed[0]["batuta.keys"] >= 1
    assert "db.query.text" not in keyed[0]
    assert "db.query.text" in others[0]


def test_texts_only_where_they_are_wanted(opened: Opened, exporter: InMemorySpanExporter) -> None:
    sql = "SELECT id FROM shop.customer WHERE name = 'Ann-17'"
    opened(telemetry=ON).execute(sql).fetchall()
    assert "Ann-17" not in str([s.to_json() for s in exporter.get_finished_spans()])
    exporter.clear()
    opened(telemetry={**ON, "sql": True}).execute(sql).fetchall()
    spans = named(exporter)
    assert attributes(spans["batuta query"])["db.query.text"] == sql
    assert "Ann-17" in attributes(spans["batuta fragment shop"])["db.query.text"]


def test_a_failure_is_a_status_with_its_type(
    opened: Opened, exporter: InMemorySpanExporter
) -> None:
    connection = opened(telemetry=ON)
    with pytest.raises(batuta_sql.DataError):
        connection.execute("SELECT CAST(name AS INTEGER) FROM shop.customer").fetchall()
    query = named(exporter)["batuta query"]
    assert query.status.status_code == StatusCode.ERROR
    assert attributes(query)["error.type"] == "DataError"
    assert (query.status.description or "").startswith("DataError: ")
    assert query.events == ()


def test_a_mistake_is_found_while_binding(opened: Opened, exporter: InMemorySpanExporter) -> None:
    with pytest.raises(batuta_sql.ProgrammingError):
        opened(telemetry=ON).execute("SELECT wrong FROM shop.customer WHERE name = 'Ann-17'")
    spans = exporter.get_finished_spans()
    assert {s.name for s in spans} == {"batuta bind", "batuta query"}
    assert {s.status.status_code for s in spans} == {StatusCode.ERROR}
    assert {attributes(s)["error.type"] for s in spans} == {"ProgrammingError"}
    assert "Ann-17" not in str([s.to_json() for s in spans])


def test_a_source_that_fails(opened: Opened, exporter: InMemorySpanExporter, shop: Path) -> None:
    connection = opened(telemetry=ON)
    connection.execute("SELECT count(*) FROM shop.orders").fetchall()
    exporter.clear()
    import sqlite3

    with sqlite3.connect(shop) as database:
        database.execute("UPDATE orders SET total = 'much' WHERE id = 2")
    database.close()
    with pytest.raises(batuta_sql.Error):
        connection.execute("SELECT total FROM shop.orders").fetchall()
    spans = named(exporter)
    for name in ("batuta fragment shop", "batuta query"):
        assert spans[name].status.status_code == StatusCode.ERROR, name


def test_how_a_query_ended(opened: Opened, exporter: InMemorySpanExporter) -> None:
    connection = opened(telemetry=ON)
    endless = "SELECT c.id FROM shop.customer c, range(1000000000)"
    cursor = connection.execute(endless)
    cursor.fetchone()
    cursor.close()
    running = connection.execute(f"{endless} ORDER BY 1")
    threading.Timer(0.2, connection.cancel).start()
    with pytest.raises(batuta_sql.QueryCancelled):
        running.fetchall()
    connection.explain("SELECT id FROM shop.customer")
    queries = [s for s in exporter.get_finished_spans() if s.name == "batuta query"]
    assert [attributes(s)["batuta.ending"] for s in queries] == ["partial", "cancelled", "planned"]
    assert {s.status.status_code for s in queries} == {StatusCode.UNSET}


# --- the caller's context ----------------------------------------------------------------------


def test_the_callers_span_is_above_and_stays_current(
    opened: Opened, exporter: InMemorySpanExporter
) -> None:
    connection = opened(telemetry=ON)
    tracer = trace.get_tracer("program")
    with tracer.start_as_current_span("program") as above:
        connection.execute("SELECT id FROM shop.customer").fetchall()
        assert trace.get_current_span() is above
    spans = named(exporter)
    assert parent(spans["batuta query"]) == above.get_span_context().span_id
    assert len({s.get_span_context().trace_id for s in spans.values()}) == 1


def test_what_a_driver_traces_is_below_its_fragment(
    opened: Opened, exporter: InMemorySpanExporter, crm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fetches are in threads of their own; estimates too, below the query."""
    from batuta_sql.sources import sqlite

    snapshot = sqlite.SQLiteSnapshot
    source = sqlite.SQLite
    read, estimate = snapshot.read, source.estimate
    tracer = trace.get_tracer("driver")
    threads: list[threading.Thread] = []
    estimated = threading.Event()

    def traced_read(self: Any, query: Any) -> FragmentReader:
        threads.append(threading.current_thread())
        with tracer.start_as_current_span("driver reads"):
            return read(self, query)

    def traced_estimate(self: Any, query: Any) -> Any:
        threads.append(threading.current_thread())
        try:
            with tracer.start_as_current_span("driver estimates"):
                return estimate(self, query)
        finally:
            estimated.set()

    monkeypatch.setattr(snapshot, "read", traced_read)
    monkeypatch.setattr(source, "estimate", traced_estimate)
    connection = opened(telemetry=ON)
    with trace.get_tracer("program").start_as_current_span("program"):
        connection.execute("SELECT id FROM shop.customer").fetchall()
    assert estimated.wait(30)
    connection.close()
    spans = named(exporter)
    assert threading.current_thread() not in threads
    assert parent(spans["driver reads"]) == id_of(spans["batuta fragment shop"])
    assert parent(spans["driver estimates"]) == id_of(spans["batuta run"])
    traces = {s.get_span_context().trace_id for s in spans.values()}
    assert len(traces) == 1


def test_questions_to_several_catalogs_are_below_the_binding(
    opened: Opened, exporter: InMemorySpanExporter, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are asked at once, in threads of their own."""
    from batuta_sql.catalog import catalog
    from batuta_sql.sources.sqlite import SQLite

    monkeypatch.setattr(catalog, "_SOON_SECONDS", -1.0)
    resolve, tracer = SQLite.resolve, trace.get_tracer("driver")
    threads: set[threading.Thread] = set()

    def traced(self: Any, path: Any) -> Any:
        threads.add(threading.current_thread())
        with tracer.start_as_current_span("driver resolves"):
            return resolve(self, path)

    monkeypatch.setattr(SQLite, "resolve", traced)
    connection = opened(telemetry=ON, sources={"other": {"kind": "sqlite", "path": str(shop)}})
    connection.execute("SELECT o.id FROM shop.orders o JOIN other.orders p USING (id)").fetchall()
    assert threading.current_thread() not in threads
    spans = exporter.get_finished_spans()
    (binding,) = [s for s in spans if s.name == "batuta bind"]
    asked = [parent(s) for s in spans if s.name == "driver resolves"]
    assert asked == [id_of(binding)] * 2


def test_queries_of_several_threads_do_not_mix(
    opened: Opened, exporter: InMemorySpanExporter
) -> None:
    connection = opened(telemetry=ON)
    tracer = trace.get_tracer("program")

    def work(number: int) -> None:
        with tracer.start_as_current_span(f"program {number}"):
            for _ in range(5):
                connection.execute("SELECT id FROM shop.customer").fetchall()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spans = exporter.get_finished_spans()
    programs = {id_of(s): s.get_span_context().trace_id for s in spans if "program" in s.name}
    queries = {id_of(s): s.get_span_context().trace_id for s in spans if s.name == "batuta query"}
    assert (len(programs), len(queries)) == (3, 15)
    for span in spans:
        above = programs | queries
        if span.name not in {f"program {n}" for n in range(3)}:
            known = parent(span)
            assert known is not None
            assert above[known] == span.get_span_context().trace_id


def test_a_copy_is_traced(opened: Opened, exporter: InMemorySpanExporter, tmp_path: Path) -> None:
    opened(telemetry=ON).sync("shop.customer", tmp_path / "copied")
    fragments = [s for s in exporter.get_finished_spans() if s.name == "batuta fragment shop"]
    assert [attributes(s)["db.response.returned_rows"] for s in fragments] == [3]


# --- off ---------------------------------------------------------------------------------------


def test_nothing_is_traced_unless_configured(
    opened: Opened, exporter: InMemorySpanExporter
) -> None:
    opened().execute("SELECT id FROM shop.customer").fetchall()
    assert exporter.get_finished_spans() == ()


def test_without_an_sdk_nothing_is_watched(opened: Opened) -> None:
    connection = opened(telemetry=ON)
    watch = connection._session.watchers.watch("SELECT 1")
    assert watch is NOT_WATCHED
    assert len(connection.execute("SELECT id FROM shop.customer").fetchall()) == 3


def test_the_libraries_are_imported_only_where_they_are_configured(shop: Path) -> None:
    program = f"""
import sys, batuta_sql
sources = {{"shop": {{"kind": "sqlite", "path": {str(shop)!r}}}}}
with batuta_sql.connect({{"sources": sources, "cost": {{"history": False}}}}) as connection:
    connection.execute("SELECT id FROM shop.customer").fetchall()
print([m for m in sys.modules if m.split(".")[0] in ("opentelemetry", "openlineage")])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path.cwd(), check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("library", "settings", "extra"),
    [
        ("opentelemetry", {"telemetry": ON}, "batuta-sql[opentelemetry]"),
        ("openlineage.client", {"openlineage": {"enabled": True}}, "batuta-sql[openlineage]"),
    ],
)
def test_a_library_that_is_not_installed(
    library: str,
    settings: dict[str, Any],
    extra: str,
    opened: Opened,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(batuta_sql.ConfigError) as refu:
        opened(**settings)
    assert extra in str(refu.value)
