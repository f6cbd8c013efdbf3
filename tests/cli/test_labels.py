"""Labels on the command line: what people see, exit statuses, files that keep them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import Command

MIXED = "SELECT c.name, o.people FROM crm.customer c JOIN open.countries o ON c.country = o.code"


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    (tmp_path / "crm").mkdir()
    (tmp_path / "open").mkdir()
    customers = pa.table({"name": ["Ann"], "email": ["a@x"], "country": ["de"]})
    pq.write_table(customers, tmp_path / "crm" / "customer.parquet")
    countries = pa.table({"code": ["de"], "people": [84]})
    pq.write_table(countries, tmp_path / "open" / "countries.parquet")
    config = tmp_path / "batuta.toml"
    config.write_text(
        f"""
[labels]
audit_log = "{tmp_path}/audit.jsonl"
[[labels.declassify]]
columns = ["crm.customer.name"]
labels = ["pii"]
who = "DPO"
why = "published anyway"
until = 2999-12-31

[sources.crm]
kind = "files"
path = "{tmp_path}/crm"
[sources.crm.tables.customer]
labels = ["tier:sovereign"]
[sources.crm.tables.customer.columns]
email = {{ labels = ["pii"] }}
name = {{ labels = ["pii"] }}

[sources.open]
kind = "files"
path = "{tmp_path}/open"
labels = ["origin:public"]
"""
    )
    return config


def test_explain_shows_where_each_label_comes_from(labelled: Path, batuta: Command) -> None:
    sql = "SELECT email, 1 AS one FROM crm.customer WHERE country = 'de'"
    place = 'sources.crm.tables."customer"'
    assert batuta("explain", "--labels", sql, config=labelled).stdout.decode() == (
        "email\n"
        "  pii (direct)\n"
        f"    from crm.customer.email: {place}.columns.email\n"
        "  tier:sovereign (direct)\n"
        f"    from crm.customer.email: {place}.labels\n"
        "  tier:sovereign (indirect)\n"
        f"    from crm.customer.country: {place}.labels\n"
        "one\n"
        "  tier:sovereign (indirect)\n"
        f"    from crm.customer: {place}.labels\n"
        f"    from crm.customer.country: {place}.labels\n"
    )
    plan = json.loads(batuta("explain", "--json", sql, config=labelled).stdout)
    assert plan["labels"][0] == {
        "column": "email",
        "direct": ["pii", "tier:sovereign"],
        "indirect": ["tier:sovereign"],
    }
    assert plan["lineage"][1] == {
        "column": "one",
        "direct": [],
        "indirect": ["crm.customer", "crm.customer.country"],
    }


def test_a_query_that_mixes_is_refused_with_status_4(labelled: Path, batuta: Command) -> None:
    done = batuta("query", MIXED, config=labelled)
    assert (done.returncode, done.stdout) == (4, b"")
    assert done.stderr.decode().startswith(
        "data labelled origin:public would be mixed with data labelled tier:sovereign; the query"
        " reads crm, open\nHint: see where each label comes from: batuta-sql explain --labels"
    )


def test_where_it_only_warns_the_answer_comes(labelled: Path, batuta: Command) -> None:
    text = labelled.read_text().replace(
        "[labels]", '[labels]\non_public_into_sovereign = "warn"', 1
    )
    labelled.write_text(text)
    done = batuta("query", MIXED, "--format", "csv", config=labelled)
    assert (done.returncode, done.stdout) == (0, b"name,people\nAnn,84\n")
    assert done.stderr.decode() == (
        "warning: data labelled origin:public would be mixed with data labelled tier:sovereign\n"
    )
    shown = batuta("audit", config=labelled)
    assert shown.returncode == 0
    assert "origin:public mixed with tier:sovereign" in shown.stdout.decode()


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_file_keeps_the_labels_of_its_columns(
    labelled: Path, batuta: Command, tmp_path: Path, suffix: str
) -> None:
    target = tmp_path / f"out.{suffix}"
    sql = "SELECT name, email FROM crm.customer"
    assert batuta("query", sql, "-o", str(target), config=labelled).returncode == 0
    shown = batuta("labels", str(target)).stdout.decode()
    assert shown == (
        "name: tier:sovereign\nemail: pii, tier:sovereign\nwhich rows there are: tier:sovereign\n"
    )
    values = json.loads(batuta("labels", str(target), "--json").stdout)
    assert values["columns"]["email"]["direct"] == ["pii", "tier:sovereign"]
    audit = batuta("audit", config=labelled).stdout.decode()
    assert "pii taken from crm.customer.name: published anyway (decided by DPO" in audit


def test_a_file_without_labels_and_one_that_cannot_have_any(
    batuta: Command, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "t.parquet")
    assert batuta("labels", str(tmp_path / "t.parquet")).stdout == b"no labels\n"
    (tmp_path / "t.csv").write_text("a\n1\n")
    refused = batuta("labels", str(tmp_path / "t.csv"))
    assert refused.returncode == 1
    assert b"carries no labels" in refused.stderr
    assert b"there is no Parquet" in batuta("labels", str(tmp_path / "none.parquet")).stderr


def test_a_log_that_was_tampered_with_is_an_error(
    labelled: Path, batuta: Command, tmp_path: Path
) -> None:
    for _ in range(2):
        batuta("query", "SELECT name FROM crm.customer", config=labelled)
    log = tmp_path / "audit.jsonl"
    log.write_text(log.read_text().splitlines()[0] + "\n")
    shown = batuta("audit", config=labelled)
    assert shown.returncode == 1
    assert b"the audit log is not what was written" in shown.stderr


def test_doctor_finds_labels_that_reach_no_table(labelled: Path, batuta: Command) -> None:
    text = labelled.read_text()
    text = text.replace("[sources.crm.tables.customer]", "[sources.crm.tables.custmer]")
    labelled.write_text(text)
    done = batuta("doctor", config=labelled)
    assert done.returncode == 1
    assert 'the configuration labels "custmer", and there is no such table' in done.stdout.decode()
