"""TPC-H: every query, its tables placed at random, answers as DuckDB does over local tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.tpc.check import check, parameters
from tests.tpc.federation import Federation, federation


@pytest.fixture(scope="module")
def everywhere(tpc_sources: Callable[[str], dict[str, Any]]) -> Iterator[Federation]:
    with federation("tpch", tpc_sources("tpch")) as made:
        yield made


@pytest.mark.parametrize(("number", "attempt"), parameters("tpch"))
def test_placed_query(number: int, attempt: int, everywhere: Federation) -> None:
    check("tpch", number, attempt, everywhere)
