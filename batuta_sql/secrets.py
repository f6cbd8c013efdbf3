"""Secrets: read when they are needed, shown never."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import urllib.parse
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from batuta_sql.credentials import (
    Credential,
    CredentialProvider,
    Renewing,
    printed_credential,
)
from batuta_sql.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import core_schema

HIDDEN = "********"
_COMMAND_SECONDS = 60
_FORMS = ("env", "file", "keyring", "command")
_REMEMBERED = 8
"""Values of one secret, so that a message that quotes an earlier one is clean too."""


class Secret:
    """A value that no repr, pickle, dump or message ever shows.

    Given as a text, as ``{env = ...}``, ``{file = ...}``, ``{keyring = "service/user"}``,
    ``{command = ...}``, as a callable or as a ``CredentialProvider``. ``reveal`` looks it up anew
    each time, unless a callable, a provider or a command has said until when its value is good.
    """

    __slots__ = ("_given_out", "_origin", "_read", "_renewing")

    def __init__(
        self, origin: str, read: Callable[[], str], renewing: Renewing | None = None
    ) -> None:
        self._origin = origin
        self._read = read
        self._renewing = renewing
        self._given_out: deque[str] = deque(maxlen=_REMEMBERED)

    @classmethod
    def of(cls, value: Any) -> Secret:
        """A secret from its form in the configuration.

        :raises ValueError: for another form.
        """
        if isinstance(value, Secret):
            return value
        if isinstance(value, str):
            return cls("given", lambda: value)
        if isinstance(value, Mapping):
            if len(value) == 1:
                ((form, target),) = value.items()
                if form == "command":
                    words = _words(target)
                    return cls._renewed(form, lambda: printed_credential(_from_command(words)))
                if form in _FORMS and isinstance(target, str):
                    return cls(form, lambda: _looked_up(form, target))
        elif isinstance(value, CredentialProvider):
            return cls._renewed("provider", lambda: _called(value.get))
        elif callable(value):
            return cls._renewed("callable", lambda: _called(value))
        raise ValueError(
            "a secret is a text, { env = ... }, { file = ... }, { keyring = ... } or"
            " { command = ... }"
        )

    @classmethod
    def _renewed(cls, origin: str, get: Callable[[], Credential]) -> Secret:
        renewing = Renewing(get)
        return cls(origin, renewing.value, renewing)

    def reveal(self) -> str:
        """The value.

        :raises ConfigError: where its origin does not have it.
        """
        value = self._read()
        with contextlib.suppress(ValueError):
            self._given_out.remove(value)
        self._given_out.append(value)
        return value

    def refused(self, value: str) -> bool:
        """Tells that a value was refused, and whether ``reveal`` has another one now.

        :raises ConfigError: where its origin has none.
        """
        if self._renewing is not None:
            self._renewing.refused(value)
        return self.reveal() != value

    @staticmethod
    def any_refused(used: Mapping[str, str], secrets: Mapping[str, Secret]) -> bool:
        """``refused`` of values that were used together; whether any has another now."""
        # All of them are told, whatever one says.
        answers = [secrets[k].refused(v) for k, v in used.items() if k in secrets]
        return any(answers)

    def renew(self) -> bool:
        """``refused`` of the value that was given out last."""
        return bool(self._given_out) and self.refused(self._given_out[-1])

    def seconds_left(self) -> float | None:
        """Of the life of the value at hand; None where its end is not known."""
        return self._renewing.seconds_left() if self._renewing is not None else None

    def hidden(self) -> list[str]:
        """The values that a message might quote: those that were given out lately."""
        if not self._given_out:
            self.reveal()
        return list(self._given_out)

    def __repr__(self) -> str:
        return f"<secret from {self._origin}>"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls.of, serialization=core_schema.plain_serializer_function_ser_schema(repr)
        )


def _called(function: Callable[[], Any]) -> Credential:
    try:
        value = function()
    except ConfigError:
        raise
    except Exception as error:
        # Its message could quote what it was working on.
        raise ConfigError(f"the secret's callable failed: {type(error).__name__}") from None
    if isinstance(value, str):
        return Credential(value)
    if not isinstance(value, Credential) or not isinstance(value.value, str):
        raise ConfigError(
            f"the secret's callable gave a {type(value).__name__}",
            hint="it must give a str, or a batuta_sql.Credential",
        )
    return value


def _words(target: Any) -> list[str]:
    """The words of a command.

    :raises ValueError: where there are none.
    """
    if isinstance(target, str):
        words = shlex.split(target)
    elif isinstance(target, list | tuple) and all(isinstance(w, str) for w in target):
        words = list(target)
    else:
        words = []
    if not words:
        raise ValueError("a secret's command is a text or a list of texts, and not empty")
    return words


def _looked_up(form: str, target: str) -> str:
    match form:
        case "env":
            value = os.environ.get(target)
            if value is None:
                raise ConfigError(
                    f"the environment variable {target} is not set", hint=f"export {target}=..."
                )
            return value
        case "file":
            try:
                return Path(target).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
            except OSError as error:
                raise ConfigError(
                    f"the secret's file {target} cannot be read: {error.strerror}",
                    hint="write the secret into that file, readable by you alone",
                ) from None
            except UnicodeDecodeError:
                raise ConfigError(f"the secret's file {target} is not UTF-8") from None
    return _from_keyring(target)


def _from_keyring(target: str) -> str:
    try:
        import keyring
    except ImportError:
        raise ConfigError(
            "keyring is not installed", hint="pip install 'batuta-sql[keyring]'"
        ) from None
    service, _, user = target.partition("/")
    try:
        value = keyring.get_password(service, user)
    except Exception as error:
        raise ConfigError(
            f'the keyring cannot be asked for "{target}": {type(error).__name__}',
            hint="unlock or install a keyring, or give the secret as { env = ... }",
        ) from None
    if value is None:
        raise ConfigError(
            f'the keyring has no password for "{target}"',
            hint=f"keyring set {service} {user}",
        )
    return str(value)


def _from_command(words: list[str]) -> str:
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the secret's command {words[0]} failed: {type(error).__name__}",
            hint="run it by hand: it must print the secret and nothing else",
        ) from None
    if done.returncode != 0:
        raise ConfigError(
            f"the secret's command {words[0]} ended with status {done.returncode}",
            hint="run it by hand: it must print the secret and nothing else",
        )
    return done.stdout.rstrip("\r\n")


_SECRET_KEY = re.compile(
    r"password|passwd|secret|token|credential|key|signature|sas", re.IGNORECASE
)


def is_secret(key: str, value: Any) -> bool:
    """Whether an option is a secret by its name, or by the form of its value."""
    if isinstance(value, Mapping):
        return len(value) == 1 and next(iter(value)) in _FORMS
    if isinstance(value, str):
        return is_secret_key(key)
    return isinstance(value, Secret | CredentialProvider)


def is_secret_key(key: str) -> bool:
    """Whether an option's name says that its value is a secret."""
    return _SECRET_KEY.search(key) is not None


