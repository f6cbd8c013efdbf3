"""``batuta.toml`` or a dict of its shape -> frozen settings.

Every error names the file, the key and, for a file, the line; an unknown key names the nearest.
"""

from __future__ import annotations

import datetime
import re
import tomllib
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from batuta_sql.errors import ConfigError, did_you_mean
from batuta_sql.labels import check_label
from batuta_sql.secrets import Secret, is_secret, is_secret_key, shown, without_passwords

FILE_NAME = "batuta.toml"
Tier = Literal["fully_sovereign", "hybrid_sovereign", "private_cloud", "standard"]
Locality = Literal["local", "private", "vpc", "public"]

RESERVED_NAMES = frozenset(
    {"local", "memory", "temp", "system", "main", "information_schema", "pg_catalog", "spill"}
)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, shown(name or "", value)


def _as_text(value: Any) -> Any:
    """What drivers take as text, TOML has as a number or a truth value."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
    return value


Options = dict[str, Annotated[Secret, BeforeValidator(_as_text)]]
"""Options that are handed to a driver: any of them may be a secret, so all are treated as one."""


PathText = Annotated[str, BeforeValidator(lambda v: str(v) if isinstance(v, Path) else v)]


class CostSettings(_Frozen):
    """Prices in US dollars: ask from ``warn_usd``, refuse from ``stop_usd``.

    :param max_cost_usd: refuses too; what ``connect`` and ``--max-cost`` set for one connection.
    :param on_unknown: what becomes of a query on a source that charges, at a price not known.
    :param estimate: ``always``, or ``priced``: only where a source charges.
    :param history: whether runs are written down beside their estimates.
    :param history_file: where; the default is ``history.sqlite`` in the user's data folder.
    """

    warn_usd: float = Field(default=1.0, ge=0)
    stop_usd: float = Field(default=50.0, ge=0)
    max_cost_usd: float | None = Field(default=None, ge=0)
    on_unknown: Literal["allow", "warn", "stop"] = "warn"
    estimate: Literal["always", "priced"] = "always"
    history: bool = True
    history_file: PathText | None = None


LabelText = Annotated[str, AfterValidator(check_label)]
LabelTexts = tuple[LabelText, ...]
AtLeastOne = Annotated[tuple[LabelText, ...], Field(min_length=1)]


class FlowRule(_Frozen):
    """Data that carries all labels of ``when`` must not meet data with one of ``not_into``."""

    when: AtLeastOne
    not_into: AtLeastOne
    action: Literal["warn", "stop"] = "stop"
    why: str | None = None


class Declassification(_Frozen):
    """Takes labels from data: somebody's decision, with its reason and its last day.

    :param columns: dotted names of columns, or of tables or sources with all their columns.
    """

    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    labels: AtLeastOne
    who: Annotated[str, Field(min_length=1)]
    why: Annotated[str, Field(min_length=1)]
    until: datetime.date


class LabelSettings(_Frozen):
    """Which labels may meet, and whose are taken away.

    :param audit_log: where uses of ``declassify`` and crossings that only warn are written; the
        user's data folder where nothing is said.
    """

    on_public_into_sovereign: Literal["warn", "stop"] = "stop"
    rules: tuple[FlowRule, ...] = ()
    declassify: tuple[Declassification, ...] = ()
    audit_log: PathText | None = None


class SealSettings(_Frozen):
    """Ways through the seal beside those to the sources themselves.

    :param forwards: ``NAME:PORT``, ``NAME:PORT=HOST:PORT`` or ``NAME:PORT=/path/of/socket``: hosts
        that a driver needs beside its source's own, such as the store that results lie in.
    :param keep: paths of sockets or folders that are not hidden.
    """

    forwards: tuple[Annotated[str, Field(pattern=r":\d+(=(/.*|.*:\d+))?$")], ...] = ()
    keep: tuple[str, ...] = ()


class OpenLineageSettings(_Frozen):
    """Where events about queries go: to ``url``, to ``file``, or, with ``enabled`` alone, where
    OpenLineage's own configuration says (``OPENLINEAGE_URL``, ``openlineage.yml``).

    :param enabled: the default is whether ``url`` or ``file`` is given.
    :param namespace: of the jobs.
    :param endpoint: the path behind ``url``.
    :param sql: whether events tell the texts of queries, and the values in them.
    """

    enabled: bool | None = None
    namespace: Annotated[str, Field(min_length=1)] = "batuta-sql"
    url: Annotated[str, Field(pattern=r"^https?://[^/?#]")] | None = None
    endpoint: str = "api/v1/lineage"
    api_key: Secret | None = None
    file: PathText | None = None
    sql: bool = False

    @model_validator(mode="after")
    def _one_place(self) -> OpenLineageSettings:
        if self.url is not None and self.file is not None:
            raise ValueError("give url or file, not both")
        if self.url is None and self.api_key is not None:
            raise ValueError("api_key needs a url beside it")
        if self.url is not None and "@" in self.url.split("/")[2]:
            raise ValueError("a user or a password does not belong into url: give api_key")
        if self.file is not None and re.match(r"[a-z][a-z0-9+.-]+:/", self.file):
            raise ValueError("file is a path of this machine")
        return self

    @property
    def is_on(self) -> bool:
        """Whether events are made at all."""
        if self.enabled is not None:
            return self.enabled
        return self.url is not None or self.file is not None


class TelemetrySettings(_Frozen):
    """What the program's OpenTelemetry hears of queries.

    :param sql: whether spans tell the texts of queries and of fragments, and the values in them.
    """

    traces: bool = False
    sql: bool = False


class ServedUserSettings(_Frozen):
    """A user of ``batuta-sql serve``.

    :param password: for a log-in with the user's name.
    :param token: a bearer token that does not end.
    :param allow_labels: labels that results may carry, or patterns such as ``origin:*``.
    :param max_cost_usd: a query estimated to cost as much is refused, and a cheaper one is not
        asked about; None: what somebody would be asked about is refused.
    :param budget_usd_per_day: the most that estimates may sum up to in a day (UTC).
    """

    password: Secret | None = None
    token: Secret | None = None
    allow_labels: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    max_cost_usd: float | None = Field(default=None, ge=0)
    budget_usd_per_day: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _can_log_in(self) -> ServedUserSettings:
        if self.password is None and self.token is None:
            raise ValueError("give the user a password or a token")
        return self


class ServeSettings(_Frozen):
    """What ``batuta-sql serve`` offers, and to whom. Times are in seconds, but for ``token_hours``.

    :param port: 0 takes a free one.
    :param socket: the path of a Unix socket, in the place of host and port.
    :param max_queries: run at once; None: as many as there are processors, two at the least.
    :param max_queries_per_user: None: one less than ``max_queries``, so that others find a place.
    :param queue_length: how many queries may wait, of all users.
    :param queue_seconds: how long one may wait.
    :param token_hours: the life of a token that a log-in with a password gives.
    :param ticket_seconds: the life of a ticket that is not used.
    :param idle_seconds: how long a client may take nothing of a result, before it is ended.
    """

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: int = Field(default=31337, ge=0, le=65535)
    socket: PathText | None = None
    tls_certificate: PathText | None = None
    tls_key: PathText | None = None
    max_queries: int | None = Field(default=None, ge=1)
    max_queries_per_user: int | None = Field(default=None, ge=1)
    queue_length: int = Field(default=32, ge=0)
    queue_seconds: float = Field(default=30.0, gt=0)
    token_hours: float = Field(default=8.0, gt=0)
    ticket_seconds: float = Field(default=300.0, gt=0)
    idle_seconds: float = Field(default=600.0, gt=0)
    users: dict[Annotated[str, Field(pattern=r"^[^:*\s]+$")], ServedUserSettings] = {}

    @model_validator(mode="after")
    def _certificate_and_key(self) -> ServeSettings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("give tls_certificate and tls_key, or neither")
        return self


ENGINE = "engine:spark"
"""What the other engine is called beside the sources: a source's name is an identifier."""


