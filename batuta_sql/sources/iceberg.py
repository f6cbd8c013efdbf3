"""Iceberg tables of a catalog (REST, SQL, Glue ...), or named by their metadata files."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from batuta_sql.errors import ConfigError, Error, NotSupportedError, OperationalError
from batuta_sql.plan.site import TableInfo
from batuta_sql.secrets import Secret, is_secret_key
from batuta_sql.source_settings import IcebergSettings
from batuta_sql.sources.base import TableName
from batuta_sql.sources.iceberg_access import known_access, local_path, opening_error
from batuta_sql.sources.iceberg_catalog import (
    catalog_error,
    file_io,
    namespaces_of,
    open_catalog,
    properties_of,
    require_pyiceberg,
    table_at,
)
from batuta_sql.sources.iceberg_metadata import IcebergSnapshot
from batuta_sql.sources.iceberg_reader import IcebergReader, Opened, split_reference
from batuta_sql.sources.object_store import ObjectStore, TableStores, is_url
from batuta_sql.sources.store_keys import tells_refusal

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

T = TypeVar("T")
TablePath = tuple[str, ...]

_METADATA = re.compile(r"v?(\d+)(?:-[\w-]+)?(?:\.gz)?\.metadata\.json(?:\.gz)?")
_HINT_FILE = "version-hint.text"


class Iceberg(IcebergReader):
    """A catalog's tables, and tables given by their place."""

    kind = "iceberg"

    def __init__(self, name: str, settings: IcebergSettings) -> None:
        super().__init__(name, settings.query_timeout)
        self._settings = settings
        self._named = {n: t for n, t in settings.tables.items() if t.path is not None}
        self._paths: dict[str, tuple[str, ...]] = {}
        self._opening = threading.Lock()
        self._made: tuple[dict[str, str], Catalog] | None = None
        self._looking_up = threading.Lock()
        self._told: dict[str, str] | None = None
        self._stores = TableStores(self._store_with)
        self._vended: dict[str, list[str]] = {}
        if not self._named and not settings.has_catalog:
            raise ConfigError(
                f"sources.{name}: give catalog, or tables = {{ name = 'metadata file or folder' }}",
                hint="catalog = { type = 'rest', uri = 'https://...' }",
            )

    def _secret_values(self) -> list[str]:
        return [*self._settings.secrets(), *(v for vs in self._vended.values() for v in vs)]

    def _told_snapshot(self, name: str) -> int | None:
        return self._named[name].version if name in self._named else None

    def _reads_labels(self) -> bool:
        return self._settings.file_labels

    # --- the catalog ---------------------------------------------------------------------------

    @property
    def _properties(self) -> dict[str, str]:
        """The settings' properties, with our timeouts where they have none. What does not tell its
        end is looked up once, and again after a refusal.
        """
        settings = self._settings
        with self._looking_up:
            if self._told is None or self._has_ended(self._told):
                told = {"s3.connect-timeout": str(settings.connect_timeout)}
                if settings.query_timeout is not None:
                    told["s3.request-timeout"] = str(settings.query_timeout)
                self._told = told | {k: v.reveal() for k, v in settings.catalog.items()}
            return self._told

    def _has_ended(self, told: Mapping[str, str]) -> bool:
        ends = {k: v for k, v in self._settings.catalog.items() if v.seconds_left() is not None}
        return any(told[k] != v.reveal() for k, v in ends.items())

    def _asked(self, ask: Callable[[], T]) -> T:
        """An answer; asked for once more where a credential was refused and there is another."""
        used = self._properties
        try:
            return ask()
        except Exception as error:
            refused = tells_refusal(error)
            if not (refused and Secret.any_refused(used, self._settings.catalog)):
                raise
        with self._looking_up:
            if self._told is used:
                self._told = None
        return ask()

    def _made_of(self, properties: dict[str, str]) -> Catalog:
        timeouts = (self._settings.connect_timeout, self._settings.query_timeout)
        uri = properties.get("uri", "")
        if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
            # SQLite would make it.
            raise OperationalError(
                f"there is no file {uri.removeprefix('sqlite:///')}",
                source=self.name,
                hint="check the catalog's uri",
            )
        stores = self._settings.reads_stores
        return open_catalog(self.name, properties, stores, timeouts, self._secret_values())

    def _catalog(self) -> Catalog:
        properties = self._properties
        with self._opening:
            try:
                if self._made is None or self._made[0] != properties:
                    # The one before may still be in use.
                    self._made = properties, self._made_of(properties)
                return self._made[1]
            except Error as error:
                error.source = error.source or self.name
                raise

    def list_tables(self) -> Sequence[TableName]:
        paths: list[tuple[str, ...]] = [(n,) for n in self._named]
        if self._settings.has_catalog:
            paths += self._listed(self._everything)
        return [TableName(p, self.table_kind) for p in sorted(paths)]

    def resolve(self, path: tuple[str, ...]) -> Sequence[TableInfo]:
        """A name with an @ is a table's own, or else one with a branch, tag or snapshot."""
        found = self._matching(path)
        asked: str | None = None
        if not found:
            head, asked = split_reference(path[-1])
            found = self._matching((*path[:-1], head)) if asked is not None else []
        names = {p: "/".join(p) for p in found}
        for name in names.values():
            self._views.tell_apart(n for n in names.values() if n.lower() == name.lower())
        self._paths.update({n: p for p, n in names.items()})
        wanted = (*path[:-1], split_reference(path[-1])[0] if asked else path[-1])
        exact = [p for p in found if p[-len(wanted) :] == wanted]
        return [self._table(names[p], p, asked) for p in exact or found]

    def _matching(self, wanted: tuple[str, ...]) -> list[tuple[str, ...]]:
        """The paths of the tables that ``wanted`` may mean, without case."""
        found: list[tuple[str, ...]] = [(n,) for n in self._named if _fits((n,), wanted)]
        if not self._settings.has_catalog:
            return found
        return found + self._listed(lambda catalog: self._meant(catalog, wanted))

    def _listed(self, ask: Callable[[Catalog], list[TablePath]]) -> list[TablePath]:
        """The paths of tables that a catalog tells."""
        try:
            return self._asked(lambda: ask(self._catalog()))
        except Error:
            raise
        except Exception as error:
            raise catalog_error(
                self.name, "cannot be listed", error, self._secret_values()
            ) from None

    @staticmethod
    def _everything(catalog: Catalog) -> list[TablePath]:
        return [tuple(t) for n in namespaces_of(catalog) for t in catalog.list_tables(n)]

    def _meant(self, catalog: Catalog, wanted: TablePath) -> list[TablePath]:
        # A whole name that is spelt so needs no listing.
        if len(wanted) > 1 and self._exists(catalog, wanted):
            return [wanted]
        return [
            tuple(table)
            for namespace in namespaces_of(catalog)
            if _ends(namespace, wanted[:-1])
            for table in catalog.list_tables(namespace)
            if _fits(tuple(table), wanted)
        ]

    def _exists(self, catalog: Catalog, path: tuple[str, ...]) -> bool:
        """Whether there is a table that is spelt so."""
        from pyiceberg.exceptions import NoSuchNamespaceError

        if self._vends:
            return catalog.table_exists(path)
        try:
            # Other catalogs would read the table's metadata to tell.
            return path in {tuple(t) for t in catalog.list_tables(path[:-1])}
        except NoSuchNamespaceError:
            return False

    # --- tables --------------------------------------------------------------------------------

    def _load(self, name: str) -> Opened:
        require_pyiceberg(self.name)
        if name in self._named:
            return self._asked(lambda: self._placed(name, str(self._named[name].path)))
        try:
            table = self._asked(lambda: self._catalog().load_table(self._paths[name]))
        except Error:
            raise
        except Exception as error:
            raise opening_error(self.name, name, error, self._secret_values()) from None
        self._allowed(name, table.metadata_location)
        access = self._access(name, table)
        return Opened(table, file_io(access, table.metadata_location))

    def _access(self, name: str, table: Any) -> dict[str, str]:
        """What opens the table's files: what the catalog vends over the settings, but endpoints."""
        given = self._properties
        if not self._vends:
            return given
        told = properties_of(table.io)
        config = dict(table.config)
        vended = {k: v for k, v in told.items() if k in config or k not in table.properties}
        fixed = {k: v for k, v in given.items() if "endpoint" in k}
        access = given | vended | fixed
        if access.get("s3.signer") or access.get("s3.remote-signing-enabled", "").lower() == "true":
            raise NotSupportedError(
                f'the catalog wants to sign each request for "{name}", which is not done',
                source=self.name,
                hint="have it vend credentials, or give s3.access-key-id and s3.secret-access-key",
            )
        self._vended[name] = [v for k, v in access.items() if is_secret_key(k)]
        self._stores.give(name, known_access(access))
        return access

    @property
    def _vends(self) -> bool:
        """Whether the catalog may give credentials of a table's own."""
        uri = self._properties.get("uri", "")
        return self._properties.get("type", "") == "rest" or uri.startswith(("http://", "https://"))

    def _placed(self, name: str, place: str) -> Opened:
        """A table named in the settings, by its folder or its metadata file."""
        self._allowed(name, place)
        try:
            location = place
            if not _METADATA.fullmatch(place.rpartition("/")[2]):
                location = self._newest(name, place.rstrip("/"))
            io = file_io(self._properties, location)
            return Opened(table_at(location, io), io)
        except Error:
            raise
        except Exception as error:
            raise opening_error(self.name, name, error, self._secret_values()) from None

    def _newest(self, name: str, folder: str) -> str:
        """The newest metadata file of a table that has no catalog.

        https://iceberg.apache.org/spec/#file-system-tables
        """
        below = f"{folder}/metadata"
        if is_url(folder):
            files = [n for n, _, is_folder in self._store.entries(below) if not is_folder]
        else:
            place = Path(local_path(below))
            files = [p.name for p in place.iterdir()] if place.is_dir() else []
        numbered: dict[int, list[str]] = {}
        for file in files:
            if match := _METADATA.fullmatch(file):
                numbered.setdefault(int(match[1]), []).append(file)
        if not numbered:
            raise OperationalError(
                f'Iceberg table "{name}": {below} has no metadata file',
                source=self.name,
                hint="give the table's folder, or a metadata file (....metadata.json)",
            )
        if _HINT_FILE in files:
            io = file_io(self._properties, f"{below}/{_HINT_FILE}")
            told = io.new_input(f"{below}/{_HINT_FILE}").open().read().decode().strip()
            if told.isdigit() and int(told) in numbered:
                # The hint may lag behind: what follows it without a gap is newer.
                number = int(told)
                while number + 1 in numbered:
                    number += 1
                numbered = {number: numbered[number]}
        newest = numbered[max(numbered)]
        if len(newest) > 1:
            raise OperationalError(
                f'Iceberg table "{name}": any of {", ".join(sorted(newest))} may be its newest'
                " metadata",
                source=self.name,
                hint="give the metadata file, or the catalog that knows it",
            )
        return f"{below}/{newest[0]}"

    def _allowed(self, name: str, location: str) -> None:
        """:raises NotSupportedError: for an object store that the settings do not speak of."""
        if is_url(location) and not self._settings.reads_stores:
            raise NotSupportedError(
                f'Iceberg table "{name}" lies on {location.partition("://")[0]}://, and'
                " object_stores is not set",
                source=self.name,
                hint="object_stores = true: the catalog then says what is dialled",
            )

    def close(self) -> None:
        super().close()
        if self._made is not None:
            self._made[1].close()

    # --- files ---------------------------------------------------------------------------------

    @cached_property
    def _store(self) -> ObjectStore:
        # As secrets, not as what they say now: some end.
        return self._opened(known_access(self._settings.catalog))

    def _store_with(self, access: dict[str, str]) -> ObjectStore:
        return self._opened({k: Secret.of(v) for k, v in access.items()})

    def _opened(self, access: Mapping[str, Secret]) -> ObjectStore:
        return ObjectStore(
            self.name,
            access,
            self._settings.connect_timeout,
            self._settings.query_timeout,
            self._secret_values,
        )

    def _path_of(self, name: str, location: str) -> str:
        if not is_url(location):
            return local_path(location)
        self._allowed(name, location)
        plain = re.sub(r"^s3[an]://", "s3://", location)
        if self._vends and name not in self._named and plain.startswith("s3://"):
            return self._stores.url(name, plain)
        return plain

    def _plain(self, message: str) -> str:
        return self._stores.plain(message)

    def _attach(self, name: str, snapshot: IcebergSnapshot) -> None:
        path = snapshot.files[0].path if snapshot.files else ""
        if not is_url(path):
            return
        if self._stores.knows(path):
            self._stores.attach(self.engine, name)
        else:
            self._store.attach(self.engine, path)


def _fits(path: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether a table's path is what the user wrote, without case; ``main`` is the outermost."""
    asked = tuple(w.lower() for w in wanted)
    have = tuple(p.lower() for p in path)
    return have[-len(asked) :] == asked or (len(have) == 1 and asked == ("main", *have))


def _ends(namespace: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether a namespace ends in what the user wrote of one, without case."""
    if not wanted:
        return True
    have = tuple(n.lower() for n in namespace)
    return have[-len(wanted) :] == tuple(w.lower() for w in wanted)
