"""A table in a DuckDB file: each copy is one transaction, which says itself that it was made."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa

from batuta_sql.engines.duckdb import ISOLATION, quote
from batuta_sql.errors import OperationalError
from batuta_sql.sync.checkpoint import SplitRecord
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
            if database.execute(names, [self._table]).fetchone():
                raise OperationalError(
                    f'{self._path} has a table "{self._table}" already, which its checkpoint knows'
                    " nothing of",
                    hint="name another file, or drop the table; nothing is ever written over",
                )

    def check_schema(self, schema: pa.Schema) -> None:
        """DuckDB has a type for all that a copy has."""

    def has(self, split: SplitRecord) -> bool:
        return False

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
            ).fetchone()
            if known is None or known[0] < publication.copy.number:
                files = [str(publication.staging / s.file) for s in publication.splits]
                database.execute(
                    f"CREATE OR REPLACE TABLE {quote(self._table)} AS"
                    " SELECT * FROM read_parquet(?)",
                    [files],
                )
                database.execute(
                    f"INSERT OR REPLACE INTO {_COPIES} VALUES (?, ?)",
                    [self._table, publication.copy.number],
                )
            database.execute("COMMIT")
            database.execute("CHECKPOINT")
        for split in publication.splits:
            (publication.staging / split.file).unlink(missing_ok=True)

    def _opened(self) -> duckdb.DuckDBPyConnection:
        config = dict(ISOLATION)
        config["preserve_insertion_order"] = "false"
        try:
            return duckdb.connect(str(self._path), config=config)
        except duckdb.Error as error:
            raise OperationalError(f"{self._path}: {error}") from None
