"""Files of a hub as an fsspec file system: DuckDB and pyarrow read their ranges through it."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from batuta_sql.errors import ConfigError
from batuta_sql.sources.hub import Hub

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

SCHEME = "hf"
_PATH = re.compile(r"(?:hf://)?datasets/(?P<repo>[^/]+/[^/@]+)@(?P<commit>[^/]+)/(?P<path>.+)")
_BLOCK_BYTES = 1 << 20
_NEVER = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def hub_files(source: str, hub: Hub, size_of: Callable[[str, str], int]) -> AbstractFileSystem:
    """A file system over ``hf://datasets/owner/name@commit/path``.

    :param size_of: the size of a file in bytes, by commit and path; ``KeyError``: there is none.
    :raises ConfigError: where fsspec is missing.
    """
    try:
        from fsspec import AbstractFileSystem
        from fsspec.spec import AbstractBufferedFile
    except ImportError:
        raise ConfigError(
            f'source "{source}" needs the package fsspec',
            hint="pip install 'batuta-sql[huggingface]'",
        ) from None

    class HubFile(AbstractBufferedFile):  # type: ignore[misc]
        """A file that is read by range: nothing is read ahead, nothing kept."""

        def _fetch_range(self, start: int, end: int) -> bytes:
            repo, commit, path = _parts(self.path)
            return hub.read(repo, commit, path, start, end) if end > start else b""

    class HubFileSystem(AbstractFileSystem):  # type: ignore[misc]
        protocol = SCHEME
        cachable = False

        def info(self, path: str, **more: Any) -> dict[str, Any]:
            _, commit, inner = _parts(path)
            try:
                size = size_of(commit, inner)
            except KeyError:
                raise FileNotFoundError(path) from None
            return {
                "name": self._strip_protocol(path),
                "size": size,
                "type": "file",
                "etag": commit,
            }

        def modified(self, path: str) -> datetime.datetime:
            return _NEVER  # a commit's files do not change

        def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
            found = self.info(path)
            return [found] if detail else [found["name"]]

        def _open(self, path: str, mode: str = "rb", **_: Any) -> HubFile:
            if mode != "rb":
                raise ValueError("a hub's files are only read")
            return HubFile(
                self,
                path,
                mode,
                block_size=_BLOCK_BYTES,
                cache_type="none",
                size=self.info(path)["size"],
            )

    return HubFileSystem()


def _parts(path: str) -> tuple[str, str, str]:
    match = _PATH.fullmatch(path)
    if match is None:
        raise FileNotFoundError(path)
    return match["repo"], match["commit"], match["path"]
