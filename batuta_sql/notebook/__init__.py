"""SQL in notebooks: ``%load_ext batuta_sql``. IPython is imported when that is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """Adds the magics ``%batuta`` and ``%%batuta``."""
    from batuta_sql.notebook.magics import load

    load(ipython)


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """Takes them away again, and closes the connection that they have opened."""
    from batuta_sql.notebook.magics import unload

    unload(ipython)
