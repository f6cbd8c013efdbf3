"""The messages of Flight SQL that a read-only server takes and gives.

A table of our own, after the public definition (format/FlightSql.proto and format/Flight.proto of
Apache Arrow): what is not here is not read. ``info`` of the two cancel requests is an embedded
FlightInfo, which has the encoding of bytes; pyarrow reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from batuta_sql.errors import NotSupportedError, ProgrammingError

_Fields = tuple[tuple[str, int, str], ...]
"""Name, number and type of each; ``[]`` after the type: repeated."""

_TABLE: _Fields = (("catalog", 1, "string"), ("db_schema", 2, "string"), ("table", 3, "string"))
_STATEMENT: _Fields = (("query", 1, "string"), ("transaction_id", 2, "bytes"))
_HANDLE: _Fields = (("prepared_statement_handle", 1, "bytes"),)

_SQL: Mapping[str, _Fields] = {
    "CommandStatementQuery": _STATEMENT,
    "CommandPreparedStatementQuery": _HANDLE,
    "CommandGetSqlInfo": (("info", 1, "uint32[]"),),
    "CommandGetXdbcTypeInfo": (("data_type", 1, "int32"),),
    "CommandGetCatalogs": (),
    "CommandGetDbSchemas": (("catalog", 1, "string"), ("db_schema_filter_pattern", 2, "string")),
    "CommandGetTables": (
        ("catalog", 1, "string"),
        ("db_schema_filter_pattern", 2, "string"),
        ("table_name_filter_pattern", 3, "string"),
        ("table_types", 4, "string[]"),
        ("include_schema", 5, "bool"),
    ),
    "CommandGetTableTypes": (),
    "CommandGetPrimaryKeys": _TABLE,
    "CommandGetExportedKeys": _TABLE,
    "CommandGetImportedKeys": _TABLE,
    "CommandGetCrossReference": (
        ("pk_catalog", 1, "string"),
        ("pk_db_schema", 2, "string"),
        ("pk_table", 3, "string"),
        ("fk_catalog", 4, "string"),
        ("fk_db_schema", 5, "string"),
        ("fk_table", 6, "string"),
    ),
    "TicketStatementQuery": (("statement_handle", 1, "bytes"),),
    "ActionCreatePreparedStatementRequest": _STATEMENT,
    "ActionCreatePreparedStatementResult": (
        ("prepared_statement_handle", 1, "bytes"),
        ("dataset_schema", 2, "bytes"),
        ("parameter_schema", 3, "bytes"),
    ),
    "ActionClosePreparedStatementRequest": _HANDLE,
    "ActionCancelQueryRequest": (("info", 1, "bytes"),),
    "ActionCancelQueryResult": (("result", 1, "int32"),),
}

_FLIGHT: Mapping[str, _Fields] = {
    "CancelFlightInfoRequest": (("info", 1, "bytes"),),
    "CancelFlightInfoResult": (("status", 1, "int32"),),
    "CloseSessionResult": (("status", 1, "int32"),),
}

CANCELLED, CANCELLING, NOT_CANCELLABLE = 1, 2, 3
"""Of CancelFlightInfoResult and of ActionCancelQueryResult."""

SESSION_CLOSED = 1

_SQL_PACKAGE = "arrow.flight.protocol.sql"
_FLIGHT_PACKAGE = "arrow.flight.protocol"
_WRITES = frozenset(
    {
        "CommandStatementUpdate",
        "CommandPreparedStatementUpdate",
        "CommandStatementIngest",
        "ActionBeginTransactionRequest",
        "ActionBeginSavepointRequest",
        "ActionEndTransactionRequest",
        "ActionEndSavepointRequest",
    }
)


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    found: dict[str, Any] = {}
    for package, messages in ((_SQL_PACKAGE, _SQL), (_FLIGHT_PACKAGE, _FLIGHT)):
        file = descriptor_pb2.FileDescriptorProto(
            name=f"{package}.proto", package=package, syntax="proto2"
        )
        for name, fields in messages.items():
            message = file.message_type.add(name=name)
            for field, number, kind in fields:
                repeated = kind.endswith("[]")
                message.field.add(
                    name=field,
                    number=number,
                    type=f"TYPE_{kind.removesuffix('[]').upper()}",
                    label="LABEL_REPEATED" if repeated else "LABEL_OPTIONAL",
                )
        pool.Add(file)
        for name in messages:
            descriptor = pool.FindMessageTypeByName(f"{package}.{name}")
            found[name] = message_factory.GetMessageClass(descriptor)
    return found


_CLASSES = _classes()


def message(name: str, **values: Any) -> Any:
    """A new message."""
    return _CLASSES[name](**values)


def name_of(message: Any) -> str:
    """The name of a message's type, without its package."""
    return str(message.DESCRIPTOR.name)


def packed(message: Any) -> bytes:
    """A message as Flight SQL sends it: inside a ``google.protobuf.Any``."""
    wrapped = any_pb2.Any()
    wrapped.Pack(message)
    return bytes(wrapped.SerializeToString())


def unpacked(data: bytes) -> Any:
    """The message inside a ``google.protobuf.Any``.

    :raises ProgrammingError: for bytes that are none.
    :raises NotSupportedError: for a message that a read-only server does not take.
    """
    wrapped = any_pb2.Any()
    try:
        wrapped.ParseFromString(data)
        package, _, name = wrapped.type_url.rpartition("/")[2].rpartition(".")
        if package == _SQL_PACKAGE and name in _WRITES:
            raise NotSupportedError(
                "this server is read-only: no updates, no loads, no transactions",
                hint="send queries (SELECT), and switch autocommit on",
            )
        if package != _SQL_PACKAGE or name not in _SQL:
            raise NotSupportedError(f'"{wrapped.type_url}" is no command that this server takes')
        found = _CLASSES[name]()
        found.ParseFromString(wrapped.value)
    except (DecodeError, UnicodeDecodeError, ValueError):
        raise ProgrammingError("the request is no message of Flight SQL") from None
    return found


def parsed(name: str, data: bytes) -> Any:
    """A message that is sent without a ``google.protobuf.Any`` around it.

    :raises ProgrammingError: for bytes that are none.
    """
    found = _CLASSES[name]()
    try:
        found.ParseFromString(data)
    except (DecodeError, ValueError):
        raise ProgrammingError(f"the request is no {name}") from None
    return found
