"""Harlequin's way to a connection: ``harlequin -a batuta batuta.toml``.

https://harlequin.sh/docs/contributing/adapter-guide
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harlequin import HarlequinAdapter, HarlequinConnection, HarlequinCursor
from harlequin.autocomplete.completion import HarlequinCompletion
from harlequin.catalog import (
    Catalog,
    CatalogItem,
    CatalogSearchKind,
    CatalogSearchResult,
    InteractiveCatalogItem,
)
from harlequin.exception import (
    HarlequinConfigError,
    HarlequinConnectionError,
    HarlequinQueryError,
)
from harlequin.options import PathOption, TextOption

import batuta_sql
from batuta_sql.cli.listings import matched, tables_by_source
from batuta_sql.guards.cost import question
from batuta_sql.shell.names import KnownNames, quoted

if TYPE_CHECKING:
    import pyarrow as pa

    from batuta_sql import Connection, Cursor, Estimate
    from batuta_sql.labels import ColumnLabels

_OPTIONS = [
    PathOption(
        name="batuta-config",
        description="The configuration; else CONN_STR, else the one that batuta-sql finds.",
        exists=True,
        dir_okay=False,
        resolve_path=True,
    ),
    TextOption(name="tier", description="A stricter sovereignty tier than the configuration's."),
    TextOption(
        name="max-cost-usd",
        description="Refuse a query that is estimated to cost this much or more, in US dollars.",
    ),
]

_FUNCTION_PRIORITY, _KEYWORD_PRIORITY = 1000, 100


def short_type(kind: str) -> str:
    """One to three characters for a DuckDB type, as Harlequin's own adapters write them."""
    if kind.endswith("]"):
        return "[]"
    match re.split(r"[( ]", kind)[0]:
        case "BOOLEAN":
            return "t/f"
        case "TINYINT" | "SMALLINT" | "INTEGER" | "BIGINT" | "HUGEINT":
            return "##"
        case "UTINYINT" | "USMALLINT" | "UINTEGER" | "UBIGINT" | "UHUGEINT":
            return "##"
        case "FLOAT" | "DOUBLE" | "DECIMAL":
            return "#.#"
        case "VARCHAR" | "CHAR" | "ENUM" | "JSON" | "UUID":
            return "s"
        case "DATE":
            return "d"
        case "TIME" | "INTERVAL":
            return "t"
        case "STRUCT" | "MAP" | "UNION":
            return "{}"
        case "BLOB" | "BIT":
            return "b"
    return "dt" if kind.startswith("TIMESTAMP") else "?"


class BatutaCursor(HarlequinCursor):
    """A running query. After the type of a column whose values have labels is ``!``, of one whose
    rows were chosen by such values ``~``.
    """

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._limit: int | None = None
        # Asked for after the rows, too.
        labels = _labels(cursor)
        self._columns = [
            (name, short_type(str(kind)) + _mark(labels.get(name)))
            for name, kind, *_ in cursor.description or ()
        ]

    def columns(self) -> list[tuple[str, str]]:
        return self._columns

    def set_limit(self, limit: int) -> BatutaCursor:
        self._limit = limit
        return self

    def fetchall(self) -> pa.Table:
        """What is beyond the limit is neither read nor left running at its source."""
        import pyarrow as pa

        try:
            reader = self._cursor.fetch_record_batch()
            batches, rows = [], 0
            for batch in reader:
                batches.append(batch)
                rows += batch.num_rows
                if self._limit is not None and rows >= self._limit:
                    break
            table = pa.Table.from_batches(batches, schema=reader.schema)
            return table if self._limit is None else table.slice(0, self._limit)
        except batuta_sql.Error as error:
            raise _query_error(error) from None
        finally:
            self._cursor.close()


@dataclass
class ColumnItem(CatalogItem):
    """A column; inserted by its own name."""


@dataclass
class TableItem(InteractiveCatalogItem["BatutaConnection"]):
    """A table; its columns are asked for when it is opened."""

    def fetch_children(self) -> Sequence[CatalogItem]:
        assert self.connection is not None
        return self.connection.columns_of(self)


@dataclass
class SourceItem(InteractiveCatalogItem["BatutaConnection"]):
    """A source, or a schema of one; a source is asked when it is opened, and holds up no other."""

    def fetch_children(self) -> Sequence[CatalogItem]:
        assert self.connection is not None
        return self.connection.tables_of(self.label)


class Consent:
    """The question about cost: running the same text again is the yes."""

    def __init__(self) -> None:
        self._asked: str | None = None
        self._text = ""
        self.refused: Estimate | None = None

    def begin(self, text: str) -> None:
        self._text, self.refused = text, None

    def __call__(self, estimate: Estimate) -> bool:
        if self._asked == self._text:
            self._asked = None
            return True
        self._asked, self.refused = self._text, estimate
        return False


