"""Cost before the run and after it: asks the sources, prices, lets the guard decide, writes down.

``Costing`` belongs to a Connection, ``QueryCost`` to one query. Sources that charge are asked
before anything is sent; the others while the fragments run, so that nobody waits for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cachetools import TTLCache

from batuta_sql.config import CostSettings
from batuta_sql.errors import CostRefused, Error, QueryCancelled
from batuta_sql.exchange.fetch import FetchMetrics, Stop, fragment_query
from batuta_sql.guards import pricing as prices
from batuta_sql.guards.cost import Budget, Confirm, CostGuard
from batuta_sql.guards.history import History, Run, Status, digest, without_constants
from batuta_sql.guards.learning import Correction, Learned
from batuta_sql.plan.cost import Estimate, total
from batuta_sql.plan.fragments import Fragment
from batuta_sql.secrets import Secret
from batuta_sql.source_settings import PricingSettings, SourceSettings
from batuta_sql.sources.base import Source, SourceEstimate
from batuta_sql.workers import Workers

_BEGUN_SECONDS = 5.0
_WORKERS = 8
_LEARN_SECONDS = 60.0
_RECENT_SECONDS = 10.0
_MOST_RECENT = 256
_WAIT_SECONDS = 5.0
"""How long the history waits for an estimate that was asked for beside the run."""

_CLOSE_SECONDS = 1.0


@dataclass(frozen=True)
class _Asked:
    """A fragment's estimate as its source gave it, corrected; not yet priced."""

    found: SourceEstimate
    correction: Correction
    shape: str


@dataclass(frozen=True)
class EngineRun:
    """What another engine took of a residual.

    :param estimate: what it was thought to take; None where it is free.
    :param bytes: of Arrow data that came back.
    :param usd: the price of its seconds; None where they have none.
    """

    source: str
    estimate: Estimate | None
    rows: int
    bytes: int
    seconds: float
    usd: float | None


class Costing:
    """What all queries of a Connection share of cost: prices, limits, history.

    :param settings: of the sources, by name.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        settings: Mapping[str, SourceSettings],
        cost: CostSettings,
        confirm: Confirm | None = None,
    ) -> None:
        self._sources = sources
        self._settings = settings
        self.settings = cost
        self.guard = CostGuard(cost, confirm)
        file = Path(cost.history_file) if cost.history_file is not None else None
        self.history = History(file) if cost.history else None
        self._workers = Workers(_WORKERS)
        self._learned: dict[str, tuple[float, Learned]] = {}
        self._places: dict[str, str] = {}
        self._lock = threading.Lock()
        self._recent: TTLCache[tuple[str, str], Future[_Asked]] = TTLCache(
            _MOST_RECENT, _RECENT_SECONDS, timer=time.monotonic
        )

    def pricing(self, source: str) -> PricingSettings:
        found = self._settings.get(source)
        return found.pricing if found is not None else PricingSettings()

    def charges(self, source: str) -> bool:
        found = self._settings.get(source)
        return found is not None and found.charges

    # --- asking --------------------------------------------------------------------------------

    def ask(self, fragment: Fragment, after: threading.Event | None = None) -> Future[_Asked]:
        """Asks a fragment's source, in another thread.

        :param after: what is waited for, a little, before.
        """

        def work() -> _Asked:
            if after is not None:
                after.wait(_BEGUN_SECONDS)
            return self._ask(fragment)

        return self._workers.submit(work)

    def ask_again(self, fragment: Fragment, after: threading.Event) -> Future[_Asked]:
        """``ask``, or what was answered a moment ago: a loop over one statement asks once."""
        key = (fragment.source, fragment.sql)
        with self._lock:
            known = self._recent.get(key)
            if known is None:
                known = self._recent[key] = self.ask(fragment, after)
            return known

    def _ask(self, fragment: Fragment) -> _Asked:
        source = self._sources[fragment.source]
        try:
            found = source.estimate(fragment_query(fragment))
        except Error as error:
            found = SourceEstimate(basis=error.message)
        except Exception as error:
            # A driver's own exception. What cannot be told is unknown; the run will say more.
            found = SourceEstimate(basis=f"no estimate: {type(error).__name__}")
        shape = digest(without_constants(fragment.sql, source.capabilities.dialect))
        found, correction = self._learned_of(fragment.source).correct(found, shape)
        return _Asked(found, correction, shape)

    def _learned_of(self, source: str) -> Learned:
        if self.history is None:
            return Learned()
        known = self._learned.get(source)
        if known is None or time.monotonic() - known[0] > _LEARN_SECONDS:
            known = (time.monotonic(), self.history.learned(source, self.place(source)))
            self._learned[source] = known
        return known[1]

    def priced(self, asked: Sequence[tuple[Fragment, _Asked]]) -> list[Estimate]:
        """The estimates of fragments that run together, in their order."""
        found: dict[int, Estimate] = {}
        for source in dict.fromkeys(f.source for f, _ in asked):
            mine = [i for i, (f, _) in enumerate(asked) if f.source == source]
            given = [asked[i][1].found for i in mine]
            for index, estimate in zip(
                mine,
                prices.price(source, given, self.pricing(source), bills=self.charges(source)),
                strict=True,
            ):
                factor = asked[index][1].correction.rows
                found[index] = replace(estimate, factor=factor.value if factor else None)
        return [found[i] for i in range(len(asked))]

    def estimate(self, fragments: Sequence[Fragment]) -> Estimate:
        """The estimate of fragments that run together; asks all sources at once."""
        waiting = [(f, self.ask(f)) for f in fragments]
        return total(self.priced([(f, w.result()) for f, w in waiting]))

    def patience(self, source: str) -> float | None:
        """Seconds after which a source's estimate is unknown; None: never."""
        return self._sources[source].query_timeout

    # --- the month -----------------------------------------------------------------------------

    def budgets(self, sources: Sequence[str], besides: str = "") -> dict[str, Budget]:
        """The budgets of some sources and what is spent of each.

        :param besides: the id of a query that does not count.
        """
        found: dict[str, Budget] = {}
        for source in dict.fromkeys(sources):
            budget = self.pricing(source).budget_usd
            if budget is None or self.history is None:
                continue
            try:
                found[source] = Budget(
                    budget, self.history.spent(source, self.place(source), besides)
                )
            except OSError as error:
                found[source] = Budget(budget, None, f"the history: {error}")
        return found

    def place(self, source: str) -> str:
        """Which system a source's name stands for: another project's "lake" is another lake."""
        known = self._places.get(source)
        if known is None:
            known = self._places[source] = place_of(self._settings.get(source))
        return known

    def judged(self, estimate: Estimate) -> Estimate:
        """The estimate with what the limits say to it; nobody is asked, and nothing refused."""
        budgets = self.budgets([p.source for p in estimate.priced_parts()])
        return replace(estimate, reasons=self.guard.judge(estimate, budgets).reasons)

    def close(self) -> None:
        """Waits a little for what is asked, and writes the history."""
        self._workers.close(_CLOSE_SECONDS)
        if self.history is not None:
            self.history.close()


