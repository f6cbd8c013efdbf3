"""A notebook's connection, and its answer to the question about cost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from batuta_sql.errors import ProgrammingError
from batuta_sql.notebook.request import Opening

if TYPE_CHECKING:
    from batuta_sql import Connection, Estimate


class Consent:
    """What a connection asks before a query that costs: yes only in a cell that says ``--yes``."""

    def __init__(self) -> None:
        self._is_given = False
        self.refused: Estimate | None = None
        """What was asked about in this cell, and not answered with yes."""

    def __call__(self, estimate: Estimate) -> bool:
        if not self._is_given:
            self.refused = estimate
        return self._is_given

    @contextlib.contextmanager
    def of_cell(self, *, is_given: bool) -> Iterator[None]:
        """While one cell runs."""
        self._is_given, self.refused = is_given, None
        try:
            yield
        finally:
            self._is_given = False


class Connected:
    """The connection that cells are sent to: opened at the first use, unless one was named."""

    def __init__(self) -> None:
        self.consent = Consent()
        self._own: Connection | None = None
        self._given: Connection | None = None

    @property
    def connection(self) -> Connection:
        """
        :raises ConfigError: where none is open yet, and there is no configuration.
        """
        return self._given or self._own or self.open(Opening())

    def open(self, opening: Opening) -> Connection:
        """Opens another one, and closes the one that was opened before.

        :raises ConfigError: naming file, key and line; the connection before stays.
        """
        import batuta_sql

        opened: Connection = batuta_sql.connect(
            opening.config,
            tier=opening.tier,
            max_cost_usd=opening.max_cost,
            confirm=self.consent,
        )
        self.close()
        self._own = opened
        return opened

    def use(self, connection: Connection) -> Connection:
        """Sends cells to a connection that the notebook has opened, and will close."""
        self.close()
        self._given = connection
        return connection

    @contextlib.contextmanager
    def allowing(self, *, cost: bool) -> Iterator[None]:
        """While one cell runs; a query that costs is let run only with ``cost``.

        :raises ProgrammingError: for a connection that does not ask here.
        """
        if cost and self._given is not None:
            raise ProgrammingError(
                "--yes cannot answer for a connection that was opened elsewhere",
                hint="it asks its own confirm: connect(confirm=...); or %batuta connect FILE",
            )
        with self.consent.of_cell(is_given=cost):
            yield

    def close(self) -> None:
        """Closes the connection that was opened here."""
        own, self._own, self._given = self._own, None, None
        if own is not None:
            own.close()
