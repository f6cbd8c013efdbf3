"""Random handles for what a server keeps for its users, each for one user and for a time."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass
from typing import Generic, TypeVar

from batuta_sql.errors import ProgrammingError

T = TypeVar("T")

_MOST_OF_A_USER = 1000
_BYTES = 24


@dataclass(frozen=True)
class _Kept(Generic[T]):
    user: str
    item: T
    ends: float
    """On the monotonic clock."""


class Handles(Generic[T]):
    """Things by handle. One user's oldest goes when there are too many of them.

    :param seconds: the life of a handle since it was used last.
    :param refusal: what is said of one that is unknown, has ended, or is another user's: the same
        words, so that they tell nothing of others.
    """

    def __init__(self, seconds: float, refusal: str, hint: str) -> None:
        self._seconds = seconds
        self._refusal = refusal
        self._hint = hint
        self._lock = threading.Lock()
        self._kept: dict[bytes, _Kept[T]] = {}

    def add(self, user: str, item: T) -> bytes:
        """A new handle."""
        handle = secrets.token_bytes(_BYTES)
        with self._lock:
            self._forget_ended()
            own = [h for h, k in self._kept.items() if k.user == user]
            for oldest in own[: max(0, len(own) + 1 - _MOST_OF_A_USER)]:
                del self._kept[oldest]
            self._kept[handle] = _Kept(user, item, time.monotonic() + self._seconds)
        return handle

    def get(self, user: str, handle: bytes) -> T:
        """What a handle stands for; its life begins anew.

        :raises ProgrammingError: where it is not this user's, or has ended.
        """
        with self._lock:
            item = self._found(user, handle)
            self._kept[handle] = _Kept(user, item, time.monotonic() + self._seconds)
            return item

    def replace(self, user: str, handle: bytes, item: T) -> None:
        """Puts another thing in the place of what ``get`` gives.

        :raises ProgrammingError: as ``get``.
        """
        with self._lock:
            self._found(user, handle)
            self._kept[handle] = _Kept(user, item, time.monotonic() + self._seconds)

    def take(self, user: str, handle: bytes) -> T:
        """What a handle stands for, which ends with this.

        :raises ProgrammingError: as ``get``; another user's is left as it is.
        """
        with self._lock:
            item = self._found(user, handle)
            del self._kept[handle]
            return item

    def _found(self, user: str, handle: bytes) -> T:
        kept = self._kept.get(handle)
        if kept is None or kept.user != user or kept.ends < time.monotonic():
            raise ProgrammingError(self._refusal, hint=self._hint)
        return kept.item

    def _forget_ended(self) -> None:
        now = time.monotonic()
        for handle in [h for h, k in self._kept.items() if k.ends < now]:
            del self._kept[handle]