class QueryCost:
    """One query's estimates, its permission to run, and what is written of it afterwards."""

    def __init__(self, costing: Costing, sql: str, stop: Stop) -> None:
        self._costing = costing
        self._sql = sql
        self._stop = stop
        self._id = uuid.uuid4().hex
        self._started: float | None = None
        self._asked: dict[str, Future[_Asked]] = {}
        self._authorised: Estimate | None = None
        self._sent: list[Fragment] = []
        self._lock = threading.Lock()

    # --- before --------------------------------------------------------------------------------

    def authorise(
        self,
        fragments: Sequence[Fragment],
        foreseen: Sequence[Fragment],
        besides: Sequence[Estimate] = (),
    ) -> None:
        """Returns if the query may run.

        :param fragments: what will be sent.
        :param foreseen: the scans of a fallback, at the most.
        :param besides: what else the query costs: another engine.
        :raises CostRefused: before anything was sent.
        """
        costing = self._costing
        charging = [f for f in (*fragments, *foreseen) if costing.charges(f.source)]
        for fragment in charging:
            self._ask(fragment)
        if charging or besides:
            estimate = self._total(charging, besides)
            budgets = self._permit(estimate)
            self._reserve(fragments, budgets)
            self._sent += [f for f in fragments if f in charging]
        self._started = time.time()

    def ask_beside(
        self,
        fragment: Fragment,
        sent: threading.Event,
        told: Callable[[SourceEstimate], None] = lambda found: None,
    ) -> None:
        """Asks a source that does not charge while it runs a fragment; nobody waits.

        :param sent: set when the statement has its connection: the run comes first.
        :param told: called with the answer.
        """
        costing = self._costing
        if costing.settings.estimate == "always" and fragment.name not in self._asked:
            asked = self._asked[fragment.name] = costing.ask_again(fragment, sent)
            asked.add_done_callback(lambda a: None if a.cancelled() else told(a.result().found))

    def begin_again(self) -> None:
        """Forgets what was asked: other fragments will have the names of the first ones."""
        self._asked = {}

    def authorise_scan(self, fragment: Fragment) -> None:
        """Returns if a fallback may read a table; most was permitted with the query.

        :raises CostRefused: before this scan was sent.
        """
        costing = self._costing
        if not costing.charges(fragment.source):
            return
        with self._lock:
            so_far = [*self._sent, fragment]
            for each in so_far:
                self._ask(each)
            estimate = self._total(so_far)
            if self._authorised is None or not _covers(self._authorised, estimate):
                # More than was foreseen: a table is read several times, or only described.
                self._permit(estimate)
            self._reserve([fragment], costing.budgets([fragment.source], besides=self._id))
            self._sent.append(fragment)
            self._started = self._started or time.time()

    def authorised_bytes(self, fragment: Fragment) -> float | None:
        """Bytes that an authorised fragment may bill: its exact estimate; None where there is none.

        What was permitted is the price of these bytes, so a run that would bill more is another.
        """
        asked = self._asked.get(fragment.name)
        if asked is None or not asked.done() or not self._costing.charges(fragment.source):
            return None
        found = asked.result().found
        return found.bytes_billed if found.confidence == "exact" else None

    def _permit(self, estimate: Estimate) -> dict[str, Budget]:
        """Asks the guard; gives the budgets that it looked at."""
        costing = self._costing
        sources = [p.source for p in estimate.priced_parts()]
        budgets = costing.budgets(sources, besides=self._id)
        costing.guard.authorise(estimate, budgets)
        self._authorised = estimate
        return budgets

    def _reserve(self, fragments: Sequence[Fragment], budgets: Mapping[str, Budget]) -> None:
        known = {s: b.usd for s, b in budgets.items() if b.spent is not None}
        if not known or self._costing.history is None:
            return
        runs = self._runs([(f, None, "running") for f in fragments if f.source in known])
        limits = {(s, self._costing.place(s)): usd for s, usd in known.items()}
        try:
            source = self._costing.history.reserve(runs, limits)
        except OSError as error:
            raise CostRefused(
                f"refused, nothing was sent: the history that keeps the budget: {error}",
                hint="free the history file, or remove budget_usd",
            ) from None
        if source is not None:
            raise CostRefused(
                f"refused, nothing was sent: another query has spent what was left of the month's"
                f" budget_usd of ${known[source]:g}",
                source=source,
                hint=f"raise sources.{source}.pricing.budget_usd",
            )

    def _ask(self, fragment: Fragment) -> Future[_Asked]:
        found = self._asked.get(fragment.name)
        if found is None:
            found = self._asked[fragment.name] = self._costing.ask(fragment)
        return found

    def _answer(self, fragment: Fragment) -> _Asked:
        """What the source said; unknown where it does not answer in its time.

        :raises QueryCancelled: when the query is cancelled meanwhile.
        """
        future = self._ask(fragment)
        limit = self._costing.patience(fragment.source)
        deadline = time.monotonic() + limit if limit is not None else None
        while not self._stop:
            try:
                return future.result(0.1)
            except TimeoutError:
                if deadline is not None and time.monotonic() > deadline:
                    basis = f"no estimate within {limit:g} s"
                    return _Asked(SourceEstimate(basis=basis), Correction(), "")
        raise QueryCancelled("the query was cancelled", source=fragment.source)

    def _total(self, fragments: Sequence[Fragment], besides: Sequence[Estimate] = ()) -> Estimate:
        asked = [(f, self._answer(f)) for f in fragments]
        return total([*self._costing.priced(asked), *besides])

    def estimates(self, fragments: Sequence[Fragment]) -> list[Estimate]:
        """The estimates of fragments, asked for now where they were not before."""
        waiting = [(f, self._ask(f)) for f in fragments]
        return self._costing.priced([(f, w.result()) for f, w in waiting])

    # --- after ---------------------------------------------------------------------------------

    def finish(
        self,
        took: Sequence[tuple[Fragment, FetchMetrics | None]],
        status: Status,
        engine: EngineRun | None = None,
    ) -> None:
        """Writes down what the fragments took, and another engine; estimates that are still asked
        for are waited for by the thread that writes.
        """
        history = self._costing.history
        if history is None or self._started is None or not (took or engine):
            return
        facts = [(f, m, _status(m, status)) for f, m in took]
        besides = [self._run_of(engine, status)] if engine is not None else []
        history.add(lambda: [*self._runs(facts), *besides])

    def _run_of(self, engine: EngineRun, status: Status) -> Run:
        text, estimate = without_constants(self._sql), engine.estimate
        return Run(
            query=self._id,
            fragment="engine",
            started=self._started or time.time(),
            sql=text,
            sql_hash=digest(text),
            source=engine.source,
            place="",
            shape="",
            status=status,
            estimated_usd=estimate.usd if estimate is not None else None,
            estimated_scanned=estimate.bytes_scanned if estimate is not None else None,
            confidence=estimate.confidence if estimate is not None else "unknown",
            basis=estimate.basis if estimate is not None else "",
            rows=engine.rows,
            bytes=engine.bytes,
            seconds=engine.seconds,
            usd=engine.usd,
        )

    def _runs(self, facts: Sequence[tuple[Fragment, FetchMetrics | None, Status]]) -> list[Run]:
        costing = self._costing
        text = without_constants(self._sql)
        asked: list[tuple[Fragment, _Asked]] = []
        for fragment, _, _ in facts:
            waiting = self._asked.get(fragment.name)
            nothing = _Asked(SourceEstimate(basis="not asked"), Correction(), "")
            try:
                found = waiting.result(_WAIT_SECONDS) if waiting is not None else nothing
            except Exception:
                found = nothing
            asked.append((fragment, found))
        estimates = costing.priced(asked)
        runs: list[Run] = []
        for (fragment, metrics, status), (_, found), estimate in zip(
            facts, asked, estimates, strict=True
        ):
            usage = metrics.usage if metrics is not None else None
            pricing = costing.pricing(fragment.source)
            delivered = metrics.bytes if metrics is not None else None
            correction = found.correction
            runs.append(
                Run(
                    query=self._id,
                    fragment=fragment.name,
                    started=self._started or time.time(),
                    sql=text,
                    sql_hash=digest(text),
                    source=fragment.source,
                    place=costing.place(fragment.source),
                    # With keys it is another statement than the one that was estimated.
                    shape=found.shape if metrics is None or metrics.keys is None else "",
                    status=status,
                    estimated_rows=estimate.rows,
                    estimated_bytes=estimate.bytes_delivered,
                    estimated_scanned=estimate.bytes_scanned,
                    estimated_usd=estimate.usd,
                    confidence=estimate.confidence,
                    rows_confidence=estimate.rows_confidence,
                    # Of an unknown one it may be an error that quotes a constant of the query.
                    basis=estimate.basis if found.found.confidence != "unknown" else "",
                    rows_factor=correction.rows.value if correction.rows else None,
                    bytes_factor=correction.bytes.value if correction.bytes else None,
                    billed_factor=correction.billed.value if correction.billed else None,
                    rows=metrics.rows if metrics is not None else None,
                    bytes=delivered,
                    seconds=metrics.seconds if metrics is not None else None,
                    billed_bytes=usage.bytes if usage is not None else None,
                    billed_credits=usage.credits if usage is not None else None,
                    billed_dbus=usage.dbus if usage is not None else None,
                    usd=prices.billed(usage, delivered, pricing) if usage is not None else None,
                )
            )
        return runs


