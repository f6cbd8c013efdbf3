"""What a user's labels and money allow; what they do not is refused before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batuta_sql.labels import KEY, labels_of_schema
from tests.faults.conftest import eventually
from tests.flight.conftest import ANN, BO, Raw, Server, client, fetched, served

LIMITS = """
[sources.pub.tables."beer".columns]
name = { labels = ["pii"] }
price = { labels = ["origin:internal"] }

[serve.users.ann]
password = "ann's secret"

[serve.users.bo]
password = "bo's secret"
allow_labels = ["origin:*"]
max_cost_usd = 100

[serve.users.cy]
password = "cy's secret"
max_cost_usd = 100
budget_usd_per_day = 25

[serve.users.di]
password = "di's secret"
max_cost_usd = 5
"""
CY, DI = ("cy", "cy's secret"), ("di", "di's secret")

DEAR = "SELECT count(DISTINCT n) FROM duck.numbers"
"""Of an estimated 2 MB: $10 at the price below."""


@pytest.fixture(scope="module")
def guarded(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("guarded")
    path = folder / "batuta.toml"
    history = f'[cost]\nhistory_file = "{folder}/history.sqlite"\n'
    price = "pricing = { usd_per_tb_scanned = 5000000.0 }\n"
    path.write_text(history + config.read_text() + price + LIMITS)
    with served(path, folder) as server:
        yield server


def heard(server: Server, user: tuple[str, str], sql: str, parameters: Any = None) -> str:
    """The words of a refusal."""
    with client(server, user) as connection, pytest.raises(connection.Error) as caught:
        fetched(connection, sql, parameters)
    return str(caught.value)


# --- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM pub.beer",
        "SELECT upper(name) || '!' AS shout FROM pub.beer",
        "SELECT count(*) FROM pub.beer WHERE name LIKE 'A%'",
        "SELECT id FROM pub.beer ORDER BY name LIMIT 1",
        "SUMMARIZE SELECT * FROM pub.beer",
        "EXPLAIN ANALYZE SELECT name FROM pub.beer",
        "PIVOT pub.beer ON id USING max(name)",
    ],
)
def test_labelled_data_goes_to_nobody_who_may_not_have_it(guarded: Server, sql: str) -> None:
    said = heard(guarded, ANN, sql)
    assert "pii" in said
    assert 'may not go to the user "ann"' in said
    assert "serve.users.ann.allow_labels" in said


def test_parameters_are_conditions_too(guarded: Server) -> None:
    sql = "SELECT count(*) FROM pub.beer WHERE name = ?"
    assert "pii" in heard(guarded, ANN, sql, ("Ann's",))


def test_what_is_not_labelled_is_told(guarded: Server) -> None:
    with client(guarded, ANN) as connection:
        assert fetched(connection, "SELECT count(*) FROM pub.beer") == [(4,)]


def test_labels_are_allowed_to_one_user(guarded: Server) -> None:
    sql = "SELECT sum(price) AS total FROM pub.beer"
    assert "origin:internal" in heard(guarded, ANN, sql)
    with client(guarded, BO) as connection:
        assert float(fetched(connection, sql)[0][0]) == 7.25
    assert "pii" in heard(guarded, BO, "SELECT name, price FROM pub.beer")


def test_labels_travel_with_the_result(guarded: Server) -> None:
    raw = Raw(guarded, BO)
    info = raw.query("SELECT id, price FROM pub.beer")
    for schema in (info.schema, raw.get(info).read_all().schema):
        assert labels_of_schema(schema).of("price").direct == {"origin:internal"}
        assert KEY.encode() in schema.field("price").metadata
    raw.close()


# --- money ---------------------------------------------------------------------------------------


def test_what_a_person_would_be_asked_about_is_refused(guarded: Server) -> None:
    said = heard(guarded, ANN, DEAR)
    assert "nobody is there to say that this may run, nothing was sent" in said
    assert "the estimated cost on duck is $10" in said
    assert "serve.users.ann.max_cost_usd" in said


def test_a_users_own_limit_answers_the_question(guarded: Server) -> None:
    with client(guarded, BO) as connection:
        assert fetched(connection, DEAR) == [(250_000,)]


def test_from_the_limit_on_it_is_refused(guarded: Server) -> None:
    assert "max_cost_usd is $5.00" in heard(guarded, DI, DEAR)


def test_stop_usd_holds_for_everybody(guarded: Server) -> None:
    sql = " UNION ALL ".join(
        [f"SELECT count(DISTINCT n + {i}) FROM duck.numbers" for i in range(6)]
    )
    assert "stop_usd is $50.00" in heard(guarded, BO, sql)


def test_a_days_budget(guarded: Server) -> None:
    with client(guarded, CY) as connection:
        for _ in range(2):
            assert fetched(connection, DEAR) == [(250_000,)]
    said = heard(guarded, CY, DEAR)
    assert "nothing was sent: the estimated cost of $10" in said
    assert "of today pass the day's budget of $25.00" in said
    assert "serve.users.cy.budget_usd_per_day" in said
    with client(guarded, CY) as connection:
        # What costs nothing is not stopped.
        assert fetched(connection, "SELECT count(*) FROM pub.beer") == [(4,)]


def test_refusals_are_written_down(guarded: Server) -> None:
    heard(guarded, ANN, "SELECT name FROM pub.beer")
    heard(guarded, ANN, DEAR)
    written = "\n".join(guarded.lines())
    assert "user=ann status='refused (labels)'" in written
    assert eventually(lambda: "status='refused (cost)'" in "".join(guarded.lines()))


def test_an_unknown_price_is_not_below_a_limit(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "batuta.toml"
    unknown = "pricing = { usd_per_credit = 2.0 }\n"
    path.write_text(config.read_text() + unknown + LIMITS)
    with served(path, tmp_path) as server:
        said = heard(server, BO, DEAR)
        assert "is not known" in said
        assert "nothing was sent" in said
        assert "so the day's budget of $25.00 cannot be kept" in heard(server, CY, DEAR)


# --- without users -------------------------------------------------------------------------------


def test_everybody_on_this_machine(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "batuta.toml"
    path.write_text(config.read_text() + LIMITS.partition("[serve.")[0])
    with served(path, tmp_path, "--allow-label", "origin:*") as server:
        with client(server, None) as connection:
            assert float(fetched(connection, "SELECT sum(price) FROM pub.beer")[0][0]) == 7.25
            with pytest.raises(connection.Error, match="this server's clients"):
                fetched(connection, "SELECT name FROM pub.beer")
        with client(server, ("any", "thing")) as connection:
            assert fetched(connection, "SELECT 1 AS one") == [(1,)]


def test_local_files_where_they_are_wanted(config: Path, tmp_path: Path) -> None:
    file = config.parent / "lake" / "shares.parquet"
    with served(config, tmp_path, "--local-files") as server, client(server, None) as connection:
        assert fetched(connection, f"SELECT count(*) FROM '{file}'") == [(2,)]
