"""``batuta-sql doctor``: what is configured, installed and enforceable, which sources answer."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batuta_sql.cli.launch import ERROR
from batuta_sql.cli.listings import print_json
from batuta_sql.config import usual_place
from batuta_sql.guards.egress import abilities

if TYPE_CHECKING:
    from batuta_sql import Connection

_PACKAGES = (
    "batuta-sql",
    "duckdb",
    "pyarrow",
    "sqlglot",
    "adbc-driver-manager",
    "adbc-driver-postgresql",
    "adbc-driver-sqlite",
    "adbc-driver-snowflake",
    "deltalake",
    "pyiceberg",
    "keyring",
    "pandas",
    "polars",
)


def examine(config: Path | None, connect: Callable[[], Connection], *, as_json: bool) -> int:
    """Shows the state of everything; 1 where a source does not answer or labels reach no table.

    Secrets are never read out.

    :raises ConfigError: for a configuration that is wrong.
    """
    place = config or usual_place()
    state: dict[str, Any] = {
        "config": str(place) if place is not None else None,
        "python": platform.python_version(),
        "tier": None,
        "packages": {name: _version(name) for name in _PACKAGES},
        "abilities": [asdict(ability) for ability in abilities()],
        "sources": [],
    }
    if not as_json:
        # Before the sources are asked: a wrong configuration or a slow source hides nothing.
        _print_machine(state)
    connection = connect()
    state["tier"] = connection.tier
    for check in connection.check():
        state["sources"].append(
            {
                "name": check.name,
                "kind": check.kind,
                "locality": check.locality,
                "locality_from": check.reason,
                "allowed": check.allowed,
                "seconds": round(check.seconds, 4),
                "tables": check.tables,
                "error": check.error,
                "labels_without_table": list(check.unmatched),
            }
        )
    if as_json:
        print_json(state)
    else:
        print(f"tier:     {connection.tier}")
        _print_sources(state["sources"])
    faulty = any(s["error"] or s["labels_without_table"] for s in state["sources"])
    return ERROR if faulty else 0


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _print_machine(state: dict[str, Any]) -> None:
    print(f"config:   {state['config'] or 'none found: ./batuta.toml or --config FILE'}")
    print(f"python:   {state['python']}")
    for name, found in state["packages"].items():
        print(f"  {name:24} {found or 'not installed'}")
    print("enforceable on this machine:")
    for ability in state["abilities"]:
        print(f"  {ability['name']:24} {'yes' if ability['ok'] else 'no'}: {ability['detail']}")
        if ability["remedy"]:
            print(f"  {'':24} Hint: {ability['remedy']}")
    sys.stdout.flush()


def _print_sources(sources: list[dict[str, Any]]) -> None:
    print("sources:" if sources else "sources:  none are configured")
    for source in sources:
        locality = f"{source['locality'] or 'locality unknown'}: {source['locality_from']}"
        head = f"  {source['name']} ({source['kind']}, {locality})"
        if not source["allowed"]:
            print(f"{head}: not allowed by the tier, not asked")
            continue
        seconds = f"{source['seconds']:.3f} s"
        if source["error"]:
            print(f"{head}: does not answer after {seconds}: {source['error']}")
        else:
            count = source["tables"]
            print(f"{head}: {count} table{'' if count == 1 else 's'} in {seconds}")
        for table in source["labels_without_table"]:
            print(f'    the configuration labels "{table}", and there is no such table')
