"""What Flight SQL calls metadata: catalogs (our sources), schemas, tables, keys, types, the server.

The schemas of these tables are those of the protocol's definition (format/FlightSql.proto). Names
and types are told to everybody who may ask, labelled or not; none of it reads a table's rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batuta_sql import __version__
from batuta_sql.flight.messages import name_of

if TYPE_CHECKING:
    from batuta_sql.dbapi import Connection

DEFAULT_SCHEMA = "main"
"""Of tables whose source has no schemas, as in information_schema."""

STATEMENT_SECONDS = 3600.0
"""The life of a prepared statement that is not used."""


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


_CATALOGS = pa.schema([_required("catalog_name", pa.string())])
_DB_SCHEMAS = pa.schema(
    [pa.field("catalog_name", pa.string()), _required("db_schema_name", pa.string())]
)
_TABLES = pa.schema(
    [
        pa.field("catalog_name", pa.string()),
        pa.field("db_schema_name", pa.string()),
        _required("table_name", pa.string()),
        _required("table_type", pa.string()),
    ]
)
_TABLES_WITH_SCHEMA = _TABLES.append(_required("table_schema", pa.binary()))
_TABLE_TYPES = pa.schema([_required("table_type", pa.string())])
_PRIMARY_KEYS = pa.schema(
    [
        pa.field("catalog_name", pa.string()),
        pa.field("db_schema_name", pa.string()),
        _required("table_name", pa.string()),
        _required("column_name", pa.string()),
        pa.field("key_name", pa.string()),
        _required("key_sequence", pa.int32()),
    ]
)
_FOREIGN_KEYS = pa.schema(
    [
        pa.field("pk_catalog_name", pa.string()),
        pa.field("pk_db_schema_name", pa.string()),
        _required("pk_table_name", pa.string()),
        _required("pk_column_name", pa.string()),
        pa.field("fk_catalog_name", pa.string()),
        pa.field("fk_db_schema_name", pa.string()),
        _required("fk_table_name", pa.string()),
        _required("fk_column_name", pa.string()),
        _required("key_sequence", pa.int32()),
        pa.field("fk_key_name", pa.string()),
        pa.field("pk_key_name", pa.string()),
        _required("update_rule", pa.uint8()),
        _required("delete_rule", pa.uint8()),
    ]
)
_INFO_VALUE = pa.dense_union(
    [
        pa.field("string_value", pa.string()),
        pa.field("bool_value", pa.bool_()),
        pa.field("bigint_value", pa.int64()),
        pa.field("int32_bitmask", pa.int32()),
        pa.field("string_list", pa.list_(pa.string())),
        pa.field("int32_to_int32_list_map", pa.map_(pa.int32(), pa.list_(pa.int32()))),
    ]
)
_SQL_INFO = pa.schema([_required("info_name", pa.uint32()), _required("value", _INFO_VALUE)])
_TYPE_INFO = pa.schema(
    [
        _required("type_name", pa.string()),
        _required("data_type", pa.int32()),
        pa.field("column_size", pa.int32()),
        pa.field("literal_prefix", pa.string()),
        pa.field("literal_suffix", pa.string()),
        pa.field("create_params", pa.list_(_required("item", pa.string()))),
        _required("nullable", pa.int32()),
        _required("case_sensitive", pa.bool_()),
        _required("searchable", pa.int32()),
        pa.field("unsigned_attribute", pa.bool_()),
        _required("fixed_prec_scale", pa.bool_()),
        pa.field("auto_increment", pa.bool_()),
        pa.field("local_type_name", pa.string()),
        pa.field("minimum_scale", pa.int32()),
        pa.field("maximum_scale", pa.int32()),
        _required("sql_data_type", pa.int32()),
        pa.field("datetime_subcode", pa.int32()),
        pa.field("num_prec_radix", pa.int32()),
        pa.field("interval_precision", pa.int32()),
    ]
)


def schema_of(command: Any) -> pa.Schema | None:
    """The schema of a metadata command's answer; None for another command."""
    if name_of(command) == "CommandGetTables" and command.include_schema:
        return _TABLES_WITH_SCHEMA
    known = _ANSWERS.get(name_of(command))
    return known[0] if known is not None else None


