"""What queries took beside what was estimated: a SQLite file that several processes share.

Rows are written by a thread of their own, a batch at a time; a file that cannot be written costs a
warning, never a query. What has to be known at once, the spending of a source with a budget, is
reserved in one transaction before the query runs. SQL is kept without its constants and comments.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import queue
import sqlite3
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import platformdirs
from sqlglot import tokenize
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import TokenType

from batuta_sql.guards.learning import Learned, Observation, ratio, ratio_of_usd

Status = Literal["running", "finished", "failed", "cancelled", "partial"]

KEPT_ROWS = 100_000
KEPT_DAYS = 400

_VERSION = 1
_BUSY_SECONDS = 2.0
_BATCH_SECONDS = 0.2
_LEARNT_RUNS = 1000
_SQL_CHARACTERS = 4000


class HistoryWarning(UserWarning):
    """The history cannot be written; queries run all the same."""


@dataclass(frozen=True)
class Run:
    """One fragment of one query.

    :param query: an id of the query, unlike any other's.
    :param started: seconds since 1970, UTC.
    :param sql: the user's text without constants; ``sql_hash`` is of that.
    :param place: which system ``source`` names: several configurations may use one name.
    :param shape: a hash of the fragment's own statement without constants.
    :param estimated_rows: and all ``estimated_...``: as shown to the user, with the factor in it.
    :param bytes: of Arrow data, delivered.
    :param usd: what was billed, where the source told; ``billed_...`` likewise.
    """

    query: str
    fragment: str
    started: float
    sql: str
    sql_hash: str
    source: str
    place: str
    shape: str
    status: Status
    estimated_rows: float | None = None
    estimated_bytes: float | None = None
    estimated_scanned: float | None = None
    estimated_usd: float | None = None
    confidence: str = "unknown"
    rows_confidence: str = "unknown"
    basis: str = ""
    rows_factor: float | None = None
    bytes_factor: float | None = None
    billed_factor: float | None = None
    rows: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    billed_bytes: float | None = None
    billed_credits: float | None = None
    billed_dbus: float | None = None
    usd: float | None = None


_COLUMNS = tuple(f.name for f in fields(Run))
_TEXTS = frozenset(f.name for f in fields(Run) if "str" in str(f.type) or f.name == "status")
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS run ("
    + ", ".join(f"{n} {'TEXT' if n in _TEXTS else 'REAL'}" for n in _COLUMNS)
    + ", PRIMARY KEY (query, fragment))",
    "CREATE INDEX IF NOT EXISTS run_by_source ON run (source, place, started)",
    "CREATE INDEX IF NOT EXISTS run_by_time ON run (started)",
)
_INSERT = (
    f"INSERT OR REPLACE INTO run ({', '.join(_COLUMNS)})"
    f" VALUES ({', '.join(':' + n for n in _COLUMNS)})"
)


def default_file() -> Path:
    """``history.sqlite`` in the user's data folder."""
    return Path(platformdirs.user_data_dir("batuta-sql", appauthor=False)) / "history.sqlite"


class History:
    """The history file, as one connection of Batuta uses it. All methods may be called from any
    thread; none but ``reserve`` and the readers wait for the disk.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or default_file()
        self._waiting: queue.SimpleQueue[Callable[[], Sequence[Run]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._using = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._owner = 0
        self._scheduled = False
        self._registered = False
        self._warned = False
        self._pruned = False

    # --- writing -------------------------------------------------------------------------------

    def add(self, runs: Callable[[], Sequence[Run]]) -> None:
        """Writes what ``runs`` gives, soon, from another thread."""
        self._waiting.put(runs)
        with self._lock:
            if not self._registered:
                # A process that ends without closing its connection has its last runs written too.
                self._registered = True
                atexit.register(_flush_at_exit, weakref.ref(self))
            if self._scheduled:
                return
            self._scheduled = True
        threading.Thread(target=self._write_soon, name="batuta-history", daemon=True).start()

    def _write_soon(self) -> None:
        time.sleep(_BATCH_SECONDS)
        with self._lock:
            self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Writes what is waiting, now."""
        runs: list[Run] = []
        with self._writing:
            while True:
                try:
                    make = self._waiting.get_nowait()
                except queue.Empty:
                    break
                with contextlib.suppress(Exception):
                    runs += make()
            if runs:
                self._store(runs)

    def _store(self, runs: Sequence[Run]) -> None:
        try:
            with self._opened() as connection, _transaction(connection):
                connection.executemany(_INSERT, [asdict(r) for r in runs])
                if not self._pruned:
                    self._pruned = True
                    _prune(connection)
        except (sqlite3.Error, OSError) as error:
            self._warn(error)

    def _warn(self, error: BaseException) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"the history cannot be written: {self.file}: {error}"
                " (cost.history = false turns it off)",
                HistoryWarning,
                stacklevel=2,
            )

    def reserve(self, runs: Sequence[Run], budgets: Mapping[tuple[str, str], float]) -> str | None:
        """Counts the estimated cost of ``runs`` as spent, if the budgets bear it; all or none.

        :param budgets: US dollars a month, by source and place.
        :return: the source whose budget does not bear it, or None.
        :raises OSError: where the file cannot be written.
        """
        try:
            with self._opened() as connection, _transaction(connection):
                for (source, place), budget in budgets.items():
                    wanted = sum(
                        r.estimated_usd or 0.0
                        for r in runs
                        if (r.source, r.place) == (source, place)
                    )
                    if _spent(connection, source, place) + wanted > budget:
                        return source
                connection.executemany(_INSERT, [asdict(r) for r in runs])
        except sqlite3.Error as error:
            raise OSError(f"{self.file}: {error}") from None
        return None

    # --- reading -------------------------------------------------------------------------------

    def spent(self, source: str, place: str, besides: str = "") -> float:
        """US dollars spent on a source in this calendar month (UTC): billed, else estimated.

        :param besides: the id of a query that does not count.
        :raises OSError: where the file cannot be read.
        """
        try:
            with self._opened() as connection:
                return _spent(connection, source, place, besides)
        except sqlite3.Error as error:
            raise OSError(f"{self.file}: {error}") from None

    def learned(self, source: str, place: str) -> Learned:
        """What the last runs on a source teach; nothing where the file cannot be read."""
        try:
            with self._opened() as connection:
                rows = connection.execute(
                    "SELECT shape, rows, estimated_rows, rows_factor, bytes, estimated_bytes,"
                    " bytes_factor, usd, estimated_usd, billed_factor, rows_confidence, confidence"
                    " FROM run WHERE source = ? AND place = ? AND status = 'finished'"
                    " ORDER BY started DESC LIMIT ?",
                    (source, place, _LEARNT_RUNS),
                ).fetchall()
        except (sqlite3.Error, OSError):
            return Learned()
        return Learned.of(_observation(*row) for row in rows)

    def runs(self, limit: int) -> list[Run]:
        """The newest runs first.

        :raises OSError: where the file cannot be read.
        """
        if not self.file.exists():
            return []
        try:
            with self._opened() as connection:
                rows = connection.execute(
                    f"SELECT {', '.join(_COLUMNS)} FROM run WHERE query IN"
                    " (SELECT query FROM run GROUP BY query ORDER BY max(started) DESC LIMIT ?)"
                    " ORDER BY started DESC, query, fragment",
                    (limit,),
                ).fetchall()
        except sqlite3.Error as error:
            raise OSError(f"{self.file}: {error}") from None
        return [Run(*row) for row in rows]

    # --- the file ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The file, for one thread at a time; opened when it is first needed."""
        with self._using:
            # A connection does not survive a fork: the child opens its own.
            if self._connection is None or self._owner != os.getpid():
                self._connection, self._owner = _open(self.file), os.getpid()
            yield self._connection

    def close(self) -> None:
        """Writes what is waiting and closes the file; it is opened again when it is needed."""
        self.flush()
        with self._using:
            if self._connection is not None and self._owner == os.getpid():
                self._connection.close()
            self._connection = None