def _status(metrics: FetchMetrics | None, query: Status) -> Status:
    """A fragment's own: one that was read to its end has finished, whatever came after it."""
    if metrics is not None and metrics.finished:
        return "finished"
    return "partial" if query == "finished" else query


def _covers(permitted: Estimate, wanted: Estimate) -> bool:
    """Whether what was permitted includes what is wanted now."""
    if wanted.missing and not permitted.missing:
        return False
    return (wanted.usd or 0.0) <= (permitted.usd or 0.0)


# --- which system ------------------------------------------------------------------------------

_PLACE_KEYS = (
    "host", "port", "database", "path", "account", "warehouse", "http_path", "warehouse_id",
    "project", "location", "catalog", "region", "repo", "endpoint",
)  # fmt: skip


def place_of(settings: SourceSettings | None) -> str:
    """A hash of where a source is; no secret goes into it."""
    if settings is None:
        return ""
    parts: list[str] = [str(getattr(settings, "kind", ""))]
    for key in _PLACE_KEYS:
        value: Any = getattr(settings, key, None)
        if value is None or isinstance(value, Secret):
            continue
        local = key == "path" and "://" not in str(value)
        parts.append(f"{key}={Path(str(value)).absolute() if local else value}")
    uri: Any = getattr(settings, "uri", None)
    if uri is not None:
        with contextlib.suppress(Error, ValueError):
            url = urllib.parse.urlsplit(uri.reveal())
            parts.append(f"uri={url.hostname}:{url.port}{url.path}")
    tables = getattr(settings, "tables", {})
    parts += [f"{n}={t.path}" for n, t in sorted(tables.items()) if t.path is not None]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