def answer(command: Any, connection: Connection) -> pa.Table:
    """The answer to a metadata command.

    :raises Error: for a source that does not answer; nothing is left out silently.
    """
    _, rows = _ANSWERS[name_of(command)]
    return rows(command, connection)


# --- catalogs, schemas, tables -----------------------------------------------------------------


def _catalogs(command: Any, connection: Connection) -> pa.Table:
    return pa.table({"catalog_name": sorted(connection.sources)}, schema=_CATALOGS)


def _db_schemas(command: Any, connection: Connection) -> pa.Table:
    matches = _matcher(command, "db_schema_filter_pattern")
    found = {(s, schema) for s, schema, *_ in _listed(command, connection) if matches(schema)}
    rows = [{"catalog_name": s, "db_schema_name": n} for s, n in sorted(found)]
    return pa.Table.from_pylist(rows, schema=_DB_SCHEMAS)


def _tables(command: Any, connection: Connection) -> pa.Table:
    in_schema = _matcher(command, "db_schema_filter_pattern")
    is_named = _matcher(command, "table_name_filter_pattern")
    types = {t.upper() for t in command.table_types}
    rows: list[dict[str, Any]] = []
    for source, schema, name, kind, path in sorted(_listed(command, connection)):
        if not in_schema(schema) or not is_named(name) or (types and kind not in types):
            continue
        row: dict[str, Any] = {
            "catalog_name": source,
            "db_schema_name": schema,
            "table_name": name,
            "table_type": kind,
        }
        if command.include_schema:
            row["table_schema"] = _table_schema(connection, source, path)
        rows.append(row)
    schema_ = _TABLES_WITH_SCHEMA if command.include_schema else _TABLES
    return pa.Table.from_pylist(rows, schema=schema_)


def _listed(
    command: Any, connection: Connection
) -> list[tuple[str, str, str, str, tuple[str, ...]]]:
    """Source, schema, name, kind and path of the tables of the catalog that is asked for."""
    catalog = command.catalog if command.HasField("catalog") else None
    sources = [s for s in connection.sources if catalog is None or s.lower() == catalog.lower()]
    tables = [t for s in sources for t in connection.tables(s)]
    return [
        (s, path[-2] if len(path) > 1 else DEFAULT_SCHEMA, path[-1], _table_type(kind), path)
        for s, path, kind in tables
    ]


def _table_type(kind: str) -> str:
    """The types that clients know: what sources call their kinds are many words."""
    return "VIEW" if "view" in kind else "TABLE"


def _table_schema(connection: Connection, source: str, path: tuple[str, ...]) -> bytes:
    """A table's schema, as an IPC message; the names that Flight SQL adds to fields are in it."""
    name = ".".join('"' + p.replace('"', '""') + '"' for p in (source, *path))
    schema = connection.result_schema(f"SELECT * FROM {name}")
    assert schema is not None, "a SELECT has a schema"
    return bytes(schema.serialize())


def _matcher(command: Any, key: str) -> Callable[[str], bool]:
    """Whether a name matches a pattern of ``%`` and ``_``; names match without case, as in SQL."""
    if not command.HasField(key):
        return lambda name: True
    pieces = re.findall(r"\\[%_\\]|.", getattr(command, key), re.DOTALL)
    translated = {"%": ".*", "_": "."}
    pattern = "".join(translated.get(p) or re.escape(p[-1]) for p in pieces)
    compiled = re.compile(pattern, re.IGNORECASE | re.DOTALL)
    return lambda name: compiled.fullmatch(name) is not None


def _table_types(command: Any, connection: Connection) -> pa.Table:
    return pa.table({"table_type": ["TABLE", "VIEW"]}, schema=_TABLE_TYPES)


# --- keys --------------------------------------------------------------------------------------


