"""What every test can ask for: real servers on loopback, one of each for a test session.

With pytest-xdist every worker process is a session, and has its own servers. They end with it,
whatever happened to the tests.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from batuta_sql.demo.postgres_server import PostgresServer
from tests.emulators import databricks as databricks_emulator
from tests.emulators.apache_spark import has_java
from tests.emulators.process import Emulator, running

ROOT = Path(__file__).parent.parent
"""The repository."""

CACHE = ROOT / ".cache"
"""Git-ignored files that are made once and kept between runs."""


@pytest.fixture(scope="session", autouse=True)
def _data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The history of queries goes to a folder of this session, never to the user's own."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running PostgreSQL; ``postgres.database()`` gives a database that is dropped after use."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def tpc_sources(postgres: PostgresServer) -> Iterator[Callable[[str], dict[str, Any]]]:
    """The configuration of all homes of a benchmark's tables, loaded once for a session."""
    from tests.tpc.federation import sources

    loaded: dict[str, dict[str, Any]] = {}
    with ExitStack() as cleanup:

        def of(benchmark: str) -> dict[str, Any]:
            if benchmark not in loaded:
                loaded[benchmark] = sources(benchmark, postgres, cleanup)
            return loaded[benchmark]

        yield of


@pytest.fixture
def postgres_uri(postgres: PostgresServer) -> Iterator[str]:
    """The URI of an empty PostgreSQL database for this test alone."""
    with postgres.database() as uri:
        yield uri


@pytest.fixture(scope="session")
def databricks(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[databricks_emulator.Workspace]:
    """A Databricks workspace with a SQL warehouse and the catalog ``lab``."""
    with databricks_emulator.workspace(tmp_path_factory.mktemp("databricks")) as workspace:
        yield workspace


@pytest.fixture(scope="session")
def spark_connect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """A Spark Connect server (Sail), whose catalog is called ``lab`` too."""
    catalog = '[{name="lab", type="memory", initial_database=["default"]}]'
    with running(
        "spark",
        lambda port: ["-m", "pysail", "spark", "server", "--port", str(port)],
        tmp_path_factory.mktemp("spark"),
        environment={"SAIL_CATALOG__LIST": catalog, "SAIL_CATALOG__DEFAULT_CATALOG": "lab"},
    ) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def apache_spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """Apache Spark's own Spark Connect server; it needs a Java of the machine."""
    if not has_java():
        missing = "there is no Java 17 or later on this machine"
        if os.environ.get("BATUTA_REQUIRE_SPARK"):
            pytest.fail(f"{missing}, and BATUTA_REQUIRE_SPARK asks for one")
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("apache-spark")
    script = str(Path(__file__).parent / "emulators" / "apache_spark_process.py")
    with running("pyspark", lambda port: [script, str(port), str(folder)], folder) as emulator:
        yield emulator


def pytest_report_header() -> list[str]:
    from batuta_sql.demo.postgres_server import ServerError, find_binaries

    try:
        found = find_binaries()
    except ServerError as error:
        return [f"postgresql: {error}"]
    return [f"postgresql: {found.origin} ({found.folder})"]
