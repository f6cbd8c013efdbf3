"""The configuration: its shape, its errors with file, line and nearest key, its defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import batuta_sql
from batuta_sql.config import FILE_NAME, RESERVED_NAMES, Settings, line_of, load_settings
from batuta_sql.source_settings import PostgreSQLSettings

WHOLE = """\
tier = "standard"
memory_limit = "8GB"

[cost]
warn_usd = 1.0
stop_usd = 50.0
on_unknown = "warn"

[sources.crm]
kind = "postgresql"
host = "db.internal"
port = 5432
database = "crm"
user = "app"
password = { env = "CRM_PASSWORD" }
labels = ["origin:internal"]
pricing = { usd_per_tb_scanned = 5.0 }

[sources.crm.tables."public.customer".columns]
email = { labels = ["pii"] }

[sources.lake]
kind = "files"
tables = { orders = "data/orders/*.parquet" }
"""


def test_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(WHOLE)
    settings = load_settings(path)
    crm = settings.sources["crm"]
    assert isinstance(crm, PostgreSQLSettings)
    assert (crm.host, crm.port, crm.labels) == ("db.internal", 5432, ("origin:internal",))
    assert crm.tables["public.customer"].columns["email"].labels == ("pii",)
    assert crm.pricing.usd_per_tb_scanned == 5.0
    assert settings.sources["lake"].tables["orders"].path == "data/orders/*.parquet"
    assert settings.cost.stop_usd == 50.0


def changed(old: str, new: str) -> str:
    assert old in WHOLE
    return WHOLE.replace(old, new)


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        (changed("memory_limit", "memory_limt"), 2, "memory_limt", "memory_limit"),
        (changed("stop_usd", "stopusd"), 6, "cost.stopusd", "stop_usd"),
        (changed("port = 5432", "prot = 5432"), 12, "sources.crm.prot", "port"),
        (changed("port = 5432", 'port = "many"'), 12, "sources.crm.port", "integer"),
        (changed("port = 5432", "port = 70000"), 12, "sources.crm.port", "65535"),
        (changed('"postgresql"', '"postgres"'), 10, "sources.crm.kind", "postgresql"),
        (changed('"postgresql"', '"oracle"'), 10, "sources.crm.kind", "kinds: "),
        (changed('kind = "files"\n', ""), 22, "sources.lake", "kind"),
        (changed('"8GB"', '"much"'), 2, "memory_limit", ""),
        (changed('"standard"', '"sovereign"'), 1, "tier", "fully_sovereign"),
        (changed("usd_per_tb_scanned", "usd_per_tb"), 17, "usd_per_tb", "usd_per_tb_scanned"),
        (changed('labels = ["pii"]', 'lables = ["pii"]'), 20, "lables", "labels"),
        (changed("{ env =", "{ environment ="), 15, "sources.crm.password", "env"),
    ],
)
def test_an_error_names_file_line_key_and_what_to_do(
    tmp_path: Path, text: str, line: int, key: str, words: str
) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(text)
    with pytest.raises(batuta_sql.ConfigError) as caught:
        batuta_sql.connect(path)
    message = str(caught.value)
    assert f"{path}:{line}: " in message
    assert key in message
    assert words in message


def test_toml_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_text("tier = \n")
    with pytest.raises(batuta_sql.ConfigError, match="line 1") as caught:
        batuta_sql.connect(path)
    assert str(path) in str(caught.value)
    path.write_bytes(b'tier = "\xff"')
    with pytest.raises(batuta_sql.ConfigError, match="UTF-8"):
        batuta_sql.connect(path)
    with pytest.raises(batuta_sql.ConfigError, match="cannot be read"):
        batuta_sql.connect(tmp_path / "nowhere.toml")


def test_the_file_of_the_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    assert load_settings(None).sources == {}
    (tmp_path / FILE_NAME).write_text('[sources.here]\nkind = "sqlite"\npath = "a.db"\n')
    assert list(load_settings(None).sources) == ["here"]


def test_arguments_come_before_the_file() -> None:
    settings = load_settings(
        {"tier": "standard", "cost": {"warn_usd": 2}}, tier="private_cloud", max_cost_usd=5
    )
    assert settings.tier == "private_cloud"
    assert (settings.cost.warn_usd, settings.cost.stop_usd) == (2, 5)


def test_the_given_dict_is_left_as_it_is() -> None:
    given_ = {"cost": {"warn_usd": 2.0}}
    load_settings(given_, tier="standard", max_cost_usd=5)
    assert given_ == {"cost": {"warn_usd": 2.0}}


@pytest.mark.parametrize("name", [*sorted(RESERVED_NAMES), "LOCAL", "a b", "1st", "a.b", "", "a;b"])
def test_names_that_a_source_cannot_have(name: str) -> None:
    with pytest.raises(batuta_sql.ConfigError):
        load_settings({"sources": {name: {"kind": "sqlite", "path": "x"}}})


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "postgresql"},
        {"kind": "postgresql", "uri": "postgresql://h/d", "host": "h"},
        {"kind": "sqlite"},
        {"kind": "files"},
        {"kind": "delta"},
        {"kind": "postgresql", "host": "h", "query_timeout": 0},
        {"kind": "postgresql", "host": "h", "max_connections": 0},
        {"kind": "postgresql", "host": "h", "sslmode": "maybe"},
        "postgresql://h/d",
        ["kind"],
        None,
    ],
    ids=str,
)
def test_sources_that_say_too_little_or_too_much(settings: Any) -> None:
    with pytest.raises(batuta_sql.ConfigError, match="crm"):
        batuta_sql.connect({"sources": {"crm": settings}})


def test_settings_are_frozen() -> None:
    settings = load_settings({"tier": "standard"})
    with pytest.raises(ValueError, match="frozen"):
        settings.tier = "private_cloud"


def uri_of(**settings: Any) -> str:
    return PostgreSQLSettings(kind="postgresql", **settings).connection_uri()


def test_the_uri_that_libpq_gets() -> None:
    assert uri_of(host="h", port=5, database="d b", user="u@x").startswith(
        "postgresql://u%40x@h:5/d%20b?"
    )
    assert "connect_timeout=10" in uri_of(host="h")
    assert "connect_timeout=3" in uri_of(uri="postgresql://h/d?connect_timeout=3")
    assert "sslmode=require" in uri_of(uri="postgresql://h/d?sslmode=disable", sslmode="require")


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_any_password_reaches_libpq_as_it_is(password: str) -> None:
    from urllib.parse import unquote, urlsplit

    for settings in ({"host": "h", "user": "u"}, {"uri": "postgresql://u@h/d"}):
        query = urlsplit(uri_of(password=password, **settings)).query
        found = dict(part.split("=", 1) for part in query.split("&"))
        assert unquote(found["password"]) == password


# --- a round trip through TOML -----------------------------------------------------------------

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)
label_texts = st.from_regex(r"[a-z]{1,6}(:[a-z]{1,6})?", fullmatch=True)
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda n: n not in RESERVED_NAMES
)
sqlite = st.fixed_dictionaries(
    {"kind": st.just("sqlite"), "path": words},
    optional={
        "labels": st.lists(label_texts, max_size=3),
        "locality": st.sampled_from(["local", "vpc"]),
    },
)
postgresql = st.fixed_dictionaries(
    {
        "kind": st.just("postgresql"),
        "host": words,
        "password": st.fixed_dictionaries({"env": words}),
    },
    optional={
        "port": st.integers(1, 65535),
        "query_timeout": st.floats(0.1, 1e6),
        "tables": st.dictionaries(
            words, st.fixed_dictionaries({"labels": st.lists(label_texts, max_size=2)}), max_size=2
        ),
    },
)
configs = st.fixed_dictionaries(
    {},
    optional={
        "tier": st.sampled_from(["standard", "private_cloud"]),
        "memory_limit": st.sampled_from(["1GB", "512 MiB", "80%"]),
        "threads": st.integers(1, 64),
        "catalog_ttl": st.floats(0, 1e6),
        "cost": st.fixed_dictionaries({"warn_usd": st.floats(0, 1e6)}),
        "sources": st.dictionaries(names, st.one_of(sqlite, postgresql), max_size=3),
    },
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        text = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text) + '"'
    return repr(value)


def comparable(settings: Settings) -> Any:
    return settings.model_dump()


@given(configs)
def test_a_file_says_what_the_dict_says(config: dict[str, Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE_NAME
        path.write_text("".join(f"{k} = {toml(v)}\n" for k, v in config.items()), "utf-8")
        assert comparable(load_settings(path)) == comparable(load_settings(config))


@given(st.lists(st.tuples(names, names), unique=True, min_size=1, max_size=8), st.data())
def test_the_line_of_a_key_is_where_it_is(keys: list[tuple[str, str]], data: st.DataObject) -> None:
    tables: dict[str, list[str]] = {}
    for table, key in keys:
        tables.setdefault(table, []).append(key)
    lines: list[str] = []
    places: dict[tuple[str, str], int] = {}
    for table, entries in tables.items():
        lines += ["", f"# about {table} = 1", f"[{table}]"]
        for key in entries:
            lines.append(f'  {key} = "x = y"')
            places[table, key] = len(lines)
    wanted = data.draw(st.sampled_from(keys))
    assert line_of("\n".join(lines), wanted) == places[wanted]
