"""Results of BigQuery jobs through the Storage Read API: Arrow, in several streams at once.

A job that is done has its rows in an anonymous table, which may be read for nothing
(https://cloud.google.com/bigquery/docs/cached-results). What is delivered is what the pages of JSON
would have delivered: only columns whose Arrow form is documented and converts exactly are read so
(https://cloud.google.com/bigquery/docs/reference/storage#arrow_schema_details). Where the API
cannot be reached, pages are read; that is decided before the first row.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from batuta_sql.errors import DataError, Error, OperationalError
from batuta_sql.plan.types import decimal_parts
from batuta_sql.source_settings import BigQuerySettings
from batuta_sql.sources.base import Usage
from batuta_sql.sources.bigquery_readers import BatchReader
from batuta_sql.sources.bigquery_rest import LOOPBACK, REQUEST_SECONDS, Client
from batuta_sql.sources.bigquery_types import Shape, native_type, schema_of

AUDIENCE = "https://bigquerystorage.googleapis.com/"
"""For whom a service account signs its tokens: https://google.aip.dev/auth/4111."""

SESSION_SECONDS = 5.0
"""The longest wait for a session: pages of JSON are there already."""

_LONGEST_STREAM = 86_400.0
"""Seconds, where ``query_timeout`` allows more; sessions end after 6 hours by themselves."""

_DOCUMENTED: Mapping[str, tuple[str, pa.DataType]] = {
    "INT64": ("BIGINT", pa.int64()),
    "FLOAT64": ("DOUBLE", pa.float64()),
    "BOOL": ("BOOLEAN", pa.bool_()),
    "STRING": ("VARCHAR", pa.string()),
    "BYTES": ("BLOB", pa.binary()),
    "DATE": ("DATE", pa.date32()),
    "TIME": ("TIME", pa.time64("us")),
    "DATETIME": ("TIMESTAMP", pa.timestamp("us")),
    "TIMESTAMP": ("TIMESTAMP WITH TIME ZONE", pa.timestamp("us", tz="UTC")),
    "JSON": ("JSON", pa.string()),
    "GEOGRAPHY": ("VARCHAR", pa.string()),
}
"""For BigQuery's types what a column is to DuckDB, and its documented Arrow type."""

_INT64_DIGITS = 19
_NOT_HERE = frozenset(
    {"PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"}
)
"""Statuses after which a source does not ask for sessions again."""

Field = Mapping[str, Any]
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """The result of a job that is done.

    :param table: where its rows are, as jobs.get tells it.
    :param rows: how many.
    :param end: gives what the job has billed.
    :param deadline: of ``time.monotonic``.
    """

    table: Mapping[str, str]
    fields: Sequence[Field]
    shapes: Sequence[Shape]
    rows: int
    end: Callable[[], Usage | None]
    deadline: float

    @property
    def path(self) -> str:
        table = self.table
        return (
            f"projects/{table['projectId']}/datasets/{table['datasetId']}/tables/{table['tableId']}"
        )


class ReadSessions:
    """The read sessions of one source; remembers where it has found that there are none."""

    def __init__(self, source: str, client: Client, settings: BigQuerySettings) -> None:
        self._source = source
        self._client = client
        self._settings = settings
        self._usable = settings.storage_address is not None

    def may_read(self, fields: Sequence[Field], shapes: Sequence[Shape]) -> bool:
        """Whether a result of these columns is asked for here."""
        return self._usable and all(
            _converts_exactly(f, s) for f, s in zip(fields, shapes, strict=True)
        )

    def read(self, result: Result, stop: threading.Event) -> BatchReader | None:
        """A result's rows; None where its pages have to be read."""
        try:
            import grpc  # noqa: F401
            from google.cloud import bigquery_storage_v1  # noqa: F401
        except ImportError:
            self._without("google-cloud-bigquery-storage is not installed", for_good=True)
            return None
        channel = self._channel()
        reader = None
        try:
            reader = self._reader(channel, result, stop)
        except Error as error:
            self._without(error.message, for_good=False)
        except (pa.ArrowException, OSError, KeyError) as error:
            self._without(f"the session cannot be read: {type(error).__name__}", for_good=False)
        finally:
            if reader is None:
                channel.close()
        return reader

    def _reader(self, channel: Any, result: Result, stop: threading.Event) -> BatchReader | None:
        client = _client(channel)
        session = self._session(client, result)
        if session is None:
            return None
        schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
        if not _is_documented(schema, result.fields) or not session.streams:
            self._without("the session has other columns, or no streams", for_good=False)
            return None
        return BatchReader(
            self._client,
            self._source,
            result.shapes,
            [self._rows(client, s.name, schema, result.deadline) for s in session.streams],
            lambda batch: _converted(batch, result.shapes),
            result.rows,
            result.end,
            stop,
            channel.close,
        )

    # --- asking --------------------------------------------------------------------------------

    def _channel(self) -> Any:
        """One connection, for one result. Without TLS to an emulator on this machine alone."""
        import grpc

        address = self._settings.storage_address or ""
        url = urllib.parse.urlsplit(address if "://" in address else f"//{address}")
        host = url.hostname or ""
        target = f"{f'[{host}]' if ':' in host else host}:{url.port or 443}"
        # A message holds 10 MB of rows, and gRPC's own limit is 4.
        options = [("grpc.max_receive_message_length", -1)]
        emulated = (self._settings.endpoint or "").startswith("http://")
        if emulated and host in LOOPBACK:
            channel = grpc.insecure_channel(target, [*options, ("grpc.enable_http_proxy", 0)])
        else:
            channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(), options)
        return grpc.intercept_channel(channel, _authorising(self._token))

    def _token(self) -> str | None:
        return self._client.token(AUDIENCE)

    def _session(self, client: Any, result: Result) -> Any | None:
        from google.api_core.exceptions import GoogleAPIError
        from google.cloud.bigquery_storage_v1 import types

        wanted = types.ReadSession(table=result.path, data_format=types.DataFormat.ARROW)
        try:
            return client.create_read_session(
                parent=f"projects/{self._settings.project}",
                read_session=wanted,
                max_stream_count=self._settings.max_connections,
                retry=None,
                timeout=SESSION_SECONDS,
            )
        except GoogleAPIError as error:
            status = getattr(getattr(error, "grpc_status_code", None), "name", "")
            self._without(self._told(error), for_good=status in _NOT_HERE)
            return None

    def _without(self, reason: str, *, for_good: bool) -> None:
        if for_good:
            self._usable = False
        _LOGGER.info("%s: results are read as JSON: %s", self._source, reason)

    def _rows(
        self, client: Any, stream: str, schema: pa.Schema, deadline: float
    ) -> Iterator[pa.RecordBatch]:
        """The batches of one stream. One that breaks is resumed by the library, by its offset.

        :raises OperationalError: with the service's own words.
        """
        from google.api_core.exceptions import DeadlineExceeded, GoogleAPIError, ServiceUnavailable
        from google.api_core.retry import Retry, if_exception_type

        left = max(0.05, min(deadline - time.monotonic(), _LONGEST_STREAM))
        # The library's own would try for a day.
        again = Retry(
            predicate=if_exception_type(ServiceUnavailable),
            initial=0.25,
            maximum=8.0,
            timeout=min(left, REQUEST_SECONDS),
        )
        hint = "look at the network; the query may be run again"
        try:
            for message in client.read_rows(stream, retry=again, timeout=left):
                raw = pa.py_buffer(message.arrow_record_batch.serialized_record_batch)
                batch = pa.ipc.read_record_batch(raw, schema)
                if batch.num_rows != message.row_count:
                    # By this count a stream is resumed.
                    told = f"a batch has {batch.num_rows} rows instead of {message.row_count}"
                    raise OperationalError(told, source=self._source, hint=hint)
                yield batch
        except GoogleAPIError as error:
            if isinstance(error, DeadlineExceeded):
                hint = "raise query_timeout, or look at the network"
            raise OperationalError(self._told(error), source=self._source, hint=hint) from None
        except (pa.ArrowException, OSError) as error:
            told = self._client.clean(f"a batch of the answer cannot be read: {error}")
            raise DataError(told, source=self._source) from None

    def _told(self, error: Any) -> str:
        """The service's own words; of a retry that was given up those of its last error."""
        last = getattr(error, "cause", None) or error
        message = getattr(last, "message", None) or type(last).__name__
        return self._client.clean(str(message))


