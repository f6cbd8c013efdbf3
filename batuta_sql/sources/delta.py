"""Delta tables through deltalake: it reads the log, DuckDB reads the Parquet files.

The files of one version become one relation: a branch for each set of partition values, so that
DuckDB prunes partitions as it prunes constants, and its Parquet reader prunes row groups by
statistics that it knows to trust (NaN, truncated text). ``table@v3`` reads version 3.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
from sqlglot import exp

from batuta_sql.config import DeltaSettings
from batuta_sql.engines.duckdb import quote
from batuta_sql.errors import ConfigError, Error, NotSupportedError, OperationalError
from batuta_sql.plan.site import (
    Capabilities,
    ColumnInfo,
    ColumnStatistics,
    Statistics,
    TableInfo,
)
from batuta_sql.plan.translate import DuckDBTranslator, quoted_table
from batuta_sql.sources.base import FragmentQuery, SourceEstimate, TableName
from batuta_sql.sources.embedded import EmbeddedSource, table_estimate
from batuta_sql.sources.files import path_literal

if TYPE_CHECKING:
    from deltalake import DeltaTable

_READABLE_FEATURES = frozenset(
    {"timestampNtz", "columnMapping", "v2Checkpoint", "vacuumProtocolCheck", "appendOnly"}
)
"""Reader features whose tables this module reads right."""

_TYPES = {
    "string": "VARCHAR",
    "long": "BIGINT",
    "integer": "INTEGER",
    "short": "SMALLINT",
    "byte": "TINYINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "binary": "BLOB",
    "date": "DATE",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "timestamp_ntz": "TIMESTAMP",
}
_VERSIONED = re.compile(r"(.+)@v(\d+)")


@dataclass(frozen=True)
class DeltaColumn:
    """A column of a Delta schema: its name, its name in the files, its DuckDB type."""

    name: str
    physical: str
    type: str
    nullable: bool


@dataclass(frozen=True)
class DeltaVersion:
    """One version of a table: columns, partition columns, files by partition values."""

    version: int
    columns: tuple[DeltaColumn, ...]
    partition_columns: tuple[str, ...]
    groups: tuple[tuple[tuple[Any, ...], tuple[str, ...]], ...]
    rows: int | None
    bytes: int
    bounds: tuple[tuple[str, Any, Any], ...] = ()


class DeltaTranslator(DuckDBTranslator):
    """Names the version in the fragment, so that it is read whatever is committed meanwhile."""

    def table(self, table: TableInfo) -> exp.Table:
        return quoted_table((f"{table.name.partition('@v')[0]}@v{table.version}",))


class Delta(EmbeddedSource):
    """A folder of Delta tables, or named ones."""

    kind = "delta"

    def __init__(self, name: str, settings: DeltaSettings) -> None:
        super().__init__(name)
        self._settings = settings
        self._named = {n: t for n, t in settings.tables.items() if t.path is not None}
        self._versions: dict[tuple[str, int], DeltaVersion] = {}
        if settings.path is None and not self._named:
            raise ConfigError(f"sources.{name}: give path, or tables = {{ name = 'path' }}")

    @cached_property
    def capabilities(self) -> Capabilities:
        return Capabilities(dialect="duckdb", translator=DeltaTranslator(), windows=True)

    # --- the catalog ---------------------------------------------------------------------------

    def list_tables(self) -> Sequence[TableName]:
        names = dict.fromkeys([*self._named, *self._folders()])
        return [TableName((n,), "delta table") for n in sorted(names)]

    def resolve(self, path: tuple[str, ...]) -> Sequence[TableInfo]:
        if len(path) > 2 or (len(path) == 2 and path[0].lower() != "main"):
            return []
        asked, version = _split_version(path[-1])
        known = [*self._named, *self._folders()]
        exact = [n for n in known if n == asked]
        names = exact or [n for n in known if n.lower() == asked.lower()]
        return [self._table(n, version) for n in dict.fromkeys(names)]

    def _table(self, name: str, asked: int | None) -> TableInfo:
        found = self._load(name, asked)
        return TableInfo(
            source=self.name,
            path=(name if asked is None else f"{name}@v{asked}",),
            columns=tuple(ColumnInfo(c.name, c.type, c.type, c.nullable) for c in found.columns),
            kind="delta table",
            statistics=Statistics(
                rows=float(found.rows) if found.rows is not None else None,
                bytes=float(found.bytes),
                exact=found.rows is not None,
                columns={
                    n: ColumnStatistics(minimum=low, maximum=high) for n, low, high in found.bounds
                },
            ),
            version=str(found.version),
        )

    def _folders(self) -> dict[str, Path]:
        if self._settings.path is None:
            return {}
        folder = Path(self._settings.path)
        if not folder.is_dir():
            raise OperationalError(
                f"there is no folder {folder}", source=self.name, hint="check this source's path"
            )
        return {
            p.name: p
            for p in sorted(folder.iterdir())
            if (p / "_delta_log").is_dir() and p.name not in self._named
        }

    def _location(self, name: str) -> str:
        if name in self._named:
            return str(self._named[name].path)
        return str(self._folders()[name])

    # --- the log -------------------------------------------------------------------------------

    def _load(self, name: str, asked: int | None) -> DeltaVersion:
        if asked is None and name in self._named:
            asked = self._named[name].version
        if asked is not None and (name, asked) in self._versions:
            return self._versions[name, asked]
        table = self._open(name, asked)
        number = table.version()
        known = self._versions.get((name, number))
        if known is None:
            known = self._read_version(name, table)
            self._versions[name, number] = known
        return known

    def _open(self, name: str, version: int | None) -> DeltaTable:
        from deltalake import DeltaTable

        options = {k: v.reveal() for k, v in self._settings.storage_options.items()}
        try:
            return DeltaTable(self._location(name), version=version, storage_options=options)
        except Exception as error:
            raise OperationalError(
                f'Delta table "{name}" cannot be opened: {error}', source=self.name
            ) from None

    def _read_version(self, name: str, table: DeltaTable) -> DeltaVersion:
        protocol = table.protocol()
        features = set(protocol.reader_features or ())
        unreadable = features - _READABLE_FEATURES
        if unreadable or protocol.min_reader_version > 3:
            what = ", ".join(sorted(unreadable)) or f"reader version {protocol.min_reader_version}"
            raise NotSupportedError(
                f'Delta table "{name}" needs {what}, which cannot be read',
                source=self.name,
                hint="rewrite the table without it (for deletion vectors: REORG ... APPLY (PURGE))",
            )
        root = self._root(name, table)
        try:
            mapped = bool(
                table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none"
            )
            schema = json.loads(table.schema().to_json())
            columns = tuple(self._column(f, mapped, name) for f in schema["fields"])
            partitions = tuple(table.metadata().partition_columns)
            actions = pa.table(table.get_add_actions(flatten=False)).to_pylist()
        except Error:
            raise
        except Exception as error:
            raise OperationalError(
                f'the log of Delta table "{name}" cannot be read: {error}', source=self.name
            ) from None
        by_name = {c.name: c for c in columns}
        groups: dict[tuple[Any, ...], list[str]] = {}
        for action in actions:
            values = action.get("partition") or {}
            key = tuple(values.get(p, values.get(by_name[p].physical)) for p in partitions)
            groups.setdefault(key, []).append(_absolute(root, action["path"]))
        counts = [a.get("num_records") for a in actions]
        return DeltaVersion(
            table.version(),
            columns,
            partitions,
            tuple((k, tuple(v)) for k, v in groups.items()),
            None if None in counts else sum(counts),
            sum(a["size_bytes"] for a in actions),
            _bounds(columns, actions),
        )

    def _root(self, name: str, table: DeltaTable) -> str:
        parts = urllib.parse.urlsplit(table.table_uri)
        if parts.scheme not in ("", "file"):
            raise NotSupportedError(
                f'Delta table "{name}" lies on {parts.scheme}://, which is not read yet',
                source=self.name,
            )
        return urllib.parse.unquote(parts.path) if parts.scheme else table.table_uri

    def _column(self, field: dict[str, Any], mapped: bool, table: str) -> DeltaColumn:
        physical = field["name"]
        if mapped:
            physical = field["metadata"].get("delta.columnMapping.physicalName", physical)
            if isinstance(field["type"], dict):
                raise NotSupportedError(
                    f'column "{field["name"]}" of Delta table "{table}" is nested and mapped,'
                    " which is not read yet",
                    source=self.name,
                )
        return DeltaColumn(
            field["name"], physical, self._type(field["type"], table), field["nullable"]
        )

    def _type(self, kind: Any, table: str) -> str:
        match kind:
            case str() if kind in _TYPES:
                return _TYPES[kind]
            case str() if kind.startswith("decimal"):
                return kind.upper().replace(" ", "")
            case {"type": "struct", "fields": fields}:
                inner = ", ".join(
                    f"{quote(f['name'])} {self._type(f['type'], table)}" for f in fields
                )
                return f"STRUCT({inner})"
            case {"type": "array", "elementType": element}:
                return f"{self._type(element, table)}[]"
            case {"type": "map", "keyType": key, "valueType": value}:
                return f"MAP({self._type(key, table)}, {self._type(value, table)})"
        raise NotSupportedError(
            f'Delta table "{table}" has a column of type {kind}, which cannot be read',
            source=self.name,
        )

    # --- reading -------------------------------------------------------------------------------

    def relation(self, cursor: duckdb.DuckDBPyConnection, name: str) -> str:
        bare, version = _split_version(name)
        return "(" + _version_sql(self._load(bare, version)) + ")"

    def estimate(self, query: FragmentQuery) -> SourceEstimate:
        return table_estimate(query, "Delta log before pruning")


def _bounds(
    columns: Sequence[DeltaColumn], actions: Sequence[dict[str, Any]]
) -> tuple[tuple[str, Any, Any], ...]:
    """Smallest and largest value of each column whose every file tells both."""
    found: list[tuple[str, Any, Any]] = []
    for column in columns:
        if column.type not in ("BIGINT", "INTEGER", "SMALLINT", "TINYINT", "DATE"):
            continue
        low: list[Any] = [(a.get("min") or {}).get(column.name) for a in actions]
        high: list[Any] = [(a.get("max") or {}).get(column.name) for a in actions]
        if actions and None not in low and None not in high:
            found.append((column.name, min(low), max(high)))
    return tuple(found)


def _split_version(name: str) -> tuple[str, int | None]:
    match = _VERSIONED.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, None)


def _absolute(root: str, path: str) -> str:
    """A file of the table; the log holds its path URL-encoded."""
    plain = urllib.parse.unquote(path)
    return plain if plain.startswith("/") else f"{root.rstrip('/')}/{plain}"


def _version_sql(version: DeltaVersion) -> str:
    """The SELECT that reads one version.

    An empty branch with every column comes first: it gives the types, and NULL for a column that
    older files lack.
    """
    partition = set(version.partition_columns)
    stored = [c for c in version.columns if c.name not in partition]
    branches = [f"SELECT {_typed(version.columns)} WHERE false"]
    by_name = {c.name: c for c in version.columns}
    wanted = ", ".join(quote(c.physical) for c in stored)
    for values, paths in version.groups:
        files = "[" + ", ".join(path_literal(p) for p in paths) + "]"
        constants = "".join(
            f", {_constant(v, by_name[p].type)} AS {quote(by_name[p].physical)}"
            for p, v in zip(version.partition_columns, values, strict=True)
        )
        inner = (
            f"SELECT {_typed(stored)} WHERE false UNION ALL BY NAME SELECT * FROM"
            f" read_parquet({files}, union_by_name = true, hive_partitioning = false)"
        )
        columns = wanted or "1 AS one"
        branches.append(f"SELECT {columns}{constants} FROM ({inner})")
    # A file whose column has another type than the log says must not change the table's type.
    outputs = ", ".join(
        f"CAST({quote(c.physical)} AS {c.type}) AS {quote(c.name)}" for c in version.columns
    )
    return f"SELECT {outputs} FROM ({' UNION ALL BY NAME '.join(branches)})"


def _typed(columns: Sequence[DeltaColumn]) -> str:
    return (
        ", ".join(f"CAST(NULL AS {c.type}) AS {quote(c.physical)}" for c in columns)
        or "NULL AS one"
    )


def _constant(value: Any, type_: str) -> str:
    if value is None:
        return f"CAST(NULL AS {type_})"
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return "CAST('" + text.replace("'", "''") + f"' AS {type_})"
