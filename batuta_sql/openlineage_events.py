"""OpenLineage events of queries and copies: START when statements are sent, then how it ended.

The events are made of the classes of ``openlineage-python`` and sent by its transports, in a thread
of their own (``event_sender``). What they mean: https://openlineage.io/docs/spec/object-model.
Column lineage is that of ``Cursor.lineage``: a table's rows as such, which ``count(*)`` is computed
from, have the field ``*``.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from batuta_sql.errors import ConfigError
from batuta_sql.event_sender import EventSender
from batuta_sql.guards.history import without_constants
from batuta_sql.guards.locality import Endpoint, of_url
from batuta_sql.guards.tiers import TierGate
from batuta_sql.labels import REST, ColumnLabels
from batuta_sql.openlineage_names import DatasetName, SourceNames, of_destination
from batuta_sql.provenance import fingerprint
from batuta_sql.secrets import without_passwords
from batuta_sql.watching import Destination, Ending, QueryWatch, Written, message_of

if TYPE_CHECKING:
    from openlineage.client import event_v2 as events
    from openlineage.client import facet_v2 as facets
    from openlineage.client.client import OpenLineageClient
    from openlineage.client.transport import Transport

    from batuta_sql.config import OpenLineageSettings, Settings, Tier
    from batuta_sql.plan.lineage import Flow, Origin
    from batuta_sql.plan.site import TableInfo
    from batuta_sql.provenance import Provenance
    from batuta_sql.query import Query

ENGINE = "Batuta-SQL"
INTEGRATION = "BATUTA_SQL"
ROWS_FIELD = "*"
"""The field that stands for a table's rows as such."""

_CLOSE_SECONDS = 3.0
_REQUEST_SECONDS = 5.0
_FINGERPRINT_DIGITS = 32

_OF_TEXT = re.compile(r"['(]|^[\d.+-]+$")
"""What names of columns have that are expressions or constants."""

_RETRY: Mapping[str, Any] = {
    "total": 1,
    "backoff_factor": 0.3,
    "status_forcelist": [500, 502, 503, 504],
    "allowed_methods": ["HEAD", "POST"],
}
"""As the client's own, but once: other events wait behind it."""

_LOCAL_TRANSPORTS = frozenset({"console", "noop"})

_one_line_at_a_time = threading.Lock()
"""Connections of one process may write to the same file."""


class OpenLineageEvents:
    """Sends events about all queries of a connection.

    :raises ConfigError: where the client is not installed, or its own configuration is wrong.
    :raises TierRefused: where events would go farther than the tier allows.
    """

    def __init__(self, settings: Settings, gate: TierGate) -> None:
        self._settings = settings.openlineage
        self._client = _client(self._settings, settings.tier)
        endpoint = _endpoint_of(self._client.transport)
        if endpoint is not None:
            gate.check_events(endpoint)
        self._names = SourceNames(settings.sources)
        self._sender = EventSender(_place_of(self._settings, endpoint))

    def watch(self, sql: str) -> QueryWatch:
        return _QueryEvents(self)

    def close(self) -> None:
        self._sender.close(_CLOSE_SECONDS)
        self._client.close(0)

    def send(self, told: _Told) -> None:
        """Makes an event and sends it, soon, in another thread."""
        self._sender.put(lambda: self._emit(told))

    def _emit(self, told: _Told) -> None:
        event = _EventOf(told, self._settings, self._names).event()
        with _one_line_at_a_time if self._settings.file is not None else nullcontext():
            self._client.emit(event)


# --- where events go ---------------------------------------------------------------------------


def _client(settings: OpenLineageSettings, tier: Tier) -> OpenLineageClient:
    try:
        from openlineage.client import OpenLineageClient
    except ImportError:
        raise ConfigError(
            "openlineage: the OpenLineage client is not installed",
            hint="pip install 'batuta-sql[openlineage]'",
        ) from None
    # The repository of the working folder is not the job's.
    config: dict[str, Any] = {"facets": {"source_code_location": {"disabled": True}}}
    try:
        return OpenLineageClient(config=config, transport=_transport(settings, tier))
    except ConfigError:
        raise
    except Exception as error:
        # Its message may quote what it was configured with.
        raise ConfigError(
            f"openlineage: the client's own configuration is refused ({type(error).__name__})",
            hint="look at openlineage.yml and the OPENLINEAGE variables, or give url or file",
        ) from None


