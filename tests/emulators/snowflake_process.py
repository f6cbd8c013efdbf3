"""A running Snowflake emulator: where it is, what it was sent, and how it should fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.emulators.process import Emulator, running

SERVER = Path(__file__).with_name("snowflake_server.py")
PASSWORD = "snow-secret-0815"
DATABASE, SCHEMA = "SHOP", "PUBLIC"


@dataclass(frozen=True)
class SnowflakeEmulator:
    emulator: Emulator
    control: Path

    def settings(self, **more: Any) -> dict[str, Any]:
        """The configuration of a source over it."""
        return {
            "kind": "snowflake",
            "account": "fakesnow",
            "user": "ann",
            "password": PASSWORD,
            "database": DATABASE,
            "schema": SCHEMA,
            "warehouse": "FAKESNOW_WAREHOUSE",
            "host": "127.0.0.1",
            "port": self.emulator.port,
            "protocol": "http",
            **more,
        }

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Runs statements as their owner, and gives the last one's rows."""
        from adbc_driver_snowflake import dbapi

        options = {
            "adbc.snowflake.sql.account": "fakesnow",
            "username": "owner",
            "password": PASSWORD,
            "adbc.snowflake.sql.uri.host": "127.0.0.1",
            "adbc.snowflake.sql.uri.port": str(self.emulator.port),
            "adbc.snowflake.sql.uri.protocol": "http",
            "adbc.snowflake.sql.db": DATABASE,
            "adbc.snowflake.sql.schema": SCHEMA,
            "adbc.snowflake.sql.client_option.disable_telemetry": "true",
        }
        rows: list[tuple[Any, ...]] = []
        with dbapi.connect(db_kwargs=options, autocommit=True) as connection:
            for statement in statements:
                with connection.cursor() as cursor:
                    cursor.execute(statement)
                    rows = list(cursor.fetchall())
        return rows

    def run_behind(self, statement: str) -> None:
        """Runs a statement of the DuckDB behind the emulator."""
        url = f"{self.emulator.url}/_test/duckdb"
        httpx.post(url, content=statement, timeout=60, trust_env=False).raise_for_status()

    def sent(self) -> list[str]:
        """The statements that arrived, in their order."""
        log = self.control.with_name(self.control.name + ".log")
        if not log.exists():
            return []
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        return [line["sql"] for line in lines if line["sql"] is not None]

    def fail(self, **fault: Any) -> None:
        """From now on: ``status``, on paths that contain ``path``, so many ``times``."""
        self.control.write_text(json.dumps(fault))

    def tag(self, *tags: tuple[str | None, ...]) -> None:
        """Tells tags: table as its quoted path, key, value, level, column (or None)."""
        self.control.write_text(json.dumps({"tags": tags}))

    def heal(self) -> None:
        self.control.write_text("{}")


@contextmanager
def snowflake_emulator(folder: Path) -> Iterator[SnowflakeEmulator]:
    control = folder / "control.json"
    control.write_text("{}")
    with running(
        "snowflake", lambda port: [str(SERVER), str(port), str(control)], folder
    ) as emulator:
        yield SnowflakeEmulator(emulator, control)
