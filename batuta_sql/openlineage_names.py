"""What tables are called in OpenLineage, so that other tools mean the same ones.

https://openlineage.io/docs/spec/naming: a namespace that says where, and a name in it. Where the
specification has no rule for a kind of source the namespace is ``batuta://`` and the source's name;
``sqlite://`` and ``duckdb://`` with a path are ours too; ``unitycatalog://`` is what the Spark
integration calls a workspace. No name holds a user or a password.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from batuta_sql.errors import ConfigError
from batuta_sql.guards.locality import POSTGRESQL_PORT, endpoints
from batuta_sql.source_settings import (
    AldSettings,
    BigQuerySettings,
    DatabricksSettings,
    DeltaSettings,
    DuckDBSettings,
    FilesSettings,
    PostgreSQLSettings,
    SnowflakeSettings,
    SourceSettings,
    SQLiteSettings,
    UnitySettings,
)
from batuta_sql.watching import Destination

LOCAL = "batuta://local"
"""The namespace of local tables and registered frames."""

QUERIES = "batuta://query"
"""The namespace of results that only their reader has."""


class DatasetName(NamedTuple):
    """A dataset's namespace and its name there."""

    namespace: str
    name: str


class SourceNames:
    """The names of the sources' tables.

    :param sources: their settings, by name.
    """

    def __init__(self, sources: Mapping[str, SourceSettings]) -> None:
        self._sources = sources
        # The address may be in a secret, which is looked up once.
        self._place = lru_cache(maxsize=None)(self._found)

    def of(self, parts: tuple[str, ...]) -> DatasetName:
        """The name of a table: of a source's by the source's name and the path inside it, of a
        local one by its one name.
        """
        source, path = parts[0], parts[1:]
        if not path or source not in self._sources:
            return of_local(source)
        settings = self._sources[source]
        if isinstance(settings, FilesSettings | DeltaSettings | AldSettings):
            found = _of_files(settings, path)
            if found is not None:
                return found
        place = self._place(source)
        # A path may leave out what the source has only one of.
        missing = place.prefix[: max(0, place.parts - len(path))]
        return DatasetName(place.namespace, ".".join((*missing, *path)))

    def database(self, source: str) -> str | None:
        """The database, catalog or project that is used; None where that is not known."""
        place = self._place(source)
        return place.prefix[0] if place.prefix and place.parts == _WHOLE else None

    def _found(self, source: str) -> _Place:
        try:
            found = _place_of(self._sources[source])
        except ConfigError:
            # A secret that is not to be had: the source will say so, where it needs it.
            found = None
        return found or _Place(f"batuta://{source}")


def of_local(name: str) -> DatasetName:
    """The name of a local table, or of a file that is read by its path."""
    if "://" in name:
        return _of_url(name)
    if "/" in name or os.sep in name:
        return _of_path(name)
    return DatasetName(LOCAL, name)


def of_destination(into: Destination | None, fingerprint: str) -> DatasetName:
    """The name of what a query writes; of rows that are only read it is the query's own."""
    if into is None:
        return DatasetName(QUERIES, fingerprint)
    if into.kind == "duckdb":
        table = into.table if into.table is not None else "main"
        return DatasetName(f"duckdb://{Path(into.name).resolve()}", f"main.{table}")
    if into.kind == "file":
        return _of_path(into.name)
    return DatasetName(LOCAL, into.name)


# --- kinds of sources --------------------------------------------------------------------------


_WHOLE = 3
"""Parts of a name where there are several databases: database, schema, table."""


class _Place(NamedTuple):
    """A source's namespace, and what its names begin with where a path leaves it out.

    :param parts: how many parts a whole name has.
    """

    namespace: str
    prefix: tuple[str, ...] = ()
    parts: int = 0


