"""Queries as spans of OpenTelemetry, through its API alone: the program configures the SDK.

A span for the query with the caller's span above it; below it the steps of the planning, one span
for each fragment and one for the time in which the result could be read. Attributes are those of
the conventions for databases (https://opentelemetry.io/docs/specs/semconv/database/), and
``batuta.*`` where there is none. Without an SDK no span is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from batuta_sql.errors import ConfigError, QueryCancelled
from batuta_sql.exchange.fetch import UNWATCHED, Fetch, FetchWatch
from batuta_sql.guards.locality import endpoints
from batuta_sql.openlineage_names import SourceNames
from batuta_sql.secrets import without_passwords
from batuta_sql.watching import NOT_WATCHED, Ending, QueryWatch, message_of

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from batuta_sql.config import Settings
    from batuta_sql.query import Query

SYSTEM = "batuta_sql"

_SYSTEMS: Mapping[str, str] = {"postgresql": "postgresql", "sqlite": "sqlite"}
"""The conventions' names of systems; of others they have none, and the kind's own name stands."""


class Traces:
    """Makes spans for all queries of a connection.

    :raises ConfigError: where OpenTelemetry's API is not installed.
    """

    def __init__(self, settings: Settings) -> None:
        try:
            from opentelemetry import context, trace
        except ImportError:
            raise ConfigError(
                "telemetry.traces: OpenTelemetry is not installed",
                hint="pip install 'batuta-sql[opentelemetry]'",
            ) from None
        from batuta_sql import __version__

        self.trace = trace
        self.context = context
        self.tracer = trace.get_tracer("batuta_sql", __version__)
        self.tells_sql = settings.telemetry.sql
        self._settings = settings
        self._names = SourceNames(settings.sources)
        self._places: dict[str, Mapping[str, Any]] = {}

    def watch(self, sql: str) -> QueryWatch:
        span = self.tracer.start_span("batuta query", attributes={"db.system.name": SYSTEM})
        if not span.get_span_context().is_valid:
            # There is no SDK, and no caller's span that others would hear of.
            return NOT_WATCHED
        if self.tells_sql and span.is_recording():
            span.set_attribute("db.query.text", without_passwords(sql))
        return _QuerySpan(self, span)

    def close(self) -> None:
        """The program's SDK has the spans."""

    def place(self, source: str) -> Mapping[str, Any]:
        """What the conventions say of a source: the system, the database, the server."""
        known = self._places.get(source)
        if known is None:
            known = self._places[source] = self._looked_up(source)
        return known

    def _looked_up(self, source: str) -> Mapping[str, Any]:
        settings = self._settings.sources[source]
        kind = str(getattr(settings, "kind", "other_sql"))
        found: dict[str, Any] = {"db.system.name": _SYSTEMS.get(kind, kind)}
        database = self._names.database(source)
        if database is not None:
            found["db.namespace"] = database
        try:
            dialled = endpoints(settings)
        except ConfigError:
            dialled = ()
        if dialled and dialled[0].host is not None:
            found["server.address"] = dialled[0].host
            if dialled[0].port is not None:
                found["server.port"] = dialled[0].port
        return found

    def fail(self, span: Span, error: BaseException) -> None:
        """Marks a span as failed: the error's type, and its message without the query's text."""
        from opentelemetry.trace import Status, StatusCode

        span.set_attribute("error.type", type(error).__name__)
        span.set_status(Status(StatusCode.ERROR, message_of(error)))


class _QuerySpan(QueryWatch):
    def __init__(self, traces: Traces, span: Span) -> None:
        self._traces = traces
        self._span = span
        # The caller's context, what else is in it included, with the query's span.
        self.context = traces.trace.set_span_in_context(span)
        self._delivery: Span | None = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        traces = self._traces
        span = traces.tracer.start_span(f"batuta {name}", self.context)
        token = traces.context.attach(traces.trace.set_span_in_context(span, self.context))
        try:
            yield
        except BaseException as error:
            traces.fail(span, error)
            raise
        finally:
            traces.context.detach(token)
            span.end()

    def fetch(self) -> FetchWatch:
        return _FragmentSpan(self._traces, self.context) if self._span.is_recording() else UNWATCHED

    def delivers(self) -> None:
        self._delivery = self._traces.tracer.start_span("batuta deliver", self.context)

    def ended(self, query: Query, ending: Ending, error: BaseException | None) -> None:
        span = self._span
        if self._delivery is not None:
            self._delivery.end()
        if span.is_recording():
            span.set_attributes(dict(_figures_of_query(query, ending)))
            if ending == "failed" and error is not None:
                self._traces.fail(span, error)
        span.end()


def _figures_of_query(query: Query, ending: Ending) -> Iterator[tuple[str, Any]]:
    yield "batuta.ending", ending
    yield "batuta.planning_seconds", query.planning_seconds
    yield "batuta.is_fallback", query.placed is None
    yield "batuta.fragments", len(query.runs)
    yield "batuta.rows", sum(r.rows or 0 for r in query.runs)
    yield "batuta.bytes", sum(r.bytes or 0 for r in query.runs)


class _FragmentSpan(FetchWatch):
    """The span of one fragment, current in the fetch's own thread: what a driver traces there is
    below it.
    """

    def __init__(self, traces: Traces, above: Context) -> None:
        self._traces = traces
        self._above = above
        self._span: Span | None = None

    def begun(self, fetch: Fetch) -> None:
        traces, fragment = self._traces, fetch.fragment
        span = traces.tracer.start_span(
            f"batuta fragment {fragment.source}",
            self._above,
            traces.trace.SpanKind.CLIENT,
            dict(traces.place(fragment.source)),
        )
        self._span = span
        span.set_attribute("batuta.source", fragment.source)
        span.set_attribute("batuta.fragment", fragment.name)
        if len(fragment.tables) == 1:
            span.set_attribute("db.collection.name", ".".join(fragment.tables[0].path))
        if traces.tells_sql and fetch.metrics.keys is None:
            # Keys are rows of another source: they are told nowhere.
            span.set_attribute("db.query.text", without_passwords(fragment.sql))
        # Not detached: the thread ends with the fetch, and the fetch may end in another one.
        traces.context.attach(traces.trace.set_span_in_context(span, self._above))

    def ended(self, fetch: Fetch, error: BaseException | None) -> None:
        if self._span is None:
            return
        self._span.set_attributes(dict(_figures_of_fetch(fetch)))
        if error is not None and not isinstance(error, QueryCancelled):
            self._traces.fail(self._span, error)
        self._span.end()


def _figures_of_fetch(fetch: Fetch) -> Iterator[tuple[str, Any]]:
    """The estimate beside the actual; what is not known is left out."""
    metrics, fragment = fetch.metrics, fetch.fragment
    yield "db.response.returned_rows", metrics.rows
    yield "batuta.bytes", metrics.bytes
    yield "batuta.seconds", metrics.seconds
    yield "batuta.connections", metrics.connections
    yield "batuta.rested_seconds", metrics.rested
    yield "batuta.is_whole", metrics.finished
    for name, value in (
        ("batuta.keys", metrics.keys),
        ("batuta.first_row_seconds", metrics.first),
        ("batuta.kept_seconds", metrics.age),
        ("batuta.estimate.rows", fragment.rows),
        ("batuta.estimate.bytes", fragment.bytes),
    ):
        if value is not None:
            yield name, value
