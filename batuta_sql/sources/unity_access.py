"""Whether the files of a table of the Unity Catalog may be read, and with what.

https://docs.databricks.com/api/workspace/temporarytablecredentials
"""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Mapping
from typing import Any

from batuta_sql.sources.databricks_catalog import Record

_IN_FILES = frozenset({"MANAGED", "EXTERNAL"})


def why_not_in_place(record: Record, object_stores: bool = False) -> str | None:
    """Why the files of a table must not or cannot be read; None where they can."""
    kind = str(record.get("table_type") or "")
    if kind not in _IN_FILES:
        return f"it is a {kind.lower().replace('_', ' ') or 'table of an unknown kind'}"
    form = str(record.get("data_source_format") or "")
    if form.upper() != "DELTA":
        return f"its files are {form or 'of an unknown format'}"
    # The catalog applies these in its warehouses only: the files hold everything.
    if record.get("row_filter"):
        return "it has a row filter"
    masked = [str(c["name"]) for c in record.get("columns") or () if c.get("mask")]
    if masked:
        return f'its column "{masked[0]}" is masked'
    location = str(record.get("storage_location") or "")
    if not location:
        return "the catalog does not tell where it lies"
    if not is_local(location) and not object_stores:
        scheme = location.partition("://")[0]
        return f"it lies on {scheme}://, and object_stores is not set"
    return None


def is_local(location: str) -> bool:
    """Whether files lie on this machine, as far as the location tells."""
    return urllib.parse.urlsplit(location).scheme in ("", "file")


def storage_options(told: Mapping[str, Any]) -> dict[str, str]:
    """Vended credentials as deltalake's ``storage_options``."""
    aws = told.get("aws_temp_credentials") or told.get("r2_temp_credentials")
    if aws:
        found = {
            "AWS_ACCESS_KEY_ID": aws.get("access_key_id"),
            "AWS_SECRET_ACCESS_KEY": aws.get("secret_access_key"),
            "AWS_SESSION_TOKEN": aws.get("session_token"),
        }
        return {k: str(v) for k, v in found.items() if v}
    if azure := told.get("azure_user_delegation_sas"):
        return {"AZURE_STORAGE_SAS_TOKEN": str(azure["sas_token"])}
    if azure := told.get("azure_aad"):
        return {"AZURE_STORAGE_TOKEN": str(azure["aad_token"])}
    if gcp := told.get("gcp_oauth_token"):
        return {"GOOGLE_BEARER_TOKEN": str(gcp["oauth_token"])}
    return {}


def valid_until(told: Mapping[str, Any]) -> float:
    """When vended credentials end, in seconds since 1970; the catalog tells milliseconds."""
    milliseconds = told.get("expiration_time")
    if isinstance(milliseconds, int | float):
        return float(milliseconds) / 1000
    return time.time()