_URI_PASSWORD = re.compile(
    # A password may hold an @ that should have been quoted: the last one before the path ends it.
    r"(?P<head>\w[\w+.-]*://[^:/?#@\s]*:)(?P<password>(?:[^@\s]|@(?=[^\s/?]*@))+)(?P<tail>@)"
)
_KEY_PASSWORD = re.compile(
    r"(?P<head>\b[\w.-]*(?:password|passwd|pwd|token|secret|secret_key|access_key|api_?key)\s*=\s*)"
    r"(?P<password>'[^']*'|[^\s&;]+)",
    re.IGNORECASE,
)


def without_passwords(text: str) -> str:
    """``text`` with passwords in URIs and ``password=...`` hidden."""
    text = _URI_PASSWORD.sub(lambda m: m["head"] + HIDDEN + m["tail"], text)
    return _KEY_PASSWORD.sub(lambda m: m["head"] + HIDDEN, text)


def redact(text: str, secrets: Iterable[str]) -> str:
    """``text`` without the given secret values, in their plain and their URL-quoted form."""
    quote = urllib.parse.quote
    for secret in sorted({s for s in secrets if s}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
        quoted = {quote(secret, safe=""), quote(secret), urllib.parse.quote_plus(secret)}
        for form in sorted(quoted - {secret}, key=len, reverse=True):
            # %2F and %2f are the same; letters that are not quoted are not.
            pattern = re.sub(r"%[0-9A-F]{2}", lambda m: f"(?i:{m[0]})", re.escape(form))
            text = re.sub(pattern, HIDDEN, text)
    return without_passwords(text)


def shown(name: str, value: Any) -> Any:
    """What a repr may show of a setting."""
    match value:
        case str() if is_secret_key(name):
            return HIDDEN
        case str():
            return without_passwords(value)
        case dict():
            return {k: shown(str(k), v) for k, v in value.items()}
        case list() | tuple():
            return type(value)(shown(name, v) for v in value)
    return value
