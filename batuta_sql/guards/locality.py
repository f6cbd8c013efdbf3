"""Where a source is, told from its settings alone: no name is looked up, nothing is contacted.

A declared ``locality`` wins. Else: files, embedded databases, loopback and Unix sockets are local;
addresses of private ranges are private; names of private links and VPC endpoints are what they
say; every other host is public, since nobody has said otherwise.
"""

from __future__ import annotations

import ipaddress
import os
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from batuta_sql.config import OpenLineageSettings
from batuta_sql.databrickscfg import workspace_of
from batuta_sql.setting_types import Locality
from batuta_sql.source_settings import (
    AldSettings,
    BigQuerySettings,
    DatabricksSettings,
    DeltaSettings,
    DuckDBSettings,
    FilesSettings,
    GlueSettings,
    HuggingFaceSettings,
    IcebergSettings,
    PostgreSQLSettings,
    SnowflakeSettings,
    SourceSettings,
    SQLiteSettings,
    UnitySettings,
    WorkspaceSettings,
)

RANKS: Mapping[Locality, int] = {"local": 0, "private": 1, "vpc": 2, "public": 3}
"""From the nearest to the farthest."""

POSTGRESQL_PORT = 5432
_UNKNOWN = "an address that the configuration does not tell"


@dataclass(frozen=True)
class Endpoint:
    """An address that a source's driver will dial: a host and a port, or a Unix socket.

    :param host: name or address as configured; None for a socket, or where it cannot be told.
    :param port: TCP port; None where the driver chooses its own.
    :param socket: the folder or path of a Unix socket.
    """

    host: str | None = None
    port: int | None = None
    socket: str | None = None


@dataclass(frozen=True)
class Whereabouts:
    """A source's locality and what it was told from."""

    locality: Locality
    reason: str
    declared: bool = False


def whereabouts(settings: SourceSettings) -> Whereabouts:
    """The locality of a source: declared, or that of its farthest endpoint."""
    if settings.locality is not None:
        return Whereabouts(settings.locality, "declared", declared=True)
    found = endpoints(settings)
    if not found:
        return Whereabouts("local", "files on this machine")
    return max((of_endpoint(e) for e in found), key=lambda w: RANKS[w.locality])


def endpoints(settings: SourceSettings) -> tuple[Endpoint, ...]:
    """What a source's driver will dial; nothing for what lies in local files.

    Settings from which the address cannot be told give one ``Endpoint()`` without a host.

    :raises ConfigError: for a secret, needed for the address, that cannot be read.
    """
    match settings:
        case PostgreSQLSettings():
            return _of_postgresql(settings)
        case SQLiteSettings() | DuckDBSettings():
            return _of_paths([settings.path])
        case FilesSettings() | DeltaSettings():
            paths = [settings.path, *(t.path for t in settings.tables.values())]
            options = settings.storage_options
            named = [v.reveal() for k, v in options.items() if "endpoint" in k.lower()]
            return _of_paths(paths, named)
        case AldSettings():
            return _of_paths([settings.path])
        case SnowflakeSettings(host=str(host)):
            return (of_url(host, settings.port),)
        case SnowflakeSettings(account=str(account)):
            return (Endpoint(f"{account}.snowflakecomputing.com", 443),)
        case WorkspaceSettings():
            return _of_workspace(settings)
        case BigQuerySettings():
            dialled = [settings.endpoint or "bigquery.googleapis.com", settings.storage_address]
            return tuple(of_url(d) for d in dialled if d is not None)
        case GlueSettings():
            return _of_glue(settings)
        case HuggingFaceSettings():
            return (of_url(settings.endpoint or "huggingface.co"),)
        case IcebergSettings():
            return _of_iceberg(settings)
    return (Endpoint(),)


def events_endpoint(settings: OpenLineageSettings) -> Endpoint | None:
    """The address that events about queries go to; None where the configuration names none."""
    return of_url(settings.url) if settings.is_on and settings.url is not None else None


