"""Catalogs of Iceberg tables, through pyiceberg; nothing but the settings says what is dialled."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batuta_sql.errors import ConfigError, Error, OperationalError
from batuta_sql.secrets import redact
from batuta_sql.sources.iceberg_metadata import first_line

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.io import FileIO
    from pyiceberg.table import Table

_DEEPEST = 16
_HINT = "pip install 'batuta-sql[iceberg]'"
_IO_PROPERTY = "py-io-impl"


def require_pyiceberg(source: str) -> None:
    """:raises ConfigError: where pyiceberg is not installed."""
    try:
        import pyiceberg  # noqa: F401
    except ImportError:
        raise ConfigError(f'source "{source}" needs the package pyiceberg', hint=_HINT) from None


def open_catalog(
    source: str,
    properties: Mapping[str, str],
    stores: bool,
    timeouts: tuple[float, float | None],
    secrets: Sequence[str],
) -> Catalog:
    """The catalog that ``properties`` describe.

    pyiceberg's own configuration (``PYICEBERG_...``, ``.pyiceberg.yaml``) is not looked at: the
    tier is judged by the settings.

    :param stores: whether it may open files in object stores.
    :param timeouts: for connecting and for an answer, in seconds.
    :raises ConfigError: for properties that make no catalog.
    :raises OperationalError: where it cannot be reached.
    """
    require_pyiceberg(source)
    from batuta_sql.sources.iceberg_io import io_properties

    given = io_properties(properties, stores)
    name = given.pop("name", "default")
    kind = given.get("type") or _kind_of(given.get("uri", ""))
    if kind is None or "py-catalog-impl" in given:
        raise ConfigError(
            f"sources.{source}.catalog: say its type",
            hint="type = rest, sql, glue, hive or dynamodb, with a uri where it has one",
        )
    try:
        return _confined(_made(source, kind, name, given, timeouts), stores)
    except Error:
        raise
    except ImportError as error:
        raise ConfigError(
            f'source "{source}": a catalog of type {kind} needs a package more: {error}',
            hint=f"pip install 'pyiceberg[{_EXTRAS.get(kind, kind)}]'",
        ) from None
    except Exception as error:
        raise catalog_error(source, "cannot be opened", error, secrets) from None


def _confined(catalog: Catalog, stores: bool) -> Catalog:
    """The catalog, that neither a server nor a table tells how files are opened."""
    from batuta_sql.sources.iceberg_io import CheckedFileIO, io_properties

    def open_files(properties: Mapping[str, str] = {}, location: str | None = None) -> FileIO:
        return CheckedFileIO(io_properties({**catalog.properties, **properties}, stores))

    setattr(catalog, "_load_file_io", open_files)  # noqa: B010 - a method, of this one alone
    return catalog


_EXTRAS = {"sql": "sql-sqlite", "glue": "glue", "hive": "hive", "dynamodb": "dynamodb"}


def _kind_of(uri: str) -> str | None:
    scheme = uri.partition("://")[0].lower()
    if scheme in ("http", "https"):
        return "rest"
    if scheme == "thrift":
        return "hive"
    return "sql" if scheme.startswith(("sqlite", "postgresql")) else None


def _made(
    source: str,
    kind: str,
    name: str,
    given: Mapping[str, str],
    timeouts: tuple[float, float | None],
) -> Catalog:
    if kind == "rest":
        from batuta_sql.sources.iceberg_rest import TimedRestCatalog

        catalog: Catalog = TimedRestCatalog(name, timeouts, given)
        return catalog
    if kind == "sql":
        from pyiceberg.catalog.sql import SqlCatalog

        # A catalog that is only read gets no tables of its own made.
        return SqlCatalog(name, **{"init_catalog_tables": "false", **given})
    from pyiceberg.catalog import AVAILABLE_CATALOGS, CatalogType

    try:
        loader = AVAILABLE_CATALOGS[CatalogType(kind)]
    except (KeyError, ValueError):
        raise ConfigError(
            f'sources.{source}.catalog: there is no type "{kind}"',
            hint="type = rest, sql, glue, hive or dynamodb",
        ) from None
    return loader(name, dict(given))


def catalog_error(
    source: str, what: str, error: BaseException, secrets: Sequence[str]
) -> OperationalError:
    """What a catalog's failure is told as, in its own words."""
    message = redact(first_line(error), secrets)
    hint = None
    if type(error).__name__ in ("UnauthorizedError", "ForbiddenError", "OAuthError"):
        hint = "check token or credential of the catalog, and what it may read"
    return OperationalError(f"the catalog {what}: {message}", source=source, hint=hint)


def namespaces_of(catalog: Catalog) -> Iterator[tuple[str, ...]]:
    """All namespaces, those inside others too."""
    waiting: list[tuple[str, ...]] = [()]
    seen: set[tuple[str, ...]] = set()
    while waiting:
        outer = waiting.pop()
        if len(outer) >= _DEEPEST:
            continue
        for found in catalog.list_namespaces(outer):
            inner = tuple(found)
            if inner not in seen:
                seen.add(inner)
                waiting.append(inner)
                yield inner


def file_io(properties: Mapping[str, str], location: str) -> FileIO:
    """What opens metadata; a table's own properties do not say with which class."""
    from pyiceberg.io import load_file_io

    return load_file_io({k: v for k, v in properties.items() if k != _IO_PROPERTY}, location)


def table_at(location: str, io: FileIO) -> Table:
    """The table of a metadata file."""
    from pyiceberg.catalog.noop import NoopCatalog
    from pyiceberg.serializers import FromInputFile
    from pyiceberg.table import StaticTable

    metadata = FromInputFile.table_metadata(io.new_input(location))
    return StaticTable(("table",), metadata, location, io, NoopCatalog("none"))


def host_of(url: str) -> tuple[str | None, int | None]:
    """Host and port of a URL, for comparing."""
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None, None


def properties_of(io: Any) -> dict[str, str]:
    return {k: v for k, v in io.properties.items() if isinstance(v, str)}
