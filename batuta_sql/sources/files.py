"""Parquet, CSV, JSON lines and Arrow files; DuckDB's own readers read all but the last.

A relative path is looked up from the folder that the program runs in.
"""

from __future__ import annotations

import glob
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import duckdb
from cachetools import LRUCache

from batuta_sql.engines.duckdb import quote
from batuta_sql.errors import ConfigError, NotSupportedError, OperationalError
from batuta_sql.labels import TableLabels
from batuta_sql.plan.site import (
    Capabilities,
    ColumnInfo,
    ColumnStatistics,
    Statistics,
    TableInfo,
)
from batuta_sql.source_settings import FilesSettings
from batuta_sql.sources.arrow_files import arrow_dataset
from batuta_sql.sources.base import (
    NO_FILE,
    FragmentQuery,
    ParquetFile,
    SourceEstimate,
    TableName,
)
from batuta_sql.sources.embedded import (
    EmbeddedSource,
    ViewNames,
    ViewTranslator,
    estimated,
)
from batuta_sql.sources.file_labels import labels_of_files
from batuta_sql.sources.file_pieces import ROW_NUMBER, pieces_of, ranges_of, rows_condition
from batuta_sql.sources.object_store import ObjectStore, StoredObject, is_url
from batuta_sql.sources.sizes import parsed

