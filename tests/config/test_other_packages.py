"""Kinds that other packages serve: their keys are checked, and their secrets are secrets."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batuta_sql.config import load_settings
from batuta_sql.errors import ConfigError
from batuta_sql.secrets import Secret

WITH_SETTINGS = """
from typing import Literal
from batuta_sql.source_settings import SourceSettings
from batuta_sql.secrets import Secret

class Keys(SourceSettings):
    kind: Literal["far"]
    address: str
    token: Secret

class Far:
    settings_class = Keys
"""

WITHOUT = "class Far:\n    pass\n"

Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    """A package whose module has a text, and which serves the kind ``far``."""

    def made(source: str) -> None:
        (tmp_path / "far_away.py").write_text(source)
        about = tmp_path / "far_away-1.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: far-away\nVersion: 1\n")
        (about / "entry_points.txt").write_text("[batuta_sql.sources]\nfar = far_away:Far\n")
        importlib.invalidate_caches()

    sys.path.insert(0, str(tmp_path))
    yield made
    sys.path.remove(str(tmp_path))
    sys.modules.pop("far_away", None)
    importlib.invalidate_caches()


def far(**keys: Any) -> Any:
    return load_settings({"sources": {"f": {"kind": "far", **keys}}}).sources["f"]


def test_its_own_keys_are_checked_as_ours_are(install: Install, tmp_path: Path) -> None:
    install(WITH_SETTINGS)
    path = tmp_path / "batuta.toml"
    path.write_text('[sources.f]\nkind = "far"\naddress = "x"\ntoken = "t"\nadress = "y"\n')
    with pytest.raises(ConfigError) as wrong:
        load_settings(path)
    assert "batuta.toml:5: " in str(wrong.value)
    assert 'did you mean "address"' in str(wrong.value)
    with pytest.raises(ConfigError, match="token"):
        far(address="x")


@pytest.mark.parametrize("source", [WITH_SETTINGS, WITHOUT])
@pytest.mark.parametrize("form", ["env", "text"])
def test_its_secrets_are_looked_up_and_never_shown(
    install: Install, monkeypatch: pytest.MonkeyPatch, source: str, form: str
) -> None:
    install(source)
    monkeypatch.setenv("FAR_TOKEN", "s3cr3t")
    token = {"env": "FAR_TOKEN"} if form == "env" else "s3cr3t"
    settings = far(address="x", token=token)
    assert isinstance(settings.token, Secret)
    assert settings.token.reveal() == "s3cr3t"
    assert settings.secrets() == ["s3cr3t"]
    assert "s3cr3t" not in repr(settings)
    assert settings.address == "x"


def test_without_a_class_of_settings_other_keys_are_as_they_stand(install: Install) -> None:
    install(WITHOUT)
    settings = far(address="x", depth=3, options={"env": "a", "other": "b"}, bucket="k")
    assert (settings.depth, settings.options) == (3, {"env": "a", "other": "b"})
    assert (settings.address, settings.bucket) == ("x", "k")


def test_a_package_that_is_broken_says_so(install: Install) -> None:
    install("import no_such_module")
    with pytest.raises(ConfigError, match="far_away:Far.*cannot be loaded.*no_such_module"):
        far()
