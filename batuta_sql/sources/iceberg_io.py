"""pyiceberg's way to files, of the places alone that a source's settings tell of.

pyiceberg imports this module by its name, from the property ``py-io-impl``: some catalogs open a
table's metadata before anybody could look at where it lies.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

from batuta_sql.errors import NotSupportedError

STORES = "batuta.object-stores"
"""The property that says whether files in object stores are opened: ``true`` or ``false``."""


class CheckedFileIO(PyArrowFileIO):
    """Opens local files and, where that is allowed, objects; refuses every other place."""

    def new_input(self, location: str) -> PyArrowFile:
        scheme, separator, _ = location.partition("://")
        if separator and scheme != "file" and self.properties.get(STORES) != "true":
            raise NotSupportedError(
                f"{location} lies on {scheme}://, and object_stores is not set",
                hint="object_stores = true: the catalog then says what is dialled",
            )
        return super().new_input(location)


def io_properties(properties: Mapping[str, str], stores: bool) -> dict[str, str]:
    """Properties under which pyiceberg opens files by ``CheckedFileIO``, whoever asks it to."""
    name = f"{CheckedFileIO.__module__}.{CheckedFileIO.__qualname__}"
    return {**properties, "py-io-impl": name, STORES: "true" if stores else "false"}
