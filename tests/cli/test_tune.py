"""``batuta-sql tune``: what it says before, what it shows, and that nothing priced runs unasked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from batuta_sql.demo.postgres_server import PostgresServer
from tests.cli.conftest import Command


@pytest.fixture
def config(postgres: PostgresServer, tmp_path: Path) -> Iterator[Path]:
    with postgres.database("tune") as uri:
        path = tmp_path / "batuta.toml"
        path.write_text(
            f'profile_file = "{tmp_path}/profile.json"\n'
            f'[sources.crm]\nkind = "postgresql"\nuri = "{uri}"\nlocality = "local"\n'
        )
        yield path


def test_it_says_what_it_takes_and_what_it_found(batuta: Command, config: Path) -> None:
    first = batuta("tune", config=config)
    assert first.returncode == 0, first.stderr
    assert b"crm: at most" in first.stderr
    assert b"free" in first.stderr
    assert b"grouped at the source" in first.stdout
    assert b"before" not in first.stdout
    second = batuta("tune", "crm", "--json", config=config)
    (found,) = json.loads(second.stdout)
    assert found["source"] == "crm"
    assert found["before"]["values_per_second"] > 0
    assert found["now"]["measured"] > found["before"]["measured"]


def test_what_has_a_price_does_not_run_unasked(
    batuta: Command, config: Path, tmp_path: Path
) -> None:
    with config.open("a") as file:
        file.write("pricing = { usd_per_gb_egress = 9.0 }\n")
    refused = batuta("tune", config=config)
    assert refused.returncode != 0
    assert b"at most $" in refused.stderr
    assert b"--yes" in refused.stderr
    assert not (tmp_path / "profile.json").exists()
    assert batuta("tune", "--yes", config=config).returncode == 0
    assert (tmp_path / "profile.json").exists()


def test_sources_that_cannot_be_measured(batuta: Command, tmp_path: Path) -> None:
    config = tmp_path / "batuta.toml"
    config.write_text(f'[sources.lake]\nkind = "files"\npath = "{tmp_path}"\n')
    none = batuta("tune", config=config)
    assert none.returncode == 2
    assert b"can be measured" in none.stderr
