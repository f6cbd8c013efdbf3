"""Delta tables through deltalake: it reads the log, DuckDB reads the Parquet files.

The files of one version are read by one Parquet reader that is told the table's columns, so that
nothing is opened to find out; partition values come from the log, joined by the file's number.
Files of partitions that a fragment cannot need are left out (``partition_pruning``); below that
DuckDB skips row groups by statistics. ``table@v3`` reads version 3.
"""

from __future__ import annotations

import abc
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
from cachetools import LRUCache
from sqlglot import exp

from batuta_sql.engines.duckdb import quote
from batuta_sql.errors import ConfigError, NotSupportedError, OperationalError
from batuta_sql.plan.site import (
    Capabilities,
    ColumnInfo,
    ColumnStatistics,
    Statistics,
    TableInfo,
)
from batuta_sql.plan.translate import quoted_table
from batuta_sql.secrets import Secret, redact
from batuta_sql.source_settings import DeltaSettings
from batuta_sql.sources.base import FragmentQuery, ParquetFile, SourceEstimate, TableName
from batuta_sql.sources.delta_log import (
    FILE,
    DeltaColumn,
    DeltaVersion,
    first_words,
    read_version,
)
from batuta_sql.sources.embedded import (
    EmbeddedSource,
    ViewNames,
    ViewTranslator,
    estimated,
)
from batuta_sql.sources.object_store import ObjectStore, is_url
from batuta_sql.sources.parquet_footers import MOST_FILES, is_exact, scanned_bytes, uses_of
from batuta_sql.sources.parquet_layout import (
    PLAIN,
    ZONED,
    Node,
    entry,
    holds_as_named,
    is_other_time,
    layouts_of,
    reader_of,
)
from batuta_sql.sources.partition_pruning import partition_condition
from batuta_sql.sources.sizes import parsed
from batuta_sql.sources.store_keys import tells_refusal

if TYPE_CHECKING:
    from deltalake import DeltaTable

_VERSIONED = re.compile(r"(.+)@v(\d+)")
_VERSIONS_KEPT = 128


class DeltaTranslator(ViewTranslator):
    """Names the version in the fragment, so that it is read whatever is committed meanwhile."""

    def table(self, table: TableInfo) -> exp.Table:
        name = "/".join((*table.path[:-1], split_version(table.name)[0]))
        return quoted_table((f"{self._names.view(name)}@v{table.version}",))


