"""What is written after ``%batuta`` and ``%%batuta``: a name, options, and the SQL of a line."""

from __future__ import annotations

import keyword
import re
import shlex
from dataclasses import dataclass, replace
from typing import Any, Literal

from batuta_sql.errors import ProgrammingError, did_you_mean

Form = Literal["result", "arrow", "pandas", "polars"]
Action = Literal["run", "explain", "estimate"]

SHOWN_ROWS = 50
"""Of a result, where ``--max-rows`` says nothing else."""

_NAME = re.compile(r"\s*(?P<name>\w+)\s*<<")
_OPTION = re.compile(r"\s*(?P<option>--[A-Za-z][\w-]*)(?:=(?P<value>\S*))?(?=\s|\Z)")
_VALUE = re.compile(r"\s*(?P<value>\S+)")

_SWITCHES: dict[str, dict[str, Any]] = {
    "--yes": {"yes": True},
    "--explain": {"action": "explain"},
    "--estimate": {"action": "estimate"},
    "--arrow": {"form": "arrow"},
    "--pandas": {"form": "pandas"},
    "--polars": {"form": "polars"},
}
OPTIONS = (*_SWITCHES, "--max-rows")


@dataclass(frozen=True)
class Request:
    """
    :param name: of the variable that gets what comes; None: it is shown.
    :param yes: whether it may cost.
    :param max_rows: of a result that are shown; 0: all.
    """

    name: str | None = None
    yes: bool = False
    max_rows: int = SHOWN_ROWS
    action: Action = "run"
    form: Form = "result"

    @classmethod
    def read(cls, line: str) -> tuple[Request, str]:
        """What is asked for, and what follows it.

        :raises ProgrammingError: for an option that there is not, or that does not go with others.
        """
        found, at = cls(), 0
        while True:
            if found.name is None and (match := _NAME.match(line, at)):
                found, at = replace(found, name=_variable(match["name"])), match.end()
            elif match := _OPTION.match(line, at):
                value, at = match["value"], match.end()
                if match["option"] == "--max-rows" and value is None:
                    following = _VALUE.match(line, at)
                    value, at = (following["value"], following.end()) if following else ("", at)
                found = found._with(match["option"], value)
            else:
                return found, line[at:].strip()

    def _with(self, option: str, value: str | None) -> Request:
        if option == "--max-rows":
            if value is None or not value.isdecimal():
                raise ProgrammingError(f"--max-rows takes a number of rows, not {value!r}")
            return replace(self, max_rows=int(value))
        if option not in _SWITCHES:
            hint = did_you_mean(option, OPTIONS) or f"there are {', '.join(OPTIONS)}"
            raise ProgrammingError(f"there is no option {option}", hint=hint)
        if value is not None:
            raise ProgrammingError(f"{option} takes no value")
        changed = replace(self, **_SWITCHES[option])
        if _differ(self.form, changed.form, "result") or _differ(
            self.action, changed.action, "run"
        ):
            raise ProgrammingError(f"{option} does not go with an option before it")
        if changed.action != "run" and changed.form != "result":
            raise ProgrammingError(f"--{changed.action} gives no rows, so no --{changed.form}")
        return changed


@dataclass(frozen=True)
class Opening:
    """What follows ``%batuta connect``.

    :param config: a ``batuta.toml``; None: where it is looked for anyway.
    :param max_cost: in US dollars.
    """

    config: str | None = None
    tier: str | None = None
    max_cost: float | None = None

    @classmethod
    def read(cls, text: str) -> Opening:
        """
        :raises ProgrammingError: for what does not belong there.
        """
        try:
            words = iter(shlex.split(text))
        except ValueError as error:
            raise ProgrammingError(f"%batuta connect: {error}") from None
        found = cls()
        for word in words:
            option, is_joined, value = word.partition("=")
            if option in ("--tier", "--max-cost"):
                value = value if is_joined else next(words, "")
                found = found._with(option, value)
            elif word.startswith("--"):
                hint = did_you_mean(word, ("--tier", "--max-cost"))
                raise ProgrammingError(f"there is no option {word}", hint=hint)
            elif found.config is not None:
                raise ProgrammingError("it is %batuta connect FILE [--tier TIER] [--max-cost USD]")
            else:
                found = replace(found, config=word)
        return found

    def _with(self, option: str, value: str) -> Opening:
        if not value:
            raise ProgrammingError(f"{option} takes a value")
        if option == "--tier":
            return replace(self, tier=value)
        try:
            return replace(self, max_cost=float(value))
        except ValueError:
            raise ProgrammingError(f"--max-cost takes US dollars, not {value!r}") from None


def _variable(name: str) -> str:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ProgrammingError(f"{name} << : {name} is no name of a variable")
    return name


def _differ(before: str, after: str, usual: str) -> bool:
    return before not in (usual, after)
