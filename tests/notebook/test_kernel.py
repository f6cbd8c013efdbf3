"""A whole notebook in a real kernel."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from batuta_sql.demo.postgres_server import PostgresServer

ROOT = Path(__file__).parents[2]


def client_of(folder: Path, *cells: str, allow_errors: bool = False) -> NotebookClient:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    return NotebookClient(
        book,
        timeout=180,
        kernel_name="python3",
        allow_errors=allow_errors,
        resources={"metadata": {"path": str(folder)}},
    )


def executed(folder: Path, *cells: str, allow_errors: bool = False) -> list[Any]:
    """The cells' outputs.

    :raises CellExecutionError: at the first cell that fails, unless errors are allowed.
    """
    client = client_of(folder, *cells, allow_errors=allow_errors)
    client.execute(env=environment(folder))
    return [lasting(cell.outputs) for cell in client.nb.cells]


def lasting(outputs: list[Any]) -> list[Any]:
    """Without what was seen while a query ran, on a busy machine: it is empty afterwards."""
    return [o for o in outputs if o.get("data", {}).get("text/html") != ""]


def environment(folder: Path) -> dict[str, str]:
    own = {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython")}
    return {**os.environ, **own}


def test_a_notebook(config: Path, tmp_path: Path) -> None:
    priced = tmp_path / "priced.toml"
    history = f'[cost]\nhistory_file = "{tmp_path}/history.sqlite"\n'
    price = "pricing = { usd_per_tb_scanned = 5000000.0 }\n"
    priced.write_text(history + config.read_text() + price)
    costly = "SELECT count(DISTINCT n) AS n FROM duck.numbers"
    outputs = executed(
        tmp_path,
        "%load_ext batuta_sql",
        f"%batuta connect {priced}",
        "least = 2",
        "%%batuta\nSELECT id, name FROM pub.beer WHERE id <= $least ORDER BY id",
        "%%batuta frame << --polars\nSELECT id FROM pub.beer ORDER BY id",
        "frame['id'].sum()",
        "%%batuta\nSELECT nme FROM pub.beer",
        f"%%batuta\n{costly}",
        f"%%batuta --yes\n{costly}",
        allow_errors=True,
    )
    (result,) = outputs[3]
    assert "<td>Ann&#x27;s</td>" in result.data["text/html"]
    assert "│  1 │ Ann's" in result.data["text/plain"]
    assert outputs[4] == []
    assert outputs[5][0].data["text/plain"] == "10"
    (error,) = outputs[6]
    assert (error.output_type, error.ename) == ("error", "ProgrammingError")
    assert error.traceback == error.evalue.splitlines()
    assert error.traceback[1:3] == ["LINE 1: SELECT nme FROM pub.beer", "               ^^^"]
    shown, refused = outputs[7]
    assert "run the cell again with %%batuta --yes" in shown.data["text/html"]
    assert re.search(r"cost: +\$10(.|\n)*\| duck ", shown.data["text/plain"])
    assert refused.ename == "CostRefused"
    assert "250000" in outputs[8][0].data["text/plain"]


def test_a_cell_that_fails_stops_the_notebook(config: Path, tmp_path: Path) -> None:
    with pytest.raises(CellExecutionError, match='did you mean "name"'):
        executed(
            tmp_path,
            "%load_ext batuta_sql",
            f"%batuta connect {config}",
            "%batuta SELECT nme FROM pub.beer",
            f"open({str(tmp_path / 'reached')!r}, 'w').close()",
        )
    assert not (tmp_path / "reached").exists()


RUNNING = (
    "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%nap%'"
    " AND pid <> pg_backend_pid()"
)


def test_an_interrupted_kernel_leaves_nothing_running(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with postgres.database("notebook") as uri:
        postgres.run(
            "CREATE VIEW nap AS SELECT id, pg_sleep(0.2)::text AS nap"
            " FROM generate_series(1, 10000) s(id)",
            uri.rsplit("/", 1)[1],
        )
        path = tmp_path / "slow.toml"
        path.write_text(f'[sources.crm]\nkind = "postgresql"\nuri = "{uri}"\nlocality = "local"\n')
        cells = (
            "import os; os.getpid()",
            "%load_ext batuta_sql",
            f"%batuta connect {path}",
            "%%batuta\nSELECT count(nap) FROM crm.nap",
            "%batuta SELECT 41 + 1 AS answer",
        )
        client = client_of(tmp_path, *cells, allow_errors=True)
        book = client.nb
        with client.setup_kernel(env=environment(tmp_path)):
            for index in range(3):
                client.execute_cell(book.cells[index], index)
            kernel = int(book.cells[0].outputs[0].data["text/plain"])
            interrupt = Interrupt(postgres, kernel)
            interrupt.start()
            client.execute_cell(book.cells[3], 3)
            interrupt.join()
            left = postgres.run(RUNNING).strip()
            client.execute_cell(book.cells[4], 4)
    assert interrupt.saw_it_run
    assert left == "0"
    (error,) = lasting(book.cells[3].outputs)
    assert (error.ename, error.traceback) == ("KeyboardInterrupt", ["cancelled"])
    assert "42" in lasting(book.cells[4].outputs)[0].data["text/html"]


class Interrupt(threading.Thread):
    """Interrupts a kernel as soon as its statement runs, as Jupyter does: by SIGINT."""

    def __init__(self, postgres: PostgresServer, kernel: int) -> None:
        super().__init__()
        self._postgres = postgres
        self._kernel = kernel
        self.saw_it_run = False

    def run(self) -> None:
        until = time.monotonic() + 30
        while not self.saw_it_run and time.monotonic() < until:
            self.saw_it_run = self._postgres.run(RUNNING).strip() != "0"
            time.sleep(0.1)
        os.kill(self._kernel, signal.SIGINT)


def test_a_running_query_is_seen(postgres: PostgresServer, tmp_path: Path) -> None:
    with postgres.database("seen") as uri:
        postgres.run(
            "CREATE VIEW nap AS SELECT id, pg_sleep(0.25)::text AS nap"
            " FROM generate_series(1, 8) s(id)",
            uri.rsplit("/", 1)[1],
        )
        path = tmp_path / "slow.toml"
        path.write_text(f'[sources.crm]\nkind = "postgresql"\nuri = "{uri}"\nlocality = "local"\n')
        client = client_of(
            tmp_path,
            "%load_ext batuta_sql",
            f"%batuta connect {path}",
            "%batuta SELECT count(nap) AS n FROM crm.nap",
            "%batuta SELECT 1",
        )
        shown: list[str] = []

        class Watching(NotebookClient):
            def process_message(self, message: Any, cell: Any, cell_index: int) -> Any:
                if message["msg_type"] in ("display_data", "update_display_data"):
                    shown.append(message["content"]["data"]["text/html"])
                return super().process_message(message, cell, cell_index)

        watching = Watching(
            client.nb, timeout=180, kernel_name="python3", resources=client.resources
        )
        watching.execute(env=environment(tmp_path))
    assert any("<td>crm</td><td>public.nap</td><td>running</td>" in html for html in shown)
    # Nothing of it stays.
    assert shown[-1] == ""
    live, result = watching.nb.cells[2].outputs
    assert live.data["text/html"] == ""
    assert "8" in result.data["text/plain"]
    assert len(lasting(watching.nb.cells[3].outputs)) == 1
