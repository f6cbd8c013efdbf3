"""Where files of Iceberg tables are, and what opens them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from batuta_sql.errors import Error, OperationalError
from batuta_sql.secrets import redact
from batuta_sql.sources.iceberg_metadata import first_line

T = TypeVar("T")


def local_path(location: str) -> str:
    """The path of a local file; Iceberg's locations are not URL-encoded."""
    for prefix in ("file://", "file:"):
        if location.startswith(prefix):
            rest = location.removeprefix(prefix)
            return rest if rest.startswith("/") else f"/{rest.partition('/')[2]}"
    return location


def opening_error(source: str, name: str, error: BaseException, secrets: Sequence[str]) -> Error:
    """What is said where a table or catalog cannot be opened."""
    message = redact(first_line(error), secrets)
    return OperationalError(f'Iceberg table "{name}" cannot be opened: {message}', source=source)


def known_access(properties: Mapping[str, T]) -> dict[str, T]:
    """S3 access in FileIO properties under the names that ``ObjectStore`` takes.

    https://py.iceberg.apache.org/configuration/#s3
    """
    names = {
        "s3.endpoint": "AWS_ENDPOINT_URL",
        "s3.access-key-id": "AWS_ACCESS_KEY_ID",
        "s3.secret-access-key": "AWS_SECRET_ACCESS_KEY",
        "s3.session-token": "AWS_SESSION_TOKEN",
        "s3.region": "AWS_REGION",
        "s3.profile-name": "AWS_PROFILE",
        "client.access-key-id": "AWS_ACCESS_KEY_ID",
        "client.secret-access-key": "AWS_SECRET_ACCESS_KEY",
        "client.session-token": "AWS_SESSION_TOKEN",
        "client.region": "AWS_REGION",
        "client.profile-name": "AWS_PROFILE",
        "s3.anonymous": "AWS_SKIP_SIGNATURE",
    }
    found: dict[str, T] = {}
    for key, name in names.items():
        if properties.get(key):
            found.setdefault(name, properties[key])
    return found
