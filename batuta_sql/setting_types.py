"""Types that the settings of several things share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from batuta_sql.labels import check_label
from batuta_sql.secrets import Secret, shown

Locality = Literal["local", "private", "vpc", "public"]

LabelText = Annotated[str, AfterValidator(check_label)]
LabelTexts = tuple[LabelText, ...]
AtLeastOne = Annotated[tuple[LabelText, ...], Field(min_length=1)]


class FrozenSettings(BaseModel):
    """Settings that never change, have no other keys than theirs, and show no secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, shown(name or "", value)


def _as_text(value: Any) -> Any:
    """What drivers take as text, TOML has as a number or a truth value."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
    return value


Options = dict[str, Annotated[Secret, BeforeValidator(_as_text)]]
"""Options that are handed to a driver: any of them may be a secret, so all are treated as one."""


PathText = Annotated[str, BeforeValidator(lambda v: str(v) if isinstance(v, Path) else v)]