def _primary_keys(command: Any, connection: Connection) -> pa.Table:
    """Keys of one column. Of longer ones the order of the columns is not known here."""
    rows: list[dict[str, Any]] = []
    wanted = command.db_schema.lower() if command.HasField("db_schema") else None
    for source, schema, name, _, path in sorted(_listed(command, connection)):
        if name.lower() != command.table.lower() or wanted not in (None, schema.lower()):
            continue
        quoted = ".".join('"' + p.replace('"', '""') + '"' for p in (source, *path))
        columns = connection.describe(quoted).to_pylist()
        keys = [c["column_name"] for c in columns if c["key"] == "PRI"]
        if len(keys) == 1:
            place = {"catalog_name": source, "db_schema_name": schema, "table_name": name}
            rows.append({**place, "column_name": keys[0], "key_name": None, "key_sequence": 1})
    return pa.Table.from_pylist(rows, schema=_PRIMARY_KEYS)


def _foreign_keys(command: Any, connection: Connection) -> pa.Table:
    """None: sources tell no foreign keys here."""
    return _FOREIGN_KEYS.empty_table()


# --- the server --------------------------------------------------------------------------------

_INSENSITIVE, _NULLS_AT_END, _FULL_OUTER_JOINS, _NO_TRANSACTIONS = 1, 3, 2, 0

_INFO: Mapping[int, str | bool | int | list[str]] = {
    0: "Batuta-SQL",
    1: __version__,
    2: pa.__version__,
    3: True,  # read-only
    4: True,  # takes SQL
    5: False,  # takes Substrait
    8: _NO_TRANSACTIONS,
    9: True,  # cancels
    100: int(STATEMENT_SECONDS * 1000),
    101: 0,
    500: False,  # CREATE and DROP of catalogs, schemas, tables
    501: False,
    502: False,
    503: _INSENSITIVE,  # identifiers, unquoted and quoted
    504: '"',
    505: _INSENSITIVE,
    507: _NULLS_AT_END,
    513: "\\",  # escapes in patterns
    515: True,  # column aliases
    516: True,  # NULL || 'x' is NULL
    518: True,  # table aliases
    520: True,  # expressions in ORDER BY
    521: True,
    523: True,  # LIKE ... ESCAPE
    528: _FULL_OUTER_JOINS,
    529: "schema",
    531: "source",
    532: True,  # the source comes first in names
    562: _NO_TRANSACTIONS,
    563: False,
    564: 1,
    572: False,  # batches of updates
    573: False,  # savepoints
}
"""By the numbers of the protocol's SqlInfo."""


def _sql_info(command: Any, connection: Connection) -> pa.Table:
    wanted = [n for n in command.info if n in _INFO] if command.info else list(_INFO)
    children: list[list[Any]] = [[] for _ in range(_INFO_VALUE.num_fields)]
    kinds: list[int] = []
    offsets: list[int] = []
    for number in wanted:
        value = _INFO[number]
        kind = 0 if isinstance(value, str) else 1 if isinstance(value, bool) else 3
        kinds.append(kind)
        offsets.append(len(children[kind]))
        children[kind].append(value)
    fields = [_INFO_VALUE.field(i) for i in range(_INFO_VALUE.num_fields)]
    values = pa.UnionArray.from_dense(
        pa.array(kinds, pa.int8()),
        pa.array(offsets, pa.int32()),
        [pa.array(c, f.type) for c, f in zip(children, fields, strict=True)],
        [f.name for f in fields],
    )
    return pa.Table.from_arrays([pa.array(wanted, pa.uint32()), values], schema=_SQL_INFO)


# --- types -------------------------------------------------------------------------------------

_QUOTED = ("'", "'")
_BARE = (None, None)
_Type = tuple[str, int, int | None, tuple[str | None, str | None], int, int | None, int | None]

