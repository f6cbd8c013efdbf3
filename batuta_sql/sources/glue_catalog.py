"""The AWS Glue Data Catalog through boto3: what is named is asked for, page after page.

https://docs.aws.amazon.com/glue/latest/webapi/API_Operations.html
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from batuta_sql.errors import ConfigError, Error, OperationalError
from batuta_sql.secrets import Secret, redact
from batuta_sql.source_settings import GlueSettings
from batuta_sql.sources.catalog_tags import Tags, label_of_tag
from batuta_sql.sources.glue_tables import HiveTable, Record

_AT_ONCE = 8
_PAGES = {"get_partitions": 1000}
_PAGE = 100
_EXPIRED = frozenset({"ExpiredTokenException", "ExpiredToken", "RequestExpired"})
_UNKNOWN_CALLER = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "MissingAuthenticationToken",
        "IncompleteSignature",
    }
)
_NOT_ASKED_SO = frozenset({"InvalidInputException", "InvalidStateException"})
"""How the service refuses a filter expression: then all partitions are asked for."""

T = TypeVar("T")


class GlueCatalog:
    """One account's catalog in one region; may be used by many threads.

    Nothing is imported, read or contacted before the first call.
    """

    def __init__(self, source: str, settings: GlueSettings) -> None:
        self._source = source
        self._settings = settings
        self._lock = threading.Lock()
        self._session: Any = None
        self._used: dict[str, str] = {}
        self._clients: dict[str, Any] = {}
        self._hidden = _Hiding()

    # --- what it has ---------------------------------------------------------------------------

    def databases(self) -> list[str]:
        """The names of the databases: the one of the settings, or all."""
        if self._settings.database is not None:
            return [self._settings.database.lower()]
        pages = self._pages("get_databases", "the databases", "glue:GetDatabases")
        return sorted(d["Name"] for page in pages for d in page["DatabaseList"])

    def tables(self, database: str) -> list[Record]:
        """All tables of a database, in their order."""
        what = f"the tables of {database}"
        pages = self._pages("get_tables", what, "glue:GetTables", DatabaseName=database)
        return sorted((t for page in pages for t in page["TableList"]), key=lambda t: t["Name"])

    def table(self, database: str, name: str) -> Record | None:
        """A table as it is now; None where there is none."""
        what = f"the table {database}.{name}"
        try:
            answer = self._call(
                "glue", "get_table", what, "glue:GetTable", DatabaseName=database, Name=name
            )
        except _Missing:
            return None
        found: Record = answer["Table"]
        return found

    def partitions(self, table: HiveTable, expression: str | None) -> list[Record]:
        """The partitions of a table, or those that a filter expression leaves.

        An expression that the service does not take is dropped: the caller tests each again.
        """
        what = f"the partitions of {table.shown}"
        named = {"DatabaseName": table.database, "TableName": table.name}
        if expression is not None:
            try:
                pages = self._pages(
                    "get_partitions", what, "glue:GetPartitions", Expression=expression, **named
                )
                return [p for page in pages for p in page["Partitions"]]
            except _NotTaken:
                pass
        pages = self._pages("get_partitions", what, "glue:GetPartitions", **named)
        return [p for page in pages for p in page["Partitions"]]

    def tags(self, table: HiveTable | Record) -> tuple[Tags, Mapping[str, Tags]]:
        """The LF-Tags of a table, those of its database among them, and of its columns.

        https://docs.aws.amazon.com/lake-formation/latest/APIReference/API_GetResourceLFTags.html
        """
        database, name, columns = _named(table)
        what = f"the LF-Tags of {database}.{name}"

        def ask(resource: Mapping[str, Any]) -> Record:
            answer: Record = self._call(
                "lakeformation",
                "get_resource_lf_tags",
                what,
                "lakeformation:GetResourceLFTags",
                Resource=resource,
            )
            return answer

        here = {"DatabaseName": database, "Name": name}
        answers = [ask({"Database": {"Name": database}}), ask({"Table": here})]
        of_table = {
            label
            for answer in answers
            for key in ("LFTagOnDatabase", "LFTagsOnTable")
            for label in _labels(answer.get(key))
        }
        of_columns: dict[str, Tags] = {}
        if columns:
            told = ask({"TableWithColumns": {**here, "ColumnNames": columns}})
            for column in told.get("LFTagsOnColumns") or ():
                of_columns[column["Name"]] = frozenset(_labels(column.get("LFTags")))
        return frozenset(of_table), of_columns

    def is_filtered(self, record: Record) -> bool:
        """Whether Lake Formation hides rows or columns of a table from somebody.

        https://docs.aws.amazon.com/lake-formation/latest/APIReference/API_ListDataCellsFilter.html
        """
        database, name, _ = _named(record)
        table = {"DatabaseName": database, "Name": name}
        if record.get("CatalogId"):
            table["CatalogId"] = record["CatalogId"]
        more: dict[str, str] = {}
        while True:
            answer = self._call(
                "lakeformation",
                "list_data_cells_filter",
                f"the data filters of {database}.{name}",
                "lakeformation:ListDataCellsFilter",
                Table=table,
                **more,
            )
            if answer.get("DataCellsFilters"):
                return True
            # A page may be empty and not the last.
            if not answer.get("NextToken"):
                return False
            more = {"NextToken": answer["NextToken"]}

    # --- who asks ------------------------------------------------------------------------------

    def storage_options(self) -> dict[str, str]:
        """What opens the tables' files, under the names that ``ObjectStore`` and deltalake know.

        Explicit settings go before what the credentials say.
        """
        found: dict[str, str] = {}
        settings = self._settings
        if settings.endpoint is not None:
            found["AWS_ENDPOINT_URL"] = settings.endpoint
            if settings.endpoint.startswith("http://"):
                found["AWS_ALLOW_HTTP"] = "true"
        session = self._started()
        if session.region_name:
            found["AWS_REGION"] = session.region_name
        credentials = self._guarded("the credentials", "", session.get_credentials)
        if credentials is not None:
            frozen = self._guarded("the credentials", "", credentials.get_frozen_credentials)
            found["AWS_ACCESS_KEY_ID"] = frozen.access_key
            found["AWS_SECRET_ACCESS_KEY"] = frozen.secret_key
            if frozen.token:
                found["AWS_SESSION_TOKEN"] = frozen.token
            self._hidden.add(frozen.secret_key, frozen.token)
        found |= {k: v.reveal() for k, v in settings.storage_options.items()}
        keep_out_of_logs(self._hidden)
        return found

    def secrets(self) -> list[str]:
        return [*self._settings.secrets(), *self._hidden.values]

    def close(self) -> None:
        with self._lock:
            clients, self._clients, self._session = list(self._clients.values()), {}, None
        for client in clients:
            client.close()

    # --- calls ---------------------------------------------------------------------------------

    def _started(self) -> Any:
        with self._lock:
            if self._session is None:
                self._session = self._made()
            return self._session

    def _made(self) -> Any:
        try:
            import boto3
            from botocore.exceptions import BotoCoreError
        except ImportError:
            raise ConfigError(
                f'source "{self._source}" needs the package boto3',
                hint="pip install 'batuta-sql[glue]'",
            ) from None
        settings = self._settings
        self._used = used = {n: s.reveal() for n, s in self._keys().items()}
        self._hidden.add(used.get("aws_secret_access_key"), used.get("aws_session_token"))
        try:
            session = boto3.Session(
                **used,
                region_name=settings.region,
                profile_name=settings.profile,
            )
        except BotoCoreError as error:
            raise ConfigError(f"{self._source}: {error}", hint="check profile") from None
        if session.region_name is None:
            raise ConfigError(
                f'source "{self._source}" has no region', hint="give region, as in eu-central-1"
            )
        return session

    def _keys(self) -> dict[str, Secret]:
        """Those of the settings, as boto3 calls them."""
        settings = self._settings
        keys = {
            "aws_access_key_id": settings.access_key_id,
            "aws_secret_access_key": settings.secret_access_key,
            "aws_session_token": settings.session_token,
        }
        return {n: s for n, s in keys.items() if s is not None}

    def _client(self, service: str) -> Any:
        session = self._started()
        from botocore.config import Config

        with self._lock:
            if service not in self._clients:
                timeout = self._settings.query_timeout
                client = self._clients[service] = session.client(
                    service,
                    endpoint_url=self._settings.endpoint,
                    config=Config(
                        connect_timeout=self._settings.connect_timeout,
                        read_timeout=timeout if timeout is not None else 60,
                        retries={"max_attempts": 5, "mode": "standard"},
                        max_pool_connections=_AT_ONCE,
                        # The tier has judged the settings, not what the environment adds.
                        ignore_configured_endpoint_urls=True,
                    ),
                )
                client.meta.events.register("before-parse", _must_be_whole)
                keep_out_of_logs(self._hidden)
            return self._clients[service]

    def _pages(self, call: str, what: str, permission: str, **parameters: Any) -> list[Record]:
        def ask() -> list[Record]:
            paginator = self._client("glue").get_paginator(call)
            pages = paginator.paginate(
                **self._named_catalog(parameters),
                PaginationConfig={"PageSize": _PAGES.get(call, _PAGE)},
            )
            return list(pages)

        return self._renewed(what, permission, ask)

    def _call(self, service: str, call: str, what: str, permission: str, **named: Any) -> Any:
        def ask() -> Any:
            return getattr(self._client(service), call)(**self._named_catalog(named))

        return self._renewed(what, permission, ask)

    def _named_catalog(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        if self._settings.catalog_id is None or "Table" in parameters:
            return dict(parameters)  # what a table is of, it says itself
        return {"CatalogId": self._settings.catalog_id, **parameters}

    def _renewed(self, what: str, permission: str, ask: Callable[[], T]) -> T:
        """An answer; asked for once more where the first is broken, and where the credentials have
        ended, which are looked up anew.
        """
        try:
            return self._guarded(what, permission, ask)
        except _Expired as error:
            if not (error.is_ended or Secret.any_refused(self._used, self._keys())):
                raise
            self.close()
            return self._guarded(what, permission, ask)
        except _Broken:
            return self._guarded(what, permission, ask)

    def _guarded(self, what: str, permission: str, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except Error:
            raise
        except Exception as error:
            raise self._error(error, what, permission) from None

    def _error(self, error: Exception, what: str, permission: str) -> Error:
        from botocore import exceptions as known

        words = redact(" ".join(str(error).split()), self.secrets())
        if isinstance(error, json.JSONDecodeError):
            return _Broken(
                f"{what} cannot be read: the answer is no whole JSON: {words}", source=self._source
            )
        if isinstance(error, known.ClientError):
            return self._refusal(error, words, what, permission)
        if isinstance(error, known.NoCredentialsError | known.PartialCredentialsError):
            return ConfigError(
                f'source "{self._source}": {words}',
                hint="give profile, or access_key_id and secret_access_key",
            )
        return OperationalError(f"{what} cannot be read: {words}", source=self._source)

    def _refusal(self, error: Any, words: str, what: str, permission: str) -> Error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        message = f"{what} cannot be read: {words}"
        if code == "EntityNotFoundException":
            return _Missing(message, source=self._source)
        if code in _EXPIRED | _UNKNOWN_CALLER:
            ended = "the credentials have ended: renew them"
            unknown = "check profile, or access_key_id, secret_access_key and session_token"
            refused = _Expired(
                message, source=self._source, hint=ended if code in _EXPIRED else unknown
            )
            refused.is_ended = code in _EXPIRED
            return refused
        if code in _NOT_ASKED_SO:
            return _NotTaken(message, source=self._source)
        hint = None
        if code in ("AccessDeniedException", "AccessDenied"):
            hint = f"it needs {permission} in IAM, and DESCRIBE and SELECT in Lake Formation"
        elif "Throttl" in code or code == "TooManyRequestsException":
            hint = "the service is asked too often: try again later"
        return OperationalError(message, source=self._source, hint=hint)


class _Missing(OperationalError):
    """What was asked for is not there."""


class _Expired(OperationalError):
    """The credentials have ended, or are not known any more."""

    is_ended = False


class _Broken(OperationalError):
    """The answer is not what the service sent."""


class _NotTaken(OperationalError):
    """The service does not understand what it was asked."""


def _must_be_whole(response_dict: Mapping[str, Any], **_: Any) -> None:
    """Of an answer that is no JSON, botocore makes one that says nothing: no partitions, no tags.

    :raises json.JSONDecodeError: instead.
    """
    if response_dict["status_code"] < 300:
        json.loads(response_dict["body"])


def at_once(function: Callable[[Any], T], items: Iterable[Any]) -> list[T]:
    """``function`` of each item, some at a time; the first failure is raised."""
    listed = list(items)
    if len(listed) < 2:
        return [function(i) for i in listed]
    with ThreadPoolExecutor(min(_AT_ONCE, len(listed))) as pool:
        return list(pool.map(function, listed))


def _named(table: HiveTable | Record) -> tuple[str, str, list[str]]:
    if isinstance(table, HiveTable):
        return table.database, table.name, [c.name for c in table.columns]
    storage = table.get("StorageDescriptor") or {}
    columns = [*(storage.get("Columns") or ()), *(table.get("PartitionKeys") or ())]
    return str(table["DatabaseName"]), str(table["Name"]), [str(c["Name"]) for c in columns]


def _labels(tags: Sequence[Record] | None) -> Iterator[str]:
    for tag in tags or ():
        for value in tag.get("TagValues") or ():
            yield label_of_tag(str(tag["TagKey"]), str(value))


# --- logs --------------------------------------------------------------------------------------


class _Hiding(logging.Filter):
    """Takes secret values out of what botocore logs: at DEBUG it writes whole requests."""

    def __init__(self) -> None:
        super().__init__()
        self.values: set[str] = set()

    def add(self, *secrets: str | None) -> None:
        self.values |= {s for s in secrets if s}

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            said = record.getMessage()
        except Exception:
            return False
        hidden = redact(said, self.values)
        if hidden != said:
            record.msg, record.args = hidden, ()
        return True

    def __repr__(self) -> str:
        return "<hides secrets>"


_DRIVERS = ("boto3", "botocore", "aiobotocore", "s3fs", "urllib3", "fsspec")


def keep_out_of_logs(hiding: logging.Filter) -> None:
    """Puts a filter on the loggers that there are of the drivers; a parent's does not count."""
    names = list(logging.root.manager.loggerDict)
    for name in {*_DRIVERS, *(n for n in names if n.partition(".")[0] in _DRIVERS)}:
        logging.getLogger(name).addFilter(hiding)
