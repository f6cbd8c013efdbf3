"""The Unity Catalog of a workspace, read through REST: no warehouse runs, and nothing is billed.

https://docs.databricks.com/api/workspace/tables and .../entitytagassignments. Names in the catalog
are in lower case and match without it.
"""

from __future__ import annotations

import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cachetools import TTLCache

from batuta_sql.errors import OperationalError
from batuta_sql.plan.site import BaseTable, ColumnInfo, Statistics, TableInfo
from batuta_sql.source_settings import WorkspaceSettings
from batuta_sql.sources.base import TableName
from batuta_sql.sources.catalog_tags import Tags, label_of_tag
from batuta_sql.sources.databricks_rest import RestError, Workspace
from batuta_sql.sources.databricks_types import delivery_of
from batuta_sql.sources.view_bases import tables_are_labelled

UNITY = "/api/2.1/unity-catalog"
_AT_ONCE = 8
_DEEPEST_VIEW = 32
_INTERNAL = frozenset({"system", "__databricks_internal", "samples"})
_KINDS = {
    "MANAGED": "table",
    "EXTERNAL": "table",
    "FOREIGN": "foreign table",
    "VIEW": "view",
    "MATERIALIZED_VIEW": "materialized view",
    "STREAMING_TABLE": "streaming table",
}
_VIEWS = frozenset({"VIEW", "MATERIALIZED_VIEW", "METRIC_VIEW"})

_TAGS_BELIEVED_SECONDS = 60.0

Record = Mapping[str, Any]
"""A table as the REST interface tells it."""


class UnityCatalog:
    """Looks tables up, only those that are asked for."""

    def __init__(self, workspace: Workspace, settings: WorkspaceSettings) -> None:
        self._workspace = workspace
        self._settings = settings
        self._schema: str | None = getattr(settings, "schema_", None)
        self._default: str | None = None
        self._tags: TTLCache[str, tuple[Tags, dict[str, Tags]]] = TTLCache(
            4096, _TAGS_BELIEVED_SECONDS, timer=time.monotonic
        )
        self._tags_lock = threading.Lock()

    # --- names ---------------------------------------------------------------------------------

    def find(self, path: tuple[str, ...]) -> list[Record]:
        """The tables that ``path`` may mean: a name, with schema, with catalog and schema."""
        lower = tuple(p.lower() for p in path)
        match lower:
            case (catalog, schema, table):
                return self._those([(catalog, schema, table)])
            case (schema, table):
                return self._those([(self.catalog(), schema, table)])
            case (table,) if self._schema is not None:
                return self._those([(self.catalog(), self._schema.lower(), table)])
            case (table,):
                catalog = self.catalog()
                return self._those(
                    [(catalog, s, table) for s in self._schemas_with(catalog, table)]
                )
        return []

    def catalog(self) -> str:
        """The catalog of names that say none: the configured one, else the workspace's default."""
        if self._settings.catalog is not None:
            return self._settings.catalog.lower()
        if self._default is None:
            told = self._workspace.get(f"{UNITY}/current-metastore-assignment")
            self._default = str(told.get("default_catalog_name") or "main")
        return self._default

    def _schemas_with(self, catalog: str, table: str) -> list[str]:
        """The schemas that may have a table called ``table``."""
        try:
            found = self._summaries(catalog, {"table_name_pattern": _like(table)})
        except RestError as error:
            if not error.is_unserved:
                raise
            return [s for s in self._schemas(catalog) if s != "information_schema"]
        names = [tuple(str(t["full_name"]).split(".")) for t in found]
        return [n[1] for n in names if n[1] != "information_schema" and n[-1].lower() == table]

    def _those(self, names: Sequence[tuple[str, str, str]]) -> list[Record]:
        found = at_once(self._table, names)
        return [t for t in found if t is not None]

    def _table(self, name: tuple[str, ...]) -> Record | None:
        full = urllib.parse.quote(".".join(name), safe="")
        try:
            return self._workspace.get(f"{UNITY}/tables/{full}")
        except RestError as error:
            if error.is_missing:
                return None
            raise

    def list_tables(self) -> list[TableName]:
        if self._settings.catalog is not None:
            catalogs = [self._settings.catalog.lower()]
        else:
            told = self._pages(f"{UNITY}/catalogs", "catalogs", {})
            catalogs = [c["name"] for c in told if c["name"] not in _INTERNAL]
        found: list[TableName] = []
        for records in at_once(self._tables_in, catalogs):
            for record in records:
                path = path_of(record)
                if path[1] != "information_schema" and self._schema in (None, path[1]):
                    found.append(TableName(path, kind_of(record)))
        return sorted(found, key=lambda t: t.path)

    def _tables_in(self, catalog: str) -> list[Record]:
        try:
            return self._summaries(catalog, {})
        except RestError as error:
            if not error.is_unserved:
                raise
        schemas = [self._schema] if self._schema is not None else self._schemas(catalog)
        found: list[Record] = []
        for schema in schemas:
            params = {"catalog_name": catalog, "schema_name": schema, "omit_columns": "true"}
            found += self._pages(f"{UNITY}/tables", "tables", params)
        return found

    def _summaries(self, catalog: str, params: Mapping[str, Any]) -> list[Record]:
        told = {"catalog_name": catalog, **params}
        return list(self._pages(f"{UNITY}/table-summaries", "tables", told))

    def _schemas(self, catalog: str) -> list[str]:
        told = self._pages(f"{UNITY}/schemas", "schemas", {"catalog_name": catalog})
        return [str(s["name"]) for s in told]

    def _pages(self, path: str, key: str, params: Mapping[str, Any]) -> Iterator[Record]:
        token: str | None = None
        while True:
            page = {**params, **({"page_token": token} if token else {})}
            answer = self._workspace.get(path, page)
            yield from answer.get(key) or ()
            # A page may be empty and not the last.
            token = answer.get("next_page_token")
            if not token:
                return

    # --- views ---------------------------------------------------------------------------------

    def bases(self, record: Record) -> tuple[BaseTable, ...]:
        """The tables behind a view, through other views too; only where labels need them."""
        if record.get("table_type") not in _VIEWS or not tables_are_labelled(self._settings):
            return ()
        reached: dict[str, None] = {}
        waiting = [record]
        for _ in range(_DEEPEST_VIEW):
            names = [n for one in waiting for n in self._dependencies(one) if n not in reached]
            reached |= dict.fromkeys(names)
            found = at_once(self._table, [tuple(n.split(".")) for n in dict.fromkeys(names)])
            waiting = [t for t in found if t is not None and t.get("table_type") in _VIEWS]
            if not waiting:
                break
        return tuple(BaseTable(tuple(n.split("."))) for n in reached)

    def _dependencies(self, view: Record) -> list[str]:
        told = (view.get("view_dependencies") or {}).get("dependencies")
        if told is None:
            raise OperationalError(
                f'the catalog does not tell what the view "{view.get("full_name")}" reads',
                source=self._workspace.source,
                hint="labels of tables cannot hold for it; give it labels of its own",
            )
        return [str(d["table"]["table_full_name"]).lower() for d in told if d.get("table")]

    # --- tags ----------------------------------------------------------------------------------

    def tags(self, record: Record) -> tuple[Tags, dict[str, Tags]]:
        """Labels from the tags of a table with its schema and catalog, and of each column.

        They take a request each, so an answer is believed for a minute.

        :raises OperationalError: where tags are wanted and cannot be read: it is not known then
            what the table holds.
        """
        if not self._settings.tags:
            return frozenset(), {}
        key = ".".join(path_of(record)) + f" {record.get('updated_at')}"
        with self._tags_lock:
            known = self._tags.get(key)
        if known is None:
            known = self._asked_tags(record)
            with self._tags_lock:
                self._tags[key] = known
        return known

    def _asked_tags(self, record: Record) -> tuple[Tags, dict[str, Tags]]:
        catalog, schema, _ = path = path_of(record)
        full = ".".join(path)
        columns = [str(c["name"]) for c in record.get("columns") or ()]
        asked = [("catalogs", catalog), ("schemas", f"{catalog}.{schema}"), ("tables", full)]
        asked += [("columns", f"{full}.{c}") for c in columns]
        try:
            found = at_once(self._tags_of, asked)
        except RestError as error:
            if error.is_unserved:
                error.hint = "the workspace serves no tags: tags = false in this source"
            raise
        return frozenset().union(*found[:3]), dict(zip(columns, found[3:], strict=True))

    def _tags_of(self, entity: tuple[str, str]) -> frozenset[str]:
        kind, name = entity
        quoted = urllib.parse.quote(name, safe="")
        path = f"{UNITY}/entity-tag-assignments/{kind}/{quoted}/tags"
        return frozenset(
            label_of_tag(str(t["tag_key"]), str(t.get("tag_value") or ""))
            for t in self._pages(path, "tag_assignments", {})
        )


