"""Iceberg tables that a Glue catalog names: their metadata is where a parameter says.

https://iceberg.apache.org/docs/latest/aws/#glue-catalog
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import duckdb
from cachetools import LRUCache

from batuta_sql.errors import Error, NotSupportedError, OperationalError
from batuta_sql.plan.site import TableInfo
from batuta_sql.sources.base import TableName
from batuta_sql.sources.embedded import EmbeddedSource
from batuta_sql.sources.glue_files import check_place, place_of
from batuta_sql.sources.glue_tables import Record
from batuta_sql.sources.iceberg_access import local_path, opening_error
from batuta_sql.sources.iceberg_catalog import require_pyiceberg, table_at
from batuta_sql.sources.iceberg_metadata import IcebergSnapshot
from batuta_sql.sources.iceberg_reader import IcebergReader, Opened
from batuta_sql.sources.object_store import is_url

if TYPE_CHECKING:
    from pyiceberg.io import FileIO

_TABLES_KEPT = 512
_VIEW = re.compile(r".+@v\d+\.\d+")
_NAMES = {
    "AWS_ENDPOINT_URL": "s3.endpoint",
    "AWS_ACCESS_KEY_ID": "s3.access-key-id",
    "AWS_SECRET_ACCESS_KEY": "s3.secret-access-key",
    "AWS_SESSION_TOKEN": "s3.session-token",
    "AWS_REGION": "s3.region",
}


def is_iceberg_view(name: str) -> bool:
    """Whether a fragment's table is one of ``GlueIceberg``: its version has a schema's too."""
    return _VIEW.fullmatch(name) is not None


class GlueIceberg(IcebergReader):
    """Reads Iceberg tables for another source, in that one's engine.

    :param access: what opens files, under the names that ``ObjectStore`` knows.
    :param attach: makes a URL's store readable in the other source's engine.
    """

    def __init__(
        self,
        outer: EmbeddedSource,
        access: Callable[[], Mapping[str, str]],
        secrets: Callable[[], list[str]],
        timeouts: tuple[float, float | None],
        attach: Callable[[str], None],
    ) -> None:
        super().__init__(outer.name, outer.query_timeout)
        self._outer = outer
        self._access = access
        self._secrets = secrets
        self._timeouts = timeouts
        self._attach_url = attach
        self._metadata: LRUCache[str, str] = LRUCache(_TABLES_KEPT)
        self._known = threading.Lock()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        return self._outer.cursor()

    def describe(self, record: Record, path: tuple[str, ...], asked: str | None) -> TableInfo:
        """The table that a record of the catalog is; ``asked`` is what stands behind an @.

        :raises NotSupportedError: where the catalog does not say where its metadata is.
        """
        told = (record.get("Parameters") or {}).get("metadata_location")
        if not told:
            raise NotSupportedError(
                f'"{".".join(path)}" is an Iceberg table without metadata_location',
                source=self.name,
                hint="the engine that made it writes this parameter with each commit",
            )
        name = "/".join(path)
        with self._known:
            self._metadata[name] = str(told)
        return self._table(name, path, asked)

    def _load(self, name: str) -> Opened:
        require_pyiceberg(self.name)
        with self._known:
            location = self._metadata.get(name)
        if location is None:
            raise OperationalError(f'the table "{name}" was not described', source=self.name)
        try:
            io = _files(self._properties(), self.name)
            return Opened(table_at(location, io), io)
        except Error:
            raise
        except Exception as error:
            raise opening_error(self.name, name, error, self._secret_values()) from None

    def _properties(self) -> dict[str, str]:
        """https://py.iceberg.apache.org/configuration/#s3"""
        connect, read = self._timeouts
        found = {"s3.connect-timeout": str(connect)}
        if read is not None:
            found["s3.request-timeout"] = str(read)
        given = self._access()
        return found | {there: given[here] for here, there in _NAMES.items() if here in given}

    def _path_of(self, name: str, location: str) -> str:
        check_place(location, self.name)
        return place_of(location) if is_url(location) else local_path(location)

    def _attach(self, name: str, snapshot: IcebergSnapshot) -> None:
        path = snapshot.files[0].path if snapshot.files else ""
        if is_url(path):
            self._attach_url(path)

    def _secret_values(self) -> list[str]:
        return self._secrets()

    def list_tables(self) -> Sequence[TableName]:
        return []  # the catalog's own list has them

    def resolve(self, path: tuple[str, ...]) -> Sequence[TableInfo]:
        return []


def _files(properties: Mapping[str, str], source: str) -> FileIO:
    """What opens metadata, in the places alone that the tier was judged by."""
    from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

    class GlueFiles(PyArrowFileIO):
        def new_input(self, location: str) -> PyArrowFile:
            check_place(location, source)
            return super().new_input(location)

    return GlueFiles(dict(properties))
