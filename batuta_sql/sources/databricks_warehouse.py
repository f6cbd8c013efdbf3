"""A SQL warehouse: whether it runs, how large it is, and what it is guessed to take."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cachetools import TTLCache

from batuta_sql.errors import Error, OperationalError
from batuta_sql.plan.site import Statistics
from batuta_sql.plan.translate import quoted_table
from batuta_sql.sources.base import FragmentQuery, Load, SourceEstimate, Usage
from batuta_sql.sources.databricks_catalog import path_of
from batuta_sql.sources.databricks_rest import Workspace
from batuta_sql.sources.databricks_statements import Statement
from batuta_sql.sources.refusals import Queue
from batuta_sql.sources.sizes import delivered_bytes, known_rows, parsed

_BELIEVED_SECONDS = 15.0
_SIZES_BELIEVED_SECONDS = 60.0
_METADATA_SECONDS = 10.0
_WITHOUT_SIZES = frozenset({"VIEW", "METRIC_VIEW", "FOREIGN"})
_SECONDS_OF_A_STATEMENT = 1.0
BYTES_PER_SECOND_OF_A_WORKER = 100e6
"""A guess at what one worker reads of a Delta table; past runs correct it (``guards.learning``)."""

_WORKERS = {
    "2X-Small": 1,
    "X-Small": 2,
    "Small": 4,
    "Medium": 8,
    "Large": 16,
    "X-Large": 32,
    "2X-Large": 64,
    "3X-Large": 128,
    "4X-Large": 256,
}
"""https://docs.databricks.com/compute/sql-warehouse/warehouse-behavior.html"""


@dataclass(frozen=True)
class WarehouseState:
    """:param size: as Databricks spells it; None where it does not tell."""

    running: bool
    size: str | None


