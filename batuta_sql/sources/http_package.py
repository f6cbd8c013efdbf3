"""httpx, as all sources that speak HTTP use it: optional, and with nothing secret in its logs."""

from __future__ import annotations

import logging
import re
from typing import Any

from batuta_sql.errors import ConfigError


def http_package(source: str, extra: str) -> Any:
    """httpx, which the extra called ``extra`` brings; its logs are kept clear of signed links.

    :raises ConfigError: where it is not installed.
    """
    try:
        import httpx
    except ImportError:
        raise ConfigError(
            f"{source}: httpx is not installed", hint=f"pip install 'batuta-sql[{extra}]'"
        ) from None
    _keep_signatures_out_of_logs()
    return httpx


class _WithoutQueries(logging.Filter):
    """httpx logs each URL, and httpcore each header, that of a redirection too; a link to a
    result is a secret as a whole."""

    _query = re.compile(r"(https?://[^\s?\"']+)\?[^\s\"']*")

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.msg, str) and "://" in record.msg:
            record.msg = self._query.sub(r"\1?...", record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(
                self._query.sub(r"\1?...", str(a)) if "://" in str(a) else a for a in record.args
            )
        return True


_FILTER = _WithoutQueries()


def _keep_signatures_out_of_logs() -> None:
    for name in ("httpx", "httpcore.http11", "httpcore.http2", "httpcore.connection"):
        logging.getLogger(name).addFilter(_FILTER)
