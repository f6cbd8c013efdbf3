"""A server of the Model Context Protocol: an assistant asks, under the same guards as a person.

An assistant is a third party: what it is told has left the house. So a result that carries a label
is refused unless the label is allowed to go to it, before anything is sent to a source; what would
have to be confirmed is refused, since nobody is there to confirm it; and nothing is read but the
sources: no file by its path, no statement but a query.

https://modelcontextprotocol.io/specification
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from batuta_sql import __version__
from batuta_sql.cli import costs
from batuta_sql.cli.output import first_rows
from batuta_sql.errors import ConfigError, Error
from batuta_sql.unattended import LabelGate

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

    from batuta_sql.dbapi import Connection

T = TypeVar("T")

_INSTRUCTIONS = """\
One SQL query (DuckDB's dialect) over all tables that list_tables names, whatever systems they are
in. Call describe before you use a table, and estimate before a query that may read much. Queries
that cost more than the configuration allows without a question, and results with labels that are
not allowed here, are refused: say so to the person instead of looking for a way around."""

_MOST_ROWS = 1000


class Desk:
    """What an assistant may ask for; one question at a time.

    :param allowed: patterns of labels that results may carry, such as ``origin:*``.
    """

    def __init__(self, connection: Connection, allowed: Sequence[str] = ()) -> None:
        self._connection = connection
        self._gate = LabelGate(
            tuple(allowed), "an assistant", lambda label: f"batuta-sql mcp --allow-label {label}"
        )
        self._turn = threading.Lock()

    def list_tables(self, source: str | None = None) -> dict[str, Any]:
        """The tables of one source or of all, and what sources say that do not answer."""
        names = [source] if source is not None else list(self._connection.sources)
        tables: list[dict[str, str]] = []
        errors: dict[str, str] = {}
        for name in names:
            try:
                found = self._connection.tables(name)
            except Error as error:
                errors[name] = str(error)
                continue
            tables += [{"name": ".".join((s, *path)), "kind": kind} for s, path, kind in found]
        return {"tables": tables, "errors": errors}

    def describe(self, table: str) -> dict[str, Any]:
        """A table's columns.

        :raises Error: where there is no such table.
        """
        found = self._connection.describe(table).to_pylist()
        kept = ("column_name", "column_type", "null", "key", "native_type", "note")
        return {"columns": [{k: c[k] for k in kept if c.get(k) is not None} for c in found]}

    def estimate(self, sql: str) -> dict[str, Any]:
        """What a query would take; nothing is run that bills.

        :raises Error: for wrong SQL.
        """
        self._gate.check_query(self._connection, sql)
        return costs.estimate_values(self._connection.estimate(sql))

    def query(self, sql: str, max_rows: int) -> dict[str, Any]:
        """The first rows of a result, as DuckDB's texts.

        :raises LabelRefused: where it carries a label that is not allowed.
        :raises CostRefused: where somebody would have to be asked.
        :raises Error: what a source or a guard says instead.
        """
        with self._turn:
            self._gate.check_query(self._connection, sql)
            with self._connection.cursor() as cursor:
                cursor.execute(sql)
                labels = cursor.labels
                # What is known of the sources may have changed since it was planned.
                self._gate.check(frozenset(one for c in labels.values() for one in c.all))
                rows, more = first_rows(cursor.fetch_record_batch(), max(1, max_rows))
                described = cursor.description or []
                return {
                    "columns": [
                        {"name": d[0], "type": str(d[1]), "labels": sorted(labels[d[0]].all)}
                        for d in described
                    ],
                    "rows": [list(row) for row in rows],
                    "more_rows": more,
                }

    def cancel(self) -> None:
        """Ends what runs."""
        self._connection.cancel()


def server(desk: Desk) -> MCPServer[Any]:
    """The protocol's server of a desk.

    :raises ConfigError: where the package is missing.
    """
    try:
        import anyio
        from mcp.server.mcpserver import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
        from mcp.types import ToolAnnotations
    except ImportError:
        raise ConfigError(
            "the server needs the package mcp", hint="pip install 'batuta-sql[mcp]'"
        ) from None
    made: MCPServer[Any] = MCPServer(
        "batuta-sql", version=__version__, instructions=_INSTRUCTIONS, log_level="WARNING"
    )
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)

    async def asked(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
        except Error as error:
            raise ToolError(str(error)) from None
        except anyio.get_cancelled_exc_class():
            desk.cancel()
            raise

    @made.tool(annotations=reads)
    async def list_tables(source: str | None = None) -> dict[str, Any]:
        """Lists the tables of all sources, or of one. Names are as they stand in SQL."""
        return await asked(lambda: desk.list_tables(source))

    @made.tool(annotations=reads)
    async def describe(table: str) -> dict[str, Any]:
        """Describes the columns of a table: names, types, keys."""
        return await asked(lambda: desk.describe(table))

    @made.tool(annotations=reads)
    async def estimate(sql: str) -> dict[str, Any]:
        """Estimates the rows, bytes and dollars of a query. Runs nothing that bills."""
        return await asked(lambda: desk.estimate(sql))

    @made.tool(annotations=reads)
    async def query(sql: str, max_rows: int = 100) -> dict[str, Any]:
        """Runs one SELECT (DuckDB's SQL) over any tables, and gives its first rows as texts.

        null is NULL. more_rows says whether there are more than max_rows (1000 at the most).
        """
        return await asked(lambda: desk.query(sql, min(max_rows, _MOST_ROWS)))

    return made
