"""The commands of the shell: a dot and a word. psql's backslashes are other names for them."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batuta_sql.cli import costs, listings, output
from batuta_sql.errors import ProgrammingError, did_you_mean
from batuta_sql.shell.rendering import plain_lines

if TYPE_CHECKING:
    from batuta_sql.shell.shell import Shell

_ALIASES = {
    r"\?": ".help",
    r"\h": ".help",
    r"\q": ".quit",
    r"\l": ".sources",
    r"\dt": ".tables",
    r"\dn": ".tree",
    r"\e": ".edit",
    r"\i": ".read",
    r"\o": ".output",
    r"\timing": ".timing",
    ".exit": ".quit",
    ".desc": ".describe",
    ".schema": ".describe",
}
_SUFFIXES = {".csv": "csv", ".json": "json", ".arrow": "arrow", ".parquet": "parquet"}


class Leave(Exception):
    """The person wants to go."""


@dataclass(frozen=True)
class Command:
    """
    :param usage: its name and what follows it.
    :param about: one line.
    :param run: does it, given what follows the name.
    :param takes: what may follow, for completion: ``table``, ``source``, ``setting``, ``switch``.
    """

    usage: str
    about: str
    run: Callable[[Shell, str], None]
    takes: str = ""


def run_command(shell: Shell, line: str) -> None:
    """Runs one line.

    :raises Leave: for ``.quit``.
    :raises ProgrammingError: for a command that there is not.
    """
    name, _, rest = line.partition(" ")
    rest = rest.strip().removesuffix(";").strip()
    if name == r"\d":
        name = ".describe" if rest else ".tables"
    if name == r"\x":
        name, rest = ".set", f"expanded {rest or _turned(shell.preferences.expanded)}"
    name = _ALIASES.get(name, name)
    command = COMMANDS.get(name)
    if command is None:
        hint = did_you_mean(name, COMMANDS)
        raise ProgrammingError(f"there is no command {name}", hint=hint or "see .help")
    command.run(shell, rest)


def arguments(shell: Shell, name: str) -> Iterable[str]:
    """What may follow a command's name."""
    command = COMMANDS.get(name)
    match command.takes if command is not None else "":
        case "table":
            return [".".join(p) for p in shell.names.tables()]
        case "source":
            return shell.names.sources
        case "setting":
            return list(type(shell.preferences).model_fields)
        case "switch":
            return ("on", "off")
    return ()


def _turned(now: str) -> str:
    return "auto" if now == "on" else "on"


# --- what there is -------------------------------------------------------------------------------


def _help(shell: Shell, rest: str) -> None:
    if rest:
        name = rest if rest.startswith(".") else f".{rest}"
        if name in COMMANDS:
            shell.write(plain_lines([(COMMANDS[name].usage, COMMANDS[name].about)]))
            return
    shell.write(plain_lines([(c.usage, c.about) for c in COMMANDS.values()]))
    shell.write(
        "\nStatements end with ; and may have several lines. Tab completes, Ctrl-R searches what"
        "\nwas typed before, Ctrl-C cancels a query, Ctrl-D leaves.\n"
    )


def _sources(shell: Shell, rest: str) -> None:
    listed = [(s, shell.kind_of(s)) for s in shell.connection.sources]
    shell.write(plain_lines(listed) if listed else "no sources are configured\n")


def _tree(shell: Shell, rest: str) -> None:
    if rest:
        listed = [listings.SourceTables(rest, tuple(shell.connection.tables(rest)))]
    else:
        listed = listings.tables_by_source(shell.connection)
    shell.print_by(lambda: listings.print_tree(listed))


def _tables(shell: Shell, rest: str) -> None:
    listed = listings.tables_by_source(shell.connection)
    found = [
        (".".join((s, *path)), kind)
        for one in listed
        for s, path, kind in one.tables
        if rest.lower() in ".".join((s, *path)).lower()
    ]
    shell.write(plain_lines(found) if found else "no tables\n")
    for one in listed:
        if one.error or one.refused:
            shell.complain(f"{one.source}: {one.error or one.refused}")


def _describe(shell: Shell, rest: str) -> None:
    table = shell.connection.describe(_needed(rest, ".describe TABLE"))
    empty = [n for n in ("default", "extra", "note", "key") if not any(table[n].to_pylist())]
    shell.print_by(lambda: output.print_table(table.drop_columns(empty)))


def _search(shell: Shell, rest: str) -> None:
    text = _needed(rest, ".search TEXT")
    listed = listings.tables_by_source(shell.connection)
    found = listings.matches(shell.connection, listed, text)
    shell.print_by(lambda: listings.print_matches(found, text))


def _tier(shell: Shell, rest: str) -> None:
    shell.write(f"{shell.connection.tier}\n")


def _refresh(shell: Shell, rest: str) -> None:
    shell.connection.refresh()
    shell.names.refresh()


