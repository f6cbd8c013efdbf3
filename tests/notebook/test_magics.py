"""Cells as a person runs them, in a real IPython."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy
import pandas
import polars
import pyarrow as pa
import pytest

import batuta_sql
from batuta_sql.errors import (
    ConfigError,
    CostRefused,
    InterfaceError,
    NotSupportedError,
    ProgrammingError,
)
from batuta_sql.notebook.result import PlanText, Result
from tests.notebook.conftest import Notebook

BEER = "SELECT id, name, price FROM pub.beer ORDER BY id"


# --- results -------------------------------------------------------------------------------------


def test_a_cell_gives_its_result(notebook: Notebook) -> None:
    found = notebook.run(f"%%batuta\n{BEER};")
    assert isinstance(found, Result)
    assert found.arrow().column("name").to_pylist() == ["Ann's", 'a "b", c', "", None]
    assert repr(found).splitlines()[:4] == [
        "┌────┬──────────┬───────┐",
        "│ id │ name     │ price │",
        "├────┼──────────┼───────┤",
        "│  1 │ Ann's    │  1.50 │",
    ]
    assert re.search(r"\(4 rows; \d\.\d+ s; \d+ B from 1 source\)\Z", repr(found))
    assert [f.source for f in found.plan.fragments] == ["pub"]
    assert found.metrics is not None
    assert found.metrics["fragments"][0]["rows"] == 4


def test_its_html(notebook: Notebook) -> None:
    html = notebook.html(f"%%batuta --max-rows 2\n{BEER}")
    assert '<th class="number">id</th><th>name</th><th class="number">price</th>' in html
    assert '<td class="number">1</td><td>Ann&#x27;s</td><td class="number">1.50</td>' in html
    assert html.count("<tr>") == 3
    assert "(the first 2 of 4 rows;" in html
    assert "prefers-color-scheme:dark" in html
    assert '<td><span class="null">NULL</span></td>' in notebook.html(f"%%batuta\n{BEER}")


def test_data_does_not_command_the_browser(notebook: Notebook) -> None:
    bad = "<script>alert(1)</script>"
    notebook.run(f"bad = {bad!r} + chr(0x202e)")
    html = notebook.html(f"%%batuta\nSELECT $bad AS \"{bad}\", '&lt;' AS b")
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2
    assert "\\u202e" in html
    assert "<td>&amp;lt;</td>" in html
    assert "<script" not in notebook.html(f"%%batuta --explain\nSELECT '{bad}' FROM pub.beer")


def test_marks_of_labels(ipython: Notebook, config: Path, tmp_path: Path) -> None:
    path = tmp_path / "labelled.toml"
    labels = '[sources.pub.tables."beer".columns]\nname = { labels = ["pii", "<b>"] }\n'
    path.write_text(config.read_text() + labels)
    ipython.run("%load_ext batuta_sql")
    ipython.run(f"%batuta connect {path}")
    html = ipython.html("%batuta SELECT id, name FROM pub.beer ORDER BY name")
    assert 'color:var(--batuta-1)">2</sup> pii</span>' in html
    head, indirect = re.findall(r"<th>(name.*?)</th>", html)[0], '<sup title="pii (choice of rows)"'
    assert head.count("color:var(--batuta-") == 2
    assert html.split("</thead>")[0].count(indirect) == 1
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    frame = ipython.run("%batuta --pandas SELECT name FROM pub.beer")
    assert frame.attrs == {"batuta.labels": {"name": ["<b>", "pii"]}}
    found = ipython.run("%batuta SELECT name FROM pub.beer")
    assert found.labels["name"].direct == {"pii", "<b>"}
    assert json.loads(found.arrow().schema.field("name").metadata[b"batuta.labels"])["direct"]


def test_frames(notebook: Notebook) -> None:
    found = notebook.run(f"%%batuta\n{BEER}")
    assert found.pandas()["id"].tolist() == [1, 2, 3, 4]
    assert found.polars()["price"].to_list() == [
        Decimal("1.50"),
        Decimal("2.50"),
        Decimal("3.25"),
        None,
    ]
    assert isinstance(notebook.run(f"%batuta --arrow {BEER}"), pa.Table)
    assert isinstance(notebook.run(f"%batuta --pandas {BEER}"), pandas.DataFrame)
    assert isinstance(notebook.run(f"%batuta --polars {BEER}"), polars.DataFrame)
    assert polars.DataFrame(found)["id"].to_list() == [1, 2, 3, 4]


def test_forms_share_the_memory_where_they_can(notebook: Notebook) -> None:
    found = notebook.run("%batuta SELECT n FROM duck.numbers")
    assert found.arrow() is found.arrow()
    chunk = found.arrow().column("n").chunk(0)
    series = polars.DataFrame(found)["n"].get_chunks()[0].to_arrow()
    assert series.buffers()[1].address == chunk.buffers()[1].address
    assert found.polars()["n"].get_chunks()[0].to_arrow().buffers()[1].address == (
        chunk.buffers()[1].address
    )
    frame = found.pandas()
    frame.loc[0, "n"] = -1
    assert chunk[0].as_py() != -1


def test_a_name_gets_the_result(notebook: Notebook) -> None:
    seen = notebook.cell(f"%%batuta beers <<\n{BEER}")
    assert (seen.value, seen.text) == (None, "")
    assert notebook.run("beers.arrow().num_rows") == 4
    assert notebook.run(f"%batuta frame << --polars {BEER}") is None
    assert notebook.run("frame['id'].sum()") == 10


def test_a_result_is_asked_again(notebook: Notebook) -> None:
    notebook.run(f"%%batuta beers <<\n{BEER}")
    notebook.run("con.register('beers', beers)")
    found = notebook.run("%batuta SELECT sum(price) AS s FROM beers")
    assert found.arrow().to_pydict() == {"s": [Decimal("7.25")]}


def test_statements_without_a_result(notebook: Notebook) -> None:
    seen = notebook.cell("%batuta CREATE TEMP TABLE t AS SELECT 42 AS n")
    assert seen.value is None
    assert seen.text.startswith("done (")
    assert notebook.run("%batuta SELECT n FROM t").arrow().to_pydict() == {"n": [42]}


def test_plans_and_estimates_run_nothing(notebook: Notebook) -> None:
    found = notebook.run("%%batuta --explain\nSELECT count(*) FROM pub.beer")
    assert isinstance(found, PlanText)
    assert "Exchange pub" in repr(found)
    html = found._repr_html_()
    assert "<pre>" in html
    # A frame of its own, which may not reach out of it.
    assert '<iframe sandbox="allow-scripts" srcdoc="&lt;!DOCTYPE html&gt;' in html
    assert "runs at pub" in html
    assert "Exchange pub" in repr(notebook.run("%batuta EXPLAIN SELECT count(*) FROM pub.beer"))
    estimate = notebook.run("%%batuta --estimate\nSELECT n FROM duck.numbers")
    assert re.search(r"rows delivered: +250,000", repr(estimate))
    html = estimate._repr_html_()
    assert "<th>rows delivered</th><td>250,000</td>" in html
    assert '<td>duck</td><td class="number">250,000</td>' in html


def test_plans_and_estimates_of_python_code(notebook: Notebook) -> None:
    notebook.run(f"found = %batuta {BEER}")
    assert "<pre>" in notebook.html("found.plan")
    assert "took 4 rows" in notebook.html("found.plan")
    sql = "SELECT n FROM duck.numbers"
    assert "<th>rows delivered</th>" in notebook.html(f"con.estimate('{sql}')")
    notebook.run("%unload_ext batuta_sql")
    notebook.run("import batuta_sql; con = batuta_sql.connect({'sources': {}})")
    formatter = notebook.shell.display_formatter
    assert formatter is not None
    assert "text/html" not in formatter.format(notebook.run("con.estimate('SELECT 1')"))[0]


# --- parameters ----------------------------------------------------------------------------------


def test_variables_are_bound_as_values(notebook: Notebook) -> None:
    notebook.run("""name = "Ann's"; least = 0""")
    sql = "SELECT id FROM pub.beer WHERE name = $name AND id > $least"
    assert notebook.run(f"%%batuta\n{sql}").arrow().to_pydict() == {"id": [1]}
    assert notebook.run(f"%batuta {sql}").arrow().to_pydict() == {"id": [1]}
    notebook.run('name = "\' OR 1 = 1 --"')
    assert notebook.run(f"%batuta {sql}").arrow().num_rows == 0


def test_only_what_the_statement_uses_is_bound(notebook: Notebook) -> None:
    """Texts, quoted names and comments hold no parameters; nothing in braces is pasted."""
    notebook.run("x = 1")
    found = notebook.run(
        "%batuta SELECT '$x {x}' AS a, 2 AS \"$x\", $$ $x $$ AS c, $t1$ $x $t1$ AS d, $x AS e --$no"
    )
    assert found.arrow().to_pylist() == [{"a": "$x {x}", "$x": 2, "c": " $x ", "d": " $x ", "e": 1}]


@pytest.mark.parametrize("value", [numpy.int64(3), numpy.float64(3.0), Decimal("3.00"), 3])
def test_numbers_of_frames(notebook: Notebook, value: Any) -> None:
    notebook.shell.user_ns["value"] = value
    found = notebook.run("%batuta SELECT id FROM pub.beer WHERE id = $value")
    assert found.arrow().to_pydict() == {"id": [3]}


def test_a_variable_that_there_is_not(notebook: Notebook) -> None:
    notebook.run("price = 2")
    seen = notebook.cell("%%batuta\nSELECT id FROM pub.beer\nWHERE price > $prce")
    assert isinstance(seen.error, ProgrammingError)
    assert seen.text.splitlines() == [
        'the notebook has no variable "prce"',
        "LINE 2: WHERE price > $prce",
        "                      ^^^^^",
        'Hint: did you mean "price"?',
    ]


# --- errors --------------------------------------------------------------------------------------


def test_an_error_is_its_message_and_the_cell_fails(notebook: Notebook) -> None:
    seen = notebook.cell("%%batuta n <<\nSELECT nme FROM pub.beer")
    assert isinstance(seen.error, ProgrammingError)
    assert "Traceback" not in seen.text
    assert seen.text.rstrip("\n") == str(seen.error)
    assert 'did you mean "name"' in seen.text
    assert "n" not in notebook.shell.user_ns


@pytest.mark.parametrize(
    ("cell", "kind", "words"),
    [
        ("%batuta", ProgrammingError, "%batuta use NAME"),
        ("%%batuta\n  ", ProgrammingError, "SQL begins on the line below"),
        ("%%batuta SELECT 1\nSELECT 2", ProgrammingError, "SELECT is no option"),
        ("%batuta --polrs SELECT 1", ProgrammingError, 'did you mean "--polars"'),
        ("%batuta use nothing", ProgrammingError, "nothing is no connection"),
        ("%batuta use", ProgrammingError, "%batuta use NAME"),
        ("%batuta connect nowhere.toml", ConfigError, "nowhere.toml"),
        ("%batuta DELETE FROM pub.beer", NotSupportedError, ""),
    ],
)
def test_what_is_wrong_is_said(
    notebook: Notebook, cell: str, kind: type[Exception], words: str
) -> None:
    seen = notebook.cell(cell)
    assert isinstance(seen.error, kind), seen
    assert words in seen.text
    assert "Traceback" not in seen.text
    assert notebook.run("%batuta SELECT 42 AS n").arrow().num_rows == 1, "it goes on"


# --- connections ---------------------------------------------------------------------------------


def test_the_first_use_opens_what_the_folder_says(
    ipython: Notebook, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "batuta.toml").write_text(config.read_text())
    ipython.run("%load_ext batuta_sql")
    assert ipython.run(f"%batuta {BEER}").arrow().num_rows == 4


def test_another_connection_closes_the_first(notebook: Notebook, config: Path) -> None:
    notebook.run(f"other = %batuta connect {config} --tier hybrid_sovereign --max-cost 5")
    assert notebook.run("other.tier") == "hybrid_sovereign"
    with pytest.raises(InterfaceError):
        notebook.shell.user_ns["con"].cursor()
    notebook.run("%reload_ext batuta_sql")
    with pytest.raises(InterfaceError):
        notebook.shell.user_ns["other"].cursor()


def test_a_connection_of_the_notebook(notebook: Notebook, priced: Path) -> None:
    with batuta_sql.connect(str(priced)) as mine:
        notebook.shell.user_ns["mine"] = mine
        notebook.run("%batuta use mine")
        mine.register("here", pa.table({"a": [7]}))
        assert notebook.run("%batuta SELECT a FROM here").arrow().to_pydict() == {"a": [7]}
        seen = notebook.cell("%batuta SELECT count(DISTINCT n) FROM duck.numbers")
        assert isinstance(seen.error, CostRefused)
        seen = notebook.cell("%batuta --yes SELECT count(DISTINCT n) FROM duck.numbers")
        assert "cannot answer for a connection that was opened elsewhere" in seen.text
        notebook.run("%unload_ext batuta_sql")
        assert mine.execute("SELECT 1").fetchall() == [(1,)]


def test_importing_the_package_imports_no_ipython() -> None:
    code = "import sys, batuta_sql; sys.exit('IPython' in sys.modules or 'duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- labels that must not meet -------------------------------------------------------------------


def test_a_warning_about_labels_is_one_line(ipython: Notebook, tmp_path: Path) -> None:
    settings = {
        "labels": {"on_public_into_sovereign": "warn", "audit_log": str(tmp_path / "audit.jsonl")},
        "sources": {},
    }
    with batuta_sql.connect(settings) as mine:
        mine.register("crm", pa.table({"a": [1]}), labels=["tier:sovereign"])
        mine.register("open", pa.table({"a": [1], "b": [2]}), labels=["origin:public"])
        ipython.shell.user_ns["mine"] = mine
        ipython.run("%load_ext batuta_sql")
        ipython.run("%batuta use mine")
        for _ in range(2):
            seen = ipython.cell("%batuta SELECT b FROM crm JOIN open USING (a)")
            assert seen.value.arrow().to_pydict() == {"b": [2]}
            assert seen.text.endswith(
                "\nwarning: data labelled origin:public would be mixed with data labelled"
                " tier:sovereign\n"
            )


# --- the question about cost ---------------------------------------------------------------------


@pytest.fixture
def priced(config: Path, tmp_path: Path) -> Path:
    """With a DuckDB file of 250,000 BIGINTs that costs some $10 to read."""
    path = tmp_path / "priced.toml"
    history = f'[cost]\nhistory_file = "{tmp_path}/history.sqlite"\n'
    price = "pricing = { usd_per_tb_scanned = 5000000.0 }\n"
    path.write_text(history + config.read_text() + price)
    return path


def test_a_query_that_costs_is_run_again_with_yes(ipython: Notebook, priced: Path) -> None:
    ipython.run("%load_ext batuta_sql")
    ipython.run(f"con = %batuta connect {priced}")
    sql = "SELECT count(DISTINCT n) AS n FROM duck.numbers"
    seen = ipython.cell(f"%%batuta found <<\n{sql}")
    assert isinstance(seen.error, CostRefused)
    assert "run the cell again with %%batuta --yes" in seen.html
    assert re.search(r"<th>cost</th><td>\$10\.\d\d \(estimated\)</td>", seen.html)
    assert seen.text.rstrip().endswith("Hint: run the cell again with %%batuta --yes")
    assert "found" not in ipython.shell.user_ns
    assert ipython.run("con.history()") == [], "nothing was sent"
    ipython.run(f"%%batuta found << --yes\n{sql}")
    assert ipython.run("found.arrow().to_pydict()") == {"n": [250_000]}
    assert len(ipython.run("con.history()")) == 1
    for again in (f"con.execute('{sql} WHERE n > 1')", f"%batuta {sql} WHERE n > 1"):
        assert isinstance(ipython.cell(again).error, CostRefused), "yes was for one cell"


def test_yes_lifts_no_limit(ipython: Notebook, priced: Path) -> None:
    ipython.run("%load_ext batuta_sql")
    ipython.run(f"%batuta connect {priced} --max-cost 5")
    seen = ipython.cell("%batuta --yes SELECT count(DISTINCT n) FROM duck.numbers")
    assert isinstance(seen.error, CostRefused)
    assert "--yes does not lift it" in seen.text
    assert seen.html == ""
