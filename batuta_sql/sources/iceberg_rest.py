"""pyiceberg's client of REST catalogs, with timeouts, and held to the hosts of the settings.

https://github.com/apache/iceberg/blob/main/open-api/rest-catalog-open-api.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyiceberg.catalog.rest import RestCatalog
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter

from batuta_sql.errors import OperationalError
from batuta_sql.sources.iceberg_catalog import host_of

_READ_SECONDS = 60.0


class _TimedAdapter(HTTPAdapter):
    """Sends every request with a timeout; pyiceberg gives none."""

    def __init__(self, timeouts: tuple[float, float]) -> None:
        self._timeouts = timeouts
        super().__init__()

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        kwargs["timeout"] = kwargs.get("timeout") or self._timeouts
        return super().send(request, *args, **kwargs)


class TimedRestCatalog(RestCatalog):
    """A REST catalog that cannot keep a query waiting, nor send it to another host.

    :raises OperationalError: where the server's own configuration names another host.
    """

    def __init__(
        self, name: str, timeouts: tuple[float, float | None], properties: Mapping[str, str]
    ) -> None:
        self._timeouts = (timeouts[0], timeouts[1] or _READ_SECONDS)
        super().__init__(name, **dict(properties))
        for key in ("uri", "oauth2-server-uri"):
            told = self.properties.get(key)
            known = properties.get(key, properties["uri"])
            if told is not None and host_of(str(told)) != host_of(known):
                raise OperationalError(
                    f"the catalog's server says that {key} is {told}: another host",
                    source=None,
                    hint=f"give it in the settings, if it is to be dialled: catalog = {{ {key} ="
                    " ... }",
                )

    def _config_headers(self, session: Session) -> None:
        # The first thing that is done with each new session.
        adapter = _TimedAdapter(self._timeouts)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        super()._config_headers(session)
