"""The commands and their options."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from batuta_sql import __version__
from batuta_sql.cli.examples import epilogue
from batuta_sql.cli.launch import ERROR, INTERRUPTED, Run, UsageError

if TYPE_CHECKING:
    from batuta_sql.cli.listings import Listed
    from batuta_sql.dbapi import Connection
    from batuta_sql.errors import SealError
    from batuta_sql.sync.drift import SchemaDrift
    from batuta_sql.sync.request import SyncResult

Format = Literal["table", "csv", "json", "arrow", "parquet"]

CopyFormat = Literal["parquet", "delta", "duckdb", "ald"]
OnDrift = Literal["stop", "apply", "skip", "force"]
CommandLine = Literal["bash", "zsh", "fish"]

_BINARY = ("arrow", "parquet")
_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".json": "json",
    ".arrow": "arrow",
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class Chosen:
    """The command that a command line asks for.

    :param name: of the command.
    :param commands: what it belongs to.
    :param work: runs it.
    """

    name: str
    commands: Commands
    work: Callable[[], Any]


def parse(run: Run, tokens: list[str], sealed: list[str] | None = None) -> Chosen | None:
    """The command that ``tokens`` ask for; None where help or the version was shown.

    :param sealed: the command that ``seal`` is to run.

    :raises CycloptsError: for a wrong command line.
    """
    commands = Commands(run, sealed)
    app = application(commands)
    found: list[Chosen] = []

    @app.meta.default
    def with_config(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        config: Path | None = None,
    ) -> None:
        """Takes --config wherever it stands.

        Parameters
        ----------
        config
            The configuration; else ./batuta.toml, then the user's configuration folder.
        """
        commands.config = config
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        if command.__name__ in dir(Commands):
            work = partial(command, *bound.args, **bound.kwargs)
            found.append(Chosen(command.__name__, commands, work))
        else:
            command(*bound.args, **bound.kwargs)

    app.meta(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    return found[0] if found else None


def application(commands: Commands) -> App:
    """What reads command lines, with all commands and their help."""
    app = App(
        name="batuta-sql",
        help="One SQL query over many systems, with the answer that DuckDB would give.",
        version=f"batuta-sql {__version__}",
        default_parameter=Parameter(negative=()),
        help_format="plaintext",
    )
    for command in (
        commands.shell,
        commands.query,
        commands.explain,
        commands.estimate,
        commands.history,
        commands.labels,
        commands.audit,
        commands.tree,
        commands.describe,
        commands.search,
        commands.seal,
        commands.doctor,
        commands.tune,
        commands.sync,
        commands.drift,
        commands.mcp,
        commands.serve,
        commands.completion,
    ):
        app.command(command, help_epilogue=epilogue(command.__name__))
    commands.completion_script = lambda shell: app.generate_completion(
        prog_name="batuta-sql", shell=shell
    )
    return app


class Commands:
    """What each command does.

    ``config`` is the file given on the command line; ``refusal`` is why nothing may be contacted.
    """

    def __init__(self, run: Run, sealed: list[str] | None = None) -> None:
        self._run = run
        self._sealed = sealed
        self.config: Path | None = None
        self.refusal: SealError | None = None
        self.completion_script: Callable[[CommandLine], str] = str

    def shell(self, *, max_cost: float | None = None) -> int:
        """Type SQL and see the answers; .help lists the commands. A pipe may hold the statements.

        Parameters
        ----------
        max_cost
            Refuse a query that is estimated to cost this much or more, in US dollars.
        """
        import platformdirs

        from batuta_sql.cli import terminal
        from batuta_sql.shell.preferences import Preferences
        from batuta_sql.shell.shell import Shell

        folder = Path(platformdirs.user_config_dir("batuta-sql"))
        preferences = Preferences.read(folder / "shell.toml")
        confirm = terminal.confirmation(self._run.interrupted)
        connection = self._connect(max_cost_usd=max_cost, confirm=confirm)
        kinds = {name: connection.kind_of(name) for name in connection.sources}
        return Shell(connection, preferences, self._run.interrupted, kinds).run()

    def query(
        self,
        sql: str | None = None,
        /,
        *,
        format: Format | None = None,  # noqa: A002 - the option's name
        output: Annotated[str | None, Parameter(name=["--output", "-o"])] = None,
        max_rows: Annotated[int, Parameter(name="--max-rows")] = 200,
        yes: bool = False,
        max_cost: float | None = None,
        dry_run: bool = False,
    ) -> int:
        """Run a query and write its result.

        Parameters
        ----------
        sql
            The query; "-" or nothing reads it from stdin.
        format
            Default: what the output file's name says, else a table.
        output
            Write to this file. It gets its name when the result is complete.
        max_rows
            How many rows the table format shows; 0 shows all.
        yes
            Answer yes to the question about cost; limits hold all the same.
        max_cost
            Refuse a query that is estimated to cost this much or more, in US dollars.
        dry_run
            Show the plan and the estimate; run nothing.
        """
        from batuta_sql.cli import output as out
        from batuta_sql.cli import terminal

        text = _sql(sql)
        target = output.strip() if output else None
        target = None if target == "-" else target
        chosen = format or _SUFFIXES.get(Path(target or "").suffix.lower(), "table")
        if target is None and chosen in _BINARY and not dry_run and sys.stdout.isatty():
            raise UsageError(f"{chosen} is not for a terminal: give -o FILE or a pipe")
        confirm = (lambda _: True) if yes else terminal.confirmation(self._run.interrupted)
        connection = self._connect(max_cost_usd=max_cost, confirm=confirm)
        if dry_run:
            return self._show_plan(text, as_json=chosen == "json")
        with connection.cursor() as cursor:
            cursor.target = target
            cursor.execute(text)
            if cursor.description is not None:
                out.write(cursor, chosen, target, max_rows)
        return 0

    def explain(
        self,
        sql: str | None = None,
        /,
        *,
        labels: bool = False,
        html: Path | None = None,
        analyze: bool = False,
        yes: bool = False,
        max_cost: float | None = None,
        json: bool = False,
    ) -> int:
        """Show a query's plan: what is sent to each source, and what runs here.

        Parameters
        ----------
        sql
            The query; "-" or nothing reads it from stdin.
        labels
            Show the labels of each column and where they come from.
        html
            Write the plan as a page to this file.
        analyze
            Run the query, and show what each fragment took; its rows are not shown.
        yes
            With --analyze: answer yes to the question about cost; limits hold all the same.
        max_cost
            With --analyze: refuse a query that is estimated to cost this much or more, in US
            dollars.
        json
            For programs.
        """
        from batuta_sql.cli import listings, terminal
        from batuta_sql.cli.output import opened

        text = _sql(sql)
        if analyze:
            confirm = (lambda _: True) if yes else terminal.confirmation(self._run.interrupted)
            plan = self._connect(max_cost_usd=max_cost, confirm=confirm).analyze(text)
        else:
            plan = self._connect().plan(text)
        if html is not None:
            page = plan.to_html()
            with opened(str(html)) as file:
                file.write(page.encode("utf-8", "backslashreplace"))
            if not json and not labels:
                print(f"the plan is in {html}")
                return 0
        if json:
            listings.print_json(listings.plan_values(plan))
        elif labels:
            listings.print_label_origins(plan)
        else:
            print(plan)
        return 0

    def labels(self, path: Path, /, *, json: bool = False) -> int:
        """Show the labels that a Parquet or Arrow file, or a Delta table, carries.

        Parameters
        ----------
        path
            The file, a folder of files, or the folder of a Delta table.
        json
            For programs.
        """
        from batuta_sql import read_labels
        from batuta_sql.cli import listings

        found = read_labels(path)
        if json:
            listings.print_json(listings.label_values(found))
        else:
            listings.print_labels(found)
        return 0

    def audit(self, *, json: bool = False) -> int:
        """Show the audit log: declassifications that were used, crossings that were only warned of.

        The log's chain is checked: a line that was changed or removed is an error.

        Parameters
        ----------
        json
            For programs.
        """
        from batuta_sql.cli import listings

        events, fault = self._connect().audit()
        if json:
            listings.print_json({"events": events, "fault": fault})
        else:
            listings.print_audit(events)
        if fault is not None:
            print(f"the audit log is not what was written: {fault}", file=sys.stderr)
        return ERROR if fault is not None else 0

    def estimate(self, sql: str | None = None, /, *, json: bool = False) -> int:
        """Show what a query will take; nothing is run that bills.

        Parameters
        ----------
        sql
            The query; "-" or nothing reads it from stdin.
        json
            For programs.
        """
        from batuta_sql.cli import costs, listings

        found = self._connect().estimate(_sql(sql))
        if json:
            listings.print_json(costs.estimate_values(found))
        else:
            costs.print_estimate(found)
        return 0

    def history(self, *, limit: int = 20, json: bool = False) -> int:
        """Show what queries took and cost, and how far off the estimates were.

        Parameters
        ----------
        limit
            How many queries, the newest first.
        json
            For programs.
        """
        from batuta_sql.cli import costs, listings

        if limit < 1:
            raise UsageError("--limit is at least 1")
        runs = self._connect().history(limit)
        if json:
            listings.print_json([costs.run_values(r) for r in runs])
        else:
            costs.print_history(runs)
        return 0

    def tree(self, source: str | None = None, /, *, json: bool = False) -> int:
        """Show the sources, their schemas and their tables.

        Parameters
        ----------
        source
            Show this source only.
        json
            For programs.
        """
        from batuta_sql.cli import listings

        connection = self._connect()
        # Asked for by name, a source that does not answer is the error of the command.
        listed = (
            [listings.SourceTables(source, tuple(connection.tables(source)))]
            if source
            else listings.tables_by_source(connection)
        )
        if json:
            listings.print_json(listings.tree_values(listed))
        else:
            listings.print_tree(listed)
        return _status(listed)

    def describe(self, table: str, /, *, json: bool = False) -> int:
        """Show a table's columns.

        Parameters
        ----------
        table
            Its name: source.schema.table or source.table.
        json
            For programs.
        """
        from batuta_sql.cli import listings, output

        columns = self._connect().describe(table)
        if json:
            listings.print_json(columns.to_pylist())
        else:
            output.print_table(columns)
        return 0

    def search(self, text: str, /, *, json: bool = False) -> int:
        """Find tables and columns whose names contain a text; no data is read.

        Parameters
        ----------
        text
            Part of a name, compared without case.
        json
            For programs.
        """
        from batuta_sql.cli import listings

        connection = self._connect()
        listed = listings.tables_by_source(connection)
        found = listings.matches(connection, listed, text)
        if json:
            listings.print_json(found)
        else:
            listings.print_matches(found, text)
        return _status(listed)

    def seal(
        self,
        *,
        # [::1]:5432 is an address, not JSON.
        forward: Annotated[tuple[str, ...], Parameter(json_list=False)] = (),
        keep: Annotated[tuple[str, ...], Parameter(json_list=False)] = (),
    ) -> int:
        """Run a command that can reach nothing but what the tier allows: seal -- COMMAND ...

        Enforced by the Linux kernel, for the command and everything that it starts. Exit status:
        that of the command; 78 where the seal cannot be enforced and nothing was run.

        Parameters
        ----------
        forward
            A further way out, as NAME:PORT, NAME:PORT=HOST:PORT or NAME:PORT=/path/of/socket: the
            command dials NAME:PORT, and what is behind it is reached outside. May be repeated.
        keep
            A folder or a Unix socket that is not hidden. May be repeated.
        """
        from batuta_sql.cli import seal

        return seal.run(self._sealed, forward, keep, self.config)

    def doctor(self, *, json: bool = False) -> int:
        """Check the configuration, the drivers and the sources, and what this machine can enforce.

        Parameters
        ----------
        json
            For programs.
        """
        from batuta_sql.cli import doctor

        return doctor.examine(self.config, self._connect, as_json=json)

    def tune(self, *source: str, yes: bool = False, json: bool = False) -> int:
        """Measure how fast sources and the ways to them are; plans are then made by that.

        No table is read. What it takes is said before; where that has a price, it is asked for.

        Parameters
        ----------
        source
            Measure these sources only.
        yes
            Answer yes to the question about the price.
        json
            For programs.
        """
        from batuta_sql.cli import tuning

        connection = self._connect()
        proposals = connection.proposals(source)
        if not proposals:
            raise UsageError("none of the sources is of a kind that can be measured")
        tuning.print_proposals(proposals)
        if not yes and any(p.usd for p in proposals):
            self._ask("Measure? [y/N] ")
        tuned = connection.tune([p.source for p in proposals])
        if json:
            from batuta_sql.cli import listings

            listings.print_json([tuning.values(t) for t in tuned])
        else:
            tuning.print_tuned(tuned)
        return 0

    def sync(
        self,
        origin: str,
        /,
        *,
        to: str,
        format: CopyFormat = "parquet",  # noqa: A002 - the option's name
        checkpoint: Path | None = None,
        on_drift: OnDrift | None = None,
        change: tuple[str, ...] = (),
        max_rejects: int | None = None,
        dry_run: bool = False,
        split_mb: Annotated[float, Parameter(name="--split-mb")] = 128,
        key: tuple[str, ...] = (),
        watermark: str | None = None,
        full_compare: bool = False,
        yes: bool = False,
        max_cost: float | None = None,
        json: bool = False,
    ) -> int:
        """Copy a table, a view or the result of a query; the same command goes on after a stop.

        Nothing is visible at the target before all of it is there. Exit status 5: the schema has
        changed since the last copy.

        Parameters
        ----------
        origin
            A table's name, or a query.
        to
            The folder (parquet, delta) or the file (duckdb, ald) to write.
        format
            What to write.
        checkpoint
            The file that remembers what is done; default: beside the target.
        on_drift
            When the schema has changed: stop, apply safe changes, skip new columns, or force the
            unsafe ones that --change names too. Default: ask on a terminal, else stop.
        change
            With --on-drift force, COLUMN or COLUMN=TYPE: a column whose change is taken though it
            is not safe. Its values are cast to TYPE, a type of DuckDB; default: that of the copy.
            Rows whose value does not fit are left out, and written beside the copy with the reason.
            May be given again.
        max_rejects
            Fail, and publish nothing, where more rows than that do not fit. Default: never.
        dry_run
            Show the splits and the estimate; copy nothing.
        split_mb
            How much of a table, in megabytes, is copied between two entries in the checkpoint.
        key
            A column that, with others if it is given again, says which row is which.
        watermark
            A column that grows: the next copy reads only rows from its greatest value on.
        full_compare
            With a watermark: read all keys too, and take out what the source has no more.
        yes
            Answer yes to the question about cost; limits hold all the same.
        max_cost
            Refuse a copy that is estimated to cost this much or more, in US dollars.
        json
            For programs: a line for the progress now and then, and one for the result.
        """
        from batuta_sql.cli import copying, listings, terminal
        from batuta_sql.errors import QueryCancelled
        from batuta_sql.sync.drift import SchemaDrift

        confirm = (lambda _: True) if yes else terminal.confirmation(self._run.interrupted)
        named = copying.changes_of(change)
        if named and on_drift != "force":
            raise UsageError("--change goes with --on-drift force")
        connection = self._connect(max_cost_usd=max_cost, confirm=confirm)

        def copied(decision: OnDrift, changes: Mapping[str, str | None]) -> SyncResult:
            with copying.watching(as_json=json) as watch:
                return connection.sync(
                    origin,
                    to,
                    format=format,
                    checkpoint=checkpoint,
                    on_drift=decision,
                    dry_run=dry_run,
                    split_bytes=split_mb * 1e6,
                    key=key,
                    watermark=watermark,
                    full_compare=full_compare,
                    changes=changes,
                    max_rejects=max_rejects,
                    progress=watch,
                )

        try:
            result = copied(on_drift or "stop", named)
        except SchemaDrift as changed:
            if on_drift is not None or not terminal.is_there():
                raise
            result = copied(*self._decided(changed))
        except QueryCancelled:
            print("stopped; the same command goes on from here", file=sys.stderr, flush=True)
            raise
        if json:
            listings.print_json(copying.result_values(result), indent=None)
        else:
            copying.print_result(result)
        return 0

    def _decided(self, changed: SchemaDrift) -> tuple[OnDrift, dict[str, str | None]]:
        """What the person at the terminal says of a changed schema, and the columns whose unsafe
        changes are taken.

        :raises SchemaDrift: where that is nothing.
        """
        from batuta_sql.cli import terminal

        print(changed, file=sys.stderr, flush=True)
        unsafe: dict[str, str | None] = {c.column: None for c in changed.changes if not c.is_safe}
        choices: tuple[OnDrift, ...] = ("force",) if unsafe else ("apply", "skip")
        question = f"{', '.join(choices)} or quit? [quit] "
        typed = terminal.answer(question, self._run.interrupted)
        for decision in choices:
            if typed and decision.startswith(typed):
                return decision, unsafe
        raise changed

    def drift(
        self,
        origin: str,
        /,
        *,
        checkpoint: Path | None = None,
        watch: float | None = None,
        json: bool = False,
    ) -> int:
        """Show how a schema differs from that of its last copy; nothing is copied.

        Exit status 5 where it does.

        Parameters
        ----------
        origin
            What was copied: a table's name, or a query.
        checkpoint
            The copy's checkpoint; default: that of the last copy of this origin.
        watch
            Look again every so many seconds, and end when it differs.
        json
            For programs.
        """
        from batuta_sql.cli import copying, listings
        from batuta_sql.sync.drift import SchemaDrift

        connection = self._connect()
        while True:
            found = connection.drift(origin, checkpoint=checkpoint)
            if found or watch is None:
                break
            if self._run.interrupted.wait(watch):
                return INTERRUPTED
        if json:
            listings.print_json(copying.change_values(found))
        elif found:
            copying.print_changes(found)
        else:
            print("the schema is that of the last copy")
        return SchemaDrift.exit_status if found else 0

    def mcp(self, *, allow_label: tuple[str, ...] = (), max_cost: float | None = None) -> int:
        """Serve an assistant by the Model Context Protocol, on stdin and stdout.

        It may list and describe tables, estimate and run queries, under the guards that hold for
        everybody. Results with labels are refused, and so is what somebody would have to confirm.

        Parameters
        ----------
        allow_label
            A label that results may carry, or a pattern such as "origin:*". May be given again.
        max_cost
            Refuse a query that is estimated to cost this much or more, in US dollars.
        """
        from batuta_sql.mcp_server import Desk, server

        desk = Desk(self._connect(max_cost_usd=max_cost, local_files=False), allow_label)
        server(desk).run("stdio")
        return 0

    def serve(
        self,
        *,
        host: str | None = None,
        port: int | None = None,
        socket: Path | None = None,
        tls_certificate: Path | None = None,
        tls_key: Path | None = None,
        allow_label: tuple[str, ...] = (),
        max_cost: float | None = None,
        local_files: bool = False,
    ) -> int:
        """Serve ADBC, JDBC and BI tools by Arrow Flight SQL, read-only.

        Users, their limits and how much runs at once are configured, see docs/serve.md. Results
        with labels are refused, and so is what somebody would have to confirm, unless a user may.

        Parameters
        ----------
        host
            The address to listen at. Default: 127.0.0.1; any other needs TLS and users.
        port
            0 takes a free one, and prints it. Default: 31337.
        socket
            A Unix socket to listen at instead, for this user of this machine.
        tls_certificate
            A PEM file: the certificate, and those between it and the root.
        tls_key
            A PEM file: its key.
        allow_label
            Without users: a label that results may carry, or a pattern. May be given again.
        max_cost
            Refuse a query that is estimated to cost this much or more, in US dollars. Without
            users, a cheaper one is not asked about.
        local_files
            Let queries read files by their paths, beside those of the sources.
        """
        from batuta_sql.cli import serving
        from batuta_sql.config import load_settings

        given = {
            "host": host,
            "port": port,
            "socket": str(socket) if socket else None,
            "tls_certificate": str(tls_certificate) if tls_certificate else None,
            "tls_key": str(tls_key) if tls_key else None,
        }
        if self.refusal is not None:
            raise self.refusal
        settings = load_settings(self.config, max_cost_usd=max_cost, local_files=local_files)
        chosen = {k: v for k, v in given.items() if v is not None}
        return serving.serve(serving.with_options(settings, chosen), allow_label, max_cost)

    def completion(self, shell: CommandLine, /) -> int:
        """Print what makes a command line complete batuta-sql's commands and options.

        Parameters
        ----------
        shell
            The command line's kind.
        """
        print(self.completion_script(shell))
        return 0

    # --- inside --------------------------------------------------------------------------------

    def _connect(self, **options: Any) -> Connection:
        from batuta_sql import connect

        if self.refusal is not None:
            raise self.refusal
        self._run.connection = connect(self.config, **options)
        return self._run.connection

    def _ask(self, question: str) -> None:
        """:raises UsageError: where the answer is no, or nobody is there to be asked."""
        from batuta_sql.cli import terminal

        if not terminal.is_there():
            raise UsageError("it has a price, and there is no terminal to ask on: give --yes")
        if not terminal.answered_yes(question, self._run.interrupted):
            raise UsageError("nothing was measured")

    def _show_plan(self, sql: str, *, as_json: bool) -> int:
        from batuta_sql.cli import costs, listings

        connection = self._run.connection
        assert connection is not None
        plan, estimate = connection.plan(sql), connection.estimate(sql)
        if as_json:
            values = listings.plan_values(plan)
            listings.print_json({**values, "estimate": costs.estimate_values(estimate)})
        else:
            print(plan, end="\n\n")
            costs.print_estimate(estimate)
        return 0


def _sql(given: str | None) -> str:
    """The SQL of the command line or of stdin.

    :raises UsageError: where there is none.
    """
    text = given
    if text is None or text.strip() == "-":
        if text is None and sys.stdin.isatty():
            raise UsageError('no SQL: give it as an argument, or "-" and write it to stdin')
        text = sys.stdin.read()
    if not text.strip():
        raise UsageError("no SQL: the text is empty")
    return text


def _status(listed: Listed) -> int:
    """A listing that lacks a source is an error, whatever else it shows."""
    failed = [f"{one.source}: {one.error}" for one in listed if one.error]
    for line in failed:
        print(line, file=sys.stderr)
    return ERROR if failed else 0