def _transport(settings: OpenLineageSettings, tier: Tier) -> Transport | None:
    """The client's transport to what is configured here; None leaves it to the client."""
    if settings.file is not None:
        from openlineage.client.transport.file import FileConfig, FileTransport

        return FileTransport(FileConfig(settings.file, append=True))
    if settings.url is None:
        return None
    from openlineage.client.transport.http import (
        HttpConfig,
        HttpTransport,
        TokenProvider,
        get_session,
    )

    key = settings.api_key

    class Bearer(TokenProvider):
        """The key, looked up for each event: it may have been renewed."""

        def get_bearer(self) -> str | None:
            return f"Bearer {key.reveal()}" if key is not None else None

    session = get_session()
    # A tier that was asked about the address was asked about no other.
    session.trust_env = tier == "standard"
    session.max_redirects = 0
    config = HttpConfig(
        settings.url,
        settings.endpoint,
        timeout=_REQUEST_SECONDS,
        auth=Bearer({}),
        session=session,
        retry=dict(_RETRY),
    )
    return HttpTransport(config)


def _endpoint_of(transport: Transport) -> Endpoint | None:
    """The address that a transport dials; None for none, without a host where it is not told."""
    if transport.kind in _LOCAL_TRANSPORTS:
        return None
    if transport.kind == "file":
        config = getattr(transport, "config", None)
        path = str(getattr(config, "log_file_path", "://"))
        is_local = "://" not in path or path.startswith("file:///")
        return None if is_local and getattr(config, "filesystem", None) is None else Endpoint()
    url = getattr(transport, "url", None) if transport.kind == "http" else None
    return of_url(url) if isinstance(url, str) else Endpoint()


def _place_of(settings: OpenLineageSettings, endpoint: Endpoint | None) -> str:
    """Where events go, for people."""
    if settings.file is not None:
        return settings.file
    return endpoint.host if endpoint is not None and endpoint.host else "OpenLineage"


# --- what is told of a query -------------------------------------------------------------------


@dataclass(frozen=True)
class _Read:
    """What came of one table; None where it is not known."""

    rows: int | None
    bytes: int | None


@dataclass(frozen=True)
class _Told:
    """What one event is made of, in a thread that the query does not wait for.

    :param state: of the run: START, COMPLETE, FAIL or ABORT.
    :param columns: names and types of the result; the plan's names alone before they are known.
    :param read: what came of tables that a fragment read alone, by their names.
    """

    run: str
    state: str
    time: datetime
    sql: str
    provenance: Provenance
    tables: tuple[TableInfo, ...]
    columns: tuple[tuple[str, str | None], ...]
    into: Destination | None
    read: Mapping[tuple[str, ...], _Read]
    written: Written
    error: BaseException | None = None


_STATES: Mapping[Ending, str] = {
    "finished": "COMPLETE",
    "partial": "COMPLETE",
    "cancelled": "ABORT",
    "failed": "FAIL",
}


class _QueryEvents(QueryWatch):
    def __init__(self, events: OpenLineageEvents) -> None:
        from openlineage.client.uuid import generate_new_uuid

        self._events = events
        self._run = str(generate_new_uuid())
        self._begun = False

    def sent(self, query: Query) -> None:
        self._begun = True
        self._send("START", query)

    def ended(self, query: Query, ending: Ending, error: BaseException | None) -> None:
        # Of what was refused, or only planned, nothing was told.
        if self._begun:
            self._send(_STATES[ending], query, error if ending == "failed" else None)

    def _send(self, state: str, query: Query, error: BaseException | None = None) -> None:
        self._events.send(
            _Told(
                self._run,
                state,
                datetime.now(UTC),
                query.statement.sql,
                query.provenance,
                tuple(query.names.tables.values()),
                query.columns,
                query.into,
                _read(query) if state != "START" else {},
                query.written,
                error,
            )
        )


def _read(query: Query) -> Mapping[tuple[str, ...], _Read]:
    """What came of each table, where fragments of its own tell."""
    found: dict[tuple[str, ...], list[_Read]] = defaultdict(list)
    several: set[tuple[str, ...]] = set()
    for run in query.runs:
        tables = {t.qualified_parts for t in run.fragment.tables}
        if len(tables) != 1 or run.rows is None or run.age is not None:
            several |= tables
        else:
            found[tables.pop()].append(_Read(run.rows, run.bytes))
    return {
        table: _Read(sum(r.rows or 0 for r in reads), sum(r.bytes or 0 for r in reads))
        for table, reads in found.items()
        if table not in several
    }


# --- an event ----------------------------------------------------------------------------------


