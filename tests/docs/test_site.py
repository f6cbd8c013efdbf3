"""The site is built of the pages as ``make site`` does it, and needs nothing from elsewhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT

BROKEN = ("[a](nothing.md)", "[a](cost.md#nothing)", "::: batuta_sql.nothing")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built: the builder empties the folder .cache beside its configuration."""
    pytest.importorskip("zensical", reason="the environment was made before the site was")
    folder = tmp_path_factory.mktemp("site") / "build"
    shutil.copytree(DOCS, folder / "docs")
    configuration = folder / "docs" / "zensical.toml"
    configuration.rename(folder / "zensical.toml")
    (folder.parent / "batuta_sql").symlink_to(ROOT / "batuta_sql")
    return folder


def build(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def site(project: Path) -> Path:
    done = build(project)
    assert done.returncode == 0, done.stdout + done.stderr
    return project / "site"


def test_every_page_is_there(site: Path) -> None:
    pages = [page.relative_to(DOCS).with_suffix("") for page in DOCS.rglob("*.md")]
    places = [site / (p.parent if p.name == "index" else p) / "index.html" for p in pages]
    assert [place for place in places if not place.exists()] == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loaded: set[str] = set()
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        loaded |= set(re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="(https?:|//)', text))
        loaded |= set(re.findall(r'<link[^>]*\shref="(https?:|//)', text))
    assert loaded == set()


def test_search_knows_the_pages(site: Path) -> None:
    told = json.dumps(json.loads((site / "search.json").read_text("utf-8")))
    assert "sources/postgresql/" in told
    assert "maximumBytesBilled" in told


def test_the_reference_has_the_docstrings(site: Path) -> None:
    text = (site / "reference" / "python" / "index.html").read_text("utf-8")
    assert "none of them is contacted yet" in text
    assert 'id="batuta_sql.cursor.Cursor.fetch_arrow_table"' in text


@pytest.mark.parametrize("broken", BROKEN)
def test_what_leads_nowhere_ends_the_build(project: Path, site: Path, broken: str) -> None:
    page = project / "docs" / "tutorial.md"
    before = page.read_text("utf-8")
    page.write_text(f"{before}\n\n{broken}\n", "utf-8")
    try:
        assert build(project).returncode != 0
    finally:
        page.write_text(before, "utf-8")
