"""Datasets of the Hugging Face hub: at one commit, by range, public unless they are private."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import batuta_sql
from batuta_sql import ConfigError, LabelRefused, OperationalError, ProgrammingError, TierRefused
from batuta_sql.labels import ColumnLabels, labelled_schema
from batuta_sql.sources.hub import Dataset
from batuta_sql.sources.hub_tables import converted_tables, tables_of
from tests.emulators.hub import HubEmulator, hub_emulator
from tests.sources.conftest import rows_of

ROWS = 100_000
ONE, TWO, THREE = "1" * 40, "2" * 40, "3" * 40
TOKEN = "hf_secret-token-4711"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubEmulator]:
    with hub_emulator(tmp_path_factory.mktemp("hub")) as emulator:
        yield emulator


@pytest.fixture
def hub(served: HubEmulator) -> Iterator[HubEmulator]:
    served.forget()
    yield served
    served.forget()


@pytest.fixture
def repo(request: pytest.FixtureRequest, hub: HubEmulator) -> str:
    """A dataset of this test's own, with one table of two rows in two files."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:80]
    repo = f"lab/{name}"
    hub.repo(repo)
    files = {
        f"data/train-0000{i}-of-00002.parquet": pa.table({"id": [i], "word": ["ab"[i]]})
        for i in range(2)
    }
    hub.commit(repo, ONE, {"README.md": b"# hello", **files})
    return repo


# --- tables ------------------------------------------------------------------------------------


def test_shards_of_a_split_are_a_table(
    hub: HubEmulator, opened: Callable[..., Any], repo: str
) -> None:
    connection = opened(**hub.settings(repo))
    assert [p for _, p, _ in connection.tables("s")] == [("default", "train")]
    for name in ("s.train", 's."default".train', "s.TRAIN"):
        assert rows_of(connection, f"SELECT id, word FROM {name}") == [(0, "a"), (1, "b")]


def test_a_file_by_its_path(hub: HubEmulator, opened: Callable[..., Any], repo: str) -> None:
    sql = 'SELECT id FROM s."data/train-00001-of-00002.parquet"'
    assert rows_of(opened(**hub.settings(repo)), sql) == [(1,)]


def test_a_split_that_two_configurations_have_is_ambiguous(
    hub: HubEmulator, opened: Callable[..., Any], repo: str
) -> None:
    files = {f"{c}/train-00000-of-00001.parquet": pa.table({"c": [c]}) for c in ("de", "fr")}
    hub.commit(repo, TWO, files)
    connection = opened(**hub.settings(repo))
    with pytest.raises(ProgrammingError, match="ambiguous"):
        connection.execute("SELECT c FROM s.train")
    both = "SELECT a.c, b.c FROM s.de.train a CROSS JOIN s.fr.train b"
    assert rows_of(connection, both) == [("de", "fr")]


PATHS = (
    "README.md",
    "data/train-00000-of-00002.parquet",
    "data/train-00001-of-00002-0a1b2c3d.parquet",
    "data/test-00000-of-00001.parquet",
    "de/train-00000-of-00001.parquet",
    "extra/deep/x.parquet",
    "extra/deep/y.parquet",
    "single.parquet",
)


def dataset(paths: tuple[str, ...], *configurations: dict[str, Any]) -> Dataset:
    return Dataset("a/b", ONE, False, dict.fromkeys(paths, 1), configurations)


