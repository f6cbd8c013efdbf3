"""One attempt at a placed plan: its fragments are fetched, each source in one state.

Where what arrives shows that the plan was misjudged, the attempt ends with ``RunsAway`` or
``Misjudged``; the next one is another ``Execution``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from batuta_sql.catalog.local_objects import SPILLED
from batuta_sql.costing import QueryCost
from batuta_sql.engines.duckdb import quote
from batuta_sql.engines.local_relations import LocalRelation, with_local_relations
from batuta_sql.exchange.fetch import Fetch, FetchMetrics, Misjudged, Prefetch, Stop
from batuta_sql.exchange.gather import Gathered, Gathering
from batuta_sql.exchange.keys import with_keys
from batuta_sql.exchange.result_cache import Kept, KeptSnapshot
from batuta_sql.exchange.wire import decoders, restoring
from batuta_sql.plan.cardinality import times_off
from batuta_sql.plan.fragments import Fragment
from batuta_sql.plan.placement import KnownRows, Placed, with_key_filters
from batuta_sql.plan.relational import Apply, CommonScan, Exchange, Relation, With
from batuta_sql.plan.rules.key_filters import Keyed
from batuta_sql.plan.unparse import Delivery
from batuta_sql.session import Session
from batuta_sql.sources.base import Snapshot, SourceEstimate, Usage
from batuta_sql.watching import NOT_WATCHED, QueryWatch

if TYPE_CHECKING:
    import pyarrow.dataset as ds

PREFETCH_BYTES = 32 << 20
"""How far a streamed fragment runs ahead of its consumer."""

_CLOSE_SECONDS = 5.0

_GIVES_WAY_AFTER = 5.0
"""Seconds: a question that somebody waits for is soon over, and slows nobody down for long."""

_FAR_OFF = 10.0
_WORTH_BEGINNING_AGAIN = 200_000
"""Rows that need not be moved then; fewer arrive sooner than another statement is sent."""

StageEarly = Callable[[str, duckdb.DuckDBPyRelation], "ds.Dataset | None"]
"""Stores a delivery; None where it does not, and then nothing has been read of it."""

Permit = Callable[[Placed], Placed]
"""Takes the key filters away that may not be."""


@dataclass
class FragmentRun:
    """A fragment and what it took; None before the run.

    :param usage: what its source billed.
    :param keys: how many keys were sent with it; None where it was sent as it is.
    :param connections: how many read it at once.
    :param age: seconds since the source was asked, of a result that was kept; None where it was
        asked now.
    :param rested: seconds in which nothing was read so that the source could serve others.
    :param began: seconds after the first fragment of the query.
    :param first: seconds from its own start until rows came; None where none did.
    """

    fragment: Fragment
    rows: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    usage: Usage | None = None
    keys: int | None = None
    connections: int = 1
    age: float | None = None
    rested: float = 0.0
    began: float | None = None
    first: float | None = None


class Execution:
    """The fragments of one query, once.

    :param placed: what is run; None for a text that the residual engine runs over scans.
    :param cursor: the query's own, on which what arrives is registered.
    :param name: unique among all executions of the engine.
    :param last: whether no other attempt may follow.
    :param watch: what hears of the fetches.
    :param local: rows that go with the statements, by the fragments that they were.
    """

    def __init__(
        self,
        session: Session,
        placed: Placed | None,
        cursor: duckdb.DuckDBPyConnection,
        cost: QueryCost,
        stop: Stop,
        permit: Permit,
        name: str,
        *,
        last: bool = False,
        watch: QueryWatch = NOT_WATCHED,
        local: Mapping[str, LocalRelation] = MappingProxyType({}),
    ) -> None:
        self._local = local
        self.session = session
        self.placed = placed
        self.stop = stop
        self.runs = [FragmentRun(f) for f in placed.fragments] if placed is not None else []
        self.fetches: list[Fetch] = []
        self.reads_in_splits = False
        """Whether nobody knows how many statements there will be."""
        self.known: KnownRows = {}
        """Rows that statements gave, which nobody would have thought."""
        self._cursor = cursor
        self._cost = cost
        self._permit = permit
        self._name = name
        self._last = last
        self._watch = watch
        self._snapshots: dict[str, Snapshot] = {}
        self._lock = threading.Lock()
        self._prefetches: list[Prefetch] = []
        self._kept: dict[str, Kept] = {}
        self._spilled: list[str] = []
        self.not_fetched: frozenset[str] = frozenset()
        """The fragments whose tables another engine reads itself."""
        self._staged: dict[str, ds.Dataset] = {}
        self.stage_early: StageEarly | None = None
        """Takes what is too large for memory, where another engine is thought to join it."""

    # --- before --------------------------------------------------------------------------------

    def to_be_asked(self) -> list[Fragment]:
        """The fragments whose results are not here already."""
        for run in self.runs:
            waits = self.placed is not None and run.fragment.name in self.placed.keyed
            kept = None if waits else self.session.results.get(run.fragment)
            if kept is not None:
                self._kept[run.fragment.name] = kept
        return [r.fragment for r in self.runs if r.fragment.name not in self._kept]

    @property
    def may_be_repeated(self) -> bool:
        """Never where what is asked again would be billed again."""
        settings = self.session.settings.sources
        return not self._last and not any(settings[r.fragment.source].charges for r in self.runs)

    # --- delivering ----------------------------------------------------------------------------

    def deliver(
        self,
        without: frozenset[str] = frozenset(),
        arrived: Mapping[str, Delivery] | None = None,
        *,
        whole: bool = False,
    ) -> dict[str, Delivery]:
        """Fetches the fragments, and makes their rows readable on the cursor.

        :param without: the names of those that are not fetched; nobody waits for their keys.
        :param arrived: those that are here already.
        :param whole: whether all must be here before any is read.
        :raises Error: the first failure.
        :raises RunsAway: for a fragment that takes far longer than another way would.
        :raises Misjudged: where other statements are to be sent.
        """
        assert self.placed is not None
        here = dict(arrived or {})
        waiting = [f for f in self.placed.fragments if f.name not in without | here.keys()]
        self.not_fetched = without
        alone = len(self.placed.fragments) == len(waiting) == 1
        if alone and not whole and _read_once(self.placed.plan):
            return self._streamed(waiting[0])
        limit = max(8 << 20, min(128 << 20, self.session.engine.memory_limit_bytes() // 16))
        gathering = Gathering(self.stop, self._spill, limit)
        try:
            return self._gathered(gathering, waiting, here)
        except BaseException as error:
            gathering.end(error)
            raise

    def _streamed(self, fragment: Fragment) -> dict[str, Delivery]:
        """One fragment that the residual reads once, while it arrives."""
        prefetch = self.prefetch(self.fetch(self._with_keys(fragment, {})))
        stream = prefetch.reader()
        self._cursor.register(fragment.name, stream)
        decode = decoders(stream.schema, fragment.columns)
        return {fragment.name: Delivery((fragment.name,), decode)}

    def _gathered(
        self, gathering: Gathering, waiting: list[Fragment], deliveries: dict[str, Delivery]
    ) -> dict[str, Delivery]:
        """
        :param deliveries: what is here; the others are put there too.
        """
        while True:
            for fragment in [f for f in waiting if self._is_ready(f, deliveries)]:
                waiting.remove(fragment)
                gathering.start(self.fetch(self._with_keys(fragment, deliveries)))
            if not gathering.running:
                return deliveries
            gathered = gathering.next()
            deliveries[gathered.fragment.name] = self._registered(gathered)
            self._look_again(gathered.fragment, deliveries, waiting)

    def _registered(self, gathered: Gathered) -> Delivery:
        name = gathered.fragment.name
        staged = self._staged.get(name)
        if staged is not None:
            self._cursor.register(name, staged)
            return Delivery((name,), {})
        if gathered.table is not None:
            self._cursor.register(name, gathered.table)
        table = name if gathered.table is not None else self._spill_name(name)
        return Delivery((table,), decoders(gathered.schema, gathered.fragment.columns))

    def _is_ready(self, fragment: Fragment, arrived: Mapping[str, Delivery]) -> bool:
        """Whether all keys that a fragment waits for can be known."""
        keyed = self._keyed(fragment)
        return keyed is None or all(f.exchanges <= arrived.keys() for f in keyed.filters)

    def _keyed(self, fragment: Fragment) -> Keyed | None:
        """The keys that a fragment waits for; None: it waits for none."""
        keyed = self.placed.keyed.get(fragment.name) if self.placed is not None else None
        if keyed is not None and any(f.exchanges & self.not_fetched for f in keyed.filters):
            return None
        return keyed

    def _with_keys(self, fragment: Fragment, deliveries: Mapping[str, Delivery]) -> Reduced:
        """A fragment with the keys that it has waited for."""
        keyed = self._keyed(fragment)
        if keyed is None:
            return Reduced(fragment, fragment)
        translator = self.session.sources[fragment.source].capabilities.translator
        reduced = with_keys(fragment, keyed, deliveries, self._cursor, translator)
        return Reduced(fragment, *reduced) if reduced is not None else Reduced(fragment, fragment)

    # --- fetching ------------------------------------------------------------------------------

    def fetch(self, wanted: Fragment | Reduced) -> Fetch:
        """A fragment to be run: a scan of the fallback, or one of the plan."""
        reduced = wanted if isinstance(wanted, Reduced) else Reduced(wanted, wanted)
        fragment = reduced.sent
        if self._local:
            fragment = replace(fragment, sql=with_local_relations(fragment.sql, self._local))
        source = self.session.sources[fragment.source]
        kept = self._kept.get(fragment.name) or self.session.results.get(fragment)
        if kept is not None:
            fetch = Fetch(fragment, KeptSnapshot(kept), self.stop, watch=self._watch.fetch())
            fetch.metrics.age = kept.age
        else:
            fetch = Fetch(
                fragment,
                self.session.results.keeping(fragment, self.snapshot(fragment.source)),
                self.stop,
                source.query_timeout,
                self._cost.authorised_bytes(fragment),
                self.degree(fragment),
                self._patience(reduced.asked),
                self.session.governor(fragment.source),
                0.0 if self.reads_in_splits else _GIVES_WAY_AFTER,
                self._watch.fetch(),
            )
            # With keys it is another statement than the one that the source is asked about.
            told = fetch.told if reduced.keys is None else _not_about_it
            self._cost.ask_beside(reduced.asked, fetch.sent, told)
        fetch.metrics.keys = reduced.keys
        self.fetches.append(fetch)
        return fetch

    def prefetch(self, fetch: Fetch) -> Prefetch:
        """Reads a fragment ahead of its consumer."""
        prefetch = Prefetch(fetch, PREFETCH_BYTES)
        self._prefetches.append(prefetch)
        return prefetch

    def _patience(self, fragment: Fragment) -> float | None:
        """After how many seconds a fragment is given up; None: never."""
        least = self.session.settings.runaway_seconds
        if not least or fragment.patience is None or not self.may_be_repeated:
            return None
        return max(least, fragment.patience)

    def degree(self, fragment: Fragment) -> int:
        """How many connections may read a fragment at once."""
        mine = len(self._asked_of(fragment.source))
        settings = self.session.settings
        rates = self.session.rates.get(fragment.source)
        measured = rates.degree if rates is not None else None
        most = measured or settings.threads or os.cpu_count() or 1
        connections = settings.sources[fragment.source].max_connections // max(mine, 1)
        return min(connections, most, self.session.governor(fragment.source).readers)

    def _asked_of(self, source: str) -> list[Fragment]:
        """The fragments that a source will run."""
        mine = [r.fragment for r in self.runs if r.fragment.source == source]
        return [f for f in mine if f.name not in self._kept]

    def snapshot(self, source: str) -> Snapshot:
        """The one view of a source that all fragments have."""
        with self._lock:
            found = self._snapshots.get(source)
            if found is None:
                mine = self._asked_of(source)
                scans = self.placed is None or bool(self.placed.fallbacks)
                # The fallback scans when and as often as DuckDB asks.
                scans = scans or self.reads_in_splits
                parts = [len(f.parts(self.degree(f))) or 1 for f in mine]
                readers = None if scans else max(sum(parts), 1)
                found = self.session.sources[source].open(readers)
                self._snapshots[source] = found
            return found

    def _spill_name(self, name: str) -> str:
        return f"{SPILLED}{self._name}:{name}"

    def _spill(self, name: str, reader: pa.RecordBatchReader) -> None:
        with self.session.engine.cursor() as cursor:
            cursor.register("arrived", reader)
            if self.stage_early is not None and self._stage_early(cursor, name, reader.schema):
                return
            table = self._spill_name(name)
            self._spilled.append(table)
            cursor.execute(f"CREATE TABLE {quote(table)} AS SELECT * FROM arrived")

    def _stage_early(self, cursor: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema) -> bool:
        """Gives what arrives to the engine that is thought to join it; whether it takes it."""
        assert self.placed is not None
        assert self.stage_early is not None
        (fragment,) = [f for f in self.placed.fragments if f.name == name]
        decode = decoders(schema, fragment.columns)
        columns = restoring(decode, ((s, s) for s, _ in fragment.columns))
        dataset = self.stage_early(name, cursor.sql(f"SELECT {columns} FROM arrived"))
        if dataset is None:
            return False
        self._staged[name] = dataset
        return True

    # --- what arrives is not what was thought --------------------------------------------------

    def _look_again(
        self, arrived: Fragment, deliveries: Mapping[str, Delivery], waiting: Sequence[Fragment]
    ) -> None:
        """Chooses keys by the true numbers, where a fragment had far more or fewer rows.

        :raises Misjudged: where that is worth sending other statements for what runs already.
        """
        placed = self.placed
        assert placed is not None
        rows = {f.fragment.name: f.metrics.rows for f in self.fetches}
        if self._last or arrived.name in placed.keyed or not _is_far_off(arrived, rows):
            return
        known = {n: float(rows[n]) for n in deliveries if n not in placed.keyed}
        better = self._permit(
            with_key_filters(
                placed,
                self.session.capabilities,
                self.session.worth,
                known,
                frozenset(deliveries),
            )
        )
        here = deliveries.keys() | self.not_fetched
        running = [f for f in placed.fragments if f not in waiting and f.name not in here]
        misjudged = any(_is_better(better, f, rows.get(f.name, 0)) for f in running)
        if misjudged and self.may_be_repeated:
            by_name = {f.name: f for f in placed.fragments}
            self.known = {(by_name[n].source, by_name[n].sql): r for n, r in known.items()}
            raise Misjudged
        names = {f.name for f in waiting}
        begun = {n: k for n, k in placed.keyed.items() if n not in names}
        still = {n: k for n, k in better.keyed.items() if n in names}
        self.placed = replace(better, keyed=begun | still)

    # --- the end -------------------------------------------------------------------------------

    def record_metrics(self) -> None:
        """Copies what the fetches measured into the fragments' runs."""
        taken = self.taken()
        began = self._began()
        for run in self.runs:
            metrics = taken.get(run.fragment.name)
            if metrics is not None:
                run.rows, run.bytes = metrics.rows, metrics.bytes
                run.seconds, run.usage = metrics.seconds, metrics.usage
                run.keys, run.connections = metrics.keys, metrics.connections
                run.age, run.rested = metrics.age, metrics.rested
                run.began, run.first = began[run.fragment.name], metrics.first

    def _began(self) -> dict[str, float]:
        """When each fragment was sent, in seconds after the first."""
        first = min((f.started for f in self.fetches), default=0.0)
        return {f.fragment.name: f.started - first for f in reversed(self.fetches)}

    def taken(self) -> dict[str, FetchMetrics]:
        """What each fragment took, by name; of one that was read in splits, all of them."""
        found: dict[str, FetchMetrics] = {}
        for fetch in self.fetches:
            before = found.get(fetch.fragment.name)
            metrics = fetch.metrics
            if before is not None and self.reads_in_splits:
                metrics = before.with_another(metrics)
            found[fetch.fragment.name] = metrics
        return found

    def cancel(self) -> None:
        """Ends the remote statements, from any thread."""
        for snapshot in list(self._snapshots.values()):
            snapshot.cancel()

    def see_with(self, other: Execution) -> None:
        """Reads what ``other`` reads, each source in the state that it sees."""
        self.reads_in_splits = other.reads_in_splits = True
        self._snapshots = other._snapshots

    def release(self) -> None:
        """Ends what still runs, and gives the connections back."""
        for prefetch in self._prefetches:
            prefetch.abandon()
        while self._snapshots:
            _, snapshot = self._snapshots.popitem()
            snapshot.close()
        for prefetch in self._prefetches:
            prefetch.join(_CLOSE_SECONDS)

    def drop_spilled(self) -> None:
        while self._spilled:
            self._cursor.execute(f"DROP TABLE IF EXISTS {quote(self._spilled[-1])}")
            self._spilled.pop()


