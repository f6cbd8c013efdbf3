"""Copies that last longer than the credentials that they began with.

``BATUTA_SYNC_SECONDS`` says how long, at least.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

import batuta_sql
from batuta_sql import Credential
from tests.emulators.databricks import CLIENT_ID, CLIENT_SECRET, Workspace
from tests.sync.conftest import rows_of, run, truth

SECONDS = float(os.environ.get("BATUTA_SYNC_SECONDS", "8"))
LIVES = 2.0


class ShortLived:
    """Passwords of a role of a server, each good for two seconds and until the next."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self.given = 0
        self.fails = False
        self._ends = 0.0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._end_them, daemon=True)

    def get(self) -> Credential:
        if self.fails:
            raise RuntimeError("the issuer is away")
        password = secrets.token_hex(8)
        with self._lock:
            self._set(password)
            self._ends = time.monotonic() + LIVES
            self.given += 1
        return Credential(password, datetime.now(UTC) + timedelta(seconds=LIVES))

    def __enter__(self) -> ShortLived:
        run(self._uri, "CREATE ROLE copier LOGIN", "GRANT SELECT ON orders TO copier")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()
        self.end_sessions()
        run(self._uri, "DROP OWNED BY copier", "DROP ROLE copier")

    def end_sessions(self) -> None:
        """What a server does whose connections live no longer than their credentials."""
        run(
            self._uri,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'copier'",
        )

    def _end_them(self) -> None:
        while not self._closed.wait(0.1):
            with self._lock:
                if time.monotonic() >= self._ends:
                    self._set(secrets.token_hex(8))

    def _set(self, password: str) -> None:
        run(self._uri, f"ALTER ROLE copier PASSWORD '{password}'")


@pytest.fixture
def issuer(uri: str) -> Iterator[ShortLived]:
    with ShortLived(uri) as made:
        yield made


@pytest.fixture
def copier(uri: str, issuer: ShortLived) -> Iterator[Any]:
    """A connection as the role whose passwords end."""
    parts = urlsplit(uri)
    bare = urlunsplit(parts._replace(netloc=f"copier@{parts.netloc.rpartition('@')[2]}"))
    crm = {"kind": "postgresql", "uri": bare, "password": issuer, "locality": "local"}
    config = {"threads": 2, "cost": {"history": False}, "sources": {"crm": crm}}
    with batuta_sql.connect(config) as connection:
        yield connection


class Slowly:
    """Makes a copy last, and does something now and then."""

    def __init__(self, splits: int, act: Callable[[], None], every: float) -> None:
        self._pause = 2 * SECONDS / splits
        self._act = act
        self._every = every
        self._last = time.monotonic()
        self._lock = threading.Lock()
        self.acted = 0
        self.credentials: list[float | None] = []
        self._done = -1

    def __call__(self, progress: Any) -> None:
        self.credentials.append(progress.credential)
        with self._lock:
            is_next = progress.done != self._done
            self._done = progress.done
            acts = time.monotonic() - self._last > self._every
            if acts:
                self._last = time.monotonic()
                self.acted += 1
        if acts:
            self._act()
        if is_next:
            time.sleep(self._pause)


def test_passwords_that_end_in_the_middle_of_a_copy(
    copier: Any, issuer: ShortLived, connect: Callable[..., Any], tmp_path: Path
) -> None:
    """Those that were used for a connection are good no more when the next one is made."""
    split_bytes = 1 << 19
    planned = copier.sync("crm.orders", tmp_path / "x", dry_run=True, split_bytes=split_bytes)
    slowly = Slowly(planned.splits, issuer.end_sessions, every=1.5)
    started = time.monotonic()
    result = copier.sync(
        "crm.orders", tmp_path / "orders", split_bytes=split_bytes, progress=slowly
    )
    lasted = time.monotonic() - started
    assert lasted > SECONDS * 0.8
    assert slowly.acted >= 3
    # One for each connection that was lost at most, and one for each that has ended.
    assert 3 <= issuer.given <= lasted / (LIVES / 2) + 2 * slowly.acted + 3
    assert result.outcome == "copied"
    assert rows_of(tmp_path / "orders", "parquet") == truth(connect())
    known = [c for c in slowly.credentials if c is not None]
    assert known
    assert max(known) <= LIVES


def test_an_issuer_that_fails_ends_the_copy_and_the_next_run_goes_on(
    copier: Any, issuer: ShortLived, connect: Callable[..., Any], tmp_path: Path
) -> None:
    target, split_bytes = tmp_path / "orders", 1 << 20

    turn = threading.Lock()

    def fail(progress: Any) -> None:
        if progress.done >= 3:
            # The other reader waits here too.
            with turn:
                if not issuer.fails:
                    issuer.fails = True
                    time.sleep(LIVES)
                    issuer.end_sessions()

    with pytest.raises(batuta_sql.Error) as caught:
        copier.sync("crm.orders", target, split_bytes=split_bytes, progress=fail)
    assert "the secret's callable failed: RuntimeError" in str(caught.value)
    assert not target.exists()
    issuer.fails = False
    result = copier.sync("crm.orders", target, split_bytes=split_bytes)
    assert result.copied <= result.splits - 3
    assert rows_of(target, "parquet") == truth(connect())


def test_tokens_that_end_in_the_middle_of_one_result(databricks: Workspace, tmp_path: Path) -> None:
    databricks.reset()
    parts = max(40, int(SECONDS * 5))
    rows = parts * 1000
    schema = databricks.new_schema()
    databricks.run(
        f"CREATE TABLE lab.{schema}.orders AS SELECT i AS id, 'w' || i AS word"
        f" FROM range({rows}) r(i)"
    )
    # Each part's link is asked for with a token; four at once.
    options = {"token_seconds": LIVES, "part_rows": rows // parts, "link_seconds": 1}
    databricks.set(options=options | {"part_pause": SECONDS * 4 / parts})
    login = {"token": None, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    config = {
        "sources": {"dbx": databricks.settings(**login)},
        "cost": {"on_unknown": "allow", "history": False},
    }
    seen: list[float] = []

    def watch(progress: Any) -> None:
        if progress.credential is not None:
            seen.append(progress.credential)

    started = time.monotonic()
    with batuta_sql.connect(config) as connection:
        result = connection.sync(f"dbx.{schema}.orders", tmp_path / "orders", progress=watch)
        assert rows_of(tmp_path / "orders", "parquet") == truth(
            connection, f"SELECT i AS id, 'w' || i AS word FROM range({rows}) r(i)"
        )
    lasted = time.monotonic() - started
    assert lasted > SECONDS * 0.8
    assert (result.rows, result.splits) == (rows, 1)
    asked = databricks.lines().count("POST /oidc/v1/token")
    assert lasted / LIVES - 1 <= asked <= 3 * lasted / LIVES + 3
    # None was sent that had ended.
    assert not [r for r in databricks.requests() if r.get("status") == 401]
    assert seen
    assert max(seen) <= LIVES
    databricks.reset()
