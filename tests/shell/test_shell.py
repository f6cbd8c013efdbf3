"""The shell as a person uses it: in a real terminal, in a pipe, on a terminal that can little."""

from __future__ import annotations

import contextlib
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batuta_sql.demo.postgres_server import PostgresServer
from tests.cli.conftest import Command
from tests.shell.conftest import Opened, Terminal, home_in

BEER = "SELECT id, name, price FROM pub.beer ORDER BY id;"


# --- typing --------------------------------------------------------------------------------------


def test_a_statement_of_several_lines(shell: Opened) -> None:
    terminal = shell()
    terminal.enter("SELECT id, name")
    terminal.see(r"\.\.\.>")
    terminal.enter("FROM pub.beer WHERE id < 3 ORDER BY id;")
    terminal.see(r"│  1 │ Ann's")
    terminal.see(r"\(2 rows; \d\.\d+ s; .* from 1 source\)")
    terminal.see_prompt()


def test_several_statements_of_a_line_run_one_after_the_other(shell: Opened) -> None:
    terminal = shell()
    terminal.enter("SELECT 1 AS one; SELECT 2 AS two;")
    terminal.see(r"one(.|\n)*\(1 row(.|\n)*two(.|\n)*\(1 row")


def test_an_error_points_at_the_place_and_the_shell_goes_on(shell: Opened) -> None:
    terminal = shell()
    terminal.enter("SELECT nme FROM pub.beer;")
    terminal.see(r'LINE 1: SELECT nme FROM pub\.beer\n +\^\^\^\nHint: did you mean "name"\?')
    assert terminal.style_of("there is no column")[0] == "red"
    terminal.enter("SELECT 41 + 1 AS answer;")
    terminal.see(r"│ +42 │")


def test_what_is_typed_is_coloured(shell: Opened) -> None:
    terminal = shell()
    terminal.type("SELECT 'text'")
    terminal.see("SELECT 'text'")
    assert terminal.style_of("SELECT")[0] != terminal.style_of("'text'")[0]


def test_tab_completes_from_the_catalog(shell: Opened) -> None:
    terminal = shell()
    terminal.type("SELECT * FROM pub.be")
    for _ in range(20):
        # The catalog is asked in the background.
        terminal.type("\t")
        with contextlib.suppress(AssertionError):
            terminal.see(r"FROM pub\.beer", seconds=1)
            break
    terminal.enter(";")
    terminal.see(r"\(4 rows")


def test_what_was_typed_before_is_found_again(shell: Opened, home: dict[str, str]) -> None:
    terminal = shell()
    terminal.enter("SELECT 4711 AS number;")
    terminal.see(r"│ +4711 │")
    terminal.enter(".quit")
    assert terminal.ended() == 0
    file = Path(home["XDG_DATA_HOME"]) / "batuta-sql" / "shell_history"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = shell()
    again.press("r")
    again.type("4711")
    again.see("SELECT 4711 AS number;")
    again.enter()
    again.enter()
    again.see(r"│ +4711 │")


def test_ctrl_c_at_the_prompt_drops_the_line_and_ctrl_d_leaves(shell: Opened) -> None:
    terminal = shell()
    terminal.type("SELECT nonsense")
    terminal.see("nonsense")
    terminal.press("c")
    terminal.see(r"nonsense\s*\nbatuta> *\Z")
    terminal.press("d")
    assert terminal.ended() == 0


# --- a query that runs ---------------------------------------------------------------------------


@pytest.fixture
def slow(postgres: PostgresServer, tmp_path: Path) -> Any:
    """A configuration with a view that takes half an hour to read."""
    with postgres.database("shell") as uri:
        name = uri.rsplit("/", 1)[1]
        postgres.run(
            "CREATE VIEW nap AS SELECT id, pg_sleep(0.2)::text AS nap"
            " FROM generate_series(1, 10000) s(id)",
            name,
        )
        path = tmp_path / "slow.toml"
        path.write_text(f'[sources.crm]\nkind = "postgresql"\nuri = "{uri}"\nlocality = "local"\n')
        yield path