class DeltaReader(EmbeddedSource):
    """Reads Delta tables where they lie, wherever a source says that that is."""

    def __init__(self, name: str, query_timeout: float | None) -> None:
        super().__init__(name, query_timeout)
        self._views = ViewNames()
        self._versions: LRUCache[tuple[str, int], DeltaVersion] = LRUCache(_VERSIONS_KEPT)
        self._versions_lock = threading.Lock()

    @abc.abstractmethod
    def _location(self, name: str) -> str:
        """Path or URL of the table called ``name``: the parts of its path, slashes between."""

    def _access(self, name: str) -> Mapping[str, str]:
        """What deltalake needs to open the table: its ``storage_options``, secrets among them."""
        return {}

    def _renewed(self, used: Mapping[str, str]) -> bool:
        """Whether ``_access`` says something else now, after what it said was refused."""
        return False

    def _secret_values(self) -> list[str]:
        return []

    def _reads_anywhere(self, name: str) -> bool:
        """Whether the table may lie in an object store."""
        return False

    def _attach(self, url: str) -> None:
        """Makes files of an object store readable in the source's engine."""

    def _told_version(self, name: str) -> int | None:
        """The version that the configuration fixes; None: the newest."""
        return None

    @cached_property
    def capabilities(self) -> Capabilities:
        translator = DeltaTranslator(self._views)
        return Capabilities(dialect="duckdb", translator=translator, windows=True)

    def _table(self, name: str, path: tuple[str, ...], asked: int | None) -> TableInfo:
        found = self._now(name, asked)
        shown = path if asked is None else (*path[:-1], f"{path[-1]}@v{asked}")
        return TableInfo(
            source=self.name,
            path=shown,
            columns=tuple(
                ColumnInfo(c.name, c.type, c.type, c.nullable, labels=c.labels)
                for c in found.columns
            ),
            kind="delta table",
            statistics=Statistics(
                rows=float(found.rows) if found.rows is not None else None,
                bytes=float(found.bytes),
                exact=found.rows is not None,
                columns={
                    n: ColumnStatistics(minimum=low, maximum=high) for n, low, high in found.bounds
                },
            ),
            version=str(found.version),
            content=f"{found.identity}@{found.version}",
        )

    # --- the log -------------------------------------------------------------------------------

    def _now(self, name: str, asked: int | None) -> DeltaVersion:
        """The version asked for, or the newest, of the table that is there now."""
        if asked is None:
            asked = self._told_version(name)
        table = self._open(name, asked)
        with self._versions_lock:
            known = self._versions.get((name, table.version()))
        if known is None or known.identity != str(table.metadata().id):
            known = read_version(self.name, name, table, anywhere=self._reads_anywhere(name))
            with self._versions_lock:
                self._versions[name, known.version] = known
        return known

    def _pinned(self, name: str, version: int) -> DeltaVersion:
        """The version that a fragment names, as it was when the fragment was planned."""
        with self._versions_lock:
            known = self._versions.get((name, version))
        return known or self._now(name, version)

    def _open(self, name: str, version: int | None) -> DeltaTable:
        from deltalake import DeltaTable

        location = self._location(name)
        options = dict(self._access(name))
        try:
            try:
                return DeltaTable(location, version=version, storage_options=options)
            except Exception as error:
                if not (is_url(location) and tells_refusal(error) and self._renewed(options)):
                    raise
                options = dict(self._access(name))
                return DeltaTable(location, version=version, storage_options=options)
        except Exception as error:
            message = redact(first_words(error), self._secret_values())
            raise OperationalError(
                f'Delta table "{name}" cannot be opened: {message}', source=self.name
            ) from None

    # --- reading -------------------------------------------------------------------------------

    def relation(self, cursor: duckdb.DuckDBPyConnection, name: str, query: FragmentQuery) -> str:
        view, number = split_version(name)
        assert number is not None
        version = self._pinned(self._views.table(view), number)
        self._attach_files(version)
        files = self._needed(cursor, version, name, query)
        groups = self._groups(cursor, version, view, files)
        branches = [_branch(version, f"files:{name}", f, mended) for f, mended in groups]
        if not branches:
            typed = ", ".join(f"CAST(NULL AS {c.type}) AS {quote(c.name)}" for c in version.columns)
            return f"(SELECT {typed} WHERE false)"
        return "(" + " UNION ALL ".join(branches) + ")"

    def _attach_files(self, version: DeltaVersion) -> None:
        if version.files and is_url(version.files[0]):
            self._attach(version.files[0])

    def _needed(
        self,
        cursor: duckdb.DuckDBPyConnection,
        version: DeltaVersion,
        name: str,
        query: FragmentQuery,
    ) -> list[int]:
        """The indices of the files that can hold rows that ``query`` needs."""
        every = list(range(len(version.files)))
        if query.files:
            chosen = set(query.files)
            every = [i for i in every if version.files[i] in chosen]
        if version.partitions is None:
            return every
        cursor.register(f"files:{name}", version.partitions)
        condition = partition_condition(query.sql, name, version.partition_columns)
        if condition is None:
            return every
        values = _partition_values(version, {n: n for n in version.partition_columns})
        try:
            rows = cursor.execute(
                f"SELECT {quote(FILE)} FROM (SELECT {quote(FILE)}, {values}"
                f" FROM {quote(f'files:{name}')} AS v) WHERE {condition} ORDER BY 1"
            ).fetchall()
        except duckdb.Error:
            return every  # the query itself will say what is wrong with its condition
        wanted = {r[0] for r in rows}
        return [i for i in every if i in wanted]

    def _described_version(self, table: TableInfo) -> DeltaVersion:
        """The version that a table was described at."""
        view, number = split_version(self.capabilities.translator.table(table).name)
        assert number is not None
        return self._pinned(self._views.table(view), number)

    def files_of_table(self, table: TableInfo) -> Sequence[tuple[str, float]]:
        """The table's files at the version that it was described at, each about as large."""
        if table.version is None:
            return []
        version = self._described_version(table)
        return [(f, version.bytes / len(version.files)) for f in version.files]

    def parquet_files(self, table: TableInfo, sql: str, most: int) -> Sequence[ParquetFile] | None:
        """The data files, where no column is mapped."""
        if table.version is None:
            return None
        version = self._described_version(table)
        if any(c.physical != c.name for c in version.columns):
            return None
        self._attach_files(version)
        view = self.capabilities.translator.table(table).name
        parts = version.partition_columns
        held = {c.name: c.type for c in version.columns if c.name not in parts}
        with self.cursor() as cursor:
            needed = self._needed(cursor, version, view, FragmentQuery(sql))
            if len(needed) > most:
                return None
            layouts = self._layouts(cursor, [version.files[i] for i in needed])
            if not all(holds_as_named(n, held) for n in layouts):
                return None
            constants = self._constants(cursor, version, view)
        return [ParquetFile(version.files[i], constants.get(i, ())) for i in needed]

    @staticmethod
    def _constants(
        cursor: duckdb.DuckDBPyConnection, version: DeltaVersion, view: str
    ) -> dict[int, tuple[tuple[str, str | None], ...]]:
        """The values of the partition columns, by the numbers of the files.

        :param cursor: where ``_needed`` has looked at them.
        """
        if version.partitions is None:
            return {}
        names = version.partition_columns
        values = _partition_values(version, {n: n for n in names})
        texts = ", ".join(f"CAST({quote(n)} AS VARCHAR)" for n in names)
        rows = cursor.execute(
            f"SELECT {quote(FILE)}, {texts} FROM (SELECT {quote(FILE)}, {values}"
            f" FROM {quote(f'files:{view}')} AS v)"
        ).fetchall()
        return {number: tuple(zip(names, texts, strict=True)) for number, *texts in rows}

    def _layouts(
        self, cursor: duckdb.DuckDBPyConnection, paths: Sequence[str]
    ) -> list[tuple[Node, ...]]:
        try:
            return list(layouts_of(cursor, paths).values()) if paths else []
        except duckdb.Error as error:
            raise self.error(error) from None

    def _groups(
        self,
        cursor: duckdb.DuckDBPyConnection,
        version: DeltaVersion,
        name: str,
        files: Sequence[int],
    ) -> list[tuple[list[int], dict[str, str]]]:
        """Files with the timestamp columns that they hold as the other kind of timestamp.

        A cast between the kinds would follow the session's time zone; Delta's own are UTC.
        """
        times = {c.name for c in version.stored if "TIMESTAMP" in c.type}
        if not files or not (times or version.by_id):
            return [(list(files), {})] if files else []
        held = self._file_types(cursor, [version.files[i] for i in files])
        groups: dict[tuple[tuple[str, str], ...], list[int]] = {}
        for index in files:
            types = held.get(version.files[index], {})
            if version.by_id and not any(isinstance(k, int) for k in types):
                raise OperationalError(
                    f'Delta table "{name}" maps columns by id, and {version.files[index]} has none',
                    source=self.name,
                )
            mended: list[tuple[str, str]] = []
            for column in version.stored:
                kind = types.get(column.field_id if version.by_id else column.physical.lower())
                if column.name in times and kind is not None and is_other_time(kind, column.type):
                    if column.type not in (ZONED, PLAIN):
                        raise NotSupportedError(
                            f'column "{column.name}" of Delta table "{name}" holds timestamps of'
                            " another kind inside a nested value, which is not read yet",
                            source=self.name,
                        )
                    mended.append((column.name, kind))
            groups.setdefault(tuple(mended), []).append(index)
        return [(indices, dict(key)) for key, indices in groups.items()]

    def _file_types(
        self, cursor: duckdb.DuckDBPyConnection, paths: Sequence[str]
    ) -> dict[str, dict[int | str | None, str]]:
        """DuckDB types of the files' top-level columns, by name in lower case and by field id."""
        try:
            layouts = layouts_of(cursor, paths)
        except duckdb.Error as error:
            raise self.error(error) from None
        found: dict[str, dict[int | str | None, str]] = {}
        for file, nodes in layouts.items():
            types = found[file] = {n.name.lower(): " ".join(n.types_below) for n in nodes}
            types |= {n.field_id: types[n.name.lower()] for n in nodes if n.field_id is not None}
        return found

    def estimate(self, query: FragmentQuery) -> SourceEstimate:
        """The files that the log leaves over, from their footers."""
        tree = parsed(query)
        sum_, sure, basis = 0.0, "exact", dict[str, None]()
        # A table that is joined with itself is listed twice, and ``uses_of`` finds both.
        for table in {t.path: t for t in query.tables}.values():
            name = self.capabilities.translator.table(table).name
            view, number = split_version(name)
            assert number is not None
            version = self._pinned(self._views.table(view), number)
            physical = {c.name: c.physical for c in version.columns}
            self._attach_files(version)
            with self.cursor() as cursor:
                needed = self._needed(cursor, version, name, query)
                if len(needed) > MOST_FILES or tree is None:
                    sum_ += version.bytes * len(needed) / max(len(version.files), 1)
                    sure, words = "estimated", "file sizes of the Delta log"
                else:
                    paths = [version.files[i] for i in needed]
                    uses = uses_of(tree, name)
                    try:
                        sum_ += sum(scanned_bytes(cursor, paths, table, u, physical) for u in uses)
                    except duckdb.Error as error:
                        raise self.error(error) from None
                    sure = sure if all(is_exact(table, u) for u in uses) else "estimated"
                    words = "Delta log and Parquet footers"
            basis[words] = None
        return estimated(query, tree, sum_, sure, ", ".join(basis))


