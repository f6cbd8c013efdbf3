"""What the Glue Data Catalog says of a table or partition: who reads it, its columns, its format.

https://docs.aws.amazon.com/glue/latest/webapi/API_Table.html and API_StorageDescriptor.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from batuta_sql.errors import NotSupportedError
from batuta_sql.sources.glue_types import HiveType, hive_type

Record = Mapping[str, Any]
"""A table, partition or other thing, as the service describes it."""

Reader = Literal["hive", "delta", "iceberg"]
Format = Literal["parquet", "text", "opencsv", "json"]

_SERDES: Mapping[str, Format] = {
    "org.apache.hadoop.hive.ql.io.parquet.serde.parquethiveserde": "parquet",
    "parquet.hive.serde.parquethiveserde": "parquet",
    "org.apache.hadoop.hive.serde2.lazy.lazysimpleserde": "text",
    "org.apache.hadoop.hive.serde2.opencsvserde": "opencsv",
    "org.openx.data.jsonserde.jsonserde": "json",
    "org.apache.hive.hcatalog.data.jsonserde": "json",
    "org.apache.hadoop.hive.serde2.jsonserde": "json",
}
_ONLY_PROVIDERS = frozenset({"parquet", "csv", "json", "hive", "text"})
_PLACEHOLDER = (("col", "array<string>"),)


@dataclass(frozen=True)
class Column:
    """A column: its name and type; ``told``: the type as the catalog writes it."""

    name: str
    type: HiveType
    told: str


@dataclass(frozen=True)
class Storage:
    """How some files hold their columns.

    :param options: of the SerDe and the table, sorted, keys in lower case; only what reading
        depends on.
    """

    format: Format
    columns: tuple[Column, ...]
    options: tuple[tuple[str, str], ...] = ()

    def option(self, key: str, default: str = "") -> str:
        return dict(self.options).get(key, default)


@dataclass(frozen=True)
class HiveTable:
    """A table whose files are described by the catalog alone.

    :param keys: the partition keys, in their order.
    """

    database: str
    name: str
    location: str
    storage: Storage
    keys: tuple[Column, ...]
    parameters: Mapping[str, str]

    @property
    def columns(self) -> tuple[Column, ...]:
        """As a query sees them: the partition keys come last."""
        return (*self.storage.columns, *self.keys)

    @property
    def shown(self) -> str:
        return f"{self.database}.{self.name}"


def reader_of(record: Record) -> Reader:
    """Who can read a table.

    :raises NotSupportedError: where nobody can, with the reason.
    """
    parameters = _lowered(record.get("Parameters"))
    storage = record.get("StorageDescriptor") or {}
    kind = str(record.get("TableType") or "").upper()
    form = parameters.get("table_type", "").upper()
    provider = parameters.get("spark.sql.sources.provider", "").lower()
    if form == "ICEBERG":
        return "iceberg"
    if form == "DELTA" or provider == "delta":
        return "delta"
    if record.get("TargetTable"):
        target = record["TargetTable"]
        name = f"{target.get('DatabaseName')}.{target.get('Name')}"
        raise _refused(record, f"it is a link to {name}", f"ask for {name}")
    if kind == "VIRTUAL_VIEW" or parameters.get("presto_view") == "true":
        raise _refused(
            record,
            "it is a view, whose SQL is that of the engine that made it",
            "query the tables that it is made of, or write it as a view of your session",
        )
    if form not in ("", "EXTERNAL_TABLE", "MANAGED_TABLE"):
        raise _refused(record, f"tables of the type {form} are not read yet")
    if "hudi" in f"{storage.get('InputFormat')} {provider}".lower():
        raise _refused(record, "Hudi tables are not read yet")
    if parameters.get("transactional", "").lower() == "true":
        raise _refused(record, "it is transactional: which files hold its rows only Hive can tell")
    if provider and provider not in _ONLY_PROVIDERS:
        raise _refused(record, f"Spark's format {provider} is not read yet")
    columns = tuple((c["Name"], c.get("Type")) for c in storage.get("Columns") or ())
    if columns == _PLACEHOLDER:
        raise _refused(record, "its columns are told only to Spark", "give it columns in Glue")
    return "hive"


def table_of(record: Record) -> HiveTable:
    """The description of a table that ``reader_of`` called ``hive``.

    :raises NotSupportedError: for a format that is not read.
    """
    storage = record.get("StorageDescriptor") or {}
    location = str(storage.get("Location") or "")
    if not location:
        raise _refused(record, "the catalog does not tell where it lies")
    parameters = {str(k): str(v) for k, v in (record.get("Parameters") or {}).items()}
    found = HiveTable(
        database=str(record["DatabaseName"]),
        name=str(record["Name"]),
        location=location,
        storage=storage_of(record, parameters),
        keys=_columns(record.get("PartitionKeys") or ()),
        parameters=parameters,
    )
    names = [c.name.lower() for c in found.columns]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise _refused(
            record, f'it has two columns "{twice}"', "give each a name of its own in Glue"
        )
    return found


def storage_of(record: Record, of_table: Mapping[str, str]) -> Storage:
    """How the files of a table or partition hold its columns.

    :param of_table: the table's parameters, which count where a partition says nothing itself.
    :raises NotSupportedError: for a format, or an option of one, that is not read.
    """
    storage = record.get("StorageDescriptor") or {}
    serde = storage.get("SerdeInfo") or {}
    library = str(serde.get("SerializationLibrary") or "")
    told = {
        **_lowered(of_table),
        **_lowered(storage.get("Parameters")),
        **_lowered(record.get("Parameters")),
        **_lowered(serde.get("Parameters")),
    }
    form = _SERDES.get(library.lower())
    if form is None and not library and told.get("classification") == "parquet":
        form = "parquet"
    if form is None:
        raise _refused(record, f"files of the SerDe {library or '(none)'} are not read yet")
    input_format = str(storage.get("InputFormat") or "").rpartition(".")[2].lower()
    if form != "parquet" and input_format not in ("", "textinputformat"):
        raise _refused(record, f"files of {storage['InputFormat']} are not read yet")
    if "symlink" in input_format:
        raise _refused(record, "its files are named by a manifest, which is not read yet")
    columns = _columns(storage.get("Columns") or ())
    if form == "json":
        # What keys are called may be mapped: these options are named after columns.
        wanted = {k: v for k, v in told.items() if k in _OPTIONS[form] or k.startswith("mapping.")}
    else:
        wanted = {k: v for k, v in told.items() if k in _OPTIONS[form]}
    _check(record, form, wanted, columns)
    return Storage(form, columns, tuple(sorted(wanted.items())))


_TEXT_OPTIONS = frozenset(
    {"skip.header.line.count", "skip.footer.line.count", "textinputformat.record.delimiter"}
)
_OPTIONS: Mapping[Format, frozenset[str]] = {
    "parquet": frozenset({"parquet.column.index.access"}),
    "text": _TEXT_OPTIONS
    | {
        "field.delim",
        "serialization.format",
        "escape.delim",
        "serialization.null.format",
        "serialization.encoding",
        "serialization.last.column.takes.rest",
        "line.delim",
        "timestamp.formats",
    },
    "opencsv": _TEXT_OPTIONS | {"separatorchar", "quotechar", "escapechar"},
    "json": _TEXT_OPTIONS
    | {"case.insensitive", "dots.in.keys", "ignore.malformed.json", "timestamp.formats"},
}
_HARMLESS: Mapping[str, frozenset[str]] = {
    "parquet.column.index.access": frozenset({"false"}),
    "skip.footer.line.count": frozenset({"0"}),
    "textinputformat.record.delimiter": frozenset({"\n"}),
    "line.delim": frozenset({"\n", "10"}),
    "serialization.encoding": frozenset({"utf-8", "utf8"}),
    "serialization.last.column.takes.rest": frozenset({"false"}),
    "dots.in.keys": frozenset({"false"}),
}
"""Options that are not obeyed, and the values of them that need nothing done."""


def _check(
    record: Record, form: Format, options: Mapping[str, str], columns: Sequence[Column]
) -> None:
    for key, value in options.items():
        if key in _HARMLESS and value.lower() not in _HARMLESS[key]:
            raise _refused(record, f"the option {key} = {value} is not obeyed yet")
    skipped = options.get("skip.header.line.count", "0")
    if not skipped.isdigit():
        raise _refused(record, f"skip.header.line.count is {skipped}, which is no number")
    times = [c.name for c in columns if c.type.name.startswith("timestamp")]
    if times and "timestamp.formats" in options:
        raise _refused(record, f"timestamp.formats, of column {times[0]}, is not obeyed yet")
    characters = {"opencsv": ("separatorchar", "quotechar", "escapechar"), "text": ("field.delim",)}
    for key in characters.get(form, ()):
        value = options.get(key, ",")
        if len(value) != 1 and not (form == "text" and value.isdigit()):
            raise _refused(record, f"{key} is {value!r}: only one character is read")


def _columns(told: Sequence[Record]) -> tuple[Column, ...]:
    return tuple(
        Column(str(c["Name"]), hive_type(str(c.get("Type") or "")), str(c.get("Type") or ""))
        for c in told
    )


def _lowered(parameters: Mapping[str, Any] | None) -> dict[str, str]:
    return {str(k).lower(): str(v) for k, v in (parameters or {}).items()}


def _refused(record: Record, reason: str, hint: str | None = None) -> NotSupportedError:
    database = record.get("DatabaseName")
    name = record.get("Name") or record.get("TableName")
    where = f"{database}.{name}"
    values = record.get("Values")
    if values:
        where += f", partition ({', '.join(map(str, values))})"
    return NotSupportedError(f'"{where}" cannot be read: {reason}', hint=hint)