@dataclass(frozen=True)
class Reduced:
    """A fragment as it is in the plan, and as it is sent.

    :param keys: how many keys it is sent with; None where it is sent as it is.
    """

    asked: Fragment
    sent: Fragment
    keys: int | None = None


def _not_about_it(estimate: SourceEstimate) -> None:
    return


def _is_far_off(fragment: Fragment, rows: Mapping[str, int]) -> bool:
    """Whether a fragment had far more or far fewer rows than it was thought to have."""
    if fragment.rows is None:
        return False
    return times_off(fragment.rows, rows[fragment.name]) >= _FAR_OFF


def _is_better(better: Placed, running: Fragment, so_far: int) -> bool:
    """Whether a fragment that runs would have far fewer rows left if it were sent with keys."""
    keyed = better.keyed.get(running.name)
    if keyed is None or running.rows is None:
        return False
    left = running.rows - so_far
    return left - keyed.rows >= _WORTH_BEGINNING_AGAIN and keyed.rows <= left / _FAR_OFF


def _read_once(plan: Relation) -> bool:
    """Whether the one Exchange of ``plan`` is scanned exactly once, so that it may be a stream."""
    return not any(isinstance(n, Apply | With | CommonScan) for n in plan.walk()) and (
        sum(isinstance(n, Exchange) for n in plan.walk()) == 1
    )
