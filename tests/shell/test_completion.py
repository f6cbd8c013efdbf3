"""What is offered where the cursor is, and that nobody is waited for."""

from __future__ import annotations

import threading
import time
from typing import Any

import pyarrow as pa
import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from batuta_sql.shell import commands
from batuta_sql.shell.completion import CommandNames, SqlCompleter
from batuta_sql.shell.names import KnownNames

COLUMNS = {
    ("crm", "public", "customer"): ["id", "name", "Email Address"],
    ("crm", "public", "orders"): ["id", "customer_id", "total"],
    ("crm", "archive", "orders"): ["old_id"],
    ("lake", "visits"): ["day", "minutes"],
}


class Catalog:
    """A connection as far as it is asked for names; ``silent`` sources never answer."""

    sources = ("crm", "lake", "silent")

    def __init__(self) -> None:
        self.silence = threading.Event()
        self.described: list[str] = []

    def tables(self, source: str | None = None) -> list[tuple[str, tuple[str, ...], str]]:
        if source == "silent":
            self.silence.wait(60)
        return [(p[0], p[1:], "table") for p in COLUMNS if p[0] == source]

    def describe(self, name: str) -> Any:
        self.described.append(name)
        return pa.table({"column_name": COLUMNS[tuple(name.split("."))]})


@pytest.fixture
def catalog() -> Any:
    made = Catalog()
    yield made
    made.silence.set()


@pytest.fixture
def names(catalog: Catalog) -> KnownNames:
    made = KnownNames(catalog)
    made.refresh()
    until = time.monotonic() + 20
    while len(made.tables()) < len(COLUMNS) or not made.functions:
        assert time.monotonic() < until
        time.sleep(0.01)
    for table in COLUMNS:
        while not made.columns(table):
            assert time.monotonic() < until
            time.sleep(0.01)
    return made


@pytest.fixture
def offered(names: KnownNames) -> Any:
    """What is offered at the place of ``|`` in a text."""
    known = CommandNames({n: c.about for n, c in commands.COMMANDS.items()}, lambda name: ["crm.x"])
    completer = SqlCompleter(names, known)

    def complete(text: str, *, asked: bool = True) -> list[str]:
        before, _, after = text.partition("|")
        document = Document(before + after, len(before))
        event = CompleteEvent(completion_requested=asked)
        return [c.text for c in completer.get_completions(document, event)]

    return complete


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT * FROM |", ["crm", "lake", "silent"]),
        ("SELECT * FROM c|", ["crm"]),
        ("SELECT * FROM crm.|", ["public", "archive", "customer", "orders"]),
        ("SELECT * FROM crm.public.|", ["customer", "orders"]),
        ("SELECT * FROM crm.public.cu|", ["customer"]),
        ("SELECT * FROM lake.|", ["visits"]),
        ("SELECT * FROM lake.v|", ["visits"]),
        ("SELECT c.| FROM crm.public.customer c", ["id", "name", '"Email Address"']),
        ("SELECT c.na| FROM crm.public.customer AS c", ["name"]),
        ('SELECT c."Em| FROM crm.public.customer AS c', ['"Email Address"']),
        ("SELECT customer.| FROM crm.customer", ["id", "name", '"Email Address"']),
        ("SELECT * FROM crm.customer c JOIN lake.visits v ON v.|", ["day", "minutes"]),
        ("SELECT 1; SELECT * FROM lake.visits v WHERE v.d|", ["day"]),
        ("DESCRIBE la|", ["lake"]),
        (".des|", [".describe"]),
        (".describe cr|", ["crm.x"]),
        ("SELECT 'crm.|", []),
        ("SELECT 1 -- crm.|", []),
        ("SELECT 1 /* crm.|", []),
        ("SELECT 'x', c.na| FROM crm.customer c", ["name"]),
    ],
)
def test_what_is_offered(offered: Any, text: str, expected: list[str]) -> None:
    assert offered(text) == expected


def test_columns_of_the_statements_tables_come_first(offered: Any) -> None:
    found = offered("SELECT | FROM lake.visits")
    assert found[:2] == ["day", "minutes"]
    assert "SELECT" in found


def test_keywords_are_written_as_they_were_begun(offered: Any) -> None:
    assert offered("SEL|")[0] == "SELECT"
    assert offered("sel|")[0] == "select"
    assert "list_aggregate" in offered("SELECT list_agg|")


def test_of_a_name_that_two_schemas_have_nothing_is_said(offered: Any) -> None:
    assert offered("SELECT o.| FROM crm.orders o") == []
    assert offered("SELECT o.| FROM crm.archive.orders o") == ["old_id"]


def test_nothing_is_offered_for_a_space_unless_it_is_asked_for(offered: Any) -> None:
    assert offered("SELECT 1 |", asked=False) == []
    assert offered("SELECT * FROM |", asked=False) == ["crm", "lake", "silent"]


def test_a_source_that_does_not_answer_holds_nobody_up(catalog: Catalog) -> None:
    names = KnownNames(catalog)
    names.refresh()
    completer = SqlCompleter(names, CommandNames({}, lambda name: ()))
    document = Document("SELECT * FROM silent.")
    event = CompleteEvent(completion_requested=True)
    assert list(completer.get_completions(document, event)) == []
    assert not catalog.silence.is_set()


def test_a_source_that_fails_is_asked_again() -> None:
    class Failing(Catalog):
        calls = 0

        def tables(self, source: str | None = None) -> Any:
            self.calls += 1
            raise RuntimeError("away")

    catalog = Failing()
    names = KnownNames(catalog)
    until = time.monotonic() + 20
    while catalog.calls < 6:
        names.refresh()
        assert time.monotonic() < until
        time.sleep(0.01)
    assert names.tables() == []