STAGE = "engine:stage"
"""What its object store is called."""


class EngineSettings(_Frozen):
    """What joins and groups what the sources have sent.

    :param kind: ``spark``: a Spark Connect server, for what is larger than this machine.
    :param url: of the server, ``sc://host:15002``.
    :param stage: a folder that the server reads under the same path, or the URL of one in an
        object store, ``s3://bucket/folder``; None: where temporary files are, which a server on
        this machine reads too.
    :param stage_options: credentials and endpoints of the object store, as ``storage_options`` of
        a source.
    :param stage_encryption: what the object store encrypts with; None: its own default.
    :param stage_kms_key: the store's key, for ``aws:kms``.
    :param from_bytes: bytes that have arrived, or are thought to, from which on it is asked; None:
        ``memory_limit``.
    :param local_rows: so many rows of a fragment, at most, go with the statement and are not
        staged; 0: all are staged.
    :param in_place: sources whose Parquet files, Delta and Iceberg tables the server reads itself,
        under the same paths.
    :param usd_per_hour: what the server costs while it runs a residual; None: nothing.
    :param bytes_per_second: of Arrow data that the server joins and groups, for the estimate.
    :param locality: of the server and of the stage; without it told from the URL.
    :param allow_labels: labels (patterns) of data that may go to a server that is not local.
    """

    kind: Literal["auto", "duckdb", "spark"] = "auto"
    url: Secret | None = None
    stage: PathText | None = None
    stage_options: dict[str, Secret] = {}
    stage_encryption: Literal["AES256", "aws:kms"] | None = None
    stage_kms_key: str | None = None
    from_bytes: ByteSize | None = Field(default=None, ge=0)
    local_rows: int = Field(default=1_000, ge=0)
    in_place: tuple[str, ...] = ()
    usd_per_hour: float | None = Field(default=None, ge=0)
    bytes_per_second: ByteSize = Field(default=ByteSize(50_000_000), gt=0)
    locality: Locality | None = None
    allow_labels: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _reachable(self) -> EngineSettings:
        if self.is_spark and self.url is None:
            raise ValueError("an engine of the kind spark needs url")
        return self

    @property
    def is_spark(self) -> bool:
        """Whether residuals may go to a Spark Connect server: by its name, or its address."""
        return self.kind == "spark" or (self.kind == "auto" and self.url is not None)

    def stage_as_source(self) -> FilesSettings | None:
        """The object store of the stage as the sources know one; None where it is a folder."""
        if self.stage is None or "://" not in self.stage:
            return None
        return FilesSettings.model_validate(
            {
                "kind": "files",
                "path": self.stage,
                "storage_options": self.stage_options,
                "locality": self.locality,
            }
        )

    def as_source(self) -> DatabricksSettings:
        """A Spark Connect server as the sources know one.

        :raises ConfigError: where the secret that the address is in cannot be read.
        """
        assert self.url is not None
        host = urllib.parse.urlsplit(self.url.reveal()).hostname
        return DatabricksSettings.model_validate(
            {
                "kind": "databricks",
                "transport": "spark_connect",
                "host": f"https://{host}",
                "token": "unused",
                "options": {"uri": self.url},
                "locality": self.locality,
            }
        )