class BatutaConnection(HarlequinConnection):
    """One connection for all of Harlequin's tabs."""

    def __init__(self, connection: Connection, consent: Consent) -> None:
        self.init_message = ""
        self._connection = connection
        self._consent = consent

    def execute(self, query: str) -> BatutaCursor | None:
        self._consent.begin(query)
        try:
            cursor = self._connection.execute(query)
        except batuta_sql.Error as error:
            refused = self._consent.refused
            if refused is not None:
                told = f"{_without_answer(question(refused))}\nRun it again to agree."
                raise HarlequinQueryError(told, title="This query costs") from None
            raise _query_error(error) from None
        if cursor.description is None:
            cursor.close()
            return None
        return BatutaCursor(cursor)

    def cancel(self) -> None:
        self._connection.cancel()

    def close(self) -> None:
        self._connection.close()

    # --- the catalog ---------------------------------------------------------------------------

    def get_catalog(self) -> Catalog:
        return Catalog([self._source(name) for name in self._connection.sources])

    def _source(self, name: str) -> SourceItem:
        kind = self._connection.kind_of(name)
        return SourceItem(
            quoted(name), quoted(name), name, kind[:3], type_name=kind, connection=self
        )

    def tables_of(self, source: str) -> list[CatalogItem]:
        """A source's tables; in schemas where they have more than one."""
        try:
            tables = self._connection.tables(source)
        except batuta_sql.Error as error:
            raise _query_error(error) from None
        schemas: dict[tuple[str, ...], list[CatalogItem]] = {}
        for name, path, kind in tables:
            schemas.setdefault(path[:-1], []).append(self._table((name, *path), kind))
        if len(schemas) == 1:
            return next(iter(schemas.values()))
        return [
            CatalogItem(name, name, ".".join(path), "sch", children=found, type_name="schema")
            for path, found in sorted(schemas.items())
            for name in [".".join(map(quoted, (source, *path)))]
        ]

    def _table(self, path: tuple[str, ...], kind: str) -> TableItem:
        name = ".".join(map(quoted, path))
        short = "v" if "view" in kind else "t"
        return TableItem(name, name, path[-1], short, type_name=kind, connection=self)

    def columns_of(self, table: TableItem) -> list[CatalogItem]:
        try:
            described = self._connection.describe(table.qualified_identifier).to_pylist()
        except batuta_sql.Error as error:
            raise _query_error(error) from None
        return [self._column(table, c["column_name"], c["column_type"]) for c in described]

    def _column(self, table: CatalogItem, name: str, kind: str) -> ColumnItem:
        written = quoted(name)
        whole = f"{table.qualified_identifier}.{written}"
        return ColumnItem(whole, written, name, short_type(kind), type_name=kind)

    def search_catalog(
        self, term: str, kind: CatalogSearchKind = "all"
    ) -> list[CatalogSearchResult]:
        listed = tables_by_source(self._connection)
        found = []
        if kind == "all":
            found = [
                CatalogSearchResult(self._source(name))
                for name in self._connection.sources
                if term.lower() in name.lower()
            ]
        for one in matched(self._connection, listed, term):
            table = self._table(one.path, one.kind if one.column is None else "table")
            if one.column is None:
                if kind != "columns":
                    found.append(CatalogSearchResult(table, one.path[:-1]))
            elif kind != "relations":
                column = self._column(table, one.column, one.kind)
                found.append(CatalogSearchResult(column, one.path))
        return found

    def get_completions(self) -> list[HarlequinCompletion]:
        names = KnownNames(self._connection)
        names.read_words()
        words = [(k.lower(), "kw", _KEYWORD_PRIORITY) for k in names.keywords]
        words += [(f, "fn", _FUNCTION_PRIORITY) for f in names.functions]
        return [HarlequinCompletion(w, kind, w, priority) for w, kind, priority in words]


class BatutaAdapter(HarlequinAdapter):
    """Opens what a configuration names. Sources are never written to."""

    ADAPTER_OPTIONS = _OPTIONS
    IMPLEMENTS_CANCEL = True
    IMPLEMENTS_CATALOG_SEARCH = True
    IMPLEMENTS_READ_ONLY = True
    ADAPTER_DETAILS = "One SQL query over many databases: https://pypi.org/project/batuta-sql/"

    def __init__(
        self,
        conn_str: Sequence[str] = (),
        read_only: bool = False,
        batuta_config: str | Path | None = None,
        tier: str | None = None,
        max_cost_usd: str | float | None = None,
        **_: Any,
    ) -> None:
        if len(conn_str) > 1:
            raise HarlequinConfigError(
                "one configuration at a time: it names all sources", title="Batuta-SQL"
            )
        self._config = batuta_config or (conn_str[0] if conn_str else None)
        self._tier = tier
        try:
            self._most = float(max_cost_usd) if max_cost_usd not in (None, "") else None
        except ValueError:
            raise HarlequinConfigError(
                f"max-cost-usd is a number of US dollars, not {max_cost_usd!r}", title="Batuta-SQL"
            ) from None

    def connect(self) -> BatutaConnection:
        consent = Consent()
        try:
            connection = batuta_sql.connect(
                self._config, tier=self._tier, max_cost_usd=self._most, confirm=consent
            )
        except batuta_sql.Error as error:
            raise HarlequinConnectionError(
                str(error), title="Batuta-SQL could not open the configuration"
            ) from None
        return BatutaConnection(connection, consent)

    @property
    def connection_id(self) -> str:
        place = Path(self._config).resolve() if self._config else "batuta.toml"
        return f"batuta:{place}?tier={self._tier or ''}"


def _labels(cursor: Cursor) -> Mapping[str, ColumnLabels]:
    """Nothing where the rows are of no query: SHOW, DESCRIBE."""
    return cursor.labels if cursor.plan is not None else {}


def _mark(labels: ColumnLabels | None) -> str:
    if labels is None or not labels:
        return ""
    return "!" if labels.direct else "~"


def _query_error(error: batuta_sql.Error) -> HarlequinQueryError:
    where = f"{error.source} says" if error.source else "Batuta-SQL says"
    return HarlequinQueryError(str(error), title=where)


def _without_answer(asked: str) -> str:
    """A question as it is put on a terminal, without what may be answered there."""
    return re.sub(r"\s*Proceed\? \[y/N\]\s*$", "", asked)


__all__ = ["BatutaAdapter"]