def test_what_names_of_files_tell() -> None:
    assert tables_of(dataset(PATHS)) == {
        ("default", "train"): (PATHS[1], PATHS[2]),
        ("default", "test"): (PATHS[3],),
        ("de", "train"): (PATHS[4],),
        ("default", "extra/deep"): (PATHS[5], PATHS[6]),
        ("default", "single"): (PATHS[7],),
    }


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"data_files": "data/*"}, {("default", "train"): tuple(sorted(PATHS[1:4]))}),
        ({"config_name": "x", "data_files": ["*.parquet"]}, {("x", "train"): (PATHS[7],)}),
        (
            {
                "config_name": "y",
                "data_files": [
                    {"split": "train", "path": "data/train-*"},
                    {"split": "rest", "path": ["extra/**", "single.parquet"]},
                ],
            },
            {("y", "train"): PATHS[1:3], ("y", "rest"): PATHS[5:8]},
        ),
        (
            {"data_dir": "data", "data_files": [{"split": "t", "path": "test-*.parquet"}]},
            {("default", "t"): (PATHS[3],)},
        ),
        ({"data_files": "**/train-*.parquet"}, {("default", "train"): (*PATHS[1:3], PATHS[4])}),
    ],
)
def test_what_the_card_tells_goes_before(told: dict[str, Any], expected: Any) -> None:
    assert tables_of(dataset(PATHS, told)) == expected


def test_the_hubs_own_conversion_where_a_dataset_has_no_parquet(
    hub: HubEmulator, opened: Callable[..., Any], repo: str
) -> None:
    hub.commit(repo, TWO, {"data.csv": b"a\n1\n"})
    converted = {"default/train/0000.parquet": pa.table({"a": [1]})}
    hub.commit(repo, THREE, converted, ref="refs/convert/parquet")
    assert rows_of(opened(**hub.settings(repo)), "SELECT a FROM s.train") == [(1,)]
    with pytest.raises(OperationalError, match=f"no Parquet files at {TWO}"):
        opened(**hub.settings(repo, revision=TWO)).execute("SELECT a FROM s.train")
    parts = ("c/s/0000.parquet", "c/s/0001.parquet", "c/partial-t/0000.parquet", "x.parquet")
    assert converted_tables(dataset(parts)) == {
        ("c", "s"): parts[:2],
        ("c", "partial-t"): parts[2:3],
    }


# --- commits -----------------------------------------------------------------------------------


def test_the_commit_that_was_described_is_read(
    hub: HubEmulator, opened: Callable[..., Any], repo: str
) -> None:
    connection = opened(**hub.settings(repo))
    source = connection._session.sources["s"]
    (table,) = source.resolve(("train",))
    assert table.version == ONE
    hub.commit(repo, TWO, {"data/train-00000-of-00001.parquet": pa.table({"id": [9]})})
    found = connection.plan("SELECT id FROM s.train")
    assert TWO in str(found)
    assert rows_of(connection, "SELECT id FROM s.train") == [(9,)]
    requested = {r["path"] for r in hub.requests() if "/resolve/" in r["path"]}
    assert all(f"/resolve/{ONE}/" in p or f"/resolve/{TWO}/" in p for p in requested)
    relation = source.relation(source.cursor(), f"default/train@{ONE}", None)
    assert source.cursor().execute(f"SELECT count(*) FROM {relation}").fetchone() == (2,)


@pytest.mark.parametrize("revision", [ONE, "v1.0", "refs/pr/1"])
def test_a_revision(hub: HubEmulator, opened: Callable[..., Any], repo: str, revision: str) -> None:
    hub.commit(repo, ONE, {}, ref=revision)
    hub.commit(repo, TWO, {"train.parquet": pa.table({"id": [9]})})
    connection = opened(**hub.settings(repo, revision=revision))
    assert rows_of(connection, "SELECT id FROM s.train") == [(0,), (1,)]


# --- how much is read --------------------------------------------------------------------------


