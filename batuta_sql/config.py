"""``batuta.toml`` or a dict of its shape -> frozen settings.

Every error names the file, the key and, for a file, the line; an unknown key names the nearest.
"""

from __future__ import annotations

import datetime
import re
import tomllib
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import (
    BaseModel,
    ByteSize,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from batuta_sql.errors import ConfigError, did_you_mean
from batuta_sql.secrets import Secret, without_passwords
from batuta_sql.setting_types import (
    AtLeastOne,
    FrozenSettings,
    Locality,
    PathText,
)
from batuta_sql.source_settings import (
    KINDS,
    DatabricksSettings,
    FilesSettings,
    OtherSettings,
    SourceSettings,
)

FILE_NAME = "batuta.toml"
Tier = Literal["fully_sovereign", "hybrid_sovereign", "private_cloud", "standard"]

RESERVED_NAMES = frozenset(
    {"local", "memory", "temp", "system", "main", "information_schema", "pg_catalog", "spill"}
)


class CostSettings(FrozenSettings):
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


class FlowRule(FrozenSettings):
    """Data that carries all labels of ``when`` must not meet data with one of ``not_into``."""

    when: AtLeastOne
    not_into: AtLeastOne
    action: Literal["warn", "stop"] = "stop"
    why: str | None = None


class Declassification(FrozenSettings):
    """Takes labels from data: somebody's decision, with its reason and its last day.

    :param columns: dotted names of columns, or of tables or sources with all their columns.
    """

    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    labels: AtLeastOne
    who: Annotated[str, Field(min_length=1)]
    why: Annotated[str, Field(min_length=1)]
    until: datetime.date


class LabelSettings(FrozenSettings):
    """Which labels may meet, and whose are taken away.

    :param audit_log: where uses of ``declassify`` and crossings that only warn are written; the
        user's data folder where nothing is said.
    """

    on_public_into_sovereign: Literal["warn", "stop"] = "stop"
    rules: tuple[FlowRule, ...] = ()
    declassify: tuple[Declassification, ...] = ()
    audit_log: PathText | None = None


class SealSettings(FrozenSettings):
    """Ways through the seal beside those to the sources themselves.

    :param forwards: ``NAME:PORT``, ``NAME:PORT=HOST:PORT`` or ``NAME:PORT=/path/of/socket``: hosts
        that a driver needs beside its source's own, such as the store that results lie in.
    :param keep: paths of sockets or folders that are not hidden.
    """

    forwards: tuple[Annotated[str, Field(pattern=r":\d+(=(/.*|.*:\d+))?$")], ...] = ()
    keep: tuple[str, ...] = ()


class OpenLineageSettings(FrozenSettings):
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


class TelemetrySettings(FrozenSettings):
    """What the program's OpenTelemetry hears of queries.

    :param sql: whether spans tell the texts of queries and of fragments, and the values in them.
    """

    traces: bool = False
    sql: bool = False


class ServedUserSettings(FrozenSettings):
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


class ServeSettings(FrozenSettings):
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


class EngineSettings(FrozenSettings):
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
        ``memory_limit``. What memory and the free disk do not hold goes there in any case.
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


class Settings(FrozenSettings):
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
            ("sources", name), "the source has no kind", "kinds: " + ", ".join(KINDS)
        )
    model = KINDS.get(str(kind))
    if model is None:
        model = _settings_elsewhere(name, str(kind))
    if model is None:
        hint = did_you_mean(str(kind), KINDS) or "kinds: " + ", ".join(KINDS)
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
