"""Secrets: where they come from, and that they do not come out."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import batuta_sql
from batuta_sql.config import load_settings
from batuta_sql.secrets import HIDDEN, Secret, redact, without_passwords

SECRET = "correct horse battery staple"


def settings_with(password: Any) -> Any:
    return load_settings(
        {"sources": {"s": {"kind": "postgresql", "host": "h", "password": password}}}
    ).sources["s"]


def forms(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("BATUTA_TEST_SECRET", SECRET)
    (folder / "secret").write_text(SECRET + "\n")
    script = f"print({SECRET!r})"
    return {
        "text": SECRET,
        "env": {"env": "BATUTA_TEST_SECRET"},
        "file": {"file": str(folder / "secret")},
        "command": {"command": [sys.executable, "-c", script]},
        "callable": lambda: SECRET,
    }


@pytest.mark.parametrize("form", ["text", "env", "file", "command", "callable"])
def test_every_form_gives_the_value_and_shows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    settings = settings_with(forms(tmp_path, monkeypatch)[form])
    assert settings.password.reveal() == SECRET
    for shown in (
        repr(settings),
        str(settings),
        str(settings.password),
        f"{settings.password}",
        repr([settings.password]),
        str(settings.model_dump()),
        settings.model_dump_json(),
    ):
        assert SECRET not in shown
    with pytest.raises(TypeError):
        pickle.dumps(settings.password)
    with pytest.raises(TypeError):
        copy.deepcopy(settings.password)


def test_it_is_read_anew_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_with({"env": "BATUTA_TEST_SECRET"})
    for value in ("one", "two"):
        monkeypatch.setenv("BATUTA_TEST_SECRET", value)
        assert settings.password.reveal() == value


def test_nothing_is_read_before_it_is_needed() -> None:
    calls: list[int] = []

    def password() -> str:
        calls.append(1)
        return SECRET

    with batuta_sql.connect(
        {"sources": {"s": {"kind": "postgresql", "host": "h", "password": password}}}
    ) as connection:
        connection.execute("SELECT 1 AS one").fetchall()
        repr(connection)
    assert not calls


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"env": "BATUTA_NOT_SET"}, "BATUTA_NOT_SET is not set"),
        ({"file": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"command": [sys.executable, "-c", f"raise SystemExit({SECRET!r})"]}, "status 1"),
        ({"command": "batuta-no-such-command --now"}, "batuta-no-such-command"),
        ({"command": [sys.executable, "-c", "import os; os.write(1, b'\\xff')"]}, "UnicodeDecode"),
        (lambda: None, "NoneType"),
        (lambda: [SECRET], "list"),
        (lambda: int(SECRET), "ValueError"),
    ],
)
def test_a_secret_that_is_not_there_says_where_it_looked(form: Any, words: str) -> None:
    with pytest.raises(batuta_sql.ConfigError) as caught:
        settings_with(form).password.reveal()
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "form",
    [
        1,
        ["a"],
        {},
        {"env": 1},
        {"plain": SECRET},
        {"env": "A", "file": "B"},
        {"command": ""},
        {"command": []},
        {"command": 5},
        {"command": [5]},
        {"command": "a 'b"},
    ],
)
def test_other_forms_are_refused_without_being_shown(form: Any) -> None:
    with pytest.raises(batuta_sql.ConfigError, match=r"sources\.s\.password") as caught:
        settings_with(form)
    assert SECRET not in str(caught.value)


passwords = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=4)


@given(passwords, st.text(), st.text())
def test_redaction_leaves_no_trace(secret: str, before: str, after: str) -> None:
    from urllib.parse import quote

    for form in (secret, quote(secret, safe=""), quote(secret)):
        text = redact(f"{before}{form}{after}", [secret])
        if secret not in HIDDEN and secret not in before + HIDDEN + after:
            assert secret not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://app:hush@h/d", f"postgresql://app:{HIDDEN}@h/d"),
        ("postgresql://app:a@b@h/d", f"postgresql://app:{HIDDEN}@h/d"),
        ("postgresql://app@h/d", "postgresql://app@h/d"),
        ("host=h password=hush user=u", f"host=h password={HIDDEN} user=u"),
        ("host=h password='hu sh' user=u", f"host=h password={HIDDEN} user=u"),
        ("https://h/x?token=hush&a=1", f"https://h/x?token={HIDDEN}&a=1"),
        ("host=h sslpassword=hush user=u", f"host=h sslpassword={HIDDEN} user=u"),
        ("AWS_SECRET_ACCESS_KEY=hush", f"AWS_SECRET_ACCESS_KEY={HIDDEN}"),
        ("https://h/x?access_token=hush&a=1", f"https://h/x?access_token={HIDDEN}&a=1"),
        ("nothing to hide: a=b", "nothing to hide: a=b"),
    ],
)
def test_passwords_are_found_by_their_looks(text: str, shown: str) -> None:
    assert without_passwords(text) == shown


def test_a_secret_is_itself() -> None:
    secret = Secret.of(SECRET)
    assert Secret.of(secret) is secret


def test_a_file_of_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xff" + SECRET.encode())
    with pytest.raises(batuta_sql.ConfigError, match="not UTF-8") as caught:
        settings_with({"file": str(tmp_path / "secret")}).password.reveal()
    assert SECRET not in str(caught.value)


def test_a_keyring_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    with pytest.raises(batuta_sql.ConfigError, match="keyring") as caught:
        settings_with({"keyring": "service/user"}).password.reveal()
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "secret"),
    [("a%2fb", "a/b"), ("a%2Fb", "a/b"), ("a+b%26c", "a b&c"), ("%c3%a4.x", "ä.x")],
)
def test_quoted_forms_are_found_in_either_case(text: str, secret: str) -> None:
    assert redact(f"x {text} y", [secret]) == f"x {HIDDEN} y"


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "files", "tables": {"t": f"s3://key:{'hush'}@bucket/x"}},
        {"kind": "delta", "path": "x", "storage_options": {"aws_secret_access_key": "hush"}},
        {"kind": "iceberg", "catalog": {"uri": "http://u:hush@h", "token": "hush"}},
        {"kind": "postgresql", "uri": "postgresql://u:hush@h/d"},
        {"kind": "snowflake", "password": "hush", "private_key": "hush", "token": "hush"},
        {"kind": "databricks", "client_secret": "hush", "token": "hush"},
    ],
    ids=lambda s: s["kind"],
)
def test_no_repr_shows_a_secret(settings: Any) -> None:
    assert "hush" not in repr(load_settings({"sources": {"x": settings}}))
    assert "hush" not in str(load_settings({"sources": {"x": settings}}))


def test_driver_options_may_be_numbers_and_truth_values() -> None:
    options = {"allow_http": True, "max_retries": 3, "aws_secret_access_key": "hushhush"}
    delta = load_settings(
        {"sources": {"x": {"kind": "delta", "path": "x", "storage_options": options}}}
    ).sources["x"]
    assert {k: v.reveal() for k, v in delta.storage_options.items()} == {
        "allow_http": "true",
        "max_retries": "3",
        "aws_secret_access_key": "hushhush",
    }
    assert delta.secrets() == ["hushhush"]
