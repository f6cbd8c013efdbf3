"""A table's preview: ``tabledata.list`` answers a plain scan with a LIMIT, and bills nothing.

A job would scan, and bill, the whole of each column, whatever the LIMIT.
https://cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/list
"""

from __future__ import annotations

import threading
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlglot
from sqlglot import exp

from batuta_sql.errors import Error
from batuta_sql.sources.base import FragmentQuery, Usage
from batuta_sql.sources.bigquery_readers import PageReader, Stopped, following
from batuta_sql.sources.bigquery_rest import Client, RemoteError
from batuta_sql.sources.bigquery_sql import BOXED
from batuta_sql.sources.bigquery_types import Shape, shape_of
from batuta_sql.sources.sizes import parsed

MOST_ROWS = 10_000
"""The largest LIMIT for which a preview is read: more would come in several requests."""

STORED = ("TABLE", "SNAPSHOT")
"""The types of tables that hold rows of their own, and so have a preview."""

Field = Mapping[str, Any]


def table_path(project: str, dataset: str, table: str = "") -> str:
    """The path of a table below ``projects/``, or of a dataset's list of tables."""
    parts = (urllib.parse.quote(p, safe="") for p in (project, dataset, table))
    return "{}/datasets/{}/tables/{}".format(*parts).rstrip("/")


def table_of(client: Client, project: str, dataset: str, table: str) -> dict[str, Any] | None:
    """A table as the service describes it; None where there is none."""
    try:
        return client.call("GET", table_path(project, dataset, table))
    except RemoteError as error:
        # 400 is for what cannot be a table's name at all.
        if error.status in (400, 404):
            return None
        raise


@dataclass(frozen=True)
class Preview:
    """A fragment that a table's preview answers.

    :param columns: of the fragment, in its order.
    :param fields: of the table's schema, by name and in its order.
    """

    table: tuple[str, str, str]
    columns: tuple[str, ...]
    limit: int
    fields: Mapping[str, Field]

    @property
    def order(self) -> list[str]:
        """The selected columns as the rows have them: in the table's own order."""
        return [n for n in self.fields if n in self.columns]

    @property
    def cells(self) -> list[tuple[int, Field]]:
        """For each column of the fragment its place in a row, and its field."""
        order = self.order
        return [(order.index(c), self.fields[c]) for c in self.columns]


class Previews:
    """Which fragments a preview answers, and reading them.

    :param project: of tables whose path does not name one.
    """

    def __init__(self, source: str, client: Client, project: str) -> None:
        self._source = source
        self._client = client
        self._project = project
        self._refused: set[tuple[str, str, str]] = set()

    def of(self, query: FragmentQuery) -> Preview | None:
        """How a preview answers a fragment; None where it cannot.

        Only stored tables have one. What streams in may not be in it yet, and columns under a
        policy may be masked in a query alone.
        """
        plain = _plain_scan(parsed(query, "bigquery")) if len(query.tables) == 1 else None
        if plain is None or plain[1] > MOST_ROWS:
            return None
        columns, limit = plain
        described = query.tables[0]
        project, dataset, name = (self._project, *described.path)[-3:]
        table = (project, dataset, name)
        stored = {c.name for c in described.columns if c.value_sql == "{}"}
        pseudo = any(c.startswith(("_PARTITION", "_TABLE_")) for c in columns)
        if table in self._refused or pseudo or not set(columns) <= stored:
            return None
        try:
            found = table_of(self._client, *table)
            if found is None or found.get("type") not in STORED or "streamingBuffer" in found:
                return None
            fields = {f["name"]: f for f in (found.get("schema") or {}).get("fields") or ()}
            if any("policyTags" in f or "dataPolicies" in f for f in fields.values()):
                return None
            if not set(columns) <= set(fields):
                return None
            preview = Preview(table, tuple(columns), limit, fields)
            # Whether the caller may: a table with row access policies has no preview.
            self._page(preview, 1)
        except RemoteError as error:
            if error.status in (400, 403, 404):
                self._refused.add(table)
            return None
        except Error:
            return None
        return preview

    def _page(
        self,
        preview: Preview,
        rows: int,
        token: str | None = None,
        stopped: Stopped = lambda: False,
    ) -> dict[str, Any]:
        parameters = {
            "selectedFields": ",".join(preview.order),
            "maxResults": str(rows),
            "formatOptions.useInt64Timestamp": "true",
        }
        if token is not None:
            parameters["pageToken"] = token
        path = table_path(*preview.table) + "/data"
        return self._client.call("GET", path, parameters, stopped=stopped)

    def read(self, query: FragmentQuery, stop: threading.Event) -> PageReader | None:
        """The rows of a fragment; None where a job has to be run for them."""
        preview = self.of(query)
        if preview is None:
            return None
        first = self._page(preview, max(1, preview.limit), stopped=stop.is_set)
        expected = left = min(preview.limit, int(first.get("totalRows") or 0))

        def chosen(page: Mapping[str, Any]) -> dict[str, Any]:
            """A page with its cells as the fragment selects them, and no more rows than wanted."""
            nonlocal left
            rows = (page.get("rows") or [])[:left]
            left -= len(rows)
            return {
                "rows": [{"f": [_cell(r["f"][p], f) for p, f in preview.cells]} for r in rows],
                "pageToken": page.get("pageToken") if left else None,
            }

        begin = chosen(first)
        return PageReader(
            self._client,
            self._source,
            [
                _boxed(f) if _repeated(f) else shape_of(f, wanted)
                for (_, f), (_, wanted) in zip(preview.cells, query.columns, strict=True)
            ],
            begin,
            following(begin, lambda token: chosen(self._page(preview, left, token, stop.is_set))),
            expected,
            lambda: Usage(bytes=0.0),
            stop,
        )


def _plain_scan(tree: exp.Expr | None) -> tuple[list[str], int] | None:
    """The columns and the LIMIT of ``SELECT columns FROM table LIMIT n``; None for all else."""
    if not isinstance(tree, exp.Select):
        return None
    if {k for k, v in tree.args.items() if v} != {"expressions", "from_", "limit"}:
        return None
    limit = tree.args["limit"]
    if {k for k, v in limit.args.items() if v} != {"expression"} or not limit.expression.is_int:
        return None
    columns = [_column(e.unalias()) for e in tree.expressions]
    if not isinstance(tree.args["from_"].this, exp.Table):
        return None
    names = [c for c in columns if c is not None]
    return (names, int(limit.expression.name)) if len(names) == len(columns) else None


def _column(item: exp.Expr) -> str | None:
    """The name of a column that is selected as it is, or in the box in which an array travels."""
    if isinstance(item, exp.Column):
        return item.name
    test = item.this if isinstance(item, exp.If) else None
    inner = test.this if isinstance(test, exp.Is) else None
    if isinstance(inner, exp.Column):
        text = "SELECT " + BOXED.format(inner.sql("bigquery"))
        (boxed,) = sqlglot.parse_one(text, read="bigquery").expressions
        return inner.name if item == boxed else None
    return None


def _repeated(field: Field) -> bool:
    return str(field.get("mode", "")).upper() == "REPEATED"


def _cell(cell: Mapping[str, Any], field: Field) -> Mapping[str, Any]:
    """A cell of the preview as a job would deliver it."""
    return {"v": {"f": [cell]}} if _repeated(field) else cell


def _boxed(field: Field) -> Shape:
    return Shape(field["name"], "STRUCT", (replace(shape_of(field), name="v"),))
