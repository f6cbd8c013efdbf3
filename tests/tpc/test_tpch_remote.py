"""TPC-H over warehouses and catalogs: every query, its tables placed at random."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tpc.check import check, parameters
from tests.tpc.federation import Federation
from tests.tpc.remote import remote_federation


@pytest.fixture(scope="module")
def everywhere(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("tpch_remote")
    with remote_federation(folder, request.getfixturevalue) as made:
        yield made


@pytest.mark.xdist_group("tpch_remote")
@pytest.mark.parametrize(("number", "attempt"), parameters("tpch"))
def test_placed_query(number: int, attempt: int, everywhere: Federation) -> None:
    check("tpch", number, attempt, everywhere)
