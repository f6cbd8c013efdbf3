"""The page about the server: its configuration is served, and its client gets what it says."""

from __future__ import annotations

import re
import socket
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import pytest

from batuta_sql.config import ServedUserSettings, ServeSettings, load_settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def block(language: str) -> str:
    (text,) = [t for found, t in BLOCK.findall(PAGE) if found == language]
    return text


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.sqlite")) as shop:
        shop.execute("CREATE TABLE customer (id INTEGER, name TEXT)")
        shop.execute("INSERT INTO customer VALUES (1, 'Ann'), (2, 'Bo')")
        shop.commit()
    (tmp_path / "token").write_text("a long token")
    settings = block("toml").replace("/etc/batuta/dashboard.token", str(tmp_path / "token"))
    (tmp_path / "batuta.toml").write_text(settings)
    monkeypatch.setenv("ANN_PASSWORD", "hunter2")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command, promised = block("console").splitlines()
    usual, port = str(ServeSettings().port), str(free_port())
    assert command.startswith("$ batuta-sql ")
    words = [*command.removeprefix("$ batuta-sql ").split(), "--port", port]
    process = subprocess.Popen(
        [sys.executable, "-m", "batuta_sql", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().rstrip() == promised.replace(usual, port)
        example = block("python").replace(usual, port)
        assert "hunter2" in example
        subprocess.run([sys.executable, "-c", example], check=True, timeout=60)
    finally:
        process.terminate()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
    assert process.returncode == 0


def test_the_configuration_is_valid() -> None:
    assert load_settings(tomllib.loads(block("toml"))).serve.users.keys() == {"ann", "dashboard"}


def test_every_key_is_documented() -> None:
    keys = {*ServeSettings.model_fields, *ServedUserSettings.model_fields} - {"users"}
    assert [k for k in sorted(keys) if f"`{k}`" not in PAGE and f"\n{k} = " not in PAGE] == []


def test_the_defaults_are_those_that_are_told() -> None:
    told = ServeSettings()
    assert f"| {told.queue_length}, {told.queue_seconds:g} |" in PAGE
    assert f"| {told.idle_seconds:g} |" in PAGE
    assert f"| {told.ticket_seconds:g} |" in PAGE
    assert f"`token_hours` ({told.token_hours:g})" in PAGE
    assert f"{told.host}, {told.port} |" in PAGE
