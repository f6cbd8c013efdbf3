"""``%batuta`` and ``%%batuta``."""

from __future__ import annotations

import atexit
import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from IPython.display import display

from batuta_sql.errors import (
    CostRefused,
    Error,
    LabelWarning,
    Position,
    ProgrammingError,
    did_you_mean,
)
from batuta_sql.notebook.connected import Connected
from batuta_sql.notebook.live import LiveTable
from batuta_sql.notebook.request import Opening, Request
from batuta_sql.notebook.result import EstimateView, PlanText, Result, formatters
from batuta_sql.shell import rendering
from batuta_sql.shell.reading import parameters
from batuta_sql.units import duration
from batuta_sql.waiting import waited

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from batuta_sql import Connection

T = TypeVar("T")

_USAGE = "it is %batuta SQL, %batuta connect [FILE] or %batuta use NAME"
_CELL_USAGE = "SQL begins on the line below %%batuta"
_AGAIN = "run the cell again with %%batuta --yes"


@magics_class
class BatutaMagics(Magics):
    """The magics of one notebook, and its connection."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self._connected = Connected()

    @no_var_expand
    @line_cell_magic
    def batuta(self, line: str, cell: str | None = None) -> Any:
        """Runs SQL over all sources.

        %batuta connect [FILE] [--tier TIER] [--max-cost USD]
        %batuta use NAME            a connection that the notebook has opened
        %batuta [OPTIONS] SQL
        %%batuta [NAME <<] [OPTIONS]
        SQL

        NAME << stores what comes instead of showing it. Options: --yes lets a query run that
        costs, --max-rows N shows as many rows (0: all), --explain shows the plan and --estimate
        the cost, and nothing is run; --arrow, --pandas, --polars give a table or frame.

        $name in the SQL is the value of the notebook's variable name.
        """
        try:
            return self._done(line, cell)
        except Error as error:
            _say_only(error, str(error))
            raise
        except KeyboardInterrupt as interrupt:
            _say_only(interrupt, "cancelled")
            raise

    def close(self) -> None:
        """Closes the connection that was opened here."""
        self._connected.close()

    def _done(self, line: str, cell: str | None) -> Any:
        if cell is None:
            word, _, rest = line.strip().partition(" ")
            match word.lower():
                case "connect":
                    return self._connected.open(Opening.read(rest))
                case "use":
                    return self._connected.use(self._named(rest.strip()))
        request, sql = Request.read(line)
        if cell is not None:
            if sql:
                raise ProgrammingError(f"{sql.split()[0]} is no option", hint=_CELL_USAGE)
            sql = cell.strip()
        if not sql:
            raise ProgrammingError("there is no SQL", hint=_USAGE if cell is None else _CELL_USAGE)
        found = self._asked(request, sql)
        if request.name is None:
            return found
        self._variables[request.name] = found
        return None

    # --- asking --------------------------------------------------------------------------------

    def _asked(self, request: Request, sql: str) -> Any:
        values = bound(sql, self._variables)
        connection = self._connected.connection
        with self._connected.allowing(cost=request.yes), _plain_warnings():
            try:
                match request.action:
                    case "explain":
                        return self._waited(connection, lambda: _plan(connection, sql, values))
                    case "estimate":
                        return EstimateView(
                            self._waited(connection, lambda: connection.estimate(sql, values))
                        )
                return self._run(connection, request, sql, values)
            except CostRefused as refusal:
                asked = self._connected.consent.refused
                if asked is None:
                    raise
                note = f"Nothing was sent. If it may cost this, {_AGAIN}."
                display(EstimateView(asked, note))  # type: ignore[no-untyped-call]
                raise CostRefused(refusal.message, source=refusal.source, hint=_AGAIN) from None

    def _run(
        self, connection: Connection, request: Request, sql: str, values: dict[str, Any] | None
    ) -> Any:
        began = time.perf_counter()
        found = self._waited(
            connection, lambda: _result(connection, sql, values, request.max_rows, began)
        )
        if found is None:
            print(f"done ({duration(time.perf_counter() - began)})")
            return None
        match request.form:
            case "arrow":
                return found.arrow()
            case "pandas":
                return found.pandas()
            case "polars":
                return found.polars()
        if found.table.column_names == ["plan"] and sql.lower().startswith("explain"):
            return PlanText("\n".join(line or "" for line in found.table["plan"].to_pylist()))
        return found

    def _waited(self, connection: Connection, work: Callable[[], T]) -> T:
        def complain(text: str) -> None:
            print(text, file=sys.stderr)

        # Only a kernel can write over what it has shown.
        live = LiveTable(connection.progress) if hasattr(self.shell, "kernel") else None
        look = live.look if live is not None else lambda seconds: None
        try:
            return waited(work, connection.cancel, look=look, complain=complain)
        finally:
            if live is not None:
                live.close()

    # --- the notebook's variables --------------------------------------------------------------

    @property
    def _variables(self) -> dict[str, Any]:
        assert self.shell is not None
        variables: dict[str, Any] = self.shell.user_ns
        return variables

    def _named(self, name: str) -> Connection:
        import batuta_sql

        if not name:
            raise ProgrammingError("it is %batuta use NAME")
        found = self._variables.get(name)
        if not isinstance(found, batuta_sql.Connection):
            raise ProgrammingError(
                f"{name} is no connection", hint=f"{name} = batuta_sql.connect(...) opens one"
            )
        return found


def bound(sql: str, variables: Mapping[str, Any]) -> dict[str, Any] | None:
    """The values of the ``$name`` parameters of a statement; None where it has none.

    :raises ProgrammingError: for a name that the notebook does not know.
    """
    found: dict[str, Any] = {}
    for name, offset in parameters(sql).items():
        if name not in variables:
            known = [n for n in variables if not n.startswith("_")]
            raise ProgrammingError(
                f'the notebook has no variable "{name}"',
                hint=did_you_mean(name, known),
                sql=sql,
                position=Position.at_offset(sql, offset, len(name) + 1),
            )
        found[name] = _plain(variables[name])
    return found or None


def load(ipython: InteractiveShell) -> None:
    """Adds the magics, and how plans and estimates look that Python code gives."""
    magics = BatutaMagics(ipython)
    ipython.register_magics(magics)
    atexit.register(magics.close)
    assert ipython.display_formatter is not None
    for form, module, name, shown in formatters():
        ipython.display_formatter.formatters[form].for_type_by_name(module, name, shown)


def unload(ipython: InteractiveShell) -> None:
    """Takes the magics away, and closes their connection."""
    manager = ipython.magics_manager
    magics = manager.registry.pop(BatutaMagics.__name__, None)
    if magics is not None:
        for kind in ("line", "cell"):
            manager.magics[kind].pop("batuta", None)
        atexit.unregister(magics.close)
        magics.close()
    assert ipython.display_formatter is not None
    for form, module, name, _ in formatters():
        ipython.display_formatter.formatters[form].pop(f"{module}.{name}", None)


def _plan(connection: Connection, sql: str, values: dict[str, Any] | None) -> PlanText:
    plan = connection.plan(sql, values)
    return PlanText(str(plan), plan.to_html())


def _result(
    connection: Connection,
    sql: str,
    values: dict[str, Any] | None,
    max_rows: int,
    began: float,
) -> Result | None:
    """Reads a result whole; None of a statement that has none."""
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        if cursor.description is None:
            return None
        labels = cursor.labels
        table = cursor.fetch_arrow_table()
        took = f"; {duration(time.perf_counter() - began)}{rendering.moved(cursor)}"
        return Result(table, labels, cursor.plan, max_rows, took)


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Shows warnings about labels as one line, below the cell.

    They come from the thread that runs the query, whose output might go to another cell.
    """
    told: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", LabelWarning)
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, LabelWarning):
                told.append(f"warning: {message}")
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        try:
            yield
        finally:
            for text in dict.fromkeys(told):
                print(text, file=sys.stderr)


def _plain(value: Any) -> Any:
    """NumPy's numbers, which come of pandas, as Python's."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()
    return value


def _say_only(error: BaseException, text: str) -> None:
    """Makes IPython show a text instead of a traceback; the cell fails all the same.

    https://ipython.readthedocs.io/en/stable/config/integrating.html#custom-exception-tracebacks
    """
    error._render_traceback_ = text.splitlines  # type: ignore[attr-defined]
