"""What stands before bqemulator's Storage Read API in tests.

The emulator reads each stream from its beginning, whatever the offset, in messages of 65,536 rows.
This server forwards to it, cuts the rows into smaller messages from the offset on, as the service
does (https://cloud.google.com/bigquery/docs/reference/storage/rpc), records the calls, and fails
where it is told to.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types

_SERVICE = "/google.cloud.bigquery.storage.v1.BigQueryRead/"
_UNLIMITED = [("grpc.max_receive_message_length", -1)]


@dataclass
class StreamFault:
    """One way in which a stream fails.

    :param after: messages that are sent before.
    :param status: with which it is ended; None: it ends as if it were complete.
    :param times: how often.
    """

    after: int
    status: grpc.StatusCode | None = grpc.StatusCode.UNAVAILABLE
    message: str = "Connection reset by peer"
    times: int = 1


@dataclass
class StorageRelay:
    """A running relay.

    :param refusal: the status and message that every session is refused with.
    :param together: streams wait here for each other before their first row.
    :param hold: while it is set, streams send their first message and no more.
    """

    upstream: Any
    port: int = 0
    rows: int = 1000
    refusal: tuple[grpc.StatusCode, str] | None = None
    faults: list[StreamFault] = field(default_factory=list)
    together: threading.Barrier | None = None
    hold: threading.Event = field(default_factory=threading.Event)
    sessions: list[types.CreateReadSessionRequest] = field(default_factory=list)
    reads: list[tuple[str, int]] = field(default_factory=list)
    """The stream and the offset of each call."""
    tokens: list[str | None] = field(default_factory=list)
    open: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def reset(self) -> None:
        """Forgets calls and faults."""
        self.rows, self.refusal, self.together = 1000, None, None
        self.hold.clear()
        for calls in (self.faults, self.sessions, self.reads, self.tokens):
            calls.clear()

    # --- serving -------------------------------------------------------------------------------

    def create(self, raw: bytes, context: grpc.ServicerContext) -> bytes:
        self._seen(context)
        self.sessions.append(types.CreateReadSessionRequest.deserialize(raw))
        if self.refusal is not None:
            context.abort(*self.refusal)
        made: bytes = self.upstream.unary_unary(_SERVICE + "CreateReadSession")(raw)
        return made

    def read(self, raw: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._seen(context)
        asked = types.ReadRowsRequest.deserialize(raw)
        with self._lock:
            self.reads.append((asked.read_stream, asked.offset))
            self.open += 1
        try:
            yield from self._sent(asked, context)
        finally:
            with self._lock:
                self.open -= 1

    def _sent(self, asked: types.ReadRowsRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
        if self.together is not None:
            self.together.wait(20)
        with self._lock:
            fault = next((f for f in self.faults if f.times > 0), None)
            if fault is not None:
                fault.times -= 1
        for sent, message in enumerate(self._messages(asked)):
            if fault is not None and sent == fault.after:
                if fault.status is None:
                    return
                context.abort(fault.status, fault.message)
            while sent > 0 and self.hold.is_set() and context.is_active():
                threading.Event().wait(0.02)
            yield types.ReadRowsResponse.serialize(message)

    def _messages(self, asked: types.ReadRowsRequest) -> Iterator[types.ReadRowsResponse]:
        whole = types.ReadRowsRequest(read_stream=asked.read_stream)
        call = self.upstream.unary_stream(_SERVICE + "ReadRows")
        schema, batches = None, []
        for raw in call(types.ReadRowsRequest.serialize(whole)):
            message = types.ReadRowsResponse.deserialize(raw)
            if schema is None:
                schema = pa.ipc.read_schema(pa.py_buffer(message.arrow_schema.serialized_schema))
            told = pa.py_buffer(message.arrow_record_batch.serialized_record_batch)
            batches.append(pa.ipc.read_record_batch(told, schema))
        if schema is None:
            return
        left = pa.Table.from_batches(batches).slice(asked.offset).combine_chunks()
        for batch in left.to_batches(max_chunksize=self.rows):
            yield types.ReadRowsResponse(
                row_count=batch.num_rows,
                arrow_record_batch=types.ArrowRecordBatch(
                    serialized_record_batch=batch.serialize().to_pybytes()
                ),
            )

    def _seen(self, context: grpc.ServicerContext) -> None:
        self.tokens.append(dict(context.invocation_metadata()).get("authorization"))


@contextmanager
def storage_relay(upstream_port: int) -> Iterator[StorageRelay]:
    """The relay, before an emulator's port for gRPC."""
    upstream = grpc.insecure_channel(f"127.0.0.1:{upstream_port}", _UNLIMITED)
    relay = StorageRelay(upstream)

    class Calls(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
            match details.method.removeprefix(_SERVICE):
                case "CreateReadSession":
                    return grpc.unary_unary_rpc_method_handler(relay.create)
                case "ReadRows":
                    return grpc.unary_stream_rpc_method_handler(relay.read)
            return None

    server = grpc.server(ThreadPoolExecutor(16), handlers=[Calls()])
    relay.port = server.add_insecure_port("127.0.0.1:0")
    # Loopback too, but not one of the names to which secrets go without TLS.
    server.add_insecure_port(f"127.0.0.2:{relay.port}")
    server.start()
    try:
        yield relay
    finally:
        relay.hold.clear()
        server.stop(None).wait(5)
        upstream.close()
