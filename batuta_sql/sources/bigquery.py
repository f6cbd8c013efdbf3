"""Google BigQuery, over its REST API; results of several pages over the Storage Read API.

A fragment is a query job: priced by a dry run, held by the service to the bytes that were priced.
A plain scan with a LIMIT reads the table's preview (``tabledata.list``), which bills nothing, where
a job would scan and bill the whole table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from batuta_sql.errors import ProgrammingError
from batuta_sql.plan.site import BaseTable
from batuta_sql.source_settings import BigQuerySettings
from batuta_sql.sources.base import (
    Capabilities,
    ColumnInfo,
    FragmentQuery,
    Load,
    SourceEstimate,
    Statistics,
    TableInfo,
    TableName,
)
from batuta_sql.sources.bigquery_jobs import (
    BigQuerySnapshot,
    Project,
)
from batuta_sql.sources.bigquery_preview import STORED, Previews, table_of, table_path
from batuta_sql.sources.bigquery_rest import Client, RemoteError
from batuta_sql.sources.bigquery_sql import BigQueryTranslator
from batuta_sql.sources.bigquery_storage import ReadSessions
from batuta_sql.sources.bigquery_types import column_of
from batuta_sql.sources.catalog_tags import Tags, label_of_tag, with_tags
from batuta_sql.sources.sizes import delivered_bytes, known_rows, parsed
from batuta_sql.sources.view_bases import bases_of_view, tables_are_labelled

_KINDS = {
    "TABLE": "table",
    "VIEW": "view",
    "MATERIALIZED_VIEW": "materialized view",
    "EXTERNAL": "external table",
    "SNAPSHOT": "snapshot",
}
_FEW = {"maxResults": "1000"}


class BigQuery:
    """A project of BigQuery."""

    kind = "bigquery"
    remembers_catalog = True

    def __init__(self, name: str, settings: BigQuerySettings) -> None:
        self.name = name
        self._settings = settings
        self._client = Client(name, settings)
        self._jobs = Project(
            self._client, settings.project, settings.location, settings.query_timeout
        )
        self._previews = Previews(name, self._client, settings.project)
        self._sessions = ReadSessions(name, self._client, settings)

    @property
    def query_timeout(self) -> float | None:
        return self._settings.query_timeout

    @cached_property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            dialect="bigquery",
            translator=BigQueryTranslator(self._settings.project),
            set_operations=frozenset({"UNION", "UNION ALL", "INTERSECT", "EXCEPT"}),
            # A correlated subquery runs only where BigQuery can make a join of it.
            correlated=False,
            quantified=False,
            joins_need_equality=True,
            groups_by_columns=True,
        )

    # --- the catalog ---------------------------------------------------------------------------

    def list_tables(self) -> Sequence[TableName]:
        try:
            datasets = [self._settings.dataset] if self._settings.dataset else self._datasets()
            return [
                TableName((d, t["tableReference"]["tableId"]), _kind(t))
                for d in datasets
                for t in self._listed(self._settings.project, d)
            ]
        except RemoteError as error:
            raise self._client.error(error) from None

    def resolve(self, path: tuple[str, ...]) -> Sequence[TableInfo]:
        if len(path) == 1 and self._settings.dataset is not None:
            path = (self._settings.dataset, *path)
        if not 2 <= len(path) <= 3:
            return []
        project = path[0] if len(path) == 3 else self._settings.project
        dataset, table = path[-2:]
        try:
            if table.endswith("*"):
                return self._wildcards(project, dataset, table)
            found = self._get(project, dataset, table)
            if found is None:
                # The service tells A from a; a name in a query may be in any case.
                return [
                    self._described(f)
                    for d in self._alike(dataset, self._datasets(project))
                    for t in self._alike(table, self._names(project, d))
                    if (f := self._get(project, d, t)) is not None
                ]
            return [self._described(found)]
        except RemoteError as error:
            raise self._client.error(error) from None

    @staticmethod
    def _alike(name: str, candidates: Iterable[str]) -> list[str]:
        found = [c for c in candidates if c.lower() == name.lower()]
        return [c for c in found if c == name] or found

    def _get(self, project: str, dataset: str, table: str) -> dict[str, Any] | None:
        return table_of(self._client, project, dataset, table)

    def _datasets(self, project: str | None = None) -> list[str]:
        pages = self._client.pages(f"{project or self._settings.project}/datasets", _FEW)
        return [d["datasetReference"]["datasetId"] for p in pages for d in p.get("datasets") or ()]

    def _listed(self, project: str, dataset: str) -> list[dict[str, Any]]:
        pages = self._client.pages(table_path(project, dataset), _FEW)
        return [t for p in pages for t in p.get("tables") or ()]

    def _names(self, project: str, dataset: str) -> list[str]:
        return [t["tableReference"]["tableId"] for t in self._listed(project, dataset)]

    def _described(self, found: Mapping[str, Any]) -> TableInfo:
        path = self._path(found)
        fields = (found.get("schema") or {}).get("fields") or ()
        if not fields:
            raise ProgrammingError(
                f'table "{".".join(path)}" has no schema', source=self.name, hint="load it first"
            )
        rows = found.get("numRows")
        stored = found.get("numBytes")
        settled = found.get("type") in STORED and "streamingBuffer" not in found
        # What streams in is counted later.
        known = rows is not None and found.get("type") in STORED
        table = TableInfo(
            source=self.name,
            path=path,
            columns=(*(column_of(f) for f in fields), *_pseudo_columns(found)),
            kind=_kind(found),
            statistics=Statistics(
                float(rows) if known and rows is not None else None,
                float(stored) if known and stored is not None else None,
                exact=settled,
            ),
            bases=self._bases(found),
        )
        return with_tags(table, *_tags(found)) if self._settings.tags else table

    def _path(self, found: Mapping[str, Any]) -> tuple[str, ...]:
        reference = found["tableReference"]
        path: tuple[str, ...] = (reference["datasetId"], reference["tableId"])
        if reference["projectId"] != self._settings.project:
            path = (reference["projectId"], *path)
        return path

    def _bases(self, found: Mapping[str, Any]) -> tuple[BaseTable, ...]:
        """The tables whose labels hold for a view: those that its text names, at any depth."""
        text = (found.get("view") or found.get("materializedView") or {}).get("query")
        if not text or not tables_are_labelled(self._settings):
            return ()
        dataset = found["tableReference"]["datasetId"]
        views = {found["tableReference"]["tableId"].lower(): text.replace(".", "` `")}
        for listed in self._listed(self._settings.project, dataset):
            name = listed["tableReference"]["tableId"]
            if listed.get("type") in ("VIEW", "MATERIALIZED_VIEW") and name.lower() not in views:
                one = self._get(self._settings.project, dataset, name) or {}
                told = (one.get("view") or one.get("materializedView") or {}).get("query", "")
                views[name.lower()] = told.replace(".", "` `")
        return bases_of_view(found["tableReference"]["tableId"], views, self._datasets())

    def _wildcards(self, project: str, dataset: str, pattern: str) -> Sequence[TableInfo]:
        """``events_*``: the tables whose names begin so, as one, under the newest one's schema.

        https://cloud.google.com/bigquery/docs/querying-wildcard-tables
        """
        prefix = pattern.removesuffix("*")
        matching = [
            t
            for t in self._listed(project, dataset)
            if t["tableReference"]["tableId"].startswith(prefix) and t.get("type") == "TABLE"
        ]
        if not matching:
            return []
        newest = max(matching, key=lambda t: int(t.get("creationTime") or 0))
        found = self._get(project, dataset, newest["tableReference"]["tableId"])
        if found is None:
            return []
        described = self._described(found)
        suffix = ColumnInfo("_TABLE_SUFFIX", "VARCHAR", native="STRING", nullable=False)
        table = TableInfo(
            source=self.name,
            path=(*described.path[:-1], pattern),
            columns=(*described.columns, suffix),
            kind="wildcard table",
            bases=tuple(
                BaseTable(self._path(t), same_columns=True)
                for t in matching
                if tables_are_labelled(self._settings)
            ),
        )
        if self._settings.tags:
            # Of every table that is read, not of the newest alone.
            every = [self._get(*_place(t)) or t for t in matching]
            for one in every:
                table = with_tags(table, *_tags(one))
        return [table]

    # --- cost ----------------------------------------------------------------------------------

    def estimate(self, query: FragmentQuery) -> SourceEstimate:
        """A dry run, which bills nothing; or nothing at all, where the preview is read."""
        tree = parsed(query, "bigquery")
        rows, rows_confidence = known_rows(query, tree)
        scanned: float | None
        billed: float | None
        if self._previews.of(query) is not None:
            scanned, billed, exact = 0.0, 0.0, True
            basis = "tabledata.list, which is free"
        else:
            try:
                found = self._jobs.dry_run(query.sql)
            except RemoteError as error:
                raise self._client.error(error) from None
            scanned, billed, exact = found.scanned, found.billed, found.exact
            basis = "dry run" if scanned is not None else "a dry run that does not tell"
        confidence = "exact" if exact else "estimated"
        return SourceEstimate(
            rows=rows,
            bytes_scanned=scanned,
            bytes_billed=billed,
            confidence=confidence if scanned is not None else "unknown",
            basis=basis,
            bytes_delivered=delivered_bytes(query, rows, tree),
            rows_confidence=rows_confidence,
        )

    def _price(self, query: FragmentQuery) -> float | None:
        return self._jobs.dry_run(query.sql).billed

    # --- running -------------------------------------------------------------------------------

    def open(self, readers: int | None = 1) -> BigQuerySnapshot:
        return BigQuerySnapshot(
            self._jobs, self.name, self._previews.read, self._price, self._sessions
        )

    def load(self) -> Load:
        return self._client.refusals.load()

    def close(self) -> None:
        self._client.close()


def _kind(table: Mapping[str, Any]) -> str:
    told = str(table.get("type") or "TABLE")
    return _KINDS.get(told, told.lower().replace("_", " "))


def _place(listed: Mapping[str, Any]) -> tuple[str, str, str]:
    reference = listed["tableReference"]
    return reference["projectId"], reference["datasetId"], reference["tableId"]


def _tags(table: Mapping[str, Any]) -> tuple[Tags, dict[str, Tags]]:
    """Labels from a table's labels and resource tags, and from its columns' policy tags.

    https://cloud.google.com/bigquery/docs/reference/rest/v2/tables#Table
    """
    told = {**(table.get("labels") or {}), **(table.get("resourceTags") or {})}
    fields = (table.get("schema") or {}).get("fields") or ()
    of_columns = {
        str(f["name"]): frozenset(label_of_tag("policy_tag", n) for n in _policies(f))
        for f in fields
    }
    return frozenset(label_of_tag(str(k), str(v)) for k, v in told.items()), of_columns


def _policies(field: Mapping[str, Any]) -> list[str]:
    """The policy tags of a column, those of its nested fields among them."""
    own = (field.get("policyTags") or {}).get("names") or ()
    nested = (n for f in field.get("fields") or () for n in _policies(f))
    return [*map(str, own), *nested]


def _pseudo_columns(table: Mapping[str, Any]) -> list[ColumnInfo]:
    """Of a table partitioned by the time at which a row was loaded.

    https://cloud.google.com/bigquery/docs/querying-partitioned-tables
    """
    partitioning = table.get("timePartitioning")
    if not partitioning or partitioning.get("field"):
        return []
    time_ = ColumnInfo("_PARTITIONTIME", "TIMESTAMP WITH TIME ZONE", native="TIMESTAMP")
    if partitioning.get("type", "DAY") != "DAY":
        return [time_]
    return [time_, ColumnInfo("_PARTITIONDATE", "DATE", native="DATE")]