def _place_of(settings: SourceSettings) -> _Place | None:
    match settings:
        case PostgreSQLSettings():
            return _of_postgresql(settings)
        case SnowflakeSettings():
            if settings.account is None:
                return None
            return _Place(
                f"snowflake://{settings.account}",
                _given(settings.database, settings.schema_),
                _WHOLE,
            )
        case BigQuerySettings():
            return _Place("bigquery", _given(settings.project, settings.dataset), _WHOLE)
        case DatabricksSettings() | UnitySettings():
            return _of_workspace(settings)
        case SQLiteSettings():
            return _Place(f"sqlite://{Path(settings.path).resolve()}")
        case DuckDBSettings() if "://" not in settings.path:
            return _Place(f"duckdb://{Path(settings.path).resolve()}", ("main",), 2)
    return None


def _of_workspace(settings: DatabricksSettings | UnitySettings) -> _Place | None:
    """As OpenLineage's Spark integration calls tables of Unity Catalog."""
    dialled = endpoints(settings)[0]
    if dialled.host is None:
        return None
    port = f":{dialled.port}" if dialled.port not in (None, 80, 443) else ""
    schema = settings.schema_ if isinstance(settings, DatabricksSettings) else None
    prefix = _given(settings.catalog, schema)
    return _Place(f"unitycatalog://{dialled.host}{port}", prefix, _WHOLE)


def _given(*parts: str | None) -> tuple[str, ...]:
    """The parts up to the first that is not known."""
    found: list[str] = []
    for part in parts:
        if part is None:
            break
        found.append(part)
    return tuple(found)


def _of_postgresql(settings: PostgreSQLSettings) -> _Place:
    endpoint = endpoints(settings)[0]
    host = endpoint.host or "localhost"
    namespace = f"postgres://{host}:{endpoint.port or POSTGRESQL_PORT}"
    # Of a service the file that names the host names the database, too.
    database = _postgresql_database(settings)
    return _Place(namespace, _given(database, "public"), _WHOLE)


def _postgresql_database(settings: PostgreSQLSettings) -> str | None:
    """libpq's choice: the URI's, its ``dbname``, the environment's, the user's name."""
    if settings.uri is None:
        return settings.database or os.environ.get("PGDATABASE") or settings.user
    try:
        parts = urllib.parse.urlsplit(settings.uri.reveal())
    except ValueError:
        return None
    query = dict(urllib.parse.parse_qsl(parts.query))
    named = query.get("dbname") or urllib.parse.unquote(parts.path.lstrip("/"))
    user = urllib.parse.unquote(parts.username) if parts.username else None
    return named or os.environ.get("PGDATABASE") or user


# --- files -------------------------------------------------------------------------------------


def _of_files(
    settings: FilesSettings | DeltaSettings | AldSettings, path: tuple[str, ...]
) -> DatasetName | None:
    """The place of a table that is a file or a folder; None where it cannot be told."""
    table = settings.tables.get(".".join(path))
    if table is not None and table.path is not None:
        return of_path(table.path)
    if settings.path is None:
        return None
    place = settings.path
    if "://" in place:
        return _of_url("/".join((place.rstrip("/"), *path)))
    whole = Path(place, *path)
    if whole.exists():
        return _of_path(str(whole))
    files = sorted(f for f in whole.parent.glob("*") if f.name.split(".")[0] == whole.name)
    if len(files) == 1:
        return _of_path(str(files[0]))
    return _of_path(place) if Path(place).is_file() else None


def of_path(place: str) -> DatasetName:
    """The name of what lies at a path or a URL."""
    return _of_url(place) if "://" in place else _of_path(place)


def _of_path(path: str) -> DatasetName:
    return DatasetName("file", str(Path(path).resolve()))


def _of_url(url: str) -> DatasetName:
    """``s3://bucket`` and the key, ``gs://bucket`` and the key, a web server and the path."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return DatasetName("file", "unknown")
    if parts.scheme == "file":
        return _of_path(urllib.parse.unquote(parts.path))
    # Users and passwords, and signatures in the query, are left out.
    scheme = "s3" if parts.scheme in ("s3", "s3a", "s3n") else parts.scheme
    host = parts.netloc.rpartition("@")[2] if scheme not in ("abfss", "abfs") else parts.netloc
    return DatasetName(f"{scheme}://{host}", parts.path.strip("/") or "/")