def _open(file: Path) -> sqlite3.Connection:
    """The file, made where it is missing.

    Several processes may do so at once, and while one changes the journal's mode SQLite refuses the
    others without waiting.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            return _open_once(file)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _open_once(file: Path) -> sqlite3.Connection:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = not file.exists()
    connection = sqlite3.connect(
        file, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        if new:
            # It says what somebody asked for: for that person alone.
            os.chmod(file, 0o600)
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise sqlite3.DatabaseError(f"it is of a newer version ({version})")
        if version < _VERSION:
            with _transaction(connection):
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _flush_at_exit(history: weakref.ref[History]) -> None:
    held = history()
    if held is not None:
        held.close()


def _spent(connection: sqlite3.Connection, source: str, place: str, besides: str = "") -> float:
    (usd,) = connection.execute(
        "SELECT coalesce(sum(coalesce(usd, estimated_usd)), 0.0) FROM run"
        " WHERE source = ? AND place = ? AND started >= ? AND query <> ?",
        (source, place, month_start().timestamp(), besides),
    ).fetchone()
    return float(usd)


def month_start(now: datetime | None = None) -> datetime:
    """The first moment of the calendar month, UTC."""
    moment = now or datetime.now(UTC)
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _prune(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM run WHERE started < ?", (time.time() - KEPT_DAYS * 86400,))
    connection.execute(
        "DELETE FROM run WHERE started < (SELECT started FROM run ORDER BY started DESC"
        " LIMIT 1 OFFSET ?)",
        (KEPT_ROWS,),
    )


def _observation(shape: str, *figures: Any) -> Observation:
    rows, est_rows, rows_f, bytes_, est_bytes, bytes_f, usd, est_usd, usd_f, sure, cost = figures
    return Observation(
        shape,
        rows=ratio(rows, _raw(est_rows, rows_f)) if sure == "estimated" else None,
        bytes=ratio(bytes_, _raw(est_bytes, bytes_f)) if sure == "estimated" else None,
        billed=ratio_of_usd(usd, _raw(est_usd, usd_f)) if cost == "estimated" else None,
    )


def _raw(estimated: float | None, factor: float | None) -> float | None:
    """The estimate as the source gave it: a factor must not learn from itself."""
    return estimated / (factor or 1.0) if estimated is not None else None


# --- SQL without what it is about --------------------------------------------------------------


def without_constants(sql: str, dialect: str = "duckdb") -> str:
    """A statement with ``?`` for each constant and without comments, for the history.

    Constants may be personal, or secret; a text that cannot be split is left out altogether.
    """
    try:
        tokens = tokenize(sql, read=dialect)
    except SqlglotError:
        return "(not readable)"
    parts: list[str] = []
    end = -1
    for token in tokens:
        if token.start > end + 1 and parts:
            parts.append(" ")
        end = token.end
        kind = token.token_type
        constant = kind == TokenType.NUMBER or "STRING" in kind.name
        parts.append("?" if constant else sql[token.start : token.end + 1])
    return "".join(parts)[:_SQL_CHARACTERS]


def digest(text: str) -> str:
    """A short hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