def path_of(record: Record) -> tuple[str, str, str]:
    """Catalog, schema and name of a table, as the catalog spells them."""
    if "catalog_name" in record:
        return str(record["catalog_name"]), str(record["schema_name"]), str(record["name"])
    catalog, schema, name = str(record["full_name"]).split(".", 2)
    return catalog, schema, name


def kind_of(record: Record) -> str:
    kind = str(record.get("table_type") or "")
    return _KINDS.get(kind, kind.lower().replace("_", " ") or "table")


def table_info(
    source: str,
    record: Record,
    *,
    statistics: Statistics = Statistics(),  # noqa: B008 - frozen
    bases: tuple[BaseTable, ...] = (),
) -> TableInfo:
    """A table of the catalog as the planner sees it, read through a warehouse."""
    enforces = str(record.get("data_source_format") or "").upper() == "DELTA"
    columns: list[ColumnInfo] = []
    for told in sorted(record.get("columns") or (), key=lambda c: c.get("position") or 0):
        native = str(told.get("type_text") or "")
        found = delivery_of(native)
        columns.append(
            ColumnInfo(
                name=str(told["name"]),
                type=found.type,
                native=native,
                # NOT NULL is enforced for Delta tables, elsewhere only told.
                nullable=not (enforces and told.get("nullable") is False),
                collation=_collation(told, found.collation),
                value_sql=found.value_sql,
                comparable=found.comparable,
                note=found.note,
            )
        )
    return TableInfo(
        source=source,
        path=path_of(record),
        columns=tuple(columns),
        kind=kind_of(record),
        statistics=statistics,
        bases=bases,
    )


def _collation(told: Record, found: Any) -> Any:
    """A collation may be told in the type or in the metadata of Spark's schema."""
    return "other" if "__COLLATIONS" in str(told.get("type_json") or "") else found


def at_once(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """``function`` of each item, some at a time; the first failure is raised."""
    listed = list(items)
    if len(listed) < 2:
        return [function(i) for i in listed]
    with ThreadPoolExecutor(min(_AT_ONCE, len(listed))) as pool:
        return list(pool.map(function, listed))


def _like(name: str) -> str:
    """A pattern of LIKE that a name fits, and others with it that are sorted out later."""
    return name.replace("\\", "_")