class PricingSettings(_Frozen):
    """What reading costs, in US dollars. A source without any of these prices is free.

    :param usd_per_tb_scanned: per 10^12 bytes.
    :param usd_per_tib_scanned: per 2^40 bytes, for vendors whose list price is per TiB.
    :param usd_per_gb_egress: per 10^9 bytes that come back.
    :param usd_per_credit: Snowflake; ``warehouse_size`` or ``credits_per_hour`` says how many.
    :param usd_per_dbu: Databricks; ``warehouse_size`` or ``dbus_per_hour`` says how many.
    :param budget_usd: per calendar month (UTC).
    """

    usd_per_tb_scanned: float | None = Field(default=None, ge=0)
    usd_per_tib_scanned: float | None = Field(default=None, ge=0)
    usd_per_gb_egress: float | None = Field(default=None, ge=0)
    usd_per_credit: float | None = Field(default=None, ge=0)
    credits_per_hour: float | None = Field(default=None, gt=0)
    usd_per_dbu: float | None = Field(default=None, ge=0)
    dbus_per_hour: float | None = Field(default=None, gt=0)
    warehouse_size: str | None = None
    budget_usd: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _make_sense(self) -> PricingSettings:
        if self.usd_per_tb_scanned is not None and self.usd_per_tib_scanned is not None:
            raise ValueError("give usd_per_tb_scanned or usd_per_tib_scanned, not both")
        if self.budget_usd is not None and not self.charges:
            raise ValueError("budget_usd needs a price beside it, such as usd_per_tb_scanned")
        if self.warehouse_size is None:
            return self
        from batuta_sql.warehouses import CREDITS, DBUS, per_hour

        for price, table in ((self.usd_per_credit, CREDITS), (self.usd_per_dbu, DBUS)):
            if price is not None and per_hour(self.warehouse_size, table) is None:
                raise ValueError(
                    f'there is no warehouse size "{self.warehouse_size}": sizes are '
                    + ", ".join(table)
                )
        return self

    @property
    def charges(self) -> bool:
        """Whether anything has a price."""
        return any(
            price is not None
            for price in (
                self.usd_per_tb_scanned,
                self.usd_per_tib_scanned,
                self.usd_per_gb_egress,
                self.usd_per_credit,
                self.usd_per_dbu,
            )
        )


