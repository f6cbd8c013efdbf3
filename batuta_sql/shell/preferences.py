"""What a person has chosen for the shell: ``shell.toml`` in the user's configuration folder."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from batuta_sql.errors import ConfigError, did_you_mean

Switch = Literal["auto", "on", "off"]


class Preferences(BaseModel):
    """
    :param max_rows: of a result that are shown; 0: all.
    :param expanded: a line for each value instead of one for each row; auto: where the columns do
        not fit the terminal.
    :param pager: whether a result that is longer than the terminal is shown by ``$PAGER``.
    :param timing: whether the seconds and the bytes moved are shown below a result.
    :param progress: whether the fragments of a running query are shown.
    :param labels: whether labels are marked on the heads of columns.
    :param null: how NULL is shown.
    :param editing: the keys: emacs or vi.
    :param history: whether what is typed is written down for the next time.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    max_rows: int = Field(default=1000, ge=0)
    expanded: Switch = "auto"
    pager: Switch = "auto"
    timing: bool = True
    progress: bool = True
    labels: bool = True
    null: str = "NULL"
    editing: Literal["emacs", "vi"] = "emacs"
    history: bool = True

    @classmethod
    def read(cls, path: Path) -> Preferences:
        """
        :raises ConfigError: naming the file and what is wrong in it.
        """
        try:
            told = tomllib.loads(path.read_text())
        except FileNotFoundError:
            return cls()
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: {error}") from None
        try:
            return cls(**told)
        except ValidationError as error:
            raise ConfigError(f"{path}: {_words(error)}") from None

    def change(self, name: str, value: str) -> None:
        """
        :raises ConfigError: for another name, or a value that it cannot have.
        """
        if name not in type(self).model_fields:
            hint = did_you_mean(name, type(self).model_fields)
            raise ConfigError(f'there is no setting "{name}"', hint=hint or "see .set")
        try:
            setattr(self, name, value)
        except ValidationError as error:
            raise ConfigError(_words(error)) from None


def _words(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
