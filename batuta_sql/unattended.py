"""Guards for programs that ask while nobody watches: servers for assistants, for BI tools.

What a result tells has left the house. So a label must be allowed to go to the receiver, and that
is decided on the plan, before anything is sent to a source.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batuta_sql.errors import LabelRefused
from batuta_sql.labels import not_covered

if TYPE_CHECKING:
    from batuta_sql.dbapi import Connection
    from batuta_sql.frontend.expressions import ParameterValues


@dataclass(frozen=True)
class LabelGate:
    """Which labels may go to a receiver.

    :param allowed: labels, or patterns such as ``origin:*``.
    :param receiver: as it is called in a refusal.
    :param how_to_allow: what a person does to let a label through.
    """

    allowed: tuple[str, ...]
    receiver: str
    how_to_allow: Callable[[str], str]

    def check(self, labels: Collection[str]) -> None:
        """
        :raises LabelRefused: for a label that is not allowed.
        """
        refused = not_covered(labels, self.allowed)
        if refused:
            raise LabelRefused(
                f"the result would carry {', '.join(refused)}, which may not go to {self.receiver}",
                hint="leave the labelled columns out, of conditions too; or a person allows it with"
                f" {self.how_to_allow(refused[0])}",
            )

    def check_query(
        self, connection: Connection, sql: str, parameters: ParameterValues | None = None
    ) -> None:
        """Lets a query pass whose result may go to the receiver; nothing is sent to a source.

        :raises LabelRefused: where its result would carry a label that is not allowed.
        :raises Error: for what is no query.
        """
        self.check(connection.plan(sql, parameters).result_labels.all)
