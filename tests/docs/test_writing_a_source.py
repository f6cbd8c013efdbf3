"""docs/writing-a-source.md: what it writes is installed as it says, and does what it shows.

The conformance suite runs over the same source (``zipped`` in ``tests/conformance/kinds.py``).
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from batuta_sql.config import load_settings
from tests.conformance.stands.guide import PAGE, blocks, install
from tests.docs.pages import ROOT, blocks_of, run


def test_the_source_of_the_page_is_installed_and_asked(tmp_path: Path) -> None:
    packages, folder = tmp_path / "packages", tmp_path / "here"
    packages.mkdir()
    folder.mkdir()
    install(packages)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(packages), str(ROOT)]),
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }
    source, *examples = blocks("python")
    assert len(examples) == 1
    (folder / "example.py").write_text(examples[0])
    run(["example.py"], folder, environment)
    (folder / "batuta.toml").write_text(blocks("toml")[1])
    said = run(["-m", "batuta_sql", "query", "FROM box.orders"], folder, environment)
    assert "(3 rows)" in said
    assert "box" in run(["-m", "batuta_sql", "doctor"], folder, environment)


def test_without_the_package_the_kind_is_not_known() -> None:
    settings = tomllib.loads(blocks("toml")[1])
    assert settings["sources"]["box"]["kind"] == "zipped"
    try:
        load_settings(settings)
    except Exception as error:
        assert 'there is no kind "zipped"' in str(error)
    else:
        raise AssertionError("the package should not be installed here")


def test_it_takes_about_a_hundred_lines() -> None:
    source, *_ = blocks("python")
    assert len(source.splitlines()) < 120
    assert {b.language for b in blocks_of(PAGE)} == {"python", "toml"}
