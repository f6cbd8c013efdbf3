"""The keys of sources: those that each has, and those of each kind."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    ConfigDict,
    Field,
    model_validator,
)

from batuta_sql.errors import ConfigError
from batuta_sql.secrets import Secret, is_secret, is_secret_key
from batuta_sql.setting_types import FrozenSettings, LabelTexts, Locality, Options, PathText


class PricingSettings(FrozenSettings):
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


class ColumnSettings(FrozenSettings):
    labels: LabelTexts = ()


class TableSettings(FrozenSettings):
    """What is said of one table; ``path`` and ``version`` for sources whose tables are files."""

    path: str | None = None
    version: int | None = None
    labels: LabelTexts = ()
    columns: dict[str, ColumnSettings] = {}

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": str(value)} if isinstance(value, str | Path) else value


class SourceSettings(FrozenSettings):
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


KINDS: dict[str, type[SourceSettings]] = {
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
