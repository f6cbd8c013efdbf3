"""``.ald`` datasets: a file, or a folder of them. Their tags are labels of all columns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import duckdb
import pyarrow as pa

from batuta_sql.engines.duckdb import quote
from batuta_sql.errors import Error, OperationalError
from batuta_sql.plan.site import Capabilities, ColumnInfo, Statistics, TableInfo
from batuta_sql.source_settings import AldSettings
from batuta_sql.sources.ald_format import SUFFIX, AldFile, read_ald
from batuta_sql.sources.base import FragmentQuery, SourceEstimate, TableName
from batuta_sql.sources.embedded import EmbeddedSource, ViewNames, ViewTranslator, estimated
from batuta_sql.sources.sizes import parsed


class Ald(EmbeddedSource):
    """A file ``name.ald``, or a folder of such: each is a table, named by its stem."""

    kind = "ald"

    def __init__(self, name: str, settings: AldSettings) -> None:
        super().__init__(name, settings.query_timeout)
        self._path = Path(settings.path)
        self._views = ViewNames()

    @cached_property
    def capabilities(self) -> Capabilities:
        return Capabilities(dialect="duckdb", translator=ViewTranslator(self._views), windows=True)

    def list_tables(self) -> Sequence[TableName]:
        return [TableName((n,), "ald dataset") for n in sorted(self._files())]

    def resolve(self, path: tuple[str, ...]) -> Sequence[TableInfo]:
        if len(path) > 2 or (len(path) == 2 and path[0].lower() != "main"):
            return []
        files = self._files()
        alike = [n for n in files if n.lower() == path[-1].lower()]
        self._views.tell_apart(alike)
        return [self._table(n, files[n]) for n in ([n for n in alike if n == path[-1]] or alike)]

    def relation(self, cursor: duckdb.DuckDBPyConnection, name: str, query: FragmentQuery) -> str:
        table = self._views.table(name)
        path = self._files().get(table)
        if path is None:
            raise OperationalError(f'dataset "{table}" is not there any more', source=self.name)
        registered = f"ald:{name}"
        cursor.register(registered, self._rows(self._read(path)))
        return quote(registered)

    def estimate(self, query: FragmentQuery) -> SourceEstimate:
        """Whole files: an .ald file is read in one piece."""
        sizes = [t.statistics.bytes for t in {t.path: t for t in query.tables}.values()]
        known = [s for s in sizes if s is not None]
        scanned = sum(known) if len(known) == len(sizes) else None
        return estimated(query, parsed(query), scanned, "exact", "sizes of whole .ald files")

    def _files(self) -> dict[str, Path]:
        if self._path.is_file():
            return {self._path.stem: self._path}
        if not self._path.is_dir():
            raise OperationalError(
                f"there is no file or folder {self._path}",
                source=self.name,
                hint="check this source's path",
            )
        return {p.stem: p for p in sorted(self._path.iterdir()) if p.suffix.lower() == SUFFIX}

    def _table(self, name: str, path: Path) -> TableInfo:
        file = self._read(path)
        with self.cursor() as cursor:
            cursor.register("described", file.schema.empty_table())
            rows = cursor.execute("DESCRIBE SELECT * FROM described").fetchall()
        labels = file.labels
        return TableInfo(
            source=self.name,
            path=(name,),
            columns=tuple(ColumnInfo(r[0], r[1], r[1], labels=labels.of(r[0])) for r in rows),
            kind="ald dataset",
            statistics=Statistics(rows=float(file.rows), bytes=float(file.size_bytes), exact=True),
            labels=labels.rows,
        )

    def _read(self, path: Path) -> AldFile:
        try:
            return read_ald(path)
        except Error as error:
            error.source = self.name
            raise

    def _rows(self, file: AldFile) -> pa.Table:
        try:
            return file.table()
        except Error as error:
            error.source = self.name
            raise