def _client(channel: Any) -> Any:
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
        BigQueryReadGrpcTransport,
    )

    make: Any = BigQueryReadClient
    return make(transport=BigQueryReadGrpcTransport(channel=channel))


@dataclass(frozen=True)
class _Details:
    """gRPC's ``ClientCallDetails``, whose metadata cannot be changed in place."""

    method: str
    timeout: float | None
    metadata: Sequence[tuple[str, str]] = dataclasses.field(repr=False)
    credentials: Any
    wait_for_ready: bool | None
    compression: Any

    @classmethod
    def of(cls, details: Any, metadata: Sequence[tuple[str, str]]) -> _Details:
        return cls(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )


def _authorising(token: Callable[[], str | None]) -> Any:
    """Adds the bearer token to each call, below the place where the library logs its headers."""
    import grpc

    both = (grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor)

    class Authorising(*both):  # type: ignore[misc]
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            found = token()
            if found is None:
                return continuation(details, request)
            header = ("authorization", f"Bearer {found}")
            metadata = [*(details.metadata or ()), header]
            return continuation(_Details.of(details, metadata), request)

        intercept_unary_stream = intercept_unary_unary

    return Authorising()


# --- types -------------------------------------------------------------------------------------


def _converts_exactly(field: Field, shape: Shape) -> bool:
    """Whether the Arrow form of a column holds what its text in JSON would become."""
    if str(field.get("mode", "")).upper() == "REPEATED":
        return False
    kind = native_type(field)
    digits = (38, 0) if shape.type == "HUGEINT" else decimal_parts(shape.type)
    if digits is not None:
        precision, scale = digits
        return kind == "NUMERIC" or (kind == "INT64" and precision - scale >= _INT64_DIGITS)
    return kind in _DOCUMENTED and _DOCUMENTED[kind][0] == shape.type


def _is_documented(schema: pa.Schema, fields: Sequence[Field]) -> bool:
    """Whether a session's columns are the result's, each of its documented type."""
    if schema.names != [f["name"] for f in fields]:
        return False
    for type_, field in zip(schema.types, fields, strict=True):
        stored = type_.storage_type if isinstance(type_, pa.BaseExtensionType) else type_
        kind = native_type(field)
        if kind == "NUMERIC":
            fits = pa.types.is_decimal128(stored)
        else:
            fits = kind in _DOCUMENTED and stored == _DOCUMENTED[kind][1]
        if not fits:
            return False
    return True


def _converted(batch: pa.RecordBatch, shapes: Sequence[Shape]) -> pa.RecordBatch:
    """A batch of a session as the fragment's schema wants it.

    :raises DataError: for a column with a value that does not fit.
    """
    arrays = []
    for column, shape in zip(batch.columns, shapes, strict=True):
        stored = column.storage if isinstance(column, pa.ExtensionArray) else column
        try:
            arrays.append(stored.cast(shape.arrow))
        except pa.ArrowException as error:
            raise DataError(f'column "{shape.name}": {error}') from None
    return pa.RecordBatch.from_arrays(arrays, schema=schema_of(shapes))