class Delta(DeltaReader):
    """A folder of Delta tables and of folders of them, or named ones."""

    kind = "delta"

    def __init__(self, name: str, settings: DeltaSettings) -> None:
        super().__init__(name, settings.query_timeout)
        self._settings = settings
        self._named = {n: t for n, t in settings.tables.items() if t.path is not None}
        self._store = ObjectStore(
            name,
            settings.storage_options,
            settings.connect_timeout,
            settings.query_timeout,
            settings.secrets,
        )
        if settings.path is None and not self._named:
            raise ConfigError(f"sources.{name}: give path, or tables = {{ name = 'path' }}")

    def _access(self, name: str) -> Mapping[str, str]:
        return {k: v.reveal() for k, v in self._settings.storage_options.items()}

    def _renewed(self, used: Mapping[str, str]) -> bool:
        return Secret.any_refused(used, self._settings.storage_options)

    def _secret_values(self) -> list[str]:
        return self._settings.secrets()

    def _attach(self, url: str) -> None:
        self._store.attach(self.engine, url)

    def _told_version(self, name: str) -> int | None:
        return self._named[name].version if name in self._named else None

    # --- the catalog ---------------------------------------------------------------------------

    def list_tables(self) -> Sequence[TableName]:
        paths = [(n,) for n in self._named] + [tuple(n.split("/")) for n in self._folders()]
        return [TableName(p, "delta table") for p in sorted(paths)]

    def resolve(self, path: tuple[str, ...]) -> Sequence[TableInfo]:
        asked, version = split_version(path[-1])
        wanted = (*path[:-1], asked)
        names = self._exactly(wanted) or self._folders()
        known = {n: (n,) for n in self._named} | {n: tuple(n.split("/")) for n in names}
        alike = [n for n, p in known.items() if _fits(p, wanted)]
        for name in alike:
            self._views.tell_apart(n for n in known if n.lower() == name.lower())
        exact = [n for n in alike if known[n][-len(wanted) :] == wanted]
        return [self._table(n, known[n], version) for n in exact or alike]

    def _folders(self) -> Mapping[str, str | Path]:
        """Delta tables below the folder: ``table``, or ``schema/table``."""
        if self._settings.path is None:
            return {}
        if is_url(self._settings.path):
            return {n: u for n, u in self._stored(self._settings.path) if n not in self._named}
        folder = Path(self._settings.path)
        if not folder.is_dir():
            raise OperationalError(
                f"there is no folder {folder}", source=self.name, hint="check this source's path"
            )
        found: dict[str, Path] = {}
        try:
            for entry in _subfolders(folder):
                if _is_table(entry):
                    found[entry.name] = entry
                else:
                    inner = [p for p in _subfolders(entry) if _is_table(p)]
                    found |= {f"{entry.name}/{p.name}": p for p in inner}
        except OSError as error:
            raise OperationalError(
                f"{error.filename}: {error.strerror}", source=self.name
            ) from None
        return {n: p for n, p in found.items() if n not in self._named}

    def _exactly(self, wanted: tuple[str, ...]) -> list[str]:
        """The table of an object store that is spelt so: nothing else has to be listed for it."""
        path = self._settings.path
        if path is None or not is_url(path):
            return []
        name = "/".join(wanted)
        return [name] if self._store.exists(f"{path.rstrip('/')}/{name}/_delta_log") else []

    def _stored(self, folder: str, schema: str = "") -> Iterator[tuple[str, str]]:
        """Name and URL of the Delta tables below a folder of an object store."""
        for name, url, is_folder in self._store.entries(folder):
            if not is_folder or name.startswith((".", "_")):
                continue
            if self._store.exists(f"{url}/_delta_log"):
                yield schema + name, url
            elif not schema:
                yield from self._stored(url, f"{name}/")

    def _location(self, name: str) -> str:
        if name in self._named:
            return str(self._named[name].path)
        if self._settings.path is not None and is_url(self._settings.path):
            return f"{self._settings.path.rstrip('/')}/{name}"
        folder = self._folders().get(name)
        if folder is None:
            raise OperationalError(f'Delta table "{name}" is not there any more', source=self.name)
        return str(folder)