class ColumnSettings(_Frozen):
    labels: LabelTexts = ()


class TableSettings(_Frozen):
    """What is said of one table; ``path`` and ``version`` for sources whose tables are files."""

    path: str | None = None
    version: int | None = None
    labels: LabelTexts = ()
    columns: dict[str, ColumnSettings] = {}

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": str(value)} if isinstance(value, str | Path) else value


class SourceSettings(_Frozen):
    """Keys that every source has. Times are in seconds.

    :param receives_keys: whether keys of other sources' rows may stand in statements for this one.
    :param result_ttl: seconds for which an answer about tables without versions is believed; None:
        every query asks anew.
    """

    bills: ClassVar[bool] = False
    """Whether the system charges its users, whatever ``pricing`` says: a price that nobody has
    configured is then not known, where elsewhere it is none."""

    locality: Locality | None = None
    labels: LabelTexts = ()
    pricing: PricingSettings = PricingSettings()
    tables: dict[str, TableSettings] = {}
    connect_timeout: float = Field(default=10.0, gt=0)
    query_timeout: float | None = Field(default=None, gt=0)
    max_connections: int = Field(default=4, ge=1)
    receives_keys: bool = True
    throttle: bool = True
    result_ttl: float | None = Field(default=None, gt=0)

    @property
    def charges(self) -> bool:
        """Whether a query may cost something."""
        return self.bills or self.pricing.charges

    def secrets(self) -> list[str]:
        """The secret values that could show up in a driver's message."""
        found: list[str] = []
        # Of a driver's options only these: "0" or "true" hidden would garble every message.
        for one in self._secrets(is_secret_key):
            try:
                found += one.hidden()
            except ConfigError:
                continue
        return found

    def renew(self) -> bool:
        """Whether, after a refusal, any secret has another value than it had.

        :raises ConfigError: where one is not to be had.
        """
        has_changed = False
        for one in self._secrets():
            has_changed |= one.renew()
        return has_changed

    def seconds_left(self) -> float | None:
        """Until the first of the credentials ends; None where no end is known."""
        told = [one.seconds_left() for one in self._secrets()]
        return min((s for s in told if s is not None), default=None)

    def _secrets(self, is_meant: Callable[[str], bool] = lambda key: True) -> list[Secret]:
        """:param is_meant: which of the options, by their names."""
        found: list[Any] = []
        for name in (*type(self).model_fields, *(self.model_extra or ())):
            value = getattr(self, name)
            if isinstance(value, dict):
                found += [o for k, o in value.items() if is_meant(str(k))]
            else:
                found.append(value)
        return [one for one in found if isinstance(one, Secret)]


class PostgreSQLSettings(SourceSettings):
    kind: Literal["postgresql"]
    uri: Secret | None = None
    host: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    database: str | None = None
    user: str | None = None
    password: Secret | None = None
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] | None = (
        None
    )

    @model_validator(mode="after")
    def _somewhere(self) -> PostgreSQLSettings:
        if self.uri is None and self.host is None:
            raise ValueError("give uri, or host, port, database and user")
        if self.uri is not None and self.host is not None:
            raise ValueError("give uri or host, not both")
        return self

    def connection_uri(self) -> str:
        """libpq's URI, the password in it; never to be shown."""
        quote = urllib.parse.quote
        if self.uri is not None:
            uri = self.uri.reveal()
        else:
            user = quote(self.user, safe="") + "@" if self.user else ""
            port = f":{self.port}" if self.port else ""
            host = quote(self.host or "", safe="[]:")
            uri = f"postgresql://{user}{host}{port}/{quote(self.database or '', safe='')}"
        try:
            parts = urllib.parse.urlsplit(uri)
        except ValueError:
            # The reason would quote the URI, and the password with it.
            raise ConfigError(
                "the uri of a postgresql source is not a URI",
                hint="postgresql://user@host/database",
            ) from None
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        if self.password is not None:
            query["password"] = self.password.reveal()
        if self.sslmode is not None:
            query["sslmode"] = self.sslmode
        query.setdefault("connect_timeout", str(max(1, round(self.connect_timeout))))
        query.setdefault("application_name", "batuta-sql")
        text = urllib.parse.urlencode(query, quote_via=urllib.parse.quote)
        return urllib.parse.urlunsplit(parts._replace(query=text))

    def secrets(self) -> list[str]:
        found = super().secrets()
        for uri in list(found):
            try:
                password = urllib.parse.urlsplit(uri).password if "://" in uri else None
            except ValueError:
                continue
            if password:
                found += [password, urllib.parse.unquote(password)]
        return found