# --- a statement and what it takes ---------------------------------------------------------------


def _explain(shell: Shell, rest: str) -> None:
    shell.write(f"{shell.connection.explain(shell.statement(rest))}\n")


def _estimate(shell: Shell, rest: str) -> None:
    found = shell.connection.estimate(shell.statement(rest))
    shell.print_by(lambda: costs.print_estimate(found))


def _labels(shell: Shell, rest: str) -> None:
    plan = shell.connection.plan(shell.statement(rest))
    shell.print_by(lambda: listings.print_label_origins(plan))


def _history(shell: Shell, rest: str) -> None:
    if rest and not rest.isdigit():
        raise ProgrammingError(".history takes a number of queries")
    runs = shell.connection.history(int(rest or 20))
    shell.print_by(lambda: costs.print_history(runs))


def _plot(shell: Shell, rest: str) -> None:
    shell.plot(shell.statement(rest))


# --- files ---------------------------------------------------------------------------------------


def _output(shell: Shell, rest: str) -> None:
    shell.target = _file(rest) if rest and rest != "-" else None


def _export(shell: Shell, rest: str) -> None:
    words = _needed(rest, ".export FILE [SQL]").split(maxsplit=1)
    target = _file(words[0])
    rows = shell.export(shell.statement(words[1] if len(words) > 1 else ""), target)
    shell.write(f"{target}: {rows:,} row{'' if rows == 1 else 's'}\n")


def _read(shell: Shell, rest: str) -> None:
    path = Path(_needed(rest, ".read FILE")).expanduser()
    shell.run_text(path.read_text())


def _edit(shell: Shell, rest: str) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write((rest or shell.last or "") + "\n")
        file.flush()
        status = subprocess.run([*shlex.split(editor), file.name], check=False).returncode
        if status:
            raise ProgrammingError(f"{editor} ended with status {status}: nothing was taken")
        shell.draft = Path(file.name).read_text().strip()


def _file(name: str) -> Path:
    return Path(name.strip("'\"")).expanduser()


def form_of(path: Path) -> str:
    """The format that a file's name asks for."""
    return _SUFFIXES.get(path.suffix.lower(), "table")


# --- the shell itself ----------------------------------------------------------------------------


def _set(shell: Shell, rest: str) -> None:
    preferences = shell.preferences
    if not rest:
        told = preferences.model_dump()
        shell.write(plain_lines([(n, _shown(v)) for n, v in told.items()]))
        return
    name, _, value = rest.partition(" ")
    preferences.change(name, value.strip().strip("'\""))


def _timing(shell: Shell, rest: str) -> None:
    shell.preferences.change("timing", rest or ("off" if shell.preferences.timing else "on"))


def _shown(value: object) -> str:
    match value:
        case bool():
            return "on" if value else "off"
    return str(value)


def _quit(shell: Shell, rest: str) -> None:
    raise Leave


def _needed(rest: str, usage: str) -> str:
    """
    :raises ProgrammingError: where nothing follows the command's name.
    """
    if not rest:
        raise ProgrammingError(f"it is {usage}")
    return rest


COMMANDS: dict[str, Command] = {
    c.usage.split()[0]: c
    for c in (
        Command(".help [COMMAND]", "this list", _help),
        Command(".sources", "the configured sources", _sources),
        Command(".tree [SOURCE]", "sources, their schemas and tables", _tree, "source"),
        Command(".tables [TEXT]", "all tables, or those with a text in their names", _tables),
        Command(".describe TABLE", "a table's columns", _describe, "table"),
        Command(".search TEXT", "tables and columns with a text in their names", _search),
        Command(".explain [SQL]", "the plan: what is sent where, and what runs here", _explain),
        Command(".estimate [SQL]", "what it will take and cost; nothing is run", _estimate),
        Command(".labels [SQL]", "the labels of each column, and where they come from", _labels),
        Command(".history [N]", "what queries took and cost, beside their estimates", _history),
        Command(".plot [SQL]", "a chart of the first column and the numbers after it", _plot),
        Command(".output [FILE]", "write results to a file (.csv .json .parquet .arrow)", _output),
        Command(".export FILE [SQL]", "write one result to a file", _export),
        Command(".read FILE", "run the statements of a file", _read),
        Command(".edit [SQL]", "write in $EDITOR; the text comes back to the prompt", _edit),
        Command(".set [NAME VALUE]", "what you have chosen, or another choice", _set, "setting"),
        Command(".timing [on|off]", "show seconds and bytes below results", _timing, "switch"),
        Command(".tier", "the sovereignty tier in force", _tier),
        Command(".refresh", "forget what is remembered of the catalogs", _refresh),
        Command(".quit", "leave (Ctrl-D too)", _quit),
    )
}
"""By their names. Without SQL, the last statement is meant."""

__all__ = ["COMMANDS", "Leave", "arguments", "form_of", "run_command"]