# --- PostgreSQL --------------------------------------------------------------------------------


def _of_postgresql(settings: PostgreSQLSettings) -> tuple[Endpoint, ...]:
    """The addresses that libpq will try, by its own rules of what overrides what.

    https://www.postgresql.org/docs/current/libpq-connect.html and libpq-envars.html
    """
    uri = settings.uri.reveal() if settings.uri is not None else None
    query: dict[str, str] = {}
    if uri is None:
        hosts, ports = [settings.host or ""], [str(settings.port or "")]
    else:
        try:
            parts = urllib.parse.urlsplit(uri)
        except ValueError:
            return (Endpoint(),)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        split = [_host_and_port(h) for h in parts.netloc.rpartition("@")[2].split(",")]
        hosts, ports = [h for h, _ in split], [p for _, p in split]
    if query.get("service") or os.environ.get("PGSERVICE"):
        return (Endpoint(),)  # a file elsewhere names the host
    if "host" in query:
        hosts = query["host"].split(",")
    if not any(hosts) and os.environ.get("PGHOST"):
        hosts = os.environ["PGHOST"].split(",")
    address = query.get("hostaddr") or os.environ.get("PGHOSTADDR")
    if address:
        hosts = address.split(",")
    if "port" in query:
        ports = query["port"].split(",")
    if not any(ports):
        ports = os.environ.get("PGPORT", str(POSTGRESQL_PORT)).split(",")
    if len(ports) != len(hosts):
        ports = [ports[0]] * len(hosts)
    return tuple(_of_libpq(h, p) for h, p in zip(hosts, ports, strict=True))


def _host_and_port(text: str) -> tuple[str, str]:
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(\d*))?", text)
    if bracketed:
        return bracketed[1], bracketed[2] or ""
    host, _, port = text.partition(":")
    return urllib.parse.unquote(host), port


def _of_libpq(host: str, port: str) -> Endpoint:
    number = int(port) if port.isdigit() else POSTGRESQL_PORT
    if not host or host.startswith(("/", "@")):
        # Without a host libpq dials a socket, in a folder that it was built with.
        return Endpoint(port=number, socket=host or "/var/run/postgresql")
    return Endpoint(host, number)


# --- Databricks --------------------------------------------------------------------------------


def _of_workspace(settings: WorkspaceSettings) -> tuple[Endpoint, ...]:
    """The workspace's address, and that of the ADBC driver where it has one of its own."""
    found: list[Endpoint] = []
    if settings.host is not None or settings.profile is not None:
        found.append(of_url(workspace_of(settings).host))
    if isinstance(settings, DatabricksSettings) and "uri" in settings.options:
        found.append(of_url(settings.options["uri"].reveal()))
    if isinstance(settings, UnitySettings) and settings.object_stores:
        options = settings.storage_options.items()
        named = [v.reveal() for k, v in options if "endpoint" in k.lower()]
        # Else it is whatever store the catalog names.
        found += [of_url(n) for n in named] or [Endpoint("an object store of the catalog")]
    return tuple(found) or (Endpoint(),)


# --- Iceberg -----------------------------------------------------------------------------------


def _of_iceberg(settings: IcebergSettings) -> tuple[Endpoint, ...]:
    """The catalog's address and the object store's."""
    given = {k: v.reveal() for k, v in settings.catalog.items()}
    found: list[Endpoint] = []
    stores: list[Endpoint] = []
    for key, value in given.items():
        if key == "warehouse" or not value:
            continue
        if "endpoint" in key:
            (stores if key.startswith("s3.") else found).append(of_url(value))
        elif "://" in value:
            found.append(of_url(value))
    if settings.has_catalog and not found:
        kind, region = given.get("type"), given.get("glue.region", given.get("client.region"))
        # Without a region the driver finds one in its environment: all are as far away.
        service = {"glue": "glue", "dynamodb": "dynamodb"}.get(kind or "")
        host = f"{service}.{region or 'us-east-1'}.amazonaws.com"
        found.append(of_url(host) if service else Endpoint())
    if settings.reads_stores:
        # Without an endpoint it is whatever store the catalog or the path names.
        found += stores or [Endpoint("an object store of the catalog")]
    return tuple(dict.fromkeys(found))