_TYPES: tuple[_Type, ...] = (
    # Name, XDBC type, size, quotes of literals, generic type, subcode of times, radix.
    ("TINYINT", -6, 3, _BARE, -6, None, 10),
    ("UTINYINT", -6, 3, _BARE, -6, None, 10),
    ("BIGINT", -5, 19, _BARE, -5, None, 10),
    ("UBIGINT", -5, 20, _BARE, -5, None, 10),
    ("BLOB", -3, None, _QUOTED, -3, None, None),
    ("BOOLEAN", -7, 1, _BARE, -7, None, None),
    ("DECIMAL", 3, 38, _BARE, 3, None, 10),
    ("HUGEINT", 3, 38, _BARE, 3, None, 10),
    ("INTEGER", 4, 10, _BARE, 4, None, 10),
    ("UINTEGER", 4, 10, _BARE, 4, None, 10),
    ("SMALLINT", 5, 5, _BARE, 5, None, 10),
    ("USMALLINT", 5, 5, _BARE, 5, None, 10),
    ("FLOAT", 7, 24, _BARE, 7, None, 2),
    ("DOUBLE", 8, 53, _BARE, 8, None, 2),
    ("INTERVAL", 10, None, _QUOTED, 10, None, None),
    ("UUID", 12, 36, _QUOTED, 12, None, None),
    ("VARCHAR", 12, None, _QUOTED, 12, None, None),
    ("DATE", 91, 10, _QUOTED, 9, 1, None),
    ("TIME", 92, 15, _QUOTED, 9, 2, None),
    ("TIMESTAMP", 93, 26, _QUOTED, 9, 3, None),
    ("TIMESTAMP WITH TIME ZONE", 93, 32, _QUOTED, 9, 5, None),
)

_NULLABLE, _SEARCHABLE_BASIC, _SEARCHABLE_FULL = 1, 2, 3


def _type_info(command: Any, connection: Connection) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for name, code, size, (prefix, suffix), generic, subcode, radix in sorted(
        _TYPES, key=lambda t: (t[1], t[0])
    ):
        if command.HasField("data_type") and command.data_type != code:
            continue
        is_number = radix is not None
        rows.append(
            {
                "type_name": name,
                "data_type": code,
                "column_size": size,
                "literal_prefix": prefix,
                "literal_suffix": suffix,
                "create_params": ["precision", "scale"] if name == "DECIMAL" else None,
                "nullable": _NULLABLE,
                "case_sensitive": name == "VARCHAR",
                "searchable": _SEARCHABLE_FULL if name == "VARCHAR" else _SEARCHABLE_BASIC,
                "unsigned_attribute": name.startswith("U") if is_number else None,
                "fixed_prec_scale": False,
                "auto_increment": False if is_number else None,
                "local_type_name": name,
                "minimum_scale": 0 if radix == 10 else None,
                "maximum_scale": (38 if name == "DECIMAL" else 0) if radix == 10 else None,
                "sql_data_type": generic,
                "datetime_subcode": subcode,
                "num_prec_radix": radix,
                "interval_precision": None,
            }
        )
    return pa.Table.from_pylist(rows, schema=_TYPE_INFO)


_ANSWERS: Mapping[str, tuple[pa.Schema, Callable[[Any, Connection], pa.Table]]] = {
    "CommandGetCatalogs": (_CATALOGS, _catalogs),
    "CommandGetDbSchemas": (_DB_SCHEMAS, _db_schemas),
    "CommandGetTables": (_TABLES, _tables),
    "CommandGetTableTypes": (_TABLE_TYPES, _table_types),
    "CommandGetPrimaryKeys": (_PRIMARY_KEYS, _primary_keys),
    "CommandGetExportedKeys": (_FOREIGN_KEYS, _foreign_keys),
    "CommandGetImportedKeys": (_FOREIGN_KEYS, _foreign_keys),
    "CommandGetCrossReference": (_FOREIGN_KEYS, _foreign_keys),
    "CommandGetSqlInfo": (_SQL_INFO, _sql_info),
    "CommandGetXdbcTypeInfo": (_TYPE_INFO, _type_info),
}
