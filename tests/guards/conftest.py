"""A PostgreSQL table that charges, and what the server was really sent."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import batuta_sql
from batuta_sql.demo.postgres_server import PostgresServer

ROWS = 20_000


@dataclass(frozen=True)
class Shop:
    """``table`` has ``bytes`` and a name of its own; ``usd_per_tb`` makes it cost $10."""

    server: PostgresServer
    uri: str
    table: str
    bytes: int

    @property
    def usd_per_tb(self) -> float:
        return 10.0 * 10**12 / self.bytes

    @property
    def name(self) -> str:
        return f"shop.public.{self.table}"

    def sent(self) -> list[str]:
        """Every statement about the table that the server has executed, catalog queries apart."""
        lines = [s for s in self.server.log().splitlines() if f'"{self.table}"' in s]
        return [s for s in lines if "execute" in s or "statement:" in s]

    def ran(self) -> list[str]:
        """Those of them that read the table."""
        return [s for s in self.sent() if "EXPLAIN" not in s]


@pytest.fixture
def shop(postgres: PostgresServer, postgres_uri: str) -> Shop:
    table = f"t{secrets.token_hex(6)}"
    database = postgres_uri.rsplit("/", 1)[1]
    postgres.run(
        f"CREATE TABLE {table} AS SELECT i AS id, md5(i::text) AS name"
        f" FROM generate_series(1, {ROWS}) i; ANALYZE {table};"
        f"ALTER DATABASE {database} SET log_statement = 'all';",
        database,
    )
    size = int(postgres.run(f"SELECT pg_relation_size('{table}')", database))
    return Shop(postgres, postgres_uri, table, size)


Opened = Callable[..., Any]


@pytest.fixture
def opened(shop: Shop, tmp_path: Path) -> Iterator[Opened]:
    """Opens a connection; ``cost`` are its settings, ``pricing`` the source's."""
    with ExitStack() as stack:

        def connect(
            cost: dict[str, Any] | None = None,
            pricing: dict[str, Any] | None = None,
            **options: Any,
        ) -> Any:
            prices = {"usd_per_tb_scanned": shop.usd_per_tb} if pricing is None else pricing
            config = {
                "cost": {"history_file": str(tmp_path / "history.sqlite"), **(cost or {})},
                "sources": {"shop": {"kind": "postgresql", "uri": shop.uri, "pricing": prices}},
            }
            return stack.enter_context(closing(batuta_sql.connect(config, **options)))

        yield connect
