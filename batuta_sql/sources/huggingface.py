"""A dataset of the Hugging Face hub: its Parquet files, read by range where they lie.

The revision is looked up for each query and read at the commit that it was: what is pushed to it
meanwhile is seen by the next query.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import duckdb
from cachetools import LRUCache
from sqlglot import exp

from batuta_sql.errors import Error, OperationalError
from batuta_sql.labels import ColumnLabels
from batuta_sql.plan.site import Capabilities, TableInfo
from batuta_sql.plan.translate import quoted_table
from batuta_sql.secrets import redact
from batuta_sql.source_settings import HuggingFaceSettings
from batuta_sql.sources.base import FragmentQuery, Load, TableName
from batuta_sql.sources.embedded import EmbeddedSource, ViewNames, ViewTranslator
from batuta_sql.sources.files import Files, FileSet
from batuta_sql.sources.hub import Dataset, Hub
from batuta_sql.sources.hub_files import SCHEME, hub_files
from batuta_sql.sources.hub_tables import Tables, converted_tables, is_parquet, tables_of
from batuta_sql.sources.object_store import ObjectStore, StoredObject

PUBLIC = frozenset({"origin:public"})
_DATASETS_KEPT = 32
_TABLES_KEPT = 256


class CommitTranslator(ViewTranslator):
    """Names the commit in the fragment, so that it is read whatever is pushed meanwhile."""

    def table(self, table: TableInfo) -> exp.Table:
        return quoted_table((_name(table.path, table.version or ""),))


class HuggingFace(Files):
    """One dataset at one revision."""

    kind = "huggingface"

    def __init__(self, name: str, settings: HuggingFaceSettings) -> None:
        EmbeddedSource.__init__(self, name, settings.query_timeout)
        self._hub_settings = settings
        self._views = ViewNames()
        self._hub = Hub(name, settings)
        self._datasets: LRUCache[str, Dataset] = LRUCache(_DATASETS_KEPT)
        self._sets: LRUCache[str, FileSet] = LRUCache(_TABLES_KEPT)
        self._described: LRUCache[tuple[str, bool], TableInfo] = LRUCache(_TABLES_KEPT)
        self._kept = threading.Lock()

    @cached_property
    def capabilities(self) -> Capabilities:
        translator = CommitTranslator(self._views)
        return Capabilities(dialect="duckdb", translator=translator, windows=True)

    @cached_property
    def _store(self) -> ObjectStore:  # type: ignore[override]
        settings = self._hub_settings
        return ObjectStore(
            self.name,
            {},
            settings.connect_timeout,
            settings.query_timeout,
            settings.secrets,
            {SCHEME: hub_files(self.name, self._hub, self._size)},
        )

    # --- the catalog ---------------------------------------------------------------------------

    def list_tables(self) -> Sequence[TableName]:
        _, tables = self._now()
        return [TableName(path, "parquet files") for path in sorted(tables)]

    def resolve(self, path: tuple[str, ...]) -> Sequence[TableInfo]:
        """``split``, ``config.split``, or the path of a Parquet file in quotes."""
        if len(path) > 2:
            return []
        dataset, tables = self._now()
        known = {**tables}
        if is_parquet(path[-1]) and path[-1] in dataset.files:
            known[("", path[-1])] = (path[-1],)
        lower = tuple(p.lower() for p in path)
        alike = [k for k in known if tuple(p.lower() for p in k)[-len(path) :] == lower]
        exact = [k for k in alike if k[-len(path) :] == path]
        return [self._table_at(dataset, k, known[k]) for k in exact or alike]

    def _now(self) -> tuple[Dataset, Tables]:
        """The dataset at the newest commit of its revision, and its tables."""
        settings = self._hub_settings
        dataset = self._hub.dataset(settings.revision)
        tables = tables_of(dataset)
        if not tables and settings.revision in (None, "main"):
            converted = self._hub.converted()
            if converted is not None:
                # Who may read it is said of the dataset, and so is whether it is private.
                dataset = replace(converted, private=dataset.private or converted.private)
                tables = converted_tables(dataset)
        if not tables:
            where = f" at {settings.revision}" if settings.revision else ""
            raise OperationalError(
                f'the dataset "{settings.repo}" has no Parquet files{where}',
                source=self.name,
                hint="the hub converts datasets that it can show: see the dataset's page",
            )
        with self._kept:
            self._datasets[dataset.commit] = dataset
        return dataset, tables

    def _table_at(self, dataset: Dataset, path: tuple[str, str], files: Sequence[str]) -> TableInfo:
        """A table at a commit, which never changes: described once."""
        shown = path if path[0] else path[1:]
        name = _name(shown, dataset.commit)
        with self._kept:
            # Whether it is private may change, a commit's files do not.
            known = self._described.get((name, dataset.private))
            objects = tuple(
                StoredObject(dataset.url(p), dataset.files[p], dataset.commit) for p in files
            )
            urls = tuple(o.url for o in objects)
            self._sets[name] = FileSet(name, "parquet", urls, dataset.url(""), objects)
        if known is None:
            found = self._table(self.files_of(name))
            labels = frozenset() if dataset.private else PUBLIC
            known = replace(
                found,
                path=shown,
                version=dataset.commit,
                content=dataset.commit,
                columns=tuple(
                    replace(c, labels=c.labels | ColumnLabels(labels)) for c in found.columns
                ),
                labels=found.labels | labels,
            )
            with self._kept:
                self._described[name, dataset.private] = known
        return known

    # --- reading -------------------------------------------------------------------------------

    def files_of(self, name: str) -> FileSet:
        with self._kept:
            found = self._sets.get(name)
        if found is None:
            raise OperationalError(f'the table "{name}" was not described', source=self.name)
        self._store.attach(self.engine, found.paths[0])
        return found

    def relation(self, cursor: duckdb.DuckDBPyConnection, name: str, query: FragmentQuery) -> str:
        return self._relation(cursor, self.files_of(name))

    def files_of_table(self, table: TableInfo) -> Sequence[tuple[str, float]]:
        """None: another commit has other names for files that may be the same."""
        return []

    def _size(self, commit: str, path: str) -> int:
        with self._kept:
            return self._datasets[commit].files[path]

    def error(self, error: BaseException) -> Error:
        found = super().error(error)
        found.message = redact(found.message, self._hub_settings.secrets())
        return found

    def load(self) -> Load:
        return self._hub.refusals.load()

    def close(self) -> None:
        super().close()
        self._hub.close()


def _name(path: tuple[str, ...], commit: str) -> str:
    return f"{'/'.join(path)}@{commit}"