def _branch(
    version: DeltaVersion, partitions: str, files: Sequence[int], mended: Mapping[str, str]
) -> str:
    """The SELECT that reads some files, ``mended`` of whose columns need a step between.

    Inside it every column has a name of ours: the table's may be those that DuckDB reserves.
    """
    inner = {c.name: f"c{i}" for i, c in enumerate(version.columns)}
    schema = [
        _schema_entry(c, inner[c.name], mended.get(c.name), version.by_id) for c in version.stored
    ]
    reader = f"{reader_of([version.files[i] for i in files], schema)} AS f"
    outputs = ", ".join(
        f"p.{inner[c.name]} AS {quote(c.name)}"
        if c.name in version.partition_columns
        else f"{_restored(f'f.{inner[c.name]}', c.name in mended)} AS {quote(c.name)}"
        for c in version.columns
    )
    if version.partitions is None:
        return f"SELECT {outputs} FROM {reader}"
    # The reader numbers the files that it is given.
    numbers = ", ".join(f"({i}, {index})" for i, index in enumerate(files))
    values = (
        f"SELECT n.here, {_partition_values(version, inner)} FROM {quote(partitions)} AS v"
        f" JOIN (VALUES {numbers}) AS n(here, there) ON v.{quote(FILE)} = n.there"
    )
    return f"SELECT {outputs} FROM {reader} JOIN ({values}) AS p ON f.file_index = p.here"


def _schema_entry(column: DeltaColumn, name: str, held: str | None, by_id: bool) -> str:
    key = column.field_id if by_id and column.field_id is not None else column.physical
    return entry(key, name, held if held is not None else column.type)


def _restored(column: str, mended: bool) -> str:
    # In both directions: from the one kind to the other by way of UTC.
    return f"timezone('UTC', {column})" if mended else column


def _partition_values(version: DeltaVersion, names: Mapping[str, str]) -> str:
    """The partition columns in their types, out of ``DeltaVersion.partitions`` called ``v``."""
    types = {c.name: c.type for c in version.columns}
    return ", ".join(
        f"CAST(v.{quote(n)} AS {types[n]}) AS {quote(names[n])}" for n in version.partition_columns
    )


def _fits(path: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether a table's path is what the user wrote, without case; ``main`` is the outer folder."""
    asked = tuple(w.lower() for w in wanted)
    have = tuple(p.lower() for p in path)
    return have[-len(asked) :] == asked or (len(have) == 1 and asked == ("main", *have))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "_")))


def _is_table(folder: Path) -> bool:
    return (folder / "_delta_log").is_dir()


def split_version(name: str) -> tuple[str, int | None]:
    match = _VERSIONED.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, None)