class SQLiteSettings(SourceSettings):
    kind: Literal["sqlite"]
    path: PathText


class DuckDBSettings(SourceSettings):
    kind: Literal["duckdb"]
    path: PathText


class FilesSettings(SourceSettings):
    kind: Literal["files"]
    path: PathText | None = None
    storage_options: Options = {}


class DeltaSettings(SourceSettings):
    kind: Literal["delta"]
    path: PathText | None = None
    storage_options: Options = {}


class IcebergSettings(SourceSettings):
    """:param catalog: pyiceberg's properties of the catalog and of its files; any may be a secret.
    :param object_stores: whether files in object stores are read although ``catalog`` names none;
        it is the catalog then that says what is dialled.
    :param file_labels: whether labels in the footers of all data files are read.
    """

    kind: Literal["iceberg"]
    catalog: Options = {}
    object_stores: bool = False
    file_labels: bool = True

    @property
    def has_catalog(self) -> bool:
        """Whether ``catalog`` describes one, and not only how files are opened."""
        return "type" in self.catalog or "uri" in self.catalog

    @property
    def reads_stores(self) -> bool:
        """Whether files in object stores are read."""
        told = any(k.startswith(("s3.", "client.")) for k in self.catalog)
        places = [t.path for t in self.tables.values() if t.path is not None]
        warehouse = self.catalog.get("warehouse")
        if warehouse is not None:
            places.append(warehouse.reveal())
        remote = any("://" in p and not p.startswith("file://") for p in places)
        return self.object_stores or told or remote

    def secrets(self) -> list[str]:
        found = super().secrets()
        headers = [v for k, v in self.catalog.items() if k.lower().startswith("header.")]
        found += [h.reveal() for h in headers]
        # OAuth's credential is client:secret; the second half is a secret by itself.
        return [*found, *(s.partition(":")[2] for s in found if ":" in s)]


class SnowflakeSettings(SourceSettings):
    """:param connection: a connection of Snowflake's own ``connections.toml``.
    :param tags: whether the account's tags become labels.
    """

    bills: ClassVar[bool] = True
    kind: Literal["snowflake"]
    account: str | None = None
    user: str | None = None
    password: Secret | None = None
    private_key: Secret | None = None
    token: Secret | None = None
    authenticator: str | None = None
    connection: str | None = None
    warehouse: str | None = None
    database: str | None = None
    schema_: str | None = Field(default=None, alias="schema")
    role: str | None = None
    host: str | None = None
    port: int | None = None
    protocol: Literal["http", "https"] | None = None
    tags: bool = False


class WorkspaceSettings(SourceSettings):
    """How a Databricks workspace is reached; what is not given here may come from ``profile``.

    :param host: name or URL of the workspace.
    :param profile: a profile of ``~/.databrickscfg`` (or of ``DATABRICKS_CONFIG_FILE``).
    :param token: a personal access token, or any other bearer token.
    :param client_id: of a service principal: OAuth, machine to machine.
    :param warehouse_id: of the SQL warehouse; ``http_path`` tells it too.
    :param tags: whether the catalog's tags become labels.
    """

    host: str | None = None
    http_path: str | None = None
    warehouse_id: str | None = None
    profile: str | None = None
    token: Secret | None = None
    client_id: str | None = None
    client_secret: Secret | None = None
    catalog: str | None = None
    tags: bool = False


class DatabricksSettings(WorkspaceSettings):
    """:param driver: what the ADBC driver manager calls its driver, for ``transport = "adbc"``.
    :param options: further options of the ADBC driver, any of which may be a secret; with ``uri``
        among them these alone.
    :param cluster_id: the cluster, for ``transport = "spark_connect"``.
    """

    bills: ClassVar[bool] = True
    kind: Literal["databricks"]
    schema_: str | None = Field(default=None, alias="schema")
    transport: Literal["statement_api", "adbc", "spark_connect"] = "statement_api"
    driver: str = "databricks"
    options: Options = {}
    cluster_id: str | None = None