def test_ctrl_c_cancels_the_query_and_not_the_shell(
    shell: Opened, slow: Path, postgres: PostgresServer
) -> None:
    terminal = shell(slow)
    terminal.enter("SELECT count(nap) FROM crm.nap;")
    terminal.see(r"crm +public\.nap +running")
    terminal.see("Ctrl-C cancels the query")
    terminal.press("c")
    terminal.see("cancelled")
    terminal.see_prompt()
    assert "running" not in terminal.text, "what was seen of the run is gone with it"
    running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%nap%'"
    assert postgres.run(f"{running} AND pid <> pg_backend_pid()").strip() == "0"
    terminal.enter("SELECT 41 + 1 AS answer;")
    terminal.see(r"│ +42 │")


def test_the_question_about_cost_comes_inline(shell: Opened, config: Path, tmp_path: Path) -> None:
    path = tmp_path / "priced.toml"
    history = f'[cost]\nhistory_file = "{tmp_path}/history.sqlite"\n'
    price = "pricing = { usd_per_tb_scanned = 5000000.0 }\n"
    path.write_text(history + config.read_text() + price)
    terminal = shell(path)
    for answer, seen in (("n", "not confirmed, nothing was sent"), ("y", r"│ +250000 │")):
        terminal.enter("SELECT count(DISTINCT n) AS n FROM duck.numbers;")
        terminal.see(r"Estimated cost: \$10\.\d\d(.|\n)*Proceed\? \[y/N\] *\Z")
        terminal.enter(answer)
        terminal.see(seen)
        terminal.see_prompt()


# --- results -------------------------------------------------------------------------------------


def test_labels_are_coloured_marks_with_a_legend(
    shell: Opened, config: Path, tmp_path: Path
) -> None:
    path = tmp_path / "labelled.toml"
    labels = '[sources.pub.tables."beer".columns]\nname = { labels = ["pii"] }\n'
    path.write_text(config.read_text() + labels)
    terminal = shell(path)
    terminal.enter(BEER)
    terminal.see(r"│ id │ name¹ +│ price │")
    terminal.see(r"¹ pii")
    colour, bold = terminal.style_of("¹ pii")
    assert (colour, bold) != terminal.style_of("│ id")
    assert colour == "red"


