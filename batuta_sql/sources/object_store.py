"""Objects behind URLs of stores (``s3://``), listed and read by range through fsspec.

DuckDB's own readers open them through a file system that is registered with the engine, so that of
a Parquet file only footers and the needed column chunks travel.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
from cachetools import LRUCache

from batuta_sql.errors import ConfigError, Error, NotSupportedError, OperationalError
from batuta_sql.labels import TableLabels, labels_of_schema
from batuta_sql.secrets import Secret, redact
from batuta_sql.sources.store_keys import StoreKeys, keyed_session

_S3 = ("s3", "s3a")
_KEYS = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")
_LABELS_KEPT = 4096
_STREAM_BYTES = 8 << 20
_FOOTERS_AT_ONCE = 8


def is_url(path: str) -> bool:
    """Whether ``path`` is a URL of an object store, not a local path."""
    return "://" in path and not path.startswith("file://")


@dataclass(frozen=True)
class StoredObject:
    """One object: its URL, its size in bytes, and what changes with its content."""

    url: str
    size: int
    version: str


class ObjectStore:
    """What one source reads of object stores.

    :param options: credentials and endpoints, under the names that deltalake uses for S3
        (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID`` ...), or fsspec's own.
    :param connect_timeout: seconds; ``read_timeout`` likewise, None: 60.
    :param systems: scheme -> the fsspec file system that serves it, for stores of a source's own.
    """

    def __init__(
        self,
        source: str,
        options: Mapping[str, Secret],
        connect_timeout: float,
        read_timeout: float | None,
        secrets: Callable[[], Sequence[str]],
        systems: Mapping[str, Any] | None = None,
    ) -> None:
        self._source = source
        self._options = options
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout if read_timeout is not None else 60.0
        self._secrets = secrets
        self._lock = threading.Lock()
        self._systems: dict[str, Any] = dict(systems or {})
        self._attached: set[tuple[int, str]] = set()
        self._labels: LRUCache[tuple[str, str], TableLabels] = LRUCache(_LABELS_KEPT)

    # --- listing -------------------------------------------------------------------------------

    def matching(self, pattern: str) -> list[StoredObject]:
        """The objects that a URL with wildcards means, in their order."""
        system = self.system(pattern)
        with self._translated(pattern):
            system.invalidate_cache()
            found = system.glob(pattern, detail=True)
            if not found and not any(c in pattern for c in "*?["):
                found = {pattern: system.info(pattern)}
        return self._objects(pattern, found)

    def below(self, folder: str) -> list[StoredObject]:
        """All objects below a folder."""
        system = self.system(folder)
        with self._translated(folder):
            system.invalidate_cache()
            return self._objects(folder, system.find(folder, detail=True))

    def entries(self, folder: str) -> list[tuple[str, str, bool]]:
        """Name, URL and whether it is a folder, of each entry of a folder."""
        system = self.system(folder)
        with self._translated(folder):
            system.invalidate_cache()
            listed = system.ls(folder, detail=True)
        scheme = folder.partition("://")[0]
        found = []
        for entry in listed:
            path = str(entry["name"]).rstrip("/")
            name = path.rpartition("/")[2]
            if name and path.rstrip("/") != folder.partition("://")[2].rstrip("/"):
                found.append((name, _url(scheme, path), entry.get("type") == "directory"))
        return sorted(found)

    def exists(self, url: str) -> bool:
        system = self.system(url)
        with self._translated(url):
            return bool(system.exists(url))

    def _objects(self, pattern: str, found: Mapping[str, Any]) -> list[StoredObject]:
        scheme = pattern.partition("://")[0]
        return [
            StoredObject(_url(scheme, path), int(facts.get("size") or 0), _version(facts))
            for path, facts in sorted(found.items())
            if facts.get("type") != "directory"
        ]

    # --- reading -------------------------------------------------------------------------------

    def attach(self, engine: duckdb.DuckDBPyConnection, url: str) -> None:
        """Makes URLs of this scheme readable by DuckDB's readers in ``engine``."""
        scheme = url.partition("://")[0]
        system = self.system(url)
        with self._lock:
            key = (id(engine), scheme)
            if key in self._attached:
                return
            engine.register_filesystem(system)
            self._attached.add(key)

    def stream(self, url: str) -> Any:
        """An object as a file that is read from its beginning to its end.

        :raises OperationalError: where it cannot be opened.
        """
        system = self.system(url)
        with self._translated(url):
            return system.open(url, "rb", cache_type="readahead", block_size=_STREAM_BYTES)

    def labels(self, objects: Sequence[StoredObject]) -> TableLabels:
        """The union of the labels that Parquet objects carry in their footers.

        :raises OperationalError: for labels that cannot be understood.
        """
        parquet = [o for o in objects if o.url.lower().endswith((".parquet", ".parq"))]
        found = TableLabels()
        # Each footer is a round trip or two: some at a time.
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
            for labels in pool.map(self._labels_of, parquet):
                found |= labels
        return found

    def _labels_of(self, one: StoredObject) -> TableLabels:
        import pyarrow.parquet as pq

        key = (one.url, one.version)
        with self._lock:
            known = self._labels.get(key)
        if known is not None:
            return known
        with self._translated(one.url), self.system(one.url).open(one.url, "rb") as file:
            schema: pa.Schema = pq.read_schema(file)
        try:
            known = labels_of_schema(schema)
        except ValueError as error:
            raise OperationalError(
                f"{one.url}: its labels cannot be read: {error}", source=self._source
            ) from None
        with self._lock:
            self._labels[key] = known
        return known

    def system(self, url: str) -> Any:
        """The file system of a URL's scheme; made when it is first needed.

        :raises ConfigError: where its package is missing.
        """
        scheme = url.partition("://")[0].lower()
        with self._lock:
            found = self._systems.get(scheme)
            if found is None:
                found = self._systems[scheme] = self._made(scheme)
        return found

    def _made(self, scheme: str) -> Any:
        if scheme not in _S3:
            raise NotSupportedError(
                f"{scheme}:// is not read yet", source=self._source, hint="s3:// is"
            )
        try:
            import fsspec
        except ImportError:
            raise self._missing() from None
        try:
            return fsspec.filesystem("s3", **self._s3())
        except ImportError:
            raise self._missing() from None

    def _s3(self) -> dict[str, Any]:
        """s3fs's options: https://s3fs.readthedocs.io/en/latest/api.html"""
        secrets = {k.upper().removeprefix("AWS_"): v for k, v in self._options.items()}
        keys = {k: secrets.pop(k) for k in _KEYS if k in secrets}
        upper = {k: v.reveal() for k, v in secrets.items()}
        region = upper.get("REGION") or upper.get("DEFAULT_REGION")
        options: dict[str, Any] = {
            "endpoint_url": upper.get("ENDPOINT_URL") or upper.get("ENDPOINT"),
            "profile": upper.get("PROFILE"),
            "client_kwargs": {"region_name": region} if region else None,
        }
        if upper.get("SKIP_SIGNATURE", "").lower() == "true":
            options["anon"] = True
        elif keys.keys() >= {"ACCESS_KEY_ID", "SECRET_ACCESS_KEY"}:
            options["session"] = keyed_session(StoreKeys(list(keys.values())))
        else:
            names = ("key", "secret", "token")
            options |= {n: keys[k].reveal() for n, k in zip(names, _KEYS, strict=True) if k in keys}
        return {
            **{k: v for k, v in options.items() if v is not None},
            "config_kwargs": {
                "connect_timeout": self._connect_timeout,
                "read_timeout": self._read_timeout,
                "retries": {"max_attempts": 3, "mode": "standard"},
            },
            # DuckDB knows which ranges it needs: reading ahead would only move more.
            "default_cache_type": "none",
            "default_block_size": 1 << 20,
            # Another source's credentials must not be found in fsspec's memory of instances.
            "skip_instance_cache": True,
        }

    def _missing(self) -> ConfigError:
        return ConfigError(
            f'source "{self._source}" needs the package s3fs to read s3://',
            hint="pip install 'batuta-sql[s3]'",
        )

    @contextmanager
    def _translated(self, url: str) -> Iterator[None]:
        try:
            yield
        except Error:
            raise
        except FileNotFoundError:
            raise OperationalError(
                f"there is no {url}", source=self._source, hint="check this source's path"
            ) from None
        except PermissionError as error:
            raise OperationalError(
                f"{url}: access is denied: {self._clean(error)}",
                source=self._source,
                hint="check storage_options",
            ) from None
        except Exception as error:
            raise OperationalError(f"{url}: {self._clean(error)}", source=self._source) from None

    def _clean(self, error: BaseException) -> str:
        words = " ".join(str(error).split()) or type(error).__name__
        return redact(words, list(self._secrets()))


