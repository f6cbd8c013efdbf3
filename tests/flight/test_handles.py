"""Handles and tokens: whose they are, how long they live, how many there may be."""

from __future__ import annotations

import time

import pytest

from batuta_sql import ConfigError, ProgrammingError
from batuta_sql.config import ServedUserSettings
from batuta_sql.flight.authentication import Authenticator
from batuta_sql.flight.handles import Handles


def handles(seconds: float = 60.0) -> Handles[str]:
    return Handles(seconds, "it is not there", "ask again")


def test_a_handle_is_good_for_its_user_until_it_is_taken() -> None:
    kept = handles()
    handle = kept.add("ann", "a thing")
    for stranger in ("bo", ""):
        with pytest.raises(ProgrammingError, match="it is not there"):
            kept.take(stranger, handle)
    assert kept.get("ann", handle) == "a thing"
    assert kept.take("ann", handle) == "a thing"
    with pytest.raises(ProgrammingError, match="it is not there"):
        kept.take("ann", handle)


def test_a_handle_ends() -> None:
    kept = handles(seconds=0.05)
    handle = kept.add("ann", "a thing")
    time.sleep(0.1)
    with pytest.raises(ProgrammingError):
        kept.get("ann", handle)


def test_a_users_oldest_goes_and_nobody_elses() -> None:
    kept = handles()
    of_bo = kept.add("bo", "bo's")
    mine = [kept.add("ann", str(n)) for n in range(1001)]
    with pytest.raises(ProgrammingError):
        kept.get("ann", mine[0])
    assert kept.get("ann", mine[1]) == "1"
    assert kept.get("ann", mine[-1]) == "1000"
    assert kept.get("bo", of_bo) == "bo's"


def test_handles_do_not_repeat() -> None:
    kept = handles()
    assert len({kept.add("ann", "x") for _ in range(500)}) == 500


def authenticator(**users: dict[str, str]) -> Authenticator:
    told = {n: ServedUserSettings.model_validate(s) for n, s in users.items()}
    return Authenticator(told, 60.0)


@pytest.mark.parametrize("count", [1, 2, 999, 1000])
def test_none_goes_before_there_are_too_many(count: int) -> None:
    kept = handles()
    mine = [kept.add("ann", str(n)) for n in range(count)]
    assert [kept.get("ann", h) for h in mine] == [str(n) for n in range(count)]


def test_tokens_are_issued_and_forgotten() -> None:
    gate = authenticator(ann={"password": "p"}, bo={"password": "p"})
    of_bo = gate.issue("bo")
    mine = [gate.issue("ann") for _ in range(1001)]
    assert gate.user_of(f"Bearer {mine[0]}") == (None, False)
    assert gate.user_of(f"Bearer {mine[1]}") == ("ann", False)
    assert gate.user_of(f"bearer {mine[-1]}") == ("ann", False)
    assert gate.user_of(f"Bearer {of_bo}") == ("bo", False)


def test_a_user_with_a_token_alone_has_no_password() -> None:
    gate = authenticator(dash={"token": "t"})
    assert gate.user_of("Bearer t") == ("dash", False)
    for text in ("Basic ZGFzaDo=", "Basic ZGFzaDp0", "Bearer ", "Bearer", ""):
        assert gate.user_of(text)[0] is None


def test_passwords_may_have_colons_and_letters_of_all_kinds() -> None:
    import base64

    gate = authenticator(ann={"password": "a:b ☕"})
    encoded = base64.b64encode("ann:a:b ☕".encode()).decode()
    assert gate.user_of(f"Basic {encoded}") == ("ann", True)
    assert gate.user_of(f"Basic {encoded.rstrip('=')}") == ("ann", True)


def test_an_empty_secret_is_no_secret() -> None:
    with pytest.raises(ConfigError, match=r"serve\.users\.ann\.password is empty"):
        authenticator(ann={"password": ""})
