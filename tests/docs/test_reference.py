"""The reference says what the code says: every command, every key, every public name.

``BATUTA_UPDATE_DOCS=1`` writes the command line's page anew, and the keys, types and defaults of
the configuration's; the meanings there are written by hand and stay.
"""

from __future__ import annotations

import os
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ByteSize
from pydantic_core import PydanticUndefined

import batuta_sql
from batuta_sql import config, source_settings
from batuta_sql.cli.commands import Commands, application
from batuta_sql.cli.examples import EXAMPLES
from batuta_sql.cli.launch import Run
from batuta_sql.secrets import Secret

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
UPDATES = os.environ.get("BATUTA_UPDATE_DOCS") == "1"

# --- the command line --------------------------------------------------------------------------

HEAD = """# Command line

Made from the commands themselves. `--config FILE` is accepted everywhere: the configuration; else
`./batuta.toml`, then the user's configuration folder. `batuta-sql --version` tells the version, and
`--help` behind a command what is told here.

| exit status | means |
| --- | --- |
| 0 | done |
| 1 | error |
| 2 | usage |
| 3 | refused for its cost |
| 4 | refused for labels or tier |
| 5 | stopped since a schema has changed |
| 78 | the seal cannot be enforced |
| 130 | interrupted |

`seal` ends with the status of the command that it ran.
"""


def command_line() -> str:
    """The page, made of what the commands tell of themselves."""
    told = application(Commands(Run())).generate_docs(output_format="markdown")
    _, *sections = re.split(r"^## batuta-sql ", told, flags=re.MULTILINE)
    pages = [HEAD]
    for section in sections:
        name, _, rest = section.partition("\n")
        # Beside the command's name stands how this process was started.
        usage = rf"```console\nbatuta-sql {name}.*?((?: \[?[A-Z]+\]?)*)\n"
        rest = re.sub(usage, rf"```text\nbatuta-sql {name}\1\n", rest.split("\nExamples:")[0])
        rest = re.sub(r"\n{3,}", "\n\n", rest).strip()
        lines = "\n".join(EXAMPLES[name])
        pages.append(f"## {name}\n\n{rest}\n\nExamples:\n\n```text\n{lines}\n```\n")
    return "\n".join(pages)


def test_the_command_line_is_documented_as_it_is() -> None:
    page = REFERENCE / "cli.md"
    if UPDATES:
        page.write_text(command_line(), "utf-8")
    assert page.read_text("utf-8") == command_line()


# --- the configuration -------------------------------------------------------------------------

MODELS: dict[str, type[BaseModel]] = {
    "Top level": config.Settings,
    "`[cost]`": config.CostSettings,
    "`[labels]`": config.LabelSettings,
    "`[[labels.rules]]`": config.FlowRule,
    "`[[labels.declassify]]`": config.Declassification,
    "`[openlineage]`": config.OpenLineageSettings,
    "`[telemetry]`": config.TelemetrySettings,
    "`[seal]`": config.SealSettings,
    "`[engine]`": config.EngineSettings,
    "`[serve]`": config.ServeSettings,
    "`[serve.users.NAME]`": config.ServedUserSettings,
    "`[sources.NAME]`": source_settings.SourceSettings,
    "`[sources.NAME.pricing]`": source_settings.PricingSettings,
    "`[sources.NAME.tables.TABLE]`": source_settings.TableSettings,
    "`[sources.NAME.tables.TABLE.columns.COLUMN]`": source_settings.ColumnSettings,
    **{f"Kind `{kind}`": model for kind, model in source_settings.KINDS.items()},
}
"""The sections of the page, and the settings that each is of."""

NAMES = {
    bool: "true or false",
    str: "text",
    int: "whole number",
    float: "number",
    Secret: "secret",
    ByteSize: "size",
}
PLURAL = {"text": "texts", "table": "tables", "secret": "texts or secrets"}
ROW = re.compile(r"^\| `([^`]+)` \| (.*?) \| (.*?) \| (.*?) \|$", re.MULTILINE)


