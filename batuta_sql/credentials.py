"""Credentials that end: renewed ahead of their end, once for all who wait, and after a refusal."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, runtime_checkable

_AHEAD_SHARE = 0.5
_AHEAD_SECONDS = 300.0
"""A credential is renewed when half of its life is left, or this much of a long one."""

_ON_THE_WAY_SHARE = 0.1
_ON_THE_WAY_SECONDS = 10.0
"""It is not given out so late that it could end before it is looked at."""

_PAUSE_SECONDS = 5.0
"""Between two attempts to renew one that is still good, or a shorter time for a short life."""


@dataclass(frozen=True)
class Credential:
    """A secret value and when it ends.

    :param value: a password, a token, or whatever else the setting takes.
    :param expires_at: with a time zone; None: not known, and it is asked for anew each time.
    """

    value: str = field(repr=False)
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise ValueError("expires_at needs a time zone")


@runtime_checkable
class CredentialProvider(Protocol):
    """Gives credentials: any object with this method, or a callable that does the same."""

    def get(self) -> Credential:
        """A credential that is good now. Never called by two threads at once."""
        ...


@dataclass(frozen=True)
class _Held:
    value: str = field(repr=False)
    asked: float
    """On the monotonic clock, as all times here: a clock that is set does not lengthen a life."""
    ends: float | None

    @property
    def life(self) -> float:
        return (self.ends or self.asked) - self.asked

    def is_good(self, now: float) -> bool:
        margin = min(_ON_THE_WAY_SECONDS, self.life * _ON_THE_WAY_SHARE)
        return self.ends is not None and now < self.ends - margin

    @property
    def renewed_from(self) -> float:
        return (self.ends or 0.0) - min(_AHEAD_SECONDS, self.life * _AHEAD_SHARE)


class Renewing:
    """The credential of one provider, for many threads.

    One that is good is given at once, even while it is renewed; one that has ended is asked for by
    one thread, and the others wait for it. One whose end is not known is asked for each time, but
    once for all who ask at that moment.

    :param get: asks for a credential; what it raises is raised to everyone who waits.
    """

    def __init__(self, get: Callable[[], Credential]) -> None:
        self._get = get
        self._changed = threading.Condition()
        self._held: _Held | None = None
        self._last: _Held | BaseException | None = None
        """What came of asking the last time."""
        self._turn = 0
        self._is_asking = False
        self._not_before = 0.0

    def value(self) -> str:
        """The value of a credential that is good now."""
        with self._changed:
            held, now = self._held, time.monotonic()
            if held is not None and held.is_good(now):
                if now >= max(held.renewed_from, self._not_before) and not self._is_asking:
                    self._is_asking = True
                    threading.Thread(target=self._ask, name="batuta-renew", daemon=True).start()
                return held.value
            if self._is_asking:
                turn = self._turn
                self._changed.wait_for(lambda: self._turn != turn)
                return _value_of(self._last)
            self._is_asking = True
        return _value_of(self._ask())

    def refused(self, value: str) -> bool:
        """Tells that a value was refused: it is not given again if another is to be had.

        :returns: whether the next value is another one.
        """
        with self._changed:
            if self._held is not None and self._held.value == value:
                self._held = None
        return self.value() != value

    def seconds_left(self) -> float | None:
        """Of the life of the credential at hand; None where that is not known."""
        with self._changed:
            if self._held is None or self._held.ends is None:
                return None
            return max(0.0, self._held.ends - time.monotonic())

    def _ask(self) -> _Held | BaseException:
        found: _Held | BaseException
        try:
            found = _held(self._get)
        except BaseException as error:
            found = error
        with self._changed:
            if isinstance(found, _Held):
                self._held = found
            elif self._held is not None:
                # What is at hand may be good for a while: the provider may be back by then.
                share = self._held.life * _AHEAD_SHARE / 4
                self._not_before = time.monotonic() + min(_PAUSE_SECONDS, share)
            self._last = found
            self._is_asking = False
            self._turn += 1
            self._changed.notify_all()
        return found


def _value_of(found: _Held | BaseException | None) -> str:
    match found:
        case _Held():
            return found.value
        case BaseException():
            raise found
    raise AssertionError("nobody has asked")


def _held(get: Callable[[], Credential]) -> _Held:
    asked = time.monotonic()
    found = get()
    ends = None
    if found.expires_at is not None:
        ends = asked + (found.expires_at - datetime.now(UTC)).total_seconds()
    return _Held(found.value, asked, ends)


# --- what commands print ---------------------------------------------------------------------

_VALUES = ("access_token", "accessToken", "token")
_ENDS = ("expiry", "expires_at", "expiresAt", "expiration", "expirationTimestamp", "expires_on")
_LIVES = ("expires_in", "expiresIn")


def printed_credential(text: str) -> Credential:
    """What a command has printed: a bare secret, or JSON with a token and its end.

    Such JSON is printed by ``databricks auth token`` (``access_token``, ``expiry``), ``az account
    get-access-token`` (``accessToken``, ``expires_on``) and OAuth servers (``access_token``,
    ``expires_in``). Any other text is the secret itself.
    """
    try:
        told = json.loads(text) if text.lstrip().startswith("{") else None
    except ValueError:
        told = None
    if not isinstance(told, Mapping):
        return Credential(text)
    value = next((told[k] for k in _VALUES if isinstance(told.get(k), str)), None)
    end = next((e for k in _ENDS if (e := _instant(told.get(k))) is not None), None)
    if end is None:
        end = next((_in_seconds(told[k]) for k in _LIVES if _is_number(told.get(k))), None)
    if value is None or end is None:
        return Credential(text)
    return Credential(value, end)


def _instant(told: Any) -> datetime | None:
    if _is_number(told):
        return datetime.fromtimestamp(float(told), UTC)
    try:
        found = datetime.fromisoformat(told) if isinstance(told, str) else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None


def _in_seconds(told: float) -> datetime:
    return datetime.fromtimestamp(time.time() + float(told), UTC)


def _is_number(told: Any) -> bool:
    return isinstance(told, int | float) and not isinstance(told, bool)
