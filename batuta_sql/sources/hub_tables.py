"""Which Parquet files of a dataset make which table: configuration and split.

The dataset's card says it (https://huggingface.co/docs/hub/datasets-manual-configuration), or the
names of files and folders do (https://huggingface.co/docs/hub/datasets-file-names-and-splits).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

from batuta_sql.sources.hub import Dataset

DEFAULT = "default"
Tables = Mapping[tuple[str, str], tuple[str, ...]]
"""Configuration and split -> the paths of the files."""

_SHARD = re.compile(r"(?P<split>[^/]+?)-\d{5}-of-\d{5}(-[0-9a-f]+)?\.(parquet|parq)")
_PLAIN = {"data", ""}


def tables_of(dataset: Dataset) -> Tables:
    """The tables of a dataset's own Parquet files; paths are in their order."""
    paths = [p for p in dataset.files if is_parquet(p)]
    told = _told(dataset.configurations, paths)
    return told if told else _guessed(paths)


def converted_tables(dataset: Dataset) -> Tables:
    """The tables of the hub's own conversion: ``config/split/0000.parquet``."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted(p for p in dataset.files if is_parquet(p)):
        parts = path.split("/")
        if len(parts) == 3:
            # Of a dataset that is too large only the beginning is converted.
            found.setdefault((parts[0], parts[1]), []).append(path)
    return {k: tuple(v) for k, v in found.items()}


def is_parquet(path: str) -> bool:
    return path.lower().endswith((".parquet", ".parq"))


def _told(configurations: Sequence[Mapping[str, Any]], paths: Sequence[str]) -> Tables:
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for configuration in configurations:
        name = str(configuration.get("config_name") or DEFAULT)
        for split, patterns in _splits(configuration):
            files = [p for p in paths if any(_fits(p, pattern) for pattern in patterns)]
            if files:
                found[name, split] = tuple(sorted(files))
    return found


def _splits(configuration: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Splits and patterns: ``data_files`` is a pattern, a list of them, or of splits' ones."""
    folder = str(configuration.get("data_dir") or "").strip("/")

    def patterns(told: Any) -> list[str]:
        listed = told if isinstance(told, list) else [told]
        return [f"{folder}/{p}" if folder else str(p) for p in listed if isinstance(p, str)]

    match configuration.get("data_files"):
        case str() as one:
            return [("train", patterns(one))]
        case [*listed] if all(isinstance(e, str) for e in listed):
            return [("train", patterns(listed))]
        case [*listed]:
            return [
                (str(e.get("split") or "train"), patterns(e.get("path")))
                for e in listed
                if isinstance(e, dict)
            ]
    return []


def _fits(path: str, pattern: str) -> bool:
    """Whether a glob means a path: ``*`` stays in a folder, ``**`` does not."""
    if "**" in pattern:
        return fnmatch.fnmatchcase(path, pattern.replace("**/", "*").replace("**", "*"))
    same_depth = path.count("/") == pattern.count("/")
    return same_depth and fnmatch.fnmatchcase(path, pattern)


def _guessed(paths: Sequence[str]) -> Tables:
    """Shards ``train-00000-of-00003.parquet`` are a split; else a folder's files, or a file, are
    a table."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted(paths):
        folder, _, file = path.rpartition("/")
        shard = _SHARD.fullmatch(file)
        if shard is not None:
            key = (DEFAULT if folder in _PLAIN else folder, shard["split"])
        elif folder in _PLAIN:
            key = (DEFAULT, file.rpartition(".")[0])
        else:
            key = (DEFAULT, folder)
        found.setdefault(key, []).append(path)
    return {k: tuple(v) for k, v in found.items()}