class Warehouse:
    """One warehouse of a workspace."""

    def __init__(self, workspace: Workspace, timeout: float | None) -> None:
        self._workspace = workspace
        self._timeout = timeout
        self._queue = Queue(self._waiting)
        self._lock = threading.Lock()
        self._known: tuple[float, WarehouseState] | None = None
        self._sizes: TTLCache[tuple[str, ...], Statistics] = TTLCache(
            4096, _SIZES_BELIEVED_SECONDS, timer=time.monotonic
        )

    def state(self) -> WarehouseState | None:
        """What the workspace tells of it; None where it does not. Starts nothing."""
        with self._lock:
            if self._known is not None and time.monotonic() - self._known[0] < _BELIEVED_SECONDS:
                return self._known[1]
        try:
            told = self._workspace.get(f"/api/2.0/sql/warehouses/{self._workspace.warehouse_id}")
        except OperationalError:
            return None
        state = WarehouseState(told.get("state") == "RUNNING", told.get("cluster_size"))
        with self._lock:
            self._known = (time.monotonic(), state)
        return state

    def load(self) -> Load | None:
        """What answers and the queue say; None where nothing new is known.

        :raises Error: where the workspace cannot be asked.
        """
        refused = self._workspace.refusals.load()
        return refused if refused.health != "healthy" else self._queue.load()

    def _waiting(self) -> int:
        """https://docs.databricks.com/api/workspace/queryhistory/list"""
        params = {
            "filter_by.warehouse_ids": self._workspace.warehouse_id,
            "filter_by.statuses": "QUEUED",
            "max_results": "100",
        }
        told = self._workspace.call(
            "GET", "/api/2.0/sql/history/queries", params=params, attempts=1
        )
        return sum(entry.get("status") == "QUEUED" for entry in told.get("res") or ())

    def row(self, sql: str) -> dict[str, Any]:
        """The first row of a small statement, by column; every value is a text or None."""
        seconds = min(self._timeout or _METADATA_SECONDS, _METADATA_SECONDS)
        body = {"disposition": "INLINE", "format": "JSON_ARRAY", "wait_timeout": "5s"}
        answer = Statement(self._workspace, sql, body, seconds).run()
        columns = ((answer.get("manifest") or {}).get("schema") or {}).get("columns") or ()
        rows = (answer.get("result") or {}).get("data_array") or [[]]
        return dict(zip((c["name"] for c in columns), rows[0], strict=False))

    # --- sizes ---------------------------------------------------------------------------------

    def statistics(self, record: Mapping[str, Any]) -> Statistics:
        """Rows and bytes of a table from its last ANALYZE, else its bytes from its Delta log.

        Asked only of a warehouse that runs: another one would be started, and bill, for it.
        """
        state = self.state()
        if record.get("table_type") in _WITHOUT_SIZES or state is None or not state.running:
            return Statistics()
        path = path_of(record)
        with self._lock:
            known = self._sizes.get(path)
        if known is None:
            known = self._asked(path)
            with self._lock:
                self._sizes[path] = known
        return known

    def _asked(self, path: tuple[str, ...]) -> Statistics:
        name = quoted_table(path).sql("databricks")
        try:
            described = self.row(f"DESCRIBE TABLE EXTENDED {name} AS JSON")
            told = json.loads(described["json_metadata"]).get("statistics") or {}
        except (Error, ValueError, LookupError, TypeError):
            told = {}
        rows, size = _number(told, "num_rows"), _number(told, "size_in_bytes")
        if size is None:
            size = self._detailed(name)
        return Statistics(rows, size)

    def _detailed(self, name: str) -> float | None:
        try:
            return _number(self.row(f"DESCRIBE DETAIL {name}"), "sizeInBytes")
        except Error:
            return None

    # --- estimates -----------------------------------------------------------------------------

    def estimate(self, query: FragmentQuery) -> SourceEstimate:
        """The sizes of the tables, as an upper bound of what is read, and a guess at the time.

        Databricks has no dry run that tells bytes; partitions and files that are skipped, and
        columns that are not read, make the figure smaller.
        """
        state = self.state()
        tree = parsed(query, "databricks")
        rows, rows_confidence = known_rows(query, tree)
        sizes = [t.statistics.bytes for t in query.tables]
        known = [s for s in sizes if s is not None]
        scanned = sum(known) if len(known) == len(sizes) else None
        size = state.size if state is not None else None
        workers = _WORKERS.get(size or "", 1)
        seconds = None
        if scanned is not None:
            rate = BYTES_PER_SECOND_OF_A_WORKER * workers
            seconds = _SECONDS_OF_A_STATEMENT + scanned / rate
        basis = "table sizes, 100 MB/s for each worker" if scanned is not None else _UNKNOWN
        return SourceEstimate(
            rows=rows,
            bytes_scanned=scanned,
            seconds=seconds,
            confidence="estimated" if scanned is not None else "unknown",
            basis=basis,
            bytes_delivered=delivered_bytes(query, rows, tree),
            rows_confidence=rows_confidence,
            warehouse_size=size,
            resumes=not state.running if state is not None else None,
        )

    def usage(self, statement_id: str) -> Usage | None:
        """What the query history tells of a finished statement; None where it does not."""
        params = {"filter_by.statement_ids": statement_id, "include_metrics": "true"}
        try:
            told = self._workspace.call(
                "GET", "/api/2.0/sql/history/queries", params=params, attempts=1
            )
        except Error:
            return None
        for entry in told.get("res") or ():
            if entry.get("query_id") == statement_id:
                metrics = entry.get("metrics") or {}
                milliseconds = _number(metrics, "execution_time_ms")
                return Usage(
                    bytes=_number(metrics, "read_bytes"),
                    seconds=milliseconds / 1000 if milliseconds is not None else None,
                )
        return None


_UNKNOWN = "sizes of the tables are not known: ANALYZE TABLE, and a warehouse that runs, tell them"


def _number(told: Mapping[str, Any], key: str) -> float | None:
    try:
        return float(told[key])
    except (KeyError, TypeError, ValueError):
        return None