def test_a_long_result_goes_to_the_pager(shell: Opened, tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    pager.write_text(f'#!/bin/sh\ncat > {tmp_path}/paged\necho "PAGED"\n')
    pager.chmod(0o755)
    terminal = shell(PAGER=str(pager))
    terminal.enter("SELECT n FROM duck.numbers ORDER BY n LIMIT 200;")
    terminal.see(r"PAGED(.|\n)*\(200 rows")
    assert "199" in (tmp_path / "paged").read_text()
    terminal.enter(".set pager off")
    terminal.enter("SELECT n + 1000 AS n FROM duck.numbers ORDER BY n LIMIT 60;")
    terminal.see(r"│ +1059 │")


def test_wide_rows_are_shown_value_by_value(shell: Opened) -> None:
    terminal = shell()
    columns = ", ".join(f"repeat('x{i}', 20) AS column_{i}" for i in range(8))
    terminal.enter(f"SELECT {columns};")
    terminal.see(r"column_7 │ (x7){20}")
    terminal.enter(r"\x off")
    terminal.enter(f"SELECT {columns};")
    terminal.see(r"┬")


def test_explain_is_shown_as_it_is(shell: Opened) -> None:
    terminal = shell()
    terminal.enter("EXPLAIN SELECT count(*) FROM pub.beer;")
    terminal.see(r"\nExchange pub(.|\n)*beer(.|\n)*batuta>")
    assert "│ plan" not in terminal.text


# --- commands ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def talking(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """One shell for all who only ask it."""
    folder = tmp_path_factory.mktemp("talking")
    command = [sys.executable, "-m", "batuta_sql", "--config", str(config), "shell"]
    terminal = Terminal(command, home_in(folder))
    terminal.see_prompt()
    yield terminal
    terminal.close()


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        (".help", r"\.describe TABLE +a table's columns(.|\n)*Ctrl-C cancels a query"),
        (".help set", r"\.set \[NAME VALUE\]"),
        (".sources", r"pub +sqlite\nlake +files\n"),
        (".tables", r"pub\.beer +table(.|\n)*duck\.main\.numbers"),
        (".tables numb", r"duck\.main\.numbers"),
        (r"\dt", r"pub\.beer +table"),
        (".tree lake", r"lake\n +shares"),
        (".describe pub.beer", r"price +│ DECIMAL\(6,2\)"),
        (r"\d pub.beer", r"price +│ DECIMAL\(6,2\)"),
        (".search minut", r"delta\.visits\.minutes"),
        (".explain SELECT count(*) FROM pub.beer", r"Exchange pub"),
        (".estimate SELECT count(*) FROM pub.beer", r"cost: +no price is known(.|\n)*pub +1 "),
        (".labels SELECT name FROM pub.beer", r"name\n +no labels"),
        (".tier", r"\nstandard\n"),
        (".set", r"max_rows +1000"),
        (".plot SELECT name, id FROM pub.beer WHERE name > ''", "█"),
        (".sorces", r'no command \.sorces\nHint: did you mean "\.sources"'),
        (".describe", r"it is \.describe TABLE"),
        (".set maxrows 3", 'did you mean "max_rows"'),
        (".history x", "takes a number"),
        (".refresh", r"\A *\.refresh\s*\Z"),
    ],
)
def test_commands(talking: Terminal, line: str, seen: str) -> None:
    assert re.search(seen, talking.answer(line))


def test_a_command_about_the_last_statement_before_there_is_one(shell: Opened) -> None:
    assert "there is no statement yet" in shell().answer(".explain")


def test_without_sql_the_last_statement_is_meant(shell: Opened) -> None:
    terminal = shell()
    terminal.enter("SELECT count(*) AS beers FROM pub.beer;")
    terminal.see(r"beers")
    terminal.enter(".explain")
    terminal.see("Exchange pub")


def test_results_go_to_files(shell: Opened, tmp_path: Path) -> None:
    terminal = shell()
    terminal.enter(f".output {tmp_path}/out.csv")
    terminal.enter(BEER)
    terminal.see(r"out\.csv: 4 rows")
    assert (tmp_path / "out.csv").read_text().splitlines()[1] == "1,Ann's,1.50"
    terminal.enter(".output")
    terminal.enter("SELECT 42 AS answer;")
    terminal.see(r"│ +42 │")
    terminal.enter(f".export {tmp_path}/out.parquet {BEER}")
    terminal.see(r"out\.parquet: 4 rows")
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 4


def test_a_file_of_statements_is_read(shell: Opened, tmp_path: Path) -> None:
    file = tmp_path / "all.sql"
    file.write_text("CREATE TABLE t AS SELECT 7 AS n;\nSELECT n * 6 AS answer FROM t")
    terminal = shell()
    terminal.enter(f".read {file}")
    terminal.see(r"│ +42 │")
    terminal.enter(".read /nowhere.sql")
    terminal.see(r"/nowhere\.sql: No such file")


