"""The commands that show plans, the virtual catalog and the state of things."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batuta_sql.guards.egress import abilities
from tests.cli.conftest import Command

JOIN = "SELECT count(*) FROM pub.beer b JOIN delta.visits v ON v.beer = b.id"


def loaded(done: subprocess.CompletedProcess[bytes]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_explain(batuta: Command) -> None:
    assert "Exchange pub" in batuta("explain", JOIN).stdout.decode()
    plan = loaded(batuta("explain", JOIN, "--json"))
    assert {f["source"] for f in plan["fragments"]} == {"pub", "delta"}
    assert plan["residual"].startswith("SELECT")


def test_explain_after_a_run(batuta: Command) -> None:
    assert "-- took 3 rows, " in batuta("explain", "--analyze", JOIN).stdout.decode()
    fragments = loaded(batuta("explain", "--analyze", JOIN, "--json"))["fragments"]
    assert all(f["rows"] > 0 and f["bytes"] > 0 and f["seconds"] > 0 for f in fragments)


def test_explain_as_a_page(batuta: Command, tmp_path: Path) -> None:
    """What a browser makes of it: tests/planpage."""
    file = tmp_path / "plan.html"
    done = batuta("explain", "--analyze", "--html", str(file), JOIN)
    assert done.stdout.decode() == f"the plan is in {file}\n"
    page = file.read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "Fetches over time" in page
    missing = batuta("explain", JOIN, "--html", str(tmp_path / "none" / "plan.html"))
    assert missing.returncode == 1
    assert b"none/plan.html" in missing.stderr


def test_explain_runs_nothing_that_is_not_agreed_to(config: Path, batuta: Command) -> None:
    """Without a terminal nobody can be asked; a limit of the command line holds."""
    priced = config.with_name("priced.toml")
    text = config.read_text().replace(
        'kind = "sqlite"', 'kind = "sqlite"\npricing = {usd_per_tb_scanned = 1e9}'
    )
    priced.write_text(text)
    refused = batuta("explain", "--analyze", "--max-cost", "0.000001", JOIN, config=priced)
    assert refused.returncode == 3, refused
    assert batuta("explain", JOIN, config=priced).returncode == 0


def test_estimate(batuta: Command) -> None:
    text = batuta("estimate", JOIN).stdout.decode()
    assert "rows delivered:  7\n" in text
    assert "no price is known" in text
    found = loaded(batuta("estimate", "SELECT * FROM lake.shares", "--json"))
    assert found["rows"] == 2
    assert found["usd"] is None
    assert len(found["fragments"]) == 1


def test_tree(batuta: Command) -> None:
    text = batuta("tree").stdout.decode()
    assert "duck\n  main\n    numbers\n" in text
    (duck,) = loaded(batuta("tree", "duck", "--json"))
    assert duck["tables"] == [
        {"name": "duck.main.numbers", "path": ["main", "numbers"], "kind": "table"}
    ]
    wrong = batuta("tree", "dukc")
    assert wrong.returncode == 1
    assert "duck" in wrong.stderr.decode()


def test_describe(batuta: Command) -> None:
    assert "DECIMAL(6,2)" in batuta("describe", "pub.beer").stdout.decode()
    columns = loaded(batuta("describe", "pub.beer", "--json"))
    assert [c["column_name"] for c in columns] == ["id", "name", "price", "since"]


def test_search(batuta: Command) -> None:
    found = loaded(batuta("search", "BEER", "--json"))
    assert {(f["table"], f["column"]) for f in found} == {
        ("pub.beer", None),
        ("delta.visits", "beer"),
    }
    assert "no table or column" in batuta("search", "zebra").stdout.decode()


def test_doctor(batuta: Command, config: Path) -> None:
    text = batuta("doctor").stdout.decode()
    assert str(config) in text
    assert "pub (sqlite, local: declared): 1 table" in text
    state = loaded(batuta("doctor", "--json"))
    assert state["packages"]["duckdb"]
    assert [s["tables"] for s in state["sources"]] == [1, 1, 1, 1]


def test_a_source_that_does_not_answer_is_shown_and_is_an_error(
    batuta: Command, tmp_path: Path, config: Path
) -> None:
    broken = tmp_path / "batuta.toml"
    gone = f'\n[sources.gone]\nkind = "sqlite"\npath = "{tmp_path}/gone.sqlite"\n'
    broken.write_text(config.read_text() + gone)
    for command in (["tree"], ["search", "beer"], ["doctor"]):
        done = batuta(*command, config=broken)
        assert done.returncode == 1
        assert "beer" in done.stdout.decode() or command == ["doctor"]
        assert "there is no file" in (done.stdout + done.stderr).decode()


def test_help_and_version(batuta: Command) -> None:
    assert "doctor" in batuta("--help").stdout.decode()
    assert "--max-cost" in batuta("query", "--help").stdout.decode()
    assert batuta("--version").stdout.startswith(b"batuta-sql ")


def test_help_does_not_wait_for_drivers() -> None:
    code = (
        "import sys; from batuta_sql.cli import main; main(['--help'])\n"
        "late = {'deltalake', 'adbc_driver_postgresql', 'pandas', 'polars'} & set(sys.modules)\n"
        "assert not late, late"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(
    not abilities()[0].ok and "BATUTA_REQUIRE_SEAL" not in os.environ,
    reason="under a tier the command runs sealed, and this machine cannot make a seal",
)
def test_tree_and_doctor_say_which_sources_the_tier_allows(tmp_path: Path, batuta: Command) -> None:
    (tmp_path / "lake").mkdir()
    config = tmp_path / "batuta.toml"
    config.write_text(
        f"""
tier = "hybrid_sovereign"
[sources.near]
kind = "files"
path = "{tmp_path}/lake"
[sources.far]
kind = "postgresql"
uri = "postgresql://u@db.example.com/d"
"""
    )
    tree = batuta("tree", config=config)
    assert tree.returncode == 0
    assert tree.stdout.decode() == "near\nfar (not allowed by the tier)\n"
    doctor = batuta("doctor", config=config)
    assert doctor.returncode == 0
    told = doctor.stdout.decode()
    assert "tier:     hybrid_sovereign" in told
    assert (
        "far (postgresql, public: db.example.com may be anywhere): not allowed by the tier" in told
    )
    query = batuta("query", "SELECT * FROM far.public.t", config=config)
    assert query.returncode == 4
    assert "does not allow a source that is public" in query.stderr.decode()