def test_a_column_is_not_the_whole_file(
    hub: HubEmulator, opened: Callable[..., Any], repo: str
) -> None:
    wide = pa.table(
        {"id": range(ROWS), **{f"c{i}": [f"{i} {r}" for r in range(ROWS)] for i in range(6)}}
    )
    hub.commit(repo, TWO, {"wide.parquet": wide})
    size = (hub.root / repo / TWO / "wide.parquet").stat().st_size
    connection = opened(**hub.settings(repo))
    sql = "SELECT sum(id) FROM s.wide"
    estimate = connection.estimate(sql)
    assert (estimate.confidence, estimate.basis) == ("exact", "Parquet footers")
    assert 0 < estimate.bytes_scanned < size / 5
    hub.forget()
    assert connection.execute(sql).fetchone() == (ROWS * (ROWS - 1) // 2,)
    sent = [r for r in hub.requests() if r["path"].startswith("/storage/")]
    assert 0 < sum(r["bytes"] for r in sent) < size / 3


def test_a_commit_is_described_once(
    hub: HubEmulator, opened: Callable[..., Any], repo: str
) -> None:
    connection = opened(**hub.settings(repo))
    source = connection._session.sources["s"]
    source.resolve(("train",))
    hub.forget()
    source.resolve(("train",))
    assert [r["path"].partition("?")[0] for r in hub.requests()] == [
        f"/api/datasets/{repo}/revision/main"
    ]


# --- labels and tiers --------------------------------------------------------------------------


def test_a_public_dataset_is_labelled_so(
    hub: HubEmulator, opened: Callable[..., Any], repo: str
) -> None:
    cursor = opened(**hub.settings(repo)).execute("SELECT id, count(*) OVER () AS n FROM s.train")
    assert cursor.labels["id"].direct == {"origin:public"}
    assert "origin:public" in cursor.labels["n"].all


def test_a_private_dataset_is_not(hub: HubEmulator, opened: Callable[..., Any], repo: str) -> None:
    hub.repo(repo, private=True, token=TOKEN)
    connection = opened(**hub.settings(repo, token=TOKEN))
    assert not connection.execute("SELECT id FROM s.train").labels["id"].all
    hub.repo(repo, private=False)
    assert connection.execute("SELECT id FROM s.train").labels["id"].all == {"origin:public"}


def test_labels_of_the_files_are_honoured(
    hub: HubEmulator, opened: Callable[..., Any], repo: str
) -> None:
    rows = pa.table({"email": ["a@x"]})
    schema = labelled_schema(rows.schema, [ColumnLabels(frozenset({"pii"}))], frozenset())
    hub.commit(repo, TWO, {"people.parquet": rows.cast(schema)})
    cursor = opened(**hub.settings(repo)).execute("SELECT email FROM s.people")
    assert cursor.labels["email"].direct == {"pii", "origin:public"}


def test_a_public_dataset_must_not_meet_sovereign_data(
    hub: HubEmulator, repo: str, tmp_path: Path
) -> None:
    (tmp_path / "customers.csv").write_text("id,name\n1,Ann\n")
    sources = {
        "hub": hub.settings(repo),
        "crm": {"kind": "files", "path": str(tmp_path), "labels": ["tier:sovereign"]},
    }
    sql = "SELECT c.name, t.word FROM crm.customers c JOIN hub.train t USING (id)"
    with closing(batuta_sql.connect({"sources": sources})) as connection:
        with pytest.raises(LabelRefused, match="origin:public"):
            connection.execute(sql)
        assert not [r for r in hub.requests() if "crm" in r["path"]]


def test_a_tier_that_does_not_allow_the_hub(hub: HubEmulator, repo: str) -> None:
    source = {"kind": "huggingface", "repo": repo}
    with (
        closing(batuta_sql.connect({"sources": {"s": source}}, tier="private_cloud")) as connection,
        pytest.raises(TierRefused),
    ):
        connection.execute("SELECT id FROM s.train")


# --- failures ----------------------------------------------------------------------------------


def test_the_token_goes_to_the_hub_and_not_to_its_storage(
    hub: HubEmulator, opened: Callable[..., Any], repo: str
) -> None:
    hub.repo(repo, private=True, token=TOKEN)
    connection = opened(**hub.settings(repo, token=TOKEN))
    assert rows_of(connection, "SELECT id FROM s.train") == [(0,), (1,)]
    told = {r["path"].startswith("/storage/"): r["authorized"] for r in hub.requests()}
    assert told == {True: False, False: True}


@pytest.mark.parametrize(
    ("facts", "more", "reason"),
    [
        ({"private": True, "token": TOKEN}, {}, "for a private or gated dataset give token"),
        ({"private": True, "token": "x"}, {"token": TOKEN}, "the hub does not know it"),
        ({"gated": "auto"}, {}, "accept the dataset's conditions"),
        ({}, {"revision": "nowhere"}, "check revision"),
    ],
)
def test_a_refusal_says_what_is_missing(
    hub: HubEmulator,
    opened: Callable[..., Any],
    repo: str,
    facts: dict[str, Any],
    more: dict[str, Any],
    reason: str,
) -> None:
    hub.repo(repo, **facts)
    with pytest.raises(OperationalError, match=f"(?s)s: .*{reason}") as failure:
        opened(**hub.settings(repo, **more)).execute("SELECT id FROM s.train").fetchall()
    assert TOKEN not in str(failure.value)


def test_a_dataset_that_is_not_there(hub: HubEmulator, opened: Callable[..., Any]) -> None:
    with pytest.raises(OperationalError, match=r'(?s)s: the dataset "no/where".*check repo'):
        opened(**hub.settings("no/where")).execute("SELECT 1 FROM s.t")


def test_a_table_that_is_not_there(hub: HubEmulator, opened: Callable[..., Any], repo: str) -> None:
    with pytest.raises(ProgrammingError, match=r"(?s)no table.*default\.train"):
        opened(**hub.settings(repo)).execute("SELECT 1 FROM s.trian")


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_is_busy_is_asked_again(
    hub: HubEmulator, opened: Callable[..., Any], repo: str, status: int
) -> None:
    connection = opened(**hub.settings(repo))
    hub.fail({"path": "/resolve/", "status": status, "times": 2, "headers": {"Retry-After": "0"}})
    assert rows_of(connection, "SELECT id FROM s.train") == [(0,), (1,)]


def test_a_hub_that_stays_busy_is_an_error(
    hub: HubEmulator, opened: Callable[..., Any], repo: str
) -> None:
    hub.fail({"path": "/api/", "status": 429, "times": 99, "headers": {"Retry-After": "3600"}})
    with pytest.raises(OperationalError, match="(?s)status 429.*asked too often"):
        opened(**hub.settings(repo)).execute("SELECT id FROM s.train")
    assert len(hub.requests()) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"cut": 100, "times": 99}, "s: "),
        ({"whole": True, "times": 99}, "asked for the bytes"),
        ({"status": 500, "times": 99}, "status 500"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_an_error(
    hub: HubEmulator, opened: Callable[..., Any], repo: str, fault: dict[str, Any], reason: str
) -> None:
    hub.commit(repo, TWO, {"big.parquet": pa.table({"id": range(ROWS)})})
    connection = opened(**hub.settings(repo))
    connection._session.sources["s"].resolve(("big",))
    hub.fail({"path": "/storage/", **fault})
    with pytest.raises(OperationalError, match=reason):
        connection.execute("SELECT id FROM s.big").fetchall()


def test_a_hub_that_is_not_there(opened: Callable[..., Any]) -> None:
    settings = {"kind": "huggingface", "repo": "a/b", "endpoint": "http://127.0.0.1:9"}
    with pytest.raises(OperationalError, match=r"s: http://127.0.0.1:9 cannot be read") as failure:
        opened(**settings, token=TOKEN).execute("SELECT 1 FROM s.t")
    assert TOKEN not in str(failure.value)


def test_a_name_that_is_no_datasets(opened: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="repo"):
        opened(kind="huggingface", repo="../../etc")


def test_no_secret_in_logs_at_any_level(
    hub: HubEmulator,
    opened: Callable[..., Any],
    repo: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub.repo(repo, private=True, token=TOKEN)
    with caplog.at_level(logging.DEBUG):
        connection = opened(**hub.settings(repo, token=TOKEN))
        assert connection.execute("SELECT count(*) FROM s.train").fetchone() == (2,)
    assert "resolve" in caplog.text
    for secret in (TOKEN, "signed-0815"):
        assert secret not in caplog.text
        assert secret not in repr(connection)