# --- Glue --------------------------------------------------------------------------------------


def _of_glue(settings: GlueSettings) -> tuple[Endpoint, ...]:
    """The catalog's address and the store's: ``endpoint`` is both, unless S3 has its own."""
    region = settings.region or "us-east-1"
    options = settings.storage_options.items()
    stores = [of_url(v.reveal()) for k, v in options if "endpoint" in k.lower()]
    if settings.endpoint is not None:
        return tuple(dict.fromkeys([of_url(settings.endpoint), *stores]))
    stores = stores or [Endpoint(f"s3.{region}.amazonaws.com", 443)]
    return (Endpoint(f"glue.{region}.amazonaws.com", 443), *stores)


# --- paths and URLs ----------------------------------------------------------------------------


def _of_paths(paths: Iterable[str | None], urls: Iterable[str] = ()) -> tuple[Endpoint, ...]:
    named = [of_url(u) for u in urls]
    for path in paths:
        if path is None or "://" not in path or path.startswith("file://"):
            continue
        scheme = path.partition("://")[0].lower()
        # The host of s3://bucket is a bucket; what is dialled is the store's own address.
        if scheme in ("http", "https"):
            named.append(of_url(path))
        elif not named:
            named.append(Endpoint(f"{scheme} object store"))
    return tuple(dict.fromkeys(named))


def of_url(text: str, port: int | None = None) -> Endpoint:
    """The address in a URL, or in ``host:port``; ``Endpoint()`` where there is none."""
    url = text if "://" in text else f"//{text}"
    try:
        parts = urllib.parse.urlsplit(url)
        told = parts.port
    except ValueError:
        return Endpoint()
    if parts.scheme == "sqlite":
        return Endpoint(socket=parts.path)
    usual = 80 if parts.scheme == "http" else 443
    return Endpoint(parts.hostname, port or told or usual)


# --- from an endpoint to a locality ------------------------------------------------------------

_LINKS: tuple[tuple[str, Locality, str], ...] = (
    (r"(^|\.)localhost$", "local", "loopback"),
    (r"\.privatelink\.", "private", "a private link"),
    (r"\.vpce\.amazonaws\.com$", "vpc", "a VPC endpoint"),
    (r"\.p\.googleapis\.com$", "vpc", "Private Service Connect"),
)


def of_endpoint(endpoint: Endpoint) -> Whereabouts:
    """The locality of one address."""
    if endpoint.socket is not None:
        return Whereabouts("local", "a Unix socket or file of this machine")
    if endpoint.host is None:
        return Whereabouts("public", _UNKNOWN)
    host = endpoint.host.rstrip(".").lower()
    try:
        return _of_address(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    for pattern, locality, what in _LINKS:
        if re.search(pattern, host):
            return Whereabouts(locality, f"{host} is {what}")
    return Whereabouts("public", f"{host} may be anywhere")


_PRIVATE = tuple(
    ipaddress.ip_network(n)
    for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")
) + tuple(ipaddress.ip_network(n) for n in ("fc00::/7", "fe80::/10"))
"""RFC 1918, RFC 3927, RFC 4193, RFC 4291. Python's ``is_private`` has more than these."""


def _of_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Whereabouts:
    mapped = getattr(address, "ipv4_mapped", None) or address
    if mapped.is_loopback:
        return Whereabouts("local", f"{address} is loopback")
    if any(mapped in n for n in _PRIVATE):
        return Whereabouts("private", f"{address} is of a private range")
    return Whereabouts("public", f"{address} is of no private range")