class _EventOf:
    """Makes one event."""

    def __init__(self, told: _Told, settings: OpenLineageSettings, names: SourceNames) -> None:
        from openlineage.client import event_v2, facet_v2

        from batuta_sql import __version__

        self._events = event_v2
        self._facets = facet_v2
        self._version = __version__
        self._producer = f"urn:batuta-sql:{__version__}"
        self._told = told
        self._settings = settings
        self._names = names
        # An incremental copy asks otherwise each time, and is one job.
        copied = told.into.copied if told.into is not None else None
        text = told.sql if copied is None else copied
        self._fingerprint = fingerprint(text)[:_FINGERPRINT_DIGITS]
        self._is_copy = copied is not None

    def event(self) -> events.RunEvent:
        told = self._told
        return self._events.RunEvent(
            eventType=self._events.RunState(told.state),
            eventTime=told.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            run=self._events.Run(told.run, facets=dict(self._run_facets())),
            job=self._events.Job(
                self._settings.namespace, self._job_name, facets=dict(self._job_facets())
            ),
            inputs=list(self._inputs()),
            outputs=[self._output()],
            producer=self._producer,
        )

    @property
    def _job_name(self) -> str:
        """The same for the same text; it tells none of its values."""
        return f"{'copy' if self._is_copy else 'query'}.{self._fingerprint}"

    def _run_facets(self) -> Iterator[tuple[str, facets.RunFacet]]:
        yield (
            "processing_engine",
            self._facets.processing_engine_run.ProcessingEngineRunFacet(
                version=self._version,
                name=ENGINE,
                openlineageAdapterVersion=self._version,
                producer=self._producer,
            ),
        )
        error = self._told.error
        if error is not None:
            yield (
                "errorMessage",
                self._facets.error_message_run.ErrorMessageRunFacet(
                    message=message_of(error), programmingLanguage="SQL", producer=self._producer
                ),
            )

    def _job_facets(self) -> Iterator[tuple[str, facets.JobFacet]]:
        kind = "COPY" if self._is_copy else "QUERY"
        yield (
            "jobType",
            self._facets.job_type_job.JobTypeJobFacet(
                processingType="BATCH",
                integration=INTEGRATION,
                jobType=kind,
                producer=self._producer,
            ),
        )
        if self._settings.sql:
            yield (
                "sql",
                self._facets.sql_job.SQLJobFacet(
                    query=without_passwords(self._told.sql),
                    dialect="duckdb",
                    producer=self._producer,
                ),
            )

    # --- inputs --------------------------------------------------------------------------------

    def _inputs(self) -> Iterator[events.InputDataset]:
        infos = {t.qualified_parts: t for t in self._told.tables}
        local = {o.table for o in self._told.provenance.lineage.origins} - infos.keys()
        for parts in [*infos, *sorted(local)]:
            name = self._names.of(parts)
            yield self._events.InputDataset(
                name.namespace,
                name.name,
                inputFacets=dict(self._statistics(parts)),
                facets={**self._schema(infos.get(parts)), **self._labels_of_table(parts)},
            )

    def _statistics(self, parts: tuple[str, ...]) -> Iterator[tuple[str, facets.InputDatasetFacet]]:
        read = self._told.read.get(parts)
        if read is not None:
            yield (
                "inputStatistics",
                self._facets.input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
                    rowCount=read.rows, size=read.bytes, producer=self._producer
                ),
            )

    def _schema(self, table: TableInfo | None) -> dict[str, facets.DatasetFacet]:
        if table is None:
            return {}
        return self._schema_facet([(c.name, c.native or c.type) for c in table.columns])

    def _schema_facet(
        self, columns: Iterable[tuple[str, str | None]]
    ) -> dict[str, facets.DatasetFacet]:
        schema = self._facets.schema_dataset
        fields = [schema.SchemaDatasetFacetFields(n, t) for n, t in columns]
        return {"schema": schema.SchemaDatasetFacet(fields=fields, producer=self._producer)}

    def _labels_of_table(self, parts: tuple[str, ...]) -> dict[str, facets.DatasetFacet]:
        provenance = self._told.provenance
        if not provenance.is_labelled:
            return {}
        labels = provenance.tables[parts].labels
        columns = [(c, labels.of(c)) for c in labels.columns if c != REST]
        return self._tags([*columns, (None, ColumnLabels(labels.rows))])

    def _tags(
        self, columns: Iterable[tuple[str | None, ColumnLabels]]
    ) -> dict[str, facets.DatasetFacet]:
        """The labels as tags; ``pii`` is the tag ``pii`` with the value ``true``.

        :param columns: None for the whole dataset.
        """
        tags = self._facets.tags_dataset
        found: list[Any] = []
        for column, labels in columns:
            for label in sorted(labels.all):
                key, _, value = label.partition(":")
                found.append(tags.TagsDatasetFacetFields(key, value or "true", INTEGRATION, column))
        if not found:
            return {}
        return {"tags": tags.TagsDatasetFacet(tags=found, producer=self._producer)}

    # --- the output ----------------------------------------------------------------------------

    def _output(self) -> events.OutputDataset:
        told = self._told
        name = of_destination(told.into, self._fingerprint)
        return self._events.OutputDataset(
            name.namespace,
            name.name,
            outputFacets=dict(self._written()),
            facets={
                **self._result_schema(),
                **self._column_lineage(),
                **self._labels_of_result(),
                **self._dataset_type(),
            },
        )

    def _written(self) -> Iterator[tuple[str, facets.OutputDatasetFacet]]:
        written = self._told.written
        if written.rows is not None and self._told.into is not None:
            yield (
                "outputStatistics",
                self._facets.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                    rowCount=written.rows, size=written.bytes, producer=self._producer
                ),
            )

    def _dataset_type(self) -> dict[str, facets.DatasetFacet]:
        if self._told.into is not None:
            return {}
        kind = self._facets.dataset_type_dataset.DatasetTypeDatasetFacet(
            datasetType="JOB_OUTPUT", producer=self._producer
        )
        return {"datasetType": kind}

    @cached_property
    def _columns(self) -> Sequence[tuple[str, str | None]]:
        """Names and types as far as they are known; nothing is, of a whole text before it ran."""
        told: Sequence[tuple[str, str | None]] = self._told.columns
        if not told:
            found = self._told.provenance.lineage.columns
            told = [(n, None) for n, _ in found if n != REST]
        return [(self._shown(name), type_) for name, type_ in told]

    def _shown(self, name: str) -> str:
        """A column's name; of one that nobody has named it is a piece of the query's text."""
        if not self._settings.sql and _OF_TEXT.search(name):
            name = without_constants(name)
        return without_passwords(name)

    def _result_schema(self) -> dict[str, facets.DatasetFacet]:
        return self._schema_facet(self._columns) if self._columns else {}

    def _labels_of_result(self) -> dict[str, facets.DatasetFacet]:
        provenance = self._told.provenance
        if not provenance.is_labelled:
            return {}
        return self._tags(provenance.labels_by_name(n for n, _ in self._columns).items())

    def _column_lineage(self) -> dict[str, facets.DatasetFacet]:
        facet = self._facets.column_lineage_dataset
        fields: dict[str, Any] = {}
        for name, flow, made in self._flows():
            inputs = list(self._input_fields(flow, made))
            if name in fields:
                # Two columns of one name are one to a reader.
                inputs = _united(fields[name].inputFields, inputs)
            fields[name] = facet.Fields(inputFields=inputs)
        if not fields:
            return {}
        return {
            "columnLineage": facet.ColumnLineageDatasetFacet(fields=fields, producer=self._producer)
        }

    def _flows(self) -> Iterator[tuple[str, Flow, Mapping[Origin, str]]]:
        """Each column of the result with its origins, and how it is made of them."""
        provenance = self._told.provenance
        names = [n for n, _ in self._columns]
        found = provenance.lineage.columns
        if len(found) == 1 and found[0][0] == REST:
            yield from ((n, found[0][1], {}) for n in names)
            return
        made = provenance.transformations.made
        for name, (_, flow), how in zip(names, found, made, strict=True):
            yield name, flow, how

    def _input_fields(self, flow: Flow, made: Mapping[Origin, str]) -> Iterator[Any]:
        facet = self._facets.column_lineage_dataset
        uses = self._told.provenance.transformations.uses
        for origin in sorted(flow.all, key=str):
            kinds: list[Any] = []
            if origin in flow.direct:
                kinds.append(facet.Transformation("DIRECT", made.get(origin)))
            if origin in flow.indirect:
                told: Sequence[str | None] = sorted(uses.get(origin, ())) or [None]
                kinds += [facet.Transformation("INDIRECT", use) for use in told]
            dataset: DatasetName = self._names.of(origin.table)
            field = origin.column if origin.column is not None else ROWS_FIELD
            yield facet.InputField(dataset.namespace, dataset.name, field, kinds)


def _united(one: Sequence[Any], other: Sequence[Any]) -> list[Any]:
    found = {(f.namespace, f.name, f.field): f for f in one}
    for field in other:
        key = (field.namespace, field.name, field.field)
        if key in found:
            known = found[key].transformations
            known += [t for t in field.transformations if t not in known]
        else:
            found[key] = field
    return list(found.values())
