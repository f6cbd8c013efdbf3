"""A file system for DuckDB under a scheme of its own; what it opens is another one's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def table_file_system(scheme: str, current: Callable[[], Any]) -> Any:
    """An fsspec file system called ``scheme`` that asks ``current()`` anew for each file."""
    from fsspec import AbstractFileSystem

    def inner(path: str) -> str:
        return path.removeprefix(f"{scheme}://")

    class TableFileSystem(AbstractFileSystem):  # type: ignore[misc]
        protocol = scheme
        cachable = False

        def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
            return current().open(inner(path), mode, **options)

        def info(self, path: str, **options: Any) -> Any:
            found = dict(current().info(inner(path), **options))
            found["name"] = f"{scheme}://{found['name']}"
            return found

        def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
            found = [
                {**e, "name": f"{scheme}://{e['name']}"}
                for e in current().ls(inner(path), detail=True, **options)
            ]
            return found if detail else [e["name"] for e in found]

        def modified(self, path: str) -> Any:
            return current().modified(inner(path))

    return TableFileSystem()