def test_a_statement_is_edited_elsewhere_and_comes_back(shell: Opened, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/one/two/' \"$1\"\n")
    editor.chmod(0o755)
    terminal = shell(EDITOR=str(editor), VISUAL="")
    terminal.enter(".edit SELECT 'one' AS word;")
    terminal.see(r"batuta> SELECT 'two' AS word")
    terminal.enter(";")
    terminal.see(r"│ two +│")


def test_what_was_chosen_in_the_file_holds(shell: Opened, home: dict[str, str]) -> None:
    folder = Path(home["XDG_CONFIG_HOME"]) / "batuta-sql"
    folder.mkdir(parents=True)
    (folder / "shell.toml").write_text('null = "(none)"\ntiming = false\nmax_rows = 3\n')
    terminal = shell()
    terminal.enter("SELECT since FROM pub.beer ORDER BY id;")
    terminal.see(r"\(none\)")
    terminal.see(r"\(the first 3 rows; there are more: [^;]*\)")


def test_a_wrong_file_of_choices_is_said_before_the_first_prompt(
    shell: Opened, home: dict[str, str]
) -> None:
    folder = Path(home["XDG_CONFIG_HOME"]) / "batuta-sql"
    folder.mkdir(parents=True)
    (folder / "shell.toml").write_text("maxrows = 3\n")
    terminal = shell(prompts=False)
    # The path may be so long that the terminal breaks the line, anywhere.
    terminal.see(r"\s*".join(map(re.escape, "shell.toml:maxrows")))
    assert terminal.ended() == 1


# --- without a terminal, and on a poor one -------------------------------------------------------


def test_a_pipe(batuta: Command) -> None:
    done = batuta("shell", stdin=f"{BEER}\n.tier\nSELECT 42 AS answer".encode())
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert "|  1 | Ann's" in text
    assert "standard" in text
    assert "42" in text
    assert "batuta>" not in text
    assert "\x1b" not in text


def test_in_a_pipe_the_first_error_ends_it(batuta: Command) -> None:
    done = batuta("shell", stdin=b"SELECT 1 AS one; SELECT nme FROM pub.beer; SELECT 2 AS two;")
    assert done.returncode == 1
    assert b"one" in done.stdout
    assert b"two" not in done.stdout
    assert b'did you mean "name"' in done.stderr


def test_a_refusal_has_its_own_status(batuta: Command, config: Path, tmp_path: Path) -> None:
    path = tmp_path / "priced.toml"
    history = f'[cost]\nhistory_file = "{tmp_path}/history.sqlite"\n'
    path.write_text(history + config.read_text() + "pricing = { usd_per_tb_scanned = 5000000.0 }\n")
    sql = b"SELECT count(DISTINCT n) FROM duck.numbers;"
    assert batuta("shell", config=path, stdin=sql).returncode == 3


def test_a_terminal_that_can_little(shell: Opened) -> None:
    terminal = shell(TERM="dumb")
    terminal.enter("SELECT id")
    terminal.enter("FROM pub.beer WHERE id = 1;")
    terminal.see(r"\(1 row")
    terminal.enter(".quit")
    assert terminal.ended() == 0


def test_results_in_a_file_while_a_person_types(config: Path, home: dict[str, str]) -> None:
    """``batuta-sql shell > file``: no escapes in it."""
    command = f"{sys.executable} -m batuta_sql --config {config} shell > {config.parent}/out.txt"
    terminal = Terminal(["/bin/sh", "-c", command], home)
    terminal.enter("SELECT 42 AS answer;")
    terminal.enter(".quit")
    assert terminal.ended() == 0
    text = (config.parent / "out.txt").read_text()
    assert "42" in text


def test_bytes_that_are_no_text_are_said_to_be_so(batuta: Command) -> None:
    done = batuta("shell", stdin=b"SELECT 1;\nSELECT '\xff';")
    assert done.returncode == 1
    assert b"no UTF-8" in done.stderr
    assert b"TypeError" not in done.stderr


def test_a_file_that_cannot_be_written_is_called_by_its_name(batuta: Command) -> None:
    done = batuta("shell", stdin=b".export /nowhere/out.csv SELECT 1")
    assert done.returncode == 1
    assert done.stderr.decode().strip() == "/nowhere/out.csv: No such file or directory"
