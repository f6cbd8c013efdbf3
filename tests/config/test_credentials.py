"""Credentials that end: renewed ahead, by one for all, and after a refusal."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import batuta_sql
from batuta_sql import Credential, CredentialProvider
from batuta_sql.config import load_settings
from batuta_sql.secrets import Secret


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


class Issuer:
    """Gives ``token-1``, ``token-2``, ... that live for some seconds."""

    def __init__(self, lives: float | None, takes: float = 0.0) -> None:
        self.lives = lives
        self.takes = takes
        self.asked = 0
        self.at_once = self.most_at_once = 0
        self.fails = False
        self.ends: dict[str, datetime] = {}

    def get(self) -> Credential:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            time.sleep(self.takes)
            self.asked += 1
            if self.fails:
                raise RuntimeError("token-0: the issuer is away")
            value, ends = f"token-{self.asked}", in_seconds(self.lives or 0)
            self.ends[value] = ends
            return Credential(value, ends if self.lives is not None else None)
        finally:
            self.at_once -= 1


def waits(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not what():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_provider_is_an_object_or_a_callable() -> None:
    issuer = Issuer(60)
    assert isinstance(issuer, CredentialProvider)
    for given in (issuer, issuer.get, lambda: "token-3"):
        config = {"sources": {"s": {"kind": "postgresql", "host": "h", "password": given}}}
        assert load_settings(config).sources["s"].password.reveal().startswith("token-")


def test_one_that_is_good_is_not_asked_for_again() -> None:
    issuer = Issuer(60)
    secret = Secret.of(issuer)
    assert {secret.reveal() for _ in range(100)} == {"token-1"}
    assert issuer.asked == 1
    assert 50 < (secret.seconds_left() or 0) <= 60


def test_one_without_an_end_is_asked_for_each_time() -> None:
    secret = Secret.of(Issuer(None))
    assert [secret.reveal() for _ in range(3)] == ["token-1", "token-2", "token-3"]
    assert secret.seconds_left() is None


@pytest.mark.parametrize("lives", [60, None])
def test_many_who_need_one_at_once_wait_for_one_request(lives: float | None) -> None:
    issuer = Issuer(lives, takes=0.3)
    secret = Secret.of(issuer)
    with ThreadPoolExecutor(20) as pool:
        given = set(pool.map(lambda _: secret.reveal(), range(20)))
    assert (given, issuer.asked, issuer.most_at_once) == ({"token-1"}, 1, 1)


def test_it_is_renewed_before_its_end_and_nobody_waits_for_that() -> None:
    issuer = Issuer(2)
    secret = Secret.of(issuer)
    secret.reveal()
    issuer.takes = 0.5
    time.sleep(1.1)
    started = time.monotonic()
    assert secret.reveal() == "token-1"
    assert time.monotonic() - started < 0.4
    waits(lambda: issuer.asked == 2)
    waits(lambda: secret.reveal() == "token-2")


def test_none_is_ever_given_after_its_end() -> None:
    issuer = Issuer(0.2, takes=0.01)
    secret = Secret.of(issuer)

    def worker(_: int) -> int:
        late = 0
        until = time.monotonic() + 2
        while time.monotonic() < until:
            value = secret.reveal()
            # A thread may have been put aside between the two lines, on a busy machine.
            late += issuer.ends[value] < datetime.now(UTC) - timedelta(seconds=0.1)
            time.sleep(0.002)
        return late

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(worker, range(8))) == 0
    assert issuer.asked >= 10
    assert issuer.most_at_once == 1


def test_of_many_refusals_of_one_value_one_counts() -> None:
    issuer = Issuer(60, takes=0.1)
    secret = Secret.of(issuer)
    first = secret.reveal()
    with ThreadPoolExecutor(10) as pool:
        assert all(pool.map(lambda _: secret.refused(first), range(10)))
    assert (issuer.asked, secret.reveal()) == (2, "token-2")


def test_a_value_that_is_refused_and_stays_is_told() -> None:
    assert not Secret.of("fixed").refused("fixed")
    assert not Secret.of(lambda: "fixed").refused("fixed")
    same = Secret.of(lambda: Credential("fixed", in_seconds(60)))
    assert not same.refused(same.reveal())


def test_an_issuer_that_fails_is_no_matter_while_what_was_given_is_good() -> None:
    issuer = Issuer(1.0)
    secret = Secret.of(issuer)
    secret.reveal()
    issuer.fails = True
    time.sleep(0.6)
    assert secret.reveal() == "token-1"
    waits(lambda: issuer.asked == 2)
    # Not at each call: an issuer that is in trouble is left alone for a moment.
    assert {secret.reveal() for _ in range(50)} == {"token-1"}
    assert issuer.asked <= 3
    time.sleep(0.5)
    with pytest.raises(batuta_sql.ConfigError, match="RuntimeError") as caught:
        secret.reveal()
    assert "token-0" not in str(caught.value)
    issuer.fails = False
    assert secret.reveal().startswith("token-")


def test_all_who_wait_hear_of_a_failure() -> None:
    issuer = Issuer(60, takes=0.2)
    issuer.fails = True
    secret = Secret.of(issuer)

    def ask(_: int) -> type[BaseException]:
        with pytest.raises(batuta_sql.ConfigError) as caught:
            secret.reveal()
        return caught.type

    with ThreadPoolExecutor(5) as pool:
        assert set(pool.map(ask, range(5))) == {batuta_sql.ConfigError}
    assert issuer.asked == 1


def test_a_clock_that_is_set_changes_no_life(monkeypatch: pytest.MonkeyPatch) -> None:
    from batuta_sql import credentials

    secret = Secret.of(Issuer(60))
    secret.reveal()

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(hours=1)

    monkeypatch.setattr(credentials, "datetime", Later)
    assert 50 < (secret.seconds_left() or 0) <= 60
    assert secret.reveal() == "token-1"


def test_an_end_without_a_time_zone_is_an_error() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Credential("value", datetime(2030, 1, 1))


def test_nothing_shows_the_value() -> None:
    credential = Credential("token-1", in_seconds(60))
    assert "token-1" not in repr(credential)
    assert "token-1" not in repr(Secret.of(lambda: credential))


def test_what_was_given_out_before_is_hidden_too() -> None:
    """A driver may quote the token of an hour ago."""
    config = {"sources": {"s": {"kind": "postgresql", "host": "h", "password": Issuer(None)}}}
    settings = load_settings(config).sources["s"]
    for _ in range(3):
        settings.password.reveal()
    assert {"token-1", "token-2", "token-3"} <= set(settings.secrets())


# --- commands ----------------------------------------------------------------------------------


@pytest.fixture
def printing(tmp_path: Path) -> Callable[[str], Secret]:
    """A command that prints a text, and writes down that it ran."""
    runs = tmp_path / "runs"

    def make(text: str) -> Secret:
        program = f"open({str(runs)!r}, 'a').write('x'); print({text!r})"
        return Secret.of({"command": [sys.executable, "-c", program]})

    make.runs = lambda: len(runs.read_text())  # type: ignore[attr-defined]
    return make


@pytest.mark.parametrize(
    "ends",
    [
        lambda: {"expiry": in_seconds(3600).isoformat()},
        lambda: {"expiry": in_seconds(3600).strftime("%Y-%m-%dT%H:%M:%SZ")},
        lambda: {"expires_on": int(time.time()) + 3600},
        lambda: {"expires_in": 3600, "token_type": "Bearer"},
        lambda: {"expirationTimestamp": in_seconds(3600).isoformat()},
    ],
    ids=["offset", "Z", "epoch", "in", "exec"],
)
def test_a_command_may_say_until_when(
    printing: Callable[[str], Secret], ends: Callable[[], dict[str, Any]]
) -> None:
    secret = printing(json.dumps({"access_token": "token-7", **ends()}))
    assert [secret.reveal() for _ in range(3)] == ["token-7"] * 3
    assert 3500 < (secret.seconds_left() or 0) <= 3600
    assert printing.runs() == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text",
    [
        "token-7",
        '{"access_token": "token-7"}',
        '{"access_token": "token-7", "expiry": "soon"}',
        '{"access_token": "token-7", "expiry": "2030-01-01T00:00:00"}',
        '{"type": "service_account", "private_key": "k", "expires_in": 3}',
        '{"not json',
    ],
)
def test_any_other_text_is_the_secret_itself(printing: Callable[[str], Secret], text: str) -> None:
    secret = printing(text)
    assert [secret.reveal() for _ in range(2)] == [text] * 2
    assert secret.seconds_left() is None
    assert printing.runs() == 2  # type: ignore[attr-defined]


def test_it_may_be_used_by_many_threads_while_it_is_renewed() -> None:
    issuer = Issuer(0.05)
    secret = Secret.of(issuer)
    failures: list[BaseException] = []

    def worker() -> None:
        try:
            for _ in range(200):
                value = secret.reveal()
                if int(value[-1]) % 5 == 0:
                    secret.refused(value)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=worker) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures
    assert issuer.most_at_once == 1
