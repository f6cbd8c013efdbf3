"""What is done about a schema that has changed, as it was decided, on record."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from batuta_sql.errors import ProgrammingError, did_you_mean
from batuta_sql.guards.audit import AuditLog
from batuta_sql.sync import drift
from batuta_sql.sync.casts import can_be_checked, canonical_type
from batuta_sql.sync.checkpoint import CopyRecord, Forced
from batuta_sql.sync.drift import Change, SchemaDrift
from batuta_sql.sync.request import OnDrift, Request, is_query
from batuta_sql.sync.schema import Schema, from_json

Changes = tuple[Change, ...]


@dataclass(frozen=True)
class Decision:
    """What a copy does about the schema of now.

    :param accepted: the changes that are taken.
    :param skipped: the new columns that are left out.
    :param forced: as it goes to the checkpoint.
    """

    accepted: Changes = ()
    skipped: tuple[str, ...] = ()
    forced: tuple[Forced, ...] = ()


class Judge:
    """Decides as it was asked for.

    :param audit: where decisions are written down.
    """

    def __init__(self, request: Request, audit: AuditLog | None) -> None:
        self._request = request
        self._audit = audit

    def decide(self, known: CopyRecord | None, now: Schema) -> Decision:
        """What is done where the last copy was ``known``.

        :raises SchemaDrift: where the schema has changed and that is not accepted.
        :raises ProgrammingError: where a change is named that there is not.
        """
        request = self._request
        if known is None:
            for column in request.changes:
                raise _unchanged(column, (), "there is no copy yet")
            return Decision()
        before = from_json(known.schema)
        found = drift.changes(before, now)
        if request.on_drift == "force":
            return self._forced(known, before, now, found)
        kept = _carried(known.forced, now)
        if not found:
            return Decision(forced=kept)
        if request.on_drift == "apply" and all(c.is_safe for c in found):
            decision = Decision(found, forced=kept)
        elif request.on_drift == "skip" and all(c.kind == "added" for c in found):
            decision = Decision(skipped=tuple(c.column for c in found), forced=kept)
        else:
            raise self.stopped(found, _advice(request.on_drift, found))
        self._record(f"schema drift: {request.on_drift}", found)
        return decision

    def stopped(self, found: Changes, hint: str) -> SchemaDrift:
        """The error that stops a copy, on record."""
        self._record("schema drift: stopped", found)
        return SchemaDrift(self._subject, found, hint)

    @property
    def _subject(self) -> str:
        return "the query" if is_query(self._request.origin) else self._request.origin

    # --- force ---------------------------------------------------------------------------------

    def _forced(self, known: CopyRecord, before: Schema, now: Schema, found: Changes) -> Decision:
        named = self._request.changes
        decided = {f.column for f in known.forced}
        changed = {c.column for c in found if c.kind != "order"}
        for column in named:
            if column not in changed | decided:
                raise _unchanged(column, sorted(changed), "it has not changed")
        missing = [c.column for c in found if not c.is_safe and c.column not in named]
        if missing:
            given = [c if t is None else f"{c}={t}" for c, t in named.items()]
            hint = f"each unsafe change is named: {_options([*given, *missing])}"
            raise self.stopped(found, hint)
        had = {c.name: c.type for c in before} | known.casts
        has = {c.name: c.type for c in now}
        casts = {c: _cast(c, wanted, had.get(c), has.get(c)) for c, wanted in named.items()}
        forced = _carried(known.forced, now, casts)
        again = tuple(
            Change(c, "type", had[c], casts[c] or has[c], False, "")
            for c in casts
            if c not in changed and c in has and had[c] != (casts[c] or has[c])
        )
        accepted = tuple(_explained(c, casts) for c in found + again)
        if accepted:
            self._record("schema drift: force", accepted, casts)
        return Decision(accepted, forced=forced)

    # --- on record -----------------------------------------------------------------------------

    def _record(self, what: str, found: Changes, casts: Mapping[str, str] | None = None) -> None:
        if self._audit is None:
            return
        listed = [
            {"column": c.column, "before": c.before, "now": c.now, "safe": c.is_safe}
            | ({"cast": casts[c.column] or None} if casts and c.column in casts else {})
            for c in found
        ]
        self._audit.append([{"event": what, "of": self._subject, "changes": listed}])


def _carried(
    forced: Sequence[Forced], now: Schema, casts: Mapping[str, str] | None = None
) -> tuple[Forced, ...]:
    """What was decided before, and now; a column that has come to have its type is not cast."""
    has = {c.name: c.type for c in now}
    types = {f.column: f.type if has.get(f.column) not in (None, f.type) else "" for f in forced}
    return tuple(Forced(c, t) for c, t in sorted((types | dict(casts or {})).items()))


def _cast(column: str, wanted: str | None, had: str | None, has: str | None) -> str:
    """The type to which a column is cast; empty: its values are taken as they come.

    :param wanted: the type that was asked for; None: that of the copy.
    :param had: the type that the copy has; None: it has no such column.
    :param has: the type that the source has; None: the column is gone.
    :raises ProgrammingError: where there is no such cast.
    """
    if has is None:
        if wanted is not None:
            raise ProgrammingError(
                f'the column "{column}" is gone: there is nothing to cast',
                hint=_options([column]),
            )
        return ""
    if wanted is None and had in (None, has):
        return ""
    to = canonical_type(wanted or had or has)
    if to == canonical_type(has):
        return ""
    if not can_be_checked(has, to):
        raise ProgrammingError(
            f'values of the column "{column}" cannot be cast from {has} to {to} and compared',
            hint=f"name another type; {_options([f'{column}={has}'])} takes them as they come",
        )
    return to


def _explained(change: Change, casts: Mapping[str, str]) -> Change:
    """With what becomes of the values, where that was decided."""
    if change.kind != "type" or change.column not in casts:
        return change
    to = casts[change.column]
    return replace(
        change, effect=f"rows whose value fits in {to} come" if to else "values come as they are"
    )


def _unchanged(column: str, changed: Sequence[str], why: str) -> ProgrammingError:
    hint = did_you_mean(column, changed)
    return ProgrammingError(
        f'the change of the column "{column}" cannot be taken: {why}', hint=hint
    )


def _options(columns: Sequence[str]) -> str:
    named = " ".join(f"--change {shlex.quote(c)}" for c in columns)
    return f"--on-drift force {named}"


def _advice(decision: OnDrift, found: Changes) -> str:
    unsafe = list(dict.fromkeys(c.column for c in found if not c.is_safe))
    force = f"{_options(unsafe)} takes what is not safe, each value checked"
    if decision == "apply":
        return f"--on-drift apply takes safe changes only; {force}; or copy to a new place"
    if decision == "skip":
        return "--on-drift skip leaves new columns out, and takes no other change"
    new = all(c.kind == "added" for c in found)
    choices = [
        *(["--on-drift apply copies it as it is now"] if not unsafe else []),
        *(["--on-drift skip leaves the new columns out"] if new else []),
        *([force, "a copy to a new place begins with the schema of now"] if unsafe else []),
    ]
    return "; ".join(choices)