def _url(scheme: str, path: str) -> str:
    return path if "://" in path else f"{scheme}://{path}"


def _version(facts: Mapping[str, Any]) -> str:
    for key in ("ETag", "etag", "LastModified", "last_modified", "mtime"):
        if facts.get(key):
            return str(facts[key])
    return str(facts.get("size"))


class TableStores:
    """Object stores of which each table has its own, with credentials that a catalog vends.

    DuckDB knows one file system a scheme: each table's files are called by a scheme of the table's
    own, behind which the newest credentials are.
    """

    def __init__(self, make: Callable[[dict[str, str]], ObjectStore]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._given: dict[str, tuple[dict[str, str], ObjectStore]] = {}
        self._schemes: dict[str, str] = {}
        self._attached: set[tuple[int, str]] = set()

    def give(self, table: str, options: dict[str, str]) -> None:
        """What opens a table's files from now on."""
        with self._lock:
            known = self._given.get(table)
            if known is None or known[0] != options:
                self._given[table] = (dict(options), self._make(options))

    def url(self, table: str, url: str) -> str:
        """What DuckDB opens for ``url``, which is of ``table``."""
        with self._lock:
            scheme = self._schemes.setdefault(table, f"batuta-table-{len(self._schemes)}")
        return f"{scheme}://{url.partition('://')[2]}"

    def knows(self, url: str) -> bool:
        return url.startswith("batuta-table-")

    def plain(self, message: str) -> str:
        """A message with the URLs that people know."""
        return re.sub(r"\bbatuta-table-\d+://", "s3://", message)

    def attach(self, engine: duckdb.DuckDBPyConnection, table: str) -> None:
        """Makes the table's URLs readable by DuckDB's readers in ``engine``."""
        from batuta_sql.sources.table_file_system import table_file_system

        with self._lock:
            scheme = self._schemes[table]
            if (id(engine), scheme) in self._attached:
                return
            self._attached.add((id(engine), scheme))
        system = table_file_system(scheme, lambda: self._given[table][1].system("s3://"))
        engine.register_filesystem(system)
