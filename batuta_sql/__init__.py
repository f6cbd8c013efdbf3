"""Batuta-SQL: one SQL query over many systems, with DuckDB's answer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from batuta_sql.credentials import Credential, CredentialProvider
from batuta_sql.errors import (
    ConfigError,
    CostRefused,
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    LabelRefused,
    LabelWarning,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    QueryCancelled,
    Refused,
    SealError,
    TierRefused,
    Warning,  # noqa: A004 - PEP 249's name
)
from batuta_sql.labels import ColumnLabels
from batuta_sql.typecodes import (
    BINARY,
    DATETIME,
    NUMBER,
    ROWID,
    STRING,
    Binary,
    Date,
    DateFromTicks,
    Time,
    TimeFromTicks,
    Timestamp,
    TimestampFromTicks,
)

if TYPE_CHECKING:
    from batuta_sql.cursor import Cursor
    from batuta_sql.dbapi import Connection, connect
    from batuta_sql.plan.cost import Estimate
    from batuta_sql.sources.file_labels import read_labels
    from batuta_sql.sync.checkpoint import CheckpointError
    from batuta_sql.sync.drift import SchemaDrift

__version__ = "0.1.0"

apilevel = "2.0"
threadsafety = 2
paramstyle = "qmark"

_LAZY = {
    "Connection": "batuta_sql.dbapi",
    "Cursor": "batuta_sql.cursor",
    "Estimate": "batuta_sql.plan.cost",
    "CheckpointError": "batuta_sql.sync.checkpoint",
    "SchemaDrift": "batuta_sql.sync.drift",
    "connect": "batuta_sql.dbapi",
    "load_ipython_extension": "batuta_sql.notebook",
    "read_labels": "batuta_sql.sources.file_labels",
    "unload_ipython_extension": "batuta_sql.notebook",
}
"""What needs DuckDB, Arrow and sqlglot, which take a while: imported when it is first used."""


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "CheckpointError",
    "ColumnLabels",
    "ConfigError",
    "Connection",
    "CostRefused",
    "Credential",
    "CredentialProvider",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "Estimate",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "LabelRefused",
    "LabelWarning",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "QueryCancelled",
    "Refused",
    "SchemaDrift",
    "SealError",
    "TierRefused",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Warning",
    "apilevel",
    "connect",
    "paramstyle",
    "read_labels",
    "threadsafety",
]
