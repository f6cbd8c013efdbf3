"""What hears of a query never changes it: whatever fails there, the query does not."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import Any

import pytest

import batuta_sql
from batuta_sql.watching import QueryWatch, Watchers
from tests.events.conftest import Opened


class Broken(QueryWatch):
    """Fails wherever it can, and says where it was asked."""

    def __init__(self, asked: set[str], works: frozenset[str] = frozenset()) -> None:
        self._asked = asked
        self._works = works

    def _fail(self, where: str) -> None:
        self._asked.add(where)
        if where not in self._works:
            raise RuntimeError("hush-4711")

    def step(self, name: str) -> AbstractContextManager[None]:
        self._fail("step")
        return BrokenStep(self)

    def sent(self, query: Any) -> None:
        self._fail("sent")

    def fetch(self) -> Any:
        self._fail("fetch")
        return BrokenFetch(self)

    def delivers(self) -> None:
        self._fail("delivers")

    def ended(self, query: Any, ending: Any, error: Any) -> None:
        self._fail("ended")


class BrokenStep(AbstractContextManager[None]):
    def __init__(self, watch: Broken) -> None:
        self._watch = watch

    def __enter__(self) -> None:
        self._watch._fail("enter")

    def __exit__(self, *error: Any) -> None:
        self._watch._fail("exit")


class BrokenFetch:
    def __init__(self, watch: Broken) -> None:
        self._watch = watch

    def begun(self, fetch: Any) -> None:
        self._watch._fail("begun")

    def ended(self, fetch: Any, error: Any) -> None:
        self._watch._fail("fetch ended")


class BrokenWatcher:
    def __init__(self, works: frozenset[str]) -> None:
        self.asked: set[str] = set()
        self._works = works

    def watch(self, sql: str) -> QueryWatch:
        self.asked.add("watch")
        if "watch" not in self._works:
            raise RuntimeError("hush-4711")
        return Broken(self.asked, self._works)

    def close(self) -> None:
        self.asked.add("close")
        raise RuntimeError("hush-4711")


@pytest.mark.parametrize(
    ("works", "asked"),
    [
        (set(), {"watch", "close"}),
        ({"watch"}, {"watch", "step", "sent", "fetch", "delivers", "ended", "close"}),
        ({"watch", "step", "fetch"}, {"enter", "begun", "fetch ended"}),
        ({"watch", "step", "fetch", "enter"}, {"exit"}),
    ],
)
def test_a_watch_that_fails_fails_no_query(
    works: set[str], asked: set[str], opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    connection = opened()
    watcher = BrokenWatcher(frozenset(works))
    connection._session.watchers = Watchers([watcher])
    with caplog.at_level(logging.WARNING):
        assert len(connection.execute("SELECT id FROM shop.orders").fetchall()) == 3
        with pytest.raises(batuta_sql.ProgrammingError, match="wrong"):
            connection.execute("SELECT wrong FROM shop.orders")
        with pytest.raises(batuta_sql.DataError):
            connection.execute("SELECT CAST(name AS INTEGER) FROM shop.customer").fetchall()
        connection.close()
    assert asked <= watcher.asked
    assert "could not be told of: RuntimeError" in caplog.text
    assert "hush-4711" not in caplog.text
