"""From settings to the options of the ADBC driver: who logs in, and how long it may take.

Options: https://arrow.apache.org/adbc/current/driver/snowflake.html. Named connections are those of
Snowflake's own tools, in ``connections.toml``:
https://docs.snowflake.com/en/developer-guide/snowflake-cli/connecting/configure-connections
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from batuta_sql.errors import ConfigError, did_you_mean
from batuta_sql.source_settings import SnowflakeSettings

_SQL = "adbc.snowflake.sql."
_CLIENT = _SQL + "client_option."
_AUTHENTICATORS = {
    "SNOWFLAKE": "auth_snowflake",
    "EXTERNALBROWSER": "auth_ext_browser",
    "SNOWFLAKE_JWT": "auth_jwt",
    "OAUTH": "auth_oauth",
    "USERNAME_PASSWORD_MFA": "auth_mfa",
    "PROGRAMMATIC_ACCESS_TOKEN": "auth_pat",
}
"""Snowflake's names of authenticators, and the driver's."""

_KNOWN = frozenset(
    {
        "account",
        "user",
        "password",
        "token",
        "authenticator",
        "warehouse",
        "database",
        "schema",
        "role",
        "host",
        "port",
        "protocol",
    }
)


def driver_options(source: str, settings: SnowflakeSettings) -> dict[str, str]:
    """The driver's options; secrets are in them, so they are never to be shown.

    :raises ConfigError: where nothing says who logs in.
    """
    found = settings_with_connection(source, settings)
    if found.account is None and found.host is None:
        raise ConfigError(f"sources.{source}: give account, or connection")
    seconds = f"{max(1, round(settings.connect_timeout))}s"
    options = {
        _SQL + "account": found.account or (found.host or "").partition(".")[0],
        "username": found.user,
        _SQL + "warehouse": found.warehouse,
        _SQL + "db": found.database,
        _SQL + "schema": found.schema_,
        _SQL + "role": found.role,
        _SQL + "uri.host": found.host,
        _SQL + "uri.port": str(found.port) if found.port is not None else None,
        _SQL + "uri.protocol": found.protocol,
        _CLIENT + "app_name": "batuta-sql",
        # Without these the driver tries again for minutes.
        _CLIENT + "login_timeout": seconds,
        _CLIENT + "request_timeout": _request_timeout(settings),
        _CLIENT + "client_timeout": _request_timeout(settings),
        _CLIENT + "disable_telemetry": "true",
        # Nanoseconds overflow in 1677 and 2262.
        _CLIENT + "max_timestamp_precision": "microseconds",
        # NUMBER as a decimal of its own digits.
        _CLIENT + "use_high_precision": "true",
        **_proof(source, found),
    }
    return {k: v for k, v in options.items() if v is not None}


def _request_timeout(settings: SnowflakeSettings) -> str:
    """How long one request may be tried, several times included."""
    limit = settings.query_timeout if settings.query_timeout is not None else 300.0
    return f"{max(1, round(min(limit, 300.0)))}s"


def _proof(source: str, settings: SnowflakeSettings) -> dict[str, str | None]:
    """What proves who logs in: a key, a token, a password, or a browser."""
    authenticator = (settings.authenticator or "").upper()
    if authenticator.startswith("HTTPS://"):
        return {
            _SQL + "auth_type": "auth_okta",
            _CLIENT + "okta_url": settings.authenticator,
            "password": settings.password.reveal() if settings.password else None,
        }
    if settings.private_key is not None:
        return {
            _SQL + "auth_type": "auth_jwt",
            _CLIENT + "jwt_private_key_pkcs8_value": settings.private_key.reveal(),
            _CLIENT + "jwt_private_key_pkcs8_password": settings.password.reveal()
            if settings.password
            else None,
        }
    if settings.token is not None:
        return {
            _SQL + "auth_type": _AUTHENTICATORS.get(authenticator, "auth_oauth"),
            _CLIENT + "auth_token": settings.token.reveal(),
        }
    kind = _AUTHENTICATORS.get(authenticator or "SNOWFLAKE")
    if kind is None:
        hint = did_you_mean(authenticator, _AUTHENTICATORS)
        raise ConfigError(
            f'sources.{source}.authenticator: there is no "{settings.authenticator}"',
            hint=hint or "known: " + ", ".join(_AUTHENTICATORS) + ", an Okta URL",
        )
    if kind == "auth_ext_browser":
        return {_SQL + "auth_type": kind}
    if settings.password is None:
        raise ConfigError(
            f"sources.{source}: nothing proves who logs in",
            hint="give password, private_key, token, or authenticator = 'externalbrowser'",
        )
    return {_SQL + "auth_type": kind, "password": settings.password.reveal()}


# --- named connections -------------------------------------------------------------------------


def settings_with_connection(source: str, settings: SnowflakeSettings) -> SnowflakeSettings:
    """The settings, with what a named connection says where they say nothing.

    :raises ConfigError: where there is no such connection.
    """
    if settings.connection is None:
        return settings
    path = _connections_file()
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"sources.{source}.connection: {path} cannot be read: {error.strerror}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    named = content.get("connections", content)
    found = named.get(settings.connection)
    if not isinstance(found, dict):
        raise ConfigError(
            f'sources.{source}.connection: {path} has no connection "{settings.connection}"',
            hint=did_you_mean(settings.connection, named),
        )
    return _merged(source, settings, found)


def _merged(source: str, settings: SnowflakeSettings, named: dict[str, Any]) -> SnowflakeSettings:
    given = {k: v for k, v in named.items() if k in _KNOWN}
    if "username" in named:
        given.setdefault("user", named["username"])
    key = named.get("private_key_file") or named.get("private_key_path")
    if key is not None:
        given["private_key"] = {"file": str(Path(str(key)).expanduser())}
        if "private_key_passphrase" in named:
            given["password"] = named["private_key_passphrase"]
    if "token_file_path" in named:
        given["token"] = {"file": str(Path(str(named["token_file_path"])).expanduser())}
    try:
        told = SnowflakeSettings.model_validate({"kind": "snowflake", **given})
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise ConfigError(
            f"sources.{source}.connection: {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
        ) from None
    own = {n: getattr(settings, n) for n in settings.model_fields_set}
    return told.model_copy(update=own)


def _connections_file() -> Path:
    """Where Snowflake's tools keep named connections."""
    home = os.environ.get("SNOWFLAKE_HOME")
    places = [Path(home).expanduser()] if home else []
    places += [Path.home() / ".snowflake", Path.home() / ".config" / "snowflake"]
    for place in places:
        if (place / "connections.toml").is_file():
            return place / "connections.toml"
    return places[0] / "connections.toml"
