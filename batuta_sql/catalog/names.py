"""What a name in a query means: a source's table, a local one, or a view of the session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import duckdb
from sqlglot import exp

from batuta_sql.catalog import information_schema
from batuta_sql.catalog.catalog import Catalog, unknown_source
from batuta_sql.catalog.local_objects import local_objects
from batuta_sql.engines.duckdb import DuckDBEngine, engine_error, quote
from batuta_sql.errors import Error, ProgrammingError
from batuta_sql.frontend.binder import LocalTable
from batuta_sql.frontend.expressions import place
from batuta_sql.plan.relational import Expr, LocalScan
from batuta_sql.plan.site import TableInfo
from batuta_sql.plan.translate import quoted_table

if TYPE_CHECKING:
    import pyarrow.dataset as ds

    from batuta_sql.sources.base import Source


@dataclass
class NamesInReach:
    """The names of one query: the catalog, and what the session has registered.

    :param cursor: the query's own connection to the residual engine.
    :param registered: frames by lower-cased name.
    :param views: definitions of the session's views by lower-cased name.
    :param dataset: makes the fallback scan of a table.
    """

    catalog: Catalog
    engine: DuckDBEngine
    cursor: duckdb.DuckDBPyConnection
    registered: Mapping[str, Any]
    views: Mapping[str, exp.Expr]
    dataset: Callable[[TableInfo], ds.Dataset]
    tables: dict[tuple[str, ...], TableInfo] = field(default_factory=dict)
    only_sources: bool = True
    """Whether all names that were looked up are tables of sources."""
    _prefetched: dict[tuple[str, ...], TableInfo] = field(default_factory=dict)
    """Tables that the statement may come to."""

    @property
    def aggregate_names(self) -> frozenset[str]:
        return self.engine.aggregate_names

    # --- tables --------------------------------------------------------------------------------

    def prefetch(self, tree: Expr, sql: str) -> None:
        """Looks up all tables of a statement at once.

        :raises TierRefused: for a source that may not be contacted; then none has been.
        """
        names: list[tuple[str, ...]] = []
        for table in tree.find_all(exp.Table):
            parts = table_parts(table)
            if parts is not None and len(parts) > 1:
                source = self.catalog.source(parts[0])
                if source is not None:
                    self._admit(source.name, table, sql)
                    names.append(parts)
        self._prefetch(names)

    def _prefetch(self, names: Iterable[tuple[str, ...]]) -> None:
        wanted: dict[tuple[str, ...], tuple[Source, tuple[str, ...]]] = {}
        for parts in names:
            source = self.catalog.source(parts[0])
            if source is not None:
                wanted[parts] = (source, parts[1:])
        found = self.catalog.prefetch(list(dict.fromkeys(wanted.values())))
        for parts, (source, path) in wanted.items():
            if (source.name, path) in found:
                self._prefetched[parts] = found[source.name, path]

    def still_mean(self, tables: Mapping[tuple[str, ...], TableInfo]) -> bool:
        """Whether names mean the same tables as before, described as before."""
        try:
            self._prefetch(tables)
            return all(self.lookup(parts) == table for parts, table in tables.items())
        except Error:
            return False

    def _admit(self, source: str, table: exp.Table, sql: str) -> None:
        try:
            self.catalog.admit(source)
        except Error as error:
            error.sql, error.position = sql, place(table, sql)
            raise

    def resolve(self, table: exp.Table, sql: str) -> TableInfo | LocalTable | Expr:
        parts = table_parts(table)
        if parts is None:
            raise ProgrammingError("a table name of this form is not understood")
        try:
            return self.lookup(parts)
        except Error as error:
            if error.position is None and isinstance(error, ProgrammingError):
                error.sql, error.position = sql, place(table, sql)
            raise

    def lookup(self, parts: tuple[str, ...]) -> TableInfo | LocalTable | Expr:
        """What the name parts mean.

        :raises ProgrammingError: where they mean nothing.
        """
        if parts in self.tables:
            return self.tables[parts]
        source = self.catalog.source(parts[0]) if len(parts) > 1 else None
        if source is not None:
            found = self._prefetched.get(parts) or self.catalog.resolve(source, parts[1:])
            self.tables[parts] = found
            return found
        self.only_sources = False
        if len(parts) == 1:
            return self._bare(parts[0])
        if parts[-2].lower() == "information_schema" and len(parts) == 2:
            return self._information_schema(parts[1])
        local = self._local(parts)
        if local is not None:
            return local
        raise unknown_source(parts[0], self.catalog.sources)

    def _bare(self, name: str) -> LocalTable | Expr:
        lower = name.lower()
        if lower in self.views:
            return self.views[lower].copy()
        if lower in self.registered:
            frame = self.registered[lower]
            self.cursor.register(lower, frame)
            found = self._described(exp.to_identifier(lower, quoted=True))
            return replace(found, rows=float(len(frame)) if hasattr(frame, "__len__") else None)
        local = self._local((name,))
        if local is not None:
            return local
        hint = "write source.schema.table or source.table"
        candidates = list(self.catalog.sources)
        if len(candidates) == 1:
            hint = f'did you mean "{candidates[0]}.{name}"?'
        raise ProgrammingError(f'there is no local table "{name}"', hint=hint)

    def _local(self, parts: tuple[str, ...]) -> LocalTable | None:
        shown = ".".join(quote(p) for p in parts)
        try:
            rows = self.cursor.execute(f"DESCRIBE SELECT * FROM {shown}").fetchall()
        except duckdb.Error:
            return None
        size = self.cursor.execute(
            "SELECT estimated_size FROM duckdb_tables() WHERE lower(table_name) = ?",
            [parts[-1].lower()],
        ).fetchall()
        names = tuple(r[0] for r in rows)
        return LocalTable(quoted_table(parts), names, float(size[0][0]) if len(size) == 1 else None)

    def _described(self, identifier: exp.Identifier) -> LocalTable:
        table = exp.Table(this=identifier)
        rows = self.cursor.execute(f"DESCRIBE SELECT * FROM {table.sql('duckdb')}").fetchall()
        return LocalTable(table, tuple(r[0] for r in rows))

    def _information_schema(self, view: str) -> LocalTable:
        if view.lower() not in information_schema.VIEWS:
            raise ProgrammingError(
                f'information_schema has no view "{view}"',
                hint="it has " + ", ".join(information_schema.VIEWS),
            )
        name = f"information_schema:{view.lower()}"
        local = local_objects(self.cursor, self.registered, self.views)
        self.cursor.register(name, information_schema.contents(view.lower(), self.catalog, local))
        return self._described(exp.to_identifier(name, quoted=True))

    # --- blocks that DuckDB runs as they are ---------------------------------------------------

    def fallback(self, query: Expr, sql: str) -> tuple[LocalScan, list[str]]:
        """A block as it is, its tables replaced by fallback scans."""
        common = {c.alias.lower() for c in query.find_all(exp.CTE)}
        used: list[TableInfo] = []
        for table in list(query.find_all(exp.Table)):
            parts = table_parts(table)
            if parts is None or (len(parts) == 1 and parts[0].lower() in common):
                continue
            meaning = self.resolve(table, sql)
            match meaning:
                case TableInfo():
                    used.append(meaning)
                    replacement = quoted_table(self.expose(meaning))
                    visible = meaning.name
                case LocalTable():
                    replacement = meaning.relation.copy()
                    visible = parts[-1]
                case _:
                    self._replace_view(table, meaning, parts[-1])
                    continue
            if table.args.get("alias") is None and replacement.name != visible:
                replacement.set(
                    "alias", exp.TableAlias(this=exp.to_identifier(visible, quoted=True))
                )
            for key in ("this", "db", "catalog"):
                table.set(key, replacement.args.get(key))
            if replacement.args.get("alias") is not None:
                table.set("alias", replacement.args["alias"])
        text = query.sql("duckdb")
        try:
            rows = self.cursor.execute(f"DESCRIBE {text}").fetchall()
        except duckdb.Error as error:
            raise engine_error(error) from None
        # By place, not by name: a block may deliver two columns of one name.
        places = [f"c{i}" for i in range(len(rows))]
        alias = exp.TableAlias(
            this=exp.to_identifier("block", quoted=True),
            columns=[exp.to_identifier(p, quoted=True) for p in places],
        )
        columns = tuple((p, p) for p in places)
        scan = LocalScan(exp.Subquery(this=query, alias=alias), columns, "", tuple(used))
        return scan, [r[0] for r in rows]

    @staticmethod
    def _replace_view(table: exp.Table, meaning: Expr, name: str) -> None:
        alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(name, quoted=True))
        table.replace(exp.Subquery(this=meaning, alias=alias))

    def expose(self, table: TableInfo) -> tuple[str, str, str]:
        """Makes a source's table readable by DuckDB itself and gives its name there."""
        return self.engine.view(self.cursor, table, self.dataset(table))

    def describe_function(self, item: Expr) -> list[str]:
        source = exp.Subquery(this=item.copy()) if isinstance(item, exp.Values) else item
        try:
            rows = self.cursor.execute(f"DESCRIBE SELECT * FROM {source.sql('duckdb')}").fetchall()
        except duckdb.Error as error:
            raise engine_error(error) from None
        return [r[0] for r in rows]


def table_parts(table: exp.Table) -> tuple[str, ...] | None:
    """The name parts of a FROM item, outermost first; None for a table function."""
    parts: list[str] = []
    for part in table.parts:
        if isinstance(part, exp.Dot):
            parts.extend(p.name for p in part.flatten())
        elif isinstance(part, exp.Identifier):
            parts.append(part.name)
        else:
            return None
    return tuple(p for p in parts if p)
