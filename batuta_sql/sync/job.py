"""Copies a table or the result of a query, and goes on where a copy was interrupted.

The order of things, which is what makes each row come once: the splits are planned and written
down; the rows of a split become a file, which is on the disk before the checkpoint says so; when
all splits are committed, the target makes them visible in one step that may be repeated.

A copy that was interrupted does not go on blindly: the state that it read is gone. Each split that
was committed is asked for its version in the state of now; where that is the same, so are its rows,
and where not it is copied again. What is published is one state of the source, never a mixture.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from batuta_sql.engines.duckdb import quote
from batuta_sql.errors import (
    Error,
    NotSupportedError,
    OperationalError,
    QueryCancelled,
    Refused,
)
from batuta_sql.guards.audit import AuditLog
from batuta_sql.labels import KEY
from batuta_sql.planview import Plan, estimate_of
from batuta_sql.query import Query
from batuta_sql.session import Session
from batuta_sql.sync import drift
from batuta_sql.sync.casts import Caster, write_cast
from batuta_sql.sync.checkpoint import (
    Checkpoint,
    CheckpointError,
    CopyRecord,
    SplitRecord,
    lock,
    read_copy,
)
from batuta_sql.sync.copies import last_checkpoint, remember
from batuta_sql.sync.decisions import Decision, Judge
from batuta_sql.sync.division import Division, Rows, Whole, division_of
from batuta_sql.sync.drift import Change, SchemaDrift
from batuta_sql.sync.merge import Merger, Rejected, with_file
from batuta_sql.sync.rejects import Rejects, with_rejects
from batuta_sql.sync.request import (
    Outcome,
    Progress,
    Request,
    SyncResult,
    is_query,
    statement_of,
)
from batuta_sql.sync.schema import (
    Schema,
    from_json,
    schema_of_result,
    schema_of_table,
    to_json,
)
from batuta_sql.sync.staging import digest_of, in_utc, sync_folder, write_split
from batuta_sql.sync.targets.ald import AldTarget
from batuta_sql.sync.targets.base import Publication, Target
from batuta_sql.sync.targets.delta import DeltaTarget
from batuta_sql.sync.targets.duckdb import DuckDBTarget
from batuta_sql.sync.targets.parquet import ParquetTarget
from batuta_sql.watching import Destination, Written

_LOOKS_AGAIN_SECONDS = 5.0
_NO_CASTS: Mapping[str, str] = {}

MakeQuery = Callable[[str], Query]
Watch = Callable[[Progress], None]


def synchronise(
    request: Request,
    make: MakeQuery,
    watch: Watch = lambda progress: None,
    audit: AuditLog | None = None,
) -> SyncResult:
    """Copies, or goes on copying.

    :param make: plans a query.
    :param watch: told of the progress, a few times a second, from several threads.
    :raises SchemaDrift: where the schema has changed and that was not accepted.
    :raises CheckpointError: where the checkpoint is damaged or in use.
    :raises Error: what a source, a guard or the target says.
    """
    with closing(_Job(request, make, watch, audit)) as job:
        return job.run()


def drift_of(origin: str, checkpoint: Path | None, make: MakeQuery) -> tuple[Change, ...]:
    """How a schema differs from that of its last copy.

    :raises CheckpointError: where there is none, or it cannot be read.
    """
    place = checkpoint or last_checkpoint(origin)
    known = read_copy(place) if place is not None else None
    if known is None:
        raise CheckpointError(
            f"no copy of {origin} is known", hint="name the --checkpoint of one, or make one first"
        )
    return drift.changes(from_json(known.schema), schema_now(origin, make))


def schema_now(origin: str, make: MakeQuery) -> Schema:
    """What there is to copy now."""
    with closing(make(statement_of(origin))) as query:
        tables = list(query.names.tables.values())
        if is_query(origin) or len(tables) != 1:
            return schema_of_result(query.result_columns())
        return schema_of_table(tables[0])


@dataclass
class _Work:
    """What is to be done for one copy."""

    copy: CopyRecord
    splits: list[SplitRecord]
    note: str = ""

    @property
    def planned(self) -> list[SplitRecord]:
        return [s for s in self.splits if s.state == "planned"]


@dataclass
class _Job:
    request: Request
    make: MakeQuery
    watch: Watch
    audit: AuditLog | None
    accepted: tuple[Change, ...] = ()
    decision: Decision = field(default_factory=Decision)
    commits: int = 0
    _rejected: int = 0
    again: str = ""
    """Why the last attempt ended; empty in the first."""
    _arrived_schema: pa.Schema | None = None
    _arrow_schema: pa.Schema | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _queries: list[Query] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.target = target_of(self.request)
        self.checkpoint = Checkpoint(self.request.checkpoint_file)
        try:
            # Another copy to the same target may have another checkpoint.
            self._place = lock(self.request.folder / "target")
        except BaseException:
            self.checkpoint.close()
            raise
        self.staging = self.request.folder / "files"
        self.rejects = Rejects(self.request.folder)
        self.judge = Judge(self.request, self.audit)

    def close(self) -> None:
        for query in self._queries:
            query.close()
        self._place.close()
        self.checkpoint.close()

    def run(self) -> SyncResult:
        """Copies; where a source fails, goes on as the next run would, while that gets further."""
        started = time.monotonic()
        failures = 0
        while True:
            commits = self.commits
            try:
                return self._attempt(started)
            except OperationalError as error:
                failures = 0 if self.commits > commits else failures + 1
                if failures > _MOST_FAILURES or not _may_pass(error):
                    raise
                self.again = f"{error.source}: {error.message}"
            while self._queries:
                self._queries.pop().close()
            time.sleep(min(_FIRST_PAUSE * 2**failures, _LONGEST_PAUSE))

    def _attempt(self, started: float) -> SyncResult:
        known = self._known()
        if known is not None and known.state == "publishing":
            self._publish(known)
            known = self.checkpoint.copy
        if known is None or not known.published:
            self.target.check_free()
        schema = schema_now(self.request.origin, self.make)
        self.decision = self.judge.decide(known, schema)
        self.accepted = self.decision.accepted or self.accepted
        skipped = self.decision.skipped
        schema = tuple(c for c in schema if c.name not in skipped)
        columns = [c.name for c in schema] if skipped else []
        query = self._query(statement_of(self.request.origin, columns))
        labels = _labels_of(query, schema)
        if known is not None and known.labels == labels and self._takes_what_is_new(known):
            return self._copy_what_is_new(known, schema, started)
        division = division_of(query)
        if self.request.dry_run:
            return self._foreseen(query, division)
        query.authorise(self.request.place)
        remember(self.request.origin, self.request.checkpoint_file)
        work = self._work(known, division, to_json(schema), labels)
        if work is None:
            return self._result("unchanged", [], started, "nothing has changed since the last copy")
        self.checkpoint.begin(work.copy, work.splits)
        planned = work.planned
        with self._told_of(query, schema):
            self._copy(division, planned, schema)
            self.checkpoint.go_on("publishing")
            assert self.checkpoint.copy is not None
            self._publish(self.checkpoint.copy)
        return self._result("copied", planned, started, work.note)

    @contextmanager
    def _told_of(self, query: Query, schema: Schema) -> Iterator[None]:
        """Those who listen hear of the copy as of a query that is written somewhere."""
        request = self.request
        kind: Literal["duckdb", "file"] = "duckdb" if request.form == "duckdb" else "file"
        copied = statement_of(request.origin)
        query.into = Destination(kind, str(request.place), request.table, copied)
        query.columns = tuple((c.name, c.type) for c in schema)
        query.begin()
        try:
            yield
        except BaseException as error:
            query.fail(error)
            raise
        splits = self.checkpoint.splits.values()
        query.written = Written(sum(s.rows for s in splits), sum(s.bytes for s in splits))

    # --- before --------------------------------------------------------------------------------

    def _known(self) -> CopyRecord | None:
        """What the checkpoint says, if it is of this copy."""
        known = self.checkpoint.copy
        if known is None:
            return None
        request = self.request
        mine = (request.origin, str(request.place), request.form)
        theirs = (known.origin, known.target, known.form)
        if mine != theirs:
            raise CheckpointError(
                f"the checkpoint {request.checkpoint_file} is of another copy: {known.origin}"
                f" to {known.target} as {known.form}",
                hint="name another --checkpoint",
            )
        return known

    def _query(self, sql: str) -> Query:
        query = self.make(sql)
        self._queries.append(query)
        return query

    def _foreseen(self, query: Query, division: Division) -> SyncResult:
        splits = division.foreseen(self.request.split_bytes)
        found = estimate_of(query)
        return SyncResult(
            "planned", self.request.place, int(found.rows or 0), splits=splits, estimate=found
        )

    # --- what there is to do -------------------------------------------------------------------

    def _work(
        self, known: CopyRecord | None, division: Division, schema: str, labels: str
    ) -> _Work | None:
        """The splits of this copy, those that are good already committed; None: nothing to do."""
        request = self.request
        forced = self.decision.forced
        if known is None:
            place = str(request.place)
            copy = CopyRecord(request.origin, place, request.form, schema=schema, labels=labels)
            return _Work(copy, self._named(copy, division.splits(request.split_bytes)))
        finished = known.state == "finished"
        copy = known if not finished else replace(known, number=known.number + 1, state="copying")
        copy = replace(copy, schema=schema, labels=labels, forced=forced)
        before = list(self.checkpoint.splits.values())
        same, note = self._same(known, before, division, copy)
        splits = division.updated(before, same, request.split_bytes) if same else []
        if finished and splits and all(s.state == "committed" for s in splits):
            return None
        if not splits or (finished and not self.target.keeps_files):
            splits, note = division.splits(request.split_bytes), note if not same else ""
        splits = self._named(copy, splits)
        gone = {*known.obsolete, *(s.file for s in before)} - {s.file for s in splits}
        return _Work(replace(copy, obsolete=tuple(sorted(gone))), splits, note)

    def _named(self, copy: CopyRecord, splits: Iterable[SplitRecord]) -> list[SplitRecord]:
        """With a file name for each that has none; none of an earlier copy is used again."""
        return [
            s
            if s.state == "committed"
            else replace(s, file=f"part-{s.number:05}-{copy.number:04}.parquet")
            for s in splits
        ]

    def _same(
        self, known: CopyRecord, before: Sequence[SplitRecord], division: Division, now: CopyRecord
    ) -> tuple[set[int], str]:
        """The committed splits whose rows are what they were, and what a person should know."""
        committed = [s for s in before if s.state == "committed"]
        if known.schema != now.schema:
            return set(), "the schema has changed: all is copied again"
        if known.casts != now.casts:
            return set(), "values are cast otherwise: all is copied again"
        if known.labels != now.labels:
            return set(), "the labels have changed: all is copied again"
        if not committed:
            begins = "nothing of the copy that was interrupted was complete: it began again"
            return set(), begins if known.state == "copying" and not self.again else ""
        tells = division.tells_versions
        if known.state == "finished" and division.is_of_one_run:
            tells = False
        if not all(map(division.fits, before)) or not tells:
            return set(), (
                "the source does not tell what has changed since: all is copied again"
                if not tells
                else "the table is read in another way now: all is copied again"
            )
        with ThreadPoolExecutor(division.workers, "batuta-sync") as pool:
            sound = list(pool.map(lambda s: self._is_same(known, s, division), committed))
        same = {s.number for s, is_same in zip(committed, sound, strict=True) if is_same}
        if division.is_of_one_run and not same:
            return set(), "the source has the result no more: all is copied again"
        changed = len(committed) - len(same)
        note = f"{len(same)} of {len(before)} splits were there already"
        return same, f"{note}, {changed} had changed since" if changed else note

    def _is_same(self, known: CopyRecord, split: SplitRecord, division: Division) -> bool:
        staged = self.staging / split.file
        if staged.exists():
            is_whole = staged.stat().st_size == split.bytes and digest_of(staged) == split.digest
        else:
            # Published: a target that is one file has no rows of a copy that is not finished.
            is_published = self.target.keeps_files or known.state == "finished"
            is_whole = is_published and self.target.has(split)
        return is_whole and self.rejects.has(split) and division.version(split) == split.version

    # --- only what is new ----------------------------------------------------------------------

    def _takes_what_is_new(self, known: CopyRecord) -> bool:
        request = self.request
        if request.watermark is None:
            return False
        # What a schema that has changed means for rows that were copied, only a whole copy tells;
        # and only of columns that are not cast the source can be asked by what the copy has.
        is_asked = not known.casts.keys() & {*request.key, request.watermark}
        is_sound = all(map(self.rejects.has, self.checkpoint.splits.values()))
        can = is_asked and is_sound and not self.accepted and not request.dry_run
        return known.state == "finished" and can

    def _copy_what_is_new(self, known: CopyRecord, schema: Schema, started: float) -> SyncResult:
        """Reads the rows from the greatest watermark on, and puts them in by their key.

        All of it is worked out beside the copy before the checkpoint knows of it: a run that is
        interrupted has changed nothing.
        """
        request = self.request
        splits = [s for _, s in sorted(self.checkpoint.splits.items())]
        highest = self.target.highest(splits, request.watermark or "")
        if not all(self.target.has(s) for s in splits):
            raise OperationalError(
                f"{request.place} is not as it was copied",
                hint="copy without --watermark, which makes it whole again",
            )
        self._prepare_staging()
        columns = [c.name for c in schema]
        test = _is_new(highest, request.watermark)
        rows = self._query(f"{statement_of(request.origin, columns)} {test}".strip())
        rows.authorise(request.place)
        all_keys = None
        if request.full_compare:
            all_keys = self._query(statement_of(request.origin, request.key))
            all_keys.authorise(request.place)
            all_keys.execution.see_with(rows.execution)
        with self._told_of(rows, schema):
            return self._copy_new_rows(known, rows, all_keys, splits, started)

    def _copy_new_rows(
        self,
        known: CopyRecord,
        rows: Query,
        all_keys: Query | None,
        splits: Sequence[SplitRecord],
        started: float,
    ) -> SyncResult:
        request, number = self.request, known.number + 1
        counter = _Counter(1, 1, self.watch)
        arrived, misfits = self._staged(rows, "arrived", counter, known.casts)
        keys = self._staged(all_keys, "keys", counter)[0] if all_keys is not None else None
        rejected = None
        if misfits is not None:
            published = tuple(self.rejects.path(s) for s in splits if s.rejects)
            rejected = Rejected(misfits, published, self.rejects)
        merger = Merger(pq.read_schema(arrived), request.key, arrived, keys, rejected)
        merge = self.target.merge(merger, splits, self.staging, number)
        self._rejected = sum(s.rejected for s in merge.splits)
        self._reject_at_most(0)
        counter.committed()
        if not merge.changed and not merge.gone:
            return self._result("unchanged", [], started, "nothing is new since the last copy")
        obsolete = tuple(sorted({*known.obsolete, *merge.obsolete}))
        copy = replace(
            known,
            number=number,
            state="publishing",
            obsolete=obsolete,
            merge=merge.tables,
            withdrawn=merge.withdrawn,
            key=request.key,
        )
        self.checkpoint.begin(copy, merge.splits)
        self._publish(copy)
        gone = f", {merge.gone:,} are gone" if request.full_compare else ""
        note = f"{merge.changed:,} rows are new or changed{gone}"
        return self._result("copied", [splits[0]], started, note)

    def _staged(
        self, query: Query, name: str, counter: _Counter, casts: Mapping[str, str] = _NO_CASTS
    ) -> tuple[Path, Path | None]:
        """A file with the rows that fit, and one with the others; None: nothing is cast."""
        path, misfits = self.staging / f"{name}.parquet", self.staging / f"{name}-misfits.parquet"
        with Whole(query).read(SplitRecord(0)) as rows:
            schema = in_utc(Plan.of(query).labelled(rows.schema))
            with closing(Caster(schema, casts)) as caster:
                try:
                    found = write_cast(path, misfits, caster, rows.batches(schema), counter.arrived)
                    if casts and found[1] is None:
                        write_split(misfits, caster.rejects_schema, (), counter.arrived)
                except OSError as error:
                    raise self._told(error) from None
        return path, misfits if casts else None

    # --- copying -------------------------------------------------------------------------------

    def _prepare_staging(self) -> None:
        self.staging.mkdir(parents=True, exist_ok=True)
        sync_folder(self.staging.parent)
        self.rejects.prepare()
        self._tidy()

    def _copy(self, division: Division, planned: Sequence[SplitRecord], schema: Schema) -> None:
        self._prepare_staging()
        session = division.query.execution.session
        counter = _Counter(
            len(self.checkpoint.splits), len(planned), self.watch, self.again, session
        )
        self._rejected = sum(s.rejected for s in self.checkpoint.splits.values())
        self._reject_at_most(0)
        counter.tell()
        guard = _SchemaWatch(self, schema)
        waiting = deque(planned)
        stopped = threading.Event()
        governors = [session.governor(s) for s in division.sources]
        for governor in governors:
            governor.look_first()

        def work(number: int) -> None:
            while waiting and not stopped.is_set():
                if number >= min((g.readers for g in governors), default=number + 1):
                    stopped.wait(_WAITS_SECONDS)
                    continue
                try:
                    split = waiting.popleft()
                except IndexError:
                    return
                guard.look()
                self._copy_split(division, split, counter)

        many = max(1, min(division.workers, len(planned)))
        with ThreadPoolExecutor(many, "batuta-sync") as pool:
            running = [pool.submit(work, number) for number in range(many)]
            try:
                done, _ = wait(running, return_when=FIRST_EXCEPTION)
            except BaseException:
                stopped.set()
                division.query.cancel()
                raise
            failed = [f for f in done if f.exception() is not None]
            if failed:
                stopped.set()
                division.query.cancel()
                raise self._told(failed[0].exception())

    @staticmethod
    def _told(error: BaseException | None) -> BaseException:
        """An error as a person should see it."""
        assert error is not None
        if isinstance(error, OSError) and not isinstance(error, Error):
            where = f"{error.filename}: " if error.filename else ""
            return OperationalError(
                f"the copy cannot be written: {where}{error.strerror or error}",
                hint="make room or choose another place; the same command goes on from here",
            )
        return error

    def _copy_split(self, division: Division, split: SplitRecord, counter: _Counter) -> None:
        staged, rejects = self.staging / split.file, self.rejects.staged / split.file
        with division.read(split) as rows, closing(self._caster(division.query, rows)) as caster:
            batches = rows.batches(caster.arrived)
            written, rejected = write_cast(
                staged, rejects, caster, batches, counter.arrived, self._reject_at_most
            )
        version = division.version(split)
        done = replace(with_file(split, split.file, written), version=version)
        done = with_rejects(done, split.file, rejected)
        with self._lock:
            self.checkpoint.commit(done)
            self.commits += 1
        counter.committed()

    def _reject_at_most(self, more: int) -> None:
        """Counts rows that do not fit.

        :raises OperationalError: where there are too many.
        """
        most = self.request.max_rejects
        with self._lock:
            self._rejected += more
            if most is None or self._rejected <= most:
                return
        raise OperationalError(
            f"more than {most:,} {'row does' if most == 1 else 'rows do'} not fit in the types that"
            " the copy has: nothing was published",
            hint="look at the values, name another type with --change, or allow more --max-rejects",
        )

    def _caster(self, query: Query, rows: Rows) -> Caster:
        """What casts the rows of a split, all to one schema."""
        with self._lock:
            if self._arrived_schema is None:
                self._arrived_schema = in_utc(Plan.of(query).labelled(rows.schema))
            copy = self.checkpoint.copy
            assert copy is not None
            caster = Caster(self._arrived_schema, copy.casts)
            if self._arrow_schema is None:
                self.target.check_schema(caster.schema)
                self._arrow_schema = caster.schema
            return caster

    def _tidy(self) -> None:
        """Removes what a run that was killed has left, and files of splits that are none any more:
        the whole folder may become the target.
        """
        copy = self.checkpoint.copy
        mine = {s.file for s in self.checkpoint.splits.values()}
        mine |= {*copy.merge, copy.withdrawn} if copy is not None else set()
        for left in self.staging.iterdir() if self.staging.exists() else ():
            if left.name not in mine:
                left.unlink(missing_ok=True)
        self.rejects.tidy(self.checkpoint.splits.values())

    # --- after ---------------------------------------------------------------------------------

    def _publish(self, copy: CopyRecord) -> None:
        splits = [s for _, s in sorted(self.checkpoint.splits.items())]
        self.staging.mkdir(parents=True, exist_ok=True)
        self._tidy()
        self.target.publish(
            Publication(
                copy, splits, self.staging, self._written_schema(splits), self.request.table
            )
        )
        self.rejects.publish(splits)
        self.checkpoint.go_on(
            "finished", published=copy.number, obsolete=(), merge=(), withdrawn=""
        )
        self._tidy()

    def _written_schema(self, splits: Sequence[SplitRecord]) -> pa.Schema:
        if self._arrow_schema is not None:
            return self._arrow_schema
        for split in splits:
            for folder in (self.staging, self.request.place):
                if (folder / split.file).is_file():
                    return pq.read_schema(folder / split.file)
        # All files have become the target: only what cleans up is left to do.
        return pa.schema([])

    def _result(
        self, outcome: Outcome, copied: Sequence[SplitRecord], started: float, note: str
    ) -> SyncResult:
        splits = self.checkpoint.splits.values()
        rejected = sum(s.rejected for s in splits)
        return SyncResult(
            outcome,
            self.request.place,
            rows=sum(s.rows for s in splits),
            bytes=sum(s.bytes for s in splits),
            splits=len(splits),
            copied=len(copied),
            seconds=time.monotonic() - started,
            changes=self.accepted,
            note=note,
            rejected=rejected,
            rejects=self.rejects.published if rejected else None,
        )


class _SchemaWatch:
    """Looks between splits whether the schema is still what is being copied."""

    def __init__(self, job: _Job, schema: Schema) -> None:
        self._job = job
        self._schema = schema
        self._lock = threading.Lock()
        self._last = time.monotonic()

    def look(self) -> None:
        """
        :raises SchemaDrift: where it is not.
        """
        with self._lock:
            if time.monotonic() - self._last < _LOOKS_AGAIN_SECONDS:
                return
            self._last = time.monotonic()
        job = self._job
        now = tuple(
            c
            for c in schema_now(job.request.origin, job.make)
            if c.name not in job.decision.skipped
        )
        found = drift.changes(self._schema, now)
        if found:
            hint = "nothing was published; run it again with --on-drift to decide"
            raise job.judge.stopped(found, hint)


class _Counter:
    """Counts what arrives in all threads, and tells it not too often."""

    def __init__(
        self,
        splits: int,
        planned: int,
        watch: Watch,
        again: str = "",
        session: Session | None = None,
    ) -> None:
        self._again = again
        self._session = session
        self._splits = splits
        self._kept = splits - planned
        self._done = 0
        self._rows = self._bytes = 0
        self._watch = watch
        self._lock = threading.Lock()
        self._started = self._told = time.monotonic()

    def arrived(self, batch: pa.RecordBatch) -> None:
        with self._lock:
            self._rows += batch.num_rows
            self._bytes += batch.nbytes
            now = time.monotonic()
            if now - self._told < _TELL_SECONDS:
                return
            self._told = now
        self.tell()

    def committed(self) -> None:
        with self._lock:
            self._done += 1
        self.tell()

    def tell(self) -> None:
        seconds = time.monotonic() - self._started
        done = self._kept + self._done
        session = self._session
        self._watch(
            Progress(
                self._splits,
                done,
                self._kept,
                self._rows,
                self._bytes,
                seconds,
                self._again,
                tuple(map(str, session.slowed())) if session is not None else (),
                session.seconds_left() if session is not None else None,
            )
        )


_TELL_SECONDS = 0.2
_WAITS_SECONDS = 0.2
"""Between two looks of a worker that is not to read now."""


def _labels_of(query: Query, schema: Schema) -> str:
    """The labels of a result as its files will carry them; empty where it has none."""
    bare = pa.schema([pa.field(c.name, pa.null()) for c in schema])
    metadata = Plan.of(query).labelled(bare).metadata or {}
    return str(metadata.get(KEY.encode(), b"").decode())


_MOST_FAILURES = 3
"""Attempts one after the other that commit nothing."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 4.0


def _may_pass(error: OperationalError) -> bool:
    """Whether it is of a source, and no decision: another attempt may do better."""
    decided = isinstance(error, SchemaDrift | CheckpointError | Refused | QueryCancelled)
    return error.source is not None and not decided


def _is_new(highest: tuple[str, str] | None, watermark: str | None) -> str:
    """The condition on rows that may be new; empty where there is none."""
    if highest is None or watermark is None:
        return ""
    text, type_ = highest[0].replace("'", "''"), highest[1]
    return f"WHERE {quote(watermark)} >= CAST('{text}' AS {type_})"


def target_of(request: Request) -> Target:
    """
    :raises NotSupportedError: for a place that is no local path.
    """
    if request.form == "ald" and request.watermark is not None:
        raise NotSupportedError(
            "an .ald file is written whole", hint="copy without --watermark, or to another format"
        )
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(request.target)):
        raise NotSupportedError(f"{request.target}: only local targets are written")
    match request.form:
        case "parquet":
            return ParquetTarget(request.place)
        case "delta":
            return DeltaTarget(request.place)
        case "duckdb":
            return DuckDBTarget(request.place, request.table)
        case "ald":
            return AldTarget(request.place)
