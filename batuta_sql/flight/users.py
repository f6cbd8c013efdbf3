"""Who may ask, and what for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from batuta_sql.config import ServedUserSettings
from batuta_sql.unattended import LabelGate

EVERYBODY = "*"
"""The user of a server without users: no name that the configuration allows."""


@dataclass(frozen=True)
class User:
    """A user and their limits, in US dollars."""

    name: str
    allow_labels: tuple[str, ...] = ()
    max_cost_usd: float | None = None
    budget_usd_per_day: float | None = None

    @property
    def labels(self) -> LabelGate:
        """Which labels may go to this user."""
        receiver = "this server's clients" if self.name == EVERYBODY else f'the user "{self.name}"'
        return LabelGate(
            self.allow_labels,
            receiver,
            lambda label: self.setting("allow_labels", f"--allow-label {label}"),
        )

    def setting(self, key: str, option: str) -> str:
        """How an administrator changes a limit: the key of the configuration, or the option."""
        if self.name == EVERYBODY:
            return f"batuta-sql serve {option}"
        return f"serve.users.{self.name}.{key}"


def users_of(
    settings: Mapping[str, ServedUserSettings],
    allow_labels: Sequence[str] = (),
    max_cost_usd: float | None = None,
) -> dict[str, User]:
    """The users by name; without any, everybody.

    :param allow_labels: to everybody, where there are no users.
    :param max_cost_usd: holds for all, beside their own.
    """
    if not settings:
        return {EVERYBODY: User(EVERYBODY, tuple(allow_labels), max_cost_usd)}
    found: dict[str, User] = {}
    for name, told in settings.items():
        user = User(
            name,
            told.allow_labels,
            told.max_cost_usd,
            told.budget_usd_per_day,
        )
        limits = [v for v in (told.max_cost_usd, max_cost_usd) if v is not None]
        found[name] = replace(user, max_cost_usd=min(limits, default=None))
    return found