FORMATS = {
    ".parquet": "parquet",
    ".parq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".csv.zst": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".jsonl.gz": "json",
    ".ndjson": "json",
    ".ndjson.gz": "json",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
_MOST_FOOTERS = 64
_MOST_DESCRIBED = 1024
_SETTLED_SECONDS = 2.0
_WHOLE = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT"})

NAN_SAFE = ", can_have_nan = true"
"""Parquet's minimum and maximum leave NaN out, and only newer files say whether there is any:
without this, DuckDB skips row groups, and simplifies tests, that a NaN is in."""


@dataclass(frozen=True)
class FileSet:
    """The files of one table; folders ``key=value`` are partitions only below ``root``.

    ``objects``: the same as ``paths``, where they are objects of a store.
    """

    name: str
    format: str
    paths: tuple[str, ...]
    root: str
    objects: tuple[StoredObject, ...] = ()

    @property
    def sizes(self) -> list[float]:
        if self.objects:
            return [float(o.size) for o in self.objects]
        return [float(Path(p).stat().st_size) for p in self.paths]

    @property
    def bytes(self) -> float:
        return sum(self.sizes)

    def versions(self) -> list[str] | None:
        """A name for the content of each file; None where there is none, as in ``state``."""
        return None if self.state() is None and not self.objects else self.names()

    def names(self) -> list[str] | None:
        """``versions``, where a file that was changed a moment ago has a name too: one that was
        named before that has another one now.
        """
        if self.objects:
            return [f"{o.url} {o.version}" for o in self.objects]
        try:
            told = [(p, Path(p).stat()) for p in self.paths]
        except OSError:
            return None
        return [f"{p} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_size} {s.st_ino}" for p, s in told]

    def state(self) -> tuple[object, ...] | None:
        """What tells this content of the files from another; None where that cannot be told.

        A file that was changed a moment ago may be changed again within a tick of its clock.
        """
        if self.objects:
            return None
        latest = (time.time() - _SETTLED_SECONDS) * 1e9
        found: list[object] = [self.name, self.format, self.root]
        for path in self.paths:
            try:
                told = Path(path).stat()
            except OSError:
                return None
            if max(told.st_mtime_ns, told.st_ctime_ns) > latest:
                return None
            found += [path, told.st_mtime_ns, told.st_ctime_ns, told.st_size, told.st_ino]
        return tuple(found)


class Descriptions:
    """Descriptions of tables by the state of their files; may be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables: LRUCache[object, TableInfo] = LRUCache(_MOST_DESCRIBED)

    def get(self, state: object) -> TableInfo | None:
        with self._lock:
            return self._tables.get(state)

    def put(self, state: object, table: TableInfo) -> None:
        with self._lock:
            self._tables[state] = table


class Files(EmbeddedSource):
    """A folder of files, or named globs."""

    kind = "files"

    def __init__(self, name: str, settings: FilesSettings) -> None:
        super().__init__(name, settings.query_timeout)
        self._settings = settings
        self._views = ViewNames()
        self._store = ObjectStore(
            name,
            settings.storage_options,
            settings.connect_timeout,
            settings.query_timeout,
            settings.secrets,
        )
        self._globs = {n: t.path for n, t in settings.tables.items() if t.path is not None}
        if settings.path is None and not self._globs:
            raise ConfigError(f"sources.{name}: give path, or tables = {{ name = 'glob' }}")

    @cached_property
    def capabilities(self) -> Capabilities:
        return Capabilities(dialect="duckdb", translator=ViewTranslator(self._views), windows=True)

    @cached_property
    def _remembered(self) -> Descriptions:
        return Descriptions()

    # --- the catalog ---------------------------------------------------------------------------

    def list_tables(self) -> Sequence[TableName]:
        names = dict.fromkeys(self._globs)
        names |= dict.fromkeys(self._entries())
        names |= dict.fromkeys(self._stored())
        return [TableName((n,), "files") for n in sorted(names)]

    def resolve(self, path: tuple[str, ...]) -> Sequence[TableInfo]:
        if len(path) > 2 or (len(path) == 2 and path[0].lower() != "main"):
            return []
        entries = self._entries()
        known = [*self._globs, *entries, *self._stored()]
        alike = [n for n in known if n.lower() == path[-1].lower()]
        self._views.tell_apart(alike)
        names = [n for n in alike if n == path[-1]] or alike
        return [self._table(self._files_among(n, entries)) for n in dict.fromkeys(names)]

    def _table(self, files: FileSet) -> TableInfo:
        state = files.state()
        known = self._remembered.get(state)
        if known is not None:
            return known
        described = self._describe(files)
        # Only what was there before and after is what was described.
        if state is not None and files.state() == state:
            self._remembered.put(state, described)
        return described

    def _describe(self, files: FileSet) -> TableInfo:
        with self.cursor() as cursor:
            relation = self._relation(cursor, files)
            try:
                rows = cursor.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
            except duckdb.Error as error:
                raise self.error(error) from None
            whole = frozenset(r[0] for r in rows if r[1] in _WHOLE)
            try:
                statistics = self._statistics(cursor, files, whole)
            except OSError as error:
                raise self._unreadable(error) from None
        labels = self._store.labels(files.objects) | (
            labels_of_files(files.paths) if not files.objects else TableLabels()
        )
        return TableInfo(
            source=self.name,
            path=(files.name,),
            columns=tuple(ColumnInfo(r[0], r[1], r[1], labels=labels.of(r[0])) for r in rows),
            kind=f"{files.format} files",
            statistics=statistics,
            labels=labels.rows,
        )

    def _unreadable(self, error: OSError) -> OperationalError:
        return OperationalError(f"{error.filename}: {error.strerror}", source=self.name)

    def _entries(self) -> dict[str, list[str]]:
        """Table names in the folder, and the entries of each: one, where all is well.

        A name given as a glob hides one of the folder's.
        """
        if self._settings.path is None or is_url(self._settings.path):
            return {}
        folder = Path(self._settings.path)
        if not folder.is_dir():
            raise OperationalError(
                f"there is no folder {folder}", source=self.name, hint="check this source's path"
            )
        try:
            # The folder tells which entries are folders; asking each would take longer.
            with os.scandir(folder) as listing:
                entries = sorted((e.name, e.is_dir()) for e in listing)
        except OSError as error:
            raise self._unreadable(error) from None
        found: dict[str, list[str]] = {}
        for entry, is_folder in entries:
            if entry.startswith((".", "_")):
                continue
            if is_folder:
                found.setdefault(entry, []).append(entry)
            elif suffix := suffix_of(entry):
                found.setdefault(entry[: -len(suffix)], []).append(entry)
        return {n: p for n, p in found.items() if n not in self._globs}

    def files_of(self, name: str) -> FileSet:
        """The files of a table as they are now.

        :raises OperationalError: where there are none, or of several formats.
        :raises NotSupportedError: for a URL.
        """
        return self._files_among(name, self._entries())

    def _files_among(self, name: str, entries: Mapping[str, list[str]]) -> FileSet:
        """``files_of``, where the folder has been read.

        :raises OperationalError: where there are none, or of several formats.
        :raises NotSupportedError: for a URL.
        """
        if name in self._globs:
            pattern = str(self._globs[name]).removeprefix("file://")
            if is_url(pattern):
                return self._objects(name, self._store.matching(pattern), _fixed_part(pattern))
            root = _fixed_part(pattern)
            # "*" finds folders too, and what engines leave beside the data (_SUCCESS, _delta_log).
            found = [Path(p) for p in glob.glob(pattern, recursive=True)]
            paths = sorted(str(p) for p in found if p.is_file() and not p.name.startswith("_"))
            if not paths and Path(pattern).is_file():
                paths = [pattern]
        elif self._settings.path is not None and is_url(self._settings.path):
            url, folder = self._stored().get(name, ("", False))
            if not url:
                raise OperationalError(f'table "{name}" has no files any more', source=self.name)
            stored = self._store.below(url) if folder else self._store.matching(url)
            return self._objects(name, stored, url if folder else url.rpartition("/")[0])
        else:
            assert self._settings.path is not None
            entry = Path(self._settings.path) / self._only(name, entries.get(name, []))
            root = str(entry if entry.is_dir() else entry.parent)
            if entry.is_dir():
                paths = sorted(
                    str(p)
                    for p in entry.rglob("*")
                    if p.is_file() and suffix_of(p.name) and not p.name.startswith((".", "_"))
                )
            else:
                paths = [str(entry)]
        formats = {FORMATS[s] for p in paths if (s := suffix_of(p))}
        if not paths or not formats:
            raise OperationalError(f'table "{name}" has no files', source=self.name)
        if len(formats) > 1:
            raise self._mixed(name, formats)
        return FileSet(name, formats.pop(), tuple(paths), root)

    def _stored(self) -> dict[str, tuple[str, bool]]:
        """Table names in a folder of an object store, and the URL of each; whether a folder."""
        path = self._settings.path
        if path is None or not is_url(path):
            return {}
        found: dict[str, tuple[str, bool]] = {}
        for name, url, folder in self._store.entries(path):
            if name.startswith((".", "_")):
                continue
            if folder:
                found.setdefault(name, (url, True))
            elif suffix := suffix_of(name):
                found.setdefault(name[: -len(suffix)], (url, False))
        return {n: v for n, v in found.items() if n not in self._globs}

    def _objects(self, name: str, found: Sequence[StoredObject], root: str) -> FileSet:
        """The objects of a table; those that engines leave beside the data do not count.

        :raises OperationalError: where there are none, or of several formats.
        """
        wanted = [
            o
            for o in found
            if suffix_of(o.url) and not o.url.rpartition("/")[2].startswith((".", "_"))
        ]
        formats = {FORMATS[s] for o in wanted if (s := suffix_of(o.url))}
        if not formats:
            raise OperationalError(f'table "{name}" has no files', source=self.name)
        if len(formats) > 1:
            raise self._mixed(name, formats)
        if formats == {"arrow"}:
            raise NotSupportedError(
                f'table "{name}": Arrow files are not read from object stores', source=self.name
            )
        self._store.attach(self.engine, wanted[0].url)
        return FileSet(name, formats.pop(), tuple(o.url for o in wanted), root, tuple(wanted))

    def _mixed(self, name: str, formats: set[str]) -> OperationalError:
        return OperationalError(
            f'table "{name}" mixes files of the formats {", ".join(sorted(formats))}',
            source=self.name,
            hint="name them apart with tables = { name = 'glob' }",
        )

    def _only(self, name: str, entries: Sequence[str]) -> str:
        match entries:
            case [entry]:
                return entry
            case []:
                raise OperationalError(f'table "{name}" has no files any more', source=self.name)
        raise OperationalError(
            f'table "{name}" may be any of {", ".join(entries)}',
            source=self.name,
            hint="name them apart with tables = { name = 'glob' }",
        )

    # --- reading -------------------------------------------------------------------------------

    def relation(self, cursor: duckdb.DuckDBPyConnection, name: str, query: FragmentQuery) -> str:
        files = self.files_of(self._views.table(name))
        if query.files == (NO_FILE,):
            return f"(SELECT * FROM {self._relation(cursor, files)} WHERE false)"
        if not query.files:
            return self._relation(cursor, files)
        chosen = ranges_of(query.files)
        whole = [v for v, ranges in chosen.items() if ranges is None]
        branches = [self._relation(cursor, self._among(files, whole))] if whole else []
        branches += [
            f"(SELECT * FROM {self._relation(cursor, self._among(files, [version]))}"
            f" WHERE {rows_condition(ranges)})"
            for version, ranges in chosen.items()
            if ranges is not None
        ]
        return branches[0] if len(branches) == 1 else f"(FROM {' UNION ALL FROM '.join(branches)})"

    def check_files(self, table: TableInfo, names: Sequence[str]) -> None:
        """:raises OperationalError: where a file has changed since it was named so."""
        if names != (NO_FILE,):
            view = self.capabilities.translator.table(table).name
            self._among(self.files_of(self._views.table(view)), list(ranges_of(names)))

    def _among(self, files: FileSet, chosen: Sequence[str]) -> FileSet:
        """The chosen files, of which none may have changed since they were chosen.

        :raises OperationalError: where one has.
        """
        found = {v: i for i, v in enumerate(files.names() or ())}
        if not all(c in found for c in chosen):
            raise OperationalError(
                f'files of table "{files.name}" have changed while they were read', source=self.name
            )
        numbers = [found[c] for c in chosen]
        objects = tuple(files.objects[i] for i in numbers) if files.objects else ()
        return replace(files, paths=tuple(files.paths[i] for i in numbers), objects=objects)

    def files_of_table(self, table: TableInfo) -> Sequence[tuple[str, float]]:
        """The files of a table that is read the same whichever of them are read."""
        files = self.files_of(self._views.table(self.capabilities.translator.table(table).name))
        versions = files.versions()
        if versions is None or files.format != "parquet" or _is_hive(files):
            return []
        told = zip(files.paths, versions, files.sizes, strict=True)
        with self.cursor() as cursor:
            try:
                if not _are_alike(cursor, files.paths):
                    return []
                if any(c.name.lower() == ROW_NUMBER for c in table.columns):
                    return list(zip(versions, files.sizes, strict=True))
                return [
                    piece for p, v, s in told for piece in pieces_of(cursor, path_literal(p), v, s)
                ]
            except duckdb.Error as error:
                raise self.error(error) from None

    def parquet_files(self, table: TableInfo, sql: str, most: int) -> Sequence[ParquetFile] | None:
        """The files, where all have the same columns; folders ``key=value`` are constants."""
        from batuta_sql.sources.parquet_layout import holds_as_named, layouts_of

        files = self.files_of(self._views.table(self.capabilities.translator.table(table).name))
        if files.versions() is None or files.format != "parquet" or len(files.paths) > most:
            return None
        types = {c.name: c.type for c in table.columns}
        with self.cursor() as cursor:
            try:
                layouts = layouts_of(cursor, files.paths).values()
                constants = _constants(cursor, files, types)
            except duckdb.Error as error:
                raise self.error(error) from None
        parts = {name for each in constants for name, _ in each}
        held = {n: t for n, t in types.items() if n not in parts}
        if not all(holds_as_named(n, held) for n in layouts):
            return None
        if any({n for n, _ in each} != parts for each in constants):
            return None
        paths = [p if is_url(p) else os.path.abspath(p) for p in files.paths]
        return [ParquetFile(p, c) for p, c in zip(paths, constants, strict=True)]

    def _relation(self, cursor: duckdb.DuckDBPyConnection, files: FileSet) -> str:
        paths = "[" + ", ".join(path_literal(p) for p in files.paths) + "]"
        several = ", union_by_name = true" if len(files.paths) > 1 else ""
        hive = ", hive_partitioning = true" if _is_hive(files) else ", hive_partitioning = false"
        match files.format:
            case "parquet":
                return _without_outer_keys(files, f"read_parquet({paths}{several}{hive}{NAN_SAFE})")
            case "csv":
                # A quoted empty field is an empty text; only an empty one without quotes is NULL.
                quoting = self._quoting(cursor, files.paths[0])
                reader = f"read_csv({paths}{several}{hive}{quoting}, allow_quoted_nulls = false)"
                return _without_outer_keys(files, reader)
            case "json":
                return _without_outer_keys(files, f"read_json({paths}{several}{hive})")
        registered = f"arrow:{files.name}"
        cursor.register(registered, arrow_dataset(self.name, files.paths, files.root))
        return quote(registered)

    @staticmethod
    def _quoting(cursor: duckdb.DuckDBPyConnection, path: str) -> str:
        """How fields are quoted, where the first lines have no quote to learn it from.

        DuckDB would take such a file to be without any, and read the first quote as a letter.
        """
        try:
            found = cursor.execute(f"SELECT Quote FROM sniff_csv({path_literal(path)})").fetchone()
        except duckdb.Error:
            return ""  # the reader itself says what is wrong
        return ", quote = '\"', escape = '\"'" if found and found[0] == "(empty)" else ""

    def _statistics(
        self, cursor: duckdb.DuckDBPyConnection, files: FileSet, whole: frozenset[str]
    ) -> Statistics:
        """Rows, bytes and columns; ``whole`` names the columns of whole numbers."""
        if files.format != "parquet":
            return Statistics(bytes=files.bytes)
        paths = "[" + ", ".join(path_literal(p) for p in files.paths) + "]"
        try:
            row = cursor.execute(
                f"SELECT sum(num_rows) FROM parquet_file_metadata({paths})"
            ).fetchone()
            columns = (
                self._column_statistics(cursor, paths, whole)
                if (len(files.paths) <= _MOST_FOOTERS)
                else {}
            )
        except duckdb.Error as error:
            raise self.error(error) from None
        rows = float(row[0]) if row and row[0] is not None else None
        return Statistics(rows=rows, bytes=files.bytes, exact=rows is not None, columns=columns)

    @staticmethod
    def _column_statistics(
        cursor: duckdb.DuckDBPyConnection, paths: str, whole_numbers: frozenset[str]
    ) -> dict[str, ColumnStatistics]:
        rows = cursor.execute(
            "SELECT path_in_schema, sum(stats_null_count), sum(num_values),"
            " sum(total_compressed_size), bool_and(stats_null_count IS NOT NULL),"
            " min(try_cast(stats_min_value AS BIGINT)), max(try_cast(stats_max_value AS BIGINT)),"
            " bool_and(type IN ('INT32', 'INT64') AND stats_min_value IS NOT NULL)"
            f" FROM parquet_metadata({paths}) WHERE path_in_schema NOT LIKE '%, %'"
            " GROUP BY path_in_schema"
        ).fetchall()
        return {
            name: ColumnStatistics(
                null_fraction=float(nulls) / float(values) if known and values else None,
                width=float(size) / float(values) if values else None,
                minimum=low if whole and name in whole_numbers else None,
                maximum=high if whole and name in whole_numbers else None,
            )
            for name, nulls, values, size, known, low, high, whole in rows
        }

    def estimate(self, query: FragmentQuery) -> SourceEstimate:
        """Parquet from its footers, the rest from file sizes: text is read whole."""
        from batuta_sql.sources.parquet_footers import MOST_FILES, is_exact, scanned_bytes, uses_of

        tree = parsed(query)
        sum_, sure, basis = 0.0, "exact", dict[str, None]()
        # A table that is joined with itself is listed twice, and ``uses_of`` finds both.
        for table in {t.path: t for t in query.tables}.values():
            name = self.capabilities.translator.table(table).name
            files = self.files_of(self._views.table(name))
            if files.format != "parquet" or len(files.paths) > MOST_FILES or tree is None:
                sum_ += files.bytes
                whole = files.format in ("csv", "json")
                sure = sure if whole else "estimated"
                basis["file sizes" if whole else "file sizes before pruning"] = None
                continue
            uses = uses_of(tree, name)
            with self.cursor() as cursor:
                try:
                    sum_ += sum(scanned_bytes(cursor, files.paths, table, u) for u in uses)
                except duckdb.Error as error:
                    raise self.error(error) from None
            sure = sure if all(is_exact(table, u) for u in uses) else "estimated"
            basis["Parquet footers"] = None
        return estimated(query, tree, sum_, sure, ", ".join(basis))


def suffix_of(name: str) -> str | None:
    """The known suffix of a file's name; none of them ends with another."""
    lower = name.lower()
    return next((s for s in FORMATS if lower.endswith(s)), None)


def path_literal(path: str) -> str:
    """A path as DuckDB's readers take it: quoted, and with nothing left to glob."""
    plain = "".join(f"[{c}]" if c in "*?[" else c for c in path)
    return "'" + plain.replace("'", "''") + "'"


def _are_alike(cursor: duckdb.DuckDBPyConnection, paths: Sequence[str]) -> bool:
    """Whether all Parquet files have the same columns: any of them then gives the same types."""
    listed = "[" + ", ".join(path_literal(p) for p in paths) + "]"
    rows = cursor.execute(
        "SELECT file_name, name, type, type_length, repetition_type, num_children, converted_type,"
        f" scale, precision, logical_type FROM parquet_schema({listed})"
    ).fetchall()
    columns: dict[str, list[tuple[object, ...]]] = {}
    for file, *told in rows:
        # The root has a name of its writer's.
        named = told if file in columns else told[1:]
        columns.setdefault(file, []).append(tuple(named))
    return len({tuple(c) for c in columns.values()}) == 1


def _is_hive(files: FileSet) -> bool:
    """Whether every file lies below a folder called ``key=value``."""
    return all(_partition_keys(p[len(files.root) :]) for p in files.paths)


def _partition_keys(path: str) -> list[str]:
    """The keys of the folders ``key=value`` in a file's path."""
    return [part.partition("=")[0] for part in Path(path).parent.parts if "=" in part]


def _constants(
    cursor: duckdb.DuckDBPyConnection, files: FileSet, types: Mapping[str, str]
) -> list[tuple[tuple[str, str | None], ...]]:
    """What the folders ``key=value`` of each file say of all its rows, as DuckDB writes it.

    :param types: of the table's columns.
    """
    if not _is_hive(files):
        return [()] * len(files.paths)
    names = {name.lower(): name for name in types}
    known: dict[tuple[str, str], str | None] = {}

    def written(name: str, value: str) -> str | None:
        """Folders repeat their values: each is asked for once."""
        if (name, value) not in known:
            cast = f"SELECT CAST(CAST(? AS {types[name]}) AS VARCHAR)"
            given = None if value == _NO_VALUE else value
            row = cursor.execute(cast, [given]).fetchone()
            known[name, value] = row[0] if row is not None else None
        return known[name, value]

    def of(path: str) -> tuple[tuple[str, str | None], ...]:
        below = Path(path[len(files.root) :]).parent.parts
        told = dict(part.split("=", 1) for part in below if "=" in part)
        found = [(names[k.lower()], v) for k, v in told.items() if k.lower() in names]
        return tuple((name, written(name, value)) for name, value in found)

    return [of(path) for path in files.paths]


_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def _without_outer_keys(files: FileSet, reader: str) -> str:
    """DuckDB takes ``key=value`` anywhere in a path for a partition, the folders above included."""
    if not _is_hive(files):
        return reader
    inner = {k for p in files.paths for k in _partition_keys(p[len(files.root) :])}
    outer = [k for k in _partition_keys(f"{files.root}/file") if k not in inner]
    if not outer:
        return reader
    return f"(SELECT * EXCLUDE ({', '.join(quote(k) for k in dict.fromkeys(outer))}) FROM {reader})"


def _fixed_part(pattern: str) -> str:
    """The folder of a glob above its first wildcard."""
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return fixed.rpartition("/")[0]