class BigQuerySettings(SourceSettings):
    """:param tags: whether the labels and tags of tables become labels.
    :param storage_api: whether results of several pages may come through the Storage Read API.
    :param storage_endpoint: where that is, ``host:port``; of an ``endpoint`` of one's own it has
        to be told, else the API is not used.
    """

    bills: ClassVar[bool] = True
    kind: Literal["bigquery"]
    project: str
    dataset: str | None = None
    location: str | None = None
    credentials: Secret | None = None
    endpoint: str | None = None
    tags: bool = False
    storage_api: bool = True
    storage_endpoint: str | None = None

    @property
    def storage_address(self) -> str | None:
        """Where the Storage Read API is asked; None where it is not used."""
        if not self.storage_api:
            return None
        if self.storage_endpoint is None and self.endpoint is not None:
            return None
        return self.storage_endpoint or "bigquerystorage.googleapis.com"


class UnitySettings(WorkspaceSettings):
    """:param object_stores: whether files in object stores are read, with credentials that the
        catalog vends; it is the catalog then that says what is dialled.
    :param storage_options: what reading them needs beside those, such as an endpoint.
    """

    kind: Literal["unity"]
    tags: bool = True
    object_stores: bool = False
    storage_options: Options = {}

    @property
    def charges(self) -> bool:
        """Whether a query may cost something: tables that only the warehouse can read do."""
        through = self.warehouse_id is not None or self.http_path is not None
        return through or self.pricing.charges


class GlueSettings(SourceSettings):
    """Without a profile and keys, boto3 looks credentials up where AWS's own tools do.

    :param profile: of the AWS configuration files.
    :param database: the only database that is shown, and that of names that say none.
    :param catalog_id: of another account's catalog.
    :param endpoint: the address of all services, S3 included: an emulator, a gateway.
    :param storage_options: what S3 needs beside that, such as an ``AWS_ENDPOINT_URL`` of its own.
    :param tags: whether LF-Tags become labels.
    :param lake_formation: what becomes of a table that Lake Formation has data filters for, which
        files know nothing of: ``refuse``, or ``ignore`` for one who may read all of its files.
    """

    kind: Literal["glue"]
    region: str | None = None
    profile: str | None = None
    access_key_id: Secret | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    database: str | None = None
    catalog_id: str | None = None
    endpoint: str | None = None
    storage_options: Options = {}
    tags: bool = False
    lake_formation: Literal["refuse", "ignore"] = "refuse"

    @model_validator(mode="after")
    def _one_login(self) -> GlueSettings:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("give access_key_id and secret_access_key, both")
        if self.profile is not None and self.access_key_id is not None:
            raise ValueError("give profile or access_key_id, not both")
        return self


class HuggingFaceSettings(SourceSettings):
    """:param repo: of a dataset: ``owner/name``.
    :param revision: a branch, tag or commit; the newest commit of ``main`` where none is given.
    :param token: for private and gated datasets; one that other tools have stored is not used.
    :param endpoint: of another hub than ``https://huggingface.co``.
    """

    kind: Literal["huggingface"]
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: str | None = None
    token: Secret | None = None
    endpoint: str | None = None


class AldSettings(SourceSettings):
    kind: Literal["ald"]
    path: str


