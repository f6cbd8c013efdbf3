"""Where a Databricks workspace is and how one logs in: from the settings and ``.databrickscfg``.

The file is INI; its path is ``~/.databrickscfg`` or ``DATABRICKS_CONFIG_FILE``, and what a setting
says itself goes before the profile. https://docs.databricks.com/dev-tools/auth/config-profiles.html
"""

from __future__ import annotations

import configparser
import ipaddress
import os
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from batuta_sql.errors import ConfigError, did_you_mean
from batuta_sql.secrets import Secret
from batuta_sql.source_settings import WorkspaceSettings

_WAREHOUSE_PATH = re.compile(r"/?sql/(?:1\.0|protocolv1)/(?:warehouses|endpoints)/([\w-]+)/?")


@dataclass(frozen=True)
class WorkspaceLogin:
    """A workspace and what proves who asks.

    :param host: its URL, without a slash at the end.
    """

    host: str
    token: Secret | None
    client_id: str | None
    client_secret: Secret | None
    warehouse_id: str | None


def workspace_of(settings: WorkspaceSettings) -> WorkspaceLogin:
    """The workspace that settings mean; reads the profile's file, contacts nothing.

    :raises ConfigError: where file, profile or host are missing, or the host is no host.
    """
    profile = _profile(settings.profile) if settings.profile is not None else {}
    host = settings.host or profile.get("host")
    if not host:
        raise ConfigError(
            "a Databricks workspace without a host"
            if settings.profile is None
            else f'the profile "{settings.profile}" of .databrickscfg has no host',
            hint="give host, or the profile of a .databrickscfg",
        )
    if (settings.client_id is None) != (settings.client_secret is None):
        raise ConfigError("client_id and client_secret belong together", hint="give both")
    if settings.token is not None and settings.client_id is not None:
        raise ConfigError("two logins", hint="give token, or client_id and client_secret")
    token, client_id = settings.token, settings.client_id
    client_secret = settings.client_secret
    if token is None and client_id is None:
        # One of the two, whole: a token of the file beside a principal of the settings is nobody.
        if "token" in profile:
            token = Secret.of(profile["token"])
        elif "client_id" in profile and "client_secret" in profile:
            client_id, client_secret = profile["client_id"], Secret.of(profile["client_secret"])
    warehouse = settings.warehouse_id or profile.get("warehouse_id")
    if warehouse is None and settings.http_path is not None:
        match = _WAREHOUSE_PATH.fullmatch(settings.http_path)
        if match is None:
            raise ConfigError(
                f'http_path "{settings.http_path}" is not that of a SQL warehouse',
                hint="/sql/1.0/warehouses/ID",
            )
        warehouse = match[1]
    return WorkspaceLogin(_url(host), token, client_id, client_secret, warehouse)


def _url(host: str) -> str:
    text = host if "://" in host else f"https://{host}"
    try:
        parts = urllib.parse.urlsplit(text)
        named, _ = parts.hostname, parts.port
    except ValueError:
        named = None
    if not named or parts.scheme not in ("https", "http"):
        raise ConfigError("host is not that of a workspace", hint="dbc-1.cloud.databricks.com")
    if parts.username or parts.password:
        raise ConfigError("host has a login in it", hint="give token, or client_id")
    if parts.scheme == "http" and not _is_loopback(named):
        raise ConfigError(
            f"host {named} without TLS: the token would be read on the way",
            hint="https:// in front of it; http:// is for this machine",
        )
    return f"{parts.scheme}://{parts.netloc}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _profile(name: str) -> Mapping[str, str]:
    path = Path(os.environ.get("DATABRICKS_CONFIG_FILE") or "~/.databrickscfg").expanduser()
    parser = configparser.ConfigParser(interpolation=None, default_section="\0")
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", hint="databricks configure writes it"
        ) from None
    except (configparser.Error, UnicodeDecodeError):
        # The parser's own words quote the line, which may be the token's.
        raise ConfigError(f"{path} is not a file of profiles") from None
    if not parser.has_section(name):
        raise ConfigError(
            f'{path} has no profile "{name}"', hint=did_you_mean(name, parser.sections())
        )
    return {k: v for k, v in parser.items(name) if v}
