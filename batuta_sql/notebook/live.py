"""What is seen below a cell while its query runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from IPython.display import DisplayHandle

from batuta_sql.notebook.display import progress

if TYPE_CHECKING:
    from batuta_sql.progress import FragmentProgress

_PATIENCE = 0.6
_EVERY = 0.5
"""Seconds: of what is over sooner nothing is shown, and no more often than that."""


class LiveTable:
    """One output that is written over, and empty when the query has ended.

    :param found: what there is to show now.
    """

    def __init__(self, found: Callable[[], Sequence[FragmentProgress]]) -> None:
        self._found = found
        self._handle: Any = None
        self._next = _PATIENCE

    def look(self, seconds: float) -> None:
        """Shows what is so, this many seconds after the cell began."""
        if seconds < self._next:
            return
        self._next = seconds + _EVERY
        found = self._found()
        if not found:
            return
        bundle = {"text/html": progress(found, seconds), "text/plain": f"{seconds:.0f} s"}
        if self._handle is None:
            self._handle = DisplayHandle()  # type: ignore[no-untyped-call]
            self._handle.display(bundle, raw=True)
        else:
            self._handle.update(bundle, raw=True)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.update({"text/html": "", "text/plain": ""}, raw=True)
            self._handle = None
