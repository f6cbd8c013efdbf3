"""Which module serves which kind of source; each is imported when it is first used."""

from __future__ import annotations

import importlib
from typing import Any, cast

from batuta_sql.errors import ConfigError, did_you_mean
from batuta_sql.sources.base import Source

_KINDS = {
    "postgresql": ("batuta_sql.sources.postgresql", "PostgreSQL"),
    "sqlite": ("batuta_sql.sources.sqlite", "SQLite"),
    "duckdb": ("batuta_sql.sources.duckdb", "DuckDBFile"),
    "files": ("batuta_sql.sources.files", "Files"),
    "delta": ("batuta_sql.sources.delta", "Delta"),
    "iceberg": ("batuta_sql.sources.iceberg", "Iceberg"),
    "ald": ("batuta_sql.sources.ald", "Ald"),
    "snowflake": ("batuta_sql.sources.snowflake", "Snowflake"),
    "databricks": ("batuta_sql.sources.databricks", "Databricks"),
    "bigquery": ("batuta_sql.sources.bigquery", "BigQuery"),
    "unity": ("batuta_sql.sources.unity", "Unity"),
    "glue": ("batuta_sql.sources.glue", "Glue"),
    "huggingface": ("batuta_sql.sources.huggingface", "HuggingFace"),
}
ENTRY_POINT_GROUP = "batuta_sql.sources"


def make_source(name: str, settings: Any) -> Source:
    """The source of ``settings.kind``; nothing is connected yet.

    :raises ConfigError: for a kind that nobody serves.
    """
    kind = settings.kind
    found = _KINDS.get(kind)
    if found is not None:
        module = importlib.import_module(found[0])
        return cast(Source, getattr(module, found[1])(name, settings))
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == kind:
            return cast(Source, entry.load()(name, settings))
    raise ConfigError(
        f'source "{name}": there is no kind "{kind}"', hint=did_you_mean(kind, _KINDS)
    )
