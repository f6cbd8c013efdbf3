"""The files below the locations that a catalog names, as Hive and Athena see them.

Folders are read to their depth; names that begin with ``.`` or ``_`` (``_SUCCESS``,
``_temporary/``) and files without a byte do not count.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from batuta_sql.errors import NotSupportedError, OperationalError
from batuta_sql.sources.glue_catalog import at_once
from batuta_sql.sources.object_store import ObjectStore, StoredObject

LISTED_APART = 32
"""Locations beyond this number are listed as a whole, where they have a folder in common."""


@dataclass(frozen=True)
class DataFile:
    """A file: its path or URL, its size in bytes; ``stored`` where it is an object of a store."""

    path: str
    size: int
    stored: StoredObject | None = None


def place_of(location: str) -> str:
    """A location as paths and URLs are written here, without a slash at its end."""
    scheme, found, rest = location.partition("://")
    match scheme.lower() if found else "":
        case "":
            return location.removeprefix("file:").rstrip("/") or "/"
        case "file":
            return urllib.parse.unquote(urllib.parse.urlsplit(location).path).rstrip("/") or "/"
        case "s3" | "s3a" | "s3n":
            return f"s3://{rest.rstrip('/')}"
    return location.rstrip("/")


def check_place(location: str, source: str) -> None:
    """:raises NotSupportedError: for a place that is neither on S3 nor on this machine: the tier
    was judged by these."""
    scheme = location.partition("://")[0].lower()
    if "://" in location and scheme not in ("s3", "s3a", "s3n", "file"):
        raise NotSupportedError(
            f"{location}: {scheme}:// is not read yet", source=source, hint="s3:// and file:// are"
        )


def files_below(
    source: str, store: ObjectStore, locations: Iterable[str], common: str
) -> dict[str, list[DataFile]]:
    """The files of each location.

    :param locations: as ``place_of`` gives them.
    :param common: the table's own location, which most of its partitions lie below.
    :raises OperationalError: for a folder or bucket that cannot be listed. One that is not there
        has no files: partitions come before their data.
    """
    wanted = list(dict.fromkeys(locations))
    inside = [p for p in wanted if p == common or p.startswith(f"{common}/")]
    if len(inside) <= LISTED_APART:
        listed = at_once(lambda p: _below(source, store, p), wanted)
        return dict(zip(wanted, listed, strict=True))
    outside = [p for p in wanted if p not in set(inside)]
    found = dict(zip(outside, at_once(lambda p: _below(source, store, p), outside), strict=True))
    return found | _shared_out(inside, _listed(source, store, common))


def _shared_out(places: Sequence[str], files: Sequence[DataFile]) -> dict[str, list[DataFile]]:
    """Each file given to every location that it lies below."""
    found: dict[str, list[DataFile]] = {p: [] for p in places}
    for file in files:
        place = file.path
        while "/" in place.partition("://")[2] or (place.startswith("/") and len(place) > 1):
            place = place.rpartition("/")[0]
            if place in found and _counts(file, place):
                found[place].append(file)
    return found


def _below(source: str, store: ObjectStore, place: str) -> list[DataFile]:
    return [f for f in _listed(source, store, place) if _counts(f, place)]


def _listed(source: str, store: ObjectStore, place: str) -> list[DataFile]:
    if "://" not in place:
        return _local(source, place)
    check_place(place, source)
    return [DataFile(o.url, o.size, o) for o in store.below(place)]


def _local(source: str, place: str) -> list[DataFile]:
    folder = Path(place)
    try:
        if folder.is_file():
            return [DataFile(place, folder.stat().st_size)]
        paths = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
        return [DataFile(str(p), p.stat().st_size) for p in paths]
    except OSError as error:
        raise OperationalError(f"{error.filename}: {error.strerror}", source=source) from None


def _counts(file: DataFile, place: str) -> bool:
    """Whether a file below a location is one of the table's."""
    if not file.size:
        return False
    inner = file.path[len(place) :].strip("/") or file.path.rpartition("/")[2]
    return not any(part.startswith((".", "_")) for part in inner.split("/"))


def total(files: Mapping[str, Sequence[DataFile]]) -> int:
    return sum(f.size for each in files.values() for f in each)
