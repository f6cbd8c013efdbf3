"""Builds the sources of a case file on real servers and in real files."""

from __future__ import annotations

import re
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import deltalake
import duckdb

from batuta_sql.demo.postgres_server import PostgresServer
from tests.field_cases.format import CaseFile, SourceBlock

Table = tuple[str, Callable[[Path], None]]


def build(
    case: CaseFile, folder: Path, postgres: Callable[[], PostgresServer], cleanup: ExitStack
) -> dict[str, Any]:
    """Makes every source of a case and returns what ``batuta_sql.connect`` takes.

    :param folder: an empty folder of the case's own.
    :param postgres: the running server, asked for only where a source needs it.
    :param cleanup: where dropping what is not a file is registered.
    """
    configured: dict[str, dict[str, str]] = {}
    for source in case.sources:
        if source.kind == "postgresql":
            configured[source.name] = _postgresql(case, source, postgres(), cleanup)
        elif source.kind == "sqlite":
            configured[source.name] = _sqlite(source, folder)
        elif source.kind == "duckdb":
            configured[source.name] = _duckdb(source, folder)
        else:
            configured[source.name] = _files(source, folder)
    return {"sources": configured}


def _postgresql(
    case: CaseFile, source: SourceBlock, server: PostgresServer, cleanup: ExitStack
) -> dict[str, str]:
    uri = cleanup.enter_context(server.database(case.name))
    sql, lost = fit_to_server(source.sql, icu=server.has_icu, xml=server.has_xml)
    for what in lost:
        # Not a skip: the case runs, but proves less. The summary of the run shows this line.
        warnings.warn(
            f"{case.path.name}: PostgreSQL {server.version} was built without {what}; "
            "install the system's PostgreSQL to test this case in full",
            stacklevel=1,
        )
    server.run(sql, uri.rsplit("/", 1)[1])
    return {"kind": "postgresql", "uri": uri}


def fit_to_server(sql: str, *, icu: bool, xml: bool) -> tuple[str, list[str]]:
    """The SQL without what the server was not built for, and what had to go."""
    lost: list[str] = []
    if not xml and re.search(r"\bxml\b", sql):
        sql = re.sub(r"'<[^']*>'", "NULL", sql)
        lost.append("libxml: xml values are NULL")
    if not icu and re.search(r"-x-icu|provider\s*=\s*icu", sql):
        made = re.findall(r"CREATE COLLATION (\w+)", sql)
        sql = re.sub(r"CREATE COLLATION [^;]*;", "", sql)
        for name in (r'"[\w-]+-x-icu"', *made):
            sql = re.sub(rf"\s+COLLATE {name}", "", sql)
        lost.append("ICU: columns have the default collation")
    return sql, lost


def _sqlite(source: SourceBlock, folder: Path) -> dict[str, str]:
    path = folder / f"{source.name}.sqlite"
    with closing(sqlite3.connect(path)) as con:
        con.executescript(source.sql)
        con.commit()
    return {"kind": "sqlite", "path": str(path)}


def _duckdb(source: SourceBlock, folder: Path) -> dict[str, str]:
    path = folder / f"{source.name}.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute(source.sql)
    return {"kind": "duckdb", "path": str(path)}


def _files(source: SourceBlock, folder: Path) -> dict[str, str]:
    """Every table of the source's SQL as one Parquet or CSV file, or one Delta table."""
    root = folder / source.name
    root.mkdir()
    with duckdb.connect() as con:
        con.execute(source.sql)
        for (name,) in con.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall():
            quoted = '"' + name.replace('"', '""') + '"'
            target = str(root / name)
            if source.kind == "delta":
                deltalake.write_deltalake(target, con.sql(f"FROM {quoted}").to_arrow_table())
            else:
                options = "FORMAT parquet" if source.kind == "parquet" else "FORMAT csv, HEADER"
                con.execute(f"COPY {quoted} TO '{target}.{source.kind}' ({options})")
    return {"kind": "delta" if source.kind == "delta" else "files", "path": str(root)}
