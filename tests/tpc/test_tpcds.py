"""TPC-DS: every query, its tables placed at random, answers as DuckDB does over local tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.tpc.check import check, parameters
from tests.tpc.federation import Federation, federation


@pytest.fixture(scope="module")
def everywhere(tpc_sources: Callable[[str], dict[str, Any]]) -> Iterator[Federation]:
    with federation("tpcds", tpc_sources("tpcds")) as made:
        yield made


@pytest.mark.parametrize(("number", "attempt"), parameters("tpcds"))
def test_placed_query(number: int, attempt: int, everywhere: Federation) -> None:
    check("tpcds", number, attempt, everywhere)