def type_of(annotation: Any) -> str:
    """A type as people read it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_of(a) for a in arguments if a is not types.NoneType)
    if origin is typing.Literal:
        return ", ".join(f'`"{a}"`' for a in arguments)
    if origin is tuple:
        return "list of " + PLURAL.get(inner := type_of(arguments[0]), inner)
    if origin is dict:
        return "table of " + PLURAL.get(inner := type_of(arguments[1]), inner)
    if annotation in NAMES:
        return NAMES[annotation]
    return {"date": "date"}.get(annotation.__name__, "table")


def default_of(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "needed"
    match field.default:
        case None | () | {} | BaseModel():
            return ""
        case bool():
            return f"`{str(field.default).lower()}`"
        case str():
            return f'`"{field.default}"`'
    return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"


def keys_of(model: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    """Key, type and default of each key of its own; those of every source are said once."""
    every = source_settings.SourceSettings.model_fields
    for name, field in model.model_fields.items():
        if name == "kind" and model is not source_settings.OtherSettings:
            continue
        of_its_own = model is source_settings.SourceSettings or name not in every
        is_source = issubclass(model, source_settings.SourceSettings)
        if is_source and not of_its_own and repr(field) == repr(every[name]):
            continue
        yield field.alias or name, type_of(field.annotation), default_of(field)


def sections(page: str) -> dict[str, str]:
    head, *rest = re.split(r"^##+ ", page, flags=re.MULTILINE)
    return {s.partition("\n")[0]: s.partition("\n")[2] for s in rest}


@pytest.mark.parametrize("title", MODELS)
def test_every_key_is_documented_with_its_type_and_default(title: str) -> None:
    page = REFERENCE / "configuration.md"
    expected = list(keys_of(MODELS[title]))
    if UPDATES:
        page.write_text(_updated(page.read_text("utf-8"), title, expected), "utf-8")
    rows = ROW.findall(sections(page.read_text("utf-8"))[title])
    assert [row[:3] for row in rows] == expected
    assert [key for key, *_, meaning in rows if not meaning.strip()] == []


def _updated(page: str, title: str, expected: list[tuple[str, str, str]]) -> str:
    section = sections(page)[title]
    known = {row[0]: row[3] for row in ROW.findall(section)}
    lines = [f"| `{k}` | {t} | {d} | {known.get(k, '')} |" for k, t, d in expected]
    table = "\n".join(["| key | type | default | meaning |", "| --- | --- | --- | --- |", *lines])
    return page.replace(
        section, re.sub(r"^\| key .*?(?=\n\n|\Z)", table, section, flags=re.M | re.S)
    )


@pytest.mark.parametrize("kind", source_settings.KINDS)
def test_the_page_of_a_source_names_each_of_its_keys(kind: str) -> None:
    page = (ROOT / "docs" / "sources" / f"{kind}.md").read_text("utf-8")
    assert [key for key, *_ in keys_of(source_settings.KINDS[kind]) if f"`{key}`" not in page] == []


def test_the_keys_of_every_source_are_on_their_page() -> None:
    page = (ROOT / "docs" / "sources" / "index.md").read_text("utf-8")
    keys = ["kind", *source_settings.SourceSettings.model_fields]
    assert [key for key in keys if f"| `{key}` |" not in page] == []
    assert [kind for kind in source_settings.KINDS if f"[`{kind}`]({kind}.md)" not in page] == []


# --- Python ------------------------------------------------------------------------------------


def test_every_public_name_is_documented() -> None:
    page = (REFERENCE / "python.md").read_text("utf-8")
    documented = set(re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE))
    told = {name.rpartition(".")[2] for name in documented} | set(re.findall(r"`(\w+)`", page))
    assert [name for name in batuta_sql.__all__ if name not in told] == []