class OtherSettings(SourceSettings):
    """A kind of an installed package that does not say which keys it has: any, as they stand.

    What is called as secrets are, or has the form of one, is a ``Secret``.
    """

    model_config = ConfigDict(frozen=True, extra="allow", arbitrary_types_allowed=True)
    kind: str

    @model_validator(mode="before")
    @classmethod
    def _secrets_of_its_own(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        own = {k: v for k, v in value.items() if k not in cls.model_fields}
        found = {k: Secret.of(v) for k, v in own.items() if is_secret(str(k), v)}
        return {**value, **found}


_KINDS: dict[str, type[SourceSettings]] = {
    "postgresql": PostgreSQLSettings,
    "sqlite": SQLiteSettings,
    "duckdb": DuckDBSettings,
    "files": FilesSettings,
    "delta": DeltaSettings,
    "iceberg": IcebergSettings,
    "snowflake": SnowflakeSettings,
    "databricks": DatabricksSettings,
    "bigquery": BigQuerySettings,
    "unity": UnitySettings,
    "glue": GlueSettings,
    "huggingface": HuggingFaceSettings,
    "ald": AldSettings,
}


class Settings(_Frozen):
    """The whole configuration.

    :param catalog_ttl: seconds for which a source's catalog is believed.
    :param local_files: whether queries may read files by their paths, beside those of the sources.
    :param semi_joins: whether one source is asked only for the rows that match what another has
        delivered, by sending it the keys: where that pays, wherever it is legal, or never.
    :param partial_aggregation: whether sums, counts and the like are made in part at their source,
        and repeated rows dropped there, below joins and unions with other sources: where that
        pays, wherever it is legal, or never.
    :param runaway_seconds: the least time after which a join or an aggregate that a source does not
        finish is ended, and made here; 0: never.
    :param result_cache: bytes ("64MB") up to which results of fragments are kept in memory, to be
        used again while the versions of their tables are the same; 0 keeps none.
    :param profile_file: measured rates (``tune``); the default is ``profile.json`` in the user's
        data folder.
    """

    tier: Tier = "standard"
    memory_limit: str | None = Field(default=None, pattern=r"^\s*\d+(\.\d+)?\s*([KMGT]i?B|B|%)\s*$")
    temp_directory: str | None = None
    local_files: bool = True
    threads: int | None = Field(default=None, ge=1)
    catalog_ttl: float = Field(default=60.0, ge=0)
    semi_joins: Literal["auto", "always", "off"] = "auto"
    partial_aggregation: Literal["auto", "always", "off"] = "auto"
    runaway_seconds: float = Field(default=10.0, ge=0)
    result_cache: ByteSize = Field(default=ByteSize(64_000_000), ge=0)
    profile_file: PathText | None = None
    cost: CostSettings = CostSettings()
    labels: LabelSettings = LabelSettings()
    seal: SealSettings = SealSettings()
    openlineage: OpenLineageSettings = OpenLineageSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    serve: ServeSettings = ServeSettings()
    engine: EngineSettings = EngineSettings()
    sources: dict[str, SourceSettings] = {}

    @property
    def systems(self) -> Mapping[str, SourceSettings]:
        """All that may be dialled: the sources, and the other engine where there is one.

        :raises ConfigError: where the secret that the engine's address is in cannot be read.
        """
        if not self.engine.is_spark:
            return self.sources
        found = {**self.sources, ENGINE: self.engine.as_source()}
        stage = self.engine.stage_as_source()
        return found if stage is None else {**found, STAGE: stage}

    @model_validator(mode="after")
    def _engine_reads_sources(self) -> Settings:
        for name in self.engine.in_place:
            if name not in self.sources:
                raise ConfigProblem(
                    ("engine", "in_place"), f'there is no source "{name}"', "give names of sources"
                )
        return self

    @model_validator(mode="after")
    def _budgets_are_kept(self) -> Settings:
        if not self.cost.history:
            for name, source in self.sources.items():
                if source.pricing.budget_usd is not None:
                    raise ConfigProblem(
                        ("sources", name, "pricing", "budget_usd"),
                        "a budget needs the history, which cost.history turns off",
                        "set cost.history = true, or remove budget_usd",
                    )
        return self

    @field_validator("sources", mode="before")
    @classmethod
    def _by_kind(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError("sources is a table of sources")
        return {name: _source(name, settings) for name, settings in value.items()}


def _source(name: str, settings: Any) -> SourceSettings:
    if isinstance(settings, SourceSettings):
        return settings
    if name.lower() in RESERVED_NAMES:
        raise ConfigProblem(("sources", name), f'a source cannot be called "{name}"')
    if not isinstance(name, str) or not re.fullmatch(r"[^\W\d][\w$-]*", name):
        raise ConfigProblem(("sources", str(name)), "a source's name is an identifier")
    if not isinstance(settings, Mapping):
        raise ConfigProblem(("sources", name), "a source is a table with a kind")
    kind = settings.get("kind")
    if kind is None:
        raise ConfigProblem(
            ("sources", name), "the source has no kind", "kinds: " + ", ".join(_KINDS)
        )
    model = _KINDS.get(str(kind))
    if model is None:
        model = _settings_elsewhere(name, str(kind))
    if model is None:
        hint = did_you_mean(str(kind), _KINDS) or "kinds: " + ", ".join(_KINDS)
        raise ConfigProblem(("sources", name, "kind"), f'there is no kind "{kind}"', hint)
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        raise _problem(error, model, ("sources", name)) from None


def _settings_elsewhere(name: str, kind: str) -> type[SourceSettings] | None:
    """The settings of a kind that an installed package serves; None: there is none."""
    from importlib.metadata import entry_points

    for entry in entry_points(group="batuta_sql.sources"):
        if entry.name == kind:
            try:
                served = entry.load()
            except (ImportError, AttributeError) as error:
                problem = f'"{entry.value}", which serves this kind, cannot be loaded: {error}'
                raise ConfigProblem(("sources", name, "kind"), problem) from None
            model: type[SourceSettings] = getattr(served, "settings_class", OtherSettings)
            return model
    return None


class ConfigProblem(Exception):
    """One wrong key: where it is, what is wrong, what to do."""

    def __init__(self, path: tuple[str, ...], message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.path, self.message, self.hint = path, message, hint


def load_settings(
    config: str | Path | Mapping[str, Any] | None,
    *,
    tier: str | None = None,
    max_cost_usd: float | None = None,
    local_files: bool | None = None,
) -> Settings:
    """Settings from a file, a dict, or the usual places; see ``connect``.

    :raises ConfigError: naming file, key and line.
    """
    origin: str | None = None
    text = ""
    data: dict[str, Any]
    if isinstance(config, Mapping):
        data = dict(config)
    else:
        path = Path(config) if config is not None else usual_place()
        data = {}
        if path is not None:
            origin = str(path)
            text, data = _read(path)
    if tier is not None:
        data["tier"] = tier
    if local_files is not None:
        data["local_files"] = local_files
    if max_cost_usd is not None:
        cost = dict(data.get("cost") or {})
        cost["max_cost_usd"] = max_cost_usd
        # A limit that nobody set does not hold against one that somebody did.
        cost.setdefault("stop_usd", max_cost_usd)
        data["cost"] = cost
    try:
        return Settings.model_validate(data)
    except ConfigProblem as problem:
        raise _config_error(problem, origin, text) from None
    except ValidationError as error:
        raise _config_error(_problem(error, Settings, ()), origin, text) from None


def usual_place() -> Path | None:
    """The configuration that is found where none is given: ``./batuta.toml``, then the user's."""
    for folder in (Path.cwd(), Path(platformdirs.user_config_dir("batuta-sql"))):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    return None


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", hint="give the path of a batuta.toml"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8") from None
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None


def _problem(
    error: ValidationError, model: type[BaseModel], prefix: tuple[str, ...]
) -> ConfigProblem:
    """The first thing that pydantic found wrong, in our words."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = prefix + tuple(str(p) for p in first["loc"] if p not in ("after", "before"))
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, first["loc"][:-1])
        key = str(first["loc"][-1])
        hint = did_you_mean(key, known) or "known keys: " + ", ".join(sorted(known))
        return ConfigProblem(path, f'there is no key "{key}" here', hint)
    if first["type"] == "missing":
        return ConfigProblem(path, "this key is missing")
    message = first["msg"].removeprefix("Value error, ")
    return ConfigProblem(path, message[0].lower() + message[1:])


def _keys_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    current: Any = model
    for step in path:
        field = current.model_fields.get(str(step)) if hasattr(current, "model_fields") else None
        if field is None:
            continue
        annotation = field.annotation
        arguments = getattr(annotation, "__args__", ())
        current = next((a for a in (annotation, *arguments) if hasattr(a, "model_fields")), current)
    return [f.alias or n for n, f in current.model_fields.items()]


def _config_error(problem: ConfigProblem, origin: str | None, text: str) -> ConfigError:
    key = ".".join(problem.path) or "the configuration"
    where = ""
    if origin is not None:
        line = line_of(text, problem.path)
        where = f"{origin}:{line}: " if line else f"{origin}: "
    return ConfigError(f"{where}{key}: {without_passwords(problem.message)}", hint=problem.hint)


def line_of(text: str, path: tuple[str, ...]) -> int | None:
    """The 1-based line of a key in a TOML text: of the deepest part that is found."""
    lines = text.splitlines()
    best: int | None = None
    depth = 0
    table: tuple[str, ...] = ()
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if header := re.fullmatch(r"\[\[?\s*(.+?)\s*\]\]?\s*(#.*)?", stripped):
            table = _dotted(header[1])
            found: tuple[str, ...] = table
        elif key := re.match(r"([\w\"'.\- ]+?)\s*=", stripped):
            found = table + _dotted(key[1])
        else:
            continue
        common = 0
        while common < min(len(found), len(path)) and found[common] == path[common]:
            common += 1
        if common == len(found) and common > depth:
            best, depth = number, common
    return best


def _dotted(text: str) -> tuple[str, ...]:
    parts = re.findall(r"\"([^\"]*)\"|'([^']*)'|([^.\s\"']+)", text)
    return tuple(a or b or c for a, b, c in parts)
