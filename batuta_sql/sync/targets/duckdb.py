"""A table in a DuckDB file: each copy is one transaction, which says itself that it was made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from batuta_sql.engines.duckdb import ISOLATION, quote
from batuta_sql.errors import OperationalError
from batuta_sql.labels import LABELS_COMMENT
from batuta_sql.sync.checkpoint import SplitRecord
from batuta_sql.sync.merge import Merge, Merger, highest, merged_table
from batuta_sql.sync.targets.base import Publication

_COPIES = "batuta_copies"


class DuckDBTarget:
    """One table of the file; others in it stay as they are."""

    keeps_files = False

    def __init__(self, path: Path, table: str) -> None:
        self._path = path
        self._table = table

    def check_free(self) -> None:
        if not self._path.exists():
            return
        with self._opened() as database:
            names = "SELECT 1 FROM duckdb_tables() WHERE lower(table_name) = lower(?)"
            if database.execute(names, [self._table]).fetchall():
                raise OperationalError(
                    f'{self._path} has a table "{self._table}" already, which its checkpoint knows'
                    " nothing of",
                    hint="name another file, or drop the table; nothing is ever written over",
                )

    def check_schema(self, schema: pa.Schema) -> None:
        """DuckDB has a type for all that a copy has."""

    def has(self, split: SplitRecord) -> bool:
        return self._path.exists()

    def highest(self, splits: Sequence[SplitRecord], column: str) -> tuple[str, str] | None:
        return highest(self._attached, column, self._path)

    @property
    def _attached(self) -> str:
        return f"copy.{quote(self._table)}"

    def merge(
        self, merger: Merger, splits: Sequence[SplitRecord], staging: Path, number: int
    ) -> Merge:
        with merger.opened(self._attached, self._path) as opened:
            return merged_table(opened, merger, staging, number)

    def publish(self, publication: Publication) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._opened() as database:
            database.execute("BEGIN")
            database.execute(
                f"CREATE TABLE IF NOT EXISTS {_COPIES}"
                " (table_name VARCHAR PRIMARY KEY, number BIGINT)"
            )
            known = database.execute(
                f"SELECT number FROM {_COPIES} WHERE table_name = ?", [self._table]
            ).fetchall()
            if not known or known[0][0] < publication.copy.number:
                if publication.copy.merge:
                    self._change(database, publication)
                else:
                    self._replace(database, publication)
                database.execute(
                    f"INSERT OR REPLACE INTO {_COPIES} VALUES (?, ?)",
                    [self._table, publication.copy.number],
                )
            database.execute("COMMIT")
            database.execute("CHECKPOINT")
        copy = publication.copy
        mine = [*(s.file for s in publication.splits), *copy.merge, copy.withdrawn]
        for name in filter(None, mine):
            (publication.staging / name).unlink(missing_ok=True)

    def _replace(self, database: duckdb.DuckDBPyConnection, publication: Publication) -> None:
        files = [str(publication.staging / s.file) for s in publication.splits]
        database.execute(
            f"CREATE OR REPLACE TABLE {quote(self._table)} AS SELECT * FROM read_parquet(?)",
            [files],
        )
        labels = publication.copy.labels.replace("'", "''")
        if labels:
            comment = f"'{LABELS_COMMENT}{labels}'"
            database.execute(f"COMMENT ON TABLE {quote(self._table)} IS {comment}")

    def _change(self, database: duckdb.DuckDBPyConnection, publication: Publication) -> None:
        """Takes out what has changed or is gone, and puts in what is new."""
        table = quote(self._table)
        changed, *keys = (str(publication.staging / f) for f in publication.copy.merge)
        key = publication.copy.key
        same = " AND ".join(f"t.{quote(k)} = f.{quote(k)}" for k in key)
        withdrawn = publication.copy.withdrawn
        replaced = [changed, *([str(publication.staging / withdrawn)] if withdrawn else [])]
        for file in replaced:
            database.execute(
                f"DELETE FROM {table} t WHERE EXISTS (FROM read_parquet(?) f WHERE {same})", [file]
            )
        for file in keys:
            database.execute(
                f"DELETE FROM {table} t WHERE NOT EXISTS (FROM read_parquet(?) f WHERE {same})",
                [file],
            )
        database.execute(f"INSERT INTO {table} SELECT * FROM read_parquet(?)", [changed])

    def _opened(self) -> duckdb.DuckDBPyConnection:
        config = dict(ISOLATION)
        config["preserve_insertion_order"] = "false"
        try:
            return duckdb.connect(str(self._path), config=config)
        except duckdb.Error as error:
            raise OperationalError(f"{self._path}: {error}") from None
